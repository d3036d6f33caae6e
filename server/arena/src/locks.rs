//! The shard locks: who may touch which bytes of the arena, and when.
//!
//! Invariants that unsafe code in the arena leans on:
//! 1. A [`Held`] has locked every shard of its set, and unlocks them when it goes. A lent one
//!    leaves both to the one that it was lent by, which cannot be used before it has gone.
//! 2. Bytes reachable from the root of shard `s` are touched only through a `Held` whose set has
//!    `s`. Nothing is reachable from two shards: the auditor checks it after every restore.
//! 3. Locks that are waited for are taken in ascending order in one call by who holds none, so that
//!    no two callers can wait for each other.

#![expect(unsafe_code, reason = "raw memory; see the invariants above")]

use std::fmt;
use std::ops::BitOr;

use crossbeam_utils::CachePadded;
use parking_lot::RawMutex;
use parking_lot::lock_api::RawMutex as _;

use crate::Arena;
use crate::layout::SHARDS;
use crate::memory::access::{Mem, ReadOnly};

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

/// One lock a shard, each on a cache line of its own.
pub(crate) struct ShardLocks([CachePadded<RawMutex>; SHARDS]);

impl ShardLocks {
    pub(crate) const fn new() -> Self {
        Self([const { CachePadded::new(RawMutex::INIT) }; SHARDS])
    }
}

/// The locked shards of one command. Everything that touches the arena starts here.
pub struct Held<'a> {
    arena: &'a Arena,
    set: ShardSet,
    /// Whether somebody else unlocks the shards, and cannot touch them before this one has gone.
    lent: bool,
}

impl<'a> Held<'a> {
    #[inline]
    pub(crate) fn lock(arena: &'a Arena, set: ShardSet) -> Self {
        for shard in set.iter() {
            arena.locks.0[shard.get()].lock();
        }
        Self { arena, set, lent: false }
    }

    pub(crate) fn try_lock(arena: &'a Arena, shard: ShardIndex) -> Option<Self> {
        // One that has not locked its shards must not be made: it would unlock them (invariant 1).
        let locked = arena.locks.0[shard.get()].try_lock();
        locked.then(|| Self { arena, set: ShardSet::one(shard), lent: false })
    }

    /// The same locked shards, for a while.
    pub const fn reborrow(&mut self) -> Held<'_> {
        Held { arena: self.arena, set: self.set, lent: true }
    }

    /// The memory of one locked shard.
    ///
    /// # Panics
    /// The shard is not in the set.
    #[inline]
    pub fn mem(&mut self, shard: ShardIndex) -> Mem<'_> {
        assert!(self.set.has(shard), "shard {} is not locked", shard.get());
        Mem::new(self.arena, shard)
    }

    /// The memory of one locked shard, to be read.
    ///
    /// # Panics
    /// The shard is not in the set.
    #[inline]
    pub fn view(&self, shard: ShardIndex) -> ReadOnly<'_> {
        assert!(self.set.has(shard), "shard {} is not locked", shard.get());
        ReadOnly::new(self.arena, shard)
    }

    /// The locked shards.
    pub const fn set(&self) -> ShardSet {
        self.set
    }

    /// The arena.
    pub const fn arena(&self) -> &'a Arena {
        self.arena
    }

    /// Proof that every shard is locked; `None` if one is not.
    pub fn safepoint(&mut self) -> Option<Safepoint<'_>> {
        (self.set == ShardSet::ALL).then_some(Safepoint { arena: self.arena })
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.lent {
            return;
        }
        for shard in self.set.iter() {
            // SAFETY: this `Held` locked the shard (invariant 1).
            unsafe { self.arena.locks.0[shard.get()].unlock() };
        }
    }
}

/// Proof that every shard is locked: the arena is whole and stands still. Only under one may
/// anybody fork.
pub struct Safepoint<'h> {
    arena: &'h Arena,
}

impl<'h> Safepoint<'h> {
    /// The arena that stands still.
    pub const fn arena(&self) -> &'h Arena {
        self.arena
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
