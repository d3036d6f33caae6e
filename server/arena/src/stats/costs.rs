//! What a checkpoint costs: copy-on-write faults, undo log captures, and the time of each step of
//! the image writer.

use std::time::Duration;

/// The cost of copy-on-write, since the start or in one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CowStats {
    /// Pages that the kernel copied at the first write since the fork.
    pub faults: u64,
    /// Bytes of the copied pages.
    pub copied_bytes: u64,
    /// Time that writers stood still for copies, including those that waited for another writer's
    /// fault.
    pub stall: Duration,
    /// The longest single fault.
    pub longest: Duration,
    /// Bytes that commands wrote to the arena during checkpoints.
    pub written_bytes: u64,
    /// First writes to pages that held nothing at the fork, so that the kernel copied nothing.
    pub fresh_pages: u64,
    /// First writes to pages that the child had already released, so that the kernel copied
    /// nothing.
    pub private_pages: u64,
}

impl CowStats {
    /// Bytes copied for each byte written; 0 while nothing is written.
    pub fn amplification(&self) -> f64 {
        ratio(self.copied_bytes, self.written_bytes)
    }
}

/// The cost of the undo log, since the start or in one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UndoStats {
    /// Blocks captured before their first change since the fork.
    pub captures: u64,
    /// Bytes of the captured blocks.
    pub captured_bytes: u64,
    /// Time that writers spent on capturing.
    pub stall: Duration,
    /// The longest time that one change spent on capturing.
    pub longest: Duration,
    /// Bytes that commands wrote to the arena during checkpoints.
    pub written_bytes: u64,
    /// Records written over one that was no longer needed.
    pub reused_records: u64,
    /// High water of the log, its own bytes included.
    pub log_bytes: u64,
    /// Memory that the log has taken, prefaulted memory included.
    pub committed_bytes: u64,
}

impl UndoStats {
    /// Bytes captured for each byte written; 0 while nothing is written.
    pub fn amplification(&self) -> f64 {
        ratio(self.captured_bytes, self.written_bytes)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Time that the image writer spent on each step: the child, or the server itself for a checkpoint
/// in the foreground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterTimes {
    /// Fetching and copying chunks.
    pub read: Duration,
    /// Putting captured blocks back.
    pub patch: Duration,
    /// Compression.
    pub compress: Duration,
    /// Checksums.
    pub checksum: Duration,
    /// `write(2)`.
    pub write: Duration,
    /// The final `fsync(2)`.
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

    /// The times of both, added step by step.
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
