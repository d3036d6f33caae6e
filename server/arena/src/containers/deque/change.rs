//! Adding, changing and removing elements; splitting nodes that are full and merging sparse ones.

use crate::containers::packed::{self, Encoded};
use crate::{Mem, OutOfMemory};

use super::node::{DequeEnd, DequeNode, HEAD, wide};
use super::{Deque, DequeCursor, DequeLimits, DequeRoot};

/// Bytes of a node without a known final size.
const SMALL_NODE: u64 = 256;

impl DequeLimits {
    /// Bytes of a new node that begins with an element of `len` bytes.
    fn size_for(self, len: u64, is_first: bool) -> u64 {
        if len > self.room() / 2 {
            return HEAD + len;
        }
        let foreseen = if is_first || self.count.is_some() { SMALL_NODE } else { self.bytes };
        foreseen.min(self.bytes).max(HEAD + len)
    }

    /// Bytes of the elements of a node.
    const fn room(self) -> u64 {
        self.bytes.saturating_sub(HEAD)
    }

    /// Whether a node may have an element of `len` bytes more, at the cost of being larger.
    fn allow(self, node: &DequeNode, len: u64) -> bool {
        node.used() + len <= self.room().max(node.room())
            && self.count.is_none_or(|most| node.count < most)
    }
}

