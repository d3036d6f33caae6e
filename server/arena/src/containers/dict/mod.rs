//! A hash table that grows without a stall: extendible hashing over small segments.
//!
//! The top bits of an item's hash choose an entry of the directory, and so a segment; sixteen other
//! bits, the *tag*, choose a bucket in the segment and are kept in the slot. A segment that is full
//! grows in small steps, and when it is large it splits in two. No operation touches more than one
//! or two segments of at most 2 KiB, save for doubling the directory, which is 8 bytes a segment.
//!
//! ```text
//! hash, 64 bits:  | prefix (top `depth` bits) ...            | tag 16 | shard 6 |
//!
//! root            directory (2^depth)      segment: 2 to 33 buckets of 64 bytes
//! +-----------+   +---------+              +--------+------+------+------+
//! | directory |-->| segment |------------->| head   | slot | slot | ...  |  bucket 0: 7 slots
//! | len       |   | segment |--+           +--------+------+------+------+
//! | depth ... |   | ...     |  +--> ...    | slot   | slot | slot | ...  |  bucket 1: 8 slots
//! +-----------+   +---------+              +--------+------+------+------+
//!
//! slot:  | tag 16 | offset of the item 48 |      0 is an empty slot
//! head:  | buckets 16 | local depth 8 | 0 (8) | items 32 |
//! ```
//!
//! At depth 0 the root points to the one segment itself. The home of a tag among `n` buckets is
//! `tag * n / 65536`: the order of buckets is the order of tags whatever `n` is. That makes a scan
//! simple and exact: it walks prefixes and, within them, tags, which no growth, split or merge ever
//! changes.
//!
//! Invariants:
//! 1. An item lies in its home bucket or in one of the next [`PROBES`] - 1, wrapping round.
//! 2. A segment of local depth `l` stands in the `2^(depth - l)` neighbouring directory entries
//!    whose top `l` bits are those of its items' hashes.
//! 3. A segment's item count is that of its used slots; the root's is their sum.
//! 4. On error nothing has changed.

mod check;
mod evacuate;
mod resize;
mod scan;
mod segment;
mod table;
#[cfg(test)]
mod tests;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Mem, Offset, OutOfMemory, RacyView};

pub use check::{CheckDictItem, ShortHash, check};
pub use scan::DictCursor;
use segment::Segment;
use table::SlotTable;

/// Buckets in which an item may lie.
pub const PROBES: u64 = 3;
/// Slots in a bucket, a cache line.
const SLOTS: u64 = 8;
const OFFSET_BITS: u32 = 48;
/// Bits of the hash that slots keep, and the bits below them.
const TAG_BITS: u32 = 16;
const TAG_SHIFT: u32 = 6;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// No directory has more than 2^26 entries.
const MAX_DEPTH: u32 = 26;

/// Bytes of segments for each item, measured with a million random keys: slots have 8 bytes, and
/// nine of ten are in use.
const BYTES_PER_ITEM: u64 = 9;

const _: () = assert!(size_of::<DictRoot>() == 32);

/// Where a dictionary begins. All zero is an empty one.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DictRoot {
    /// Offset of the directory, or at depth 0 of the segment; 0 if there are no items.
    pub directory: u64,
    /// Number of items.
    pub len: u64,
    /// log2 of the directory's entries.
    pub depth: u32,
    /// Segments.
    pub segments: u32,
    /// Directory entries whose segments [`drain`](Dict::drain) has already freed.
    pub drained: u64,
}

impl DictRoot {
    /// An empty dictionary.
    pub const EMPTY: Self = Self { directory: 0, len: 0, depth: 0, segments: 0, drained: 0 };
}

/// Tells a dictionary what it has to know of its items.
pub trait ItemMatcher {
    /// Whether the item at `item` has the key that is looked for.
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool;
}

/// Tells the hash of an item's key.
pub trait Hashed {
    /// The hash of the item at `item`.
    fn hash(&self, mem: &Mem<'_>, item: u64) -> u64;
}

/// An item that was found: the item and the slot that refers to it. Good until the dictionary
/// changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundItem {
    /// Offset of the item.
    pub item: u64,
    slot: u64,
    segment: u64,
}

