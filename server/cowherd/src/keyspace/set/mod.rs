//! Sets: members without order.
//!
//! A *compact* set whose members are all whole numbers is of a form that keeps them in ascending
//! order, 2, 4 or 8 bytes each. Any other is a packed run.
//!
//! ```text
//! form 0:        | member | member | ...      a packed run, in the order in which they came
//! form 1, 2, 3:  | number | number | ...      2, 4 or 8 bytes each, ascending
//! ```
//!
//! A *large* set has an object for each member: one element as it would stand in a run. They are in
//! a dictionary:
//!
//! ```text
//! header:  | common 16 | members: dictionary's root 32 |
//! ```
//!
//! No member is there twice.

mod change;
mod draft;
mod ints;
mod large;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{self, Cursor};
use cowherd_arena::containers::packed::{self, Element, Encoded, as_number};
use cowherd_arena::{Audit, Corruption, Mem, OutOfMemory};

use super::compact::CompactLimits;
use super::entry::{Shape, ValueKind, hash};
use super::shards::Entry;
use super::values::{Common, Digest, Type, Unordered, WrongType};
use super::{DbIndex, Key, Shards, Value};

pub use draft::MemberList;
use ints::Ints;
use large::{ByMember, Large};

/// The form of a packed run.
const RUN: u8 = 0;

/// When a set is too large to be compact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetLimits {
    /// The most members if all are numbers.
    pub ints: u64,
    /// What else is allowed in a packed run.
    pub run: CompactLimits,
}

/// Sets.
pub(super) struct Set;

/// The header of a large set.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    common: Common,
    members: dict::Root,
}

const _: () = assert!(size_of::<Header>() == 48);

/// An element as a value.
#[inline]
const fn value(element: Element<'_>) -> Value<'_> {
    match element {
        Element::Int(number) => Value::Int(number),
        Element::Bytes(bytes) => Value::Bytes(bytes),
    }
}

/// Hands the members of a compact set to `each`.
#[inline]
fn each_compact<'b>(shape: &Shape, bytes: &'b [u8], mut each: impl FnMut(Value<'b>)) {
    if shape.form == RUN {
        packed::iter(bytes).for_each(|element| each(value(element)));
    } else {
        Ints::of(shape, bytes).iter().for_each(|number| each(Value::Int(number)));
    }
}

impl Type for Set {
    const HEADER: u64 = size_of::<Header>() as u64;

    fn encoding_name(shape: &Shape) -> &'static str {
        match shape.form {
            _ if shape.is_large() => "hashtable",
            RUN => "listpack",
            _ => "intset",
        }
    }

    fn verify_compact(shape: &Shape, bytes: &[u8]) -> Result<(), String> {
        if shape.form != RUN {
            return Ints::of(shape, bytes).check(shape.count);
        }
        let count = packed::check(bytes).ok_or("its bytes are damaged")? as u64;
        if count != shape.count {
            return Err(format!("{count} members, not {}", shape.count));
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
        shape: Option<&Shape>,
        header: u64,
        is_garbage: bool,
    ) -> Result<(), Corruption> {
        if shape.is_some_and(|shape| shape.form != RUN) {
            return Err(Corruption::at(header, format!("a set of a wrong form at {header:#x}")));
        }
        large::check(mem, audit, header, is_garbage)
    }

    fn digest(mem: &Mem<'_>, at: u64, shape: &Shape, digest: &mut Digest) {
        let mut members = Unordered::default();
        let mut add = |member: Value<'_>| {
            members.add(|one| one.add(member.bytes(&mut itoa::Buffer::new())));
        };
        if shape.is_large() {
            let large = Large::at(shape.header(mem, at));
            large.members().scan(mem, Cursor::default(), usize::MAX, |item| {
                add(value(large::element(mem, item)));
            });
        } else {
            each_compact(shape, mem.bytes(shape.value_place(mem, at), shape.value_len), add);
        }
        digest.add_unordered(&members);
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        Large::at(header).copy(mem).map(Large::header)
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        Large::at(header).free_some(mem, most)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        Large::at(header).members().len(mem)
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        Large::at(header).usage(mem, samples)
    }
}

