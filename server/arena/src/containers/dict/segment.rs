//! One segment: buckets of eight slots each, a cache line, in one of two forms.
//!
//! ```text
//! contiguous, 2 to 8 buckets:         blocked, 9 to 33 buckets:
//! +------+------+------+---           +------+---------+---------+---
//! | head | slot | slot | ...          | head | block 0 | block 1 | ...      places of the blocks,
//! +------+------+------+---           +------+----|----+----|----+---      5 bytes each
//! | slot | slot | slot | ...                      v         v
//! +------+------+------+---           | 3 buckets |    | 3 buckets |
//! ```
//!
//! A small dictionary has one contiguous segment. Blocks are objects of one size, whatever the size
//! of their segment is: a segment grows by one block at a time and leaves no object behind that
//! only a segment of its old size could use. A place of a block is its offset in units of 64 bytes.

use crate::{Mem, Offset, OutOfMemory};

use super::table::{HEAD, Slot, SlotTable, path_to_empty};
use super::{FoundItem, OFFSET_BITS, OFFSET_MASK, PROBES, SLOTS};

/// The sizes of a contiguous segment, in buckets.
const SIZES: [u64; 6] = [2, 3, 4, 5, 6, 8];
/// Buckets of the largest contiguous segment.
pub(super) const MAX_CONTIGUOUS: u64 = SIZES[SIZES.len() - 1];
/// Buckets in a block.
const BLOCK: u64 = 3;
/// A segment of this many buckets splits instead of growing.
pub(super) const SPLIT_AT: u64 = 33;

/// Bytes of the smallest segment.
pub(super) const MIN_BYTES: u64 = SIZES[0] * BUCKET_SIZE;
/// Bytes of the largest segment, blocks included.
pub(super) const MAX_BYTES: u64 = (SPLIT_AT + 1) * BUCKET_SIZE;
/// Bytes of a bucket.
const BUCKET_SIZE: u64 = SLOTS * 8;
const BLOCK_SIZE: u64 = BLOCK * BUCKET_SIZE;
/// Bytes of the place of a block in a head.
const PLACE: u64 = 5;
const IS_BLOCKED: u64 = 1 << 24;
/// Bits of a head that are zero.
const RESERVED: u64 = 0xfe << 24;

const _: () = assert!(SPLIT_AT.is_multiple_of(BLOCK) && head_len(SPLIT_AT) == BUCKET_SIZE);

/// Bytes of the head of a blocked segment.
const fn head_len(buckets: u64) -> u64 {
    (8 + buckets / BLOCK * PLACE).next_multiple_of(BUCKET_SIZE)
}

/// The size of a segment that `buckets` buckets are too few for.
pub(super) fn next_size(buckets: u64) -> u64 {
    match SIZES.into_iter().find(|size| *size > buckets) {
        Some(size) => size,
        None if buckets < SPLIT_AT => (buckets + 1).next_multiple_of(BLOCK),
        None => (buckets * 2).next_multiple_of(BLOCK),
    }
}

/// The smallest size whose slots are at most seven eighths full with `items`.
pub(super) fn size_for(items: u64) -> u64 {
    let size = SIZES.into_iter().find(|buckets| (buckets * SLOTS - 1) * 7 >= items * 8);
    size.unwrap_or_else(|| (items * 15).div_ceil(112).next_multiple_of(BLOCK).min(SPLIT_AT))
}

/// Whether a segment of this size consists of blocks.
pub(super) const fn is_blocked_size(buckets: u64) -> bool {
    buckets > MAX_CONTIGUOUS
}

/// A segment, with its head decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Its offset.
    pub at: u64,
    /// Its buckets.
    pub buckets: u64,
    /// Bits of the hash that all its items share.
    pub depth: u32,
    /// Its items.
    pub items: u64,
    /// Whether it consists of blocks.
    is_blocked: bool,
}

impl Segment {
    #[inline]
    pub(super) fn load(mem: &Mem<'_>, at: u64) -> Self {
        Self::decode(at, mem.read(Offset::<u64>::new(at)))
    }

