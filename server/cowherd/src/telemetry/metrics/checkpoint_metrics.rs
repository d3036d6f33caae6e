//! Metrics of checkpoints and of the memory pages behind their costs: `cowherd_checkpoint_*`,
//! `cowherd_last_checkpoint_*`, `cowherd_cow_*`, `cowherd_undo_*`, `cowherd_fork_*`,
//! `cowherd_thp_*`, `cowherd_hugetlb_*`.
//!
//! Names and help texts of the figures of one checkpoint and of the totals come from the table in
//! `checkpoint_figures`. Written out here are the families with labels, the histograms and the
//! gauges of the server's state.

use super::families::Families;
use super::scrape::Scrape;
use crate::telemetry::checkpoint_figures::{
    CHECKPOINT_FIGURES, COW_FIGURES, Figure, FigureValue, TOTAL_FIGURES, UNDO_FIGURES,
};
use crate::telemetry::checkpoint_record::{CheckpointRecord, StallCause};

pub(super) fn emit(out: &mut Families, scrape: &Scrape<'_>) {
    copy_on_write(out, scrape);
    undo_log(out, scrape);
    forks(out, scrape);
    totals(out, scrape);
    running(out, scrape);
    last(out, scrape);
    pages(out, scrape);
}

/// Adds the counters since the start that a table has.
fn add_totals<T>(out: &mut Families, table: &'static [Figure<T>], of: &T, page_size: &str) {
    for figure in table {
        let value = (figure.value)(of);
        let Some(number) = value.metric() else { continue };
        if let Some(name) = figure.total {
            match value {
                FigureValue::Ratio(_) => out.gauge(name, figure.help, number),
                _ => out.counter(name, figure.help, number),
            }
        }
        if let Some(name) = figure.total_by_page_size {
            out.counters(name, figure.help, [([("page_size", page_size)], number)]);
        }
    }
}

/// Adds the gauges of one checkpoint that a table has, under the names that `name_of` picks.
fn add_gauges<T>(
    out: &mut Families,
    table: &'static [Figure<T>],
    of: &T,
    name_of: fn(&Figure<T>) -> Option<&'static str>,
) {
    for figure in table {
        if let Some((name, number)) = name_of(figure).zip((figure.value)(of).metric()) {
            out.gauge(name, figure.help, number);
        }
    }
}

fn copy_on_write(out: &mut Families, scrape: &Scrape<'_>) {
    let (cow, stats) = (&scrape.stats.cow, &scrape.stats);
    let page_size = stats.arena.cow_page_bytes.to_string();
    out.histograms(
        "cowherd_cow_fault_duration_seconds",
        "How long each copy-on-write fault took: the first write to a page since the fork",
        [([("page_size", page_size.as_str())], stats.cow_faults.clone())],
    );
    add_totals(out, COW_FIGURES, cow, &page_size);
    out.counters(
        "cowherd_cow_pages_not_copied_total",
        "First writes to pages that copied nothing",
        [([("reason", "fresh")], cow.fresh_pages), ([("reason", "private")], cow.private_pages)],
    );
}

fn undo_log(out: &mut Families, scrape: &Scrape<'_>) {
    let stats = &scrape.stats;
    out.histogram(
        "cowherd_undo_capture_duration_seconds",
        "How long each change took to capture blocks for the undo log",
        &stats.undo_captures,
    );
    let mut undo = stats.undo;
    undo.reused_records = scrape.persistence.totals.undo_reused_records;
    add_totals(out, UNDO_FIGURES, &undo, "");
    let log = stats.undo_log.unwrap_or_default();
    out.gauge("cowherd_undo_limit_bytes", "Memory that the undo log may take", log.limit);
    out.gauge("cowherd_undo_block_bytes", "Bytes of a block", log.block_bytes);
}

fn forks(out: &mut Families, scrape: &Scrape<'_>) {
    let status = &scrape.persistence;
    out.histogram(
        "cowherd_fork_duration_seconds",
        "How long forks held up the clients",
        &status.hold_ups,
    );
    out.histogram("cowherd_fork_syscall_seconds", "How much of it was fork(2)", &status.forks);
    out.histogram(
        "cowherd_safepoint_wait_seconds",
        "How much of it was waiting for the safepoint",
        &status.waits,
    );
    out.gauge(
        "cowherd_last_fork_seconds",
        "How long the last fork held up the clients",
        status.latest_fork.hold_up.as_secs_f64(),
    );
}

fn totals(out: &mut Families, scrape: &Scrape<'_>) {
    let status = &scrape.persistence;
    add_totals(out, TOTAL_FIGURES, &status.totals, "");
    out.counters(
        "cowherd_checkpoint_steps_seconds_total",
        "Time of the image writer by step",
        status.totals.steps.named().map(|(step, took)| ([("step", step)], took.as_secs_f64())),
    );
    out.gauge("cowherd_image_bytes", "Size of the image on disk", status.image_bytes);
    out.gauge(
        "cowherd_changes_since_checkpoint",
        "Changes that the last image does not hold",
        status.changes_since_checkpoint,
    );
}

