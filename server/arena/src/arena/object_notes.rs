//! `ObjectNotes`: what the layers above noted of each small object while the image was read.
//!
//! References go everywhere in an image, so they can be followed only when every chunk is in
//! memory. What an object says of itself can be checked as soon as its chunk is: in the order of
//! memory, while the chunk is in the processor's cache and other threads wait for the disk. An
//! [`ObjectInspector`] does that, and notes 31 bits of each object that it finds sound. The
//! [`Audit`](super::audit::Audit) that follows the references then reads the note instead of the
//! object.
//!
//! ```text
//! units:  | 0 | unit | unit | 0 | ...       an entry for each unit of the arena, 0 if not a slab's
//!               |
//!               v
//! words:  | slab, slab, slab, ...           one word for each object of the slabs inspected
//!
//! entry:  | in use 1 | 0 (4) | units back to head 4 | shard 6 | class 8 | its first word 41 |
//! word:   | claimed 1 | note 31 |           0: no note, not claimed
//! ```
//!
//! A note never refuses an object. An object without a note is checked when the references are
//! followed, so an image is refused at the same place and with the same words with and without
//! notes.
//!
//! The descriptors of a chunk are not audited when the chunk is inspected. Nothing depends on
//! that: each access is within the chunk's bytes, and the audit of the tables refuses a chunk in
//! which slabs lie other than [`ObjectNotes::inspect`] has found them. A chunk that is not cut into
//! units may get entries that mean nothing; [`Audit`](super::audit::Audit) looks at entries of cut
//! chunks only.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromBytes as _, FromZeros as _};

use crate::allocator::size_classes::{MIN_OBJECT, SizeClass};
use crate::allocator::unit_bitmap;
use crate::layout::{
    CHUNK_SIZE, ChunkIndex, HEAD_UNITS, Header, UNIT_SIZE, UNITS_PER_CHUNK, UnitDescriptor,
    UnitKind, index,
};
use crate::memory::side_tables::SideTable;
use crate::shard::ShardIndex;

const CLAIMED: u32 = 1 << 31;

const FIRST_BITS: u32 = 41;
const CLASS_SHIFT: u32 = FIRST_BITS;
const SHARD_SHIFT: u32 = CLASS_SHIFT + 8;
const BACK_SHIFT: u32 = SHARD_SHIFT + 6;
const IN_USE: u64 = 1 << 63;

/// Words for each chunk of the image. All of them take a twentieth of its bytes: enough for objects
/// of 80 bytes and more. Where objects are smaller, the words run out, and the rest of the objects
/// get no notes.
const WORDS_PER_CHUNK: u64 = CHUNK_SIZE / 20 / size_of::<AtomicU32>() as u64;

// As many words as 2^32 units, the most that an arena has, can have objects.
const _: () = assert!((UNIT_SIZE << u32::BITS) / MIN_OBJECT < 1 << FIRST_BITS);
const _: () = assert!(BACK_SHIFT + 4 < u64::BITS);

/// An object in use of a slab, to be inspected. Its bytes and the slab's descriptor are untrusted.
#[derive(Clone, Copy, Debug)]
pub struct SlabObject<'c> {
    /// Its bytes, with the rounding to the size class of the slab.
    pub bytes: &'c [u8],
    /// The size class of the slab.
    pub class: SizeClass,
    /// The shard that the slab belongs to.
    pub shard: ShardIndex,
    /// The seed of hash tables in the image.
    pub hash_seed: u64,
}

impl SlabObject<'_> {
    /// Whether a claim of `len` bytes would find this object.
    pub fn has_len(&self, len: u64) -> bool {
        len > 0 && SizeClass::of(len).is_some_and(|class| class.fits_slab_of(self.class))
    }
}

/// Checks objects by their own bytes, before any reference to them is known.
pub trait ObjectInspector: Sync {
    /// What to note of an object: up to 31 bits, not 0. `None` if it has to be read when the
    /// references are followed, as every object that is damaged.
    fn inspect(&self, object: &SlabObject<'_>) -> Option<NonZeroU32>;
}

/// The notes of the objects of one image.
pub struct ObjectNotes {
    units: SideTable<AtomicU64>,
    words: SideTable<AtomicU32>,
    /// The number of words given to slabs.
    given: AtomicU64,
}

impl ObjectNotes {
    /// No notes, for `chunks` chunks that are loaded into an arena of `capacity` bytes.
    ///
    /// # Errors
    /// The kernel refused the address space.
    pub fn new(capacity: u64, chunks: u64) -> io::Result<Self> {
        let words = index(chunks.max(1).saturating_mul(WORDS_PER_CHUNK));
        Ok(Self {
            units: SideTable::new(index(capacity / UNIT_SIZE))?,
            words: SideTable::new(words)?,
            given: AtomicU64::new(0),
        })
    }

    /// The seed of the hash tables, from the first chunk of an image.
    pub fn hash_seed(first_chunk: &[u8]) -> Option<u64> {
        let (header, _) = Header::read_from_prefix(first_chunk).ok()?;
        Some(header.hash_seed)
    }

