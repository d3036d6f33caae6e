//! Collections: values of several elements, fields or members. What every type of them provides.
//!
//! A *compact* collection is one packed run in its entry (see `compact`). A *large* one is reached
//! through a header, an object that stays where it is while the key's entry may move:
//!
//! ```text
//! entry: ... | header 8 | key |
//!                 |
//!                 v
//! header:  | kind 4 | 0 (4) | next in lazy-free list 8 | what the type needs ... |
//! ```

use xxhash_rust::xxh3::xxh3_128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{Dict, DictCursor};
use cowherd_arena::containers::tree::Tree;
use cowherd_arena::{Audit, Corruption, Mem, OutOfMemory};

use super::Value;
use super::entry::{EntryHeader, ValueType};
use super::stream::{StreamFields, StreamId};

/// The value has another type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the value has another type")]
pub struct WrongType;

/// The first bytes of every large value's header.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct LargeHeader {
    pub kind: u32,
    pub reserved: u32,
    /// The next header in the shard's lazy-free list; 0 at its end.
    pub next_deferred: u64,
}

impl LargeHeader {
    /// The first bytes of the header of a value in use.
    pub const fn new(kind: ValueType) -> Self {
        Self { kind: kind as u32, reserved: 0, next_deferred: 0 }
    }
}

const _: () = assert!(size_of::<LargeHeader>() == 16);

/// A type of collection.
pub(super) trait CollectionType {
    /// Bytes of a large value's header, which begins with [`LargeHeader`].
    const HEADER: u64;

    /// Writes the header of an empty large value.
    fn init_large(mem: &mut Mem<'_>, header: u64);

    /// The reply of OBJECT ENCODING.
    fn encoding_name(head: &EntryHeader) -> &'static str;

    /// Checks the bytes of a compact value, whose entry's `count` is above 0; the error says what
    /// is wrong.
    fn verify_compact(head: &EntryHeader, bytes: &[u8]) -> Result<(), String>;

    /// Claims and checks all that is reached from a large value's header, which is claimed already.
    /// With `is_deferred` the value is in the lazy-free list, and parts of it may be freed already;
    /// otherwise it must not be empty.
    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        head: Option<&EntryHeader>,
        header: u64,
        is_deferred: bool,
    ) -> Result<(), Corruption>;

