//! The protocol of the shard locks: a model of which every interleaving is tried, and threads.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;
use crate::{PageKind, ReservedArena};

/// Shards of the model.
const SHARDS: u8 = 3;
const ALL: u8 = (1 << SHARDS) - 1;
const SETS: std::ops::RangeInclusive<u8> = 1..=ALL;

/// What a thread of the model does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Program {
    /// A command: locks its set at once.
    Command { set: u8 },
    /// A script: locks its set, then each further shard when it needs it; it writes before the step
    /// of this number.
    Script { set: u8, further: [u8; 2], writes_at: usize },
}

/// Where a thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place {
    /// Locks the shards of a set in ascending order.
    Locking {
        set: u8,
    },
    /// Has given up its shards, until no script waits.
    Pausing {
        set: u8,
    },
    /// Has its first shards, and has done so many steps.
    Running {
        step: usize,
    },
    /// A script waits for a shard while it holds others.
    WaitingOutOfOrder {
        step: usize,
    },
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Thread {
    program: Program,
    place: Place,
    held: u8,
    has_permit: bool,
    has_written: bool,
    runs_under_all: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Model {
    threads: Vec<Thread>,
}

/// Takes the changes of one thread that a state allows.
type StepSink<'g> = dyn FnMut(&dyn Fn(&mut Thread)) + 'g;

impl Thread {
    fn new(program: Program) -> Self {
        let (Program::Command { set } | Program::Script { set, .. }) = program;
        Self {
            program,
            place: Place::Locking { set },
            held: 0,
            has_permit: false,
            has_written: false,
            runs_under_all: false,
        }
    }

    fn end(&mut self) {
        (self.held, self.has_permit, self.place) = (0, false, Place::Done);
    }

    fn run_again(&mut self) {
        assert!(!self.has_written, "a script that has written runs again");
        (self.held, self.has_permit) = (0, false);
        (self.runs_under_all, self.place) = (true, Place::Locking { set: ALL });
    }
}

impl Model {
    fn is_free(&self, shards: u8) -> bool {
        self.threads.iter().all(|thread| thread.held & shards == 0)
    }

    fn has_waiter(&self) -> bool {
        let waits = |thread: &Thread| matches!(thread.place, Place::WaitingOutOfOrder { .. });
        self.threads.iter().any(waits)
    }

    /// The states to which a step of one thread leads.
    fn step(&self, number: usize) -> Vec<Self> {
        let mut next = Vec::new();
        let mut go = |act: &dyn Fn(&mut Thread)| {
            let mut model = self.clone();
            act(&mut model.threads[number]);
            next.push(model);
        };
        let thread = &self.threads[number];
        match thread.place {
            Place::Done => {}
            Place::Locking { set } => {
                let missing = set & !thread.held;
                let lowest = missing & missing.wrapping_neg();
                if missing == 0 {
                    go(&|thread| thread.place = Place::Running { step: 0 });
                } else if self.is_free(lowest) {
                    go(&|thread| thread.held |= lowest);
                } else if thread.held != 0 && self.has_waiter() {
                    go(&|thread| (thread.held, thread.place) = (0, Place::Pausing { set }));
                }
            }
            Place::Pausing { set } => {
                if !self.has_waiter() {
                    go(&|thread| thread.place = Place::Locking { set });
                }
            }
            Place::Running { step } => self.run(thread, step, &mut go),
            Place::WaitingOutOfOrder { step } => {
                let Program::Script { further, .. } = thread.program else { return next };
                if self.is_free(further[step]) {
                    go(&|thread| {
                        thread.held |= further[step];
                        thread.place = Place::Running { step: step + 1 };
                    });
                }
            }
        }
        next
    }

    fn run(&self, thread: &Thread, step: usize, go: &mut StepSink<'_>) {
        let Program::Script { further, writes_at, .. } = thread.program else {
            return go(&Thread::end);
        };
        let writes = step >= writes_at && !thread.has_written;
        if writes && !thread.runs_under_all && !thread.has_permit {
            let is_taken = self.threads.iter().any(|other| other.has_permit);
            return match is_taken {
                true => go(&Thread::run_again),
                false => go(&|thread| thread.has_permit = true),
            };
        }
        if writes {
            return go(&|thread| thread.has_written = true);
        }
        let Some(shard) = further.get(step).copied() else { return go(&Thread::end) };
        if thread.held & shard == shard {
            go(&|thread| thread.place = Place::Running { step: step + 1 });
        } else if self.is_free(shard) {
            go(&|thread| {
                thread.held |= shard;
                thread.place = Place::Running { step: step + 1 };
            });
        } else if thread.has_written {
            assert!(thread.has_permit, "a script waits without the permit");
            go(&|thread| thread.place = Place::WaitingOutOfOrder { step });
        } else {
            go(&Thread::run_again);
        }
    }

    fn check(&self) {
        let held = self.threads.iter().map(|thread| u32::from(thread.held));
        let all = self.threads.iter().fold(0, |all, thread| all | thread.held);
        assert_eq!(held.sum::<u32>(), u32::from(all), "a shard with two owners: {self:?}");
        let permits = self.threads.iter().filter(|thread| thread.has_permit).count();
        assert!(permits <= 1, "two permits: {self:?}");
    }
}

/// Tries all interleavings: a shard has one owner at a time, and from each state that can be
/// reached all threads can end, so that none waits for ever.
fn explore(programs: &[Program]) -> usize {
    let start = Model { threads: programs.iter().copied().map(Thread::new).collect() };
    let mut before: HashMap<Model, Vec<Model>> = HashMap::from([(start.clone(), Vec::new())]);
    let (mut open, mut ended) = (vec![start], Vec::new());
    while let Some(model) = open.pop() {
        model.check();
        let next: Vec<Model> = (0..programs.len()).flat_map(|i| model.step(i)).collect();
        if next.is_empty() {
            let is_done = |thread: &Thread| thread.place == Place::Done;
            assert!(model.threads.iter().all(is_done), "a deadlock: {model:?}");
            ended.push(model.clone());
        }
        for state in next {
            before
                .entry(state.clone())
                .or_insert_with(|| {
                    open.push(state);
                    Vec::new()
                })
                .push(model.clone());
        }
    }
    let mut can_end: HashSet<Model> = HashSet::new();
    while let Some(model) = ended.pop() {
        if can_end.insert(model.clone()) {
            ended.extend(before[&model].iter().cloned());
        }
    }
    assert_eq!(can_end.len(), before.len(), "some state never ends: {programs:?}");
    before.len()
}

fn scripts() -> impl Iterator<Item = Program> + Clone {
    let single = |shard: u8| 1 << shard;
    SETS.filter(|set| set.count_ones() < 3).flat_map(move |set| {
        (0..SHARDS).flat_map(move |one| {
            (0..SHARDS).flat_map(move |other| {
                let further = [single(one), single(other)];
                (0..3).map(move |writes_at| Program::Script { set, further, writes_at })
            })
        })
    })
}

#[test]
fn two_scripts_and_a_command_end_in_every_order() {
    let mut states = 0;
    for (number, one) in scripts().enumerate() {
        // The order of the two makes no difference.
        for other in scripts().skip(number).step_by(3) {
            for set in SETS.filter(|set| set.count_ones() > 1) {
                states += explore(&[one, other, Program::Command { set }]);
            }
        }
    }
    assert!(states > 100_000, "{states}");
}

#[test]
fn scripts_among_many_commands_end_in_every_order() {
    let commands = [0b011, 0b110, 0b101].map(|set| Program::Command { set });
    for script in scripts() {
        explore(&[&[script][..], &commands[..]].concat());
    }
}

/// Threads that lock sets at once, and one shard after the other, count under the locks.
#[test]
fn threads_that_lock_out_of_order_wait_for_no_other() {
    const ROUNDS: u64 = 2_000;
    let arena = ReservedArena::reserve(PageKind::Small, 8 << 20).unwrap().format(7, 1).unwrap();
    let shards: Vec<ShardIndex> = (0..6).filter_map(ShardIndex::new).collect();
    let counts: Vec<AtomicU64> = shards.iter().map(|_| AtomicU64::new(0)).collect();
    // A count is written in two steps, so that a second owner of the shard would be seen.
    let count = |shard: ShardIndex| {
        let before = counts[shard.get()].load(Relaxed);
        std::hint::spin_loop();
        counts[shard.get()].store(before + 1, Relaxed);
    };
    let pick = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        shards[usize::try_from(*state >> 33).unwrap() % shards.len()]
    };
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (arena, total) = (&arena, &total);
            scope.spawn(move || {
                let mut state = thread;
                for round in 0..ROUNDS {
                    let set = ShardSet::one(pick(&mut state)) | ShardSet::one(pick(&mut state));
                    let mut held = arena.lock(set);
                    set.iter().for_each(count);
                    let mut counted = u64::try_from(set.iter().count()).unwrap();
                    let permit = arena.try_out_of_order_permit().filter(|_| round % 2 == 0);
                    for _ in 0..2 {
                        let further = pick(&mut state);
                        let one = ShardSet::one(further);
                        let has_it = held.set.covers(one) || held.try_extend(one);
                        match &permit {
                            _ if has_it => {}
                            Some(permit) => held.extend(permit, one, || {}),
                            None => continue,
                        }
                        count(further);
                        counted += 1;
                    }
                    total.fetch_add(counted, Relaxed);
                }
            });
        }
    });
    let counted: u64 = counts.iter().map(|count| count.load(Relaxed)).sum();
    assert_eq!(counted, total.load(Relaxed));
    assert!(arena.try_out_of_order_permit().is_some() && !arena.has_out_of_order_waiter());
    drop(arena.lock(ShardSet::ALL));
}
