//! Slab eviction: all keys are evicted that stand where a larger object could be.
//!
//! ```text
//! units of a chunk   | slab of shard 3 | slab of shard 51 | free | slab of shard 8 |
//! wanted: 4 units    |<----------- the keys of all these slabs are evicted ------->|
//! ```
//!
//! Slabs that become free one by one hardly ever lie side by side: before four units in one piece
//! are free, keys of hundreds of slabs would be evicted.

use cowherd_arena::{
    CHUNK_SIZE, ChunkIndex, ShardSet, UNIT_SIZE, UNITS_IN_CHUNK, UnitSpan, UnitUse,
};

use crate::keyspace::DATABASES;

use super::policy::EvictionPolicy;
use super::sampling::Evictor;
use super::scope::EvictionScope;

/// Neighbourhoods that are tried at most: some hold objects that cannot be evicted.
const TRIES: usize = 64;

impl Evictor {
    /// Evicts all keys of neighbouring slabs, so that an object of `bytes` bytes fits there: of
    /// `samples` neighbourhoods the one with the highest rank. Returns the number of keys evicted.
    pub fn evict_slabs(
        &mut self,
        scope: &mut EvictionScope<'_, '_>,
        bytes: u64,
        policy: EvictionPolicy,
        samples: u32,
    ) -> usize {
        let mut best: Option<(u64, Vec<UnitSpan>)> = None;
        let mut found = 0;
        for _ in 0..TRIES {
            let Some(at) = self.random_entry(scope, policy) else { continue };
            let Some(spans) = neighbourhood(scope, at, bytes) else { continue };
            let Some(rank) = mean_rank(scope, &spans, policy) else { continue };
            if best.as_ref().is_none_or(|(other, _)| *other < rank) {
                best = Some((rank, spans));
            }
            found += 1;
            if found == samples {
                break;
            }
        }
        let spans = best.map(|(_, spans)| spans).unwrap_or_default();
        spans.iter().map(|span| self.evict_slab(scope, span, policy)).sum()
    }

    /// The offset of some entry that may be evicted.
    fn random_entry(
        &mut self,
        scope: &mut EvictionScope<'_, '_>,
        policy: EvictionPolicy,
    ) -> Option<u64> {
        let shard = self.choose_shard(scope.space(), ShardSet::ALL, policy)?;
        scope.with(shard, |shards| {
            let mem = shards.held.view(shard);
            let mut random = || self.random.u64(..);
            let mut drawn = (0..DATABASES).map(|db| policy.dict(shard, db));
            drawn.find_map(|dict| dict.random(&mem, &mut random))
        })?
    }

    fn evict_slab(
        &mut self,
        scope: &mut EvictionScope<'_, '_>,
        slab: &UnitSpan,
        policy: EvictionPolicy,
    ) -> usize {
        let spared = scope.spared();
        let UnitUse::Slab(shard) = slab.holds else { return 0 };
        let evicted = scope.with(shard, |shards| {
            let (_, entries) = shards.slab_entries(shard, slab, policy, spared).unwrap_or_default();
            for (db, at) in &entries {
                shards.evict_entry(shard, *db, *at);
            }
            self.ready.append(&mut shards.take_ready());
            entries.len()
        });
        evicted.unwrap_or(0)
    }
}

/// The unit spans around the entry at `at` that hold `bytes` bytes once their keys are evicted;
/// `None` if an object of several units stands in between.
fn neighbourhood(scope: &EvictionScope<'_, '_>, at: u64, bytes: u64) -> Option<Vec<UnitSpan>> {
    let arena = scope.space().arena();
    let chunk = ChunkIndex::of(at);
    let units = bytes.div_ceil(UNIT_SIZE);
    if units > UNITS_IN_CHUNK {
        // The object takes whole chunks.
        let count = u32::try_from(bytes.div_ceil(CHUNK_SIZE)).ok()?;
        let chunks = (0..count).map(|i| ChunkIndex(chunk.0.saturating_add(i)));
        let spans = chunks.map(|chunk| arena.unit_spans(chunk));
        let all: Vec<UnitSpan> = spans.collect::<Option<Vec<_>>>()?.concat();
        return all.iter().all(|span| span.holds != UnitUse::Run).then_some(all);
    }
    let spans = arena.unit_spans(chunk)?;
    let unit = at % CHUNK_SIZE / UNIT_SIZE;
    let own = spans.iter().position(|span| (span.unit..span.unit + span.units).contains(&unit))?;
    let is_evictable = |span: &&UnitSpan| span.holds != UnitUse::Run;
    let mut have = 0;
    let mut is_wanted = |span: &&UnitSpan| {
        let is_wanted = have < units;
        have += span.units;
        is_wanted
    };
    let behind = spans[own..].iter().take_while(is_evictable);
    let mut all: Vec<UnitSpan> = behind.take_while(&mut is_wanted).copied().collect();
    let before = spans[..own].iter().rev().take_while(is_evictable);
    all.extend(before.take_while(is_wanted).copied());
    (all.iter().map(|span| span.units).sum::<u64>() >= units).then_some(all)
}

/// The mean rank of all keys in these spans; `None` if any of them must not be evicted.
fn mean_rank(
    scope: &mut EvictionScope<'_, '_>,
    spans: &[UnitSpan],
    policy: EvictionPolicy,
) -> Option<u64> {
    let spared = scope.spared();
    let (mut sum, mut count) = (0u128, 0u128);
    for slab in spans {
        let UnitUse::Slab(shard) = slab.holds else { continue };
        let (rank, entries) =
            scope.with(shard, |shards| shards.slab_entries(shard, slab, policy, spared))??;
        sum += u128::from(rank) * entries.len() as u128;
        count += entries.len() as u128;
    }
    let mean = sum.checked_div(count)?;
    Some(u64::try_from(mean).expect("invariant: a mean of u64 fits u64"))
}
