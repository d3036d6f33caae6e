//! The protocol of [`ReaderEpochs`] in a model that tries every interleaving, with parts of it
//! taken away, and on real threads.

use std::sync::atomic::AtomicBool;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64 as ModelU64;

use super::*;

impl Word for ModelU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn add(&self, value: u64) {
        self.fetch_add(value, Ordering::Relaxed);
    }

    fn sub(&self, value: u64) {
        self.fetch_sub(value, Ordering::Release);
    }

    fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// What is taken from the protocol.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mutation {
    Nothing,
    ReaderWithoutFence,
    ReaderWithoutSecondLook,
    ReclaimerWithoutFence,
}
use Mutation::*;

/// What the model's threads share: one stripe, the bit `present`, and whether memory is there.
struct Model {
    epoch: ModelU64,
    readers: [ModelU64; 2],
    present: ModelU64,
    memory: ModelU64,
}

impl Model {
    fn enter(&self, mutation: Mutation) -> &ModelU64 {
        if !matches!(mutation, ReaderWithoutFence | ReaderWithoutSecondLook) {
            return enter(&self.epoch, &self.readers);
        }
        let seen = self.epoch.load(Ordering::Relaxed);
        let counter = &self.readers[usize::from(seen % 2 == 1)];
        counter.add(1);
        if mutation == ReaderWithoutSecondLook {
            ModelU64::fence();
        }
        counter
    }

    /// Reads the memory if it is found present.
    fn read(&self, mutation: Mutation) {
        let counter = self.enter(mutation);
        if self.present.load(Ordering::Acquire) == 1 {
            let memory = self.memory.load(Ordering::Relaxed);
            assert_eq!(memory, 1, "a reader found memory that was returned");
        }
        counter.sub(1);
    }

    /// Returns the memory of a chunk, which a later owner then gets back, `rounds` times.
    fn reclaim(&self, rounds: u32, mutation: Mutation) {
        for _ in 0..rounds {
            self.present.store(0, Ordering::Relaxed);
            let parity = if mutation == ReclaimerWithoutFence {
                let parity = usize::from(self.epoch.load(Ordering::Relaxed) % 2 == 1);
                self.epoch.add(1);
                parity
            } else {
                advance(&self.epoch)
            };
            while self.readers[parity].load(Ordering::Acquire) != 0 {
                loom::thread::yield_now();
            }
            self.memory.store(0, Ordering::Relaxed);
            self.memory.store(1, Ordering::Release);
            self.present.store(1, Ordering::Release);
        }
    }
}

fn model(readers: usize, rounds: u32, mutation: Mutation) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let model = Arc::new(Model {
            epoch: ModelU64::new(0),
            readers: [ModelU64::new(0), ModelU64::new(0)],
            present: ModelU64::new(1),
            memory: ModelU64::new(1),
        });
        let threads: Vec<_> = (0..readers)
            .map(|_| {
                let model = Arc::clone(&model);
                loom::thread::spawn(move || model.read(mutation))
            })
            .collect();
        model.reclaim(rounds, mutation);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn no_reader_finds_returned_memory() {
    model(2, 1, Nothing);
    model(1, 2, Nothing);
}

#[test]
fn each_part_of_the_protocol_is_needed() {
    for mutation in [ReaderWithoutFence, ReaderWithoutSecondLook, ReclaimerWithoutFence] {
        let found = std::panic::catch_unwind(|| model(1, 2, mutation));
        assert!(found.is_err(), "{mutation:?} goes unnoticed");
    }
}

#[test]
fn waiting_ends_once_the_readers_have_left() {
    let epochs = ReaderEpochs::default();
    let left = AtomicBool::new(false);
    let (entered, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let section = epochs.enter();
            entered.send(()).unwrap();
            std::thread::yield_now();
            left.store(true, Ordering::SeqCst);
            drop(section);
        });
        wait.recv().unwrap();
        epochs.wait_for_readers();
        assert!(left.load(Ordering::SeqCst), "the section has ended");
    });
    epochs.wait_for_readers();
}