impl Deque {
    /// Adds an element before all others.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn push_front(
        self,
        mem: &mut Mem<'_>,
        element: &Encoded<'_>,
        limits: DequeLimits,
    ) -> Result<(), OutOfMemory> {
        self.push(mem, element, limits, DequeEnd::Front)
    }

    /// Adds an element behind all others.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn push_back(
        self,
        mem: &mut Mem<'_>,
        element: &Encoded<'_>,
        limits: DequeLimits,
    ) -> Result<(), OutOfMemory> {
        self.push(mem, element, limits, DequeEnd::Back)
    }

    fn push(
        self,
        mem: &mut Mem<'_>,
        element: &Encoded<'_>,
        limits: DequeLimits,
        side: DequeEnd,
    ) -> Result<(), OutOfMemory> {
        let mut root = self.root(mem);
        let end = if side == DequeEnd::Front { root.first } else { root.last };
        let old = (end != 0).then(|| DequeNode::load(mem, end));
        if let Some(mut node) = old
            && make_room(mem, &mut root, &mut node, element.len() as u64, limits, side)
        {
            node.put(mem, side, element);
            node.store(mem);
        } else {
            let (previous, next) = if side == DequeEnd::Front { (0, end) } else { (end, 0) };
            add_node(mem, &mut root, element, limits, (previous, next), side)?;
        }
        root.len += 1;
        mem.write(self.root, root);
        Ok(())
    }

    /// Adds an element before the one at `cursor`.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn insert_before(
        self,
        mem: &mut Mem<'_>,
        cursor: DequeCursor,
        element: &Encoded<'_>,
        limits: DequeLimits,
    ) -> Result<(), OutOfMemory> {
        self.insert(mem, cursor.node, cursor.at, element, limits)
    }

    /// Adds an element behind the one at `cursor`.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn insert_after(
        self,
        mem: &mut Mem<'_>,
        cursor: DequeCursor,
        element: &Encoded<'_>,
        limits: DequeLimits,
    ) -> Result<(), OutOfMemory> {
        let at = packed::next(cursor.node.run(mem), cursor.at);
        self.insert(mem, cursor.node, at, element, limits)
    }

    /// Adds an element at a place in a node's run, which may be its end.
    fn insert(
        self,
        mem: &mut Mem<'_>,
        mut node: DequeNode,
        at: usize,
        element: &Encoded<'_>,
        limits: DequeLimits,
    ) -> Result<(), OutOfMemory> {
        let mut root = self.root(mem);
        let (at, len) = (at as u64, element.len() as u64);
        let side = if at == 0 { DequeEnd::Front } else { DequeEnd::Back };
        if limits.allow(&node, len) && enlarge(mem, &mut root, &mut node, len, limits, side) {
            open(mem, &mut node, at, len);
            element.write_to(mem.bytes_mut(node.at + node.start + at, len));
            node.count += 1;
            node.store(mem);
        } else if at == 0 || at == node.used() {
            insert_between(mem, &mut root, &node, element, limits, side)?;
        } else {
            split(mem, &mut root, node, at, element, limits)?;
        }
        root.len += 1;
        mem.write(self.root, root);
        Ok(())
    }

    /// Puts an element into the place of the one at `cursor`.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set(
        self,
        mem: &mut Mem<'_>,
        cursor: DequeCursor,
        element: &Encoded<'_>,
        limits: DequeLimits,
    ) -> Result<(), OutOfMemory> {
        let mut node = cursor.node;
        let at = cursor.at as u64;
        let old = (packed::next(node.run(mem), cursor.at) - cursor.at) as u64;
        let new = element.len() as u64;
        if new > old && node.used() - old + new > node.room() {
            // The new one is inserted before the old one, which goes then.
            self.insert_before(mem, cursor, element, limits)?;
            if let Some(cursor) = self.seek(mem, cursor.index + 1) {
                self.remove(mem, cursor);
            }
            return Ok(());
        }
        if new != old {
            close(mem, &mut node, at, old);
            open(mem, &mut node, at, new);
            node.store(mem);
        }
        element.write_to(mem.bytes_mut(node.at + node.start + at, new));
        Ok(())
    }

    /// Removes the element at `cursor`; returns the place of the one that was behind it.
    pub fn remove(self, mem: &mut Mem<'_>, cursor: DequeCursor) -> Option<DequeCursor> {
        let mut root = self.root(mem);
        let mut node = cursor.node;
        let mut at = cursor.at as u64;
        root.len -= 1;
        if node.count == 1 {
            unlink(mem, &mut root, &node);
            mem.write(self.root, root);
            let next = node.next;
            let index = cursor.index;
            return (next != 0).then(|| DequeCursor {
                index,
                node: DequeNode::load(mem, next),
                at: 0,
            });
        }
        let len = (packed::next(node.run(mem), cursor.at) - cursor.at) as u64;
        node.count -= 1;
        close(mem, &mut node, at, len);
        node.store(mem);
        (node, at) = merge(mem, &mut root, node, at);
        mem.write(self.root, root);
        if at < node.used() {
            return Some(DequeCursor { index: cursor.index, node, at: wide(at) });
        }
        let next = node.next;
        (next != 0).then(|| DequeCursor {
            index: cursor.index,
            node: DequeNode::load(mem, next),
            at: 0,
        })
    }

    /// Removes the first `count` elements, or all that are there.
    pub fn remove_front(self, mem: &mut Mem<'_>, count: u64) {
        self.remove_end(mem, count, DequeEnd::Front);
    }

    /// Removes the last `count` elements, or all that are there.
    pub fn remove_back(self, mem: &mut Mem<'_>, count: u64) {
        self.remove_end(mem, count, DequeEnd::Back);
    }

    fn remove_end(self, mem: &mut Mem<'_>, count: u64, side: DequeEnd) {
        let mut root = self.root(mem);
        let mut left = count.min(root.len);
        while left > 0 {
            let end = if side == DequeEnd::Front { root.first } else { root.last };
            let mut node = DequeNode::load(mem, end);
            if node.count <= left {
                left -= node.count;
                root.len -= node.count;
                unlink(mem, &mut root, &node);
                continue;
            }
            let run = node.run(mem);
            let steps = 0..left;
            let old = node;
            if side == DequeEnd::Front {
                node.start += steps.fold(0, |at, _| packed::next(run, at)) as u64;
                node.zero(mem, old.start, node.start);
            } else {
                let at = steps.fold(run.len(), |at, _| packed::previous(run, at).unwrap_or(0));
                node.end = node.start + at as u64;
                node.zero(mem, node.end, old.end);
            }
            node.count -= left;
            node.store(mem);
            root.len -= left;
            left = 0;
        }
        mem.write(self.root, root);
    }

    /// Frees a deque in slices: nodes of up to about `most` elements. Returns whether the deque is
    /// empty now. It is a whole deque in between.
    pub fn drain(self, mem: &mut Mem<'_>, most: usize) -> bool {
        let mut root = self.root(mem);
        let mut drained = 0;
        while root.first != 0 && drained < most as u64 {
            let node = DequeNode::load(mem, root.first);
            // What a node costs to free does not depend on how many elements it has.
            drained += node.count.min(16);
            root.len -= node.count;
            unlink(mem, &mut root, &node);
        }
        mem.write(self.root, root);
        root.first == 0
    }
}