    /// The segment at `at` whose head is `head`.
    #[inline]
    pub(super) const fn decode(at: u64, head: u64) -> Self {
        Self {
            at,
            buckets: head & 0xffff,
            depth: (head >> 16 & 0xff) as u32,
            items: head >> 32,
            is_blocked: head & IS_BLOCKED != 0,
        }
    }

    /// Whether this is what [`Self::decode`] makes of a sound head.
    pub(super) const fn is_sound(&self, head: u64) -> bool {
        let fits = if self.is_blocked {
            is_blocked_size(self.buckets) && self.buckets.is_multiple_of(BLOCK)
        } else {
            self.buckets >= SIZES[0] && !is_blocked_size(self.buckets)
        };
        fits && head & RESERVED == 0
    }

    const fn head(&self) -> u64 {
        let form = if self.is_blocked { IS_BLOCKED } else { 0 };
        self.buckets | (self.depth as u64) << 16 | form | self.items << 32
    }

    /// Bytes of the object at its offset.
    pub(super) const fn size(&self) -> u64 {
        if self.is_blocked { head_len(self.buckets) } else { self.buckets * BUCKET_SIZE }
    }

    /// Bytes of a block.
    pub(super) const fn block_size(&self) -> u64 {
        BLOCK_SIZE
    }

    /// Where the places of its blocks stand.
    pub(super) fn places(&self) -> impl Iterator<Item = Offset<[u8; 5]>> + use<> {
        let blocks = if self.is_blocked { self.buckets / BLOCK } else { 0 };
        let first = self.at + 8;
        (0..blocks).map(move |block| Offset::new(first + block * PLACE))
    }

    /// Number of the bucket that items with this tag begin at.
    #[inline]
    pub(super) const fn home(&self, tag: u64) -> u64 {
        (tag * self.buckets) >> 16
    }

    /// The bucket's number, wrapped round.
    #[inline]
    pub(super) const fn bucket(&self, index: u64) -> u64 {
        if index >= self.buckets { index - self.buckets } else { index }
    }

    /// Offset of a bucket.
    #[inline]
    fn bucket_at(&self, mem: &Mem<'_>, bucket: u64) -> u64 {
        if self.is_blocked {
            let place = Offset::new(self.at + 8 + bucket / BLOCK * PLACE);
            block_at(mem.read(place)) + bucket % BLOCK * BUCKET_SIZE
        } else {
            self.at + bucket * BUCKET_SIZE
        }
    }

    /// Whether the bucket begins with the head.
    #[inline]
    const fn holds_head(&self, bucket: u64) -> bool {
        bucket == 0 && !self.is_blocked
    }

    /// The places of the slots of a bucket.
    pub(super) fn bucket_slots(
        &self,
        mem: &Mem<'_>,
        bucket: u64,
    ) -> impl Iterator<Item = Offset<u64>> + use<> {
        let first = u64::from(self.holds_head(bucket));
        let start = self.bucket_at(mem, bucket);
        (first..SLOTS).map(move |slot| Offset::new(start + slot * 8))
    }

