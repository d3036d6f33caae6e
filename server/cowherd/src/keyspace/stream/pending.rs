//! Pending entries: delivered to a consumer of a group, and not acknowledged.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::keyspace::Shards;
use crate::keyspace::shards::Entry;
use cowherd_arena::{Mem, Offset, OutOfMemory};

use super::groups::{Consumer, Group};
use super::{BySeq, StreamId, entries};

/// The object of a pending entry.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct PendingRecord {
    pub id: StreamId,
    pub time: i64,
    pub count: u64,
    pub consumer: u64,
}

pub(super) const PENDING_RECORD: u64 = size_of::<PendingRecord>() as u64;

/// The delivery time of an entry that is reserved and not delivered yet.
const NOT_YET: i64 = -1;

/// A pending entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingEntry {
    /// The id of the entry.
    pub id: StreamId,
    /// When the entry was last delivered, wall clock in milliseconds.
    pub delivered_at: i64,
    /// How often the entry was delivered.
    pub deliveries: u64,
    /// The consumer to which the entry was delivered.
    pub consumer: Consumer,
}

/// The state of a pending entry after a consumer has claimed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingClaim {
    /// The new consumer.
    pub consumer: Consumer,
    /// When the entry was delivered, wall clock in milliseconds.
    pub delivered_at: i64,
    /// How often the entry was delivered.
    pub deliveries: u64,
}

impl PendingEntry {
    /// Whether the entry is only reserved, see [`Shards::pending_prepare`].
    pub const fn is_new(&self) -> bool {
        self.delivered_at == NOT_YET
    }

    pub(super) fn load(mem: &Mem<'_>, at: u64) -> Self {
        let record: PendingRecord = mem.read(Offset::new(at));
        Self {
            id: record.id,
            delivered_at: record.time,
            deliveries: record.count,
            consumer: Consumer(record.consumer),
        }
    }
}

/// The object of the pending entry with an id.
pub(super) fn find(mem: &Mem<'_>, group: Group, id: StreamId) -> Option<u64> {
    let rank = group.pending().find(mem, id.ms, &BySeq(id.seq))?;
    group.pending().nth(mem, rank).map(|entry| entry.item)
}

/// The changes of [`Shards::pending_prepare`], so that they can be undone.
#[derive(Default, Debug)]
pub struct PendingReservation {
    /// Entries that were not pending before.
    new: Vec<StreamId>,
    /// Entries that are pending for another consumer, and now in both consumers' trees.
    others: Vec<StreamId>,
}

/// Makes an entry pending for `consumer`; if it is pending for another consumer, adds it to the
/// tree of `consumer` too.
fn prepare(
    mem: &mut Mem<'_>,
    group: Group,
    consumer: Consumer,
    id: StreamId,
    done: &mut PendingReservation,
) -> Result<(), OutOfMemory> {
    let ties = BySeq(id.seq);
    if let Some(at) = find(mem, group, id) {
        let record: PendingRecord = mem.read(Offset::new(at));
        let is_own = record.consumer == consumer.0;
        if !is_own && consumer.pending().find(mem, id.ms, &ties).is_none() {
            consumer.pending().insert(mem, id.ms, at, &ties)?;
            done.others.push(id);
        }
        return Ok(());
    }
    let record = PendingRecord { id, time: NOT_YET, count: 0, consumer: consumer.0 };
    put(mem, group, &record)?;
    done.new.push(id);
    Ok(())
}

/// Adds a pending entry.
pub(super) fn put(
    mem: &mut Mem<'_>,
    group: Group,
    record: &PendingRecord,
) -> Result<(), OutOfMemory> {
    let (id, ties) = (record.id, BySeq(record.id.seq));
    let at = mem.allocate(PENDING_RECORD)?;
    mem.write(Offset::new(at), *record);
    let put = group.pending().insert(mem, id.ms, at, &ties).and_then(|()| {
        let put = Consumer(record.consumer).pending().insert(mem, id.ms, at, &ties);
        put.inspect_err(|_| {
            group.pending().remove(mem, id.ms, &ties);
        })
    });
    put.inspect_err(|_| mem.release(at, PENDING_RECORD))
}

fn undo(mem: &mut Mem<'_>, group: Group, consumer: Consumer, prepared: &PendingReservation) {
    for id in &prepared.new {
        remove(mem, group, *id);
    }
    for id in &prepared.others {
        consumer.pending().remove(mem, id.ms, &BySeq(id.seq));
    }
}

