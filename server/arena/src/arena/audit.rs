//! The invariants of the arena, checked: of its own tables, and that the layers above refer to
//! each object exactly once.
//!
//! An image is untrusted input. [`tables`] bounds every number in the chunk table and in the unit
//! descriptors before anything is built from them; an [`Audit`] then lets the layers above claim
//! the objects that they reach, and at the end names an object that was not claimed.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use zerocopy::IntoBytes as _;

use super::Arena;
use super::held::Held;
use super::mem::ReadOnly;
use super::object_notes::{ObjectNotes, ObjectWord};
use super::objects::class_of_object;
use crate::allocator::chunk_pool::is_blank;
use crate::allocator::size_classes::{MAX_SLAB_OBJECT, MIN_OBJECT, SizeClass, large_size};
use crate::allocator::unit_bitmap;
use crate::bits;
use crate::layout::{
    ARENA_MAGIC, CHUNK_SIZE, ChunkEntry, ChunkIndex, ChunkState, HEAD_UNITS, Header, MAX_OBJECTS,
    SHARDS, UNIT_SIZE, UNITS_IN_CHUNK, UNITS_PER_CHUNK, UnitDescriptor, UnitKind, index,
};
use crate::memory::side_tables::SideTable;
use crate::shard::{ShardIndex, ShardSet};

/// The first broken invariant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("chunk {}: {reason}", chunk.0)]
pub struct Corruption {
    /// Where.
    pub chunk: ChunkIndex,
    /// What is wrong, with the figures.
    pub reason: String,
}

impl Corruption {
    /// An invariant broken in `chunk`.
    pub const fn new(chunk: ChunkIndex, reason: String) -> Self {
        Self { chunk, reason }
    }

    /// An invariant broken at an offset.
    pub const fn at(offset: u64, reason: String) -> Self {
        Self { chunk: ChunkIndex::of(offset), reason }
    }
}

/// What an audit has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuditSummary {
    /// Chunks in use.
    pub chunks: u64,
    /// Objects in use.
    pub objects: u64,
    /// Bytes in objects, rounding included.
    pub bytes: u64,
}

pub(crate) fn header(header: &Header, layout: u64) -> Result<(), Corruption> {
    let broken = |reason| Err(Corruption::new(ChunkIndex(0), reason));
    if header.magic != ARENA_MAGIC {
        return broken(format!("no arena: its first bytes are {:#x}", header.magic));
    }
    if header.layout != layout {
        return broken(format!(
            "its layout is {:#x}, this version reads {layout:#x}",
            header.layout
        ));
    }
    Ok(())
}

/// Checks the chunk table and the descriptors of every cut chunk.
#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
pub(crate) fn tables(arena: &Arena) -> Result<AuditSummary, Corruption> {
    let chunks = (arena.capacity() / CHUNK_SIZE) as u32;
    let mut summary = AuditSummary::default();
    let mut index = 0;
    while index < chunks {
        let chunk = ChunkIndex(index);
        // SAFETY: the caller has the arena to itself, or all its locks.
        let entry = unsafe { arena.store.load(chunk.entry()) };
        index += check_entry(arena, chunk, &entry, chunks, &mut summary)?;
    }
    Ok(summary)
}

/// Checks one entry and what belongs to it; returns how many chunks it covers.
fn check_entry(
    arena: &Arena,
    chunk: ChunkIndex,
    entry: &ChunkEntry,
    chunks: u32,
    summary: &mut AuditSummary,
) -> Result<u32, Corruption> {
    let broken = |reason: String| Err(Corruption::new(chunk, reason));
    let Some(state) = ChunkState::from_byte(entry.state) else {
        return broken(format!("unknown state {}", entry.state));
    };
    if entry.reserved != [0; 3] || entry.reserved_end != 0 {
        return broken("reserved bytes of its table entry are not zero".into());
    }
    if chunk.is_table() != (state == ChunkState::Table) {
        return broken(format!("its state is {state:?}"));
    }
    match state {
        ChunkState::RunHead => {
            check_run(arena, chunk, entry.run, chunks)?;
            summary.chunks += u64::from(entry.run);
            summary.objects += 1;
            summary.bytes += u64::from(entry.run) * CHUNK_SIZE;
            return Ok(entry.run);
        }
        ChunkState::RunTail => return broken("tail of a run without a head".into()),
        _ if entry.run != 0 => return broken(format!("state {state:?} with run {}", entry.run)),
        ChunkState::Units => check_units(arena, chunk, summary)?,
        ChunkState::Free | ChunkState::Table => {}
    }
    summary.chunks += u64::from(state != ChunkState::Free);
    Ok(1)
}

