//! The tree against a sorted vector, with growth, shrinking, drains, checks, and an arena that runs
//! full.

use proptest::prelude::*;

use super::*;
use crate::{Arena, Audit, Corruption, PageKind, ReservedArena, ShardIndex, ShardSet};

const ROOT: Offset<TreeRoot> = Offset::new(crate::layout::shard_root(0));
const ITEM: u64 = 32;

fn tree() -> Tree {
    Tree::at(ROOT)
}

fn arena(mebibytes: u64) -> Arena {
    ReservedArena::reserve(PageKind::Small, mebibytes << 20).unwrap().format(0, 0).unwrap()
}

fn shard() -> ShardIndex {
    ShardIndex::new(0).unwrap()
}

/// Items are 32 bytes that begin with their key and their tie.
fn tie_of(mem: &Mem<'_>, item: u64) -> u64 {
    mem.read(Offset::<u64>::new(item + 8))
}

struct Tie(u64);

impl TieOrder for Tie {
    fn compare(&self, mem: &Mem<'_>, item: u64) -> Ordering {
        self.0.cmp(&tie_of(mem, item))
    }
}

fn make(mem: &mut Mem<'_>, (key, tie): (u64, u64)) -> u64 {
    let item = mem.allocate(ITEM).unwrap();
    mem.write(Offset::new(item), [key, tie]);
    item
}

fn add(mem: &mut Mem<'_>, key: u64, tie: u64) {
    let item = make(mem, (key, tie));
    tree().insert(mem, key, item, &Tie(tie)).unwrap();
}

struct Checking<'a, 'h> {
    audit: &'a Audit<'h>,
}

impl CheckTreeEntry for Checking<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, entry: TreeEntry) -> Result<(), Corruption> {
        self.audit.claim(entry.item, ITEM, shard())?;
        let key = self.audit.mem(shard()).read(Offset::<u64>::new(entry.item));
        if key != entry.key {
            return Err(Corruption::at(entry.item, "not its key".into()));
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        let mem = self.audit.mem(shard());
        tie_of(&mem, one).cmp(&tie_of(&mem, other))
    }
}

/// No node below this one has entries or slots that were removed.
fn assert_room_is_zero(mem: &Mem<'_>, at: u64) {
    if at == 0 {
        return;
    }
    let node = TreeNode::load(mem, at);
    assert!(node.room_behind(mem).iter().all(|byte| *byte == 0), "{node:?}");
    for index in (0..node.len).filter(|_| !node.is_leaf()) {
        assert_room_is_zero(mem, node.slot(mem, index).child);
    }
}

/// Checks the tree; other objects than its own are not minded if there is `ballast`.
fn verify(arena: &Arena, ballast: &[u64]) -> Result<TreeRoot, Corruption> {
    let mut held = arena.lock(ShardSet::ALL);
    let audit = Audit::begin(&mut held)?;
    let root = check(&audit.mem(shard()), &audit, ROOT, &mut Checking { audit: &audit })?;
    assert_room_is_zero(&audit.mem(shard()), root.node);
    for at in ballast {
        audit.claim(*at, node::NODE, shard())?;
    }
    audit.finish()?;
    Ok(root)
}

fn pairs(mem: &Mem<'_>, entries: impl Iterator<Item = TreeEntry>) -> Vec<(u64, u64)> {
    entries.map(|entry| (entry.key, tie_of(mem, entry.item))).collect()
}

fn all(mem: &Mem<'_>) -> Vec<(u64, u64)> {
    pairs(mem, tree().ascending(mem, 0))
}

#[derive(Clone, Debug)]
enum Action {
    Add(u64, u64),
    Remove(u64, u64),
    RemoveNth(u64),
    Rekey(u64, u64),
    Replace(u64),
    /// Frees that many nodes of the arena.
    Give(usize),
}

fn actions(keys: u64, ties: u64) -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (0..keys, 0..ties).prop_map(|(key, tie)| Action::Add(key, tie)),
        2 => (0..keys, 0..ties).prop_map(|(key, tie)| Action::Remove(key, tie)),
        2 => any::<u64>().prop_map(Action::RemoveNth),
        2 => (any::<u64>(), 0..keys).prop_map(|(rank, key)| Action::Rekey(rank, key)),
        1 => any::<u64>().prop_map(Action::Replace),
        1 => (0usize..8).prop_map(Action::Give),
    ];
    prop::collection::vec(action, 1..3000)
}

fn key_space() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![Just((3, 1000)), Just((5000, 1)), Just((60, 60))]
}

/// What a run of actions keeps.
struct Run {
    model: Vec<(u64, u64)>,
    /// Items that wait to be used, made before the arena was filled.
    items: Vec<u64>,
    ballast: Vec<u64>,
}

impl Run {
    fn item(&mut self, mem: &mut Mem<'_>, pair: (u64, u64)) -> Option<u64> {
        let item = self.items.pop()?;
        mem.write(Offset::new(item), [pair.0, pair.1]);
        Some(item)
    }

