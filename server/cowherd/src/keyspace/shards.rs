//! Locked shards: looking keys up, linking and unlinking their entries.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use cowherd_arena::containers::dict::Found;
use cowherd_arena::{Held, Mem, OutOfMemory, ShardIndex, ShardSet, allocated_size};

use super::entry::{ByHash, ByKey, ByPlace, Encoding, Shape, ValueKind};
use super::events::KeyspaceEvent;
use super::interest::{Interests, ReadyKey};
use super::{DbIndex, Keyspace, Side, keys_of, values};

/// A key, with its hash and its shard.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    /// The key's bytes.
    pub bytes: &'k [u8],
    /// Their hash.
    pub hash: u64,
    /// The shard that the key lives in, in the database that it was made for; see `strays`.
    pub shard: ShardIndex,
}

/// What one shard counts, written under the shard's lock only and read by anybody; and who is
/// interested in its keys.
pub(super) struct ShardState {
    counters: CachePadded<[AtomicU64; COUNTERS]>,
    pub(super) interests: Mutex<Interests>,
}

const COUNTERS: usize = 6;

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
    /// Keys that were evicted.
    pub evicted: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Counter {
    Changes,
    Expired,
    Hits,
    Misses,
    Evicted,
    /// Keys that somebody is interested in.
    Interests,
}

impl ShardState {
    pub(super) const fn new() -> Self {
        let counters = CachePadded::new([const { AtomicU64::new(0) }; COUNTERS]);
        Self { counters, interests: Mutex::new(Interests::new()) }
    }

    #[inline]
    fn add(&self, counter: Counter, by: u64) {
        self.set(counter, self.get(counter).wrapping_add(by));
    }

    #[inline]
    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set(&self, counter: Counter, to: u64) {
        self.counters[counter as usize].store(to, Ordering::Relaxed);
    }
}

impl Keyspace {
    /// What all shards have counted.
    pub fn stats(&self) -> ShardStats {
        let sum = |counter: Counter| self.stats.iter().map(|state| state.get(counter)).sum();
        ShardStats {
            changes: sum(Counter::Changes),
            expired: sum(Counter::Expired),
            hits: sum(Counter::Hits),
            misses: sum(Counter::Misses),
            evicted: sum(Counter::Evicted),
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
    pub const fn kind(&self) -> ValueKind {
        self.shape.kind
    }
}

/// The locked shards of one command, as a keyspace.
pub struct Shards<'a> {
    pub(super) held: Held<'a>,
    pub(super) space: &'a Keyspace,
    pub(super) now: i64,
    /// Keys that were touched while somebody waits for them.
    pub(super) ready: Vec<ReadyKey>,
    touch: bool,
}

impl<'a> Shards<'a> {
    #[inline]
    pub(super) fn lock(space: &'a Keyspace, set: ShardSet, now: i64) -> Self {
        Self { held: space.arena.lock(set), space, now, ready: Vec::new(), touch: true }
    }

    /// A shard that nobody holds now. For who may hold others, and so must not wait.
    pub(super) fn try_lock(space: &'a Keyspace, shard: ShardIndex, now: i64) -> Option<Self> {
        let held = space.arena.try_lock(shard)?;
        Some(Self { held, space, now, ready: Vec::new(), touch: true })
    }

    /// The same locked shards, for one more command.
    pub const fn reborrow(&mut self) -> Shards<'_> {
        Shards {
            held: self.held.reborrow(),
            space: self.space,
            now: self.now,
            ready: Vec::new(),
            touch: self.touch,
        }
    }

