//! A dictionary's invariants, checked after a restore: its bytes are untrusted until then.

use crate::{Audit, Corruption, Mem, Offset, ShardIndex};

use super::segment::{MAX_CONTIGUOUS, Segment, block_at};
use super::{
    DictRoot, MAX_DEPTH, OFFSET_BITS, OFFSET_MASK, PROBES, TAG_BITS, TAG_SHIFT, prefix, tag_of,
};

/// Items that are prefetched ahead of the check, each with three cache lines. More than fit the
/// processor's miss buffers, so that these stay full while an item is checked.
const AHEAD: usize = 64;

/// The bits of a hash that say where an item belongs in a dictionary of up to
/// 2^14 segments: the prefix of the longest hash in it, and the tag.
///
/// ```text
/// | prefix 14 | tag 16 |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShortHash(u32);

impl ShortHash {
    /// Bits of the prefix.
    const PREFIX: u32 = 14;
    /// Bits in all.
    pub const BITS: u32 = Self::PREFIX + TAG_BITS;

    /// The bits of a hash.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "30 bits")]
    pub const fn of(hash: u64) -> Self {
        Self((prefix(hash, Self::PREFIX) << TAG_BITS | tag_of(hash)) as u32)
    }

    /// The lowest [`Self::BITS`] bits of a number, as [`Self::bits`] gives them.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// The bits as a number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether it has the prefix that the items of a segment of this depth share.
    const fn is_enough_for(depth: u32) -> bool {
        depth <= Self::PREFIX
    }

    /// A hash with these bits; the others are zero.
    const fn expanded(self) -> u64 {
        let (prefix, tag) = (self.0 as u64 >> TAG_BITS, self.0 as u64 & ((1 << TAG_BITS) - 1));
        prefix << (u64::BITS - Self::PREFIX) | tag << TAG_SHIFT
    }
}

/// Tells a check what it has to know of a dictionary's items.
pub trait CheckDictItem {
    /// Asks the processor to fetch what checking an item will read. Any number may be asked for.
    fn prefetch(&self, item: u64);

    /// Asks the processor to fetch what [`Self::is_noted`] and [`Self::check_noted`] will read.
    fn prefetch_note(&self, _item: u64) {}

    /// Whether [`Self::check_noted`] can do without the item, so that it need not be fetched.
    fn is_noted(&self, _item: u64) -> bool {
        false
    }

    /// Claims and checks an item by a note of it, without reading the item. `None` if that cannot
    /// be: then nothing is claimed.
    ///
    /// # Errors
    /// As [`Self::check`].
    fn check_noted(&mut self, _item: u64) -> Result<Option<ShortHash>, Corruption> {
        Ok(None)
    }

    /// Claims and checks an item; returns its hash.
    ///
    /// # Errors
    /// There is no such item, or it is damaged.
    fn check(&mut self, item: u64) -> Result<u64, Corruption>;

    /// Whether two items that were checked have the same key.
    fn is_same_key(&self, one: u64, other: u64) -> bool;
}

/// What is kept from segment to segment, so that it is not allocated for each.
#[derive(Default)]
struct Scratch {
    /// The slots in use: the bucket, the place, and the word.
    slots: Vec<(u64, Offset<u64>, u64)>,
    hashes: Vec<u64>,
    sorted: Vec<u64>,
}

/// Claims and checks everything that belongs to the dictionary at `root`, and each of its items
/// with the help of `items`. No two items that pass have the same key.
///
/// # Errors
/// The first broken invariant.
pub fn check(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    root_at: Offset<DictRoot>,
    items: &mut impl CheckDictItem,
) -> Result<DictRoot, Corruption> {
    let root = mem.read(root_at);
    let broken =
        |reason: String| Err(Corruption::at(root_at.raw(), format!("dictionary: {reason}")));
    if root.directory == 0 {
        if root != DictRoot::EMPTY {
            return broken(format!("empty, but {root:?}"));
        }
        return Ok(root);
    }
    if root.depth > MAX_DEPTH || root.drained > 1 << root.depth {
        return broken(format!("impossible root {root:?}"));
    }
    if root.depth > 0 {
        audit.claim(root.directory, 8 << root.depth, mem.shard())?;
    }
    let (mut entry, mut segments, mut count) = (root.drained, 0u32, 0);
    let mut scratch = Scratch::default();
    while entry < 1 << root.depth {
        let at = super::directory_entry(mem, &root, entry);
        let segment = claim_segment(mem, audit, at, mem.shard())?;
        if segment.depth > root.depth {
            return broken(format!("segment at {at:#x} deeper than the directory"));
        }
        let span = 1 << (root.depth - segment.depth);
        if entry % span != 0
            || (entry..entry + span).any(|e| super::directory_entry(mem, &root, e) != at)
        {
            return broken(format!("segment at {at:#x} does not fill its {span} entries"));
        }
        let prefix = entry >> (root.depth - segment.depth);
        if entry + span < 1 << root.depth {
            prefetch_segment(mem, super::directory_entry(mem, &root, entry + span));
        }
        check_slots(mem, &segment, prefix, items, &mut scratch)?;
        segments += 1;
        count += segment.items;
        entry += span;
    }
    if segments != root.segments || count != root.len {
        return broken(format!("{segments} segments and {count} items, but {root:?}"));
    }
    Ok(root)
}