    /// The slots in use, bucket by bucket: the bucket, the place of the slot, and its word.
    pub(super) fn used_slots<'m>(
        &self,
        mem: &'m Mem<'_>,
    ) -> impl Iterator<Item = (u64, Offset<u64>, u64)> + use<'m, '_> {
        let segment = *self;
        (0..self.buckets)
            .flat_map(move |bucket| {
                segment.bucket_slots(mem, bucket).map(move |slot| (bucket, slot, mem.read(slot)))
            })
            .filter(|(_, _, word)| *word != 0)
    }

    /// The item with this tag in a bucket that `matches` accepts.
    #[inline]
    pub(super) fn search_bucket(
        &self,
        mem: &Mem<'_>,
        bucket: u64,
        tag: u64,
        matches: impl Fn(u64) -> bool,
    ) -> Option<FoundItem> {
        let start = self.bucket_at(mem, bucket);
        let words: [u64; 8] = mem.read(Offset::new(start));
        let mut candidates = 0u32;
        for (i, word) in words.iter().enumerate() {
            candidates |= u32::from(word >> OFFSET_BITS == tag && word & OFFSET_MASK != 0) << i;
        }
        if self.holds_head(bucket) {
            candidates &= !1;
        }
        while candidates != 0 {
            let i = candidates.trailing_zeros();
            let item = words[i as usize] & OFFSET_MASK;
            if matches(item) {
                return Some(FoundItem { item, slot: start + u64::from(i) * 8, segment: self.at });
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Puts an item into the first empty slot that is allowed, or moves others to make one; returns
    /// whether there is one.
    #[inline]
    pub(super) fn place(self, mem: &mut Mem<'_>, tag: u64, item: u64) -> bool {
        let home = self.home(tag);
        for probe in 0..PROBES.min(self.buckets) {
            let bucket = self.bucket(home + probe);
            let empty = self.bucket_slots(mem, bucket).find(|slot| mem.read(*slot) == 0);
            if let Some(slot) = empty {
                mem.write(slot, tag << OFFSET_BITS | item);
                self.counted(mem, 1);
                return true;
            }
        }
        self.place_by_moving(mem, tag, item)
    }

    #[cold]
    fn place_by_moving(self, mem: &mut Mem<'_>, tag: u64, item: u64) -> bool {
        let word = tag << OFFSET_BITS | item;
        let read = |bucket| {
            let mut words: [u64; 8] = mem.read(Offset::new(self.bucket_at(mem, bucket)));
            if self.holds_head(bucket) {
                words[0] = HEAD;
            }
            words
        };
        let Some(path) = path_to_empty(word, self.buckets, read) else { return false };
        let place = |mem: &Mem<'_>, (bucket, slot): Slot| {
            Offset::<u64>::new(self.bucket_at(mem, bucket) + slot as u64 * 8)
        };
        for (from, to) in path.moves() {
            let moved = mem.read(place(mem, from));
            mem.write(place(mem, to), moved);
        }
        mem.write(place(mem, path.start()), word);
        self.counted(mem, 1);
        true
    }

    /// Whether items with this tag fill all the buckets that they may lie in. Neither a larger
    /// segment nor a split parts them: so many hashes agree only if they were made to.
    pub(super) fn is_crowded_by(&self, mem: &Mem<'_>, tag: u64) -> bool {
        let home = self.home(tag);
        (0..PROBES.min(self.buckets))
            .flat_map(|probe| self.bucket_slots(mem, self.bucket(home + probe)))
            .all(|slot| mem.read(slot) >> OFFSET_BITS == tag)
    }

    /// The segment with its item count changed.
    pub(super) fn counted(mut self, mem: &mut Mem<'_>, by: i64) -> Self {
        self.items = self.items.wrapping_add_signed(by);
        mem.write(Offset::new(self.at), self.head());
        self
    }

    /// A copy of its slots.
    pub(super) fn table(&self, mem: &Mem<'_>) -> SlotTable {
        let mut table = SlotTable::empty(self.buckets);
        for bucket in 0..self.buckets {
            let words: [u64; 8] = mem.read(Offset::new(self.bucket_at(mem, bucket)));
            let first = usize::from(self.holds_head(bucket));
            table.bucket_mut(bucket)[first..].copy_from_slice(&words[first..]);
        }
        table
    }

    /// Writes the slots that differ from `table`, which has as many buckets.
    fn write_table(&self, mem: &mut Mem<'_>, table: &SlotTable) {
        for bucket in 0..self.buckets {
            let slots = self.bucket_slots(mem, bucket);
            let first = usize::from(self.holds_head(bucket));
            for (slot, word) in slots.zip(&table.bucket(bucket)[first..]) {
                if mem.read(slot) != *word {
                    mem.write(slot, *word);
                }
            }
        }
    }

    /// A new segment with the slots of `table`.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub(super) fn create(
        mem: &mut Mem<'_>,
        table: &SlotTable,
        depth: u32,
    ) -> Result<Self, OutOfMemory> {
        let buckets = table.buckets();
        let is_blocked = is_blocked_size(buckets);
        let mut segment = Self { at: 0, buckets, depth, items: table.items(), is_blocked };
        segment.at = mem.allocate(segment.size())?;
        mem.bytes_mut(segment.at, segment.size()).fill(0);
        for (added, place) in segment.places().enumerate() {
            if let Err(full) = add_block(mem, place) {
                segment.places().take(added).for_each(|place| release_block(mem, place));
                mem.release(segment.at, segment.size());
                return Err(full);
            }
        }
        mem.write(Offset::new(segment.at), segment.head());
        segment.write_table(mem, table);
        Ok(segment)
    }

    /// The same segment with the slots of `table`, which is larger; a segment of another offset if
    /// it cannot grow where it is.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub(super) fn grown(self, mem: &mut Mem<'_>, table: &SlotTable) -> Result<Self, OutOfMemory> {
        let larger = Self { buckets: table.buckets(), ..self };
        if !self.is_blocked || larger.size() != self.size() {
            let moved = Self::create(mem, table, self.depth)?;
            self.release(mem);
            return Ok(moved);
        }
        let before = self.places().count();
        for (added, place) in larger.places().skip(before).enumerate() {
            if let Err(full) = add_block(mem, place) {
                larger.places().skip(before).take(added).for_each(|p| release_block(mem, p));
                return Err(full);
            }
        }
        mem.write(Offset::new(larger.at), larger.head());
        larger.write_table(mem, table);
        Ok(larger)
    }

    /// Moves its objects out of places that are to be emptied; returns its new offset if its head
    /// has moved, for the caller to write into the directory.
    pub(super) fn evacuate(self, mem: &mut Mem<'_>) -> Option<u64> {
        for place in self.places() {
            let block = block_at(mem.read(place));
            if let Some(to) = mem.evacuate(block, BLOCK_SIZE) {
                mem.write(place, place_of(to));
            }
        }
        mem.evacuate(self.at, self.size())
    }

    pub(super) fn release(self, mem: &mut Mem<'_>) {
        self.places().for_each(|place| release_block(mem, place));
        mem.release(self.at, self.size());
    }
}

