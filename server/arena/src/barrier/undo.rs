//! The barrier of an `undo-log` checkpoint: before the first change of a block since the fork, the
//! old bytes of the block are captured in the undo log. The arena is shared with the child; no page
//! is ever copied.
//!
//! Invariants:
//! 1. A block is captured only in a chunk that was in use at the fork and that the child has not
//!    copied yet, and at most once: the capturing thread holds the one lock that guards the block
//!    (`blocks`).
//! 2. Once the log is full nothing is captured any more: the checkpoint has failed, and its image
//!    must not be published.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::blocks::Blocks;
use super::log::UndoLog;
use super::records::NotCaptured;
use crate::bits;
use crate::clock;
use crate::layout::{CHUNK_SIZE, ChunkIndex};
use crate::memory::mapping::Mapping;
use crate::memory::pages::UndoOptions;
use crate::memory::side_tables::SideTable;

/// The captures of one change.
#[derive(Clone, Copy, Default)]
pub(crate) struct Captured {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nanoseconds that it took.
    pub nanos: u64,
}

/// State of the capturing side.
pub(super) struct UndoState {
    pub log: UndoLog,
    blocks: Blocks,
    /// One bit for each block, the bits of a chunk together.
    captured: SideTable<AtomicU64>,
    full: AtomicBool,
    /// Every changed block is marked as captured, whether or not the child still needs it; for
    /// tests.
    notes_all: AtomicBool,
}

impl UndoState {
    pub(super) fn new(options: UndoOptions, capacity: u64) -> io::Result<Self> {
        let blocks = Blocks::of(options.block);
        let chunks = capacity / CHUNK_SIZE;
        Ok(Self {
            log: UndoLog::new(options.limit, chunks, blocks)?,
            blocks,
            captured: SideTable::new(bits::words(chunks * blocks.in_chunk()))?,
            full: AtomicBool::new(false),
            notes_all: AtomicBool::new(false),
        })
    }

    /// Whether the log is full: the child cannot write a correct image.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Captures the blocks that need it before the `len` bytes at `at` change.
    pub(super) fn before_write(
        &self,
        map: &Mapping,
        at_fork: &[AtomicU64],
        write_count: &[AtomicU32],
        at: u64,
        len: u64,
    ) -> Captured {
        let mut captured = Captured::default();
        let end = at + len;
        let mut next = at;
        while next < end && !self.full.load(Ordering::Relaxed) {
            let chunk = ChunkIndex::of(next);
            let stop = end.min(chunk.start() + CHUNK_SIZE);
            let notes_all = self.notes_all.load(Ordering::Relaxed);
            if bits::get(at_fork, u64::from(chunk.0))
                && (notes_all || !self.log.records().is_closed(chunk))
            {
                let before = captured.blocks;
                self.capture_blocks(map, chunk, next..stop, &mut captured);
                // A chunk has fewer than 2^32 blocks, each captured once.
                let more = u32::try_from(captured.blocks - before).unwrap_or(u32::MAX);
                write_count[chunk.0 as usize].fetch_add(more, Ordering::Relaxed);
            }
            next = stop;
        }
        captured
    }

    /// Captures the blocks of one chunk that a range of the arena touches.
    fn capture_blocks(
        &self,
        map: &Mapping,
        chunk: ChunkIndex,
        range: std::ops::Range<u64>,
        captured: &mut Captured,
    ) {
        let first_bit = u64::from(chunk.0) * self.blocks.in_chunk();
        let mut begun = None;
        let mut next = range.start;
        while next < range.end {
            let block = self.blocks.at(next - chunk.start());
            let at = chunk.start() + block.start;
            next = at + block.len;
            let bit = first_bit + block.number;
            if bits::get(&self.captured, bit) {
                continue;
            }
            begun = begun.or_else(|| Some(clock::monotonic_ns()));
            let from = map.address(at, block.len).as_ptr();
            // SAFETY: inside the arena; a thread that changes a byte of the block holds the lock
            // that guards all of it (invariant 1).
            match unsafe { self.log.capture(at, from, block.len) } {
                Ok(()) => {
                    captured.blocks += 1;
                    captured.bytes += block.len;
                }
                Err(NotCaptured::Closed) if self.notes_all.load(Ordering::Relaxed) => {}
                Err(NotCaptured::Closed) => break,
                Err(NotCaptured::Full) => {
                    self.full.store(true, Ordering::Release);
                    break;
                }
            }
            bits::set(&self.captured, bit);
        }
        if let Some(begun) = begun {
            captured.nanos += clock::monotonic_ns().saturating_sub(begun);
        }
    }

    /// Clears the set of captured blocks and the log.
    pub(super) fn reset(&self) {
        bits::empty(&self.captured);
        self.log.reset();
        self.full.store(false, Ordering::Relaxed);
    }

    /// Makes every change mark its blocks, even in chunks that the child has copied.
    pub(super) fn note_all(&self, on: bool) {
        self.notes_all.store(on, Ordering::Relaxed);
    }

    /// Whether the block of the byte at `at` is marked as captured.
    pub(super) fn has_captured(&self, at: u64) -> bool {
        let chunk = ChunkIndex::of(at);
        let block = self.blocks.at(at - chunk.start());
        bits::get(&self.captured, u64::from(chunk.0) * self.blocks.in_chunk() + block.number)
    }
}
