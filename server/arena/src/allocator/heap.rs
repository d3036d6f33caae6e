//! The allocator: slabs of size classes for small objects, runs of units for middling ones, runs
//! of chunks for large ones.
//!
//! A slab belongs to one shard and is found through that shard's list of slabs with room. The
//! lists stand beside the arena; the truth they are made from, each slab's bitmap, stands in it.
//! Allocating and freeing write to the slab's descriptor only, never to the objects.
//!
//! Invariants:
//! 1. A shard's slabs with a free object, and no others, are in the list of their class.
//! 2. A slab has at least one object in use; an empty one goes back to the pool at once.
//! 3. An object's class, or the size of its run, follows from its length alone: whoever frees an
//!    object says how long it is, and the descriptor must agree.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::Arena;
use crate::allocator::chunk_pool::OutOfMemory;
use crate::allocator::failed_allocation;
use crate::allocator::size_classes::{CLASSES, MAX_SLAB_OBJECT, SizeClass};
use crate::layout::{
    CHUNK_SIZE, ChunkIndex, SHARDS, UNIT_SIZE, UNITS_IN_CHUNK, UNITS_PER_CHUNK, UnitDescriptor,
    UnitKind, index,
};
use crate::locks::ShardIndex;
use crate::memory::access::Mem;
use crate::memory::side_tables::SideTable;

/// The longest object that shares a chunk with others.
const MAX_RUN_OBJECT: u64 = UNITS_IN_CHUNK * UNIT_SIZE;
const NONE: u32 = 0;

/// Bytes that a large object of `len` bytes really takes.
pub(crate) const fn large_size(len: u64) -> u64 {
    if len <= MAX_RUN_OBJECT {
        len.div_ceil(UNIT_SIZE) * UNIT_SIZE
    } else {
        len.div_ceil(CHUNK_SIZE) * CHUNK_SIZE
    }
}

/// Bytes that an object of `len` bytes needs in one piece where there is no slab with room for it.
pub const fn contiguous_bytes_for(len: u64) -> u64 {
    match SizeClass::of(len) {
        Some(class) => class.units() * UNIT_SIZE,
        None => large_size(len),
    }
}

/// What the allocator keeps beside the arena.
pub(crate) struct Heaps {
    /// For each shard and class the first slab with room, as a unit number of the whole arena.
    lists: [CachePadded<Lists>; SHARDS],
    /// For each unit of the arena two words: the next and the previous slab in its list.
    links: SideTable,
}

/// Guarded by the shard's lock; atomics only so that no unsafe code is needed.
struct Lists {
    first: [std::sync::atomic::AtomicU32; CLASSES],
    used: AtomicU64,
}

