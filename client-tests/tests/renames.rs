//! Large values under new names: they stay where they are, and their names go to them. Nobody may
//! notice: not who writes, watches or waits, nor a save.

use anyhow::{Result, ensure};
use client_tests::TestResult;
use client_tests::random::{self, Random};
use client_tests::server::Server;
use client_tests::wait::{blocked_clients, send_blocking, wait_until};
use client_tests::wire::{RawConnection, encode, show};
use redis::Value;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Names whose hashes choose their shards: so many that hardly all choose the same.
const NAMES: u64 = 12;
const COUNTERS: i64 = 5;
const CONNECTIONS: u64 = 4;

fn name(random: &mut Random) -> String {
    format!("name:{}", random.below(NAMES))
}

/// An element that makes its collection too large to be copied in passing.
fn long() -> String {
    "x".repeat(20_000)
}

/// Renames, moves and counts in hashes of both databases until told to stop.
fn work(server: &Server, mut random: Random, stop: &AtomicBool, counted: &AtomicI64) -> Result<()> {
    let mut raw = server.raw()?;
    while !stop.load(Relaxed) {
        let (db, one, other) = (random.below(2), name(&mut random), name(&mut random));
        raw.call(&["SELECT", &db.to_string()])?;
        match random.below(8) {
            0..3 => {
                // None is there: an error, and nothing has happened.
                raw.exchange(&["RENAMENX", &one, &other])?;
            }
            3 => {
                raw.call(&["MOVE", &one, &(1 - db).to_string()])?;
            }
            4 => {
                raw.call(&["SWAPDB", "0", "1"])?;
            }
            _ => {
                raw.call(&["WATCH", &one])?;
                let is_there = raw.number(&["EXISTS", &one])? == 1;
                raw.call(&["MULTI"])?;
                if is_there {
                    // Whichever of them had the name before, it is a counter's afterwards.
                    raw.call(&["RENAMENX", &one, &other])?;
                    raw.call(&["HINCRBY", &other, "count", "1"])?;
                }
                if raw.call(&["EXEC"])? != Value::Nil && is_there {
                    counted.fetch_add(1, Relaxed);
                }
            }
        }
    }
    Ok(())
}

/// The number of hashes in both databases and the sum of their counts.
fn sum(server: &Server) -> Result<(i64, i64)> {
    let mut raw = server.raw()?;
    let (mut keys, mut sum) = (0, 0);
    for db in ["0", "1"] {
        raw.call(&["SELECT", db])?;
        keys += raw.number(&["DBSIZE"])?;
        for number in 0..NAMES {
            let key = format!("name:{number}");
            if raw.number(&["EXISTS", &key])? == 1 {
                sum += raw.text(&["HGET", &key, "count"])?.parse::<i64>()?;
                ensure!(raw.text(&["HGET", &key, "long"])? == long());
            }
        }
    }
    Ok((keys, sum))
}

