//! Large hashes: a dictionary of field objects, and a tree of those that expire.
//!
//! ```text
//! header:  | large header 16 | fields: dictionary's root 32 | expiries: tree's root 24 |
//!                                  |                              |
//!                                  +------> field <---------------+ if it has an expiry
//!
//! field:   | name len 31, has expiry 1 | value len 32 | expiry 0 or 8 | name | value |
//! ```
//!
//! A change allocates a new field object, links it, and keeps the old one until the change is
//! committed: only so can it be undone without memory.

use std::cmp::Ordering;
use std::mem::offset_of;

use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::keyspace::MAX_VALUE;
use crate::keyspace::collection::{
    LargeHeader, ValueCursor, build_large, evacuate_dict, evacuate_tree,
};
use crate::keyspace::entry::{ByOffset, ValueType, hash};
use crate::keyspace::values;
use cowherd_arena::containers::dict::{self, Dict, DictCursor, FoundItem, Hashed, ItemMatcher};
use cowherd_arena::containers::tree::{self, TieOrder, Tree};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::{Hash, HashHeader};

/// A large hash, by its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct LargeHash {
    header: u64,
}

/// A field object that was put, and the one that it replaces, which is kept until the change is
/// committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldReplacement {
    hash: u64,
    new: u64,
    old: Option<u64>,
}

/// Orders fields of one expiry by their offsets.
struct ByFieldOffset(u64);

impl TieOrder for ByFieldOffset {
    fn compare(&self, _: &Mem<'_>, item: u64) -> Ordering {
        self.0.cmp(&item)
    }
}

/// The tree's key of an expiry. Expiries are positive, so that the order stays.
const fn order(expiry: i64) -> u64 {
    expiry.cast_unsigned()
}

impl LargeHash {
    /// The hash whose header is at `header`.
    #[inline]
    pub const fn at(header: u64) -> Self {
        Self { header }
    }

    /// The dictionary of all fields.
    #[inline]
    pub const fn fields(self) -> Dict {
        Dict::at(Offset::new(self.header + offset_of!(HashHeader, fields) as u64))
    }

    /// The tree of the fields with an expiry.
    pub const fn expiries(self) -> Tree {
        Tree::at(Offset::new(self.header + offset_of!(HashHeader, expiries) as u64))
    }

    /// Writes the header of a hash without fields.
    pub fn init(mem: &mut Mem<'_>, header: u64) {
        let (fields, expiries) = (dict::DictRoot::EMPTY, tree::TreeRoot::EMPTY);
        let large = LargeHeader::new(ValueType::Hash);
        mem.write(Offset::new(header), HashHeader { large, fields, expiries });
    }

    /// Frees about `most` fields; tells whether that was all.
    pub fn free_some(self, mem: &mut Mem<'_>, most: usize) -> bool {
        self.expiries().drain(mem, most, |_, _| {})
            && self.fields().drain(mem, most, |mem, at| {
                let head = FieldHeader::load(mem, at);
                mem.release(at, head.len());
            })
    }

    /// Moves fields (part 0) and nodes of the tree (part 1); see `CollectionType::evacuate_some`.
    pub fn evacuate_some(
        self,
        mem: &mut Mem<'_>,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor> {
        if cursor.part == 0 {
            let (items, next) = evacuate_dict(mem, self.fields(), cursor.places[0], most);
            items.into_iter().for_each(|item| self.evacuate_field(mem, item));
            return Some(match next {
                Some(place) => ValueCursor { places: [place, 0, 0], ..cursor },
                None => ValueCursor::part(1),
            });
        }
        let rank = evacuate_tree(mem, self.expiries(), cursor.places[0], most)?;
        Some(ValueCursor { places: [rank, 0, 0], ..cursor })
    }

    fn evacuate_field(self, mem: &mut Mem<'_>, at: u64) {
        let head = FieldHeader::load(mem, at);
        let hash = FieldHasher.hash(mem, at);
        let Some(found) = self.fields().find(mem, hash, &ByOffset(at)) else { return };
        let Some(to) = mem.copy_out(at, head.len()) else { return };
        // Fields of one expiry are in the order of their offsets.
        if let Some(expiry) = head.expiry(mem, at) {
            if self.expiries().insert(mem, order(expiry), to, &ByFieldOffset(to)).is_err() {
                mem.release(to, head.len());
                return;
            }
            self.expiries().remove(mem, order(expiry), &ByFieldOffset(at));
        }
        self.fields().replace(mem, found, to);
        mem.release(at, head.len());
    }

