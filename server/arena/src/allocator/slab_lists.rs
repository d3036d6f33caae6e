//! Lists of slabs with a free object, one for each shard and size class, beside the arena.
//!
//! The slabs' bitmaps in the arena are the truth; the lists are rebuilt from them when an arena is
//! opened. Linking a slab therefore writes to no arena page.
//!
//! Invariant: the lists of a shard contain exactly its slabs with a free object. They are guarded
//! by the shard's lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::allocator::size_classes::{CLASSES, SizeClass};
use crate::layout::{ChunkIndex, SHARDS, UNIT_SIZE, UNITS_PER_CHUNK, index};
use crate::memory::side_tables::SideTable;
use crate::shard::ShardIndex;

/// End of a list: unit 0 holds descriptors and is never a slab.
pub(crate) const NONE: u32 = 0;

/// Words for each unit: the next and the previous slab in its list.
const LINKS: u64 = 2;
/// Bytes of the links of one chunk.
pub(crate) const LINK_BYTES_PER_CHUNK: u64 =
    UNITS_PER_CHUNK * LINKS * size_of::<AtomicU32>() as u64;

/// What the allocator keeps beside the arena.
pub(crate) struct SlabLists {
    /// For each shard and class the first slab with room, as a unit number of the whole arena.
    lists: [CachePadded<Lists>; SHARDS],
    /// For each unit of the arena two words: the next and the previous slab in its list.
    links: SideTable,
}

/// Guarded by the shard's lock; atomics only so that no unsafe code is needed.
struct Lists {
    first: [AtomicU32; CLASSES],
    used: AtomicU64,
}

impl SlabLists {
    /// No slabs, for an arena of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> std::io::Result<Self> {
        let lists = std::array::from_fn(|_| {
            CachePadded::new(Lists {
                first: [const { AtomicU32::new(NONE) }; CLASSES],
                used: AtomicU64::new(0),
            })
        });
        Ok(Self { lists, links: SideTable::new(index(capacity / UNIT_SIZE * LINKS))? })
    }

    /// Bytes in objects, rounding included.
    pub(crate) fn used(&self) -> u64 {
        self.lists.iter().map(|l| l.used.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    pub(crate) fn first(&self, shard: ShardIndex, class: SizeClass) -> u32 {
        self.lists[shard.get()].first[class.index()].load(Ordering::Relaxed)
    }

    fn set_first(&self, shard: ShardIndex, class: SizeClass, slab: u32) {
        self.lists[shard.get()].first[class.index()].store(slab, Ordering::Relaxed);
    }

    /// Counts bytes taken (or, wrapped round, given back) by a shard.
    pub(crate) fn count(&self, shard: ShardIndex, bytes: u64) {
        let used = &self.lists[shard.get()].used;
        used.store(used.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }

    fn next(&self, slab: u32) -> u32 {
        self.links.word(slab as usize * 2).load(Ordering::Relaxed)
    }

    fn set_next(&self, slab: u32, next: u32) {
        self.links.word(slab as usize * 2).store(next, Ordering::Relaxed);
    }

    fn previous(&self, slab: u32) -> u32 {
        self.links.word(slab as usize * 2 + 1).load(Ordering::Relaxed)
    }

    fn set_previous(&self, slab: u32, previous: u32) {
        self.links.word(slab as usize * 2 + 1).store(previous, Ordering::Relaxed);
    }

    /// Puts a slab with room at the front of its list.
    pub(crate) fn link(&self, shard: ShardIndex, class: SizeClass, slab: u32) {
        let first = self.first(shard, class);
        self.set_next(slab, first);
        self.set_previous(slab, NONE);
        if first != NONE {
            self.set_previous(first, slab);
        }
        self.set_first(shard, class, slab);
    }

    pub(crate) fn unlink(&self, shard: ShardIndex, class: SizeClass, slab: u32) {
        let (next, previous) = (self.next(slab), self.previous(slab));
        if previous == NONE {
            self.set_first(shard, class, next);
        } else {
            self.set_next(previous, next);
        }
        if next != NONE {
            self.set_previous(next, previous);
        }
    }
}

/// The number of a unit in the whole arena.
#[expect(clippy::cast_possible_truncation, reason = "2^32 units are 32 TiB, the largest arena")]
pub(crate) const fn unit_number(chunk: ChunkIndex, unit: u64) -> u32 {
    (chunk.0 as u64 * UNITS_PER_CHUNK + unit) as u32
}

pub(crate) const fn split_unit_number(number: u32) -> (ChunkIndex, u64) {
    let units = number as u64;
    (ChunkIndex::of(units * UNIT_SIZE), units % UNITS_PER_CHUNK)
}
