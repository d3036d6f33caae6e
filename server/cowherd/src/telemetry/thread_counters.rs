//! The counters of one thread, written by that thread alone and summed by readers.
//!
//! ```text
//!   Telemetry.threads:  [ ThreadCounters 0 | pad ][ ThreadCounters 1 | pad ] ...   one per thread
//!                          |-- counters of connections and bytes
//!                          |-- commands: [ CommandCounters | ... ]   one cache line each
//!                          '-- errors:   [ count; 129 ]
//! ```
//!
//! Invariants:
//! 1. At most one `Recorder` writes to the counters of a thread, and a recorder is on one thread at
//!    a time (it is not `Sync`). So a plain load and store loses no count.
//! 2. Counters only grow. Readers may see two counters at slightly different moments.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};

use cowherd_arena::stats::{Distribution, Histogram};

use super::checkpoint_epoch::CheckpointEpoch;
use super::error_prefixes::COUNTERS;
use super::latency_monitor::{SpikeRing, spike_ring};
use super::longest_command::LongestCommandCell;
use super::slowlog::{SlowCommandRing, slow_command_ring};

/// The counters of one thread.
#[derive(Debug)]
pub(super) struct ThreadCounters {
    /// Whether a recorder writes to them.
    in_use: AtomicBool,
    /// The kernel's id of the thread, if it serves clients; otherwise 0.
    pub(super) worker: AtomicI32,
    pub(super) connections_received: AtomicU64,
    pub(super) connections_rejected: AtomicU64,
    pub(super) clients_opened: AtomicU64,
    pub(super) clients_closed: AtomicU64,
    pub(super) output_limit_disconnects: AtomicU64,
    pub(super) query_limit_disconnects: AtomicU64,
    pub(super) input_bytes: AtomicU64,
    pub(super) output_bytes: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    /// The longest command since it was last taken, in nanoseconds.
    pub(super) longest: AtomicU64,
    pub(super) longest_in_checkpoint: LongestCommandCell,
    pub(super) slow: SlowCommandRing,
    pub(super) spikes: SpikeRing,
    pub(super) commands: Box<[CommandCounters]>,
    pub(super) errors: Box<[AtomicU64]>,
}

/// The counters of one command on one thread. The alignment keeps the ends of the array on other
/// cache lines than the counters of other threads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct CommandCounters {
    /// Calls while latency tracking was off, and their duration.
    pub(super) untracked_calls: AtomicU64,
    pub(super) untracked_nanos: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Durations while no checkpoint runs, and while one does ([`CheckpointEpoch::index`]).
    pub(super) latency: [OnceLock<Box<Histogram>>; 2],
}

impl CommandCounters {
    fn tracked(&self) -> impl Iterator<Item = &Histogram> {
        self.latency.iter().filter_map(|own| own.get().map(Box::as_ref))
    }

    fn calls(&self) -> u64 {
        self.untracked_calls.load(Relaxed) + self.tracked().map(Histogram::count).sum::<u64>()
    }

    fn nanos(&self) -> u64 {
        self.untracked_nanos.load(Relaxed) + self.tracked().map(Histogram::sum_nanos).sum::<u64>()
    }
}

