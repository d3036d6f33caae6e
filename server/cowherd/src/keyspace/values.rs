//! Operations on a value of any type, and the lazy-free list.
//!
//! A large value that was unlinked is freed at once if it has few elements. Otherwise its header is
//! put in front of the shard's lazy-free list, which is linked through the headers, and freed in
//! slices.
//!
//! [`for_kind`] is the one place that names all [`CollectionType`]s.

use cowherd_arena::containers::dict::Dict;
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::collection::{self, CollectionType, ElementView, LargeHeader, ValueCursor, ValueDigest};
use super::entry::{EntryHeader, ValueType};
use super::hash::Hash;
use super::list::List;
use super::roots::lazy_free_list;
use super::set::Set;
use super::sorted_set::SortedSet;
use super::stream::Stream;

/// Elements that are freed at once with a large value; the rest goes to the lazy-free list.
const FREED_AT_ONCE: usize = 64;

/// A large value of no more bytes counts as small if its elements are few. The limit of tests is
/// lower, so that their short values are of both sorts.
const SMALL_BYTES: u64 = if cfg!(any(test, fuzzing)) { 512 } else { 16 << 10 };

/// Bytes of all types' headers, for the layout hash of images.
pub(super) const LAYOUT: u64 = List::HEADER
    + (Hash::HEADER << 8)
    + (Set::HEADER << 16)
    + (SortedSet::HEADER << 24)
    + (Stream::HEADER << 32);

/// Evaluates an expression in which `$type` is the [`CollectionType`] of a kind; strings have none.
macro_rules! for_kind {
    ($kind:expr, $type:ident => $value:expr) => {
        match $kind {
            ValueType::String => unreachable!("a string has no elements"),
            ValueType::List => {
                type $type = List;
                $value
            }
            ValueType::Hash => {
                type $type = Hash;
                $value
            }
            ValueType::Set => {
                type $type = Set;
                $value
            }
            ValueType::SortedSet => {
                type $type = SortedSet;
                $value
            }
            ValueType::Stream => {
                type $type = Stream;
                $value
            }
        }
    };
}

/// The reply of OBJECT ENCODING.
pub(super) fn encoding_name(head: &EntryHeader) -> &'static str {
    for_kind!(head.kind, T => T::encoding_name(head))
}

/// Adds the value of an entry to a digest.
pub(super) fn digest(mem: &Mem<'_>, at: u64, head: &EntryHeader, digest: &mut ValueDigest) {
    for_kind!(head.kind, T => T::digest(mem, at, head, digest));
}

