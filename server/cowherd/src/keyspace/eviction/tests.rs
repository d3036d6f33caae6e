//! Which keys are evicted: statistics with fixed seeds.

use crate::config::MaxmemoryPolicy;
use crate::keyspace::{Databases, Expiry, Keyspace};
use cowherd_arena::{
    PageKind, ReservedArena, ShardIndex, ShardSet, UNIT_SIZE, contiguous_bytes_for,
};

use super::policy::EvictionPolicy;
use super::sampling::{EvictionStep, Evictor, POOL_SIZE};
use super::scope::EvictionScope;

const NOW: i64 = 10_000_000;
const SAMPLES: u32 = 5;

fn space(mib: u64) -> Keyspace {
    Keyspace::create(ReservedArena::reserve(PageKind::Small, mib << 20).unwrap(), 7).unwrap()
}

fn name(number: u64) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn unlocked(space: &Keyspace, now: i64) -> EvictionScope<'_, '_> {
    EvictionScope::Unlocked { space, now }
}

fn evictor(seed: u64) -> Evictor {
    Evictor::new(fastrand::Rng::with_seed(seed))
}

fn set(space: &Keyspace, number: u64, expiry: Expiry, now: i64) {
    let name = name(number);
    let key = space.key(0, &name);
    let mut shards = space.lock(ShardSet::one(key.shard), now);
    shards.set(0, &key, &[b'x'; 100], expiry).unwrap();
}

/// Whether a key exists; with `touch` the access clock is updated.
fn get(space: &Keyspace, number: u64, touch: bool, now: i64) -> bool {
    let name = name(number);
    let key = space.key(0, &name);
    let mut shards = space.lock(ShardSet::one(key.shard), now);
    shards.set_touch(touch);
    shards.lookup(0, &key).is_some()
}

fn evict(space: &Keyspace, policy: MaxmemoryPolicy, count: usize, now: i64) -> usize {
    let policy = EvictionPolicy::of(policy).unwrap();
    let mut evictor = evictor(1);
    (0..count)
        .take_while(|_| {
            let step = evictor.evict_one(&mut unlocked(space, now), ShardSet::ALL, policy, SAMPLES);
            step == EvictionStep::Evicted
        })
        .count()
}

const KEYS: u64 = 4000;

/// Evicts 1,000 of 4,000 keys. The even keys are worth more by every policy: used later and more
/// often, and expiring later. All keys have an expiry, or, with `half_volatile`, only the first
/// half. Returns how many of the evicted keys are (even, odd, without an expiry).
fn evicted_of(policy: MaxmemoryPolicy, half_volatile: bool) -> (u64, u64, u64) {
    let space = space(32);
    let lfu = matches!(policy, MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu);
    space.clocks().set_lfu(lfu);
    let is_even = |number: u64| number.is_multiple_of(2);
    let is_volatile = |number: u64| !half_volatile || number < KEYS / 2;
    for number in 0..KEYS {
        let later = if is_even(number) { 10_000_000 } else { 0 };
        let expiry = match is_volatile(number) {
            true => Expiry::At(NOW + 1_000_000 + later + i64::try_from(number).unwrap()),
            false => Expiry::None,
        };
        set(&space, number, expiry, NOW);
    }
    let later = NOW + 30_000;
    for number in (0..KEYS).filter(|number| is_even(*number)) {
        for _ in 0..100 {
            get(&space, number, true, later);
        }
    }
    assert_eq!(evict(&space, policy, 1000, later), 1000);
    assert_eq!(space.stats().evicted, 1000);
    assert_eq!(space.len(0), KEYS - 1000);
    space.verify(1).unwrap();
    let gone: Vec<u64> = (0..KEYS).filter(|number| !get(&space, *number, false, later)).collect();
    let count = |which: &dyn Fn(u64) -> bool| {
        u64::try_from(gone.iter().filter(|number| which(**number)).count()).unwrap()
    };
    (count(&is_even), count(&|number| !is_even(number)), count(&|number| !is_volatile(number)))
}

#[test]
fn evicted_keys_follow_the_policy() {
    use MaxmemoryPolicy as Policy;
    for policy in [Policy::AllkeysLru, Policy::AllkeysLfu, Policy::VolatileTtl] {
        let (even, odd, _) = evicted_of(policy, false);
        assert!(even <= 10 && odd >= 990, "{policy:?}: {even} even keys");
    }
    // Only 1,000 odd keys have an expiry; samples miss the last of them.
    for policy in [Policy::VolatileLru, Policy::VolatileLfu, Policy::VolatileTtl] {
        let (even, _, lasting) = evicted_of(policy, true);
        assert!(even <= 150 && lasting == 0, "{policy:?}: {even} even, {lasting} lasting");
    }
    let (even, odd, lasting) = evicted_of(Policy::AllkeysRandom, true);
    assert!(even.abs_diff(odd) < 100, "{even} of 1,000 are even");
    assert!(lasting.abs_diff(500) < 60, "{lasting} of 1,000 have no expiry");
    let (even, odd, lasting) = evicted_of(Policy::VolatileRandom, true);
    assert!(even.abs_diff(odd) < 100 && lasting == 0, "{even} even, {lasting} lasting");
    assert_eq!(EvictionPolicy::of(Policy::Noeviction), None);
}