fn check_run(arena: &Arena, head: ChunkIndex, run: u32, chunks: u32) -> Result<(), Corruption> {
    if run == 0 || run > chunks - head.0 {
        let reason = format!("a run of {run} chunks in an arena of {chunks}");
        return Err(Corruption::new(head, reason));
    }
    for back in 1..run {
        let chunk = ChunkIndex(head.0 + back);
        if chunk.is_table() {
            let reason = format!("the run at chunk {} covers a part of the chunk table", head.0);
            return Err(Corruption::new(chunk, reason));
        }
        // SAFETY: the caller has the arena to itself, or all its locks.
        let tail = unsafe { arena.store.load(chunk.entry()) };
        let sound = ChunkState::from_byte(tail.state) == Some(ChunkState::RunTail)
            && tail.run == back
            && tail.reserved == [0; 3]
            && tail.reserved_end == 0;
        if !sound {
            let reason = format!("not tail {back} of the run at chunk {}: {tail:?}", head.0);
            return Err(Corruption::new(chunk, reason));
        }
    }
    Ok(())
}

fn check_units(
    arena: &Arena,
    chunk: ChunkIndex,
    summary: &mut AuditSummary,
) -> Result<(), Corruption> {
    let broken = |reason: String| Err(Corruption::new(chunk, reason));
    // SAFETY: the caller has the arena to itself, or all its locks.
    let head = unsafe { arena.store.load(chunk.head()) };
    if (0..HEAD_UNITS).any(|unit| unit_bitmap::get(&head.free, unit)) || head.reserved != [0; 4] {
        return broken("its head is damaged".into());
    }
    if unit_bitmap::count(&head.free) == UNITS_IN_CHUNK {
        return broken("cut into units, but none is in use".into());
    }
    // SAFETY: as above.
    let read = |unit| unsafe { arena.store.load(chunk.descriptor(unit)) };
    let mut unit = HEAD_UNITS;
    while unit < UNITS_PER_CHUNK {
        let descriptor = read(unit);
        if unit_bitmap::get(&head.free, unit) {
            if !is_blank(&descriptor) {
                return broken(format!("free unit {unit} is described: {descriptor:?}"));
            }
            unit += 1;
            continue;
        }
        let units = u64::from(descriptor.units);
        let fits = units >= 1 && unit + units <= UNITS_PER_CHUNK;
        if !fits || (unit..unit + units).any(|u| unit_bitmap::get(&head.free, u)) {
            return broken(format!("unit {unit}: {units} units do not fit there"));
        }
        let objects = match descriptor.kind {
            k if k == UnitKind::Run as u8 => check_unit_run(chunk, unit, &descriptor, read)?,
            k if k == UnitKind::Slab as u8 => check_slab(chunk, unit, &descriptor, read)?,
            _ => return broken(format!("unit {unit} is in use but not described")),
        };
        summary.objects += objects.0;
        summary.bytes += objects.1;
        unit += units;
    }
    Ok(())
}

/// Checks a run of units; returns its one object and the bytes of that. Units inside it must be
/// blank: a lookup by unit would take any other descriptor there for an object.
fn check_unit_run(
    chunk: ChunkIndex,
    unit: u64,
    run: &UnitDescriptor,
    read: impl Fn(u64) -> UnitDescriptor,
) -> Result<(u64, u64), Corruption> {
    let broken =
        |reason: String| Err(Corruption::new(chunk, format!("run at unit {unit}: {reason}")));
    if !is_only(run, UnitKind::Run, run.units) {
        return broken(format!("more is said of it than its length: {run:?}"));
    }
    let units = u64::from(run.units);
    if let Some(inside) = (unit + 1..unit + units).find(|inside| !is_blank(&read(*inside))) {
        return broken(format!("unit {inside} inside it is described: {:?}", read(inside)));
    }
    Ok((1, units * UNIT_SIZE))
}

