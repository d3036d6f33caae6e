//! Renaming of large values, which keep their shard: a forwarding entry leads from the new name to
//! the relocated key. Writers, watchers, blocked clients and checkpoints must not notice.

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

const DEADLINE: Duration = Duration::from_secs(60);
/// Number of names, enough for several home shards.
const NAMES: u64 = 12;
const COUNTERS: i64 = 5;
const CONNECTIONS: u64 = 4;

fn name(random: &mut Random) -> String {
    format!("name:{}", random.below(NAMES))
}

/// Element that makes its collection too large to be copied on a rename.
fn long_element() -> String {
    "x".repeat(20_000)
}

/// Renames and moves hashes of both databases, and increments their counters, until stopped.
fn rename_and_count(
    server: &Server,
    mut random: Random,
    stop: &AtomicBool,
    counted: &AtomicI64,
) -> Result<()> {
    let mut raw = server.raw()?;
    while !stop.load(Relaxed) {
        let (db, one, other) = (random.below(2), name(&mut random), name(&mut random));
        raw.call(&["SELECT", &db.to_string()])?;
        match random.below(8) {
            0..3 => {
                // An error if the source does not exist.
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
                    // Whether or not the rename succeeds, `other` is a counter afterwards.
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

/// Number of hashes in both databases, and the sum of their counters.
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
                ensure!(raw.text(&["HGET", &key, "long"])? == long_element());
            }
        }
    }
    Ok((keys, sum))
}

#[test]
fn renamed_counters_lose_no_increment() -> TestResult {
    let mut random = Random::new(random::seed());
    let mut server = Server::builder().arg("--databases", "2").start()?;
    for counter in 0..COUNTERS {
        let key = format!("name:{counter}");
        server.text(&["HSET", &key, "count", "0", "long", &long_element()])?;
    }
    server.text(&["DEBUG", "CHECKPOINT-DIGEST", "yes"])?;
    let (stop, counted) = (AtomicBool::new(false), AtomicI64::new(0));
    thread::scope(|scope| -> Result<()> {
        let works: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (server, random) = (&server, Random::new(random.next()));
                let (stop, counted) = (&stop, &counted);
                scope.spawn(move || rename_and_count(server, random, stop, counted))
            })
            .collect();
        let watched = wait_until(|| Ok(counted.load(Relaxed) > 2_000), DEADLINE, "counts");
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
    // The checkpoint was written during the renames.
    let digest = server.info("cowherd_last_checkpoint_digest")?;
    server.kill9()?;
    server.restart()?;
    ensure!(server.digest()? == digest, "the restored digest differs");
    let (keys, restored) = sum(&server)?;
    ensure!(keys == COUNTERS && (1..=counted).contains(&restored), "{keys}: {restored}");
    // Restored relocated keys can be renamed.
    let mut raw = server.raw()?;
    for number in 0..NAMES {
        let (from, to) = (format!("name:{number}"), format!("last:{number}"));
        if raw.number(&["EXISTS", &from])? == 1 {
            raw.call(&["RENAME", &from, &to])?;
            ensure!(raw.text(&["HGET", &to, "long"])? == long_element());
        }
    }
    server.text(&["DEBUG", "VERIFY"])?;
    Ok(())
}

/// Sends a blocking command.
fn block(server: &Server, words: &[&str]) -> Result<RawConnection> {
    let mut raw = server.raw()?;
    send_blocking(&mut raw, words, &mut server.raw()?, DEADLINE)?;
    Ok(raw)
}

fn expect(raw: &mut RawConnection, wanted: &str) -> TestResult {
    let reply = show(&raw.read_reply()?);
    ensure!(reply == wanted, "received {reply}, not {wanted}");
    Ok(())
}