    #[inline]
    pub fn find(self, mem: &Mem<'_>, name: &[u8]) -> Option<FoundItem> {
        self.find_hashed(mem, name, hash(mem.arena(), name))
    }

    /// As [`Self::find`], with the hash of the name.
    #[inline]
    pub fn find_hashed(self, mem: &Mem<'_>, name: &[u8], hash: u64) -> Option<FoundItem> {
        self.fields().find(mem, hash, &ByFieldName(name))
    }

    /// Overwrites a field's value if the object keeps its size and `expiry` is the present one;
    /// tells whether it did.
    #[inline]
    pub fn overwrite(self, mem: &mut Mem<'_>, at: u64, value: &[u8], expiry: Option<i64>) -> bool {
        let old = FieldHeader::load(mem, at);
        let new = FieldHeader { value_len: value.len() as u64, ..old };
        if old.expiry(mem, at) != expiry || allocated_size(new.len()) != allocated_size(old.len()) {
            return false;
        }
        if new != old {
            new.store(mem, at);
        }
        values::overwrite(mem, at + new.value_at(), old.value_len, value);
        true
    }

    /// Puts a new field object in place of the one that was found. The old object is kept until
    /// [`Self::commit`] or [`Self::undo`].
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn put(
        self,
        mem: &mut Mem<'_>,
        name: &[u8],
        value: &[u8],
        expiry: Option<i64>,
        hash: u64,
        found: Option<FoundItem>,
    ) -> Result<FieldReplacement, OutOfMemory> {
        let head = FieldHeader {
            has_expiry: expiry.is_some(),
            name_len: name.len() as u64,
            value_len: value.len() as u64,
        };
        let at = mem.allocate(head.len())?;
        mem.bytes_mut(at + head.name_at(), head.name_len).copy_from_slice(name);
        mem.bytes_mut(at + head.value_at(), head.value_len).copy_from_slice(value);
        self.link(mem, at, head, expiry, hash, found)
    }