/// The hit rate in percent of a cache with capacity for a tenth of the keys. Few keys get most of
/// the reads; a key that is missed is set.
fn hit_rate(policy: MaxmemoryPolicy) -> u64 {
    let space = space(32);
    let lfu = policy == MaxmemoryPolicy::AllkeysLfu;
    space.clocks().set_lfu(lfu);
    let policy = EvictionPolicy::of(policy).unwrap();
    let (mut evictor, mut random) = (evictor(3), fastrand::Rng::with_seed(5));
    let (mut hits, mut reads) = (0, 0);
    for round in 0..100_000u64 {
        // Twenty reads a second; the fourth power makes a tenth of the keys get half of them.
        let now = NOW + i64::try_from(round).unwrap() * 50;
        let drawn = random.u64(..10_000);
        let number = drawn.pow(4) / 10_000u64.pow(3);
        let hit = get(&space, number, true, now);
        if round >= 50_000 {
            reads += 1;
            hits += u64::from(hit);
        }
        if !hit {
            set(&space, number, Expiry::None, now);
            while space.len(0) > 1000 {
                evictor.evict_one(&mut unlocked(&space, now), ShardSet::ALL, policy, SAMPLES);
            }
        }
    }
    hits * 100 / reads
}

#[test]
fn lru_and_lfu_beat_random_eviction() {
    let random = hit_rate(MaxmemoryPolicy::AllkeysRandom);
    let lru = hit_rate(MaxmemoryPolicy::AllkeysLru);
    let lfu = hit_rate(MaxmemoryPolicy::AllkeysLfu);
    assert!(lru >= random + 3, "lru {lru} %, random {random} %");
    assert!(lfu >= random + 3, "lfu {lfu} %, random {random} %");
}

#[test]
fn only_keys_that_the_policy_allows_are_evicted() {
    let space = space(32);
    assert_eq!(evict(&space, MaxmemoryPolicy::AllkeysLru, 1, NOW), 0);
    for number in 0..100 {
        set(&space, number, Expiry::None, NOW);
    }
    for policy in [MaxmemoryPolicy::VolatileLru, MaxmemoryPolicy::VolatileTtl] {
        assert_eq!(evict(&space, policy, 1, NOW), 0);
    }
    assert_eq!((space.len(0), space.stats().evicted), (100, 0));
    set(&space, 100, Expiry::At(NOW + 10), NOW);
    assert_eq!(evict(&space, MaxmemoryPolicy::VolatileLfu, 5, NOW), 1);
    assert_eq!(evict(&space, MaxmemoryPolicy::AllkeysRandom, 1000, NOW), 100);
    assert!(space.is_empty());
}

#[test]
fn expired_keys_are_removed_first_and_not_counted_as_evicted() {
    let space = space(32);
    for number in 0..10 {
        set(&space, number, Expiry::At(NOW + 10), NOW);
    }
    let policy = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let mut step =
        || evictor.evict_one(&mut unlocked(&space, NOW + 10), ShardSet::ALL, policy, SAMPLES);
    while step() == EvictionStep::Freed {}
    let stats = space.stats();
    assert_eq!((stats.expired, stats.evicted, space.len(0)), (10, 0, 0));
}

#[test]
fn only_keys_of_the_given_shards_are_evicted() {
    let space = space(32);
    for number in 0..1000 {
        set(&space, number, Expiry::None, NOW);
    }
    let shard = ShardIndex::new(5).unwrap();
    let before = space.shard_len(shard, 0);
    let policy = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    // Afterwards the pool may hold candidates of other shards.
    evictor.evict_one(&mut unlocked(&space, NOW), ShardSet::ALL, policy, SAMPLES);
    for _ in 0..1000 {
        evictor.evict_one(&mut unlocked(&space, NOW), ShardSet::one(shard), policy, SAMPLES);
    }
    assert_eq!(space.shard_len(shard, 0), 0);
    assert!(space.len(0) >= 1000 - before - 1);
}

/// A command was refused for lack of memory although its shard had keys: the pool was full of
/// candidates of other shards with equal ranks, so that no key of the shard entered it.
#[test]
fn a_full_pool_takes_candidates_of_the_wanted_shard() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let policy = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    for number in 0..64 {
        let shard = ShardIndex::new(number).unwrap();
        let others = ShardIndex::all().filter(|other| *other != shard);
        let others = others.map(ShardSet::one).collect();
        let mut evictor = evictor(1);
        evictor.policy = Some(policy);
        let mut shards = space.lock(others, NOW);
        for other in others.iter() {
            evictor.sample(&mut shards, other, policy, SAMPLES, &[]);
        }
        drop(shards);
        assert_eq!(evictor.pool.len(), POOL_SIZE);
        let own =
            evictor.evict_one(&mut unlocked(&space, NOW), ShardSet::one(shard), policy, SAMPLES);
        assert_eq!(own, EvictionStep::Evicted);
    }
}

