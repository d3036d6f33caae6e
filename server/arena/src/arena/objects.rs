//! The allocator of objects: slabs of size classes for small objects, runs of units for middling
//! ones, runs of chunks for large ones.
//!
//! A slab belongs to one shard and is found through that shard's list of slabs with a free object.
//! Freeing writes to the slab's descriptor only, never to the object: what is free is left out of
//! images. Allocating also zeroes the bytes of the object's size class, or of its units, behind its
//! length, since an image has those.
//!
//! The first objects of a class in a shard go into slabs of the coarse class, until they would fill
//! a slab: 64 shards with slabs of all classes would otherwise waste more than the finer classes
//! save.
//!
//! Invariants:
//! 1. A slab has at least one object in use; an empty slab returns to the pool at once.
//! 2. A release gives the object's length, and the descriptor must agree: the size of a run follows
//!    from the length, and so does the class that an object is allocated in. Its slab is of that
//!    class or of the coarse class of it; only [evacuation](super::evacuation) moves objects to
//!    slabs of other larger classes.
//! 3. The bytes of an object behind its length are zero when it is handed out. What shortens a
//!    value inside its object zeroes the bytes that it leaves behind.

use super::mem::Mem;
use crate::allocator::chunk_pool::{ChunkPool, OutOfMemory, TakenMemory};
use crate::allocator::failed_allocation;
use crate::allocator::size_classes::{MAX_RUN_OBJECT, MAX_SLAB_OBJECT, SizeClass, large_size};
use crate::allocator::slab_lists::{NONE, split_unit_number, unit_number};
use crate::allocator::unit_bitmap;
use crate::layout::{
    CHUNK_SIZE, ChunkIndex, ChunkState, HEAD_UNITS, Offset, UNIT_SIZE, UNITS_PER_CHUNK,
    UnitDescriptor, UnitKind,
};
use crate::shard::ShardIndex;

