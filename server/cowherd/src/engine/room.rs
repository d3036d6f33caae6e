//! Makes room for commands that need memory, by evicting keys as `maxmemory-policy` says.
//!
//! Three things make a worker evict:
//!
//! - More is used than the *limit*: `maxmemory`, or what `Shared::pressure` has learned. Looked at
//!   before a command runs that may need memory.
//! - The arena has refused memory to a command, which then has changed nothing. Memory of another
//!   shard is of little use to it, so keys of its own shards go, more each time it is tried again.
//!   If that does not help, neighbouring slabs of keys go, whose memory is good for any size: a
//!   command is refused only when nothing is left that may go.
//!   That is also where the pressure is learned: the arena is full before every byte of it is used.
//! - The background thread finds the limit exceeded.
//!
//! It holds no lock meanwhile, but for a command in the middle of a transaction, of which nobody
//! may see a part, and for one that has waited for a key and runs under the locks of who brought
//! it. Then keys go under those locks, and from shards that happen to be free, all but those that
//! the transaction or the command names; and only so many of them, as others may wait for the
//! locks.
//!
//! The first and the last stop after some time, so that no command waits for long; what is left to
//! do is left to the next.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::commands::{Call, CommandResult, Effect, ErrorReply, Shared};
use crate::config::Config;
use crate::keyspace::{
    CHUNK_SIZE, EvictionPolicy, EvictionScope, EvictionStep, Evictor, ShardSet, UNIT_SIZE,
    contiguous_bytes_for,
};
use cowherd_arena::take_last_failed_allocation;
use cowherd_resp::Args;

use super::serve_blocked;

/// One command evicts for so long before it runs.
const TIME: Duration = Duration::from_micros(500);
/// WriterTimes between two looks at the clock.
const STEPS: usize = 8;
/// From this retry on, neighbouring slabs go: values of another size are wanted than there were.
const SLABS_FROM: u32 = 5;
/// Keys that go before one retry, at most; twice as many each time once slabs go, since to run a
/// command again may take long.
const MOST: usize = 256;
/// Keys that go in the middle of one transaction, or while clients that waited are served, at
/// most: the locks hold up others.
const MOST_WITHIN: u64 = 1 << 16;
/// Objects from this size on are made of whole units, which all shards share.
const LARGE: u64 = 16 << 10;
/// What a command may use beside its arguments.
const OVERHEAD: u64 = 512;

/// What eviction took a worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    /// In all.
    pub cycle: Duration,
    /// For the slowest step.
    pub longest: Duration,
}

/// One thread's way to make room.
pub(super) struct Room {
    evictor: Evictor,
    /// Bytes that may be used before the sum of all that is used is looked at again.
    allowance: u64,
    /// The limit that the allowance is for.
    limit: u64,
    /// Keys, or slices of what was deleted before, that may go until the locks are given up.
    left_within: u64,
    took: Took,
}

