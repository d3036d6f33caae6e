//! Shards: their numbers and sets of them.

use std::fmt;
use std::ops::BitOr;

use crate::layout::SHARDS;

/// A set of shards, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet(u64);

impl ShardSet {
    /// No shard.
    pub const NONE: Self = Self(0);
    /// All shards.
    pub const ALL: Self = Self(u64::MAX);

    /// The set of one shard.
    pub const fn one(shard: ShardIndex) -> Self {
        Self(1 << shard.0)
    }

    /// The set of the shards whose bits are set.
    pub const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether the shard is in the set.
    pub const fn has(self, shard: ShardIndex) -> bool {
        self.0 >> shard.0 & 1 == 1
    }

    /// Whether all shards of another set are in this one.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether there is no shard in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The shards of the set in ascending order.
    #[expect(clippy::cast_possible_truncation, reason = "bit numbers are below 64")]
    pub fn iter(self) -> impl Iterator<Item = ShardIndex> + Clone {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let lowest = (bits != 0).then(|| ShardIndex(bits.trailing_zeros() as u8));
            bits &= bits.wrapping_sub(1);
            lowest
        })
    }
}

impl BitOr for ShardSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Self> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        sets.into_iter().fold(Self::NONE, |all, set| all | set)
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardSet({:#018x})", self.0)
    }
}

/// The number of a shard, below [`SHARDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardIndex(u8);

impl ShardIndex {
    /// The shard that a hash falls into: its low six bits.
    #[expect(clippy::cast_possible_truncation, reason = "masked to six bits")]
    pub const fn of_hash(hash: u64) -> Self {
        Self((hash % SHARDS as u64) as u8)
    }

    /// The shard with this number.
    #[expect(clippy::cast_possible_truncation, reason = "checked to be below 64")]
    pub const fn new(index: usize) -> Option<Self> {
        if index < SHARDS { Some(Self(index as u8)) } else { None }
    }

    /// All shards in ascending order.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        ShardSet::ALL.iter()
    }

    /// Its number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_lists_its_shards_in_ascending_order() {
        let shard = |i| ShardIndex::new(i).unwrap();
        let set = ShardSet::one(shard(63)) | ShardSet::one(shard(0)) | ShardSet::one(shard(17));
        let listed: Vec<usize> = set.iter().map(ShardIndex::get).collect();
        assert_eq!(listed, [0, 17, 63]);
        assert!(set.has(shard(17)) && !set.has(shard(18)));
        assert_eq!(ShardIndex::all().count(), SHARDS);
        assert_eq!(ShardIndex::new(SHARDS), None);
    }
}
