//! Sorted sets: different members, each with a score, in the order of (score, member).
//!
//! A *compact* sorted set is a packed run of `member, score` pairs in that order. A score that is
//! an integer is stored as one; any other is nine bytes, an `f` and the double.
//!
//! A *large* sorted set has a dictionary of members and a counted tree of scores, which refer to
//! the same elements:
//!
//! ```text
//! header:  | large header 16 | members: dictionary 32 | scores: tree 24 |
//!                                    |                     |
//!                                    +----> element <------+      | score | member |
//! ```
//!
//! | file | what |
//! |---|---|
//! | this one | the type, and the two encodings |
//! | `element` | an element of a large sorted set |
//! | `view` | reading, by rank |
//! | `update` | adding, changing and removing members |
//!
//! Invariants of a large sorted set:
//! 1. Dictionary and tree refer to the same elements, each once.
//! 2. An element's key in the tree is [`element::order`] of its score.

mod element;
#[cfg(test)]
mod tests;
mod update;
mod view;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{self, Dict, Hashed as _};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::containers::tree::{self, Tree};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::Value;
use super::collection::{
    CollectionType, ElementView, LargeHeader, ValueCursor, build_large, evacuate_dict,
    evacuate_tree,
};
use super::entry::{ByOffset, EntryHeader, ValueType, hash};

use element::{ElementChecker, ElementHasher, ScoreOrderChecker};
pub use update::MemberChange;
pub use view::{RangeBound, SortedSetView};

/// The first byte of a score that is not an integer.
const DOUBLE: u8 = b'f';
/// Scores up to this size may be stored as integers: a double holds each of these exactly.
const MAX_EXACT_INTEGER: f64 = (1u64 << 53) as f64;

/// The header of a large sorted set.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SortedSetHeader {
    large: LargeHeader,
    members: dict::DictRoot,
    scores: tree::TreeRoot,
}

const _: () = assert!(size_of::<SortedSetHeader>() == 72);

/// The dictionary of members of the sorted set whose header is at `header`.
const fn members_of(header: u64) -> Dict {
    Dict::at(Offset::new(header + std::mem::offset_of!(SortedSetHeader, members) as u64))
}

/// The tree of scores of the sorted set whose header is at `header`.
const fn scores_of(header: u64) -> Tree {
    Tree::at(Offset::new(header + std::mem::offset_of!(SortedSetHeader, scores) as u64))
}

/// Adds a member that the sorted set does not have.
fn add(
    mem: &mut Mem<'_>,
    header: u64,
    member: &[u8],
    member_hash: u64,
    score: f64,
) -> Result<(), OutOfMemory> {
    let item = element::create(mem, member, score)?;
    let (ties, key) = (element::BySortedMember(member), element::order(score));
    let added = scores_of(header).insert(mem, key, item, &ties).and_then(|()| {
        let added = members_of(header).insert(mem, member_hash, item, &ElementHasher);
        added.inspect_err(|_| {
            scores_of(header).remove(mem, key, &ties);
        })
    });
    added.inspect_err(|_| element::release(mem, item))
}

/// Moves an element out of a place that compaction empties.
fn evacuate_element(mem: &mut Mem<'_>, header: u64, item: u64) {
    let member_hash = ElementHasher.hash(mem, item);
    let found = members_of(header).find(mem, member_hash, &ByOffset(item));
    let key = element::order(element::score(mem, item));
    let ties = element::BySortedMember(element::member(mem, item));
    let rank = scores_of(header).find(mem, key, &ties);
    let (Some(found), Some(rank)) = (found, rank) else { return };
    // The tree compares elements, so that the old one stays until both refer to the new one.
    let size = element::size_at(mem, item);
    let Some(to) = mem.copy_out(item, size) else { return };
    members_of(header).replace(mem, found, to);
    scores_of(header).replace(mem, rank, to);
    mem.release(item, size);
}

/// Builds a large sorted set of different members; returns its header.
fn build<'p>(
    mem: &mut Mem<'_>,
    mut pairs: impl Iterator<Item = (&'p [u8], f64)>,
) -> Result<u64, OutOfMemory> {
    build_large::<SortedSet>(mem, |mem, header| {
        pairs.try_for_each(|(member, score)| {
            let member_hash = hash(mem.arena(), member);
            add(mem, header, member, member_hash, score)
        })
    })
}

/// Appends a pair to a run.
fn push_pair(run: &mut Vec<u8>, member: &[u8], score: f64) {
    Encoded::of(member).push_to(run);
    // A negative zero becomes 0 here, as in Redis.
    if score.fract() == 0.0 && score.abs() <= MAX_EXACT_INTEGER {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and 2^53 at most")]
        Encoded::int(score as i64).push_to(run);
    } else {
        let mut bytes = [DOUBLE; 9];
        bytes[1..].copy_from_slice(&score.to_le_bytes());
        Encoded::of(&bytes).push_to(run);
    }
}

