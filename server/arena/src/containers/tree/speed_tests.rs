//! What the tree's operations cost, beside the standard library's `BTreeMap`.

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;
use crate::{PageKind, ReservedArena, ShardIndex, ShardSet};

const ROOT: Offset<TreeRoot> = Offset::new(crate::layout::shard_root(0));
const ITEMS: u64 = 1_000_000;

struct NoTie;

impl TieOrder for NoTie {
    fn compare(&self, _: &Mem<'_>, _: u64) -> Ordering {
        Ordering::Equal
    }
}

fn scattered(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn timed(name: &str, who: &str, mut work: impl FnMut(u64) -> u64) {
    let begun = Instant::now();
    let sum = (0..ITEMS).map(&mut work).fold(0u64, u64::wrapping_add);
    let each = begun.elapsed().as_nanos() as f64 / ITEMS as f64;
    println!("{name:24} {who:10} {each:7.1} ns  ({sum})");
}

/// ```sh
/// CARGO_PROFILE_TESTED_DEBUG_ASSERTIONS=false CARGO_PROFILE_TESTED_OVERFLOW_CHECKS=false \
///     cargo test --profile tested -p cowherd-arena --lib containers::tree::speed -- \
///     --ignored --nocapture --test-threads 1
/// ```
#[test]
#[ignore = "a measurement, for an optimised build"]
fn beside_a_btreemap() {
    let arena = ReservedArena::reserve(PageKind::Small, 256 << 20).unwrap().format(0, 0).unwrap();
    let mut held = arena.lock(ShardSet::ALL);
    let mut mem = held.mem(ShardIndex::new(0).unwrap());
    let tree = Tree::at(ROOT);
    let mut map = BTreeMap::new();
    for round in 0..2 {
        println!("round {round}");
        timed("insert at random", "tree", |i| {
            tree.insert(&mut mem, scattered(i), 64, &NoTie).map_or(1, |()| 0)
        });
        timed("insert at random", "BTreeMap", |i| map.insert(scattered(i), 64).unwrap_or(0));
        println!("{} bytes an item", arena.used_bytes() / ITEMS);
        timed("find", "tree", |i| tree.find(&mem, scattered(i * 7 % ITEMS), &NoTie).unwrap_or(0));
        timed("find", "BTreeMap", |i| map[&scattered(i * 7 % ITEMS)]);
        timed("by rank", "tree", |i| tree.nth(&mem, i * 7919 % ITEMS).map_or(0, |e| e.key));
        let mut up = tree.ascending(&mem, 0);
        timed("walk", "tree", |_| up.next().map_or(0, |e| e.key));
        drop(up);
        let mut up = map.iter();
        timed("walk", "BTreeMap", |_| up.next().map_or(0, |e| *e.0));
        timed("remove at random", "tree", |i| {
            if i % 2 == 0 { tree.remove(&mut mem, scattered(i), &NoTie).unwrap_or(0) } else { 0 }
        });
        timed("remove at random", "BTreeMap", |i| {
            if i % 2 == 0 { map.remove(&scattered(i)).unwrap_or(0) } else { 0 }
        });
        timed("remove the first", "tree", |_| tree.remove_nth(&mut mem, 0).map_or(0, |e| e.key));
        timed("remove the first", "BTreeMap", |_| map.pop_first().map_or(0, |e| e.0));
        assert_eq!((tree.len(&mem), map.len()), (0, 0));
    }
}
