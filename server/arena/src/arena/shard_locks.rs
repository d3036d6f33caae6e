//! One lock for each shard.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::RawMutex;
use parking_lot::lock_api::{RawMutex as _, RawMutexTimed as _};

use crate::layout::SHARDS;
use crate::shard::ShardIndex;

/// The shard locks, each on a cache line of its own.
pub(crate) struct ShardLocks([CachePadded<RawMutex>; SHARDS]);

impl ShardLocks {
    pub(crate) const fn new() -> Self {
        Self([const { CachePadded::new(RawMutex::INIT) }; SHARDS])
    }

    #[inline]
    pub(super) fn try_lock(&self, shard: ShardIndex) -> bool {
        self.0[shard.get()].try_lock()
    }

    /// Waits for a lock, up to `timeout`.
    pub(super) fn try_lock_for(&self, shard: ShardIndex, timeout: Duration) -> bool {
        self.0[shard.get()].try_lock_for(timeout)
    }

    /// # Safety
    /// The calling thread has locked the shard.
    #[inline]
    pub(super) unsafe fn unlock(&self, shard: ShardIndex) {
        // SAFETY: as the caller promises.
        unsafe { self.0[shard.get()].unlock() };
    }
}
