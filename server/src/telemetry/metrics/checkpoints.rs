//! Our own metrics of saves and of what copy-on-write costs: `cowherd_cow_*`, `cowherd_fork_*`,
//! `cowherd_save_*`, `cowherd_last_save_*`, and the pages behind them.

use super::Collected;
use super::families::Families;
use crate::telemetry::{Cause, SaveRecord};

pub(super) fn emit(out: &mut Families, collected: &Collected<'_>) {
    copy_on_write(out, collected);
    forks(out, collected);
    saves(out, collected);
    running_save(out, collected);
    last_save(out, collected);
    if let Some(last) = &collected.view.last {
        last_record(out, last);
    }
    pages(out, collected);
}

fn copy_on_write(out: &mut Families, collected: &Collected<'_>) {
    let (cow, inputs) = (&collected.inputs.cow, &collected.inputs);
    let page_size = inputs.arena.cow_page_bytes.to_string();
    let by_page = || [("page_size", page_size.as_str())];
    out.histograms(
        "cowherd_cow_fault_duration_seconds",
        "How long each copy-on-write fault took: the first write to a page since the fork",
        [(by_page(), inputs.cow_faults.clone())],
    );
    out.counters(
        "cowherd_cow_faults_total",
        "Pages that the kernel copied as they were written while a child shared them",
        [(by_page(), cow.faults)],
    );
    out.counters(
        "cowherd_cow_copied_bytes_total",
        "Bytes of them",
        [(by_page(), cow.copied_bytes)],
    );
    out.counter(
        "cowherd_cow_stall_seconds_total",
        "Time that writers stood still for it",
        cow.stall.as_secs_f64(),
    );
    out.counter(
        "cowherd_cow_written_bytes_total",
        "Bytes that commands wrote to the arena while saves ran",
        cow.written_bytes,
    );
    out.gauge(
        "cowherd_cow_amplification_ratio",
        "Bytes copied for each byte written, since the start",
        cow.amplification(),
    );
    out.counters(
        "cowherd_cow_pages_not_copied_total",
        "First writes to pages that copied nothing",
        [([("reason", "fresh")], cow.fresh_pages), ([("reason", "private")], cow.private_pages)],
    );
}

fn forks(out: &mut Families, collected: &Collected<'_>) {
    let view = &collected.view;
    out.histogram(
        "cowherd_fork_duration_seconds",
        "How long forks held up the clients",
        &view.hold_ups,
    );
    out.histogram("cowherd_fork_syscall_seconds", "How much of it was fork(2)", &view.forks);
    out.histogram(
        "cowherd_safepoint_wait_seconds",
        "How much of it was waiting for the safepoint",
        &view.waits,
    );
    out.gauge(
        "cowherd_last_fork_seconds",
        "How long the last fork held up the clients",
        view.latest_fork.hold_up.as_secs_f64(),
    );
}

fn saves(out: &mut Families, collected: &Collected<'_>) {
    let (view, totals) = (&collected.view, &collected.view.totals);
    out.counter("cowherd_saves_total", "Saves begun", totals.begun);
    out.counter("cowherd_saves_failed_total", "Saves that failed", totals.failed);
    out.counters(
        "cowherd_save_steps_seconds_total",
        "Where the time of those went that wrote images",
        totals.steps.named().map(|(step, took)| ([("step", step)], took.as_secs_f64())),
    );
    out.counter(
        "cowherd_save_raw_bytes_total",
        "Bytes of memory that saves wrote",
        totals.raw_bytes,
    );
    out.counter("cowherd_save_image_bytes_total", "Bytes of their images", totals.image_bytes);
    out.gauge("cowherd_image_bytes", "Size of the image on disk", view.image_bytes);
    out.gauge(
        "cowherd_unsaved_changes",
        "Changes that the last save does not hold",
        view.changes_since_last_save,
    );
}

fn running_save(out: &mut Families, collected: &Collected<'_>) {
    let saving = collected.view.saving.as_ref();
    let record = saving.map(|saving| saving.record.clone()).unwrap_or_default();
    out.gauge("cowherd_save_running", "1 while a save runs", u64::from(saving.is_some()));
    out.gauge(
        "cowherd_save_progress_ratio",
        "Share of the chunks that the running save has written",
        saving.map_or(0.0, |saving| saving.progress()),
    );
    out.gauge(
        "cowherd_save_elapsed_seconds",
        "How long the running save has taken",
        saving.map_or(0.0, |saving| saving.elapsed.as_secs_f64()),
    );
    out.gauge(
        "cowherd_save_cow_bytes",
        "Bytes copied so far because they changed during the running save",
        record.cow.copied_bytes,
    );
    out.gauge(
        "cowherd_save_cow_faults",
        "Pages copied so far because they changed during the running save",
        record.cow.faults,
    );
    out.gauge(
        "cowherd_save_extra_memory_bytes",
        "Memory that the running save has taken beyond what the server had",
        record.extra_memory_bytes,
    );
}

