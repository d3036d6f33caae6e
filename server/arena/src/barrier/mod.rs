//! The write barrier: the one door through which arena bytes change.
//!
//! Outside a checkpoint it is one load and one branch. During one it does what the isolation asks
//! for, before the change:
//!
//! | isolation | file | what it does |
//! |---|---|---|
//! | `kernel-cow` | `cow` | touches each page first, and times the kernel's copying |
//! | `undo-log` | `undo`, `blocks` | logs what is in each block that changes for the first time |
//! | | `log`, `protocol` | the log, and why parent and child agree on it |
//! | both | `checker` | finds, for tests, what has changed around the barrier |
//! | | `bits` | sets of pages, blocks and chunks |
//!
//! Invariants:
//! 1. `active` changes only at a safepoint, so it is constant while any shard is locked.
//! 2. All that is known of pages, blocks and chunks is clear whenever `active` turns on.

#![expect(unsafe_code, reason = "raw memory; see the invariants above")]

mod bits;
mod blocks;
mod checker;
pub(crate) mod counters;
pub(crate) mod cow;
mod log;
mod protocol;
mod undo;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::Arena;
use crate::barrier::counters::{CowCounters, UndoCounters};
use crate::layout::{CHUNK_SIZE, ChunkIndex, index as to_index};
use crate::locks::Safepoint;
use crate::memory::backing::{Backing, Isolation};
use crate::memory::side_tables::SharedTable;
use crate::stats::{CowStats, Distribution, UndoStats};

pub(crate) use bits::{bits, clear, get, ones, set};
pub use blocks::BLOCK_SIZES;
pub use log::{LEAST_LIMIT, MOST_LIMIT, UndoLog};
pub(crate) use undo::Captured;

/// Whether there is a barrier. A build without one shows what it costs; it cannot save beside
/// writers.
pub const ON: bool = cfg!(feature = "barrier");

/// How a chunk stands in a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkProgress {
    /// It was in use at the fork.
    pub at_fork: bool,
    /// It was, and the child has written it.
    pub dumped: bool,
    /// Copy-on-write faults in it since the fork, or blocks captured.
    pub write_count: u64,
}

/// What the barrier does while a checkpoint runs.
enum IsolationState {
    Cow(Box<cow::Cow>),
    Undo(Box<undo::Undo>),
}

