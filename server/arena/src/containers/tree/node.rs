//! One node: its head, and entries in a leaf or slots in an inner node.
//!
//! Invariant: the room behind the last entry or slot is zero, so that no image has what was
//! removed.

use crate::{Mem, Offset, OutOfMemory};

/// Bytes of a full-grown node.
pub(super) const NODE: u64 = 512;
/// The sizes that a leaf which is the whole tree grows through.
const SIZES: [u64; 4] = [64, 128, 256, NODE];

/// Bytes of a node's head.
const HEAD: u64 = 8;
/// Bytes of an entry in a leaf.
const ENTRY: u64 = 16;
/// Where the entries of a leaf begin.
const ENTRIES: u64 = 16;
/// Bytes of a slot in an inner node.
const SLOT: u64 = 24;
/// Where the slots of an inner node begin.
const SLOTS: u64 = 8;

pub(super) const ITEM_BITS: u32 = 48;
pub(super) const ITEM_MASK: u64 = (1 << ITEM_BITS) - 1;
/// Children are multiples of 64 below 2^48.
const CHILD_BITS: u32 = 42;
const CHILD_SHIFT: u32 = 6;
const COUNT_LOW_BITS: u32 = 64 - CHILD_BITS;
/// Entries in a subtree are fewer than 2^38.
pub(super) const COUNT_BITS: u32 = COUNT_LOW_BITS + 16;

const _: () = assert!(ENTRIES + 31 * ENTRY == NODE);
const _: () = assert!(SLOTS + 21 * SLOT == NODE);
const _: () = assert!(COUNT_BITS == 38);

/// An item and the key that orders it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeEntry {
    /// Its key.
    pub key: u64,
    /// Its offset.
    pub item: u64,
}

/// What an inner node knows of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ChildSlot {
    /// The first entry below the child.
    pub first: TreeEntry,
    /// The child's offset.
    pub child: u64,
    /// Entries below the child.
    pub count: u64,
}

impl ChildSlot {
    const fn encode(&self) -> [u64; 3] {
        let low = self.count & ((1 << COUNT_LOW_BITS) - 1);
        let high = self.count >> COUNT_LOW_BITS;
        [
            self.first.key,
            self.first.item | high << ITEM_BITS,
            self.child >> CHILD_SHIFT | low << CHILD_BITS,
        ]
    }

    const fn decode([key, item, child]: [u64; 3]) -> Self {
        Self {
            first: TreeEntry { key, item: item & ITEM_MASK },
            child: (child & ((1 << CHILD_BITS) - 1)) << CHILD_SHIFT,
            count: child >> CHILD_BITS | item >> ITEM_BITS << COUNT_LOW_BITS,
        }
    }
}

/// A node, with its head decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TreeNode {
    /// Its offset.
    pub at: u64,
    /// Levels below it: 0 is a leaf.
    pub level: u32,
    /// Index into [`SIZES`].
    step: usize,
    /// Entries or slots in it.
    pub len: u64,
}

impl TreeNode {
    #[inline]
    pub(super) fn load(mem: &Mem<'_>, at: u64) -> Self {
        Self::decode(at, mem.read(Offset::<u64>::new(at)))
    }

    #[inline]
    const fn decode(at: u64, head: u64) -> Self {
        let (level, step) = ((head & 0xff) as u32, (head >> 8 & 3) as usize);
        Self { at, level, step, len: head >> 16 & 0xffff }
    }

    const fn head(&self) -> u64 {
        self.level as u64 | (self.step as u64) << 8 | self.len << 16
    }

    /// Reads a head that is not trusted; `None` if it is none.
    pub(super) fn read_untrusted(mem: &Mem<'_>, at: u64) -> Option<Self> {
        let head = mem.read(Offset::<u64>::new(at));
        let node = Self::decode(at, head);
        let is_sized = node.level == 0 || node.size() == NODE;
        (node.head() == head && is_sized && node.len > 0 && node.len <= node.room()).then_some(node)
    }

    /// Writes the head with another number of entries or slots.
    #[inline]
    pub(super) fn set_len(&mut self, mem: &mut Mem<'_>, len: u64) {
        self.len = len;
        mem.write(Offset::new(self.at), self.head());
    }

    /// A node without entries, in memory that was taken for it.
    pub(super) fn format(mem: &mut Mem<'_>, at: u64, level: u32, step: usize) -> Self {
        let mut node = Self { at, level, step, len: 0 };
        node.set_len(mem, 0);
        node
    }

    /// The smallest leaf.
    pub(super) fn smallest(mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let at = mem.allocate_zeroed_from(SIZES[0], HEAD)?;
        Ok(Self::format(mem, at, 0, 0))
    }

    /// Memory for a full-grown node.
    pub(super) fn take_full_grown(mem: &mut Mem<'_>) -> Result<u64, OutOfMemory> {
        mem.allocate_zeroed_from(NODE, HEAD)
    }

    /// A full-grown node.
    pub(super) fn full_grown(mem: &mut Mem<'_>, at: u64, level: u32) -> Self {
        Self::format(mem, at, level, SIZES.len() - 1)
    }

    pub(super) const fn is_leaf(&self) -> bool {
        self.level == 0
    }

    /// Bytes.
    pub(super) const fn size(&self) -> u64 {
        SIZES[self.step]
    }

    /// Entries or slots that find room in it.
    #[inline]
    pub(super) const fn room(&self) -> u64 {
        (self.size() - self.base()) / self.width()
    }

    /// Whether it could be larger.
    pub(super) const fn is_small(&self) -> bool {
        self.step + 1 < SIZES.len()
    }

    #[inline]
    const fn base(&self) -> u64 {
        if self.is_leaf() { ENTRIES } else { SLOTS }
    }

