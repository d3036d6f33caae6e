//! Behavior at the memory limit by `maxmemory-policy`.

use anyhow::{Result, ensure};
use client_tests::TestResult;
use client_tests::random::Random;
use client_tests::server::Server;
use client_tests::wait::{send_blocking, wait_until};
use client_tests::wire::{OOM, RawConnection, encode, send_all, show};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);
/// Size of the arena, which is the memory limit.
const MEGABYTES: u64 = 48;

fn server(policy: &str) -> Result<Server> {
    Server::builder()
        .arg("--maxmemory", &format!("{MEGABYTES}mb"))
        .arg("--maxmemory-policy", policy)
        .start()
}

fn set(key: &str, length: usize, expires: bool) -> Vec<Vec<u8>> {
    let mut command = vec![b"SET".to_vec(), key.as_bytes().to_vec(), vec![b'x'; length]];
    if expires {
        command.extend([b"EX".to_vec(), b"1000000".to_vec()]);
    }
    command
}

fn number(server: &Server, field: &str) -> Result<u64> {
    Ok(server.info(field)?.parse()?)
}

#[test]
fn writes_succeed_with_every_evicting_policy() -> TestResult {
    let policies = [
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
    ];
    for policy in policies {
        let server = server(policy)?;
        let mut raw = server.raw()?;
        raw.call(&["SET", "lasting", "value"])?;
        let keys = 3 * MEGABYTES * 1000;
        let refused =
            send_all(&mut raw, (0..keys).map(|key| set(&format!("key:{key}"), 900, true)))?;
        ensure!(refused == 0, "{policy}: {refused} of {keys} writes were refused");
        // Background eviction may remove keys between the two readings.
        let mut kept = 0;
        let agree = || {
            kept = u64::try_from(raw.number(&["DBSIZE"])?)?;
            Ok(number(&server, "evicted_keys")? + kept == keys + 1)
        };
        wait_until(agree, DEADLINE, &format!("{policy}: keys that were evicted or are left"))?;
        ensure!(kept * 900 > MEGABYTES * 500_000, "{policy}: only {kept} keys are left");
        ensure!(limited(&server)? <= MEGABYTES << 20);
        if policy.starts_with("volatile") {
            ensure!(raw.number(&["EXISTS", "lasting"])? == 1, "{policy} took a lasting key");
        }
        ensure!(server.text(&["DEBUG", "VERIFY"])? == "OK");
    }
    Ok(())
}

/// A change of policy keeps what is known of the use of keys: after it, unused keys go first.
///
/// The clocks of LRU and LFU policies share their memory. Once a count was read as a time, and the
/// other way round: unused keys looked as if they were used all the time, and used keys were
/// evicted.
#[test]
fn unused_keys_go_first_after_any_change_of_policy() -> TestResult {
    const POLICIES: [&str; 8] = [
        "noeviction",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
    ];
    const KEYS: u64 = 8_000;
    let server = server("noeviction")?;
    let mut raw = server.raw()?;
    for before in POLICIES {
        for after in POLICIES {
            let what = || format!("from {before} to {after}");
            let use_policy = |raw: &mut RawConnection, policy| {
                raw.text(&["CONFIG", "SET", "maxmemory-policy", policy])
            };
            raw.text(&["CONFIG", "SET", "maxmemory", "0"])?;
            raw.text(&["FLUSHALL"])?;
            use_policy(&mut raw, before)?;
            let unused = (0..KEYS).map(|key| set(&format!("unused:{key}"), 900, true));
            ensure!(send_all(&mut raw, unused)? == 0);
            let used = (0..KEYS).map(|key| set(&format!("used:{key}"), 900, true));
            ensure!(send_all(&mut raw, used)? == 0);
            use_policy(&mut raw, after)?;
            if after.ends_with("lfu") {
                let count = raw.number(&["OBJECT", "FREQ", "unused:1"])?;
                ensure!(count <= 8, "{}: a count of {count}", what());
            } else {
                let seconds = raw.number(&["OBJECT", "IDLETIME", "unused:1"])?;
                ensure!(seconds < 3600, "{}: idle for {seconds} s", what());
            }
            if !after.ends_with("lfu") {
                continue;
            }
            // Counts grow with some of the accesses only.
            for _ in 0..20 {
                let reads =
                    (0..KEYS).map(|key| vec![b"GET".to_vec(), format!("used:{key}").into()]);
                send_all(&mut raw, reads)?;
            }
            raw.text(&["CONFIG", "SET", "maxmemory", "9mb"])?;
            let reached = || Ok(limited(&server)? <= 9 << 20);
            wait_until(reached, DEADLINE, &what())?;
            let mut left = |prefix: &str| -> Result<i64> {
                let mut words = vec!["EXISTS".to_owned()];
                words.extend((0..KEYS).map(|key| format!("{prefix}:{key}")));
                raw.number(&words)
            };
            let (unused, used) = (left("unused")?, left("used")?);
            ensure!(unused * 3 < used, "{}: {unused} unused and {used} used keys left", what());
        }
    }
    Ok(())
}

