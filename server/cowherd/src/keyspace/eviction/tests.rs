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

fn alone(space: &Keyspace, now: i64) -> EvictionScope<'_, '_> {
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

/// Whether a key is there; if `touch`, that is a use.
fn get(space: &Keyspace, number: u64, touch: bool, now: i64) -> bool {
    let name = name(number);
    let key = space.key(0, &name);
    let mut shards = space.lock(ShardSet::one(key.shard), now);
    shards.set_touch(touch);
    shards.lookup(0, &key).is_some()
}

fn evict(space: &Keyspace, policy: MaxmemoryPolicy, count: usize, now: i64) -> usize {
    let victims = EvictionPolicy::of(policy).unwrap();
    let mut evictor = evictor(1);
    (0..count)
        .take_while(|_| {
            let step = evictor.evict_one(&mut alone(space, now), ShardSet::ALL, victims, SAMPLES);
            step == EvictionStep::Evicted
        })
        .count()
}

const KEYS: u64 = 4000;

/// Evicts 1,000 of 4,000 keys. The even ones are `worthy` in every way: used later and more often,
/// and they expire later. All have an expiry, or, if `half_volatile`, only the first half. Returns
/// (worthy, worthless, without an expiry) among the victims.
fn victims_of(policy: MaxmemoryPolicy, half_volatile: bool) -> (u64, u64, u64) {
    let space = space(32);
    let lfu = matches!(policy, MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu);
    space.clocks().set_lfu(lfu);
    let is_worthy = |number: u64| number.is_multiple_of(2);
    let is_volatile = |number: u64| !half_volatile || number < KEYS / 2;
    for number in 0..KEYS {
        let later = if is_worthy(number) { 10_000_000 } else { 0 };
        let expiry = match is_volatile(number) {
            true => Expiry::At(NOW + 1_000_000 + later + i64::try_from(number).unwrap()),
            false => Expiry::None,
        };
        set(&space, number, expiry, NOW);
    }
    let later = NOW + 30_000;
    for number in (0..KEYS).filter(|number| is_worthy(*number)) {
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
    (count(&is_worthy), count(&|number| !is_worthy(number)), count(&|number| !is_volatile(number)))
}

#[test]
fn victims_follow_the_policy() {
    use MaxmemoryPolicy as Policy;
    for policy in [Policy::AllkeysLru, Policy::AllkeysLfu, Policy::VolatileTtl] {
        let (worthy, worthless, _) = victims_of(policy, false);
        assert!(worthy <= 10 && worthless >= 990, "{policy:?}: {worthy} worthy victims");
    }
    // 1,000 worthless keys have an expiry; the last of them are hard to find.
    for policy in [Policy::VolatileLru, Policy::VolatileLfu, Policy::VolatileTtl] {
        let (worthy, _, lasting) = victims_of(policy, true);
        assert!(worthy <= 150 && lasting == 0, "{policy:?}: {worthy} worthy, {lasting} lasting");
    }
    let (worthy, worthless, lasting) = victims_of(Policy::AllkeysRandom, true);
    assert!(worthy.abs_diff(worthless) < 100, "{worthy} of 1,000 are worthy");
    assert!(lasting.abs_diff(500) < 60, "{lasting} of 1,000 have no expiry");
    let (worthy, worthless, lasting) = victims_of(Policy::VolatileRandom, true);
    assert!(worthy.abs_diff(worthless) < 100 && lasting == 0, "{worthy} worthy, {lasting} lasting");
    assert_eq!(EvictionPolicy::of(Policy::Noeviction), None);
}

/// The share of reads that find their key, in percent, of a cache for a tenth of the keys, of
/// which few are read most of the time; what is not found is set.
fn hit_rate(policy: MaxmemoryPolicy) -> u64 {
    let space = space(32);
    let lfu = policy == MaxmemoryPolicy::AllkeysLfu;
    space.clocks().set_lfu(lfu);
    let victims = EvictionPolicy::of(policy).unwrap();
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
                evictor.evict_one(&mut alone(&space, now), ShardSet::ALL, victims, SAMPLES);
            }
        }
    }
    hits * 100 / reads
}

