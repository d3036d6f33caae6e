//! The write barrier: every change of arena bytes announces itself here first.
//!
//! Outside a checkpoint the barrier is one load and one branch. During a checkpoint it acts before
//! the change, as the isolation demands:
//!
//! | isolation | file | action |
//! |---|---|---|
//! | `kernel-cow` | `cow` | touches each page first and times the kernel's copy |
//! | `undo-log` | `undo`, `blocks` | captures each block that changes for the first time |
//! | | `log`, `records`, `slot_stack` | the log: its slots and records |
//! | | `protocol` | the memory orders of the log, and their proof |
//! | both | `child_view` | what a forked child may use |
//! | | `counters` | the cost, in all and for each thread |
//! | | `checker` | for tests: finds changes that were not announced |
//!
//! The barrier works on the `Mapping`; it does not know shards or the allocator. A
//! [`Recording`](crate::Recording) begins and ends its work at safepoints.
//!
//! Invariants:
//! 1. `active` changes only at a safepoint, so it is constant while any shard is locked.
//! 2. All state of pages, blocks and chunks is clear when `active` turns on.

#![expect(unsafe_code, reason = "raw memory; each file lists its invariants")]

mod blocks;
mod checker;
mod child_view;
pub(crate) mod counters;
pub(crate) mod cow;
mod log;
mod protocol;
mod records;
mod slot_stack;
mod undo;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex, index as to_index};
use crate::memory::mapping::Mapping;
use crate::memory::pages::{Backing, Isolation};
use crate::memory::side_tables::SharedTable;
use crate::stats::{CowStats, Distribution, UndoStats};
use counters::{CowCounters, UndoCounters};

pub use blocks::BLOCK_SIZES;
pub(crate) use child_view::ChildView;
pub use log::UndoLog;
pub(crate) use records::Records;
pub use records::{MAX_LIMIT, MIN_LIMIT};

/// Whether the barrier is compiled in. A build without it measures its cost and cannot checkpoint
/// in the background.
pub const ON: bool = cfg!(feature = "barrier");

/// A chunk's progress through a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkProgress {
    /// In use at the fork.
    pub at_fork: bool,
    /// In use at the fork, and written by the child.
    pub written: bool,
    /// Copy-on-write faults since the fork, or blocks captured.
    pub write_count: u64,
}

/// State of the isolation of an arena.
enum IsolationState {
    Cow(Box<cow::CowState>),
    Undo(Box<undo::UndoState>),
}

/// The barrier of one arena.
pub struct Barrier {
    active: AtomicBool,
    isolation: IsolationState,
    /// Chunks in use at the fork: those that the child writes.
    at_fork: Box<[AtomicU64]>,
    /// Those of them that were cut into units.
    cut_at_fork: Box<[AtomicU64]>,
    /// By chunk: faults or captures since the fork; the child reads it too.
    write_counts: SharedTable<AtomicU32>,
    /// With `kernel-cow`: chunks below this number are written, if they were in use at the fork.
    written_below: AtomicU64,
    cow_counters: CachePadded<CowCounters>,
    undo_counters: CachePadded<UndoCounters>,
    checker: checker::BarrierChecker,
}

impl Barrier {
    /// The barrier of an arena of `capacity` bytes.
    ///
    /// # Errors
    /// The kernel refused memory for its tables.
    pub(crate) fn new(backing: Backing, capacity: u64) -> io::Result<Self> {
        let chunks = capacity / CHUNK_SIZE;
        let isolation = match backing.isolation {
            Isolation::KernelCow => {
                IsolationState::Cow(Box::new(cow::CowState::new(backing.kind, capacity)?))
            }
            Isolation::UndoLog(options) => {
                IsolationState::Undo(Box::new(undo::UndoState::new(options, capacity)?))
            }
        };
        Ok(Self {
            active: AtomicBool::new(false),
            isolation,
            at_fork: bits::bits(chunks),
            cut_at_fork: bits::bits(chunks),
            write_counts: SharedTable::new(to_index(chunks))?,
            written_below: AtomicU64::new(0),
            cow_counters: CachePadded::default(),
            undo_counters: CachePadded::default(),
            checker: checker::BarrierChecker::default(),
        })
    }