impl Heaps {
    /// No slabs, for an arena of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> std::io::Result<Self> {
        let lists = std::array::from_fn(|_| {
            CachePadded::new(Lists {
                first: [const { std::sync::atomic::AtomicU32::new(NONE) }; CLASSES],
                used: AtomicU64::new(0),
            })
        });
        Ok(Self { lists, links: SideTable::new(index(capacity / UNIT_SIZE * 2))? })
    }

    /// Bytes in objects, rounding included.
    pub(crate) fn used(&self) -> u64 {
        self.lists.iter().map(|l| l.used.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    fn first(&self, shard: ShardIndex, class: SizeClass) -> u32 {
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

    fn unlink(&self, shard: ShardIndex, class: SizeClass, slab: u32) {
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

const fn split_unit_number(number: u32) -> (ChunkIndex, u64) {
    let units = number as u64;
    (ChunkIndex::of(units * UNIT_SIZE), units % UNITS_PER_CHUNK)
}

fn first_clear(objects: &[u64; 4]) -> Option<u64> {
    let word = objects.iter().position(|word| *word != u64::MAX)?;
    Some(word as u64 * 64 + u64::from(objects[word].trailing_ones()))
}

impl Mem<'_> {
    /// Takes `len` bytes, whose content is undefined; returns their offset, which is a multiple
    /// of 16, and of 64 if the class of `len` is. Nothing has changed on error.
    ///
    /// # Errors
    /// The arena is full.
    #[inline]
    pub fn allocate(&mut self, len: u64) -> Result<u64, OutOfMemory> {
        match SizeClass::of(len) {
            Some(class) => self.allocate_small(class),
            None => self.allocate_large(len),
        }
    }

    /// Gives back the object of `len` bytes at `at`.
    ///
    /// # Panics
    /// There is no such object.
    pub fn release(&mut self, at: u64, len: u64) {
        match SizeClass::of(len) {
            Some(class) => self.release_small(at, class),
            None => self.release_large(at, len),
        }
    }

    /// Hands an object to another locked shard without moving it. Only objects that are larger than
    /// [`MAX_SLAB_OBJECT`] can be: a slab belongs to its shard.
    pub fn transfer_ownership(&mut self, to: ShardIndex, len: u64) {
        assert!(len > MAX_SLAB_OBJECT, "arena: an object of {len} bytes belongs to its shard");
        let size = large_size(len);
        self.arena.heaps.count(self.shard, size.wrapping_neg());
        self.arena.heaps.count(to, size);
    }

    #[inline]
    fn allocate_small(&mut self, class: SizeClass) -> Result<u64, OutOfMemory> {
        let slab = match self.arena.heaps.first(self.shard, class) {
            NONE => self.new_slab(class)?,
            slab => slab,
        };
        let (chunk, unit) = split_unit_number(slab);
        let at = chunk.descriptor(unit);
        let mut descriptor = self.read(at);
        let object = first_clear(&descriptor.objects)
            .filter(|object| *object < class.objects())
            .unwrap_or_else(|| panic!("arena: slab {slab} is in the list but has no room"));
        set(&mut descriptor.objects, object);
        descriptor.used += 1;
        self.write(at, descriptor);
        if u64::from(descriptor.used) == class.objects() {
            self.arena.heaps.unlink(self.shard, class, slab);
        }
        self.arena.heaps.count(self.shard, class.size());
        Ok(u64::from(slab) * UNIT_SIZE + object * class.size())
    }

    #[cold]
    fn new_slab(&mut self, class: SizeClass) -> Result<u32, OutOfMemory> {
        let (chunk, unit) = self
            .arena
            .take_from_pool(|pool| pool.take_units(self.arena, class.units()))
            .inspect_err(|_| failed_allocation::note(class.size()))?;
        let head = UnitDescriptor {
            kind: UnitKind::Slab as u8,
            class: class.index().to_le_bytes()[0],
            shard: self.shard.get().to_le_bytes()[0],
            units: small(class.units()),
            ..UnitDescriptor::NONE
        };
        self.write(chunk.descriptor(unit), head);
        for back in 1..class.units() {
            let tail = UnitDescriptor {
                kind: UnitKind::SlabTail as u8,
                units: small(back),
                ..UnitDescriptor::NONE
            };
            self.write(chunk.descriptor(unit + back), tail);
        }
        let slab = unit_number(chunk, unit);
        self.arena.heaps.link(self.shard, class, slab);
        Ok(slab)
    }

    /// The chunk, the first unit and the descriptor of the slab in which `at` lies.
    fn slab_at(&self, at: u64) -> (ChunkIndex, u64, UnitDescriptor) {
        let chunk = ChunkIndex::of(at);
        let mut unit = at % CHUNK_SIZE / UNIT_SIZE;
        let mut descriptor = self.read(chunk.descriptor(unit));
        if descriptor.is(UnitKind::SlabTail) {
            unit -= u64::from(descriptor.units).min(unit);
            descriptor = self.read(chunk.descriptor(unit));
        }
        (chunk, unit, descriptor)
    }

    fn release_small(&mut self, at: u64, class: SizeClass) {
        let (chunk, unit, mut descriptor) = self.slab_at(at);
        let start = chunk.start() + unit * UNIT_SIZE;
        let object = (at - start) / class.size();
        let agrees = descriptor.is(UnitKind::Slab)
            && usize::from(descriptor.class) == class.index()
            && usize::from(descriptor.shard) == self.shard.get()
            && (at - start).is_multiple_of(class.size())
            && crate::allocator::unit_bitmap::get(&descriptor.objects, object);
        assert!(agrees, "arena: no object of {} bytes at {at:#x}: {descriptor:?}", class.size());
        let slab = unit_number(chunk, unit);
        let was_full = u64::from(descriptor.used) == class.objects();
        self.arena.heaps.count(self.shard, class.size().wrapping_neg());
        if descriptor.used == 1 {
            if !was_full {
                self.arena.heaps.unlink(self.shard, class, slab);
            }
            for i in 0..class.units() {
                self.write(chunk.descriptor(unit + i), UnitDescriptor::NONE);
            }
            self.arena.pool.lock().put_units(self.arena, chunk, unit, class.units());
            return;
        }
        crate::allocator::unit_bitmap::clear(&mut descriptor.objects, object, 1);
        descriptor.used -= 1;
        self.write(chunk.descriptor(unit), descriptor);
        if was_full {
            self.arena.heaps.link(self.shard, class, slab);
        }
    }

    fn allocate_large(&mut self, len: u64) -> Result<u64, OutOfMemory> {
        self.take_large(len).inspect_err(|_| failed_allocation::note(len))
    }

    fn take_large(&mut self, len: u64) -> Result<u64, OutOfMemory> {
        let size = large_size(len);
        let at = if len <= MAX_RUN_OBJECT {
            let units = size / UNIT_SIZE;
            let (chunk, unit) =
                self.arena.take_from_pool(|pool| pool.take_units(self.arena, units))?;
            let head = UnitDescriptor {
                kind: UnitKind::Run as u8,
                units: small(units),
                ..UnitDescriptor::NONE
            };
            self.write(chunk.descriptor(unit), head);
            chunk.start() + unit * UNIT_SIZE
        } else {
            let count = u32::try_from(size / CHUNK_SIZE).map_err(|_| OutOfMemory)?;
            self.arena.take_from_pool(|pool| pool.take_run(self.arena, count))?.start()
        };
        self.arena.heaps.count(self.shard, size);
        Ok(at)
    }

    fn release_large(&mut self, at: u64, len: u64) {
        let size = large_size(len);
        let chunk = ChunkIndex::of(at);
        self.arena.heaps.count(self.shard, size.wrapping_neg());
        if len <= MAX_RUN_OBJECT {
            let unit = at % CHUNK_SIZE / UNIT_SIZE;
            let descriptor = self.read(chunk.descriptor(unit));
            let agrees = descriptor.is(UnitKind::Run)
                && u64::from(descriptor.units) == size / UNIT_SIZE
                && at.is_multiple_of(UNIT_SIZE);
            assert!(agrees, "arena: no run of {size} bytes at {at:#x}: {descriptor:?}");
            self.write(chunk.descriptor(unit), UnitDescriptor::NONE);
            self.arena.pool.lock().put_units(self.arena, chunk, unit, size / UNIT_SIZE);
        } else {
            let entry = self.read(chunk.entry());
            let count = entry.run;
            let agrees = entry.state == crate::layout::ChunkState::RunHead as u8
                && u64::from(count) == size / CHUNK_SIZE
                && at.is_multiple_of(CHUNK_SIZE);
            assert!(agrees, "arena: no run of {size} bytes at {at:#x}: {entry:?}");
            self.arena.pool.lock().put_run(self.arena, chunk, count);
        }
    }
}

impl Arena {
    /// Bytes in objects, rounding included.
    pub fn used_bytes(&self) -> u64 {
        self.heaps.used()
    }
}

fn set(objects: &mut [u64; 4], object: u64) {
    crate::allocator::unit_bitmap::set(objects, object, 1);
}

#[expect(clippy::cast_possible_truncation, reason = "at most 256 units")]
const fn small(units: u64) -> u16 {
    units as u16
}
