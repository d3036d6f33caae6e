//! Background cleaning of one shard, in slices: removes expired keys and fields that no command has
//! found, and frees flushed databases and the lazy-free list.

use cowherd_arena::ShardIndex;
use cowherd_arena::containers::dict::{DictCursor, Hashed as _};

use super::database::drain_flushed;
use super::entry::{ByOffset, EntryHasher, EntryHeader};
use super::roots::{
    DATABASES, DbIndex, DbRoot, SecondaryIndex, expires_of, flushed_slots, keys_of, lazy_free_list,
};
use super::shards::Entry;
use super::{Keyspace, Shards, values};

/// What a slice of cleaning did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CleaningSlice {
    /// Entries of the secondary indexes that were visited: keys with an expiry, and hashes whose
    /// fields may expire.
    pub looked_at: usize,
    /// Of these, the keys that had expired, and the hashes with fields that had.
    pub expired: usize,
    /// Whether flushed databases or deleted values are still to be freed.
    pub more_deferred: bool,
}

/// Where the next slice of cleaning continues in one database of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CleanCursors {
    keys: DictCursor,
    fields: DictCursor,
}

impl Shards<'_> {
    /// A slice of cleaning in one database of a locked shard, which continues at `cursors`: visits
    /// about `most` entries of each secondary index and removes what has expired. Frees about
    /// `most` entries of flushed databases, or elements of deleted values.
    pub fn clean(
        &mut self,
        shard: ShardIndex,
        db: DbIndex,
        cursors: &mut CleanCursors,
        most: usize,
    ) -> CleaningSlice {
        let more_deferred = self.free_deferred(shard, most);
        let mut slice = CleaningSlice { more_deferred, ..CleaningSlice::default() };
        self.clean_keys(shard, db, &mut cursors.keys, most, &mut slice);
        self.clean_fields(shard, db, &mut cursors.fields, most, &mut slice);
        slice
    }

    /// Removes expired keys.
    fn clean_keys(
        &mut self,
        shard: ShardIndex,
        db: DbIndex,
        cursor: &mut DictCursor,
        most: usize,
        slice: &mut CleaningSlice,
    ) {
        if expires_of(shard, db).is_empty(&self.mem(shard)) {
            return;
        }
        let mut expired = Vec::new();
        let now = self.now;
        let mem = self.held.view(shard);
        let next = expires_of(shard, db).scan(&mem, *cursor, most, |at| {
            slice.looked_at += 1;
            if EntryHeader::load(&mem, at).expiry(&mem, at).is_some_and(|at| at <= now) {
                expired.push(at);
            }
        });
        *cursor = next.unwrap_or_default();
        // A scan may visit an entry twice.
        expired.sort_unstable();
        expired.dedup();
        slice.expired += expired.len();
        for at in expired {
            self.expire_entry(shard, db, at);
        }
    }

    /// Removes expired fields: about `most` of each hash that has some.
    fn clean_fields(
        &mut self,
        shard: ShardIndex,
        db: DbIndex,
        cursor: &mut DictCursor,
        most: usize,
        slice: &mut CleaningSlice,
    ) {
        let volatile = SecondaryIndex::Volatile.of(shard, db);
        if volatile.is_empty(&self.mem(shard)) {
            return;
        }
        let mut hashes = Vec::new();
        let next = volatile.scan(&self.held.view(shard), *cursor, most, |at| hashes.push(at));
        *cursor = next.unwrap_or_default();
        // A scan may visit an entry twice.
        hashes.sort_unstable();
        hashes.dedup();
        slice.looked_at += hashes.len();
        for at in hashes {
            let mem = self.held.mem(shard);
            let head = EntryHeader::load(&mem, at);
            let hash = EntryHasher.hash(&mem, at);
            let found = keys_of(shard, db).find(&mem, hash, &ByOffset(at));
            let Some(found) = found else { continue };
            let entry = Entry { at, head, found, shard };
            if self.expire_fields(db, hash, &entry, most) {
                slice.expired += 1;
            }
        }
    }

    /// Frees at once all flushed databases and all deleted values of a locked shard.
    pub fn free_all_deferred(&mut self, shard: ShardIndex) {
        while self.free_deferred(shard, usize::MAX) {}
    }

    /// Frees about `most` entries of flushed databases, or elements of deleted values, of a locked
    /// shard; tells whether there were any.
    pub fn free_deferred(&mut self, shard: ShardIndex, most: usize) -> bool {
        let mut mem = self.held.mem(shard);
        if values::free_deferred(&mut mem, most) {
            return true;
        }
        match flushed_slots(shard).find(|slot| mem.read(*slot) != DbRoot::EMPTY) {
            None => false,
            Some(slot) => {
                drain_flushed(&mut mem, slot, most);
                true
            }
        }
    }
}

impl Keyspace {
    /// Whether a shard has work for [`Shards::clean`]: an entry in a secondary index, a flushed
    /// database, or a deleted value. Read without a lock.
    pub fn needs_cleaning(&self, shard: ShardIndex) -> bool {
        let is_indexed = (0..DATABASES).any(|db| {
            SecondaryIndex::ALL.iter().any(|index| self.hint_len(index.of(shard, db)) > 0)
        });
        let is_used = |at: u64| self.arena.load_root_racy(at) != Some(0);
        let is_flushed = flushed_slots(shard).any(|slot| {
            is_used(slot.raw())
                || SecondaryIndex::ALL.iter().any(|index| is_used(index.at(slot).place()))
        });
        is_indexed || is_flushed || is_used(lazy_free_list(shard).raw())
    }
}
