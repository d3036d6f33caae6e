//! Which chunks are in use, and a picture of what they are doing. Takes no lock.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::Arena;
use super::barrier::{get, set};
use super::layout::{CHUNK_SIZE, ChunkIndex};
use crate::telemetry::{ArenaMap, MapCell};

impl Arena {
    /// Notes that a chunk is in use from now on.
    pub(super) fn note_used(&self, chunk: ChunkIndex) {
        set(&self.in_use, u64::from(chunk.0));
    }

    /// Chunks in use, those of the tables included.
    pub fn used_chunks(&self) -> u64 {
        self.in_use.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }

    /// The state of all chunks at this moment, in at most `most` cells.
    pub fn picture(&self, most: usize) -> ArenaMap {
        let chunks = self.capacity() / CHUNK_SIZE;
        let chunks_per_cell = chunks.div_ceil(most.max(1) as u64).max(1);
        let starts = (0..chunks.div_ceil(chunks_per_cell)).map(|cell| cell * chunks_per_cell);
        let cells = starts.map(|first| self.cell(first..chunks.min(first + chunks_per_cell)));
        ArenaMap { chunks_per_cell, cells: cells.collect() }
    }

    /// What a run of chunks looks like together.
    fn cell(&self, chunks: Range<u64>) -> MapCell {
        let saving = self.barrier.is_active();
        let (mut used, mut at_fork, mut dumped, mut faults) = (false, false, true, 0);
        for chunk in chunks {
            used |= get(&self.in_use, chunk);
            if !saving {
                continue;
            }
            let state = self.barrier.state_of(ChunkIndex::of(chunk * CHUNK_SIZE));
            at_fork |= state.at_fork;
            dumped &= state.dumped || !state.at_fork;
            faults += state.heat;
        }
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let bits = bit(used, MapCell::USED)
            | bit(at_fork, MapCell::AT_FORK)
            | bit(at_fork && dumped, MapCell::DUMPED);
        MapCell::new(bits, faults)
    }
}
