//! Compact values: few small elements in one run of bytes, kept as a string value is: behind the
//! key, or in an object of its own.
//!
//! What the bytes mean is known to the kinds. Here they are put, replaced and spliced. Whoever
//! changes a value puts together what is to be there from pieces that are in no arena; then either
//! all of it is there or, if there is no room, nothing has changed.
//!
//! Invariant: a value that becomes shorter needs no memory. It moves to a smaller object if there
//! is one, and else stays in the one that it has. So nothing that only removes can fail.

use std::ops::Range;

use cowherd_arena::{Mem, OutOfMemory, allocated_size};

use super::entry::{Encoding, Shape, ValueKind};
use super::shards::{Entry, free_entry};
use super::strings::room;
use super::{DbIndex, Expiry, Key, Shards};

/// A compact value has no more bytes than this, whatever the limits of its elements are.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// What is to be known of a new value, its bytes apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Description {
    pub kind: ValueKind,
    pub form: u8,
    /// Elements, fields or members; 0 for large values.
    pub count: u64,
}

/// When a value of several elements is too large to be compact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactLimits {
    /// Elements, fields or members.
    pub entries: u64,
    /// Bytes of each.
    pub value: u64,
}

impl CompactLimits {
    /// Whether a compact value may have so many elements.
    #[inline]
    pub(super) fn allow_count(&self, count: u64) -> bool {
        count <= self.entries.min(super::entry::MAX_COUNT)
    }

    /// Whether an element of a compact value may have so many bytes.
    #[inline]
    pub(super) const fn allow_len(&self, len: usize) -> bool {
        len as u64 <= self.value
    }
}

