//! Checkpoints with the undo log: each image holds, to the byte, what the arena held at its fork.
//!
//! Writers change objects, take new ones and give old ones back, as fast as they can, and another
//! thread compacts all the time. The digest of
//! all chunks is taken inside the safepoint of the fork, and held against that of the restored
//! image. In every second round the barrier's guard holds the arena against a copy of its own, so
//! that a change around the barrier is found even where no image shows it; the others go the usual
//! way, on which writers leave alone what the child has.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use super::*;
use crate::memory::pages::{self, HugetlbPool};
use crate::{BLOCK_SIZES, CompactionGoal, Isolation, SHARDS, UndoOptions};

const WRITERS: u64 = 3;
const MIB: u64 = 24;

fn rounds() -> u64 {
    let asked = std::env::var("COWHERD_TEST_ROUNDS").ok();
    let rounds: u64 = asked.and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    // Of each kind of page and size of block: a thousand in all, where a hundred are asked for.
    (rounds * 7).div_ceil(10)
}

fn shared(kind: PageKind, limit: u64, block: u64) -> Backing {
    Backing { kind, isolation: Isolation::UndoLog(UndoOptions { limit, block }) }
}

/// An arena that writers change, and the objects in it.
struct World {
    arena: Arena,
    /// Offset and length of each shard's objects.
    objects: [Mutex<Vec<(u64, u64)>>; SHARDS],
    stop: AtomicBool,
    changes: AtomicU64,
}

impl World {
    fn new(backing: Backing) -> Self {
        let arena = empty(backing, MIB + 16);
        let world = Self {
            arena,
            objects: std::array::from_fn(|_| Mutex::default()),
            stop: AtomicBool::new(false),
            changes: AtomicU64::new(0),
        };
        let mut random = Random(0x1234_5678);
        while world.arena.used_bytes() < (MIB / 2) << 20 {
            world.take(ShardIndex::of_hash(random.next()), &mut random);
        }
        world
    }

    fn take(&self, shard: ShardIndex, random: &mut Random) {
        let len = match random.next() % 64 {
            0 => 2_200_000,
            1 => 300_000,
            2..8 => 20_000,
            8..20 => 2000 + random.next() % 9000,
            _ => 1 + random.next() % 700,
        };
        let mut held = self.arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let Ok(at) = mem.allocate(len) else { return };
        random.fill(&mut mem.bytes_mut(at, len)[..len.min(64) as usize], Content::Noise);
        self.objects[shard.get()].lock().unwrap().push((at, len));
    }

    /// One change of some object, or an object more or less.
    fn change(&self, random: &mut Random) {
        let shard = ShardIndex::of_hash(random.next());
        if random.next().is_multiple_of(256) {
            // What falls free may go back to the kernel only when the child has its copy.
            self.arena.trim(2);
        }
        if random.next().is_multiple_of(4) && self.arena.used_bytes() < MIB << 20 {
            return self.take(shard, random);
        }
        let mut held = self.arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let mut objects = self.objects[shard.get()].lock().unwrap();
        if objects.is_empty() {
            return;
        }
        let chosen = random.next() as usize % objects.len();
        let (at, len) = objects[chosen];
        match random.next() % 8 {
            0..3 => {
                mem.release(at, len);
                objects.swap_remove(chosen);
            }
            3 => mem.bytes_mut(at, len).fill(random.next() as u8),
            _ => {
                let start = random.next() % len;
                let count = (1 + random.next() % 64).min(len - start);
                random.fill(mem.bytes_mut(at + start, count), Content::Noise);
            }
        }
        self.changes.fetch_add(1, Relaxed);
    }

