//! Walking a dictionary that changes between the steps.
//!
//! A cursor is a place in the order of (prefix, tag). Both are bits of an item's hash: growing,
//! splitting and merging segments never move an item in that order. So an item that is there from
//! the first step to the last is seen, whatever happens between; one may be seen twice.

use crate::Mem;

use super::segment::Segment;
use super::{Dict, OFFSET_BITS, OFFSET_MASK, PROBES, directory_entry};

/// A place in a scan: items whose top `depth` bits are below `prefix`, and those with that prefix
/// and a tag below `tag`, have been seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DictCursor {
    prefix: u64,
    depth: u32,
    pub(super) tag: u64,
}

const TAGS: u64 = 1 << 16;
const DEPTH_BITS: u32 = 5;
const PREFIX_BITS: u32 = 27;

const _: () = assert!(super::MAX_DEPTH < 1 << DEPTH_BITS);
const _: () = assert!(super::MAX_DEPTH < PREFIX_BITS);

impl DictCursor {
    /// The cursor as 48 bits; 0 is the start.
    pub const fn pack(self) -> u64 {
        self.tag | (self.depth as u64) << 16 | self.prefix << (16 + DEPTH_BITS)
    }

    /// The cursor that these bits say; any bits are some cursor.
    pub const fn unpack(bits: u64) -> Self {
        let depth = (bits >> 16 & ((1 << DEPTH_BITS) - 1)) as u32;
        let depth = if depth > super::MAX_DEPTH { super::MAX_DEPTH } else { depth };
        let prefix = bits >> (16 + DEPTH_BITS) & ((1 << depth) - 1);
        Self { prefix, depth, tag: bits & (TAGS - 1) }
    }

    /// Whether a scan that has come here has seen an item of this hash.
    pub const fn is_past(self, hash: u64) -> bool {
        let (prefix, tag) = self.order(hash);
        prefix < self.prefix || prefix == self.prefix && tag < self.tag
    }

    /// The place of items of this hash: a scan that has come there has seen those before them. As
    /// close as this cursor is.
    pub const fn at(self, hash: u64) -> Self {
        let (prefix, tag) = self.order(hash);
        Self { prefix, depth: self.depth, tag }
    }

    /// What hashes are sorted by that a scan sees one after the other.
    pub const fn order(self, hash: u64) -> (u64, u64) {
        let prefix = if self.depth == 0 { 0 } else { hash >> (u64::BITS - self.depth) };
        (prefix, super::tag_of(hash))
    }

    /// The lowest hash that may not have been seen.
    pub const fn lowest(self) -> u64 {
        if self.depth == 0 { 0 } else { self.prefix << (u64::BITS - self.depth) }
    }

    /// The highest hash that may have been seen.
    pub const fn highest(self) -> u64 {
        let below = if self.depth == 0 { u64::MAX } else { u64::MAX >> self.depth };
        self.lowest() | below
    }

    /// The entries of a directory of `depth` that stand for the prefix.
    pub(super) const fn entries(self, depth: u32) -> std::ops::Range<u64> {
        if self.depth <= depth {
            let first = self.prefix << (depth - self.depth);
            first..first + (1 << (depth - self.depth))
        } else {
            let entry = self.prefix >> (self.depth - depth);
            entry..entry + 1
        }
    }

    /// The beginning of the next prefix; `None` after the last.
    pub(super) const fn next_prefix(self) -> Option<Self> {
        let next = self.prefix + 1;
        if next == 1 << self.depth {
            return None;
        }
        Some(Self { prefix: next, depth: self.depth, tag: 0 })
    }
}

impl Dict {
    /// Hands items to `each`, from `cursor` on, until at least `least` were seen or the end is
    /// reached; returns where to go on, or `None` at the end.
    pub fn scan(
        self,
        mem: &Mem<'_>,
        mut cursor: DictCursor,
        least: usize,
        mut each: impl FnMut(u64),
    ) -> Option<DictCursor> {
        let root = self.root(mem);
        if root.directory == 0 {
            return None;
        }
        let mut seen = 0;
        loop {
            let entry = if cursor.depth <= root.depth {
                cursor.prefix << (root.depth - cursor.depth)
            } else {
                cursor.prefix >> (cursor.depth - root.depth)
            };
            let segment = Segment::load(mem, directory_entry(mem, &root, entry));
            if cursor.tag == 0 {
                cursor = fit(cursor, segment.depth);
            }
            if segment.depth <= cursor.depth {
                let (tag, count) = walk(mem, &segment, cursor.tag, least - seen, &mut each);
                seen += count;
                cursor.tag = tag;
            } else {
                // Split since the cursor was made: what is left of the tags, in each part at once.
                let first = cursor.prefix << (root.depth - cursor.depth);
                let end = first + (1 << (root.depth - cursor.depth));
                let mut entry = first;
                while entry < end {
                    let part = Segment::load(mem, directory_entry(mem, &root, entry));
                    seen += walk(mem, &part, cursor.tag, usize::MAX, &mut each).1;
                    entry += 1 << (root.depth - part.depth);
                }
                cursor.tag = TAGS;
            }
            if cursor.tag == TAGS {
                cursor = cursor.next_prefix()?;
            }
            if seen >= least {
                return Some(cursor);
            }
        }
    }

    /// An item chosen by `random`, a fresh random number each time it is called.
    pub fn random(self, mem: &Mem<'_>, mut random: impl FnMut() -> u64) -> Option<u64> {
        let root = self.root(mem);
        if root.len == 0 {
            return None;
        }
        loop {
            let entry = random() & ((1 << root.depth) - 1);
            let segment = Segment::load(mem, directory_entry(mem, &root, entry));
            if segment.items == 0 {
                continue;
            }
            let nth = usize::try_from(random() % segment.items).unwrap_or(0);
            let word = segment.used_slots(mem).nth(nth);
            return word.map(|(_, _, word)| word & OFFSET_MASK);
        }
    }
}

/// The same place at the depth of the segment that is there.
pub(super) const fn fit(mut cursor: DictCursor, depth: u32) -> DictCursor {
    while cursor.depth < depth {
        cursor.prefix <<= 1;
        cursor.depth += 1;
    }
    while cursor.depth > depth && cursor.prefix & 1 == 0 {
        cursor.prefix >>= 1;
        cursor.depth -= 1;
    }
    cursor
}

/// Hands over the items of a segment in the order of their tags, a home bucket at a time, from
/// `tag` on, until `least` were seen; returns the tag to go on at, and how many were seen.
fn walk(
    mem: &Mem<'_>,
    segment: &Segment,
    mut tag: u64,
    least: usize,
    each: &mut impl FnMut(u64),
) -> (u64, usize) {
    let mut seen = 0;
    while tag < TAGS && seen < least {
        let home = segment.home(tag);
        let end = ((home + 1) * TAGS).div_ceil(segment.buckets);
        for probe in 0..PROBES.min(segment.buckets) {
            let bucket = segment.bucket(home + probe);
            for slot in segment.bucket_slots(mem, bucket) {
                let word = mem.read(slot);
                if word != 0 && (tag..end).contains(&(word >> OFFSET_BITS)) {
                    each(word & OFFSET_MASK);
                    seen += 1;
                }
            }
        }
        tag = end;
    }
    (tag, seen)
}
