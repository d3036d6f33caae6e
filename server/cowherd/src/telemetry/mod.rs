//! What the server tells about itself: counters, INFO, Prometheus metrics, the live page,
//! the log.
//!
//! ```text
//!   worker 0 -- Recorder --> slot 0 --.
//!   worker 1 -- Recorder --> slot 1 --+-- summed on reading --> info     INFO
//!   engine --- events ----> Persistence --'                '--> metrics  /metrics, /healthz
//!   engine --- StatsSource (on reading) ------------------------'--> live     the page, /events
//! ```
//!
//! Invariants:
//! 1. Recording is a few plain loads and stores into memory of the thread's own: no lock, no
//!    system call, no allocation but the first time a command or a kind of error is seen.
//! 2. Readers disturb no writer. CONFIG RESETSTAT sets a zero mark that INFO subtracts; the
//!    counters themselves, which Prometheus reads, only ever grow.
//!
//! The module is a leaf: it imports configuration and clock, no other room.

pub mod advice;
mod errors;
pub mod info;
mod inputs;
mod live;
pub mod logging;
mod mailbox;
pub mod metrics;
mod monitor;
mod persistence;
mod phase;
mod process;
mod rates;
mod saves;
mod slowlog;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

#[cfg(test)]
pub use cowherd_arena::stats::Histogram;
pub use cowherd_arena::stats::{CowStats, Distribution, UndoStats};
pub use cowherd_arena::{OccupancyCell, OccupancyMap};
pub use inputs::{
    ArenaStats, ClientStats, DatabaseStats, EngineCounters, HugePoolStats, MemoryStats, ServerInfo,
    StatsSnapshot, StatsSource, ThpStats, UndoLogLimits,
};
pub use monitor::{LatencyEvent, LatencyEventHistory, LatencySample};
pub use persistence::{CheckpointStart, ForkTimes, Persistence, PersistenceStatus, RestoreReport};
pub use phase::{CheckpointEpoch, LongestCommand};
pub use process::{minor_faults_of_other_threads, resident_bytes};
pub use rates::Rates;
pub use saves::{CheckpointRecord, CheckpointStatus, LongestStall, StallCause};
pub use slowlog::{SlowCommand, SlowlogEntry};
pub use workers::{CommandTotals, Recorder, ServerTotals};

use crate::clock::{self, Timestamp};
use errors::ErrorPrefixes;
use live::SecondHistory;
use monitor::LatencyMonitor;
use phase::PhaseCounter;
use rates::RateSampler;
use slowlog::SlowLog;
use workers::Slot;

/// Whether commands are counted and timed at all. Off only to measure what that costs.
pub const ENABLED: bool = cfg!(feature = "telemetry");

const PHASES: [CheckpointEpoch; 2] = [CheckpointEpoch(0), CheckpointEpoch(1)];

/// All that the server counts, shared by its threads.
#[derive(Debug)]
pub struct Telemetry {
    started: Timestamp,
    /// The commands' names, by number.
    names: Box<[String]>,
    /// The commands' families, by number.
    families: Box<[&'static str]>,
    slots: Box<[CachePadded<Slot>]>,
    prefixes: ErrorPrefixes,
    latency_tracking: AtomicBool,
    phase: PhaseCounter,
    /// Commands above so many nanoseconds are looked at closely.
    slow_limit: AtomicU64,
    /// Commands from so many microseconds on are logged; below 0: none.
    slower_than: AtomicI64,
    slow_log: SlowLog,
    monitor: LatencyMonitor,
    peak_memory: AtomicU64,
    sampler: Mutex<RateSampler>,
    seconds: Mutex<SecondHistory>,
    zero: Mutex<Baseline>,
    persistence: Persistence,
}

/// The latencies of the commands of one family.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyLatency {
    /// Its name, such as `string`.
    pub family: &'static str,
    /// While no save ran.
    pub idle: Distribution,
    /// While one did.
    pub checkpoint: Distribution,
}

impl FamilyLatency {
    /// Both, with the names of their phases.
    pub const fn by_phase(&self) -> [(&'static str, &Distribution); 2] {
        [("idle", &self.idle), ("checkpoint", &self.checkpoint)]
    }
}

/// Where INFO counts from: the counters at the last CONFIG RESETSTAT.
#[derive(Debug, Default)]
struct Baseline {
    totals: ServerTotals,
    commands: Vec<CommandTotals>,
    latencies: Vec<Option<Distribution>>,
    errors: Vec<u64>,
    engine: EngineCounters,
    saves: u64,
    forks: u64,
}

impl Telemetry {
    /// Counters for so many threads and for the commands of these names, whose places in the list
    /// are their numbers; `families` are the groups that they belong to, in the same order.
    pub fn new(threads: usize, names: Vec<String>, families: Vec<&'static str>) -> Arc<Self> {
        let started = Timestamp::now();
        let slots = (0..threads).map(|_| CachePadded::new(Slot::new(names.len()))).collect();
        Arc::new(Self {
            started,
            names: names.into(),
            families: families.into(),
            slots,
            prefixes: ErrorPrefixes::default(),
            latency_tracking: AtomicBool::new(true),
            phase: PhaseCounter::default(),
            slow_limit: AtomicU64::new(u64::MAX),
            slower_than: AtomicI64::new(-1),
            slow_log: SlowLog::default(),
            monitor: LatencyMonitor::default(),
            peak_memory: AtomicU64::new(0),
            sampler: Mutex::default(),
            seconds: Mutex::default(),
            zero: Mutex::default(),
            persistence: Persistence::new(started),
        })
    }