    /// Puts a copy of the field object `source`, of this or another hash, with another expiry.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn put_copy(
        self,
        mem: &mut Mem<'_>,
        source: u64,
        expiry: Option<i64>,
    ) -> Result<FieldReplacement, OutOfMemory> {
        let old = FieldHeader::load(mem, source);
        let head = FieldHeader { has_expiry: expiry.is_some(), ..old };
        let hash = hash(mem.arena(), old.name(mem, source));
        let at = mem.allocate(head.len())?;
        let both = head.name_len + head.value_len;
        mem.copy(source + old.name_at(), at + head.name_at(), both);
        let found = self.fields().find(mem, hash, &ByFieldName(head.name(mem, at)));
        self.link(mem, at, head, expiry, hash, found)
    }

    /// Links a field object whose name and value are written.
    fn link(
        self,
        mem: &mut Mem<'_>,
        at: u64,
        head: FieldHeader,
        expiry: Option<i64>,
        hash: u64,
        found: Option<FoundItem>,
    ) -> Result<FieldReplacement, OutOfMemory> {
        head.store(mem, at);
        if let Some(expiry) = expiry {
            head.set_expiry(mem, at, expiry);
            if let Err(full) = self.expiries().insert(mem, order(expiry), at, &ByFieldOffset(at)) {
                mem.release(at, head.len());
                return Err(full);
            }
        }
        let put = FieldReplacement { hash, new: at, old: found.map(|found| found.item) };
        match found {
            Some(found) => self.fields().replace(mem, found, at),
            None => {
                if let Err(full) = self.fields().insert(mem, hash, at, &FieldHasher) {
                    self.release(mem, at);
                    return Err(full);
                }
            }
        }
        Ok(put)
    }

    /// Frees the object that was replaced.
    pub fn commit(self, mem: &mut Mem<'_>, put: &FieldReplacement) {
        if let Some(old) = put.old {
            self.release(mem, old);
        }
    }

    /// Restores the object that was replaced. Several replacements are undone in reverse order.
    pub fn undo(self, mem: &mut Mem<'_>, put: &FieldReplacement) {
        let found = self.fields().find(mem, put.hash, &ByOffset(put.new));
        let found = found.expect("invariant: a field that was put is in the dictionary");
        match put.old {
            Some(old) => self.fields().replace(mem, found, old),
            None => self.fields().remove(mem, put.hash, found),
        }
        self.release(mem, put.new);
    }

    /// Removes a field that was found.
    pub fn remove(self, mem: &mut Mem<'_>, hash: u64, found: FoundItem) {
        self.fields().remove(mem, hash, found);
        self.release(mem, found.item);
    }

    /// Removes the field object at `at`.
    pub fn remove_at(self, mem: &mut Mem<'_>, at: u64) {
        let hash = FieldHasher.hash(mem, at);
        let found = self.fields().find(mem, hash, &ByOffset(at));
        self.remove(mem, hash, found.expect("invariant: every field is in the dictionary"));
    }

    /// Frees a field object that the dictionary does not refer to any more.
    fn release(self, mem: &mut Mem<'_>, at: u64) {
        let head = FieldHeader::load(mem, at);
        if let Some(expiry) = head.expiry(mem, at) {
            self.expiries().remove(mem, order(expiry), &ByFieldOffset(at));
        }
        mem.release(at, head.len());
    }

    /// The earliest expiry and its field.
    pub fn earliest(self, mem: &Mem<'_>) -> Option<(i64, u64)> {
        self.expiries().first(mem).map(|first| (first.key.cast_signed(), first.item))
    }

    /// Copies the hash, which may be in another shard, to the memory of `mem`; returns the copy's
    /// header.
    pub fn copy(self, mem: &mut Mem<'_>) -> Result<u64, OutOfMemory> {
        build_large::<Hash>(mem, |mem, header| {
            let mut items = Vec::new();
            self.fields().scan(mem, DictCursor::default(), usize::MAX, |item| items.push(item));
            for item in items {
                let expiry = FieldHeader::load(mem, item).expiry(mem, item);
                Self::at(header).put_copy(mem, item, expiry)?;
            }
            Ok(())
        })
    }

    /// Bytes without the header, estimated from `samples` fields; 0 means all.
    pub fn usage(self, mem: &Mem<'_>, samples: usize) -> u64 {
        /// Bytes of a slot in the dictionary.
        const SLOT: u64 = 12;
        /// Bytes of an entry in the tree, with its share of a leaf that is two thirds full.
        const LEAF: u64 = 24;
        let least = if samples == 0 { usize::MAX } else { samples };
        let (mut seen, mut bytes) = (0, 0);
        self.fields().scan(mem, DictCursor::default(), least, |at| {
            seen += 1;
            bytes += allocated_size(FieldHeader::load(mem, at).len());
        });
        let root = self.fields().root(mem);
        let objects = (u128::from(bytes) * u128::from(root.len)).checked_div(seen).unwrap_or(0);
        let directory = if root.depth > 0 { 8 << root.depth } else { 0 };
        let objects = u64::try_from(objects).unwrap_or(u64::MAX);
        objects + root.len * SLOT + directory + self.expiries().len(mem) * LEAF
    }
}

/// Claims and checks a large hash except its header; tells whether any field has an expiry.
pub(super) fn verify(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    header: u64,
    is_deferred: bool,
) -> Result<bool, Corruption> {
    let large = LargeHash::at(header);
    let mut fields = FieldChecker { mem, audit, expiring: Vec::new() };
    let place = Offset::new(large.fields().place());
    let root = dict::check(mem, audit, place, &mut fields)?;
    let mut expiring = fields.expiring;
    expiring.sort_unstable();
    let place = Offset::new(header + offset_of!(HashHeader, expiries) as u64);
    // A tree that passes has no entry twice.
    let tree =
        tree::check(mem, audit, place, &mut ExpiringFieldChecker { mem, fields: &expiring })?;
    let is_whole = root.len > 0 && root.drained == 0 && tree.len == expiring.len() as u64;
    if !is_deferred && !is_whole {
        let reason = format!("hash at {header:#x}: {} fields expire; {root:?}, {tree:?}", {
            expiring.len()
        });
        return Err(Corruption::at(header, reason));
    }
    Ok(!expiring.is_empty())
}

/// Checks the fields in the dictionary; claims each.
struct FieldChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    /// Fields with an expiry.
    expiring: Vec<u64>,
}

impl dict::CheckDictItem for FieldChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        if item.checked_add(FIELD_HEADER).is_none_or(|end| end > self.mem.arena().capacity()) {
            return Err(Corruption::at(0, format!("a field at {item:#x}, outside the arena")));
        }
        let head = FieldHeader::load(self.mem, item);
        if head.name_len > MAX_VALUE || head.value_len > MAX_VALUE {
            return Err(Corruption::at(item, format!("impossible field at {item:#x}: {head:?}")));
        }
        self.audit.claim(item, head.len(), self.mem.shard())?;
        if let Some(expiry) = head.expiry(self.mem, item) {
            if expiry <= 0 {
                return Err(Corruption::at(
                    item,
                    format!("field at {item:#x} expires at {expiry}"),
                ));
            }
            self.expiring.push(item);
        }
        Ok(FieldHasher.hash(self.mem, item))
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        let name = |at| FieldHeader::load(self.mem, at).name(self.mem, at);
        name(one) == name(other)
    }
}

