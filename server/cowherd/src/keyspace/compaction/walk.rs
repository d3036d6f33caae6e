//! Visiting all objects of a shard by reference, in steps between which the shard may change.
//!
//! What is deferred (flushed databases, the lazy-free list) is freed rather than moved.

use std::collections::VecDeque;

use cowherd_arena::containers::dict::{Dict, DictCursor, Hashed as _};
use cowherd_arena::{Mem, ShardIndex};

use crate::keyspace::collection::ValueCursor;
use crate::keyspace::entry::{ByKey, ByOffset, EntryHasher, EntryHeader, ValueStorage};
use crate::keyspace::roots::{ALL_DATABASES, DbIndex, SecondaryIndex, keys_of};
use crate::keyspace::shards::Entry;
use crate::keyspace::{Shards, values};

use super::SLICE_BYTES;

/// Keys, or elements of a large value, that one step visits.
const STEP: usize = 32;

/// Where the walk of a shard continues.
#[derive(Default)]
pub(super) struct ShardWalk {
    stage: Stage,
    /// Large values of visited keys, with elements that are still to be visited.
    values: VecDeque<OpenValue>,
}

#[derive(Clone, Copy, Default)]
enum Stage {
    /// Freeing what is deferred.
    #[default]
    Deferred,
    /// A database's keys.
    Keys(DbIndex, DictCursor),
    /// The segments of a secondary index.
    Index(DbIndex, usize, DictCursor),
    Done,
}

/// A large value, by the name of its key.
struct OpenValue {
    db: DbIndex,
    key: Box<[u8]>,
    hash: u64,
    cursor: ValueCursor,
    /// The version of the shard when the cursor was set.
    version: u64,
    was_moved: bool,
}

impl ShardWalk {
    /// Visits some objects; tells whether these were the last of the shard.
    pub(super) fn step(&mut self, shards: &mut Shards<'_>, shard: ShardIndex) -> bool {
        if let Some(value) = self.values.pop_front() {
            if let Some(value) = value.visit(shards, shard) {
                self.values.push_front(value);
            }
            return false;
        }
        self.stage = match self.stage {
            Stage::Deferred if shards.free_deferred(shard, STEP) => Stage::Deferred,
            Stage::Deferred => Stage::Keys(0, DictCursor::default()),
            Stage::Keys(db, cursor) => match self.visit_keys(shards, shard, db, cursor) {
                Some(next) => Stage::Keys(db, next),
                None => Stage::Index(db, 0, DictCursor::default()),
            },
            Stage::Index(db, number, cursor) => {
                let index = SecondaryIndex::ALL[number];
                match index.of(shard, db).evacuate_segments(&mut shards.mem(shard), cursor) {
                    Some(next) => Stage::Index(db, number, next),
                    None if number + 1 < SecondaryIndex::ALL.len() => {
                        Stage::Index(db, number + 1, DictCursor::default())
                    }
                    None if db + 1 < ALL_DATABASES => Stage::Keys(db + 1, DictCursor::default()),
                    None => Stage::Done,
                }
            }
            Stage::Done => Stage::Done,
        };
        matches!(self.stage, Stage::Done)
    }

    /// Visits some keys of a database; returns where to continue.
    fn visit_keys(
        &mut self,
        shards: &mut Shards<'_>,
        shard: ShardIndex,
        db: DbIndex,
        cursor: DictCursor,
    ) -> Option<DictCursor> {
        let keys: Dict = keys_of(shard, db);
        let mut mem = shards.mem(shard);
        keys.evacuate_segments(&mut mem, cursor);
        let mut entries = Vec::with_capacity(2 * STEP);
        let next = keys.scan(&mem, cursor, STEP, |at| {
            mem.arena().prefetch(at);
            entries.push(at);
        });
        // A scan may visit an entry twice.
        entries.sort_unstable();
        entries.dedup();
        let moved = |shards: &Shards<'_>| shards.keyspace().arena().compaction_stats().moved_bytes;
        let before = moved(shards);
        for at in entries {
            self.visit_entry(shards, shard, db, at);
            // The next step visits them again, and finds those that have moved where they belong.
            if moved(shards) - before >= SLICE_BYTES {
                return Some(cursor);
            }
        }
        next
    }

