//! Large hashes: a dictionary of field objects, and a tree of those that expire.
//!
//! A change makes a new object, links it, and keeps the old one until it is committed: only so can
//! it be undone without any memory.

use std::cmp::Ordering;
use std::mem::offset_of;

use crate::keyspace::MAX_VALUE;
use crate::keyspace::entry::{ByPlace, ValueKind, hash};
use crate::keyspace::values::{Common, Type};
use cowherd_arena::containers::dict::{self, Cursor, Dict, Found};
use cowherd_arena::containers::tree::{self, Ties, Tree};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::field::{ByHash, ByName, HEAD, Shape};
use super::{Hash, Header};

/// A large hash, by its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    header: u64,
}

/// A field that was put, and what it was put in place of.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldReplacement {
    hash: u64,
    new: u64,
    old: Option<u64>,
}

/// Orders fields of one expiry by their places.
struct AtPlace(u64);

impl Ties for AtPlace {
    fn compare(&self, _: &Mem<'_>, item: u64) -> Ordering {
        self.0.cmp(&item)
    }
}

/// Expiries are after 1970, so that their order is that of the numbers.
const fn order(expiry: i64) -> u64 {
    expiry.cast_unsigned()
}

impl Large {
    /// The hash whose header is at `header`.
    #[inline]
    pub const fn at(header: u64) -> Self {
        Self { header }
    }

    /// Its header.
    pub const fn header(self) -> u64 {
        self.header
    }

    /// The dictionary of its fields.
    #[inline]
    pub const fn fields(self) -> Dict {
        Dict::at(Offset::new(self.header + offset_of!(Header, fields) as u64))
    }

    /// The tree of those that expire.
    pub const fn expiries(self) -> Tree {
        Tree::at(Offset::new(self.header + offset_of!(Header, expiries) as u64))
    }

    /// A hash without fields.
    pub fn create(mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let header = mem.allocate(Hash::HEADER)?;
        let (fields, expiries) = (dict::Root::EMPTY, tree::Root::EMPTY);
        let common = Common::new(ValueKind::Hash);
        mem.write(Offset::new(header), Header { common, fields, expiries });
        Ok(Self { header })
    }

    /// Frees all of a hash that nothing refers to.
    pub fn free(self, mem: &mut Mem<'_>) {
        while !self.free_some(mem, usize::MAX) {}
        mem.release(self.header, Hash::HEADER);
    }

    /// Frees about `most` fields; tells whether all are freed.
    pub fn free_some(self, mem: &mut Mem<'_>, most: usize) -> bool {
        self.expiries().drain(mem, most, |_, _| {})
            && self.fields().drain(mem, most, |mem, at| {
                let shape = Shape::load(mem, at);
                mem.release(at, shape.len());
            })
    }

    /// A field.
    #[inline]
    pub fn find(self, mem: &Mem<'_>, name: &[u8]) -> Option<Found> {
        self.find_hashed(mem, name, hash(mem.arena(), name))
    }

    /// A field, by the hash of its name too.
    #[inline]
    pub fn find_hashed(self, mem: &Mem<'_>, name: &[u8], hash: u64) -> Option<Found> {
        self.fields().find(mem, hash, &ByName(name))
    }

    /// Sets a field's value where it is, if it has room for it there and expires as it did; tells
    /// whether that was so. `expiry`: the one that it has afterwards.
    #[inline]
    pub fn overwrite(self, mem: &mut Mem<'_>, at: u64, value: &[u8], expiry: Option<i64>) -> bool {
        let old = Shape::load(mem, at);
        let new = Shape { value_len: value.len() as u64, ..old };
        if old.expiry(mem, at) != expiry || allocated_size(new.len()) != allocated_size(old.len()) {
            return false;
        }
        if new != old {
            new.store(mem, at);
        }
        if !value.is_empty() {
            mem.bytes_mut(at + new.value_at(), new.value_len).copy_from_slice(value);
        }
        true
    }

