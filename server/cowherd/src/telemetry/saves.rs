//! What each save did and what it cost. The last [`KEPT`] are kept.
//!
//! Every field is a figure of one save alone; durations are serialised as seconds. `None` is what
//! could not be found out, zero what was counted and did not happen.

use std::collections::VecDeque;
use std::time::Duration;

use cowherd_arena::stats::{CowStats, UndoStats, WriterTimes};
use serde::{Serialize, Serializer};

use crate::config::CheckpointIsolation;

/// Saves that are remembered.
pub const KEPT: usize = 64;

/// How a save ended, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointStatus {
    /// It runs.
    #[default]
    Running,
    /// The image is published.
    Ok,
    /// The old image was kept.
    Failed,
    /// It was called off; the old image was kept.
    Cancelled,
}

impl CheckpointStatus {
    /// As INFO and the metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What made a command slow: that which took most of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StallCause {
    /// It waited until the saver had locked everything, or let go of it.
    Safepoint,
    /// It waited while the kernel forked.
    Fork,
    /// It waited while the kernel copied pages for it.
    CowFault,
    /// It captured what was in blocks before it changed them.
    UndoCapture,
    /// Its own work, the processor given to others, or another command's lock.
    #[default]
    Other,
}

impl StallCause {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Safepoint, Self::Fork, Self::CowFault, Self::UndoCapture, Self::Other];

    /// As INFO, the metrics and JSON name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safepoint => "safepoint",
            Self::Fork => "fork",
            Self::CowFault => "cow-fault",
            Self::UndoCapture => "undo-capture",
            Self::Other => "other",
        }
    }
}

/// The longest that a client waited for one command while a save ran. Commands for administrators,
/// such as the BGSAVE that waits for its own fork, are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LongestStall {
    /// How long.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub took: Duration,
    /// What took most of it.
    pub cause: StallCause,
    /// The command, in lower case.
    pub command: String,
}

/// One save.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct CheckpointRecord {
    /// 1 for the first since the start of the process.
    pub number: u64,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// Whether a child wrote it.
    pub background: bool,
    /// How it ended.
    pub status: CheckpointStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it failed since writers changed more than the undo log may hold.
    pub outpaced: bool,
    /// The arena's pages, such as `thp`.
    pub pages: &'static str,
    /// How the child saw one instant, such as `kernel-cow`.
    pub isolation: &'static str,
    /// Bytes that one copy-on-write fault copies.
    pub page_bytes: u64,
    /// Keys at the fork.
    pub keys: u64,
    /// Chunks in use at the fork.
    pub chunks: u64,
    /// Chunks written.
    pub chunks_done: u64,
    /// From asking for the first lock to holding the last.
    #[serde(rename = "safepoint_wait_seconds", serialize_with = "seconds")]
    pub safepoint_wait: Duration,
    /// In `fork(2)`.
    #[serde(rename = "fork_seconds", serialize_with = "seconds")]
    pub fork: Duration,
    /// From asking for the first lock to releasing the last: what clients feel of the fork.
    #[serde(rename = "hold_up_seconds", serialize_with = "seconds")]
    pub hold_up: Duration,
    /// From asking for the first lock to the end.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// Where the writer's time went.
    pub steps: WriterTimes,
    /// Bytes of the chunks written, as they lie in memory.
    pub raw_bytes: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// What copy-on-write cost.
    pub cow: CowStats,
    /// What the undo log cost.
    pub undo: UndoStats,
    /// The longest wait of a client; none if no command ran.
    pub longest_stall: Option<LongestStall>,
    /// Bytes of the arena on huge pages at the fork.
    pub huge_before_bytes: Option<u64>,
    /// Bytes of the arena on huge pages at the end.
    pub huge_after_bytes: Option<u64>,
    /// Transparent huge pages of the arena that writers split.
    pub thp_splits: Option<u64>,
    /// The most memory that the save took beyond what the server had: copied pages, the child's
    /// page tables and its buffers.
    pub extra_memory_bytes: u64,
    /// Minor page faults of the server's threads, without the saver's, from asking for the first
    /// lock until the child was gone, less those of the arena that [`CowStats`] count.
    pub other_page_faults: Option<u64>,
}

impl CheckpointRecord {
    /// Whether the child saw one instant by an undo log.
    pub fn has_undo_log(&self) -> bool {
        self.isolation == CheckpointIsolation::UndoLog.name()
    }

    /// Bytes that the kernel copied, or that the undo log captured, because they were changed.
    pub const fn copied_bytes(&self) -> u64 {
        // One of the two has not been in use.
        self.cow.copied_bytes + self.undo.captured_bytes
    }

    /// Bytes that commands wrote to the arena while it ran.
    pub const fn written_bytes(&self) -> u64 {
        self.cow.written_bytes + self.undo.written_bytes
    }

    /// Bytes of memory written in a second, from the fork to the end.
    pub fn bytes_per_second(&self) -> f64 {
        let seconds = self.duration.saturating_sub(self.hold_up).as_secs_f64();
        if seconds > 0.0 { self.raw_bytes as f64 / seconds } else { 0.0 }
    }
}

/// The last saves, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<CheckpointRecord>);

impl History {
    /// Remembers a save that has ended.
    pub(super) fn push(&mut self, record: CheckpointRecord) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<&CheckpointRecord> {
        self.0.back()
    }

    /// All that are remembered, the oldest first.
    pub(super) fn list(&self) -> Vec<CheckpointRecord> {
        self.0.iter().cloned().collect()
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
