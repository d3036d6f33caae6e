//! Lists: elements in order, fast at both ends.
//!
//! ```text
//! compact:  the entry's bytes are a packed run of all elements      "listpack"
//! large:    | large header 16 | root of a deque 32 |                "listpack" or "quicklist"
//! ```
//!
//! | file | what |
//! |---|---|
//! | this one | the list type and its limits |
//! | `read` | reading elements |
//! | `update` | adding, changing and removing elements |
//! | `encoding` | from compact to large and back |
//!
//! A list is compact while it has few bytes, so that little is moved when an end of it changes. The
//! reply of OBJECT ENCODING is independent of that: it is "listpack" while the list is within the
//! configured limits. The entry's encoding stores it.

mod encoding;
mod read;
#[cfg(test)]
mod tests;
mod update;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::deque::{self, Deque, DequePlace, DequeRoot};
use cowherd_arena::containers::packed;
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory};

use super::collection::{
    CollectionType, ElementView, LargeHeader, ValueCursor, ValueDigest, build_large,
};
use super::compact::ValueDescription;
use super::entry::{EntryHeader, ValueType};

/// The encoding of a list that OBJECT ENCODING calls a listpack.
const LISTPACK: u8 = 0;
/// The encoding of a list that OBJECT ENCODING calls a quicklist; always a large one.
const QUICKLIST: u8 = 1;

/// The most bytes of a compact list: each change of its front moves all of them.
const COMPACT_BYTES: u64 = 1024;
/// A large list of no more bytes becomes compact. Lower than the limit above, so that a list does
/// not change back and forth.
const SMALL_BYTES: u64 = COMPACT_BYTES / 4;
/// Bytes that a listpack of Redis has beside its elements.
const LISTPACK_HEAD: u64 = 7;
/// The most bytes of a listpack or node whose limit is a number of elements, as in Redis.
const MOST_COUNTED_BYTES: u64 = 8192;

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListEnd {
    /// The end of the first element (LEFT).
    Front,
    /// The end of the last element (RIGHT).
    Back,
}

/// The limits of a listpack, and of each node of a quicklist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListLimits {
    bytes: u64,
    count: Option<u64>,
}

impl ListLimits {
    /// The limits that `list-max-listpack-size` sets: a positive number is a number of elements, -1
    /// to -5 are 4 to 64 KiB.
    pub fn new(list_max_listpack_size: i32) -> Self {
        match u64::try_from(list_max_listpack_size) {
            Ok(count) => Self { bytes: MOST_COUNTED_BYTES, count: Some(count.max(1)) },
            Err(_) => {
                let kind = list_max_listpack_size.unsigned_abs().min(5);
                Self { bytes: 4096 << (kind - 1), count: None }
            }
        }
    }

    /// Whether a listpack may have so many elements with so many bytes.
    fn allow(&self, bytes: u64, count: u64) -> bool {
        bytes + LISTPACK_HEAD <= self.bytes && self.count.is_none_or(|most| count <= most)
    }

    /// Whether a quicklist of so many elements with so many bytes becomes a listpack: at half the
    /// limits, as in Redis, so that a list does not change back and forth.
    fn is_few(&self, bytes: u64, count: u64) -> bool {
        bytes + LISTPACK_HEAD <= self.bytes / 2 && self.count.is_none_or(|most| count <= most / 2)
    }

    const fn nodes(&self) -> deque::DequeLimits {
        deque::DequeLimits { bytes: self.bytes, count: self.count }
    }
}

/// The header of a large list.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ListHeader {
    large: LargeHeader,
    root: DequeRoot,
}

const _: () = assert!(size_of::<ListHeader>() == 48);

/// The deque of the large list whose header is at `header`.
#[inline]
const fn deque_of(header: u64) -> Deque {
    Deque::at(Offset::new(header + std::mem::offset_of!(ListHeader, root) as u64))
}

/// The list type.
pub(super) struct List;

impl CollectionType for List {
    const HEADER: u64 = size_of::<ListHeader>() as u64;

    fn init_large(mem: &mut Mem<'_>, header: u64) {
        let large = LargeHeader::new(ValueType::List);
        mem.write(Offset::new(header), ListHeader { large, root: DequeRoot::EMPTY });
    }

    fn encoding_name(head: &EntryHeader) -> &'static str {
        if head.encoding == QUICKLIST { "quicklist" } else { "listpack" }
    }

    fn verify_compact(head: &EntryHeader, bytes: &[u8]) -> Result<(), String> {
        match packed::check(bytes) {
            None => Err("its elements are damaged".into()),
            Some(count) if count as u64 != head.count => {
                Err(format!("{} elements, but it has {count}", head.count))
            }
            Some(_) if head.encoding != LISTPACK => {
                Err(format!("its encoding is {}", head.encoding))
            }
            Some(_) => Ok(()),
        }
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        head: Option<&EntryHeader>,
        header: u64,
        is_deferred: bool,
    ) -> Result<(), Corruption> {
        let place = header + std::mem::offset_of!(ListHeader, root) as u64;
        let root = deque::check(mem, audit, Offset::new(place))?;
        if root.len == 0 && !is_deferred {
            return Err(Corruption::at(header, "a list without elements".into()));
        }
        match head {
            Some(head) if head.encoding > QUICKLIST => {
                Err(Corruption::at(header, format!("a list of encoding {}", head.encoding)))
            }
            _ => Ok(()),
        }
    }

    fn each_element(
        mem: &Mem<'_>,
        at: u64,
        head: &EntryHeader,
        each: &mut dyn FnMut(ElementView<'_>),
    ) {
        read::ListElements::of(mem, at, head).each(mem, |element| {
            each(ElementView::Plain(element.into()));
        });
    }

    fn digest(mem: &Mem<'_>, at: u64, head: &EntryHeader, digest: &mut ValueDigest) {
        Self::each_element(mem, at, head, &mut |element| digest.add_element(&element));
    }

    fn evacuate_some(
        mem: &mut Mem<'_>,
        header: u64,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor> {
        /// Elements that count as one node, which takes as long to move.
        const NODE: u64 = 4;
        let nodes = (most as u64 / NODE).max(1);
        // After SWAPDB, which counts as a change in one shard only, the key has another list.
        let node = if cursor.places[1] == header { cursor.offset } else { 0 };
        let from = DequePlace { index: cursor.places[0], node };
        let DequePlace { index, node } = deque_of(header).evacuate_nodes(mem, from, nodes)?;
        Some(ValueCursor { places: [index, header, 0], offset: node, ..cursor })
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        build_large::<Self>(mem, |mem, copy| deque_of(copy).fill_from(mem, deque_of(header)))
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        deque_of(header).drain(mem, most)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        deque_of(header).len(mem)
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        deque_of(header).size(mem, samples as u64)
    }
}

/// A new list without its elements.
const fn description(encoding: u8, count: u64) -> ValueDescription {
    ValueDescription { kind: ValueType::List, encoding, count }
}
