//! Compaction, driven from outside: memory that scattered deletes leave behind is good for values
//! of any size at once, and its chunks return to the kernel.

use anyhow::{Result, ensure};
use client_tests::TestResult;
use client_tests::random::Random;
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::wait_until;
use client_tests::wire::{OOM, RawConnection, send_all, show};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
const CHUNK: u64 = 2 << 20;

fn builder() -> ServerBuilder {
    Server::builder().arg("--maxmemory", "64mb").arg("--arena-pages", "small").arg("--save", "")
}

fn value(key: u64) -> Vec<u8> {
    let len = 20 + usize::try_from(key * 7919 % 881).unwrap_or_default();
    let text = format!("{key}:");
    text.bytes().cycle().take(len).collect()
}

fn name(key: u64) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

/// Fills the arena with values of 20 to 900 bytes until one is refused, and deletes keys at random
/// until one of `keep_one_in` is left. Returns the keys that are left, and the resident bytes of
/// the full arena.
fn scatter(server: &Server, keep_one_in: u64) -> Result<(Vec<u64>, u64)> {
    let mut raw = server.raw()?;
    let mut keys = 0;
    loop {
        let some: Vec<_> =
            (keys..keys + 640).map(|key| vec![b"SET".to_vec(), name(key), value(key)]).collect();
        keys += 640;
        if send_all(&mut raw, some)? > 0 {
            break;
        }
    }
    let resident = number(server, "used_memory_rss")?;
    let mut random = Random::new(3);
    let (mut left, mut deletes) = (Vec::new(), Vec::new());
    for key in 0..keys {
        if random.below(keep_one_in) == 0 {
            left.push(key);
        } else {
            deletes.push(vec![b"UNLINK".to_vec(), name(key)]);
        }
    }
    send_all(&mut raw, deletes)?;
    left.retain(|key| {
        raw.exchange(&[&b"EXISTS"[..], &name(*key)]).is_ok_and(|reply| reply == b":1\r\n")
    });
    Ok((left, resident))
}

fn number(server: &Server, field: &str) -> Result<u64> {
    Ok(server.info(field)?.parse()?)
}

/// Checks that all values that are left are what they were, and the whole keyspace.
fn check(server: &Server, left: &[u64]) -> TestResult {
    let mut raw = server.raw()?;
    for key in left {
        let reply = raw.exchange(&[&b"GET"[..], &name(*key)])?;
        ensure!(
            reply.windows(value(*key).len()).any(|part| part == value(*key)),
            "{}",
            show(&reply)
        );
    }
    let verified = server.text(&["DEBUG", "VERIFY"])?;
    ensure!(!verified.is_empty() && !verified.contains("ERR"), "{verified}");
    Ok(())
}

fn set_of(raw: &mut RawConnection, name: &str, bytes: usize) -> Result<Vec<u8>> {
    raw.exchange(&[&b"SET"[..], name.as_bytes(), &vec![b'x'; bytes]])
}

#[test]
fn scattered_deletes_leave_memory_for_large_values() -> TestResult {
    let server = builder().start()?;
    let (left, _) = scatter(&server, 100)?;
    ensure!(left.len() > 500, "{} keys are left", left.len());
    let mut raw = server.raw()?;
    // One after the other: half a megabyte, and nearly all that is free in one piece.
    for bytes in [500_000, 5_000_000, 20_000_000, 57_000_000] {
        let reply = set_of(&mut raw, "large", bytes)?;
        ensure!(reply == b"+OK\r\n", "{bytes} bytes: {}", show(&reply));
        ensure!(raw.exchange(&["DEL", "large"])? == b":1\r\n");
    }
    // More than there is is refused as ever.
    let reply = set_of(&mut raw, "large", 63_000_000)?;
    ensure!(reply == OOM, "{}", show(&reply));
    check(&server, &left)
}

#[test]
fn chunks_return_to_the_kernel_in_the_background() -> TestResult {
    let server = builder().start()?;
    let (left, resident) = scatter(&server, 4)?;
    let used = number(&server, "used_memory")?;
    ensure!(used > 8 << 20, "{used} bytes are left");
    // Each of 64 shards has partly used slabs of its own, some MiB in all; and the chunk of tables.
    let limit = used + used / 2 + 2 * CHUNK;
    let is_compact = || {
        let freed = resident.saturating_sub(number(&server, "used_memory_rss")?);
        Ok(number(&server, "allocator_active")? <= limit && freed > 35_000_000)
    };
    wait_until(is_compact, DEADLINE, "chunks to be returned")?;
    ensure!(number(&server, "active_defrag_hits")? > 1000);
    ensure!(number(&server, "active_defrag_key_hits")? > 1000);
    ensure!(number(&server, "total_active_defrag_time")? > 0);
    wait_until(
        || Ok(number(&server, "active_defrag_running")? == 0),
        DEADLINE,
        "the end of compaction",
    )?;
    check(&server, &left)
}