    /// Announces a change of `len` bytes at `at`. The caller holds the lock that guards the bytes.
    #[inline]
    pub(crate) fn before_write(&self, map: &Mapping, at: u64, len: u64) {
        if ON && self.active.load(Ordering::Relaxed) {
            self.record(map, at, len);
        }
    }

    #[cold]
    #[inline(never)]
    fn record(&self, map: &Mapping, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.cow_counters.written(len);
        match &self.isolation {
            IsolationState::Cow(cow) => {
                cow.first_touches(map, &self.cow_counters, &self.write_counts, at, len);
            }
            IsolationState::Undo(undo) => {
                let captured = undo.before_write(map, &self.at_fork, &self.write_counts, at, len);
                if captured.blocks > 0 {
                    self.undo_counters.captured(&captured);
                }
            }
        }
    }

    /// Starts recording at a safepoint. `fill_in_use` writes the sets of chunks in use and of those
    /// that are cut into units, `fill_resident` the set of chunks with memory.
    pub(crate) fn begin(
        &self,
        map: &Mapping,
        fill_in_use: impl FnOnce(&[AtomicU64], &[AtomicU64]),
        fill_resident: impl FnOnce(&[AtomicU64]),
    ) {
        fill_in_use(&self.at_fork, &self.cut_at_fork);
        if let IsolationState::Cow(cow) = &self.isolation {
            cow.begin(map.kind(), fill_resident);
        }
        self.cow_counters.begin();
        self.undo_counters.begin(self.undo_log(), &self.cow_counters);
        let checked = self.checker.begin(map, &self.at_fork);
        if let IsolationState::Undo(undo) = &self.isolation {
            undo.note_all(checked);
        }
        self.written_below.store(0, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    /// What a child forked during a recording may use.
    pub(crate) fn child_view<'a>(&'a self, map: &'a Mapping) -> ChildView<'a> {
        let records = self.undo_log().map(UndoLog::records);
        ChildView::new(map, [&self.at_fork, &self.cut_at_fork], &self.write_counts, records)
    }

    /// The child is about to return its memory: pages may become private.
    pub fn child_exiting(&self) {
        if let IsolationState::Cow(cow) = &self.isolation {
            cow.child_exiting();
        }
    }

    /// Stops recording at a safepoint; `in_use` is the set of chunks in use now.
    pub(crate) fn end(&self, map: &Mapping, in_use: &[AtomicU64]) {
        self.active.store(false, Ordering::Relaxed);
        self.checker.end(map, in_use, |at| match &self.isolation {
            IsolationState::Cow(cow) => cow.has_touched(at),
            // A full log captures nothing any more, and the checkpoint fails.
            IsolationState::Undo(undo) => undo.is_full() || undo.has_captured(at),
        });
    }

    /// Clears the state of pages, blocks and chunks after [`Self::end`], outside the safepoint
    /// (invariant 2).
    pub(crate) fn reset(&self) {
        match &self.isolation {
            IsolationState::Cow(cow) => cow.reset(),
            IsolationState::Undo(undo) => undo.reset(),
        }
        for count in self.write_counts.iter().filter(|count| count.load(Ordering::Relaxed) != 0) {
            count.store(0, Ordering::Relaxed);
        }
        self.written_below.store(0, Ordering::Relaxed);
    }

    /// A chunk's memory was returned to the kernel: the memory that it gets next is not the
    /// child's.
    pub(crate) fn forget_chunk(&self, chunk: ChunkIndex) {
        self.checker.forget_chunk(chunk);
        if let IsolationState::Cow(cow) = &self.isolation {
            cow.forget_chunk(chunk);
        }
    }

    /// Whether the memory of a free chunk may be returned to the kernel: a child that shares it
    /// must have its copy. Called under the pool's lock.
    pub(crate) fn may_decommit(&self, chunk: ChunkIndex) -> bool {
        match &self.isolation {
            IsolationState::Undo(undo) if self.is_active() => {
                !self.was_in_use(chunk) || undo.log.records().is_closed(chunk)
            }
            _ => true,
        }
    }

    /// Whether a checkpoint is being recorded.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// The chunks in use at the last fork, lowest first.
    pub fn chunks_at_fork(&self) -> impl Iterator<Item = ChunkIndex> {
        bits::ones(&self.at_fork)
    }

    /// Whether a chunk was in use at the last fork.
    pub fn was_in_use(&self, chunk: ChunkIndex) -> bool {
        bits::get(&self.at_fork, u64::from(chunk.0))
    }

    /// The `kernel-cow` state, with that isolation.
    pub(crate) fn cow(&self) -> Option<&cow::CowState> {
        match &self.isolation {
            IsolationState::Cow(cow) => Some(cow),
            IsolationState::Undo(_) => None,
        }
    }

    /// The undo log, with that isolation.
    pub fn undo_log(&self) -> Option<&UndoLog> {
        match &self.isolation {
            IsolationState::Cow(_) => None,
            IsolationState::Undo(undo) => Some(&undo.log),
        }
    }

    /// Whether a capture found the undo log full: the running checkpoint cannot produce an image.
    pub fn has_overflowed(&self) -> bool {
        matches!(&self.isolation, IsolationState::Undo(undo) if undo.is_full())
    }

    /// The child has written all chunks with numbers below this one (`kernel-cow`).
    pub fn note_written(&self, below: u64) {
        if self.is_active() {
            self.written_below.store(below, Ordering::Relaxed);
        }
    }

    /// A chunk's progress through the running checkpoint.
    pub(crate) fn progress_of(&self, chunk: ChunkIndex) -> ChunkProgress {
        let at_fork = self.was_in_use(chunk);
        let written = match &self.isolation {
            IsolationState::Cow(_) => {
                u64::from(chunk.0) < self.written_below.load(Ordering::Relaxed)
            }
            IsolationState::Undo(undo) => undo.log.records().is_closed(chunk),
        };
        let count = self.write_counts.get(chunk.0 as usize);
        let write_count = count.map_or(0, |count| u64::from(count.load(Ordering::Relaxed)));
        ChunkProgress { at_fork, written: at_fork && written, write_count }
    }

    /// Cost of copy-on-write in the running checkpoint, or else in the last one.
    pub fn cost(&self) -> CowStats {
        let page_shift = self.cow().map(cow::CowState::page_shift);
        page_shift.map_or_else(CowStats::default, |shift| self.cow_counters.since_begin(shift))
    }

    /// Cost of copy-on-write in all checkpoints.
    pub fn total_cost(&self) -> CowStats {
        let page_shift = self.cow().map(cow::CowState::page_shift);
        page_shift.map_or_else(CowStats::default, |shift| self.cow_counters.total(shift))
    }

    /// Durations of all copy-on-write faults.
    pub fn fault_times(&self) -> Distribution {
        self.cow_counters.times()
    }

    /// Cost of the undo log in the running checkpoint, or else in the last one.
    pub fn undo_cost(&self) -> UndoStats {
        let log = self.undo_log();
        let cost = |_| self.undo_counters.since_begin(log, &self.cow_counters);
        log.map_or_else(UndoStats::default, cost)
    }

    /// Cost of the undo log in all checkpoints.
    pub fn total_undo_cost(&self) -> UndoStats {
        let log = self.undo_log();
        let cost = |_| self.undo_counters.total(log, &self.cow_counters);
        log.map_or_else(UndoStats::default, cost)
    }

    /// Durations of all changes that captured a block.
    pub fn capture_times(&self) -> Distribution {
        self.undo_counters.times()
    }

    /// Turns the checker on or off for checkpoints that begin from now on; for tests. The checker
    /// copies the arena at each fork and lets writers announce changes of chunks that the child has
    /// written already.
    pub fn set_checker(&self, on: bool) {
        self.checker.set(on);
    }
}
