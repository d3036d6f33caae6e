//! Taking from the chunk pool, and returning the memory of free chunks to the kernel.
//!
//! Invariant that unsafe code cites: while the memory of a chunk is returned, the chunk is free and
//! *busy* (no thread can take it), and no reader that found it present is in its read section.

use super::Arena;
use crate::allocator::chunk_pool::{ChunkPool, OutOfMemory};
use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex, ChunkState};
use crate::memory::pages::PageKind;

impl Arena {
    /// Takes chunks or units from the pool. A chunk whose memory is being returned is free and yet
    /// cannot be taken: a caller that finds no other tries again. The trimming thread holds no lock
    /// in that state, so it always comes to an end.
    pub(crate) fn take_from_pool<T>(
        &self,
        mut take: impl FnMut(&mut ChunkPool) -> Result<T, OutOfMemory>,
    ) -> Result<T, OutOfMemory> {
        loop {
            let mut pool = self.pool.lock();
            let trimming = pool.is_releasing();
            let taken = match take(&mut pool) {
                Err(OutOfMemory) if trimming => {
                    drop(pool);
                    std::thread::yield_now();
                    continue;
                }
                Err(OutOfMemory) if pool.is_withholding() => {
                    self.take_withheld(&mut pool, &mut take)
                }
                outcome => outcome,
            };
            if pool.stock_is_low() {
                self.stock_is_low.notify_one();
            }
            return taken;
        }
    }

    /// Takes memory that a compaction pass withholds, which ends the marks of its chunks. If that
    /// is not enough either, the pass goes on.
    #[cold]
    fn take_withheld<T>(
        &self,
        pool: &mut ChunkPool,
        mut take: impl FnMut(&mut ChunkPool) -> Result<T, OutOfMemory>,
    ) -> Result<T, OutOfMemory> {
        let withheld = pool.end_withholding(&self.store);
        let taken = take(pool);
        match taken {
            Ok(_) => self.evacuation.cancel(),
            Err(OutOfMemory) => withheld.into_iter().for_each(|chunk| pool.withhold(chunk)),
        }
        taken
    }

    /// Returns the memory of up to `most` free chunks to the kernel; returns their number. One
    /// system call a chunk: for a background thread, never for a command.
    pub fn trim(&self, most: usize) -> usize {
        let keep = self.pool.lock().kept();
        self.release_chunks(most, keep)
    }

    /// As [`Self::trim`], and keeps no free chunk's memory.
    pub fn trim_all(&self, most: usize) -> usize {
        self.release_chunks(most, 0)
    }

    fn release_chunks(&self, most: usize, keep: u64) -> usize {
        let store = &self.store;
        if store.map.kind() == PageKind::Huge1Gb {
            return 0;
        }
        let _excludes_collapse = self.trimming.lock();
        let mut chunks = Vec::new();
        while chunks.len() < most {
            let Some(chunk) = self.pool.lock().begin_release(&store.barrier, keep) else { break };
            bits::clear(&store.present, u64::from(chunk.0));
            chunks.push(chunk);
        }
        if chunks.is_empty() {
            return 0;
        }
        self.epochs.wait_for_readers();
        let mut released = 0;
        for chunk in chunks {
            // SAFETY: the chunk is free and busy, and no reader is left (see the invariant).
            let outcome = unsafe { store.map.release(chunk.start(), CHUNK_SIZE) };
            // A checkpoint that begins sees the chunk either with its memory or without.
            let mut pool = self.pool.lock();
            if outcome.is_ok() {
                store.barrier.forget_chunk(chunk);
                released += 1;
            } else {
                bits::set(&store.present, u64::from(chunk.0));
            }
            pool.end_release(chunk, outcome.is_ok());
        }
        released
    }

    /// How a chunk is used at this moment.
    pub fn chunk_state(&self, chunk: ChunkIndex) -> ChunkState {
        let _guard = self.pool.lock();
        // SAFETY: chunk entries are guarded by the pool's lock.
        let entry = unsafe { self.store.load(chunk.entry()) };
        ChunkState::from_byte(entry.state).unwrap_or(ChunkState::Free)
    }
}
