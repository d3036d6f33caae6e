//! What of a chunk stands in its frame: everything but free memory.
//!
//! ```text
//! form    frame                                       chunks
//! Whole   | the chunk, what is free is zero |         almost full ones
//! Units   | records | objects in use, in order |      cut into units
//! Blocks  | blocks that are not zero | bitmap |       the others: tables, large objects
//! ```
//!
//! A chunk is packed (`Units`, `Blocks`) if that saves a sixteenth of it; otherwise it is stored
//! whole, so that a restore reads it straight to its place. Either way no byte of a free unit, of a
//! free object, or behind the last object of a slab gets into a frame. docs/image-format.md draws
//! the bytes.
//!
//! The writer packs a copy of the chunk in place, or from memory that it must not change. It trusts
//! the descriptors, but a chunk whose descriptors are not as this file knows them is stored as if
//! it were not cut: nothing is lost. A reader trusts nothing.
//!
//! Nothing here allocates, locks or panics: [`pack`] runs in the child of a fork.

use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::writer::fill;
use crate::allocator::size_classes::SizeClass;
use crate::allocator::unit_bitmap;
use crate::layout::{
    CHUNK_SIZE, ChunkHead, HEAD_UNITS, UNIT_SIZE, UNITS_PER_CHUNK, UnitDescriptor, UnitKind, index,
};
use crate::shard::ShardIndex;

const CHUNK: usize = index(CHUNK_SIZE);
/// Bytes of the descriptors at the front of a chunk.
const TABLES: usize = index(HEAD_UNITS * UNIT_SIZE);
const DESCRIPTOR: usize = size_of::<UnitDescriptor>();
/// The most bytes of a frame that is worth packing.
const MOST_PACKED: usize = CHUNK - CHUNK / 16;

/// Bytes of a block in the form `Blocks`: small, since a shard's root has 4 KiB, of which few bytes
/// are used.
const BLOCK: usize = 256;
const BLOCKS: usize = CHUNK / BLOCK;
const BITMAP: usize = BLOCKS / 8;

/// Kinds of records in the form `Units`.
const SLAB_FULL: u8 = 1;
const SLAB_MAP: u8 = 2;
const SLAB_LIST: u8 = 3;
const RUN: u8 = 4;
/// Bytes of the number of records.
const COUNT: usize = 2;
/// What the stored bytes of a run are a multiple of.
const RUN_STEP: usize = 64;

/// How the bytes of a frame are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Form {
    /// The chunk.
    Whole = 0,
    /// Descriptors and objects in use.
    Units = 1,
    /// The blocks that are not zero.
    Blocks = 2,
}

impl Form {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Whole,
            1 => Self::Units,
            2 => Self::Blocks,
            _ => return None,
        })
    }
}

/// A chunk as it is to be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PackedChunk {
    pub form: Form,
    /// Bytes at the front of the buffer.
    pub len: usize,
}

/// The descriptors of a chunk.
type Tables = [u8; TABLES];

/// Packs a chunk into `to`, which is a chunk long: `from`, or, if that is `None`, the chunk that
/// `to` holds. `is_cut` tells whether the chunk is cut into units.
pub(super) fn pack(from: Option<&[u8]>, to: &mut [u8], is_cut: bool) -> PackedChunk {
    let whole = PackedChunk { form: Form::Whole, len: CHUNK };
    let mut buffer = Buffer { from, to };
    if from.is_some_and(|from| from.len() != CHUNK) || buffer.to.len() != CHUNK {
        return whole;
    }
    if let Some(tables) = buffer.tables().filter(|_| is_cut)
        && let Some(len) = units_len(&tables, &buffer)
    {
        if len <= MOST_PACKED {
            pack_units(&tables, &mut buffer);
            return PackedChunk { form: Form::Units, len };
        }
        buffer.take_whole();
        clear_free(&tables, &mut buffer);
        return whole;
    }
    let bitmap = used_blocks(buffer.chunk());
    let used: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
    let len = used * BLOCK + BITMAP;
    if len > MOST_PACKED {
        buffer.take_whole();
        return whole;
    }
    let mut at = 0;
    each_run(&bitmap, |start, len| {
        buffer.put(start, len, at);
        at += len;
    });
    if let Some(place) = buffer.to.get_mut(at..at.saturating_add(BITMAP)) {
        fill(place, &bitmap);
    }
    PackedChunk { form: Form::Blocks, len }
}

