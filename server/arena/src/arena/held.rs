//! `Held`: the locked shards of one command, and access to their memory.
//!
//! Invariants that unsafe code cites:
//! 1. A [`Held`] has locked every shard of its set and unlocks them on drop. A reborrowed `Held`
//!    unlocks nothing, and the `Held` that it borrows from cannot be used before it is dropped.
//! 2. Bytes reachable from the root of shard `s` are accessed only through a `Held` whose set
//!    contains `s`. No byte is reachable from two shards: an audit checks it after every restore,
//!    and builds with debug assertions check it on every access ([`super::owners`]).
//! 3. Blocking lock requests are made in ascending order, in one call, by a thread that holds no
//!    shard lock, so no two threads can wait for each other.
//! 4. A `Held` is dropped on the thread that made it: it is not `Send`, as parking_lot's locks may
//!    only be unlocked by the thread that locked them.

use std::marker::PhantomData;

use super::Arena;
use super::mem::{Mem, ReadOnly};
use super::safepoint::Safepoint;
use crate::shard::{ShardIndex, ShardSet};

/// The locked shards of one command. Everything that touches the arena starts here.
pub struct Held<'a> {
    arena: &'a Arena,
    set: ShardSet,
    /// Whether another owner unlocks the shards, after this value is dropped.
    lent: bool,
    not_send: PhantomData<*const ()>,
}

impl Arena {
    /// Locks shards, in ascending order, until the result is dropped.
    #[inline]
    pub fn lock(&self, set: ShardSet) -> Held<'_> {
        Held::lock(self, set)
    }

    /// Locks a shard until the result is dropped; `None` if the shard is locked.
    pub fn try_lock(&self, shard: ShardIndex) -> Option<Held<'_>> {
        Held::try_lock(self, shard)
    }
}

impl<'a> Held<'a> {
    #[inline]
    pub(crate) fn lock(arena: &'a Arena, set: ShardSet) -> Self {
        for shard in set.iter() {
            arena.locks.lock(shard);
        }
        Self { arena, set, lent: false, not_send: PhantomData }
    }

    pub(crate) fn try_lock(arena: &'a Arena, shard: ShardIndex) -> Option<Self> {
        // One that has not locked its shards must not be made: it would unlock them (invariant 1).
        let locked = arena.locks.try_lock(shard);
        locked.then(|| Self {
            arena,
            set: ShardSet::one(shard),
            lent: false,
            not_send: PhantomData,
        })
    }

    /// The same locked shards, for a while.
    pub const fn reborrow(&mut self) -> Held<'_> {
        Held { arena: self.arena, set: self.set, lent: true, not_send: PhantomData }
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

    /// The memory of one locked shard, with read access to another: for copying between shards.
    ///
    /// # Panics
    /// One of the shards is not in the set.
    #[inline]
    pub fn mem_reading(&mut self, shard: ShardIndex, source: ShardIndex) -> Mem<'_> {
        assert!(self.set.has(shard), "shard {} is not locked", shard.get());
        assert!(self.set.has(source), "shard {} is not locked", source.get());
        Mem::reading(self.arena, shard, source)
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
        (self.set == ShardSet::ALL).then(|| Safepoint::of(self.arena))
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
            unsafe { self.arena.locks.unlock(shard) };
        }
    }
}