    /// One compaction pass amid the changes; a checkpoint may begin or end at any moment of it.
    fn compact(&self, goal: CompactionGoal) {
        let Some(mut plan) = self.arena.plan_compaction(goal) else { return };
        self.arena.begin_compaction(&plan, 4 << 20);
        for shard in plan.affected().iter() {
            let mut is_marked = false;
            while !is_marked && !self.stop.load(Relaxed) {
                let mut held = self.arena.lock(ShardSet::one(shard));
                is_marked = !held.mem(shard).begin_evacuation(&mut plan, 16);
            }
            let mut held = self.arena.lock(ShardSet::one(shard));
            let mut mem = held.mem(shard);
            for (at, len) in self.objects[shard.get()].lock().unwrap().iter_mut() {
                if let Some(to) = mem.evacuate(*at, *len) {
                    *at = to;
                }
            }
        }
        self.arena.end_compaction(&plan);
        for shard in ShardIndex::all() {
            self.arena.lock(ShardSet::one(shard)).mem(shard).end_evacuation();
        }
    }

    /// One checkpoint amid the changes; sometimes its child is killed.
    fn round(&self, random: &mut Random, target: &ImageTarget) {
        let codec =
            if random.next().is_multiple_of(4) { ChunkCodec::Lz4 } else { ChunkCodec::None };
        let delay_per_chunk = Duration::from_micros(random.next() % 400);
        let options = ImageOptions { codec, delay_per_chunk, ..OPTIONS };
        let kills = random.next().is_multiple_of(8);
        let prepared = PreparedCheckpoint::new(target, &options, &self.arena).unwrap();
        let (before, running) = {
            let mut held = self.arena.lock(ShardSet::ALL);
            let before = digest_of(&mut held);
            (before, prepared.fork(&held.safepoint().unwrap()).unwrap())
        };
        if kills {
            let goal = self.changes.load(Relaxed) + random.next() % 200;
            while self.changes.load(Relaxed) < goal {
                thread::yield_now();
            }
            running.handle().cancel();
        }
        match running.wait(&mut Observer(&self.arena)) {
            Ok(_) => {
                let again = restored(&target.path(), &self.arena);
                assert!(digest(&again) == before, "the image is not that of the fork");
            }
            Err(CheckpointError::Cancelled) if kills => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Stops the writers when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Takes checkpoints while writers write.
fn saves_are_exact(kind: PageKind, rounds: u64) {
    for block in BLOCK_SIZES {
        let world = World::new(shared(kind, 64 << 20, block));
        let dir = TempDir::new().unwrap();
        let target = target(&dir);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let world = &world;
                scope.spawn(move || {
                    let mut random = Random(0x9e37_79b9 + writer);
                    while !world.stop.load(Relaxed) {
                        world.change(&mut random);
                    }
                });
            }
            let world = &world;
            scope.spawn(move || {
                let goals = [CompactionGoal::FewerChunks, CompactionGoal::Contiguous(3)];
                for goal in goals.into_iter().cycle() {
                    if world.stop.load(Relaxed) {
                        break;
                    }
                    world.compact(goal);
                }
            });
            // Writers end whatever becomes of the rounds.
            let _stop = Stop(&world.stop);
            let mut random = Random(block);
            for round in 0..rounds {
                world.arena.barrier().set_checker(round % 2 == 1);
                world.round(&mut random, &target);
            }
        });
        assert!(world.arena.compaction_stats().moved > 0, "nothing was moved");
        let cost = world.arena.barrier().total_undo_cost();
        assert!(cost.captures > 0 && cost.captured_bytes >= 64 * cost.captures, "{cost:?}");
    }
}

#[test]
fn saves_of_small_pages_are_exact() {
    saves_are_exact(PageKind::Small, rounds());
}

#[test]
fn saves_of_transparent_huge_pages_are_exact() {
    if pages::check(shared(PageKind::Thp, 1 << 20, 512), 1).is_ok() {
        saves_are_exact(PageKind::Thp, rounds());
    }
}

#[test]
fn saves_of_hugetlb_pages_are_exact() {
    let _claim = claim_hugetlb_pools();
    // Two arenas of 40 MiB at once.
    if HugetlbPool::read(PageKind::Huge2Mb).is_some_and(|pool| pool.available() >= 48) {
        saves_are_exact(PageKind::Huge2Mb, rounds());
    }
}
