//! Entries: adding, finding, deleting, trimming.

use crate::keyspace::compact::Description;
use crate::keyspace::entry::ValueKind;
use crate::keyspace::shards::Entry;
use crate::keyspace::values::Digest;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::{Mem, OutOfMemory};

use super::node::{NewEntry, Node, Place, Places, StreamFields};
use super::{BySeq, Root, StreamId};

const STREAM: Description = Description { kind: ValueKind::Stream, form: 0, count: 0 };

/// How large a node may become; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// Bytes.
    pub bytes: u64,
    /// Entries, with the deleted ones.
    pub entries: u64,
}

/// Which entries go when a stream is trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamTrim {
    /// The oldest, until so many are left.
    MaxLen(u64),
    /// Those with lower ids.
    MinId(StreamId),
}

/// What a stream is at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// Entries.
    pub length: u64,
    /// Nodes.
    pub nodes: u64,
    /// The highest id that an entry ever had.
    pub last: StreamId,
    /// The highest id that was deleted.
    pub deleted: StreamId,
    /// Entries ever added.
    pub added: u64,
    /// The id of the first entry; the lowest if there is none.
    pub first: StreamId,
    /// Groups.
    pub groups: u64,
}

impl StreamInfo {
    /// Whether an entry may have been deleted that is from `start` on, and not before the first.
    pub fn has_holes_from(&self, start: StreamId) -> bool {
        let is_any = self.length > 0 && self.deleted != StreamId::MIN;
        is_any && start.max(self.first) <= self.deleted
    }

