//! An element of a large sorted set: the object of a member and its score.
//!
//! ```text
//! 0       8                    9 or 13
//! +-------+--------------------+--------+
//! | score | length 1, or 1 + 4 | member |        a length of 255 or more: 255 and four bytes
//! +-------+--------------------+--------+
//! ```

use std::cmp::Ordering;

use zerocopy::little_endian::{F64, U32};

use crate::keyspace::MAX_VALUE;
use crate::keyspace::entry::hash;
use cowherd_arena::containers::dict::{self, Hashed};
use cowherd_arena::containers::tree;
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory};

/// Bytes of the score, before the length.
const SCORE: u64 = 8;
/// A length byte that four bytes with the length follow.
const LONG: u8 = 255;

/// The tree's key of a score: an integer in the same order. No score is a NaN.
#[inline]
pub(super) fn order(score: f64) -> u64 {
    // Both zeros are equal as scores.
    let bits = if score == 0.0 { 0 } else { score.to_bits() };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Bytes of an element with a member of `member` bytes.
const fn size(member: u64) -> u64 {
    SCORE + if member < LONG as u64 { 1 } else { 5 } + member
}

/// Offset and length of an element's member.
#[inline]
pub(super) fn member_span(mem: &Mem<'_>, at: u64) -> (u64, u64) {
    match mem.read(Offset::<u8>::new(at + SCORE)) {
        LONG => (at + SCORE + 5, mem.read(Offset::<U32>::new(at + SCORE + 1)).get().into()),
        short => (at + SCORE + 1, u64::from(short)),
    }
}

#[inline]
pub(super) fn member<'m>(mem: &'m Mem<'_>, at: u64) -> &'m [u8] {
    let (start, len) = member_span(mem, at);
    mem.bytes(start, len)
}

#[inline]
pub(super) fn score(mem: &Mem<'_>, at: u64) -> f64 {
    mem.read(Offset::<F64>::new(at)).get()
}

pub(super) fn set_score(mem: &mut Mem<'_>, at: u64, score: f64) {
    mem.write(Offset::new(at), F64::new(score));
}

/// Creates an element, without linking it.
pub(super) fn create(mem: &mut Mem<'_>, member: &[u8], score: f64) -> Result<u64, OutOfMemory> {
    let len = member.len() as u64;
    let size = size(len);
    let at = mem.allocate(size)?;
    let bytes = mem.bytes_mut(at, size);
    let (head, rest) = bytes.split_at_mut(bytes.len() - member.len());
    head[..8].copy_from_slice(&score.to_le_bytes());
    match u8::try_from(len) {
        Ok(short) if short < LONG => head[8] = short,
        _ => {
            head[8] = LONG;
            head[9..].copy_from_slice(
                &u32::try_from(len)
                    .expect("invariant: a member has at most `MAX_VALUE` bytes")
                    .to_le_bytes(),
            );
        }
    }
    rest.copy_from_slice(member);
    Ok(at)
}

pub(super) fn release(mem: &mut Mem<'_>, at: u64) {
    let (_, len) = member_span(mem, at);
    mem.release(at, size(len));
}

/// Bytes of the element at `at`.
pub(super) fn size_at(mem: &Mem<'_>, at: u64) -> u64 {
    size(member_span(mem, at).1)
}

/// Finds an element by its member, and orders elements of one score.
pub(super) struct BySortedMember<'k>(pub &'k [u8]);

impl dict::ItemMatcher for BySortedMember<'_> {
    #[inline]
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        member(mem, item) == self.0
    }
}

impl tree::TieOrder for BySortedMember<'_> {
    #[inline]
    fn compare(&self, mem: &Mem<'_>, item: u64) -> Ordering {
        self.0.cmp(member(mem, item))
    }
}

/// Hashes elements by their members.
pub(super) struct ElementHasher;

impl Hashed for ElementHasher {
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64 {
        hash(mem.arena(), member(mem, item))
    }
}

/// Checks the elements in the dictionary; claims each, and collects them.
pub(super) struct ElementChecker<'a, 'h> {
    pub mem: &'a Mem<'h>,
    pub audit: &'a Audit<'h>,
    pub seen: Vec<u64>,
}

impl dict::CheckDictItem for ElementChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        let capacity = self.mem.arena().capacity();
        if item.checked_add(SCORE + 5).is_none_or(|end| end > capacity) {
            return Err(Corruption::at(0, format!("a member at {item:#x}, outside the arena")));
        }
        let (_, len) = member_span(self.mem, item);
        let is_short = self.mem.read(Offset::<u8>::new(item + SCORE)) != LONG;
        if len > MAX_VALUE || is_short != (len < u64::from(LONG)) {
            return Err(Corruption::at(item, format!("a member of {len} bytes")));
        }
        self.audit.claim(item, size(len), self.mem.shard())?;
        if score(self.mem, item).is_nan() {
            return Err(Corruption::at(item, "a score that is not a number".into()));
        }
        self.seen.push(item);
        Ok(hash(self.mem.arena(), member(self.mem, item)))
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        member(self.mem, one) == member(self.mem, other)
    }
}

/// Checks that the tree refers to elements in the dictionary.
pub(super) struct ScoreOrderChecker<'a, 'h> {
    pub mem: &'a Mem<'h>,
    /// The elements in the dictionary, in ascending order.
    pub seen: &'a [u64],
}

impl tree::CheckTreeEntry for ScoreOrderChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, entry: tree::TreeEntry) -> Result<(), Corruption> {
        let is_known = self.seen.binary_search(&entry.item).is_ok();
        if !is_known || order(score(self.mem, entry.item)) != entry.key {
            let reason = format!("a sorted set orders {entry:?}, which is no member of it");
            return Err(Corruption::at(entry.item, reason));
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        member(self.mem, one).cmp(member(self.mem, other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_order() {
        let scores = [f64::NEG_INFINITY, f64::MIN, -1.5, -1.0, -5e-324, 0.0, 5e-324, 1.0, 1.5];
        let scores = scores.iter().chain(&[f64::MAX, f64::INFINITY]).copied();
        let orders: Vec<u64> = scores.map(order).collect();
        assert!(orders.is_sorted_by(|a, b| a < b), "{orders:x?}");
        assert_eq!(order(-0.0), order(0.0));
    }
}
