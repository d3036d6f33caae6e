//! The record of one checkpoint: what it did and what it cost. The history keeps the last
//! [`KEPT_CHECKPOINTS`] records.
//!
//! `None` stands for a figure that could not be read, zero for something that did not happen. The
//! outputs of the figures are described in `checkpoint_figures`.

use std::collections::VecDeque;
use std::time::Duration;

use cowherd_arena::stats::{CowStats, UndoStats, WriterTimes};
use serde::Serialize;

use crate::config::CheckpointIsolation;

/// Length of the history: some hours with the default `save` rules.
pub(crate) const KEPT_CHECKPOINTS: usize = 64;

/// How a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CheckpointStatus {
    /// Not ended yet.
    #[default]
    Running,
    /// The new image is published.
    Ok,
    /// The old image is kept.
    Failed,
    /// Called off; the old image is kept.
    Cancelled,
}

impl CheckpointStatus {
    /// The name in INFO, JSON and the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What took most of the time of a slow command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StallCause {
    /// The wait until the checkpoint had locked all shards or unlocked them.
    Safepoint,
    /// The wait during `fork(2)`.
    Fork,
    /// The wait while the kernel copied pages.
    CowFault,
    /// Capturing blocks for the undo log.
    UndoCapture,
    /// The command's own work, preemption, or the lock of another command.
    #[default]
    Other,
}

impl StallCause {
    pub(crate) const ALL: [Self; 5] =
        [Self::Safepoint, Self::Fork, Self::CowFault, Self::UndoCapture, Self::Other];

    /// The name in INFO, the metrics, JSON and the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Safepoint => "safepoint",
            Self::Fork => "fork",
            Self::CowFault => "cow-fault",
            Self::UndoCapture => "undo-capture",
            Self::Other => "other",
        }
    }
}

/// The longest that a client waited for one command during a checkpoint. Commands for
/// administrators are left out, such as the BGSAVE that waits for its own fork.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct LongestStall {
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub(crate) took: Duration,
    pub(crate) cause: StallCause,
    /// The command's name in lower case.
    pub(crate) command: String,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What one checkpoint did and what it cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CheckpointRecord {
    /// 1 for the first since the start of the process.
    pub(crate) number: u64,
    /// When the checkpoint began, in milliseconds since 1970.
    pub(crate) started_ms: i64,
    /// Whether a child wrote the image.
    pub(crate) background: bool,
    pub(crate) status: CheckpointStatus,
    /// Why the checkpoint failed.
    pub(crate) error: Option<String>,
    /// Whether the checkpoint failed since writers changed more than the undo log may hold.
    pub(crate) outpaced: bool,
    /// The kind of the arena's pages, such as `thp`.
    pub(crate) pages: &'static str,
    /// How the child saw one instant, such as `kernel-cow`.
    pub(crate) isolation: &'static str,
    /// Bytes that one copy-on-write fault copies.
    pub(crate) page_bytes: u64,
    /// Keys at the fork.
    pub(crate) keys: u64,
    /// Chunks in use at the fork.
    pub(crate) chunks: u64,
    /// Chunks written.
    pub(crate) chunks_done: u64,
    /// From the request for the first lock to holding the last.
    pub(crate) safepoint_wait: Duration,
    /// In `fork(2)`.
    pub(crate) fork: Duration,
    /// From the request for the first lock to the release of the last: the pause of the clients.
    pub(crate) hold_up: Duration,
    /// From the request for the first lock to the end.
    pub(crate) duration: Duration,
    /// Time of the image writer by step.
    pub(crate) steps: WriterTimes,
    /// Bytes in memory of the chunks written.
    pub(crate) raw_bytes: u64,
    pub(crate) image_bytes: u64,
    pub(crate) cow: CowStats,
    pub(crate) undo: UndoStats,
    /// None: no command ran.
    pub(crate) longest_stall: Option<LongestStall>,
    /// Bytes of the arena on huge pages at the fork; under an undo log the last sample.
    pub(crate) huge_before_bytes: Option<u64>,
    /// Bytes of the arena on huge pages at the end; under an undo log the last sample.
    pub(crate) huge_after_bytes: Option<u64>,
    /// Transparent huge pages of the arena that writers split.
    pub(crate) thp_splits: Option<u64>,
    /// The most memory that the checkpoint took beyond what the server had: copied pages or undo
    /// log, the child's page tables and its buffers.
    pub(crate) extra_memory_bytes: u64,
    /// Minor page faults of the server's threads, except the checkpoint thread, from the request
    /// for the first lock until the child was gone, less the faults that [`CowStats`] counts.
    pub(crate) other_page_faults: Option<u64>,
}

impl CheckpointRecord {
    /// Whether the undo log isolated the child.
    pub(crate) fn has_undo_log(&self) -> bool {
        self.isolation == CheckpointIsolation::UndoLog.name()
    }

    /// Bytes that the kernel copied or that the undo log captured.
    pub(crate) const fn copied_bytes(&self) -> u64 {
        // One of the two is not in use and zero.
        self.cow.copied_bytes + self.undo.captured_bytes
    }

    /// Bytes that commands wrote to the arena during the checkpoint.
    pub(crate) const fn written_bytes(&self) -> u64 {
        self.cow.written_bytes + self.undo.written_bytes
    }

    /// Bytes of memory written in a second, from the fork to the end.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        let seconds = self.duration.saturating_sub(self.hold_up).as_secs_f64();
        if seconds > 0.0 { self.raw_bytes as f64 / seconds } else { 0.0 }
    }
}

/// Sums over all checkpoints since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CheckpointTotals {
    /// Checkpoints begun.
    pub(crate) begun: u64,
    pub(crate) failed: u64,
    pub(crate) steps: WriterTimes,
    /// Bytes of memory written.
    pub(crate) raw_bytes: u64,
    pub(crate) image_bytes: u64,
    /// See [`UndoStats::reused_records`].
    pub(crate) undo_reused_records: u64,
    /// See [`CheckpointRecord::other_page_faults`].
    pub(crate) other_page_faults: u64,
}

impl CheckpointTotals {
    /// Adds the costs of a checkpoint that has ended.
    pub(super) fn add(&mut self, record: &CheckpointRecord) {
        self.steps = self.steps.plus(&record.steps);
        self.raw_bytes += record.raw_bytes;
        self.image_bytes += record.image_bytes;
        self.undo_reused_records += record.undo.reused_records;
        self.other_page_faults += record.other_page_faults.unwrap_or(0);
    }
}

/// The records of the last checkpoints, the oldest first.
#[derive(Debug, Default)]
pub(super) struct CheckpointHistory(VecDeque<CheckpointRecord>);

impl CheckpointHistory {
    pub(super) fn push(&mut self, record: CheckpointRecord) {
        if self.0.len() == KEPT_CHECKPOINTS {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    pub(super) fn last(&self) -> Option<&CheckpointRecord> {
        self.0.back()
    }

    pub(super) fn list(&self) -> Vec<CheckpointRecord> {
        self.0.iter().cloned().collect()
    }
}
