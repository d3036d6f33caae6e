//! A copy of a segment's slots outside the arena, in which items can be arranged anew.

use super::segment::is_blocked_size;
use super::{OFFSET_BITS, PROBES, SLOTS};
use crate::layout::index;

const WIDTH: usize = index(SLOTS);
/// The first slot of a contiguous segment, which is its head.
pub(super) const HEAD: u64 = u64::MAX;
/// Buckets of which a search for an empty slot reads the items: the fuller a segment is, the fewer
/// items lie in their home buckets, where a lookup and a prefetch expect them.
const MAX_VISITED: usize = 8;
/// The most buckets of a segment in which items move.
const MAX_FOUND: usize = u64::BITS as usize;
/// The most slots in a path: each bucket in it but the last has been visited.
const MAX_PATH: usize = MAX_VISITED + 1;

/// A slot, by its bucket and its number in the bucket.
pub(super) type Slot = (u64, usize);

/// The slots of some buckets.
pub(super) struct SlotTable {
    slots: Vec<u64>,
    has_head: bool,
}

impl SlotTable {
    /// Empty slots for a segment of so many buckets.
    pub(super) fn empty(buckets: u64) -> Self {
        let mut slots = vec![0; index(buckets) * WIDTH];
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
        let start = index(bucket) * WIDTH;
        &self.slots[start..start + WIDTH]
    }

    pub(super) fn bucket_mut(&mut self, bucket: u64) -> &mut [u64] {
        let start = index(bucket) * WIDTH;
        &mut self.slots[start..start + WIDTH]
    }

    /// Puts a word into the home bucket of its item; returns whether that had an empty slot.
    pub(super) fn place_at_home(&mut self, word: u64) -> bool {
        let home = home_of(word, self.buckets());
        let slot = self.bucket(home).iter().position(|slot| *slot == 0);
        if let Some(slot) = slot {
            self.bucket_mut(home)[slot] = word;
        }
        slot.is_some()
    }

    /// Puts a word into a bucket where its item may lie, and moves others if that is necessary;
    /// returns whether it could.
    pub(super) fn place(&mut self, word: u64) -> bool {
        let read = |bucket| <[u64; WIDTH]>::try_from(self.bucket(bucket)).unwrap_or([HEAD; WIDTH]);
        let Some(path) = path_to_empty(word, self.buckets(), read) else { return false };
        path.moves().for_each(|(from, to)| {
            self.bucket_mut(to.0)[to.1] = self.bucket(from.0)[from.1];
        });
        let (bucket, slot) = path.start();
        self.bucket_mut(bucket)[slot] = word;
        true
    }
}

/// The home bucket of the item of a word.
const fn home_of(word: u64, buckets: u64) -> u64 {
    ((word >> OFFSET_BITS) * buckets) >> 16
}

/// The buckets where the item of a word may lie.
fn buckets_of(word: u64, buckets: u64) -> impl Iterator<Item = u64> {
    let home = home_of(word, buckets);
    // A division for each would take longer than the rest of a search.
    (home..home + PROBES.min(buckets))
        .map(move |bucket| if bucket >= buckets { bucket - buckets } else { bucket })
}

/// How an empty slot is made where an item may lie: from the last slot to the first, the item of
/// each moves into the one before it.
pub(super) struct Path {
    /// The empty slot first.
    slots: [Slot; MAX_PATH],
    len: usize,
}

impl Path {
    /// The moves in their order: from which slot to which.
    pub(super) fn moves(&self) -> impl Iterator<Item = (Slot, Slot)> {
        self.slots[..self.len].windows(2).map(|pair| (pair[1], pair[0]))
    }

    /// The slot that is empty after the moves.
    pub(super) const fn start(&self) -> Slot {
        self.slots[self.len - 1]
    }
}

/// A bucket that a search has found: the item in `slot` of an earlier one may move there.
#[derive(Clone, Copy, Default)]
struct FoundBucket {
    bucket: u8,
    /// Number of the earlier bucket among those that were found, plus 1; 0 for the first ones.
    parent: u8,
    slot: u8,
}

impl FoundBucket {
    /// Three numbers below 64.
    fn new(bucket: u64, parent: usize, slot: usize) -> Self {
        let [bucket, parent, slot] =
            [bucket, parent as u64, slot as u64].map(|n| n.to_le_bytes()[0]);
        Self { bucket, parent, slot }
    }
}

/// Searches breadth first for the fewest items that can move so that a slot for the item of `word`
/// becomes empty. `read` returns the slots of a bucket. In segments of more than 64 buckets, which
/// hold hashes that were made to collide, nothing moves.
pub(super) fn path_to_empty(
    word: u64,
    buckets: u64,
    read: impl Fn(u64) -> [u64; WIDTH],
) -> Option<Path> {
    let empty_slot = |bucket| read(bucket).iter().position(|slot| *slot == 0);
    if buckets > MAX_FOUND as u64 {
        let direct = buckets_of(word, buckets).find_map(|b| Some((b, empty_slot(b)?)));
        return direct.map(|slot| Path { slots: [slot; MAX_PATH], len: 1 });
    }
    let mut found = [FoundBucket::default(); MAX_FOUND];
    let (mut count, mut is_known) = (0, 0u64);
    for bucket in buckets_of(word, buckets) {
        found[count] = FoundBucket::new(bucket, 0, 0);
        count += 1;
        is_known |= 1 << bucket;
        if let Some(empty) = empty_slot(bucket) {
            return Some(path_from(&found, count - 1, empty));
        }
    }
    for visited in 0..MAX_VISITED.min(index(buckets)) {
        if visited == count {
            break;
        }
        for (slot, word) in read(u64::from(found[visited].bucket)).into_iter().enumerate() {
            if word == HEAD {
                continue;
            }
            for bucket in buckets_of(word, buckets) {
                if is_known >> bucket & 1 == 1 {
                    continue;
                }
                found[count] = FoundBucket::new(bucket, visited + 1, slot);
                count += 1;
                is_known |= 1 << bucket;
                if let Some(empty) = empty_slot(bucket) {
                    return Some(path_from(&found, count - 1, empty));
                }
            }
        }
    }
    None
}

/// The path to an empty slot of the bucket with the number `last` of those that were found.
fn path_from(found: &[FoundBucket; MAX_FOUND], last: usize, empty: usize) -> Path {
    let mut path = Path { slots: [(0, 0); MAX_PATH], len: 0 };
    let (mut number, mut slot) = (last, empty);
    loop {
        let FoundBucket { bucket, parent, slot: moving } = found[number];
        path.slots[path.len] = (u64::from(bucket), slot);
        path.len += 1;
        match usize::from(parent).checked_sub(1) {
            Some(parent) => (number, slot) = (parent, usize::from(moving)),
            None => return path,
        }
    }
}