/// The barrier of one arena.
pub struct Barrier {
    active: AtomicBool,
    isolation: IsolationState,
    /// Chunks in use at the fork: what the child dumps.
    at_fork: Box<[AtomicU64]>,
    /// What happened since the fork, by chunk; the child looks at it too.
    write_count: SharedTable<AtomicU32>,
    /// Chunks below this one are dumped, if they were in use at the fork.
    dumped_below: AtomicU64,
    counters: CachePadded<CowCounters>,
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
                IsolationState::Cow(Box::new(cow::Cow::new(backing.kind, capacity)?))
            }
            Isolation::UndoLog(options) => {
                IsolationState::Undo(Box::new(undo::Undo::new(options, capacity)?))
            }
        };
        Ok(Self {
            active: AtomicBool::new(false),
            isolation,
            at_fork: bits(chunks),
            write_count: SharedTable::new(to_index(chunks))?,
            dumped_below: AtomicU64::new(0),
            counters: CachePadded::default(),
            undo_counters: CachePadded::default(),
            checker: checker::BarrierChecker::default(),
        })
    }

    /// Announces a change of the `len` bytes at `at`. Whoever changes arena bytes calls this first
    /// and holds the lock that guards them.
    #[inline]
    pub(crate) fn before_write(&self, arena: &Arena, at: u64, len: u64) {
        if ON && self.active.load(Ordering::Relaxed) {
            self.record(arena, at, len);
        }
    }

    #[cold]
    #[inline(never)]
    fn record(&self, arena: &Arena, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.counters.written(len);
        match &self.isolation {
            IsolationState::Cow(cow) => {
                cow.first_touches(arena, &self.counters, &self.write_count, at, len)
            }
            IsolationState::Undo(undo) => {
                let captured = undo.before_write(arena, &self.at_fork, &self.write_count, at, len);
                if captured.blocks > 0 {
                    self.undo_counters.captured(&captured);
                }
            }
        }
    }

    /// Starts recording: from now on the arena is one that a child sees.
    pub fn begin(&self, safepoint: &Safepoint<'_>) {
        let arena = safepoint.arena();
        arena.pool.lock().copy_in_use(&self.at_fork);
        if let IsolationState::Cow(cow) = &self.isolation {
            cow.begin(arena);
        }
        self.counters.begin();
        self.undo_counters.begin(self.undo_log(), &self.counters);
        let watched = self.checker.begin(arena, &self.at_fork);
        if let IsolationState::Undo(undo) = &self.isolation {
            undo.note_all(watched);
        }
        self.dumped_below.store(0, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    /// Notes that the child needs its memory no more and is about to give it back.
    pub fn child_exiting(&self) {
        if let IsolationState::Cow(cow) = &self.isolation {
            cow.child_exiting();
        }
    }

    /// Stops recording: the child is gone.
    pub fn end(&self, safepoint: &Safepoint<'_>) {
        self.active.store(false, Ordering::Relaxed);
        self.checker.end(safepoint.arena(), |at| match &self.isolation {
            IsolationState::Cow(cow) => cow.has_touched(at),
            IsolationState::Undo(undo) => undo.has_captured(at),
        });
    }

    /// Clears what is known of pages, blocks and chunks after [`Self::end`], off the safepoint
    /// (invariant 2).
    pub fn reset(&self) {
        match &self.isolation {
            IsolationState::Cow(cow) => cow.reset(),
            IsolationState::Undo(undo) => undo.reset(),
        }
        for write_count in
            self.write_count.iter().filter(|write_count| write_count.load(Ordering::Relaxed) != 0)
        {
            write_count.store(0, Ordering::Relaxed);
        }
        self.dumped_below.store(0, Ordering::Relaxed);
    }

    /// Notes that a chunk's memory was handed back: what it gets next is not the child's.
    pub(crate) fn forget_chunk(&self, chunk: ChunkIndex) {
        self.checker.forget(chunk);
        if let IsolationState::Cow(cow) = &self.isolation {
            cow.forget_chunk(chunk);
        }
    }

    /// Whether the memory of a free chunk may go back to the kernel: a child that shares it must
    /// have its copy. Asked under the pool's lock.
    pub(crate) fn may_decommit(&self, chunk: ChunkIndex) -> bool {
        match &self.isolation {
            IsolationState::Undo(undo) if self.is_active() => {
                !self.was_used(chunk) || undo.log.is_closed(chunk)
            }
            _ => true,
        }
    }

    /// Whether a checkpoint is being recorded.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// The chunks that were in use at the last [`Self::begin`], lowest first. The child walks
    /// them: no lock, no allocation.
    pub fn chunks_at_fork(&self) -> impl Iterator<Item = ChunkIndex> {
        ones(&self.at_fork)
    }

    /// As [`Self::chunks_at_fork`], from one on.
    pub fn chunks_at_fork_from(&self, first: ChunkIndex) -> impl Iterator<Item = ChunkIndex> {
        bits::ones_from(&self.at_fork, first)
    }

    /// Whether a chunk was in use at the last fork.
    pub fn was_used(&self, chunk: ChunkIndex) -> bool {
        get(&self.at_fork, u64::from(chunk.0))
    }

    /// The kernel-cow side, if that is how checkpoints are isolated.
    pub(crate) fn cow(&self) -> Option<&cow::Cow> {
        match &self.isolation {
            IsolationState::Cow(cow) => Some(cow),
            IsolationState::Undo(_) => None,
        }
    }

    /// The undo log, if that is how checkpoints are isolated.
    pub fn undo_log(&self) -> Option<&UndoLog> {
        match &self.isolation {
            IsolationState::Cow(_) => None,
            IsolationState::Undo(undo) => Some(&undo.log),
        }
    }

    /// Whether the undo log has had no room for a change: then no image can come of it.
    pub fn has_overflowed(&self) -> bool {
        matches!(&self.isolation, IsolationState::Undo(undo) if undo.is_full())
    }

    /// How much has happened in a chunk since the fork; parent and child see the same.
    pub fn write_count(&self, chunk: ChunkIndex) -> u32 {
        self.write_count
            .get(chunk.0 as usize)
            .map_or(0, |write_count| write_count.load(Ordering::Relaxed))
    }

    /// Notes that the child has written all chunks with numbers below this one.
    pub fn note_dumped(&self, below: u64) {
        if self.is_active() {
            self.dumped_below.store(below, Ordering::Relaxed);
        }
    }

    /// How a chunk stands in the checkpoint that runs.
    pub(crate) fn state_of(&self, chunk: ChunkIndex) -> ChunkProgress {
        let at_fork = self.was_used(chunk);
        let dumped = match &self.isolation {
            IsolationState::Cow(_) => {
                u64::from(chunk.0) < self.dumped_below.load(Ordering::Relaxed)
            }
            IsolationState::Undo(undo) => undo.log.is_closed(chunk),
        };
        ChunkProgress {
            at_fork,
            dumped: at_fork && dumped,
            write_count: u64::from(self.write_count(chunk)),
        }
    }

    /// What copy-on-write has cost writers in this checkpoint, or else in the last one.
    pub fn cost(&self) -> CowStats {
        self.cow().map_or_else(CowStats::default, |cow| self.counters.since_begin(cow.page_shift()))
    }

    /// What copy-on-write has cost writers in all checkpoints.
    pub fn total_cost(&self) -> CowStats {
        self.cow().map_or_else(CowStats::default, |cow| self.counters.total(cow.page_shift()))
    }

    /// How long each fault took, in all checkpoints.
    pub fn fault_times(&self) -> Distribution {
        self.counters.times()
    }

    /// What the undo log has cost writers in this checkpoint, or else in the last one.
    pub fn undo_cost(&self) -> UndoStats {
        let log = self.undo_log();
        log.map_or_else(UndoStats::default, |_| self.undo_counters.since_begin(log, &self.counters))
    }

    /// What the undo log has cost writers in all checkpoints.
    pub fn total_undo_cost(&self) -> UndoStats {
        let log = self.undo_log();
        log.map_or_else(UndoStats::default, |_| self.undo_counters.total(log, &self.counters))
    }

    /// How long each change took that had something captured, in all checkpoints.
    pub fn capture_times(&self) -> Distribution {
        self.undo_counters.times()
    }

    /// Lets the checkpoints that begin from now on be watched for changes around the barrier, or
    /// not; for tests. It takes a copy of the arena at each fork, and has writers announce changes
    /// of what the child has written already: a checkpoint that is not watched is the usual one.
    pub fn watch(&self, on: bool) {
        self.checker.watch(on);
    }
}
