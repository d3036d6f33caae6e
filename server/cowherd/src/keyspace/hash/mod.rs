//! Hashes: fields with values, each of which may expire.
//!
//! A *compact* hash is a packed run. Once a field of it was given an expiry it is of the form
//! [`VOLATILE`](super::entry::VOLATILE), and stays so:
//!
//! ```text
//! form 0:  | field | value | field | value | ...
//! form 1:  | earliest 8 | field | value | expiry | field | value | expiry | ...
//! ```
//!
//! `expiry` is a number, wall clock in milliseconds, 0 for none; no field expires before
//! `earliest`, which is `i64::MAX` if none does.
//!
//! A *large* hash has an object for each field. They are in a dictionary, and those that expire
//! also in a tree, by their expiry:
//!
//! ```text
//! header:  | common 16 | fields: dictionary's root 32 | expiries: tree's root 24 |
//! field:   | field len 31, has expiry 1 | value len 32 | expiry 0 or 8 | field | value |
//! ```
//!
//! A field that has expired is not there for anybody who asks. It is removed when its hash is
//! looked up, some at a time, or in the background.

mod change;
mod compact;
mod draft;
mod expiring;
mod field;
mod large;
#[cfg(test)]
mod tests;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{self, Cursor};
use cowherd_arena::containers::packed::Element;
use cowherd_arena::containers::tree;
use cowherd_arena::{Audit, Corruption, Mem, OutOfMemory};

use super::entry::{Encoding, Shape, VOLATILE, ValueKind};
use super::shards::Entry;
use super::values::{Common, Digest, Type, Unordered, WrongType};
use super::{DbIndex, Key, Shards, Value};

use compact::Pairs;
pub use expiring::FieldExpiryOutcome;
use large::Large;

/// Hashes.
pub(super) struct Hash;

/// The header of a large hash.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    common: Common,
    fields: dict::Root,
    expiries: tree::Root,
}

const _: () = assert!(size_of::<Header>() == 72);

/// A field's value and expiry.
pub type FieldValue<'m> = (Value<'m>, Option<i64>);

