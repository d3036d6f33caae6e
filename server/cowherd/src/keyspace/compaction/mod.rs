//! Compaction: objects move out of sparse slabs and chunks, so that the memory that deleted keys
//! leave behind is good for objects of any size, and whole chunks return to the kernel.
//!
//! ```text
//!   background thread        command without memory       MEMORY PURGE
//!   (slices, duty cycle)     (before it evicts)                |
//!          |                        |                          |
//!          '------------> Compactor: one pass at a time <------'
//!                                   |  slices under one shard's lock
//!                         ShardWalk: every object of a shard, by reference
//!                                   |
//!                         Mem::evacuate (arena): moves it if it lies in a marked place
//! ```
//!
//! | file | what |
//! |---|---|
//! | this one | the settings, and the three callers' entry points |
//! | `compactor` | the pass that runs, and its slices |
//! | `walk` | visiting the objects of a shard |
//!
//! Invariants:
//! 1. One pass runs at a time: the compactor's lock guards it. That lock is taken before any
//!    shard's lock; a thread that holds shards takes it, and other shards, only with `try_lock`.
//! 2. From one slice to the next a walk keeps cursors and names of keys. It uses an offset in a
//!    cursor only if no key of the shard has changed since.
//! 3. A pass changes no key, no value and no order of anything: digests stay the same.

mod compactor;
mod walk;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cowherd_arena::{CHUNK_SIZE, CompactionGoal, contiguous_bytes_for};
use parking_lot::Mutex;

use super::eviction::EvictionScope;
use super::{Keyspace, ShardIndex, Shards};
use compactor::{Compactor, Slice};

/// The longest object that a slice of the background thread moves, and the bytes after which a
/// slice ends.
const SLICE_BYTES: u64 = 2 << 20;
/// The longest object that moves to make room for a command that would fail otherwise.
const MAX_OBJECT_ON_DEMAND: u64 = 64 << 20;
/// Bytes that move on demand while a checkpoint runs: one part in so many of the arena. Each
/// changed block goes into the undo log, or each changed page is copied.
const CHECKPOINT_FRACTION: u64 = 64;
/// Nothing moves during a checkpoint when more than one part in so many of the undo log is used: a
/// log that runs full makes the checkpoint fail.
const UNDO_LOG_FRACTION: u64 = 4;
/// A command waits no longer for compaction.
const ON_DEMAND_TIME: Duration = Duration::from_millis(800);
/// As [`ON_DEMAND_TIME`] where keys may be evicted instead.
const TIME_BEFORE_EVICTION: Duration = Duration::from_millis(200);
/// As [`TIME_BEFORE_EVICTION`] while the command holds locks.
const TIME_UNDER_LOCKS: Duration = Duration::from_millis(100);
/// Compaction is of no use if it frees less than one part in so many of the arena, even if that is
/// enough for the command.
const MIN_GAIN_FRACTION: u64 = 64;
/// After compaction that was of no use none is tried for so many times as long as it took.
const BACK_OFF: u32 = 50;
/// The background thread tries again in vain no more often.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// What `active-defrag-ignore-bytes` is at most: one part in so many of the arena.
const MAX_IGNORED_FRACTION: u64 = 32;
/// A wait for a shard that another thread has locked.
const BUSY_WAIT: Duration = Duration::from_micros(50);

/// When and how fast the background thread compacts; see the directives of these names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionSettings {
    /// `active-defrag-ignore-bytes`.
    pub ignore_bytes: u64,
    /// `active-defrag-threshold-lower`, in percent of the bytes in use.
    pub threshold_lower: u32,
    /// `active-defrag-threshold-upper`, in percent.
    pub threshold_upper: u32,
    /// `active-defrag-cycle-min`, in percent of one core.
    pub cycle_min: u32,
    /// `active-defrag-cycle-max`, in percent of one core.
    pub cycle_max: u32,
}

/// The memory of chunks in use that no object uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragmentation {
    /// Bytes of chunks in use, without the chunks of tables.
    pub committed: u64,
    /// Bytes of objects.
    pub used: u64,
}

impl Fragmentation {
    /// Bytes that no object uses.
    pub const fn wasted(&self) -> u64 {
        self.committed.saturating_sub(self.used)
    }

    /// Those bytes in percent of the bytes of objects.
    pub fn percent(&self) -> u64 {
        (self.wasted().saturating_mul(100)).checked_div(self.used).unwrap_or(0)
    }
}

