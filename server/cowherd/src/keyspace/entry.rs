//! Entries: the object of a key, with its expiry and its value or a reference to the value.
//!
//! ```text
//! 0      1       2                                       expiry   body
//! +------+-------+---------+-----------+--------+---------+-------+-----+-------+
//! | kind | flags | key len | value len | count? | expiry? | body? | key | value |
//! |  1   |   1   | 1 or 4  | 0, 1, 2, 4|   2    |    8    | 8, 16 |     |       |
//! +------+-------+---------+-----------+--------+---------+-------+-----+-------+
//!
//! kind:   | is oversized 1 | is raw 1 | has expiry 1 | storage 2 | kind 3 |   highest bit first
//! flags:  | 0 (4) | has long key 1 | is wide 1 | encoding 2 |               highest bit first
//! ```
//!
//! The expiry is the wall clock in milliseconds since 1970. The storage decides about the body and
//! about the bytes of the value's length:
//!
//! | storage | body | value len | the value |
//! |---|---|---|---|
//! | `Inline` | none | 1, or 2 if *wide* | follows the key |
//! | `Int` | the number, 8 bytes | none | is in the body |
//! | `External` | offset and reserved length, 8 bytes each | 4 | is an object of its own |
//! | `Large` | offset of a header, 8 bytes | none | is reached from the header (see `collection`) |
//!
//! The length of the key takes 4 bytes if the key has more than 255, otherwise 1. All numbers are
//! little-endian and unaligned.
//!
//! A collection is *compact* while it is `Inline` or `External`: its bytes are a packed run, and
//! `count` is the number of its elements, fields or members; other values have no `count`.
//! `encoding` tells apart the encodings of one kind of value.
//!
//! A header that is rewritten in place keeps its length, so that the key stays where it is: a value
//! that becomes shorter stays wide.
//!
//! An entry that has become shorter moves to an object of a smaller size class. If there is no
//! memory for that it stays in its object and is *oversized*: the descriptor of the slab then tells
//! the size class. Otherwise the size class follows from the entry's length.

