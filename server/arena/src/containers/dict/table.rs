//! A copy of a segment's slots outside the arena, in which items can be arranged anew.

use super::segment::is_blocked_size;
use super::{OFFSET_BITS, PROBES, SLOTS};

const WIDTH: usize = crate::layout::index(SLOTS);
/// The first slot of a contiguous segment, which is its head.
const HEAD: u64 = u64::MAX;
/// No bucket.
const NONE: u16 = u16::MAX;

/// The slots of some buckets.
pub(super) struct SlotTable {
    slots: Vec<u64>,
    has_head: bool,
}

impl SlotTable {
    /// Empty slots for a segment of so many buckets.
    pub(super) fn empty(buckets: u64) -> Self {
        let mut slots = vec![0; as_index(buckets) * WIDTH];
        let has_head = !is_blocked_size(buckets);
        if has_head {
            slots[0] = HEAD;
        }
        Self { slots, has_head }
    }

    pub(super) const fn buckets(&self) -> u64 {
        self.slots.len() as u64 / SLOTS
    }

    /// Number of items.
    pub(super) fn items(&self) -> u64 {
        self.words().count() as u64
    }

    /// The words of the slots in use.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> {
        let slots = self.slots[usize::from(self.has_head)..].iter();
        slots.copied().filter(|word| *word != 0)
    }

    /// The words of the slots in use.
    pub(super) fn into_words(self) -> Vec<u64> {
        let Self { mut slots, has_head } = self;
        if has_head {
            slots[0] = 0;
        }
        slots.retain(|word| *word != 0);
        slots
    }

    pub(super) fn bucket(&self, bucket: u64) -> &[u64] {
        let start = as_index(bucket) * WIDTH;
        &self.slots[start..start + WIDTH]
    }

    pub(super) fn bucket_mut(&mut self, bucket: u64) -> &mut [u64] {
        let start = as_index(bucket) * WIDTH;
        &mut self.slots[start..start + WIDTH]
    }

    /// Puts a word into a bucket where its item may lie, and moves others if that is necessary;
    /// returns whether it could.
    pub(super) fn place(&mut self, word: u64) -> bool {
        let buckets = self.buckets_of(word);
        let slot = buckets.clone().find_map(|bucket| self.empty_slot(bucket));
        let slot = slot.or_else(|| self.vacate(buckets));
        if let Some(slot) = slot {
            self.slots[slot] = word;
        }
        slot.is_some()
    }

    /// The buckets where the item of a word may lie.
    fn buckets_of(&self, word: u64) -> impl Iterator<Item = u64> + Clone + use<> {
        let buckets = self.buckets();
        let home = ((word >> OFFSET_BITS) * buckets) >> 16;
        (home..home + PROBES.min(buckets)).map(move |bucket| bucket % buckets)
    }

    fn empty_slot(&self, bucket: u64) -> Option<usize> {
        let start = as_index(bucket) * WIDTH;
        (start..start + WIDTH).find(|slot| self.slots[*slot] == 0)
    }

    /// Empties a slot of one of the buckets `wanted`, which are full: searches breadth first for
    /// the fewest items that can move, each to another bucket where it may lie, the last of them
    /// into an empty slot. Visits each bucket once.
    #[cold]
    fn vacate(&mut self, wanted: impl Iterator<Item = u64>) -> Option<usize> {
        let mut queue: Vec<u64> = wanted.collect();
        // For each bucket that was found, the slot whose item may move there.
        let mut from = vec![NONE; self.slots.len() / WIDTH];
        let mut is_found = vec![false; from.len()];
        queue.iter().for_each(|bucket| is_found[as_index(*bucket)] = true);
        let mut next = 0;
        while let Some(&bucket) = queue.get(next) {
            next += 1;
            let start = as_index(bucket) * WIDTH;
            for slot in start + usize::from(bucket == 0 && self.has_head)..start + WIDTH {
                for other in self.buckets_of(self.slots[slot]) {
                    if std::mem::replace(&mut is_found[as_index(other)], true) {
                        continue;
                    }
                    from[as_index(other)] = u16::try_from(slot).unwrap_or(NONE);
                    if let Some(empty) = self.empty_slot(other) {
                        return Some(self.move_along(&from, empty));
                    }
                    queue.push(other);
                }
            }
        }
        None
    }

    /// Moves an item into the slot `empty`, another one into the slot that it leaves, and so on to
    /// the first; returns the slot that the last of them has left.
    fn move_along(&mut self, from: &[u16], mut empty: usize) -> usize {
        while let Some(&slot) = from.get(empty / WIDTH).filter(|slot| **slot != NONE) {
            self.slots[empty] = std::mem::take(&mut self.slots[usize::from(slot)]);
            empty = usize::from(slot);
        }
        empty
    }
}

fn as_index(bucket: u64) -> usize {
    usize::try_from(bucket).unwrap_or(usize::MAX)
}
