//! Sets: different members without order.
//!
//! A *compact* set whose members are all integers keeps them in ascending order, 2, 4 or 8 bytes
//! each. Any other is a packed run.
//!
//! ```text
//! encoding 0:        | member | member | ...      a packed run, in the order of addition
//! encoding 1, 2, 3:  | integer | integer | ...    2, 4 or 8 bytes each, ascending
//! ```
//!
//! A *large* set has a dictionary of its members. Each member is an object with one packed element:
//!
//! ```text
//! header:  | large header 16 | members: dictionary's root 32 |
//! ```
//!
//! | file | what |
//! |---|---|
//! | this one | reading sets, whatever their encoding |
//! | `compact`, `large` | the encodings |
//! | `update` | adding and removing members |

mod compact;
mod large;
#[cfg(test)]
mod tests;
mod update;

use std::collections::HashSet;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{self, Dict, DictCursor};
use cowherd_arena::containers::packed::{self, Element, Encoded, as_number};
use cowherd_arena::{Audit, Corruption, Mem, OutOfMemory};

use super::collection::{CollectionType, ElementView, LargeHeader, ValueCursor, WrongType};
use super::compact::CompactLimits;
use super::entry::{EntryHeader, ValueType, hash};
use super::shards::Entry;

use super::{DbIndex, Key, Shards, Value};

use compact::Ints;
pub use compact::MemberList;
use large::{BySetMember, LargeSet};

/// The encoding that is a packed run.
const RUN: u8 = 0;

/// The limits of compact sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetLimits {
    /// The most members of a set of integers.
    pub ints: u64,
    /// The limits of a set that is a packed run.
    pub run: CompactLimits,
}

/// The set type.
pub(super) struct Set;

/// The header of a large set.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SetHeader {
    large: LargeHeader,
    members: dict::DictRoot,
}

const _: () = assert!(size_of::<SetHeader>() == 48);

