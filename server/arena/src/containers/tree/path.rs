//! Ways down a tree: by key and tie, or by rank.

use std::cmp::Ordering;

use crate::Mem;

use super::node::{TreeEntry, TreeNode};
use super::{MAX_DEPTH, TieOrder, TreeRoot};

/// Chooses where to go in each node.
pub(super) trait SearchTarget {
    /// The slot to follow, or the entry to stop at, which may be one behind the last.
    fn choose(&mut self, mem: &Mem<'_>, node: &TreeNode) -> u64;
}

/// The first entry that is not before a key and what `ties` look for.
pub(super) struct ByKey<'t, T> {
    pub key: u64,
    pub ties: &'t T,
}

impl<T: TieOrder> ByKey<'_, T> {
    /// How what is looked for compares with an entry.
    #[inline]
    fn compare(&self, mem: &Mem<'_>, entry: TreeEntry) -> Ordering {
        match self.key.cmp(&entry.key) {
            Ordering::Equal => self.ties.compare(mem, entry.item),
            unequal => unequal,
        }
    }
}

impl<T: TieOrder> SearchTarget for ByKey<'_, T> {
    #[inline]
    fn choose(&mut self, mem: &Mem<'_>, node: &TreeNode) -> u64 {
        let is_inner = !node.is_leaf();
        let (mut low, mut high) = (0, node.len);
        while low < high {
            let middle = u64::midpoint(low, high);
            let order = self.compare(mem, node.first_of(mem, middle));
            // A child whose first entry is the one looked for holds it; in a leaf, stop there.
            if order == Ordering::Greater || (is_inner && order == Ordering::Equal) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if is_inner { low.saturating_sub(1) } else { low }
    }
}

/// The entry that has that many others before it. Below what was chosen, that many are left.
pub(super) struct ByRank(pub u64);

impl SearchTarget for ByRank {
    #[inline]
    fn choose(&mut self, mem: &Mem<'_>, node: &TreeNode) -> u64 {
        if node.is_leaf() {
            return self.0;
        }
        let mut index = 0;
        while index + 1 < node.len {
            let count = node.slot(mem, index).count;
            if self.0 < count {
                break;
            }
            self.0 -= count;
            index += 1;
        }
        index
    }
}

/// The first entry that a question is not answered with yes for.
pub(super) struct ByPredicate<F>(pub F);

impl<F: FnMut(&Mem<'_>, TreeEntry) -> bool> SearchTarget for ByPredicate<F> {
    fn choose(&mut self, mem: &Mem<'_>, node: &TreeNode) -> u64 {
        let (mut low, mut high) = (0, node.len);
        while low < high {
            let middle = u64::midpoint(low, high);
            if self.0(mem, node.first_of(mem, middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if node.is_leaf() { low } else { low.saturating_sub(1) }
    }
}

/// A node on the way, and what was chosen in it.
#[derive(Clone, Copy, Default)]
pub(super) struct PathStep {
    pub node: u64,
    pub index: u64,
}

/// A way from the topmost node (step 0) to an entry, or to where one would stand.
pub(super) struct TreePath {
    steps: [PathStep; MAX_DEPTH as usize + 1],
}

impl TreePath {
    /// The way to what `aim` wants. Empty steps if the tree is empty.
    #[inline]
    pub(super) fn to(mem: &Mem<'_>, root: &TreeRoot, aim: &mut impl SearchTarget) -> Self {
        let mut steps = [PathStep::default(); MAX_DEPTH as usize + 1];
        let mut at = root.node;
        for step in steps.iter_mut().take(root.depth as usize + 1) {
            if at == 0 {
                break;
            }
            let node = TreeNode::load(mem, at);
            let index = aim.choose(mem, &node);
            *step = PathStep { node: at, index };
            if !node.is_leaf() {
                at = node.slot(mem, index).child;
            }
        }
        Self { steps }
    }

    /// Step `depth` of the path.
    #[inline]
    pub(super) const fn step(&self, depth: u32) -> PathStep {
        self.steps[depth as usize]
    }

    /// The leaf at its end.
    pub(super) fn leaf(&self, mem: &Mem<'_>, root: &TreeRoot) -> TreeNode {
        TreeNode::load(mem, self.step(root.depth).node)
    }

    /// The entry at its end. That it may be the first of the next leaf does not matter to those who
    /// look for an equal one: an equal one is in the leaf.
    pub(super) fn entry(&self, mem: &Mem<'_>, root: &TreeRoot) -> Option<TreeEntry> {
        let step = self.step(root.depth);
        if step.node == 0 {
            return None;
        }
        let leaf = TreeNode::load(mem, step.node);
        (step.index < leaf.len).then(|| leaf.entry(mem, step.index))
    }
}

/// Number of entries before `key` and what `ties` look for, and whether an equal one is there.
pub(super) fn rank(mem: &Mem<'_>, root: &TreeRoot, key: u64, ties: &impl TieOrder) -> (u64, bool) {
    let mut aim = ByKey { key, ties };
    let (rank, entry) = rank_of(mem, root, &mut aim);
    (rank, entry.is_some_and(|entry| aim.compare(mem, entry) == Ordering::Equal))
}

/// Number of entries before what `aim` wants, and the entry that it is if that is in the same leaf.
pub(super) fn rank_of(
    mem: &Mem<'_>,
    root: &TreeRoot,
    aim: &mut impl SearchTarget,
) -> (u64, Option<TreeEntry>) {
    if root.node == 0 {
        return (0, None);
    }
    let (mut at, mut rank) = (root.node, 0);
    loop {
        let node = TreeNode::load(mem, at);
        let index = aim.choose(mem, &node);
        if node.is_leaf() {
            let entry = (index < node.len).then(|| node.entry(mem, index));
            return (rank + index, entry);
        }
        rank += (0..index).map(|i| node.slot(mem, i).count).sum::<u64>();
        at = node.slot(mem, index).child;
    }
}

/// The leaf with the entry of a rank below the number of items, and its index there.
pub(super) fn leaf_of(mem: &Mem<'_>, root: &TreeRoot, rank: u64) -> (TreeNode, u64) {
    let mut aim = ByRank(rank);
    let mut node = TreeNode::load(mem, root.node);
    loop {
        let index = aim.choose(mem, &node);
        if node.is_leaf() {
            return (node, index);
        }
        node = TreeNode::load(mem, node.slot(mem, index).child);
    }
}