#[test]
fn a_policy_that_looks_at_use_makes_a_better_cache() {
    let random = hit_rate(MaxmemoryPolicy::AllkeysRandom);
    let lru = hit_rate(MaxmemoryPolicy::AllkeysLru);
    let lfu = hit_rate(MaxmemoryPolicy::AllkeysLfu);
    assert!(lru >= random + 3, "lru {lru} %, random {random} %");
    assert!(lfu >= random + 3, "lfu {lfu} %, random {random} %");
}

#[test]
fn without_a_key_that_may_go_nothing_goes() {
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
fn what_has_expired_is_freed_first_and_does_not_count_as_evicted() {
    let space = space(32);
    for number in 0..10 {
        set(&space, number, Expiry::At(NOW + 10), NOW);
    }
    let victims = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let mut step =
        || evictor.evict_one(&mut alone(&space, NOW + 10), ShardSet::ALL, victims, SAMPLES);
    while step() == EvictionStep::Freed {}
    let stats = space.stats();
    assert_eq!((stats.expired, stats.evicted, space.len(0)), (10, 0, 0));
}

#[test]
fn only_the_given_shards_lose_keys() {
    let space = space(32);
    for number in 0..1000 {
        set(&space, number, Expiry::None, NOW);
    }
    let shard = ShardIndex::new(5).unwrap();
    let before = space.shard_len(shard, 0);
    let victims = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    // The pool may hold candidates of other shards from before.
    evictor.evict_one(&mut alone(&space, NOW), ShardSet::ALL, victims, SAMPLES);
    for _ in 0..1000 {
        evictor.evict_one(&mut alone(&space, NOW), ShardSet::one(shard), victims, SAMPLES);
    }
    assert_eq!(space.shard_len(shard, 0), 0);
    assert!(space.len(0) >= 1000 - before - 1);
}

/// A command that found no memory was refused although its shard had keys: the pool was full of
/// candidates of other shards that were as good, so that none of its own entered.
#[test]
fn candidates_of_other_shards_do_not_hide_those_of_a_shard() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let victims = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    for number in 0..64 {
        let shard = ShardIndex::new(number).unwrap();
        let others = ShardIndex::all().filter(|other| *other != shard);
        let others = others.map(ShardSet::one).collect();
        let mut evictor = evictor(1);
        evictor.policy = Some(victims);
        let mut shards = space.lock(others, NOW);
        for other in others.iter() {
            evictor.sample(&mut shards, other, victims, SAMPLES, &[]);
        }
        drop(shards);
        assert_eq!(evictor.pool.len(), POOL_SIZE);
        let own =
            evictor.evict_one(&mut alone(&space, NOW), ShardSet::one(shard), victims, SAMPLES);
        assert_eq!(own, EvictionStep::Evicted);
    }
}

#[test]
fn what_was_flushed_is_freed_before_a_command_is_refused() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.flush(Databases::All);
    drop(shards);
    let used = space.arena().used_bytes();
    assert!(used > 200_000);
    let victims = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let mut step = || evictor.evict_one(&mut alone(&space, NOW), ShardSet::ALL, victims, SAMPLES);
    while step() == EvictionStep::Freed {}
    assert_eq!(step(), EvictionStep::Nothing);
    assert!(space.arena().used_bytes() < used / 10);
}

