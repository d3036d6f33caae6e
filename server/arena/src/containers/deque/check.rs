//! A deque's invariants, checked after a restore: its bytes are untrusted until then.

use crate::containers::packed;
use crate::{Audit, Corruption, Mem, Offset};

use super::DequeRoot;
use super::node::{DequeNode, HEAD};

/// Claims and checks everything that belongs to the deque at `root`.
///
/// # Errors
/// The first broken invariant.
pub fn check(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    root_at: Offset<DequeRoot>,
) -> Result<DequeRoot, Corruption> {
    let root = mem.read(root_at);
    let mut seen = DequeRoot::EMPTY;
    let mut next = root.first;
    while next != 0 {
        let node = claim(mem, audit, next)?;
        if node.previous != seen.last {
            let reason = format!("deque: {:#x} stands behind {:#x}", node.previous, seen.last);
            return Err(Corruption::at(next, reason));
        }
        if packed::check(node.run(mem)).map(|count| count as u64) != Some(node.count) {
            let reason = format!("deque: a node of {} elements is damaged", node.count);
            return Err(Corruption::at(next, reason));
        }
        if seen.first == 0 {
            seen.first = next;
        }
        seen.last = next;
        seen.len += node.count;
        seen.nodes += 1;
        next = node.next;
    }
    if seen != root {
        return Err(Corruption::at(root_at.raw(), format!("deque: {root:?}, but it is {seen:?}")));
    }
    Ok(root)
}

/// A node that lies in the arena, belongs to no other object, and has a run within its bounds.
fn claim(mem: &Mem<'_>, audit: &Audit<'_>, at: u64) -> Result<DequeNode, Corruption> {
    let capacity = mem.arena().capacity();
    if at.checked_add(HEAD).is_none_or(|end| end > capacity) {
        return Err(Corruption::at(0, format!("deque: a node at {at:#x}, outside the arena")));
    }
    let node = DequeNode::load(mem, at);
    let is_sound = HEAD <= node.start
        && node.start < node.end
        && node.end <= node.size
        && node.count > 0
        && at.checked_add(node.size).is_some_and(|end| end <= capacity);
    if !is_sound {
        return Err(Corruption::at(at, format!("deque: impossible node {node:?}")));
    }
    audit.claim(at, node.size, mem.shard())?;
    Ok(node)
}
