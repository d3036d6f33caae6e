//! The deque against a `VecDeque`, with nodes of all sizes, checks, and an arena that runs full.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::node::{DequeNode, HEAD};
use super::*;
use crate::containers::packed::Encoded;
use crate::{Arena, Audit, Corruption, OutOfMemory, PageKind, ReservedArena, ShardIndex, ShardSet};

const ROOT: Offset<DequeRoot> = Offset::new(crate::layout::shard_root(0));
const ORDINARY: DequeLimits = DequeLimits { bytes: 8192, count: None };

fn deque() -> Deque {
    Deque::at(ROOT)
}

fn arena(mebibytes: u64) -> Arena {
    ReservedArena::reserve(PageKind::Small, mebibytes << 20).unwrap().format(0, 0).unwrap()
}

fn shard() -> ShardIndex {
    ShardIndex::new(0).unwrap()
}

fn verify(arena: &Arena, ballast: &[(u64, u64)]) -> Result<DequeRoot, Corruption> {
    let mut held = arena.lock(ShardSet::ALL);
    let audit = Audit::begin(&mut held)?;
    let root = check(&audit.mem(shard()), &audit, ROOT)?;
    for (at, len) in ballast {
        audit.claim(*at, *len, shard())?;
    }
    audit.finish()?;
    drop(held);
    assert_room_is_zero(&arena.lock(ShardSet::ALL).mem(shard()), root);
    Ok(root)
}

/// No node has bytes of elements that were removed.
fn assert_room_is_zero(mem: &Mem<'_>, root: DequeRoot) {
    let mut next = root.first;
    while next != 0 {
        let node = DequeNode::load(mem, next);
        let room = [
            mem.bytes(node.at + HEAD, node.before()),
            mem.bytes(node.at + node.end, node.behind()),
        ];
        assert!(room.concat().iter().all(|byte| *byte == 0), "{node:?}");
        next = node.next;
    }
}

fn text(element: Element<'_>) -> Vec<u8> {
    element.bytes(&mut itoa::Buffer::new()).to_vec()
}

#[derive(Clone, Debug)]
enum Action {
    PushFront(Vec<u8>),
    PushBack(Vec<u8>),
    Before(u64, Vec<u8>),
    After(u64, Vec<u8>),
    Set(u64, Vec<u8>),
    Remove(u64),
    /// Every third element from there on.
    RemoveSome(u64),
    RemoveFront(u64),
    RemoveBack(u64),
    DequeLimits(DequeLimits),
    /// Frees so much of what fills the arena.
    Give(usize),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<u16>().prop_map(|n| n.to_string().into_bytes()),
        8 => prop::collection::vec(any::<u8>(), 0..40),
        2 => (any::<u8>(), 0usize..400).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 0usize..20_000).prop_map(|(b, n)| vec![b; n]),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let limits = (6u32..15, prop::option::of(1u64..20))
        .prop_map(|(bits, count)| DequeLimits { bytes: 1 << bits, count });
    prop_oneof![
        10 => element().prop_map(Action::PushFront),
        10 => element().prop_map(Action::PushBack),
        10 => (any::<u64>(), element()).prop_map(|(at, e)| Action::Before(at, e)),
        10 => (any::<u64>(), element()).prop_map(|(at, e)| Action::After(at, e)),
        5 => (any::<u64>(), element()).prop_map(|(at, e)| Action::Set(at, e)),
        8 => any::<u64>().prop_map(Action::Remove),
        1 => any::<u64>().prop_map(Action::RemoveSome),
        2 => (0u64..10).prop_map(Action::RemoveFront),
        2 => (0u64..10).prop_map(Action::RemoveBack),
        1 => limits.prop_map(Action::DequeLimits),
        2 => (0usize..8).prop_map(Action::Give),
    ]
}

/// What a run of actions keeps.
struct Run {
    model: VecDeque<Vec<u8>>,
    limits: DequeLimits,
    ballast: Vec<(u64, u64)>,
}

impl Run {
    fn place(&self, mem: &Mem<'_>, at: u64) -> Option<(usize, DequeCursor)> {
        let at = at.checked_rem(self.model.len() as u64)?;
        Some((at as usize, deque().seek(mem, at).unwrap()))
    }

    /// Changes the deque and, if that went well, the model; if not, all must be as it was.
    fn changes(
        &mut self,
        mem: &mut Mem<'_>,
        element: &[u8],
        change: impl FnOnce(&mut Mem<'_>, &Encoded<'_>, DequeLimits) -> Result<(), OutOfMemory>,
        model: impl FnOnce(&mut VecDeque<Vec<u8>>),
    ) {
        let before = (deque().root(mem), mem.arena().used_bytes());
        match change(mem, &Encoded::of(element), self.limits) {
            Ok(()) => model(&mut self.model),
            Err(OutOfMemory) => {
                assert_eq!(before, (deque().root(mem), mem.arena().used_bytes()));
            }
        }
    }

