//! Nodes of a stream: the bytes of some entries in the order of their ids.
//!
//! ```text
//! 0          16     20         24     26       28    32
//! +----------+------+----------+------+--------+-----+------------------------+------
//! | first id | used | capacity | live | entries |  0  | shared fields         | entry ...
//! |    16    |  4   |    4     |  2   |    2    |  4  | packed                | packed
//! +----------+------+----------+------+--------+-----+------------------------+------
//!
//! shared fields:  | number | field | field | ...
//! entry:          | flags | ms | number |          value | value | ...     with the shared fields
//!                 | flags | ms | number | pairs | field | value | ...      with fields of its own
//! flags:          1: the entry was deleted, 2: the entry has the shared fields
//! ```
//!
//! `ms` and `number` are differences to the first id. The shared fields are those of the first
//! entry. `used` is the number of bytes behind the header; `entries` counts all entries, `live`
//! those that are not deleted.
//!
//! A deleted entry keeps its id and the number of its elements, but not what they were, so that no
//! image has it; the bytes behind `used` are zero.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::keyspace::Value;
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Mem, Offset, OutOfMemory, allocated_size};

use super::StreamId;

/// Bytes of a node's header.
pub(super) const NODE_HEADER: u64 = size_of::<NodeHeader>() as u64;
/// Bytes of a new node, unless its first entry needs more.
const NEW_NODE_BYTES: u64 = 128;
const DELETED: u8 = 1;
const SHARES: u8 = 2;
/// The most bytes of a node behind its header: sizes have 32 bits.
const MAX_NODE_BYTES: u64 = 1 << 31;

const _: () = assert!(NODE_HEADER == 32);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct NodeHeader {
    pub first: StreamId,
    pub used: u32,
    pub capacity: u32,
    pub live: u16,
    pub places: u16,
    pub reserved: u32,
}

/// A node: its offset and its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub at: u64,
    pub head: NodeHeader,
}

/// An entry in a node's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeEntry<'b> {
    pub id: StreamId,
    /// The offset of the flags in the node's bytes.
    pub at: usize,
    pub is_deleted: bool,
    pub fields: StreamFields<'b>,
}

/// The fields and values of a stream's entry.
#[derive(Clone, Copy, Debug)]
pub struct StreamFields<'b> {
    bytes: &'b [u8],
    /// The offset of the shared fields, if the entry has those.
    shared: Option<usize>,
    /// The offset of the values, or of the fields and values.
    own: usize,
    pairs: usize,
}

impl<'b> StreamFields<'b> {
    /// Number of pairs.
    pub const fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there are no pairs; never true of an entry in the keyspace.
    pub const fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// The pairs of field and value.
    pub fn iter(self) -> impl Iterator<Item = (Value<'b>, Value<'b>)> {
        let (mut shared, mut own) = (self.shared, self.own);
        (0..self.pairs).map(move |_| {
            let field = match &mut shared {
                Some(at) => advance(self.bytes, at),
                None => advance(self.bytes, &mut own),
            };
            (field.into(), advance(self.bytes, &mut own).into())
        })
    }
}

#[inline]
fn advance<'b>(bytes: &'b [u8], at: &mut usize) -> Element<'b> {
    let (element, next) = packed::get(bytes, *at);
    *at = next;
    element
}

/// The flags in an element; `None` if the element holds none.
fn flags(element: Element<'_>) -> Option<u8> {
    match element {
        Element::Int(flags @ 0..=3) => u8::try_from(flags).ok(),
        _ => None,
    }
}

fn int(element: Element<'_>) -> Option<i64> {
    match element {
        Element::Int(number) => Some(number),
        Element::Bytes(_) => None,
    }
}

fn count(element: Element<'_>) -> Option<usize> {
    int(element).and_then(|count| usize::try_from(count).ok())
}

/// Iterates over the entries in a node's bytes, including deleted ones. Ends where the bytes are
/// unsound.
pub(super) struct NodeEntries<'b> {
    bytes: &'b [u8],
    first: StreamId,
    shared: usize,
    shares: usize,
    at: usize,
    /// Whether all bytes so far were sound.
    pub is_sound: bool,
}

