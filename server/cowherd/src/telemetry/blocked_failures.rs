//! Counters of commands that fail while their client is blocked. Any thread may end a wait, so that
//! all threads write the same counters, unlike those of `thread_counters`. Such failures are rare.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::error_prefixes::COUNTERS;

/// The counters of all threads.
#[derive(Debug)]
pub(super) struct BlockedFailures {
    errors: Box<[AtomicU64]>,
    commands: Box<[AtomicU64]>,
}

impl BlockedFailures {
    pub(super) fn new(commands: usize) -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { errors: zeros(COUNTERS), commands: zeros(commands) }
    }

    /// Counts a failure of a command by its number, with the counter of its error reply.
    ///
    /// # Panics
    /// When there is no such command or counter.
    pub(super) fn add(&self, command: usize, error: usize) {
        self.errors[error].fetch_add(1, Relaxed);
        self.commands[command].fetch_add(1, Relaxed);
    }

    /// All failures.
    pub(super) fn total(&self) -> u64 {
        self.errors.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The failures with an error reply, by its counter.
    pub(super) fn with_error(&self, counter: usize) -> u64 {
        self.errors[counter].load(Relaxed)
    }

    /// The failures of a command, by its number.
    pub(super) fn of_command(&self, number: usize) -> u64 {
        self.commands.get(number).map_or(0, |count| count.load(Relaxed))
    }
}
