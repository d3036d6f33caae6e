//! A dictionary's invariants, checked after a restore: its bytes are untrusted until then.

use crate::{Audit, Corruption, Mem, Offset, ShardIndex};

use super::segment::{MAX_CONTIGUOUS, Segment, block_at};
use super::{DictRoot, MAX_DEPTH, OFFSET_BITS, OFFSET_MASK, PROBES, prefix, tag_of};

/// Items that are prefetched ahead of the check, each with three cache lines. More than fit the
/// processor's miss buffers, so that these stay full while an item is checked.
const AHEAD: usize = 64;

/// Tells a check what it has to know of a dictionary's items.
pub trait CheckDictItem {
    /// Asks the processor to fetch what checking an item will read. Any number may be asked for.
    fn prefetch(&self, item: u64);

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
    slots.iter().take(AHEAD).for_each(|(_, _, word)| items.prefetch(word & OFFSET_MASK));
    for (i, &(bucket, slot, word)) in slots.iter().enumerate() {
        if let Some((_, _, ahead)) = slots.get(i + AHEAD) {
            items.prefetch(ahead & OFFSET_MASK);
        }
        let (tag, item) = (word >> OFFSET_BITS, word & OFFSET_MASK);
        let hash = items.check(item)?;
        let home = segment.home(tag);
        let near = (0..PROBES.min(segment.buckets)).any(|p| segment.bucket(home + p) == bucket);
        if tag != tag_of(hash) || !near || prefix(hash, segment.depth) != expected_prefix {
            let reason = format!("dictionary: the item at {item:#x} is in the wrong place");
            return Err(Corruption::at(slot.raw(), reason));
        }
        hashes.push(hash);
    }
    check_unique(items, scratch)
}

/// Checks that no two items of a segment have the same key. Two such have the same hash, and so are
/// in the same segment and in the same few buckets.
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