impl<'b> NodeEntries<'b> {
    /// Starts at the first entry. The bytes are packed elements; `first` is the node's first id.
    #[inline]
    pub fn new(bytes: &'b [u8], first: StreamId) -> Self {
        let mut places =
            Self { bytes, first, shared: 0, shares: 0, at: 0, is_sound: !bytes.is_empty() };
        if places.is_sound {
            let (shares, shared) = packed::get(bytes, 0);
            places.shared = shared;
            places.at = shared;
            match count(shares) {
                Some(shares) => {
                    places.shares = shares;
                    places.is_sound = places.pass(shares).is_some();
                }
                None => places.is_sound = false,
            }
        }
        places
    }

    /// Starts at the entry whose flags are at `at`; at the first one if that is `None`.
    pub fn from(self, at: Option<usize>) -> Self {
        Self { at: at.unwrap_or(self.at), ..self }
    }

    #[inline]
    fn element(&mut self) -> Option<Element<'b>> {
        (self.at < self.bytes.len()).then(|| advance(self.bytes, &mut self.at))
    }

    #[inline]
    fn pass(&mut self, elements: usize) -> Option<()> {
        for _ in 0..elements {
            if self.at >= self.bytes.len() {
                return None;
            }
            self.at = packed::next(self.bytes, self.at);
        }
        Some(())
    }

    #[inline]
    fn read(&mut self) -> Option<NodeEntry<'b>> {
        let at = self.at;
        let flags = flags(self.element()?)?;
        let id = StreamId {
            ms: self.first.ms.wrapping_add_signed(int(self.element()?)?),
            seq: self.first.seq.wrapping_add_signed(int(self.element()?)?),
        };
        let (shared, pairs) = match flags & SHARES != 0 {
            true => (Some(self.shared), self.shares),
            false => (None, count(self.element()?)?),
        };
        let own = self.at;
        let elements = if shared.is_some() { pairs } else { pairs.checked_mul(2)? };
        self.pass(elements)?;
        let fields = StreamFields { bytes: self.bytes, shared, own, pairs };
        Some(NodeEntry { id, at, is_deleted: flags & DELETED != 0, fields })
    }
}

impl<'b> Iterator for NodeEntries<'b> {
    type Item = NodeEntry<'b>;

    #[inline]
    fn next(&mut self) -> Option<NodeEntry<'b>> {
        if !self.is_sound || self.at == self.bytes.len() {
            return None;
        }
        let place = self.read();
        self.is_sound = place.is_some();
        place
    }
}

/// How a new entry relates to the shared fields of its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sharing {
    /// The entry is the first one: its fields become the shared ones.
    Founds,
    /// The entry has the shared fields.
    Yes,
    /// The entry has other fields.
    No,
}

/// An entry to add.
pub(super) struct NewStreamEntry<I> {
    pub id: StreamId,
    pub pairs: I,
}