#[test]
fn counters_that_change_their_names_lose_no_count() -> TestResult {
    let mut random = Random::new(random::seed());
    let mut server = Server::builder().arg("--databases", "2").start()?;
    for counter in 0..COUNTERS {
        let key = format!("name:{counter}");
        server.text(&["HSET", &key, "count", "0", "long", &long()])?;
    }
    server.text(&["DEBUG", "CHECKPOINT-DIGEST", "yes"])?;
    let (stop, counted) = (AtomicBool::new(false), AtomicI64::new(0));
    thread::scope(|scope| -> Result<()> {
        let works: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (server, random) = (&server, Random::new(random.next()));
                let (stop, counted) = (&stop, &counted);
                scope.spawn(move || work(server, random, stop, counted))
            })
            .collect();
        let watched = wait_until(|| Ok(counted.load(Relaxed) > 2_000), PATIENCE, "counts");
        let saved = watched.and_then(|()| server.bgsave_and_wait());
        stop.store(true, Relaxed);
        for work in works {
            work.join().map_err(|_| anyhow::anyhow!("a connection panicked"))??;
        }
        saved
    })?;
    let counted = counted.into_inner();
    ensure!(sum(&server)? == (COUNTERS, counted), "{:?} of {counted}", sum(&server)?);
    server.text(&["DEBUG", "VERIFY"])?;
    // The save came amid all that.
    let saved = server.info("cowherd_last_checkpoint_digest")?;
    server.kill9()?;
    server.restart()?;
    ensure!(server.digest()? == saved, "what was restored is not what was saved");
    let (keys, restored) = sum(&server)?;
    ensure!(keys == COUNTERS && (1..=counted).contains(&restored), "{keys}: {restored}");
    // And they are found where they are.
    let mut raw = server.raw()?;
    for number in 0..NAMES {
        let (from, to) = (format!("name:{number}"), format!("last:{number}"));
        if raw.number(&["EXISTS", &from])? == 1 {
            raw.call(&["RENAME", &from, &to])?;
            ensure!(raw.text(&["HGET", &to, "long"])? == long());
        }
    }
    server.text(&["DEBUG", "VERIFY"])?;
    Ok(())
}

/// Sends a request that waits.
fn wait(server: &Server, words: &[&str]) -> Result<RawConnection> {
    let mut raw = server.raw()?;
    send_blocking(&mut raw, words, &mut server.raw()?, PATIENCE)?;
    Ok(raw)
}

fn expect(raw: &mut RawConnection, wanted: &str) -> TestResult {
    let heard = show(&raw.read_reply()?);
    ensure!(heard == wanted, "heard {heard}, not {wanted}");
    Ok(())
}

#[test]
fn who_waits_is_served_wherever_the_key_is() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    for number in 0..NAMES {
        let (key, other) = (format!("key:{number}"), format!("other:{number}"));
        raw.call(&["RPUSH", "list", &long(), "tail"])?;
        raw.call(&["HSET", "hash", "field", &long()])?;
        // A list comes to the key.
        let mut one = wait(&server, &["BRPOP", &key, "0"])?;
        raw.call(&["RENAME", "list", &key])?;
        expect(&mut one, &show(&encode(&[key.as_str(), "tail"])))?;
        // The key was away from home, and is, if only for a moment, when it is there again.
        raw.call(&["DEL", &key])?;
        let mut two = wait(&server, &["BLPOP", &other, &key, "0"])?;
        raw.call(&["RPUSH", &key, "again"])?;
        expect(&mut two, &show(&encode(&[key.as_str(), "again"])))?;
        // A hash comes to a key that a client waits for; what it waits for besides still counts.
        let mut three = wait(&server, &["BLMPOP", "0", "2", &other, &key, "LEFT"])?;
        raw.call(&["RENAME", "hash", &key])?;
        raw.call(&["RPUSH", &other, "value"])?;
        let wanted = format!("*2\r\n${}\r\n{other}\r\n*1\r\n$5\r\nvalue\r\n", other.len());
        expect(&mut three, &show(wanted.as_bytes()))?;
        // The same in a transaction, with a target that has moved.
        let mut four = wait(&server, &["BLMOVE", &other, &key, "LEFT", "RIGHT", "0"])?;
        raw.call(&["MULTI"])?;
        raw.call(&["DEL", &key])?;
        raw.call(&["RPUSH", &other, "moved"])?;
        raw.call(&["EXEC"])?;
        expect(&mut four, &show(b"$5\r\nmoved\r\n"))?;
        ensure!(raw.text(&["LPOP", &key])? == "moved");
    }
    Ok(())
}

