//! A ring buffer that carries records from a thread that must not wait to a reader.
//!
//! ```text
//!   writer --try_lock--> half 0: [ record | record | ... ]  <--lock-- reader, one half at a time
//!              '-------> half 1: [ record | record | ... ]
//! ```
//!
//! Invariants:
//! 1. The writer never waits: one reader holds at most one half, so the other is free. If two
//!    readers hold both halves, the record is lost, and counted.
//! 2. Writing allocates nothing. A full half overwrites its oldest records, and counts them.
//! 3. The memory is zeroed, so the kernel commits a page only when the first record is written.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use zerocopy::FromZeros;

/// The ring buffer of one writer.
#[derive(Debug)]
pub(super) struct RingBuffer<T> {
    halves: [Mutex<RingHalf<T>>; 2],
    lost: AtomicU64,
}

#[derive(Debug)]
struct RingHalf<T> {
    records: Box<[T]>,
    /// Records written since the last [`RingBuffer::drain`].
    written: u64,
}

impl<T: FromZeros> RingBuffer<T> {
    /// A ring buffer with two halves of `capacity` records.
    pub(super) fn new(capacity: usize) -> Self {
        let half = || {
            let records = <[T]>::new_box_zeroed_with_elems(capacity).unwrap_or_default();
            Mutex::new(RingHalf { records, written: 0 })
        };
        Self { halves: [half(), half()], lost: AtomicU64::new(0) }
    }

    /// Adds a record. `write` gets an old record and overwrites all its fields.
    pub(super) fn push(&self, write: impl FnOnce(&mut T)) {
        let free = self.halves.iter().find_map(Mutex::try_lock);
        let Some(mut half) = free.filter(|half| !half.records.is_empty()) else {
            self.lost.fetch_add(1, Relaxed);
            return;
        };
        let half = &mut *half;
        let index = half.index_of(half.written);
        write(&mut half.records[index]);
        half.written += 1;
    }

    /// Reads and removes all records, the oldest of each half first. Returns the number of records
    /// that were lost or overwritten since the last call.
    pub(super) fn drain(&self, mut read: impl FnMut(&T)) -> u64 {
        let mut lost = self.lost.swap(0, Relaxed);
        for half in &self.halves {
            let mut half = half.lock();
            let kept = half.written.min(half.records.len() as u64);
            for number in half.written - kept..half.written {
                read(&half.records[half.index_of(number)]);
            }
            lost += half.written - kept;
            half.written = 0;
        }
        lost
    }
}

impl<T> RingHalf<T> {
    fn index_of(&self, number: u64) -> usize {
        usize::try_from(number % self.records.len().max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(ring: &RingBuffer<u64>) -> (Vec<u64>, u64) {
        let mut records = Vec::new();
        let lost = ring.drain(|record| records.push(*record));
        (records, lost)
    }

    #[test]
    fn the_newest_records_stay() {
        let ring = RingBuffer::new(3);
        assert_eq!(drained(&ring), (vec![], 0));
        (0..5).for_each(|number| ring.push(|record| *record = number));
        assert_eq!(drained(&ring), (vec![2, 3, 4], 2));
        ring.push(|record| *record = 9);
        assert_eq!(drained(&ring), (vec![9], 0));
    }

    #[test]
    fn a_writer_never_waits_for_a_reader() {
        let ring = RingBuffer::new(3);
        let reading = ring.halves[0].lock();
        ring.push(|record| *record = 1);
        let second = ring.halves[1].lock();
        ring.push(|record| *record = 2);
        drop((reading, second));
        assert_eq!(drained(&ring), (vec![1], 1));
    }

    #[test]
    fn each_record_is_read_once_or_counted_as_lost() {
        let ring = RingBuffer::new(8);
        let mut seen = Vec::new();
        let mut lost = 0;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (1..=50_000_u64).for_each(|number| ring.push(|record| *record = number));
            });
            while !writer.is_finished() {
                lost += ring.drain(|record| seen.push(*record));
            }
        });
        lost += ring.drain(|record| seen.push(*record));
        assert_eq!(seen.len() as u64 + lost, 50_000);
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
