//! Sorted sets: members, each with a score, in the order of (score, member).
//!
//! A compact one is a packed run of `member, score` pairs in their order. A score that is a whole
//! number is kept as one; any other is nine bytes, an `f` and the double.
//!
//! A large one is a dictionary of members and a counted tree of scores, which refer to the same
//! elements:
//!
//! ```text
//! header:  | common 16 | members: dictionary 32 | scores: tree 24 |
//!                              |                     |
//!                              +----> element <------+      | score | member |
//! ```
//!
//! Invariants of a large one:
//! 1. Dictionary and tree refer to the same elements, each once.
//! 2. An element's key in the tree is the order of its score.

mod change;
mod element;
#[cfg(test)]
mod tests;
mod view;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{self, Dict};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::containers::tree::{self, Tree};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::entry::{Shape, ValueKind, hash};
use super::values::{Common, Digest, Type, Unordered, discard};

pub use change::MemberChange;
use element::{CheckMembers, CheckOrder, Members};
pub use view::{RangeBound, SortedSetView};

/// The first byte of a score that is no whole number.
const DOUBLE: u8 = b'f';
/// Whole numbers up to this size are kept as such.
const MOST_WHOLE: f64 = (1u64 << 53) as f64;

/// The header of a large one.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    common: Common,
    members: dict::Root,
    scores: tree::Root,
}

const _: () = assert!(size_of::<Header>() == 72);

/// The members of the sorted set whose header is at `header`.
const fn members_of(header: u64) -> Dict {
    Dict::at(Offset::new(header + std::mem::offset_of!(Header, members) as u64))
}

/// The scores of the sorted set whose header is at `header`.
const fn scores_of(header: u64) -> Tree {
    Tree::at(Offset::new(header + std::mem::offset_of!(Header, scores) as u64))
}

/// An empty large one; returns its header.
fn create(mem: &mut Mem<'_>) -> Result<u64, OutOfMemory> {
    let header = mem.allocate(SortedSet::HEADER)?;
    let empty = Header {
        common: Common::new(ValueKind::SortedSet),
        members: dict::Root::EMPTY,
        scores: tree::Root::EMPTY,
    };
    mem.write(Offset::new(header), empty);
    Ok(header)
}

/// Adds a member that is not there.
fn add(
    mem: &mut Mem<'_>,
    header: u64,
    member: &[u8],
    member_hash: u64,
    score: f64,
) -> Result<(), OutOfMemory> {
    let item = element::create(mem, member, score)?;
    let (ties, key) = (element::ByMember(member), element::order(score));
    let added = scores_of(header).insert(mem, key, item, &ties).and_then(|()| {
        let added = members_of(header).insert(mem, member_hash, item, &Members);
        added.inspect_err(|_| {
            scores_of(header).remove(mem, key, &ties);
        })
    });
    added.inspect_err(|_| element::release(mem, item))
}

/// A large one of members that are all different; returns its header.
fn build<'p>(
    mem: &mut Mem<'_>,
    pairs: impl Iterator<Item = (&'p [u8], f64)>,
) -> Result<u64, OutOfMemory> {
    let header = create(mem)?;
    for (member, score) in pairs {
        let member_hash = hash(mem.arena(), member);
        if let Err(full) = add(mem, header, member, member_hash, score) {
            discard(mem, ValueKind::SortedSet, header);
            return Err(full);
        }
    }
    Ok(header)
}

/// Appends a pair to a run.
fn push_pair(run: &mut Vec<u8>, member: &[u8], score: f64) {
    Encoded::of(member).push_to(run);
    // As in Redis, a zero loses its sign here.
    if score.fract() == 0.0 && score.abs() <= MOST_WHOLE {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and 2^53 at most")]
        Encoded::int(score as i64).push_to(run);
    } else {
        let mut bytes = [DOUBLE; 9];
        bytes[1..].copy_from_slice(&score.to_le_bytes());
        Encoded::of(&bytes).push_to(run);
    }
}

/// The score that an element of a run is; `None` if it is none.
#[inline]
fn read_score(element: Element<'_>) -> Option<f64> {
    match element {
        Element::Int(whole) => Some(whole as f64),
        Element::Bytes([DOUBLE, bytes @ ..]) => bytes.try_into().ok().map(f64::from_le_bytes),
        Element::Bytes(_) => None,
    }
}

/// The pair at a place of a run, and where the next one begins.
///
/// # Panics
/// There is none.
#[inline]
fn pair_at(run: &[u8], at: usize) -> (Element<'_>, f64, usize) {
    let (member, middle) = packed::get(run, at);
    let (score, next) = packed::get(run, middle);
    match read_score(score) {
        Some(score) => (member, score, next),
        None => panic!("keyspace: no score at {middle} of a sorted set"),
    }
}

