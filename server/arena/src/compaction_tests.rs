//! Compaction of plain objects against a model: fills, deletes and passes in turn.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MOST: u64 = 64 << 20;

fn arena(mib: u64) -> Arena {
    ReservedArena::reserve(PageKind::Small, mib << 20).unwrap().format(0, 1).unwrap()
}

/// Objects by a name that they keep while they move: offset, length, shard.
#[derive(Default)]
struct Model {
    objects: BTreeMap<u64, (u64, u64, ShardIndex)>,
    next: u64,
}

impl Model {
    fn allocate(&mut self, arena: &Arena, shard: ShardIndex, len: u64) -> bool {
        let mut held = arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let Ok(at) = mem.allocate(len) else { return false };
        self.next += 1;
        mem.bytes_mut(at, len).fill(self.next as u8);
        self.objects.insert(self.next, (at, len, shard));
        true
    }

    fn release(&mut self, arena: &Arena, name: u64) {
        let (at, len, shard) = self.objects.remove(&name).unwrap();
        arena.lock(ShardSet::one(shard)).mem(shard).release(at, len);
    }

    fn nth(&self, n: u64) -> Option<u64> {
        let n = usize::try_from(n).unwrap().checked_rem(self.objects.len())?;
        self.objects.keys().nth(n).copied()
    }

    /// Offers each object of a shard to the pass that runs.
    fn walk(&mut self, arena: &Arena, shard: ShardIndex) {
        let mut held = arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        for (at, len, owner) in self.objects.values_mut() {
            if *owner == shard
                && let Some(to) = mem.evacuate(*at, *len)
            {
                *at = to;
            }
        }
    }

    /// A whole pass; `between` runs after each shard. Returns what was in use before, if
    /// there was anything to do.
    fn pass(
        &mut self,
        arena: &Arena,
        goal: CompactionGoal,
        mut between: impl FnMut(&mut Self, &Arena),
    ) -> Option<(u64, u64)> {
        let mut plan = arena.plan_compaction(goal)?;
        arena.begin_compaction(&plan, MOST);
        for shard in plan.affected().iter() {
            while arena.lock(ShardSet::one(shard)).mem(shard).begin_evacuation(&mut plan, 7) {}
            self.walk(arena, shard);
            between(self, arena);
        }
        arena.end_compaction(&plan);
        for shard in ShardIndex::all() {
            arena.lock(ShardSet::one(shard)).mem(shard).end_evacuation();
        }
        Some(plan.in_use())
    }

