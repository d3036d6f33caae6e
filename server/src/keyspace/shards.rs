//! Locked shards: looking keys up, linking and unlinking their entries.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::arena::{Held, Mem, OutOfMemory, ShardIndex, ShardSet, rounded};
use crate::collections::dict::Found;

use super::entry::{ByHash, ByKey, ByPlace, Encoding, Kind, Shape};
use super::{DbIndex, Keyspace, expires_of, keys_of};

/// A key, with its hash and the shard that follows from it.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    /// The key's bytes.
    pub bytes: &'k [u8],
    /// Their hash.
    pub hash: u64,
    /// The shard that the key lives in.
    pub shard: ShardIndex,
}

/// What one shard counts. Written under the shard's lock only; read by anybody.
pub(super) struct ShardState(CachePadded<[AtomicU64; 4]>);

/// What shards count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardStats {
    /// Changes of keys or values.
    pub changes: u64,
    /// Keys that expired.
    pub expired: u64,
    /// Lookups by reading commands that found their key.
    pub hits: u64,
    /// Lookups by reading commands that did not.
    pub misses: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Counter {
    Changes,
    Expired,
    Hits,
    Misses,
}

impl ShardState {
    pub(super) const fn new() -> Self {
        Self(CachePadded::new([const { AtomicU64::new(0) }; 4]))
    }

    #[inline]
    fn add(&self, counter: Counter, by: u64) {
        let cell = &self.0[counter as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }
}

impl Keyspace {
    /// What all shards have counted.
    pub fn stats(&self) -> ShardStats {
        let sum = |counter: Counter| {
            self.stats.iter().map(|s| s.0[counter as usize].load(Ordering::Relaxed)).sum()
        };
        ShardStats {
            changes: sum(Counter::Changes),
            expired: sum(Counter::Expired),
            hits: sum(Counter::Hits),
            misses: sum(Counter::Misses),
        }
    }
}

/// An entry that was looked up. Good until its shard changes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(super) at: u64,
    pub(super) shape: Shape,
    pub(super) found: Found,
    pub(super) shard: ShardIndex,
}

impl Entry {
    /// The value's type.
    pub const fn kind(&self) -> Kind {
        self.shape.kind
    }
}

/// The locked shards of one command, as a keyspace.
pub struct Shards<'a> {
    pub(super) held: Held<'a>,
    pub(super) space: &'a Keyspace,
    pub(super) now: i64,
    touch: bool,
}

impl<'a> Shards<'a> {
    #[inline]
    pub(super) fn lock(space: &'a Keyspace, set: ShardSet, now: i64) -> Self {
        Self { held: space.arena.lock(set), space, now, touch: true }
    }

    /// Lets lookups leave the access clocks alone.
    pub const fn without_touch(mut self) -> Self {
        self.touch = false;
        self
    }

    /// Lets lookups touch the access clocks or leave them alone.
    pub const fn set_touch(&mut self, touch: bool) {
        self.touch = touch;
    }

    /// The wall clock of this command, in milliseconds.
    pub const fn now(&self) -> i64 {
        self.now
    }

