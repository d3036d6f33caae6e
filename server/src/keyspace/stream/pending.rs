//! Entries that a group has handed out and that nobody has acknowledged.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arena::{Mem, Offset, OutOfMemory};
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Key, Shards};

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

/// A pending entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
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
pub struct Claim {
    /// Who has it then.
    pub consumer: Consumer,
    /// When it was handed out.
    pub delivered_at: i64,
    /// How often.
    pub deliveries: u64,
}

impl Pending {
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

/// Makes an entry pending, or changes how it is.
pub(super) fn put(
    mem: &mut Mem<'_>,
    group: Group,
    id: StreamId,
    claim: &Claim,
) -> Result<(), OutOfMemory> {
    let ties = BySeq(id.seq);
    let note =
        Note { id, time: claim.delivered_at, count: claim.deliveries, consumer: claim.consumer.0 };
    if let Some(at) = find(mem, group, id) {
        let old: Note = mem.read(Offset::new(at));
        if old.consumer != note.consumer {
            claim.consumer.pending().insert(mem, id.ms, at, &ties)?;
            Consumer(old.consumer).pending().remove(mem, id.ms, &ties);
        }
        mem.write(Offset::new(at), note);
        return Ok(());
    }
    let at = mem.allocate(NOTE)?;
    mem.write(Offset::new(at), note);
    let put = group.pending().insert(mem, id.ms, at, &ties).and_then(|()| {
        let put = claim.consumer.pending().insert(mem, id.ms, at, &ties);
        put.inspect_err(|_| {
            group.pending().remove(mem, id.ms, &ties);
        })
    });
    put.inspect_err(|_| mem.release(at, NOTE))
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
    pub fn pending(&self, entry: &Entry, group: Group, id: StreamId) -> Option<Pending> {
        let mem = self.held.view(entry.shard);
        find(&mem, group, id).map(|at| Pending::load(&mem, at))
    }

    /// Hands pending entries of a group, or of one consumer, from `start` on to `each` until it
    /// says no.
    pub fn pending_each(
        &self,
        entry: &Entry,
        group: Group,
        consumer: Option<Consumer>,
        start: StreamId,
        mut each: impl FnMut(&Pending) -> bool,
    ) {
        let mem = self.held.view(entry.shard);
        let tree = consumer.map_or_else(|| group.pending(), Consumer::pending);
        let from = tree.rank(&mem, start.ms, &BySeq(start.seq));
        for item in tree.ascending(&mem, from) {
            if !each(&Pending::load(&mem, item.item)) {
                return;
            }
        }
    }

    /// The first and the last pending entry of a group.
    pub fn pending_ends(&self, entry: &Entry, group: Group) -> Option<(StreamId, StreamId)> {
        let mem = self.held.view(entry.shard);
        let (first, last) = (group.pending().first(&mem)?, group.pending().last(&mem)?);
        Some((Pending::load(&mem, first.item).id, Pending::load(&mem, last.item).id))
    }

    /// Makes entries pending, or changes how they are.
    ///
    /// # Errors
    /// The arena is full; none that was not pending before is so.
    pub fn pending_put(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        group: Group,
        claims: &[(StreamId, Claim)],
    ) -> Result<(), OutOfMemory> {
        let mut mem = self.held.mem(entry.shard);
        let mut new = Vec::new();
        for (id, claim) in claims {
            let is_new = find(&mem, group, *id).is_none();
            if let Err(full) = put(&mut mem, group, *id, claim) {
                new.iter().for_each(|id| {
                    remove(&mut mem, group, *id);
                });
                return Err(full);
            }
            if is_new {
                new.push(*id);
            }
        }
        if !claims.is_empty() {
            self.touched(db, key);
        }
        Ok(())
    }

    /// Ends that entries are pending; returns how many were.
    pub fn pending_remove(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        group: Group,
        ids: impl Iterator<Item = StreamId>,
    ) -> u64 {
        let mut mem = self.held.mem(entry.shard);
        let removed = ids.filter(|id| remove(&mut mem, group, *id)).count() as u64;
        if removed > 0 {
            self.touched(db, key);
        }
        removed
    }
}