impl<'a, I: ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone> NewStreamEntry<I> {
    /// Calls `each` with the elements of the entry in a node whose first id is `first`: the shared
    /// fields too if it is the node's first entry, and its own fields unless it has the shared
    /// ones.
    #[inline]
    fn elements(&self, first: StreamId, how: Sharing, mut each: impl FnMut(&Encoded<'a>)) {
        let pairs = Encoded::int(self.pairs.len() as i64);
        if how == Sharing::Founds {
            each(&pairs);
            self.pairs.clone().for_each(|(field, _)| each(&Encoded::of(field)));
        }
        let shares = how != Sharing::No;
        each(&Encoded::int(if shares { i64::from(SHARES) } else { 0 }));
        each(&Encoded::int(self.id.ms.wrapping_sub(first.ms).cast_signed()));
        each(&Encoded::int(self.id.seq.wrapping_sub(first.seq).cast_signed()));
        if !shares {
            each(&pairs);
        }
        for (field, value) in self.pairs.clone() {
            if !shares {
                each(&Encoded::of(field));
            }
            each(&Encoded::of(value));
        }
    }

    /// Bytes of the elements.
    fn size(&self, first: StreamId, how: Sharing) -> u64 {
        let mut size = 0;
        self.elements(first, how, |element| size += element.len() as u64);
        size
    }

    /// Writes the elements to the beginning of `bytes`.
    fn write(&self, first: StreamId, how: Sharing, bytes: &mut [u8]) {
        let mut at = 0;
        self.elements(first, how, |element| {
            element.write_to(&mut bytes[at..]);
            at += element.len();
        });
    }

    /// Whether the entry's fields are the shared ones.
    fn shares(&self, bytes: &[u8]) -> bool {
        let (shares, mut at) = packed::get(bytes, 0);
        if count(shares) != Some(self.pairs.len()) {
            return false;
        }
        self.pairs.clone().all(|(field, _)| {
            let encoded = Encoded::of(field);
            let rest = &bytes[at..];
            at = packed::next(bytes, at);
            let (head, data) = (encoded.head(), encoded.data());
            rest.starts_with(head) && rest[head.len()..].starts_with(data)
        })
    }
}

impl Node {
    /// The node at `at`.
    #[inline]
    pub fn load(mem: &Mem<'_>, at: u64) -> Self {
        Self { at, head: mem.read(Offset::new(at)) }
    }

    fn store(&self, mem: &mut Mem<'_>) {
        mem.write(Offset::new(self.at), self.head);
    }

    /// Bytes of the node's object.
    pub fn size(&self) -> u64 {
        NODE_HEADER + u64::from(self.head.capacity)
    }

    /// The bytes behind the header.
    #[inline]
    pub fn bytes<'m>(&self, mem: &'m Mem<'_>) -> &'m [u8] {
        mem.bytes(self.at + NODE_HEADER, u64::from(self.head.used))
    }

