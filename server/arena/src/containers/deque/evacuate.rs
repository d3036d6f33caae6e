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
            0 => {
                let (node, within) = self.node_of(mem, from.index, MAX_SEARCH)?;
                (node, from.index - within)
            }
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
}