    /// How many entries were ever added up to `id`, as far as that can be told.
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
fn nodes_up_to(mem: &Mem<'_>, root: Root, id: StreamId) -> u64 {
    match id.next() {
        Some(next) => root.nodes().rank(mem, next.ms, &BySeq(next.seq)),
        None => root.nodes().len(mem),
    }
}

/// Hands the entries from `start` to `end` to `each` until it says no.
pub(super) fn ascend(
    mem: &Mem<'_>,
    root: Root,
    start: StreamId,
    end: StreamId,
    mut each: impl FnMut(&Place<'_>) -> bool,
) {
    let from = nodes_up_to(mem, root, start).saturating_sub(1);
    for entry in root.nodes().ascending(mem, from) {
        let node = Node::load(mem, entry.item);
        for place in Places::new(node.bytes(mem), node.head.first) {
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
    root: Root,
    start: StreamId,
    end: StreamId,
    mut each: impl FnMut(&Place<'_>) -> bool,
) {
    let Some(from) = nodes_up_to(mem, root, end).checked_sub(1) else { return };
    let mut places: Vec<Place<'_>> = Vec::new();
    for entry in root.nodes().descending(mem, from) {
        let node = Node::load(mem, entry.item);
        places.clear();
        places.extend(Places::new(node.bytes(mem), node.head.first));
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

/// The entry with an id, with its node's rank.
fn find(mem: &Mem<'_>, root: Root, id: StreamId) -> Option<(u64, Node, usize)> {
    let rank = nodes_up_to(mem, root, id).checked_sub(1)?;
    let node = Node::load(mem, root.nodes().nth(mem, rank)?.item);
    let mut places = Places::new(node.bytes(mem), node.head.first);
    let place = places.find(|place| place.id >= id)?;
    (place.id == id && !place.is_deleted).then_some((rank, node, place.at))
}

/// Whether there is an entry with an id.
pub(super) fn has(mem: &Mem<'_>, root: Root, id: StreamId) -> bool {
    find(mem, root, id).is_some()
}

/// Adds what a stream's entries are.
pub(super) fn digest(mem: &Mem<'_>, root: Root, digest: &mut Digest) {
    let header = root.load(mem);
    for id in [header.last, header.deleted] {
        digest.add_number(id.ms.cast_signed());
        digest.add_number(id.seq.cast_signed());
    }
    digest.add_number(header.length.cast_signed());
    digest.add_number(header.added.cast_signed());
    ascend(mem, root, StreamId::MIN, StreamId::MAX, |place| {
        digest.add_number(place.id.ms.cast_signed());
        digest.add_number(place.id.seq.cast_signed());
        digest.add_number(place.fields.len() as i64);
        for (field, value) in place.fields.iter() {
            digest.add(field.bytes(&mut itoa::Buffer::new()));
            digest.add(value.bytes(&mut itoa::Buffer::new()));
        }
        true
    });
}

/// Takes out the node of a rank.
fn drop_node(mem: &mut Mem<'_>, root: Root, rank: u64, node: &Node) {
    root.nodes().remove_nth(mem, rank);
    node.release(mem);
    if mem.read(root.tail()) == node.at {
        let last = root.nodes().last(mem).map_or(0, |entry| entry.item);
        mem.write(root.tail(), last);
    }
}

/// Adds an entry behind the last one.
fn append<'a>(
    mem: &mut Mem<'_>,
    root: Root,
    entry: &NewEntry<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone>,
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

/// Takes from the node of a rank the room that it had to grow, if there is memory for a smaller
/// one.
fn shrink(mem: &mut Mem<'_>, root: Root, rank: u64, at: u64) {
    let node = Node::load(mem, at);
    if !node.has_spare_room() {
        return;
    }
    if let Ok(smaller) = node.copy(mem) {
        root.nodes().replace(mem, rank, smaller.at);
        node.release(mem);
    }
}

/// Trims a stream as far as whole nodes go, and to the end if `exactly`. With a `limit` above 0, no
/// more entries than that go. Returns how many went.
fn trim(mem: &mut Mem<'_>, root: Root, trim: StreamTrim, exactly: bool, limit: u64) -> u64 {
    let before = mem.read(root.length());
    let mut length = before;
    while let Some(first) = root.nodes().first(mem) {
        let mut node = Node::load(mem, first.item);
        let live = u64::from(node.head.live);
        let (is_done, goes) = match trim {
            StreamTrim::MaxLen(most) => (length <= most, length - live >= most),
            StreamTrim::MinId(least) if node.head.first >= least => (true, false),
            StreamTrim::MinId(least) => (false, all_before(mem, &node, least)),
        };
        if is_done || limit != 0 && before - length + live > limit {
            break;
        }
        if goes {
            drop_node(mem, root, 0, &node);
            length -= live;
            continue;
        }
        if exactly {
            length -= cut(mem, &mut node, trim, length);
            if node.head.live == 0 {
                drop_node(mem, root, 0, &node);
            }
        }
        break;
    }
    if length != before {
        mem.write(root.length(), length);
    }
    before - length
}

/// Whether all entries of a node, those that are deleted too, have lower ids.
fn all_before(mem: &Mem<'_>, node: &Node, id: StreamId) -> bool {
    Places::new(node.bytes(mem), node.head.first).all(|place| place.id < id)
}

/// Deletes the first entries of a node, of a stream of `length` entries, as far as they have to go;
/// returns how many did.
fn cut(mem: &mut Mem<'_>, node: &mut Node, trim: StreamTrim, length: u64) -> u64 {
    let (mut removed, mut from) = (0, None);
    loop {
        if matches!(trim, StreamTrim::MaxLen(most) if length - removed <= most) {
            return removed;
        }
        let mut places = Places::new(node.bytes(mem), node.head.first).from(from);
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
    /// Adds an entry to the stream of a key, which is made if it is not there; the id is above the
    /// last one.
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
        let new = NewEntry { id, pairs };
        let entry = match entry {
            Some(entry) => {
                let root = self.stream_root(entry);
                append(&mut self.held.mem(key.shard), root, &new, limits)?;
                *entry
            }
            None => {
                let mut mem = self.held.mem(key.shard);
                let root = Root::create(&mut mem)?;
                append(&mut mem, root, &new, limits)
                    .and_then(|()| self.put_stream(db, key, root))
                    .inspect_err(|_| root.free(&mut self.held.mem(key.shard)))?
            }
        };
        self.touched(db, key);
        Ok(entry)
    }

    fn put_stream(&mut self, db: DbIndex, key: &Key<'_>, root: Root) -> Result<Entry, OutOfMemory> {
        self.put_large(db, key, None, STREAM, root.at, Expiry::None)
    }

    /// Makes an empty stream, with one group, for a key that is not there.
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
        let mut mem = self.held.mem(key.shard);
        let root = Root::create(&mut mem)?;
        super::groups::create(&mut mem, root, group, last, read)
            .and_then(|()| self.put_stream(db, key, root))
            .inspect_err(|_| root.free(&mut self.held.mem(key.shard)))?;
        self.touched(db, key);
        Ok(())
    }

    /// What a stream is at this moment.
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

    /// Number of entries, and the highest id that one ever had.
    #[inline]
    pub fn stream_len(&self, entry: &Entry) -> (u64, StreamId) {
        let header = self.stream_root(entry).load(&self.held.view(entry.shard));
        (header.length, header.last)
    }

    /// Hands up to `most` entries from `start` to `end` to `each`, in descending order if
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
        let one = |place: &Place<'_>| {
            each(place.id, place.fields);
            left -= 1;
            left > 0
        };
        match is_reverse {
            false => ascend(&mem, root, start, end, one),
            true => descend(&mem, root, start, end, one),
        }
    }

    /// Deletes entries; returns how many were there.
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
            }
            removed += 1;
            let length = mem.read(root.length()) - 1;
            mem.write(root.length(), length);
            if id > mem.read(root.deleted()) {
                mem.write(root.deleted(), id);
            }
        }
        if removed > 0 {
            self.touched(db, key);
        }
        removed
    }

    /// Trims a stream, by whole nodes only unless `exactly`. With a `limit` above 0, no more
    /// entries than that go. Returns how many went.
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
            self.touched(db, key);
        }
        removed
    }

    /// Sets the highest id, and if they are given the number of entries ever added and the highest
    /// id that was deleted. Those who watch the key hear nothing of it.
    pub fn stream_set_last(
        &mut self,
        entry: &Entry,
        last: StreamId,
        added: Option<u64>,
        deleted: Option<StreamId>,
    ) {
        let root = self.stream_root(entry);
        let mut mem = self.held.mem(entry.shard);
        // What was deleted and is still there must not be above the next entry. Only behind the
        // last one can that be, and there in the last node.
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
