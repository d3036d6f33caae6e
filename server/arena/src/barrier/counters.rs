//! What copy-on-write has cost: counters that any writer adds to, and each thread's own share.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::log::UndoLog;
use super::undo::Captured;
use crate::stats::{CowStats, Distribution, SharedHistogram, UndoStats};

/// Bytes written are counted at so many places, so that threads do not wait for each other.
const STRIPES: usize = 16;

/// What copy-on-write has cost one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StallTimes {
    /// Pages that the kernel copied for it.
    pub faults: u64,
    /// Nanoseconds that it stood still, for those or for another thread's.
    pub nanoseconds: u64,
    /// The longest of these, in nanoseconds.
    pub longest: u64,
    /// It was the undo log's capturing, not copy-on-write.
    pub captured: bool,
}

impl StallTimes {
    const NONE: Self = Self { faults: 0, nanoseconds: 0, longest: 0, captured: false };
}

thread_local! {
    static STALLS: Cell<StallTimes> = const { Cell::new(StallTimes::NONE) };
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % STRIPES
    };
}

/// What copy-on-write has cost the calling thread since it last asked.
#[inline]
pub fn take_stall_times() -> StallTimes {
    STALLS.replace(StallTimes::NONE)
}

fn attribute(faults: u64, nanoseconds: u64, captured: bool) {
    let stalls = STALLS.get();
    STALLS.set(StallTimes {
        faults: stalls.faults + faults,
        nanoseconds: stalls.nanoseconds + nanoseconds,
        longest: stalls.longest.max(nanoseconds),
        captured,
    });
}

/// The counters. They only grow; a checkpoint's share is the difference to its beginning.
#[derive(Default)]
pub(crate) struct CowCounters {
    /// Time spent waiting for others' faults.
    waited: AtomicU64,
    fresh: AtomicU64,
    private: AtomicU64,
    /// The longest fault since the last [`Self::begin`].
    longest: AtomicU64,
    times: SharedHistogram,
    written: [CachePadded<AtomicU64>; STRIPES],
    begun: Mutex<CowStats>,
}

impl CowCounters {
    /// A checkpoint begins.
    pub(crate) fn begin(&self) {
        self.longest.store(0, Relaxed);
        *self.begun.lock() = self.total(0);
    }

    /// So many bytes are about to be written.
    #[inline]
    pub(crate) fn written(&self, bytes: u64) {
        self.written[STRIPE.with(|stripe| *stripe)].fetch_add(bytes, Relaxed);
    }

    /// A fault copied a page for the calling thread.
    pub(crate) fn copied(&self, nanoseconds: u64) {
        self.longest.fetch_max(nanoseconds, Relaxed);
        self.times.record(nanoseconds);
        attribute(1, nanoseconds, false);
    }

    /// The calling thread waited for a fault of another.
    pub(crate) fn stalled(&self, nanoseconds: u64) {
        self.waited.fetch_add(nanoseconds, Relaxed);
        attribute(0, nanoseconds, false);
    }

    /// A page that held nothing was written.
    pub(crate) fn fresh(&self) {
        self.fresh.fetch_add(1, Relaxed);
    }

    /// A page that no other process shares any more was written.
    pub(crate) fn private(&self) {
        self.private.fetch_add(1, Relaxed);
    }

    /// How long each fault took.
    pub(crate) fn times(&self) -> Distribution {
        self.times.distribution()
    }

    /// All since the start, in pages of `1 << page_shift` bytes.
    pub(crate) fn total(&self, page_shift: u32) -> CowStats {
        let faults = self.times.count();
        let stall = self.times.sum_nanos() + self.waited.load(Relaxed);
        CowStats {
            faults,
            copied_bytes: faults << page_shift,
            stall: Duration::from_nanos(stall),
            longest: Duration::from_nanos(self.times.max()),
            written_bytes: self.written.iter().map(|stripe| stripe.load(Relaxed)).sum(),
            fresh_pages: self.fresh.load(Relaxed),
            private_pages: self.private.load(Relaxed),
        }
    }

    /// What was counted since the last checkpoint began.
    pub(crate) fn since_begin(&self, page_shift: u32) -> CowStats {
        let begun = *self.begun.lock();
        let total = self.total(page_shift);
        let faults = total.faults - begun.faults;
        CowStats {
            faults,
            copied_bytes: faults << page_shift,
            stall: total.stall.saturating_sub(begun.stall),
            longest: Duration::from_nanos(self.longest.load(Relaxed)),
            written_bytes: total.written_bytes - begun.written_bytes,
            fresh_pages: total.fresh_pages - begun.fresh_pages,
            private_pages: total.private_pages - begun.private_pages,
        }
    }
}

/// What the undo log has cost. The counters only grow, as those of [`CowCounters`].
#[derive(Default)]
pub(crate) struct UndoCounters {
    blocks: AtomicU64,
    bytes: AtomicU64,
    /// The longest since the last [`Self::begin`].
    longest: AtomicU64,
    times: SharedHistogram,
    begun: Mutex<UndoStats>,
}

impl UndoCounters {
    /// A checkpoint begins.
    pub(crate) fn begin(&self, log: Option<&UndoLog>, written: &CowCounters) {
        self.longest.store(0, Relaxed);
        *self.begun.lock() = self.total(log, written);
    }

    /// A change of the calling thread's has had blocks captured.
    pub(crate) fn captured(&self, captured: &Captured) {
        self.blocks.fetch_add(captured.blocks, Relaxed);
        self.bytes.fetch_add(captured.bytes, Relaxed);
        self.longest.fetch_max(captured.nanos, Relaxed);
        self.times.record(captured.nanos);
        attribute(captured.blocks, captured.nanos, true);
    }

    /// How long each change took that had something captured.
    pub(crate) fn times(&self) -> Distribution {
        self.times.distribution()
    }

    /// All since the start; what the log holds is of this moment.
    pub(crate) fn total(&self, log: Option<&UndoLog>, written: &CowCounters) -> UndoStats {
        UndoStats {
            captures: self.blocks.load(Relaxed),
            captured_bytes: self.bytes.load(Relaxed),
            stall: Duration::from_nanos(self.times.sum_nanos()),
            longest: Duration::from_nanos(self.times.max()),
            written_bytes: written.total(0).written_bytes,
            reused_records: log.map_or(0, UndoLog::reused),
            log_bytes: log.map_or(0, UndoLog::allocated),
            committed_bytes: log.map_or(0, UndoLog::committed),
        }
    }

    /// What was counted since the last checkpoint began.
    pub(crate) fn since_begin(&self, log: Option<&UndoLog>, written: &CowCounters) -> UndoStats {
        let begun = *self.begun.lock();
        let total = self.total(log, written);
        UndoStats {
            captures: total.captures - begun.captures,
            captured_bytes: total.captured_bytes - begun.captured_bytes,
            stall: total.stall.saturating_sub(begun.stall),
            longest: Duration::from_nanos(self.longest.load(Relaxed)),
            written_bytes: total.written_bytes - begun.written_bytes,
            ..total
        }
    }
}