    #[inline]
    const fn width(&self) -> u64 {
        if self.is_leaf() { ENTRY } else { SLOT }
    }

    const fn place(&self, index: u64) -> u64 {
        self.at + self.base() + index * self.width()
    }

    /// Entry `index` of a leaf.
    #[inline]
    pub(super) fn entry(&self, mem: &Mem<'_>, index: u64) -> TreeEntry {
        let [key, item] = mem.read(Offset::new(self.at + ENTRIES + index * ENTRY));
        TreeEntry { key, item }
    }

    /// Slot `index` of an inner node.
    #[inline]
    pub(super) fn slot(&self, mem: &Mem<'_>, index: u64) -> ChildSlot {
        ChildSlot::decode(mem.read(Offset::new(self.at + SLOTS + index * SLOT)))
    }

    /// The first entry of what slot or entry `index` refers to.
    #[inline]
    pub(super) fn first_of(&self, mem: &Mem<'_>, index: u64) -> TreeEntry {
        let [key, item]: [u64; 2] = mem.read(Offset::new(self.place(index)));
        TreeEntry { key, item: item & ITEM_MASK }
    }

    #[inline]
    pub(super) fn set_entry(&self, mem: &mut Mem<'_>, index: u64, entry: TreeEntry) {
        mem.write(Offset::new(self.at + ENTRIES + index * ENTRY), [entry.key, entry.item]);
    }

    #[inline]
    pub(super) fn set_slot(&self, mem: &mut Mem<'_>, index: u64, slot: ChildSlot) {
        mem.write(Offset::new(self.at + SLOTS + index * SLOT), slot.encode());
    }

    /// Makes room before `index`; what is in it is for the caller to write.
    pub(super) fn open(&mut self, mem: &mut Mem<'_>, index: u64) {
        let tail = (self.len - index) * self.width();
        if tail > 0 {
            let bytes = mem.bytes_mut(self.place(index), tail + self.width());
            bytes.copy_within(..bytes.len() - self.width_in_memory(), self.width_in_memory());
        }
        self.set_len(mem, self.len + 1);
    }

    /// Removes entry or slot `index`.
    pub(super) fn close(&mut self, mem: &mut Mem<'_>, index: u64) {
        let tail = (self.len - index - 1) * self.width();
        if tail > 0 {
            let bytes = mem.bytes_mut(self.place(index), tail + self.width());
            bytes.copy_within(self.width_in_memory().., 0);
        }
        self.zero_from(mem, self.len - 1);
        self.set_len(mem, self.len - 1);
    }

    /// The bytes behind the last entry or slot.
    #[cfg(test)]
    pub(super) fn room_behind<'m>(&self, mem: &'m Mem<'_>) -> &'m [u8] {
        let from = self.place(self.len);
        mem.bytes(from, self.at + self.size() - from)
    }

    /// Zeroes entries or slots from `index` to the last one.
    fn zero_from(&self, mem: &mut Mem<'_>, index: u64) {
        if index < self.len {
            mem.bytes_mut(self.place(index), (self.len - index) * self.width()).fill(0);
        }
    }

    const fn width_in_memory(&self) -> usize {
        if self.is_leaf() { size_of::<[u64; 2]>() } else { size_of::<[u64; 3]>() }
    }

    /// Moves what stands from `index` on to the end of `to`.
    pub(super) fn move_tail(&mut self, mem: &mut Mem<'_>, index: u64, to: &mut Self) {
        debug_assert_eq!(self.level, to.level);
        let moved = self.len - index;
        if moved > 0 {
            mem.copy(self.place(index), to.place(to.len), moved * self.width());
        }
        to.set_len(mem, to.len + moved);
        self.zero_from(mem, index);
        self.set_len(mem, index);
    }

    /// The entries below the node, by what it knows of its children.
    pub(super) fn total(&self, mem: &Mem<'_>) -> u64 {
        if self.is_leaf() {
            return self.len;
        }
        (0..self.len).map(|index| self.slot(mem, index).count).sum()
    }

    /// What a parent has to know of it.
    pub(super) fn summary(&self, mem: &Mem<'_>) -> ChildSlot {
        ChildSlot { first: self.first_of(mem, 0), child: self.at, count: self.total(mem) }
    }

    /// The same leaf one step larger.
    pub(super) fn grown(&self, mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        self.resized(mem, self.step + 1)
    }

    /// The same leaf in the smallest size that keeps some room.
    pub(super) fn shrunk(&self, mem: &mut Mem<'_>) -> Option<Self> {
        let fits = |size: &u64| (size - ENTRIES) / ENTRY > self.len + self.len / 2;
        let step = SIZES.iter().position(fits)?;
        if step >= self.step { None } else { self.resized(mem, step).ok() }
    }

    fn resized(&self, mem: &mut Mem<'_>, step: usize) -> Result<Self, OutOfMemory> {
        let at = mem.allocate_zeroed_from(SIZES[step], HEAD)?;
        let mut node = Self::format(mem, at, self.level, step);
        let mut old = *self;
        old.move_tail(mem, 0, &mut node);
        old.release(mem);
        Ok(node)
    }

    pub(super) fn release(self, mem: &mut Mem<'_>) {
        mem.release(self.at, self.size());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_all_their_bits() {
        for count in [0, 1, (1 << COUNT_LOW_BITS) - 1, 1 << COUNT_LOW_BITS, (1 << COUNT_BITS) - 1] {
            let first = TreeEntry { key: u64::MAX, item: ITEM_MASK };
            let slot = ChildSlot { first, child: ITEM_MASK & !63, count };
            assert_eq!(ChildSlot::decode(slot.encode()), slot);
        }
    }
}
