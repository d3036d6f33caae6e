//! A sorted sequence of items that knows how many there are before each: a counted B+ tree.
//!
//! An item is ordered by a key of 64 bits and, among equal keys, by whatever the caller's
//! [`TieOrder`] compare. Every inner node knows the number of entries below each child, so that an
//! item is found by its rank as quickly as by its key.
//!
//! ```text
//! root                  inner node, 512 bytes: 1 to 21 slots
//! +-------+             +------+----------------------------------------+-----
//! | node  |------------>| head | first entry, child, entries below      | ...
//! | len   |             +------+-----------------|----------------------+-----
//! | depth |                                      v
//! +-------+             leaf, 512 bytes: 1 to 31 entries
//!                       +------+---+----------+----------+-----
//!                       | head | 0 | key item | key item | ...
//!                       +------+---+----------+----------+-----
//!
//! head:  | level 8 | size 8 | entries or slots 16 | 0 (32) |
//! slot:  | key 64 | item 48, count's high 16 | child / 64: 42, count's low 22 |
//! ```
//!
//! A tree of one leaf is as small as it can be: 64, 128, 256 or 512 bytes. All nodes of a larger
//! tree have 512 bytes: what a small change touches is one leaf and a slot a level above it.
//!
//! Nodes do not refer to their neighbours. A walk from one leaf to the next finds it by its
//! rank, once in some twenty items.
//!
//! Invariants:
//! 1. Entries ascend strictly, by key and then by tie.
//! 2. All leaves have the same depth, and no node is empty.
//! 3. A slot says the first entry and the number of entries below its child exactly. So an item
//!    that was removed is referred to nowhere.
//! 4. On error nothing has changed.

mod change;
mod check;
mod evacuate;
mod node;
mod path;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Mem, Offset, OutOfMemory};

pub use check::{CheckTreeEntry, check};
pub use node::TreeEntry;
use node::{ITEM_MASK, TreeNode};
use path::{ByRank, TreePath};

/// Levels above the leaves that a tree can have. No tree comes near: siblings have more than five
/// children on average.
const MAX_DEPTH: u32 = 20;

const _: () = assert!(size_of::<TreeRoot>() == 24);

/// Where a tree begins. All zero is an empty one.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TreeRoot {
    /// Offset of the topmost node; 0 if there are no items.
    pub node: u64,
    /// Items.
    pub len: u64,
    /// Levels above the leaves.
    pub depth: u32,
    /// Zero.
    pub reserved: u32,
}

impl TreeRoot {
    /// An empty tree.
    pub const EMPTY: Self = Self { node: 0, len: 0, depth: 0, reserved: 0 };
}

/// Compares what is looked for with items of the same key.
pub trait TieOrder {
    /// How what is looked for compares with the item at `item`.
    fn compare(&self, mem: &Mem<'_>, item: u64) -> Ordering;
}

/// Looks for the place before all items of a key.
#[derive(Clone, Copy, Debug)]
pub struct BeforeTies;

impl TieOrder for BeforeTies {
    fn compare(&self, _: &Mem<'_>, _: u64) -> Ordering {
        Ordering::Less
    }
}

/// Looks for the place behind all items of a key.
#[derive(Clone, Copy, Debug)]
pub struct AfterTies;

impl TieOrder for AfterTies {
    fn compare(&self, _: &Mem<'_>, _: u64) -> Ordering {
        Ordering::Greater
    }
}

/// A tree, by the place of its root.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    root: Offset<TreeRoot>,
}

impl Tree {
    /// The tree whose root is at `root`.
    pub const fn at(root: Offset<TreeRoot>) -> Self {
        Self { root }
    }

    /// Where its root is.
    pub const fn place(self) -> Offset<TreeRoot> {
        self.root
    }

    /// Its root.
    #[inline]
    pub fn root(self, mem: &Mem<'_>) -> TreeRoot {
        mem.read(self.root)
    }

