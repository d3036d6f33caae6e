//! Client-side caching: the messages about changed keys, compared with Redis; caches of libraries;
//! that no cache ever keeps a value that has changed.

use anyhow::{Context, Result, ensure};
use client_tests::conversation::{self, arguments, until_pong};
use client_tests::peer::Peer;
use client_tests::random::{Random, seed};
use client_tests::server::Server;
use client_tests::wait::wait_until;
use client_tests::wire::{RawConnection, encode, show};
use client_tests::{TestResult, libraries, skip};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CONVERSATION: &str = include_str!("peer/tracking.txt");
const CONNECTIONS: [(&str, &str); 4] = [("a", "3"), ("b", "2"), ("c", "2"), ("d", "2")];
/// Number of keys that change and are cached.
const KEYS: u64 = 200;
const DEADLINE: Duration = Duration::from_secs(20);

/// Differences between the servers, with the reason.
fn is_allowed(note: &str) -> bool {
    // The greeting names the server, its version and the connection.
    note.starts_with("a HELLO")
}

#[test]
fn messages_are_those_of_redis() -> TestResult {
    let peers = [Peer::start()?, Peer::start_newer()?];
    if peers.iter().all(Option::is_none) {
        skip!("redis-server is not installed");
    }
    for peer in peers.iter().flatten() {
        let server = Server::start()?;
        let redis = conversation::run(CONVERSATION, &CONNECTIONS, &|| peer.raw())?;
        let cowherd = conversation::run(CONVERSATION, &CONNECTIONS, &|| server.raw())?;
        ensure!(redis.len() > 800, "only {} notes", redis.len());
        for (redis, cowherd) in redis.iter().zip(&cowherd) {
            let is_equal = redis == cowherd || is_allowed(redis);
            ensure!(is_equal, "redis:   {redis}\ncowherd: {cowherd}");
        }
    }
    Ok(())
}

fn tracking(server: &Server, options: &str) -> Result<RawConnection> {
    let mut raw = server.raw()?;
    raw.call(&["HELLO", "3"])?;
    raw.call(&arguments(&format!("CLIENT TRACKING ON{options}")))?;
    Ok(raw)
}

fn invalidate(key: &str) -> String {
    show(format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len()).as_bytes())
}

fn next(raw: &mut RawConnection) -> Result<String> {
    Ok(show(&raw.read_reply()?))
}

const ALL: &str = r">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// Redis says nothing of swapped databases, so that caches become wrong.
#[test]
fn swapped_databases_invalidate_all_keys() -> TestResult {
    let server = Server::start()?;
    let mut raw = tracking(&server, "")?;
    raw.call(&["GET", "k"])?;
    server.text(&["SWAPDB", "0", "1"])?;
    ensure!(next(&mut raw)? == ALL);
    Ok(())
}

#[test]
fn expired_and_evicted_keys_are_invalidated() -> TestResult {
    let server = Server::builder()
        .arg("--maxmemory", "8mb")
        .arg("--maxmemory-policy", "allkeys-random")
        .start()?;
    let mut raw = tracking(&server, " NOLOOP")?;
    // Until the key is read before it expires.
    loop {
        raw.call(&["SET", "k", "v", "PX", "200"])?;
        if raw.bytes(&["GET", "k"])?.is_some() {
            break;
        }
    }
    // No command touches the key, and the client itself has set it.
    ensure!(next(&mut raw)? == invalidate("k"));
    raw.call(&["SET", "victim", "v"])?;
    raw.call(&["GET", "victim"])?;
    let value = "x".repeat(100_000);
    for n in 0.. {
        server.text(&["SET", &format!("filler:{n}"), &value])?;
        ensure!(n < 100_000, "nothing evicts the key");
        if !until_pong(&mut raw, "pong")?.is_empty() {
            break;
        }
    }
    ensure!(raw.bytes(&["GET", "victim"])?.is_none());
    Ok(())
}

#[test]
fn the_table_keeps_its_limit() -> TestResult {
    let server = Server::start()?;
    server.text(&["CONFIG", "SET", "tracking-table-max-keys", "100"])?;
    let mut raw = tracking(&server, "")?;
    for n in 0..1000 {
        raw.send(&encode(&["GET", &format!("k{n}")]))?;
    }
    let (mut replies, mut dropped) = (0, 0);
    while replies < 1000 {
        match &*next(&mut raw)? {
            r"_\r\n" => replies += 1,
            message if message.starts_with(">2") => dropped += 1,
            other => anyhow::bail!("{other}"),
        }
    }
    dropped += until_pong(&mut raw, "pong")?.len();
    ensure!(dropped == 900, "{dropped} keys were dropped");
    ensure!(server.info("tracking_total_keys")? == "100");
    ensure!(server.info("tracking_total_items")? == "100");
    server.text(&["CONFIG", "SET", "tracking-table-max-keys", "30"])?;
    for _ in 0..70 {
        ensure!(next(&mut raw)?.starts_with(">2"));
    }
    ensure!(server.info("tracking_total_keys")? == "30");
    ensure!(server.info("tracking_clients")? == "1");
    drop(raw);
    let ended = || Ok(server.info("tracking_clients")? == "0");
    wait_until(ended, DEADLINE, "the client to disconnect")?;
    ensure!(server.info("tracking_total_keys")? == "0", "nobody is left to be told");
    Ok(())
}