/// Figures of compaction since the server has started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CompactionFigures {
    /// The present duty cycle in percent of one core; 0: no pass runs.
    pub running: u64,
    /// Objects that were moved.
    pub hits: u64,
    /// Objects that could not be moved.
    pub misses: u64,
    /// Bytes that were moved.
    pub moved_bytes: u64,
    /// Keys of which any object was moved.
    pub key_hits: u64,
    /// Keys of which none was.
    pub key_misses: u64,
    /// Time with more fragmentation than the thresholds, in microseconds.
    pub total_time_us: u64,
    /// The part of it since the present period began.
    pub current_time_us: u64,
}

/// The compaction of one keyspace: the pass that runs, and counters.
pub(super) struct Compaction {
    compactor: Mutex<Compactor>,
    running: AtomicU64,
    key_hits: AtomicU64,
    key_misses: AtomicU64,
    total_time_us: AtomicU64,
    current_time_us: AtomicU64,
    /// Time in which compaction is of no use on demand.
    futile: Mutex<Option<FutileAttempt>>,
}

/// Compaction on demand that did not help.
#[derive(Clone, Copy)]
struct FutileAttempt {
    until: Instant,
    used: u64,
    /// Bytes in one piece that were wanted.
    piece: u64,
}

impl Compaction {
    pub(super) fn new() -> Self {
        let counter = || AtomicU64::new(0);
        Self {
            compactor: Mutex::new(Compactor::default()),
            running: counter(),
            key_hits: counter(),
            key_misses: counter(),
            total_time_us: counter(),
            current_time_us: counter(),
            futile: Mutex::new(None),
        }
    }

    fn count_key(&self, was_moved: bool) {
        let counter = if was_moved { &self.key_hits } else { &self.key_misses };
        counter.fetch_add(1, Relaxed);
    }
}

impl CompactionSettings {
    /// The duty cycle in percent of one core for a fragmentation, between the limits as it is
    /// between the thresholds; `None` below the lower threshold.
    ///
    /// `ignore_bytes` is capped at a part of `capacity`: an arena has a fixed size, and what is
    /// little in a large one would be all that a small one has.
    fn duty(&self, fragmentation: &Fragmentation, capacity: u64) -> Option<u64> {
        let percent = fragmentation.percent();
        let lower = u64::from(self.threshold_lower);
        let ignored = self.ignore_bytes.min(capacity / MAX_IGNORED_FRACTION);
        if percent < lower || fragmentation.wasted() <= ignored {
            return None;
        }
        let (least, most) = (u64::from(self.cycle_min), u64::from(self.cycle_max));
        let range = u64::from(self.threshold_upper).saturating_sub(lower).max(1);
        let above = (percent - lower).min(range);
        Some(least + most.saturating_sub(least) * above / range)
    }
}

impl Keyspace {
    /// How much memory of the chunks in use no object uses.
    pub fn fragmentation(&self) -> Fragmentation {
        let arena = self.arena();
        let committed = arena.used_chunks().saturating_sub(arena.table_chunks()) * CHUNK_SIZE;
        Fragmentation { committed, used: arena.used_bytes() }
    }

    /// Figures of compaction.
    pub fn compaction_figures(&self) -> CompactionFigures {
        let (compaction, stats) = (&self.compaction, self.arena().compaction_stats());
        CompactionFigures {
            running: compaction.running.load(Relaxed),
            hits: stats.moved,
            misses: stats.missed,
            moved_bytes: stats.moved_bytes,
            key_hits: compaction.key_hits.load(Relaxed),
            key_misses: compaction.key_misses.load(Relaxed),
            total_time_us: compaction.total_time_us.load(Relaxed),
            current_time_us: compaction.current_time_us.load(Relaxed),
        }
    }

