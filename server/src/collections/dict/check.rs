//! A dictionary's invariants, checked after a restore: its bytes are untrusted until then.

use crate::arena::{Audit, Broken, Mem, Offset, ShardIndex};

use super::segment::Segment;
use super::{MAX_DEPTH, OFFSET_BITS, OFFSET_MASK, PROBES, Root, SLOTS, prefix, tag_of};

/// Claims and checks everything that belongs to the dictionary at `root`, and hands each item to
/// `each`, which claims and checks the item and returns its hash.
///
/// # Errors
/// The first broken invariant.
pub fn check(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    root_at: Offset<Root>,
    mut each: impl FnMut(u64) -> Result<u64, Broken>,
) -> Result<Root, Broken> {
    let root = mem.read(root_at);
    let broken = |reason: String| Err(Broken::at(root_at.raw(), format!("dictionary: {reason}")));
    if root.directory == 0 {
        if root != Root::EMPTY {
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
    let (mut entry, mut segments, mut items) = (root.drained, 0u32, 0);
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
        check_slots(mem, &segment, entry >> (root.depth - segment.depth), &mut each)?;
        segments += 1;
        items += segment.items;
        entry += span;
    }
    if segments != root.segments || items != root.len {
        return broken(format!("{segments} segments and {items} items, but {root:?}"));
    }
    Ok(root)
}

fn claim_segment(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    at: u64,
    shard: ShardIndex,
) -> Result<Segment, Broken> {
    if at > OFFSET_MASK || at.checked_add(8).is_none_or(|end| end > mem.arena().capacity()) {
        return Err(Broken::at(0, format!("dictionary: a segment at {at:#x}, outside the arena")));
    }
    let head = mem.read(Offset::<u64>::new(at));
    let segment = Segment::decode(at, head);
    if segment.buckets < 2 || head >> 24 & 0xff != 0 {
        return Err(Broken::at(at, format!("dictionary: impossible segment head {head:#x}")));
    }
    audit.claim(at, segment.size(), shard)?;
    Ok(segment)
}

fn check_slots(
    mem: &Mem<'_>,
    segment: &Segment,
    expected_prefix: u64,
    each: &mut impl FnMut(u64) -> Result<u64, Broken>,
) -> Result<(), Broken> {
    let mut items = 0;
    for slot in segment.slots() {
        let word = mem.read(slot);
        if word == 0 {
            continue;
        }
        items += 1;
        let (tag, item) = (word >> OFFSET_BITS, word & OFFSET_MASK);
        let hash = each(item)?;
        let bucket = (slot.raw() - segment.at) / (SLOTS * 8);
        let home = segment.home(tag);
        let near = (0..PROBES.min(segment.buckets)).any(|p| segment.bucket(home + p) == bucket);
        if tag != tag_of(hash) || !near || prefix(hash, segment.depth) != expected_prefix {
            let reason = format!("dictionary: the item at {item:#x} is in the wrong place");
            return Err(Broken::at(slot.raw(), reason));
        }
    }
    if items != segment.items {
        let reason = format!("dictionary: a segment of {} items has {items}", segment.items);
        return Err(Broken::at(segment.at, reason));
    }
    Ok(())
}