/// Calls `each` with all elements of the value of an entry, which is no string.
pub(super) fn each_element(
    mem: &Mem<'_>,
    at: u64,
    head: &EntryHeader,
    each: &mut dyn FnMut(ElementView<'_>),
) {
    for_kind!(head.kind, T => T::each_element(mem, at, head, each));
}

/// The hash table of the elements of an entry, if its value has one.
pub(super) fn table(mem: &Mem<'_>, at: u64, head: &EntryHeader) -> Option<Dict> {
    let header = head.is_large().then(|| head.large_header(mem, at))?;
    for_kind!(head.kind, T => T::table(header))
}

/// Moves the header of a large value out of a place that compaction empties; returns its new place.
pub(super) fn evacuate_header(mem: &mut Mem<'_>, kind: ValueType, header: u64) -> Option<u64> {
    for_kind!(kind, T => mem.evacuate(header, T::HEADER))
}

/// Moves parts of a large value; see [`CollectionType::evacuate_some`].
pub(super) fn evacuate_some(
    mem: &mut Mem<'_>,
    kind: ValueType,
    header: u64,
    cursor: ValueCursor,
    most: usize,
) -> Option<ValueCursor> {
    for_kind!(kind, T => T::evacuate_some(mem, header, cursor, most))
}

/// Bytes of a large value, its header included.
pub(super) fn usage(mem: &Mem<'_>, head: &EntryHeader, header: u64, samples: usize) -> u64 {
    for_kind!(head.kind, T => allocated_size(T::HEADER) + T::usage(mem, header, samples))
}

/// Whether copying a large value takes no longer than other commands.
pub(super) fn is_small(mem: &Mem<'_>, head: &EntryHeader, header: u64) -> bool {
    let len = for_kind!(head.kind, T => T::len(mem, header));
    len <= FREED_AT_ONCE as u64 && usage(mem, head, header, 0) <= SMALL_BYTES
}

/// Writes `new` over the `old_len` bytes at `at` of an object; what the old bytes have more is
/// zeroed, so that no image has it.
#[inline]
pub(super) fn overwrite(mem: &mut Mem<'_>, at: u64, old_len: u64, new: &[u8]) {
    let longest = old_len.max(new.len() as u64);
    if longest > 0 {
        let (place, behind) = mem.bytes_mut(at, longest).split_at_mut(new.len());
        place.copy_from_slice(new);
        behind.fill(0);
    }
}

/// Copies a large value to the memory of `mem`; returns the copy's header.
pub(super) fn copy(mem: &mut Mem<'_>, kind: ValueType, header: u64) -> Result<u64, OutOfMemory> {
    for_kind!(kind, T => T::copy_large(mem, header))
}

/// Checks the value of a compact entry.
pub(super) fn verify_compact(mem: &Mem<'_>, at: u64, head: &EntryHeader) -> Result<(), Corruption> {
    let bytes = mem.bytes(head.value_offset(mem, at), head.value_len);
    verify_compact_bytes(head, bytes).map_err(|reason| {
        Corruption::at(at, format!("{} in the entry at {at:#x}: {reason}", head.kind.name()))
    })
}

/// Checks the bytes of a compact value; the error says what is wrong.
pub(super) fn verify_compact_bytes(head: &EntryHeader, bytes: &[u8]) -> Result<(), String> {
    match head.count {
        0 => Err("it has no elements".into()),
        _ => for_kind!(head.kind, T => T::verify_compact(head, bytes)),
    }
}

/// Claims and checks a large value.
pub(super) fn verify_large(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    head: &EntryHeader,
    header: u64,
) -> Result<(), Corruption> {
    let (kind, next) = claim_header(mem, audit, header)?;
    if kind != head.kind || next != 0 {
        let reason = format!("the header at {header:#x} is no {}'s", head.kind.name());
        return Err(Corruption::at(header, reason));
    }
    for_kind!(kind, T => T::verify_large(mem, audit, Some(head), header, false))
}

/// Claims and checks the values in a shard's lazy-free list.
pub(super) fn verify_lazy_free(mem: &Mem<'_>, audit: &Audit<'_>) -> Result<(), Corruption> {
    let mut header = mem.read(lazy_free_list(mem.shard()));
    while header != 0 {
        // A cycle ends with an error, because a header in it is claimed twice.
        let (kind, next) = claim_header(mem, audit, header)?;
        for_kind!(kind, T => T::verify_large(mem, audit, None, header, true))?;
        header = next;
    }
    Ok(())
}

fn claim_header(mem: &Mem<'_>, audit: &Audit<'_>, at: u64) -> Result<(ValueType, u64), Corruption> {
    let len = size_of::<LargeHeader>() as u64;
    if at.checked_add(len).is_none_or(|end| end > mem.arena().capacity()) {
        return Err(Corruption::at(0, format!("a value's header at {at:#x}, outside the arena")));
    }
    let large: LargeHeader = mem.read(Offset::new(at));
    let kind = u8::try_from(large.kind).ok().and_then(ValueType::from_byte);
    let kind = kind.filter(|kind| *kind != ValueType::String && large.reserved == 0);
    let len = kind.map_or(0, |kind| for_kind!(kind, T => T::HEADER));
    match kind {
        Some(kind) if len > 0 => {
            audit.claim(at, len, mem.shard())?;
            Ok((kind, large.next_deferred))
        }
        _ => Err(Corruption::at(at, format!("there is no value's header at {at:#x}"))),
    }
}

/// Frees a large value that was unlinked: a part at once, the rest through the lazy-free list.
pub(super) fn defer_free(mem: &mut Mem<'_>, kind: ValueType, header: u64) {
    if free_some(mem, kind, header, FREED_AT_ONCE) {
        return;
    }
    let first = lazy_free_list(mem.shard());
    let next = mem.read(first);
    mem.write(Offset::new(header), LargeHeader { next_deferred: next, ..LargeHeader::new(kind) });
    mem.write(first, header);
}

/// Frees at once a large value that was never linked; see [`collection::free_large`].
pub(super) fn free_large(mem: &mut Mem<'_>, kind: ValueType, header: u64) {
    for_kind!(kind, T => collection::free_large::<T>(mem, header));
}

/// Frees about `most` elements of the values in a shard's lazy-free list; tells whether there were
/// any.
pub(super) fn free_deferred(mem: &mut Mem<'_>, most: usize) -> bool {
    let first = lazy_free_list(mem.shard());
    let header = mem.read(first);
    if header == 0 {
        return false;
    }
    let large: LargeHeader = mem.read(Offset::new(header));
    let kind = u8::try_from(large.kind).ok().and_then(ValueType::from_byte);
    let kind = kind.expect("invariant: the lazy-free list holds headers of large values");
    if free_some(mem, kind, header, most) {
        mem.write(first, large.next_deferred);
    }
    true
}

/// Frees about `most` elements, and the header after the last; tells whether all is freed.
fn free_some(mem: &mut Mem<'_>, kind: ValueType, header: u64, most: usize) -> bool {
    for_kind!(kind, T => {
        let done = T::free_some(mem, header, most);
        if done {
            mem.release(header, T::HEADER);
        }
        done
    })
}