#[test]
fn blocked_clients_are_served_by_relocated_keys() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    for number in 0..NAMES {
        let (key, other) = (format!("key:{number}"), format!("other:{number}"));
        raw.call(&["RPUSH", "list", &long_element(), "tail"])?;
        raw.call(&["HSET", "hash", "field", &long_element()])?;
        // A list is renamed to the key.
        let mut one = block(&server, &["BRPOP", &key, "0"])?;
        raw.call(&["RENAME", "list", &key])?;
        expect(&mut one, &show(&encode(&[key.as_str(), "tail"])))?;
        // The key was relocated before it was deleted and is created again.
        raw.call(&["DEL", &key])?;
        let mut two = block(&server, &["BLPOP", &other, &key, "0"])?;
        raw.call(&["RPUSH", &key, "again"])?;
        expect(&mut two, &show(&encode(&[key.as_str(), "again"])))?;
        // A hash is renamed to the key; the client's other key still wakes the client.
        let mut three = block(&server, &["BLMPOP", "0", "2", &other, &key, "LEFT"])?;
        raw.call(&["RENAME", "hash", &key])?;
        raw.call(&["RPUSH", &other, "value"])?;
        let wanted = format!("*2\r\n${}\r\n{other}\r\n*1\r\n$5\r\nvalue\r\n", other.len());
        expect(&mut three, &show(wanted.as_bytes()))?;
        // In a transaction, with a relocated target.
        let mut four = block(&server, &["BLMOVE", &other, &key, "LEFT", "RIGHT", "0"])?;
        raw.call(&["MULTI"])?;
        raw.call(&["DEL", &key])?;
        raw.call(&["RPUSH", &other, "moved"])?;
        raw.call(&["EXEC"])?;
        expect(&mut four, &show(b"$5\r\nmoved\r\n"))?;
        ensure!(raw.text(&["LPOP", &key])? == "moved");
    }
    Ok(())
}

/// Clients wait for one stream and for another that is relocated before or afterwards, so that each
/// client needs a shard other than that of the write.
#[test]
fn clients_blocked_on_several_keys_delay_no_other() -> TestResult {
    let server = Server::builder().arg("--io-threads", "8").start()?;
    let mut raw = server.raw()?;
    let far = format!("{}-0", 1_u64 << 60);
    let mut waiters = Vec::new();
    for number in 0..NAMES {
        let (away, later) = (format!("away:{number}"), format!("later:{number}"));
        let built = format!("built:{number}");
        raw.call(&["XADD", &built, "1-1", "field", &long_element()])?;
        raw.call(&["RENAME", &built, &away])?;
        for other in [&away, &later] {
            let words = ["XREAD", "BLOCK", "0", "STREAMS", "key", other, &far, &far];
            waiters.push(block(&server, &words)?);
        }
        let built = format!("built later:{number}");
        raw.call(&["XADD", &built, "1-1", "field", &long_element()])?;
        raw.call(&["RENAME", &built, &later])?;
        raw.call(&["XADD", "key", "*", "field", "value"])?;
    }
    // The stream that all clients wait for changes its shard meanwhile.
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
                    raw.call(&["XADD", &built, "1-1", "field", &long_element()])?;
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
        let reply = show(&waiter.read_reply()?);
        ensure!(reply.contains("1152921504606846976-1"), "received {reply}");
    }
    server.text(&["DEBUG", "VERIFY"])?;
    Ok(())
}

#[test]
fn watchers_notice_changes_of_relocated_keys() -> TestResult {
    let server = Server::start()?;
    let (mut raw, mut other) = (server.raw()?, server.raw()?);
    let mut check = |key: &str, change: &[&str], aborts: bool| -> TestResult {
        raw.call(&["WATCH", key])?;
        other.call(change)?;
        raw.call(&["MULTI"])?;
        raw.call(&["PING"])?;
        let aborted = raw.call(&["EXEC"])? == Value::Nil;
        ensure!(aborted == aborts, "{change:?}, with {key} watched: aborted {aborted}");
        Ok(())
    };
    for number in 0..NAMES {
        let key = format!("key:{number}");
        let set = ["HSET", "hash", "field", &long_element()];
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