    /// Puts a field with a value and an expiry in place of the one that was found; what it was
    /// before stays until [`Self::commit`] or comes back by [`Self::undo`].
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
        found: Option<Found>,
    ) -> Result<FieldReplacement, OutOfMemory> {
        let shape = Shape {
            has_expiry: expiry.is_some(),
            name_len: name.len() as u64,
            value_len: value.len() as u64,
        };
        let at = mem.allocate(shape.len())?;
        mem.bytes_mut(at + shape.name_at(), shape.name_len).copy_from_slice(name);
        mem.bytes_mut(at + shape.value_at(), shape.value_len).copy_from_slice(value);
        self.link(mem, at, shape, expiry, hash, found)
    }

    /// Puts a copy of the field object `source`, of this or another hash, with an expiry.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn put_copy(
        self,
        mem: &mut Mem<'_>,
        source: u64,
        expiry: Option<i64>,
    ) -> Result<FieldReplacement, OutOfMemory> {
        let old = Shape::load(mem, source);
        let shape = Shape { has_expiry: expiry.is_some(), ..old };
        let hash = hash(mem.arena(), old.name(mem, source));
        let at = mem.allocate(shape.len())?;
        let both = shape.name_len + shape.value_len;
        mem.copy(source + old.name_at(), at + shape.name_at(), both);
        let found = self.fields().find(mem, hash, &ByName(shape.name(mem, at)));
        self.link(mem, at, shape, expiry, hash, found)
    }

    /// Links an object that has its name and value.
    fn link(
        self,
        mem: &mut Mem<'_>,
        at: u64,
        shape: Shape,
        expiry: Option<i64>,
        hash: u64,
        found: Option<Found>,
    ) -> Result<FieldReplacement, OutOfMemory> {
        shape.store(mem, at);
        if let Some(expiry) = expiry {
            shape.set_expiry(mem, at, expiry);
            if let Err(full) = self.expiries().insert(mem, order(expiry), at, &AtPlace(at)) {
                mem.release(at, shape.len());
                return Err(full);
            }
        }
        let put = FieldReplacement { hash, new: at, old: found.map(|found| found.item) };
        match found {
            Some(found) => self.fields().replace(mem, found, at),
            None => {
                if let Err(full) = self.fields().insert(mem, hash, at, &ByHash) {
                    self.release(mem, at);
                    return Err(full);
                }
            }
        }
        Ok(put)
    }

    /// Frees what a field was before it was put.
    pub fn commit(self, mem: &mut Mem<'_>, put: &FieldReplacement) {
        if let Some(old) = put.old {
            self.release(mem, old);
        }
    }

    /// Lets a field be what it was before it was put. Later ones are undone before.
    pub fn undo(self, mem: &mut Mem<'_>, put: &FieldReplacement) {
        if let Some(found) = self.fields().find(mem, put.hash, &ByPlace(put.new)) {
            match put.old {
                Some(old) => self.fields().replace(mem, found, old),
                None => self.fields().remove(mem, put.hash, found),
            }
        }
        self.release(mem, put.new);
    }

    /// Removes a field that was found.
    pub fn remove(self, mem: &mut Mem<'_>, hash: u64, found: Found) {
        self.fields().remove(mem, hash, found);
        self.release(mem, found.item);
    }

    /// Removes the field object at `at`.
    pub fn remove_at(self, mem: &mut Mem<'_>, at: u64) {
        let hash = dict::Hashed::hash(&ByHash, mem, at);
        if let Some(found) = self.fields().find(mem, hash, &ByPlace(at)) {
            self.remove(mem, hash, found);
        }
    }

    /// Frees a field that is in the dictionary no more.
    fn release(self, mem: &mut Mem<'_>, at: u64) {
        let shape = Shape::load(mem, at);
        if let Some(expiry) = shape.expiry(mem, at) {
            self.expiries().remove(mem, order(expiry), &AtPlace(at));
        }
        mem.release(at, shape.len());
    }

    /// The field that expires first, and when.
    pub fn earliest(self, mem: &Mem<'_>) -> Option<(i64, u64)> {
        self.expiries().first(mem).map(|first| (first.key.cast_signed(), first.item))
    }

    /// A copy in the memory of `mem`, whichever shard this one is in.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn copy(self, mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let copy = Self::create(mem)?;
        let mut items = Vec::new();
        self.fields().scan(mem, Cursor::default(), usize::MAX, |item| items.push(item));
        for item in items {
            let expiry = Shape::load(mem, item).expiry(mem, item);
            if let Err(full) = copy.put_copy(mem, item, expiry) {
                copy.free(mem);
                return Err(full);
            }
        }
        Ok(copy)
    }

    /// Bytes without the header, guessed from `samples` fields; 0 are all.
    pub fn usage(self, mem: &Mem<'_>, samples: usize) -> u64 {
        /// A slot in the dictionary, with those that are empty.
        const SLOT: u64 = 12;
        /// An entry in the tree, with room for others.
        const LEAF: u64 = 24;
        let least = if samples == 0 { usize::MAX } else { samples };
        let (mut seen, mut bytes) = (0, 0);
        self.fields().scan(mem, Cursor::default(), least, |at| {
            seen += 1;
            bytes += allocated_size(Shape::load(mem, at).len());
        });
        let root = self.fields().root(mem);
        let objects = (u128::from(bytes) * u128::from(root.len)).checked_div(seen).unwrap_or(0);
        let directory = if root.depth > 0 { 8 << root.depth } else { 0 };
        let objects = u64::try_from(objects).unwrap_or(u64::MAX);
        objects + root.len * SLOT + directory + self.expiries().len(mem) * LEAF
    }
}

