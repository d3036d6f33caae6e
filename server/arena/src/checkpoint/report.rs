//! `ChildReport`: counters of a running checkpoint, in a page that the child shares with its
//! parent.
//!
//! One process writes the counters, any thread of the other reads them. Each is consistent by
//! itself; all are final once the child has ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::stats::WriterTimes;

/// Phase of the image writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriterPhase {
    /// Nothing was written yet.
    Starting,
    /// Chunks are being written.
    Writing,
    /// The file is being made durable.
    Syncing,
    /// The file is whole and durable.
    Done,
}

impl WriterPhase {
    const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Starting,
            1 => Self::Writing,
            2 => Self::Syncing,
            _ => Self::Done,
        }
    }
}

/// Why the writer stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WriterFailure {
    pub phase: WriterPhase,
    pub errno: i32,
}

/// The child lacks pages that its parent had at the fork.
pub(super) const NOT_INHERITED: WriterFailure =
    WriterFailure { phase: WriterPhase::Starting, errno: nix::libc::ENODATA };

/// The counters of a checkpoint at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointProgress {
    /// The phase.
    pub phase: WriterPhase,
    /// Chunks to be written in all.
    pub chunks_total: u64,
    /// Chunks that the writer is done with.
    pub chunks_done: u64,
    /// The chunk behind the last that the writer is done with; it goes by ascending numbers.
    pub done_below: u64,
    /// Records of the undo log that were put back.
    pub patched: u64,
    /// Bytes of those chunks without what is free in them.
    pub raw_bytes: u64,
    /// Bytes of the file so far.
    pub image_bytes: u64,
    /// Where the writer's time went so far.
    pub steps: WriterTimes,
}

/// The shared counters. All of them zero is a report in which nothing has happened.
#[repr(C)]
#[derive(Default)]
pub(super) struct ChildReport {
    phase: AtomicU64,
    errno: AtomicU64,
    pub chunks_total: Counter,
    pub chunks_done: Counter,
    pub done_below: Counter,
    pub lz4_chunks: Counter,
    pub raw_bytes: Counter,
    pub image_bytes: Counter,
    pub direct: Counter,
    /// Records of the undo log that were put back.
    pub patched: Counter,
    pub read: Counter,
    pub patch: Counter,
    pub compress: Counter,
    pub checksum: Counter,
    pub write: Counter,
    pub sync: Counter,
}

/// A counter with one writer.
#[repr(transparent)]
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Adds the nanoseconds since `since`; returns now.
    pub(super) fn lap(&self, since: Instant) -> Instant {
        let now = Instant::now();
        let nanoseconds = now.saturating_duration_since(since).as_nanos();
        self.add(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        now
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_nanos(self.get())
    }
}

impl ChildReport {
    pub(super) fn phase(&self) -> WriterPhase {
        WriterPhase::from_number(self.phase.load(Ordering::Acquire))
    }

    pub(super) fn enter(&self, phase: WriterPhase) {
        self.phase.store(phase as u64, Ordering::Release);
    }

    /// Leaves the reason for which the writer stops.
    pub(super) fn fail(&self, failure: WriterFailure) {
        self.enter(failure.phase);
        self.errno.store(u64::from(failure.errno.unsigned_abs()), Ordering::Release);
    }

    /// The reason for which the writer stopped.
    pub(super) fn failure(&self) -> Option<WriterFailure> {
        let errno = i32::try_from(self.errno.load(Ordering::Acquire)).unwrap_or(i32::MAX);
        (errno != 0).then(|| WriterFailure { phase: self.phase(), errno })
    }

    pub(super) fn progress(&self) -> CheckpointProgress {
        CheckpointProgress {
            phase: self.phase(),
            chunks_total: self.chunks_total.get(),
            chunks_done: self.chunks_done.get(),
            done_below: self.done_below.get(),
            patched: self.patched.get(),
            raw_bytes: self.raw_bytes.get(),
            image_bytes: self.image_bytes.get(),
            steps: self.steps(),
        }
    }

    pub(super) fn steps(&self) -> WriterTimes {
        WriterTimes {
            read: self.read.duration(),
            patch: self.patch.duration(),
            compress: self.compress.duration(),
            checksum: self.checksum.duration(),
            write: self.write.duration(),
            sync: self.sync.duration(),
        }
    }
}
