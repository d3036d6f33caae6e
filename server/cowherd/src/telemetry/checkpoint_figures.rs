//! The table of checkpoint figures: what a checkpoint did and what it cost, each figure described
//! once, with its name in every output.
//!
//! ```text
//!   CheckpointRecord --.                     .--> info     INFO checkpoint
//!   CheckpointTotals --+--> Figure<T>: help, +--> json     /api/checkpoints, /events
//!   CowStats ----------|    value, names ----+--> last     cowherd_last_checkpoint_*
//!   UndoStats ---------'                     |--> running  cowherd_checkpoint_*
//!                                            |--> total    counters since the start
//!                                            '--> log      the line at the end of a checkpoint
//! ```
//!
//! A row reads: help text, value, and the names under which the outputs show the value; an output
//! without a name leaves the figure out. The times of the writer's steps are a family of figures
//! with one row each in `WriterTimes::named`.
//!
//! A duration is in microseconds under a name that ends in `usec` or `_us`, in seconds otherwise.
//!
//! To add a figure of a checkpoint: a field in [`CheckpointRecord`] (or in the statistics of
//! cowherd-arena), a row here, and for a metric a row in docs/metrics.md. The tests of the metrics
//! hold names, units and help texts against that page.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use cowherd_arena::stats::{CowStats, UndoStats};
use serde::ser::{Serialize, Serializer};
use tracing::Value;

use super::checkpoint_record::{CheckpointRecord, CheckpointStatus, CheckpointTotals};
use crate::clock;
use FigureValue::{Absent, Bytes, Count, Flag, PerSecond, Ratio, Text, Time, UnixMillis};

/// A figure's value, with its unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FigureValue {
    /// Not known. INFO, the metrics and the log leave the figure out; JSON has null.
    Absent,
    Count(u64),
    Bytes(u64),
    Time(Duration),
    Ratio(f64),
    PerSecond(f64),
    Flag(bool),
    UnixMillis(i64),
    Text(Cow<'static, str>),
}

/// One row of the table: a figure of a `T`.
#[derive(Debug)]
pub(super) struct Figure<T> {
    pub(super) help: &'static str,
    pub(super) value: fn(&T) -> FigureValue,
    pub(super) info: Option<&'static str>,
    pub(super) json: Option<&'static str>,
    /// The gauge of the last checkpoint that ended.
    pub(super) last: Option<&'static str>,
    /// The gauge of the running checkpoint.
    pub(super) running: Option<&'static str>,
    /// The counter since the start (a gauge for a ratio).
    pub(super) total: Option<&'static str>,
    /// As `total`, with a label `page_size`.
    pub(super) total_by_page_size: Option<&'static str>,
}

/// The statistics that the log line of a checkpoint shows.
trait LoggedStats {
    /// The part of a record that holds these statistics; None: they do not apply to it.
    fn of(record: &CheckpointRecord) -> Option<&Self>;
}

impl LoggedStats for CheckpointRecord {
    fn of(record: &CheckpointRecord) -> Option<&Self> {
        Some(record)
    }
}

// A checkpoint in the foreground needs no isolation, one in the background has one of the two.

impl LoggedStats for CowStats {
    fn of(record: &CheckpointRecord) -> Option<&Self> {
        (record.background && !record.has_undo_log()).then_some(&record.cow)
    }
}

impl LoggedStats for UndoStats {
    fn of(record: &CheckpointRecord) -> Option<&Self> {
        (record.background && record.has_undo_log()).then_some(&record.undo)
    }
}

impl LoggedStats for CheckpointTotals {
    fn of(_record: &CheckpointRecord) -> Option<&Self> {
        None
    }
}

macro_rules! optional {
    () => {
        None
    };
    ($name:literal) => {
        Some($name)
    };
}

