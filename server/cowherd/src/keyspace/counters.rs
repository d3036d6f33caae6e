//! What each shard counts: changes, hits, evicted keys and the like.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::Keyspace;

const COUNTERS: usize = 8;

/// The counters of one shard. Only a thread that holds the shard's lock writes them, so that an
/// increment needs no atomic read-modify-write; any thread reads them.
pub(super) struct ShardCounters(CachePadded<[AtomicU64; COUNTERS]>);

/// One counter of a shard.
#[derive(Clone, Copy)]
pub(super) enum Counter {
    /// Changes as Redis counts them, for save points.
    Changes,
    /// Changes that Redis does not count: expiry, eviction, all but one part of a command.
    UncountedChanges,
    Expired,
    ExpiredFields,
    Hits,
    Misses,
    Evicted,
    /// Entries in the shard's watch table: not a sum but the present number.
    WatchEntries,
}

/// The sums over all shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardStats {
    /// Changes of keys or values, as many as Redis counts.
    pub changes: u64,
    /// Keys that expired.
    pub expired: u64,
    /// Fields of hashes that expired.
    pub expired_fields: u64,
    /// Lookups by reading commands that found their key.
    pub hits: u64,
    /// Lookups by reading commands that did not.
    pub misses: u64,
    /// Keys that were evicted.
    pub evicted: u64,
}

impl ShardCounters {
    pub const fn new() -> Self {
        Self(CachePadded::new([const { AtomicU64::new(0) }; COUNTERS]))
    }

    #[inline]
    pub fn add(&self, counter: Counter, by: u64) {
        self.set(counter, self.get(counter).wrapping_add(by));
    }

    #[inline]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    #[inline]
    pub fn set(&self, counter: Counter, to: u64) {
        self.0[counter as usize].store(to, Ordering::Relaxed);
    }
}

impl Keyspace {
    /// What all shards have counted.
    pub fn stats(&self) -> ShardStats {
        let sum = |counter: Counter| self.counters.iter().map(|shard| shard.get(counter)).sum();
        ShardStats {
            changes: sum(Counter::Changes),
            expired: sum(Counter::Expired),
            expired_fields: sum(Counter::ExpiredFields),
            hits: sum(Counter::Hits),
            misses: sum(Counter::Misses),
            evicted: sum(Counter::Evicted),
        }
    }
}
