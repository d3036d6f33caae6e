//! How an evictor gets at a shard: with no lock held, or under locks that others have a part in.
//!
//! Invariant: whoever holds locks waits for no other. A shard of somebody else's is passed over.

use super::{Keyspace, ShardIndex, ShardSet, Shards};

/// Entries, or as much of large values, of what was deleted before that are freed in one step.
pub(super) const GARBAGE_SLICE: usize = 256;

/// Where an evictor works.
pub enum EvictionScope<'r, 'a> {
    /// The caller holds no lock: each shard is locked while something is done there.
    Unlocked {
        /// The keyspace.
        space: &'a Keyspace,
        /// The wall clock in milliseconds.
        now: i64,
    },
    /// The caller holds some shards; others are of use if they are free at that moment.
    Within {
        /// Those that it holds.
        shards: &'r mut Shards<'a>,
        /// Hashes of the keys that stay whatever they are worth, in ascending order.
        spared: &'r [u64],
    },
}

impl<'r, 'a> EvictionScope<'r, 'a> {
    /// The keyspace.
    pub fn space(&self) -> &'a Keyspace {
        match self {
            Self::Unlocked { space, .. } => space,
            Self::Within { shards, .. } => shards.keyspace(),
        }
    }

    /// The wall clock in milliseconds.
    pub fn now(&self) -> i64 {
        match self {
            Self::Unlocked { now, .. } => *now,
            Self::Within { shards, .. } => shards.now(),
        }
    }

    /// Whether the caller holds locks.
    pub const fn holds_locks(&self) -> bool {
        matches!(self, Self::Within { .. })
    }

    /// Hashes of the keys that stay, in ascending order.
    pub(super) const fn spared(&self) -> &'r [u64] {
        match self {
            Self::Unlocked { .. } => &[],
            Self::Within { spared, .. } => spared,
        }
    }

    /// Does something under the lock of a shard; `None` if somebody else holds it and the caller
    /// must not wait.
    pub(super) fn with<T>(
        &mut self,
        shard: ShardIndex,
        act: impl FnOnce(&mut Shards<'_>) -> T,
    ) -> Option<T> {
        match self {
            Self::Unlocked { space, now } => Some(act(&mut space.lock(ShardSet::one(shard), *now))),
            Self::Within { shards, .. } if shards.locked().has(shard) => {
                Some(act(&mut shards.reborrow()))
            }
            Self::Within { shards, .. } => {
                let mut other = Shards::try_lock(shards.keyspace(), shard, shards.now())?;
                Some(act(&mut other))
            }
        }
    }

    /// Frees a slice of what was deleted before, in the first of these shards that has any; tells
    /// whether one has.
    pub fn free_deferred(&mut self, set: ShardSet) -> bool {
        let mut free =
            |shard| self.with(shard, |shards| shards.free_deferred(shard, GARBAGE_SLICE));
        set.iter().any(|shard| free(shard) == Some(true))
    }
}
