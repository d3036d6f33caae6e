//! Many elements at a time: walking along runs, and whole deques as runs.

use std::ops::ControlFlow;

use crate::containers::packed::{self, Element};
use crate::{Mem, OutOfMemory};

use super::node::{DequeEnd, DequeNode, wide};
use super::{Deque, DequeCursor, DequeRoot};

impl Deque {
    /// Hands up to `count` elements from `index` on to `each`, until it breaks.
    pub fn walk<'m, B>(
        self,
        mem: &'m Mem<'_>,
        index: u64,
        count: u64,
        mut each: impl FnMut(Element<'m>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(start) = self.seek(mem, index) else { return ControlFlow::Continue(()) };
        let (mut node, mut at, mut left) = (start.node, start.at, count);
        loop {
            let run = node.run(mem);
            while at < run.len() {
                if left == 0 {
                    return ControlFlow::Continue(());
                }
                let (element, next) = packed::get(run, at);
                each(element)?;
                (at, left) = (next, left - 1);
            }
            if node.next == 0 {
                return ControlFlow::Continue(());
            }
            (node, at) = (DequeNode::load(mem, node.next), 0);
        }
    }

    /// As [`Self::walk`], from `index` down to the first.
    pub fn walk_back<'m, B>(
        self,
        mem: &'m Mem<'_>,
        index: u64,
        count: u64,
        mut each: impl FnMut(Element<'m>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut cursor = self.seek(mem, index);
        let mut left = count;
        while let Some(here) = cursor {
            if left == 0 {
                break;
            }
            each(self.get(mem, here))?;
            left -= 1;
            cursor = self.previous(mem, here);
        }
        ControlFlow::Continue(())
    }

    /// Bytes of all elements, if they are in so few nodes at most.
    pub fn bytes_of_few(self, mem: &Mem<'_>, nodes: u64) -> Option<u64> {
        let root = self.root(mem);
        if root.nodes > nodes {
            return None;
        }
        let (mut bytes, mut next) = (0, root.first);
        while next != 0 {
            let node = DequeNode::load(mem, next);
            bytes += node.used();
            next = node.next;
        }
        Some(bytes)
    }

    /// All elements in one run, if they are in one node.
    pub fn single_run<'m>(self, mem: &'m Mem<'_>) -> Option<&'m [u8]> {
        let root = self.root(mem);
        (root.nodes == 1).then(|| DequeNode::load(mem, root.first).run(mem))
    }

    /// Bytes of all nodes, guessed from the first `samples` of them; 0 are all.
    pub fn size(self, mem: &Mem<'_>, samples: u64) -> u64 {
        let root = self.root(mem);
        let (mut bytes, mut seen, mut next) = (0, 0, root.first);
        while next != 0 && (samples == 0 || seen < samples) {
            let node = DequeNode::load(mem, next);
            bytes += crate::allocated_size(node.size);
            seen += 1;
            next = node.next;
        }
        (bytes * root.nodes).checked_div(seen).unwrap_or(0)
    }

    /// Fills an empty deque with the elements of another one, which may be in another shard that is
    /// locked too.
    ///
    /// # Errors
    /// The arena is full; the deque is empty still.
    pub fn fill_from(self, mem: &mut Mem<'_>, other: Self) -> Result<(), OutOfMemory> {
        let source = other.root(mem);
        let mut root = DequeRoot::EMPTY;
        let mut next = source.first;
        while next != 0 {
            let from = DequeNode::load(mem, next);
            match DequeNode::create(mem, from.size, DequeEnd::Front) {
                Ok(mut node) => {
                    node.take(mem, DequeEnd::Back, &from);
                    node.previous = root.last;
                    node.store(mem);
                    match root.last {
                        0 => root.first = node.at,
                        last => {
                            DequeNode { next: node.at, ..DequeNode::load(mem, last) }.store(mem)
                        }
                    }
                    root.last = node.at;
                    root.len += node.count;
                    root.nodes += 1;
                }
                Err(full) => {
                    mem.write(self.root, root);
                    while !self.drain(mem, wide(u64::from(u32::MAX))) {}
                    return Err(full);
                }
            }
            next = from.next;
        }
        mem.write(self.root, root);
        Ok(())
    }
}

impl DequeCursor {
    /// Offset and length of the run that the element is in, and where in it the element begins.
    pub const fn place(&self) -> (u64, u64, usize) {
        (self.node.at + self.node.start, self.node.used(), self.at)
    }
}
