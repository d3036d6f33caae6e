//! Hashes: fields with values, each of which may expire.
//!
//! A *compact* hash is a packed run. Once any of its fields was given an expiry, its encoding is
//! [`VOLATILE`](super::entry::VOLATILE), and stays so:
//!
//! ```text
//! encoding 0:  | field | value | field | value | ...
//! encoding 1:  | earliest 8 | field | value | expiry | field | value | expiry | ...
//! ```
//!
//! `expiry` is a number, the wall clock in milliseconds, 0 for none. No field expires before
//! `earliest`, which is `i64::MAX` if no field has an expiry.
//!
//! A *large* hash has an object for each field (see `large`).
//!
//! A field that has expired does not exist for any command. It is removed when its hash is looked
//! up, some fields at a time, or by background cleaning.
//!
//! | file | what |
//! |---|---|
//! | this one | reading hashes, whatever their encoding |
//! | `compact`, `large` | the two encodings |
//! | `update` | setting and removing fields |
//! | `field_expiry` | expiries of fields |

mod compact;
mod field_expiry;
mod large;
#[cfg(test)]
mod tests;
mod update;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{self, Dict, DictCursor};
use cowherd_arena::containers::packed::Element;
use cowherd_arena::containers::tree;
use cowherd_arena::{Audit, Corruption, Mem, OutOfMemory};

use super::collection::{CollectionType, ElementView, LargeHeader, ValueCursor, WrongType};
use super::entry::{EntryHeader, VOLATILE, ValueStorage, ValueType};
use super::shards::Entry;
use super::{DbIndex, Key, Shards, Value};

use compact::Pairs;
pub use field_expiry::FieldExpiryOutcome;
use large::{FieldHeader, LargeHash};

/// The hash type.
pub(super) struct Hash;

/// The header of a large hash.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HashHeader {
    large: LargeHeader,
    fields: dict::DictRoot,
    expiries: tree::TreeRoot,
}

const _: () = assert!(size_of::<HashHeader>() == 72);

/// The value of a field, and its expiry.
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

impl CollectionType for Hash {
    const HEADER: u64 = size_of::<HashHeader>() as u64;

    fn init_large(mem: &mut Mem<'_>, header: u64) {
        LargeHash::init(mem, header);
    }

