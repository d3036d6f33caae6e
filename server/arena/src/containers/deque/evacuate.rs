//! Compaction: nodes that move.

use crate::Mem;

use super::Deque;
use super::node::DequeNode;

/// Nodes that a search for an element passes, at most.
const MAX_SEARCH: u64 = 4096;

/// A place in a deque.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DequePlace {
    /// Index of an element.
    pub index: u64,
    /// Offset of the node that begins with it, as long as the deque does not change; 0: not known.
    pub node: u64,
}

impl Deque {
    /// Moves nodes, from a place on, out of places that are to be emptied: up to `most` nodes are
    /// visited. Returns the place behind them; `None` behind the last one. Without the offset of
    /// the node, those far from both ends of a long deque are not reached.
    pub fn evacuate_nodes(
        self,
        mem: &mut Mem<'_>,
        from: DequePlace,
        most: u64,
    ) -> Option<DequePlace> {
        let mut root = self.root(mem);
        let (mut node, mut next) = match from.node {
            0 => self.node_of(mem, from.index)?,
            at => (DequeNode::load(mem, at), from.index),
        };
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
        Some(DequePlace { index: next, node: node.at })
    }

    /// The node of an element, and the index of the first element in it; `None` if there is none
    /// within [`MAX_SEARCH`] nodes of an end.
    fn node_of(self, mem: &Mem<'_>, index: u64) -> Option<(DequeNode, u64)> {
        let root = self.root(mem);
        if index >= root.len {
            return None;
        }
        let mut first;
        let mut node;
        if index < root.len / 2 {
            (node, first) = (DequeNode::load(mem, root.first), 0);
            let mut passed = 0;
            while index - first >= node.count {
                first += node.count;
                passed += 1;
                if passed > MAX_SEARCH {
                    return None;
                }
                node = DequeNode::load(mem, node.next);
            }
        } else {
            node = DequeNode::load(mem, root.last);
            first = root.len - node.count;
            let mut passed = 0;
            while index < first {
                passed += 1;
                if passed > MAX_SEARCH {
                    return None;
                }
                node = DequeNode::load(mem, node.previous);
                first -= node.count;
            }
        }
        Some((node, first))
    }
}