/// Bytes of all pieces.
fn total(pieces: &[&[u8]]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Writes pieces one after the other.
fn write_pieces(mut place: &mut [u8], pieces: &[&[u8]]) {
    for piece in pieces {
        let (one, rest) = place.split_at_mut(piece.len());
        one.copy_from_slice(piece);
        place = rest;
    }
}

impl Shards<'_> {
    /// The bytes of a compact entry.
    #[inline]
    pub(super) fn run(&self, entry: &Entry) -> &[u8] {
        debug_assert!(entry.shape.is_compact());
        let mem = self.held.view(entry.shard);
        mem.slice(entry.shape.value_place(&mem, entry.at), entry.shape.value_len)
    }

    /// Sets a key to a compact value, whatever it was before.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub(super) fn put_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        new: Description,
        pieces: &[&[u8]],
        expiry: Expiry,
    ) -> Result<Entry, OutOfMemory> {
        let expiry = self.resolve(old, expiry);
        let mut mem = self.held.mem(key.shard);
        let mut shape = shape_of(key, new, expiry.is_some());
        shape.value_len = total(pieces);
        let at = match place(&mut mem, &mut shape, key.bytes, expiry) {
            Ok(at) => at,
            Err(full) => {
                let Some(old) = old.filter(|old| old.shape.is_compact()) else { return Err(full) };
                let Some(shape) = kept(&mem, old, shape) else { return Err(full) };
                return self.put_in_place(db, key, old, shape, pieces, expiry);
            }
        };
        let value = shape.value_place(&mem, at);
        write_pieces(mem.bytes_mut(value, shape.value_len), pieces);
        self.install(db, key, old, at, shape)
    }

    /// Writes a compact value over another one, which has the same key and an expiry if this has.
    fn put_in_place(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: &Entry,
        shape: Shape,
        pieces: &[&[u8]],
        expiry: Option<i64>,
    ) -> Result<Entry, OutOfMemory> {
        let entry = self.reshape(db, key.hash, old, shape)?;
        let mut mem = self.held.mem(key.shard);
        if let Some(expiry) = expiry {
            shape.set_expiry(&mut mem, entry.at, expiry);
        }
        let value = shape.value_place(&mem, entry.at);
        write_pieces(mem.bytes_mut(value, shape.value_len), pieces);
        Ok(entry)
    }

    /// Lets a key refer to a new large value by its header, whatever it was before.
    ///
    /// # Errors
    /// The arena is full; nothing has changed, and the header is the caller's still.
    pub(super) fn put_large(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        new: Description,
        header: u64,
        expiry: Expiry,
    ) -> Result<Entry, OutOfMemory> {
        let expiry = self.resolve(old, expiry);
        let mut mem = self.held.mem(key.shard);
        let mut shape = shape_of(key, new, expiry.is_some());
        shape.encoding = Encoding::Large;
        let at = place(&mut mem, &mut shape, key.bytes, expiry)?;
        shape.set_header(&mut mem, at, header);
        self.install(db, key, old, at, shape)
    }

    fn resolve(&self, old: Option<&Entry>, expiry: Expiry) -> Option<i64> {
        match expiry {
            Expiry::Keep => old.and_then(|old| self.expiry(old)),
            Expiry::None => None,
            Expiry::At(at) => Some(at),
        }
    }

    /// Links a new entry in place of what the key had. On error it is freed, but not what a large
    /// one refers to.
    fn install(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        at: u64,
        shape: Shape,
    ) -> Result<Entry, OutOfMemory> {
        let linked = match old {
            Some(old) => self.relink(db, key.hash, old, at, &shape),
            None => self.link(db, key, at, &shape),
        };
        if let Err(full) = linked {
            let mut mem = self.mem(key.shard);
            if shape.is_large() {
                mem.release(at, shape.len());
            } else {
                free_entry(&mut mem, at);
            }
            return Err(full);
        }
        if let Some(old) = old {
            self.free(old);
            return Ok(Entry { at, shape, found: old.found.replaced(at), shard: key.shard });
        }
        // The dictionary does not say where it put the new item.
        self.find(db, key).ok_or(OutOfMemory)
    }

    /// Replaces a part of a compact entry's bytes; the entry has `count` elements afterwards. What
    /// is before that part and behind it stays, and so does the key's expiry.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub(super) fn splice(
        &mut self,
        db: DbIndex,
        hash: u64,
        old: &Entry,
        part: Range<usize>,
        pieces: &[&[u8]],
        count: u64,
    ) -> Result<Entry, OutOfMemory> {
        let mut mem = self.held.mem(old.shard);
        let cut = Cut { start: part.start as u64, end: part.end as u64, new: total(pieces) };
        debug_assert!(old.shape.is_compact() && cut.end <= old.shape.value_len);
        let behind = old.shape.value_len - cut.end;
        let value_len = cut.start + cut.new + behind;
        let mut shape = Shape { value_len, count, held: None, ..old.shape };
        if stays(&mem, old, &mut shape) {
            return Ok(cut.in_place(&mut mem, old, shape, pieces));
        }
        let expiry = old.shape.expiry(&mem, old.at);
        let at = match place_beside(&mut mem, &mut shape, old, expiry) {
            Ok(at) => at,
            Err(full) => {
                let shape = kept(&mem, old, shape).ok_or(full)?;
                return Ok(cut.in_place(&mut mem, old, shape, pieces));
            }
        };
        let (from, to) = (old.shape.value_place(&mem, old.at), shape.value_place(&mem, at));
        mem.copy(from, to, cut.start);
        write_pieces(mem.bytes_mut(to + cut.start, cut.new), pieces);
        mem.copy(from + cut.end, to + cut.start + cut.new, behind);
        if let Err(full) = self.relink(db, hash, old, at, &shape) {
            free_entry(&mut self.mem(old.shard), at);
            return Err(full);
        }
        self.free(old);
        Ok(Entry { at, shape, found: old.found.replaced(at), shard: old.shard })
    }
}

/// A part of a value's bytes that is replaced by `new` others.
struct Cut {
    start: u64,
    end: u64,
    new: u64,
}