/// Whether a chunk that is not cut has so few blocks of zeros that it is stored as it is.
pub(super) fn is_stored_as_it_is(chunk: &[u8]) -> bool {
    let used: usize = used_blocks(chunk).iter().map(|byte| byte.count_ones() as usize).sum();
    used * BLOCK + BITMAP > MOST_PACKED
}

/// Where a chunk is packed.
struct Buffer<'b> {
    from: Option<&'b [u8]>,
    to: &'b mut [u8],
}

impl Buffer<'_> {
    /// The chunk.
    fn chunk(&self) -> &[u8] {
        self.from.unwrap_or(self.to)
    }

    /// A copy of the descriptors, over which records are written.
    fn tables(&self) -> Option<Tables> {
        self.chunk().first_chunk().copied()
    }

    /// Copies the chunk to its place, unless it is there.
    fn take_whole(&mut self) {
        if let Some(from) = self.from {
            fill(self.to, from);
        }
    }

    /// Puts a range of the chunk at `at`, which is not behind it.
    fn put(&mut self, start: usize, len: usize, at: usize) {
        let (end, fits) = (start.saturating_add(len), at <= start && start <= CHUNK);
        if !fits || end > CHUNK {
            return;
        }
        match self.from.and_then(|from| from.get(start..end)) {
            Some(from) => {
                if let Some(place) = self.to.get_mut(at..at.saturating_add(len)) {
                    fill(place, from);
                }
            }
            None if at < start => self.to.copy_within(start..end, at),
            None => {}
        }
    }
}

/// What begins at a unit.
#[derive(Clone, Copy)]
enum UnitObject {
    Slab { class: SizeClass, descriptor: UnitDescriptor },
    Run { units: u64 },
}

/// The descriptor of a unit.
fn descriptor(tables: &Tables, unit: u64) -> Option<UnitDescriptor> {
    let at = index(unit).checked_mul(DESCRIPTOR)?;
    UnitDescriptor::read_from_bytes(tables.get(at..at.checked_add(DESCRIPTOR)?)?).ok()
}

/// Passes each slab and run, lowest first, to `each`; `None` if the descriptors are not sound, or
/// not as this file knows them, or `each` says so.
fn each_object(tables: &Tables, mut each: impl FnMut(u64, UnitObject) -> Option<()>) -> Option<()> {
    let head = ChunkHead::read_from_bytes(tables.get(..DESCRIPTOR)?).ok()?;
    let is_free = |unit| unit_bitmap::get(&head.free, unit);
    if (0..HEAD_UNITS).any(is_free) || head.reserved != [0; 4] || !is_blank(tables, 1) {
        return None;
    }
    let mut unit = HEAD_UNITS;
    while unit < UNITS_PER_CHUNK {
        if is_free(unit) {
            if !is_blank(tables, unit) {
                return None;
            }
            unit += 1;
            continue;
        }
        let first = descriptor(tables, unit)?;
        let units = u64::from(first.units);
        let end = unit + units;
        if units == 0 || end > UNITS_PER_CHUNK || (unit..end).any(is_free) {
            return None;
        }
        let object = if first.is(UnitKind::Slab) {
            let class = slab_class(&first)?;
            let is_tail = |tail| says_only(tables, tail, UnitKind::SlabTail, tail - unit);
            (unit + 1..end).all(is_tail).then_some(())?;
            UnitObject::Slab { class, descriptor: first }
        } else {
            says_only(tables, unit, UnitKind::Run, units).then_some(())?;
            (unit + 1..end).all(|inside| is_blank(tables, inside)).then_some(())?;
            UnitObject::Run { units }
        };
        each(unit, object)?;
        unit = end;
    }
    Some(())
}

