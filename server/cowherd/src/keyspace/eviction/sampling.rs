//! Eviction of single keys: the best of a sample, as Redis does since version 3.0.
//!
//! Comparing all keys would take too long, and the best of a few is often a bad choice. The
//! candidate pool keeps good candidates of earlier samples, so that the choice comes near to the
//! best of all keys.

use cowherd_arena::containers::dict::Hashed as _;
use cowherd_arena::{ShardIndex, ShardSet, UnitSpan};

use crate::keyspace::counters::Counter;
use crate::keyspace::entry::{ByKey, ByOffset, EntryHasher, EntryHeader, hash};
use crate::keyspace::events::KeyspaceEvent;
use crate::keyspace::shards::Entry;
use crate::keyspace::{DATABASES, DbIndex, Keyspace, ReadyKey, Shards, keys_of};

use super::policy::EvictionPolicy;
use super::scope::{EvictionScope, LAZY_FREE_SLICE, is_spared};

/// Candidates that an evictor keeps; 16 as in Redis.
pub(super) const POOL_SIZE: usize = 16;

/// What one step of eviction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EvictionStep {
    /// A key was evicted.
    Evicted,
    /// Memory of expired keys, or of the lazy-free list, was freed.
    Freed,
    /// No key may be evicted.
    Nothing,
}

/// A key that may be evicted.
#[derive(Debug)]
pub(super) struct Candidate {
    rank: u64,
    shard: ShardIndex,
    db: DbIndex,
    hash: u64,
    key: Box<[u8]>,
}

/// Evicts keys; one for each thread.
#[derive(Debug)]
pub(super) struct Evictor {
    /// Candidates in ascending order of their ranks.
    pub pool: Vec<Candidate>,
    /// The policy by which the candidates were ranked.
    pub policy: Option<EvictionPolicy>,
    next_shard: usize,
    pub random: fastrand::Rng,
    /// Keys that were removed while blocked clients wait for them.
    pub ready: Vec<ReadyKey>,
}

impl Evictor {
    /// An evictor that draws its samples from `random`.
    pub const fn new(random: fastrand::Rng) -> Self {
        Self { pool: Vec::new(), policy: None, next_shard: 0, random, ready: Vec::new() }
    }