    /// Inspects the objects of a chunk. Its bytes must not change any more. Any thread may call
    /// this, once for each chunk. `hash_seed` is the image's.
    pub fn inspect(
        &self,
        chunk: ChunkIndex,
        bytes: &[u8],
        hash_seed: u64,
        inspector: &dyn ObjectInspector,
    ) {
        if chunk.is_table() || bytes.len() as u64 != CHUNK_SIZE {
            return;
        }
        let mut unit = HEAD_UNITS;
        while unit < UNITS_PER_CHUNK {
            let descriptor = descriptor_in(bytes, unit);
            let units = u64::from(descriptor.units);
            let fits = units > 0 && unit + units <= UNITS_PER_CHUNK;
            if fits && descriptor.is(UnitKind::Slab) {
                let at = index(unit * UNIT_SIZE);
                let slab = bytes.get(at..at + index(units * UNIT_SIZE)).unwrap_or_default();
                let number = chunk.start() / UNIT_SIZE + unit;
                self.inspect_slab(number, &descriptor, slab, hash_seed, inspector);
            }
            let is_head = descriptor.is(UnitKind::Slab) || descriptor.is(UnitKind::Run);
            unit += if fits && is_head { units } else { 1 };
        }
    }

    /// Inspects the objects of a slab; `unit` is the number of its first unit.
    fn inspect_slab(
        &self,
        unit: u64,
        descriptor: &UnitDescriptor,
        slab: &[u8],
        hash_seed: u64,
        inspector: &dyn ObjectInspector,
    ) {
        let class = SizeClass::from_index(usize::from(descriptor.class));
        let shard = ShardIndex::new(usize::from(descriptor.shard));
        let (Some(class), Some(shard)) = (class, shard) else { return };
        if slab.len() as u64 != class.units() * UNIT_SIZE {
            return;
        }
        let objects = class.objects();
        let first = self.given.fetch_add(objects, Ordering::Relaxed);
        let Some(words) = self.words.get(index(first)..index(first.saturating_add(objects))) else {
            return;
        };
        let size = index(class.size());
        for (object, (bytes, word)) in slab.chunks_exact(size).zip(words).enumerate() {
            if !unit_bitmap::get(&descriptor.objects, object as u64) {
                continue;
            }
            let object = SlabObject { bytes, class, shard, hash_seed };
            if let Some(note) = inspector.inspect(&object) {
                word.store(note.get() & !CLAIMED, Ordering::Relaxed);
            }
        }
        for back in 0..class.units() {
            let entry = IN_USE
                | back << BACK_SHIFT
                | (shard.get() as u64) << SHARD_SHIFT
                | (class.index() as u64) << CLASS_SHIFT
                | first;
            if let Some(place) = self.units.get(index(unit + back)) {
                place.store(entry, Ordering::Relaxed);
            }
        }
    }

    /// The word of the object that begins at `at`, and the shard of its slab. `None` if it is not
    /// an object of a slab that was inspected.
    #[inline]
    pub(super) fn word(&self, at: u64) -> Option<(ObjectWord<'_>, usize)> {
        let entry = self.units.get(index(at / UNIT_SIZE))?.load(Ordering::Relaxed);
        if entry & IN_USE == 0 {
            return None;
        }
        let class = SizeClass::from_index(index(entry >> CLASS_SHIFT & 0xff))?;
        let within = (entry >> BACK_SHIFT & 0xf) * UNIT_SIZE + at % UNIT_SIZE;
        let object = class.object_at(within);
        if object * class.size() != within || object >= class.objects() {
            return None;
        }
        let word = self.words.get(index((entry & ((1 << FIRST_BITS) - 1)) + object))?;
        Some((ObjectWord(word), index(entry >> SHARD_SHIFT & 0x3f)))
    }

    /// The objects of a chunk that are claimed by their words.
    pub(super) fn claimed_in(&self, chunk: ChunkIndex) -> u64 {
        let first = chunk.start() / UNIT_SIZE;
        let entries = (first..first + UNITS_PER_CHUNK).filter_map(|unit| {
            let entry = self.units.get(index(unit))?.load(Ordering::Relaxed);
            let is_head = entry & IN_USE != 0 && entry >> BACK_SHIFT & 0xf == 0;
            let class = SizeClass::from_index(index(entry >> CLASS_SHIFT & 0xff))?;
            let first = entry & ((1 << FIRST_BITS) - 1);
            is_head.then_some(index(first)..index(first + class.objects()))
        });
        let words = entries.flat_map(|words| self.words.get(words).unwrap_or_default());
        words.filter(|word| word.load(Ordering::Relaxed) & CLAIMED != 0).count() as u64
    }

    /// Objects with a note.
    pub fn count(&self) -> u64 {
        let given = index(self.given.load(Ordering::Relaxed)).min(self.words.len());
        let words = self.words[..given].iter();
        words.filter(|word| word.load(Ordering::Relaxed) & !CLAIMED != 0).count() as u64
    }
}

/// The word of one object.
#[derive(Clone, Copy)]
pub(super) struct ObjectWord<'n>(&'n AtomicU32);

impl ObjectWord<'_> {
    #[inline]
    pub(super) fn note(self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.load(Ordering::Relaxed) & !CLAIMED)
    }

    /// Claims the object; tells whether that is the first claim.
    #[inline]
    pub(super) fn claim(self) -> bool {
        self.0.fetch_or(CLAIMED, Ordering::Relaxed) & CLAIMED == 0
    }

    #[inline]
    pub(super) fn prefetch(self) {
        crate::memory::prefetch::prefetch_line(std::ptr::from_ref(self.0).cast());
    }
}

/// The descriptor of a unit in the bytes of a chunk.
fn descriptor_in(bytes: &[u8], unit: u64) -> UnitDescriptor {
    let at = index(unit) * size_of::<UnitDescriptor>();
    let bytes = bytes.get(at..at + size_of::<UnitDescriptor>()).unwrap_or_default();
    UnitDescriptor::read_from_bytes(bytes).unwrap_or_else(|_| UnitDescriptor::new_zeroed())
}

#[cfg(test)]
#[path = "object_notes_tests.rs"]
mod tests;