/// The class of a slab whose descriptor says what it should and nothing else.
fn slab_class(slab: &UnitDescriptor) -> Option<SizeClass> {
    let class = SizeClass::from_index(usize::from(slab.class))?;
    let UnitDescriptor { class: number, shard, units, used, objects, .. } = *slab;
    let kind = UnitKind::Slab as u8;
    let said =
        UnitDescriptor { kind, class: number, shard, units, used, objects, ..UnitDescriptor::NONE };
    let objects_in_use = unit_bitmap::count(&objects);
    let is_sound = said.as_bytes() == slab.as_bytes()
        && u64::from(units) == class.units()
        && objects_in_use == u64::from(used)
        && used > 0
        && unit_bitmap::runs(&objects).all(|(start, len)| start + len <= class.objects());
    is_sound.then_some(class)
}

/// Whether the descriptor of a unit says its kind, these units, and nothing else.
fn says_only(tables: &Tables, unit: u64, kind: UnitKind, units: u64) -> bool {
    let Ok(units) = u16::try_from(units) else { return false };
    let only = UnitDescriptor { kind: kind as u8, units, ..UnitDescriptor::NONE };
    descriptor(tables, unit).is_some_and(|it| it.as_bytes() == only.as_bytes())
}

fn is_blank(tables: &Tables, unit: u64) -> bool {
    descriptor(tables, unit).is_some_and(|it| it.as_bytes() == UnitDescriptor::NONE.as_bytes())
}

/// Where a unit begins in its chunk.
const fn unit_at(unit: u64) -> usize {
    index(unit * UNIT_SIZE)
}

/// How the objects in use of a slab are recorded, and the bytes that this takes.
const fn objects_record(class: SizeClass, used: u64) -> (u8, usize) {
    let map = index(class.objects().div_ceil(8));
    if used == class.objects() {
        (SLAB_FULL, 0)
    } else if index(used) < map && class.objects() <= 256 {
        (SLAB_LIST, index(used))
    } else {
        (SLAB_MAP, map)
    }
}

/// Bytes of a run without the zeros at its end.
fn run_len(run: &[u8]) -> usize {
    run.len()
        - run.rchunks(RUN_STEP).take_while(|step| is_zero(step)).map(<[u8]>::len).sum::<usize>()
}

/// The bytes of a run in a chunk.
fn run_bytes(chunk: &[u8], unit: u64, units: u64) -> &[u8] {
    chunk.get(unit_at(unit)..unit_at(unit + units)).unwrap_or_default()
}

/// Bytes of a chunk in the form `Units`; `None` if it cannot be in that form.
fn units_len(tables: &Tables, buffer: &Buffer<'_>) -> Option<usize> {
    let mut len = COUNT;
    each_object(tables, |unit, object| {
        len += match object {
            UnitObject::Slab { class, descriptor } => {
                let used = u64::from(descriptor.used);
                SLAB_RECORD + objects_record(class, used).1 + index(used * class.size())
            }
            UnitObject::Run { units } => {
                RUN_RECORD + run_len(run_bytes(buffer.chunk(), unit, units))
            }
        };
        Some(())
    })?;
    Some(len)
}

/// unit 1, kind 1, class 1, shard 1, objects in use 2
const SLAB_RECORD: usize = 6;
/// unit 1, kind 1, units less one 1, zero 1, stored bytes 4
const RUN_RECORD: usize = 8;

// Records take less than the descriptors, so that packing in place moves every object downwards.
const _: () = assert!(COUNT + 254 * (SLAB_RECORD + 56) <= TABLES);

