//! Large sets: a dictionary of members, each an object that is one packed element.

use std::mem::offset_of;

use crate::keyspace::Value;
use crate::keyspace::entry::{ByPlace, ValueKind, hash};
use crate::keyspace::values::{Common, Type};
use cowherd_arena::containers::dict::{self, Checked, Cursor, Dict, Hashed, Items};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, ReadOnly, allocated_size};

use super::{Header, Set};

/// Bytes that tell how long an element is; no object is smaller.
const START: u64 = 16;

/// A large set, by its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    header: u64,
}

/// Recognises a member.
pub(super) struct ByMember<'e>(pub Encoded<'e>);

impl Items for ByMember<'_> {
    #[inline]
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        let (head, data) = (self.0.head(), self.0.data());
        // Equal heads say equal lengths.
        mem.bytes(item, head.len() as u64) == head
            && mem.bytes(item + head.len() as u64, data.len() as u64) == data
    }
}

/// Tells the hash of a member's object.
pub(super) struct ByHash;

impl Hashed for ByHash {
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64 {
        hash(mem.arena(), element(mem, item).bytes(&mut itoa::Buffer::new()))
    }
}

/// Bytes of a member's object.
#[inline]
fn size(mem: &Mem<'_>, item: u64) -> u64 {
    let size = packed::size(mem.bytes(item, START));
    size.unwrap_or_else(|| no_member(item)) as u64
}

#[cold]
fn no_member(item: u64) -> ! {
    panic!("keyspace: there is no member of a set at {item:#x}")
}

/// The member at `item`.
#[inline]
pub(super) fn element<'m>(mem: &'m Mem<'_>, item: u64) -> Element<'m> {
    packed::get(mem.bytes(item, size(mem, item)), 0).0
}

/// The member at `item`, for as long as the locks are borrowed.
#[inline]
pub(super) fn value<'h>(mem: &ReadOnly<'h>, item: u64) -> Value<'h> {
    super::value(packed::get(mem.slice(item, size(mem, item)), 0).0)
}

impl Large {
    /// The set whose header is at `header`.
    #[inline]
    pub const fn at(header: u64) -> Self {
        Self { header }
    }

    /// Its header.
    pub const fn header(self) -> u64 {
        self.header
    }

    /// The dictionary of its members.
    #[inline]
    pub const fn members(self) -> Dict {
        Dict::at(Offset::new(self.header + offset_of!(Header, members) as u64))
    }

    /// A set without members.
    pub fn create(mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let header = mem.allocate(Set::HEADER)?;
        let empty = Header { common: Common::new(ValueKind::Set), members: dict::Root::EMPTY };
        mem.write(Offset::new(header), empty);
        Ok(Self { header })
    }

    /// Frees all of a set that nothing refers to.
    pub fn free(self, mem: &mut Mem<'_>) {
        while !self.free_some(mem, usize::MAX) {}
        mem.release(self.header, Set::HEADER);
    }

    /// Frees about `most` members; tells whether all are freed.
    pub fn free_some(self, mem: &mut Mem<'_>, most: usize) -> bool {
        self.members().drain(mem, most, |mem, item| {
            let size = size(mem, item);
            mem.release(item, size);
        })
    }