    /// Calls `each` with all elements of an entry's value; in order, if the type has one.
    fn each_element(
        mem: &Mem<'_>,
        at: u64,
        head: &EntryHeader,
        each: &mut dyn FnMut(ElementView<'_>),
    );

    /// Adds an entry's value to a digest, the same for every encoding. The order of the elements
    /// counts in types that have one.
    fn digest(mem: &Mem<'_>, at: u64, head: &EntryHeader, digest: &mut ValueDigest) {
        let mut elements = MultisetHash::default();
        Self::each_element(mem, at, head, &mut |element| {
            elements.add(|one| one.add_element(&element));
        });
        digest.add_multiset(&elements);
    }

    /// The hash table of a large value's elements; `None` if the type has none.
    fn table(_header: u64) -> Option<Dict> {
        None
    }

    /// Copies a large value, which may be in another shard, to the memory of `mem`. Returns the
    /// copy's header.
    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory>;

    /// Frees about `most` elements of a large value; tells whether all elements, and the structures
    /// that hold them, are freed. The header itself stays.
    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool;

    /// Moves parts of a large value, from `cursor` on, out of places that compaction empties;
    /// visits about `most` objects. Returns where to continue; `None` at the end. The header stays.
    fn evacuate_some(
        mem: &mut Mem<'_>,
        header: u64,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor>;

    /// Number of elements of a large value; more if the value holds other objects of which there
    /// may be many.
    fn len(mem: &Mem<'_>, header: u64) -> u64;

    /// Bytes of a large value without its header, estimated from `samples` elements; 0 means all.
    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64;
}

/// Where compaction continues in a large value. The value may have changed meanwhile: a cursor is a
/// hint, and what it misses stays where it is until the next pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ValueCursor {
    /// Which of the structures of the value; each type numbers its own.
    pub part: u8,
    /// Places in it, from the outermost structure to the innermost.
    pub places: [u64; 3],
    /// An offset that saves a search, or 0. Valid as long as no key of the shard has changed.
    pub offset: u64,
}

impl ValueCursor {
    /// The start of a part.
    pub const fn part(part: u8) -> Self {
        Self { part, places: [0; 3], offset: 0 }
    }
}

/// Moves segments of a dictionary, from a packed [`DictCursor`] on. Returns the items there that
/// are to move, and where to continue.
pub(super) fn evacuate_dict(
    mem: &mut Mem<'_>,
    dict: Dict,
    cursor: u64,
    most: usize,
) -> (Vec<u64>, Option<u64>) {
    let cursor = DictCursor::unpack(cursor);
    dict.evacuate_segments(mem, cursor);
    let mut items = Vec::new();
    let next = dict.scan(mem, cursor, most, |item| {
        if mem.is_source(item) {
            items.push(item);
        }
    });
    // A scan may visit an item twice.
    items.sort_unstable();
    items.dedup();
    (items, next.map(DictCursor::pack))
}

/// Moves nodes of a tree, from a rank on: about `most` entries. Returns where to continue.
pub(super) fn evacuate_tree(
    mem: &mut Mem<'_>,
    tree: Tree,
    mut rank: u64,
    most: usize,
) -> Option<u64> {
    let end = rank + most as u64;
    while rank < end {
        rank = tree.evacuate_nodes(mem, rank)?;
    }
    Some(rank)
}

/// Allocates an empty large value and fills it. Returns its header; on error all of it is freed.
pub(super) fn build_large<T: CollectionType>(
    mem: &mut Mem<'_>,
    fill: impl FnOnce(&mut Mem<'_>, u64) -> Result<(), OutOfMemory>,
) -> Result<u64, OutOfMemory> {
    let header = mem.allocate(T::HEADER)?;
    T::init_large(mem, header);
    match fill(mem, header) {
        Ok(()) => Ok(header),
        Err(full) => {
            free_large::<T>(mem, header);
            Err(full)
        }
    }
}

/// Frees a large value at once.
///
/// A value that a failed command has built is freed like this, never deferred: the reclaimer would
/// free it from the lazy-free list, count that as progress, and run the command again without end.
pub(super) fn free_large<T: CollectionType>(mem: &mut Mem<'_>, header: u64) {
    while !T::free_some(mem, header, usize::MAX) {}
    mem.release(header, T::HEADER);
}

/// An element of a collection.
#[derive(Clone, Copy)]
pub enum ElementView<'e> {
    /// An element of a list, or a member of a set.
    Plain(Value<'e>),
    /// A field of a hash.
    Field {
        /// The name.
        name: Value<'e>,
        /// The value.
        value: Value<'e>,
        /// When the field expires, wall clock in milliseconds.
        expiry: Option<i64>,
    },
    /// A member of a sorted set.
    Member {
        /// The member.
        member: Value<'e>,
        /// Its score.
        score: f64,
    },
    /// An entry of a stream.
    Entry {
        /// The id.
        id: StreamId,
        /// Fields and values.
        fields: StreamFields<'e>,
    },
}

/// The bytes of a value from which its digest is computed.
#[derive(Default)]
pub(super) struct ValueDigest {
    pub text: Vec<u8>,
}

impl ValueDigest {
    /// Adds bytes with their length, so that parts in a row are told apart.
    pub fn add(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.text.extend_from_slice(bytes);
    }

    pub fn add_number(&mut self, number: i64) {
        self.text.extend_from_slice(&number.to_le_bytes());
    }

    pub fn add_value(&mut self, value: Value<'_>) {
        self.add(value.bytes(&mut itoa::Buffer::new()));
    }

    pub fn add_element(&mut self, element: &ElementView<'_>) {
        match *element {
            ElementView::Plain(value) => self.add_value(value),
            ElementView::Field { name, value, expiry } => {
                self.add_value(name);
                self.add_value(value);
                self.add_number(expiry.unwrap_or(i64::MIN));
            }
            ElementView::Member { member, score } => {
                self.add_value(member);
                self.add_number(score.to_bits().cast_signed());
            }
            ElementView::Entry { id, fields } => {
                self.add_number(id.ms.cast_signed());
                self.add_number(id.seq.cast_signed());
                self.add_number(fields.len() as i64);
                for (field, value) in fields.iter() {
                    self.add_value(field);
                    self.add_value(value);
                }
            }
        }
    }

    /// Adds elements whose order is of no meaning.
    pub fn add_multiset(&mut self, elements: &MultisetHash) {
        self.text.extend_from_slice(&elements.count.to_le_bytes());
        self.text.extend_from_slice(&elements.sum.to_le_bytes());
    }
}

/// A hash of elements that does not depend on their order: the sum of the elements' hashes.
#[derive(Default)]
pub(super) struct MultisetHash {
    sum: u128,
    count: u64,
    element: ValueDigest,
}

impl MultisetHash {
    /// Adds the element that `write` writes.
    pub fn add(&mut self, write: impl FnOnce(&mut ValueDigest)) {
        self.element.text.clear();
        write(&mut self.element);
        self.sum = self.sum.wrapping_add(xxh3_128(&self.element.text));
        self.count += 1;
    }
}