/// Writes records and objects to the front of the buffer. The descriptors are sound.
fn pack_units(tables: &Tables, buffer: &mut Buffer<'_>) {
    let (mut at, mut count) = (COUNT, 0u16);
    let write = |to: &mut [u8], at: &mut usize, bytes: &[u8]| {
        if let Some(place) = to.get_mut(*at..at.saturating_add(bytes.len())) {
            fill(place, bytes);
        }
        *at = at.saturating_add(bytes.len());
    };
    let _ = each_object(tables, |unit, object| {
        count = count.saturating_add(1);
        match object {
            UnitObject::Slab { class, descriptor } => {
                let used = u64::from(descriptor.used);
                let (kind, len) = objects_record(class, used);
                let head = [low(unit), kind, descriptor.class, descriptor.shard];
                write(buffer.to, &mut at, &head);
                write(buffer.to, &mut at, &descriptor.used.to_le_bytes());
                match kind {
                    SLAB_MAP => {
                        let map = descriptor.objects.as_bytes();
                        write(buffer.to, &mut at, map.get(..len).unwrap_or_default());
                    }
                    SLAB_LIST => {
                        for (start, len) in unit_bitmap::runs(&descriptor.objects) {
                            for object in start..start + len {
                                write(buffer.to, &mut at, &[low(object)]);
                            }
                        }
                    }
                    _ => {}
                }
            }
            UnitObject::Run { units } => {
                let len = run_len(run_bytes(buffer.chunk(), unit, units));
                write(buffer.to, &mut at, &[low(unit), RUN, low(units - 1), 0]);
                write(buffer.to, &mut at, &u32::try_from(len).unwrap_or(0).to_le_bytes());
            }
        }
        Some(())
    });
    write(buffer.to, &mut 0, &count.to_le_bytes());
    // Neighbouring ranges are copied together.
    let mut range = 0..0;
    each_live_range(
        tables,
        |start, len, buffer: &mut Buffer<'_>| {
            if range.end != start {
                buffer.put(range.start, range.len(), at);
                at += range.len();
                range = start..start;
            }
            range.end += len;
        },
        buffer,
    );
    buffer.put(range.start, range.len(), at);
}

/// Passes the ranges of objects in use, lowest first, as start and length, to `each`.
fn each_live_range(
    tables: &Tables,
    mut each: impl FnMut(usize, usize, &mut Buffer<'_>),
    buffer: &mut Buffer<'_>,
) {
    let _ = each_object(tables, |unit, object| {
        match object {
            UnitObject::Slab { class, descriptor } => {
                for (start, len) in unit_bitmap::runs(&descriptor.objects) {
                    let at = unit_at(unit) + index(start * class.size());
                    each(at, index(len * class.size()), buffer);
                }
            }
            UnitObject::Run { units } => {
                let len = run_len(run_bytes(buffer.chunk(), unit, units));
                each(unit_at(unit), len, buffer);
            }
        }
        Some(())
    });
}

/// Zeroes what is free in the chunk in the buffer. The descriptors are sound.
fn clear_free(tables: &Tables, buffer: &mut Buffer<'_>) {
    let mut end = TABLES;
    buffer.from = None;
    each_live_range(
        tables,
        |start, len, buffer: &mut Buffer<'_>| {
            if let Some(free) = buffer.to.get_mut(end..start) {
                free.fill(0);
            }
            end = start + len;
        },
        buffer,
    );
    if let Some(free) = buffer.to.get_mut(end..) {
        free.fill(0);
    }
}

/// A copy of a chunk in which what is free is zero, as after a restore.
#[cfg(test)]
pub(crate) fn without_free(chunk: &[u8], is_cut: bool) -> Vec<u8> {
    let mut copy = chunk.to_vec();
    let mut buffer = Buffer { from: None, to: &mut copy };
    if let Some(tables) = buffer.tables().filter(|_| is_cut) {
        assert!(units_len(&tables, &buffer).is_some(), "descriptors that the writer does not know");
        clear_free(&tables, &mut buffer);
    }
    copy
}

/// The lowest byte of a number below 256.
const fn low(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

/// Whether all bytes are zero. Most bytes that are asked for begin with another one; the others are
/// combined without a branch for each.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().take(8).all(|byte| *byte == 0) && bytes.iter().fold(0, |all, byte| all | byte) == 0
}

