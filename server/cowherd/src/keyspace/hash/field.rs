//! A field of a large hash: an object of its own; see the drawing above.

use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use cowherd_arena::containers::dict::{Hashed, Items};
use cowherd_arena::{Mem, Offset};

use super::super::entry::hash;

/// Bytes of a field's head.
pub(super) const HEAD: u64 = size_of::<Head>() as u64;
const HAS_EXPIRY: u32 = 1 << 31;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    name_len: U32,
    value_len: U32,
}

const _: () = assert!(HEAD == 8);

/// A field's head, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub has_expiry: bool,
    pub name_len: u64,
    pub value_len: u64,
}

impl Shape {
    /// Reads the head at `at`.
    #[inline]
    pub fn load(mem: &Mem<'_>, at: u64) -> Self {
        let head: Head = mem.read(Offset::new(at));
        let name = head.name_len.get();
        Self {
            has_expiry: name & HAS_EXPIRY != 0,
            name_len: u64::from(name & !HAS_EXPIRY),
            value_len: u64::from(head.value_len.get()),
        }
    }

    /// Writes the head at `at`.
    #[expect(clippy::cast_possible_truncation, reason = "lengths are at most 512 MB")]
    pub fn store(&self, mem: &mut Mem<'_>, at: u64) {
        let flag = if self.has_expiry { HAS_EXPIRY } else { 0 };
        let head = Head {
            name_len: U32::new(self.name_len as u32 | flag),
            value_len: U32::new(self.value_len as u32),
        };
        mem.write(Offset::new(at), head);
    }

    /// Offset of the name in the object.
    #[inline]
    pub const fn name_at(&self) -> u64 {
        HEAD + if self.has_expiry { 8 } else { 0 }
    }

    /// Offset of the value in the object.
    #[inline]
    pub const fn value_at(&self) -> u64 {
        self.name_at() + self.name_len
    }

    /// Bytes of the object.
    #[inline]
    pub const fn len(&self) -> u64 {
        self.value_at() + self.value_len
    }

    /// The name's bytes.
    #[inline]
    pub fn name<'m>(&self, mem: &'m Mem<'_>, at: u64) -> &'m [u8] {
        mem.bytes(at + self.name_at(), self.name_len)
    }

    /// The value's bytes.
    #[inline]
    pub fn value<'m>(&self, mem: &'m Mem<'_>, at: u64) -> &'m [u8] {
        mem.bytes(at + self.value_at(), self.value_len)
    }

    /// The expiry, if there is one.
    #[inline]
    pub fn expiry(&self, mem: &Mem<'_>, at: u64) -> Option<i64> {
        self.has_expiry.then(|| mem.read(Offset::<I64>::new(at + HEAD)).get())
    }

    /// Writes the expiry of a field that has one.
    pub fn set_expiry(&self, mem: &mut Mem<'_>, at: u64, expiry: i64) {
        debug_assert!(self.has_expiry);
        mem.write(Offset::new(at + HEAD), I64::new(expiry));
    }
}

/// Recognises the field of a name.
pub(super) struct ByName<'n>(pub &'n [u8]);

impl Items for ByName<'_> {
    #[inline]
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        let shape = Shape::load(mem, item);
        shape.name_len == self.0.len() as u64 && shape.name(mem, item) == self.0
    }
}

/// Hashes fields by their names.
pub(super) struct ByHash;

impl Hashed for ByHash {
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64 {
        hash(mem.arena(), Shape::load(mem, item).name(mem, item))
    }
}
