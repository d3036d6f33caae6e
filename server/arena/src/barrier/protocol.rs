//! The protocol between writers and the child, and its memory orders: the proof that an image is
//! exact. No other part of the undo log depends on memory orders.
//!
//! Each chunk has one word, its *head*: the newest of its records, [`NONE`], or [`CLOSED`].
//!
//! ```text
//!   writer of block b, under the lock of b          child, chunk k
//!   1  unless b was captured before:                4  copy k into memory of its own
//!        is head CLOSED? (acquire)    then 3           (it may tear)
//!        record = copy of b                         5  chain = swap(head, CLOSED)
//!        publish: exchange head by record                (acquire, release)
//!          (release; if CLOSED by now, acquire)     6  put each record of the chain into the copy
//!   3  change b
//! ```
//!
//! Why the copy is exact then. All changes of a word have one order, and in that of `head` the
//! child closes once. For a change of `b`, one of three is true:
//!
//! - its writer published a record. An exchange succeeds only on what is not closed, so the record
//!   came before the closing and is in the chain: 6 puts the old bytes back, whatever 4 has read.
//! - its writer found `CLOSED`. The closing releases and the finding acquires: 4 was over before 3
//!   began, and has read the old bytes.
//! - `b` was captured before. Then some writer published its record, which is in the chain.
//!
//! So a copy that tears is always mended, and nothing is patched that must not be: a record holds
//! what was in `b` at the fork, since no write came between. The links of a chain need no order
//! of their own: each publishing is a read-modify-write, and so the child's swap synchronises with
//! all of them (their release sequence).
//!
//! A flag beside `head` for *closed* would need a fence on either side, to keep copy and change
//! from overtaking the words. Both are in this one word's order.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicU64, Ordering};

/// No record.
pub(super) const NONE: u64 = 0;
/// The child has its copy: nothing is captured any more.
pub(super) const CLOSED: u64 = u64::MAX;

/// Atomic words: the machine's, or those of a model that tries all orders.
pub(super) trait Word {
    /// Reads it.
    fn load(&self, order: Ordering) -> u64;
    /// Writes it; returns what it was.
    fn swap(&self, value: u64, order: Ordering) -> u64;
    /// Writes `new` if it is `old`; otherwise returns what it is. May fail for no reason.
    ///
    /// # Errors
    /// It was not written.
    fn exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64>;
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    #[inline]
    fn exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange_weak(old, new, success, failure)
    }
}

/// Whether the child has its copy of the chunk. If so, the caller may change it freely.
#[inline]
pub(super) fn is_closed(head: &impl Word) -> bool {
    head.load(Acquire) == CLOSED
}

/// Makes a record, whose bytes are in place, the newest of its chunk; `link` gives it its
/// successor. False if the chunk is closed: the record is the caller's again.
#[inline]
pub(super) fn publish(head: &impl Word, record: u64, mut link: impl FnMut(u64)) -> bool {
    let mut newest = head.load(Acquire);
    while newest != CLOSED {
        link(newest);
        match head.exchange(newest, record, Release, Acquire) {
            Ok(_) => return true,
            Err(now) => newest = now,
        }
    }
    false
}

/// Closes a chunk that was copied; returns the newest record of its chain.
#[inline]
pub(super) fn close(head: &impl Word) -> u64 {
    head.swap(CLOSED, AcqRel)
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
