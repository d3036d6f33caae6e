//! Compaction: nodes that move.

use crate::Mem;

use super::Deque;
use super::node::DequeNode;

impl Deque {
    /// Moves nodes, from the one of element `index` on, out of places that are to be emptied: up to
    /// `most` nodes are visited. Returns the index of the first element behind them; `None` behind
    /// the last one.
    pub fn evacuate_nodes(self, mem: &mut Mem<'_>, index: u64, most: u64) -> Option<u64> {
        let mut root = self.root(mem);
        let (mut node, mut next) = self.node_of(mem, index)?;
        for _ in 0..most {
            if let Some(to) = mem.evacuate(node.at, node.size) {
                node.at = to;
                match node.previous {
                    0 => root.first = to,
                    at => DequeNode { next: to, ..DequeNode::load(mem, at) }.store(mem),
                }
                match node.next {
                    0 => root.last = to,
                    at => DequeNode { previous: to, ..DequeNode::load(mem, at) }.store(mem),
                }
                mem.write(self.root, root);
            }
            next += node.count;
            if node.next == 0 {
                return None;
            }
            node = DequeNode::load(mem, node.next);
        }
        Some(next)
    }

    /// The node of an element, and the index of the first element in it.
    fn node_of(self, mem: &Mem<'_>, index: u64) -> Option<(DequeNode, u64)> {
        let root = self.root(mem);
        if index >= root.len {
            return None;
        }
        let mut first;
        let mut node;
        if index < root.len / 2 {
            (node, first) = (DequeNode::load(mem, root.first), 0);
            while index - first >= node.count {
                first += node.count;
                node = DequeNode::load(mem, node.next);
            }
        } else {
            node = DequeNode::load(mem, root.last);
            first = root.len - node.count;
            while index < first {
                node = DequeNode::load(mem, node.previous);
                first -= node.count;
            }
        }
        Some((node, first))
    }
}