#[test]
fn a_slab_goes_as_a_whole_and_its_memory_is_free_for_all() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let victims = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let used = space.arena().used_bytes();
    let gone = evictor.evict_slabs(&mut alone(&space, NOW), UNIT_SIZE, victims, SAMPLES);
    assert!(gone > 0 && space.len(0) == 2000 - gone as u64);
    assert!(space.arena().used_bytes() < used);
    assert_eq!(space.stats().evicted, gone as u64);
    // Keys without an expiry may not go, and then neither may their slab.
    let volatile = EvictionPolicy::of(MaxmemoryPolicy::VolatileLru).unwrap();
    let mut reach = alone(&space, NOW);
    assert_eq!(evictor.evict_slabs(&mut reach, UNIT_SIZE, volatile, SAMPLES), 0);
    space.verify(1).unwrap();
}

/// Slabs went here and there: before four of them lay side by side, those of hundreds were gone.
#[test]
fn what_needs_several_units_takes_neighbours() {
    let space = space(32);
    let put = |name: &[u8], len: usize| {
        let key = space.key(0, name);
        let mut shards = space.lock(ShardSet::one(key.shard), NOW);
        shards.set(0, &key, &vec![b'x'; len], Expiry::None)
    };
    let filled = (0..).take_while(|number| put(&name(*number), 100).is_ok()).count() as u64;
    let victims = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    for (i, len) in [6_000, 30_000, 60_000].into_iter().enumerate() {
        let large = format!("large:{i}").into_bytes();
        assert!(put(&large, len).is_err(), "there is room for {len} bytes");
        let piece = contiguous_bytes_for(len as u64 + 100);
        let gone = evictor.evict_slabs(&mut alone(&space, NOW), piece, victims, SAMPLES);
        // At most a slab more than there has to be at each end, of objects of 112 bytes or more.
        let most = (piece / UNIT_SIZE + 2) * (UNIT_SIZE / 112);
        assert!(gone > 0 && gone as u64 <= most, "{gone} of {filled} went for {len} bytes");
        // What refers to a large value is an object of its own.
        evictor.evict_slabs(&mut alone(&space, NOW), UNIT_SIZE, victims, SAMPLES);
        put(&large, len).unwrap();
    }
    space.verify(1).unwrap();
}

#[test]
fn within_a_transaction_named_keys_and_shards_of_others_stay() {
    let space = space(32);
    for number in 0..2000 {
        set(&space, number, Expiry::None, NOW);
    }
    let victims = EvictionPolicy::of(MaxmemoryPolicy::AllkeysLru).unwrap();
    let mut evictor = evictor(1);
    let hash = |number: u64| space.key(0, &name(number)).hash;
    let mut spared: Vec<u64> = (0..2000).step_by(2).map(hash).collect();
    spared.sort_unstable();
    let (own, other) = (ShardIndex::new(9).unwrap(), ShardIndex::new(40).unwrap());
    let kept_by_other = space.shard_len(other, 0);
    let foreign = space.lock(ShardSet::one(other), NOW);
    let mut shards = space.lock(ShardSet::one(own), NOW);
    let mut reach = EvictionScope::Within { shards: &mut shards, spared: &spared };
    // A try that met the busy shard only may find nothing.
    let mut nothing = 0;
    while nothing < 10 {
        match evictor.evict_one(&mut reach, ShardSet::ALL, victims, SAMPLES) {
            EvictionStep::Nothing => nothing += 1,
            EvictionStep::Evicted | EvictionStep::Freed => nothing = 0,
        }
    }
    assert_eq!(evictor.evict_slabs(&mut reach, UNIT_SIZE, victims, SAMPLES), 0);
    drop(shards);
    drop(foreign);
    assert_eq!(space.shard_len(other, 0), kept_by_other);
    let is_here = |number: &u64| get(&space, *number, false, NOW);
    let may_go = |number: &u64| number % 2 == 1 && space.key(0, &name(*number)).shard != other;
    let (free, bound): (Vec<u64>, Vec<u64>) = (0..2000).partition(may_go);
    assert!(bound.iter().all(is_here));
    // Samples may miss the last few.
    let left = free.iter().filter(|number| is_here(number)).count();
    assert!(left < free.len() / 10, "{left} of {}", free.len());
    space.verify(1).unwrap();
}