    /// The pen of one thread. None: it is in use, or there are not so many threads. Dropping it
    /// makes it free again; the counts stay.
    pub fn recorder(self: &Arc<Self>, thread: usize) -> Option<Recorder> {
        Recorder::lend(self, thread)
    }

    /// The state of saving and restoring.
    pub fn persistence(&self) -> &Persistence {
        &self.persistence
    }

    /// When the server started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Whether commands' latencies are counted (`latency-tracking`).
    pub fn set_latency_tracking(&self, on: bool) {
        self.latency_tracking.store(on, Relaxed);
    }

    /// Takes the samples that rates and the memory's peak are made of; to be called 10 times a
    /// second, with [`crate::clock::monotonic_us`].
    pub fn tick(&self, now_us: u64, used_memory: u64) {
        self.collect_slow();
        self.monitor.collect(self.slots.iter().map(|slot| &slot.spikes));
        self.peak_memory.fetch_max(used_memory, Relaxed);
        let totals = self.totals();
        let counters = Rates {
            commands: totals.commands,
            input_bytes: totals.input_bytes,
            output_bytes: totals.output_bytes,
        };
        self.sampler.lock().sample(now_us, counters);
        let latencies = || (self.latency_of_all(), self.take_longest());
        self.seconds.lock().tick(now_us, totals.commands, latencies);
    }

    /// Rates of the last second and a half.
    pub fn rates(&self) -> Rates {
        self.sampler.lock().rates()
    }

    /// The most memory that was in use at any tick.
    pub fn peak_memory(&self) -> u64 {
        self.peak_memory.load(Relaxed)
    }

    /// Sums over all threads since the start.
    pub fn totals(&self) -> ServerTotals {
        let mut totals = ServerTotals::default();
        self.slots.iter().for_each(|slot| slot.add_to(&mut totals));
        totals
    }

    /// A command's statistics since the start.
    pub fn command(&self, number: usize) -> CommandTotals {
        let mut totals = CommandTotals::default();
        self.slots.iter().for_each(|slot| slot.add_command_to(number, &mut totals));
        totals
    }

    /// A command's statistics and latencies since the last [`Self::reset`].
    pub fn command_since_reset(&self, number: usize) -> (CommandTotals, Option<Distribution>) {
        let zero = self.zero.lock();
        let (mut totals, mut latency) = (self.command(number), self.latency(number));
        if let Some(zero) = zero.commands.get(number) {
            totals = totals.since(zero);
        }
        if let Some(Some(zero)) = zero.latencies.get(number) {
            latency = latency.map(|latency| latency.since(zero));
        }
        (totals, latency)
    }

    /// A command's latencies since the start; None when none was ever counted.
    pub fn latency(&self, number: usize) -> Option<Distribution> {
        let mut latency = Distribution::default();
        let mut used = false;
        for slot in &self.slots {
            for phase in PHASES {
                used |= slot.add_latency_to(number, phase, &mut latency);
            }
        }
        used.then_some(latency)
    }

    /// Latencies since the start by the commands' families, those that were used, by name.
    pub fn latency_by_family(&self) -> Vec<FamilyLatency> {
        let mut families: BTreeMap<&'static str, [Distribution; 2]> = BTreeMap::new();
        for (number, family) in self.families.iter().enumerate() {
            for slot in &self.slots {
                if slot.has_latency(number) {
                    let latency = families.entry(family).or_default();
                    for phase in PHASES {
                        slot.add_latency_to(number, phase, &mut latency[phase.index()]);
                    }
                }
            }
        }
        let families = families.into_iter();
        families
            .map(|(family, [idle, checkpoint])| FamilyLatency { family, idle, checkpoint })
            .collect()
    }

    /// All commands' latencies since the start together.
    pub fn latency_of_all(&self) -> Distribution {
        let mut latency = Distribution::default();
        for slot in &self.slots {
            for (number, _) in self.commands() {
                for phase in PHASES {
                    slot.add_latency_to(number, phase, &mut latency);
                }
            }
        }
        latency
    }

    /// What goes on at this moment.
    #[inline]
    pub fn phase(&self) -> CheckpointEpoch {
        self.phase.now()
    }

