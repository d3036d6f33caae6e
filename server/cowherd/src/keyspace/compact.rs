//! Compact collections: few small elements in one packed run, which is stored as a string is:
//! behind the key, or in an object of its own.
//!
//! What the bytes mean is up to each type. This file writes, replaces and splices them. A change is
//! assembled from pieces outside the arena first; then either all of it is written or, if memory is
//! short, nothing has changed.
//!
//! Invariant: a value that becomes shorter needs no memory. It moves to a smaller object if there
//! is memory for one, and otherwise stays in its object. So a command that only removes elements
//! cannot fail.

use std::ops::Range;

use cowherd_arena::{Mem, OutOfMemory, allocated_size};

use super::entry::{EntryHeader, MAX_COUNT, ValueStorage, ValueType};
use super::shards::Entry;
use super::{DbIndex, Expiry, Key, Shards, values};

/// The most bytes of a compact collection, whatever its limits: each change may move all of them.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// A new collection without its bytes: what its entry's header says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ValueDescription {
    pub kind: ValueType,
    pub encoding: u8,
    /// Elements, fields or members; 0 for large values.
    pub count: u64,
}

/// The limits of compact collections of a type, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactLimits {
    /// The most elements, fields or members.
    pub entries: u64,
    /// The most bytes of an element.
    pub value: u64,
}

impl CompactLimits {
    /// Whether a compact collection may have so many elements.
    #[inline]
    pub(super) fn allow_count(&self, count: u64) -> bool {
        count <= self.entries.min(MAX_COUNT)
    }

    /// Whether an element of a compact collection may have so many bytes.
    #[inline]
    pub(super) const fn allow_len(&self, len: usize) -> bool {
        len as u64 <= self.value
    }
}

fn total(pieces: &[&[u8]]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Writes pieces one after the other; returns what is left of the place.
fn write_pieces<'p>(mut place: &'p mut [u8], pieces: &[&[u8]]) -> &'p mut [u8] {
    for piece in pieces {
        let (one, rest) = place.split_at_mut(piece.len());
        one.copy_from_slice(piece);
        place = rest;
    }
    place
}

impl Shards<'_> {
    /// The bytes of a compact entry.
    #[inline]
    pub(super) fn run(&self, entry: &Entry) -> &[u8] {
        debug_assert!(entry.head.is_compact());
        let mem = self.held.view(entry.shard);
        mem.slice(entry.head.value_offset(&mem, entry.at), entry.head.value_len)
    }

    /// Sets a key to a compact collection, whatever its value was.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub(super) fn put_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        new: ValueDescription,
        pieces: &[&[u8]],
        expiry: Expiry,
    ) -> Result<Entry, OutOfMemory> {
        let expiry = self.resolve_expiry(old, expiry);
        let mut mem = self.held.mem(key.shard);
        let mut head = header_for(key, new, expiry.is_some());
        head.value_len = total(pieces);
        let at = match allocate(&mut mem, &mut head, key.bytes, expiry) {
            Ok(at) => at,
            Err(full) => {
                let Some(old) = old.filter(|old| old.head.is_compact()) else { return Err(full) };
                let Some(head) = header_in_place(&mem, old, head) else { return Err(full) };
                return self.put_in_place(db, key, old, head, pieces, expiry);
            }
        };
        let value = head.value_offset(&mem, at);
        write_pieces(mem.bytes_mut(value, head.value_len), pieces);
        self.install(db, key, old, at, head)?;
        Ok(self.installed(db, key, old, at, head))
    }

    /// Writes a compact collection over another one in its object.
    fn put_in_place(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: &Entry,
        head: EntryHeader,
        pieces: &[&[u8]],
        expiry: Option<i64>,
    ) -> Result<Entry, OutOfMemory> {
        let entry = self.rewrite_header(db, key.hash, old, head)?;
        let mut mem = self.held.mem(key.shard);
        if let Some(expiry) = expiry {
            head.set_expiry(&mut mem, entry.at, expiry);
        }
        let value = head.value_offset(&mem, entry.at);
        let longest = head.value_len.max(old.head.value_len);
        // What the old value leaves behind must not reach an image.
        write_pieces(mem.bytes_mut(value, longest), pieces).fill(0);
        Ok(entry)
    }

    /// Sets a key to a large collection by its header, whatever its value was.
    ///
    /// # Errors
    /// The arena is full; nothing has changed, and the new value is freed.
    pub(super) fn put_large(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        new: ValueDescription,
        header: u64,
        expiry: Expiry,
    ) -> Result<Entry, OutOfMemory> {
        let expiry = self.resolve_expiry(old, expiry);
        let mut mem = self.held.mem(key.shard);
        let mut head = header_for(key, new, expiry.is_some());
        head.storage = ValueStorage::Large;
        let at = allocate(&mut mem, &mut head, key.bytes, expiry)
            .inspect_err(|_| values::free_large(&mut mem, new.kind, header))?;
        head.set_large_header(&mut mem, at, header);
        self.install(db, key, old, at, head)?;
        Ok(self.installed(db, key, old, at, head))
    }

    /// Replaces a part of a compact collection's bytes; the collection has `count` elements
    /// afterwards. The bytes before and behind that part stay, and so does the key's expiry.
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
        let cut = ByteSplice { start: part.start as u64, end: part.end as u64, new: total(pieces) };
        debug_assert!(old.head.is_compact() && cut.end <= old.head.value_len);
        let behind = old.head.value_len - cut.end;
        let value_len = cut.start + cut.new + behind;
        let mut head = EntryHeader { value_len, count, ..old.head.for_change_in_place() };
        if fits_in_place(&mem, old, &mut head) {
            return Ok(cut.in_place(&mut mem, old, head, pieces));
        }
        let expiry = old.head.expiry(&mem, old.at);
        let head = head.for_new_object();
        let at = match head.allocate(&mut mem, allocated_size(value_len), expiry) {
            Ok(at) => at,
            Err(full) => {
                let head = header_in_place(&mem, old, head).ok_or(full)?;
                return Ok(cut.in_place(&mut mem, old, head, pieces));
            }
        };
        mem.copy(old.at + old.head.key_at(), at + head.key_at(), head.key_len);
        let (from, to) = (old.head.value_offset(&mem, old.at), head.value_offset(&mem, at));
        mem.copy(from, to, cut.start);
        write_pieces(mem.bytes_mut(to + cut.start, cut.new), pieces);
        mem.copy(from + cut.end, to + cut.start + cut.new, behind);
        self.replace_entry(db, hash, old, at, head)
    }
}

