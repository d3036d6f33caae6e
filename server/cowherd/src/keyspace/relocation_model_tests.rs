//! A model of the forwarding table and of locking with retry, which tries every interleaving of a
//! command with relocations of its key, and every value that a relaxed load may return. With any
//! step of the protocol taken away the model finds a command that runs without its key's lock.
//!
//! One key, whose home shard is 0, lives in one of three shards. A command looks the shards up,
//! locks them, and looks again, as `CommandExecution::lock` and `Keyspace::lock_with_retry` do; a
//! rename records a relocation as `ForwardingTable::record` does.

use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::{Arc, Mutex, MutexGuard};

const SHARDS: usize = 3;
const HOME: usize = 0;

/// What is taken from the protocol.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mutation {
    Nothing,
    /// The command does not look again after it has locked.
    NoSecondLook,
    /// A relocation is not counted.
    NotCounted,
    /// A relocation is counted before it is recorded.
    CountedFirst,
}
use Mutation::*;

struct Model {
    /// Each shard's lock guards whether the key lives there.
    shards: [Mutex<bool>; SHARDS],
    filter: AtomicU64,
    part: Mutex<Option<usize>>,
    relocations: AtomicU64,
    mutation: Mutation,
}

/// The guards of the locked shards, by number.
type Locked<'m> = [Option<MutexGuard<'m, bool>>; SHARDS];

impl Model {
    fn new(mutation: Mutation) -> Self {
        Self {
            shards: std::array::from_fn(|shard| Mutex::new(shard == HOME)),
            filter: AtomicU64::new(0),
            part: Mutex::new(None),
            relocations: AtomicU64::new(0),
            mutation,
        }
    }

    /// The shard in which the key lives, by the table.
    fn shard_of(&self) -> usize {
        if self.filter.load(Relaxed) == 0 {
            return HOME;
        }
        self.part.lock().expect("not poisoned").unwrap_or(HOME)
    }

    /// The shards that a command locks, as bits.
    fn shards_of(&self) -> u8 {
        1 << HOME | 1 << self.shard_of()
    }

    fn lock(&self, set: u8) -> Locked<'_> {
        std::array::from_fn(|shard| {
            (set >> shard & 1 == 1).then(|| self.shards[shard].lock().expect("not poisoned"))
        })
    }

    /// Locks the named shards with retry.
    fn lock_with_retry(&self, named: impl Fn() -> u8) -> Locked<'_> {
        loop {
            let locked = self.lock(named());
            if covers(&locked, named()) {
                return locked;
            }
        }
    }

    /// A command on the key: it must find the key under the lock of the key's shard.
    fn command(&self) {
        let relocations = self.relocations.load(Acquire);
        let mut locked = self.lock(self.shards_of());
        let changed = self.relocations.load(Acquire) != relocations;
        if self.mutation != NoSecondLook && changed && !covers(&locked, self.shards_of()) {
            drop(locked);
            locked = self.lock_with_retry(|| self.shards_of());
        }
        let shard = self.shard_of();
        let lives = locked[shard].as_deref().copied();
        assert_eq!(lives, Some(true), "the key is not in shard {shard}, or that is not locked");
    }

    /// A rename that relocates the key to another shard.
    fn relocate(&self, to: usize) {
        let mut locked = self.lock_with_retry(|| self.shards_of() | 1 << to);
        let from = self.shard_of();
        if from == to {
            return;
        }
        for (shard, lives) in [(from, false), (to, true)] {
            **locked[shard].as_mut().expect("locked") = lives;
        }
        if self.mutation == CountedFirst {
            self.relocations.fetch_add(1, Release);
            drop(locked);
        }
        let mut part = self.part.lock().expect("not poisoned");
        *part = Some(to);
        self.filter.fetch_or(1, Relaxed);
        drop(part);
        if !matches!(self.mutation, NotCounted | CountedFirst) {
            self.relocations.fetch_add(1, Release);
        }
    }
}

fn covers(locked: &Locked<'_>, set: u8) -> bool {
    (0..SHARDS).all(|shard| set >> shard & 1 == 0 || locked[shard].is_some())
}

/// A command beside renames to these shards, one after the other.
fn model(mutation: Mutation, renames: &'static [usize]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let model = Arc::new(Model::new(mutation));
        let other = Arc::clone(&model);
        let thread = loom::thread::spawn(move || {
            renames.iter().for_each(|to| other.relocate(*to));
        });
        model.command();
        thread.join().expect("the renames");
        model.command();
    });
}

#[test]
fn a_command_finds_its_key_under_the_lock_of_the_key() {
    model(Nothing, &[1]);
    model(Nothing, &[1, 2]);
    model(Nothing, &[2, 1, 2]);
}

/// Two renames at once lock each other's shards in ascending order: they end.
#[test]
fn concurrent_renames_do_not_deadlock() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let model = Arc::new(Model::new(Nothing));
        let other = Arc::clone(&model);
        let thread = loom::thread::spawn(move || other.relocate(1));
        model.relocate(2);
        thread.join().expect("the rename");
        model.command();
    });
}

#[test]
fn each_step_of_the_protocol_is_needed() {
    for mutation in [NoSecondLook, NotCounted, CountedFirst] {
        let found = std::panic::catch_unwind(|| model(mutation, &[1, 2]));
        assert!(found.is_err(), "{mutation:?} goes unnoticed");
    }
}