/// The score in an element of a run; `None` if the element holds none.
#[inline]
fn read_score(element: Element<'_>) -> Option<f64> {
    match element {
        Element::Int(whole) => Some(whole as f64),
        Element::Bytes([DOUBLE, bytes @ ..]) => bytes.try_into().ok().map(f64::from_le_bytes),
        Element::Bytes(_) => None,
    }
}

/// The pair at an offset of a run, and the offset of the next one.
///
/// # Panics
/// The element behind the member is not a score.
#[inline]
fn pair_at(run: &[u8], at: usize) -> (Element<'_>, f64, usize) {
    let (member, middle) = packed::get(run, at);
    let (score, next) = packed::get(run, middle);
    match read_score(score) {
        Some(score) => (member, score, next),
        None => panic!("keyspace: no score at {middle} of a sorted set"),
    }
}

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

/// The sorted set type.
pub(super) struct SortedSet;

impl CollectionType for SortedSet {
    const HEADER: u64 = size_of::<SortedSetHeader>() as u64;

    fn init_large(mem: &mut Mem<'_>, header: u64) {
        let empty = SortedSetHeader {
            large: LargeHeader::new(ValueType::SortedSet),
            members: dict::DictRoot::EMPTY,
            scores: tree::TreeRoot::EMPTY,
        };
        mem.write(Offset::new(header), empty);
    }

    fn encoding_name(head: &EntryHeader) -> &'static str {
        if head.is_large() { "skiplist" } else { "listpack" }
    }

    fn verify_compact(head: &EntryHeader, bytes: &[u8]) -> Result<(), String> {
        let elements = packed::check(bytes).ok_or("its bytes are damaged")? as u64;
        if elements != head.count * 2 || head.encoding != 0 {
            return Err(format!("{elements} elements, but {} members", head.count));
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
        head: Option<&EntryHeader>,
        header: u64,
        is_deferred: bool,
    ) -> Result<(), Corruption> {
        let mut check = ElementChecker { mem, audit, seen: Vec::new() };
        let place = Offset::new(members_of(header).place());
        let members = dict::check(mem, audit, place, &mut check)?;
        let mut seen = check.seen;
        seen.sort_unstable();
        let mut check = ScoreOrderChecker { mem, seen: &seen };
        let scores = tree::check(mem, audit, scores_of(header).place(), &mut check)?;
        let is_whole = members.len == scores.len && members.drained == 0 && members.len > 0;
        if !is_deferred && !is_whole || head.is_some_and(|head| head.encoding != 0) {
            let reason = format!("a sorted set of {members:?} and {scores:?}");
            return Err(Corruption::at(header, reason));
        }
        Ok(())
    }

    fn each_element(
        mem: &Mem<'_>,
        at: u64,
        head: &EntryHeader,
        each: &mut dyn FnMut(ElementView<'_>),
    ) {
        if head.is_large() {
            for entry in scores_of(head.large_header(mem, at)).ascending(mem, 0) {
                let member = Value::Bytes(element::member(mem, entry.item));
                each(ElementView::Member { member, score: element::score(mem, entry.item) });
            }
        } else {
            let run = mem.bytes(head.value_offset(mem, at), head.value_len);
            for (member, score) in pairs(run) {
                each(ElementView::Member { member: member.into(), score });
            }
        }
    }

    fn table(header: u64) -> Option<Dict> {
        Some(members_of(header))
    }

    fn evacuate_some(
        mem: &mut Mem<'_>,
        header: u64,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor> {
        // Part 0 are the elements, part 1 the nodes of the tree.
        if cursor.part == 0 {
            let (items, next) = evacuate_dict(mem, members_of(header), cursor.places[0], most);
            items.into_iter().for_each(|item| evacuate_element(mem, header, item));
            return Some(match next {
                Some(place) => ValueCursor { places: [place, 0, 0], ..cursor },
                None => ValueCursor::part(1),
            });
        }
        let rank = evacuate_tree(mem, scores_of(header), cursor.places[0], most)?;
        Some(ValueCursor { places: [rank, 0, 0], ..cursor })
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        build_large::<Self>(mem, |mem, copy| {
            let mut member = Vec::new();
            let len = scores_of(header).len(mem);
            let mut rank = 0;
            while rank < len {
                // Some elements at a time, since `mem` is not borrowed while it changes.
                let some: Vec<u64> =
                    scores_of(header).ascending(mem, rank).take(256).map(|e| e.item).collect();
                rank += some.len() as u64;
                for item in some {
                    member.clear();
                    member.extend_from_slice(element::member(mem, item));
                    let score = element::score(mem, item);
                    let member_hash = hash(mem.arena(), &member);
                    add(mem, copy, &member, member_hash, score)?;
                }
            }
            Ok(())
        })
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
        let sizes = tree
            .ascending(mem, 0)
            .take(usize::try_from(samples).expect("invariant: a number of elements in memory"));
        let sum: u64 = sizes.map(|entry| allocated_size(element::size_at(mem, entry.item))).sum();
        // Bytes of a slot in the dictionary, and of an entry in the tree with its share of a leaf
        // that is two thirds full.
        let references = 12 + 24;
        sum * len / samples.max(1) + references * len
    }
}