impl<'m> From<Element<'m>> for Value<'m> {
    #[inline]
    fn from(element: Element<'m>) -> Self {
        match element {
            Element::Int(number) => Self::Int(number),
            Element::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

impl Type for Hash {
    const HEADER: u64 = size_of::<Header>() as u64;

    fn encoding_name(shape: &Shape) -> &'static str {
        match (shape.encoding, shape.form) {
            (Encoding::Large, _) => "hashtable",
            (_, VOLATILE) => "listpackex",
            _ => "listpack",
        }
    }

    fn verify_compact(shape: &Shape, bytes: &[u8]) -> Result<(), String> {
        compact::check(shape, bytes)
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        shape: Option<&Shape>,
        header: u64,
        is_garbage: bool,
    ) -> Result<(), Corruption> {
        let expires = large::check(mem, audit, header, is_garbage)?;
        if shape.is_some_and(|shape| shape.form > VOLATILE || expires && shape.form != VOLATILE) {
            return Err(Corruption::at(header, format!("a hash of a wrong form at {header:#x}")));
        }
        Ok(())
    }

    fn digest(mem: &Mem<'_>, at: u64, shape: &Shape, digest: &mut Digest) {
        let mut fields = Unordered::default();
        let mut add = |field: Value<'_>, value: Value<'_>, expiry: Option<i64>| {
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            fields.add(|one| {
                one.add(field.bytes(&mut a));
                one.add(value.bytes(&mut b));
                one.add_number(expiry.unwrap_or(i64::MIN));
            });
        };
        if shape.is_large() {
            let large = Large::at(shape.header(mem, at));
            large.fields().scan(mem, Cursor::default(), usize::MAX, |item| {
                let field = field::Shape::load(mem, item);
                let (name, value) = (field.name(mem, item), field.value(mem, item));
                add(Value::Bytes(name), Value::Bytes(value), field.expiry(mem, item));
            });
        } else {
            let bytes = mem.bytes(shape.value_place(mem, at), shape.value_len);
            for (field, value, expiry) in Pairs::of(shape, bytes).iter() {
                add(field.into(), value.into(), expiry);
            }
        }
        digest.add_unordered(&fields);
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        Large::at(header).copy(mem).map(Large::header)
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        Large::at(header).free_some(mem, most)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        Large::at(header).fields().len(mem)
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        Large::at(header).usage(mem, samples)
    }
}

/// Whether a field with this expiry is still there.
#[inline]
fn is_alive(expiry: Option<i64>, now: i64) -> bool {
    expiry.is_none_or(|at| at > now)
}

impl Shards<'_> {
    /// The hash of a key; none if the key is not there. Counts as a use. Some of the fields that
    /// have expired are removed first, and the key with the last of them.
    ///
    /// # Errors
    /// The value is no hash.
    #[inline]
    pub fn hash(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        match self.lookup_kind(db, key, ValueKind::Hash)? {
            Some(entry) if entry.shape.form == VOLATILE => Ok(self.without_expired(db, key, entry)),
            entry => Ok(entry),
        }
    }

    /// As [`Self::hash`], and counts a hit or a miss.
    ///
    /// # Errors
    /// The value is no hash.
    #[inline]
    pub fn hash_read(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        match self.lookup_kind_read(db, key, ValueKind::Hash)? {
            Some(entry) if entry.shape.form == VOLATILE => Ok(self.without_expired(db, key, entry)),
            entry => Ok(entry),
        }
    }

    #[inline]
    fn large_hash(&self, entry: &Entry) -> Large {
        Large::at(entry.shape.header(&self.held.view(entry.shard), entry.at))
    }

    #[inline]
    fn pairs(&self, entry: &Entry) -> Pairs<'_> {
        Pairs::of(&entry.shape, self.run(entry))
    }

    /// Number of a hash's fields, expired ones that are still there included.
    pub fn hash_len(&self, entry: &Entry) -> u64 {
        if entry.shape.is_large() {
            self.large_hash(entry).fields().len(&self.held.view(entry.shard))
        } else {
            entry.shape.count
        }
    }

    /// How many fields [`Self::hash_each`] hands over, if that is known without counting.
    pub fn hash_exact_len(&self, entry: &Entry) -> Option<usize> {
        let len = (entry.shape.form != VOLATILE).then(|| self.hash_len(entry))?;
        usize::try_from(len).ok()
    }

    /// The value of a field, and its expiry.
    #[inline]
    pub fn hash_get(&self, entry: &Entry, field: &[u8]) -> Option<FieldValue<'_>> {
        let found = if entry.shape.is_large() {
            let mem = self.held.view(entry.shard);
            let at = self.large_hash(entry).find(&mem, field)?.item;
            let shape = field::Shape::load(&mem, at);
            let value = mem.slice(at + shape.value_at(), shape.value_len);
            (Value::Bytes(value), shape.expiry(&mem, at))
        } else {
            self.pairs(entry).get(field)?
        };
        is_alive(found.1, self.now).then_some(found)
    }

    /// Hands all fields with their values to `each`.
    pub fn hash_each<'s>(&'s self, entry: &Entry, each: impl FnMut(Value<'s>, Value<'s>)) {
        self.hash_scan(entry, Cursor::default(), usize::MAX, each);
    }

    /// Hands fields with their values to `each`, from `cursor` on, at least `least` unless the hash
    /// ends before; a compact one always to its end. Returns where to go on.
    pub fn hash_scan<'s>(
        &'s self,
        entry: &Entry,
        cursor: Cursor,
        least: usize,
        mut each: impl FnMut(Value<'s>, Value<'s>),
    ) -> Option<Cursor> {
        if entry.shape.is_large() {
            let mem = self.held.view(entry.shard);
            return self.large_hash(entry).fields().scan(&mem, cursor, least, |at| {
                let shape = field::Shape::load(&mem, at);
                if is_alive(shape.expiry(&mem, at), self.now) {
                    let name = mem.slice(at + shape.name_at(), shape.name_len);
                    let value = mem.slice(at + shape.value_at(), shape.value_len);
                    each(Value::Bytes(name), Value::Bytes(value));
                }
            });
        }
        for (field, value, expiry) in self.pairs(entry).iter() {
            if is_alive(expiry, self.now) {
                each(field.into(), value.into());
            }
        }
        None
    }

    /// A field of a large hash with its value, chosen by `random`, a fresh random number each time
    /// it is called. None if the hash is compact, or if none was found that has not expired.
    pub fn hash_random(
        &self,
        entry: &Entry,
        mut random: impl FnMut() -> u64,
    ) -> Option<(Value<'_>, Value<'_>)> {
        /// Expired fields are removed soon, so that few are met.
        const TRIES: usize = 100;
        if !entry.shape.is_large() {
            return None;
        }
        let mem = self.held.view(entry.shard);
        let fields = self.large_hash(entry).fields();
        (0..TRIES).find_map(|_| {
            let at = fields.random(&mem, &mut random)?;
            let shape = field::Shape::load(&mem, at);
            is_alive(shape.expiry(&mem, at), self.now).then(|| {
                let name = mem.slice(at + shape.name_at(), shape.name_len);
                let value = mem.slice(at + shape.value_at(), shape.value_len);
                (Value::Bytes(name), Value::Bytes(value))
            })
        })
    }
}