#[test]
fn writes_are_refused_without_an_evictable_key() -> TestResult {
    for policy in ["noeviction", "volatile-lru", "volatile-random", "volatile-ttl"] {
        let server = server(policy)?;
        let mut raw = server.raw()?;
        let keys = 2 * MEGABYTES * 1000;
        let expires = policy == "noeviction";
        let refused =
            send_all(&mut raw, (0..keys).map(|key| set(&format!("key:{key}"), 900, expires)))?;
        ensure!(refused > 0, "{policy}: nothing was refused");
        ensure!(number(&server, "evicted_keys")? == 0, "{policy} has evicted");
        let kept = u64::try_from(raw.number(&["DBSIZE"])?)?;
        ensure!(kept + refused == keys, "{policy}: {kept} keys are left");
        // Commands that free or only read memory still run.
        ensure!(raw.number(&["DEL", "key:0"])? == 1 && raw.bytes(&["GET", "key:1"])?.is_some());
    }
    Ok(())
}

/// The bytes that `maxmemory` limits.
fn limited(server: &Server) -> Result<u64> {
    Ok(number(server, "used_memory")? - number(server, "mem_not_counted_for_evict")?)
}

#[test]
fn a_lower_limit_is_reached_without_a_write() -> TestResult {
    let server = server("allkeys-lru")?;
    let mut raw = server.raw()?;
    send_all(&mut raw, (0..30_000).map(|key| set(&format!("key:{key}"), 900, false)))?;
    ensure!(limited(&server)? > 25 << 20);
    server.text(&["CONFIG", "SET", "maxmemory", "10mb"])?;
    let reached = || Ok(limited(&server)? <= 10 << 20);
    wait_until(reached, DEADLINE, "eviction")?;
    ensure!(raw.number(&["DBSIZE"])? > 5_000, "far more keys were evicted than necessary");
    ensure!(send_all(&mut raw, (0..5_000).map(|key| set(&format!("new:{key}"), 900, false)))? == 0);
    ensure!(limited(&server)? <= 11 << 20);
    // With nothing to evict, lowering the limit refuses writes.
    server.text(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"])?;
    server.text(&["CONFIG", "SET", "maxmemory", "5mb"])?;
    ensure!(raw.exchange(&["SET", "key", "value"])? == OOM);
    Ok(())
}

#[test]
fn eviction_makes_space_for_other_sizes() -> TestResult {
    let server = server("allkeys-lru")?;
    let mut raw = server.raw()?;
    let mut random = Random::new(1);
    for (length, count) in [(100, 400_000), (3_000, 30_000), (100_000, 2_000), (500, 200_000)] {
        let refused = send_all(
            &mut raw,
            (0..count).map(|_| {
                let key = format!("key:{length}:{}", random.below(1 << 40));
                let spread = usize::try_from(random.below(length / 5)).unwrap_or(0);
                set(&key, usize::try_from(length).unwrap_or(0) + spread, false)
            }),
        )?;
        ensure!(refused == 0, "{refused} of {count} values of {length} bytes were refused");
    }
    ensure!(server.text(&["DEBUG", "VERIFY"])? == "OK");
    Ok(())
}

/// Memory was reclaimed only for the sizes at the start of a transaction: in a full arena nearly
/// every other command of the transaction was refused, because no eviction ran while its locks were
/// held.
#[test]
fn eviction_makes_space_for_transactions() -> TestResult {
    let server = server("allkeys-lru")?;
    let mut raw = server.raw()?;
    let keys = MEGABYTES * 10_000;
    ensure!(send_all(&mut raw, (0..keys).map(|key| set(&format!("key:{key}"), 100, false)))? == 0);
    let sizes = [(3_000, 10), (100, 100), (20_000, 20), (60, 1_000), (5_000, 100)];
    for (length, count) in sizes {
        for round in 0..20u64 {
            let name = |key: usize| format!("new:{length}:{round}:{key}");
            let mut commands = vec![vec![b"MULTI".to_vec()]];
            commands.extend((0..count).map(|key| set(&name(key), length, false)));
            commands.extend((0..count).map(|key| vec![b"STRLEN".to_vec(), name(key).into_bytes()]));
            commands.push(vec![b"EXEC".to_vec()]);
            raw.send(&commands.iter().flat_map(|command| encode(command)).collect::<Vec<u8>>())?;
            for _ in 0..=2 * count {
                let reply = raw.read_reply()?;
                ensure!(!reply.starts_with(b"-"), "{}", show(&reply));
            }
            let wanted = format!(
                "*{}\r\n{}{}",
                2 * count,
                "+OK\r\n".repeat(count),
                format!(":{length}\r\n").repeat(count)
            );
            let reply = raw.read_reply()?;
            ensure!(reply == wanted.as_bytes(), "{length} bytes: {}", show(&reply));
        }
    }
    ensure!(server.text(&["DEBUG", "VERIFY"])? == "OK");
    Ok(())
}

#[test]
fn frequently_used_keys_survive_a_flood() -> TestResult {
    let server = server("allkeys-lfu")?;
    let mut raw = server.raw()?;
    let hot: Vec<String> = (0..500).map(|number| format!("hot:{number}")).collect();
    send_all(&mut raw, hot.iter().map(|key| set(key, 900, false)))?;
    for _ in 0..100 {
        let reads = hot.iter().map(|key| vec![b"GET".to_vec(), key.clone().into_bytes()]);
        send_all(&mut raw, reads)?;
    }
    let frequency = raw.number(&["OBJECT", "FREQ", "hot:1"])?;
    ensure!((7..30).contains(&frequency), "a hundred uses count as {frequency}");
    let keys = 4 * MEGABYTES * 1000;
    send_all(&mut raw, (0..keys).map(|key| set(&format!("key:{key}"), 900, false)))?;
    let asked: Vec<&str> =
        std::iter::once("EXISTS").chain(hot.iter().map(String::as_str)).collect();
    let left = raw.number(&asked)?;
    ensure!(left >= 450, "only {left} of 500 keys in frequent use are left");
    Ok(())
}

#[test]
fn eviction_is_published() -> TestResult {
    let server = server("allkeys-random")?;
    let (mut raw, mut listener) = (server.raw()?, server.raw()?);
    server.text(&["CONFIG", "SET", "notify-keyspace-events", "Ee"])?;
    listener.call(&["SUBSCRIBE", "__keyevent@0__:evicted"])?;
    raw.call(&["SET", "victim", "value"])?;
    server.text(&["CONFIG", "SET", "maxmemory", "1"])?;
    let message = String::from_utf8(listener.read_reply()?)?;
    ensure!(message.ends_with("evicted\r\n$6\r\nvictim\r\n"), "{message}");
    Ok(())
}

/// All keys of all databases were evicted for a command that was then refused all the same.
#[test]
fn a_command_beyond_the_limit_evicts_no_key() -> TestResult {
    let server = server("allkeys-lru")?;
    let mut raw = server.raw()?;
    send_all(&mut raw, (0..5_000).map(|key| set(&format!("key:{key}"), 900, false)))?;
    for command in
        [&["SETBIT", "bits", "4294967295", "1"][..], &["SETRANGE", "k", "500000000", "x"]]
    {
        ensure!(raw.exchange(command)? == OOM, "{command:?}");
    }
    ensure!(number(&server, "evicted_keys")? == 0 && raw.number(&["DBSIZE"])? == 5_000);
    // The arena is not considered full afterwards.
    send_all(&mut raw, (0..5_000).map(|key| set(&format!("more:{key}"), 900, false)))?;
    ensure!(number(&server, "evicted_keys")? == 0 && raw.number(&["DBSIZE"])? == 10_000);
    Ok(())
}

/// A command that blocks has been accepted: it must not be refused afterwards, when a write of
/// another client wakes it and requires eviction.
#[test]
fn blocked_clients_are_served_in_a_full_arena() -> TestResult {
    const WAITERS: usize = 300;
    let server = server("allkeys-lru")?;
    let mut raw = server.raw()?;
    let keys = 10 * MEGABYTES * 1000;
    ensure!(send_all(&mut raw, (0..keys).map(|key| set(&format!("key:{key}"), 90, false)))? == 0);
    let value = "x".repeat(6_000);
    let mut refused = 0;
    for number in 0..WAITERS {
        let (from, to) = (format!("from:{number}"), format!("to:{number}"));
        let mut waiter = server.raw()?;
        let words = ["BLMOVE", &from, &to, "LEFT", "RIGHT", "0"];
        send_blocking(&mut waiter, &words, &mut raw, DEADLINE)?;
        ensure!(raw.number(&["RPUSH", &from, &value])? == 1);
        let reply = waiter.read_reply()?;
        refused += usize::from(reply == OOM);
        ensure!(reply == OOM || reply.ends_with(b"xx\r\n"), "{}", show(&reply));
    }
    ensure!(refused == 0, "{refused} of {WAITERS} blocked clients were refused");
    server.text(&["DEBUG", "VERIFY"])?;
    Ok(())
}
