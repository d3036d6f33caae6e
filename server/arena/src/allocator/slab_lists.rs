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
    lists: Box<[CachePadded<Lists>]>,
    /// For each unit of the arena two words: the next and the previous slab in its list.
    links: SideTable,
}

/// Guarded by the shard's lock; atomics only so that no unsafe code is needed.
struct Lists {
    first: [AtomicU32; CLASSES],
    /// Slabs of each class, with or without a free object.
    slabs: [AtomicU32; CLASSES],
    /// Objects of each class in slabs of its coarse class; those of before a restore are not
    /// counted.
    in_coarse: [AtomicU32; CLASSES],
    used: AtomicU64,
}

impl SlabLists {
    /// No slabs, for an arena of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> std::io::Result<Self> {
        let lists = (0..SHARDS).map(|_| {
            CachePadded::new(Lists {
                first: [const { AtomicU32::new(NONE) }; CLASSES],
                slabs: [const { AtomicU32::new(0) }; CLASSES],
                in_coarse: [const { AtomicU32::new(0) }; CLASSES],
                used: AtomicU64::new(0),
            })
        });
        let links = SideTable::new(index(capacity / UNIT_SIZE * LINKS))?;
        Ok(Self { lists: lists.collect(), links })
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

    /// Counts a new slab.
    pub(crate) fn slab_added(&self, shard: ShardIndex, class: SizeClass) {
        change(&self.lists[shard.get()].slabs[class.index()], |count| count + 1);
    }

    /// Counts a slab that was returned.
    pub(crate) fn slab_removed(&self, shard: ShardIndex, class: SizeClass) {
        change(&self.lists[shard.get()].slabs[class.index()], |count| count.saturating_sub(1));
    }

    /// Whether the next object of a class belongs into a slab of the coarse class: the shard has no
    /// slab of the class, and not enough objects of it to fill one.
    pub(crate) fn belongs_in_coarse(&self, shard: ShardIndex, class: SizeClass) -> bool {
        let lists = &self.lists[shard.get()];
        let objects = lists.in_coarse[class.index()].load(Ordering::Relaxed);
        lists.slabs[class.index()].load(Ordering::Relaxed) == 0
            && u64::from(objects) < class.objects()
    }

    /// Counts an object of a class that a slab of another class has taken: of its coarse class, or,
    /// by promotion, of a larger one.
    pub(crate) fn coarse_taken(&self, shard: ShardIndex, class: SizeClass) {
        change(&self.lists[shard.get()].in_coarse[class.index()], |count| count + 1);
    }

    /// Counts an object of a class that has left a slab of another class.
    pub(crate) fn coarse_released(&self, shard: ShardIndex, class: SizeClass) {
        let count = &self.lists[shard.get()].in_coarse[class.index()];
        change(count, |count| count.saturating_sub(1));
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

/// Changes a counter that the shard's lock guards.
fn change(counter: &AtomicU32, by: impl FnOnce(u32) -> u32) {
    counter.store(by(counter.load(Ordering::Relaxed)), Ordering::Relaxed);
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