    fn verify(&self, arena: &Arena) -> AuditSummary {
        for (name, (at, len, shard)) in &self.objects {
            let mut held = arena.lock(ShardSet::one(*shard));
            let mem = held.mem(*shard);
            assert!(mem.bytes(*at, *len).iter().all(|byte| *byte == *name as u8), "{name}");
        }
        let mut held = arena.lock(ShardSet::ALL);
        let audit = Audit::begin(&mut held).unwrap();
        for (at, len, shard) in self.objects.values() {
            audit.claim(*at, *len, *shard).unwrap();
        }
        let summary = audit.finish().unwrap();
        assert_eq!(summary.bytes, arena.used_bytes());
        assert_eq!(summary.chunks, arena.used_chunks());
        summary
    }
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![
        12 => 1u64..1000,
        4 => 1000u64..20_000,
        2 => 20_000u64..300_000,
        1 => 1_900_000u64..5_000_000,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn objects_survive_passes(
        rounds in prop::collection::vec(
            (prop::collection::vec((length(), 0usize..6), 0..150), any::<u64>(), 0u64..3), 1..6),
    ) {
        let (arena, mut model) = (arena(32), Model::default());
        for (fills, seed, wanted) in rounds {
            for (len, shard) in &fills {
                model.allocate(&arena, ShardIndex::new(*shard).unwrap(), *len);
            }
            let mut rng = Rng(seed);
            for _ in 0..rng.below(model.objects.len() as u64 + 1) {
                if let Some(name) = model.nth(rng.below(1 << 30)) {
                    model.release(&arena, name);
                }
            }
            let goal = match wanted {
                0 => CompactionGoal::FewerChunks,
                count => CompactionGoal::Contiguous(count),
            };
            model.pass(&arena, goal, |model, arena| {
                if rng.below(3) == 0 {
                    let shard = ShardIndex::new(rng.below(6) as usize).unwrap();
                    model.allocate(arena, shard, 1 + rng.below(3000));
                }
                if rng.below(3) == 0 && let Some(name) = model.nth(rng.below(1 << 30)) {
                    model.release(arena, name);
                }
            });
            model.verify(&arena);
        }
        for name in model.objects.keys().copied().collect::<Vec<_>>() {
            model.release(&arena, name);
        }
        prop_assert_eq!(arena.used_bytes(), 0);
        prop_assert_eq!(arena.used_chunks(), 1);
    }
}

/// Repeatable random numbers (xorshift).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = (self.0 ^ 0x9e37_79b9_7f4a_7c15).max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// An arena that was filled with objects of 20 to 900 bytes in all shards, and of which one object
/// in a hundred is left.
fn scattered() -> (Arena, Model) {
    let (arena, mut model, mut rng) = (arena(64), Model::default(), Rng(7));
    let shard = |rng: &mut Rng| ShardIndex::new(rng.below(64) as usize).unwrap();
    while model.allocate(&arena, shard(&mut rng), 20 + rng.below(881)) {}
    for name in model.objects.keys().copied().collect::<Vec<_>>() {
        if rng.below(100) != 0 {
            model.release(&arena, name);
        }
    }
    (arena, model)
}

#[test]
fn what_is_left_of_many_objects_finds_room_in_few_chunks() {
    let (arena, mut model) = scattered();
    let before = arena.used_chunks();
    assert!(before > 24, "{before} chunks");
    assert!(!arena.has_contiguous(4 << 20));
    let mut least = (u64::MAX, 0);
    while let Some(in_use) = model.pass(&arena, CompactionGoal::FewerChunks, |_, _| {}) {
        if in_use >= least {
            break;
        }
        least = in_use;
    }
    model.verify(&arena);
    let after = arena.used_chunks();
    println!("{least:?} {} {:?}", arena.used_bytes(), arena.compaction_stats());
    assert!(after <= 3, "{before} chunks, then {after}, of {} bytes", arena.used_bytes());
    // The pass does not choose where the last ones lie.
    if !arena.has_contiguous(58 << 20) {
        assert!(model.pass(&arena, CompactionGoal::Contiguous(29), |_, _| {}).is_some());
    }
    assert!(model.allocate(&arena, ShardIndex::new(0).unwrap(), 58 << 20));
}

#[test]
fn an_allocation_gets_what_a_pass_withholds() {
    let (arena, mut model) = scattered();
    let shard = ShardIndex::new(5).unwrap();
    model.pass(&arena, CompactionGoal::FewerChunks, |model, arena| {
        // Nothing is free but what the pass withholds; the first allocation takes it back.
        while arena.has_contiguous(2 << 20) && model.allocate(arena, shard, 2 << 20) {}
        while model.allocate(arena, shard, 16_000) {}
        assert!(arena.compaction_is_cancelled());
        for len in [30, 300, 800] {
            model.allocate(arena, shard, len);
        }
    });
    model.verify(&arena);
}

#[test]
fn a_pass_goes_on_when_what_it_withholds_is_too_little() {
    let (arena, mut model) = scattered();
    let shard = ShardIndex::new(5).unwrap();
    model.pass(&arena, CompactionGoal::FewerChunks, |model, arena| {
        assert!(!model.allocate(arena, shard, 60 << 20));
        assert!(!arena.compaction_is_cancelled());
    });
    model.verify(&arena);
    assert!(arena.used_chunks() < 12, "{} chunks", arena.used_chunks());
}

#[test]
fn large_objects_make_way_for_a_larger_one() {
    let (arena, mut model) = (arena(64), Model::default());
    let shard = ShardIndex::new(1).unwrap();
    while model.allocate(&arena, shard, 2 << 20) {}
    for name in model.objects.keys().copied().filter(|name| name % 2 == 0).collect::<Vec<_>>() {
        model.release(&arena, name);
    }
    assert!(!arena.has_contiguous(16 << 20));
    assert!(model.pass(&arena, CompactionGoal::Contiguous(8), |_, _| {}).is_some());
    model.verify(&arena);
    assert!(model.allocate(&arena, shard, 16 << 20));
}
