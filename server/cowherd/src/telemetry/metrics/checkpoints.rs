//! Our own metrics of saves and of what copy-on-write and the undo log cost: `cowherd_cow_*`,
//! `cowherd_undo_*`, `cowherd_fork_*`, `cowherd_checkpoint_*`, and the pages behind them.
//! Those of one save, the last, are in `last_save`.

use super::Collected;
use super::families::Families;

pub(super) fn emit(out: &mut Families, collected: &Collected<'_>) {
    copy_on_write(out, collected);
    undo_log(out, collected);
    forks(out, collected);
    saves(out, collected);
    running_save(out, collected);
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

fn undo_log(out: &mut Families, collected: &Collected<'_>) {
    let (undo, inputs) = (&collected.inputs.undo, &collected.inputs);
    out.histogram(
        "cowherd_undo_capture_duration_seconds",
        "How long each change took to capture what it was about to change",
        &inputs.undo_captures,
    );
    for (name, help, value) in [
        (
            "cowherd_undo_captures_total",
            "Blocks captured before their first change since the fork",
            undo.captures,
        ),
        ("cowherd_undo_captured_bytes_total", "Bytes of them", undo.captured_bytes),
        (
            "cowherd_undo_written_bytes_total",
            "Bytes that commands wrote to the arena while saves ran",
            undo.written_bytes,
        ),
        (
            "cowherd_undo_reused_records_total",
            "Records written where an older one had stood, in saves that ended",
            collected.view.totals.undo_reused_records,
        ),
    ] {
        out.counter(name, help, value);
    }
    out.counter(
        "cowherd_undo_stall_seconds_total",
        "Time that writers spent on capturing",
        undo.stall.as_secs_f64(),
    );
    out.gauge(
        "cowherd_undo_amplification_ratio",
        "Bytes captured for each byte written, since the start",
        undo.amplification(),
    );
    let log = inputs.undo_log.unwrap_or_default();
    out.gauge("cowherd_undo_limit_bytes", "Memory that the undo log may take", log.limit);
    out.gauge("cowherd_undo_block_bytes", "Bytes of a block", log.block_bytes);
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
    out.counter("cowherd_checkpoints_total", "Saves begun", totals.begun);
    out.counter("cowherd_checkpoints_failed_total", "Saves that failed", totals.failed);
    out.counters(
        "cowherd_checkpoint_steps_seconds_total",
        "Where the time of those went that wrote images",
        totals.steps.named().map(|(step, took)| ([("step", step)], took.as_secs_f64())),
    );
    out.counter(
        "cowherd_checkpoint_raw_bytes_total",
        "Bytes of memory that saves wrote",
        totals.raw_bytes,
    );
    out.counter(
        "cowherd_checkpoint_image_bytes_total",
        "Bytes of their images",
        totals.image_bytes,
    );
    out.counter(
        "cowherd_checkpoint_other_page_faults_total",
        "Minor page faults of the server's threads during saves that cowherd_cow_* does not count",
        totals.other_page_faults,
    );
    out.gauge("cowherd_image_bytes", "Size of the image on disk", view.image_bytes);
    out.gauge(
        "cowherd_changes_since_checkpoint",
        "Changes that the last save does not hold",
        view.changes_since_checkpoint,
    );
}

fn running_save(out: &mut Families, collected: &Collected<'_>) {
    let saving = collected.view.saving.as_ref();
    let record = saving.map(|saving| saving.record.clone()).unwrap_or_default();
    out.gauge("cowherd_checkpoint_running", "1 while a save runs", u64::from(saving.is_some()));
    out.gauge(
        "cowherd_checkpoint_progress_ratio",
        "Share of the chunks that the running save has written",
        saving.map_or(0.0, |saving| saving.progress()),
    );
    out.gauge(
        "cowherd_checkpoint_elapsed_seconds",
        "How long the running save has taken",
        saving.map_or(0.0, |saving| saving.elapsed.as_secs_f64()),
    );
    out.gauge(
        "cowherd_checkpoint_cow_bytes",
        "Bytes copied so far because they changed during the running save",
        record.cow.copied_bytes,
    );
    out.gauge(
        "cowherd_checkpoint_cow_faults",
        "Pages copied so far because they changed during the running save",
        record.cow.faults,
    );
    out.gauge(
        "cowherd_checkpoint_undo_captures",
        "Blocks captured so far in the running save",
        record.undo.captures,
    );
    out.gauge(
        "cowherd_checkpoint_undo_captured_bytes",
        "Bytes of them",
        record.undo.captured_bytes,
    );
    out.gauge(
        "cowherd_checkpoint_undo_log_bytes",
        "High water of the running save's undo log",
        record.undo.log_bytes,
    );
    out.gauge(
        "cowherd_checkpoint_extra_memory_bytes",
        "Memory that the running save has taken beyond what the server had",
        record.extra_memory_bytes,
    );
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
    out.counter("cowherd_thp_collapsed_total", "Huge pages made whole again", thp.collapsed);
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