    /// Evicts a key of the shards in `set` after sampling one of them, or frees other memory.
    pub fn evict_one(
        &mut self,
        scope: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        policy: EvictionPolicy,
        samples: u32,
    ) -> EvictionStep {
        if self.policy != Some(policy) {
            self.pool.clear();
            self.policy = Some(policy);
        }
        let spared = scope.spared();
        // A candidate may be gone, or was used meanwhile: then the next sample yields another.
        for _ in 0..2 * POOL_SIZE {
            let Some(shard) = self.choose_shard(scope.space(), set, policy) else {
                return match scope.free_deferred(set) {
                    true => EvictionStep::Freed,
                    false => EvictionStep::Nothing,
                };
            };
            self.keep_slot_for(set);
            let freed = scope.with(shard, |shards| {
                let freed = shards.free_deferred(shard, LAZY_FREE_SLICE)
                    || self.sample(shards, shard, policy, samples, spared);
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
            let evicted = scope.with(candidate.shard, |shards| {
                let evicted = shards.evict_candidate(&candidate, policy, spared);
                self.ready.append(&mut shards.take_ready());
                evicted
            });
            if evicted == Some(true) {
                return EvictionStep::Evicted;
            }
        }
        EvictionStep::Nothing
    }

    /// Drops a candidate if the pool is full of those of other shards. Otherwise these, however
    /// good they are, could keep all candidates of the wanted shards out, and no key would be
    /// found.
    fn keep_slot_for(&mut self, set: ShardSet) {
        let is_full = self.pool.len() == POOL_SIZE;
        if is_full && !self.pool.iter().any(|candidate| set.has(candidate.shard)) {
            self.pool.remove(0);
        }
    }

    /// The next shard that has a key that may be evicted, round robin.
    pub fn choose_shard(
        &mut self,
        space: &Keyspace,
        set: ShardSet,
        policy: EvictionPolicy,
    ) -> Option<ShardIndex> {
        let order = ShardIndex::all().cycle().skip(self.next_shard).take(ShardIndex::all().count());
        let shard = order
            .filter(|shard| set.has(*shard))
            .find(|shard| (0..DATABASES).any(|db| space.hint_len(policy.dict(*shard, db)) > 0))?;
        self.next_shard = shard.get() + 1;
        Some(shard)
    }

    /// Puts good candidates of a locked shard into the pool. Removes the expired keys of the
    /// sample, and tells whether there were any.
    pub fn sample(
        &mut self,
        shards: &mut Shards<'_>,
        shard: ShardIndex,
        policy: EvictionPolicy,
        samples: u32,
        spared: &[u64],
    ) -> bool {
        let mut expired = Vec::new();
        for db in 0..DATABASES {
            for _ in 0..policy.sample_size(samples) {
                let mem = shards.held.view(shard);
                let dict = policy.dict(shard, db);
                let Some(at) = dict.random(&mem, || self.random.u64(..)) else { break };
                let head = EntryHeader::load(&mem, at);
                let expiry = head.expiry(&mem, at);
                if expiry.is_some_and(|at| at <= shards.now) {
                    expired.push((db, at));
                    continue;
                }
                let usage = shards.space.clocks.usage(at, shards.now);
                let rank = policy.rank(usage, expiry);
                let key = head.key(&mem, at);
                let hash = || shards.space.hash(key);
                if spared.is_empty() || !is_spared(spared, hash()) {
                    self.consider(rank, shard, db, key, hash);
                }
            }
        }
        // A random choice may have drawn the same entry twice.
        expired.sort_unstable();
        expired.dedup();
        for (db, at) in &expired {
            shards.expire_entry(shard, *db, *at);
        }
        !expired.is_empty()
    }

    /// Puts a key into the pool if its rank is high enough.
    fn consider(
        &mut self,
        rank: u64,
        shard: ShardIndex,
        db: DbIndex,
        key: &[u8],
        hash: impl FnOnce() -> u64,
    ) {
        let is_full = self.pool.len() == POOL_SIZE;
        if is_full && self.pool[0].rank >= rank {
            return;
        }
        let same = |other: &Candidate| (other.shard, other.db) == (shard, db) && *other.key == *key;
        if let Some(known) = self.pool.iter().position(same) {
            self.pool.remove(known);
        } else if is_full {
            self.pool.remove(0);
        }
        let position = self.pool.partition_point(|other| other.rank < rank);
        self.pool.insert(position, Candidate { rank, shard, db, hash: hash(), key: key.into() });
    }
}

impl Shards<'_> {
    /// Evicts a candidate, unless it is gone, or was used or changed so that its rank is lower now.
    fn evict_candidate(
        &mut self,
        candidate: &Candidate,
        policy: EvictionPolicy,
        spared: &[u64],
    ) -> bool {
        let Candidate { rank, shard, db, hash, ref key } = *candidate;
        if is_spared(spared, hash) {
            return false;
        }
        let mem = self.held.view(shard);
        let Some(found) = keys_of(shard, db).find(&mem, hash, &ByKey(key)) else { return false };
        let at = found.item;
        let head = EntryHeader::load(&mem, at);
        let expiry = head.expiry(&mem, at);
        if policy.volatile && expiry.is_none()
            || policy.rank(self.space.clocks.usage(at, self.now), expiry) < rank
        {
            return false;
        }
        self.evict(db, hash, &Entry { at, head, found, shard });
        true
    }

    /// Removes a key because memory is short.
    fn evict(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        self.count(entry.shard, Counter::Evicted, 1);
        self.emit_event(KeyspaceEvent::Evicted, db, entry.shard, entry.at);
        self.remove_entry(db, hash, entry);
    }

    /// Evicts the entry at an offset, or removes it as expired.
    pub(super) fn evict_entry(&mut self, shard: ShardIndex, db: DbIndex, at: u64) {
        let mem = self.held.view(shard);
        let head = EntryHeader::load(&mem, at);
        if head.expiry(&mem, at).is_some_and(|at| at <= self.now) {
            self.expire_entry(shard, db, at);
            return;
        }
        let hash = EntryHasher.hash(&mem, at);
        if let Some(found) = keys_of(shard, db).find(&mem, hash, &ByOffset(at)) {
            self.evict(db, hash, &Entry { at, head, found, shard });
        }
    }

    /// The mean rank of the entries in a slab, and the entries with their databases. `None` if the
    /// slab has other objects too, or keys that must not be evicted.
    pub(super) fn slab_entries(
        &self,
        shard: ShardIndex,
        slab: &UnitSpan,
        policy: EvictionPolicy,
        spared: &[u64],
    ) -> Option<(u64, Vec<(DbIndex, u64)>)> {
        let (objects, size) = self.held.view(shard).slab_from(slab.chunk, slab.unit)?;
        let mem = self.held.view(shard);
        let mut found = Vec::with_capacity(objects.len());
        let mut ranks = 0u128;
        for at in objects {
            // Any object's bytes may happen to decode as an entry: the dictionary decides.
            let head = EntryHeader::decode(&mem, at).filter(|head| head.len() <= size)?;
            let hash = hash(mem.arena(), head.key(&mem, at));
            let is_linked =
                |db: &DbIndex| keys_of(shard, *db).find(&mem, hash, &ByOffset(at)).is_some();
            let db = (0..DATABASES).find(is_linked)?;
            let expiry = head.expiry(&mem, at);
            if policy.volatile && expiry.is_none() || is_spared(spared, hash) {
                return None;
            }
            ranks += u128::from(policy.rank(self.space.clocks.usage(at, self.now), expiry));
            found.push((db, at));
        }
        let mean = ranks.checked_div(found.len() as u128)?;
        Some((u64::try_from(mean).expect("invariant: a mean of u64 fits u64"), found))
    }
}