/// Makes room for `len` bytes at one side of a node at an end of the deque, if it can be; the
/// node's head is then for the caller to store.
#[inline]
fn make_room(
    mem: &mut Mem<'_>,
    root: &mut DequeRoot,
    node: &mut DequeNode,
    len: u64,
    limits: DequeLimits,
    side: DequeEnd,
) -> bool {
    if limits.count.is_some_and(|most| node.count >= most) {
        return false;
    }
    let free = if side == DequeEnd::Front { node.before() } else { node.behind() };
    if free >= len && node.used() + len <= limits.room() {
        return true;
    }
    if !limits.allow(node, len) {
        return false;
    }
    if node.used() + len > node.room() / 2 {
        return node.size < limits.bytes && grow(mem, root, node, len, limits, side);
    }
    let start = HEAD + (node.room() - node.used() - len) / 2;
    node.slide(mem, if side == DequeEnd::Front { start + len } else { start });
    true
}

/// Makes a node large enough for `len` bytes more, wherever in it they are to stand; the head is
/// then for the caller to store.
fn enlarge(
    mem: &mut Mem<'_>,
    root: &mut DequeRoot,
    node: &mut DequeNode,
    len: u64,
    limits: DequeLimits,
    side: DequeEnd,
) -> bool {
    node.used() + len <= node.room()
        || node.size < limits.bytes && grow(mem, root, node, len, limits, side)
}

/// Moves a node's run to a node of at least twice the size, with all the room at one side. If there
/// is no memory for that, nothing has changed.
fn grow(
    mem: &mut Mem<'_>,
    root: &mut DequeRoot,
    node: &mut DequeNode,
    len: u64,
    limits: DequeLimits,
    side: DequeEnd,
) -> bool {
    let size = (node.size * 2).max(HEAD + node.used() + len).min(limits.bytes);
    if size < HEAD + node.used() + len {
        return false;
    }
    let other = if side == DequeEnd::Front { DequeEnd::Back } else { DequeEnd::Front };
    let Ok(mut grown) = DequeNode::create(mem, size, other) else { return false };
    grown.take(mem, side, node);
    (grown.previous, grown.next) = (node.previous, node.next);
    grown.store(mem);
    refer(mem, root, grown.previous, grown.at, grown.next);
    node.release(mem);
    *node = grown;
    true
}

/// Opens `len` bytes at `at` in a run that has room for them somewhere; the head is not stored.
fn open(mem: &mut Mem<'_>, node: &mut DequeNode, at: u64, len: u64) {
    let is_nearer_front = at < node.used() - at;
    if node.before() >= len && (is_nearer_front || node.behind() < len) {
        node.shift(mem, node.start, node.start - len, at);
        node.start -= len;
        return;
    }
    if node.behind() < len {
        node.slide(mem, HEAD);
    }
    let place = node.start + at;
    node.shift(mem, place, place + len, node.used() - at);
    node.end += len;
}

/// Closes `len` bytes at `at` in a run; the head is not stored.
fn close(mem: &mut Mem<'_>, node: &mut DequeNode, at: u64, len: u64) {
    let (place, tail) = (node.start + at, node.used() - at - len);
    if at < tail {
        node.shift(mem, node.start, node.start + len, at);
        node.start += len;
        node.zero(mem, node.start - len, node.start);
    } else {
        node.shift(mem, place + len, place, tail);
        node.end -= len;
        node.zero(mem, node.end, node.end + len);
    }
}

/// Lets a node's neighbours, or the root, refer to `node` (0 is none).
fn refer(mem: &mut Mem<'_>, root: &mut DequeRoot, previous: u64, node: u64, next: u64) {
    link(mem, root, previous, node);
    link(mem, root, node, next);
}

/// Lets two neighbours refer to each other; one of them may be none, and then the other is an end.
fn link(mem: &mut Mem<'_>, root: &mut DequeRoot, left: u64, right: u64) {
    match left {
        0 => root.first = right,
        left => {
            let mut node = DequeNode::load(mem, left);
            node.next = right;
            node.store(mem);
        }
    }
    match right {
        0 => root.last = left,
        right => {
            let mut node = DequeNode::load(mem, right);
            node.previous = left;
            node.store(mem);
        }
    }
}

fn unlink(mem: &mut Mem<'_>, root: &mut DequeRoot, node: &DequeNode) {
    link(mem, root, node.previous, node.next);
    node.release(mem);
    root.nodes -= 1;
}

/// Links a new node with one element between two neighbours.
fn add_node(
    mem: &mut Mem<'_>,
    root: &mut DequeRoot,
    element: &Encoded<'_>,
    limits: DequeLimits,
    (previous, next): (u64, u64),
    side: DequeEnd,
) -> Result<(), OutOfMemory> {
    let size = limits.size_for(element.len() as u64, root.nodes == 0);
    let other = if side == DequeEnd::Front { DequeEnd::Back } else { DequeEnd::Front };
    let mut node = DequeNode::create(mem, size, other)?;
    node.put(mem, side, element);
    node.store(mem);
    refer(mem, root, previous, node.at, next);
    root.nodes += 1;
    Ok(())
}