/// Whether a descriptor says its kind, these units, and nothing else.
fn is_only(descriptor: &UnitDescriptor, kind: UnitKind, units: u16) -> bool {
    let only = UnitDescriptor { kind: kind as u8, units, ..UnitDescriptor::NONE };
    descriptor.as_bytes() == only.as_bytes()
}

/// Checks a slab; returns its objects and their bytes.
fn check_slab(
    chunk: ChunkIndex,
    unit: u64,
    slab: &UnitDescriptor,
    read: impl Fn(u64) -> UnitDescriptor,
) -> Result<(u64, u64), Corruption> {
    let broken =
        |reason: String| Err(Corruption::new(chunk, format!("slab at unit {unit}: {reason}")));
    let Some(class) = SizeClass::from_index(usize::from(slab.class)) else {
        return broken(format!("unknown size class {}", slab.class));
    };
    if ShardIndex::new(usize::from(slab.shard)).is_none() {
        return broken(format!("unknown shard {}", slab.shard));
    }
    if u64::from(slab.units) != class.units() {
        return broken(format!("{} units, its class has {}", slab.units, class.units()));
    }
    if slab.reserved != 0 {
        return broken("the reserved byte of its descriptor is not zero".into());
    }
    let used = unit_bitmap::count(&slab.objects);
    let beyond =
        (class.objects()..MAX_OBJECTS).any(|object| unit_bitmap::get(&slab.objects, object));
    if used != u64::from(slab.used) || used == 0 || beyond {
        return broken(format!("{} objects counted, {used} marked", slab.used));
    }
    for back in 1..slab.units {
        let tail = unit + u64::from(back);
        if !is_only(&read(tail), UnitKind::SlabTail, back) {
            return broken(format!("unit {tail} is not its tail"));
        }
    }
    Ok((used, used * class.size()))
}

/// Lets the layers above claim each object that they reach.
pub struct Audit<'h> {
    arena: &'h Arena,
    expected: AuditSummary,
    /// What was noted of objects while the image was read. An object with a word in it is claimed
    /// there.
    notes: Option<ObjectNotes>,
    /// A bit for each place where another object can begin; committed as claims are made.
    claimed: SideTable,
    /// Claims by each shard, apart from each other, since each thread has shards of its own.
    counts: Box<[CachePadded<AtomicU64>; SHARDS]>,
}

/// Bytes for each claim bit: no two objects begin in the same ones.
const CLAIM_GRAIN: u64 = 16;
/// Words of claim bits for a chunk.
const WORDS_PER_CHUNK: usize = (CHUNK_SIZE / CLAIM_GRAIN / u32::BITS as u64) as usize;

const _: () = assert!(CLAIM_GRAIN <= MIN_OBJECT);

impl<'h> Audit<'h> {
    /// Checks the tables and begins an audit; the arena stands still while it runs.
    ///
    /// # Errors
    /// A table breaks an invariant, or there is no address space for the audit.
    pub fn begin(held: &'h mut Held<'_>) -> Result<Self, Corruption> {
        Self::begin_with(held, None)
    }

