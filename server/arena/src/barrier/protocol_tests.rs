//! The protocol in a model that tries every order of threads, and every value that a read may see
//! by the memory model of C11, which x86-64 and aarch64 both keep. Whatever is taken from the
//! protocol, the model finds a wrong image.
//!
//! The model runs each thread in the order of its program. An order that keeps a read from moving
//! behind a later write is therefore taken away by moving it: that is what a processor, or a
//! compiler, might do then.

use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release};

use loom::sync::atomic::AtomicU64;
use loom::sync::{Arc, Mutex};

use super::*;

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    fn exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(old, new, success, failure)
    }
}

/// A word for the protocol with one of its orders changed.
struct Weakened<'w>(&'w AtomicU64, Mutation);

impl Word for Weakened<'_> {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        assert_eq!(order, AcqRel);
        self.0.swap(value, if self.1 == CloseWithoutAcquire { Release } else { order })
    }

    fn exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        assert_eq!((success, failure), (Release, Acquire));
        let success = if self.1 == PublishWithoutRelease { Relaxed } else { success };
        self.0.compare_exchange(old, new, success, failure)
    }
}

/// What is taken from the protocol.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mutation {
    Nothing,
    /// The record's bytes may come later than the record.
    PublishWithoutRelease,
    /// The chain's bytes may be older than the chain.
    CloseWithoutAcquire,
    /// The copy may be made after the closing.
    CloseWithoutRelease,
    /// The change may come before the look at the head.
    FindClosedWithoutAcquire,
    /// The record may come after the change that it is of.
    CaptureAfterChange,
    /// A writer that finds the block captured does not look at the head; the first did not publish.
    CaptureWithoutPublishing,
}
use Mutation::*;

/// A chunk of so many blocks of one word each. Record `r` is of block `r - 1`.
const BLOCKS: usize = 2;

struct Chunk {
    words: [AtomicU64; BLOCKS],
    head: AtomicU64,
    records: [AtomicU64; BLOCKS],
    links: [AtomicU64; BLOCKS],
    /// Each block's lock, and what its holder knows.
    locks: [Mutex<Known>; BLOCKS],
}

/// What the holder of a block's lock knows of it. It need not read the word: a read just before the
/// write would hide from the model that the write and the child's read can come in either order.
struct Known {
    word: u64,
    captured: bool,
}

fn old(block: usize) -> u64 {
    10 + block as u64
}

impl Chunk {
    fn new() -> Self {
        Self {
            words: std::array::from_fn(|block| AtomicU64::new(old(block))),
            head: AtomicU64::new(NONE),
            records: std::array::from_fn(|_| AtomicU64::new(0)),
            links: std::array::from_fn(|_| AtomicU64::new(0)),
            locks: std::array::from_fn(|block| {
                Mutex::new(Known { word: old(block), captured: false })
            }),
        }
    }

    /// A writer changes a block.
    fn change(&self, block: usize, to: u64, mutation: Mutation) {
        let head = Weakened(&self.head, mutation);
        let mut known = self.locks[block].lock().unwrap();
        let first = matches!(mutation, FindClosedWithoutAcquire | CaptureAfterChange);
        let was = std::mem::replace(&mut known.word, to);
        if first {
            self.words[block].store(to, Relaxed);
        }
        if !known.captured && !is_closed(&head) {
            let record = block as u64 + 1;
            let bytes = if mutation == CaptureAfterChange { to } else { was };
            self.records[block].store(bytes, Relaxed);
            let link = |next| self.links[block].store(next, Relaxed);
            if mutation != CaptureWithoutPublishing {
                publish(&head, record, link);
            }
            known.captured = true;
        }
        if !first {
            self.words[block].store(to, Relaxed);
        }
    }

    /// The child copies the chunk and puts it right.
    fn copy(&self, mutation: Mutation) -> [u64; BLOCKS] {
        let head = Weakened(&self.head, mutation);
        let read = || std::array::from_fn(|block| self.words[block].load(Relaxed));
        let (mut copy, mut record): ([u64; BLOCKS], u64);
        if mutation == CloseWithoutRelease {
            record = close(&head);
            copy = read();
        } else {
            copy = read();
            record = close(&head);
        }
        while record != NONE {
            let block = usize::try_from(record).unwrap() - 1;
            copy[block] = self.records[block].load(Relaxed);
            record = self.links[block].load(Relaxed);
        }
        copy
    }
}

/// Runs the writers' changes beside the child in every order; panics when an image is wrong.
fn explore(mutation: Mutation, writers: &'static [&'static [usize]]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let chunk = Arc::new(Chunk::new());
        let mut threads = Vec::new();
        for (writer, blocks) in writers.iter().enumerate() {
            let chunk = Arc::clone(&chunk);
            threads.push(loom::thread::spawn(move || {
                for (step, block) in blocks.iter().enumerate() {
                    chunk.change(*block, (100 * writer + step) as u64 + 50, mutation);
                }
            }));
        }
        let copy = chunk.copy(mutation);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(copy, std::array::from_fn(old), "the image holds a later word");
    });
}

/// Two writers of blocks of their own; one that changes both blocks; two that change the same.
const CASES: [&[&[usize]]; 3] = [&[&[0], &[1]], &[&[0, 1]], &[&[0], &[0]]];

#[test]
fn every_image_is_that_of_the_fork() {
    for case in CASES {
        explore(Nothing, case);
    }
}

#[test]
fn each_part_of_the_protocol_is_needed() {
    for mutation in [
        FindClosedWithoutAcquire,
        PublishWithoutRelease,
        CloseWithoutAcquire,
        CloseWithoutRelease,
        CaptureAfterChange,
        CaptureWithoutPublishing,
    ] {
        let found = CASES
            .into_iter()
            .any(|case| std::panic::catch_unwind(move || explore(mutation, case)).is_err());
        assert!(found, "the model is content with {mutation:?}");
    }
}