    /// Creates a node of one entry.
    pub fn create<'a>(
        mem: &mut Mem<'_>,
        entry: &NewStreamEntry<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone>,
    ) -> Result<Self, OutOfMemory> {
        let used = narrow(entry.size(entry.id, Sharing::Founds))?;
        let size = allocated_size((NODE_HEADER + u64::from(used)).max(NEW_NODE_BYTES));
        let head = NodeHeader {
            first: entry.id,
            used,
            capacity: narrow(size - NODE_HEADER)?,
            live: 1,
            places: 1,
            reserved: 0,
        };
        let at = mem.allocate_zeroed_from(size, NODE_HEADER + u64::from(used))?;
        let node = Self { at, head };
        node.store(mem);
        let place = mem.bytes_mut(node.at + NODE_HEADER, u64::from(used));
        entry.write(entry.id, Sharing::Founds, place);
        Ok(node)
    }

    /// Whether a copy would take less memory.
    pub fn has_spare_bytes(&self) -> bool {
        allocated_size(NODE_HEADER + u64::from(self.head.used)) < self.size()
    }

    /// Copies the node to the memory of `mem`, without spare bytes.
    pub fn copy(&self, mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let size = allocated_size(NODE_HEADER + u64::from(self.head.used));
        let head = NodeHeader { capacity: narrow(size - NODE_HEADER)?, ..self.head };
        let at = mem.allocate_zeroed_from(size, NODE_HEADER + u64::from(self.head.used))?;
        let copy = Self { at, head };
        copy.store(mem);
        mem.copy(self.at + NODE_HEADER, copy.at + NODE_HEADER, u64::from(self.head.used));
        Ok(copy)
    }

    /// Adds an entry behind the last one, unless the node would then have more than `most_bytes` or
    /// `most_entries`; 0 is no limit. Returns `None` in that case, and otherwise the node, which
    /// may be a new object: then the caller frees the old one.
    pub fn append<'a>(
        &self,
        mem: &mut Mem<'_>,
        entry: &NewStreamEntry<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone>,
        most_bytes: u64,
        most_entries: u64,
    ) -> Result<Option<Self>, OutOfMemory> {
        let places = u64::from(self.head.places);
        if self.head.places == u16::MAX || most_entries != 0 && places >= most_entries {
            return Ok(None);
        }
        let first = self.head.first;
        let how = if entry.shares(self.bytes(mem)) { Sharing::Yes } else { Sharing::No };
        let (old, new) = (u64::from(self.head.used), entry.size(first, how));
        let used = old + new;
        if NODE_HEADER + used > MAX_NODE_BYTES || most_bytes != 0 && NODE_HEADER + used > most_bytes
        {
            return Ok(None);
        }
        let mut node = *self;
        if used > u64::from(self.head.capacity) {
            let most =
                if most_bytes == 0 { MAX_NODE_BYTES } else { most_bytes.min(MAX_NODE_BYTES) };
            let size = allocated_size((NODE_HEADER + used).max((2 * self.size()).min(most)));
            node.head.capacity = narrow(size - NODE_HEADER)?;
            node.at = mem.allocate_zeroed_from(size, NODE_HEADER + used)?;
            mem.copy(self.at + NODE_HEADER, node.at + NODE_HEADER, old);
        }
        node.head.used = narrow(used)?;
        node.head.places += 1;
        node.head.live += 1;
        entry.write(first, how, mem.bytes_mut(node.at + NODE_HEADER + old, new));
        node.store(mem);
        Ok(Some(node))
    }

    /// Marks the entry whose flags are at `at` as deleted, and erases its values and its own
    /// fields.
    pub fn delete(&mut self, mem: &mut Mem<'_>, at: usize) {
        let mut entries = NodeEntries::new(self.bytes(mem), self.head.first).from(Some(at));
        let entry = entries.next().expect("invariant: an entry begins with its flags");
        let flags = DELETED | if entry.fields.shared.is_some() { SHARES } else { 0 };
        let (own, end) = (entry.fields.own - at, entries.at - at);
        let bytes = mem.bytes_mut(self.at + NODE_HEADER + at as u64, end as u64);
        Encoded::int(i64::from(flags)).write_to(bytes);
        let mut element = own;
        while element < end {
            element = packed::erase(bytes, element);
        }
        self.head.live -= 1;
        self.store(mem);
    }

    /// Erases the shared fields if no entry has them any more.
    pub fn erase_unused_fields(&self, mem: &mut Mem<'_>) {
        let mut entries = NodeEntries::new(self.bytes(mem), self.head.first);
        let (from, end) = (entries.shared, entries.at);
        if entries.any(|entry| !entry.is_deleted && entry.fields.shared.is_some()) {
            return;
        }
        let bytes = mem.bytes_mut(self.at + NODE_HEADER + from as u64, (end - from) as u64);
        let mut element = 0;
        while element < bytes.len() {
            element = packed::erase(bytes, element);
        }
    }

    /// Removes the deleted entries behind the last one that is not deleted.
    pub fn cut_deleted_end(&mut self, mem: &mut Mem<'_>) {
        let (mut places, mut used) = (0, self.head.used);
        let mut all = NodeEntries::new(self.bytes(mem), self.head.first);
        let mut seen = 0;
        while let Some(place) = all.next() {
            seen += 1;
            if !place.is_deleted {
                (places, used) = (seen, u32::try_from(all.at).unwrap_or(used));
            }
        }
        let cut = u64::from(self.head.used - used);
        if cut > 0 {
            mem.bytes_mut(self.at + NODE_HEADER + u64::from(used), cut).fill(0);
        }
        (self.head.places, self.head.used) = (places, used);
        self.store(mem);
    }

    pub fn release(&self, mem: &mut Mem<'_>) {
        mem.release(self.at, self.size());
    }
}

fn narrow(bytes: u64) -> Result<u32, OutOfMemory> {
    u32::try_from(bytes).ok().filter(|bytes| u64::from(*bytes) <= MAX_NODE_BYTES).ok_or(OutOfMemory)
}
