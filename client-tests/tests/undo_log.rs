//! Counters of the undo log: captured blocks and no copied pages, compared with the kernel's
//! counters; the reported causes of delays.

use anyhow::{Context as _, Result, ensure};
use client_tests::hugepages::{self, PageSize};
use client_tests::kernel;
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::wait_until;
use client_tests::{TestResult, http, skip};
use redis::Value;
use std::collections::HashMap;
use std::time::Duration;

const VALUE: usize = 4000;
/// Delay of the child after each chunk in microseconds, longer than any test.
const ENDLESS_DELAY: u64 = 3600 * 1_000_000;
const DEADLINE: Duration = Duration::from_secs(60);
const PAGE: u64 = 4096;

fn builder(pages: &str) -> ServerBuilder {
    Server::builder()
        .arg("--checkpoint-isolation", "undo-log")
        .arg("--arena-pages", pages)
        .arg("--save", "")
}

/// Sends one command per key, in pipelines.
fn each(server: &Server, keys: u64, command: impl Fn(&mut redis::Pipeline, String)) -> TestResult {
    let mut connection = server.connection()?;
    for first in (0..keys).step_by(500) {
        let mut pipe = redis::pipe();
        (first..keys.min(first + 500)).for_each(|key| command(&mut pipe, format!("key:{key}")));
        pipe.query::<()>(&mut connection)?;
    }
    Ok(())
}

fn load(server: &Server, keys: u64) -> TestResult {
    let value = "v".repeat(VALUE);
    each(server, keys, |pipe, key| {
        pipe.set(key, &value).ignore();
    })
}

/// Changes 8 bytes of each value, so that each write changes another page or two.
fn change(server: &Server, keys: u64) -> TestResult {
    each(server, keys, |pipe, key| {
        pipe.cmd("SETRANGE").arg(key).arg(0).arg("12345678").ignore();
    })
}

/// Starts a checkpoint that does not end, and waits for its first chunk.
fn start_endless_checkpoint(server: &Server) -> TestResult {
    server.delay_checkpoints(ENDLESS_DELAY)?;
    server.bgsave()?;
    let begun = || Ok(server.info("cowherd_checkpoint_chunks_done")? != "0");
    wait_until(begun, DEADLINE, "the child to write")
}

fn figure(line: &HashMap<String, String>, name: &str) -> Result<u64> {
    line.get(name).with_context(|| format!("no {name} in {line:?}"))?.parse().context("a number")
}

/// Checks that the figures of a checkpoint, or of all, are consistent.
fn check_consistency(line: &HashMap<String, String>) -> TestResult {
    let (captures, captured) = (figure(line, "captures")?, figure(line, "captured_bytes")?);
    ensure!(captures > 0, "nothing was captured: {line:?}");
    ensure!((64..=2 << 20).contains(&(captured / captures)), "blocks of no size: {line:?}");
    let written = figure(line, "written_bytes")?;
    let amplification: f64 = line["amplification"].parse()?;
    ensure!((amplification - captured as f64 / written as f64).abs() < 0.01, "{line:?}");
    ensure!(!line.contains_key("faults") && !line.contains_key("copied_bytes"), "{line:?}");
    Ok(())
}

/// Writes to `keys` pages of the arena while the child shares them, which must cause no page fault.
fn check_faults_of_writers(server: &Server, keys: u64) -> TestResult {
    load(server, keys)?;
    start_endless_checkpoint(server)?;
    // The first commands after the fork write heap and stacks, which are copied on write.
    change(server, 100)?;
    let before = kernel::faults_of_threads(server.pid(), "worker-")?;
    change(server, keys)?;
    let faults = kernel::faults_of_threads(server.pid(), "worker-")? - before;
    let running = server.checkpoint("undo")?;
    check_consistency(&running)?;
    let captures = figure(&running, "captures")?;
    ensure!(captures * 2 > keys, "only {captures} captures for {keys} writes");
    ensure!(figure(&running, "written_bytes")? >= 8 * keys, "{running:?}");
    // Only pages of the log that were not prefaulted in time, and few others, may fault.
    let log = figure(&running, "log_bytes")?.div_ceil(PAGE);
    eprintln!(
        "{faults} faults of writers for {keys} pages, {captures} captures, {log} pages of log"
    );
    ensure!(faults <= log + keys / 50, "{faults} faults: {log} pages of log for {keys} writes");

    let timed = figure(&server.checkpoint("undo_capture_usec")?, "count")?;
    ensure!(timed > 0 && timed <= captures, "{timed} changes captured {captures} blocks");
    let info = server.text(&["INFO", "checkpoint"])?;
    ensure!(!info.contains("cow"), "figures of copy-on-write: {info}");
    let captured = running["captured_bytes"].clone();
    wait_until(
        || Ok(server.info("current_cow_size")? == captured),
        DEADLINE,
        "INFO to show what was captured",
    )?;
    server.text(&["BGSAVE", "CANCEL"])?;
    server.wait_checkpoint()?.ok();
    let checkpoint = server.checkpoint("checkpoint_1")?;
    check_consistency(&checkpoint)?;
    ensure!(
        checkpoint["status"] == "cancelled" && checkpoint["captured_bytes"] == captured,
        "{checkpoint:?}"
    );
    let (log, records) = (figure(&checkpoint, "log_bytes")?, figure(&checkpoint, "captures")?);
    ensure!(
        log >= figure(&checkpoint, "captured_bytes")? + 16 * records,
        "the log lacks record headers: {checkpoint:?}"
    );
    ensure!(figure(&checkpoint, "committed_bytes")? >= log, "{checkpoint:?}");
    let other = figure(&checkpoint, "other_page_faults")?;
    ensure!(other > 0 && other >= faults, "{other} faults in all, {faults} of writers");
    ensure!(other <= log.div_ceil(PAGE) + keys / 20, "{other} faults elsewhere: {checkpoint:?}");
    Ok(())
}

