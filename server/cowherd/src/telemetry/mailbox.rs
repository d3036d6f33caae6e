//! Notes from a thread that must not wait to whoever reads them.
//!
//! ```text
//!   writer --try_lock--> half 0: [ note | note | ... ]  <--lock-- reader, one half at a time
//!              '-------> half 1: [ note | note | ... ]
//! ```
//!
//! Invariants:
//! 1. The writer never waits: the reader holds one half at most, so the other is free. Should both
//!    be taken (there are two readers), the note is lost, and counted.
//! 2. Writing allocates nothing. A half that is full forgets its oldest notes, and counts them.
//! 3. The memory is zero at first and not there until it is written to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use zerocopy::FromZeros;

/// The notes of one thread.
#[derive(Debug)]
pub(super) struct RingBuffer<T> {
    halves: [Mutex<Half<T>>; 2],
    lost: AtomicU64,
}

#[derive(Debug)]
struct Half<T> {
    notes: Box<[T]>,
    /// Notes written since it was last emptied.
    written: u64,
}

impl<T: FromZeros> RingBuffer<T> {
    /// A mailbox for twice so many notes.
    pub(super) fn new(capacity: usize) -> Self {
        let half = || {
            let notes = <[T]>::new_box_zeroed_with_elems(capacity).unwrap_or_default();
            Mutex::new(Half { notes, written: 0 })
        };
        Self { halves: [half(), half()], lost: AtomicU64::new(0) }
    }

    /// Leaves a note; `write` gets an old one, to be overwritten in all its fields.
    pub(super) fn push(&self, write: impl FnOnce(&mut T)) {
        let free = self.halves.iter().find_map(Mutex::try_lock);
        let Some(mut half) = free.filter(|half| !half.notes.is_empty()) else {
            self.lost.fetch_add(1, Relaxed);
            return;
        };
        let half = &mut *half;
        let at = half.place(half.written);
        write(&mut half.notes[at]);
        half.written += 1;
    }

    /// Reads all notes, the oldest of each half first, and forgets them; returns how many were
    /// forgotten before.
    pub(super) fn drain(&self, mut read: impl FnMut(&T)) -> u64 {
        let mut forgotten = self.lost.swap(0, Relaxed);
        for half in &self.halves {
            let mut half = half.lock();
            let kept = half.written.min(half.notes.len() as u64);
            for number in half.written - kept..half.written {
                read(&half.notes[half.place(number)]);
            }
            forgotten += half.written - kept;
            half.written = 0;
        }
        forgotten
    }
}

impl<T> Half<T> {
    fn place(&self, number: u64) -> usize {
        usize::try_from(number % self.notes.len().max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(mailbox: &RingBuffer<u64>) -> (Vec<u64>, u64) {
        let mut notes = Vec::new();
        let forgotten = mailbox.drain(|note| notes.push(*note));
        (notes, forgotten)
    }

    #[test]
    fn the_newest_notes_stay() {
        let mailbox = RingBuffer::new(3);
        assert_eq!(notes(&mailbox), (vec![], 0));
        (0..5).for_each(|number| mailbox.push(|note| *note = number));
        assert_eq!(notes(&mailbox), (vec![2, 3, 4], 2));
        mailbox.push(|note| *note = 9);
        assert_eq!(notes(&mailbox), (vec![9], 0));
    }

    #[test]
    fn a_writer_never_waits_for_a_reader() {
        let mailbox = RingBuffer::new(3);
        let reading = mailbox.halves[0].lock();
        mailbox.push(|note| *note = 1);
        let second = mailbox.halves[1].lock();
        mailbox.push(|note| *note = 2);
        drop((reading, second));
        assert_eq!(notes(&mailbox), (vec![1], 1));
    }

    #[test]
    fn nothing_is_read_twice_or_unnoticed() {
        let mailbox = RingBuffer::new(8);
        let mut seen = Vec::new();
        let mut forgotten = 0;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (1..=50_000_u64).for_each(|number| mailbox.push(|note| *note = number));
            });
            while !writer.is_finished() {
                forgotten += mailbox.drain(|note| seen.push(*note));
            }
        });
        forgotten += mailbox.drain(|note| seen.push(*note));
        assert_eq!(seen.len() as u64 + forgotten, 50_000);
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
