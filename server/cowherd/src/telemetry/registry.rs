//! The registry of all counters: the one object that threads record into and that INFO, the metrics
//! and the live page read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::Duration;

use cowherd_arena::stats::Distribution;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::blocked_failures::BlockedFailures;
use super::checkpoint_epoch::{CheckpointEpoch, EACH_PHASE, EpochCounter};
use super::error_prefixes::{COUNTERS, ErrorPrefixes};
use super::latency_monitor::{LatencyEvent, LatencyEventHistory, LatencyMonitor};
use super::longest_command::LongestCommand;
use super::persistence::Persistence;
use super::process;
use super::rates::{RateSampler, Rates};
use super::seconds::{SecondHistory, SecondStats};
use super::slowlog::{SlowLog, SlowlogEntry};
use super::stats_source::{EngineCounters, StatsSnapshot};
use super::thread_counters::{CommandTotals, ServerTotals, ThreadCounters};
use crate::clock::{self, Timestamp};

/// All that the server counts, shared by its threads.
#[derive(Debug)]
pub(crate) struct Telemetry {
    started: Timestamp,
    /// The names of the commands; the index is the command's number.
    names: Box<[String]>,
    /// The family of each command, by number.
    families: Box<[&'static str]>,
    pub(super) threads: Box<[CachePadded<ThreadCounters>]>,
    pub(super) error_prefixes: ErrorPrefixes,
    blocked_failures: BlockedFailures,
    pub(super) latency_tracking: AtomicBool,
    epoch: EpochCounter,
    /// The lower of the thresholds of slow log and latency monitor, in nanoseconds.
    slow_limit: AtomicU64,
    /// `slowlog-log-slower-than` in microseconds; below 0: no slow log.
    pub(super) slower_than: AtomicI64,
    slow_log: SlowLog,
    pub(super) latency_monitor: LatencyMonitor,
    peak_memory: AtomicU64,
    auth_failures: AtomicU64,
    rate_sampler: Mutex<RateSampler>,
    seconds: Mutex<SecondHistory>,
    pub(super) baseline: Mutex<Baseline>,
    persistence: Persistence,
}

/// The durations of the commands of one family.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FamilyLatency {
    /// The family's name, such as `string`.
    pub(crate) family: &'static str,
    /// While no checkpoint ran.
    pub(crate) idle: Distribution,
    /// While one did.
    pub(crate) checkpoint: Distribution,
}

impl FamilyLatency {
    /// Both distributions with their names in INFO and the metrics.
    pub(crate) const fn by_phase(&self) -> [(&'static str, &Distribution); 2] {
        [("idle", &self.idle), ("checkpoint", &self.checkpoint)]
    }
}

/// The counters at the last CONFIG RESETSTAT, which INFO subtracts.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    pub(super) totals: ServerTotals,
    pub(super) commands: Vec<CommandTotals>,
    pub(super) latencies: Vec<Option<Distribution>>,
    pub(super) errors: Vec<u64>,
    pub(super) engine: EngineCounters,
    pub(super) worker_us: u64,
    pub(super) command_us: u64,
    pub(super) checkpoints: u64,
    pub(super) forks: u64,
}

impl Telemetry {
    /// Counters for `threads` threads and for the commands with these names, numbered by their
    /// index. `families` has the family of each command in the same order.
    pub(crate) fn new(
        threads: usize,
        names: Vec<String>,
        families: Vec<&'static str>,
    ) -> Arc<Self> {
        let started = Timestamp::now();
        let counters = |_| CachePadded::new(ThreadCounters::new(names.len()));
        Arc::new(Self {
            started,
            threads: (0..threads).map(counters).collect(),
            error_prefixes: ErrorPrefixes::default(),
            blocked_failures: BlockedFailures::new(names.len()),
            names: names.into(),
            families: families.into(),
            latency_tracking: AtomicBool::new(true),
            epoch: EpochCounter::default(),
            slow_limit: AtomicU64::new(u64::MAX),
            slower_than: AtomicI64::new(-1),
            slow_log: SlowLog::default(),
            latency_monitor: LatencyMonitor::default(),
            peak_memory: AtomicU64::new(0),
            auth_failures: AtomicU64::new(0),
            rate_sampler: Mutex::default(),
            seconds: Mutex::default(),
            baseline: Mutex::default(),
            persistence: Persistence::new(started),
        })
    }

