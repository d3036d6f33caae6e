//! Adding and removing entries; splitting nodes that are full and merging sparse ones.
//!
//! All memory that a change needs is taken before its first write, so that an arena that is full
//! changes nothing.

use std::cmp::Ordering;

use crate::{Mem, OutOfMemory};

use super::node::{COUNT_BITS, ChildSlot, NODE, TreeEntry, TreeNode};
use super::path::{ByKey, TreePath};
use super::{MAX_DEPTH, TieOrder, TreeRoot};

/// A node with no more than one part in `SPARSE` of its room used looks for a neighbour to merge
/// with.
const SPARSE: u64 = 4;

/// Nodes that were taken for a change.
struct Spare {
    nodes: [u64; MAX_DEPTH as usize + 2],
    len: usize,
}

impl Spare {
    fn take(mem: &mut Mem<'_>, len: usize) -> Result<Self, OutOfMemory> {
        let mut spare = Self { nodes: [0; MAX_DEPTH as usize + 2], len: 0 };
        while spare.len < len {
            match TreeNode::take_full_grown(mem) {
                Ok(at) => {
                    spare.nodes[spare.len] = at;
                    spare.len += 1;
                }
                Err(full) => {
                    spare.nodes[..spare.len].iter().for_each(|at| mem.release(*at, NODE));
                    return Err(full);
                }
            }
        }
        Ok(spare)
    }

    /// One of them as an empty node.
    fn node(&mut self, mem: &mut Mem<'_>, level: u32) -> TreeNode {
        self.len -= 1;
        TreeNode::full_grown(mem, self.nodes[self.len], level)
    }
}

/// Adds an entry where `ties` say. The caller writes the root.
pub(super) fn insert(
    mem: &mut Mem<'_>,
    root: &mut TreeRoot,
    entry: TreeEntry,
    ties: &impl TieOrder,
) -> Result<(), OutOfMemory> {
    if root.node == 0 {
        root.node = TreeNode::smallest(mem)?.at;
    }
    if root.len >> COUNT_BITS != 0 {
        return Err(OutOfMemory);
    }
    let path = TreePath::to(mem, root, &mut ByKey { key: entry.key, ties });
    let mut leaf = path.leaf(mem, root);
    if leaf.len == leaf.room() && leaf.is_small() {
        leaf = leaf.grown(mem)?;
        root.node = leaf.at;
    }
    let index = path.step(root.depth).index;
    if leaf.len < leaf.room() {
        leaf.open(mem, index);
        leaf.set_entry(mem, index, entry);
        if root.depth > 0 {
            count_one_more(mem, root, &path, (index == 0).then_some(entry));
        }
    } else {
        insert_and_split(mem, root, &path, entry)?;
    }
    root.len += 1;
    Ok(())
}

/// Tells the nodes above a leaf that it has one more entry, and its first one if that is new.
fn count_one_more(
    mem: &mut Mem<'_>,
    root: &TreeRoot,
    path: &TreePath,
    mut first: Option<TreeEntry>,
) {
    for depth in (0..root.depth).rev() {
        let step = path.step(depth);
        let parent = TreeNode::load(mem, step.node);
        let mut slot = parent.slot(mem, step.index);
        slot.count += 1;
        slot.first = first.unwrap_or(slot.first);
        parent.set_slot(mem, step.index, slot);
        first = first.filter(|_| step.index == 0);
    }
}

/// Where a full node is cut in two: what stands from there on moves to a new node.
///
/// A sequence that grows at its end leaves full nodes behind, and one that grows at its beginning
/// too; any other is cut in the middle.
fn cut(mem: &Mem<'_>, root: &TreeRoot, path: &TreePath, depth: u32, node: &TreeNode) -> u64 {
    let is_edge = |is_last: bool| {
        (0..depth).all(|above| {
            let step = path.step(above);
            let last = TreeNode::load(mem, step.node).len - 1;
            step.index == if is_last { last } else { 0 }
        })
    };
    // In a leaf, the place of the new entry; above, the slot of the child that was cut.
    let index = path.step(depth).index;
    let is_leaf = depth == root.depth;
    let end = if is_leaf { node.len } else { node.len - 1 };
    if index == end && is_edge(true) {
        node.len
    } else if index == 0 && is_edge(false) {
        u64::from(!is_leaf)
    } else {
        node.len / 2
    }
}

