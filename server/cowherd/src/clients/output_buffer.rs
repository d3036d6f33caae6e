//! Output that other threads push to a client, and the output buffer limits.
//!
//! ```text
//! publisher, any thread                      the connection's own thread
//!   push: append to the pending output         after each command, and when woken:
//!   was empty? set the signal, wake    --->      drain: append it to the replies so far
//!   limit exceeded? close the client             what the socket does not take is `unsent`
//! ```
//!
//! Invariants:
//! 1. `OUTPUT_PENDING` is set exactly if the pending output is not empty. Both change under the
//!    lock.
//! 2. Output is sent in the order in which it was pushed.
//! 3. Pending output and unsent replies together stay within the limit of the client's class.
//!    Otherwise the buffer overflows: the pending output is dropped, and the buffer accepts nothing
//!    any more. The caller closes the connection.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock;
use crate::config::OutputLimit;
use cowherd_resp::{ProtocolVersion, ReplyWriter};

use super::signals::{OUTPUT_PENDING, Signals};

/// Capacity in bytes that the pending output keeps after a drain. Most clients never get as much
/// pushed between two drains; a burst must not hold its memory for the life of the connection.
const KEPT_CAPACITY: usize = 16 << 10;

/// The pending output of one client, and how much output is unsent.
#[derive(Default)]
pub(super) struct OutputBuffer {
    state: Mutex<OutputState>,
    /// Copy of `OutputState::total`, for readers that do not lock.
    backlog: AtomicU64,
}

#[derive(Default)]
struct OutputState {
    pending: Vec<u8>,
    /// Bytes of replies that the socket has not taken.
    unsent: u64,
    /// Since when the soft limit is exceeded, monotonic microseconds.
    above_soft_since: Option<u64>,
    /// Size in bytes at the overflow.
    overflow_bytes: Option<u64>,
}

/// The result of a push.
pub(super) enum PushOutcome {
    /// There was output already, or nothing was written: the connection needs no wakeup.
    Done,
    /// The output is the first that is pending: the connection has to be woken.
    First,
    /// The buffer has overflowed by this push: the connection has to be closed.
    Overflow,
}

impl OutputState {
    fn total(&self) -> u64 {
        self.pending.len() as u64 + self.unsent
    }

    /// Whether the limit is exceeded. The soft limit counts from the first call above it.
    fn exceeds(&mut self, limit: &OutputLimit) -> bool {
        let total = self.total();
        if limit.hard > 0 && total > limit.hard {
            return true;
        }
        if limit.soft == 0 || total <= limit.soft {
            self.above_soft_since = None;
            return false;
        }
        let now = clock::monotonic_us();
        let since = *self.above_soft_since.get_or_insert(now);
        now.saturating_sub(since) > limit.soft_seconds.saturating_mul(1_000_000)
    }

    #[cold]
    fn overflow(&mut self, signals: &Signals) {
        self.overflow_bytes = Some(self.total());
        self.pending = Vec::new();
        signals.clear(OUTPUT_PENDING);
    }
}

impl OutputBuffer {
    /// Appends what `write` writes in the given protocol version.
    pub(super) fn push(
        &self,
        signals: &Signals,
        limit: &OutputLimit,
        version: ProtocolVersion,
        write: impl FnOnce(&mut ReplyWriter),
    ) -> PushOutcome {
        let mut state = self.state.lock();
        if state.overflow_bytes.is_some() {
            return PushOutcome::Done;
        }
        let was_empty = state.pending.is_empty();
        let mut reply = ReplyWriter::new(version);
        reply.out = std::mem::take(&mut state.pending);
        write(&mut reply);
        state.pending = reply.out;
        if state.pending.is_empty() {
            return PushOutcome::Done;
        }
        if state.exceeds(limit) {
            state.overflow(signals);
            return PushOutcome::Overflow;
        }
        self.backlog.store(state.total(), Ordering::Relaxed);
        if !was_empty {
            return PushOutcome::Done;
        }
        signals.set(OUTPUT_PENDING);
        PushOutcome::First
    }

    /// Moves the pending output to the end of `out`.
    pub(super) fn drain(&self, signals: &Signals, out: &mut Vec<u8>) {
        let mut state = self.state.lock();
        out.extend_from_slice(&state.pending);
        state.pending.clear();
        state.pending.shrink_to(KEPT_CAPACITY);
        self.backlog.store(state.unsent, Ordering::Relaxed);
        signals.clear(OUTPUT_PENDING);
    }

    /// Sets the size of the unsent replies; false if the buffer has overflowed.
    pub(super) fn set_unsent(&self, signals: &Signals, limit: &OutputLimit, bytes: u64) -> bool {
        let mut state = self.state.lock();
        state.unsent = bytes;
        if state.exceeds(limit) {
            state.overflow(signals);
        }
        self.backlog.store(state.total(), Ordering::Relaxed);
        state.overflow_bytes.is_none()
    }

    /// Applies the soft limit, whose time passes without a push; true if the buffer overflows now.
    pub(super) fn check(&self, signals: &Signals, limit: &OutputLimit) -> bool {
        if self.backlog() == 0 {
            return false;
        }
        let mut state = self.state.lock();
        let overflows = state.overflow_bytes.is_none() && state.exceeds(limit);
        if overflows {
            state.overflow(signals);
        }
        overflows
    }

    /// Bytes of pending output and unsent replies.
    pub(super) fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Size in bytes at the overflow; `None` if the buffer has not overflowed.
    pub(super) fn overflow_bytes(&self) -> Option<u64> {
        self.state.lock().overflow_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soft_limit(soft: u64, soft_seconds: u64) -> OutputLimit {
        OutputLimit { hard: 0, soft, soft_seconds }
    }

    #[test]
    fn the_soft_limit_counts_from_when_it_was_exceeded() {
        let (buffer, signals) = (OutputBuffer::default(), Signals::default());
        assert!(buffer.set_unsent(&signals, &soft_limit(10, 3600), 11));
        assert!(!buffer.check(&signals, &soft_limit(10, 3600)));
        // Any time at all has to pass above a limit of zero seconds.
        let since = buffer.state.lock().above_soft_since.unwrap();
        while clock::monotonic_us() <= since {
            std::hint::spin_loop();
        }
        assert!(buffer.check(&signals, &soft_limit(10, 0)));
        assert_eq!(buffer.overflow_bytes(), Some(11));
    }

    #[test]
    fn falling_below_the_soft_limit_restarts_its_time() {
        let (buffer, signals) = (OutputBuffer::default(), Signals::default());
        let limit = soft_limit(10, 0);
        buffer.set_unsent(&signals, &limit, 11);
        assert!(buffer.state.lock().above_soft_since.is_some());
        assert!(buffer.set_unsent(&signals, &limit, 10));
        assert!(buffer.state.lock().above_soft_since.is_none());
    }
}