/// Offset of the block with this place.
#[inline]
pub(super) const fn block_at(place: [u8; 5]) -> u64 {
    let [a, b, c, d, e] = place;
    u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) * BUCKET_SIZE
}

/// The place of the block at `at`.
pub(super) const fn place_of(at: u64) -> [u8; 5] {
    let [a, b, c, d, e, ..] = (at / BUCKET_SIZE).to_le_bytes();
    [a, b, c, d, e]
}

/// Where the place of the block with a bucket stands in the head of a segment at `at` whose first
/// word is `head`, and the offset of the bucket in the block; `None` if the segment is contiguous.
#[inline]
pub(super) const fn racy_place(at: u64, head: u64, bucket: u64) -> Option<(u64, u64)> {
    if head & IS_BLOCKED == 0 {
        return None;
    }
    Some((at + 8 + bucket / BLOCK * PLACE, bucket % BLOCK * BUCKET_SIZE))
}

/// Allocates an empty block and writes its place.
fn add_block(mem: &mut Mem<'_>, place: Offset<[u8; 5]>) -> Result<(), OutOfMemory> {
    let at = mem.allocate(BLOCK_SIZE)?;
    mem.bytes_mut(at, BLOCK_SIZE).fill(0);
    mem.write(place, place_of(at));
    Ok(())
}

fn release_block(mem: &mut Mem<'_>, place: Offset<[u8; 5]>) {
    let at = block_at(mem.read(place));
    mem.write(place, [0; 5]);
    mem.release(at, BLOCK_SIZE);
}
