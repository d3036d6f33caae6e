//! What the keyspace asks of each kind of value of several elements, and how large ones go.
//!
//! A *large* value is reached through a header, an object that stays where it is while the key's
//! entry may move:
//!
//! ```text
//! entry: ... | header 8 | key |
//!                 |
//!                 v
//! header:  | kind 4 | 0 (4) | next garbage 8 | what the kind needs ... |
//! ```
//!
//! A value that nobody refers to any more is freed at once if it is of few elements. Else its
//! header is put in front of the shard's garbage, a list through `next garbage`, and freed in
//! slices.
//!
//! Each kind is a type that implements [`Type`], in a file of its own; [`for_kind`] is the one
//! place that knows them all.

use xxhash_rust::xxh3::xxh3_128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::entry::{Shape, ValueKind};
use super::hash::Hash;
use super::list::List;
use super::set::Set;
use super::shards::Entry;
use super::sorted_set::SortedSet;
use super::stream::Stream;
use super::{DbIndex, Key, Shards, garbage_value_of};

/// Elements that are freed at once with a large value; if it has more, the rest is garbage.
const AT_ONCE: usize = 64;

/// Bytes of a large value that is small all the same, if it has few elements. Tests, whose values
/// are, see both kinds.
const SMALL: u64 = if cfg!(any(test, fuzzing)) { 512 } else { 16 << 10 };

/// Bytes of all kinds' headers, for the layout of images.
pub(super) const LAYOUT: u64 = List::HEADER
    + (Hash::HEADER << 8)
    + (Set::HEADER << 16)
    + (SortedSet::HEADER << 24)
    + (Stream::HEADER << 32);

/// The value has another type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the value has another type")]
pub struct WrongType;

/// What every header of a large value begins with.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Common {
    kind: u32,
    reserved: u32,
    /// The next header in the shard's garbage; 0 is none.
    next_garbage: u64,
}

impl Common {
    /// The beginning of the header of a value that is in use.
    pub const fn new(kind: ValueKind) -> Self {
        Self { kind: kind as u32, reserved: 0, next_garbage: 0 }
    }
}

const _: () = assert!(size_of::<Common>() == 16);

/// What the keyspace asks of a kind of value of several elements.
pub(super) trait Type {
    /// Bytes of a large value's header, which begins with [`Common`]; 0 if there are no large
    /// values of this kind.
    const HEADER: u64;

    /// What OBJECT ENCODING answers.
    fn encoding_name(shape: &Shape) -> &'static str;

    /// Checks the bytes of a compact value; its entry's `count` is above 0. Says what is wrong.
    fn verify_compact(shape: &Shape, bytes: &[u8]) -> Result<(), String>;

    /// Claims and checks all that is reached from a large value's header, which is claimed already.
    /// `is_garbage`: parts of it may be freed already; otherwise it is not empty.
    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        shape: Option<&Shape>,
        header: u64,
        is_garbage: bool,
    ) -> Result<(), Corruption>;

    /// Adds what an entry's value is to a digest, no matter how it is kept.
    fn digest(mem: &Mem<'_>, at: u64, shape: &Shape, digest: &mut Digest);

    /// A copy of a large value in the memory of `mem`, whichever shard the old one is in; returns
    /// its header.
    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory>;

    /// Frees about `most` elements of a large value; tells whether all are freed, and all that held
    /// them. The header itself stays.
    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool;

    /// Elements of a large value, or more if it holds other things of which there may be many.
    fn len(mem: &Mem<'_>, header: u64) -> u64;

    /// Bytes of a large value without its header, guessed from `samples` elements; 0 are all.
    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64;
}

/// Evaluates an expression with `$type` standing for the [`Type`] of a kind; strings have none.
macro_rules! for_kind {
    ($kind:expr, $type:ident => $value:expr) => {
        match $kind {
            ValueKind::String => unreachable!("a string has no elements"),
            ValueKind::List => {
                type $type = List;
                $value
            }
            ValueKind::Hash => {
                type $type = Hash;
                $value
            }
            ValueKind::Set => {
                type $type = Set;
                $value
            }
            ValueKind::SortedSet => {
                type $type = SortedSet;
                $value
            }
            ValueKind::Stream => {
                type $type = Stream;
                $value
            }
        }
    };
}

/// What OBJECT ENCODING answers.
pub(super) fn encoding_name(shape: &Shape) -> &'static str {
    for_kind!(shape.kind, T => T::encoding_name(shape))
}

