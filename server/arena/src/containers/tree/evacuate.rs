//! Compaction: nodes that move.

use crate::Mem;

use super::Tree;
use super::node::TreeNode;
use super::path::{ByRank, TreePath};

impl Tree {
    /// Moves the nodes on the way to the entry of a rank out of places that are to be emptied.
    /// Returns the rank of the first entry behind the leaf; `None` behind the last one.
    ///
    /// The entries stay where they are: see [`Tree::replace`] for items that move.
    pub fn evacuate_nodes(self, mem: &mut Mem<'_>, rank: u64) -> Option<u64> {
        let mut root = self.root(mem);
        if rank >= root.len {
            return None;
        }
        let path = TreePath::to(mem, &root, &mut ByRank(rank));
        // The node that refers to the next one of the way, after it has moved itself.
        let mut parent: Option<(TreeNode, u64)> = None;
        for depth in 0..=root.depth {
            let step = path.step(depth);
            let mut node = TreeNode::load(mem, step.node);
            if let Some(to) = mem.evacuate(node.at, node.size()) {
                node = TreeNode::load(mem, to);
                match parent {
                    None => {
                        root.node = to;
                        mem.write(self.root, root);
                    }
                    Some((parent, index)) => {
                        let slot = parent.slot(mem, index);
                        parent.set_slot(mem, index, super::node::ChildSlot { child: to, ..slot });
                    }
                }
            }
            parent = Some((node, step.index));
        }
        let (leaf, index) = parent.expect("invariant: a way has a step for each level");
        let next = rank - index + leaf.len;
        (next < root.len).then_some(next)
    }
}