    /// The state of checkpoints and of the restore.
    pub(crate) fn persistence(&self) -> &Persistence {
        &self.persistence
    }

    /// When the server started.
    pub(crate) fn started(&self) -> Timestamp {
        self.started
    }

    /// Switches the latency histograms of commands on or off (`latency-tracking`).
    pub(crate) fn set_latency_tracking(&self, on: bool) {
        self.latency_tracking.store(on, Relaxed);
    }

    /// Takes the samples behind rates, peak memory and the live page, and drains the ring buffers
    /// of the threads. Called 10 times a second with [`crate::clock::monotonic_us`].
    pub(crate) fn tick(&self, now_us: u64, used_memory: u64) {
        self.collect_slow_commands();
        self.collect_spikes();
        self.peak_memory.fetch_max(used_memory, Relaxed);
        let totals = self.totals();
        let counters = Rates {
            commands: totals.commands,
            input_bytes: totals.input_bytes,
            output_bytes: totals.output_bytes,
            cycles: totals.reads,
            worker_us: self.worker_us(),
        };
        self.rate_sampler.lock().sample(now_us, counters);
        let latencies = || (self.latency_of_all(), self.take_longest());
        self.seconds.lock().tick(now_us, totals.commands, latencies);
    }

    /// Rates of the last second and a half.
    pub(crate) fn rates(&self) -> Rates {
        self.rate_sampler.lock().rates()
    }

