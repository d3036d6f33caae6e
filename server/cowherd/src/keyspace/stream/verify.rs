//! Verification of streams.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem::offset_of;

use crate::keyspace::MAX_VALUE;
use cowherd_arena::containers::packed;
use cowherd_arena::containers::tree::{self, CheckTreeEntry};
use cowherd_arena::{Audit, Corruption, Mem, Offset};

use super::groups::{CONSUMER, ConsumerHead, GROUP, GroupHead, name_at, name_key};
use super::node::{NODE_HEADER, Node, NodeEntries};
use super::pending::{PENDING_RECORD, PendingRecord};
use super::{StreamId, StreamRoot};

fn broken<T>(at: u64, reason: &str) -> Result<T, Corruption> {
    Err(Corruption::at(at, format!("stream: {reason} at {at:#x}")))
}

fn is_inside(mem: &Mem<'_>, at: u64, len: u64) -> bool {
    at.checked_add(len).is_some_and(|end| end <= mem.arena().capacity())
}

/// Claims and checks a stream except its header.
pub(super) fn verify(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    root: StreamRoot,
    is_deferred: bool,
) -> Result<(), Corruption> {
    let mut nodes = NodeChecker { mem, audit, live: 0, last: None, tail: 0 };
    let place = Offset::new(root.at + offset_of!(super::StreamHeader, nodes) as u64);
    tree::check(mem, audit, place, &mut nodes)?;
    let NodeChecker { live, last, tail, .. } = nodes;
    let header = root.load(mem);
    let agrees = header.length == live
        && header.tail == tail
        && last.is_none_or(|last| last <= header.last)
        && header.added >= live;
    if !is_deferred && !agrees {
        return broken(root.at, "a header that does not agree with the entries");
    }
    let place = Offset::new(root.at + offset_of!(super::StreamHeader, groups) as u64);
    tree::check(mem, audit, place, &mut GroupChecker { mem, audit, is_deferred })?;
    Ok(())
}

/// Checks the nodes; claims each.
struct NodeChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    live: u64,
    last: Option<StreamId>,
    tail: u64,
}

impl CheckTreeEntry for NodeChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, entry: tree::TreeEntry) -> Result<(), Corruption> {
        let at = entry.item;
        if !is_inside(self.mem, at, NODE_HEADER) {
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
        let mut places = NodeEntries::new(bytes, head.first);
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
            return broken(at, "a node whose header disagrees with its entries");
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

/// Claims a group or consumer, whose header has `head` bytes.
fn claim_named(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    entry: tree::TreeEntry,
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

/// Checks the groups; claims each.
struct GroupChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    is_deferred: bool,
}

impl CheckTreeEntry for GroupChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, entry: tree::TreeEntry) -> Result<(), Corruption> {
        let (mem, audit, at) = (self.mem, self.audit, entry.item);
        claim_named(mem, audit, entry, GROUP)?;
        let mut pending_checker = PendingChecker { mem, audit, consumers: BTreeMap::new() };
        let pending = Offset::new(at + offset_of!(GroupHead, pending) as u64);
        tree::check(mem, audit, pending, &mut pending_checker)?;
        let is_deferred = self.is_deferred;
        let mut consumers =
            ConsumerChecker { mem, audit, pending: pending_checker.consumers, is_deferred };
        let place = Offset::new(at + offset_of!(GroupHead, consumers) as u64);
        tree::check(mem, audit, place, &mut consumers)?;
        if !is_deferred && !consumers.pending.is_empty() {
            return broken(at, "pending entries of unknown consumers");
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        name_at(self.mem, one, GROUP).cmp(name_at(self.mem, other, GROUP))
    }
}

/// Checks the consumers of a group; claims each.
struct ConsumerChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    /// The pending entries of the group, by consumer; those of a consumer that was checked are
    /// removed.
    pending: BTreeMap<u64, Vec<u64>>,
    is_deferred: bool,
}

impl CheckTreeEntry for ConsumerChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    fn check(&mut self, entry: tree::TreeEntry) -> Result<(), Corruption> {
        let (mem, at) = (self.mem, entry.item);
        claim_named(mem, self.audit, entry, CONSUMER)?;
        let known = self.pending.remove(&at).unwrap_or_default();
        let mut own = ConsumerPendingChecker { mem, known: &known, next: 0 };
        let place = Offset::new(at + offset_of!(ConsumerHead, pending) as u64);
        let root = tree::check(mem, self.audit, place, &mut own)?;
        if !self.is_deferred && root.len != known.len() as u64 {
            return broken(at, "a consumer without all its pending entries");
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        name_at(self.mem, one, CONSUMER).cmp(name_at(self.mem, other, CONSUMER))
    }
}

/// Checks the pending entries of a group; claims each.
struct PendingChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    consumers: BTreeMap<u64, Vec<u64>>,
}

impl CheckTreeEntry for PendingChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, entry: tree::TreeEntry) -> Result<(), Corruption> {
        if !is_inside(self.mem, entry.item, PENDING_RECORD) {
            return broken(0, "a pending entry outside the arena");
        }
        let record: PendingRecord = self.mem.read(Offset::new(entry.item));
        if record.id.ms != entry.key {
            return broken(entry.item, "a pending entry in the wrong place");
        }
        self.audit.claim(entry.item, PENDING_RECORD, self.mem.shard())?;
        self.consumers.entry(record.consumer).or_default().push(entry.item);
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        compare(self.mem, one, other)
    }
}

/// Checks that a consumer's tree holds the group's pending entries of that consumer, in order.
struct ConsumerPendingChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    known: &'a [u64],
    next: usize,
}

impl CheckTreeEntry for ConsumerPendingChecker<'_, '_> {
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, entry: tree::TreeEntry) -> Result<(), Corruption> {
        let is_known = self.known.get(self.next) == Some(&entry.item);
        self.next += 1;
        // An entry of the group was checked before, so that its id may be read.
        if !is_known || self.mem.read::<StreamId>(Offset::new(entry.item)).ms != entry.key {
            return broken(entry.item, "a pending entry that its group lacks");
        }
        Ok(())
    }

    fn compare(&self, one: u64, other: u64) -> Ordering {
        compare(self.mem, one, other)
    }
}