impl Shards<'_> {
    /// The set of a key; none if the key is not there. Counts as a use.
    ///
    /// # Errors
    /// The value is no set.
    #[inline]
    pub fn set_of(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        self.lookup_kind(db, key, ValueKind::Set)
    }

    #[inline]
    fn large_set(&self, entry: &Entry) -> Large {
        Large::at(entry.shape.header(&self.held.view(entry.shard), entry.at))
    }

    /// Number of a set's members.
    #[inline]
    pub fn set_len(&self, entry: &Entry) -> u64 {
        if entry.shape.is_large() {
            self.large_set(entry).members().len(&self.held.view(entry.shard))
        } else {
            entry.shape.count
        }
    }

    /// Whether a set has a member.
    #[inline]
    pub fn set_has(&self, entry: &Entry, member: &[u8]) -> bool {
        if entry.shape.is_large() {
            let mem = self.held.view(entry.shard);
            let hash = hash(mem.arena(), member);
            let wanted = ByMember(Encoded::of(member));
            return self.large_set(entry).members().find(&mem, hash, &wanted).is_some();
        }
        let run = self.run(entry);
        if entry.shape.form == RUN {
            return packed::find(run, &Encoded::of(member), 0, 1).is_some();
        }
        as_number(member).is_some_and(|number| Ints::of(&entry.shape, run).find(number).is_ok())
    }

    /// Whether a set has a member that is another one's.
    #[inline]
    pub fn set_has_value(&self, entry: &Entry, member: Value<'_>) -> bool {
        match member {
            Value::Int(number) if !entry.shape.is_large() && entry.shape.form != RUN => {
                Ints::of(&entry.shape, self.run(entry)).find(number).is_ok()
            }
            member => self.set_has(entry, member.bytes(&mut itoa::Buffer::new())),
        }
    }

    /// Hands all members to `each`.
    pub fn set_each<'s>(&'s self, entry: &Entry, each: impl FnMut(Value<'s>)) {
        self.set_scan(entry, 0, usize::MAX, each);
    }

    /// Hands members to `each`, from `cursor` on, at least `least` unless the set ends before; a
    /// compact one always to its end. Returns the cursor with which to go on, 0 at the end.
    pub fn set_scan<'s>(
        &'s self,
        entry: &Entry,
        cursor: u64,
        least: usize,
        mut each: impl FnMut(Value<'s>),
    ) -> u64 {
        if !entry.shape.is_large() {
            each_compact(&entry.shape, self.run(entry), each);
            return 0;
        }
        let mem = self.held.view(entry.shard);
        let members = self.large_set(entry).members();
        let next = members.scan(&mem, Cursor::unpack(cursor), least, |item| {
            each(large::value(&mem, item));
        });
        next.map_or(0, Cursor::pack)
    }

    /// Whether members of the set are found without a look at the others.
    pub const fn set_is_large(&self, entry: &Entry) -> bool {
        entry.shape.is_large()
    }

    /// A member chosen by `random`, a fresh random number each time it is called.
    ///
    /// # Panics
    /// The set is empty, which none is.
    pub fn set_random(&self, entry: &Entry, mut random: impl FnMut() -> u64) -> Value<'_> {
        let (mem, shape) = (self.held.view(entry.shard), &entry.shape);
        if shape.is_large() {
            let item = self.large_set(entry).members().random(&mem, random);
            return large::value(&mem, item.unwrap_or_else(|| empty(entry.at)));
        }
        let nth = below(random(), shape.count);
        if shape.form != RUN {
            return Value::Int(Ints::of(shape, self.run(entry)).get(nth));
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

/// A random number below `bound` from a random word.
#[inline]
fn below(random: u64, bound: u64) -> usize {
    usize::try_from((u128::from(random) * u128::from(bound)) >> 64).unwrap_or(0)
}