impl Mem<'_> {
    /// Takes `len` bytes, whose content is undefined; returns their offset, which is a multiple
    /// of 4, and of 64 if the class of `len` is. Nothing has changed on error.
    ///
    /// # Errors
    /// The arena is full.
    #[inline]
    pub fn allocate(&mut self, len: u64) -> Result<u64, OutOfMemory> {
        self.allocate_zeroed_from(len, len)
    }

    /// As [`Self::allocate`], and the bytes from `written` on are zero: for an object of which the
    /// caller writes the first `written` bytes only.
    ///
    /// # Errors
    /// The arena is full.
    #[inline]
    pub fn allocate_zeroed_from(&mut self, len: u64, written: u64) -> Result<u64, OutOfMemory> {
        debug_assert!(written <= len);
        match SizeClass::of(len) {
            Some(class) => {
                let (at, size) = self.allocate_small(class)?;
                self.zero_end(at, size, written);
                Ok(at)
            }
            None => self.allocate_large(len, written),
        }
    }

    /// Zeroes the bytes of a small object from `written` on. A short end is one store, which may
    /// write to bytes before it.
    #[inline]
    fn zero_end(&mut self, at: u64, size: u64, written: u64) {
        const STORE: u64 = size_of::<u128>() as u64;
        let free = size - written;
        if free == 0 {
            return;
        }
        if free <= STORE && size >= STORE {
            self.write(Offset::new(at + size - STORE), 0u128);
        } else {
            self.bytes_mut(at + written, free).fill(0);
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

    /// Transfers the object of `len` bytes at `at` to another locked shard without moving it. Only
    /// objects larger than [`MAX_SLAB_OBJECT`] can be transferred: a slab belongs to its shard.
    ///
    /// # Panics
    /// The object is smaller.
    pub fn transfer_ownership(&mut self, at: u64, to: ShardIndex, len: u64) {
        assert!(len > MAX_SLAB_OBJECT, "arena: an object of {len} bytes belongs to its shard");
        let size = large_size(len);
        self.arena.slabs.count(self.shard, size.wrapping_neg());
        self.arena.slabs.count(to, size);
        self.arena.owners.check(at, size, self.shard);
        self.arena.owners.set(at, size, to);
    }

    /// Takes an object; returns its offset, and its bytes with the rounding.
    #[inline]
    fn allocate_small(&mut self, class: SizeClass) -> Result<(u64, u64), OutOfMemory> {
        match self.arena.slabs.first(self.shard, class) {
            NONE => self.allocate_without_slab(class),
            slab => Ok((self.take_object(slab, class), class.size())),
        }
    }

    /// Allocates where no slab of the class has a free object: in a slab of the coarse class, or in
    /// a new slab.
    #[cold]
    fn allocate_without_slab(&mut self, class: SizeClass) -> Result<(u64, u64), OutOfMemory> {
        let coarse = class.coarse();
        if coarse == class || !self.arena.slabs.belongs_in_coarse(self.shard, class) {
            let slab = self.new_slab(class)?;
            return Ok((self.take_object(slab, class), class.size()));
        }
        let slab = match self.arena.slabs.first(self.shard, coarse) {
            NONE => self.new_slab(coarse)?,
            slab => slab,
        };
        self.arena.slabs.coarse_taken(self.shard, class);
        Ok((self.take_object(slab, coarse), coarse.size()))
    }

    /// Takes a free object of a slab in the list of its class.
    #[inline]
    pub(super) fn take_object(&mut self, slab: u32, class: SizeClass) -> u64 {
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
            self.arena.slabs.unlink(self.shard, class, slab);
        }
        self.arena.slabs.count(self.shard, class.size());
        u64::from(slab) * UNIT_SIZE + object * class.size()
    }

    /// A slab with a free object, in the list of its class, which is empty.
    #[cold]
    fn new_slab(&mut self, class: SizeClass) -> Result<u32, OutOfMemory> {
        let taken =
            self.arena.take_from_pool(|pool| pool.take_units(&self.arena.store, class.units()));
        match taken {
            Ok(TakenMemory { chunk, unit, .. }) => self.format_slab(chunk, unit, class),
            Err(full) => {
                self.end_evacuation();
                match self.arena.slabs.first(self.shard, class) {
                    NONE => {
                        failed_allocation::note(class.size());
                        Err(full)
                    }
                    slab => Ok(slab),
                }
            }
        }
    }

    /// Makes units that were taken for it a slab, and puts it into the list of its class.
    ///
    /// # Errors
    /// The kernel has no memory for the words of its objects; the units are given back.
    pub(super) fn format_slab(
        &mut self,
        chunk: ChunkIndex,
        unit: u64,
        class: SizeClass,
    ) -> Result<u32, OutOfMemory> {
        let start = chunk.start() + unit * UNIT_SIZE;
        if let Err(full) = self.arena.words.add_slab(start, class, self.shard) {
            self.arena.pool.lock().put_units(&self.arena.store, chunk, unit, class.units());
            return Err(full);
        }
        self.arena.owners.set_descriptors(chunk);
        self.arena.owners.set(start, class.units() * UNIT_SIZE, self.shard);
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
        self.arena.slabs.slab_added(self.shard, class);
        self.arena.slabs.link(self.shard, class, slab);
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

    /// The slab says the class: it may be the coarse one of `wanted`, or compaction has moved the
    /// object to a larger one.
    fn release_small(&mut self, at: u64, wanted: SizeClass) {
        let (chunk, unit, mut descriptor) = self.slab_at(at);
        let start = chunk.start() + unit * UNIT_SIZE;
        let class = SizeClass::from_index(usize::from(descriptor.class)).unwrap_or(wanted);
        let object = class.object_at(at - start);
        let agrees = descriptor.is(UnitKind::Slab)
            && wanted.fits_slab_of(class)
            && usize::from(descriptor.shard) == self.shard.get()
            && object * class.size() == at - start
            && unit_bitmap::get(&descriptor.objects, object);
        assert!(agrees, "arena: no object of {} bytes at {at:#x}: {descriptor:?}", wanted.size());
        let slab = unit_number(chunk, unit);
        let was_full = u64::from(descriptor.used) == class.objects();
        self.arena.slabs.count(self.shard, class.size().wrapping_neg());
        if class != wanted {
            self.arena.slabs.coarse_released(self.shard, wanted);
        }
        if descriptor.used == 1 {
            if !was_full && !self.arena.evacuation.release_slab(slab, class.units()) {
                self.arena.slabs.unlink(self.shard, class, slab);
            }
            for i in 0..class.units() {
                self.write(chunk.descriptor(unit + i), UnitDescriptor::NONE);
            }
            self.arena.slabs.slab_removed(self.shard, class);
            self.arena.words.remove_slab(start, class);
            self.arena.owners.clear(start, class.units() * UNIT_SIZE);
            self.arena.pool.lock().put_units(&self.arena.store, chunk, unit, class.units());
            return;
        }
        unit_bitmap::clear(&mut descriptor.objects, object, 1);
        descriptor.used -= 1;
        self.write(chunk.descriptor(unit), descriptor);
        if was_full && !self.arena.evacuation.withhold(self.shard.get(), slab) {
            self.arena.slabs.link(self.shard, class, slab);
        }
    }

    /// The size class of the slab in which the object at `at` lies; `None` if a slab of this shard
    /// has no object in use there.
    pub fn slab_class_at(&self, at: u64) -> Option<SizeClass> {
        if at / UNIT_SIZE % UNITS_PER_CHUNK < HEAD_UNITS || at >= self.arena.capacity() {
            return None;
        }
        let (chunk, unit, descriptor) = self.slab_at(at);
        class_of_object(&descriptor, at - chunk.start() - unit * UNIT_SIZE, self.shard)
    }

    fn allocate_large(&mut self, len: u64, written: u64) -> Result<u64, OutOfMemory> {
        let (at, is_clean) = self.take_large(len).inspect_err(|_| failed_allocation::note(len))?;
        // Zeroing memory that is zero would commit its pages.
        if !is_clean {
            self.bytes_mut(at + written, large_size(len) - written).fill(0);
        }
        Ok(at)
    }

    /// Takes a run; returns whether all of it is zero too.
    fn take_large(&mut self, len: u64) -> Result<(u64, bool), OutOfMemory> {
        let size = large_size(len);
        if len <= MAX_RUN_OBJECT {
            let units = size / UNIT_SIZE;
            let TakenMemory { chunk, unit, is_clean } =
                self.arena.take_from_pool(|pool| pool.take_units(&self.arena.store, units))?;
            return Ok((self.format_unit_run(chunk, unit, size)?, is_clean));
        }
        // More chunks than the largest arena has.
        let count = u32::try_from(size / CHUNK_SIZE).map_err(|_| OutOfMemory)?;
        let take = |pool: &mut ChunkPool| pool.take_run(&self.arena.store, count);
        let taken = self.arena.take_from_pool(take)?;
        Ok((self.format_chunk_run(taken.chunk, size)?, taken.is_clean))
    }

    /// Makes units that were taken for it an object of `size` bytes.
    ///
    /// # Errors
    /// The kernel has no memory for the word of the object; the units are given back.
    pub(super) fn format_unit_run(
        &mut self,
        chunk: ChunkIndex,
        unit: u64,
        size: u64,
    ) -> Result<u64, OutOfMemory> {
        let at = chunk.start() + unit * UNIT_SIZE;
        if let Err(full) = self.arena.words.add_run(at) {
            self.arena.pool.lock().put_units(&self.arena.store, chunk, unit, size / UNIT_SIZE);
            return Err(full);
        }
        self.arena.owners.set_descriptors(chunk);
        self.arena.owners.set(at, size, self.shard);
        let head = UnitDescriptor {
            kind: UnitKind::Run as u8,
            units: small(size / UNIT_SIZE),
            ..UnitDescriptor::NONE
        };
        self.write(chunk.descriptor(unit), head);
        self.arena.slabs.count(self.shard, size);
        Ok(at)
    }

    /// Makes chunks that were taken for it an object of `size` bytes.
    ///
    /// # Errors
    /// The kernel has no memory for the word of the object; the chunks are given back.
    pub(super) fn format_chunk_run(
        &mut self,
        first: ChunkIndex,
        size: u64,
    ) -> Result<u64, OutOfMemory> {
        if let Err(full) = self.arena.words.add_run(first.start()) {
            let count = u32::try_from(size / CHUNK_SIZE).map_err(|_| full)?;
            self.arena.pool.lock().put_run(&self.arena.store, first, count);
            return Err(full);
        }
        self.arena.owners.set(first.start(), size, self.shard);
        self.arena.slabs.count(self.shard, size);
        Ok(first.start())
    }

    fn release_large(&mut self, at: u64, len: u64) {
        let size = large_size(len);
        let chunk = ChunkIndex::of(at);
        self.arena.slabs.count(self.shard, size.wrapping_neg());
        if len <= MAX_RUN_OBJECT {
            let unit = at % CHUNK_SIZE / UNIT_SIZE;
            let descriptor = self.read(chunk.descriptor(unit));
            let agrees = descriptor.is(UnitKind::Run)
                && u64::from(descriptor.units) == size / UNIT_SIZE
                && at.is_multiple_of(UNIT_SIZE);
            assert!(agrees, "arena: no run of {size} bytes at {at:#x}: {descriptor:?}");
            self.write(chunk.descriptor(unit), UnitDescriptor::NONE);
            self.arena.words.remove_run(at);
            self.arena.owners.clear(at, size);
            self.arena.pool.lock().put_units(&self.arena.store, chunk, unit, size / UNIT_SIZE);
        } else {
            let entry = self.read(chunk.entry());
            let count = entry.run;
            let agrees = entry.state == ChunkState::RunHead as u8
                && u64::from(count) == size / CHUNK_SIZE
                && at.is_multiple_of(CHUNK_SIZE);
            assert!(agrees, "arena: no run of {size} bytes at {at:#x}: {entry:?}");
            self.arena.words.remove_run(at);
            self.arena.owners.clear(at, size);
            self.arena.pool.lock().put_run(&self.arena.store, chunk, count);
        }
    }
}

/// The class of a slab in which an object in use of `shard` begins `within` the slab; `None` if the
/// descriptor says anything else. Any bytes are a descriptor.
pub(super) fn class_of_object(
    descriptor: &UnitDescriptor,
    within: u64,
    shard: ShardIndex,
) -> Option<SizeClass> {
    let class = SizeClass::from_index(usize::from(descriptor.class))?;
    let object = within / class.size();
    let is_object = descriptor.is(UnitKind::Slab)
        && usize::from(descriptor.shard) == shard.get()
        && object * class.size() == within
        && object < class.objects()
        && unit_bitmap::get(&descriptor.objects, object);
    is_object.then_some(class)
}

fn set(objects: &mut [u64; 7], object: u64) {
    unit_bitmap::set(objects, object, 1);
}

#[expect(clippy::cast_possible_truncation, reason = "at most 256 units")]
const fn small(units: u64) -> u16 {
    units as u16
}

fn first_clear(objects: &[u64; 7]) -> Option<u64> {
    let word = objects.iter().position(|word| *word != u64::MAX)?;
    Some(word as u64 * 64 + u64::from(objects[word].trailing_ones()))
}