impl Room {
    /// One for a thread; no two have the same seed.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            evictor: Evictor::new(seed),
            allowance: 0,
            limit: 0,
            left_within: MOST_WITHIN,
            took: Took::default(),
        }
    }

    /// Whether a command that may need memory may run; makes room for it first.
    #[inline]
    pub(super) fn is_there(
        &mut self,
        shared: &Shared,
        config: &Config,
        args: &Args<'_>,
        queued: usize,
        now: i64,
    ) -> bool {
        let Some(victims) = EvictionPolicy::of(config.maxmemory_policy) else {
            return !is_full(shared);
        };
        let wanted = args.iter().map(<[u8]>::len).sum::<usize>() + queued;
        let cost = wanted as u64 + OVERHEAD;
        let limit = shared.limit();
        if limit == self.limit && self.allowance >= cost {
            self.allowance -= cost;
            return true;
        }
        self.look(shared, config, victims, limit, now)
    }

    /// Looks at what is used, and evicts if that is too much.
    #[cold]
    fn look(
        &mut self,
        shared: &Shared,
        config: &Config,
        victims: EvictionPolicy,
        limit: u64,
        now: i64,
    ) -> bool {
        self.limit = limit;
        self.allowance = 0;
        let used = shared.keyspace.arena().used_bytes();
        if used <= limit {
            // All threads may use theirs at the same time.
            self.allowance = (limit - used) / (4 * config.threads.max(1) as u64);
            return true;
        }
        let mut reach = EvictionScope::Unlocked { space: &shared.keyspace, now };
        let progress = self.evict(shared, config, &mut reach, victims, limit, TIME);
        progress || !is_full(shared)
    }

    /// Evicts until no more than `limit` is used, or for `time`; false if that is exceeded and
    /// there was nothing to free.
    pub(super) fn evict(
        &mut self,
        shared: &Shared,
        config: &Config,
        reach: &mut EvictionScope<'_, '_>,
        victims: EvictionPolicy,
        limit: u64,
        time: Duration,
    ) -> bool {
        let mut progress = false;
        if shared.keyspace.arena().used_bytes() <= limit {
            return true;
        }
        let begun = Instant::now();
        // Some steps in any case: one who has lost the processor meanwhile must not find that
        // nothing can be freed.
        loop {
            for _ in 0..STEPS {
                let step = self.step(config, reach, ShardSet::ALL, victims);
                if step == EvictionStep::Nothing {
                    self.finish(shared, config, reach, begun);
                    return progress;
                }
                progress = true;
                if shared.keyspace.arena().used_bytes() <= limit {
                    break;
                }
            }
            if shared.keyspace.arena().used_bytes() <= limit || begun.elapsed() >= time {
                break;
            }
        }
        self.finish(shared, config, reach, begun);
        progress
    }

    /// Evicts for a command that may have found no memory, and has changed nothing, before it runs
    /// again for the `nth` time; false if that is of no use. `bytes` are those of its arguments;
    /// more go for an object that was refused and is larger.
    #[cold]
    pub(super) fn makes_way(
        &mut self,
        shared: &Shared,
        config: &Config,
        reach: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        bytes: usize,
        nth: &mut u32,
    ) -> bool {
        // What has failed for another reason than room is not helped by eviction.
        let Some(refused) = take_last_failed_allocation() else { return false };
        let made = self.evict_for(shared, config, reach, set, refused.max(bytes as u64), *nth);
        *nth = nth.saturating_add(1);
        take_last_failed_allocation();
        made
    }

    /// As [`Self::makes_way`]; `wanted` are the bytes that go into one object. False if nothing can
    /// be freed, or if that would not help.
    fn evict_for(
        &mut self,
        shared: &Shared,
        config: &Config,
        reach: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        wanted: u64,
        nth: u32,
    ) -> bool {
        let begun = Instant::now();
        // Nothing that goes makes room for what is larger than all there is. The first chunk holds
        // tables.
        if wanted.saturating_add(CHUNK_SIZE) > shared.keyspace.arena().capacity() {
            return false;
        }
        if reach.holds_locks() && self.left_within == 0 {
            return false;
        }
        if self.garbage(reach, set, nth) {
            return true;
        }
        let Some(victims) = EvictionPolicy::of(config.maxmemory_policy) else {
            return self.garbage(reach, ShardSet::ALL, nth);
        };
        let mut progress = false;
        if wanted >= LARGE || nth >= SLABS_FROM {
            progress |= self.clear(config, reach, contiguous_bytes_for(wanted), victims, nth);
        } else {
            progress |= self.keys(config, reach, set, victims, nth);
        }
        if !progress {
            progress |= self.keys(config, reach, ShardSet::ALL, victims, nth);
        }
        // What else has to go before there is room says how memory is cut, not how much there is;
        // and so does an object of several chunks, which have to be neighbours.
        if progress && nth == 0 && wanted < CHUNK_SIZE {
            shared.learn_pressure();
        }
        self.finish(shared, config, reach, begun);
        progress
    }

    /// Frees what was deleted before, more the higher `nth` is; tells whether there was any.
    fn garbage(&mut self, reach: &mut EvictionScope<'_, '_>, set: ShardSet, nth: u32) -> bool {
        let most = most(nth) / MOST;
        let slices = (0..most).take_while(|_| reach.free_deferred(set)).count();
        self.gone(slices);
        slices > 0
    }

    /// Evicts some keys of each shard, more the higher `nth` is; tells whether there were any.
    fn keys(
        &mut self,
        config: &Config,
        reach: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        victims: EvictionPolicy,
        nth: u32,
    ) -> bool {
        let count = (1 << nth.min(SLABS_FROM)) * most(nth) / MOST;
        let mut progress = false;
        let mut left = most(nth);
        let mut from = |set: ShardSet| {
            for _ in 0..count {
                let step = self.step(config, reach, set, victims);
                progress |= step != EvictionStep::Nothing;
                left = left.saturating_sub(1);
                if left == 0 || step == EvictionStep::Nothing {
                    break;
                }
            }
        };
        if set == ShardSet::ALL {
            from(set);
        } else {
            set.iter().for_each(|shard| from(ShardSet::one(shard)));
        }
        progress
    }

    /// Evicts neighbouring slabs of keys until there is a piece of so many bytes; or, where other
    /// things stand in between, single slabs, until it has room by chance. Tells whether there
    /// were any.
    fn clear(
        &mut self,
        config: &Config,
        reach: &mut EvictionScope<'_, '_>,
        bytes: u64,
        victims: EvictionPolicy,
        nth: u32,
    ) -> bool {
        let samples = config.maxmemory_samples;
        let mut gone = self.evictor.evict_neighbours(reach, bytes, victims, samples);
        let mut last = usize::from(gone == 0);
        while last > 0 && gone < most(nth) {
            last = self.evictor.evict_neighbours(reach, UNIT_SIZE, victims, samples);
            gone += last;
        }
        self.gone(gone);
        gone > 0
    }

    fn step(
        &mut self,
        config: &Config,
        reach: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        victims: EvictionPolicy,
    ) -> EvictionStep {
        let begun = Instant::now();
        let samples = config.maxmemory_samples;
        let step = self.evictor.evict_one(reach, set, victims, samples);
        self.took.longest = self.took.longest.max(begun.elapsed());
        self.gone(usize::from(step != EvictionStep::Nothing));
        step
    }

    fn gone(&mut self, count: usize) {
        self.left_within = self.left_within.saturating_sub(count as u64);
    }

    fn finish(
        &mut self,
        shared: &Shared,
        config: &Config,
        reach: &EvictionScope<'_, '_>,
        begun: Instant,
    ) {
        self.took.cycle += begun.elapsed();
        if !reach.holds_locks() {
            self.serve(shared, config, reach.now());
        }
    }

    /// Something begins in which keys may go while locks are held.
    pub(super) const fn enter(&mut self) {
        self.left_within = MOST_WITHIN;
    }

    /// Serves those who wait for keys that went. For who holds no lock any more.
    pub(super) fn serve(&mut self, shared: &Shared, config: &Config, now: i64) {
        let ready = self.evictor.take_ready();
        if !ready.is_empty() {
            serve_blocked::serve_later(shared, config, self, ready, now);
        }
    }

    /// What eviction took since this was last asked, if it took any time.
    #[inline]
    pub(super) fn take_took(&mut self) -> Option<Took> {
        if self.took.cycle.is_zero() {
            return None;
        }
        Some(std::mem::take(&mut self.took))
    }
}