    /// Number of items.
    #[inline]
    pub fn len(self, mem: &Mem<'_>) -> u64 {
        self.root(mem).len
    }

    /// Whether there are no items.
    pub fn is_empty(self, mem: &Mem<'_>) -> bool {
        self.len(mem) == 0
    }

    /// Number of items before `key` and what `ties` look for.
    pub fn rank(self, mem: &Mem<'_>, key: u64, ties: &impl TieOrder) -> u64 {
        path::rank(mem, &self.root(mem), key, ties).0
    }

    /// The rank of the item with this key that `ties` say is equal.
    pub fn find(self, mem: &Mem<'_>, key: u64, ties: &impl TieOrder) -> Option<u64> {
        let (rank, is_equal) = path::rank(mem, &self.root(mem), key, ties);
        is_equal.then_some(rank)
    }

    /// Number of entries for which `is_before` holds. It must hold for none behind one for which it
    /// does not.
    pub fn partition_point(
        self,
        mem: &Mem<'_>,
        is_before: impl FnMut(&Mem<'_>, TreeEntry) -> bool,
    ) -> u64 {
        path::rank_of(mem, &self.root(mem), &mut path::ByPredicate(is_before)).0
    }

    /// The entry that has `rank` others before it.
    pub fn nth(self, mem: &Mem<'_>, rank: u64) -> Option<TreeEntry> {
        Walk::new(mem, self.root(mem), rank).here()
    }

    /// The first entry.
    pub fn first(self, mem: &Mem<'_>) -> Option<TreeEntry> {
        let root = self.root(mem);
        (root.node != 0).then(|| TreeNode::load(mem, root.node).first_of(mem, 0))
    }

    /// The last entry.
    pub fn last(self, mem: &Mem<'_>) -> Option<TreeEntry> {
        self.nth(mem, self.len(mem).checked_sub(1)?)
    }

    /// The entries from `rank` on.
    pub fn ascending<'m>(
        self,
        mem: &'m Mem<'_>,
        rank: u64,
    ) -> impl Iterator<Item = TreeEntry> + use<'m> {
        let mut walk = Walk::new(mem, self.root(mem), rank);
        std::iter::from_fn(move || {
            let entry = walk.here();
            walk.forward();
            entry
        })
    }

    /// The entries from `rank` down to the first.
    pub fn descending<'m>(
        self,
        mem: &'m Mem<'_>,
        rank: u64,
    ) -> impl Iterator<Item = TreeEntry> + use<'m> {
        let mut walk = Walk::new(mem, self.root(mem), rank);
        std::iter::from_fn(move || {
            let entry = walk.here();
            walk.backward();
            entry
        })
    }

    /// Adds an item. Nothing that `ties` say is equal may be there.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn insert(
        self,
        mem: &mut Mem<'_>,
        key: u64,
        item: u64,
        ties: &impl TieOrder,
    ) -> Result<(), OutOfMemory> {
        debug_assert!(item != 0 && item <= ITEM_MASK);
        let mut root = self.root(mem);
        change::insert(mem, &mut root, TreeEntry { key, item }, ties)?;
        mem.write(self.root, root);
        Ok(())
    }

    /// Removes the item with this key that `ties` say is equal; returns it if it was there.
    pub fn remove(self, mem: &mut Mem<'_>, key: u64, ties: &impl TieOrder) -> Option<u64> {
        let mut root = self.root(mem);
        let path = TreePath::to(mem, &root, &mut path::ByKey { key, ties });
        let entry = path.entry(mem, &root)?;
        if entry.key != key || ties.compare(mem, entry.item) != Ordering::Equal {
            return None;
        }
        change::remove(mem, &mut root, &path, 1);
        mem.write(self.root, root);
        Some(entry.item)
    }

    /// Removes the entry that has `rank` others before it.
    pub fn remove_nth(self, mem: &mut Mem<'_>, rank: u64) -> Option<TreeEntry> {
        let mut root = self.root(mem);
        if rank >= root.len {
            return None;
        }
        let path = TreePath::to(mem, &root, &mut ByRank(rank));
        let entry = path.entry(mem, &root)?;
        change::remove(mem, &mut root, &path, 1);
        mem.write(self.root, root);
        Some(entry)
    }

    /// Gives the item with this key that `ties` say is equal another key; tells whether it was
    /// there. Nothing equal may be at the other key.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn rekey(
        self,
        mem: &mut Mem<'_>,
        key: u64,
        ties: &impl TieOrder,
        new: u64,
    ) -> Result<bool, OutOfMemory> {
        let root = self.root(mem);
        let path = TreePath::to(mem, &root, &mut path::ByKey { key, ties });
        let Some(entry) = path.entry(mem, &root) else { return Ok(false) };
        if entry.key != key || ties.compare(mem, entry.item) != Ordering::Equal {
            return Ok(false);
        }
        if new != key && !change::rekey_in_place(mem, &root, &path, new, ties) {
            self.insert(mem, new, entry.item, ties)?;
            self.remove(mem, key, ties);
        }
        Ok(true)
    }

    /// Lets the entry that has `rank` others before it refer to another item that orders as the old
    /// one did.
    pub fn replace(self, mem: &mut Mem<'_>, rank: u64, item: u64) {
        let root = self.root(mem);
        if rank < root.len {
            let path = TreePath::to(mem, &root, &mut ByRank(rank));
            change::replace(mem, &root, &path, item);
        }
    }

    /// Frees a tree in slices: hands up to about `most` entries to `each`, last ones first, and
    /// frees what held them. Returns whether the tree is empty now. It is a whole tree in between.
    pub fn drain(
        self,
        mem: &mut Mem<'_>,
        most: usize,
        mut each: impl FnMut(&mut Mem<'_>, TreeEntry),
    ) -> bool {
        let mut root = self.root(mem);
        let mut drained = 0;
        while root.len > 0 && drained < most as u64 {
            let path = TreePath::to(mem, &root, &mut ByRank(root.len - 1));
            let leaf = path.leaf(mem, &root);
            for index in 0..leaf.len {
                let entry = leaf.entry(mem, index);
                each(mem, entry);
            }
            drained += leaf.len;
            change::remove(mem, &mut root, &path, leaf.len);
            mem.write(self.root, root);
        }
        root.len == 0
    }
}

