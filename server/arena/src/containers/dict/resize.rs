//! Growing and splitting, shrinking and merging segments.
//!
//! New segments are made and filled before any reference to them is written, so that an arena that
//! runs full changes nothing.

use crate::{Mem, Offset, OutOfMemory};

use super::segment::{SPLIT_AT, Segment, next_size, size_for};
use super::table::SlotTable;
use super::{DictRoot, Hashed, MAX_DEPTH, directory_entry, prefix};

/// A segment in which fewer than one slot in `SPARSE` is used becomes smaller.
const SPARSE: u64 = 4;
/// More buckets than this are of use only against hashes that were made to collide.
const MAX_BUCKETS: u64 = 1200;

/// Makes room for one more item in a full segment. The caller writes the root and tries again.
#[cold]
pub(super) fn make_room(
    mem: &mut Mem<'_>,
    root: &mut DictRoot,
    full: Segment,
    hash: u64,
    hashed: &impl Hashed,
) -> Result<(), OutOfMemory> {
    if full.is_crowded_by(mem, super::tag_of(hash)) {
        return Err(OutOfMemory);
    }
    // Items whose hashes agree in that many bits are beyond chance: a split would not part them.
    let splits = full.depth < MAX_DEPTH && full.depth <= root.len.max(1).ilog2() + 8;
    if full.buckets >= SPLIT_AT && splits {
        return split(mem, root, full, hash, hashed);
    }
    let table = arrange(&full.table(mem).into_words(), next_size(full.buckets))?;
    let larger = full.grown(mem, &table)?;
    if larger.at != full.at {
        refer(mem, root, larger, hash);
    }
    Ok(())
}

/// Words in a table of at least `buckets` buckets, as many as possible in the home buckets of their
/// items.
fn arrange(from: &[u64], mut buckets: u64) -> Result<SlotTable, OutOfMemory> {
    while buckets <= MAX_BUCKETS {
        let mut table = SlotTable::empty(buckets);
        let mut others = from.to_vec();
        others.retain(|word| !table.place_at_home(*word));
        if others.iter().all(|word| table.place(*word)) {
            return Ok(table);
        }
        buckets = next_size(buckets);
    }
    Err(OutOfMemory)
}

fn split(
    mem: &mut Mem<'_>,
    root: &mut DictRoot,
    full: Segment,
    hash: u64,
    hashed: &impl Hashed,
) -> Result<(), OutOfMemory> {
    let depth = full.depth + 1;
    let table = full.table(mem);
    for word in table.words() {
        mem.arena().prefetch(word & super::OFFSET_MASK);
    }
    let mut parts = [Vec::new(), Vec::new()];
    for word in table.words() {
        let bit = hashed.hash(mem, word & super::OFFSET_MASK) >> (64 - depth) & 1;
        parts[usize::from(bit == 1)].push(word);
    }
    let [low, high] = parts;
    let low = arrange(&low, size_for(low.len() as u64))?;
    let high = arrange(&high, size_for(high.len() as u64))?;
    let directory = if full.depth == root.depth { Some(doubled(mem, root)?) } else { None };
    let halves = (|| {
        let low = Segment::create(mem, &low, depth)?;
        match Segment::create(mem, &high, depth) {
            Ok(high) => Ok((low, high)),
            Err(error) => {
                low.release(mem);
                Err(error)
            }
        }
    })();
    let (low, high) = match halves {
        Ok(halves) => halves,
        Err(error) => {
            if let Some(directory) = directory {
                mem.release(directory, 8 << (root.depth + 1));
            }
            return Err(error);
        }
    };
    if let Some(directory) = directory {
        if root.depth > 0 {
            mem.release(root.directory, 8 << root.depth);
        }
        root.directory = directory;
        root.depth += 1;
    }
    let side = 1 << (64 - depth);
    refer(mem, root, low, hash & !side);
    refer(mem, root, high, hash | side);
    root.segments += 1;
    full.release(mem);
    Ok(())
}

/// A directory of twice the entries, each entry twice.
fn doubled(mem: &mut Mem<'_>, root: &DictRoot) -> Result<u64, OutOfMemory> {
    let entries = 1 << root.depth;
    let directory = mem.allocate(16 * entries)?;
    for index in 0..entries {
        let segment = directory_entry(mem, root, index);
        mem.write(Offset::new(directory + index * 16), [segment, segment]);
    }
    Ok(directory)
}

/// Writes a segment into the directory entries that are its own.
fn refer(mem: &mut Mem<'_>, root: &mut DictRoot, segment: Segment, hash: u64) {
    if root.depth == 0 {
        root.directory = segment.at;
        return;
    }
    let span = 1 << (root.depth - segment.depth);
    let first = prefix(hash, segment.depth) << (root.depth - segment.depth);
    for index in first..first + span {
        mem.write(Offset::new(root.directory + index * 8), segment.at);
    }
}

/// Makes a segment smaller, or merges it with its neighbour, if it has become sparse. An arena
/// that is too full for that leaves things as they are.
pub(super) fn make_dense(mem: &mut Mem<'_>, root: &mut DictRoot, segment: Segment, hash: u64) {
    if root.len == 0 && root.segments == 1 {
        segment.release(mem);
        if root.depth > 0 {
            mem.release(root.directory, 8 << root.depth);
        }
        *root = DictRoot::EMPTY;
        return;
    }
    if segment.items * SPARSE > segment.buckets * super::SLOTS {
        return;
    }
    let mut segment = segment;
    while segment.depth > 0 {
        match merge(mem, root, segment, hash) {
            Some(merged) => segment = merged,
            None => break,
        }
    }
    if root.len == 0 && root.segments == 1 {
        return make_dense(mem, root, segment, hash);
    }
    let buckets = size_for(segment.items);
    if buckets < segment.buckets
        && let Ok(table) = arrange(&segment.table(mem).into_words(), buckets)
        && let Ok(smaller) = Segment::create(mem, &table, segment.depth)
    {
        refer(mem, root, smaller, hash);
        segment.release(mem);
    }
}

/// Merges a segment with the other half of what was once split, if both are sparse enough.
fn merge(mem: &mut Mem<'_>, root: &mut DictRoot, segment: Segment, hash: u64) -> Option<Segment> {
    let other_hash = hash ^ 1 << (64 - segment.depth);
    let other = Segment::load(mem, directory_entry(mem, root, prefix(other_hash, root.depth)));
    let items = segment.items + other.items;
    if other.depth != segment.depth || items * 2 > SPLIT_AT * super::SLOTS {
        return None;
    }
    let depth = segment.depth - 1;
    let mut both = segment.table(mem).into_words();
    both.extend(other.table(mem).words());
    let table = arrange(&both, size_for(items)).ok()?;
    let merged = Segment::create(mem, &table, depth).ok()?;
    segment.release(mem);
    other.release(mem);
    root.segments -= 1;
    if root.segments == 1 {
        mem.release(root.directory, 8 << root.depth);
        root.depth = 0;
    }
    refer(mem, root, merged, hash);
    Some(merged)
}
