//! `Arena`: one reservation of memory with its locks, barrier, chunk pool and slab heaps.

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::allocator::{chunk_pool, heap};
use crate::barrier;
use crate::layout::{CHUNK_SIZE, ChunkIndex};
use crate::locks::{self, Held, ShardIndex, ShardSet};
use crate::memory::backing::{Backing, Isolation};
use crate::memory::mapping;
use crate::memory::pages::PageKind;

/// One arena.
pub struct Arena {
    pub(crate) map: mapping::Mapping,
    pub(crate) locks: locks::ShardLocks,
    pub(crate) barrier: barrier::Barrier,
    pub(crate) pool: Mutex<chunk_pool::ChunkPool>,
    pub(crate) heaps: heap::Heaps,
    /// Chunks whose memory is there. Touching what is missing of hugetlb or shared memory takes
    /// some, or kills the process if there is none.
    pub(crate) present: Box<[AtomicU64]>,
    /// Chunks in use: the pool's knowledge, to be read without its lock.
    pub(crate) in_use: Box<[AtomicU64]>,
    /// Held by whoever hands memory back, and by whoever must not see that happen.
    pub(crate) trimming: Mutex<()>,
    pub(crate) hash_seed: u64,
}

impl Arena {
    /// Locks shards, in ascending order, until the result goes.
    #[inline]
    pub fn lock(&self, set: ShardSet) -> Held<'_> {
        Held::lock(self, set)
    }

    /// Locks a shard until the result goes; `None` if somebody holds it now.
    pub fn try_lock(&self, shard: ShardIndex) -> Option<Held<'_>> {
        Held::try_lock(self, shard)
    }

    /// Bytes in all, tables included.
    #[inline]
    pub const fn capacity(&self) -> u64 {
        self.map.len()
    }

    /// The pages that it was made of. What the kernel really gave is in smaps.
    pub const fn page_kind(&self) -> PageKind {
        self.map.kind()
    }

    /// What its memory was asked to be.
    pub const fn backing(&self) -> Backing {
        self.map.backing()
    }

    /// How a checkpoint's child sees it.
    pub const fn isolation(&self) -> Isolation {
        self.map.isolation()
    }

    /// The file that the arena's memory is, if a child shares it. Byte 0 is the arena's.
    pub const fn file(&self) -> Option<&std::fs::File> {
        self.map.file()
    }

    /// Seed of the hash tables in the arena.
    pub const fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// The write barrier.
    pub const fn barrier(&self) -> &barrier::Barrier {
        &self.barrier
    }

    /// Address of a chunk's first byte, for the child of a fork, whose copy of the arena stands
    /// still. Reading it elsewhere needs the locks.
    ///
    /// # Panics
    /// The chunk is outside the arena.
    pub fn chunk_address(&self, chunk: ChunkIndex) -> *const u8 {
        self.address(chunk.start(), CHUNK_SIZE).as_ptr()
    }
}