    fn encoding_name(head: &EntryHeader) -> &'static str {
        match (head.storage, head.encoding) {
            (ValueStorage::Large, _) => "hashtable",
            (_, VOLATILE) => "listpackex",
            _ => "listpack",
        }
    }

    fn verify_compact(head: &EntryHeader, bytes: &[u8]) -> Result<(), String> {
        compact::verify(head, bytes)
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        head: Option<&EntryHeader>,
        header: u64,
        is_deferred: bool,
    ) -> Result<(), Corruption> {
        let expires = large::verify(mem, audit, header, is_deferred)?;
        if head.is_some_and(|head| head.encoding > VOLATILE || expires && head.encoding != VOLATILE)
        {
            return Err(Corruption::at(
                header,
                format!("a hash of a wrong encoding at {header:#x}"),
            ));
        }
        Ok(())
    }

    fn each_element(
        mem: &Mem<'_>,
        at: u64,
        head: &EntryHeader,
        each: &mut dyn FnMut(ElementView<'_>),
    ) {
        if head.is_large() {
            let large = LargeHash::at(head.large_header(mem, at));
            large.fields().scan(mem, DictCursor::default(), usize::MAX, |item| {
                let field = FieldHeader::load(mem, item);
                let name = Value::Bytes(field.name(mem, item));
                let value = Value::Bytes(field.value(mem, item));
                each(ElementView::Field { name, value, expiry: field.expiry(mem, item) });
            });
        } else {
            let bytes = mem.bytes(head.value_offset(mem, at), head.value_len);
            for (name, value, expiry) in Pairs::of(head, bytes).iter() {
                each(ElementView::Field { name: name.into(), value: value.into(), expiry });
            }
        }
    }

    fn table(header: u64) -> Option<Dict> {
        Some(LargeHash::at(header).fields())
    }

    fn evacuate_some(
        mem: &mut Mem<'_>,
        header: u64,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor> {
        LargeHash::at(header).evacuate_some(mem, cursor, most)
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        LargeHash::at(header).copy(mem)
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        LargeHash::at(header).free_some(mem, most)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        LargeHash::at(header).fields().len(mem)
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        LargeHash::at(header).usage(mem, samples)
    }
}

/// Whether a field with this expiry exists at `now`.
#[inline]
fn is_alive(expiry: Option<i64>, now: i64) -> bool {
    expiry.is_none_or(|at| at > now)
}

impl Shards<'_> {
    /// The hash of a key; `None` if there is no such key. Updates the access clock. Removes some of
    /// the expired fields first, and the key with its last field.
    ///
    /// # Errors
    /// The value is not a hash.
    #[inline]
    pub fn hash(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        match self.lookup_kind(db, key, ValueType::Hash)? {
            Some(entry) if entry.head.encoding == VOLATILE => {
                Ok(self.without_expired(db, key, entry))
            }
            entry => Ok(entry),
        }
    }

    /// As [`Self::hash`], and counts a hit or a miss.
    ///
    /// # Errors
    /// The value is not a hash.
    #[inline]
    pub fn hash_read(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        match self.lookup_kind_read(db, key, ValueType::Hash)? {
            Some(entry) if entry.head.encoding == VOLATILE => {
                Ok(self.without_expired(db, key, entry))
            }
            entry => Ok(entry),
        }
    }

    #[inline]
    fn large_hash(&self, entry: &Entry) -> LargeHash {
        LargeHash::at(entry.head.large_header(&self.held.view(entry.shard), entry.at))
    }

    #[inline]
    fn pairs(&self, entry: &Entry) -> Pairs<'_> {
        Pairs::of(&entry.head, self.run(entry))
    }

    /// Number of fields, including expired fields that are not removed yet.
    pub fn hash_len(&self, entry: &Entry) -> u64 {
        if entry.head.is_large() {
            self.large_hash(entry).fields().len(&self.held.view(entry.shard))
        } else {
            entry.head.count
        }
    }

    /// Number of fields that [`Self::hash_each`] visits, if that is known without counting.
    pub fn hash_exact_len(&self, entry: &Entry) -> Option<usize> {
        let len = (entry.head.encoding != VOLATILE).then(|| self.hash_len(entry))?;
        usize::try_from(len).ok()
    }

    /// The value and the expiry of a field.
    #[inline]
    pub fn hash_get(&self, entry: &Entry, field: &[u8]) -> Option<FieldValue<'_>> {
        let found = if entry.head.is_large() {
            let mem = self.held.view(entry.shard);
            let at = self.large_hash(entry).find(&mem, field)?.item;
            let head = FieldHeader::load(&mem, at);
            let value = mem.slice(at + head.value_at(), head.value_len);
            (Value::Bytes(value), head.expiry(&mem, at))
        } else {
            self.pairs(entry).get(field)?
        };
        is_alive(found.1, self.now).then_some(found)
    }

    /// Calls `each` with all fields and their values.
    pub fn hash_each<'s>(&'s self, entry: &Entry, each: impl FnMut(Value<'s>, Value<'s>)) {
        self.hash_scan(entry, DictCursor::default(), usize::MAX, each);
    }

    /// Calls `each` with fields and their values from `cursor` on: at least `least` fields if there
    /// are so many, all fields of a compact hash. Returns the cursor to continue with.
    pub fn hash_scan<'s>(
        &'s self,
        entry: &Entry,
        cursor: DictCursor,
        least: usize,
        mut each: impl FnMut(Value<'s>, Value<'s>),
    ) -> Option<DictCursor> {
        if entry.head.is_large() {
            let mem = self.held.view(entry.shard);
            return self.large_hash(entry).fields().scan(&mem, cursor, least, |at| {
                let head = FieldHeader::load(&mem, at);
                if is_alive(head.expiry(&mem, at), self.now) {
                    let name = mem.slice(at + head.name_at(), head.name_len);
                    let value = mem.slice(at + head.value_at(), head.value_len);
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

    /// A random field of a large hash with its value; each call of `random` returns a new random
    /// number. `None` if the hash is compact, or if only expired fields were found.
    pub fn hash_random(
        &self,
        entry: &Entry,
        mut random: impl FnMut() -> u64,
    ) -> Option<(Value<'_>, Value<'_>)> {
        /// Expired fields are removed soon, so that most tries find a field that exists.
        const TRIES: usize = 100;
        if !entry.head.is_large() {
            return None;
        }
        let mem = self.held.view(entry.shard);
        let fields = self.large_hash(entry).fields();
        (0..TRIES).find_map(|_| {
            let at = fields.random(&mem, &mut random)?;
            let head = FieldHeader::load(&mem, at);
            is_alive(head.expiry(&mem, at), self.now).then(|| {
                let name = mem.slice(at + head.name_at(), head.name_len);
                let value = mem.slice(at + head.value_at(), head.value_len);
                (Value::Bytes(name), Value::Bytes(value))
            })
        })
    }
}
