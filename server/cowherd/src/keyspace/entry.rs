//! An entry: a key, its expiry and its value, or where the value is.
//!
//! ```text
//! 0      1       2       4         8           12
//! +------+-------+-------+---------+-----------+---------+---------+-----+-------+
//! | kind | flags | count | key len | value len | expiry? | number? | key | value |
//! |  1   |   1   |   2   |    4    |     4     |  0 or 8 | or body |     |       |
//! +------+-------+-------+---------+-----------+---------+---------+-----+-------+
//!
//! kind:   | class held 5 | kind 3 |                                   highest bit first
//! flags:  | encoding 4 | form 2 | was edited 1 | has expiry 1 |         highest bit first
//! ```
//!
//! The expiry is the wall clock in milliseconds since 1970. Between it and the key stand, by
//! encoding: nothing (`Inline`: the value follows the key), the number (`Int`, 8 bytes), offset
//! and reserved length of an object of its own (`External`, 16 bytes), or the offset of a value's
//! header (`Large`, 8 bytes; see `values`). All little-endian and unaligned.
//!
//! A value of several elements is *compact* while it is `Inline` or `External`: its bytes are a
//! packed run, and `count` is the number of its elements, fields or members. `form` tells apart
//! what a kind of value keeps in different ways.
//!
//! An entry that has become shorter moves to an object of a smaller class. If there is no memory
//! for that it stays in the object that it has, and `class held` is the number of that object's
//! class plus 1. Otherwise it is 0, and the class follows from the entry's length.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use cowherd_arena::containers::dict::{Hashed, Items};
use cowherd_arena::{Arena, Mem, Offset, SizeClass, allocated_size};

/// Bytes of an entry's head.
pub(super) const HEAD: u64 = size_of::<Head>() as u64;
/// The longest entry that holds its value in itself. Longer values are objects of their own.
pub(super) const MAX_INLINE: u64 = 2048;

const HAS_EXPIRY: u8 = 1;
const WAS_EDITED: u8 = 2;
const FORM_SHIFT: u32 = 2;
const FORM_MASK: u8 = 3;
const ENCODING_SHIFT: u32 = 4;
const KIND_MASK: u8 = 7;
const HELD_SHIFT: u32 = 3;
/// Classes that an entry can hold although a smaller one would do.
const HELD: usize = 31;

/// The form of hashes whose fields may expire.
pub(super) const VOLATILE: u8 = 1;
/// The most elements, fields or members of a compact value.
pub(super) const MAX_COUNT: u64 = u16::MAX as u64;

const _: () = assert!(HEAD == 12);

/// What type a value has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ValueKind {
    /// A string.
    String = 1,
    /// A list.
    List = 2,
    /// A hash.
    Hash = 3,
    /// A set.
    Set = 4,
    /// A sorted set.
    SortedSet = 5,
    /// A stream.
    Stream = 6,
}

impl ValueKind {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::String),
            2 => Some(Self::List),
            3 => Some(Self::Hash),
            4 => Some(Self::Set),
            5 => Some(Self::SortedSet),
            6 => Some(Self::Stream),
            _ => None,
        }
    }

    /// Its name, as TYPE answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Hash => "hash",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Stream => "stream",
        }
    }
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Encoding {
    /// Behind the key.
    Inline = 0,
    /// As a number in the entry.
    Int = 1,
    /// In an object of its own.
    External = 2,
    /// In structures that are found through a header object.
    Large = 3,
}