#[test]
fn writers_on_small_pages_cause_no_faults() -> TestResult {
    check_faults_of_writers(&builder("small").arg("--maxmemory", "128mb").start()?, 20_000)
}

#[test]
fn writers_on_transparent_huge_pages_cause_no_faults() -> TestResult {
    let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    if std::fs::read_to_string(setting).map_or(true, |modes| modes.contains("[deny]")) {
        skip!("transparent huge pages are denied to shared memory");
    }
    check_faults_of_writers(&builder("thp").arg("--maxmemory", "128mb").start()?, 20_000)
}

#[test]
fn writers_on_huge_pages_cause_no_faults_with_a_pool_of_one_arena() -> TestResult {
    match hugepages::claim(PageSize::Huge2M, 64)? {
        Ok(_claim) => {
            let server = builder("huge-2mb").arg("--maxmemory", "128mb").start()?;
            check_faults_of_writers(&server, 20_000)
        }
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn all_outputs_report_the_captures_of_a_checkpoint() -> TestResult {
    let server = builder("small").arg("--maxmemory", "64mb").start()?;
    load(&server, 4000)?;
    server.delay_checkpoints(1_000_000)?;
    server.bgsave()?;
    change(&server, 4000)?;
    server.wait_checkpoint()?.map_err(anyhow::Error::msg)?;
    let checkpoint = server.checkpoint("checkpoint_1")?;
    check_consistency(&checkpoint)?;
    ensure!(
        checkpoint["status"] == "ok" && figure(&checkpoint, "patch_usec")? > 0,
        "{checkpoint:?}"
    );
    ensure!(server.info("rdb_last_cow_size")? == checkpoint["captured_bytes"], "{checkpoint:?}");

    let (_, page) = http::get(server.metrics_port(), "/metrics")?;
    for (metric, name) in [
        ("cowherd_last_checkpoint_undo_captures", "captures"),
        ("cowherd_last_checkpoint_undo_captured_bytes", "captured_bytes"),
        ("cowherd_last_checkpoint_undo_log_bytes", "log_bytes"),
        ("cowherd_last_checkpoint_undo_reused_records", "reused_records"),
        ("cowherd_last_checkpoint_other_page_faults", "other_page_faults"),
        ("cowherd_undo_captures_total", "captures"),
        ("cowherd_undo_captured_bytes_total", "captured_bytes"),
        ("redis_rdb_last_cow_size_bytes", "captured_bytes"),
    ] {
        let line = format!("\n{metric} {}\n", checkpoint[name]);
        ensure!(page.contains(&line), "no {line:?} in {page}");
    }
    for line in ["cowherd_last_checkpoint_cow_faults 0", "cowherd_cow_stall_seconds_total 0"] {
        ensure!(page.contains(line), "no {line} in {page}");
    }
    let (_, saves) = http::get(server.metrics_port(), "/api/checkpoints")?;
    let saves: serde_json::Value = serde_json::from_str(&saves)?;
    let ended = &saves["ended"][0];
    let captures = figure(&checkpoint, "captures")?;
    ensure!(ended["undo"]["captures"].as_u64() == Some(captures), "{ended}");
    ensure!(ended["undo_amplification"].as_f64() > Some(0.0), "{ended}");
    ensure!(ended["cow"]["faults"] == 0 && ended["isolation"] == "undo-log", "{ended}");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("Checkpoint saved")).context("no line")?;
    ensure!(line.contains("undo_captures=") && line.contains("undo_log_bytes="), "{line}");
    ensure!(!line.contains("cow_"), "{line}");
    let (_, decimals) = line.split_once("undo_amplification=").context("no amplification")?;
    let decimals = decimals.split(' ').next().and_then(|text| text.split_once('.'));
    ensure!(decimals.is_none_or(|(_, decimals)| decimals.len() <= 2), "{line}");
    Ok(())
}

/// Entry of the slow log: number, time, microseconds, arguments, address, name.
type Entry = (u64, u64, u64, Vec<String>, String, String);

#[test]
fn captures_are_reported_as_the_cause_of_delays() -> TestResult {
    let server = builder("small")
        .arg("--maxmemory", "512mb")
        .arg("--checkpoint-undo-limit", "256mb")
        .arg("--latency-monitor-threshold", "1")
        .arg("--slowlog-log-slower-than", "1000")
        .start()?;
    let large = "x".repeat(64 << 20);
    server.text(&["SET", "large", &large])?;
    // On a busy machine another command may have been delayed longer by the scheduler.
    let mut causes = Vec::new();
    while causes.last().is_none_or(|cause| cause != "undo-capture") {
        ensure!(causes.len() < 10, "{causes:?}");
        start_endless_checkpoint(&server)?;
        server.text(&["SETRANGE", "large", "0", &large])?;
        server.text(&["BGSAVE", "CANCEL"])?;
        server.wait_checkpoint()?.ok();
        let checkpoint = server.checkpoint(&format!("checkpoint_{}", causes.len() + 1))?;
        causes.push(checkpoint["longest_stall_cause"].clone());
    }

    let mut connection = server.connection()?;
    let latest: Vec<(String, u64, u64, u64)> =
        redis::cmd("LATENCY").arg("LATEST").query(&mut connection)?;
    let event = latest.iter().find(|event| event.0 == "undo-capture");
    ensure!(event.is_some_and(|event| event.2 >= 1), "{latest:?}");
    ensure!(latest.iter().all(|event| event.0 != "cow-fault"), "{latest:?}");
    let entries: Vec<Entry> = redis::cmd("SLOWLOG").arg("GET").arg(-1).query(&mut connection)?;
    let entry = entries.iter().find(|entry| entry.3[0] == "SETRANGE").context("no entry")?;
    let text = entry.3.last().context("no arguments")?;
    let micros = text.strip_prefix("... (");
    let micros = micros.and_then(|rest| rest.strip_suffix(" us of capturing for the undo log)"));
    let micros: u64 = micros.with_context(|| text.clone())?.parse()?;
    ensure!(micros >= 1000 && micros <= entry.2, "{micros} of {} us", entry.2);
    let advice: String = redis::cmd("LATENCY").arg("DOCTOR").query(&mut connection)?;
    ensure!(advice.contains("Checkpoints isolate by undo-log"), "{advice}");
    ensure!(
        advice.contains("undo-capture: ") && advice.contains("seconds with spikes"),
        "{advice}"
    );
    ensure!(!advice.contains("copy-on-write"), "{advice}");
    Ok(())
}

#[test]
fn a_full_log_fails_the_checkpoint_and_the_doctors_report_it() -> TestResult {
    let server = builder("small")
        .arg("--maxmemory", "64mb")
        .arg("--checkpoint-undo-limit", "1mb")
        .arg("--save", "3600 1000000")
        .start()?;
    load(&server, 8000)?;
    server.delay_checkpoints(ENDLESS_DELAY)?;
    server.bgsave()?;
    change(&server, 8000)?;
    let failed = server.wait_checkpoint()?.err().context("the save should have failed")?;
    ensure!(failed.contains("checkpoint-undo-limit"), "{failed}");
    let checkpoint = server.checkpoint("checkpoint_1")?;
    ensure!(
        checkpoint["status"] == "failed" && figure(&checkpoint, "log_bytes")? <= 1 << 20,
        "{checkpoint:?}"
    );
    ensure!(server.info("rdb_last_bgsave_status")? == "err");
    // The disk is not at fault, so writes are accepted although there are save points.
    change(&server, 100)?;
    for doctor in ["LATENCY", "MEMORY"] {
        let advice: Value = redis::cmd(doctor).arg("DOCTOR").query(&mut server.connection()?)?;
        let advice = format!("{advice:?}");
        ensure!(advice.contains("Raise checkpoint-undo-limit"), "{advice}");
    }
    Ok(())
}
