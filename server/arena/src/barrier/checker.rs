//! A checker against changes around the barrier, for tests: a copy of the arena from the safepoint
//! of the fork, held against the arena at the end. What has changed and was not announced is found
//! with its place, not as a wrong byte in some later image.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex, index};
use crate::memory::mapping::Mapping;

/// Bytes that are compared at once: no block and no page is smaller.
const GRAIN: usize = 64;

/// The chunks of one instant.
type Copies = Vec<(ChunkIndex, Box<[u8]>)>;

/// Watches, or does not.
#[derive(Default)]
pub(super) struct BarrierChecker {
    wanted: AtomicBool,
    /// What was wanted when the checkpoint began: it holds to its end.
    on: AtomicBool,
    copies: Mutex<Copies>,
}

impl BarrierChecker {
    /// Watches the checkpoints that begin from now on, or not.
    pub(super) fn set(&self, on: bool) {
        self.wanted.store(on, Ordering::Relaxed);
    }

    /// Copies the chunks in use, if it is to watch; tells whether it does. The arena stands still.
    pub(super) fn begin(&self, map: &Mapping, at_fork: &[AtomicU64]) -> bool {
        let on = self.wanted.load(Ordering::Relaxed);
        self.on.store(on, Ordering::Relaxed);
        if on {
            let copy = |chunk| (chunk, chunk_bytes(map, chunk).into());
            *self.copies.lock() = bits::ones(at_fork).map(copy).collect();
        }
        on
    }

    /// A chunk's memory was handed back: what it holds next is another's.
    pub(super) fn forget_chunk(&self, chunk: ChunkIndex) {
        if self.on.load(Ordering::Relaxed) {
            self.copies.lock().retain(|(copied, _)| *copied != chunk);
        }
    }

    /// Compares. The arena stands still.
    ///
    /// # Panics
    /// Something has changed that `announced` knows nothing of.
    pub(super) fn end(&self, map: &Mapping, in_use: &[AtomicU64], announced: impl Fn(u64) -> bool) {
        for (chunk, before) in self.copies.lock().drain(..) {
            // What fell free may have been handed back.
            if !bits::get(in_use, u64::from(chunk.0)) {
                continue;
            }
            let now = chunk_bytes(map, chunk);
            for (i, (old, new)) in before.chunks(GRAIN).zip(now.chunks(GRAIN)).enumerate() {
                let at = chunk.start() + (i * GRAIN) as u64;
                assert!(
                    old == new || announced(at),
                    "arena: a change around the barrier at {at:#x}"
                );
            }
        }
    }
}

fn chunk_bytes(map: &Mapping, chunk: ChunkIndex) -> &[u8] {
    let address = map.address(chunk.start(), CHUNK_SIZE).as_ptr();
    // SAFETY: a chunk of the arena; the caller is at a safepoint, so no thread changes it.
    unsafe { std::slice::from_raw_parts(address, index(CHUNK_SIZE)) }
}
