//! One node: its head, and the run of elements somewhere in the room behind it.
//!
//! Invariant: the room before and behind the run is zero, so that no image has what was removed.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::containers::packed::Encoded;
use crate::{Mem, Offset, OutOfMemory};

/// Bytes of a node's head.
pub(super) const HEAD: u64 = size_of::<Head>() as u64;

const _: () = assert!(HEAD == 32);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Head {
    previous: u64,
    next: u64,
    size: u32,
    start: u32,
    end: u32,
    count: u32,
}

/// A node, with its head decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DequeNode {
    /// Its offset.
    pub at: u64,
    /// Offset of the node before it, or 0.
    pub previous: u64,
    /// Offset of the node behind it, or 0.
    pub next: u64,
    /// Bytes of the whole object.
    pub size: u64,
    /// Where in it the run begins.
    pub start: u64,
    /// Where in it the run ends.
    pub end: u64,
    /// Elements.
    pub count: u64,
}

/// Where in a new node its first element is to stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DequeEnd {
    /// At the front, with room behind.
    Front,
    /// At the back, with room before.
    Back,
}

impl DequeNode {
    #[inline]
    pub(super) fn load(mem: &Mem<'_>, at: u64) -> Self {
        let head: Head = mem.read(Offset::new(at));
        Self {
            at,
            previous: head.previous,
            next: head.next,
            size: u64::from(head.size),
            start: u64::from(head.start),
            end: u64::from(head.end),
            count: u64::from(head.count),
        }
    }

    #[inline]
    pub(super) fn store(&self, mem: &mut Mem<'_>) {
        let head = Head {
            previous: self.previous,
            next: self.next,
            size: narrow(self.size),
            start: narrow(self.start),
            end: narrow(self.end),
            count: narrow(self.count),
        };
        mem.write(Offset::new(self.at), head);
    }

    /// A node without elements; it is not stored yet.
    pub(super) fn create(
        mem: &mut Mem<'_>,
        size: u64,
        side: DequeEnd,
    ) -> Result<Self, OutOfMemory> {
        let at = mem.allocate_zeroed_from(size, HEAD)?;
        let start = if side == DequeEnd::Front { HEAD } else { size };
        Ok(Self { at, previous: 0, next: 0, size, start, end: start, count: 0 })
    }

    pub(super) fn release(self, mem: &mut Mem<'_>) {
        mem.release(self.at, self.size);
    }

    /// Bytes of its elements.
    #[inline]
    pub(super) const fn used(&self) -> u64 {
        self.end - self.start
    }

    /// Bytes that elements can take.
    pub(super) const fn room(&self) -> u64 {
        self.size - HEAD
    }

    /// Bytes free before the run.
    #[inline]
    pub(super) const fn before(&self) -> u64 {
        self.start - HEAD
    }

    /// Bytes free behind the run.
    #[inline]
    pub(super) const fn behind(&self) -> u64 {
        self.size - self.end
    }

    /// Its elements.
    #[inline]
    pub(super) fn run<'m>(&self, mem: &'m Mem<'_>) -> &'m [u8] {
        mem.bytes(self.at + self.start, self.used())
    }

    /// Writes an element into the room before or behind the run; the head is not stored.
    #[inline]
    pub(super) fn put(&mut self, mem: &mut Mem<'_>, side: DequeEnd, element: &Encoded<'_>) {
        let len = element.len() as u64;
        let place = match side {
            DequeEnd::Front => {
                self.start -= len;
                self.start
            }
            DequeEnd::Back => {
                self.end += len;
                self.end - len
            }
        };
        self.count += 1;
        element.write_to(mem.bytes_mut(self.at + place, len));
    }

    /// Moves `len` bytes within the node.
    pub(super) fn shift(&self, mem: &mut Mem<'_>, from: u64, to: u64, len: u64) {
        if len == 0 || from == to {
            return;
        }
        let (low, by) = (from.min(to), wide(from.abs_diff(to)));
        let bytes = mem.bytes_mut(self.at + low, len + by as u64);
        if from > to {
            bytes.copy_within(by.., 0);
        } else {
            bytes.copy_within(..bytes.len() - by, by);
        }
    }

    /// Moves the run so that it begins at `start`; the head is not stored.
    pub(super) fn slide(&mut self, mem: &mut Mem<'_>, start: u64) {
        let (old, used) = (self.start..self.end, self.used());
        self.shift(mem, self.start, start, used);
        self.end = start + used;
        self.start = start;
        // What the run has left.
        if start > old.start {
            self.zero(mem, old.start, start.min(old.end));
        } else {
            self.zero(mem, self.end.max(old.start), old.end);
        }
    }

    /// Zeroes the bytes from `from` to `to`, which are free.
    #[inline]
    pub(super) fn zero(&self, mem: &mut Mem<'_>, from: u64, to: u64) {
        if from < to {
            mem.bytes_mut(self.at + from, to - from).fill(0);
        }
    }

    /// Copies the run of another node to this one's back or front, where there is room; the head
    /// is not stored.
    pub(super) fn take(&mut self, mem: &mut Mem<'_>, side: DequeEnd, other: &Self) {
        let len = other.used();
        let place = match side {
            DequeEnd::Front => {
                self.start -= len;
                self.start
            }
            DequeEnd::Back => {
                self.end += len;
                self.end - len
            }
        };
        if len > 0 {
            mem.copy(other.at + other.start, self.at + place, len);
        }
        self.count += other.count;
    }
}

/// Nodes are shorter than 4 GiB.
#[expect(clippy::cast_possible_truncation, reason = "an element is shorter than 2 GiB")]
const fn narrow(len: u64) -> u32 {
    debug_assert!(len <= u32::MAX as u64);
    len as u32
}

#[expect(clippy::cast_possible_truncation, reason = "nodes are shorter than 4 GiB")]
pub(super) const fn wide(len: u64) -> usize {
    len as usize
}
