//! The compactor: the pass that runs, and its slices.

use std::time::{Duration, Instant};

use cowherd_arena::{CompactionGoal, CompactionPlan, Mem, ShardIndex, ShardSet};

use crate::keyspace::{Keyspace, Shards};

use super::walk::ShardWalk;
use super::{BACK_OFF, Fragmentation, MAX_BACK_OFF, SLICE_BYTES};

/// A slice holds a shard's lock about as long, unless one step of the walk takes longer.
const SLICE_TIME: Duration = Duration::from_micros(50);
/// Slabs that are marked in one step.
const MARKS: usize = 64;

/// Calls a function under the lock of a shard; false if that lock cannot be had.
pub(super) type Locker<'l> = dyn FnMut(ShardIndex, &mut dyn FnMut(&mut Shards<'_>)) -> bool + 'l;

/// What a slice did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slice {
    /// There is more to do.
    More,
    /// The shard is locked by another thread.
    Busy,
    /// The pass has ended, or none runs.
    Done,
}

/// The pass that runs.
#[derive(Default)]
pub(super) struct Compactor {
    pass: Option<Pass>,
    /// Shards that may have marks: those of the pass that runs, and those that another thread had
    /// locked when an earlier pass ended.
    marked: ShardSet,
    /// The shard with which the next pass begins: passes that are cut short get round.
    first: usize,
    /// What was in use before the last pass of the background thread.
    least: Option<(u64, u64)>,
    /// No pass begins in the background before, unless more is wasted than then.
    futile: Option<(Instant, u64)>,
    back_off: Duration,
}

struct Pass {
    plan: CompactionPlan,
    /// Shards that are still to be walked, `shard` included.
    left: ShardSet,
    walk: ShardWalk,
    is_marking: bool,
    begun: Instant,
}

impl Compactor {
    pub(super) const fn is_running(&self) -> bool {
        self.pass.is_some()
    }

    /// Begins a pass, unless no less is in use than `least`; returns what is in use.
    pub(super) fn begin(
        &mut self,
        space: &Keyspace,
        goal: CompactionGoal,
        most: u64,
        least: (u64, u64),
    ) -> Option<(u64, u64)> {
        let begun = Instant::now();
        let plan = space.arena().plan_compaction(goal)?;
        let in_use = plan.in_use();
        if in_use >= least {
            return None;
        }
        space.arena().begin_compaction(&plan, most);
        let left = plan.affected();
        // A release in a shard that the walk has not reached yet may withhold a slab too.
        self.marked = self.marked | left;
        self.pass = Some(Pass { plan, left, walk: ShardWalk::default(), is_marking: true, begun });
        Some(in_use)
    }

    /// Begins the next pass of the background thread; false if it is of no use now. Passes that
    /// free nothing are tried again after growing intervals, or when more is wasted.
    pub(super) fn begin_again(
        &mut self,
        space: &Keyspace,
        fragmentation: &Fragmentation,
        now: Instant,
    ) -> bool {
        let wasted = fragmentation.wasted();
        if self.futile.is_some_and(|(until, then)| now < until && wasted <= then + then / 8) {
            return false;
        }
        if self.futile.take().is_some() {
            self.least = None;
        }
        let before = self.least.unwrap_or((u64::MAX, 0));
        self.least = self.begin(space, CompactionGoal::FewerChunks, SLICE_BYTES, before);
        if self.least.is_some() {
            if before.1 > 0 {
                // The pass before was of use.
                self.back_off = Duration::ZERO;
            }
            return true;
        }
        let shortest = now.elapsed() * BACK_OFF;
        self.back_off =
            (self.back_off * 2).max(shortest).clamp(Duration::from_secs(1), MAX_BACK_OFF);
        self.futile = Some((Instant::now() + self.back_off, wasted));
        false
    }

    /// Runs a slice of the pass under the lock of one shard.
    pub(super) fn slice(&mut self, space: &Keyspace, lock: &mut Locker<'_>) -> Slice {
        let Some(pass) = &mut self.pass else { return Slice::Done };
        if space.arena().compaction_is_cancelled() {
            self.interrupt(space, lock);
            return Slice::Done;
        }
        let Some(shard) = pass.next_shard(self.first) else {
            self.end(space, lock);
            return Slice::Done;
        };
        let mut is_walked = false;
        let has_run = lock(shard, &mut |shards| is_walked = pass.run(shards, shard));
        if is_walked {
            self.skip_shard();
        }
        if has_run { Slice::More } else { Slice::Busy }
    }

    /// Goes on with the next shard.
    pub(super) fn skip_shard(&mut self) {
        if let Some(pass) = &mut self.pass {
            let Some(shard) = pass.next_shard(self.first) else { return };
            pass.left = pass.left.iter().filter(|left| *left != shard).map(ShardSet::one).collect();
            self.first = shard.get() + 1;
            pass.walk = ShardWalk::default();
            pass.is_marking = true;
        }
    }

    /// Ends the pass, if one runs, before all shards are walked: the next one is of use even if as
    /// much is in use as before.
    pub(super) fn interrupt(&mut self, space: &Keyspace, lock: &mut Locker<'_>) {
        if self.pass.is_some() {
            self.least = None;
        }
        self.end(space, lock);
    }

    /// Ends the pass, if one runs: what it has marked may be allocated again.
    pub(super) fn end(&mut self, space: &Keyspace, lock: &mut Locker<'_>) {
        if let Some(pass) = self.pass.take() {
            space.arena().end_compaction(&pass.plan);
            tracing::debug!(took = ?pass.begun.elapsed(), "A compaction pass has ended");
        }
        let marked = self.marked;
        for shard in marked.iter() {
            let has_run = lock(shard, &mut |shards| {
                shards.mem(shard).end_evacuation();
            });
            if has_run {
                self.marked =
                    self.marked.iter().filter(|left| *left != shard).map(ShardSet::one).collect();
            }
        }
    }
}

impl Pass {
    /// The next shard to walk, from `first` on and then from the lowest.
    fn next_shard(&self, first: usize) -> Option<ShardIndex> {
        let from_first = self.left.iter().find(|shard| shard.get() >= first);
        from_first.or_else(|| self.left.iter().next())
    }

    /// Runs steps in a locked shard until the slice is over; tells whether the shard is done.
    fn run(&mut self, shards: &mut Shards<'_>, shard: ShardIndex) -> bool {
        let begun = Instant::now();
        let moved = |mem: &Mem<'_>| mem.arena().compaction_stats().moved_bytes;
        let before = moved(&shards.mem(shard));
        loop {
            if self.is_marking {
                self.is_marking = shards.mem(shard).begin_evacuation(&mut self.plan, MARKS);
            } else if self.walk.step(shards, shard) {
                return true;
            }
            let is_over =
                begun.elapsed() >= SLICE_TIME || moved(&shards.mem(shard)) - before >= SLICE_BYTES;
            if is_over {
                return false;
            }
        }
    }
}
