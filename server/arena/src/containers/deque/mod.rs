//! A sequence that grows and shrinks at both ends: linked nodes, each with a run of packed
//! elements.
//!
//! ```text
//! root            node                                                   node
//! +-------+       +------+------+---------+---------+-----+------+       +------+-----
//! | first |------>| head | free | element | element | ... | free |<----->| head | ...
//! | last  |       +------+------+---------+---------+-----+------+       +------+-----
//! | len   |       0     32      start                     end    size
//! | nodes |
//! +-------+       head:  | previous 8 | next 8 | size 4 | start 4 | end 4 | elements 4 |
//! ```
//!
//! The run of a node grows in both directions, so that a push at either end moves nothing: it
//! touches the element's bytes, the node's head and the root. Elements are as
//! [`packed`] has them.
//!
//! How large nodes are is told with each change ([`DequeLimits`]), as it may differ from time to
//! time. An element that would fill more than half a node gets one of its own, of its own length.
//!
//! Invariants:
//! 1. No node is empty; `first` has nothing before it and `last` nothing behind it; neighbours
//!    refer to each other.
//! 2. A node's count is the number of elements in its run; the root's numbers are the sums.
//! 3. On error nothing has changed.

mod change;
mod check;
mod evacuate;
mod node;
#[cfg(test)]
mod tests;
mod whole;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::packed::{self, Element};
use crate::{Mem, Offset};

pub use check::check;
pub use evacuate::DequePlace;
use node::{DequeNode, wide};

const _: () = assert!(size_of::<DequeRoot>() == 32);

/// Where a deque begins. All zero is an empty one.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DequeRoot {
    /// Offset of the first node, or 0.
    pub first: u64,
    /// Offset of the last node, or 0.
    pub last: u64,
    /// Elements.
    pub len: u64,
    /// Nodes.
    pub nodes: u64,
}

impl DequeRoot {
    /// An empty deque.
    pub const EMPTY: Self = Self { first: 0, last: 0, len: 0, nodes: 0 };
}

/// How large a node may become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DequeLimits {
    /// Bytes, head included.
    pub bytes: u64,
    /// Elements; without a limit, nodes are made as large as they may become.
    pub count: Option<u64>,
}

/// The place of an element. Good until the deque changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DequeCursor {
    /// The element's number, from 0.
    pub index: u64,
    node: DequeNode,
    /// Where in the node's run it begins.
    at: usize,
}

/// A deque, by the place of its root.
#[derive(Clone, Copy, Debug)]
pub struct Deque {
    root: Offset<DequeRoot>,
}

impl Deque {
    /// The deque whose root is at `root`.
    pub const fn at(root: Offset<DequeRoot>) -> Self {
        Self { root }
    }

    /// Its root.
    #[inline]
    pub fn root(self, mem: &Mem<'_>) -> DequeRoot {
        mem.read(self.root)
    }

    /// Number of elements.
    #[inline]
    pub fn len(self, mem: &Mem<'_>) -> u64 {
        self.root(mem).len
    }

    /// Whether there are no elements.
    pub fn is_empty(self, mem: &Mem<'_>) -> bool {
        self.len(mem) == 0
    }

    /// The place of the first element.
    #[inline]
    pub fn first(self, mem: &Mem<'_>) -> Option<DequeCursor> {
        let root = self.root(mem);
        (root.first != 0).then(|| DequeCursor {
            index: 0,
            node: DequeNode::load(mem, root.first),
            at: 0,
        })
    }

    /// The place of the last element.
    #[inline]
    pub fn last(self, mem: &Mem<'_>) -> Option<DequeCursor> {
        let root = self.root(mem);
        if root.last == 0 {
            return None;
        }
        let node = DequeNode::load(mem, root.last);
        let run = node.run(mem);
        let at = packed::previous(run, run.len())?;
        Some(DequeCursor { index: root.len - 1, node, at })
    }

    /// The place of element `index`, found from the nearer end.
    pub fn seek(self, mem: &Mem<'_>, index: u64) -> Option<DequeCursor> {
        let (node, within) = self.node_of(mem, index, u64::MAX)?;
        let at = nth(&node, mem, within)?;
        Some(DequeCursor { index, node, at })
    }

    /// The node with element `index`, found from the nearer end, and the number of elements before
    /// the element in that node. `None` if the deque has no such element, or if the search would
    /// pass more than `most` nodes.
    #[inline]
    fn node_of(self, mem: &Mem<'_>, index: u64, most: u64) -> Option<(DequeNode, u64)> {
        let root = self.root(mem);
        if index >= root.len {
            return None;
        }
        let is_from_first = index < root.len / 2;
        let (at, mut within) = match is_from_first {
            true => (root.first, index),
            false => (root.last, root.len - 1 - index),
        };
        let mut node = DequeNode::load(mem, at);
        let mut left = most;
        while within >= node.count {
            left = left.checked_sub(1)?;
            within -= node.count;
            node = DequeNode::load(mem, if is_from_first { node.next } else { node.previous });
        }
        let within = if is_from_first { within } else { node.count - 1 - within };
        Some((node, within))
    }

    /// The place behind `cursor`.
    #[inline]
    pub fn next(self, mem: &Mem<'_>, cursor: DequeCursor) -> Option<DequeCursor> {
        let run = cursor.node.run(mem);
        let (at, index) = (packed::next(run, cursor.at), cursor.index + 1);
        if at < run.len() {
            return Some(DequeCursor { at, index, ..cursor });
        }
        let next = cursor.node.next;
        (next != 0).then(|| DequeCursor { index, node: DequeNode::load(mem, next), at: 0 })
    }

    /// The place before `cursor`.
    #[inline]
    pub fn previous(self, mem: &Mem<'_>, cursor: DequeCursor) -> Option<DequeCursor> {
        let index = cursor.index.checked_sub(1)?;
        if let Some(at) = packed::previous(cursor.node.run(mem), cursor.at) {
            return Some(DequeCursor { at, index, ..cursor });
        }
        let node = DequeNode::load(mem, cursor.node.previous);
        let run = node.run(mem);
        Some(DequeCursor { index, node, at: packed::previous(run, run.len())? })
    }

    /// The element at `cursor`.
    #[inline]
    pub fn get<'m>(self, mem: &'m Mem<'_>, cursor: DequeCursor) -> Element<'m> {
        packed::get(cursor.node.run(mem), cursor.at).0
    }

    /// The elements from `index` on.
    pub fn ascending<'m>(
        self,
        mem: &'m Mem<'_>,
        index: u64,
    ) -> impl Iterator<Item = Element<'m>> + use<'m> {
        let mut cursor = self.seek(mem, index);
        std::iter::from_fn(move || {
            let here = cursor?;
            cursor = self.next(mem, here);
            Some(self.get(mem, here))
        })
    }

    /// The elements from `index` down to the first.
    pub fn descending<'m>(
        self,
        mem: &'m Mem<'_>,
        index: u64,
    ) -> impl Iterator<Item = Element<'m>> + use<'m> {
        let mut cursor = self.seek(mem, index);
        std::iter::from_fn(move || {
            let here = cursor?;
            cursor = self.previous(mem, here);
            Some(self.get(mem, here))
        })
    }
}

/// Where in a node's run its element `within` begins.
fn nth(node: &DequeNode, mem: &Mem<'_>, within: u64) -> Option<usize> {
    let run = node.run(mem);
    if within <= node.count / 2 {
        packed::nth(run, wide(within))
    } else {
        packed::nth_back(run, wide(node.count - 1 - within))
    }
}