    /// The background thread's share of compaction in a period: slices, for as long as the settings
    /// allow. Without settings, and while a checkpoint runs, a pass that has begun is ended.
    pub fn compact_in_background(
        &self,
        settings: Option<&CompactionSettings>,
        period: Duration,
        now: i64,
    ) {
        let compaction = &self.compaction;
        // A command compacts meanwhile.
        let Some(mut compactor) = compaction.compactor.try_lock() else { return };
        let mut locker = |shard, act: &mut dyn FnMut(&mut Shards<'_>)| {
            let Some(mut shards) = Shards::try_lock(self, shard, now) else { return false };
            act(&mut shards);
            true
        };
        let is_paused = self.arena().barrier().is_active();
        let fragmentation = self.fragmentation();
        let duty = settings
            .filter(|_| !is_paused)
            .and_then(|settings| settings.duty(&fragmentation, self.arena().capacity()));
        let Some(duty) = duty else {
            compactor.interrupt(self, &mut locker);
            compaction.running.store(0, Relaxed);
            compaction.current_time_us.store(0, Relaxed);
            return;
        };
        let us = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        compaction.total_time_us.fetch_add(us, Relaxed);
        compaction.current_time_us.fetch_add(us, Relaxed);
        let begun = Instant::now();
        let time = Duration::from_micros(us * duty / 100);
        if !compactor.is_running() {
            compactor.end(self, &mut locker);
        }
        if !compactor.is_running() && !compactor.begin_again(self, &fragmentation, begun) {
            compaction.running.store(0, Relaxed);
            return;
        }
        compaction.running.store(duty, Relaxed);
        while begun.elapsed() < time && !self.arena().barrier().is_active() {
            match compactor.slice(self, &mut locker) {
                Slice::More => {}
                Slice::Busy => std::thread::sleep(BUSY_WAIT),
                Slice::Done => {
                    if !compactor.begin_again(self, &fragmentation, Instant::now()) {
                        break;
                    }
                }
            }
        }
    }

    /// Compacts until the arena has memory in one piece for an object of `wanted` bytes that it has
    /// refused, and if possible for the other objects of a command that needs `total` bytes; tells
    /// whether it has that piece now. Limited in time, and not tried where it was of no use
    /// just before.
    pub(super) fn compact_for(
        &self,
        scope: &mut EvictionScope<'_, '_>,
        wanted: u64,
        total: u64,
        may_evict: bool,
    ) -> bool {
        let arena = self.arena();
        let begun = Instant::now();
        let used = arena.used_bytes();
        let free = arena.capacity().saturating_sub(arena.table_chunks() * CHUNK_SIZE + used);
        if free < contiguous_bytes_for(wanted) || self.is_futile(used, wanted, begun) {
            return false;
        }
        // The undo log is for the writers, as long as they can do without.
        if may_evict && arena.barrier().is_active() {
            return false;
        }
        let deadline = begun
            + match () {
                () if scope.holds_locks() && may_evict => TIME_UNDER_LOCKS,
                () if scope.holds_locks() => ON_DEMAND_TIME / 2,
                () if may_evict => TIME_BEFORE_EVICTION,
                () => ON_DEMAND_TIME,
            };
        // A command with several values of whole chunks needs room for each of them.
        let piece = contiguous_bytes_for(wanted);
        let pieces = if piece < CHUNK_SIZE { 1 } else { total.div_ceil(wanted.max(1)).max(1) };
        let reserve = piece.saturating_mul(pieces).min(free);
        let free_chunks = || (arena.capacity() / CHUNK_SIZE - arena.used_chunks()) * CHUNK_SIZE;
        let is_enough = || arena.has_contiguous(reserve);
        let goals = [
            CompactionGoal::FewerChunks,
            CompactionGoal::Contiguous(reserve.div_ceil(CHUNK_SIZE)),
            CompactionGoal::Contiguous(piece.div_ceil(CHUNK_SIZE)),
        ];
        let before = (arena.free_bytes(), free_chunks());
        let has_helped =
            self.run_passes(scope, &goals, deadline, is_enough) || arena.has_contiguous(piece);
        // In an arena that is nearly full a pass makes room for a few keys and then for no more.
        let least = arena.capacity() / MIN_GAIN_FRACTION;
        let is_little = arena.free_bytes() < before.0 + least && free_chunks() < before.1 + least;
        let futile = (!has_helped || is_little).then(|| {
            let until = Instant::now() + begun.elapsed() * BACK_OFF;
            FutileAttempt { until, used, piece }
        });
        *self.compaction.futile.lock() = futile;
        has_helped
    }

    /// Bytes that may move on demand: without a checkpoint, any number.
    fn most_bytes(&self) -> u64 {
        let barrier = self.arena().barrier();
        if !barrier.is_active() {
            return u64::MAX;
        }
        match barrier.undo_log() {
            Some(log) => {
                let left = (log.limit() / UNDO_LOG_FRACTION).saturating_sub(log.allocated());
                left.min(self.arena().capacity() / CHECKPOINT_FRACTION)
            }
            None => self.arena().capacity() / CHECKPOINT_FRACTION,
        }
    }

