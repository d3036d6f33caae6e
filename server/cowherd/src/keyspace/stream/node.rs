//! A node of a stream: some entries one behind the other.
//!
//! ```text
//! 0          16     20         24     26       28    32
//! +----------+------+----------+------+--------+-----+------------------------+------
//! | first id | used | capacity | live | places |  0  | fields that are shared | entry ...
//! |    16    |  4   |    4     |  2   |   2    |  4  | packed                 | packed
//! +----------+------+----------+------+--------+-----+------------------------+------
//!
//! shared fields:  | number | field | field | ...
//! entry:          | flags | ms | number |          value | value | ...     with the shared fields
//!                 | flags | ms | number | pairs | field | value | ...      with fields of its own
//! flags:          1 was deleted, 2 has the shared fields
//! ```
//!
//! `ms` and `number` are what has to be added to the first id's. The shared fields are those of the
//! first entry. `used` are the bytes behind the head; `places` counts entries with the deleted ones
//! among them, `live` without.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::keyspace::Value;
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Mem, Offset, OutOfMemory, allocated_size};

use super::StreamId;

/// Bytes of a node's head.
pub(super) const HEAD: u64 = size_of::<Head>() as u64;
/// Bytes of a node that is new, if its first entry needs no more.
const SMALL: u64 = 128;
const DELETED: u8 = 1;
const SHARES: u8 = 2;
/// The most bytes of a node behind its head.
const MOST: u64 = 1 << 31;

const _: () = assert!(HEAD == 32);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Head {
    pub first: StreamId,
    pub used: u32,
    pub capacity: u32,
    pub live: u16,
    pub places: u16,
    pub reserved: u32,
}

/// A node, with its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub at: u64,
    pub head: Head,
}

/// An entry that stands in a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'b> {
    pub id: StreamId,
    /// Where its flags are among the node's bytes.
    pub at: usize,
    pub is_deleted: bool,
    pub fields: StreamFields<'b>,
}

/// The fields and values of an entry.
#[derive(Clone, Copy, Debug)]
pub struct StreamFields<'b> {
    bytes: &'b [u8],
    /// Where the shared fields begin, if it has those.
    shared: Option<usize>,
    /// Where the values, or fields and values, begin.
    own: usize,
    pairs: usize,
}

impl<'b> StreamFields<'b> {
    /// How many pairs there are.
    pub const fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there are none, which is never so.
    pub const fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// The pairs.
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

/// The flags at a place of checked bytes.
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

/// The entries of a node's bytes, deleted ones too. Ends where the bytes make no sense.
pub(super) struct Places<'b> {
    bytes: &'b [u8],
    first: StreamId,
    shared: usize,
    shares: usize,
    at: usize,
    /// Whether the bytes did make sense so far.
    pub is_sound: bool,
}

impl<'b> Places<'b> {
    /// Those of bytes that are packed elements; `first` is the node's first id.
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

    /// Those from the one on whose flags are at `at`; all of them, if that is not said.
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
    fn read(&mut self) -> Option<Place<'b>> {
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
        Some(Place { id, at, is_deleted: flags & DELETED != 0, fields })
    }
}

impl<'b> Iterator for Places<'b> {
    type Item = Place<'b>;

    #[inline]
    fn next(&mut self) -> Option<Place<'b>> {
        if !self.is_sound || self.at == self.bytes.len() {
            return None;
        }
        let place = self.read();
        self.is_sound = place.is_some();
        place
    }
}

/// How a new entry stands to the shared fields of its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sharing {
    /// It is the first one: its fields become those.
    Founds,
    /// It has the same ones.
    Yes,
    /// It has others.
    No,
}

/// An entry that is to be added.
pub(super) struct NewEntry<I> {
    pub id: StreamId,
    pub pairs: I,
}

