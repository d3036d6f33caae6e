//! Compaction of a stream: nodes, groups, consumers and pending entries that move.
//!
//! | part | places of the cursor | moves |
//! |---|---|---|
//! | 0 | rank of a node | nodes of the stream, and of their tree |
//! | 1 | group | the group, and nodes of the tree of groups |
//! | 2 | group, pending entry | pending entries, and nodes of the group's tree of them |
//! | 3 | group, consumer | the consumer, and nodes of the tree of consumers |
//! | 4 | group, consumer, pending entry | nodes of the consumer's tree of pending entries |

use crate::keyspace::collection::{ValueCursor, evacuate_tree};
use cowherd_arena::containers::tree::Tree;
use cowherd_arena::{Mem, Offset};

use super::groups::{CONSUMER, Consumer, GROUP, Group};
use super::node::Node;
use super::pending::{PENDING_RECORD, PendingRecord};
use super::{BySeq, StreamRoot};

/// A consumer with more pending entries stays where it is: each of them refers to it.
const MOST_PENDING: u64 = 4096;

/// Moves objects of a stream, from `cursor` on: about `most`. Returns where to continue.
pub(super) fn evacuate_some(
    mem: &mut Mem<'_>,
    root: StreamRoot,
    mut cursor: ValueCursor,
    most: usize,
) -> Option<ValueCursor> {
    let mut left = most as u64;
    while left > 0 {
        let visited;
        (cursor, visited) = step(mem, root, cursor)?;
        left = left.saturating_sub(visited.max(1));
    }
    Some(cursor)
}

/// Moves the objects of one leaf, or one object with its tree's nodes. Returns where to continue,
/// and how many objects were visited.
fn step(mem: &mut Mem<'_>, root: StreamRoot, cursor: ValueCursor) -> Option<(ValueCursor, u64)> {
    let [outer, middle, inner] = cursor.places;
    let at = |part, places| ValueCursor { part, places, offset: 0 };
    let group = |mem: &Mem<'_>| root.groups().nth(mem, outer).map(|entry| Group(entry.item));
    Some(match cursor.part {
        0 => match evacuate_nodes(mem, root, outer) {
            (Some(next), visited) => (at(0, [next, 0, 0]), visited),
            (None, visited) => (at(1, [0; 3]), visited),
        },
        1 => {
            let item = root.groups().nth(mem, outer)?.item;
            root.groups().evacuate_nodes(mem, outer);
            let size = GROUP + Group(item).load(mem).name_len;
            evacuate_named(mem, root.groups(), outer, item, size);
            (at(2, [outer, 0, 0]), 1)
        }
        2 => match evacuate_pending(mem, group(mem)?, middle) {
            (Some(next), visited) => (at(2, [outer, next, 0]), visited),
            (None, visited) => (at(3, [outer, 0, 0]), visited),
        },
        3 => {
            let consumers = group(mem)?.consumers();
            let Some(entry) = consumers.nth(mem, middle) else {
                return Some((at(1, [outer + 1, 0, 0]), 1));
            };
            consumers.evacuate_nodes(mem, middle);
            evacuate_consumer(mem, consumers, middle, Consumer(entry.item));
            (at(4, [outer, middle, 0]), 1)
        }
        _ => {
            let consumer = group(mem)?.consumers().nth(mem, middle);
            let next = consumer
                .and_then(|entry| evacuate_tree(mem, Consumer(entry.item).pending(), inner, 1));
            match next {
                Some(next) => (at(4, [outer, middle, next]), next - inner),
                None => (at(3, [outer, middle + 1, 0]), 1),
            }
        }
    })
}

/// The items of a tree from one rank up to another, with their ranks; up to the end without one.
fn items(mem: &Mem<'_>, tree: Tree, from: u64, to: Option<u64>) -> Vec<(u64, u64)> {
    let to = to.unwrap_or_else(|| tree.len(mem));
    let ranks = from..to;
    ranks.clone().zip(tree.ascending(mem, from).map(|entry| entry.item)).collect()
}

fn evacuate_nodes(mem: &mut Mem<'_>, root: StreamRoot, rank: u64) -> (Option<u64>, u64) {
    let next = root.nodes().evacuate_nodes(mem, rank);
    let items = items(mem, root.nodes(), rank, next);
    let visited = items.len() as u64;
    for (rank, item) in items {
        let size = Node::load(mem, item).size();
        let Some(to) = mem.copy_out(item, size) else { continue };
        root.nodes().replace(mem, rank, to);
        if mem.read(root.tail()) == item {
            mem.write(root.tail(), to);
        }
        mem.release(item, size);
    }
    (next, visited)
}

/// Moves a group or a consumer, to which only its tree refers. Returns its new place.
fn evacuate_named(mem: &mut Mem<'_>, tree: Tree, rank: u64, item: u64, size: u64) -> Option<u64> {
    let to = mem.evacuate(item, size)?;
    tree.replace(mem, rank, to);
    Some(to)
}

fn evacuate_consumer(mem: &mut Mem<'_>, tree: Tree, rank: u64, consumer: Consumer) {
    if !mem.is_source(consumer.0) || consumer.pending().len(mem) > MOST_PENDING {
        return;
    }
    let size = CONSUMER + consumer.load(mem).name_len;
    let Some(to) = evacuate_named(mem, tree, rank, consumer.0, size) else { return };
    for (_, item) in items(mem, Consumer(to).pending(), 0, None) {
        let record: PendingRecord = mem.read(Offset::new(item));
        mem.write(Offset::new(item), PendingRecord { consumer: to, ..record });
    }
}

fn evacuate_pending(mem: &mut Mem<'_>, group: Group, rank: u64) -> (Option<u64>, u64) {
    let next = group.pending().evacuate_nodes(mem, rank);
    let items = items(mem, group.pending(), rank, next);
    let visited = items.len() as u64;
    for (rank, item) in items {
        if !mem.is_source(item) {
            continue;
        }
        let record: PendingRecord = mem.read(Offset::new(item));
        let own = Consumer(record.consumer).pending();
        let Some(own_rank) = own.find(mem, record.id.ms, &BySeq(record.id.seq)) else { continue };
        let Some(to) = mem.copy_out(item, PENDING_RECORD) else { continue };
        group.pending().replace(mem, rank, to);
        own.replace(mem, own_rank, to);
        mem.release(item, PENDING_RECORD);
    }
    (next, visited)
}
