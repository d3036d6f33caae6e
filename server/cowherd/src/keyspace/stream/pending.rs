//! Entries that a group has handed out and that nobody has acknowledged.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::keyspace::Shards;
use crate::keyspace::shards::Entry;
use cowherd_arena::{Mem, Offset, OutOfMemory};

use super::groups::{Consumer, Group};
use super::{BySeq, StreamId, entries};

/// A pending entry, as it is kept.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Note {
    pub id: StreamId,
    pub time: i64,
    pub count: u64,
    pub consumer: u64,
}

pub(super) const NOTE: u64 = size_of::<Note>() as u64;

/// The time of an entry that was prepared and is not delivered yet.
const NOT_YET: i64 = -1;

/// A pending entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingEntry {
    /// The entry.
    pub id: StreamId,
    /// When it was last handed out, wall clock in milliseconds.
    pub delivered_at: i64,
    /// How often it was handed out.
    pub deliveries: u64,
    /// To whom.
    pub consumer: Consumer,
}

/// What claiming an entry makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingClaim {
    /// Who has it then.
    pub consumer: Consumer,
    /// When it was handed out.
    pub delivered_at: i64,
    /// How often.
    pub deliveries: u64,
}

impl PendingEntry {
    /// Whether it has only been prepared.
    pub const fn is_new(&self) -> bool {
        self.delivered_at == NOT_YET
    }

    pub(super) fn load(mem: &Mem<'_>, at: u64) -> Self {
        let note: Note = mem.read(Offset::new(at));
        Self {
            id: note.id,
            delivered_at: note.time,
            deliveries: note.count,
            consumer: Consumer(note.consumer),
        }
    }
}

/// The place of the pending entry with an id.
pub(super) fn find(mem: &Mem<'_>, group: Group, id: StreamId) -> Option<u64> {
    let rank = group.pending().find(mem, id.ms, &BySeq(id.seq))?;
    group.pending().nth(mem, rank).map(|entry| entry.item)
}

/// What [`Shards::pending_prepare`] did, so that it can be undone.
#[derive(Default, Debug)]
pub struct PendingReservation {
    /// Entries that were not pending.
    new: Vec<StreamId>,
    /// Entries that are pending for another consumer.
    others: Vec<StreamId>,
}

/// Makes an entry pending for `consumer`, or gives it a second place, among those of `consumer`, if
/// it is pending for another.
fn prepare(
    mem: &mut Mem<'_>,
    group: Group,
    consumer: Consumer,
    id: StreamId,
    done: &mut PendingReservation,
) -> Result<(), OutOfMemory> {
    let ties = BySeq(id.seq);
    if let Some(at) = find(mem, group, id) {
        let note: Note = mem.read(Offset::new(at));
        let is_own = note.consumer == consumer.0;
        if !is_own && consumer.pending().find(mem, id.ms, &ties).is_none() {
            consumer.pending().insert(mem, id.ms, at, &ties)?;
            done.others.push(id);
        }
        return Ok(());
    }
    let note = Note { id, time: NOT_YET, count: 0, consumer: consumer.0 };
    put(mem, group, &note)?;
    done.new.push(id);
    Ok(())
}

/// Adds a pending entry.
pub(super) fn put(mem: &mut Mem<'_>, group: Group, note: &Note) -> Result<(), OutOfMemory> {
    let (id, ties) = (note.id, BySeq(note.id.seq));
    let at = mem.allocate(NOTE)?;
    mem.write(Offset::new(at), *note);
    let put = group.pending().insert(mem, id.ms, at, &ties).and_then(|()| {
        let put = Consumer(note.consumer).pending().insert(mem, id.ms, at, &ties);
        put.inspect_err(|_| {
            group.pending().remove(mem, id.ms, &ties);
        })
    });
    put.inspect_err(|_| mem.release(at, NOTE))
}

fn undo(mem: &mut Mem<'_>, group: Group, consumer: Consumer, prepared: &PendingReservation) {
    for id in &prepared.new {
        remove(mem, group, *id);
    }
    for id in &prepared.others {
        consumer.pending().remove(mem, id.ms, &BySeq(id.seq));
    }
}

/// Ends that an entry is pending; tells whether it was.
pub(super) fn remove(mem: &mut Mem<'_>, group: Group, id: StreamId) -> bool {
    let ties = BySeq(id.seq);
    let Some(at) = group.pending().remove(mem, id.ms, &ties) else { return false };
    let note: Note = mem.read(Offset::new(at));
    Consumer(note.consumer).pending().remove(mem, id.ms, &ties);
    mem.release(at, NOTE);
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

    /// Hands pending entries of a group, or of one consumer, from `start` on to `each` until it
    /// says no.
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

    /// Makes room for entries to be pending for `consumer`: after it [`Self::pending_set`] cannot
    /// fail for any of them, and has to be called for each, or [`Self::pending_undo`].
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

    /// Gives a pending entry to a consumer that it was prepared for, or that has it. Those who
    /// watch the key hear nothing of it.
    pub fn pending_set(&mut self, entry: &Entry, group: Group, id: StreamId, claim: &PendingClaim) {
        let mut mem = self.held.mem(entry.shard);
        let Some(at) = find(&mem, group, id) else { return };
        let old: Note = mem.read(Offset::new(at));
        if old.consumer != claim.consumer.0 {
            Consumer(old.consumer).pending().remove(&mut mem, id.ms, &BySeq(id.seq));
        }
        let (time, count) = (claim.delivered_at, claim.deliveries);
        mem.write(Offset::new(at), Note { id, time, count, consumer: claim.consumer.0 });
        self.changed(entry.shard);
    }

    /// Ends that entries are pending, of which those who watch the key hear nothing; returns how
    /// many were.
    pub fn pending_remove(
        &mut self,
        entry: &Entry,
        group: Group,
        ids: impl Iterator<Item = StreamId>,
    ) -> u64 {
        let mut mem = self.held.mem(entry.shard);
        let removed = ids.filter(|id| remove(&mut mem, group, *id)).count() as u64;
        if removed > 0 {
            self.changed(entry.shard);
        }
        removed
    }
}