    /// Adds a member; returns its place, or none if it was there already.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn add(self, mem: &mut Mem<'_>, member: &[u8]) -> Result<Option<u64>, OutOfMemory> {
        let (wanted, hash) = (ByMember(Encoded::of(member)), hash(mem.arena(), member));
        if self.members().find(mem, hash, &wanted).is_some() {
            return Ok(None);
        }
        let size = wanted.0.len() as u64;
        let item = mem.allocate(size)?;
        wanted.0.write_to(mem.bytes_mut(item, size));
        if let Err(full) = self.members().insert(mem, hash, item, &ByHash) {
            mem.release(item, size);
            return Err(full);
        }
        Ok(Some(item))
    }

    /// Removes a member; tells whether it was there.
    pub fn remove(self, mem: &mut Mem<'_>, member: &[u8]) -> bool {
        let hash = hash(mem.arena(), member);
        self.remove_found(mem, hash, &ByMember(Encoded::of(member)))
    }

    /// Removes the member at `item`.
    pub fn remove_at(self, mem: &mut Mem<'_>, item: u64) {
        let hash = ByHash.hash(mem, item);
        self.remove_found(mem, hash, &ByPlace(item));
    }

    fn remove_found(self, mem: &mut Mem<'_>, hash: u64, wanted: &impl Items) -> bool {
        let Some(found) = self.members().find(mem, hash, wanted) else { return false };
        self.members().remove(mem, hash, found);
        let size = size(mem, found.item);
        mem.release(found.item, size);
        true
    }

    /// A copy in the memory of `mem`, whichever shard this one is in.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn copy(self, mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let copy = Self::create(mem)?;
        let mut items = Vec::new();
        self.members().scan(mem, Cursor::default(), usize::MAX, |item| items.push(item));
        for item in items {
            if let Err(full) = copy.add_copy(mem, item) {
                copy.free(mem);
                return Err(full);
            }
        }
        Ok(copy)
    }

    /// Adds a copy of a member of another set, which is not there yet.
    fn add_copy(self, mem: &mut Mem<'_>, source: u64) -> Result<(), OutOfMemory> {
        let (size, hash) = (size(mem, source), ByHash.hash(mem, source));
        let item = mem.allocate(size)?;
        mem.copy(source, item, size);
        let added = self.members().insert(mem, hash, item, &ByHash);
        added.inspect_err(|_| mem.release(item, size))
    }

    /// Bytes without the header, guessed from `samples` members; 0 are all.
    pub fn usage(self, mem: &Mem<'_>, samples: usize) -> u64 {
        /// A slot in the dictionary, with those that are empty.
        const SLOT: u64 = 12;
        let least = if samples == 0 { usize::MAX } else { samples };
        let (mut seen, mut bytes) = (0, 0);
        self.members().scan(mem, Cursor::default(), least, |item| {
            seen += 1;
            bytes += allocated_size(size(mem, item));
        });
        let root = self.members().root(mem);
        let objects = (u128::from(bytes) * u128::from(root.len)).checked_div(seen).unwrap_or(0);
        let directory = if root.depth > 0 { 8 << root.depth } else { 0 };
        u64::try_from(objects).unwrap_or(u64::MAX) + root.len * SLOT + directory
    }
}

/// Claims and checks a large set but for its header.
pub(super) fn check(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    header: u64,
    is_garbage: bool,
) -> Result<(), Corruption> {
    let place = Offset::new(Large::at(header).members().place());
    let root = dict::check(mem, audit, place, &mut Members { mem, audit })?;
    if !is_garbage && (root.len == 0 || root.drained > 0) {
        return Err(Corruption::at(header, format!("a set with {root:?}")));
    }
    Ok(())
}

struct Members<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
}

impl Checked for Members<'_, '_> {
    #[inline]
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        let capacity = self.mem.arena().capacity();
        let is_inside = |len: u64| item.checked_add(len).is_some_and(|end| end <= capacity);
        if !is_inside(START) {
            let reason = format!("a member of a set at {item:#x}, outside the arena");
            return Err(Corruption::at(0, reason));
        }
        let damaged =
            || Err(Corruption::at(item, format!("a damaged member of a set at {item:#x}")));
        let size = packed::size(self.mem.bytes(item, START)).map(|size| size as u64);
        let Some(size) = size.filter(|size| is_inside(*size)) else { return damaged() };
        self.audit.claim(item, size, self.mem.shard())?;
        let bytes = self.mem.bytes(item, size);
        if packed::check(bytes) != Some(1) {
            return damaged();
        }
        let text = packed::get(bytes, 0).0;
        Ok(hash(self.mem.arena(), text.bytes(&mut itoa::Buffer::new())))
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        element(self.mem, one) == element(self.mem, other)
    }
}