/// A part of a value's bytes, and the number of bytes that replace it.
struct ByteSplice {
    start: u64,
    end: u64,
    new: u64,
}

impl ByteSplice {
    /// Replaces the part in the entry's present object. Writes only the bytes that change: each
    /// write may copy a page or a block for a checkpoint.
    fn in_place(
        &self,
        mem: &mut Mem<'_>,
        old: &Entry,
        head: EntryHeader,
        pieces: &[&[u8]],
    ) -> Entry {
        let Self { start, end, new } = *self;
        let behind = old.head.value_len - end;
        let value = old.head.value_offset(mem, old.at);
        if new == end - start {
            write_pieces(mem.bytes_mut(value + start, new), pieces);
        } else {
            let longest = behind + new.max(end - start);
            let place = mem.bytes_mut(value + start, longest);
            place.copy_within(index(end - start)..index(end - start + behind), index(new));
            // What a shorter value leaves behind must not reach an image.
            place[index(new + behind)..].fill(0);
            write_pieces(place, pieces);
        }
        if head != old.head {
            head.store(mem, old.at);
        }
        Entry { head, ..*old }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "values are at most a gigabyte long")]
const fn index(len: u64) -> usize {
    len as usize
}

/// The header of a new collection.
fn header_for(key: &Key<'_>, new: ValueDescription, has_expiry: bool) -> EntryHeader {
    let head = EntryHeader::new(new.kind, key.bytes, has_expiry);
    EntryHeader { encoding: new.encoding, count: new.count, ..head }
}

/// Whether an entry with this header fits into the objects of `old`; chooses its storage.
fn fits_in_place(mem: &Mem<'_>, old: &Entry, head: &mut EntryHeader) -> bool {
    head.storage = ValueStorage::Inline;
    let is_long = head.is_too_long();
    if old.head.is_external() {
        let has = old.head.value_capacity(mem, old.at);
        // An object that would be mostly empty is replaced by a smaller one.
        let fits = has >= head.value_len && head.value_len >= has / 4;
        if is_long || fits {
            head.storage = ValueStorage::External;
        }
        if fits {
            head.oversized = old.head.oversized;
        }
        return fits;
    }
    if is_long {
        head.storage = ValueStorage::External;
        return false;
    }
    allocated_size(head.len()) == allocated_size(old.head.len()) && head.agrees_with(&old.head)
}

/// The header of an entry that stays in the objects of `old`, because there is no memory for
/// smaller ones; `None` if it does not fit.
fn header_in_place(mem: &Mem<'_>, old: &Entry, head: EntryHeader) -> Option<EntryHeader> {
    if head.has_expiry != old.head.has_expiry {
        return None;
    }
    let EntryHeader { storage, is_wide, .. } = old.head.for_change_in_place();
    let head = EntryHeader { storage, is_wide, oversized: old.head.oversized, ..head };
    if !head.agrees_with(&old.head) {
        return None;
    }
    if head.is_external() {
        return (old.head.value_capacity(mem, old.at) >= head.value_len).then_some(head);
    }
    head.in_object(allocated_size(old.head.len()))
}

/// Allocates an unlinked entry for a value of the length in its header, and writes its key. Chooses
/// between inline and external storage.
fn allocate(
    mem: &mut Mem<'_>,
    head: &mut EntryHeader,
    key: &[u8],
    expiry: Option<i64>,
) -> Result<u64, OutOfMemory> {
    if head.storage == ValueStorage::Inline && head.is_too_long() {
        head.storage = ValueStorage::External;
    }
    let at = head.allocate(mem, allocated_size(head.value_len), expiry)?;
    mem.bytes_mut(at + head.key_at(), head.key_len).copy_from_slice(key);
    Ok(at)
}
