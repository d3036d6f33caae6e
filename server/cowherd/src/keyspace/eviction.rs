//! Eviction: which keys go when memory is short.
//!
//! ```text
//!             under one shard's lock      pool of the best      under one shard's lock
//! evict_one:  sample some of its keys --> of many shards    --> remove the best of all,
//!             (the next shard each time)                        if it was not used since
//! ```
//!
//! Looking at all keys would take too long, and the best of a few is often a bad choice. The pool
//! remembers good candidates of earlier samples, so that the choice comes near to the best of all.
//!
//! Memory that keys of one size leave behind is of use to keys of that size only, until a slab has
//! lost all its objects: chosen one by one, keys would nearly all have to go before that happens.
//! `clearing` takes those of neighbouring slabs together, for a command that finds no room
//! otherwise.
//!
//! Invariants:
//! 1. An evictor locks one shard at a time, and waits for it only if who asks holds none.
//! 2. Candidates are names of keys, never places: what has become of them is looked up.

use crate::config::MaxmemoryPolicy;
use cowherd_arena::containers::dict::{Dict, Hashed as _};
use cowherd_arena::{ShardIndex, ShardSet, UnitSpan};

use super::clocks::KeyUsage;
use super::entry::{ByHash, ByKey, ByPlace, Shape};
use super::events::KeyspaceEvent;
use super::interest::ReadyKey;
use super::reach::{EvictionScope, GARBAGE_SLICE};
use super::shards::{Counter, Entry};
use super::{DATABASES, DbIndex, Keyspace, Shards, expires_of, keys_of};

/// Candidates that an evictor remembers.
const POOL: usize = 16;

/// What makes a key a good victim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ranking {
    Oldest,
    Rarest,
    SoonestToExpire,
    Any,
}

/// Which keys may go, and which of them go first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EvictionPolicy {
    ranking: Ranking,
    /// Only keys with an expiry.
    volatile: bool,
}

impl EvictionPolicy {
    /// The victims of a policy; none if it has none.
    pub const fn of(policy: MaxmemoryPolicy) -> Option<Self> {
        let (ranking, volatile) = match policy {
            MaxmemoryPolicy::VolatileLru => (Ranking::Oldest, true),
            MaxmemoryPolicy::VolatileLfu => (Ranking::Rarest, true),
            MaxmemoryPolicy::VolatileRandom => (Ranking::Any, true),
            MaxmemoryPolicy::VolatileTtl => (Ranking::SoonestToExpire, true),
            MaxmemoryPolicy::AllkeysLru => (Ranking::Oldest, false),
            MaxmemoryPolicy::AllkeysLfu => (Ranking::Rarest, false),
            MaxmemoryPolicy::AllkeysRandom => (Ranking::Any, false),
            MaxmemoryPolicy::Noeviction => return None,
        };
        Some(Self { ranking, volatile })
    }

    /// Refers to all keys of a database in a shard that may go.
    pub(super) fn dict(self, shard: ShardIndex, db: DbIndex) -> Dict {
        if self.volatile { expires_of(shard, db) } else { keys_of(shard, db) }
    }

    /// The higher, the sooner it goes.
    fn rank(self, usage: KeyUsage, expiry: Option<i64>) -> u64 {
        match (self.ranking, usage) {
            (Ranking::Any, _) => 0,
            (Ranking::SoonestToExpire, _) => {
                u64::MAX - expiry.map_or(u64::MAX, |at| u64::try_from(at).unwrap_or_default())
            }
            // Right after a change of policy there may be figures of the other kind.
            (Ranking::Oldest | Ranking::Rarest, KeyUsage::Idle(seconds)) => seconds,
            (Ranking::Oldest | Ranking::Rarest, KeyUsage::Frequency(count)) => 255 - count.min(255),
        }
    }
}

/// What one step of eviction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvictionStep {
    /// A key was evicted.
    Evicted,
    /// Memory of keys that had expired, or were deleted before, was freed.
    Freed,
    /// There is no key that may go.
    Nothing,
}

/// A key that may go.
#[derive(Debug)]
struct Candidate {
    rank: u64,
    shard: ShardIndex,
    db: DbIndex,
    hash: u64,
    key: Box<[u8]>,
}