/// The arena had no memory for a command that runs under locks which others have a part in; it has
/// changed nothing. Evicts under these locks, all keys but those of the hashes in `spared`, which
/// are in ascending order, and runs the command again.
#[cold]
pub(super) fn run_again(call: &mut Call<'_>, room: &mut Room, spared: &[u64]) -> CommandResult {
    let (shared, config, start) = (call.shared, call.config, call.reply.len());
    let set = call.row.command.shards(&shared.keyspace, &call.args, call.first_hash);
    let bytes = call.args.iter().map(<[u8]>::len).sum();
    let mut nth = 0;
    loop {
        let mut reach = EvictionScope::Within { shards: &mut call.shards, spared };
        if !room.makes_way(shared, config, &mut reach, set, bytes, &mut nth) {
            return Err(ErrorReply::OUT_OF_MEMORY);
        }
        call.effect = Effect::None;
        call.reply.out.truncate(start);
        let answer = (call.row.command.handler)(call);
        if answer != Err(ErrorReply::OUT_OF_MEMORY) {
            return answer;
        }
    }
}

/// Keys that go before the `nth` retry, at most.
const fn most(nth: u32) -> usize {
    let doublings = nth.saturating_sub(SLABS_FROM);
    MOST << if doublings < 12 { doublings } else { 12 }
}

/// Whether more is used than `maxmemory` allows. The arena itself cannot grow beyond its
/// reservation, so that only a limit below that has to be asked about.
fn is_full(shared: &Shared) -> bool {
    let limit = shared.maxmemory.load(Ordering::Relaxed);
    limit < shared.keyspace.arena().capacity() && shared.keyspace.arena().used_bytes() > limit
}