/// Adds an entry to a full leaf, and splits it and every full node above it.
fn insert_and_split(
    mem: &mut Mem<'_>,
    root: &mut TreeRoot,
    path: &TreePath,
    entry: TreeEntry,
) -> Result<(), OutOfMemory> {
    let is_full = |mem: &Mem<'_>, depth: u32| {
        let node = TreeNode::load(mem, path.step(depth).node);
        node.len == node.room()
    };
    let full = (0..=root.depth).rev().take_while(|depth| is_full(mem, *depth)).count();
    let is_root_full = full == root.depth as usize + 1;
    if is_root_full && root.depth == MAX_DEPTH {
        return Err(OutOfMemory);
    }
    let mut spare = Spare::take(mem, full + usize::from(is_root_full))?;
    let mut leaf = path.leaf(mem, root);
    let at = cut(mem, root, path, root.depth, &leaf);
    let mut right = spare.node(mem, 0);
    leaf.move_tail(mem, at, &mut right);
    let index = path.step(root.depth).index;
    // At the very end of a full leaf the new entry begins the new one.
    let (node, index) =
        if index > at || right.len == 0 { (&mut right, index - at) } else { (&mut leaf, index) };
    node.open(mem, index);
    node.set_entry(mem, index, entry);
    let (mut left, mut new) = (leaf.summary(mem), Some(right.summary(mem)));
    for depth in (0..root.depth).rev() {
        let index = path.step(depth).index;
        let mut parent = TreeNode::load(mem, path.step(depth).node);
        (left, new) = match new {
            None => {
                parent.set_slot(mem, index, left);
                let first = parent.first_of(mem, 0);
                let count = count_above(mem, root, path, depth) + 1;
                (ChildSlot { first, child: parent.at, count }, None)
            }
            Some(slot) if parent.len < parent.room() => {
                parent.set_slot(mem, index, left);
                parent.open(mem, index + 1);
                parent.set_slot(mem, index + 1, slot);
                (parent.summary(mem), None)
            }
            Some(slot) => {
                let at = cut(mem, root, path, depth, &parent);
                parent.set_slot(mem, index, left);
                let mut right = spare.node(mem, parent.level);
                parent.move_tail(mem, at, &mut right);
                let place = index + 1;
                let (node, place) = if place > at || right.len == 0 {
                    (&mut right, place - at)
                } else {
                    (&mut parent, place)
                };
                node.open(mem, place);
                node.set_slot(mem, place, slot);
                (parent.summary(mem), Some(right.summary(mem)))
            }
        };
    }
    if let Some(new) = new {
        let mut top = spare.node(mem, root.depth + 1);
        top.set_len(mem, 2);
        top.set_slot(mem, 0, left);
        top.set_slot(mem, 1, new);
        root.node = top.at;
        root.depth += 1;
    }
    Ok(())
}

/// The entries below the node at `depth` of a path as the node above it knows them.
fn count_above(mem: &Mem<'_>, root: &TreeRoot, path: &TreePath, depth: u32) -> u64 {
    match depth.checked_sub(1) {
        None => root.len,
        Some(above) => {
            let step = path.step(above);
            TreeNode::load(mem, step.node).slot(mem, step.index).count
        }
    }
}