    /// A save is about to ask for its first lock. It begins without a worst command.
    pub fn checkpoint_begins(&self) {
        self.phase.advance();
    }

    /// The save is over, its last lock released.
    pub fn checkpoint_ends(&self) {
        self.phase.advance();
    }

    /// The command that kept a client waiting longest in the save that runs or ran last.
    pub fn longest_command(&self) -> Option<LongestCommand> {
        let save = self.phase.save();
        self.slots
            .iter()
            .filter_map(|slot| slot.longest_command_of(save))
            .max_by_key(|worst| worst.nanos)
    }

    /// The longest command since this was last asked, in nanoseconds. For one reader.
    pub fn take_longest(&self) -> u64 {
        self.slots.iter().map(|slot| slot.take_longest()).max().unwrap_or(0)
    }

    /// From now on commands of `slower_than` microseconds are logged (below 0: none), the last
    /// `entries` are kept, and spikes of `threshold_ms` are recorded (0: none).
    pub fn set_slow(&self, slower_than: i64, entries: u64, threshold_ms: u64) {
        self.slower_than.store(slower_than, Relaxed);
        self.slow_log.set_limit(entries);
        self.monitor.set_threshold(threshold_ms);
        let logged = u64::try_from(slower_than).map(|us| us.saturating_mul(1000));
        let spikes = if threshold_ms == 0 { u64::MAX } else { threshold_ms * 1_000_000 };
        let limit = logged.unwrap_or(u64::MAX).min(spikes);
        self.slow_limit.store(limit.saturating_sub(1), Relaxed);
    }

    /// Something held clients up. Not for threads that run commands: it takes a lock.
    pub fn latency_event(&self, event: LatencyEvent, took: Duration) {
        self.monitor.record(self.monitor.spike(event, clock::wall_ms(), took));
    }

    /// The events that were recorded by now.
    pub fn latency_events(&self) -> Vec<LatencyEventHistory> {
        self.monitor.collect(self.slots.iter().map(|slot| &slot.spikes));
        self.monitor.events()
    }

    /// Forgets an event; tells whether there was something to forget.
    pub fn reset_latency_event(&self, event: LatencyEvent) -> bool {
        self.monitor.collect(self.slots.iter().map(|slot| &slot.spikes));
        self.monitor.reset(event)
    }

    /// The newest entries of the slow log, so many at most.
    pub fn slowlog(&self, count: usize) -> Vec<SlowlogEntry> {
        self.collect_slow();
        self.slow_log.newest(count)
    }

    /// How many entries the slow log has.
    pub fn slowlog_len(&self) -> u64 {
        self.collect_slow();
        self.slow_log.len()
    }

    /// How many it ever had.
    pub fn slowlog_total(&self) -> u64 {
        self.slow_log.total()
    }

    /// Empties the slow log.
    pub fn slowlog_reset(&self) {
        self.collect_slow();
        self.slow_log.clear();
    }

    fn collect_slow(&self) {
        self.slow_log.collect(self.slots.iter().map(|slot| &slot.slow));
    }

    /// Commands that take longer than so many nanoseconds deserve a closer look.
    #[inline]
    pub fn slow_limit(&self) -> u64 {
        self.slow_limit.load(Relaxed)
    }

    /// The commands' names with their numbers.
    fn commands(&self) -> impl Iterator<Item = (usize, &str)> {
        self.names.iter().map(String::as_str).enumerate()
    }

    /// Error replies since the start, by their first word, in alphabetical order.
    pub fn errors(&self) -> Vec<(&str, u64)> {
        self.errors_since(&[])
    }

    fn errors_since(&self, zero: &[u64]) -> Vec<(&str, u64)> {
        let since = |counter| {
            let zero = zero.get(counter).copied().unwrap_or(0);
            self.error_count(counter).saturating_sub(zero)
        };
        let all = self.prefixes.iter().map(|(counter, word)| (word, since(counter)));
        let mut errors: Vec<_> = all.filter(|(_, count)| *count > 0).collect();
        errors.sort_unstable();
        errors
    }

    fn error_count(&self, counter: usize) -> u64 {
        self.slots.iter().map(|slot| slot.errors(counter)).sum()
    }

    /// CONFIG RESETSTAT: INFO counts from zero again. Metrics do not.
    pub fn reset(&self, inputs: &StatsSnapshot) {
        let view = self.persistence.status(Timestamp::default(), 0);
        let zero = Baseline {
            totals: self.totals(),
            commands: self.commands().map(|(number, _)| self.command(number)).collect(),
            latencies: self.commands().map(|(number, _)| self.latency(number)).collect(),
            errors: (0..errors::COUNTERS).map(|counter| self.error_count(counter)).collect(),
            engine: inputs.counters,
            saves: view.totals.begun,
            forks: view.hold_ups.count(),
        };
        *self.zero.lock() = zero;
        self.sampler.lock().clear();
    }
}

#[cfg(test)]
mod tests;
