//! The eviction policy: which keys may be evicted, and which of them first.

use crate::config::MaxmemoryPolicy;
use cowherd_arena::ShardIndex;
use cowherd_arena::containers::dict::Dict;

use crate::keyspace::clocks::KeyUsage;
use crate::keyspace::{DbIndex, expires_of, keys_of};

/// By which figure keys are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ranking {
    LeastRecentlyUsed,
    LeastFrequentlyUsed,
    SoonestToExpire,
    Random,
}

/// What `maxmemory-policy` asks for, unless that is `noeviction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EvictionPolicy {
    ranking: Ranking,
    /// Only keys with an expiry may be evicted.
    pub(super) volatile: bool,
}

impl EvictionPolicy {
    /// The policy of a `maxmemory-policy`; `None` for `noeviction`.
    pub const fn of(policy: MaxmemoryPolicy) -> Option<Self> {
        let (ranking, volatile) = match policy {
            MaxmemoryPolicy::VolatileLru => (Ranking::LeastRecentlyUsed, true),
            MaxmemoryPolicy::VolatileLfu => (Ranking::LeastFrequentlyUsed, true),
            MaxmemoryPolicy::VolatileRandom => (Ranking::Random, true),
            MaxmemoryPolicy::VolatileTtl => (Ranking::SoonestToExpire, true),
            MaxmemoryPolicy::AllkeysLru => (Ranking::LeastRecentlyUsed, false),
            MaxmemoryPolicy::AllkeysLfu => (Ranking::LeastFrequentlyUsed, false),
            MaxmemoryPolicy::AllkeysRandom => (Ranking::Random, false),
            MaxmemoryPolicy::Noeviction => return None,
        };
        Some(Self { ranking, volatile })
    }

    /// How many keys of a database are compared in one sample.
    pub(super) fn sample_size(self, maxmemory_samples: u32) -> u32 {
        if self.ranking == Ranking::Random { 1 } else { maxmemory_samples }
    }

    /// The dictionary of all keys of a database in a shard that may be evicted.
    pub(super) fn dict(self, shard: ShardIndex, db: DbIndex) -> Dict {
        if self.volatile { expires_of(shard, db) } else { keys_of(shard, db) }
    }

    /// The rank of a key: the higher, the sooner it is evicted.
    pub(super) fn rank(self, usage: KeyUsage, expiry: Option<i64>) -> u64 {
        match self.ranking {
            Ranking::Random => 0,
            Ranking::SoonestToExpire => {
                u64::MAX - expiry.map_or(u64::MAX, |at| u64::try_from(at).unwrap_or_default())
            }
            // Right after a change of policy the clocks may still hold figures of the other kind.
            Ranking::LeastRecentlyUsed | Ranking::LeastFrequentlyUsed => match usage {
                KeyUsage::Idle(seconds) => seconds,
                KeyUsage::Frequency(count) => 255 - count.min(255),
            },
        }
    }
}
