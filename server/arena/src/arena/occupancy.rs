//! The occupancy map: for each run of chunks whether they are in use, written by the running
//! checkpoint, and how often changed. Takes no lock.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::Arena;
use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex, GROUP_CHUNKS};

/// The state of the arena: one cell for each run of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OccupancyMap {
    /// Chunks that a cell stands for; the last cell may stand for fewer.
    pub chunks_per_cell: u64,
    /// The cells, from the start of the arena; see [`OccupancyCell`] for the bits.
    pub cells: Vec<OccupancyCell>,
}

/// A cell of an [`OccupancyMap`].
///
/// ```text
///   bit  0      1           2         4..=7
///        used   at fork     written    writes: 0, or 1 + log2 of the copy-on-write faults, or the
///                                     blocks captured, since the fork, 15 at most
/// ```
///
/// Used: any of its chunks is in use. At fork: any was in use when the running checkpoint forked.
/// Written: the child has written all of them. Outside a checkpoint only `used` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OccupancyCell(pub u8);

impl OccupancyCell {
    /// Any of its chunks is in use.
    pub const USED: u8 = 1;
    /// Any of its chunks was in use at the fork.
    pub const AT_FORK: u8 = 1 << 1;
    /// All that were in use at the fork are written.
    pub const WRITTEN: u8 = 1 << 2;
    const WRITES_SHIFT: u32 = 4;

    /// A cell with these bits, and so many faults or captures since the fork.
    pub fn new(bits: u8, count: u64) -> Self {
        let writes = count.checked_ilog2().map_or(0, |log| (log + 1).min(15));
        Self(bits | (writes.to_le_bytes()[0] << Self::WRITES_SHIFT))
    }
}

impl Arena {
    /// Chunks in use, those of the tables included.
    pub fn used_chunks(&self) -> u64 {
        self.store.in_use.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }

    /// Chunks that hold the arena's tables.
    pub const fn table_chunks(&self) -> u64 {
        (self.capacity() / CHUNK_SIZE).div_ceil(GROUP_CHUNKS)
    }

    /// The state of all chunks at this moment, in at most `most` cells.
    pub fn occupancy_map(&self, most: usize) -> OccupancyMap {
        let chunks = self.capacity() / CHUNK_SIZE;
        let chunks_per_cell = chunks.div_ceil(most.max(1) as u64).max(1);
        let starts = (0..chunks.div_ceil(chunks_per_cell)).map(|cell| cell * chunks_per_cell);
        let cells = starts.map(|first| self.cell(first..chunks.min(first + chunks_per_cell)));
        OccupancyMap { chunks_per_cell, cells: cells.collect() }
    }

    /// What a run of chunks looks like together.
    fn cell(&self, chunks: Range<u64>) -> OccupancyCell {
        let recording = self.store.barrier.is_active();
        let (mut used, mut at_fork, mut written, mut faults) = (false, false, true, 0);
        for chunk in chunks {
            used |= bits::get(&self.store.in_use, chunk);
            if !recording {
                continue;
            }
            let state = self.store.barrier.progress_of(ChunkIndex::of(chunk * CHUNK_SIZE));
            at_fork |= state.at_fork;
            written &= state.written || !state.at_fork;
            faults += state.write_count;
        }
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let bits = bit(used, OccupancyCell::USED)
            | bit(at_fork, OccupancyCell::AT_FORK)
            | bit(at_fork && written, OccupancyCell::WRITTEN);
        OccupancyCell::new(bits, faults)
    }
}