/// Removes the entry at the end of a path (`taken` 1), or all `taken` entries of its leaf. The
/// caller writes the root.
pub(super) fn remove(mem: &mut Mem<'_>, root: &mut TreeRoot, path: &TreePath, taken: u64) {
    let mut node = path.leaf(mem, root);
    if taken == node.len {
        node.set_len(mem, 0);
    } else {
        debug_assert_eq!(taken, 1);
        node.close(mem, path.step(root.depth).index);
    }
    for depth in (0..root.depth).rev() {
        let step = path.step(depth);
        let mut parent = TreeNode::load(mem, step.node);
        if node.len == 0 {
            node.release(mem);
            parent.close(mem, step.index);
        } else {
            let mut slot = parent.slot(mem, step.index);
            slot.count -= taken;
            slot.first = node.first_of(mem, 0);
            parent.set_slot(mem, step.index, slot);
            if node.len * SPARSE <= node.room() {
                merge(mem, &mut parent, step.index);
            }
        }
        node = parent;
    }
    root.len -= taken;
    if node.len == 0 {
        node.release(mem);
        *root = TreeRoot::EMPTY;
        return;
    }
    while node.level > 0 && node.len == 1 {
        let child = node.slot(mem, 0).child;
        node.release(mem);
        node = TreeNode::load(mem, child);
        root.depth -= 1;
    }
    root.node = node.at;
    if node.is_leaf()
        && node.len * SPARSE <= node.room()
        && let Some(smaller) = node.shrunk(mem)
    {
        root.node = smaller.at;
    }
}

/// Merges the child at `index` with a neighbour, if the two leave some room in one node.
fn merge(mem: &mut Mem<'_>, parent: &mut TreeNode, index: u64) {
    let fits = |mem: &Mem<'_>, left: u64| {
        let one = TreeNode::load(mem, parent.slot(mem, left).child);
        let other = TreeNode::load(mem, parent.slot(mem, left + 1).child);
        (one.len + other.len) * 4 <= one.room() * 3
    };
    let left = if index > 0 && fits(mem, index - 1) {
        index - 1
    } else if index + 1 < parent.len && fits(mem, index) {
        index
    } else {
        return;
    };
    let (mut slot, gone) = (parent.slot(mem, left), parent.slot(mem, left + 1));
    let mut node = TreeNode::load(mem, slot.child);
    let mut right = TreeNode::load(mem, gone.child);
    right.move_tail(mem, 0, &mut node);
    right.release(mem);
    slot.count += gone.count;
    parent.set_slot(mem, left, slot);
    parent.close(mem, left + 1);
}

/// Gives the entry at the end of a path another key, if it stays between its neighbours; tells
/// whether it did.
pub(super) fn rekey_in_place(
    mem: &mut Mem<'_>,
    root: &TreeRoot,
    path: &TreePath,
    key: u64,
    ties: &impl TieOrder,
) -> bool {
    let leaf = path.leaf(mem, root);
    let index = path.step(root.depth).index;
    let compare = |index: u64| {
        let entry = leaf.entry(mem, index);
        key.cmp(&entry.key).then_with(|| ties.compare(mem, entry.item))
    };
    let is_inside = |is_first: bool| {
        (0..root.depth).any(|depth| {
            let step = path.step(depth);
            let edge = if is_first { 0 } else { TreeNode::load(mem, step.node).len - 1 };
            step.index != edge
        })
    };
    let stays_behind =
        if index > 0 { compare(index - 1) == Ordering::Greater } else { !is_inside(true) };
    let stays_before =
        if index + 1 < leaf.len { compare(index + 1) == Ordering::Less } else { !is_inside(false) };
    if !stays_behind || !stays_before {
        return false;
    }
    let entry = TreeEntry { key, item: leaf.entry(mem, index).item };
    write_entry(mem, root, path, entry);
    true
}

/// Lets the entry at the end of a path refer to another item.
pub(super) fn replace(mem: &mut Mem<'_>, root: &TreeRoot, path: &TreePath, item: u64) {
    let leaf = path.leaf(mem, root);
    let key = leaf.entry(mem, path.step(root.depth).index).key;
    write_entry(mem, root, path, TreeEntry { key, item });
}

/// Writes the entry at the end of a path, in its leaf and wherever it is the first below a child.
fn write_entry(mem: &mut Mem<'_>, root: &TreeRoot, path: &TreePath, entry: TreeEntry) {
    let index = path.step(root.depth).index;
    path.leaf(mem, root).set_entry(mem, index, entry);
    let mut is_first = index == 0;
    for depth in (0..root.depth).rev() {
        if !is_first {
            break;
        }
        let step = path.step(depth);
        let parent = TreeNode::load(mem, step.node);
        let slot = ChildSlot { first: entry, ..parent.slot(mem, step.index) };
        parent.set_slot(mem, step.index, slot);
        is_first = step.index == 0;
    }
}
