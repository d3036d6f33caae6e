//! Large sets: a dictionary of members, each of which is an object with one packed element.

use std::mem::offset_of;

use crate::keyspace::Value;
use crate::keyspace::collection::{LargeHeader, ValueCursor, build_large, evacuate_dict};
use crate::keyspace::entry::{ByOffset, ValueType, hash};
use cowherd_arena::containers::dict::{self, CheckDictItem, Dict, DictCursor, Hashed, ItemMatcher};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, ReadOnly, allocated_size};

use super::{Set, SetHeader};

/// The first bytes of an element, which tell its length; no object is smaller.
const START: u64 = 16;

/// A large set, by its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct LargeSet {
    header: u64,
}

/// Finds a member.
pub(super) struct BySetMember<'e>(pub Encoded<'e>);

impl ItemMatcher for BySetMember<'_> {
    #[inline]
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        let (head, data) = (self.0.head(), self.0.data());
        // Equal heads imply equal lengths.
        mem.bytes(item, head.len() as u64) == head
            && mem.bytes(item + head.len() as u64, data.len() as u64) == data
    }
}

/// Hashes the objects of members.
pub(super) struct MemberHasher;

impl Hashed for MemberHasher {
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64 {
        hash(mem.arena(), element(mem, item).bytes(&mut itoa::Buffer::new()))
    }
}

/// The size of a member's object.
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

/// The member at `item`, valid as long as the locks are borrowed.
#[inline]
pub(super) fn value<'h>(mem: &ReadOnly<'h>, item: u64) -> Value<'h> {
    super::value(packed::get(mem.slice(item, size(mem, item)), 0).0)
}

impl LargeSet {
    /// The set whose header is at `header`.
    #[inline]
    pub const fn at(header: u64) -> Self {
        Self { header }
    }

    #[inline]
    pub const fn members(self) -> Dict {
        Dict::at(Offset::new(self.header + offset_of!(SetHeader, members) as u64))
    }

    /// Writes the header of a set without members.
    pub fn init(mem: &mut Mem<'_>, header: u64) {
        let large = LargeHeader::new(ValueType::Set);
        mem.write(Offset::new(header), SetHeader { large, members: dict::DictRoot::EMPTY });
    }

    /// Frees about `most` members; tells whether that was all.
    pub fn free_some(self, mem: &mut Mem<'_>, most: usize) -> bool {
        self.members().drain(mem, most, |mem, item| {
            let size = size(mem, item);
            mem.release(item, size);
        })
    }

    /// Moves members; see `CollectionType::evacuate_some`.
    pub fn evacuate_some(
        self,
        mem: &mut Mem<'_>,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor> {
        let (items, next) = evacuate_dict(mem, self.members(), cursor.places[0], most);
        for item in items {
            let hash = MemberHasher.hash(mem, item);
            let size = size(mem, item);
            let Some(found) = self.members().find(mem, hash, &ByOffset(item)) else { continue };
            if let Some(to) = mem.evacuate(item, size) {
                self.members().replace(mem, found, to);
            }
        }
        next.map(|place| ValueCursor { places: [place, 0, 0], ..cursor })
    }

    /// Adds a member; returns its object, or `None` if the set has it already.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn add(self, mem: &mut Mem<'_>, member: &[u8]) -> Result<Option<u64>, OutOfMemory> {
        let (wanted, hash) = (BySetMember(Encoded::of(member)), hash(mem.arena(), member));
        if self.members().find(mem, hash, &wanted).is_some() {
            return Ok(None);
        }
        let size = wanted.0.len() as u64;
        let item = mem.allocate(size)?;
        wanted.0.write_to(mem.bytes_mut(item, size));
        if let Err(full) = self.members().insert(mem, hash, item, &MemberHasher) {
            mem.release(item, size);
            return Err(full);
        }
        Ok(Some(item))
    }

    /// Removes a member; tells whether the set had it.
    pub fn remove(self, mem: &mut Mem<'_>, member: &[u8]) -> bool {
        let hash = hash(mem.arena(), member);
        self.remove_found(mem, hash, &BySetMember(Encoded::of(member)))
    }

    /// Removes the member at `item`.
    pub fn remove_at(self, mem: &mut Mem<'_>, item: u64) {
        let hash = MemberHasher.hash(mem, item);
        let was_there = self.remove_found(mem, hash, &ByOffset(item));
        debug_assert!(was_there, "every member is in the dictionary");
    }

    fn remove_found(self, mem: &mut Mem<'_>, hash: u64, wanted: &impl ItemMatcher) -> bool {
        let Some(found) = self.members().find(mem, hash, wanted) else { return false };
        self.members().remove(mem, hash, found);
        let size = size(mem, found.item);
        mem.release(found.item, size);
        true
    }

    /// Copies the set, which may be in another shard, to the memory of `mem`; returns the copy's
    /// header.
    pub fn copy(self, mem: &mut Mem<'_>) -> Result<u64, OutOfMemory> {
        build_large::<Set>(mem, |mem, header| {
            let mut items = Vec::new();
            self.members().scan(mem, DictCursor::default(), usize::MAX, |item| items.push(item));
            items.into_iter().try_for_each(|item| Self::at(header).add_copy(mem, item))
        })
    }

    /// Adds a copy of a member of another set, which this set does not have.
    fn add_copy(self, mem: &mut Mem<'_>, source: u64) -> Result<(), OutOfMemory> {
        let (size, hash) = (size(mem, source), MemberHasher.hash(mem, source));
        let item = mem.allocate(size)?;
        mem.copy(source, item, size);
        let added = self.members().insert(mem, hash, item, &MemberHasher);
        added.inspect_err(|_| mem.release(item, size))
    }

    /// Bytes without the header, estimated from `samples` members; 0 means all.
    pub fn usage(self, mem: &Mem<'_>, samples: usize) -> u64 {
        /// Bytes of a slot in the dictionary.
        const SLOT: u64 = 12;
        let least = if samples == 0 { usize::MAX } else { samples };
        let (mut seen, mut bytes) = (0, 0);
        self.members().scan(mem, DictCursor::default(), least, |item| {
            seen += 1;
            bytes += allocated_size(size(mem, item));
        });
        let root = self.members().root(mem);
        let objects = (u128::from(bytes) * u128::from(root.len)).checked_div(seen).unwrap_or(0);
        let directory = if root.depth > 0 { 8 << root.depth } else { 0 };
        u64::try_from(objects).unwrap_or(u64::MAX) + root.len * SLOT + directory
    }
}

/// Claims and checks a large set except its header.
pub(super) fn verify(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    header: u64,
    is_deferred: bool,
) -> Result<(), Corruption> {
    let place = Offset::new(LargeSet::at(header).members().place());
    let root = dict::check(mem, audit, place, &mut SetMemberChecker { mem, audit })?;
    if !is_deferred && (root.len == 0 || root.drained > 0) {
        return Err(Corruption::at(header, format!("a set with {root:?}")));
    }
    Ok(())
}

/// Checks the members in the dictionary; claims each.
struct SetMemberChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
}

impl CheckDictItem for SetMemberChecker<'_, '_> {
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