fn running(out: &mut Families, scrape: &Scrape<'_>) {
    let running = scrape.persistence.running.as_ref();
    let is_running = u64::from(running.is_some());
    out.gauge("cowherd_checkpoint_running", "1 while a checkpoint runs", is_running);
    out.gauge(
        "cowherd_checkpoint_progress_ratio",
        "Share of the chunks that the running checkpoint has written",
        running.map_or(0.0, |running| running.progress()),
    );
    out.gauge(
        "cowherd_checkpoint_elapsed_seconds",
        "How long the running checkpoint has taken",
        running.map_or(0.0, |running| running.elapsed.as_secs_f64()),
    );
    let record = running.map(|running| running.record.clone()).unwrap_or_default();
    add_gauges(out, CHECKPOINT_FIGURES, &record, |figure| figure.running);
    add_gauges(out, COW_FIGURES, &record.cow, |figure| figure.running);
    add_gauges(out, UNDO_FIGURES, &record.undo, |figure| figure.running);
}

/// The last checkpoint: its outcome at any time, its figures once there was one.
fn last(out: &mut Families, scrape: &Scrape<'_>) {
    let status = &scrape.persistence;
    out.gauge(
        "cowherd_last_checkpoint_success",
        "1 unless the last checkpoint failed",
        u64::from(!status.last_checkpoint_failed),
    );
    out.gauge(
        "cowherd_last_checkpoint_timestamp_seconds",
        "When the last checkpoint succeeded (or the server started), since 1970",
        status.last_checkpoint_ms as f64 / 1e3,
    );
    // These three are of the last checkpoint that began and was not cancelled.
    out.gauge(
        "cowherd_last_checkpoint_duration_seconds",
        "How long the last checkpoint took",
        status.last_duration.unwrap_or_default().as_secs_f64(),
    );
    out.gauge(
        "cowherd_last_checkpoint_cow_bytes",
        "Bytes that the kernel copied during the last checkpoint",
        status.last_cow_bytes,
    );
    out.gauge(
        "cowherd_last_checkpoint_undo_captured_bytes",
        "Bytes that the undo log captured during the last checkpoint",
        status.last_undo_bytes,
    );
    let Some(record) = &status.last else { return };
    add_gauges(out, CHECKPOINT_FIGURES, record, |figure| figure.last);
    add_gauges(out, COW_FIGURES, &record.cow, |figure| figure.last);
    add_gauges(out, UNDO_FIGURES, &record.undo, |figure| figure.last);
    out.gauges(
        "cowherd_last_checkpoint_step_seconds",
        "Time of the image writer by step",
        record.steps.named().map(|(step, took)| ([("step", step)], took.as_secs_f64())),
    );
    longest_stall(out, record);
}

fn longest_stall(out: &mut Families, record: &CheckpointRecord) {
    let stall = record.longest_stall.as_ref();
    let share = |cause| {
        stall.filter(|stall| stall.cause == cause).map_or(0.0, |stall| stall.took.as_secs_f64())
    };
    out.gauges(
        "cowherd_last_checkpoint_longest_stall_seconds",
        "The longest that a client waited for one command, under its main cause",
        StallCause::ALL.map(|cause| ([("cause", cause.name())], share(cause))),
    );
}

fn pages(out: &mut Families, scrape: &Scrape<'_>) {
    let (thp, pool) = (&scrape.stats.thp, scrape.stats.pool);
    if !thp.setting.is_empty() {
        out.gauges(
            "cowherd_thp_info",
            "The machine's setting of transparent huge pages",
            [([("setting", thp.setting.as_str())], 1_u64)],
        );
    }
    let splits = thp.splits;
    out.counter("cowherd_thp_splits_total", "Huge pages that writers split", splits);
    let collapsed = thp.collapsed;
    out.counter("cowherd_thp_collapsed_total", "Ranges collapsed into huge pages again", collapsed);
    out.gauge(
        "cowherd_thp_stock_bytes",
        "Free memory that is kept on huge pages for the next data",
        thp.stock_bytes,
    );
    out.counter(
        "cowherd_thp_stock_misses_total",
        "Chunks that began on small pages because the stock was empty",
        thp.stock_misses,
    );
    let Some(pool) = pool else { return };
    let size = pool.page_bytes.to_string();
    let state = |state, pages| ([("page_size", size.as_str()), ("state", state)], pages);
    out.gauges(
        "cowherd_hugetlb_pool_pages",
        "Pages of the machine's pool: free, reserved (of those free), in use",
        [
            state("free", pool.free),
            state("reserved", pool.reserved),
            state("used", pool.total.saturating_sub(pool.free)),
        ],
    );
    out.gauges(
        "cowherd_hugetlb_pool_total_pages",
        "Pages that the pool has",
        [([("page_size", size.as_str())], pool.total)],
    );
}
