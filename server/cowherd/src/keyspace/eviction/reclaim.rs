//! The memory reclaimer: how much a thread evicts before a command runs, or before it runs again.
//!
//! Three events make it evict:
//!
//! - More memory is in use than [`MemoryLimit`](super::MemoryLimit) allows. Checked before a
//!   command runs that may need memory.
//! - The arena has refused memory to a command, which then has changed nothing. If enough bytes are
//!   free, though not in one piece, compaction joins them. Otherwise memory of another
//!   shard is of little use to it, so keys of its own shards are evicted, more with each attempt.
//!   If that does not help, neighbouring slabs are evicted, whose memory is good for any size: a
//!   command is refused only when no key is left that may be evicted. The pressure limit is learned
//!   here too.
//! - The background thread finds the limit exceeded.
//!
//! The caller holds no lock meanwhile, with two exceptions: a command inside a transaction, of
//! which no other client may see a part, and the command of a blocked client, which runs under the
//! locks of the command that touched its key. Then keys are evicted under those locks and from
//! shards that can be locked without waiting, except the keys that the transaction or the command
//! names; and the number of keys is limited, because other threads may wait for the locks.
//!
//! The first and the last event evict for a limited time, so that no command waits for long; the
//! next command or round continues.
//!
//! Eviction may remove keys for which blocked clients wait. The reclaimer collects them; the caller
//! serves the clients once it holds no lock ([`Reclaimer::take_ready`]).

use std::time::{Duration, Instant};

use crate::config::Config;
use cowherd_arena::{CHUNK_SIZE, UNIT_SIZE, contiguous_bytes_for, take_last_failed_allocation};

use crate::keyspace::{Keyspace, ReadyKey, ShardSet};

use super::policy::EvictionPolicy;
use super::sampling::{EvictionStep, Evictor};
use super::scope::EvictionScope;

/// A command evicts for this long before it runs.
const MAX_TIME: Duration = Duration::from_micros(500);
/// Evictions between two readings of the clock.
const STEPS: usize = 8;
/// From this attempt on slabs are evicted: the command wants another size class than the keys had.
const SLABS_FROM: u32 = 5;
/// Keys that are evicted before one attempt, at most; twice as many each time once slabs are
/// evicted, since running a command again may take long.
const MAX_KEYS: usize = 256;
/// Keys that are evicted under the locks of one transaction, or while blocked clients are served,
/// at most: other threads wait for the locks.
const MAX_KEYS_LOCKED: u64 = 1 << 16;
/// Objects from this size on consist of whole units, which all shards share.
const LARGE_OBJECT: u64 = 16 << 10;
/// Attempts before which compaction is tried: a command that it does not help is not helped by more
/// of it.
const COMPACTIONS: u32 = 4;
/// Bytes that a command may need beside its arguments.
const COMMAND_OVERHEAD: u64 = 512;

/// How long eviction took.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvictionTime {
    /// In all.
    pub cycle: Duration,
    /// For the slowest step.
    pub longest: Duration,
}

/// One thread's memory reclaimer.
#[derive(Debug)]
pub struct Reclaimer {
    evictor: Evictor,
    /// Bytes that commands may use before the arena's total is read again.
    allowance: u64,
    /// The limit for which the allowance was computed.
    limit: u64,
    /// Keys, or slices of the lazy-free list, that may still go while locks are held.
    locked_budget: u64,
    time: EvictionTime,
}

impl Reclaimer {
    /// A reclaimer for one thread; each thread has another seed.
    pub fn new(seed: u64) -> Self {
        Self {
            evictor: Evictor::new(fastrand::Rng::with_seed(seed)),
            allowance: 0,
            limit: 0,
            locked_budget: MAX_KEYS_LOCKED,
            time: EvictionTime::default(),
        }
    }

    /// Whether a command may run that needs up to `bytes()` bytes; evicts first if necessary.
    /// No lock is held.
    #[inline]
    pub fn has_capacity(
        &mut self,
        space: &Keyspace,
        config: &Config,
        bytes: impl FnOnce() -> usize,
        now: i64,
    ) -> bool {
        let Some(policy) = EvictionPolicy::of(config.maxmemory_policy) else {
            return !space.memory_limit().is_exceeded(space.arena());
        };
        let cost = bytes() as u64 + COMMAND_OVERHEAD;
        let limit = space.memory_limit().eviction_limit();
        if limit == self.limit && self.allowance >= cost {
            self.allowance -= cost;
            return true;
        }
        self.check_limit(space, config, policy, limit, now)
    }

