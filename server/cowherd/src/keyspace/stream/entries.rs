//! Entries of streams: adding, reading, deleting, trimming.

use crate::keyspace::collection::{ValueDigest, build_large};
use crate::keyspace::compact::ValueDescription;
use crate::keyspace::entry::ValueType;
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::{Mem, OutOfMemory};

use super::groups;
use super::node::{NewStreamEntry, Node, NodeEntries, NodeEntry, StreamFields};
use super::{BySeq, Stream, StreamId, StreamRoot};

const STREAM: ValueDescription =
    ValueDescription { kind: ValueType::Stream, encoding: 0, count: 0 };

/// The most bytes and entries of a node; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// The most bytes.
    pub bytes: u64,
    /// The most entries, including deleted ones.
    pub entries: u64,
}

/// Which entries are removed when a stream is trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamTrim {
    /// The oldest ones, until so many are left.
    MaxLen(u64),
    /// All with lower ids.
    MinId(StreamId),
}

/// The properties of a stream at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// Number of entries.
    pub length: u64,
    /// Number of nodes.
    pub nodes: u64,
    /// The highest id that an entry ever had.
    pub last: StreamId,
    /// The highest id that was deleted.
    pub deleted: StreamId,
    /// Number of entries ever added.
    pub added: u64,
    /// The id of the first entry; the lowest id if the stream is empty.
    pub first: StreamId,
    /// Number of groups.
    pub groups: u64,
}

impl StreamInfo {
    /// Whether an entry may have been deleted at or behind `start`.
    pub fn has_holes_from(&self, start: StreamId) -> bool {
        self.length > 0 && self.deleted != StreamId::MIN && start <= self.deleted
    }

    /// The number of entries ever added up to `id`; `None` if that cannot be known.
    pub fn added_up_to(&self, id: StreamId) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        if self.length == 0 && id <= self.last || id == self.last {
            return Some(self.added);
        }
        if id > self.last {
            return None;
        }
        let is_whole = self.deleted == StreamId::MIN || self.deleted < self.first;
        let before = self.added.saturating_sub(self.length);
        match id.cmp(&self.first) {
            std::cmp::Ordering::Less if is_whole => Some(before),
            std::cmp::Ordering::Equal if is_whole => Some(before + 1),
            _ => None,
        }
    }
}

/// The number of nodes whose first id is not above `id`.
fn nodes_up_to(mem: &Mem<'_>, root: StreamRoot, id: StreamId) -> u64 {
    match id.next() {
        Some(next) => root.nodes().rank(mem, next.ms, &BySeq(next.seq)),
        None => root.nodes().len(mem),
    }
}

