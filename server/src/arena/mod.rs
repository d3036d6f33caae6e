//! The arena: where bytes live. One reservation of memory in pages of one kind, cut into chunks of
//! 2 MiB, that holds offsets and never pointers, so that its bytes mean the same at any address.
//!
//! | file | what it holds |
//! |---|---|
//! | `layout` | where everything stands: constants, offsets, the arena's own tables |
//! | `backing` | what its memory is to be: pages, and what a child has of them |
//! | `pages` | page kinds, what this machine can give, and remedies |
//! | `mapping` | the reservation |
//! | `locks` | shard locks, and the safepoint |
//! | `memory` | offsets in, checked bytes out |
//! | `barrier/`, `tally` | the one door through which bytes change, and its cost |
//! | `tables` | atomic words beside it, that a child has or has not |
//! | `pagemap`, `survey` | what the kernel's page tables say; huge pages made whole again |
//! | `picture` | which chunks are in use, for people |
//! | `chunks`, `unitmap` | the pool of chunks and units |
//! | `classes`, `heap`, `refused` | the allocator, and what it had no room for |
//! | `open` | formatting, loading and re-opening an arena |
//! | `audit` | the invariants, checked |
//!
//! The arena knows nothing of what its objects mean: each shard has a root of
//! [`ROOT_SIZE`](layout::ROOT_SIZE) bytes for the layers above.

#![expect(unsafe_code, reason = "the arena is raw memory; each file lists its invariants")]

mod audit;
mod backing;
pub mod barrier;
mod chunks;
mod classes;
mod heap;
pub mod layout;
mod locks;
mod mapping;
mod memory;
mod open;
mod pagemap;
pub mod pages;
mod picture;
mod refused;
mod slabmates;
#[cfg(test)]
mod speed_tests;
mod survey;
mod tables;
mod tally;
#[cfg(test)]
mod tests;
mod unitmap;

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

pub use audit::{Audit, Broken, Summary};
pub use backing::{Backing, Isolation, UndoOptions};
pub use barrier::{BLOCK_SIZES, LEAST_LIMIT, MOST_LIMIT, UndoLog};
pub use chunks::OutOfMemory;
pub use classes::{Class, MAX_SLAB_OBJECT, rounded};
pub use heap::piece_for;
pub use layout::{CHUNK_SIZE, ChunkIndex, Offset, SHARDS, UNIT_SIZE, UNITS_IN_CHUNK};
pub use locks::{Held, Safepoint, ShardIndex, ShardSet};
pub use memory::{Mem, ReadOnly};
pub use open::{Blank, OpenError, layout_hash};
pub use pages::{PageKind, PagesError};
pub use refused::take_refused;
pub use slabmates::{Holds, Stretch};
pub use survey::{ChunkSet, PageLook};
pub use tables::SideTable;
pub use tally::{Stalls, take_stalls};

/// One arena.
pub struct Arena {
    map: mapping::Mapping,
    locks: locks::ShardLocks,
    barrier: barrier::Barrier,
    pool: Mutex<chunks::Pool>,
    heaps: heap::Heaps,
    /// Chunks whose memory is there. Touching what is missing of hugetlb or shared memory takes
    /// some, or kills the process if there is none.
    present: Box<[AtomicU64]>,
    /// Chunks in use: the pool's knowledge, to be read without its lock.
    in_use: Box<[AtomicU64]>,
    /// Held by whoever hands memory back, and by whoever must not see that happen.
    trimming: Mutex<()>,
    hash_seed: u64,
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
