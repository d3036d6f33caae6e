//! Claims and checks a stream.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem::offset_of;

use crate::keyspace::MAX_VALUE;
use cowherd_arena::containers::packed;
use cowherd_arena::containers::tree::{self, Checked};
use cowherd_arena::{Audit, Corruption, Mem, Offset};

use super::groups::{CONSUMER, ConsumerHead, GROUP, GroupHead, name_at, name_key};
use super::node::{HEAD, Node, Places};
use super::pending::{NOTE, Note};
use super::{Root, StreamId};

fn broken<T>(at: u64, reason: &str) -> Result<T, Corruption> {
    Err(Corruption::at(at, format!("stream: {reason} at {at:#x}")))
}

fn is_inside(mem: &Mem<'_>, at: u64, len: u64) -> bool {
    at.checked_add(len).is_some_and(|end| end <= mem.arena().capacity())
}

/// Claims and checks a stream but for its header.
pub(super) fn check(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    root: Root,
    is_garbage: bool,
) -> Result<(), Corruption> {
    let mut nodes = Nodes { mem, audit, live: 0, last: None, tail: 0 };
    let place = Offset::new(root.at + offset_of!(super::Header, nodes) as u64);
    tree::check(mem, audit, place, &mut nodes)?;
    let Nodes { live, last, tail, .. } = nodes;
    let header = root.load(mem);
    let agrees = header.length == live
        && header.tail == tail
        && last.is_none_or(|last| last <= header.last)
        && header.added >= live;
    if !is_garbage && !agrees {
        return broken(root.at, "a header that does not agree with the entries");
    }
    let place = Offset::new(root.at + offset_of!(super::Header, groups) as u64);
    tree::check(mem, audit, place, &mut Groups { mem, audit, is_garbage })?;
    Ok(())
}

/// The nodes, each of which is claimed.
struct Nodes<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    live: u64,
    last: Option<StreamId>,
    tail: u64,
}

impl Checked for Nodes<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, entry: tree::Entry) -> Result<(), Corruption> {
        let at = entry.item;
        if !is_inside(self.mem, at, HEAD) {
            return broken(0, "a node outside the arena");
        }
        let node = Node::load(self.mem, at);
        let head = node.head;
        if !is_inside(self.mem, at, node.size()) || head.used > head.capacity || head.reserved != 0
        {
            return broken(at, "an impossible node");
        }
        self.audit.claim(at, node.size(), self.mem.shard())?;
        let bytes = node.bytes(self.mem);
        if packed::check(bytes).is_none() {
            return broken(at, "a damaged node");
        }
        let mut places = Places::new(bytes, head.first);
        let (mut count, mut live, mut first) = (0u64, 0u64, None);
        for place in &mut places {
            if self.last.is_some_and(|last| last >= place.id) || place.fields.is_empty() {
                return broken(at, "an entry in the wrong place");
            }
            self.last = Some(place.id);
            first = first.or(self.last);
            count += 1;
            live += u64::from(!place.is_deleted);
        }
        let agrees = places.is_sound
            && first == Some(head.first)
            && head.first.ms == entry.key
            && (count, live) == (u64::from(head.places), u64::from(head.live))
            && live > 0;
        if !agrees {
            return broken(at, "a node whose entries are not what it says");
        }
        self.live += live;
        self.tail = at;
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        compare(self.mem, one, other)
    }
}

/// The order of two items that begin with ids.
fn compare(mem: &Mem<'_>, one: u64, other: u64) -> Ordering {
    let id = |at: u64| mem.read::<StreamId>(Offset::new(at));
    id(one).cmp(&id(other))
}

/// Claims a group or a consumer, whose head has `head` bytes.
fn claim_named(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    entry: tree::Entry,
    head: u64,
) -> Result<(), Corruption> {
    let at = entry.item;
    if !is_inside(mem, at, head) {
        return broken(0, "a group or a consumer outside the arena");
    }
    let name_len: u64 = mem.read(Offset::new(at));
    if name_len > MAX_VALUE || !is_inside(mem, at, head + name_len) {
        return broken(at, "an impossible name");
    }
    audit.claim(at, head + name_len, mem.shard())?;
    if name_key(name_at(mem, at, head)) != entry.key {
        return broken(at, "a name in the wrong place");
    }
    Ok(())
}

/// The groups, each of which is claimed.
struct Groups<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    is_garbage: bool,
}

impl Checked for Groups<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, entry: tree::Entry) -> Result<(), Corruption> {
        let (mem, audit, at) = (self.mem, self.audit, entry.item);
        claim_named(mem, audit, entry, GROUP)?;
        let mut notes = Notes { mem, audit, consumers: BTreeMap::new() };
        let pending = Offset::new(at + offset_of!(GroupHead, pending) as u64);
        tree::check(mem, audit, pending, &mut notes)?;
        let is_garbage = self.is_garbage;
        let mut consumers = Consumers { mem, audit, pending: notes.consumers, is_garbage };
        let place = Offset::new(at + offset_of!(GroupHead, consumers) as u64);
        tree::check(mem, audit, place, &mut consumers)?;
        if !is_garbage && !consumers.pending.is_empty() {
            return broken(at, "entries pending for nobody");
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        name_at(self.mem, one, GROUP).cmp(name_at(self.mem, other, GROUP))
    }
}

/// The consumers of a group, each of which is claimed.
struct Consumers<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    /// The notes of each, as the group knows them, of those that were not looked at yet.
    pending: BTreeMap<u64, Vec<u64>>,
    is_garbage: bool,
}

impl Checked for Consumers<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, entry: tree::Entry) -> Result<(), Corruption> {
        let (mem, at) = (self.mem, entry.item);
        claim_named(mem, self.audit, entry, CONSUMER)?;
        let known = self.pending.remove(&at).unwrap_or_default();
        let mut own = Own { mem, known: &known, next: 0 };
        let place = Offset::new(at + offset_of!(ConsumerHead, pending) as u64);
        let root = tree::check(mem, self.audit, place, &mut own)?;
        if !self.is_garbage && root.len != known.len() as u64 {
            return broken(at, "a consumer that lacks what is pending for it");
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        name_at(self.mem, one, CONSUMER).cmp(name_at(self.mem, other, CONSUMER))
    }
}

/// The notes of a group, each of which is claimed.
struct Notes<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    consumers: BTreeMap<u64, Vec<u64>>,
}

impl Checked for Notes<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, entry: tree::Entry) -> Result<(), Corruption> {
        if !is_inside(self.mem, entry.item, NOTE) {
            return broken(0, "a pending entry outside the arena");
        }
        let note: Note = self.mem.read(Offset::new(entry.item));
        if note.id.ms != entry.key {
            return broken(entry.item, "a pending entry in the wrong place");
        }
        self.audit.claim(entry.item, NOTE, self.mem.shard())?;
        self.consumers.entry(note.consumer).or_default().push(entry.item);
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        compare(self.mem, one, other)
    }
}

/// The notes of a consumer, which its group knows, in their order.
struct Own<'a, 'h> {
    mem: &'a Mem<'h>,
    known: &'a [u64],
    next: usize,
}

impl Checked for Own<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, entry: tree::Entry) -> Result<(), Corruption> {
        let is_known = self.known.get(self.next) == Some(&entry.item);
        self.next += 1;
        // What is known was checked before.
        if !is_known || self.mem.read::<StreamId>(Offset::new(entry.item)).ms != entry.key {
            return broken(entry.item, "a pending entry that its group does not know");
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        compare(self.mem, one, other)
    }
}