impl FoundItem {
    /// The same slot after [`Dict::replace`].
    pub const fn replaced(self, item: u64) -> Self {
        Self { item, ..self }
    }
}

/// The sixteen bits of a hash that slots keep.
#[inline]
const fn tag_of(hash: u64) -> u64 {
    hash >> TAG_SHIFT & ((1 << TAG_BITS) - 1)
}

/// A dictionary, by the place of its root.
#[derive(Clone, Copy, Debug)]
pub struct Dict {
    root: Offset<DictRoot>,
}

impl Dict {
    /// The dictionary whose root is at `root`.
    pub const fn at(root: Offset<DictRoot>) -> Self {
        Self { root }
    }

    /// Where its root is.
    pub const fn place(self) -> u64 {
        self.root.raw()
    }

    /// Its root.
    #[inline]
    pub fn root(self, mem: &Mem<'_>) -> DictRoot {
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

    /// The item with this hash that `items` recognises.
    #[inline]
    pub fn find(self, mem: &Mem<'_>, hash: u64, items: &impl ItemMatcher) -> Option<FoundItem> {
        let root = self.root(mem);
        if root.directory == 0 {
            return None;
        }
        let segment = Segment::load(mem, segment_of(mem, &root, hash));
        let tag = tag_of(hash);
        let home = segment.home(tag);
        for probe in 0..PROBES.min(segment.buckets) {
            let found = segment.search_bucket(mem, segment.bucket(home + probe), tag, |item| {
                items.matches(mem, item)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Adds an item that is not there yet. `hashed` tells the hashes of items already there, should
    /// a segment have to split.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn insert(
        self,
        mem: &mut Mem<'_>,
        hash: u64,
        item: u64,
        hashed: &impl Hashed,
    ) -> Result<(), OutOfMemory> {
        debug_assert!(item != 0 && item <= OFFSET_MASK);
        let mut root = self.root(mem);
        if root.directory == 0 {
            let segment = Segment::create(mem, &SlotTable::empty(segment::next_size(0)), 0)?;
            root = DictRoot { directory: segment.at, segments: 1, ..DictRoot::EMPTY };
        }
        loop {
            let segment = Segment::load(mem, segment_of(mem, &root, hash));
            if segment.place(mem, tag_of(hash), item) {
                root.len += 1;
                mem.write(self.root, root);
                return Ok(());
            }
            resize::make_room(mem, &mut root, segment, hash, hashed)?;
            mem.write(self.root, root);
        }
    }

    /// Lets a slot refer to another item with the same hash.
    #[inline]
    pub fn replace(self, mem: &mut Mem<'_>, found: FoundItem, item: u64) {
        let slot = Offset::<u64>::new(found.slot);
        let tag = mem.read(slot) & !OFFSET_MASK;
        mem.write(slot, tag | item);
    }

    /// Removes an item; shrinks or merges its segment if it has become sparse.
    pub fn remove(self, mem: &mut Mem<'_>, hash: u64, found: FoundItem) {
        let mut root = self.root(mem);
        mem.write(Offset::<u64>::new(found.slot), 0);
        let segment = Segment::load(mem, found.segment).counted(mem, -1);
        root.len -= 1;
        resize::make_dense(mem, &mut root, segment, hash);
        mem.write(self.root, root);
    }

    /// Frees a dictionary in slices: hands up to about `most` items to `each` and frees what held
    /// them. Returns whether the dictionary is empty now. Until it is, nothing else may use it.
    pub fn drain(
        self,
        mem: &mut Mem<'_>,
        most: usize,
        mut each: impl FnMut(&mut Mem<'_>, u64),
    ) -> bool {
        let mut root = self.root(mem);
        let mut freed = 0;
        while root.len > 0 && freed < most {
            let segment = Segment::load(mem, directory_entry(mem, &root, root.drained));
            for word in segment.table(mem).words() {
                each(mem, word & OFFSET_MASK);
                freed += 1;
            }
            root.len -= segment.items;
            root.segments -= 1;
            root.drained += 1 << (root.depth - segment.depth);
            segment.release(mem);
            mem.write(self.root, root);
        }
        if root.len > 0 {
            return false;
        }
        // Sparse segments behind the last item.
        while root.directory != 0 && root.drained < 1 << root.depth {
            let segment = Segment::load(mem, directory_entry(mem, &root, root.drained));
            root.drained += 1 << (root.depth - segment.depth);
            segment.release(mem);
        }
        if root.depth > 0 {
            mem.release(root.directory, 8 << root.depth);
        }
        mem.write(self.root, DictRoot::EMPTY);
        true
    }

    /// The segment that an item with this hash would be in, from unlocked hints: for a prefetch.
    /// `None` if there is nothing to fetch.
    #[inline]
    pub fn racy_segment(self, view: &RacyView<'_>, hash: u64) -> Option<u64> {
        let directory = view.load_racy(self.root.raw())?;
        let depth = view.load_racy(self.root.raw() + 16)? & 0x3f;
        if directory == 0 {
            return None;
        }
        let segment = if depth == 0 {
            directory
        } else {
            view.load_racy(directory.checked_add(prefix(hash, u32::try_from(depth).ok()?) * 8)?)?
        };
        Some(segment)
    }

    /// Number of items of a dictionary whose root stands in a shard's root, read without a lock:
    /// exact while no thread writes.
    pub fn racy_len(self, arena: &crate::Arena) -> u64 {
        arena.load_root_racy(self.root.raw() + 8).unwrap_or(0)
    }

    /// Bytes of the directory and, estimated from the number of items, of the segments, for a
    /// dictionary whose root stands in a shard's root. Read without a lock.
    pub fn racy_bytes(self, arena: &crate::Arena) -> u64 {
        let word = |at| arena.load_root_racy(self.root.raw() + at).unwrap_or(0);
        let (len, shape) = (word(8), word(16));
        let (depth, segments) = (shape & 0x3f, shape >> 32);
        let directory = if depth == 0 { 0 } else { 8 << depth.min(u64::from(MAX_DEPTH)) };
        // The bounds hold whatever a torn read says.
        let least = segments.saturating_mul(segment::MIN_BYTES);
        let most = segments.saturating_mul(segment::MAX_BYTES).max(least);
        let items = len.saturating_mul(BYTES_PER_ITEM);
        directory + items.clamp(least, most)
    }

    /// The home bucket of a hash in a segment from [`Self::racy_segment`].
    #[inline]
    pub fn racy_bucket(view: &RacyView<'_>, segment: u64, hash: u64) -> Option<u64> {
        let head = view.load_racy(segment)?;
        let bucket = (tag_of(hash) * (head & 0xffff)) >> 16;
        match segment::racy_place(segment, head, bucket) {
            Some((place, within)) => {
                // Five bytes of two aligned words.
                let low = view.load_racy(place & !7)?;
                let high = view.load_racy((place + 4) & !7)?;
                let shift = place % 8 * 8;
                let both = u128::from(high) << 64 | u128::from(low);
                let both = if place & !7 == (place + 4) & !7 { u128::from(low) } else { both };
                let [a, b, c, d, e, ..] = (both >> shift).to_le_bytes();
                Some(segment::block_at([a, b, c, d, e]) + within)
            }
            None => Some(segment + bucket * 64),
        }
    }

    /// The item with the tag of a hash in a bucket from [`Self::racy_bucket`], or in the bucket
    /// that follows it in memory.
    #[inline]
    pub fn racy_item(view: &RacyView<'_>, bucket: u64, hash: u64) -> Option<u64> {
        let tag = tag_of(hash);
        (0..2 * SLOTS).find_map(|i| {
            let word = view.load_racy(bucket + i * 8)?;
            (word >> OFFSET_BITS == tag && word & OFFSET_MASK > 64).then_some(word & OFFSET_MASK)
        })
    }
}

/// The top `depth` bits of a hash.
#[inline]
const fn prefix(hash: u64, depth: u32) -> u64 {
    if depth == 0 { 0 } else { hash >> (64 - depth) }
}

#[inline]
fn directory_entry(mem: &Mem<'_>, root: &DictRoot, index: u64) -> u64 {
    if root.depth == 0 { root.directory } else { mem.read(Offset::new(root.directory + index * 8)) }
}

#[inline]
fn segment_of(mem: &Mem<'_>, root: &DictRoot, hash: u64) -> u64 {
    directory_entry(mem, root, prefix(hash, root.depth))
}