/// Claims and checks a large hash but for its header; tells whether a field of it expires.
pub(super) fn check(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    header: u64,
    is_garbage: bool,
) -> Result<bool, Corruption> {
    let large = Large::at(header);
    let mut fields = Fields { mem, audit, expiring: Vec::new() };
    let place = Offset::new(large.fields().place());
    let root = dict::check(mem, audit, place, &mut fields)?;
    let mut expiring = fields.expiring;
    expiring.sort_unstable();
    let place = Offset::new(header + offset_of!(Header, expiries) as u64);
    // A tree that passes has no entry twice.
    let tree = tree::check(mem, audit, place, &mut Expiring { mem, fields: &expiring })?;
    let is_whole = root.len > 0 && root.drained == 0 && tree.len == expiring.len() as u64;
    if !is_garbage && !is_whole {
        let reason = format!("hash at {header:#x}: {} fields expire; {root:?}, {tree:?}", {
            expiring.len()
        });
        return Err(Corruption::at(header, reason));
    }
    Ok(!expiring.is_empty())
}

/// Checks fields by the dictionary: each is claimed.
struct Fields<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    /// Those that expire.
    expiring: Vec<u64>,
}

impl dict::Checked for Fields<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        if item.checked_add(HEAD).is_none_or(|end| end > self.mem.arena().capacity()) {
            return Err(Corruption::at(0, format!("a field at {item:#x}, outside the arena")));
        }
        let shape = Shape::load(self.mem, item);
        if shape.name_len > MAX_VALUE || shape.value_len > MAX_VALUE {
            return Err(Corruption::at(item, format!("impossible field at {item:#x}: {shape:?}")));
        }
        self.audit.claim(item, shape.len(), self.mem.shard())?;
        if let Some(expiry) = shape.expiry(self.mem, item) {
            if expiry <= 0 {
                return Err(Corruption::at(
                    item,
                    format!("field at {item:#x} expires at {expiry}"),
                ));
            }
            self.expiring.push(item);
        }
        Ok(dict::Hashed::hash(&ByHash, self.mem, item))
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        let name = |at| Shape::load(self.mem, at).name(self.mem, at);
        name(one) == name(other)
    }
}

/// Checks fields by the tree: they are in the dictionary.
struct Expiring<'a, 'h> {
    mem: &'a Mem<'h>,
    /// The fields that expire, in ascending order.
    fields: &'a [u64],
}

impl tree::Checked for Expiring<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, entry: tree::Entry) -> Result<(), Corruption> {
        let item = entry.item;
        let is_one = self.fields.binary_search(&item).is_ok()
            && Shape::load(self.mem, item).expiry(self.mem, item).map(order) == Some(entry.key);
        match is_one {
            true => Ok(()),
            false => Err(Corruption::at(item, format!("no field at {item:#x} expires then"))),
        }
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        one.cmp(&other)
    }
}
