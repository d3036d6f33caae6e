//! Expiry: when keys cease to be there, and the slices in which those that nobody asks for are
//! found.

use cowherd_arena::containers::dict::Cursor;
use cowherd_arena::{OutOfMemory, ShardIndex, allocated_size};

use super::database::free_all_deferred;
use super::entry::{ByHash, HEAD, Shape};
use super::shards::Entry;
use super::{DATABASES, DbIndex, DbRoot, Key, Keyspace, Shards, Side, expires_of, garbage_of};

/// Bytes of an expiry in an entry.
const EXPIRY: usize = size_of::<i64>();

/// On what condition an expiry is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExpireRule {
    /// Only if there is none.
    pub if_none: bool,
    /// Only if there is one.
    pub if_some: bool,
    /// Only if the new one is later; none is the latest of all.
    pub if_later: bool,
    /// Only if the new one is earlier; none is the latest of all.
    pub if_earlier: bool,
}

impl ExpireRule {
    pub(super) fn allows(self, old: Option<i64>, new: i64) -> bool {
        !(self.if_none && old.is_some()
            || self.if_some && old.is_none()
            || self.if_later && old.is_none_or(|old| new <= old)
            || self.if_earlier && old.is_some_and(|old| new >= old))
    }
}

/// What a slice of background work did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CleaningSlice {
    /// Keys with an expiry, and hashes whose fields may expire, that were looked at.
    pub looked_at: usize,
    /// Of them, those that had expired, or had fields that had.
    pub expired: usize,
    /// Whether flushed databases or deleted values are still to be freed.
    pub more_deferred: bool,
}

/// Where slices of background work go on, in one database of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CleanCursors {
    keys: Cursor,
    fields: Cursor,
}