/// Clients wait for one stream and another that was away from home when they came, or went there
/// afterwards: each needs another shard than what is written to.
#[test]
fn who_waits_for_several_keys_holds_nobody_up() -> TestResult {
    let server = Server::builder().arg("--io-threads", "8").start()?;
    let mut raw = server.raw()?;
    let far = format!("{}-0", 1_u64 << 60);
    let mut waiters = Vec::new();
    for number in 0..NAMES {
        let (away, later) = (format!("away:{number}"), format!("later:{number}"));
        let built = format!("built:{number}");
        raw.call(&["XADD", &built, "1-1", "field", &long()])?;
        raw.call(&["RENAME", &built, &away])?;
        for other in [&away, &later] {
            let words = ["XREAD", "BLOCK", "0", "STREAMS", "key", other, &far, &far];
            waiters.push(wait(&server, &words)?);
        }
        let built = format!("built later:{number}");
        raw.call(&["XADD", &built, "1-1", "field", &long()])?;
        raw.call(&["RENAME", &built, &later])?;
        raw.call(&["XADD", "key", "*", "field", "value"])?;
    }
    // The stream that all wait for goes from shard to shard meanwhile.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let mut works = Vec::new();
        for number in 0..CONNECTIONS {
            let (server, stop) = (&server, &stop);
            works.push(scope.spawn(move || -> Result<()> {
                let mut raw = server.raw()?;
                for turn in 0.. {
                    if stop.load(Relaxed) {
                        break;
                    }
                    let built = format!("built:{number}:{turn}");
                    raw.call(&["XADD", &built, "1-1", "field", &long()])?;
                    raw.call(&["RENAME", &built, "key"])?;
                    raw.call(&["XADD", "key", "*", "field", "value"])?;
                }
                Ok(())
            }));
        }
        for _ in 0..1_000 {
            raw.call(&["XADD", "key", "*", "field", "value"])?;
        }
        stop.store(true, Relaxed);
        for work in works {
            work.join().map_err(|_| anyhow::anyhow!("a connection panicked"))??;
        }
        Ok(())
    })?;
    ensure!(blocked_clients(&mut raw)? == waiters.len());
    raw.call(&["XADD", "key", "1152921504606846976-1", "field", "value"])?;
    for waiter in &mut waiters {
        let heard = show(&waiter.read_reply()?);
        ensure!(heard.contains("1152921504606846976-1"), "heard {heard}");
    }
    server.text(&["DEBUG", "VERIFY"])?;
    Ok(())
}

#[test]
fn who_watches_a_key_is_told_wherever_it_is() -> TestResult {
    let server = Server::start()?;
    let (mut raw, mut other) = (server.raw()?, server.raw()?);
    let mut check = |key: &str, change: &[&str], is_told: bool| -> TestResult {
        raw.call(&["WATCH", key])?;
        other.call(change)?;
        raw.call(&["MULTI"])?;
        raw.call(&["PING"])?;
        let told = raw.call(&["EXEC"])? == Value::Nil;
        ensure!(told == is_told, "{change:?}, with {key} watched: told {told}");
        Ok(())
    };
    for number in 0..NAMES {
        let key = format!("key:{number}");
        let set = ["HSET", "hash", "field", &long()];
        check(&key, &set, false)?;
        check("hash", &["RENAME", "hash", &key], true)?;
        check(&key, &set, false)?;
        check(&key, &["RENAME", "hash", &key], true)?;
        check(&key, &["HSET", &key, "other", "1"], true)?;
        check(&key, &["SWAPDB", "1", "2"], false)?;
        check(&key, &["SWAPDB", "0", "1"], true)?;
        check(&key, &["SWAPDB", "0", "1"], true)?;
        check(&key, &["HDEL", &key, "none"], false)?;
        check(&key, &["PEXPIRE", &key, "-1"], true)?;
        check(&key, &["DEL", &key], false)?;
        check("hash", &set, true)?;
        check("hash", &["RENAME", "hash", &key], true)?;
        check(&key, &["MOVE", &key, "3"], true)?;
        check(&key, &["FLUSHALL"], false)?;
        check("hash", &set, true)?;
        check("hash", &["RENAME", "hash", &key], true)?;
        check(&key, &["FLUSHALL"], true)?;
    }
    Ok(())
}
