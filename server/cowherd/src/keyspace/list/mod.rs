//! Lists.
//!
//! ```text
//! compact   the entry's bytes are the run of all elements                    "listpack"
//! large     | kind 4 | 0 (4) | next garbage 8 | root of a deque 32 |         "listpack" or
//!                                                                            "quicklist"
//! ```
//!
//! | file | what |
//! |---|---|
//! | this one | what the keyspace asks of lists; when they are kept how |
//! | `read` | reading elements |
//! | `change` | adding, changing and removing them |
//! | `form` | from compact to large and back |
//!
//! A list is compact while it has few bytes, so that little is moved when an end of it changes.
//! What clients are told is another thing: a list is a "listpack" while it is within the limits
//! that the configuration sets, and the entry's form remembers that.

mod change;
mod form;
mod read;
#[cfg(test)]
mod tests;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::deque::{self, Deque, Root};
use cowherd_arena::containers::packed;
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory};

use super::entry::{Shape, ValueKind};
use super::values::{Common, Digest, Type};

/// A list that is told to be a listpack.
const LISTPACK: u8 = 0;
/// A list that is told to be a quicklist: always a large one.
const QUICKLIST: u8 = 1;

/// The most bytes of a compact list.
const COMPACT_BYTES: u64 = 1024;
/// A large list of so few bytes becomes compact.
const SMALL_BYTES: u64 = COMPACT_BYTES / 4;
/// Bytes that a listpack has beside its elements.
const LISTPACK_HEAD: u64 = 7;
/// Bytes of a listpack, or of a node, whose limit is a number of elements.
const MOST_COUNTED_BYTES: u64 = 8192;

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListEnd {
    /// The first element, LEFT.
    Front,
    /// The last element, RIGHT.
    Back,
}

/// When a list is no listpack any more, and how large the nodes of a quicklist are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListLimits {
    bytes: u64,
    count: Option<u64>,
}

impl ListLimits {
    /// What `list-max-listpack-size` says: above zero a number of elements, -1 to -5 are 4 to 64
    /// KiB.
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

    /// Whether a quicklist of so many elements with so many bytes becomes a listpack.
    fn is_few(&self, bytes: u64, count: u64) -> bool {
        bytes + LISTPACK_HEAD <= self.bytes / 2 && self.count.is_none_or(|most| count <= most / 2)
    }

    const fn nodes(&self) -> deque::Limits {
        deque::Limits { bytes: self.bytes, count: self.count }
    }
}

/// The header of a large list.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    common: Common,
    root: Root,
}

const _: () = assert!(size_of::<Header>() == 48);

/// The elements of a large list, by its header.
#[inline]
const fn deque_of(header: u64) -> Deque {
    Deque::at(Offset::new(header + std::mem::offset_of!(Header, root) as u64))
}

/// Lists.
pub(super) struct List;

impl Type for List {
    const HEADER: u64 = size_of::<Header>() as u64;

    fn encoding_name(shape: &Shape) -> &'static str {
        if shape.form == QUICKLIST { "quicklist" } else { "listpack" }
    }

    fn verify_compact(shape: &Shape, bytes: &[u8]) -> Result<(), String> {
        match packed::check(bytes) {
            None => Err("its elements are damaged".into()),
            Some(count) if count as u64 != shape.count => {
                Err(format!("{} elements, but it has {count}", shape.count))
            }
            Some(_) if shape.form != LISTPACK => Err(format!("its form is {}", shape.form)),
            Some(_) => Ok(()),
        }
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        shape: Option<&Shape>,
        header: u64,
        is_garbage: bool,
    ) -> Result<(), Corruption> {
        let place = header + std::mem::offset_of!(Header, root) as u64;
        let root = deque::check(mem, audit, Offset::new(place))?;
        if root.len == 0 && !is_garbage {
            return Err(Corruption::at(header, "a list without elements".into()));
        }
        match shape {
            Some(shape) if shape.form > QUICKLIST => {
                Err(Corruption::at(header, format!("a list of form {}", shape.form)))
            }
            _ => Ok(()),
        }
    }

    fn digest(mem: &Mem<'_>, at: u64, shape: &Shape, digest: &mut Digest) {
        let mut digits = itoa::Buffer::new();
        read::Place::of(mem, at, shape).each(mem, |element| {
            digest.add(element.bytes(&mut digits));
        });
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        let copy = form::create_header(mem)?;
        match deque_of(copy).fill_from(mem, deque_of(header)) {
            Ok(()) => Ok(copy),
            Err(full) => {
                mem.release(copy, Self::HEADER);
                Err(full)
            }
        }
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

/// What is to be known of a new list.
const fn description(form: u8, count: u64) -> super::compact::Description {
    super::compact::Description { kind: ValueKind::List, form, count }
}
