//! Our own metrics of the last save: `cowherd_last_checkpoint_*`.

use super::Collected;
use super::families::Families;
use crate::telemetry::{CheckpointRecord, StallCause};

pub(super) fn emit(out: &mut Families, collected: &Collected<'_>) {
    last_save(out, collected);
    if let Some(last) = &collected.view.last {
        counts(out, last);
        durations(out, last);
        causes(out, last);
        pages(out, last);
    }
}

fn last_save(out: &mut Families, collected: &Collected<'_>) {
    let view = &collected.view;
    out.gauge(
        "cowherd_last_checkpoint_success",
        "1 unless the last save failed",
        u64::from(!view.last_checkpoint_failed),
    );
    out.gauge(
        "cowherd_last_checkpoint_timestamp_seconds",
        "When the last save succeeded (or the server started), since 1970",
        view.last_checkpoint_ms as f64 / 1e3,
    );
    out.gauge(
        "cowherd_last_checkpoint_duration_seconds",
        "How long the last save took",
        view.last_duration.unwrap_or_default().as_secs_f64(),
    );
    out.gauge(
        "cowherd_last_checkpoint_cow_bytes",
        "Bytes that the kernel copied because they changed during the last save",
        view.last_cow_bytes,
    );
    out.gauge(
        "cowherd_last_checkpoint_undo_captured_bytes",
        "Bytes that the undo log captured because they changed during the last save",
        view.last_undo_bytes,
    );
}

/// What is known of the last save that ended, however it did.
fn counts(out: &mut Families, last: &CheckpointRecord) {
    let (cow, undo) = (&last.cow, &last.undo);
    for (name, help, value) in [
        ("cowherd_last_checkpoint_cow_faults", "Pages copied during the last save", cow.faults),
        ("cowherd_last_checkpoint_written_bytes", "Bytes written during it", last.written_bytes()),
        ("cowherd_last_checkpoint_raw_bytes", "Bytes of memory that it wrote", last.raw_bytes),
        ("cowherd_last_checkpoint_image_bytes", "Bytes of its image", last.image_bytes),
        (
            "cowherd_last_checkpoint_extra_memory_bytes",
            "The most memory that it took beyond what the server had",
            last.extra_memory_bytes,
        ),
        ("cowherd_last_checkpoint_undo_captures", "Blocks captured during it", undo.captures),
        ("cowherd_last_checkpoint_undo_log_bytes", "High water of its undo log", undo.log_bytes),
        (
            "cowherd_last_checkpoint_undo_committed_bytes",
            "Memory that its undo log took, what was made ready ahead of its use included",
            undo.committed_bytes,
        ),
        (
            "cowherd_last_checkpoint_undo_reused_records",
            "Records written where an older one had stood",
            undo.reused_records,
        ),
    ] {
        out.gauge(name, help, value);
    }
}

fn durations(out: &mut Families, last: &CheckpointRecord) {
    let (cow, undo) = (&last.cow, &last.undo);
    for (name, help, value) in [
        (
            "cowherd_last_checkpoint_cow_stall_seconds",
            "Time that writers stood still during it",
            cow.stall.as_secs_f64(),
        ),
        (
            "cowherd_last_checkpoint_cow_longest_fault_seconds",
            "The longest copy-on-write fault during it",
            cow.longest.as_secs_f64(),
        ),
        (
            "cowherd_last_checkpoint_cow_amplification_ratio",
            "Bytes copied for each byte written during it",
            cow.amplification(),
        ),
        (
            "cowherd_last_checkpoint_undo_stall_seconds",
            "Time that writers spent on capturing during it",
            undo.stall.as_secs_f64(),
        ),
        (
            "cowherd_last_checkpoint_undo_longest_capture_seconds",
            "The longest that one change spent on capturing during it",
            undo.longest.as_secs_f64(),
        ),
        (
            "cowherd_last_checkpoint_undo_amplification_ratio",
            "Bytes captured for each byte written during it",
            undo.amplification(),
        ),
        (
            "cowherd_last_checkpoint_bytes_per_second",
            "Bytes of memory that it wrote in a second",
            last.bytes_per_second(),
        ),
        (
            "cowherd_last_checkpoint_safepoint_wait_seconds",
            "How long it waited for the safepoint",
            last.safepoint_wait.as_secs_f64(),
        ),
        ("cowherd_last_checkpoint_fork_seconds", "How long fork(2) took", last.fork.as_secs_f64()),
        (
            "cowherd_last_checkpoint_hold_up_seconds",
            "How long its fork held up the clients",
            last.hold_up.as_secs_f64(),
        ),
    ] {
        out.gauge(name, help, value);
    }
    out.gauges(
        "cowherd_last_checkpoint_step_seconds",
        "Where the time of its writer went",
        last.steps.named().map(|(step, took)| ([("step", step)], took.as_secs_f64())),
    );
}

fn causes(out: &mut Families, last: &CheckpointRecord) {
    let stall = last.longest_stall.as_ref();
    let share = |cause| {
        stall.filter(|stall| stall.cause == cause).map_or(0.0, |stall| stall.took.as_secs_f64())
    };
    out.gauges(
        "cowherd_last_checkpoint_longest_stall_seconds",
        "The longest that a client waited for one command during it, under what caused it",
        StallCause::ALL.map(|cause| ([("cause", cause.name())], share(cause))),
    );
}

fn pages(out: &mut Families, last: &CheckpointRecord) {
    for (name, help, value) in [
        (
            "cowherd_last_checkpoint_huge_before_bytes",
            "Bytes of the arena on huge pages at its fork",
            last.huge_before_bytes,
        ),
        (
            "cowherd_last_checkpoint_huge_after_bytes",
            "Bytes of the arena on huge pages at its end",
            last.huge_after_bytes,
        ),
        (
            "cowherd_last_checkpoint_thp_splits",
            "Transparent huge pages that writers split during it",
            last.thp_splits,
        ),
        (
            "cowherd_last_checkpoint_other_page_faults",
            "Minor page faults of the server's threads during it that cowherd_cow_* does not count",
            last.other_page_faults,
        ),
    ] {
        value.into_iter().for_each(|value| out.gauge(name, help, value));
    }
}