use zerocopy::little_endian::{I64, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use cowherd_arena::containers::dict::{Hashed, ItemMatcher};
use cowherd_arena::{Arena, Mem, Offset, OutOfMemory, SizeClass, allocated_size};

use super::roots::SecondaryIndex;

/// Bytes of the longest header; no object is shorter.
pub(super) const MAX_HEAD: u64 = HEAD_BYTES as u64;
pub(super) const HEAD_BYTES: usize = 12;
/// Changes whenever the bytes of an entry get another meaning.
pub(super) const ENTRY_VERSION: u64 = 2;
/// The longest entry with an inline value; a value that would make it longer is external. Moving
/// an entry copies its inline value.
const MAX_INLINE: u64 = 2048;
/// Bytes of a value that stay inline beside a key that alone is longer than [`MAX_INLINE`].
const MAX_BESIDE_KEY: u64 = 64;

const KIND_MASK: u8 = 7;
const STORAGE_SHIFT: u32 = 3;
const STORAGE_MASK: u8 = 3;
const HAS_EXPIRY: u8 = 1 << 5;
const IS_RAW: u8 = 1 << 6;
const IS_OVERSIZED: u8 = 1 << 7;
const ENCODING_MASK: u8 = 3;
const IS_WIDE: u8 = 1 << 2;
const HAS_LONG_KEY: u8 = 1 << 3;
/// The longest key whose length takes one byte, and the longest inline value of one that is not
/// wide.
const MAX_SHORT: u64 = u8::MAX as u64;

/// The encoding of hashes whose fields may expire.
pub(super) const VOLATILE: u8 = 1;
/// The most elements, fields or members of a compact value.
pub(super) const MAX_COUNT: u64 = u16::MAX as u64;

// Decoding reads that much at once.
const _: () = assert!(MAX_HEAD <= cowherd_arena::MIN_OBJECT);
const _: () = assert!(MAX_INLINE + MAX_BESIDE_KEY <= u16::MAX as u64);

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ValueType {
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

impl ValueType {
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

    /// The reply of TYPE.
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

/// Where the bytes of a value are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum ValueStorage {
    /// Behind the key.
    Inline = 0,
    /// As a number in the entry.
    Int = 1,
    /// In an object of its own.
    External = 2,
    /// In objects that are reached from a header.
    Large = 3,
}

impl ValueStorage {
    const fn from_byte(byte: u8) -> Self {
        match byte >> STORAGE_SHIFT & STORAGE_MASK {
            0 => Self::Inline,
            1 => Self::Int,
            2 => Self::External,
            _ => Self::Large,
        }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ObjectRef {
    object: U64,
    reserved_len: U64,
}

/// The header of an entry, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryHeader {
    pub kind: ValueType,
    pub storage: ValueStorage,
    pub has_expiry: bool,
    /// Whether the string was edited in place: OBJECT ENCODING then replies "raw", never "embstr"
    /// or "int", as in Redis.
    pub is_raw: bool,
    /// Which of the encodings of its kind the value has; each type numbers its own.
    pub encoding: u8,
    /// Elements, fields or members of a compact value; otherwise 0.
    pub count: u64,
    pub key_len: u64,
    pub value_len: u64,
    /// The length of an inline value takes two bytes even if one is enough.
    pub is_wide: bool,
    /// The size class of the entry's object, if that is larger than the entry needs.
    pub oversized: Option<SizeClass>,
}

impl EntryHeader {
    /// The header of a new entry with an empty inline value.
    pub const fn new(kind: ValueType, key: &[u8], has_expiry: bool) -> Self {
        Self {
            kind,
            storage: ValueStorage::Inline,
            has_expiry,
            is_raw: false,
            encoding: 0,
            count: 0,
            key_len: key.len() as u64,
            value_len: 0,
            is_wide: false,
            oversized: None,
        }
    }

    /// The same header for a new object, as short as it can be.
    pub const fn for_new_object(self) -> Self {
        Self { is_wide: false, oversized: None, ..self }
    }

    /// The same header to be changed in place: it keeps its length if its value becomes shorter.
    pub const fn for_change_in_place(self) -> Self {
        let is_wide = matches!(self.storage, ValueStorage::Inline) && self.value_len_bytes() == 2;
        Self { is_wide, oversized: None, ..self }
    }

    /// Bytes of the header.
    #[inline]
    pub const fn head_len(&self) -> u64 {
        let key = if self.key_len > MAX_SHORT { 4 } else { 1 };
        let count = if self.has_count() { 2 } else { 0 };
        2 + key + self.value_len_bytes() + count
    }

    const fn has_count(&self) -> bool {
        !matches!(self.kind, ValueType::String) && !self.is_large()
    }

    const fn value_len_bytes(&self) -> u64 {
        match self.storage {
            ValueStorage::Inline if self.is_wide || self.value_len > MAX_SHORT => 2,
            ValueStorage::Inline => 1,
            ValueStorage::External => 4,
            ValueStorage::Int | ValueStorage::Large => 0,
        }
    }

    /// Whether an entry with this header has its key where an entry with the other one has it.
    #[inline]
    pub const fn agrees_with(&self, other: &Self) -> bool {
        self.key_at() == other.key_at() && self.body_at() == other.body_at()
    }

    /// Bytes between the header and the key.
    const fn middle(&self) -> u64 {
        let expiry = if self.has_expiry { 8 } else { 0 };
        expiry
            + match self.storage {
                ValueStorage::Inline => 0,
                ValueStorage::Int | ValueStorage::Large => 8,
                ValueStorage::External => 16,
            }
    }

    /// Bytes of the entry; of its object, if that is oversized.
    #[inline]
    pub const fn len(&self) -> u64 {
        match self.oversized {
            None => self.needed(),
            Some(class) => class.size(),
        }
    }

    /// The header of the same entry in an object of `size` bytes; `None` if it does not fit.
    pub fn in_object(self, size: u64) -> Option<Self> {
        let needed = self.needed();
        if needed > size {
            return None;
        }
        let oversized = match allocated_size(needed) == size {
            true => None,
            false => Some(SizeClass::of(size)?),
        };
        Some(Self { oversized, ..self })
    }

    const fn needed(&self) -> u64 {
        let value = match self.storage {
            ValueStorage::Inline => self.value_len,
            _ => 0,
        };
        self.head_len() + self.middle() + self.key_len + value
    }

    /// Offset of the key in the entry.
    pub const fn key_at(&self) -> u64 {
        self.head_len() + self.middle()
    }

    /// Offset of an inline value in the entry.
    pub const fn value_at(&self) -> u64 {
        self.key_at() + self.key_len
    }

    /// Offset of the body in the entry: of all that follows the expiry.
    pub const fn body_at(&self) -> u64 {
        self.head_len() + if self.has_expiry { 8 } else { 0 }
    }

    /// Reads the header at `at`; `None` if the bytes are none, as in a damaged image.
    #[inline]
    pub fn decode(mem: &Mem<'_>, at: u64) -> Option<Self> {
        Self::decode_bytes(mem.read(Offset::new(at)), || mem.slab_class_at(at))
    }

    /// Reads the header of an object that begins with `bytes`, in a slab of `slab_class`.
    #[inline]
    pub fn decode_bytes(
        bytes: [u8; HEAD_BYTES],
        slab_class: impl FnOnce() -> Option<SizeClass>,
    ) -> Option<Self> {
        let [first, flags, ..] = bytes;
        let mut head = Self {
            kind: ValueType::from_byte(first & KIND_MASK)?,
            storage: ValueStorage::from_byte(first),
            has_expiry: first & HAS_EXPIRY != 0,
            is_raw: first & IS_RAW != 0,
            encoding: flags & ENCODING_MASK,
            count: 0,
            key_len: 0,
            value_len: 0,
            is_wide: flags & IS_WIDE != 0,
            oversized: None,
        };
        let mut word = [0; 16];
        word[..HEAD_BYTES].copy_from_slice(&bytes);
        let mut rest = u128::from_le_bytes(word) >> 16;
        let mut next = |len: u64| {
            let number = rest & ((1 << (8 * len)) - 1);
            rest >>= 8 * len;
            u64::try_from(number).unwrap_or(0)
        };
        head.key_len = next(if flags & HAS_LONG_KEY != 0 { 4 } else { 1 });
        head.value_len = next(head.value_len_bytes());
        head.count = next(if head.has_count() { 2 } else { 0 });
        if first & IS_OVERSIZED != 0 {
            head.oversized = Some(slab_class()?);
        }
        let is_canonical = (flags & HAS_LONG_KEY != 0) == (head.key_len > MAX_SHORT)
            && (head.storage == ValueStorage::Inline || !head.is_wide)
            && flags & !(ENCODING_MASK | IS_WIDE | HAS_LONG_KEY) == 0;
        let fits = head.oversized.is_none() || head.needed() <= head.len();
        (is_canonical && fits).then_some(head)
    }

    /// Reads the header at `at`.
    ///
    /// # Panics
    /// There is no entry at `at`.
    #[inline]
    pub fn load(mem: &Mem<'_>, at: u64) -> Self {
        Self::decode(mem, at).unwrap_or_else(|| no_entry(at))
    }

    /// Whether an inline entry with this header is too long, so that its value has to be external.
    /// A short value stays behind the key, however long that is: an external object is never empty.
    pub const fn is_too_long(&self) -> bool {
        let beside_key = self.head_len() + self.key_len + MAX_BESIDE_KEY;
        self.len() > if beside_key > MAX_INLINE { beside_key } else { MAX_INLINE }
    }

    /// Allocates an entry and writes its header and expiry. If the value is external, allocates its
    /// object of `reserved` bytes too; those behind the value are zero. On error neither is left.
    #[inline]
    pub fn allocate(
        &self,
        mem: &mut Mem<'_>,
        reserved: u64,
        expiry: Option<i64>,
    ) -> Result<u64, OutOfMemory> {
        let at = self.allocate_entry(mem, expiry)?;
        if self.is_external() {
            match mem.allocate_zeroed_from(reserved, self.value_len.min(reserved)) {
                Ok(object) => self.set_object(mem, at, object, reserved),
                Err(full) => {
                    mem.release(at, self.len());
                    return Err(full);
                }
            }
        }
        Ok(at)
    }

    /// Allocates an entry and writes its header and expiry, nothing else.
    #[inline]
    pub fn allocate_entry(
        &self,
        mem: &mut Mem<'_>,
        expiry: Option<i64>,
    ) -> Result<u64, OutOfMemory> {
        let at = mem.allocate(self.len())?;
        self.store(mem, at);
        if let Some(expiry) = expiry {
            self.set_expiry(mem, at, expiry);
        }
        Ok(at)
    }

    /// Writes the header at `at`.
    #[inline]
    pub fn store(&self, mem: &mut Mem<'_>, at: u64) {
        let has_long_key = self.key_len > MAX_SHORT;
        let value_len_bytes = self.value_len_bytes();
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = self.kind as u8
            | (self.storage as u8) << STORAGE_SHIFT
            | if self.has_expiry { HAS_EXPIRY } else { 0 }
            | if self.is_raw { IS_RAW } else { 0 }
            | if self.oversized.is_some() { IS_OVERSIZED } else { 0 };
        bytes[1] = self.encoding
            | if value_len_bytes == 2 { IS_WIDE } else { 0 }
            | if has_long_key { HAS_LONG_KEY } else { 0 };
        let mut len = 2;
        let mut put = |number: u64, of: u64| {
            debug_assert!(of == 8 || number >> (8 * of) == 0, "{number} in {of} bytes");
            let end = len + index(of);
            bytes[len..end].copy_from_slice(&number.to_le_bytes()[..index(of)]);
            len = end;
        };
        put(self.key_len, if has_long_key { 4 } else { 1 });
        put(self.value_len, value_len_bytes);
        put(self.count, if self.has_count() { 2 } else { 0 });
        mem.bytes_mut(at, len as u64).copy_from_slice(&bytes[..len]);
    }

    #[inline]
    pub fn expiry(&self, mem: &Mem<'_>, at: u64) -> Option<i64> {
        self.has_expiry.then(|| mem.read(Offset::<I64>::new(at + self.head_len())).get())
    }

    /// Changes the expiry of an entry that has one.
    pub fn set_expiry(&self, mem: &mut Mem<'_>, at: u64, expiry: i64) {
        debug_assert!(self.has_expiry);
        mem.write(Offset::new(at + self.head_len()), I64::new(expiry));
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
        let body: ObjectRef = mem.read(Offset::new(at + self.body_at()));
        (body.object.get(), body.reserved_len.get())
    }

    /// Changes the object of an `External` entry.
    pub fn set_object(&self, mem: &mut Mem<'_>, at: u64, object: u64, reserved_len: u64) {
        let body = ObjectRef { object: U64::new(object), reserved_len: U64::new(reserved_len) };
        mem.write(Offset::new(at + self.body_at()), body);
    }

    /// Offset of the header of a `Large` entry's value.
    #[inline]
    pub fn large_header(&self, mem: &Mem<'_>, at: u64) -> u64 {
        mem.read(Offset::<U64>::new(at + self.body_at())).get()
    }

    /// Changes the header of a `Large` entry's value.
    pub fn set_large_header(&self, mem: &mut Mem<'_>, at: u64, header: u64) {
        mem.write(Offset::new(at + self.body_at()), U64::new(header));
    }

    /// Bytes to which an inline or external value can grow in place.
    pub fn value_capacity(&self, mem: &Mem<'_>, at: u64) -> u64 {
        match self.storage {
            ValueStorage::External => self.object(mem, at).1,
            ValueStorage::Int | ValueStorage::Large => 0,
            ValueStorage::Inline => allocated_size(self.len()) - self.value_at(),
        }
    }

    /// Whether the value is a compact collection.
    #[inline]
    pub fn is_compact(&self) -> bool {
        self.kind != ValueType::String && self.storage != ValueStorage::Large
    }

    /// Whether a secondary index refers to the entry.
    #[inline]
    pub const fn is_indexed_by(&self, index: SecondaryIndex) -> bool {
        match index {
            SecondaryIndex::Expires => self.has_expiry,
            SecondaryIndex::Volatile => {
                matches!(self.kind, ValueType::Hash) && self.encoding == VOLATILE
            }
        }
    }

    pub const fn is_external(&self) -> bool {
        matches!(self.storage, ValueStorage::External)
    }

    pub const fn is_large(&self) -> bool {
        matches!(self.storage, ValueStorage::Large)
    }

    #[inline]
    pub fn key<'m>(&self, mem: &'m Mem<'_>, at: u64) -> &'m [u8] {
        mem.bytes(at + self.key_at(), self.key_len)
    }

    /// Offset of the bytes of an inline or external value.
    pub fn value_offset(&self, mem: &Mem<'_>, at: u64) -> u64 {
        match self.storage {
            ValueStorage::External => self.object(mem, at).0,
            _ => at + self.value_at(),
        }
    }
}

#[cold]
fn no_entry(at: u64) -> ! {
    panic!("keyspace: there is no entry at {at:#x}")
}

#[expect(clippy::cast_possible_truncation, reason = "bytes of a header")]
const fn index(len: u64) -> usize {
    len as usize
}

/// The hash of a key, a field or a member: XXH3 with the arena's secret seed, so that a client
/// cannot make keys collide.
#[inline]
pub(super) fn hash(arena: &Arena, key: &[u8]) -> u64 {
    hash_with_seed(arena.hash_seed(), key)
}

/// As [`hash()`], with the seed of an arena that is not there yet.
#[inline]
pub(super) fn hash_with_seed(seed: u64, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)
}

/// Finds the entry of a key.
pub(super) struct ByKey<'k>(pub &'k [u8]);

impl ItemMatcher for ByKey<'_> {
    #[inline]
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        let head = EntryHeader::load(mem, item);
        head.key_len == self.0.len() as u64 && head.key(mem, item) == self.0
    }
}

/// Finds an item by its offset.
pub(super) struct ByOffset(pub u64);

impl ItemMatcher for ByOffset {
    fn matches(&self, _mem: &Mem<'_>, item: u64) -> bool {
        item == self.0
    }
}

/// Hashes entries by their keys.
pub(super) struct EntryHasher;

impl Hashed for EntryHasher {
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64 {
        hash(mem.arena(), EntryHeader::load(mem, item).key(mem, item))
    }
}
