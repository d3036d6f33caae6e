//! The recorder of one thread: the only writer of that thread's counters.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cowherd_arena::stats::bump;
use nix::unistd::gettid;

use super::checkpoint_epoch::CheckpointEpoch;
use super::latency_monitor::LatencyEvent;
use super::longest_command::LongestCommand;
use super::registry::Telemetry;
use super::slowlog::SlowCommand;
use super::thread_counters::ThreadCounters;

/// Counts the events of one thread with a few plain loads and stores each.
#[derive(Debug)]
pub(crate) struct Recorder {
    telemetry: Arc<Telemetry>,
    thread: usize,
    /// Makes the type `!Sync`: invariant 1 of `thread_counters`.
    one_thread: PhantomData<Cell<()>>,
}

impl Telemetry {
    /// The recorder of one thread. None: another recorder is in use, or there are not so many
    /// threads. Dropping the recorder makes room for another one; the counts stay.
    pub(crate) fn recorder(self: &Arc<Self>, thread: usize) -> Option<Recorder> {
        let is_free = self.threads.get(thread)?.acquire();
        is_free.then(|| Recorder { telemetry: Arc::clone(self), thread, one_thread: PhantomData })
    }
}

impl Recorder {
    #[inline]
    fn counters(&self) -> &ThreadCounters {
        &self.telemetry.threads[self.thread]
    }

    /// The telemetry that the recorder writes to.
    pub(crate) fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// A connection was accepted.
    pub(crate) fn connection_received(&self) {
        bump(&self.counters().connections_received, 1);
    }

    /// A connection was rejected.
    pub(crate) fn connection_rejected(&self) {
        bump(&self.counters().connections_rejected, 1);
    }

    /// Notes that the calling thread, to which these counters belong, serves clients.
    pub(crate) fn serves_clients(&self) {
        self.counters().worker.store(gettid().as_raw(), Relaxed);
    }

    /// A client is connected and served.
    pub(crate) fn client_opened(&self) {
        bump(&self.counters().clients_opened, 1);
    }

    /// A client has disconnected. The thread need not be the one that opened the client.
    pub(crate) fn client_closed(&self) {
        bump(&self.counters().clients_closed, 1);
    }

    /// A client was disconnected for more unread output than its limit.
    pub(crate) fn output_limit_exceeded(&self) {
        bump(&self.counters().output_limit_disconnects, 1);
    }

    /// A client was disconnected for a request that is too large.
    pub(crate) fn query_limit_exceeded(&self) {
        bump(&self.counters().query_limit_disconnects, 1);
    }

    /// A read from a socket returned `bytes`.
    #[inline]
    pub(crate) fn socket_read(&self, bytes: u64) {
        bump(&self.counters().reads, 1);
        bump(&self.counters().input_bytes, bytes);
    }

    /// A write to a socket took `bytes`.
    #[inline]
    pub(crate) fn socket_written(&self, bytes: u64) {
        bump(&self.counters().writes, 1);
        bump(&self.counters().output_bytes, bytes);
    }

    /// An error reply was given. `reply` is its text, with or without the leading minus.
    pub(crate) fn error(&self, reply: &[u8]) {
        bump(&self.counters().errors[self.telemetry.error_prefixes.counter_of(reply)], 1);
    }

    /// A command was executed in `nanos`; `failed` tells whether the reply was an error. Returns
    /// the epoch under which the command was counted.
    ///
    /// # Panics
    /// When there is no command with this number.
    #[inline]
    pub(crate) fn command(&self, number: usize, nanos: u64, failed: bool) -> CheckpointEpoch {
        let epoch = self.telemetry.epoch();
        let counters = self.counters();
        let command = &counters.commands[number];
        if failed {
            bump(&command.failed, 1);
        }
        if nanos > counters.longest.load(Relaxed) {
            counters.longest.store(nanos, Relaxed);
        }
        if self.telemetry.latency_tracking.load(Relaxed) {
            // The first call of a command on this thread allocates, the others do not.
            command.latency[epoch.index()].get_or_init(Box::default).record(nanos);
        } else {
            bump(&command.untracked_calls, 1);
            bump(&command.untracked_nanos, nanos);
        }
        epoch
    }

    /// A command was executed while a checkpoint ran, in the epoch that [`Self::command`] returned.
    #[inline]
    pub(crate) fn command_in_checkpoint(&self, epoch: CheckpointEpoch, command: LongestCommand) {
        self.counters().longest_in_checkpoint.record(epoch.0, command);
    }

    /// Records a command for the slow log, if its duration reaches `slowlog-log-slower-than`. Holds
    /// locks for a short copy only, and allocates nothing.
    pub(crate) fn slow<'a>(
        &self,
        slow: &SlowCommand<'_>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        let limit = u64::try_from(self.telemetry.slower_than.load(Relaxed));
        if limit.is_ok_and(|limit| slow.nanos / 1000 >= limit) {
            self.counters().slow.push(|record| record.set(slow, arguments));
        }
    }

    /// Records an event that held up a client of this thread, if its duration reaches
    /// `latency-monitor-threshold`.
    pub(crate) fn latency_event(&self, event: LatencyEvent, at_ms: i64, took: Duration) {
        if let Some(spike) = self.telemetry.latency_monitor.spike(event, at_ms, took) {
            self.counters().spikes.push(|record| *record = spike);
        }
    }

    /// A command was rejected before its execution.
    ///
    /// # Panics
    /// When there is no command with this number.
    #[inline]
    pub(crate) fn rejected(&self, number: usize) {
        bump(&self.counters().commands[number].rejected, 1);
    }

    /// A command that was counted as successful has failed.
    ///
    /// # Panics
    /// When there is no command with this number.
    pub(crate) fn failed_late(&self, number: usize) {
        bump(&self.counters().commands[number].failed, 1);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.counters().release();
    }
}
