//! Snapshot isolation: a checkpoint contains the keyspace of one instant, regardless of concurrent
//! writes.
//!
//! Writers never pause; the server computes a digest in the safepoint of each checkpoint; the test
//! kills the server with SIGKILL; the keyspace that the next start restores must have this digest.
//! The staircase of `load.rs` is a second check, independent of the server's digest.

use anyhow::{Context, Result, bail, ensure};
use client_tests::hugepages::{self, PageSize};
use client_tests::load::{self, WriterControl};
use client_tests::random::{self, Random};
use client_tests::server::{Server, ServerBuilder};
use client_tests::wire::{RawConnection, show};
use client_tests::{TestResult, rounds, skip};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

const WRITERS: u64 = 8;

fn server_with(pages: &str, isolation: &str, megabytes: u64) -> ServerBuilder {
    Server::builder()
        .arg("--checkpoint-isolation", isolation)
        .arg("--arena-pages", pages)
        .arg("--maxmemory", &format!("{megabytes}mb"))
        .arg("--maxmemory-policy", "noeviction")
        // Low limits, so that values change their encoding often.
        .arg("--hash-max-listpack-entries", "16")
        .arg("--set-max-listpack-entries", "16")
        .arg("--set-max-intset-entries", "16")
        .arg("--zset-max-listpack-entries", "16")
}

/// One round: checkpoint and SIGKILL during writes, restart, comparison.
fn round(server: &mut Server, random: &mut Random, height: &mut u64) -> Result<()> {
    let signals = WriterControl::default();
    let port = server.port();
    let first = *height + 1;
    let digest = thread::scope(|scope| {
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let stream = Random::new(random.next());
            let signals = &signals;
            writers.push(scope.spawn(move || load::mixed(port, writer, stream, signals)));
        }
        writers.push(scope.spawn(|| load::staircase(port, first, &signals)));
        let digest = checkpoint_and_kill(server, random, &signals);
        signals.stop.store(true, Relaxed);
        for writer in writers {
            writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        digest
    })?;
    server.restart()?;
    let restored = server.digest()?;
    ensure!(restored == digest, "wrote {digest}, but restored {restored}");
    *height = load::check_staircase(&mut server.raw()?)?;
    Ok(())
}

/// Writes a checkpoint and kills the server, both at random times; returns the checkpoint's digest.
fn checkpoint_and_kill(
    server: &mut Server,
    random: &mut Random,
    signals: &WriterControl,
) -> Result<String> {
    server.text(&["DEBUG", "CHECKPOINT-DIGEST", "yes"])?;
    // With the barrier checker, the server aborts on a write that bypasses the barrier; but writers
    // then also capture blocks that the child has already written, which they do not otherwise.
    let checked = if random.below(2) == 0 { "yes" } else { "no" };
    server.text(&["DEBUG", "CHECKPOINT-WATCH", checked])?;
    server.delay_checkpoints(random.below(1500))?;
    signals.wait_for(1 + random.below(60))?;
    server.bgsave_and_wait()?;
    let digest = server.info("cowherd_last_checkpoint_digest")?;
    ensure!(digest.len() == 40, "no digest of the checkpoint: {digest:?}");
    signals.wait_for(random.below(20))?;
    server.kill9()?;
    Ok(digest)
}

fn many_rounds(builder: ServerBuilder) -> TestResult {
    let mut random = Random::new(random::seed());
    let mut server = builder.start()?;
    let (mut height, mut highest) = (0, 0);
    for number in 1..=rounds() {
        round(&mut server, &mut random, &mut height).with_context(|| format!("round {number}"))?;
        // A checkpoint may follow a FLUSHALL immediately.
        highest = highest.max(height);
    }
    ensure!(highest > 0, "no checkpoint contained the staircase");
    Ok(())
}

fn thp_are_off(file: &str, off: &str) -> bool {
    let modes = std::fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{file}"));
    modes.map_or(true, |modes| modes.contains(off))
}

