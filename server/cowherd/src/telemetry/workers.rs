//! The counters of each thread, written by it alone and summed when somebody reads.
//!
//! ```text
//!   Telemetry.slots:  [ Slot 0 | pad ][ Slot 1 | pad ] ...      one per thread
//!                        |-- counters of connections, bytes, changes
//!                        |-- commands: [ Command | Command | ... ]   one cache line each
//!                        '-- errors:   [ count; 129 ]
//! ```
//!
//! Invariants:
//! 1. A slot is lent to at most one [`Recorder`], and a recorder stays on one thread at a time
//!    (it is not `Sync`). So a plain load and store counts without losing anything.
//! 2. Counters only grow. Readers may see them at slightly different moments.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Telemetry;
use super::errors::COUNTERS;
use super::monitor::{LatencyEvent, SpikeNotes, spike_notes};
use super::phase::{CheckpointEpoch, LongestCommand, LongestCommandCell};
use super::slowlog::{SlowCommand, SlowNotes, slow_notes};
use cowherd_arena::stats::{Distribution, Histogram, bump};

/// What one thread counts.
#[derive(Debug)]
pub(super) struct Slot {
    lent: AtomicBool,
    connections_received: AtomicU64,
    connections_rejected: AtomicU64,
    clients_opened: AtomicU64,
    clients_closed: AtomicU64,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    /// The longest command since it was last taken, in nanoseconds.
    longest: AtomicU64,
    worst: LongestCommandCell,
    pub(super) slow: SlowNotes,
    pub(super) spikes: SpikeNotes,
    commands: Box<[Command]>,
    errors: Box<[AtomicU64]>,
}

/// What one thread counts of one command. A cache line of its own keeps the array's ends apart
/// from what other threads write.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Command {
    /// Calls, and the time they took, while latencies were not tracked.
    untracked_calls: AtomicU64,
    untracked_nanos: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    /// While no save runs, and while one does.
    latency: [OnceLock<Box<Histogram>>; 2],
}