    fn act(&mut self, mem: &mut Mem<'_>, action: &Action) {
        match action {
            Action::PushFront(e) => self.changes(
                mem,
                e,
                |mem, encoded, limits| deque().push_front(mem, encoded, limits),
                |model| model.push_front(e.clone()),
            ),
            Action::PushBack(e) => self.changes(
                mem,
                e,
                |mem, encoded, limits| deque().push_back(mem, encoded, limits),
                |model| model.push_back(e.clone()),
            ),
            Action::Before(at, e) => {
                let Some((at, cursor)) = self.place(mem, *at) else { return };
                self.changes(
                    mem,
                    e,
                    |mem, encoded, limits| deque().insert_before(mem, cursor, encoded, limits),
                    |model| model.insert(at, e.clone()),
                );
            }
            Action::After(at, e) => {
                let Some((at, cursor)) = self.place(mem, *at) else { return };
                self.changes(
                    mem,
                    e,
                    |mem, encoded, limits| deque().insert_after(mem, cursor, encoded, limits),
                    |model| model.insert(at + 1, e.clone()),
                );
            }
            Action::Set(at, e) => {
                let Some((at, cursor)) = self.place(mem, *at) else { return };
                self.changes(
                    mem,
                    e,
                    |mem, encoded, limits| deque().set(mem, cursor, encoded, limits),
                    |model| model[at] = e.clone(),
                );
            }
            Action::DequeLimits(limits) => self.limits = *limits,
            Action::Give(count) => {
                for (at, len) in self.ballast.drain(self.ballast.len().saturating_sub(*count)..) {
                    mem.release(at, len);
                }
            }
            removal => self.remove(mem, removal),
        }
    }

    fn remove(&mut self, mem: &mut Mem<'_>, action: &Action) {
        let next = |mem: &Mem<'_>, cursor: Option<DequeCursor>| {
            cursor.map(|cursor| (cursor.index as usize, text(deque().get(mem, cursor))))
        };
        match *action {
            Action::Remove(at) => {
                let Some((at, cursor)) = self.place(mem, at) else { return };
                let behind = deque().remove(mem, cursor);
                self.model.remove(at);
                let expected = self.model.get(at).map(|e| (at, e.clone()));
                assert_eq!(next(mem, behind), expected);
            }
            Action::RemoveSome(at) => {
                let Some((mut at, cursor)) = self.place(mem, at) else { return };
                let mut cursor = Some(cursor);
                while let Some(here) = cursor {
                    cursor = deque().remove(mem, here);
                    self.model.remove(at);
                    assert_eq!(next(mem, cursor), self.model.get(at).map(|e| (at, e.clone())));
                    for _ in 0..2 {
                        cursor = cursor.and_then(|here| deque().next(mem, here));
                        at += 1;
                    }
                }
            }
            Action::RemoveFront(count) => {
                deque().remove_front(mem, count);
                self.model.drain(..(count as usize).min(self.model.len()));
            }
            Action::RemoveBack(count) => {
                deque().remove_back(mem, count);
                self.model.truncate(self.model.len().saturating_sub(count as usize));
            }
            _ => {}
        }
    }
}