/// Checks that the tree refers to fields in the dictionary.
struct ExpiringFieldChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    /// Fields with an expiry, in ascending order.
    fields: &'a [u64],
}

impl tree::CheckTreeEntry for ExpiringFieldChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, entry: tree::TreeEntry) -> Result<(), Corruption> {
        let item = entry.item;
        let is_one = self.fields.binary_search(&item).is_ok()
            && FieldHeader::load(self.mem, item).expiry(self.mem, item).map(order)
                == Some(entry.key);
        match is_one {
            true => Ok(()),
            false => Err(Corruption::at(item, format!("no field at {item:#x} expires then"))),
        }
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        one.cmp(&other)
    }
}

/// Bytes of a field's header.
const FIELD_HEADER: u64 = size_of::<RawFieldHeader>() as u64;
const HAS_EXPIRY: u32 = 1 << 31;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFieldHeader {
    name_len: U32,
    value_len: U32,
}

const _: () = assert!(FIELD_HEADER == 8);

/// The header of a field object, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FieldHeader {
    pub has_expiry: bool,
    pub name_len: u64,
    pub value_len: u64,
}

impl FieldHeader {
    /// Reads the header at `at`.
    #[inline]
    pub fn load(mem: &Mem<'_>, at: u64) -> Self {
        let head: RawFieldHeader = mem.read(Offset::new(at));
        let name = head.name_len.get();
        Self {
            has_expiry: name & HAS_EXPIRY != 0,
            name_len: u64::from(name & !HAS_EXPIRY),
            value_len: u64::from(head.value_len.get()),
        }
    }

    /// Writes the header at `at`.
    #[expect(clippy::cast_possible_truncation, reason = "lengths are at most a gigabyte")]
    pub fn store(&self, mem: &mut Mem<'_>, at: u64) {
        let flag = if self.has_expiry { HAS_EXPIRY } else { 0 };
        let head = RawFieldHeader {
            name_len: U32::new(self.name_len as u32 | flag),
            value_len: U32::new(self.value_len as u32),
        };
        mem.write(Offset::new(at), head);
    }

    /// Offset of the name in the object.
    #[inline]
    pub const fn name_at(&self) -> u64 {
        FIELD_HEADER + if self.has_expiry { 8 } else { 0 }
    }

    /// Offset of the value in the object.
    #[inline]
    pub const fn value_at(&self) -> u64 {
        self.name_at() + self.name_len
    }

    #[inline]
    pub const fn len(&self) -> u64 {
        self.value_at() + self.value_len
    }

    #[inline]
    pub fn name<'m>(&self, mem: &'m Mem<'_>, at: u64) -> &'m [u8] {
        mem.bytes(at + self.name_at(), self.name_len)
    }

    #[inline]
    pub fn value<'m>(&self, mem: &'m Mem<'_>, at: u64) -> &'m [u8] {
        mem.bytes(at + self.value_at(), self.value_len)
    }

    #[inline]
    pub fn expiry(&self, mem: &Mem<'_>, at: u64) -> Option<i64> {
        self.has_expiry.then(|| mem.read(Offset::<I64>::new(at + FIELD_HEADER)).get())
    }

    /// Writes the expiry of a field that has one.
    pub fn set_expiry(&self, mem: &mut Mem<'_>, at: u64, expiry: i64) {
        debug_assert!(self.has_expiry);
        mem.write(Offset::new(at + FIELD_HEADER), I64::new(expiry));
    }
}

/// Finds the field of a name.
pub(super) struct ByFieldName<'n>(pub &'n [u8]);

impl ItemMatcher for ByFieldName<'_> {
    #[inline]
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        let head = FieldHeader::load(mem, item);
        head.name_len == self.0.len() as u64 && head.name(mem, item) == self.0
    }
}

/// Hashes fields by their names.
pub(super) struct FieldHasher;

impl Hashed for FieldHasher {
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64 {
        hash(mem.arena(), FieldHeader::load(mem, item).name(mem, item))
    }
}