/// A bit for each block of a chunk that is not zero.
fn used_blocks(chunk: &[u8]) -> [u8; BITMAP] {
    let mut bitmap = [0; BITMAP];
    for (byte, blocks) in bitmap.iter_mut().zip(chunk.chunks(BLOCK * 8)) {
        for (bit, block) in blocks.chunks(BLOCK).enumerate() {
            *byte |= u8::from(!is_zero(block)) << bit;
        }
    }
    bitmap
}

/// Passes runs of used blocks, lowest first, as start and length in bytes, to `each`.
fn each_run(bitmap: &[u8; BITMAP], mut each: impl FnMut(usize, usize)) {
    let is_used =
        |block: usize| bitmap.get(block / 8).is_some_and(|byte| byte >> (block % 8) & 1 == 1);
    let mut block = 0;
    while block < BLOCKS {
        let start = block;
        while block < BLOCKS && is_used(block) {
            block += 1;
        }
        if block > start {
            each(start * BLOCK, (block - start) * BLOCK);
        }
        block += 1;
    }
}

/// Expands a frame into a chunk of zeros.
///
/// # Errors
/// The frame is not one of that form; the reason.
pub(super) fn unpack(frame: &[u8], form: Form, to: &mut [u8]) -> Result<(), String> {
    match form {
        Form::Whole => match to.len() == frame.len() {
            true => to.copy_from_slice(frame),
            false => return Err(format!("{} bytes of a whole chunk", frame.len())),
        },
        Form::Blocks => unpack_blocks(frame, to).ok_or("its blocks do not fit their bitmap")?,
        Form::Units => unpack_units(frame, to)?,
    }
    Ok(())
}

fn unpack_blocks(frame: &[u8], to: &mut [u8]) -> Option<()> {
    let (blocks, bitmap) = frame.split_last_chunk::<BITMAP>()?;
    let used: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
    if blocks.len() != used * BLOCK || to.len() != CHUNK {
        return None;
    }
    let mut rest = blocks;
    each_run(bitmap, |start, len| {
        if let Some((run, behind)) = rest.split_at_checked(len) {
            to[start..start + len].copy_from_slice(run);
            rest = behind;
        }
    });
    rest.is_empty().then_some(())
}

/// Takes bytes from the front of a frame.
struct Bytes<'f>(&'f [u8]);

impl<'f> Bytes<'f> {
    fn take(&mut self, len: usize) -> Result<&'f [u8], String> {
        let cut_off = || format!("{len} bytes more than it has");
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }
}

/// A record, checked.
enum Record {
    Slab { class: SizeClass, objects: [u64; 7] },
    Run { len: usize },
}

fn unpack_units(frame: &[u8], to: &mut [u8]) -> Result<(), String> {
    if to.len() != CHUNK {
        return Err(format!("a chunk of {} bytes", to.len()));
    }
    let mut bytes = Bytes(frame);
    let count = u16::from_le_bytes(bytes.array()?);
    let mut objects = Vec::with_capacity(usize::from(count.min(256)));
    let mut free = [u64::MAX; 4];
    unit_bitmap::clear(&mut free, 0, HEAD_UNITS);
    let mut next = HEAD_UNITS;
    for number in 0..count {
        let (unit, units, record) = read_record(&mut bytes, to, next)
            .map_err(|reason| format!("record {number}: {reason}"))?;
        unit_bitmap::clear(&mut free, unit, units);
        next = unit + units;
        objects.push((unit, record));
    }
    let head = ChunkHead { free, reserved: [0; 4] };
    to[..DESCRIPTOR].copy_from_slice(head.as_bytes());
    for (unit, record) in objects {
        match record {
            Record::Slab { class, objects } => {
                for (start, len) in unit_bitmap::runs(&objects) {
                    let at = unit_at(unit) + index(start * class.size());
                    let len = index(len * class.size());
                    to[at..at + len].copy_from_slice(bytes.take(len)?);
                }
            }
            Record::Run { len } => {
                let at = unit_at(unit);
                to[at..at + len].copy_from_slice(bytes.take(len)?);
            }
        }
    }
    match bytes.0.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes behind its last object")),
    }
}