/// Adds an element before or behind a node that has no room: to its neighbour, or in a new node.
fn insert_between(
    mem: &mut Mem<'_>,
    root: &mut DequeRoot,
    node: &DequeNode,
    element: &Encoded<'_>,
    limits: DequeLimits,
    side: DequeEnd,
) -> Result<(), OutOfMemory> {
    let (previous, next, neighbour, other) = match side {
        DequeEnd::Front => (node.previous, node.at, node.previous, DequeEnd::Back),
        DequeEnd::Back => (node.at, node.next, node.next, DequeEnd::Front),
    };
    if neighbour != 0 {
        let mut neighbour = DequeNode::load(mem, neighbour);
        if make_room(mem, root, &mut neighbour, element.len() as u64, limits, other) {
            neighbour.put(mem, other, element);
            neighbour.store(mem);
            return Ok(());
        }
    }
    add_node(mem, root, element, limits, (previous, next), side)
}

/// Splits a node in two at `at`, and adds an element between the parts.
fn split(
    mem: &mut Mem<'_>,
    root: &mut DequeRoot,
    mut left: DequeNode,
    at: u64,
    element: &Encoded<'_>,
    limits: DequeLimits,
) -> Result<(), OutOfMemory> {
    let len = element.len() as u64;
    let tail = left.used() - at;
    let full = limits.count.is_some_and(|most| most < 2);
    let is_left = !full && at + len <= left.room();
    let size = limits.bytes.max(HEAD + tail);
    let is_right = !full && !is_left && HEAD + tail + len <= size;
    let mut right = DequeNode::create(mem, size, DequeEnd::Back)?;
    let mut own = None;
    if !is_left && !is_right {
        match DequeNode::create(mem, limits.size_for(len, false), DequeEnd::Front) {
            Ok(node) => own = Some(node),
            Err(full) => {
                right.release(mem);
                return Err(full);
            }
        }
    }
    let moved = DequeNode { start: left.start + at, count: 0, ..left };
    right.take(mem, DequeEnd::Front, &moved);
    let run = moved.run(mem);
    let mut place = 0;
    while place < run.len() {
        place = packed::next(run, place);
        right.count += 1;
    }
    left.end = moved.start;
    left.zero(mem, left.end, moved.end);
    left.count -= right.count;
    if is_left {
        if left.behind() < len {
            left.slide(mem, HEAD);
        }
        left.put(mem, DequeEnd::Back, element);
    } else if is_right {
        right.put(mem, DequeEnd::Front, element);
    }
    let next = left.next;
    left.store(mem);
    right.store(mem);
    refer(mem, root, left.at, right.at, next);
    root.nodes += 1;
    if let Some(mut node) = own {
        node.put(mem, DequeEnd::Back, element);
        node.store(mem);
        refer(mem, root, left.at, node.at, right.at);
        root.nodes += 1;
    }
    Ok(())
}

/// Merges a sparse node with a neighbour, if the two fill no more than half of the larger one.
/// Returns the node with what was at `at`, and where that is.
fn merge(mem: &mut Mem<'_>, root: &mut DequeRoot, node: DequeNode, at: u64) -> (DequeNode, u64) {
    if node.used() > node.room() / 4 {
        return (node, at);
    }
    for is_left in [true, false] {
        let neighbour = if is_left { node.previous } else { node.next };
        if neighbour == 0 {
            continue;
        }
        let neighbour = DequeNode::load(mem, neighbour);
        let (left, right) = if is_left { (neighbour, node) } else { (node, neighbour) };
        let at = if is_left { left.used() + at } else { at };
        let is_into_left = left.size >= right.size;
        let (mut target, gone) = if is_into_left { (left, right) } else { (right, left) };
        if left.used() + right.used() > target.room() / 2 {
            continue;
        }
        let side = if is_into_left { DequeEnd::Back } else { DequeEnd::Front };
        let free = if is_into_left { target.behind() } else { target.before() };
        if free < gone.used() {
            let start = if is_into_left { HEAD } else { target.size - target.used() };
            target.slide(mem, start);
        }
        target.take(mem, side, &gone);
        target.store(mem);
        unlink(mem, root, &gone);
        return (DequeNode::load(mem, target.at), at);
    }
    (node, at)
}