impl<'a, I: ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone> NewEntry<I> {
    /// Hands its elements to `each`, in a node whose first id is `first`: before them the shared
    /// fields, if it is the node's first entry; its own fields, unless it has the shared ones.
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

    /// Bytes of its elements.
    fn size(&self, first: StreamId, how: Sharing) -> u64 {
        let mut size = 0;
        self.elements(first, how, |element| size += element.len() as u64);
        size
    }

    /// Writes its elements to the beginning of `place`.
    fn write(&self, first: StreamId, how: Sharing, place: &mut [u8]) {
        let mut at = 0;
        self.elements(first, how, |element| {
            element.write_to(&mut place[at..]);
            at += element.len();
        });
    }

    /// Whether its fields are the shared ones.
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

    /// Bytes that it takes.
    pub fn size(&self) -> u64 {
        HEAD + u64::from(self.head.capacity)
    }

    /// The bytes behind its head.
    #[inline]
    pub fn bytes<'m>(&self, mem: &'m Mem<'_>) -> &'m [u8] {
        mem.bytes(self.at + HEAD, u64::from(self.head.used))
    }

    /// A node of one entry.
    pub fn create<'a>(
        mem: &mut Mem<'_>,
        entry: &NewEntry<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone>,
    ) -> Result<Self, OutOfMemory> {
        let used = narrow(entry.size(entry.id, Sharing::Founds))?;
        let size = allocated_size((HEAD + u64::from(used)).max(SMALL));
        let head = Head {
            first: entry.id,
            used,
            capacity: narrow(size - HEAD)?,
            live: 1,
            places: 1,
            reserved: 0,
        };
        let node = Self { at: mem.allocate(size)?, head };
        node.store(mem);
        let place = mem.bytes_mut(node.at + HEAD, u64::from(used));
        entry.write(entry.id, Sharing::Founds, place);
        Ok(node)
    }

    /// Whether a copy would take less memory.
    pub fn has_spare_room(&self) -> bool {
        allocated_size(HEAD + u64::from(self.head.used)) < self.size()
    }

    /// A copy in the memory of `mem`, without room to grow.
    pub fn copy(&self, mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let size = allocated_size(HEAD + u64::from(self.head.used));
        let head = Head { capacity: narrow(size - HEAD)?, ..self.head };
        let copy = Self { at: mem.allocate(size)?, head };
        copy.store(mem);
        mem.copy(self.at + HEAD, copy.at + HEAD, u64::from(self.head.used));
        Ok(copy)
    }

    /// Adds an entry behind the last one, if the node has not more than `most_bytes` and
    /// `most_places` with it; 0 is no limit. Returns the node, which may have moved: then the
    /// old one is there still. `None` if it has too much.
    pub fn append<'a>(
        &self,
        mem: &mut Mem<'_>,
        entry: &NewEntry<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone>,
        most_bytes: u64,
        most_places: u64,
    ) -> Result<Option<Self>, OutOfMemory> {
        let places = u64::from(self.head.places);
        if self.head.places == u16::MAX || most_places != 0 && places >= most_places {
            return Ok(None);
        }
        let first = self.head.first;
        let how = if entry.shares(self.bytes(mem)) { Sharing::Yes } else { Sharing::No };
        let (old, new) = (u64::from(self.head.used), entry.size(first, how));
        let used = old + new;
        if HEAD + used > MOST || most_bytes != 0 && HEAD + used > most_bytes {
            return Ok(None);
        }
        let mut node = *self;
        if used > u64::from(self.head.capacity) {
            let most = if most_bytes == 0 { MOST } else { most_bytes.min(MOST) };
            let size = allocated_size((HEAD + used).max((2 * self.size()).min(most)));
            node.head.capacity = narrow(size - HEAD)?;
            node.at = mem.allocate(size)?;
            mem.copy(self.at + HEAD, node.at + HEAD, old);
        }
        node.head.used = narrow(used)?;
        node.head.places += 1;
        node.head.live += 1;
        entry.write(first, how, mem.bytes_mut(node.at + HEAD + old, new));
        node.store(mem);
        Ok(Some(node))
    }

    /// Marks the entry whose flags are at `place` as deleted.
    pub fn delete(&mut self, mem: &mut Mem<'_>, place: usize) {
        let (flags_at, flags) = {
            let bytes = self.bytes(mem);
            let flags = flags(packed::get(bytes, place).0).unwrap_or(0);
            (self.at + HEAD + place as u64, flags | DELETED)
        };
        let encoded = Encoded::int(i64::from(flags));
        encoded.write_to(mem.bytes_mut(flags_at, encoded.len() as u64));
        self.head.live -= 1;
        self.store(mem);
    }

    /// Forgets the deleted entries behind the last one that is not.
    pub fn cut_deleted_end(&mut self, mem: &mut Mem<'_>) {
        let (mut places, mut used) = (0, self.head.used);
        let mut all = Places::new(self.bytes(mem), self.head.first);
        let mut seen = 0;
        while let Some(place) = all.next() {
            seen += 1;
            if !place.is_deleted {
                (places, used) = (seen, u32::try_from(all.at).unwrap_or(used));
            }
        }
        (self.head.places, self.head.used) = (places, used);
        self.store(mem);
    }

    /// Frees it.
    pub fn release(&self, mem: &mut Mem<'_>) {
        mem.release(self.at, self.size());
    }
}

fn narrow(bytes: u64) -> Result<u32, OutOfMemory> {
    u32::try_from(bytes).ok().filter(|bytes| u64::from(*bytes) <= MOST).ok_or(OutOfMemory)
}
