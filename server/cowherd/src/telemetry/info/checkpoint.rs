//! INFO's section `checkpoint`, which is ours: what saves do, and what copy-on-write costs or,
//! where saves isolate by one, the undo log.
//!
//! Names begin with what they are about: `cow_`, `fork_`, `latency_`, `thp_`, `pool_`, `save_`,
//! `undo_`.
//! Lines with several figures are written like those of commandstats. Times are in microseconds.

use std::fmt::Write as _;
use std::time::Duration;

use super::InfoContext;
use super::page::InfoWriter;
use crate::clock;
use crate::telemetry::{CheckpointRecord, CowStats, Distribution, PersistenceStatus, UndoStats};

pub(super) fn checkpoint(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    let view = reading.persistence();
    page.section("Checkpoint");
    pages(page, reading);
    totals(page, reading, &view);
    latencies(page, reading);
    if let Some(saving) = &view.saving {
        page.field("checkpoint_progress_percent", format_args!("{:.2}", saving.progress() * 100.0));
        page.field("checkpoint_current", line(&saving.record));
    }
    for record in reading.telemetry.persistence().history().iter().rev() {
        page.field(format_args!("checkpoint_{}", record.number), line(record));
    }
}

fn pages(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    let inputs = reading.inputs;
    let (arena, thp) = (&inputs.arena, &inputs.thp);
    page.field("isolation", &inputs.checkpoint_isolation);
    page.field("pages_asked", &arena.pages_asked);
    page.field("pages", &arena.pages);
    match inputs.undo_log {
        None => page.field("cow_page_bytes", arena.cow_page_bytes),
        Some(log) => {
            page.field("undo_block_bytes", log.block_bytes);
            page.field("undo_limit_bytes", log.limit);
        }
    }
    page.field("arena_used_bytes", arena.used_chunks * arena.chunk_bytes);
    page.field("arena_huge_bytes", arena.huge_bytes);
    page.field("thp_setting", &thp.setting);
    page.field("thp_splits", thp.splits);
    page.field("thp_collapsed", thp.collapsed);
    if let Some(pool) = inputs.pool {
        page.field(
            "pool",
            format_args!(
                "page_bytes={},total={},free={},reserved={}",
                pool.page_bytes, pool.total, pool.free, pool.reserved
            ),
        );
    }
}

fn totals(page: &mut InfoWriter, reading: &InfoContext<'_>, view: &PersistenceStatus) {
    page.field("checkpoints", view.totals.begun);
    page.field("checkpoints_failed", view.totals.failed);
    page.field("checkpoint_raw_bytes", view.totals.raw_bytes);
    page.field("checkpoint_image_bytes", view.totals.image_bytes);
    for (step, took) in view.totals.steps.named() {
        page.field(format_args!("checkpoint_{step}_usec"), clock::micros(took));
    }
    page.field("fork_usec", quantiles(&view.forks));
    page.field("fork_safepoint_wait_usec", quantiles(&view.waits));
    page.field("fork_hold_up_usec", quantiles(&view.hold_ups));
    page.field("other_page_faults", view.totals.other_page_faults);
    let (inputs, mut figures) = (reading.inputs, String::new());
    if inputs.has_undo_log() {
        let mut undo = inputs.undo;
        undo.reused_records = view.totals.undo_reused_records;
        undo_figures(&mut figures, &undo);
        page.field("undo", figures);
        page.field("undo_capture_usec", quantiles(&inputs.undo_captures));
    } else {
        cow_figures(&mut figures, &inputs.cow);
        page.field("cow", figures);
        page.field("cow_fault_usec", quantiles(&inputs.cow_faults));
    }
}

/// How long commands take, by family, while no save runs and while one does.
fn latencies(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    for latency in reading.telemetry.latency_by_family() {
        for (phase, times) in latency.by_phase() {
            if times.count() > 0 {
                let name = format_args!("latency_{}_{phase}_usec", latency.family);
                page.field(name, quantiles(times));
            }
        }
    }
}

/// How many there were and how long they took.
fn quantiles(times: &Distribution) -> String {
    let micros = |quantile| times.quantile(quantile).unwrap_or(0) as f64 / 1e3;
    let (half, p99, p999, most) = (micros(0.5), micros(0.99), micros(0.999), micros(1.0));
    let count = times.count();
    format!("count={count},p50={half:.3},p99={p99:.3},p99.9={p999:.3},max={most:.3}")
}

fn cow_figures(line: &mut String, cow: &CowStats) {
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "faults={},copied_bytes={},written_bytes={},amplification={:.2},stall_usec={},\
         longest_fault_usec={},fresh_pages={},private_pages={}",
        cow.faults,
        cow.copied_bytes,
        cow.written_bytes,
        cow.amplification(),
        clock::micros(cow.stall),
        clock::micros(cow.longest),
        cow.fresh_pages,
        cow.private_pages,
    );
}

fn undo_figures(line: &mut String, undo: &UndoStats) {
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "captures={},captured_bytes={},written_bytes={},amplification={:.2},stall_usec={},\
         longest_capture_usec={},log_bytes={},committed_bytes={},reused_records={}",
        undo.captures,
        undo.captured_bytes,
        undo.written_bytes,
        undo.amplification(),
        clock::micros(undo.stall),
        clock::micros(undo.longest),
        undo.log_bytes,
        undo.committed_bytes,
        undo.reused_records,
    );
}

/// A save in one line.
fn line(record: &CheckpointRecord) -> String {
    let mut line = format!("status={},started_ms={}", record.status.name(), record.started_ms);
    let mut add = |name: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = write!(line, ",{name}={value}");
    };
    let mut time = |name: &str, took: Duration| add(name, clock::micros(took));
    time("usec", record.duration);
    time("fork_usec", record.fork);
    time("safepoint_wait_usec", record.safepoint_wait);
    time("hold_up_usec", record.hold_up);
    for (step, took) in record.steps.named() {
        time(&format!("{step}_usec"), took);
    }
    for (name, value) in [
        ("background", u64::from(record.background)),
        ("keys", record.keys),
        ("chunks", record.chunks),
        ("chunks_done", record.chunks_done),
        ("raw_bytes", record.raw_bytes),
        ("image_bytes", record.image_bytes),
        ("extra_memory_bytes", record.extra_memory_bytes),
    ] {
        add(name, value);
    }
    for (name, value) in [
        ("huge_before_bytes", record.huge_before_bytes),
        ("huge_after_bytes", record.huge_after_bytes),
        ("thp_splits", record.thp_splits),
        ("other_page_faults", record.other_page_faults),
    ] {
        value.into_iter().for_each(|value| add(name, value));
    }
    let _ = write!(line, ",bytes_per_second={:.0},", record.bytes_per_second());
    if record.has_undo_log() {
        undo_figures(&mut line, &record.undo);
    } else {
        cow_figures(&mut line, &record.cow);
    }
    if let Some(stall) = &record.longest_stall {
        let (took, cause) = (clock::micros(stall.took), stall.cause.name());
        let _ = write!(line, ",longest_stall_usec={took},longest_stall_cause={cause}");
    }
    line
}
