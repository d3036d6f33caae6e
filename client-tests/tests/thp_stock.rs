//! Transparent huge pages under the undo log: data lies on huge pages from its first byte.

use anyhow::{Context as _, Result, ensure};
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::wait_until;
use client_tests::{TestResult, kernel, skip};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
const CHUNK: u64 = 2 << 20;
/// The stock of a server that takes no chunks.
const IDLE_STOCK: u64 = 4 * CHUNK;
/// Servers that a load at full speed may try: other processes can take the processor time that the
/// stock needs, and then chunks begin on small pages, as they should.
const ATTEMPTS: u32 = 5;

/// Why this kernel cannot put free shared memory on huge pages.
fn missing() -> Result<Option<&'static str>> {
    let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let Ok(setting) = std::fs::read_to_string(setting) else {
        return Ok(Some("the kernel has no transparent huge pages for shared memory"));
    };
    if setting.contains("[deny]") {
        return Ok(Some("transparent huge pages are denied to shared memory"));
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().context("a version")?, numbers.next().context("a version")?);
    Ok((version < (6, 1)).then_some("the kernel has no MADV_COLLAPSE (Linux 6.1)"))
}

fn builder() -> ServerBuilder {
    Server::builder()
        .arg("--checkpoint-isolation", "undo-log")
        .arg("--arena-pages", "thp")
        .arg("--arena-thp-collapse", "no")
        .arg("--maxmemory", "1gb")
        .arg("--save", "")
}

fn field(server: &Server, name: &str) -> Result<u64> {
    let info = server.text(&["INFO", "checkpoint"])?;
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(known, _)| *known == name).with_context(|| format!("no {name}"))?;
    Ok(value.1.trim().parse()?)
}

fn wait_for_stock(server: &Server) -> TestResult {
    let filled = || Ok(field(server, "thp_stock_bytes")? == IDLE_STOCK);
    wait_until(filled, DEADLINE, "the stock to be filled")
}

/// Sets keys as fast as one connection can.
fn load(server: &Server, keys: u64) -> TestResult {
    let value = "v".repeat(4000);
    let mut connection = server.connection()?;
    for first in (0..keys).step_by(100) {
        let mut pipe = redis::pipe();
        for key in first..keys.min(first + 100) {
            pipe.set(format!("key:{key}"), &value).ignore();
        }
        pipe.query::<()>(&mut connection)?;
    }
    Ok(())
}

#[test]
fn data_loaded_at_full_speed_lies_on_huge_pages() -> TestResult {
    if let Some(reason) = missing()? {
        skip!("{reason}");
    }
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut server = builder().start()?;
        wait_for_stock(&server)?;
        load(&server, 60_000)?;
        let (used, huge) =
            (field(&server, "arena_used_bytes")?, field(&server, "arena_huge_bytes")?);
        ensure!(used > 200 << 20, "{used} bytes in use");
        // Only the first chunk, which holds tables, begins on small pages without being a miss.
        let misses = field(&server, "thp_stock_misses")?;
        ensure!(huge + (1 + misses) * CHUNK == used, "{huge} of {used} bytes, {misses} misses");
        let mapped = kernel::largest_mapping(server.pid())?.huge;
        ensure!(mapped >= huge, "{mapped} bytes on huge pages by the kernel, {huge} by the server");
        seen.push(format!("{huge} of {used}"));
        if huge * 100 < used * 95 {
            continue;
        }
        // A checkpoint splits nothing, and a restored arena is on huge pages too.
        server.bgsave_and_wait()?;
        ensure!(kernel::largest_mapping(server.pid())?.huge >= huge, "a checkpoint split pages");
        server.restart()?;
        ensure!(field(&server, "arena_huge_bytes")? == used, "restored on small pages");
        ensure!(field(&server, "thp_stock_misses")? == 0);
        return Ok(());
    }
    anyhow::bail!("bytes on huge pages after a load: {seen:?}")
}

/// A value of many neighbouring chunks finds no more than the stock on huge pages.
#[test]
fn chunks_that_begin_on_small_pages_are_counted() -> TestResult {
    if let Some(reason) = missing()? {
        skip!("{reason}");
    }
    let server = builder().start()?;
    wait_for_stock(&server)?;
    let value = "v".repeat(100 << 20);
    server.text(&["SET", "key", &value])?;
    let used = field(&server, "arena_used_bytes")?;
    let (huge, misses) = (field(&server, "arena_huge_bytes")?, field(&server, "thp_stock_misses")?);
    ensure!(misses >= 50 - IDLE_STOCK / CHUNK, "{misses} misses");
    ensure!(huge + (1 + misses) * CHUNK == used, "{huge} of {used} bytes, {misses} misses");
    Ok(())
}

#[test]
fn small_pages_keep_no_stock() -> TestResult {
    let server = builder().arg("--arena-pages", "small").start()?;
    load(&server, 1000)?;
    let figures = ["thp_stock_bytes", "thp_stock_misses", "arena_huge_bytes"];
    for name in figures {
        ensure!(field(&server, name)? == 0, "{name}");
    }
    Ok(())
}