impl Encoding {
    const fn from_flags(flags: u8) -> Option<Self> {
        match flags >> ENCODING_SHIFT {
            0 => Some(Self::Inline),
            1 => Some(Self::Int),
            2 => Some(Self::External),
            3 => Some(Self::Large),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    flags: u8,
    count: U16,
    key_len: U32,
    value_len: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Body {
    object: U64,
    reserved_len: U64,
}

/// An entry's head, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub kind: ValueKind,
    pub encoding: Encoding,
    pub has_expiry: bool,
    /// Whether the value was changed in place: such values are never called short or a number.
    pub was_edited: bool,
    /// Which of the ways in which values of this kind are kept.
    pub form: u8,
    /// Elements, fields or members of a compact value; otherwise 0.
    pub count: u64,
    pub key_len: u64,
    pub value_len: u64,
    /// The class of the entry's object, if it is larger than the entry needs.
    pub held: Option<SizeClass>,
}

impl Shape {
    /// Bytes between the head and the key.
    const fn middle(&self) -> u64 {
        let expiry = if self.has_expiry { 8 } else { 0 };
        expiry
            + match self.encoding {
                Encoding::Inline => 0,
                Encoding::Int | Encoding::Large => 8,
                Encoding::External => 16,
            }
    }

    /// Bytes of the entry, or of its object if that is larger than it needs.
    #[inline]
    pub const fn len(&self) -> u64 {
        match self.held {
            None => self.needed(),
            Some(class) => class.size(),
        }
    }

    /// The same shape for an entry that stands in an object of `size` bytes; `None` if it cannot.
    pub fn in_object(self, size: u64) -> Option<Self> {
        let needed = self.needed();
        if needed > size {
            return None;
        }
        let held = match allocated_size(needed) == size {
            true => None,
            false => Some(SizeClass::of(size).filter(|class| class.index() < HELD)?),
        };
        Some(Self { held, ..self })
    }

    const fn needed(&self) -> u64 {
        let value = match self.encoding {
            Encoding::Inline => self.value_len,
            _ => 0,
        };
        HEAD + self.middle() + self.key_len + value
    }

    /// Offset of the key in the entry.
    pub const fn key_at(&self) -> u64 {
        HEAD + self.middle()
    }

    /// Offset of an inline value in the entry.
    pub const fn value_at(&self) -> u64 {
        self.key_at() + self.key_len
    }

    const fn body_at(&self) -> u64 {
        HEAD + if self.has_expiry { 8 } else { 0 }
    }

    /// Reads the head at `at`; `None` if it is none (only an image that is damaged has such).
    pub fn decode(mem: &Mem<'_>, at: u64) -> Option<Self> {
        let head: Head = mem.read(Offset::new(at));
        let held = match head.kind >> HELD_SHIFT {
            0 => None,
            number => Some(SizeClass::from_index(usize::from(number) - 1)?),
        };
        let shape = Self {
            held,
            kind: ValueKind::from_byte(head.kind & KIND_MASK)?,
            encoding: Encoding::from_flags(head.flags)?,
            has_expiry: head.flags & HAS_EXPIRY != 0,
            was_edited: head.flags & WAS_EDITED != 0,
            form: head.flags >> FORM_SHIFT & FORM_MASK,
            count: u64::from(head.count.get()),
            key_len: u64::from(head.key_len.get()),
            value_len: u64::from(head.value_len.get()),
        };
        (held.is_none() || shape.needed() <= shape.len()).then_some(shape)
    }

    /// Reads the head at `at`.
    ///
    /// # Panics
    /// There is none.
    #[inline]
    pub fn load(mem: &Mem<'_>, at: u64) -> Self {
        Self::decode(mem, at).unwrap_or_else(|| no_entry(at))
    }

    /// Writes the head at `at`.
    pub fn store(&self, mem: &mut Mem<'_>, at: u64) {
        let mut flags = (self.encoding as u8) << ENCODING_SHIFT;
        flags |= if self.has_expiry { HAS_EXPIRY } else { 0 };
        flags |= if self.was_edited { WAS_EDITED } else { 0 };
        flags |= self.form << FORM_SHIFT;
        let held = self.held.map_or(0, |class| class.index().to_le_bytes()[0] + 1);
        let head = Head {
            kind: self.kind as u8 | held << HELD_SHIFT,
            flags,
            count: U16::new(narrow_count(self.count)),
            key_len: U32::new(narrow(self.key_len)),
            value_len: U32::new(narrow(self.value_len)),
        };
        mem.write(Offset::new(at), head);
    }

    /// The expiry, if there is one.
    #[inline]
    pub fn expiry(&self, mem: &Mem<'_>, at: u64) -> Option<i64> {
        self.has_expiry.then(|| mem.read(Offset::<I64>::new(at + HEAD)).get())
    }

    /// Changes the expiry of an entry that has one.
    pub fn set_expiry(&self, mem: &mut Mem<'_>, at: u64, expiry: i64) {
        debug_assert!(self.has_expiry);
        mem.write(Offset::new(at + HEAD), I64::new(expiry));
    }

    /// The number of an `Int` entry.
    pub fn number(&self, mem: &Mem<'_>, at: u64) -> i64 {
        mem.read(Offset::<I64>::new(at + self.body_at())).get()
    }

    /// Changes the number of an `Int` entry.
    pub fn set_number(&self, mem: &mut Mem<'_>, at: u64, number: i64) {
        mem.write(Offset::new(at + self.body_at()), I64::new(number));
    }

    /// Offset and reserved length of the object of an `External` entry.
    pub fn object(&self, mem: &Mem<'_>, at: u64) -> (u64, u64) {
        let body: Body = mem.read(Offset::new(at + self.body_at()));
        (body.object.get(), body.reserved_len.get())
    }

    /// Changes the object of an `External` entry.
    pub fn set_object(&self, mem: &mut Mem<'_>, at: u64, object: u64, reserved_len: u64) {
        let body = Body { object: U64::new(object), reserved_len: U64::new(reserved_len) };
        mem.write(Offset::new(at + self.body_at()), body);
    }

    /// Offset of the header of a `Large` entry's value.
    #[inline]
    pub fn header(&self, mem: &Mem<'_>, at: u64) -> u64 {
        mem.read(Offset::<U64>::new(at + self.body_at())).get()
    }

    /// Changes the header of a `Large` entry's value.
    pub fn set_header(&self, mem: &mut Mem<'_>, at: u64, header: u64) {
        mem.write(Offset::new(at + self.body_at()), U64::new(header));
    }

    /// Whether the value is one of several elements, in a packed run.
    #[inline]
    pub fn is_compact(&self) -> bool {
        self.kind != ValueKind::String && self.encoding != Encoding::Large
    }

    /// Whether the entry belongs into a dictionary beside the keys.
    #[inline]
    pub const fn is_in(&self, side: super::Side) -> bool {
        match side {
            super::Side::Expires => self.has_expiry,
            super::Side::Volatile => matches!(self.kind, ValueKind::Hash) && self.form == VOLATILE,
        }
    }

    /// Whether the value is in an object of its own.
    pub const fn is_external(&self) -> bool {
        matches!(self.encoding, Encoding::External)
    }

    /// Whether the value is in structures behind a header.
    pub const fn is_large(&self) -> bool {
        matches!(self.encoding, Encoding::Large)
    }

    /// The key's bytes.
    #[inline]
    pub fn key<'m>(&self, mem: &'m Mem<'_>, at: u64) -> &'m [u8] {
        mem.bytes(at + self.key_at(), self.key_len)
    }

    /// Where the bytes of a value that is not a number are.
    pub fn value_place(&self, mem: &Mem<'_>, at: u64) -> u64 {
        match self.encoding {
            Encoding::External => self.object(mem, at).0,
            _ => at + self.value_at(),
        }
    }
}

#[cold]
fn no_entry(at: u64) -> ! {
    panic!("keyspace: there is no entry at {at:#x}")
}

/// Lengths are at most 512 MB.
#[expect(clippy::cast_possible_truncation, reason = "checked against the limits before")]
fn narrow(len: u64) -> u32 {
    debug_assert!(len <= u64::from(u32::MAX));
    len as u32
}

#[expect(clippy::cast_possible_truncation, reason = "a compact value has MAX_COUNT at most")]
fn narrow_count(count: u64) -> u16 {
    debug_assert!(count <= MAX_COUNT);
    count as u16
}

/// The hash of a key, or of a field or member: XXH3 with the arena's seed, so that nobody outside
/// can make keys collide.
#[inline]
pub(super) fn hash(arena: &Arena, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, arena.hash_seed())
}

/// Recognises the entry of a key.
pub(super) struct ByKey<'k>(pub &'k [u8]);

impl Items for ByKey<'_> {
    #[inline]
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        let shape = Shape::load(mem, item);
        shape.key_len == self.0.len() as u64 && shape.key(mem, item) == self.0
    }
}

/// Recognises an item by its place.
pub(super) struct ByPlace(pub u64);

impl Items for ByPlace {
    fn matches(&self, _mem: &Mem<'_>, item: u64) -> bool {
        item == self.0
    }
}

/// Hashes entries by their keys.
pub(super) struct ByHash;

impl Hashed for ByHash {
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64 {
        hash(mem.arena(), Shape::load(mem, item).key(mem, item))
    }
}