    /// As [`Self::begin`]; `notes` were made of this arena's chunks, and no object has changed
    /// since.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn begin_with(
        held: &'h mut Held<'_>,
        notes: Option<ObjectNotes>,
    ) -> Result<Self, Corruption> {
        assert!(held.set() == ShardSet::ALL, "an audit needs the whole arena");
        let arena = held.arena();
        let expected = tables(arena)?;
        let words = index(arena.capacity() / CHUNK_SIZE) * WORDS_PER_CHUNK;
        let claimed = SideTable::new(words).map_err(|error| {
            let reason = format!("there is no memory to check the arena with: {error}");
            Corruption::new(ChunkIndex(0), reason)
        })?;
        arena.owners.suspend(true);
        let counts = Box::new([const { CachePadded::new(AtomicU64::new(0)) }; SHARDS]);
        Ok(Self { arena, expected, notes, claimed, counts })
    }

    #[cfg(test)]
    pub(crate) const fn expect_objects(&mut self, objects: u64) {
        self.expected.objects = objects;
    }

    /// A shard's memory, to be read.
    pub const fn mem(&self, shard: ShardIndex) -> ReadOnly<'h> {
        ReadOnly::new(self.arena, shard)
    }

    /// Asks the processor to fetch what a claim of the object at `at`, and then reading its first
    /// bytes, will need. Any number may be asked for.
    #[inline]
    pub fn prefetch(&self, at: u64) {
        let unit = at % CHUNK_SIZE / UNIT_SIZE;
        self.arena.prefetch(at);
        self.arena.prefetch(ChunkIndex::of(at).descriptor(unit).raw());
        match self.word(at) {
            Some((word, _)) => word.prefetch(),
            None => self.claimed.prefetch(claim_bit(at).0),
        }
    }

    /// Asks the processor to fetch the note of the object at `at`, if there can be one.
    #[inline]
    pub fn prefetch_note(&self, at: u64) {
        if let Some((word, _)) = self.word(at) {
            word.prefetch();
        }
    }

    /// What was noted of the object that begins at `at`. It may be any shard's, and claimed or not.
    #[inline]
    pub fn note(&self, at: u64) -> Option<NonZeroU32> {
        self.word(at)?.0.note()
    }

    /// The word of the object at `at`, and the shard of its slab, if it was inspected.
    #[inline]
    fn word(&self, at: u64) -> Option<(ObjectWord<'_>, usize)> {
        let notes = self.notes.as_ref()?;
        // Entries of other chunks have no meaning.
        let is_cut = bits::get(&self.arena.store.cut, u64::from(ChunkIndex::of(at).0));
        notes.word(at).filter(|_| is_cut)
    }

    /// Claims the object at `at` for `shard`, if there is a note of it: the inspector has checked
    /// its length and all its bytes. `None` if there is no note, or it is another shard's: then
    /// nothing is claimed.
    ///
    /// # Errors
    /// It was claimed before.
    #[inline]
    pub fn claim_noted(
        &self,
        at: u64,
        shard: ShardIndex,
    ) -> Result<Option<NonZeroU32>, Corruption> {
        let Some((word, _)) = self.word(at).filter(|(_, owner)| *owner == shard.get()) else {
            return Ok(None);
        };
        let note = word.note();
        if note.is_some() {
            self.count_first(word.claim(), at, shard)?;
        }
        Ok(note)
    }

    /// Counts a claim, unless it is not the first.
    #[inline]
    fn count_first(&self, is_first: bool, at: u64, shard: ShardIndex) -> Result<(), Corruption> {
        if !is_first {
            return Err(Corruption::at(at, format!("two references to the object at {at:#x}")));
        }
        self.counts[shard.get()].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Claims the object of `len` bytes at `at` for `shard`; afterwards its bytes may be read.
    ///
    /// # Errors
    /// There is no such object, it is another shard's, or it was claimed before.
    pub fn claim(&self, at: u64, len: u64, shard: ShardIndex) -> Result<(), Corruption> {
        let broken = |reason| Err(Corruption::at(at, reason));
        if at.checked_add(len).is_none_or(|end| end > self.arena.capacity()) || len == 0 {
            return Err(Corruption::new(
                ChunkIndex(0),
                format!("a reference to {len} bytes at {at:#x}, outside the arena"),
            ));
        }
        let chunk = ChunkIndex::of(at);
        // SAFETY: the arena stands still (see `begin`).
        let entry = unsafe { self.arena.store.load(chunk.entry()) };
        let there = match ChunkState::from_byte(entry.state) {
            Some(ChunkState::Units) => self.is_unit_object(chunk, at, len, shard),
            Some(ChunkState::RunHead) => {
                at == chunk.start()
                    && len > MAX_SLAB_OBJECT
                    && large_size(len) == u64::from(entry.run) * CHUNK_SIZE
            }
            _ => false,
        };
        if !there {
            return broken(format!(
                "shard {} refers to {len} bytes at {at:#x}, where it has no such object",
                shard.get()
            ));
        }
        let is_first = match self.word(at) {
            Some((word, _)) => word.claim(),
            None => {
                let (word, mask) = claim_bit(at);
                self.claimed.word(word).fetch_or(mask, Ordering::Relaxed) & mask == 0
            }
        };
        self.count_first(is_first, at, shard)?;
        if len > MAX_SLAB_OBJECT {
            // Only now is the owner of a run known.
            self.arena.owners.set(at, large_size(len), shard);
        }
        Ok(())
    }

    fn is_unit_object(&self, chunk: ChunkIndex, at: u64, len: u64, shard: ShardIndex) -> bool {
        let mut unit = at % CHUNK_SIZE / UNIT_SIZE;
        // SAFETY: the arena stands still (see `begin`).
        let read = |unit| unsafe { self.arena.store.load(chunk.descriptor(unit)) };
        if unit < HEAD_UNITS {
            return false;
        }
        let mut descriptor = read(unit);
        if descriptor.is(UnitKind::SlabTail) {
            unit = unit.saturating_sub(u64::from(descriptor.units)).max(HEAD_UNITS);
            descriptor = read(unit);
        }
        let within = at - chunk.start() - unit * UNIT_SIZE;
        match SizeClass::of(len) {
            Some(class) => class_of_object(&descriptor, within, shard)
                .is_some_and(|slab| class.fits_slab_of(slab)),
            None => {
                descriptor.is(UnitKind::Run)
                    && within == 0
                    && large_size(len) == u64::from(descriptor.units) * UNIT_SIZE
            }
        }
    }

    /// Ends the audit.
    ///
    /// # Errors
    /// An object is in use that was not claimed, or more were claimed than are in use.
    pub fn finish(self) -> Result<AuditSummary, Corruption> {
        let claimed: u64 = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let in_use = self.expected.objects;
        if claimed == in_use {
            return Ok(self.expected);
        }
        let Some(lost) = in_use.checked_sub(claimed) else {
            let reason = format!("{claimed} objects are referred to, but {in_use} are in use");
            return Err(Corruption::new(ChunkIndex(0), reason));
        };
        let chunk = self.first_unclaimed();
        Err(Corruption::new(chunk, format!("{lost} objects are in use but nothing refers to them")))
    }

    /// The first chunk with an object that was not claimed.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn first_unclaimed(&self) -> ChunkIndex {
        let chunks = (self.arena.capacity() / CHUNK_SIZE) as u32;
        for index in 0..chunks {
            let chunk = ChunkIndex(index);
            // SAFETY: the arena stands still (see `begin`).
            let entry = unsafe { self.arena.store.load(chunk.entry()) };
            let mut here = AuditSummary::default();
            if entry.state != ChunkState::RunTail as u8 {
                let _ = check_entry(self.arena, chunk, &entry, chunks, &mut here);
            }
            let words = index as usize * WORDS_PER_CHUNK;
            let claimed: u64 = (words..words + WORDS_PER_CHUNK)
                .map(|word| self.claimed.word(word).load(Ordering::Relaxed))
                .map(|word| u64::from(word.count_ones()))
                .sum();
            let noted = self.notes.as_ref().filter(|_| entry.state == ChunkState::Units as u8);
            let claimed = claimed + noted.map_or(0, |notes| notes.claimed_in(chunk));
            if claimed < here.objects {
                return chunk;
            }
        }
        ChunkIndex(0)
    }
}

/// The word and the bit in it that stand for an object at `at`.
#[inline]
const fn claim_bit(at: u64) -> (usize, u32) {
    let place = at / CLAIM_GRAIN;
    (index(place / u32::BITS as u64), 1 << (place % u32::BITS as u64))
}

impl Drop for Audit<'_> {
    fn drop(&mut self) {
        self.arena.owners.suspend(false);
    }
}