/// Evicts keys, one at a time.
#[derive(Debug)]
pub struct Evictor {
    /// The best comes last.
    pool: Vec<Candidate>,
    victims: Option<EvictionPolicy>,
    next_shard: usize,
    pub(super) random: u64,
    pub(super) ready: Vec<ReadyKey>,
}

impl Evictor {
    /// One that draws its samples by `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { pool: Vec::new(), victims: None, next_shard: 0, random: seed, ready: Vec::new() }
    }

    /// Keys that were removed while somebody waits for them.
    pub fn take_ready(&mut self) -> Vec<ReadyKey> {
        std::mem::take(&mut self.ready)
    }

    /// Evicts a key of the shards in `set`, after a look at `samples` keys, or frees something
    /// else.
    pub fn evict_one(
        &mut self,
        reach: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        victims: EvictionPolicy,
        samples: u32,
    ) -> EvictionStep {
        if self.victims != Some(victims) {
            self.pool.clear();
            self.victims = Some(victims);
        }
        let spared = reach.spared();
        // Candidates may have gone, or were used meanwhile: then others take their place.
        for _ in 0..2 * POOL {
            let Some(shard) = self.choose_shard(reach.space(), set, victims) else {
                return if reach.free_deferred(set) {
                    EvictionStep::Freed
                } else {
                    EvictionStep::Nothing
                };
            };
            self.keep_room_for(set);
            let freed = reach.with(shard, |shards| {
                let freed = shards.free_deferred(shard, GARBAGE_SLICE)
                    || self.sample(shards, shard, victims, samples, spared);
                self.ready.append(&mut shards.take_ready());
                freed
            });
            if freed == Some(true) {
                return EvictionStep::Freed;
            }
            let Some(best) = self.pool.iter().rposition(|candidate| set.has(candidate.shard))
            else {
                continue;
            };
            let candidate = self.pool.remove(best);
            let evicted = reach.with(candidate.shard, |shards| {
                let evicted = shards.evict(&candidate, victims, spared);
                self.ready.append(&mut shards.take_ready());
                evicted
            });
            if evicted == Some(true) {
                return EvictionStep::Evicted;
            }
        }
        EvictionStep::Nothing
    }

    /// Candidates of other shards, however good they are, must not keep those of the wanted ones
    /// out of the pool: then no victim would be found.
    fn keep_room_for(&mut self, set: ShardSet) {
        let is_full = self.pool.len() == POOL;
        if is_full && !self.pool.iter().any(|candidate| set.has(candidate.shard)) {
            self.pool.remove(0);
        }
    }

    /// The next shard that has a key that may go.
    pub(super) fn choose_shard(
        &mut self,
        space: &Keyspace,
        set: ShardSet,
        victims: EvictionPolicy,
    ) -> Option<ShardIndex> {
        let order = ShardIndex::all().cycle().skip(self.next_shard).take(ShardIndex::all().count());
        let shard = order
            .filter(|shard| set.has(*shard))
            .find(|shard| (0..DATABASES).any(|db| space.hint_len(victims.dict(*shard, db)) > 0))?;
        self.next_shard = shard.get() + 1;
        Some(shard)
    }

    /// Takes good candidates of a locked shard into the pool. Tells whether it found keys that had
    /// expired, and removed them.
    fn sample(
        &mut self,
        shards: &mut Shards<'_>,
        shard: ShardIndex,
        victims: EvictionPolicy,
        samples: u32,
        spared: &[u64],
    ) -> bool {
        let samples = if victims.ranking == Ranking::Any { 1 } else { samples };
        let mut expired = Vec::new();
        for db in 0..DATABASES {
            for _ in 0..samples {
                let mem = shards.held.view(shard);
                let dict = victims.dict(shard, db);
                let Some(at) = dict.random(&mem, || next(&mut self.random)) else { break };
                let shape = Shape::load(&mem, at);
                let expiry = shape.expiry(&mem, at);
                if expiry.is_some_and(|at| at <= shards.now) {
                    expired.push((db, at));
                    continue;
                }
                let usage = shards.space.clocks.usage(at, shards.now);
                let rank = victims.rank(usage, expiry);
                let key = shape.key(&mem, at);
                let hash = || shards.space.hash(key);
                if spared.is_empty() || !is_spared(spared, hash()) {
                    self.consider(rank, shard, db, key, hash);
                }
            }
        }
        // The same entry may have been drawn twice.
        expired.sort_unstable();
        expired.dedup();
        for (db, at) in &expired {
            shards.expire_entry(shard, *db, *at);
        }
        !expired.is_empty()
    }

    fn consider(
        &mut self,
        rank: u64,
        shard: ShardIndex,
        db: DbIndex,
        key: &[u8],
        hash: impl FnOnce() -> u64,
    ) {
        let is_full = self.pool.len() == POOL;
        if is_full && self.pool[0].rank >= rank {
            return;
        }
        let same = |other: &Candidate| (other.shard, other.db) == (shard, db) && *other.key == *key;
        if let Some(known) = self.pool.iter().position(same) {
            self.pool.remove(known);
        } else if is_full {
            self.pool.remove(0);
        }
        let place = self.pool.partition_point(|other| other.rank < rank);
        self.pool.insert(place, Candidate { rank, shard, db, hash: hash(), key: key.into() });
    }
}

