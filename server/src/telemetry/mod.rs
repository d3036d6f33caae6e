//! What the server tells about itself: counters, INFO, Prometheus metrics, the live page,
//! the log.
//!
//! ```text
//!   worker 0 -- Recorder --> slot 0 --.
//!   worker 1 -- Recorder --> slot 1 --+-- summed on reading --> info     INFO
//!   engine --- events ----> Persistence --'                '--> metrics  /metrics, /healthz
//!   engine --- Figures (on reading) ------------------------'--> live     the page, /events
//! ```
//!
//! Invariants:
//! 1. Recording is a few plain loads and stores into memory of the thread's own: no lock, no
//!    system call, no allocation but the first time a command or a kind of error is seen.
//! 2. Readers disturb no writer. CONFIG RESETSTAT sets a zero mark that INFO subtracts; the
//!    counters themselves, which Prometheus reads, only ever grow.
//!
//! The module is a leaf: it imports configuration and clock, no other room.

mod errors;
mod histogram;
pub mod info;
mod inputs;
mod live;
pub mod logging;
pub mod metrics;
mod persistence;
mod placeholder;
mod process;
mod rates;
mod saves;
mod shared_histogram;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

pub use histogram::{Histogram, Snapshot};
pub use inputs::{
    ArenaFigures, ArenaMap, ClientFigures, DatabaseFigures, EngineCounters, Figures, InfoInputs,
    MapCell, MemoryFigures, PoolFigures, ServerFigures, ThpFigures,
};
pub use persistence::{
    ForkTimes, LoadReport, Loading, Persistence, SaveStart, SaveTotals, Saving, View,
};
pub use placeholder::{Event, Worst};
pub use rates::Rates;
pub use saves::{Cause, CowFigures, KEPT, SaveRecord, SaveStatus, Stall, Steps};
pub use shared_histogram::SharedHistogram;
pub use workers::{CommandRecorder, CommandTotals, Recorder, Totals};

use crate::clock::Moment;
use errors::Prefixes;
use live::Seconds;
use rates::Sampler;
use workers::Slot;

/// All that the server counts, shared by its threads.
#[derive(Debug)]
pub struct Telemetry {
    started: Moment,
    /// The commands' names, by number.
    names: Box<[String]>,
    slots: Box<[CachePadded<Slot>]>,
    prefixes: Prefixes,
    latency_tracking: AtomicBool,
    peak_memory: AtomicU64,
    sampler: Mutex<Sampler>,
    seconds: Mutex<Seconds>,
    zero: Mutex<Zero>,
    persistence: Persistence,
}

/// Where INFO counts from: the counters at the last CONFIG RESETSTAT.
#[derive(Debug, Default)]
struct Zero {
    totals: Totals,
    commands: Vec<CommandTotals>,
    latencies: Vec<Option<Snapshot>>,
    errors: Vec<u64>,
    engine: EngineCounters,
    saves: u64,
    forks: u64,
}

impl Telemetry {
    /// Counters for so many threads and for the commands of these names, whose places in the list
    /// are their numbers.
    pub fn new(threads: usize, names: Vec<String>) -> Arc<Self> {
        let started = Moment::now();
        let slots = (0..threads).map(|_| CachePadded::new(Slot::new(names.len()))).collect();
        Arc::new(Self {
            started,
            names: names.into(),
            slots,
            prefixes: Prefixes::default(),
            latency_tracking: AtomicBool::new(true),
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
    pub fn started(&self) -> Moment {
        self.started
    }

    /// Whether commands' latencies are counted (`latency-tracking`).
    pub fn set_latency_tracking(&self, on: bool) {
        self.latency_tracking.store(on, Relaxed);
    }

    /// Takes the samples that rates and the memory's peak are made of; to be called 10 times a
    /// second, with [`crate::clock::monotonic_us`].
    pub fn tick(&self, now_us: u64, used_memory: u64) {
        self.peak_memory.fetch_max(used_memory, Relaxed);
        let totals = self.totals();
        let counters = Rates {
            commands: totals.commands,
            input_bytes: totals.input_bytes,
            output_bytes: totals.output_bytes,
        };
        self.sampler.lock().sample(now_us, counters);
        let latencies = || (self.latency_of_all(), self.take_max());
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
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.slots.iter().for_each(|slot| slot.add_to(&mut totals));
        totals
    }

    /// A command's statistics since the start.
    pub fn command(&self, number: usize) -> CommandTotals {
        let mut totals = CommandTotals::default();
        self.slots.iter().for_each(|slot| slot.add_command_to(number, &mut totals));
        totals
    }

    /// A command's latencies since the start; None when none was ever counted.
    pub fn latency(&self, number: usize) -> Option<Snapshot> {
        let mut latency = Snapshot::default();
        let used = self.slots.iter().map(|slot| slot.add_latency_to(number, &mut latency));
        used.fold(false, |any, used| any | used).then_some(latency)
    }

    /// All commands' latencies since the start together.
    pub fn latency_of_all(&self) -> Snapshot {
        let mut latency = Snapshot::default();
        for slot in &self.slots {
            for (number, _) in self.commands() {
                slot.add_latency_to(number, &mut latency);
            }
        }
        latency
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
    pub fn reset(&self, inputs: &InfoInputs) {
        let view = self.persistence.view(Moment::default(), 0);
        let zero = Zero {
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
