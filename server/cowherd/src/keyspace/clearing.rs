//! Eviction for what needs several units in one piece: all keys go that stand between it and the
//! room it needs.
//!
//! ```text
//! units of a chunk   | slab of shard 3 | slab of shard 51 | free | slab of shard 8 |
//! wanted: 4 units    |<----------- the keys of all of these go ----------->|
//! ```
//!
//! Slabs that are freed here and there hardly ever lie side by side: before four units do, keys of
//! hundreds of slabs would have gone.

use cowherd_arena::{CHUNK_SIZE, ChunkIndex, UNIT_SIZE, UNITS_IN_CHUNK, UnitSpan, UnitUse};

use super::DATABASES;
use super::eviction::{EvictionPolicy, Evictor, next};
use super::reach::EvictionScope;

/// Places that are looked at: some hold what nobody may evict.
const TRIES: usize = 64;

impl Evictor {
    /// Evicts all keys of neighbouring slabs, so that an object of `bytes` bytes finds room in
    /// their place: of `samples` such places the one with the best victims. Returns how many went.
    pub fn evict_neighbours(
        &mut self,
        reach: &mut EvictionScope<'_, '_>,
        bytes: u64,
        victims: EvictionPolicy,
        samples: u32,
    ) -> usize {
        let mut best: Option<(u64, Vec<UnitSpan>)> = None;
        let mut found = 0;
        for _ in 0..TRIES {
            let Some(at) = self.any_entry(reach, victims) else { continue };
            let Some(place) = place(reach, at, bytes) else { continue };
            let Some(rank) = rank(reach, &place, victims) else { continue };
            if best.as_ref().is_none_or(|(other, _)| *other < rank) {
                best = Some((rank, place));
            }
            found += 1;
            if found == samples {
                break;
            }
        }
        let place = best.map(|(_, place)| place).unwrap_or_default();
        place.iter().map(|stretch| self.clear(reach, stretch, victims)).sum()
    }

    /// Where some key stands that may go.
    fn any_entry(
        &mut self,
        reach: &mut EvictionScope<'_, '_>,
        victims: EvictionPolicy,
    ) -> Option<u64> {
        let shard = self.choose_shard(reach.space(), super::ShardSet::ALL, victims)?;
        reach.with(shard, |shards| {
            let mem = shards.held.view(shard);
            let mut random = || next(&mut self.random);
            let mut drawn = (0..DATABASES).map(|db| victims.dict(shard, db));
            drawn.find_map(|dict| dict.random(&mem, &mut random))
        })?
    }

    fn clear(
        &mut self,
        reach: &mut EvictionScope<'_, '_>,
        slab: &UnitSpan,
        victims: EvictionPolicy,
    ) -> usize {
        let spared = reach.spared();
        let UnitUse::Slab(shard) = slab.holds else { return 0 };
        let gone = reach.with(shard, |shards| {
            let (_, mates) = shards.slab_victims(shard, slab, victims, spared).unwrap_or_default();
            for (db, at) in &mates {
                shards.evict_entry(shard, *db, *at);
            }
            self.ready.append(&mut shards.take_ready());
            mates.len()
        });
        gone.unwrap_or(0)
    }
}

/// Neighbours of the entry at `at` that make room for `bytes` bytes when they have gone.
fn place(reach: &EvictionScope<'_, '_>, at: u64, bytes: u64) -> Option<Vec<UnitSpan>> {
    let arena = reach.space().arena();
    let chunk = ChunkIndex::of(at);
    let units = bytes.div_ceil(UNIT_SIZE);
    if units > UNITS_IN_CHUNK {
        // Whole chunks.
        let count = u32::try_from(bytes.div_ceil(CHUNK_SIZE)).ok()?;
        let chunks = (0..count).map(|i| ChunkIndex(chunk.0.saturating_add(i)));
        let unit_spans = chunks.map(|chunk| arena.unit_spans(chunk));
        let all: Vec<UnitSpan> = unit_spans.collect::<Option<Vec<_>>>()?.concat();
        return all.iter().all(|stretch| stretch.holds != UnitUse::Run).then_some(all);
    }
    let unit_spans = arena.unit_spans(chunk)?;
    let unit = at % CHUNK_SIZE / UNIT_SIZE;
    let own =
        unit_spans.iter().position(|part| (part.unit..part.unit + part.units).contains(&unit))?;
    let free = |part: &&UnitSpan| part.holds != UnitUse::Run;
    let mut have = 0;
    let mut enough = |part: &&UnitSpan| {
        let more = have < units;
        have += part.units;
        more
    };
    let mut all: Vec<UnitSpan> =
        unit_spans[own..].iter().take_while(free).take_while(&mut enough).copied().collect();
    all.extend(unit_spans[..own].iter().rev().take_while(free).take_while(enough).copied());
    (all.iter().map(|part| part.units).sum::<u64>() >= units).then_some(all)
}

/// The mean rank of all keys there; `None` if not all of them may go.
fn rank(
    reach: &mut EvictionScope<'_, '_>,
    place: &[UnitSpan],
    victims: EvictionPolicy,
) -> Option<u64> {
    let spared = reach.spared();
    let (mut sum, mut count) = (0u128, 0u128);
    for slab in place {
        let UnitUse::Slab(shard) = slab.holds else { continue };
        let found =
            reach.with(shard, |shards| shards.slab_victims(shard, slab, victims, spared))??;
        sum += u128::from(found.0) * found.1.len() as u128;
        count += found.1.len() as u128;
    }
    Some(u64::try_from(sum.checked_div(count)?).unwrap_or(u64::MAX))
}