/// Calls `each` with the entries from `start` to `end`, until it returns false.
pub(super) fn ascend(
    mem: &Mem<'_>,
    root: StreamRoot,
    start: StreamId,
    end: StreamId,
    mut each: impl FnMut(&NodeEntry<'_>) -> bool,
) {
    let from = nodes_up_to(mem, root, start).saturating_sub(1);
    for entry in root.nodes().ascending(mem, from) {
        let node = Node::load(mem, entry.item);
        for place in NodeEntries::new(node.bytes(mem), node.head.first) {
            if place.id > end {
                return;
            }
            if place.id >= start && !place.is_deleted && !each(&place) {
                return;
            }
        }
    }
}

/// As [`ascend`], from `end` down to `start`.
fn descend(
    mem: &Mem<'_>,
    root: StreamRoot,
    start: StreamId,
    end: StreamId,
    mut each: impl FnMut(&NodeEntry<'_>) -> bool,
) {
    let Some(from) = nodes_up_to(mem, root, end).checked_sub(1) else { return };
    let mut places: Vec<NodeEntry<'_>> = Vec::new();
    for entry in root.nodes().descending(mem, from) {
        let node = Node::load(mem, entry.item);
        places.clear();
        places.extend(NodeEntries::new(node.bytes(mem), node.head.first));
        for place in places.iter().rev().filter(|place| place.id <= end) {
            if place.id < start {
                return;
            }
            if !place.is_deleted && !each(place) {
                return;
            }
        }
    }
}

/// The entry with an id: its node's rank, its node, and its offset there.
fn find(mem: &Mem<'_>, root: StreamRoot, id: StreamId) -> Option<(u64, Node, usize)> {
    let rank = nodes_up_to(mem, root, id).checked_sub(1)?;
    let node = Node::load(mem, root.nodes().nth(mem, rank)?.item);
    let mut places = NodeEntries::new(node.bytes(mem), node.head.first);
    let place = places.find(|place| place.id >= id)?;
    (place.id == id && !place.is_deleted).then_some((rank, node, place.at))
}

/// Whether the stream has an entry with an id.
pub(super) fn has(mem: &Mem<'_>, root: StreamRoot, id: StreamId) -> bool {
    find(mem, root, id).is_some()
}

/// Adds the figures of a stream, except its entries, to a digest.
pub(super) fn digest(mem: &Mem<'_>, root: StreamRoot, digest: &mut ValueDigest) {
    let header = root.load(mem);
    for id in [header.last, header.deleted] {
        digest.add_number(id.ms.cast_signed());
        digest.add_number(id.seq.cast_signed());
    }
    digest.add_number(header.length.cast_signed());
    digest.add_number(header.added.cast_signed());
}

/// Removes the node of a rank.
fn drop_node(mem: &mut Mem<'_>, root: StreamRoot, rank: u64, node: &Node) {
    root.nodes().remove_nth(mem, rank);
    node.release(mem);
    if mem.read(root.tail()) == node.at {
        let last = root.nodes().last(mem).map_or(0, |entry| entry.item);
        mem.write(root.tail(), last);
    }
}

/// Adds an entry behind the last one; its id is higher.
fn append<'a>(
    mem: &mut Mem<'_>,
    root: StreamRoot,
    entry: &NewStreamEntry<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone>,
    limits: &StreamLimits,
) -> Result<(), OutOfMemory> {
    let header = root.load(mem);
    let appended = match header.tail {
        0 => None,
        tail => {
            let node = Node::load(mem, tail);
            let most = (limits.bytes, limits.entries);
            let new = node.append(mem, entry, most.0, most.1)?;
            if let Some(new) = new.filter(|new| new.at != tail) {
                root.nodes().replace(mem, header.nodes.len - 1, new.at);
                mem.write(root.tail(), new.at);
                node.release(mem);
            }
            new
        }
    };
    if appended.is_none() {
        let node = Node::create(mem, entry)?;
        let put = root.nodes().insert(mem, entry.id.ms, node.at, &BySeq(entry.id.seq));
        put.inspect_err(|_| node.release(mem))?;
        mem.write(root.tail(), node.at);
        if header.tail != 0 {
            shrink(mem, root, header.nodes.len - 1, header.tail);
        }
    }
    mem.write(root.length(), header.length + 1);
    mem.write(root.last(), entry.id);
    mem.write(root.added(), header.added.saturating_add(1));
    Ok(())
}

/// Replaces the node of a rank by one without spare bytes, if there is memory for that.
fn shrink(mem: &mut Mem<'_>, root: StreamRoot, rank: u64, at: u64) {
    let node = Node::load(mem, at);
    if !node.has_spare_bytes() {
        return;
    }
    if let Ok(smaller) = node.copy(mem) {
        root.nodes().replace(mem, rank, smaller.at);
        node.release(mem);
    }
}

/// Trims a stream by whole nodes, and within a node too if `exactly`. A `limit` above 0 is the most
/// entries that are removed. Returns the number of removed entries.
fn trim(mem: &mut Mem<'_>, root: StreamRoot, trim: StreamTrim, exactly: bool, limit: u64) -> u64 {
    let before = mem.read(root.length());
    let mut length = before;
    while let Some(first) = root.nodes().first(mem) {
        let mut node = Node::load(mem, first.item);
        let live = u64::from(node.head.live);
        let (is_done, is_removed) = match trim {
            StreamTrim::MaxLen(most) => (length <= most, length - live >= most),
            StreamTrim::MinId(least) if node.head.first >= least => (true, false),
            StreamTrim::MinId(least) => (false, all_before(mem, &node, least)),
        };
        if is_done || limit != 0 && before - length + live > limit {
            break;
        }
        if is_removed {
            drop_node(mem, root, 0, &node);
            length -= live;
            continue;
        }
        if exactly {
            length -= cut(mem, &mut node, trim, length);
            if node.head.live == 0 {
                drop_node(mem, root, 0, &node);
            } else {
                node.erase_unused_fields(mem);
            }
        }
        break;
    }
    if length != before {
        mem.write(root.length(), length);
    }
    before - length
}

/// Whether all entries of a node, including deleted ones, have lower ids.
fn all_before(mem: &Mem<'_>, node: &Node, id: StreamId) -> bool {
    NodeEntries::new(node.bytes(mem), node.head.first).all(|place| place.id < id)
}

/// Deletes the first entries of a node that `trim` removes from a stream of `length` entries;
/// returns their number.
fn cut(mem: &mut Mem<'_>, node: &mut Node, trim: StreamTrim, length: u64) -> u64 {
    let (mut removed, mut from) = (0, None);
    loop {
        if matches!(trim, StreamTrim::MaxLen(most) if length - removed <= most) {
            return removed;
        }
        let mut places = NodeEntries::new(node.bytes(mem), node.head.first).from(from);
        let Some(place) = places.find(|place| !place.is_deleted) else { return removed };
        if matches!(trim, StreamTrim::MinId(least) if place.id >= least) {
            return removed;
        }
        let at = place.at;
        from = Some(at);
        node.delete(mem, at);
        removed += 1;
    }
}

impl Shards<'_> {
    /// Adds an entry to a stream that was looked up, or to a new one. The id is above the last one.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn stream_add<'a>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        id: StreamId,
        pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
        limits: &StreamLimits,
    ) -> Result<Entry, OutOfMemory> {
        let new = NewStreamEntry { id, pairs };
        let entry = match entry {
            Some(entry) => {
                let root = self.stream_root(entry);
                append(&mut self.held.mem(key.shard), root, &new, limits)?;
                *entry
            }
            None => {
                let mut mem = self.held.mem(key.shard);
                let header = build_large::<Stream>(&mut mem, |mem, header| {
                    append(mem, StreamRoot { at: header }, &new, limits)
                })?;
                self.put_large(db, key, None, STREAM, header, Expiry::None)?
            }
        };
        self.touched(db, key);
        Ok(entry)
    }

    /// Creates a key with an empty stream that has one group.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn stream_create(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        group: &[u8],
        last: StreamId,
        read: Option<u64>,
    ) -> Result<(), OutOfMemory> {
        let header = build_large::<Stream>(&mut self.held.mem(key.shard), |mem, header| {
            groups::create(mem, StreamRoot { at: header }, group, last, read)
        })?;
        self.put_large(db, key, None, STREAM, header, Expiry::None)?;
        self.touched(db, key);
        Ok(())
    }

    /// The properties of a stream.
    pub fn stream_info(&self, entry: &Entry) -> StreamInfo {
        let (mem, root) = (self.held.view(entry.shard), self.stream_root(entry));
        let header = root.load(&mem);
        let mut first = StreamId::MIN;
        ascend(&mem, root, StreamId::MIN, StreamId::MAX, |place| {
            first = place.id;
            false
        });
        StreamInfo {
            length: header.length,
            nodes: header.nodes.len,
            last: header.last,
            deleted: header.deleted,
            added: header.added,
            first,
            groups: root.groups().len(&mem),
        }
    }

    /// The number of entries, and the highest id that an entry ever had.
    #[inline]
    pub fn stream_len(&self, entry: &Entry) -> (u64, StreamId) {
        let header = self.stream_root(entry).load(&self.held.view(entry.shard));
        (header.length, header.last)
    }

    /// Calls `each` with up to `most` entries from `start` to `end`, in descending order if
    /// `is_reverse`.
    pub fn stream_range(
        &self,
        entry: &Entry,
        start: StreamId,
        end: StreamId,
        is_reverse: bool,
        most: u64,
        mut each: impl FnMut(StreamId, StreamFields<'_>),
    ) {
        if most == 0 || start > end {
            return;
        }
        let (mem, root) = (self.held.view(entry.shard), self.stream_root(entry));
        let mut left = most;
        let one = |place: &NodeEntry<'_>| {
            each(place.id, place.fields);
            left -= 1;
            left > 0
        };
        match is_reverse {
            false => ascend(&mem, root, start, end, one),
            true => descend(&mem, root, start, end, one),
        }
    }

    /// Deletes entries; returns the number of those that existed.
    pub fn stream_delete(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        ids: impl Iterator<Item = StreamId>,
    ) -> u64 {
        let root = self.stream_root(entry);
        let mut mem = self.held.mem(entry.shard);
        let mut removed = 0;
        for id in ids {
            let Some((rank, mut node, place)) = find(&mem, root, id) else { continue };
            node.delete(&mut mem, place);
            if node.head.live == 0 {
                drop_node(&mut mem, root, rank, &node);
            } else {
                node.erase_unused_fields(&mut mem);
            }
            removed += 1;
            let length = mem.read(root.length()) - 1;
            mem.write(root.length(), length);
            if id > mem.read(root.deleted()) {
                mem.write(root.deleted(), id);
            }
        }
        if removed > 0 {
            self.touched_times(db, key, removed);
        }
        removed
    }

    /// Trims a stream, by whole nodes only unless `exactly`. A `limit` above 0 is the most entries
    /// that are removed. Returns the number of removed entries.
    pub fn stream_trim(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        how: StreamTrim,
        exactly: bool,
        limit: u64,
    ) -> u64 {
        let root = self.stream_root(entry);
        let removed = trim(&mut self.held.mem(entry.shard), root, how, exactly, limit);
        if removed > 0 {
            self.touched_times(db, key, removed);
        }
        removed
    }

    /// Sets the highest id and, if given, the number of entries ever added and the highest deleted
    /// id. Does not notify watchers, as in Redis.
    pub fn stream_set_last(
        &mut self,
        entry: &Entry,
        last: StreamId,
        added: Option<u64>,
        deleted: Option<StreamId>,
    ) {
        let root = self.stream_root(entry);
        let mut mem = self.held.mem(entry.shard);
        // A deleted entry must not have a higher id than the next entry that is added. Such entries
        // can only be at the end of the last node.
        let tail = mem.read(root.tail());
        if tail != 0 && last < mem.read(root.last()) {
            Node::load(&mem, tail).cut_deleted_end(&mut mem);
        }
        mem.write(root.last(), last);
        if let Some(added) = added {
            mem.write(root.added(), added);
        }
        if let Some(deleted) = deleted.filter(|deleted| *deleted != StreamId::MIN) {
            mem.write(root.deleted(), deleted);
        }
        self.changed(entry.shard);
    }
}