/// Adds the value of an entry to a digest.
pub(super) fn digest(mem: &Mem<'_>, at: u64, shape: &Shape, digest: &mut Digest) {
    for_kind!(shape.kind, T => T::digest(mem, at, shape, digest));
}

/// Bytes of a large value.
pub(super) fn usage(mem: &Mem<'_>, shape: &Shape, header: u64, samples: usize) -> u64 {
    for_kind!(shape.kind, T => allocated_size(T::HEADER) + T::usage(mem, header, samples))
}

/// Whether a large value is copied as fast as anything.
pub(super) fn is_small(mem: &Mem<'_>, shape: &Shape, header: u64) -> bool {
    let len = for_kind!(shape.kind, T => T::len(mem, header));
    len <= AT_ONCE as u64 && usage(mem, shape, header, 0) <= SMALL
}

/// A copy of a large value in the memory of `mem`; returns its header.
pub(super) fn copy(mem: &mut Mem<'_>, kind: ValueKind, header: u64) -> Result<u64, OutOfMemory> {
    for_kind!(kind, T => T::copy_large(mem, header))
}

/// Checks the value of a compact entry.
pub(super) fn verify_compact(mem: &Mem<'_>, at: u64, shape: &Shape) -> Result<(), Corruption> {
    let bytes = mem.bytes(shape.value_place(mem, at), shape.value_len);
    let outcome = match shape.count {
        0 => Err("it has no elements".into()),
        _ => for_kind!(shape.kind, T => T::verify_compact(shape, bytes)),
    };
    outcome.map_err(|reason| {
        Corruption::at(at, format!("{} in the entry at {at:#x}: {reason}", shape.kind.name()))
    })
}

/// Claims and checks a large value.
pub(super) fn verify_large(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    shape: &Shape,
    header: u64,
) -> Result<(), Corruption> {
    let (kind, next) = claim_header(mem, audit, header)?;
    if kind != shape.kind || next != 0 {
        let reason = format!("the header at {header:#x} is no {}'s", shape.kind.name());
        return Err(Corruption::at(header, reason));
    }
    for_kind!(kind, T => T::verify_large(mem, audit, Some(shape), header, false))
}

/// Claims and checks the values of a shard that are to be freed.
pub(super) fn verify_garbage(mem: &Mem<'_>, audit: &Audit<'_>) -> Result<(), Corruption> {
    let mut header = mem.read(garbage_value_of(mem.shard()));
    while header != 0 {
        // A circle ends where a header is claimed twice.
        let (kind, next) = claim_header(mem, audit, header)?;
        for_kind!(kind, T => T::verify_large(mem, audit, None, header, true))?;
        header = next;
    }
    Ok(())
}

fn claim_header(mem: &Mem<'_>, audit: &Audit<'_>, at: u64) -> Result<(ValueKind, u64), Corruption> {
    let len = size_of::<Common>() as u64;
    if at.checked_add(len).is_none_or(|end| end > mem.arena().capacity()) {
        return Err(Corruption::at(0, format!("a value's header at {at:#x}, outside the arena")));
    }
    let common: Common = mem.read(Offset::new(at));
    let kind = u8::try_from(common.kind).ok().and_then(ValueKind::from_byte);
    let kind = kind.filter(|kind| *kind != ValueKind::String && common.reserved == 0);
    let len = kind.map_or(0, |kind| for_kind!(kind, T => T::HEADER));
    match kind {
        Some(kind) if len > 0 => {
            audit.claim(at, len, mem.shard())?;
            Ok((kind, common.next_garbage))
        }
        _ => Err(Corruption::at(at, format!("there is no value's header at {at:#x}"))),
    }
}