impl ThreadCounters {
    pub(super) fn new(commands: usize) -> Self {
        Self {
            in_use: AtomicBool::new(false),
            worker: AtomicI32::new(0),
            connections_received: AtomicU64::new(0),
            connections_rejected: AtomicU64::new(0),
            clients_opened: AtomicU64::new(0),
            clients_closed: AtomicU64::new(0),
            output_limit_disconnects: AtomicU64::new(0),
            query_limit_disconnects: AtomicU64::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            longest_in_checkpoint: LongestCommandCell::default(),
            slow: slow_command_ring(),
            spikes: spike_ring(),
            commands: (0..commands).map(|_| CommandCounters::default()).collect(),
            errors: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn add_to(&self, totals: &mut ServerTotals) {
        totals.connections_received += self.connections_received.load(Relaxed);
        totals.connections_rejected += self.connections_rejected.load(Relaxed);
        totals.clients_opened += self.clients_opened.load(Relaxed);
        totals.clients_closed += self.clients_closed.load(Relaxed);
        totals.output_limit_disconnects += self.output_limit_disconnects.load(Relaxed);
        totals.query_limit_disconnects += self.query_limit_disconnects.load(Relaxed);
        totals.commands += self.commands.iter().map(CommandCounters::calls).sum::<u64>();
        totals.input_bytes += self.input_bytes.load(Relaxed);
        totals.output_bytes += self.output_bytes.load(Relaxed);
        totals.reads += self.reads.load(Relaxed);
        totals.writes += self.writes.load(Relaxed);
        totals.errors += self.errors.iter().map(|count| count.load(Relaxed)).sum::<u64>();
    }

    pub(super) fn add_command_to(&self, command: usize, totals: &mut CommandTotals) {
        let Some(own) = self.commands.get(command) else { return };
        totals.calls += own.calls();
        totals.nanos += own.nanos();
        totals.rejected += own.rejected.load(Relaxed);
        totals.failed += own.failed.load(Relaxed);
    }

    /// Adds the durations of a command while a checkpoint runs or not, as in `epoch`. Returns
    /// whether there are any.
    pub(super) fn add_latency_to(
        &self,
        command: usize,
        epoch: CheckpointEpoch,
        latency: &mut Distribution,
    ) -> bool {
        let command = self.commands.get(command);
        let own = command.and_then(|command| command.latency[epoch.index()].get());
        if let Some(own) = own {
            own.add_to(latency);
        }
        own.is_some()
    }

    /// Whether durations of a command were ever recorded.
    pub(super) fn has_latency(&self, command: usize) -> bool {
        let command = self.commands.get(command);
        command.is_some_and(|command| command.latency.iter().any(|own| own.get().is_some()))
    }

    /// The longest command since the last call, in nanoseconds.
    pub(super) fn take_longest(&self) -> u64 {
        self.longest.swap(0, Relaxed)
    }

    /// Nanoseconds spent in commands.
    pub(super) fn command_nanos(&self) -> u64 {
        self.commands.iter().map(CommandCounters::nanos).sum()
    }

    /// Reserves the counters for one recorder. False: another recorder has them.
    pub(super) fn acquire(&self) -> bool {
        self.in_use.compare_exchange(false, true, AcqRel, Acquire).is_ok()
    }

    /// Frees the counters for another recorder.
    pub(super) fn release(&self) {
        self.in_use.store(false, Release);
    }

    /// Error replies with one first word.
    pub(super) fn errors(&self, counter: usize) -> u64 {
        self.errors.get(counter).map_or(0, |count| count.load(Relaxed))
    }
}

/// Sums over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ServerTotals {
    /// Connections accepted.
    pub(crate) connections_received: u64,
    /// Connections rejected: too many clients.
    pub(crate) connections_rejected: u64,
    /// Clients served since the start.
    pub(crate) clients_opened: u64,
    /// Clients that have disconnected.
    pub(crate) clients_closed: u64,
    /// Clients that were disconnected for more unread output than their limit.
    pub(crate) output_limit_disconnects: u64,
    /// Clients that were disconnected for a request that is too large.
    pub(crate) query_limit_disconnects: u64,
    /// Commands executed.
    pub(crate) commands: u64,
    /// Bytes read from clients.
    pub(crate) input_bytes: u64,
    /// Bytes written to clients.
    pub(crate) output_bytes: u64,
    /// Reads from sockets.
    pub(crate) reads: u64,
    /// Writes to sockets.
    pub(crate) writes: u64,
    /// Error replies.
    pub(crate) errors: u64,
}

impl ServerTotals {
    /// Clients connected now.
    pub(crate) fn clients(&self) -> u64 {
        self.clients_opened.saturating_sub(self.clients_closed)
    }

    /// The counts since an earlier reading; the counts of clients stay as they are.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let passed = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        Self {
            connections_received: passed(|totals| totals.connections_received),
            connections_rejected: passed(|totals| totals.connections_rejected),
            output_limit_disconnects: passed(|totals| totals.output_limit_disconnects),
            query_limit_disconnects: passed(|totals| totals.query_limit_disconnects),
            commands: passed(|totals| totals.commands),
            input_bytes: passed(|totals| totals.input_bytes),
            output_bytes: passed(|totals| totals.output_bytes),
            reads: passed(|totals| totals.reads),
            writes: passed(|totals| totals.writes),
            errors: passed(|totals| totals.errors),
            ..*self
        }
    }
}

/// One command's statistics, summed over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CommandTotals {
    /// Executions, failed ones included.
    pub(crate) calls: u64,
    /// Nanoseconds spent in them.
    pub(crate) nanos: u64,
    /// Refusals before execution, such as a wrong number of arguments.
    pub(crate) rejected: u64,
    /// Executions that ended in an error.
    pub(crate) failed: u64,
}

impl CommandTotals {
    /// Whether a client ever sent the command.
    pub(crate) fn is_used(&self) -> bool {
        self.calls > 0 || self.rejected > 0 || self.failed > 0
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            nanos: self.nanos.saturating_sub(earlier.nanos),
            rejected: self.rejected.saturating_sub(earlier.rejected),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }
}
