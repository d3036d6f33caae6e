//! `Arena`: the backing store with its shard locks, its allocator and the seed of its hash tables.
//!
//! | file | content |
//! |---|---|
//! | `mod` | the struct |
//! | `open` | formatting, loading and re-opening an arena |
//! | `audit` | checks of the arena's tables, and claims of every object |
//! | `object_notes` | what was found of each small object while its chunk was read |
//! | `shard_locks`, `held` | the locks; the locked shards of a command |
//! | `safepoint` | the proof that every shard is locked |
//! | `mem` | offsets in, checked bytes out, for a locked shard |
//! | `owners` | in debug builds: the shard that each unit belongs to, checked on each access |
//! | `objects` | allocation and release of objects |
//! | `compaction_plan` | which slabs and chunks a compaction pass empties |
//! | `evacuation` | the marks of a compaction pass; objects that move out of marked places |
//! | `recording` | the barrier's recording of one checkpoint |
//! | `stock` | free chunks that are on huge pages before they hold anything |
//! | `trim` | memory of free chunks returned to the kernel |
//! | `racy` | hints read without a lock |
//! | `chunk_map`, `occupancy` | what units hold; the state of all chunks |
//! | `page_scan` | which pages chunks lie on; collapsing them into huge pages |

#![expect(unsafe_code, reason = "raw memory; each file lists its invariants")]

pub(crate) mod audit;
pub(crate) mod chunk_map;
pub(crate) mod compaction_plan;
pub(crate) mod evacuation;
pub(crate) mod held;
pub(crate) mod mem;
pub(crate) mod object_notes;
mod objects;
pub(crate) mod occupancy;
pub(crate) mod open;
mod owners;
pub(crate) mod page_scan;
pub(crate) mod racy;
pub(crate) mod recording;
pub(crate) mod safepoint;
mod shard_locks;
pub(crate) mod stock;
mod trim;

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::allocator::chunk_pool::ChunkPool;
use crate::allocator::object_words::ObjectWords;
use crate::allocator::slab_lists::SlabLists;
use crate::backing_store::BackingStore;
use crate::barrier::Barrier;
use crate::memory::pages::{Backing, Isolation, PageKind};
use crate::reader_epochs::ReaderEpochs;

/// One arena.
pub struct Arena {
    pub(crate) store: BackingStore,
    locks: shard_locks::ShardLocks,
    out_of_order: held::OutOfOrder,
    pub(crate) pool: Mutex<ChunkPool>,
    slabs: SlabLists,
    words: Arc<ObjectWords>,
    evacuation: evacuation::Evacuation,
    owners: owners::UnitOwners,
    epochs: ReaderEpochs,
    /// Excludes returning memory to the kernel and collapsing chunks from each other.
    trimming: Mutex<()>,
    /// Notified, with the pool's lock, when chunks of the stock were taken.
    stock_is_low: Condvar,
    hash_seed: u64,
}

impl Arena {
    /// Bytes in all, tables included.
    #[inline]
    pub const fn capacity(&self) -> u64 {
        self.store.capacity()
    }

    /// The page kind that the arena was reserved with. What the kernel gave is in smaps.
    pub const fn page_kind(&self) -> PageKind {
        self.store.map.kind()
    }

    /// The page kind and isolation that the arena was reserved with.
    pub const fn backing(&self) -> Backing {
        self.store.map.backing()
    }

    /// How a checkpoint's child sees the arena.
    pub const fn isolation(&self) -> Isolation {
        self.store.map.isolation()
    }

    /// Seed of the hash tables in the arena.
    pub const fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// The write barrier: its figures, and the undo log.
    pub const fn barrier(&self) -> &Barrier {
        &self.store.barrier
    }

    /// Bytes in objects, rounding included.
    pub fn used_bytes(&self) -> u64 {
        self.slabs.used()
    }

    /// One word for each object, beside the arena.
    pub const fn object_words(&self) -> &Arc<ObjectWords> {
        &self.words
    }

    /// Asks the processor to fetch the cache line at `at`; offsets outside do nothing.
    #[inline]
    pub fn prefetch(&self, at: u64) {
        self.store.map.prefetch(at);
    }
}

#[cfg(test)]
impl Arena {
    /// The arena without the check of ownership, for tests that damage its tables.
    pub(crate) fn without_owner_checks(self) -> Self {
        self.owners.suspend(true);
        self
    }
}