#[test]
fn purge_compacts_where_the_background_does_not() -> TestResult {
    let server = builder().arg("--activedefrag", "no").start()?;
    let (left, before) = scatter(&server, 100)?;
    let mut raw = server.raw()?;
    let reply = set_of(&mut raw, "large", 5_000_000)?;
    ensure!(reply == OOM, "compaction is off: {}", show(&reply));
    let doctor = server.text(&["MEMORY", "DOCTOR"])?;
    ensure!(doctor.contains("activedefrag is off"), "{doctor}");
    ensure!(raw.exchange(&["MEMORY", "PURGE"])? == b"+OK\r\n");
    let (rss, chunks) =
        (number(&server, "used_memory_rss")?, number(&server, "cowherd_arena_used_chunks")?);
    ensure!(chunks <= 4, "{chunks} chunks");
    ensure!(rss + 40 * 1_000_000 < before, "{before} bytes resident, then {rss}");
    let reply = set_of(&mut raw, "large", 5_000_000)?;
    ensure!(reply == b"+OK\r\n", "{}", show(&reply));
    check(&server, &left)
}

#[test]
fn a_transaction_finds_the_memory_too() -> TestResult {
    let server = builder().start()?;
    let (left, _) = scatter(&server, 100)?;
    let mut raw = server.raw()?;
    raw.exchange(&["MULTI"])?;
    ensure!(set_of(&mut raw, "one", 500_000)? == b"+QUEUED\r\n");
    ensure!(set_of(&mut raw, "other", 5_000_000)? == b"+QUEUED\r\n");
    let reply = raw.exchange(&["EXEC"])?;
    ensure!(reply == b"*2\r\n+OK\r\n+OK\r\n", "{}", show(&reply));
    check(&server, &left)
}

/// Strings of `bytes` until one is refused, of which three in five are deleted.
fn scatter_large(server: &Server, bytes: usize) -> Result<()> {
    let mut raw = server.raw()?;
    let mut keys = 0u64;
    while set_of(&mut raw, &format!("piece:{keys}"), bytes)? == b"+OK\r\n" {
        keys += 1;
    }
    let mut random = Random::new(4);
    for key in 0..keys {
        if random.below(5) < 3 {
            ensure!(raw.exchange(&["DEL", &format!("piece:{key}")])? == b":1\r\n");
        }
    }
    Ok(())
}

#[test]
fn commands_in_a_row_find_the_memory_without_the_background() -> TestResult {
    // The background thread compacts at no waste that there can be.
    let eager_only = |builder: ServerBuilder| {
        builder
            .arg("--active-defrag-threshold-upper", "1000")
            .arg("--active-defrag-threshold-lower", "1000")
    };
    let server = eager_only(builder()).start()?;
    scatter_large(&server, 100_000)?;
    let mut raw = server.raw()?;
    for key in 0..7 {
        let reply = set_of(&mut raw, &format!("large:{key}"), 3_000_000)?;
        ensure!(reply == b"+OK\r\n", "value {key}: {}", show(&reply));
    }
    let server = eager_only(builder()).start()?;
    scatter_large(&server, 100_000)?;
    let mut raw = server.raw()?;
    let value = vec![b'x'; 3_000_000];
    let mut request = vec![b"MSET".to_vec()];
    for key in 0..6 {
        request.push(format!("large:{key}").into_bytes());
        request.push(value.clone());
    }
    let reply = raw.exchange(&request)?;
    ensure!(reply == b"+OK\r\n", "{}", show(&reply));
    Ok(())
}

/// The child reads all the time; the image is that of the fork.
fn image_during_compaction(isolation: &str) -> TestResult {
    let mut server = builder().arg("--checkpoint-isolation", isolation).start()?;
    let (left, _) = scatter(&server, 100)?;
    server.text(&["CONFIG", "SET", "activedefrag", "no"])?;
    let digest = server.digest()?;
    server.delay_checkpoints(20_000)?;
    server.bgsave()?;
    server.text(&["CONFIG", "SET", "activedefrag", "yes"])?;
    let mut raw = server.raw()?;
    // A checkpoint runs: compaction is bounded, and takes place only for the command.
    let reply = set_of(&mut raw, "large", 500_000)?;
    ensure!(reply == b"+OK\r\n", "{}", show(&reply));
    ensure!(server.wait_checkpoint()?.is_ok(), "the checkpoint failed: {}", server.log());
    check(&server, &left)?;
    server.kill9()?;
    server.restart()?;
    ensure!(server.digest()? == digest, "the image is not that of the fork");
    check(&server, &left)
}

#[test]
fn an_image_is_exact_while_values_move() -> TestResult {
    image_during_compaction("undo-log")?;
    image_during_compaction("kernel-cow")
}