    fn nth(&self, rank: u64) -> Option<(usize, (u64, u64))> {
        let rank = rank.checked_rem(self.model.len() as u64)? as usize;
        Some((rank, self.model[rank]))
    }

    fn act(&mut self, mem: &mut Mem<'_>, action: &Action) {
        match *action {
            Action::Add(key, tie) => {
                let place = self.model.binary_search(&(key, tie));
                assert_eq!(tree().find(mem, key, &Tie(tie)), place.ok().map(|at| at as u64));
                let Err(place) = place else { return };
                if let Some(item) = self.item(mem, (key, tie)) {
                    let before = (tree().root(mem), mem.arena().used_bytes());
                    match tree().insert(mem, key, item, &Tie(tie)) {
                        Ok(()) => self.model.insert(place, (key, tie)),
                        Err(OutOfMemory) => {
                            assert_eq!(before, (tree().root(mem), mem.arena().used_bytes()));
                            self.items.push(item);
                        }
                    }
                }
            }
            Action::Remove(key, tie) => {
                let place = self.model.binary_search(&(key, tie));
                let removed = tree().remove(mem, key, &Tie(tie));
                assert_eq!(removed.is_some(), place.is_ok());
                self.items.extend(removed);
                place.ok().map(|at| self.model.remove(at));
            }
            Action::RemoveNth(rank) => {
                let Some((rank, pair)) = self.nth(rank) else { return };
                let entry = tree().remove_nth(mem, rank as u64).unwrap();
                assert_eq!((entry.key, tie_of(mem, entry.item)), pair);
                self.items.push(entry.item);
                self.model.remove(rank);
            }
            Action::Rekey(rank, key) => {
                let Some((rank, (old, tie))) = self.nth(rank) else { return };
                if key != old && self.model.binary_search(&(key, tie)).is_ok() {
                    return;
                }
                let item = tree().nth(mem, rank as u64).unwrap().item;
                if tree().rekey(mem, old, &Tie(tie), key).is_ok_and(|was_there| was_there) {
                    mem.write(Offset::new(item), key);
                    self.model.remove(rank);
                    let place = self.model.binary_search(&(key, tie)).unwrap_err();
                    self.model.insert(place, (key, tie));
                }
            }
            Action::Replace(rank) => {
                let Some((rank, pair)) = self.nth(rank) else { return };
                if let Some(item) = self.item(mem, pair) {
                    self.items.push(tree().nth(mem, rank as u64).unwrap().item);
                    tree().replace(mem, rank as u64, item);
                }
            }
            Action::Give(count) => {
                for at in self.ballast.drain(self.ballast.len().saturating_sub(count)..) {
                    mem.release(at, node::NODE);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// In an arena that is full but for what the run itself gives back, nothing is lost.
    #[test]
    fn agrees_with_a_sorted_vector(
        (steps, probes) in key_space().prop_flat_map(|(keys, ties)| {
            (actions(keys, ties), prop::collection::vec((0..keys + 1, 0..ties + 1), 20))
        }),
        is_scarce in any::<bool>(),
    ) {
        let arena = arena(8);
        let mut held = arena.lock(ShardSet::ALL);
        let mut mem = held.mem(shard());
        let mut run = Run { model: Vec::new(), items: Vec::new(), ballast: Vec::new() };
        run.items.extend((0..2000).map(|_| make(&mut mem, (0, 0))));
        while is_scarce && let Ok(at) = mem.allocate(node::NODE) {
            run.ballast.push(at);
        }
        steps.iter().for_each(|action| run.act(&mut mem, action));
        let model = &run.model;
        prop_assert_eq!(&all(&mem), model);
        prop_assert_eq!(tree().len(&mem), model.len() as u64);
        for (key, tie) in probes {
            let rank = model.partition_point(|pair| *pair < (key, tie));
            prop_assert_eq!(tree().rank(&mem, key, &Tie(tie)), rank as u64);
            let before = model.partition_point(|pair| pair.0 < key);
            prop_assert_eq!(tree().rank(&mem, key, &BeforeTies), before as u64);
            let behind = model.partition_point(|pair| pair.0 <= key);
            prop_assert_eq!(tree().rank(&mem, key, &AfterTies), behind as u64);
            let before =
                |mem: &Mem<'_>, entry: TreeEntry| (entry.key, tie_of(mem, entry.item)) < (key, tie);
            prop_assert_eq!(tree().partition_point(&mem, before), rank as u64);
            prop_assert_eq!(&pairs(&mem, tree().ascending(&mem, rank as u64)), &model[rank..]);
            let mut down = pairs(&mem, tree().descending(&mem, (rank as u64).wrapping_sub(1)));
            down.reverse();
            prop_assert_eq!(&down, &model[..rank]);
        }
        let pair = |entry: Option<TreeEntry>| entry.map(|e| (e.key, tie_of(&mem, e.item)));
        prop_assert_eq!(pair(tree().first(&mem)), model.first().copied());
        prop_assert_eq!(pair(tree().last(&mem)), model.last().copied());
        for item in run.items.drain(..) {
            mem.release(item, ITEM);
        }
        drop(held);
        prop_assert_eq!(verify(&arena, &run.ballast).unwrap().len, run.model.len() as u64);
        let mut held = arena.lock(ShardSet::ALL);
        let mut mem = held.mem(shard());
        run.ballast.iter().for_each(|at| mem.release(*at, node::NODE));
        let mut drained = 0;
        while !tree().drain(&mut mem, 50, |mem, entry| {
            mem.release(entry.item, ITEM);
            drained += 1;
        }) {
            let root = tree().root(&mem);
            prop_assert_eq!(root.len + drained, run.model.len() as u64);
        }
        prop_assert_eq!(tree().root(&mem), TreeRoot::EMPTY);
        prop_assert_eq!(arena.used_bytes(), 0);
    }
}

/// Fills a tree in this order; returns bytes an item in its nodes, after a check.
fn filled(keys: impl Iterator<Item = u64>) -> f64 {
    let arena = arena(64);
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(shard());
    for key in keys {
        add(&mut mem, key, 0);
    }
    drop(held);
    let len = verify(&arena, &[]).unwrap().len;
    (arena.used_bytes() - len * ITEM) as f64 / len as f64
}

fn scattered(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn leaves_are_well_filled() {
    for (order, bytes, most) in [
        ("ascending", filled(0..60_000), 17.5),
        ("descending", filled((0..60_000).rev()), 17.5),
        ("random", filled((0..60_000).map(scattered)), 26.5),
    ] {
        println!("{order}: {bytes:.2} bytes an item");
        assert!(bytes < most, "{order}: {bytes} bytes an item");
    }
}

#[test]
fn small_trees_are_small() {
    for (len, bytes) in [(1, 64), (3, 64), (4, 128), (7, 128), (8, 256), (15, 256), (31, 512)] {
        let each = filled(0..len);
        assert_eq!((each * len as f64).round() as u64, bytes, "{len} items");
    }
}

#[test]
fn a_tree_that_was_large_becomes_small_again() {
    let arena = arena(64);
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(shard());
    (0..20_000).for_each(|key| add(&mut mem, scattered(key), 0));
    while tree().len(&mem) > 2 {
        let rank = scattered(tree().len(&mem)) % tree().len(&mem);
        let entry = tree().remove_nth(&mut mem, rank).unwrap();
        mem.release(entry.item, ITEM);
        let len = tree().len(&mem);
        let nodes = arena.used_bytes() - len * ITEM;
        assert!(nodes <= 100 * len.max(16), "{nodes} bytes for {len} items");
    }
    assert_eq!(arena.used_bytes(), 2 * ITEM + 128);
}

/// Whatever word of a tree's nodes is damaged, a check says so, or the tree is still whole.
#[test]
fn damage_is_found() {
    let arena = arena(8);
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(shard());
    (0..700).for_each(|key| add(&mut mem, key / 3, key));
    let root = tree().root(&mem);
    assert_eq!(root.depth, 2);
    let top = TreeNode::load(&mem, root.node);
    let inner = TreeNode::load(&mem, top.slot(&mem, 0).child);
    let leaf = TreeNode::load(&mem, inner.slot(&mem, 1).child);
    drop(held);
    let words = [ROOT.raw(), ROOT.raw() + 8, ROOT.raw() + 16]
        .into_iter()
        .chain((top.at..top.at + 56).step_by(8))
        .chain((inner.at..inner.at + 512).step_by(8))
        .chain((leaf.at..leaf.at + 512).step_by(8));
    let mut missed = Vec::new();
    for at in words {
        for change in [1u64, 1 << 4, 1 << 8, 1 << 17, 1 << 33, 1 << 47, 1 << 63, u64::MAX] {
            let mut held = arena.lock(ShardSet::ALL);
            let old: u64 = held.mem(shard()).read(Offset::new(at));
            held.mem(shard()).write(Offset::new(at), old ^ change);
            drop(held);
            if verify(&arena, &[]).is_ok() {
                missed.push(at);
            }
            arena.lock(ShardSet::ALL).mem(shard()).write(Offset::new(at), old);
        }
    }
    // The second word of a leaf, and what stands behind its last entry, mean nothing.
    let behind = leaf.at + 16 + leaf.len * 16;
    let free = |at: &u64| {
        *at == leaf.at + 8
            || (behind..leaf.at + 512).contains(at)
            || (inner.at + 8 + inner.len * 24..inner.at + 512).contains(at)
            || (top.at + 8 + top.len * 24..top.at + 512).contains(at)
    };
    missed.retain(|at| !free(at));
    assert_eq!(missed, [0u64; 0]);
    assert!(verify(&arena, &[]).is_ok());
}
