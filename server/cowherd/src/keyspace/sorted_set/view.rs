//! Reading sorted sets by rank, whatever their encoding. The rank of a member is the number of
//! members before it.

use std::cmp::Ordering;

use crate::keyspace::entry::hash;
use crate::keyspace::shards::Entry;
use crate::keyspace::{Shards, Value};
use cowherd_arena::ReadOnly;
use cowherd_arena::containers::dict::DictCursor;
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::containers::tree::{AfterTies, BeforeTies, TreeEntry};

use super::element::{self, BySortedMember};
use super::{members_of, pair_at, pairs, scores_of};

/// A position between members, as a bound of a range.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RangeBound<'b> {
    /// The position before or behind all members with a score.
    Score {
        /// The score.
        score: f64,
        /// Whether the position is behind the members, not before them.
        is_behind: bool,
    },
    /// The position before or behind a member, whether the set has it or not; all members have the
    /// same score.
    Member {
        /// The member.
        member: &'b [u8],
        /// Whether the position is behind the members, not before them.
        is_behind: bool,
    },
    /// The position before all members.
    Start,
    /// The position behind all members.
    End,
}

enum SortedSetSource<'s> {
    /// A packed run.
    Compact(&'s [u8]),
    /// The header of a large sorted set.
    Large(u64),
}

/// A sorted set, for reading.
pub struct SortedSetView<'s> {
    mem: ReadOnly<'s>,
    source: SortedSetSource<'s>,
    len: u64,
}

impl Shards<'_> {
    /// The sorted set of an entry, whose value is one.
    #[inline]
    pub fn sorted_set(&self, entry: &Entry) -> SortedSetView<'_> {
        let mem = self.held.view(entry.shard);
        if entry.head.is_large() {
            let header = entry.head.large_header(&mem, entry.at);
            let len = scores_of(header).len(&mem);
            SortedSetView { mem, source: SortedSetSource::Large(header), len }
        } else {
            let source = SortedSetSource::Compact(self.run(entry));
            SortedSetView { mem, source, len: entry.head.count }
        }
    }
}

impl<'s> SortedSetView<'s> {
    /// Number of members.
    #[inline]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set is compact.
    pub const fn is_compact(&self) -> bool {
        matches!(self.source, SortedSetSource::Compact(_))
    }

    #[cfg(test)]
    /// Whether the set has no members; never true of a sorted set in the keyspace.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self.source {
            SortedSetSource::Compact(run) => {
                let at = packed::find(run, &Encoded::of(member), 0, 2)?;
                Some(pair_at(run, at).1)
            }
            SortedSetSource::Large(header) => {
                let hash = hash(self.mem.arena(), member);
                let found = members_of(header).find(&self.mem, hash, &BySortedMember(member))?;
                Some(element::score(&self.mem, found.item))
            }
        }
    }

    /// The rank and the score of a member.
    pub fn rank(&self, member: &[u8]) -> Option<(u64, f64)> {
        match self.source {
            SortedSetSource::Compact(run) => {
                let mut digits = itoa::Buffer::new();
                let found = pairs(run).zip(0..).find(|((m, _), _)| m.bytes(&mut digits) == member);
                found.map(|((_, score), rank)| (rank, score))
            }
            SortedSetSource::Large(header) => {
                let score = self.score(member)?;
                let key = element::order(score);
                let rank = scores_of(header).find(&self.mem, key, &BySortedMember(member))?;
                Some((rank, score))
            }
        }
    }

    /// Number of members before a position.
    pub fn before(&self, bound: &RangeBound<'_>) -> u64 {
        match (&self.source, *bound) {
            (_, RangeBound::Start) => 0,
            (_, RangeBound::End) => self.len,
            (SortedSetSource::Compact(run), RangeBound::Score { score, is_behind }) => {
                count_while(run, |_, one| one < score || is_behind && one == score)
            }
            (SortedSetSource::Compact(run), RangeBound::Member { member, is_behind }) => {
                let mut digits = itoa::Buffer::new();
                count_while(run, |one, _| is_before(one.bytes(&mut digits), member, is_behind))
            }
            (SortedSetSource::Large(header), RangeBound::Score { score, is_behind }) => {
                let (tree, key) = (scores_of(*header), element::order(score));
                match is_behind {
                    true => tree.rank(&self.mem, key, &AfterTies),
                    false => tree.rank(&self.mem, key, &BeforeTies),
                }
            }
            (SortedSetSource::Large(header), RangeBound::Member { member, is_behind }) => {
                scores_of(*header).partition_point(&self.mem, |mem, entry| {
                    is_before(element::member(mem, entry.item), member, is_behind)
                })
            }
        }
    }

    /// Calls `each` with `count` members from a rank on, upwards or downwards.
    pub fn each(&self, rank: u64, count: u64, is_down: bool, mut each: impl FnMut(Value<'s>, f64)) {
        if rank >= self.len {
            return;
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match self.source {
            SortedSetSource::Compact(run) if is_down => {
                let mut members: Vec<_> = pairs(run).take(up_to(rank)).collect();
                members.reverse();
                members
                    .into_iter()
                    .take(count)
                    .for_each(|(member, score)| each(member.into(), score));
            }
            SortedSetSource::Compact(run) => {
                let from = usize::try_from(rank).unwrap_or(usize::MAX);
                let members = pairs(run).skip(from).take(count);
                members.for_each(|(member, score)| each(member.into(), score));
            }
            SortedSetSource::Large(header) => {
                let tree = scores_of(header);
                let mut each = |entry: TreeEntry| {
                    let (member, score) = self.element(entry.item);
                    each(Value::Bytes(member), score);
                };
                if is_down {
                    tree.descending(&self.mem, rank).take(count).for_each(&mut each);
                } else {
                    tree.ascending(&self.mem, rank).take(count).for_each(&mut each);
                }
            }
        }
    }

    fn element(&self, item: u64) -> (&'s [u8], f64) {
        let (start, len) = element::member_span(&self.mem, item);
        (self.mem.slice(start, len), element::score(&self.mem, item))
    }

    /// Calls `each` with members from a cursor on: at least `least` members if there are so many,
    /// all members of a compact set. Returns the cursor to continue with.
    pub fn scan(
        &self,
        cursor: DictCursor,
        least: usize,
        mut each: impl FnMut(Value<'s>, f64),
    ) -> Option<DictCursor> {
        match self.source {
            SortedSetSource::Compact(run) => {
                pairs(run).for_each(|(member, score)| each(member.into(), score));
                None
            }
            SortedSetSource::Large(header) => {
                members_of(header).scan(&self.mem, cursor, least, |item| {
                    let (member, score) = self.element(item);
                    each(Value::Bytes(member), score);
                })
            }
        }
    }
}

fn up_to(rank: u64) -> usize {
    usize::try_from(rank).unwrap_or(usize::MAX).saturating_add(1)
}

fn is_before(one: &[u8], member: &[u8], is_behind: bool) -> bool {
    match one.cmp(member) {
        Ordering::Less => true,
        Ordering::Equal => is_behind,
        Ordering::Greater => false,
    }
}

fn count_while(run: &[u8], mut is_before: impl FnMut(Element<'_>, f64) -> bool) -> u64 {
    pairs(run).take_while(|(member, score)| is_before(*member, *score)).count() as u64
}
