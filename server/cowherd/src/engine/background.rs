//! The background thread: active expiry, eviction, compaction, freeing of flushed databases and
//! unused chunks, save points, idle clients, telemetry samples.
//!
//! The thread runs `hz` cycles a second. Each step holds the lock of one shard, or of two, for a
//! slice of some microseconds, so that commands do not wait noticeably.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::clock::{self, Timestamp};
use crate::commands::Shared;
use crate::keyspace::{CleanCursors, CompactionSettings, DATABASES, Reclaimer};
use crate::telemetry::{HugePoolStats, LatencyEvent};
use cowherd_arena::pages::{HugetlbPool, thp_setting};
use cowherd_arena::{SHARDS, ShardIndex, ShardSet};

use super::{CheckpointScheduler, Engine, serve_blocked};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Entries that one slice visits under a lock.
const SLICE_ENTRIES: usize = 64;
/// Each kind of cleaning takes at most one part in this many of a cycle's period.
const CLEANING_DIVISOR: u32 = 4;
/// Most free chunks that one cycle returns to the kernel: each takes a system call.
const TRIM_CHUNKS: usize = 64;
/// Most tracked keys that one cycle removes after `tracking-table-max-keys` was lowered.
const TRACKED_KEYS: usize = 10_000;
/// Shortest time from a failed checkpoint to the next one that a save point starts.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The running background thread.
pub(crate) struct BackgroundThread {
    stop: Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl BackgroundThread {
    /// # Errors
    /// The kernel refuses a thread.
    pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let engine = Arc::clone(engine);
        let thread = std::thread::Builder::new()
            .name("background".into())
            .spawn(move || MaintenanceLoop::new(&engine).run(&stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops the thread and waits for its end.
    pub(crate) fn stop(mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct MaintenanceLoop<'e> {
    shared: &'e Shared,
    checkpoint_scheduler: &'e CheckpointScheduler,
    cursors: Vec<[CleanCursors; DATABASES]>,
    /// The shard at which cleaning resumes, so that cycles that run out of time do not always skip
    /// the same shards.
    next_shard: usize,
    last_save_point: Option<Instant>,
    seconds: u64,
    reclaimer: Reclaimer,
}

impl<'e> MaintenanceLoop<'e> {
    fn new(engine: &'e Engine) -> Self {
        Self {
            shared: &engine.shared,
            checkpoint_scheduler: &engine.checkpoint_scheduler,
            cursors: ShardIndex::all().map(|_| [CleanCursors::default(); DATABASES]).collect(),
            next_shard: 0,
            last_save_point: None,
            seconds: 0,
            reclaimer: Reclaimer::new(0),
        }
    }

    fn run(mut self, stopped: &Receiver<()>) {
        let (mut sampled, mut second) = (Instant::now(), Instant::now());
        loop {
            let period = Duration::from_secs(1) / self.shared.config.current().hz.max(1);
            match stopped.recv_timeout(period) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
            if self.shared.hooks.pause_cron.load(Ordering::Relaxed) {
                continue;
            }
            let begun = Instant::now();
            self.serve_deferred();
            self.clean(begun + period / CLEANING_DIVISOR);
            self.shared.telemetry.latency_event(LatencyEvent::ExpireCycle, begun.elapsed());
            self.evict(period / CLEANING_DIVISOR);
            self.prune_relocations(Instant::now() + period / CLEANING_DIVISOR);
            self.compact(period);
            self.shared.keyspace.arena().trim(TRIM_CHUNKS);
            self.shared.tracking.trim(TRACKED_KEYS);
            self.check_save_points();
            if sampled.elapsed() >= SAMPLE_INTERVAL {
                sampled = Instant::now();
                self.checkpoint_scheduler.sample(self.shared);
                let space = &self.shared.keyspace;
                space.memory_limit().relax_pressure(space.arena());
                self.shared.telemetry.tick(clock::monotonic_us(), self.shared.used_memory());
            }
            if second.elapsed() >= Duration::from_secs(1) {
                second = Instant::now();
                self.seconds += 1;
                self.sample_ttl();
                self.read_machine();
                self.close_idle_clients();
                self.check_backlogs();
            }
        }
    }

    /// Serves the clients blocked on keys that a worker could not serve.
    fn serve_deferred(&mut self) {
        let ready = self.shared.blocked_clients.take_deferred();
        if !ready.is_empty() {
            let (config, now) = (self.shared.config.current(), clock::wall_ms());
            serve_blocked::serve_ready(self.shared, &config, &mut self.reclaimer, ready, now);
        }
    }

    /// Removes expired keys and frees flushed databases until `deadline`.
    fn clean(&mut self, deadline: Instant) {
        let first = self.next_shard;
        for shard in ShardIndex::all().cycle().skip(first).take(SHARDS) {
            if self.shared.keyspace.needs_cleaning(shard) && !self.clean_shard(shard, deadline) {
                self.next_shard = shard.get();
                return;
            }
        }
    }

    /// Cleans one shard; false if `deadline` passed before its end.
    fn clean_shard(&mut self, shard: ShardIndex, deadline: Instant) -> bool {
        let active = self.shared.hooks.active_expire.load(Ordering::Relaxed);
        for db in 0..DATABASES {
            loop {
                let cursors = &mut self.cursors[shard.get()][db];
                let now = if active { clock::wall_ms() } else { i64::MIN };
                let mut shards = self.shared.keyspace.lock(ShardSet::one(shard), now);
                let slice = shards.clean(shard, db, cursors, SLICE_ENTRIES);
                let ready = shards.take_ready();
                drop(shards);
                if !ready.is_empty() {
                    let config = self.shared.config.current();
                    serve_blocked::serve_ready(
                        self.shared,
                        &config,
                        &mut self.reclaimer,
                        ready,
                        now,
                    );
                }
                if Instant::now() > deadline {
                    return false;
                }
                // More than a tenth of a slice expired: the next slice will find more.
                if !slice.more_deferred && slice.expired * 10 <= slice.looked_at {
                    break;
                }
            }
        }
        true
    }

    /// Removes forwarding entries of deleted keys until `deadline`.
    fn prune_relocations(&self, deadline: Instant) {
        while self.shared.keyspace.prune_relocations(SLICE_ENTRIES) && Instant::now() < deadline {}
    }

    /// Evicts for at most `time` if more memory is used than the limit.
    fn evict(&mut self, time: Duration) {
        let config = self.shared.config.current();
        let now = clock::wall_ms();
        self.reclaimer.evict_to_limit(&self.shared.keyspace, &config, now, time);
        serve_blocked::serve_evicted(self.shared, &config, &mut self.reclaimer, now);
        if let Some(took) = self.reclaimer.take_time() {
            self.shared.telemetry.latency_event(LatencyEvent::EvictionCycle, took.cycle);
        }
    }

    /// Compacts for the share of a period that the fragmentation calls for.
    fn compact(&self, period: Duration) {
        let config = self.shared.config.current();
        let settings = CompactionSettings {
            ignore_bytes: config.active_defrag_ignore_bytes,
            threshold_lower: config.active_defrag_threshold_lower,
            threshold_upper: config.active_defrag_threshold_upper,
            cycle_min: config.active_defrag_cycle_min,
            cycle_max: config.active_defrag_cycle_max,
        };
        let settings = config.activedefrag.then_some(&settings);
        self.shared.keyspace.compact_in_background(settings, period, clock::wall_ms());
    }

    /// Samples the keys' time to live, in a different shard each second.
    fn sample_ttl(&self) {
        let shard = ShardIndex::of_hash(self.seconds);
        for (db, sample) in self.shared.ttl_samples.iter().enumerate() {
            if self.shared.keyspace.expires_len(db) == 0 {
                sample.store(0, Ordering::Relaxed);
                continue;
            }
            let shards = self.shared.keyspace.lock(ShardSet::one(shard), clock::wall_ms());
            let (count, sum) = shards.sample_ttl(db, shard, SLICE_ENTRIES);
            drop(shards);
            if let Some(mean) = sum.checked_div(count) {
                sample.store(mean, Ordering::Relaxed);
            }
        }
    }

    /// Reads the machine's huge-page pool and THP setting from sysfs.
    fn read_machine(&self) {
        let kind = self.shared.keyspace.arena().page_kind();
        let pool = HugetlbPool::read(kind).map(|pool| HugePoolStats {
            page_bytes: kind.cow_bytes(),
            total: pool.total,
            free: pool.free,
            reserved: pool.reserved,
        });
        let setting = thp_setting(self.shared.keyspace.arena().isolation());
        self.shared.sampled.set_host(setting.unwrap_or_default(), pool);
    }

    fn check_save_points(&mut self) {
        let config = self.shared.config.current();
        let persistence = self.shared.telemetry.persistence();
        if config.save.is_empty() || persistence.checkpoint_pid().is_some() {
            return;
        }
        let changes = self.shared.changes_since_checkpoint();
        let since = (clock::wall_ms() - persistence.last_checkpoint_ms()).max(0);
        let due = config.save.iter().find(|rule| {
            changes >= rule.changes && since.unsigned_abs() >= rule.seconds.saturating_mul(1000)
        });
        let Some(rule) = due else { return };
        let waits = persistence.last_checkpoint_failed()
            && self.last_save_point.is_some_and(|last| last.elapsed() < RETRY_DELAY);
        if waits {
            return;
        }
        self.last_save_point = Some(Instant::now());
        tracing::info!("{changes} changes in {} seconds. Saving...", rule.seconds);
        if let Err(error) = self.checkpoint_scheduler.start_background_and_await_fork() {
            tracing::warn!("No checkpoint was started: {error}");
        }
    }

    /// Disconnects clients whose unread output has exceeded the soft limit for too long.
    fn check_backlogs(&self) {
        let limits = self.shared.config.current().client_output_buffer_limit;
        let mut bytes = 0;
        for client in self.shared.clients.list() {
            client.check_output_limit(&limits);
            bytes += client.backlog();
        }
        self.shared.clients.set_output_bytes(bytes);
    }

    fn close_idle_clients(&self) {
        let timeout = self.shared.config.current().timeout;
        if timeout == 0 {
            return;
        }
        let now = Timestamp::now().wall_seconds();
        for client in self.shared.clients.list() {
            let idle = now - client.last_active.load(Ordering::Relaxed) / 1000;
            if client.is_subscriber() || client.is_blocked() {
                continue;
            }
            if u64::try_from(idle).is_ok_and(|idle| idle > u64::from(timeout)) {
                client.kill();
            }
        }
    }
}
