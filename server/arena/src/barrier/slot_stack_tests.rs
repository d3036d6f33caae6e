//! The stack of free slots in a model that tries every interleaving, and with the sequence number
//! taken away, which the model must find.

use std::sync::atomic::Ordering::{self, Relaxed};

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;

use super::super::protocol::Word;
use super::*;

const SLOTS: usize = 3;

/// A stack of slots 1 to 3, and a mark in each slot that has an owner.
struct Stack {
    head: AtomicU64,
    links: [AtomicU64; SLOTS + 1],
    owned: [AtomicU64; SLOTS + 1],
}

impl Stack {
    /// All slots free, slot 1 on top.
    fn full() -> Self {
        let stack = Self {
            head: AtomicU64::new(EMPTY),
            links: std::array::from_fn(|_| AtomicU64::new(EMPTY)),
            owned: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        for slot in (1..=SLOTS as u64).rev() {
            push(&stack.head, slot, |next| stack.links[slot as usize].store(next, Relaxed));
        }
        stack
    }

    fn link(&self, slot: u64) -> u64 {
        self.links[slot as usize].load(Relaxed)
    }

    fn pop<W: Word>(&self, head: &W) -> Option<u64> {
        let slot = pop(head, |slot| self.link(slot))?;
        let before = self.owned[slot as usize].swap(1, Ordering::AcqRel);
        assert_eq!(before, 0, "slot {slot} has two owners");
        Some(slot)
    }

    /// Takes two slots, and puts the first one back.
    fn move_slots<W: Word>(&self, head: &W) {
        let first = self.pop(head);
        self.pop(head);
        if let Some(first) = first {
            self.push(head, first);
        }
    }

    fn push<W: Word>(&self, head: &W, slot: u64) {
        self.owned[slot as usize].store(0, Ordering::Release);
        push(head, slot, |next| self.links[slot as usize].store(next, Relaxed));
    }
}

/// The head without its sequence number: what a stack without a defence against ABA would exchange.
struct Unnumbered<'a>(&'a AtomicU64);

impl Word for Unnumbered<'_> {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.0.swap(value, order)
    }

    fn exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange(old & SLOT, new & SLOT, success, failure)
    }
}

/// One thread pops; the other pops two slots and pushes the first one back, so that the top is the
/// same slot with another link. Then every slot that is left is popped.
fn pop_while_slots_move(numbered: bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let stack = Arc::new(Stack::full());
        let other = Arc::clone(&stack);
        let thread = loom::thread::spawn(move || {
            match numbered {
                true => other.pop(&other.head),
                false => other.pop(&Unnumbered(&other.head)),
            };
        });
        if numbered {
            stack.move_slots(&stack.head);
        } else {
            stack.move_slots(&Unnumbered(&stack.head));
        }
        thread.join().expect("the other thread has popped");
        while stack.pop(&stack.head).is_some() {}
    });
}

#[test]
fn no_slot_has_two_owners() {
    pop_while_slots_move(true);
}

#[test]
#[should_panic(expected = "has two owners")]
fn the_model_finds_a_stack_without_sequence_numbers() {
    pop_while_slots_move(false);
}
