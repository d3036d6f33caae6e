//! The eviction scope: under which locks an evictor works.
//!
//! Invariant: a thread that holds locks waits for no other lock. A shard that another thread holds
//! is passed over.

use crate::keyspace::{Keyspace, ShardIndex, ShardSet, Shards};

/// Entries, or elements of large values, that are freed of the lazy-free list in one step.
pub(super) const LAZY_FREE_SLICE: usize = 256;

/// Which locks the caller of an evictor holds.
pub enum EvictionScope<'r, 'a> {
    /// None: each shard is locked while the evictor works there.
    Unlocked {
        /// The keyspace.
        space: &'a Keyspace,
        /// The wall clock in milliseconds.
        now: i64,
    },
    /// Some shards; the evictor also works in others that it can lock without waiting.
    Within {
        /// The caller's locks.
        shards: &'r mut Shards<'a>,
        /// Hashes of the keys that must not be evicted, in ascending order.
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

    /// Whether the caller holds locks.
    pub(in crate::keyspace) const fn holds_locks(&self) -> bool {
        matches!(self, Self::Within { .. })
    }

    /// Hashes of the keys that must not be evicted, in ascending order.
    pub(super) const fn spared(&self) -> &'r [u64] {
        match self {
            Self::Unlocked { .. } => &[],
            Self::Within { spared, .. } => spared,
        }
    }

    /// Calls `act` under the lock of a shard; `None` if the lock is taken and the caller must not
    /// wait, or may have to wait for long.
    pub(in crate::keyspace) fn with<T>(
        &mut self,
        shard: ShardIndex,
        act: impl FnOnce(&mut Shards<'_>) -> T,
    ) -> Option<T> {
        match self {
            Self::Unlocked { space, now } => space.lock_soon(shard, *now).as_mut().map(act),
            Self::Within { shards, .. } if shards.locked().has(shard) => {
                Some(act(&mut shards.reborrow()))
            }
            Self::Within { shards, .. } => {
                let mut other = Shards::try_lock(shards.keyspace(), shard, shards.now())?;
                Some(act(&mut other))
            }
        }
    }

    /// Frees a slice of the lazy-free list of the first of these shards whose list is not empty;
    /// tells whether there was one.
    pub(super) fn free_deferred(&mut self, set: ShardSet) -> bool {
        let mut free =
            |shard| self.with(shard, |shards| shards.free_deferred(shard, LAZY_FREE_SLICE));
        set.iter().any(|shard| free(shard) == Some(true))
    }
}

/// Whether a key of this hash must not be evicted; `spared` is in ascending order.
pub(super) fn is_spared(spared: &[u64], hash: u64) -> bool {
    spared.binary_search(&hash).is_ok()
}