impl Shards<'_> {
    /// Removes a candidate, unless it has gone, or was used or changed so that it would not be one
    /// any more.
    fn evict(&mut self, candidate: &Candidate, victims: EvictionPolicy, spared: &[u64]) -> bool {
        let Candidate { rank, shard, db, hash, ref key } = *candidate;
        if is_spared(spared, hash) {
            return false;
        }
        let mem = self.held.view(shard);
        let Some(found) = keys_of(shard, db).find(&mem, hash, &ByKey(key)) else { return false };
        let at = found.item;
        let shape = Shape::load(&mem, at);
        let expiry = shape.expiry(&mem, at);
        if victims.volatile && expiry.is_none()
            || victims.rank(self.space.clocks.usage(at, self.now), expiry) < rank
        {
            return false;
        }
        self.drop_victim(db, hash, &Entry { at, shape, found, shard });
        true
    }

    fn drop_victim(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        self.count(entry.shard, Counter::Evicted, 1);
        self.announce(KeyspaceEvent::Evicted, db, entry.shard, entry.at);
        self.discard(db, hash, entry);
    }

    pub(super) fn evict_entry(&mut self, shard: ShardIndex, db: DbIndex, at: u64) {
        let mem = self.held.view(shard);
        let shape = Shape::load(&mem, at);
        if shape.expiry(&mem, at).is_some_and(|at| at <= self.now) {
            self.expire_entry(shard, db, at);
            return;
        }
        let hash = ByHash.hash(&mem, at);
        if let Some(found) = keys_of(shard, db).find(&mem, hash, &ByPlace(at)) {
            self.drop_victim(db, hash, &Entry { at, shape, found, shard });
        }
    }

    /// The entries in the slab that begins there, with their databases, and the mean of their
    /// ranks; none if the slab has other objects too, or keys that may not go.
    pub(super) fn slab_victims(
        &self,
        shard: ShardIndex,
        slab: &UnitSpan,
        victims: EvictionPolicy,
        spared: &[u64],
    ) -> Option<(u64, Vec<(DbIndex, u64)>)> {
        let (mates, size) = self.held.view(shard).slab_from(slab.chunk, slab.unit)?;
        let mem = self.held.view(shard);
        let mut found = Vec::with_capacity(mates.len());
        let mut ranks = 0u128;
        for at in mates {
            // What is no entry may look like one: only a dictionary can tell.
            let shape = Shape::decode(&mem, at).filter(|shape| shape.len() <= size)?;
            let hash = super::entry::hash(mem.arena(), shape.key(&mem, at));
            let is_here =
                |db: &DbIndex| keys_of(shard, *db).find(&mem, hash, &ByPlace(at)).is_some();
            let db = (0..DATABASES).find(is_here)?;
            let expiry = shape.expiry(&mem, at);
            if victims.volatile && expiry.is_none() || is_spared(spared, hash) {
                return None;
            }
            ranks += u128::from(victims.rank(self.space.clocks.usage(at, self.now), expiry));
            found.push((db, at));
        }
        let mean = ranks.checked_div(found.len() as u128)?;
        Some((u64::try_from(mean).unwrap_or(u64::MAX), found))
    }
}

fn is_spared(spared: &[u64], hash: u64) -> bool {
    spared.binary_search(&hash).is_ok()
}

/// A random number (splitmix64).
pub(super) const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