fn last_save(out: &mut Families, collected: &Collected<'_>) {
    let view = &collected.view;
    out.gauge(
        "cowherd_last_save_success",
        "1 unless the last save failed",
        u64::from(!view.last_save_failed),
    );
    out.gauge(
        "cowherd_last_save_timestamp_seconds",
        "When the last save succeeded (or the server started), since 1970",
        view.last_save_ms as f64 / 1e3,
    );
    out.gauge(
        "cowherd_last_save_duration_seconds",
        "How long the last save took",
        view.last_duration.unwrap_or_default().as_secs_f64(),
    );
    out.gauge(
        "cowherd_last_save_cow_bytes",
        "Bytes copied because they changed during the last save",
        view.last_cow_bytes,
    );
}

/// What is known of the last save that ended, however it did.
fn last_record(out: &mut Families, last: &SaveRecord) {
    let cow = &last.cow;
    for (name, help, value) in [
        ("cowherd_last_save_cow_faults", "Pages copied during the last save", cow.faults),
        ("cowherd_last_save_written_bytes", "Bytes written during it", cow.written_bytes),
        ("cowherd_last_save_raw_bytes", "Bytes of memory that it wrote", last.raw_bytes),
        ("cowherd_last_save_image_bytes", "Bytes of its image", last.image_bytes),
        (
            "cowherd_last_save_extra_memory_bytes",
            "The most memory that it took beyond what the server had",
            last.extra_memory_bytes,
        ),
    ] {
        out.gauge(name, help, value);
    }
    for (name, help, value) in [
        (
            "cowherd_last_save_cow_stall_seconds",
            "Time that writers stood still during it",
            cow.stall.as_secs_f64(),
        ),
        (
            "cowherd_last_save_cow_longest_fault_seconds",
            "The longest copy-on-write fault during it",
            cow.longest.as_secs_f64(),
        ),
        (
            "cowherd_last_save_cow_amplification_ratio",
            "Bytes copied for each byte written during it",
            cow.amplification(),
        ),
        (
            "cowherd_last_save_bytes_per_second",
            "Bytes of memory that it wrote in a second",
            last.bytes_per_second(),
        ),
        (
            "cowherd_last_save_safepoint_wait_seconds",
            "How long it waited for the safepoint",
            last.safepoint_wait.as_secs_f64(),
        ),
        ("cowherd_last_save_fork_seconds", "How long fork(2) took", last.fork.as_secs_f64()),
        (
            "cowherd_last_save_hold_up_seconds",
            "How long its fork held up the clients",
            last.hold_up.as_secs_f64(),
        ),
    ] {
        out.gauge(name, help, value);
    }
    out.gauges(
        "cowherd_last_save_step_seconds",
        "Where the time of its writer went",
        last.steps.named().map(|(step, took)| ([("step", step)], took.as_secs_f64())),
    );
    let stall = last.longest_stall.as_ref();
    let share = |cause| {
        stall.filter(|stall| stall.cause == cause).map_or(0.0, |stall| stall.took.as_secs_f64())
    };
    out.gauges(
        "cowherd_last_save_longest_stall_seconds",
        "The longest that a client waited for one command during it, under what caused it",
        Cause::ALL.map(|cause| ([("cause", cause.name())], share(cause))),
    );
    for (name, help, value) in [
        (
            "cowherd_last_save_huge_before_bytes",
            "Bytes of the arena on huge pages at its fork",
            last.huge_before_bytes,
        ),
        (
            "cowherd_last_save_huge_after_bytes",
            "Bytes of the arena on huge pages at its end",
            last.huge_after_bytes,
        ),
        (
            "cowherd_last_save_thp_splits",
            "Transparent huge pages that writers split during it",
            last.thp_splits,
        ),
    ] {
        value.into_iter().for_each(|value| out.gauge(name, help, value));
    }
}

fn pages(out: &mut Families, collected: &Collected<'_>) {
    let (thp, pool) = (&collected.inputs.thp, collected.inputs.pool);
    if !thp.setting.is_empty() {
        out.gauges(
            "cowherd_thp_info",
            "The machine's setting of transparent huge pages",
            [([("setting", thp.setting.as_str())], 1_u64)],
        );
    }
    let splits = thp.splits;
    out.counter("cowherd_thp_splits_total", "Huge pages that writers split in saves", splits);
    out.counter("cowherd_thp_healed_total", "Huge pages made whole again", thp.healed);
    let Some(pool) = pool else { return };
    let size = pool.page_bytes.to_string();
    let state = |state, pages| ([("page_size", size.as_str()), ("state", state)], pages);
    out.gauges(
        "cowherd_hugetlb_pool_pages",
        "Pages of the machine's pool: free, promised to somebody (of those free), in use",
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