fn fill(mem: &mut Mem<'_>) -> Vec<(u64, u64)> {
    let mut ballast = Vec::new();
    for len in [8192, 4096, 1024, 256, 64] {
        while let Ok(at) = mem.allocate(len) {
            ballast.push((at, len));
        }
    }
    ballast
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn agrees_with_a_vec_deque(
        steps in prop::collection::vec(action(), 1..1500),
        probes in prop::collection::vec(any::<u64>(), 10),
        is_scarce in any::<bool>(),
    ) {
        let arena = arena(8);
        let mut held = arena.lock(ShardSet::ALL);
        let mut mem = held.mem(shard());
        let limits = DequeLimits { bytes: 512, count: None };
        let mut run = Run { model: VecDeque::new(), limits, ballast: Vec::new() };
        if is_scarce {
            run.ballast = fill(&mut mem);
            // So that the first to be given back are of all sizes.
            run.ballast.sort_by_key(|(at, len)| (at ^ len).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        steps.iter().for_each(|action| run.act(&mut mem, action));
        let model: Vec<Vec<u8>> = run.model.iter().cloned().collect();
        let len = model.len() as u64;
        prop_assert_eq!(deque().len(&mem), len);
        prop_assert_eq!(&deque().ascending(&mem, 0).map(text).collect::<Vec<_>>(), &model);
        let mut down: Vec<_> = deque().descending(&mem, len.wrapping_sub(1)).map(text).collect();
        down.reverse();
        prop_assert_eq!(&down, &model);
        let first = deque().first(&mem).map(|at| text(deque().get(&mem, at)));
        prop_assert_eq!(first.as_ref(), model.first());
        let last = deque().last(&mem).map(|at| text(deque().get(&mem, at)));
        prop_assert_eq!(last.as_ref(), model.last());
        for probe in probes.iter().filter(|_| len > 0) {
            let at = deque().seek(&mem, probe % len).unwrap();
            prop_assert_eq!(&text(deque().get(&mem, at)), &model[(probe % len) as usize]);
        }
        prop_assert_eq!(deque().seek(&mem, len), None);
        drop(held);
        prop_assert_eq!(verify(&arena, &run.ballast).unwrap().len, len);
        let mut held = arena.lock(ShardSet::ALL);
        let mut mem = held.mem(shard());
        run.ballast.iter().for_each(|(at, len)| mem.release(*at, *len));
        let mut slices = 1;
        while !deque().drain(&mut mem, 1) {
            slices += 1;
            prop_assert!(slices < 2000);
        }
        prop_assert_eq!(deque().root(&mem), DequeRoot::EMPTY);
        prop_assert_eq!(arena.used_bytes(), 0);
    }
}

fn push_back(mem: &mut Mem<'_>, text: &str) {
    deque().push_back(mem, &Encoded::of(text.as_bytes()), ORDINARY).unwrap();
}

#[test]
fn nodes_are_well_filled() {
    let arena = arena(64);
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(shard());
    for i in 0..100_000 {
        let text = format!("element:{i:08}");
        if i % 2 == 0 {
            push_back(&mut mem, &text);
        } else {
            deque().push_front(&mut mem, &Encoded::of(text.as_bytes()), ORDINARY).unwrap();
        }
    }
    let each = arena.used_bytes() as f64 / 100_000.0;
    println!("{each:.2} bytes an element of 16");
    assert!(each < 18.5, "{each}");
}

#[test]
fn a_queue_stays_in_one_node() {
    let arena = arena(8);
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(shard());
    for i in 0..20_000 {
        push_back(&mut mem, &format!("{i:08} in the queue"));
        if i >= 10 {
            let first = deque().first(&mem).unwrap();
            let text = text(deque().get(&mem, first));
            assert_eq!(text, format!("{:08} in the queue", i - 10).into_bytes());
            deque().remove_front(&mut mem, 1);
        }
        assert_eq!(deque().root(&mem).nodes, 1);
    }
    assert!(arena.used_bytes() <= 1024, "{}", arena.used_bytes());
}

#[test]
fn a_deque_that_was_large_becomes_small_again() {
    let arena = arena(8);
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(shard());
    (0..20_000).for_each(|i| push_back(&mut mem, &format!("element {i}")));
    let nodes = deque().root(&mem).nodes;
    let mut cursor = deque().first(&mem);
    while let Some(here) = cursor {
        cursor = deque().remove(&mut mem, here);
        for _ in 0..9 {
            cursor = cursor.and_then(|here| deque().next(&mem, here));
        }
        if cursor.is_none() && deque().len(&mem) > 200 {
            cursor = deque().first(&mem);
        }
    }
    drop(held);
    let root = verify(&arena, &[]).unwrap();
    assert!(root.nodes == 1 && nodes > 30, "{root:?} after {nodes}");
}

/// Whatever word of a node's head or byte of its run is damaged, a check says so, or the deque is
/// still whole.
#[test]
fn damage_is_found() {
    let arena = arena(8);
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(shard());
    (0..2_000).for_each(|i| push_back(&mut mem, &format!("element {i}")));
    let first = DequeNode::load(&mem, deque().root(&mem).first);
    let second = DequeNode::load(&mem, first.next);
    drop(held);
    let words = (ROOT.raw()..ROOT.raw() + 32)
        .step_by(8)
        .chain((second.at..second.at + 32).step_by(8))
        .chain((first.at..first.at + 32).step_by(8));
    for at in words {
        for change in [1u64, 1 << 4, 1 << 12, 1 << 33, 1 << 45, 1 << 63, u64::MAX] {
            let mut held = arena.lock(ShardSet::ALL);
            let old: u64 = held.mem(shard()).read(Offset::new(at));
            held.mem(shard()).write(Offset::new(at), old ^ change);
            drop(held);
            assert!(verify(&arena, &[]).is_err(), "{at:#x} {old:#x} ^ {change:#x}");
            arena.lock(ShardSet::ALL).mem(shard()).write(Offset::new(at), old);
        }
    }
    assert!(verify(&arena, &[]).is_ok());
}