#[test]
fn a_lost_redirect_is_reported() -> TestResult {
    let server = Server::start()?;
    let mut target = server.raw()?;
    let number = target.number(&["CLIENT", "ID"])?;
    let mut raw = tracking(&server, &format!(" REDIRECT {number}"))?;
    ensure!(raw.number(&["CLIENT", "GETREDIR"])? == number);
    raw.call(&["GET", "k"])?;
    drop(target);
    let is_gone = || Ok(!server.text(&["CLIENT", "LIST"])?.contains(&format!("id={number} ")));
    wait_until(is_gone, DEADLINE, "the target to disconnect")?;
    server.text(&["SET", "k", "v"])?;
    let broken = format!(r">2\r\n$21\r\ntracking-redir-broken\r\n:{number}\r\n");
    ensure!(next(&mut raw)? == broken);
    let info = show(&raw.exchange(&["CLIENT", "TRACKINGINFO"])?);
    ensure!(info.contains("broken_redirect"), "{info}");
    let list = raw.text(&["CLIENT", "INFO"])?;
    ensure!(list.contains(" flags=tR ") && list.contains(&format!(" redir={number} ")), "{list}");
    Ok(())
}

/// What rueidis sends: a cached read is one pipeline with the key's time to live.
#[test]
fn the_sequence_of_rueidis_works() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let lines = [
        "HELLO 3",
        "CLIENT TRACKING ON OPTIN",
        "CLIENT SETINFO LIB-NAME rueidis",
        "CLIENT SETINFO LIB-VER 1.0.0",
    ];
    raw.send(&lines.iter().flat_map(|line| encode(&arguments(line))).collect::<Vec<_>>())?;
    for line in lines {
        let reply = next(&mut raw)?;
        ensure!(!reply.starts_with('-'), "{line}: {reply}");
    }
    let cached_read = |raw: &mut RawConnection| -> Result<Vec<String>> {
        let lines = ["CLIENT CACHING YES", "MULTI", "PTTL k", "GET k", "EXEC"];
        raw.send(&lines.iter().flat_map(|line| encode(&arguments(line))).collect::<Vec<_>>())?;
        lines.iter().map(|_| next(raw)).collect()
    };
    server.text(&["SET", "k", "1"])?;
    let expected =
        [r"+OK\r\n", r"+OK\r\n", r"+QUEUED\r\n", r"+QUEUED\r\n", r"*2\r\n:-1\r\n$1\r\n1\r\n"];
    ensure!(cached_read(&mut raw)? == expected);
    raw.call(&["GET", "other"])?;
    server.text(&["MSET", "k", "2", "other", "2"])?;
    ensure!(next(&mut raw)? == invalidate("k"));
    ensure!(cached_read(&mut raw)?[4] == r"*2\r\n:-1\r\n$1\r\n2\r\n");
    server.text(&["PEXPIRE", "k", "1"])?;
    ensure!(next(&mut raw)? == invalidate("k"));
    server.text(&["FLUSHALL"])?;
    ensure!(next(&mut raw)? == ALL);
    Ok(())
}

#[test]
fn redis_py_caches() -> TestResult {
    libraries::run_python("redis", "redis_py_cache.py", "ok")
}

#[test]
fn node_redis_caches() -> TestResult {
    libraries::run_node("redis", "node_redis_cache.mjs", "node-redis ok")
}

#[test]
fn ioredis_caches() -> TestResult {
    libraries::run_node("ioredis", "ioredis_cache.mjs", "ioredis ok")
}

/// A random command that changes one of a few keys.
fn change(random: &mut Random) -> Vec<String> {
    let key = format!("key:{}", random.below(KEYS));
    let other = format!("key:{}", random.below(KEYS));
    let value = random.below(1_000_000_000).to_string();
    let lines = match random.below(24) {
        0..=4 => format!("SET {key} {value}"),
        5 => format!("SET {key} {value} PX 1"),
        6 => format!("MSET {key} {value} {other} {value}"),
        7 => format!("APPEND {key} {value}"),
        8 => format!("DEL {key} {other}"),
        9 => format!("RENAME {key} {other}"),
        10 => format!("COPY {key} {other} REPLACE"),
        11 => format!("HSET {key} {value} {value}"),
        12 => format!("RPUSH {key} {value}"),
        13 => format!("LPOP {key}"),
        14 => format!("SADD {key} {value}"),
        15 => format!("SPOP {key}"),
        16 => format!("ZADD {key} {value} {value}"),
        17 => format!("PEXPIRE {key} 2"),
        18 => format!("MULTI\nSET {key} {value}\nINCR {other}\nEXEC"),
        19 => format!("LMOVE {key} {other} LEFT RIGHT"),
        20 => format!("SUNIONSTORE {key} {other} {key}"),
        21 => format!("GETDEL {key}"),
        22 if random.below(50) == 0 => "FLUSHALL".to_owned(),
        22 if random.below(50) == 0 => "SWAPDB 0 1".to_owned(),
        _ => format!("SETRANGE {key} 3 {value}"),
    };
    lines.lines().map(str::to_owned).collect()
}