/// Logs a checkpoint. The fields of a tracing event are static, so each level needs its own list.
macro_rules! log_line {
    ($record:ident, $image:ident, { $($name:literal => $value:expr;)* }) => {
        match ($record.status, &$record.error) {
            (CheckpointStatus::Failed, Some(error)) => tracing::error!(
                $($name = $value,)* image = %$image.display(), "Checkpoint failed: {error}"
            ),
            (CheckpointStatus::Cancelled, _) => tracing::info!(
                $($name = $value,)* image = %$image.display(), "Checkpoint cancelled"
            ),
            _ => tracing::info!(
                $($name = $value,)* image = %$image.display(), "Checkpoint saved"
            ),
        }
    };
}

macro_rules! figures {
    ($(
        $(#[$about:meta])*
        $table:ident: $type:ty {
            $(
                $help:literal, |$of:ident| $value:expr
                $(, info $info:literal)?
                $(, json $json:literal)?
                $(, last $last:literal)?
                $(, running $running:literal)?
                $(, total $total:literal)?
                $(, total_by_page_size $by_page_size:literal)?
                $(, log $log:literal)?;
            )*
        }
    )*) => {
        $(
            $(#[$about])*
            pub(super) static $table: &[Figure<$type>] = &[$(
                Figure {
                    help: $help,
                    value: |$of| $value,
                    info: optional!($($info)?),
                    json: optional!($($json)?),
                    last: optional!($($last)?),
                    running: optional!($($running)?),
                    total: optional!($($total)?),
                    total_by_page_size: optional!($($by_page_size)?),
                },
            )*];
        )*

        /// Logs what a checkpoint that has ended did and what it cost, in one line. `image` is the
        /// path of the image.
        pub(crate) fn log_checkpoint(record: &CheckpointRecord, image: &Path) {
            log_line!(record, image, { $($($(
                $log => log_value::<$type>(record, $log, |$of| $value);
            )?)*)* });
        }
    };
}

figures! {
    /// One checkpoint.
    CHECKPOINT_FIGURES: CheckpointRecord {
        "Number of the checkpoint, 1 for the first since the start", |it| Count(it.number),
            json "number", log "checkpoint";
        "How the checkpoint ended, or `running`", |it| Text(it.status.name().into()),
            info "status", json "status";
        "When the checkpoint began", |it| UnixMillis(it.started_ms),
            info "started_ms", json "started_ms";
        "Keys at the fork", |it| Count(it.keys),
            info "keys", json "keys", log "keys";
        "Chunks in use at the fork", |it| Count(it.chunks),
            info "chunks", json "chunks";
        "Chunks written", |it| Count(it.chunks_done),
            info "chunks_done", json "chunks_done", log "chunks";
        "From the request for the first lock to the end", |it| Time(it.duration),
            info "usec", json "duration_seconds", log "seconds";
        "Time in `fork(2)`", |it| Time(it.fork),
            info "fork_usec", json "fork_seconds",
            last "cowherd_last_checkpoint_fork_seconds", log "fork_us";
        "Wait for the safepoint", |it| Time(it.safepoint_wait),
            info "safepoint_wait_usec", json "safepoint_wait_seconds",
            last "cowherd_last_checkpoint_safepoint_wait_seconds", log "safepoint_wait_us";
        "Time that the fork held up the clients, locks included", |it| Time(it.hold_up),
            info "hold_up_usec", json "hold_up_seconds",
            last "cowherd_last_checkpoint_hold_up_seconds";
        "Whether a child wrote the image", |it| Flag(it.background),
            info "background", json "background";
        "Bytes of memory that the checkpoint wrote, without free memory", |it| Bytes(it.raw_bytes),
            info "raw_bytes", json "raw_bytes", last "cowherd_last_checkpoint_raw_bytes";
        "Bytes of the image", |it| Bytes(it.image_bytes),
            info "image_bytes", json "image_bytes",
            last "cowherd_last_checkpoint_image_bytes", log "image_bytes";
        "The most memory that the checkpoint took beyond what the server had",
            |it| Bytes(it.extra_memory_bytes),
            info "extra_memory_bytes", json "extra_memory_bytes",
            last "cowherd_last_checkpoint_extra_memory_bytes",
            running "cowherd_checkpoint_extra_memory_bytes", log "extra_memory_bytes";
        "Bytes of the arena on huge pages at the fork",
            |it| it.huge_before_bytes.map_or(Absent, Bytes),
            info "huge_before_bytes", json "huge_before_bytes",
            last "cowherd_last_checkpoint_huge_before_bytes";
        "Bytes of the arena on huge pages at the end",
            |it| it.huge_after_bytes.map_or(Absent, Bytes),
            info "huge_after_bytes", json "huge_after_bytes",
            last "cowherd_last_checkpoint_huge_after_bytes";
        "Transparent huge pages that writers split", |it| it.thp_splits.map_or(Absent, Count),
            info "thp_splits", json "thp_splits", last "cowherd_last_checkpoint_thp_splits";
        "Transparent huge pages that writers split, under kernel-cow",
            |it| CowStats::of(it).and(it.thp_splits).map_or(Absent, Count),
            log "thp_splits";
        "Minor page faults of the server's threads that `cowherd_cow_*` does not count",
            |it| it.other_page_faults.map_or(Absent, Count),
            info "other_page_faults", json "other_page_faults",
            last "cowherd_last_checkpoint_other_page_faults", log "other_page_faults";
        "Bytes of memory written in a second, from the fork to the end",
            |it| PerSecond(it.bytes_per_second()),
            info "bytes_per_second", json "bytes_per_second",
            last "cowherd_last_checkpoint_bytes_per_second", log "bytes_per_second";
        "Bytes that commands wrote to the arena during the checkpoint",
            |it| Bytes(it.written_bytes()),
            last "cowherd_last_checkpoint_written_bytes";
        "Why the checkpoint failed",
            |it| it.error.clone().map_or(Absent, |error| Text(error.into())),
            json "error";
        "Whether it failed since writers changed more than the undo log may hold",
            |it| Flag(it.outpaced), json "outpaced";
        "Kind of the arena's pages", |it| Text(it.pages.into()), json "pages";
        "How the child saw one instant", |it| Text(it.isolation.into()), json "isolation";
        "Bytes that one copy-on-write fault copies", |it| Bytes(it.page_bytes),
            json "page_bytes";
        "Bytes copied for each byte written", |it| Ratio(it.cow.amplification()),
            json "cow_amplification";
        "Bytes captured for each byte written", |it| Ratio(it.undo.amplification()),
            json "undo_amplification";
        "Time that the child put captured blocks back",
            |it| UndoStats::of(it).map_or(Absent, |_| Time(it.steps.patch)),
            log "undo_patch_us";
    }

    /// Sums over all checkpoints since the start.
    TOTAL_FIGURES: CheckpointTotals {
        "Checkpoints begun", |it| Count(it.begun),
            info "checkpoints", total "cowherd_checkpoints_total";
        "Checkpoints that failed", |it| Count(it.failed),
            info "checkpoints_failed", total "cowherd_checkpoints_failed_total";
        "Bytes of memory that checkpoints wrote, without free memory", |it| Bytes(it.raw_bytes),
            info "checkpoint_raw_bytes", total "cowherd_checkpoint_raw_bytes_total";
        "Bytes of the images that checkpoints wrote", |it| Bytes(it.image_bytes),
            info "checkpoint_image_bytes", total "cowherd_checkpoint_image_bytes_total";
        "Minor page faults of the server's threads during checkpoints that `cowherd_cow_*` does \
         not count", |it| Count(it.other_page_faults),
            info "other_page_faults", total "cowherd_checkpoint_other_page_faults_total";
    }

    /// The cost of copy-on-write: of one checkpoint, or since the start.
    COW_FIGURES: CowStats {
        "Pages that the kernel copied since they were written while a child shared them",
            |it| Count(it.faults),
            info "faults", json "faults", last "cowherd_last_checkpoint_cow_faults",
            running "cowherd_checkpoint_cow_faults",
            total_by_page_size "cowherd_cow_faults_total", log "cow_faults";
        "Bytes of the copied pages", |it| Bytes(it.copied_bytes),
            info "copied_bytes", json "copied_bytes", running "cowherd_checkpoint_cow_bytes",
            total_by_page_size "cowherd_cow_copied_bytes_total", log "cow_bytes";
        "Bytes that commands wrote to the arena during checkpoints", |it| Bytes(it.written_bytes),
            info "written_bytes", json "written_bytes", total "cowherd_cow_written_bytes_total";
        "Bytes copied for each byte written", |it| Ratio(it.amplification()),
            info "amplification", last "cowherd_last_checkpoint_cow_amplification_ratio",
            total "cowherd_cow_amplification_ratio", log "cow_amplification";
        "Time that writers stood still for copies", |it| Time(it.stall),
            info "stall_usec", json "stall_seconds",
            last "cowherd_last_checkpoint_cow_stall_seconds",
            total "cowherd_cow_stall_seconds_total", log "cow_stall_us";
        "The longest copy-on-write fault", |it| Time(it.longest),
            info "longest_fault_usec", json "longest_fault_seconds",
            last "cowherd_last_checkpoint_cow_longest_fault_seconds";
        "First writes to pages that held nothing at the fork", |it| Count(it.fresh_pages),
            info "fresh_pages", json "fresh_pages";
        "First writes to pages that the child had released", |it| Count(it.private_pages),
            info "private_pages", json "private_pages";
    }

    /// The cost of the undo log: of one checkpoint, or since the start.
    UNDO_FIGURES: UndoStats {
        "Blocks captured before their first change since the fork", |it| Count(it.captures),
            info "captures", json "captures", last "cowherd_last_checkpoint_undo_captures",
            running "cowherd_checkpoint_undo_captures", total "cowherd_undo_captures_total",
            log "undo_captures";
        "Bytes of the captured blocks", |it| Bytes(it.captured_bytes),
            info "captured_bytes", json "captured_bytes",
            running "cowherd_checkpoint_undo_captured_bytes",
            total "cowherd_undo_captured_bytes_total", log "undo_bytes";
        "Bytes that commands wrote to the arena during checkpoints", |it| Bytes(it.written_bytes),
            info "written_bytes", json "written_bytes", total "cowherd_undo_written_bytes_total";
        "Bytes captured for each byte written", |it| Ratio(it.amplification()),
            info "amplification", last "cowherd_last_checkpoint_undo_amplification_ratio",
            total "cowherd_undo_amplification_ratio", log "undo_amplification";
        "Time that writers spent on capturing", |it| Time(it.stall),
            info "stall_usec", json "stall_seconds",
            last "cowherd_last_checkpoint_undo_stall_seconds",
            total "cowherd_undo_stall_seconds_total", log "undo_stall_us";
        "The longest time that one change spent on capturing", |it| Time(it.longest),
            info "longest_capture_usec", json "longest_capture_seconds",
            last "cowherd_last_checkpoint_undo_longest_capture_seconds";
        "High water of the undo log", |it| Bytes(it.log_bytes),
            info "log_bytes", json "log_bytes", last "cowherd_last_checkpoint_undo_log_bytes",
            running "cowherd_checkpoint_undo_log_bytes", log "undo_log_bytes";
        "Memory that the undo log took, prefaulted memory included", |it| Bytes(it.committed_bytes),
            info "committed_bytes", json "committed_bytes",
            last "cowherd_last_checkpoint_undo_committed_bytes";
        "Undo records written over one that was no longer needed", |it| Count(it.reused_records),
            info "reused_records", json "reused_records",
            last "cowherd_last_checkpoint_undo_reused_records",
            total "cowherd_undo_reused_records_total";
    }

    /// The longest stall, which INFO and the log show beside the checkpoint's figures.
    STALL_FIGURES: CheckpointRecord {
        "The longest that a client waited for one command",
            |it| it.longest_stall.as_ref().map_or(Absent, |stall| Time(stall.took)),
            info "longest_stall_usec";
        "What took most of that time",
            |it| it.longest_stall.as_ref().map_or(Absent, |stall| Text(stall.cause.name().into())),
            info "longest_stall_cause";
        "The longest that a client waited for one command; 0: no command ran",
            |it| Time(it.longest_stall.as_ref().map_or(Duration::ZERO, |stall| stall.took)),
            log "longest_stall_us";
        "What took most of that time; `none`: no command ran",
            |it| Text(it.longest_stall.as_ref().map_or("none", |stall| stall.cause.name()).into()),
            log "longest_stall_cause";
    }
}

impl FigureValue {
    /// The value as INFO writes it; None: INFO leaves the figure out.
    pub(super) fn info(&self) -> Option<String> {
        Some(match self {
            Absent => return None,
            Count(number) | Bytes(number) => number.to_string(),
            Time(time) => clock::micros(*time).to_string(),
            Ratio(ratio) => format!("{ratio:.2}"),
            PerSecond(rate) => format!("{rate:.0}"),
            Flag(is_set) => u8::from(*is_set).to_string(),
            UnixMillis(ms) => ms.to_string(),
            Text(text) => text.to_string(),
        })
    }

    /// The value as a metric; None: the metric has no series.
    pub(super) fn metric(&self) -> Option<f64> {
        match self {
            Absent | Text(_) => None,
            Count(number) | Bytes(number) => Some(*number as f64),
            Time(time) => Some(time.as_secs_f64()),
            Ratio(number) | PerSecond(number) => Some(*number),
            Flag(is_set) => Some(f64::from(u8::from(*is_set))),
            UnixMillis(ms) => Some(*ms as f64 / 1e3),
        }
    }

    /// The value for the log. The suffix of `name` decides the unit of a duration.
    fn log(self, name: &str) -> Box<dyn Value> {
        match self {
            Absent => Box::new(None::<u64>),
            Count(number) | Bytes(number) => Box::new(number),
            Time(time) if name.ends_with("_us") => Box::new(clock::micros(time)),
            Time(time) => Box::new(time.as_secs_f64()),
            Ratio(ratio) => Box::new((ratio * 100.0).round() / 100.0),
            PerSecond(rate) => Box::new(rate.round()),
            Flag(is_set) => Box::new(is_set),
            UnixMillis(ms) => Box::new(ms),
            Text(text) => Box::new(text.into_owned()),
        }
    }
}

fn log_value<T: LoggedStats>(
    record: &CheckpointRecord,
    name: &str,
    value: fn(&T) -> FigureValue,
) -> Box<dyn Value> {
    T::of(record).map_or(Absent, value).log(name)
}

impl Serialize for FigureValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Absent => serializer.serialize_none(),
            Count(number) | Bytes(number) => serializer.serialize_u64(*number),
            Time(time) => serializer.serialize_f64(time.as_secs_f64()),
            Ratio(number) | PerSecond(number) => serializer.serialize_f64(*number),
            Flag(is_set) => serializer.serialize_bool(*is_set),
            UnixMillis(ms) => serializer.serialize_i64(*ms),
            Text(text) => serializer.serialize_str(text),
        }
    }
}

/// The figures of a `T` in the form `name=value,name=value`, under their names in INFO.
pub(super) struct InfoFigures<'a, T: 'static>(pub(super) &'static [Figure<T>], pub(super) &'a T);

impl<T> fmt::Display for InfoFigures<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(table, of) = self;
        let mut is_first = true;
        for figure in *table {
            if let Some((name, value)) = figure.info.zip((figure.value)(of).info()) {
                if !std::mem::take(&mut is_first) {
                    out.write_char(',')?;
                }
                write!(out, "{name}={value}")?;
            }
        }
        Ok(())
    }
}