    /// Whether compaction for an object of `wanted` bytes has failed just now and nothing speaks
    /// for another result.
    fn is_futile(&self, used: u64, wanted: u64, now: Instant) -> bool {
        let slack = self.arena().capacity() / MIN_GAIN_FRACTION;
        self.compaction.futile.lock().is_some_and(|last| {
            let piece = contiguous_bytes_for(wanted);
            now < last.until && used + slack >= last.used && piece >= last.piece
        })
    }

    /// Compacts the whole keyspace for up to `time`, and returns all free chunks to the kernel.
    pub fn purge(&self, scope: &mut EvictionScope<'_, '_>, time: Duration) {
        if !self.arena().barrier().is_active() {
            let time = if scope.holds_locks() { time.min(TIME_UNDER_LOCKS) } else { time };
            let deadline = Instant::now() + time;
            self.run_passes(scope, &[CompactionGoal::FewerChunks], deadline, || false);
        }
        self.arena().trim_all(usize::MAX);
    }

    /// Runs up to `count` slices of a pass, of a new one for `goal` if none runs; tells whether the
    /// pass goes on. Without the limits and the patience of the other callers.
    #[cfg(test)]
    pub fn compact_slices(&self, goal: CompactionGoal, count: usize) -> bool {
        let mut compactor = self.compaction.compactor.lock();
        let mut locker = |shard, act: &mut dyn FnMut(&mut Shards<'_>)| {
            act(&mut self.lock(super::ShardSet::one(shard), 0));
            true
        };
        if !compactor.is_running()
            && compactor.begin(self, goal, MAX_OBJECT_ON_DEMAND, (u64::MAX, 0)).is_none()
        {
            return false;
        }
        (0..count).all(|_| compactor.slice(self, &mut locker) == Slice::More)
    }

    /// Ends the pass that runs.
    #[cfg(test)]
    pub fn end_compaction(&self) {
        self.compact_in_background(None, Duration::ZERO, 0);
    }

    /// Runs passes for one goal after the other until `is_enough`, or none is of use any more.
    fn run_passes(
        &self,
        scope: &mut EvictionScope<'_, '_>,
        goals: &[CompactionGoal],
        deadline: Instant,
        is_enough: impl Fn() -> bool,
    ) -> bool {
        // The pass of another thread ends within its own limits.
        let compactor = &self.compaction.compactor;
        let compactor = match scope.holds_locks() {
            true => compactor.try_lock(),
            false => Some(compactor.lock()),
        };
        let Some(mut compactor) = compactor else { return false };
        // Another thread may have compacted meanwhile.
        if is_enough() {
            return true;
        }
        let mut locker = |shard: ShardIndex, act: &mut dyn FnMut(&mut Shards<'_>)| {
            scope.with(shard, |shards| act(shards)).is_some()
        };
        compactor.interrupt(self, &mut locker);
        let moved = self.arena().compaction_stats().moved_bytes;
        let may_go_on = || {
            let bytes = self.arena().compaction_stats().moved_bytes - moved;
            Instant::now() < deadline && bytes < self.most_bytes()
        };
        for &goal in goals {
            let mut least = (u64::MAX, 0);
            while may_go_on() {
                let most = MAX_OBJECT_ON_DEMAND.min(self.most_bytes());
                let Some(in_use) = compactor.begin(self, goal, most, least) else { break };
                least = in_use;
                while may_go_on() && !is_enough() {
                    match compactor.slice(self, &mut locker) {
                        Slice::More => {}
                        Slice::Busy => compactor.skip_shard(),
                        Slice::Done => break,
                    }
                }
                compactor.end(self, &mut locker);
                if is_enough() {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_grows_with_the_waste_between_the_thresholds() {
        let settings = CompactionSettings {
            ignore_bytes: 100 << 20,
            threshold_lower: 10,
            threshold_upper: 110,
            cycle_min: 5,
            cycle_max: 25,
        };
        let (capacity, used) = (8u64 << 30, 2u64 << 30);
        let duty = |wasted: u64| {
            settings.duty(&Fragmentation { committed: used + wasted, used }, capacity)
        };
        assert_eq!(duty(used / 20), None, "below the lower threshold");
        assert_eq!(duty(used / 10 + 1), Some(5));
        assert_eq!(duty(used * 60 / 100 + 1), Some(15));
        assert_eq!(duty(used * 3), Some(25));
        let few = |wasted: u64, capacity: u64| {
            settings.duty(&Fragmentation { committed: wasted + 1, used: 1 }, capacity)
        };
        assert_eq!(few(100 << 20, 8 << 30), None, "no more than is ignored");
        assert_eq!(few(3 << 20, 64 << 20), Some(25), "a small arena ignores less");
    }
}