/// A read of a key, whatever its type.
fn read(raw: &mut RawConnection, key: &str) -> Result<()> {
    for line in [
        format!("GET {key}"),
        format!("HGETALL {key}"),
        format!("LRANGE {key} 0 -1"),
        format!("SMEMBERS {key}"),
        format!("ZRANGE {key} 0 -1"),
    ] {
        raw.send(&encode(&arguments(&line)))?;
    }
    Ok(())
}

/// A client that keeps the replies to its reads until a message says that the key has changed.
struct Cache {
    raw: RawConnection,
    values: HashMap<String, Vec<String>>,
}

impl Cache {
    /// Applies one message.
    fn apply(&mut self, message: &str) -> Result<()> {
        if message == ALL {
            self.values.clear();
            return Ok(());
        }
        let key = message.split("\\r\\n").nth(5).context("no key")?;
        ensure!(message == invalidate(key), "{message}");
        self.values.remove(key);
        Ok(())
    }

    /// Reads a key, and keeps the replies unless the key changes meanwhile.
    fn fetch(&mut self, key: &str) -> Result<()> {
        read(&mut self.raw, key)?;
        let mut replies = Vec::new();
        while replies.len() < 5 {
            let reply = next(&mut self.raw)?;
            if reply.starts_with('>') {
                self.apply(&reply)?;
                // The key may have changed after one of the reads.
                if reply == ALL || reply == invalidate(key) {
                    replies.iter_mut().for_each(String::clear);
                }
            } else {
                replies.push(reply);
            }
        }
        if replies.iter().all(|reply| !reply.is_empty()) {
            self.values.insert(key.to_owned(), replies);
        }
        Ok(())
    }
}

/// Counts one less when it is dropped.
struct Countdown<'a>(&'a AtomicU64);

impl Drop for Countdown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Whatever is in the cache once nothing changes any more is what the server has.
#[test]
fn caches_are_coherent() -> TestResult {
    const WRITERS: u64 = 3;
    let seed = seed();
    let server = Server::builder().arg("--threads", "2").start()?;
    let mut caches = Vec::new();
    for options in ["", "", " BCAST PREFIX key:", " NOLOOP"] {
        caches.push(Cache { raw: tracking(&server, options)?, values: HashMap::new() });
    }
    let mut kept = 0;
    for round in 0..10 {
        let running = AtomicU64::new(WRITERS);
        std::thread::scope(|scope| -> TestResult {
            let mut threads = Vec::new();
            for writer in 0..WRITERS {
                let mut random = Random::new(seed ^ (round * WRITERS + writer));
                let mut raw = server.raw()?;
                let running = &running;
                threads.push(scope.spawn(move || -> TestResult {
                    let _ended = Countdown(running);
                    for _ in 0..1000 {
                        for line in change(&mut random) {
                            raw.exchange(&arguments(&line))?;
                        }
                    }
                    Ok(())
                }));
            }
            for (number, cache) in caches.iter_mut().enumerate() {
                let mut random = Random::new(seed ^ (1000 + round * 10 + number as u64));
                let running = &running;
                threads.push(scope.spawn(move || -> TestResult {
                    while running.load(Ordering::Acquire) > 0 {
                        let key = format!("key:{}", random.below(KEYS));
                        if !cache.values.contains_key(&key) {
                            cache.fetch(&key)?;
                        }
                    }
                    Ok(())
                }));
            }
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            Ok(())
        })?;
        // All keys with an expiry go, so that the caches and the reads below see the same keys.
        let mut raw = server.raw()?;
        raw.call(&["HELLO", "3"])?;
        let no_expiry = || {
            let keyspace = server.text(&["INFO", "keyspace"])?;
            Ok(keyspace.lines().all(|line| !line.starts_with("db") || line.contains("expires=0")))
        };
        wait_until(no_expiry, DEADLINE, "keys to expire")?;
        for (number, cache) in caches.iter_mut().enumerate() {
            for message in until_pong(&mut cache.raw, "pong")? {
                cache.apply(&message)?;
            }
            for (key, replies) in &cache.values {
                read(&mut raw, key)?;
                for reply in replies {
                    let now = next(&mut raw)?;
                    ensure!(*reply == now, "cache {number} has {key} = {reply}, not {now}");
                }
                kept += 1;
            }
        }
    }
    ensure!(kept > 100, "only {kept} values were cached");
    Ok(())
}