    /// Reads how many bytes are in use, and evicts if these are too many.
    #[cold]
    fn check_limit(
        &mut self,
        space: &Keyspace,
        config: &Config,
        policy: EvictionPolicy,
        limit: u64,
        now: i64,
    ) -> bool {
        self.limit = limit;
        self.allowance = 0;
        let used = space.arena().used_bytes();
        if used <= limit {
            // All threads may use up their allowances at the same time.
            self.allowance = (limit - used) / (4 * config.threads.max(1) as u64);
            return true;
        }
        let mut scope = EvictionScope::Unlocked { space, now };
        self.evict_to(limit, &mut scope, config, policy, MAX_TIME)
            || !space.memory_limit().is_exceeded(space.arena())
    }

    /// Evicts for up to `time` if more is in use than the limit allows. No lock is held.
    pub fn evict_to_limit(
        &mut self,
        space: &Keyspace,
        config: &Config,
        now: i64,
        time: Duration,
    ) -> bool {
        let Some(policy) = EvictionPolicy::of(config.maxmemory_policy) else { return true };
        let limit = space.memory_limit().eviction_limit();
        self.evict_to(limit, &mut EvictionScope::Unlocked { space, now }, config, policy, time)
    }

    /// Evicts until no more than `limit` bytes are in use, or for `time`; false if more are in use
    /// and nothing could be freed.
    fn evict_to(
        &mut self,
        limit: u64,
        scope: &mut EvictionScope<'_, '_>,
        config: &Config,
        policy: EvictionPolicy,
        time: Duration,
    ) -> bool {
        let space = scope.space();
        if space.arena().used_bytes() <= limit {
            return true;
        }
        let mut progress = false;
        let begun = Instant::now();
        // Some steps are made in any case: a thread that was preempted meanwhile must not report
        // that nothing can be freed.
        'steps: loop {
            for _ in 0..STEPS {
                if self.step(config, scope, ShardSet::ALL, policy) == EvictionStep::Nothing {
                    break 'steps;
                }
                progress = true;
                if space.arena().used_bytes() <= limit {
                    break 'steps;
                }
            }
            if begun.elapsed() >= time {
                break;
            }
        }
        self.time.cycle += begun.elapsed();
        progress
    }

    /// Evicts for a command that failed and has changed nothing, before it runs again; false if
    /// that is of no use. `set` are the command's shards, `bytes` those of its arguments; `attempt`
    /// counts the calls, starting at 0.
    #[cold]
    pub fn reclaim_for(
        &mut self,
        config: &Config,
        scope: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        bytes: usize,
        attempt: &mut u32,
    ) -> bool {
        // A command that has failed for another reason than memory is not helped by eviction.
        let Some(refused) = take_last_failed_allocation() else { return false };
        let begun = Instant::now();
        // The object that was refused may be larger than the arguments.
        let wanted = refused.max(bytes as u64);
        let made = self.compact_for(config, scope, set, (refused, wanted), *attempt)
            || self.evict_for(config, scope, set, wanted, *attempt);
        self.time.cycle += begun.elapsed();
        *attempt = attempt.saturating_add(1);
        take_last_failed_allocation();
        made
    }

    /// Frees what is deferred, or compacts, for an object of `refused` bytes of a command that
    /// needs `total`; tells whether the object may be allocated now.
    fn compact_for(
        &mut self,
        config: &Config,
        scope: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        (refused, total): (u64, u64),
        attempt: u32,
    ) -> bool {
        if !config.activedefrag || attempt >= COMPACTIONS {
            return false;
        }
        let may_evict = EvictionPolicy::of(config.maxmemory_policy).is_some();
        self.free_deferred(scope, set, attempt)
            || scope.space().compact_for(scope, refused, total, may_evict)
    }

    /// As [`Self::reclaim_for`], for an object of `wanted` bytes.
    fn evict_for(
        &mut self,
        config: &Config,
        scope: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        wanted: u64,
        attempt: u32,
    ) -> bool {
        let space = scope.space();
        // The object must fit into the arena, of which the first chunk holds tables.
        if wanted.saturating_add(CHUNK_SIZE) > space.arena().capacity() {
            return false;
        }
        if scope.holds_locks() && self.locked_budget == 0 {
            return false;
        }
        if self.free_deferred(scope, set, attempt) {
            return true;
        }
        let Some(policy) = EvictionPolicy::of(config.maxmemory_policy) else {
            return self.free_deferred(scope, ShardSet::ALL, attempt);
        };
        let mut progress = match wanted >= LARGE_OBJECT || attempt >= SLABS_FROM {
            true => self.evict_slabs(config, scope, contiguous_bytes_for(wanted), policy, attempt),
            false => self.evict_keys(config, scope, set, policy, attempt),
        };
        if !progress {
            progress = self.evict_keys(config, scope, ShardSet::ALL, policy, attempt);
        }
        // Later attempts, and objects of several chunks, which have to be neighbours, tell how
        // memory is divided rather than how much is left.
        if progress && attempt == 0 && wanted < CHUNK_SIZE {
            space.memory_limit().learn_pressure(space.arena());
        }
        progress
    }

    /// Frees slices of the lazy-free lists, more with each attempt; tells whether there were any.
    fn free_deferred(
        &mut self,
        scope: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        attempt: u32,
    ) -> bool {
        let most = max_keys(attempt) / MAX_KEYS;
        let slices = (0..most).take_while(|_| scope.free_deferred(set)).count();
        self.spend(slices);
        slices > 0
    }

    /// Evicts some keys of each shard, more with each attempt; tells whether there were any.
    fn evict_keys(
        &mut self,
        config: &Config,
        scope: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        policy: EvictionPolicy,
        attempt: u32,
    ) -> bool {
        let count = (1 << attempt.min(SLABS_FROM)) * max_keys(attempt) / MAX_KEYS;
        let mut progress = false;
        let mut left = max_keys(attempt);
        let mut from = |set: ShardSet| {
            for _ in 0..count {
                let step = self.step(config, scope, set, policy);
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

    /// Evicts neighbouring slabs until `bytes` bytes are free in one piece. Where other objects
    /// stand in between, evicts single slabs, some of which become neighbours by chance. Tells
    /// whether there were any.
    fn evict_slabs(
        &mut self,
        config: &Config,
        scope: &mut EvictionScope<'_, '_>,
        bytes: u64,
        policy: EvictionPolicy,
        attempt: u32,
    ) -> bool {
        let samples = config.maxmemory_samples;
        let mut evicted = self.evictor.evict_slabs(scope, bytes, policy, samples);
        let mut last = usize::from(evicted == 0);
        while last > 0 && evicted < max_keys(attempt) {
            last = self.evictor.evict_slabs(scope, UNIT_SIZE, policy, samples);
            evicted += last;
        }
        self.spend(evicted);
        evicted > 0
    }

    fn step(
        &mut self,
        config: &Config,
        scope: &mut EvictionScope<'_, '_>,
        set: ShardSet,
        policy: EvictionPolicy,
    ) -> EvictionStep {
        let begun = Instant::now();
        let step = self.evictor.evict_one(scope, set, policy, config.maxmemory_samples);
        self.time.longest = self.time.longest.max(begun.elapsed());
        self.spend(usize::from(step != EvictionStep::Nothing));
        step
    }

    fn spend(&mut self, keys: usize) {
        self.locked_budget = self.locked_budget.saturating_sub(keys as u64);
    }

    /// Resets the number of keys that may be evicted while locks are held: a transaction begins, or
    /// the locks are taken under which blocked clients are served.
    pub const fn reset_locked_budget(&mut self) {
        self.locked_budget = MAX_KEYS_LOCKED;
    }

    /// Whether eviction has removed keys for which blocked clients wait.
    #[inline]
    pub const fn has_ready(&self) -> bool {
        !self.evictor.ready.is_empty()
    }

    /// Keys that eviction has removed while blocked clients wait for them.
    pub fn take_ready(&mut self) -> Vec<ReadyKey> {
        std::mem::take(&mut self.evictor.ready)
    }

    /// How long eviction took since the last call; `None` if there was none.
    #[inline]
    pub fn take_time(&mut self) -> Option<EvictionTime> {
        if self.time.cycle.is_zero() {
            return None;
        }
        Some(std::mem::take(&mut self.time))
    }
}

/// Keys that are evicted before an attempt, at most.
const fn max_keys(attempt: u32) -> usize {
    let doublings = attempt.saturating_sub(SLABS_FROM);
    MAX_KEYS << if doublings < 12 { doublings } else { 12 }
}