    /// The most memory that was in use at any tick.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.peak_memory.load(Relaxed)
    }

    /// Processor time of the threads that serve clients, in microseconds.
    pub(super) fn worker_us(&self) -> u64 {
        let workers = self.threads.iter().map(|thread| thread.worker.load(Relaxed));
        let time: Duration = workers.filter(|id| *id != 0).map(process::thread_cpu_time).sum();
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    /// Time spent in commands, in microseconds.
    pub(super) fn command_us(&self) -> u64 {
        self.threads.iter().map(|thread| thread.command_nanos()).sum::<u64>() / 1000
    }

    /// A client gave a wrong user or password.
    pub(crate) fn auth_failed(&self) {
        self.auth_failures.fetch_add(1, Relaxed);
    }

    /// How often clients gave a wrong user or password.
    pub(super) fn auth_failures(&self) -> u64 {
        self.auth_failures.load(Relaxed)
    }

    /// Sums over all threads since the start.
    pub(crate) fn totals(&self) -> ServerTotals {
        let mut totals = ServerTotals::default();
        self.threads.iter().for_each(|thread| thread.add_to(&mut totals));
        totals.errors += self.blocked_failures.total();
        totals
    }

    /// The statistics of one command since the start.
    pub(crate) fn command(&self, number: usize) -> CommandTotals {
        let mut totals = CommandTotals::default();
        self.threads.iter().for_each(|thread| thread.add_command_to(number, &mut totals));
        totals.failed += self.blocked_failures.of_command(number);
        totals
    }

    /// The statistics and durations of one command since the last [`Self::reset`].
    pub(crate) fn command_since_reset(
        &self,
        number: usize,
    ) -> (CommandTotals, Option<Distribution>) {
        let baseline = self.baseline.lock();
        let (mut totals, mut latency) = (self.command(number), self.latency(number));
        if let Some(earlier) = baseline.commands.get(number) {
            totals = totals.since(earlier);
        }
        if let Some(Some(earlier)) = baseline.latencies.get(number) {
            latency = latency.map(|latency| latency.since(earlier));
        }
        (totals, latency)
    }

    /// The durations of one command since the start; None: no duration was recorded.
    pub(crate) fn latency(&self, number: usize) -> Option<Distribution> {
        let mut latency = Distribution::default();
        let mut used = false;
        for thread in &self.threads {
            for epoch in EACH_PHASE {
                used |= thread.add_latency_to(number, epoch, &mut latency);
            }
        }
        used.then_some(latency)
    }

    /// Durations since the start by family, sorted by name; families that were never used are left
    /// out.
    pub(crate) fn latency_by_family(&self) -> Vec<FamilyLatency> {
        let mut families: BTreeMap<&'static str, [Distribution; 2]> = BTreeMap::new();
        for (number, family) in self.families.iter().enumerate() {
            for thread in &self.threads {
                if thread.has_latency(number) {
                    let latency = families.entry(family).or_default();
                    for epoch in EACH_PHASE {
                        thread.add_latency_to(number, epoch, &mut latency[epoch.index()]);
                    }
                }
            }
        }
        let families = families.into_iter();
        families
            .map(|(family, [idle, checkpoint])| FamilyLatency { family, idle, checkpoint })
            .collect()
    }

    /// Durations of all commands since the start.
    pub(crate) fn latency_of_all(&self) -> Distribution {
        let mut latency = Distribution::default();
        for thread in &self.threads {
            for (number, _) in self.commands() {
                for epoch in EACH_PHASE {
                    thread.add_latency_to(number, epoch, &mut latency);
                }
            }
        }
        latency
    }

    /// The current checkpoint epoch.
    #[inline]
    pub(crate) fn epoch(&self) -> CheckpointEpoch {
        self.epoch.now()
    }

    /// A checkpoint is about to request its first lock. Its longest command is unset.
    pub(crate) fn checkpoint_begins(&self) {
        self.epoch.advance();
    }

    /// The checkpoint is over, its last lock released.
    pub(crate) fn checkpoint_ends(&self) {
        self.epoch.advance();
    }

    /// The command that kept a client waiting longest in the running or else the last checkpoint.
    pub(crate) fn longest_command(&self) -> Option<LongestCommand> {
        let epoch = self.epoch.of_checkpoint();
        let longest = self.threads.iter().filter_map(|one| one.longest_in_checkpoint.read(epoch));
        longest.max_by_key(|command| command.nanos)
    }

    /// The longest command since the last call, in nanoseconds. For one reader only.
    pub(crate) fn take_longest(&self) -> u64 {
        self.threads.iter().map(|thread| thread.take_longest()).max().unwrap_or(0)
    }

    /// Sets the thresholds: the slow log keeps the last `entries` commands that took `slower_than`
    /// microseconds (below 0: none), the latency monitor events of `threshold_ms` (0: none).
    pub(crate) fn set_slow(&self, slower_than: i64, entries: u64, threshold_ms: u64) {
        self.slower_than.store(slower_than, Relaxed);
        self.slow_log.set_limit(entries);
        self.latency_monitor.set_threshold(threshold_ms);
        let logged = u64::try_from(slower_than).map(|us| us.saturating_mul(1000));
        let spikes = if threshold_ms == 0 { u64::MAX } else { threshold_ms * 1_000_000 };
        let limit = logged.unwrap_or(u64::MAX).min(spikes);
        self.slow_limit.store(limit.saturating_sub(1), Relaxed);
    }

    /// Records an event that held up clients. Takes a lock: threads that run commands use
    /// `Recorder::latency_event`.
    pub(crate) fn latency_event(&self, event: LatencyEvent, took: Duration) {
        self.latency_monitor.record(self.latency_monitor.spike(event, clock::wall_ms(), took));
    }

    /// The events recorded so far.
    pub(crate) fn latency_events(&self) -> Vec<LatencyEventHistory> {
        self.collect_spikes();
        self.latency_monitor.events()
    }

    /// Deletes the samples of an event. Returns whether there were any.
    pub(crate) fn reset_latency_event(&self, event: LatencyEvent) -> bool {
        self.collect_spikes();
        self.latency_monitor.reset(event)
    }

    fn collect_spikes(&self) {
        self.latency_monitor.collect(self.threads.iter().map(|thread| &thread.spikes));
    }

    /// The newest `count` entries of the slow log.
    pub(crate) fn slowlog(&self, count: usize) -> Vec<SlowlogEntry> {
        self.collect_slow_commands();
        self.slow_log.newest(count)
    }

    /// Number of entries in the slow log.
    pub(crate) fn slowlog_len(&self) -> u64 {
        self.collect_slow_commands();
        self.slow_log.len()
    }

    /// Number of entries that the slow log ever had.
    pub(crate) fn slowlog_total(&self) -> u64 {
        self.slow_log.total()
    }

    /// Empties the slow log.
    pub(crate) fn slowlog_reset(&self) {
        self.collect_slow_commands();
        self.slow_log.clear();
    }

    fn collect_slow_commands(&self) {
        self.slow_log.collect(self.threads.iter().map(|thread| &thread.slow));
    }

    /// Nanoseconds above which a command goes to the slow log or the latency monitor.
    #[inline]
    pub(crate) fn slow_limit(&self) -> u64 {
        self.slow_limit.load(Relaxed)
    }

    /// The numbers and names of the commands.
    pub(super) fn commands(&self) -> impl Iterator<Item = (usize, &str)> {
        self.names.iter().map(String::as_str).enumerate()
    }

    /// Error replies since the start by their first word, in alphabetical order.
    pub(crate) fn errors(&self) -> Vec<(&str, u64)> {
        self.errors_since(&[])
    }

    pub(super) fn errors_since(&self, baseline: &[u64]) -> Vec<(&str, u64)> {
        let since = |counter| {
            let earlier = baseline.get(counter).copied().unwrap_or(0);
            self.error_count(counter).saturating_sub(earlier)
        };
        let all = self.error_prefixes.iter().map(|(counter, word)| (word, since(counter)));
        let mut errors: Vec<_> = all.filter(|(_, count)| *count > 0).collect();
        errors.sort_unstable();
        errors
    }

    fn error_count(&self, counter: usize) -> u64 {
        self.blocked_failures.with_error(counter)
            + self.threads.iter().map(|thread| thread.errors(counter)).sum::<u64>()
    }

    /// A blocked command has failed, when it ran again or when its wait was ended. `reply` is the
    /// error reply.
    ///
    /// # Panics
    /// When there is no command with this number.
    pub(crate) fn failed_after_wait(&self, number: usize, reply: &[u8]) {
        self.blocked_failures.add(number, self.error_prefixes.counter_of(reply));
    }

    /// The number of seconds since the start, and the kept seconds after the first `known`, the
    /// oldest first.
    pub(super) fn seconds_after(&self, known: u64) -> (u64, Vec<SecondStats>) {
        self.seconds.lock().after(known)
    }

    /// CONFIG RESETSTAT: INFO counts from zero again. The counters themselves, which Prometheus
    /// reads, are unchanged.
    pub(crate) fn reset(&self, stats: &StatsSnapshot) {
        let status = self.persistence.status(Timestamp::default(), 0);
        let baseline = Baseline {
            totals: self.totals(),
            commands: self.commands().map(|(number, _)| self.command(number)).collect(),
            latencies: self.commands().map(|(number, _)| self.latency(number)).collect(),
            errors: (0..COUNTERS).map(|counter| self.error_count(counter)).collect(),
            engine: stats.counters,
            worker_us: self.worker_us(),
            command_us: self.command_us(),
            checkpoints: status.totals.begun,
            forks: status.hold_ups.count(),
        };
        *self.baseline.lock() = baseline;
        self.rate_sampler.lock().clear();
    }
}