/// An element as a value.
#[inline]
const fn value(element: Element<'_>) -> Value<'_> {
    match element {
        Element::Int(number) => Value::Int(number),
        Element::Bytes(bytes) => Value::Bytes(bytes),
    }
}

/// Calls `each` with the members of a compact set.
#[inline]
fn each_compact<'b>(head: &EntryHeader, bytes: &'b [u8], mut each: impl FnMut(Value<'b>)) {
    if head.encoding == RUN {
        packed::iter(bytes).for_each(|element| each(value(element)));
    } else {
        Ints::of(head, bytes).iter().for_each(|number| each(Value::Int(number)));
    }
}

impl CollectionType for Set {
    const HEADER: u64 = size_of::<SetHeader>() as u64;

    fn init_large(mem: &mut Mem<'_>, header: u64) {
        LargeSet::init(mem, header);
    }

    fn encoding_name(head: &EntryHeader) -> &'static str {
        match head.encoding {
            _ if head.is_large() => "hashtable",
            RUN => "listpack",
            _ => "intset",
        }
    }

    fn verify_compact(head: &EntryHeader, bytes: &[u8]) -> Result<(), String> {
        if head.encoding != RUN {
            return Ints::of(head, bytes).verify(head.count);
        }
        let count = packed::check(bytes).ok_or("its bytes are damaged")? as u64;
        if count != head.count {
            return Err(format!("{count} members, not {}", head.count));
        }
        let mut seen = HashSet::new();
        match packed::iter(bytes).map(value).find(|member| !seen.insert(*member)) {
            Some(member) => Err(format!("{member:?} is there twice")),
            None => Ok(()),
        }
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        head: Option<&EntryHeader>,
        header: u64,
        is_deferred: bool,
    ) -> Result<(), Corruption> {
        if head.is_some_and(|head| head.encoding != RUN) {
            return Err(Corruption::at(
                header,
                format!("a set of a wrong encoding at {header:#x}"),
            ));
        }
        large::verify(mem, audit, header, is_deferred)
    }

    fn each_element(
        mem: &Mem<'_>,
        at: u64,
        head: &EntryHeader,
        each: &mut dyn FnMut(ElementView<'_>),
    ) {
        if head.is_large() {
            let large = LargeSet::at(head.large_header(mem, at));
            large.members().scan(mem, DictCursor::default(), usize::MAX, |item| {
                each(ElementView::Plain(value(large::element(mem, item))));
            });
        } else {
            let bytes = mem.bytes(head.value_offset(mem, at), head.value_len);
            each_compact(head, bytes, |member| each(ElementView::Plain(member)));
        }
    }

    fn table(header: u64) -> Option<Dict> {
        Some(LargeSet::at(header).members())
    }

    fn evacuate_some(
        mem: &mut Mem<'_>,
        header: u64,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor> {
        LargeSet::at(header).evacuate_some(mem, cursor, most)
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        LargeSet::at(header).copy(mem)
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        LargeSet::at(header).free_some(mem, most)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        LargeSet::at(header).members().len(mem)
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        LargeSet::at(header).usage(mem, samples)
    }
}

impl Shards<'_> {
    /// The set of a key; `None` if there is no such key. Updates the access clock.
    ///
    /// # Errors
    /// The value is not a set.
    #[inline]
    pub fn set_of(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        self.lookup_kind(db, key, ValueType::Set)
    }

    #[inline]
    fn large_set(&self, entry: &Entry) -> LargeSet {
        LargeSet::at(entry.head.large_header(&self.held.view(entry.shard), entry.at))
    }

    /// Number of members.
    #[inline]
    pub fn set_len(&self, entry: &Entry) -> u64 {
        if entry.head.is_large() {
            self.large_set(entry).members().len(&self.held.view(entry.shard))
        } else {
            entry.head.count
        }
    }

    /// Whether a set has a member.
    #[inline]
    pub fn set_has(&self, entry: &Entry, member: &[u8]) -> bool {
        if entry.head.is_large() {
            let mem = self.held.view(entry.shard);
            let hash = hash(mem.arena(), member);
            let wanted = BySetMember(Encoded::of(member));
            return self.large_set(entry).members().find(&mem, hash, &wanted).is_some();
        }
        let run = self.run(entry);
        if entry.head.encoding == RUN {
            return packed::find(run, &Encoded::of(member), 0, 1).is_some();
        }
        as_number(member).is_some_and(|number| Ints::of(&entry.head, run).find(number).is_ok())
    }

    /// As [`Self::set_has`], for a member of another set.
    #[inline]
    pub fn set_has_value(&self, entry: &Entry, member: Value<'_>) -> bool {
        match member {
            Value::Int(number) if !entry.head.is_large() && entry.head.encoding != RUN => {
                Ints::of(&entry.head, self.run(entry)).find(number).is_ok()
            }
            member => self.set_has(entry, member.bytes(&mut itoa::Buffer::new())),
        }
    }

    /// Calls `each` with all members.
    pub fn set_each<'s>(&'s self, entry: &Entry, each: impl FnMut(Value<'s>)) {
        self.set_scan(entry, 0, usize::MAX, each);
    }

    /// Calls `each` with members from `cursor` on: at least `least` members if there are so many,
    /// all members of a compact set. Returns the cursor to continue with, 0 at the end.
    pub fn set_scan<'s>(
        &'s self,
        entry: &Entry,
        cursor: u64,
        least: usize,
        mut each: impl FnMut(Value<'s>),
    ) -> u64 {
        if !entry.head.is_large() {
            each_compact(&entry.head, self.run(entry), each);
            return 0;
        }
        let mem = self.held.view(entry.shard);
        let members = self.large_set(entry).members();
        let next = members.scan(&mem, DictCursor::unpack(cursor), least, |item| {
            each(large::value(&mem, item));
        });
        next.map_or(0, DictCursor::pack)
    }

    /// Whether a member is found in constant time, not by a search through all members.
    pub const fn set_is_large(&self, entry: &Entry) -> bool {
        entry.head.is_large()
    }

    /// A random member; each call of `random` returns a new random number.
    pub fn set_random(&self, entry: &Entry, mut random: impl FnMut() -> u64) -> Value<'_> {
        let (mem, head) = (self.held.view(entry.shard), &entry.head);
        if head.is_large() {
            let item = self.large_set(entry).members().random(&mem, random);
            return large::value(&mem, item.unwrap_or_else(|| empty(entry.at)));
        }
        let nth = below(random(), head.count);
        if head.encoding != RUN {
            return Value::Int(Ints::of(head, self.run(entry)).get(nth));
        }
        let run = self.run(entry);
        let at = packed::nth(run, nth).unwrap_or_else(|| empty(entry.at));
        value(packed::get(run, at).0)
    }
}

#[cold]
fn empty(at: u64) -> ! {
    panic!("keyspace: the set of the entry at {at:#x} has fewer members than it should")
}

/// Scales a random word to an index below `bound`.
#[inline]
fn below(random: u64, bound: u64) -> usize {
    let scaled = (u128::from(random) * u128::from(bound)) >> 64;
    usize::try_from(scaled).expect("invariant: below `bound`, a number of members in memory")
}
