//! What a checkpoint costs: copy-on-write faults, undo log captures, and the time of each step of
//! the image writer.

use std::time::Duration;

/// What copy-on-write has cost: since the start, or in one save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CowStats {
    /// Pages that the kernel copied because they were written for the first time since the fork.
    pub faults: u64,
    /// Bytes of those pages.
    pub copied_bytes: u64,
    /// Time that writers stood still for it, those included that waited for another's fault.
    #[cfg_attr(feature = "serde", serde(rename = "stall_seconds", serialize_with = "seconds"))]
    pub stall: Duration,
    /// The longest single fault.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "longest_fault_seconds", serialize_with = "seconds")
    )]
    pub longest: Duration,
    /// Bytes that commands wrote to the arena while saves ran.
    pub written_bytes: u64,
    /// Pages first written that held nothing before, so that nothing was copied.
    pub fresh_pages: u64,
    /// Pages first written that the child had already let go of, so that nothing was copied.
    pub private_pages: u64,
}

impl CowStats {
    /// Bytes copied for each byte written; 0 while nothing is written.
    pub fn amplification(&self) -> f64 {
        if self.written_bytes == 0 {
            return 0.0;
        }
        self.copied_bytes as f64 / self.written_bytes as f64
    }
}

/// What the undo log has cost: since the start, or in one save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct UndoStats {
    /// Blocks that were captured before their first change since the fork.
    pub captures: u64,
    /// Bytes of those blocks.
    pub captured_bytes: u64,
    /// Time that writers spent on it.
    #[cfg_attr(feature = "serde", serde(rename = "stall_seconds", serialize_with = "seconds"))]
    pub stall: Duration,
    /// The longest that one change spent on it.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "longest_capture_seconds", serialize_with = "seconds")
    )]
    pub longest: Duration,
    /// Bytes that commands wrote to the arena while saves ran.
    pub written_bytes: u64,
    /// Records written where an older one had stood that was needed no more.
    pub reused_records: u64,
    /// High water of the log, its own bytes included.
    pub log_bytes: u64,
    /// Memory that the log has taken, what was made ready ahead of its use included.
    pub committed_bytes: u64,
}

impl UndoStats {
    /// Bytes captured for each byte written; 0 while nothing is written.
    pub fn amplification(&self) -> f64 {
        if self.written_bytes == 0 {
            return 0.0;
        }
        self.captured_bytes as f64 / self.written_bytes as f64
    }
}

/// Where the writer's time went: the child's, or the server's own in a save in the foreground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct WriterTimes {
    /// Fetching and copying chunks.
    #[cfg_attr(feature = "serde", serde(rename = "read_seconds", serialize_with = "seconds"))]
    pub read: Duration,
    /// Putting back what the undo log had captured.
    #[cfg_attr(feature = "serde", serde(rename = "patch_seconds", serialize_with = "seconds"))]
    pub patch: Duration,
    /// Compression.
    #[cfg_attr(feature = "serde", serde(rename = "compress_seconds", serialize_with = "seconds"))]
    pub compress: Duration,
    /// Checksums.
    #[cfg_attr(feature = "serde", serde(rename = "checksum_seconds", serialize_with = "seconds"))]
    pub checksum: Duration,
    /// Writing.
    #[cfg_attr(feature = "serde", serde(rename = "write_seconds", serialize_with = "seconds"))]
    pub write: Duration,
    /// The final sync.
    #[cfg_attr(feature = "serde", serde(rename = "sync_seconds", serialize_with = "seconds"))]
    pub sync: Duration,
}

impl WriterTimes {
    /// The steps with their names.
    pub fn named(&self) -> [(&'static str, Duration); 6] {
        [
            ("read", self.read),
            ("patch", self.patch),
            ("compress", self.compress),
            ("checksum", self.checksum),
            ("write", self.write),
            ("sync", self.sync),
        ]
    }

    /// The sums of two.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            read: self.read + other.read,
            patch: self.patch + other.patch,
            compress: self.compress + other.compress,
            checksum: self.checksum + other.checksum,
            write: self.write + other.write,
            sync: self.sync + other.sync,
        }
    }
}

#[cfg(feature = "serde")]
fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