#[test]
fn copied_small_pages_restore_the_instant_of_the_checkpoint() -> TestResult {
    many_rounds(server_with("small", "kernel-cow", 128))
}

#[test]
fn copied_transparent_huge_pages_restore_the_instant_of_the_checkpoint() -> TestResult {
    if thp_are_off("enabled", "[never]") {
        skip!("transparent huge pages are off in this kernel");
    }
    many_rounds(server_with("thp", "kernel-cow", 128))
}

#[test]
fn copied_pages_of_2_mib_restore_the_instant_of_the_checkpoint() -> TestResult {
    // Copy-on-write may copy every page of the arena.
    match hugepages::claim(PageSize::Huge2M, 2 * 64 + 8)? {
        Ok(_claim) => many_rounds(server_with("huge-2mb", "kernel-cow", 128)),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn copied_pages_of_1_gib_restore_the_instant_of_the_checkpoint() -> TestResult {
    match hugepages::claim(PageSize::Huge1G, 2)? {
        Ok(_claim) => many_rounds(server_with("huge-1gb", "kernel-cow", 1024)),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn shared_small_pages_restore_the_instant_of_the_checkpoint() -> TestResult {
    many_rounds(server_with("small", "undo-log", 128))
}

#[test]
fn shared_transparent_huge_pages_restore_the_instant_of_the_checkpoint() -> TestResult {
    if thp_are_off("shmem_enabled", "[deny]") {
        skip!("transparent huge pages are denied to shared memory");
    }
    many_rounds(server_with("thp", "undo-log", 128).arg("--checkpoint-undo-block", "1024"))
}

#[test]
fn shared_pages_of_2_mib_restore_the_instant_of_the_checkpoint() -> TestResult {
    match hugepages::claim(PageSize::Huge2M, 64)? {
        Ok(_claim) => many_rounds(
            server_with("huge-2mb", "undo-log", 128).arg("--checkpoint-undo-block", "256"),
        ),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn shared_pages_of_1_gib_restore_the_instant_of_the_checkpoint() -> TestResult {
    match hugepages::claim(PageSize::Huge1G, 1)? {
        Ok(_claim) => many_rounds(
            server_with("huge-1gb", "undo-log", 1024).arg("--checkpoint-undo-block", "4096"),
        ),
        Err(reason) => skip!("{reason}"),
    }
}

/// Keys with their values and expiry times.
type Contents = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

/// Value of a key, as the bytes of the server's replies.
fn value(raw: &mut RawConnection, key: &[u8]) -> Result<Vec<u8>> {
    let kind = raw.exchange(&[b"TYPE", key])?;
    let value = match kind.as_slice() {
        b"+string\r\n" => raw.exchange(&[b"GET", key])?,
        b"+hash\r\n" => raw.exchange(&[b"HGETALL", key])?,
        b"+list\r\n" => raw.exchange(&[b"LRANGE", key, b"0", b"-1"])?,
        b"+set\r\n" => raw.exchange(&[b"SMEMBERS", key])?,
        b"+zset\r\n" => raw.exchange(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])?,
        b"+stream\r\n" => raw.exchange(&[b"XRANGE", key, b"-", b"+"])?,
        _ => bail!("a key of type {}", show(&kind)),
    };
    Ok([kind, value].concat())
}

fn contents(raw: &mut RawConnection, database: u8) -> Result<Contents> {
    raw.call(&["SELECT", &database.to_string()])?;
    let keys: Vec<Vec<u8>> = redis::from_redis_value(raw.call(&["KEYS", "*"])?)?;
    let mut contents = BTreeMap::new();
    for key in keys {
        let value = value(raw, &key)?;
        let expires = raw.number(&[b"PEXPIRETIME", key.as_slice()])?;
        contents.insert(key, (value, expires));
    }
    Ok(contents)
}

/// Runs `writer` until it has written `batches`.
fn write_for(batches: u64, writer: impl FnOnce(&WriterControl) -> Result<()> + Send) -> Result<()> {
    let signals = WriterControl::default();
    thread::scope(|scope| {
        let writer = scope.spawn(|| writer(&signals));
        let written = signals.wait_for(batches);
        signals.stop.store(true, Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        written
    })
}

#[test]
fn all_keys_of_an_idle_server_are_restored() -> TestResult {
    let mut server = server_with("small", "undo-log", 128).start()?;
    let port = server.port();
    let mut random = Random::new(random::seed());
    let mut raw = server.raw()?;
    // The mix contains FLUSHALL and FLUSHDB, so it may end on an empty database.
    while contents(&mut raw, 0)?.is_empty() {
        write_for(200, |signals| load::mixed(port, 0, Random::new(random.next()), signals))?;
    }
    // After the mix: its FLUSHALL would empty this database too.
    write_for(2, |signals| load::staircase(port, 1, signals))?;
    let before = [contents(&mut raw, 0)?, contents(&mut raw, 1)?];
    ensure!(before[1].len() == load::STEPS, "the staircase has {} steps", before[1].len());
    let digest = server.digest()?;
    server.bgsave_and_wait()?;
    ensure!(server.digest()? == digest, "a checkpoint changed the data");
    server.restart()?;
    let mut raw = server.raw()?;
    ensure!(before == [contents(&mut raw, 0)?, contents(&mut raw, 1)?], "restored other data");
    ensure!(server.digest()? == digest, "the same data has another digest");
    Ok(())
}

#[test]
fn different_states_have_different_digests() -> TestResult {
    let server = Server::start()?;
    let mut seen = vec![server.digest()?];
    let steps: &[&[&str]] = &[
        &["SET", "a", "1"],
        &["SET", "a", "2"],
        &["APPEND", "a", "2"],
        &["EXPIRE", "a", "100000"],
        &["PERSIST", "a"],
        &["SET", "b", "1"],
        &["RENAME", "a", "c"],
        &["MOVE", "c", "1"],
        &["FLUSHALL"],
    ];
    for step in steps {
        server.text(step)?;
        seen.push(server.digest()?);
    }
    // Only these states are equal: empty at both ends, and 22 before EXPIRE and after PERSIST.
    for (one, first) in seen.iter().enumerate() {
        for (other, second) in seen.iter().enumerate().skip(one + 1) {
            let same = matches!((one, other), (0, 9) | (3, 5));
            ensure!((first == second) == same, "states {one} and {other}: {first}, {second}");
        }
    }
    Ok(())
}

#[test]
fn expiry_times_survive_a_restart() -> TestResult {
    let mut server = Server::start()?;
    server.text(&["SET", "later", "value", "PX", "5000000"])?;
    let deadline = server.text(&["PEXPIRETIME", "later"])?;
    server.text(&["SET", "soon", "value", "PX", "300"])?;
    server.bgsave_and_wait()?;
    server.kill9()?;
    // The key expires while no server runs.
    thread::sleep(std::time::Duration::from_millis(350));
    server.restart()?;
    ensure!(server.text(&["EXISTS", "soon"])? == "0", "an expired key came back");
    ensure!(server.text(&["PEXPIRETIME", "later"])? == deadline);
    Ok(())
}

#[test]
fn checkpoints_can_follow_each_other() -> TestResult {
    let mut server = Server::start()?;
    for number in 0..20 {
        server.text(&["SET", "number", &number.to_string()])?;
        server.bgsave_and_wait()?;
        ensure!(server.info("rdb_changes_since_last_save")? == "0");
    }
    server.text(&["SET", "number", "written by SAVE"])?;
    ensure!(server.text(&["SAVE"])? == "OK");
    server.text(&["SET", "number", "in no checkpoint"])?;
    server.restart()?;
    ensure!(server.text(&["GET", "number"])? == "written by SAVE");
    Ok(())
}