/// Prefetches the segment at `at`, which is not checked yet, as far as the largest contiguous one
/// reaches.
fn prefetch_segment(mem: &Mem<'_>, at: u64) {
    for line in 0..MAX_CONTIGUOUS {
        mem.arena().prefetch(at.saturating_add(line * 64));
    }
}

fn claim_segment(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    at: u64,
    shard: ShardIndex,
) -> Result<Segment, Corruption> {
    if at > OFFSET_MASK || at.checked_add(8).is_none_or(|end| end > mem.arena().capacity()) {
        return Err(Corruption::at(
            0,
            format!("dictionary: a segment at {at:#x}, outside the arena"),
        ));
    }
    let head = mem.read(Offset::<u64>::new(at));
    let segment = Segment::decode(at, head);
    if !segment.is_sound(head) {
        return Err(Corruption::at(at, format!("dictionary: impossible segment head {head:#x}")));
    }
    audit.claim(at, segment.size(), shard)?;
    for place in segment.places() {
        let block = block_at(mem.read(place));
        audit.prefetch(block);
        (64..segment.block_size()).step_by(64).for_each(|line| mem.arena().prefetch(block + line));
    }
    for place in segment.places() {
        audit.claim(block_at(mem.read(place)), segment.block_size(), shard)?;
    }
    Ok(segment)
}

fn check_slots(
    mem: &Mem<'_>,
    segment: &Segment,
    expected_prefix: u64,
    items: &mut impl CheckDictItem,
    scratch: &mut Scratch,
) -> Result<(), Corruption> {
    let Scratch { slots, hashes, .. } = scratch;
    slots.clear();
    hashes.clear();
    slots.extend(segment.used_slots(mem));
    if slots.len() as u64 != segment.items {
        let reason =
            format!("dictionary: a segment of {} items has {}", segment.items, slots.len());
        return Err(Corruption::at(segment.at, reason));
    }
    let uses_notes = ShortHash::is_enough_for(segment.depth);
    // The same with and without notes, so that an image always gives the same error.
    let hash_bits = if uses_notes { SHORT_HASH_BITS } else { u64::MAX };
    let item_at = |i: usize| slots.get(i).map(|(_, _, word)| word & OFFSET_MASK);
    let prefetch_note = |items: &_, i| {
        if let Some(item) = item_at(i).filter(|_| uses_notes) {
            CheckDictItem::prefetch_note(items, item);
        }
    };
    let prefetch = |items: &_, i| {
        if let Some(item) = item_at(i)
            && !(uses_notes && CheckDictItem::is_noted(items, item))
        {
            CheckDictItem::prefetch(items, item);
        }
    };
    (0..2 * AHEAD).for_each(|i| prefetch_note(&*items, i));
    (0..AHEAD).for_each(|i| prefetch(&*items, i));
    for (i, &(bucket, slot, word)) in slots.iter().enumerate() {
        prefetch_note(&*items, i + 2 * AHEAD);
        prefetch(&*items, i + AHEAD);
        let (tag, item) = (word >> OFFSET_BITS, word & OFFSET_MASK);
        let short = if uses_notes { items.check_noted(item)? } else { None };
        let hash = match short {
            Some(short) => short.expanded(),
            None => items.check(item)?,
        };
        let home = segment.home(tag);
        let near = (0..PROBES.min(segment.buckets)).any(|p| segment.bucket(home + p) == bucket);
        if tag != tag_of(hash) || !near || prefix(hash, segment.depth) != expected_prefix {
            let reason = format!("dictionary: the item at {item:#x} is in the wrong place");
            return Err(Corruption::at(slot.raw(), reason));
        }
        hashes.push(hash & hash_bits);
    }
    check_unique(items, scratch)
}

/// The bits of a hash that a short one has.
const SHORT_HASH_BITS: u64 = ShortHash::from_bits(u32::MAX).expanded();

/// Checks that no two items of a segment have the same key. Two such have the same hash, and so
/// are in the same segment and in the same few buckets. Items of which the known bits of the hash
/// are equal may have different keys.
fn check_unique(items: &impl CheckDictItem, scratch: &mut Scratch) -> Result<(), Corruption> {
    let Scratch { slots, hashes, sorted } = scratch;
    sorted.clone_from(hashes);
    sorted.sort_unstable();
    if sorted.windows(2).all(|pair| pair[0] != pair[1]) {
        return Ok(());
    }
    let items_at = slots.iter().map(|(_, _, word)| word & OFFSET_MASK);
    let mut by_hash: Vec<(u64, u64)> = hashes.iter().copied().zip(items_at).collect();
    by_hash.sort_unstable();
    for same in by_hash.chunk_by(|one, other| one.0 == other.0) {
        for (i, (_, one)) in same.iter().enumerate() {
            if let Some((_, other)) = same[..i].iter().find(|(_, o)| items.is_same_key(*one, *o)) {
                let reason =
                    format!("dictionary: the items at {other:#x} and {one:#x} have one key");
                return Err(Corruption::at(*one, reason));
            }
        }
    }
    Ok(())
}