    /// The keyspace.
    pub const fn keyspace(&self) -> &'a Keyspace {
        self.space
    }

    /// The locks.
    pub const fn held(&mut self) -> &mut Held<'a> {
        &mut self.held
    }

    #[inline]
    pub(super) fn mem(&mut self, shard: ShardIndex) -> Mem<'_> {
        self.held.mem(shard)
    }

    #[inline]
    pub(super) fn count(&self, shard: ShardIndex, counter: Counter, by: u64) {
        self.space.stats[shard.get()].add(counter, by);
    }

    /// Counts a change of a key.
    #[inline]
    pub(super) fn changed(&self, shard: ShardIndex) {
        self.count(shard, Counter::Changes, 1);
    }

    /// The entry of a key; none if it has expired, and then it is gone. Counts as a use.
    #[inline]
    pub fn lookup(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let entry = self.peek(db, key)?;
        if self.touch {
            self.space.clocks.touch(entry.at, self.now);
        }
        Some(entry)
    }

    /// As [`Self::lookup`], and counts a hit or a miss.
    #[inline]
    pub fn lookup_read(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let entry = self.lookup(db, key);
        self.count_read(key, entry.is_some());
        entry
    }

    #[inline]
    fn count_read(&self, key: &Key<'_>, found: bool) {
        let counter = if found { Counter::Hits } else { Counter::Misses };
        self.count(key.shard, counter, 1);
    }

    /// As [`Self::lookup`], but does not count as a use.
    #[inline]
    pub fn peek(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let now = self.now;
        let mem = self.held.mem(key.shard);
        let found = keys_of(key.shard, db).find(&mem, key.hash, &ByKey(key.bytes))?;
        let shape = Shape::load(&mem, found.item);
        let entry = Entry { at: found.item, shape, found, shard: key.shard };
        if shape.has_expiry && shape.expiry(&mem, found.item).is_some_and(|at| at <= now) {
            self.expire(db, key.hash, &entry);
            return None;
        }
        Some(entry)
    }

    /// As [`Self::peek`], and counts a hit or a miss.
    pub fn peek_read(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let entry = self.peek(db, key);
        self.count_read(key, entry.is_some());
        entry
    }

    /// Whether a key is there.
    pub fn exists(&mut self, db: DbIndex, key: &Key<'_>) -> bool {
        self.lookup_read(db, key).is_some()
    }

    /// How an entry was used.
    pub fn usage(&self, entry: &Entry) -> super::Usage {
        self.space.clocks.usage(entry.at, self.now)
    }

    /// Bytes that a key takes in the arena, its references included.
    pub fn memory_usage(&self, entry: &Entry) -> u64 {
        let reference = if entry.shape.has_expiry { 24 } else { 12 };
        let object = match entry.shape.is_external() {
            true => rounded(entry.shape.object(&self.held.view(entry.shard), entry.at).1),
            false => 0,
        };
        rounded(entry.shape.len()) + object + reference
    }

    /// What OBJECT ENCODING answers for an entry.
    pub const fn encoding_name(&self, entry: &Entry) -> &'static str {
        match entry.shape.encoding {
            Encoding::Int => "int",
            _ if entry.shape.value_len <= 44 && !entry.shape.was_edited => "embstr",
            _ => "raw",
        }
    }

    /// Removes a key; tells whether it was there.
    pub fn remove(&mut self, db: DbIndex, key: &Key<'_>) -> bool {
        let Some(entry) = self.peek(db, key) else { return false };
        self.unlink(db, key.hash, &entry);
        self.free(&entry);
        self.changed(key.shard);
        true
    }

    /// Removes an entry that has expired.
    #[cold]
    pub(super) fn expire(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        self.unlink(db, hash, entry);
        self.free(entry);
        self.count(entry.shard, Counter::Expired, 1);
        self.changed(entry.shard);
    }

    /// Links a new entry that is in the arena already; nothing refers to its key yet.
    pub(super) fn link(
        &mut self,
        db: DbIndex,
        hash: u64,
        at: u64,
        has_expiry: bool,
    ) -> Result<(), OutOfMemory> {
        let shard = ShardIndex::of_hash(hash);
        let mut mem = self.held.mem(shard);
        if has_expiry {
            expires_of(shard, db).insert(&mut mem, hash, at, &ByHash)?;
        }
        if let Err(full) = keys_of(shard, db).insert(&mut mem, hash, at, &ByHash) {
            if has_expiry {
                unlink_expires(&mut mem, db, hash, at);
            }
            return Err(full);
        }
        self.space.clocks.start(at, self.now);
        Ok(())
    }

    /// Lets the key of `old` refer to a new entry; `old` is not freed.
    pub(super) fn relink(
        &mut self,
        db: DbIndex,
        hash: u64,
        old: &Entry,
        at: u64,
        has_expiry: bool,
    ) -> Result<(), OutOfMemory> {
        let mut mem = self.held.mem(old.shard);
        let expires = expires_of(old.shard, db);
        match (old.shape.has_expiry, has_expiry) {
            (false, true) => expires.insert(&mut mem, hash, at, &ByHash)?,
            (true, true) => {
                let found = expires.find(&mem, hash, &ByPlace(old.at));
                expires.replace(&mut mem, found.unwrap_or_else(|| lost(old.at)), at);
            }
            (true, false) => unlink_expires(&mut mem, db, hash, old.at),
            (false, false) => {}
        }
        keys_of(old.shard, db).replace(&mut mem, old.found, at);
        self.space.clocks.follow(old.at, at);
        Ok(())
    }

    /// Lets the key of `old` refer to a new entry without an expiry. `expires` still refers to
    /// `old` if that had one: see [`Self::forget_expiry`].
    pub(super) fn swap(&mut self, db: DbIndex, old: &Entry, at: u64) {
        let mut mem = self.held.mem(old.shard);
        keys_of(old.shard, db).replace(&mut mem, old.found, at);
        self.space.clocks.follow(old.at, at);
    }

    /// Takes an entry that has an expiry out of `expires`.
    pub(super) fn forget_expiry(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        if entry.shape.has_expiry {
            unlink_expires(&mut self.held.mem(entry.shard), db, hash, entry.at);
        }
    }

    /// Takes an entry out of its database; it is not freed.
    pub(super) fn unlink(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        let mut mem = self.held.mem(entry.shard);
        if entry.shape.has_expiry {
            unlink_expires(&mut mem, db, hash, entry.at);
        }
        keys_of(entry.shard, db).remove(&mut mem, hash, entry.found);
    }

    /// Frees an entry and its value.
    pub(super) fn free(&mut self, entry: &Entry) {
        free_entry(&mut self.held.mem(entry.shard), entry.at);
    }
}

/// Frees the entry at `at` and its value.
pub(super) fn free_entry(mem: &mut Mem<'_>, at: u64) {
    let shape = Shape::load(mem, at);
    if shape.encoding == Encoding::External {
        let (object, len) = shape.object(mem, at);
        mem.release(object, len);
    }
    mem.release(at, shape.len());
}

fn unlink_expires(mem: &mut Mem<'_>, db: DbIndex, hash: u64, at: u64) {
    let expires = expires_of(mem.shard(), db);
    let found = expires.find(mem, hash, &ByPlace(at)).unwrap_or_else(|| lost(at));
    expires.remove(mem, hash, found);
}

#[cold]
fn lost(at: u64) -> ! {
    panic!("keyspace: the entry at {at:#x} has an expiry but is not in `expires`")
}
