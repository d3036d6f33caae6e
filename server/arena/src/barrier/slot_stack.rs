//! A stack of free slots without a lock: any number of threads push and pop.
//!
//! The head is one word: a sequence number and the top slot, 32 bits each. A pop increments the
//! number, so that a thread that was delayed between reading the head and exchanging it cannot
//! restore an outdated one after other threads have popped and pushed the same slot (the ABA
//! problem). A slot's link is valid from its push to its pop; a pop that reads the link of a slot
//! that another thread has taken reads any value, and its exchange fails.
//!
//! `slot_stack_tests.rs` has a model that tries all interleavings.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::protocol::Word;

/// No slot.
pub(super) const EMPTY: u64 = 0;

const SLOT: u64 = u32::MAX as u64;

/// Takes the top slot; `link` reads the link of a slot.
pub(super) fn pop(head: &impl Word, link: impl Fn(u64) -> u64) -> Option<u64> {
    let mut top = head.load(Acquire);
    loop {
        let slot = top & SLOT;
        if slot == EMPTY {
            return None;
        }
        let next = link(slot) & SLOT;
        let number = (top >> 32).wrapping_add(1) << 32;
        match head.exchange(top, number | next, AcqRel, Acquire) {
            Ok(_) => return Some(slot),
            Err(now) => top = now,
        }
    }
}

/// Puts a slot on top; `set_link` writes its link.
pub(super) fn push(head: &impl Word, slot: u64, set_link: impl Fn(u64)) {
    let mut top = head.load(Relaxed);
    loop {
        set_link(top & SLOT);
        match head.exchange(top, (top & !SLOT) | slot, AcqRel, Relaxed) {
            Ok(_) => return,
            Err(now) => top = now,
        }
    }
}

#[cfg(test)]
#[path = "slot_stack_tests.rs"]
mod tests;