    /// Moves an entry, its object or its value's header; keeps a large value for later steps.
    fn visit_entry(&mut self, shards: &mut Shards<'_>, shard: ShardIndex, db: DbIndex, at: u64) {
        let mut mem = shards.mem(shard);
        let head = EntryHeader::load(&mem, at);
        let mut was_moved = false;
        match head.storage {
            ValueStorage::External => {
                let (object, reserved) = head.object(&mem, at);
                if let Some(to) = mem.evacuate(object, reserved) {
                    head.set_object(&mut mem, at, to, reserved);
                    was_moved = true;
                }
            }
            ValueStorage::Large => {
                let header = head.large_header(&mem, at);
                if let Some(to) = values::evacuate_header(&mut mem, head.kind, header) {
                    head.set_large_header(&mut mem, at, to);
                    was_moved = true;
                }
            }
            ValueStorage::Inline | ValueStorage::Int => {}
        }
        let is_source = mem.is_source(at);
        let hash = (is_source || head.is_large()).then(|| EntryHasher.hash(&mem, at));
        if let Some(hash) = hash.filter(|_| head.is_large()) {
            let key = head.key(&mem, at).into();
            let cursor = ValueCursor::default();
            self.values.push_back(OpenValue { db, key, hash, cursor, version: 0, was_moved });
        }
        if let Some(hash) = hash.filter(|_| is_source) {
            was_moved |= evacuate_entry(shards, shard, db, hash, at, &head);
        }
        match self.values.back_mut().filter(|_| head.is_large()) {
            Some(value) => value.was_moved = was_moved,
            None => shards.keyspace().compaction.count_key(was_moved),
        }
    }
}

/// Moves an entry, and lets its database refer to the new one; tells whether there was room.
fn evacuate_entry(
    shards: &mut Shards<'_>,
    shard: ShardIndex,
    db: DbIndex,
    hash: u64,
    at: u64,
    head: &EntryHeader,
) -> bool {
    let mut mem = shards.mem(shard);
    let Some(found) = keys_of(shard, db).find(&mem, hash, &ByOffset(at)) else { return false };
    let Some(to) = mem.copy_out(at, head.len()) else { return false };
    let old = Entry { at, head: *head, found, shard };
    let relinked = shards.relink(db, hash, &old, to, head);
    relinked.expect("invariant: an entry that replaces one of the same header needs no memory");
    // The access clock was copied while both entries were there.
    shards.mem(shard).release(at, head.len());
    true
}

impl OpenValue {
    /// Moves some elements; returns the value if there are more.
    fn visit(mut self, shards: &mut Shards<'_>, shard: ShardIndex) -> Option<Self> {
        let moved = |mem: &Mem<'_>| mem.arena().compaction_stats().moved;
        let version = shards.version(shard);
        if self.version != version {
            self.cursor.offset = 0;
        }
        let mut mem = shards.mem(shard);
        let before = moved(&mem);
        // The key may have been removed, or replaced by another one, since the last step.
        let found = keys_of(shard, self.db).find(&mem, self.hash, &ByKey(&self.key));
        let next = found.and_then(|found| {
            let head = EntryHeader::load(&mem, found.item);
            let header = head.is_large().then(|| head.large_header(&mem, found.item))?;
            values::evacuate_some(&mut mem, head.kind, header, self.cursor, STEP)
        });
        self.was_moved |= moved(&mem) != before;
        let Some(cursor) = next else {
            shards.keyspace().compaction.count_key(self.was_moved);
            return None;
        };
        self.cursor = cursor;
        self.version = version;
        Some(self)
    }
}