impl Cut {
    /// Replaces the part where it is. What moves is written, and nothing else.
    fn in_place(&self, mem: &mut Mem<'_>, old: &Entry, shape: Shape, pieces: &[&[u8]]) -> Entry {
        let Self { start, end, new } = *self;
        let behind = old.shape.value_len - end;
        let value = old.shape.value_place(mem, old.at);
        if new == end - start {
            write_pieces(mem.bytes_mut(value + start, new), pieces);
        } else {
            let longest = behind + new.max(end - start);
            let place = mem.bytes_mut(value + start, longest);
            place.copy_within(index(end - start)..index(end - start + behind), index(new));
            write_pieces(place, pieces);
        }
        if shape != old.shape {
            shape.store(mem, old.at);
        }
        Entry { shape, ..*old }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "values are at most 512 MB long")]
const fn index(len: u64) -> usize {
    len as usize
}

fn shape_of(key: &Key<'_>, new: Description, has_expiry: bool) -> Shape {
    Shape {
        kind: new.kind,
        encoding: Encoding::Inline,
        has_expiry,
        was_edited: false,
        form: new.form,
        count: new.count,
        key_len: key.bytes.len() as u64,
        value_len: 0,
        held: None,
    }
}

/// Whether an entry of this shape can stand where `old` is; chooses its encoding.
fn stays(mem: &Mem<'_>, old: &Entry, shape: &mut Shape) -> bool {
    shape.encoding = Encoding::Inline;
    let is_long = shape.is_too_long();
    if old.shape.is_external() {
        let has = room(mem, old);
        // An object that would be mostly empty is given back.
        let fits = has >= shape.value_len && shape.value_len >= has / 4;
        if is_long || fits {
            shape.encoding = Encoding::External;
        }
        if fits {
            shape.held = old.shape.held;
        }
        return fits;
    }
    if is_long {
        shape.encoding = Encoding::External;
        return false;
    }
    allocated_size(shape.len()) == allocated_size(old.shape.len())
}

/// The shape with which an entry can stay where `old` is, as it takes no more bytes, when there is
/// no memory for a place of its own.
fn kept(mem: &Mem<'_>, old: &Entry, shape: Shape) -> Option<Shape> {
    if shape.has_expiry != old.shape.has_expiry {
        return None;
    }
    let shape = Shape { encoding: old.shape.encoding, held: old.shape.held, ..shape };
    if shape.is_external() {
        return (room(mem, old) >= shape.value_len).then_some(shape);
    }
    shape.in_object(allocated_size(old.shape.len()))
}

/// An entry that nothing refers to yet, with room for the value of its shape, and key and expiry
/// written. Chooses between inline and external.
fn place(
    mem: &mut Mem<'_>,
    shape: &mut Shape,
    key: &[u8],
    expiry: Option<i64>,
) -> Result<u64, OutOfMemory> {
    if shape.encoding == Encoding::Inline && shape.is_too_long() {
        shape.encoding = Encoding::External;
    }
    let at = reserve(mem, shape, expiry)?;
    mem.bytes_mut(at + shape.key_at(), shape.key_len).copy_from_slice(key);
    Ok(at)
}

/// As [`place`], with the key of another entry.
fn place_beside(
    mem: &mut Mem<'_>,
    shape: &mut Shape,
    old: &Entry,
    expiry: Option<i64>,
) -> Result<u64, OutOfMemory> {
    let at = reserve(mem, shape, expiry)?;
    mem.copy(old.at + old.shape.key_at(), at + shape.key_at(), shape.key_len);
    Ok(at)
}

fn reserve(mem: &mut Mem<'_>, shape: &Shape, expiry: Option<i64>) -> Result<u64, OutOfMemory> {
    let at = mem.allocate(shape.len())?;
    if shape.is_external() {
        let reserved = allocated_size(shape.value_len);
        match mem.allocate(reserved) {
            Ok(object) => shape.set_object(mem, at, object, reserved),
            Err(full) => {
                mem.release(at, shape.len());
                return Err(full);
            }
        }
    }
    shape.store(mem, at);
    if let Some(expiry) = expiry {
        shape.set_expiry(mem, at, expiry);
    }
    Ok(at)
}
