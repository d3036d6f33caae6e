//! One segment: 2 to 24 buckets (more where splitting cannot help), each a cache line of slots.

use crate::{Mem, Offset, OutOfMemory};

use super::{FoundItem, OFFSET_BITS, OFFSET_MASK, PROBES, SLOTS};

/// The sizes that a segment grows through, in buckets. All are size classes of the arena.
const SIZES: [u64; 11] = [2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24];
/// A segment of this many buckets splits instead of growing.
pub(super) const SPLIT_AT: u64 = 24;

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
}

/// Bytes of the smallest segment.
pub(super) const MIN_BYTES: u64 = SIZES[0] * 64;
/// Bytes of the largest segment.
pub(super) const MAX_BYTES: u64 = SPLIT_AT * 64;
/// Number of size steps.
pub(super) const STEPS: usize = SIZES.len();

/// Buckets at size step `step`.
pub(super) const fn buckets_at(step: usize) -> u64 {
    SIZES[if step < STEPS { step } else { STEPS - 1 }]
}

/// The smallest step whose slots are at most three quarters full with `items`.
pub(super) fn step_for(items: u64) -> usize {
    SIZES.iter().position(|buckets| (buckets * SLOTS - 1) * 3 >= items * 4).unwrap_or(STEPS - 1)
}

impl Segment {
    #[inline]
    pub(super) fn load(mem: &Mem<'_>, at: u64) -> Self {
        Self::decode(at, mem.read(Offset::<u64>::new(at)))
    }

    /// The segment at `at` whose head is `head`.
    #[inline]
    pub(super) const fn decode(at: u64, head: u64) -> Self {
        Self { at, buckets: head & 0xffff, depth: (head >> 16 & 0xff) as u32, items: head >> 32 }
    }

    const fn head(&self) -> u64 {
        self.buckets | (self.depth as u64) << 16 | self.items << 32
    }

    /// Bytes.
    pub(super) const fn size(&self) -> u64 {
        self.buckets * 64
    }

    /// An empty segment of size step `step`.
    pub(super) fn create(mem: &mut Mem<'_>, step: usize, depth: u32) -> Result<Self, OutOfMemory> {
        Self::with_buckets(mem, buckets_at(step), depth)
    }

    /// An empty segment of `buckets` buckets.
    pub(super) fn with_buckets(
        mem: &mut Mem<'_>,
        buckets: u64,
        depth: u32,
    ) -> Result<Self, OutOfMemory> {
        let at = mem.allocate(buckets * 64)?;
        let segment = Self { at, buckets, depth, items: 0 };
        mem.bytes_mut(at, segment.size()).fill(0);
        mem.write(Offset::new(at), segment.head());
        Ok(segment)
    }

    pub(super) fn release(self, mem: &mut Mem<'_>) {
        mem.release(self.at, self.size());
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

    /// The places of the slots of a bucket.
    pub(super) fn bucket_slots(&self, bucket: u64) -> impl Iterator<Item = Offset<u64>> + use<> {
        let first = u64::from(bucket == 0);
        let start = self.at + bucket * 64;
        (first..SLOTS).map(move |i| Offset::new(start + i * 8))
    }

    /// The places of all slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = Offset<u64>> + use<> {
        let start = self.at;
        (1..self.buckets * SLOTS).map(move |i| Offset::new(start + i * 8))
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
        let start = self.at + bucket * 64;
        let words: [u64; 8] = mem.read(Offset::new(start));
        let mut candidates = 0u32;
        for (i, word) in words.iter().enumerate() {
            candidates |= u32::from(word >> OFFSET_BITS == tag && word & OFFSET_MASK != 0) << i;
        }
        if bucket == 0 {
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

    /// Puts an item into the first empty slot that is allowed; returns whether there was one.
    #[inline]
    pub(super) fn place(self, mem: &mut Mem<'_>, tag: u64, item: u64) -> bool {
        let home = self.home(tag);
        for probe in 0..PROBES.min(self.buckets) {
            let bucket = self.bucket(home + probe);
            let empty = self.bucket_slots(bucket).find(|slot| mem.read(*slot) == 0);
            if let Some(slot) = empty {
                mem.write(slot, tag << OFFSET_BITS | item);
                self.counted(mem, 1);
                return true;
            }
        }
        false
    }

    /// Whether items with this tag fill all the buckets that they may lie in. Neither a larger
    /// segment nor a split parts them: so many hashes agree only if they were made to.
    pub(super) fn is_crowded_by(&self, mem: &Mem<'_>, tag: u64) -> bool {
        let home = self.home(tag);
        (0..PROBES.min(self.buckets))
            .flat_map(|probe| self.bucket_slots(self.bucket(home + probe)))
            .all(|slot| mem.read(slot) >> OFFSET_BITS == tag)
    }

    /// The segment with its item count changed.
    pub(super) fn counted(mut self, mem: &mut Mem<'_>, by: i64) -> Self {
        self.items = self.items.wrapping_add_signed(by);
        mem.write(Offset::new(self.at), self.head());
        self
    }

    /// Places all items of `from` whose word `accept` wants; returns whether all found room.
    pub(super) fn take_from(
        mut self,
        mem: &mut Mem<'_>,
        from: &Self,
        mut accept: impl FnMut(&Mem<'_>, u64) -> bool,
    ) -> Option<Self> {
        for slot in from.slots() {
            let word = mem.read(slot);
            if word == 0 || !accept(mem, word & OFFSET_MASK) {
                continue;
            }
            if !self.place(mem, word >> OFFSET_BITS, word & OFFSET_MASK) {
                return None;
            }
            self.items += 1;
        }
        Some(self)
    }
}