/// A place in a tree that does not change meanwhile.
struct Walk<'m, 'h> {
    mem: &'m Mem<'h>,
    root: TreeRoot,
    rank: u64,
    leaf: Option<TreeNode>,
    index: u64,
}

impl<'m, 'h> Walk<'m, 'h> {
    fn new(mem: &'m Mem<'h>, root: TreeRoot, rank: u64) -> Self {
        let mut walk = Self { mem, root, rank, leaf: None, index: 0 };
        walk.enter();
        walk
    }

    /// Finds the leaf of the rank.
    fn enter(&mut self) {
        self.leaf = (self.rank < self.root.len).then(|| {
            let (leaf, index) = path::leaf_of(self.mem, &self.root, self.rank);
            self.index = index;
            leaf
        });
    }

    #[inline]
    fn here(&self) -> Option<TreeEntry> {
        self.leaf.map(|leaf| leaf.entry(self.mem, self.index))
    }

    #[inline]
    fn forward(&mut self) {
        self.rank += 1;
        self.index += 1;
        if self.leaf.is_some_and(|leaf| self.index >= leaf.len) {
            self.enter();
        }
    }

    #[inline]
    fn backward(&mut self) {
        self.rank = self.rank.wrapping_sub(1);
        if self.index > 0 {
            self.index -= 1;
        } else if self.leaf.is_some() {
            self.enter();
        }
    }
}