/// The pairs of a run.
fn pairs(run: &[u8]) -> impl Iterator<Item = (Element<'_>, f64)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < run.len()).then(|| {
            let (member, score, next) = pair_at(run, at);
            at = next;
            (member, score)
        })
    })
}

/// Sorted sets.
pub(super) struct SortedSet;

impl Type for SortedSet {
    const HEADER: u64 = size_of::<Header>() as u64;

    fn encoding_name(shape: &Shape) -> &'static str {
        if shape.is_large() { "skiplist" } else { "listpack" }
    }

    fn verify_compact(shape: &Shape, bytes: &[u8]) -> Result<(), String> {
        let elements = packed::check(bytes).ok_or("its bytes are damaged")? as u64;
        if elements != shape.count * 2 || shape.form != 0 {
            return Err(format!("{elements} elements, but {} members", shape.count));
        }
        let scores = packed::iter(bytes).skip(1).step_by(2);
        if !scores.map(read_score).all(|score| score.is_some_and(|score| !score.is_nan())) {
            return Err("a score that is none".into());
        }
        let mut last: Option<(Element<'_>, f64)> = None;
        let mut members = std::collections::HashSet::new();
        for (member, score) in pairs(bytes) {
            let ascends = last.is_none_or(|(before, least)| {
                least < score || least == score && before.compare_bytes(member).is_lt()
            });
            let mut digits = itoa::Buffer::new();
            if !ascends || !members.insert(member.bytes(&mut digits).to_vec()) {
                return Err(format!("{member:?} is not where it should be"));
            }
            last = Some((member, score));
        }
        Ok(())
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        shape: Option<&Shape>,
        header: u64,
        is_garbage: bool,
    ) -> Result<(), Corruption> {
        let mut check = CheckMembers { mem, audit, seen: Vec::new() };
        let place = Offset::new(members_of(header).place());
        let members = dict::check(mem, audit, place, &mut check)?;
        let mut seen = check.seen;
        seen.sort_unstable();
        let mut check = CheckOrder { mem, seen: &seen };
        let scores = tree::check(mem, audit, scores_of(header).place(), &mut check)?;
        let is_whole = members.len == scores.len && members.drained == 0 && members.len > 0;
        if !is_garbage && !is_whole || shape.is_some_and(|shape| shape.form != 0) {
            let reason = format!("a sorted set of {members:?} and {scores:?}");
            return Err(Corruption::at(header, reason));
        }
        Ok(())
    }

    fn digest(mem: &Mem<'_>, at: u64, shape: &Shape, digest: &mut Digest) {
        let mut all = Unordered::default();
        let mut add = |member: &[u8], score: f64| {
            all.add(|one| {
                one.add(member);
                one.add_number(score.to_bits().cast_signed());
            });
        };
        if shape.is_large() {
            for entry in scores_of(shape.header(mem, at)).ascending(mem, 0) {
                add(element::member(mem, entry.item), element::score(mem, entry.item));
            }
        } else {
            let run = mem.bytes(shape.value_place(mem, at), shape.value_len);
            for (member, score) in pairs(run) {
                add(member.bytes(&mut itoa::Buffer::new()), score);
            }
        }
        digest.add_unordered(&all);
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        let copy = create(mem)?;
        let mut member = Vec::new();
        let len = scores_of(header).len(mem);
        let mut rank = 0;
        while rank < len {
            // A leaf at a time: nothing is borrowed from memory that changes.
            let some: Vec<u64> =
                scores_of(header).ascending(mem, rank).take(256).map(|e| e.item).collect();
            rank += some.len() as u64;
            for item in some {
                member.clear();
                member.extend_from_slice(element::member(mem, item));
                let score = element::score(mem, item);
                let member_hash = hash(mem.arena(), &member);
                if let Err(full) = add(mem, copy, &member, member_hash, score) {
                    discard(mem, ValueKind::SortedSet, copy);
                    return Err(full);
                }
            }
        }
        Ok(copy)
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        scores_of(header).drain(mem, most, |_, _| {})
            && members_of(header).drain(mem, most, element::release)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        scores_of(header).len(mem)
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        let tree = scores_of(header);
        let len = tree.len(mem);
        let samples = if samples == 0 { len } else { len.min(samples as u64) };
        let sizes = tree.ascending(mem, 0).take(usize::try_from(samples).unwrap_or(usize::MAX));
        let sum: u64 = sizes.map(|entry| allocated_size(element::size_at(mem, entry.item))).sum();
        // A slot and its share of a leaf, well filled on average.
        let references = 12 + 24;
        sum * len / samples.max(1) + references * len
    }
}