    /// Lets lookups leave the access clocks alone.
    pub fn without_touch(mut self) -> Self {
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

    /// The locked shards.
    pub const fn locked(&self) -> ShardSet {
        self.held.set()
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

    /// Counts several changes of a key.
    #[inline]
    pub(super) fn changed_times(&self, shard: ShardIndex, times: u64) {
        self.count(shard, Counter::Changes, times);
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
        self.count_read(db, key, entry.is_some());
        entry
    }

    #[inline]
    fn count_read(&self, db: DbIndex, key: &Key<'_>, found: bool) {
        let counter = if found { Counter::Hits } else { Counter::Misses };
        self.count(key.shard, counter, 1);
        if !found && self.space.events.is_enabled(KeyspaceEvent::Missed) {
            self.space.events.emit(KeyspaceEvent::Missed, db, key.bytes);
        }
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

    /// The entry of a key, expired or not.
    pub(super) fn find(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let mem = self.held.mem(key.shard);
        let found = keys_of(key.shard, db).find(&mem, key.hash, &ByKey(key.bytes))?;
        let shape = Shape::load(&mem, found.item);
        Some(Entry { at: found.item, shape, found, shard: key.shard })
    }

    /// As [`Self::peek`], and counts a hit or a miss.
    pub fn peek_read(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let entry = self.peek(db, key);
        self.count_read(db, key, entry.is_some());
        entry
    }

    /// As [`Self::peek_read`], but nobody is told of a miss.
    pub fn peek_no_event(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let entry = self.peek(db, key);
        let counter = if entry.is_some() { Counter::Hits } else { Counter::Misses };
        self.count(key.shard, counter, 1);
        entry
    }

    /// How an entry was used.
    pub fn usage(&self, entry: &Entry) -> super::KeyUsage {
        self.space.clocks.usage(entry.at, self.now)
    }

    /// Bytes that a key takes in the arena, its references included. What the elements of a large
    /// value take is guessed from `samples` of them; 0 are all.
    pub fn memory_usage(&self, entry: &Entry, samples: usize) -> u64 {
        let Entry { at, shape, .. } = *entry;
        let mem = self.held.view(entry.shard);
        let references = 1 + Side::ALL.iter().filter(|side| shape.is_in(**side)).count() as u64;
        let value = match shape.encoding {
            Encoding::External => allocated_size(shape.object(&mem, at).1),
            Encoding::Large => values::usage(&mem, &shape, shape.header(&mem, at), samples),
            Encoding::Inline | Encoding::Int => 0,
        };
        allocated_size(shape.len()) + value + 12 * references
    }

    /// What OBJECT ENCODING answers for an entry.
    pub fn encoding_name(&self, entry: &Entry) -> &'static str {
        match entry.shape.encoding {
            _ if entry.shape.kind != ValueKind::String => values::encoding_name(&entry.shape),
            Encoding::Int => "int",
            _ if entry.shape.value_len <= 44 && !entry.shape.was_edited => "embstr",
            _ => "raw",
        }
    }

    /// Removes a key; tells whether it was there.
    pub fn remove(&mut self, db: DbIndex, key: &Key<'_>) -> bool {
        let Some(entry) = self.peek(db, key) else { return false };
        self.delete(db, key, &entry);
        true
    }

    /// Removes the entry of a key. Counts as a change.
    pub fn delete(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry) {
        self.unlink(db, key.hash, entry);
        self.free(entry);
        self.touched(db, key);
    }

    /// Removes an entry that has expired.
    #[cold]
    pub(super) fn expire(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        self.count(entry.shard, Counter::Expired, 1);
        self.announce(KeyspaceEvent::Expired, db, entry.shard, entry.at);
        self.discard(db, hash, entry);
    }

    /// Removes an entry of which only the place is known.
    pub(super) fn discard(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        let shard = entry.shard;
        let mem = self.held.view(shard);
        let home = ShardIndex::of_hash(hash);
        let key = self.has_watchers(home).then(|| entry.shape.key(&mem, entry.at).to_vec());
        self.unlink(db, hash, entry);
        self.free(entry);
        self.changed(shard);
        if let Some(bytes) = key {
            self.tell(db, &Key { bytes: &bytes, hash, shard });
        }
    }

    /// Links a new entry that is in the arena already; nothing refers to its key yet.
    pub(super) fn link(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        at: u64,
        shape: &Shape,
    ) -> Result<(), OutOfMemory> {
        self.link_no_event(db, key, at, shape)?;
        self.announce(KeyspaceEvent::New, db, key.shard, at);
        Ok(())
    }

    /// As [`Self::link`], for a caller that tells of the new key itself.
    pub(super) fn link_no_event(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        at: u64,
        shape: &Shape,
    ) -> Result<(), OutOfMemory> {
        let Key { hash, shard, .. } = *key;
        let mut mem = self.held.mem(shard);
        insert_aside(&mut mem, db, hash, at, |side| shape.is_in(side))?;
        if let Err(full) = keys_of(shard, db).insert(&mut mem, hash, at, &ByHash) {
            remove_aside(&mut mem, db, hash, at, |side| shape.is_in(side));
            return Err(full);
        }
        self.settle(db, key);
        self.space.clocks.start(at, self.now);
        Ok(())
    }

    /// Tells who wants to know what happened to the key of the entry at `at`.
    #[inline]
    pub(super) fn announce(&self, event: KeyspaceEvent, db: DbIndex, shard: ShardIndex, at: u64) {
        if self.space.events.is_enabled(event) {
            let mem = self.held.view(shard);
            self.space.events.emit(event, db, Shape::load(&mem, at).key(&mem, at));
        }
    }

    /// Lets the key of `old` refer to a new entry; `old` is not freed.
    pub(super) fn relink(
        &mut self,
        db: DbIndex,
        hash: u64,
        old: &Entry,
        at: u64,
        shape: &Shape,
    ) -> Result<(), OutOfMemory> {
        let mut mem = self.held.mem(old.shard);
        insert_aside(&mut mem, db, hash, at, |side| shape.is_in(side) && !old.shape.is_in(side))?;
        for side in Side::ALL {
            if old.shape.is_in(side) && shape.is_in(side) {
                let dict = side.of(old.shard, db);
                let found = dict.find(&mem, hash, &ByPlace(old.at));
                dict.replace(&mut mem, found.unwrap_or_else(|| lost(old.at)), at);
            }
        }
        remove_aside(&mut mem, db, hash, old.at, |side| {
            old.shape.is_in(side) && !shape.is_in(side)
        });
        keys_of(old.shard, db).replace(&mut mem, old.found, at);
        self.space.clocks.follow(old.at, at);
        Ok(())
    }

    /// Changes the shape of an entry where it is; its object stays. What refers to it changes too.
    pub(super) fn reshape(
        &mut self,
        db: DbIndex,
        hash: u64,
        entry: &Entry,
        shape: Shape,
    ) -> Result<Entry, OutOfMemory> {
        debug_assert_eq!(allocated_size(shape.len()), allocated_size(entry.shape.len()));
        let (mut mem, old) = (self.held.mem(entry.shard), entry.shape);
        insert_aside(&mut mem, db, hash, entry.at, |s| shape.is_in(s) && !old.is_in(s))?;
        remove_aside(&mut mem, db, hash, entry.at, |s| old.is_in(s) && !shape.is_in(s));
        if shape != old {
            shape.store(&mut mem, entry.at);
        }
        Ok(Entry { shape, ..*entry })
    }

    /// Lets the key of `old` refer to a new entry of which there is nothing aside. What is aside
    /// of `old` refers to that still: see [`Self::forget_aside`].
    pub(super) fn swap(&mut self, db: DbIndex, old: &Entry, at: u64) {
        let mut mem = self.held.mem(old.shard);
        keys_of(old.shard, db).replace(&mut mem, old.found, at);
        self.space.clocks.follow(old.at, at);
    }

    /// Takes an entry out of what is aside of the keys.
    pub(super) fn forget_aside(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        let mut mem = self.held.mem(entry.shard);
        remove_aside(&mut mem, db, hash, entry.at, |side| entry.shape.is_in(side));
    }

    /// Takes an entry out of its database; it is not freed.
    pub(super) fn unlink(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        self.forget_aside(db, hash, entry);
        let mut mem = self.held.mem(entry.shard);
        keys_of(entry.shard, db).remove(&mut mem, hash, entry.found);
        self.left(db, hash, entry.shard);
    }

    /// Frees an entry and its value.
    pub(super) fn free(&mut self, entry: &Entry) {
        free_entry(&mut self.held.mem(entry.shard), entry.at);
    }
}

/// Frees the entry at `at` and its value; of a large one a part, and the rest in slices later.
pub(super) fn free_entry(mem: &mut Mem<'_>, at: u64) {
    let shape = Shape::load(mem, at);
    match shape.encoding {
        Encoding::External => {
            let (object, len) = shape.object(mem, at);
            mem.release(object, len);
        }
        Encoding::Large => values::discard(mem, shape.kind, shape.header(mem, at)),
        Encoding::Inline | Encoding::Int => {}
    }
    mem.release(at, shape.len());
}

/// Adds an entry to those dictionaries beside the keys that `wanted` names.
fn insert_aside(
    mem: &mut Mem<'_>,
    db: DbIndex,
    hash: u64,
    at: u64,
    wanted: impl Fn(Side) -> bool,
) -> Result<(), OutOfMemory> {
    for (i, side) in Side::ALL.into_iter().enumerate() {
        if !wanted(side) {
            continue;
        }
        if let Err(full) = side.of(mem.shard(), db).insert(mem, hash, at, &ByHash) {
            remove_aside(mem, db, hash, at, |side| Side::ALL[..i].contains(&side) && wanted(side));
            return Err(full);
        }
    }
    Ok(())
}

/// Takes an entry out of those dictionaries beside the keys that `wanted` names.
fn remove_aside(mem: &mut Mem<'_>, db: DbIndex, hash: u64, at: u64, wanted: impl Fn(Side) -> bool) {
    for side in Side::ALL.into_iter().filter(|side| wanted(*side)) {
        let dict = side.of(mem.shard(), db);
        let found = dict.find(mem, hash, &ByPlace(at)).unwrap_or_else(|| lost(at));
        dict.remove(mem, hash, found);
    }
}

#[cold]
fn lost(at: u64) -> ! {
    panic!("keyspace: the entry at {at:#x} is not where entries of its kind should be")
}