#[test]
fn flushed_databases_are_freed_when_no_key_is_left() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.flush(Databases::All);
    drop(shards);
    let used = space.arena().used_bytes();
    assert!(used > 200_000);
    let policy = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let mut step = || evictor.evict_one(&mut unlocked(&space, NOW), ShardSet::ALL, policy, SAMPLES);
    while step() == EvictionStep::Freed {}
    assert_eq!(step(), EvictionStep::Nothing);
    assert!(space.arena().used_bytes() < used / 10);
}

#[test]
fn slab_eviction_frees_a_whole_slab() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let policy = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let used = space.arena().used_bytes();
    let gone = evictor.evict_slabs(&mut unlocked(&space, NOW), UNIT_SIZE, policy, SAMPLES);
    assert!(gone > 0 && space.len(0) == 2000 - gone as u64);
    assert!(space.arena().used_bytes() < used);
    assert_eq!(space.stats().evicted, gone as u64);
    // A slab with a key that must not be evicted stays.
    let volatile = EvictionPolicy::of(MaxmemoryPolicy::VolatileLru).unwrap();
    let mut scope = unlocked(&space, NOW);
    assert_eq!(evictor.evict_slabs(&mut scope, UNIT_SIZE, volatile, SAMPLES), 0);
    space.verify(1).unwrap();
}

/// Slabs were evicted one by one: before four free ones lay side by side, keys of hundreds of slabs
/// were evicted.
#[test]
fn neighbouring_slabs_are_evicted_for_a_large_object() {
    let space = space(32);
    let put = |name: &[u8], len: usize| {
        let key = space.key(0, name);
        let mut shards = space.lock(ShardSet::one(key.shard), NOW);
        shards.set(0, &key, &vec![b'x'; len], Expiry::None)
    };
    let filled = (0..).take_while(|number| put(&name(*number), 100).is_ok()).count() as u64;
    let policy = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    for (i, len) in [6_000, 30_000, 60_000].into_iter().enumerate() {
        let large = format!("large:{i}").into_bytes();
        assert!(put(&large, len).is_err(), "{len} bytes are free");
        let piece = contiguous_bytes_for(len as u64 + 100);
        let gone = evictor.evict_slabs(&mut unlocked(&space, NOW), piece, policy, SAMPLES);
        // At most one slab more than necessary at each end, of objects of 112 bytes or more.
        let most = (piece / UNIT_SIZE + 2) * (UNIT_SIZE / 112);
        assert!(gone > 0 && gone as u64 <= most, "{gone} of {filled} keys evicted for {len} bytes");
        // The entry of an external value is another object.
        evictor.evict_slabs(&mut unlocked(&space, NOW), UNIT_SIZE, policy, SAMPLES);
        put(&large, len).unwrap();
    }
    space.verify(1).unwrap();
}

#[test]
fn under_locks_spared_keys_and_busy_shards_stay() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let policy = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let hash = |number: u64| space.key(0, &name(number)).hash;
    let mut spared: Vec<u64> = (0..2000).step_by(2).map(hash).collect();
    spared.sort_unstable();
    let (own, other) = (ShardIndex::new(9).unwrap(), ShardIndex::new(40).unwrap());
    let kept_by_other = space.shard_len(other, 0);
    let foreign = space.lock(ShardSet::one(other), NOW);
    let mut shards = space.lock(ShardSet::one(own), NOW);
    let mut scope = EvictionScope::Within { shards: &mut shards, spared: &spared };
    // A step that meets only the busy shard evicts nothing.
    let mut nothing = 0;
    while nothing < 10 {
        match evictor.evict_one(&mut scope, ShardSet::ALL, policy, SAMPLES) {
            EvictionStep::Nothing => nothing += 1,
            EvictionStep::Evicted | EvictionStep::Freed => nothing = 0,
        }
    }
    assert_eq!(evictor.evict_slabs(&mut scope, UNIT_SIZE, policy, SAMPLES), 0);
    drop(shards);
    drop(foreign);
    assert_eq!(space.shard_len(other, 0), kept_by_other);
    let exists = |number: &u64| get(&space, *number, false, NOW);
    let is_evictable =
        |number: &u64| number % 2 == 1 && space.key(0, &name(*number)).shard != other;
    let (free, bound): (Vec<u64>, Vec<u64>) = (0..2000).partition(is_evictable);
    assert!(bound.iter().all(exists));
    // Samples may miss the last few.
    let left = free.iter().filter(|number| exists(number)).count();
    assert!(left < free.len() / 10, "{left} of {}", free.len());
    space.verify(1).unwrap();
}