/// Reads a record, which is of units from `next` on, and writes its descriptors. Returns the first
/// unit, the number of units, and the record.
fn read_record(
    bytes: &mut Bytes<'_>,
    to: &mut [u8],
    next: u64,
) -> Result<(u64, u64, Record), String> {
    let [unit, kind] = bytes.array()?;
    let unit = u64::from(unit);
    let mut set = |unit: u64, descriptor: UnitDescriptor| {
        let at = index(unit) * DESCRIPTOR;
        to[at..at + DESCRIPTOR].copy_from_slice(descriptor.as_bytes());
    };
    let fits = |units: u64| match unit >= next && unit + units <= UNITS_PER_CHUNK {
        true => Ok(()),
        false => Err(format!("{units} units do not fit at unit {unit}")),
    };
    if kind == RUN {
        let [units, zero] = bytes.array()?;
        let (units, len) = (u64::from(units) + 1, u32::from_le_bytes(bytes.array()?));
        fits(units)?;
        if zero != 0 || u64::from(len) > units * UNIT_SIZE {
            return Err(format!("{len} bytes in a run of {units} units"));
        }
        let units_16 = u16::from(low(units - 1)) + 1;
        let kind = UnitKind::Run as u8;
        set(unit, UnitDescriptor { kind, units: units_16, ..UnitDescriptor::NONE });
        return Ok((unit, units, Record::Run { len: index(u64::from(len)) }));
    }
    let [class, shard] = bytes.array()?;
    let used = u16::from_le_bytes(bytes.array()?);
    let Some(size_class) = SizeClass::from_index(usize::from(class)) else {
        return Err(format!("unknown size class {class}"));
    };
    if ShardIndex::new(usize::from(shard)).is_none() {
        return Err(format!("unknown shard {shard}"));
    }
    fits(size_class.units())?;
    if used == 0 {
        return Err("a slab without objects".into());
    }
    let objects = read_objects(bytes, kind, size_class, u64::from(used))?;
    let units = u16::from(low(size_class.units()));
    let kind = UnitKind::Slab as u8;
    set(unit, UnitDescriptor { kind, class, shard, units, used, objects, ..UnitDescriptor::NONE });
    for back in 1..size_class.units() {
        let (kind, units) = (UnitKind::SlabTail as u8, u16::from(low(back)));
        set(unit + back, UnitDescriptor { kind, units, ..UnitDescriptor::NONE });
    }
    Ok((unit, size_class.units(), Record::Slab { class: size_class, objects }))
}

/// Reads which objects of a slab are in use.
fn read_objects(
    bytes: &mut Bytes<'_>,
    kind: u8,
    class: SizeClass,
    used: u64,
) -> Result<[u64; 7], String> {
    let mut objects = [0; 7];
    match kind {
        SLAB_FULL => unit_bitmap::set(&mut objects, 0, class.objects()),
        SLAB_MAP => {
            let map = bytes.take(index(class.objects().div_ceil(8)))?;
            let mut whole = <[u64; 7]>::new_zeroed();
            if let Some(place) = whole.as_mut_bytes().get_mut(..map.len()) {
                place.copy_from_slice(map);
            }
            objects = whole;
        }
        SLAB_LIST => {
            for object in bytes.take(index(used))? {
                unit_bitmap::set(&mut objects, u64::from(*object), 1);
            }
        }
        kind => return Err(format!("unknown kind {kind}")),
    }
    let inside = unit_bitmap::runs(&objects).all(|(start, len)| start + len <= class.objects());
    match inside && unit_bitmap::count(&objects) == used {
        true => Ok(objects),
        false => Err(format!("not {used} of {} objects", class.objects())),
    }
}
