//! Diagnosis of delays: SLOWLOG, LATENCY, and the longest stall of a checkpoint.

use anyhow::{Context as _, Result, bail, ensure};
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::wait_until;
use client_tests::{TestResult, exporter, http, skip, tools};
use redis::Value;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
/// Size of a value whose pages take longer to copy than any other command of these tests.
const LARGE: usize = 16 << 20;

fn builder() -> ServerBuilder {
    Server::builder()
        .arg("--checkpoint-isolation", "kernel-cow")
        .arg("--arena-pages", "small")
        .arg("--save", "")
}

fn query<T: redis::FromRedisValue>(server: &Server, words: &[&str]) -> Result<T> {
    let mut connection = server.connection()?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    Ok(command.query(&mut connection)?)
}

/// Entry of the slow log: number, time, microseconds, arguments, address, name.
type Entry = (u64, u64, u64, Vec<String>, String, String);

/// Overwrites a large value while a child shares its pages.
fn write_during_checkpoint(server: &Server) -> TestResult {
    server.text(&["SET", "large", &"x".repeat(LARGE)])?;
    server.delay_checkpoints(3600 * 1_000_000)?;
    server.bgsave()?;
    let begun = || Ok(server.info("cowherd_checkpoint_chunks_done")? != "0");
    wait_until(begun, DEADLINE, "the child to write")?;
    server.text(&["SETRANGE", "large", "0", &"y".repeat(LARGE)])?;
    server.text(&["BGSAVE", "CANCEL"])?;
    drop(server.wait_checkpoint()?);
    Ok(())
}

#[test]
fn slow_log_entries_contain_the_time_of_copy_on_write() -> TestResult {
    let server = builder()
        .arg("--slowlog-log-slower-than", "0")
        .arg("--slowlog-max-len", "100000")
        .start()?;
    write_during_checkpoint(&server)?;
    let entries: Vec<Value> = query(&server, &["SLOWLOG", "GET", "-1"])?;
    for entry in &entries {
        let elements = entry.as_sequence().map_or(0, <[Value]>::len);
        ensure!(elements == 6, "{elements} elements: clients expect six");
    }
    let entries: Vec<Entry> = query(&server, &["SLOWLOG", "GET", "-1"])?;
    let (_, _, micros, arguments, address, _) = entries
        .iter()
        .find(|(_, _, _, arguments, _, _)| arguments[0] == "SETRANGE")
        .context("SETRANGE is not in the slow log")?;
    let text = arguments.last().context("no arguments")?;
    let cow =
        text.strip_prefix("... (").and_then(|rest| rest.strip_suffix(" us of copy-on-write)"));
    let cow: u64 = cow.with_context(|| text.clone())?.parse()?;
    // 4096 pages, at more than 0.25 us each.
    ensure!(cow >= 1024 && cow <= *micros, "{cow} of {micros} us");
    ensure!(arguments[3].ends_with("more bytes)"), "{}", arguments[3]);
    ensure!(address.starts_with("127.0.0.1:"), "{address}");
    let idle = entries.iter().find(|(_, _, _, arguments, _, _)| arguments[0] == "SET");
    let idle = idle.context("SET is not in the slow log")?;
    ensure!(!idle.3.concat().contains("copy-on-write"), "{idle:?}");
    Ok(())
}

#[test]
fn the_longest_stall_of_a_save_has_its_cause() -> TestResult {
    let server = builder().start()?;
    // On a busy machine another command may have been delayed longer by the scheduler.
    for number in 1..=20 {
        write_during_checkpoint(&server)?;
        let checkpoint = server.checkpoint(&format!("checkpoint_{number}"))?;
        ensure!(checkpoint["status"] == "cancelled", "{checkpoint:?}");
        ensure!(checkpoint["longest_stall_usec"].parse::<u64>()? >= 1024, "{checkpoint:?}");
        eprintln!("{}: {}", checkpoint["longest_stall_usec"], checkpoint["longest_stall_cause"]);
        if checkpoint["longest_stall_cause"] == "cow-fault" {
            return Ok(());
        }
    }
    bail!("no checkpoint has copies as its longest stall")
}

#[test]
fn events_are_recorded_and_the_exporter_reads_them() -> TestResult {
    // A threshold that no other command reaches on a busy machine.
    let server = builder()
        .arg("--latency-monitor-threshold", "400")
        .arg("--slowlog-log-slower-than", "400000")
        .start()?;
    server.text(&["DEBUG", "SLEEP", "0.5"])?;
    let latest: Vec<(String, u64, u64, u64)> = query(&server, &["LATENCY", "LATEST"])?;
    let event = latest.iter().find(|event| event.0 == "command").context("no event")?;
    ensure!(event.2 >= 500 && event.3 >= event.2, "{event:?}");
    let history: Vec<(u64, u64)> = query(&server, &["LATENCY", "HISTORY", "command"])?;
    ensure!(history.last() == Some(&(event.1, event.2)), "{history:?}");
    let advice: String = query(&server, &["LATENCY", "DOCTOR"])?;
    ensure!(advice.contains("command: 1 seconds with spikes"), "{advice}");
    let page = http::get(server.metrics_port(), "/metrics")?.1;
    ensure!(number(&page, "redis_latency_spike_duration_seconds{event_name=\"command\"}")? >= 0.5);
    exporter_reads(&server)?;
    ensure!(query::<u64>(&server, &["LATENCY", "RESET"])? >= 1);
    ensure!(query::<Vec<Value>>(&server, &["LATENCY", "LATEST"])?.is_empty());
    Ok(())
}

fn exporter_reads(server: &Server) -> TestResult {
    if tools::find("prometheus-redis-exporter").is_none() {
        skip!("prometheus-redis-exporter is not installed");
    }
    let page = exporter::page(server.port())?;
    ensure!(number(&page, "redis_latency_spike_last{event_name=\"command\"}")? > 0.0);
    ensure!(number(&page, "redis_slowlog_length")? >= 1.0);
    ensure!(number(&page, "redis_last_slow_execution_duration_seconds")? >= 0.4);
    Ok(())
}

/// The value of a series on a page of metrics.
fn number(page: &str, series: &str) -> Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {series} in:\n{page}"))?.parse()?)
}