impl Command {
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

impl Slot {
    pub(super) fn new(commands: usize) -> Self {
        Self {
            lent: AtomicBool::new(false),
            connections_received: AtomicU64::new(0),
            connections_rejected: AtomicU64::new(0),
            clients_opened: AtomicU64::new(0),
            clients_closed: AtomicU64::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            worst: LongestCommandCell::default(),
            slow: slow_notes(),
            spikes: spike_notes(),
            commands: (0..commands).map(|_| Command::default()).collect(),
            errors: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn add_to(&self, totals: &mut ServerTotals) {
        totals.connections_received += self.connections_received.load(Relaxed);
        totals.connections_rejected += self.connections_rejected.load(Relaxed);
        totals.clients_opened += self.clients_opened.load(Relaxed);
        totals.clients_closed += self.clients_closed.load(Relaxed);
        totals.commands += self.commands.iter().map(Command::calls).sum::<u64>();
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

    /// Adds a command's latencies in one phase; tells whether there are any.
    pub(super) fn add_latency_to(
        &self,
        command: usize,
        phase: CheckpointEpoch,
        latency: &mut Distribution,
    ) -> bool {
        let command = self.commands.get(command);
        let own = command.and_then(|command| command.latency[phase.index()].get());
        if let Some(own) = own {
            own.add_to(latency);
        }
        own.is_some()
    }

    /// Whether a command's latencies were ever counted.
    pub(super) fn has_latency(&self, command: usize) -> bool {
        let command = self.commands.get(command);
        command.is_some_and(|command| command.latency.iter().any(|own| own.get().is_some()))
    }

    /// The longest command since this was last asked, in nanoseconds.
    pub(super) fn take_longest(&self) -> u64 {
        self.longest.swap(0, Relaxed)
    }

    /// The worst command of a save.
    pub(super) fn longest_command_of(&self, save: u64) -> Option<LongestCommand> {
        self.worst.read(save)
    }

    pub(super) fn errors(&self, counter: usize) -> u64 {
        self.errors.get(counter).map_or(0, |count| count.load(Relaxed))
    }
}

/// Sums over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerTotals {
    /// Connections accepted.
    pub connections_received: u64,
    /// Connections turned away, for lack of a place.
    pub connections_rejected: u64,
    /// Clients that began to be served.
    pub clients_opened: u64,
    /// Clients that are gone again.
    pub clients_closed: u64,
    /// Commands executed.
    pub commands: u64,
    /// Bytes read from clients.
    pub input_bytes: u64,
    /// Bytes written to clients.
    pub output_bytes: u64,
    /// Reads from sockets.
    pub reads: u64,
    /// Writes to sockets.
    pub writes: u64,
    /// Error replies.
    pub errors: u64,
}

impl ServerTotals {
    /// Clients being served now.
    pub fn clients(&self) -> u64 {
        self.clients_opened.saturating_sub(self.clients_closed)
    }

    /// What was counted after an earlier reading; clients are left as they are.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let passed = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        Self {
            connections_received: passed(|totals| totals.connections_received),
            connections_rejected: passed(|totals| totals.connections_rejected),
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
pub struct CommandTotals {
    /// Executions, failed ones included.
    pub calls: u64,
    /// Nanoseconds spent in them.
    pub nanos: u64,
    /// Refusals before execution, such as a wrong number of arguments.
    pub rejected: u64,
    /// Executions that ended in an error.
    pub failed: u64,
}

impl CommandTotals {
    /// Whether the command was ever asked for.
    pub fn is_used(&self) -> bool {
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

/// One thread's pen. Counting takes a few plain loads and stores.
#[derive(Debug)]
pub struct Recorder {
    telemetry: Arc<Telemetry>,
    slot: usize,
    /// Not `Sync`: invariant 1.
    one_thread: PhantomData<Cell<()>>,
}

impl Recorder {
    /// Lends a slot. None: it is lent already, or there is no such slot.
    pub(super) fn lend(telemetry: &Arc<Telemetry>, slot: usize) -> Option<Self> {
        telemetry.slots.get(slot)?.lent.compare_exchange(false, true, AcqRel, Acquire).ok()?;
        let telemetry = Arc::clone(telemetry);
        Some(Self { telemetry, slot, one_thread: PhantomData })
    }

    #[inline]
    fn slot(&self) -> &Slot {
        &self.telemetry.slots[self.slot]
    }

    /// The telemetry this recorder writes to.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// A connection was accepted.
    pub fn connection_received(&self) {
        bump(&self.slot().connections_received, 1);
    }

    /// A connection was turned away.
    pub fn connection_rejected(&self) {
        bump(&self.slot().connections_rejected, 1);
    }

    /// A client is served from now on.
    pub fn client_opened(&self) {
        bump(&self.slot().clients_opened, 1);
    }

    /// A client is gone; any thread may say so, but one only.
    pub fn client_closed(&self) {
        bump(&self.slot().clients_closed, 1);
    }

    /// A read from a socket brought so many bytes.
    #[inline]
    pub fn socket_read(&self, bytes: u64) {
        bump(&self.slot().reads, 1);
        bump(&self.slot().input_bytes, bytes);
    }

    /// A write to a socket took so many bytes.
    #[inline]
    pub fn socket_written(&self, bytes: u64) {
        bump(&self.slot().writes, 1);
        bump(&self.slot().output_bytes, bytes);
    }

    /// An error reply was given; its text, with or without the leading minus.
    pub fn error(&self, reply: &[u8]) {
        bump(&self.slot().errors[self.telemetry.prefixes.counter_of(reply)], 1);
    }

    /// A command, by its place in the list of names, was executed in so many nanoseconds, and
    /// replied with an error or not. Tells in which phase.
    ///
    /// # Panics
    /// When there is no such command.
    #[inline]
    pub fn command(&self, number: usize, nanos: u64, failed: bool) -> CheckpointEpoch {
        let phase = self.telemetry.phase();
        let slot = self.slot();
        let command = &slot.commands[number];
        if failed {
            bump(&command.failed, 1);
        }
        if nanos > slot.longest.load(Relaxed) {
            slot.longest.store(nanos, Relaxed);
        }
        if self.telemetry.latency_tracking.load(Relaxed) {
            // The first call of a command on this thread allocates, the others do not.
            command.latency[phase.index()].get_or_init(Box::default).record(nanos);
        } else {
            bump(&command.untracked_calls, 1);
            bump(&command.untracked_nanos, nanos);
        }
        phase
    }

    /// A command was executed while a save ran.
    #[inline]
    pub fn command_in_checkpoint(&self, phase: CheckpointEpoch, command: LongestCommand) {
        self.slot().worst.note(phase.0, command);
    }

    /// A command was slow: notes it for the slow log, if it was slow enough. Takes no lock that is
    /// held for long, and allocates nothing.
    pub fn slow<'a>(
        &self,
        slow: &SlowCommand<'_>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        let limit = u64::try_from(self.telemetry.slower_than.load(Relaxed));
        if limit.is_ok_and(|limit| slow.nanos / 1000 >= limit) {
            self.slot().slow.push(|note| note.take_down(slow, arguments));
        }
    }

    /// Something held a client of this thread up: notes it for the latency monitor, if it was
    /// long enough.
    pub fn latency_event(&self, event: LatencyEvent, at_ms: i64, took: Duration) {
        if let Some(spike) = self.telemetry.monitor.spike(event, at_ms, took) {
            self.slot().spikes.push(|note| *note = spike);
        }
    }

    /// A command was refused before it was executed.
    ///
    /// # Panics
    /// When there is no such command.
    #[inline]
    pub fn rejected(&self, number: usize) {
        bump(&self.slot().commands[number].rejected, 1);
    }

    /// A command that was counted already has failed after all.
    ///
    /// # Panics
    /// When there is no such command.
    pub fn failed_late(&self, number: usize) {
        bump(&self.slot().commands[number].failed, 1);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.slot().lent.store(false, Release);
    }
}
