//! A tree's invariants, checked after a restore: its bytes are untrusted until then.

use std::cmp::Ordering;

use crate::{Audit, Corruption, Mem, Offset};

use super::node::{ChildSlot, ITEM_MASK, TreeEntry, TreeNode};
use super::{MAX_DEPTH, TreeRoot};

/// Number of entries prefetched ahead of the one being checked.
const AHEAD: u64 = 16;

/// The item-specific part of a tree check.
pub trait CheckTreeEntry {
    /// Asks the processor to fetch what checking an item will read. Any number may be asked for.
    fn prefetch(&self, item: u64);

    /// Checks an item, and claims it unless something else does.
    ///
    /// # Errors
    /// There is no such item, or it is damaged, or `key` is not its key.
    fn check(&mut self, entry: TreeEntry) -> Result<(), Corruption>;

    /// How two items that were checked and have the same key are ordered.
    fn compare(&self, one: u64, other: u64) -> Ordering;
}

/// Claims and checks everything that belongs to the tree at `root_at`, and each of its items with
/// the help of `items`.
///
/// # Errors
/// The first broken invariant.
pub fn check(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    root_at: Offset<TreeRoot>,
    items: &mut impl CheckTreeEntry,
) -> Result<TreeRoot, Corruption> {
    let root = mem.read(root_at);
    let broken = |reason: String| Err(Corruption::at(root_at.raw(), format!("tree: {reason}")));
    if root.node == 0 {
        if root != TreeRoot::EMPTY {
            return broken(format!("empty, but {root:?}"));
        }
        return Ok(root);
    }
    if root.depth > MAX_DEPTH || root.reserved != 0 {
        return broken(format!("impossible root {root:?}"));
    }
    let mut walk = Walk { mem, audit, items, last: None, is_single: root.depth == 0 };
    let top = walk.node(root.node, root.depth)?;
    if top.count != root.len {
        return broken(format!("{} items, but {root:?}", top.count));
    }
    if root.depth > 0 && TreeNode::load(mem, root.node).len < 2 {
        return broken("its topmost node has one child".into());
    }
    Ok(root)
}

struct Walk<'a, 'h, C> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    items: &'a mut C,
    /// The entry that was checked before.
    last: Option<TreeEntry>,
    /// Whether the tree is one leaf, which may be small.
    is_single: bool,
}

impl<C: CheckTreeEntry> Walk<'_, '_, C> {
    /// Checks a node of this level and everything below it; returns the slot that its parent must
    /// hold. Recursion is no deeper than [`MAX_DEPTH`].
    fn node(&mut self, at: u64, level: u32) -> Result<ChildSlot, Corruption> {
        let capacity = self.mem.arena().capacity();
        if at > ITEM_MASK || !at.is_multiple_of(64) || at >= capacity {
            return Err(Corruption::at(0, format!("tree: a node at {at:#x}, outside the arena")));
        }
        let node = TreeNode::read_untrusted(self.mem, at)
            .filter(|node| node.level == level && (!node.is_small() || self.is_single));
        let Some(node) = node else {
            let head = self.mem.read(Offset::<u64>::new(at));
            let reason = format!("tree: impossible head {head:#x} of a node of level {level}");
            return Err(Corruption::at(at, reason));
        };
        self.audit.claim(at, node.size(), self.mem.shard())?;
        let count = if node.is_leaf() { self.leaf(&node)? } else { self.inner(&node)? };
        Ok(ChildSlot { first: node.first_of(self.mem, 0), child: at, count })
    }

    fn inner(&mut self, node: &TreeNode) -> Result<u64, Corruption> {
        let mut count = 0;
        for index in 0..node.len {
            let stored = node.slot(self.mem, index);
            let actual = self.node(stored.child, node.level - 1)?;
            if stored != actual {
                let reason = format!("tree: a slot says {stored:?}, but there is {actual:?}");
                return Err(Corruption::at(node.at, reason));
            }
            count += actual.count;
        }
        Ok(count)
    }

    fn leaf(&mut self, node: &TreeNode) -> Result<u64, Corruption> {
        for index in 0..node.len.min(AHEAD) {
            self.items.prefetch(node.entry(self.mem, index).item);
        }
        for index in 0..node.len {
            if index + AHEAD < node.len {
                self.items.prefetch(node.entry(self.mem, index + AHEAD).item);
            }
            let entry = node.entry(self.mem, index);
            self.items.check(entry)?;
            let ascends = self.last.is_none_or(|last| {
                last.key < entry.key
                    || last.key == entry.key
                        && self.items.compare(last.item, entry.item) == Ordering::Less
            });
            if !ascends {
                let reason = format!("tree: {entry:?} is not behind {:?}", self.last);
                return Err(Corruption::at(node.at, reason));
            }
            self.last = Some(entry);
        }
        Ok(node.len)
    }
}