/// Removes a pending entry; tells whether there was one with this id.
pub(super) fn remove(mem: &mut Mem<'_>, group: Group, id: StreamId) -> bool {
    let ties = BySeq(id.seq);
    let Some(at) = group.pending().remove(mem, id.ms, &ties) else { return false };
    let record: PendingRecord = mem.read(Offset::new(at));
    Consumer(record.consumer).pending().remove(mem, id.ms, &ties);
    mem.release(at, PENDING_RECORD);
    true
}

impl Shards<'_> {
    /// Whether a stream has an entry with this id.
    pub fn stream_has(&self, entry: &Entry, id: StreamId) -> bool {
        entries::has(&self.held.view(entry.shard), self.stream_root(entry), id)
    }

    /// The pending entry with an id.
    pub fn pending(&self, entry: &Entry, group: Group, id: StreamId) -> Option<PendingEntry> {
        let mem = self.held.view(entry.shard);
        find(&mem, group, id).map(|at| PendingEntry::load(&mem, at))
    }

    /// Calls `each` with pending entries of a group, or of one consumer, from `start` on, until it
    /// returns false.
    pub fn pending_each(
        &self,
        entry: &Entry,
        group: Group,
        consumer: Option<Consumer>,
        start: StreamId,
        mut each: impl FnMut(&PendingEntry) -> bool,
    ) {
        let mem = self.held.view(entry.shard);
        let tree = consumer.map_or_else(|| group.pending(), Consumer::pending);
        let from = tree.rank(&mem, start.ms, &BySeq(start.seq));
        for item in tree.ascending(&mem, from) {
            if !each(&PendingEntry::load(&mem, item.item)) {
                return;
            }
        }
    }

    /// The first and the last pending entry of a group.
    pub fn pending_ends(&self, entry: &Entry, group: Group) -> Option<(StreamId, StreamId)> {
        let mem = self.held.view(entry.shard);
        let (first, last) = (group.pending().first(&mem)?, group.pending().last(&mem)?);
        Some((PendingEntry::load(&mem, first.item).id, PendingEntry::load(&mem, last.item).id))
    }

    /// Allocates what entries need to be pending for `consumer`, so that [`Self::pending_set`]
    /// cannot fail for any of them. The caller has to call it for each, or [`Self::pending_undo`]
    /// once.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn pending_prepare(
        &mut self,
        entry: &Entry,
        group: Group,
        consumer: Consumer,
        ids: &[StreamId],
    ) -> Result<PendingReservation, OutOfMemory> {
        let mut mem = self.held.mem(entry.shard);
        let mut done = PendingReservation::default();
        let mut all = ids.iter();
        let made = all.try_for_each(|id| prepare(&mut mem, group, consumer, *id, &mut done));
        made.inspect_err(|_| undo(&mut mem, group, consumer, &done))?;
        Ok(done)
    }

    /// Undoes [`Self::pending_prepare`].
    pub fn pending_undo(
        &mut self,
        entry: &Entry,
        group: Group,
        consumer: Consumer,
        prepared: &PendingReservation,
    ) {
        undo(&mut self.held.mem(entry.shard), group, consumer, prepared);
    }

    /// Moves a pending entry to the consumer for which it was prepared, or updates it. Does not
    /// notify watchers.
    pub fn pending_set(&mut self, entry: &Entry, group: Group, id: StreamId, claim: &PendingClaim) {
        let mut mem = self.held.mem(entry.shard);
        let Some(at) = find(&mem, group, id) else { return };
        let old: PendingRecord = mem.read(Offset::new(at));
        if old.consumer != claim.consumer.0 {
            Consumer(old.consumer).pending().remove(&mut mem, id.ms, &BySeq(id.seq));
        }
        let (time, count) = (claim.delivered_at, claim.deliveries);
        mem.write(Offset::new(at), PendingRecord { id, time, count, consumer: claim.consumer.0 });
        self.changed(entry.shard);
    }

    /// Removes pending entries; returns the number of those that existed. Does not notify watchers.
    pub fn pending_remove(
        &mut self,
        entry: &Entry,
        group: Group,
        ids: impl Iterator<Item = StreamId>,
    ) -> u64 {
        let mut mem = self.held.mem(entry.shard);
        let removed = ids.filter(|id| remove(&mut mem, group, *id)).count() as u64;
        if removed > 0 {
            self.changed_times(entry.shard, removed);
        }
        removed
    }
}