impl Shards<'_> {
    /// The expiry of an entry, wall clock in milliseconds.
    pub fn expiry(&self, entry: &Entry) -> Option<i64> {
        entry.shape.expiry(&self.held.view(entry.shard), entry.at)
    }

    /// Sets a key's expiry, or deletes the key if that is not in the future. Tells whether the key
    /// is there and the rule allowed it. Counts as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn expire_at(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        at: i64,
        rule: ExpireRule,
    ) -> Result<bool, OutOfMemory> {
        let Some(entry) = self.lookup(db, key) else { return Ok(false) };
        if !rule.allows(self.expiry(&entry), at) {
            return Ok(false);
        }
        if at <= self.now {
            self.remove(db, key);
            return Ok(true);
        }
        self.set_expiry(db, key, &entry, Some(at))?;
        Ok(true)
    }

    /// Removes a key's expiry; tells whether there was one.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn persist(&mut self, db: DbIndex, key: &Key<'_>) -> Result<bool, OutOfMemory> {
        match self.lookup(db, key) {
            Some(entry) if entry.shape.has_expiry => {
                self.set_expiry(db, key, &entry, None)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Sets or removes the expiry of an entry. Counts as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_expiry(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        expiry: Option<i64>,
    ) -> Result<(), OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        if let (true, Some(expiry)) = (entry.shape.has_expiry, expiry) {
            entry.shape.set_expiry(&mut mem, entry.at, expiry);
            self.touched(db, key);
            return Ok(());
        }
        if entry.shape.has_expiry == expiry.is_some() {
            return Ok(());
        }
        let shape = Shape { has_expiry: expiry.is_some(), held: None, ..entry.shape };
        let at = match (mem.allocate(shape.len()), expiry) {
            (Ok(at), _) => at,
            (Err(_), None) => return self.forget_expiry(db, key, entry, shape),
            (Err(full), Some(_)) => return Err(full),
        };
        shape.store(&mut mem, at);
        if let Some(expiry) = expiry {
            shape.set_expiry(&mut mem, at, expiry);
        }
        // All that follows the expiry is the same.
        let from = entry.at + entry.shape.after_expiry();
        mem.copy(from, at + shape.after_expiry(), shape.len() - shape.after_expiry());
        if let Err(full) = self.relink(db, key.hash, entry, at, &shape) {
            self.mem(key.shard).release(at, shape.len());
            return Err(full);
        }
        self.mem(key.shard).release(entry.at, entry.shape.len());
        self.touched(db, key);
        Ok(())
    }

    /// Removes the expiry of an entry that stays where it is, for want of memory.
    #[cold]
    fn forget_expiry(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        shape: Shape,
    ) -> Result<(), OutOfMemory> {
        let len = shape.len();
        let shape = shape.in_object(allocated_size(entry.shape.len())).ok_or(OutOfMemory)?;
        self.reshape(db, key.hash, entry, shape)?;
        let mut mem = self.held.mem(key.shard);
        let after_head = mem.bytes_mut(entry.at + HEAD, EXPIRY as u64 + len - HEAD);
        after_head.copy_within(EXPIRY.., 0);
        self.touched(db, key);
        Ok(())
    }

    /// A slice of background work on a locked shard: looks at up to about `most` keys with an
    /// expiry, and as many hashes whose fields may expire, in one database, from `cursors` on, and
    /// removes what has expired; frees about `most` entries of flushed databases, or as much of
    /// large values that were deleted.
    pub fn clean(
        &mut self,
        shard: ShardIndex,
        db: DbIndex,
        cursors: &mut CleanCursors,
        most: usize,
    ) -> CleaningSlice {
        let mut slice = CleaningSlice {
            more_deferred: self.free_deferred(shard, most),
            ..CleaningSlice::default()
        };
        self.expire_keys(shard, db, &mut cursors.keys, most, &mut slice);
        self.expire_fields(shard, db, &mut cursors.fields, most, &mut slice);
        slice
    }

    fn expire_keys(
        &mut self,
        shard: ShardIndex,
        db: DbIndex,
        cursor: &mut Cursor,
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
            if Shape::load(&mem, at).expiry(&mem, at).is_some_and(|at| at <= now) {
                expired.push(at);
            }
        });
        *cursor = next.unwrap_or_default();
        // The same entry may have been seen twice.
        expired.sort_unstable();
        expired.dedup();
        slice.expired += expired.len();
        for at in expired {
            self.expire_entry(shard, db, at);
        }
    }

    pub(super) fn expire_entry(&mut self, shard: ShardIndex, db: DbIndex, at: u64) {
        use cowherd_arena::containers::dict::Hashed as _;
        let mem = self.held.mem(shard);
        let hash = ByHash.hash(&mem, at);
        let found = super::keys_of(shard, db).find(&mem, hash, &super::entry::ByPlace(at));
        if let Some(found) = found {
            let entry = Entry { at, shape: Shape::load(&mem, at), found, shard };
            self.expire(db, hash, &entry);
        }
    }

    /// Frees all entries of flushed databases, and all large values that were deleted, in one
    /// locked shard, here and now.
    pub fn free_all_deferred(&mut self, shard: ShardIndex) {
        while self.free_deferred(shard, usize::MAX) {}
    }

    /// Frees about `most` entries of flushed databases, or as much of large values that were
    /// deleted; tells whether more is left.
    pub fn free_deferred(&mut self, shard: ShardIndex, most: usize) -> bool {
        let mut mem = self.held.mem(shard);
        if super::values::free_deferred(&mut mem, most) {
            return true;
        }
        match garbage_of(shard).find(|slot| mem.read(*slot) != DbRoot::EMPTY) {
            None => false,
            Some(slot) => {
                free_all_deferred(&mut mem, slot, most);
                true
            }
        }
    }
}

impl Shape {
    /// Offset of what follows the expiry.
    const fn after_expiry(&self) -> u64 {
        super::entry::HEAD + if self.has_expiry { 8 } else { 0 }
    }
}

impl Keyspace {
    /// Whether any database has a key with an expiry, or a hash with fields that may expire, in a
    /// shard, or anything waits to be freed there; read without a lock.
    pub fn needs_cleaning(&self, shard: ShardIndex) -> bool {
        let expiring = (0..DATABASES)
            .any(|db| Side::ALL.iter().any(|side| self.hint_len(side.of(shard, db)) > 0));
        let is_used = |at: u64| self.arena.load_root_racy(at) != Some(0);
        let flushed = garbage_of(shard).any(|slot| {
            is_used(slot.raw()) || Side::ALL.iter().any(|side| is_used(side.at(slot).place()))
        });
        expiring || flushed || is_used(super::garbage_value_of(shard).raw())
    }
}