/// Frees a large value that nothing refers to any more: a part at once, the rest in slices later.
pub(super) fn discard(mem: &mut Mem<'_>, kind: ValueKind, header: u64) {
    if free_some(mem, kind, header, AT_ONCE) {
        return;
    }
    let first = garbage_value_of(mem.shard());
    let next = mem.read(first);
    mem.write(Offset::new(header), Common { next_garbage: next, ..Common::new(kind) });
    mem.write(first, header);
}

/// Frees about `most` elements of values that were discarded; tells whether there were any.
pub(super) fn free_deferred(mem: &mut Mem<'_>, most: usize) -> bool {
    let first = garbage_value_of(mem.shard());
    let header = mem.read(first);
    if header == 0 {
        return false;
    }
    let common: Common = mem.read(Offset::new(header));
    let kind = u8::try_from(common.kind).ok().and_then(ValueKind::from_byte);
    let Some(kind) = kind else { panic!("keyspace: no kind of garbage: {common:?}") };
    if free_some(mem, kind, header, most) {
        mem.write(first, common.next_garbage);
    }
    true
}

/// Frees about `most` elements, and the header with the last; tells whether all is freed.
fn free_some(mem: &mut Mem<'_>, kind: ValueKind, header: u64, most: usize) -> bool {
    for_kind!(kind, T => {
        let done = T::free_some(mem, header, most);
        if done {
            mem.release(header, T::HEADER);
        }
        done
    })
}

impl Shards<'_> {
    /// The entry of a key whose value is of one kind; none if the key is not there. Counts as a
    /// use.
    ///
    /// # Errors
    /// The value is of another kind.
    #[inline]
    pub fn lookup_kind(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        kind: ValueKind,
    ) -> Result<Option<Entry>, WrongType> {
        of_kind(self.lookup(db, key), kind)
    }

    /// As [`Self::lookup_kind`], and counts a hit or a miss.
    ///
    /// # Errors
    /// The value is of another kind.
    #[inline]
    pub fn lookup_kind_read(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        kind: ValueKind,
    ) -> Result<Option<Entry>, WrongType> {
        of_kind(self.lookup_read(db, key), kind)
    }
}

#[inline]
fn of_kind(entry: Option<Entry>, kind: ValueKind) -> Result<Option<Entry>, WrongType> {
    match entry {
        Some(entry) if entry.kind() != kind => Err(WrongType),
        entry => Ok(entry),
    }
}

/// What a value is, written one thing after the other.
#[derive(Default)]
pub(super) struct Digest {
    pub text: Vec<u8>,
}

impl Digest {
    /// Adds bytes with their length: a part of which there may be several in a row.
    pub fn add(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.text.extend_from_slice(bytes);
    }

    /// Adds a number.
    pub fn add_number(&mut self, number: i64) {
        self.text.extend_from_slice(&number.to_le_bytes());
    }

    /// Adds elements whose order means nothing.
    pub fn add_unordered(&mut self, elements: &Unordered) {
        self.text.extend_from_slice(&elements.count.to_le_bytes());
        self.text.extend_from_slice(&elements.sum.to_le_bytes());
    }
}

/// The sum of elements whose order means nothing.
#[derive(Default)]
pub(super) struct Unordered {
    sum: u128,
    count: u64,
    one: Digest,
}

impl Unordered {
    /// Adds an element, which `write` writes.
    pub fn add(&mut self, write: impl FnOnce(&mut Digest)) {
        self.one.text.clear();
        write(&mut self.one);
        self.sum = self.sum.wrapping_add(xxh3_128(&self.one.text));
        self.count += 1;
    }
}
