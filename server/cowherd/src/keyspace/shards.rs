//! Locked shards: lookup of keys, and linking and unlinking of their entries.

use cowherd_arena::containers::dict::FoundItem;
use cowherd_arena::{Held, Mem, OutOfMemory, ShardIndex, ShardSet, allocated_size};

use super::collection::{ElementView, WrongType};
use super::counters::Counter;
use super::entry::{ByKey, ByOffset, EntryHasher, EntryHeader, ValueStorage, ValueType};
use super::events::KeyspaceEvent;
use super::roots::{DbIndex, SecondaryIndex, keys_of};
use super::{ClientId, Keyspace, values};

/// A key, with its hash and its shard.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    /// The key's bytes.
    pub bytes: &'k [u8],
    /// The hash of the bytes.
    pub hash: u64,
    /// The shard in which the key lives in its database; see `relocation`.
    pub shard: ShardIndex,
}

/// A key that was changed while blocked clients wait for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadyKey {
    /// The key's database.
    pub db: DbIndex,
    /// The key's bytes.
    pub key: Box<[u8]>,
}

/// An entry that was looked up. Valid until its shard changes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(super) at: u64,
    pub(super) head: EntryHeader,
    pub(super) found: FoundItem,
    pub(super) shard: ShardIndex,
}

impl Entry {
    /// The type of the value.
    pub const fn kind(&self) -> ValueType {
        self.head.kind
    }
}

/// The locked shards of one command: the handle through which keys are read and changed.
pub struct Shards<'a> {
    pub(super) held: Held<'a>,
    pub(super) space: &'a Keyspace,
    pub(super) now: i64,
    /// Keys that were changed while blocked clients wait for them.
    pub(super) ready: Vec<ReadyKey>,
    /// Whether lookups update the access clocks.
    touch: bool,
    /// The client that sent the running command; `None` for the server itself.
    pub(super) client: Option<ClientId>,
}

impl<'a> Shards<'a> {
    #[inline]
    const fn new(held: Held<'a>, space: &'a Keyspace, now: i64) -> Self {
        Self { held, space, now, ready: Vec::new(), touch: true, client: None }
    }

    #[inline]
    pub(super) fn lock(space: &'a Keyspace, set: ShardSet, now: i64) -> Self {
        Self::new(space.arena.lock(set), space, now)
    }

    /// As [`Self::lock`], but gives up when `gives_up` returns true while it waits.
    #[inline]
    pub(super) fn lock_unless(
        space: &'a Keyspace,
        set: ShardSet,
        now: i64,
        gives_up: impl Fn() -> bool,
    ) -> Option<Self> {
        let held = space.arena.lock_unless(set, gives_up)?;
        Some(Self::new(held, space, now))
    }

    /// Locks a shard unless another thread holds it: for a caller that may hold other shards, and
    /// so must not wait.
    pub(super) fn try_lock(space: &'a Keyspace, shard: ShardIndex, now: i64) -> Option<Self> {
        let held = space.arena.try_lock(shard)?;
        Some(Self::new(held, space, now))
    }

    /// The same locked shards for another command, as long as `self` is borrowed.
    pub const fn reborrow(&mut self) -> Shards<'_> {
        Shards {
            held: self.held.reborrow(),
            space: self.space,
            now: self.now,
            ready: Vec::new(),
            touch: self.touch,
            client: self.client,
        }
    }

    /// The same shards, whose lookups leave the access clocks alone.
    pub fn without_touch(mut self) -> Self {
        self.touch = false;
        self
    }

    /// The same shards, for the command of a client.
    #[inline]
    pub const fn for_client(mut self, client: ClientId) -> Self {
        self.client = Some(client);
        self
    }

    /// Sets whether lookups update the access clocks.
    pub const fn set_touch(&mut self, touch: bool) {
        self.touch = touch;
    }

    /// The wall clock of this command in milliseconds.
    pub const fn now(&self) -> i64 {
        self.now
    }

    /// Which shards are locked.
    pub const fn locked(&self) -> ShardSet {
        self.held.set()
    }

    /// The keyspace to which the shards belong.
    pub const fn keyspace(&self) -> &'a Keyspace {
        self.space
    }

    /// The arena's locks behind these shards.
    pub const fn held(&mut self) -> &mut Held<'a> {
        &mut self.held
    }

    #[inline]
    pub(super) fn mem(&mut self, shard: ShardIndex) -> Mem<'_> {
        self.held.mem(shard)
    }

    #[inline]
    pub(super) fn count(&self, shard: ShardIndex, counter: Counter, by: u64) {
        self.space.counters[shard.get()].add(counter, by);
    }

    /// A number that differs after any change of a key in a shard.
    pub(super) fn version(&self, shard: ShardIndex) -> u64 {
        let get = |counter| self.space.counters[shard.get()].get(counter);
        get(Counter::Changes).wrapping_add(get(Counter::UncountedChanges))
    }

    /// Counts a change of a key.
    #[inline]
    pub fn changed(&self, shard: ShardIndex) {
        self.count(shard, Counter::Changes, 1);
    }

    /// Counts as many changes of a key as Redis does. With 0, the key has changed all the same.
    #[inline]
    pub fn changed_times(&self, shard: ShardIndex, times: u64) {
        match times {
            0 => self.count(shard, Counter::UncountedChanges, 1),
            _ => self.count(shard, Counter::Changes, times),
        }
    }

    /// Takes back that changes of an entry's key were counted: a command of several parts counts
    /// for less than these.
    pub fn uncount(&self, entry: &Entry, times: u64) {
        self.uncount_in(entry.shard, times);
    }

    /// As [`Self::uncount`], by the shard.
    pub(super) fn uncount_in(&self, shard: ShardIndex, times: u64) {
        self.count(shard, Counter::Changes, times.wrapping_neg());
        self.count(shard, Counter::UncountedChanges, times);
    }

    /// The entry of a key; removes the key instead if it has expired. Updates the access clock.
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

    /// The entry of a key whose value is of one kind; none if the key is not there. Counts as a
    /// use.
    ///
    /// # Errors
    /// The value is of another kind.
    #[inline]
    pub fn lookup_kind(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        kind: ValueType,
    ) -> Result<Option<Entry>, WrongType> {
        of_kind(self.lookup(db, key), kind)
    }

    /// As [`Self::lookup_kind`], and counts a hit or a miss.
    ///
    /// # Errors
    /// The value is of another kind.
    #[inline]
    pub fn lookup_kind_read(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        kind: ValueType,
    ) -> Result<Option<Entry>, WrongType> {
        of_kind(self.lookup_read(db, key), kind)
    }

    #[inline]
    fn count_read(&self, db: DbIndex, key: &Key<'_>, found: bool) {
        let counter = if found { Counter::Hits } else { Counter::Misses };
        self.count(key.shard, counter, 1);
        if !found && self.space.events.is_enabled(KeyspaceEvent::Missed) {
            self.space.events.emit(KeyspaceEvent::Missed, db, key.bytes);
        }
    }

    /// As [`Self::lookup`], but leaves the access clock alone.
    #[inline]
    pub fn peek(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let now = self.now;
        let mem = self.held.mem(key.shard);
        let found = keys_of(key.shard, db).find(&mem, key.hash, &ByKey(key.bytes))?;
        let head = EntryHeader::load(&mem, found.item);
        let entry = Entry { at: found.item, head, found, shard: key.shard };
        if head.has_expiry && head.expiry(&mem, found.item).is_some_and(|at| at <= now) {
            self.expire(db, key.hash, &entry);
            return None;
        }
        Some(entry)
    }

    /// The entry of a key, even if it has expired.
    pub(super) fn find(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let mem = self.held.mem(key.shard);
        let found = keys_of(key.shard, db).find(&mem, key.hash, &ByKey(key.bytes))?;
        let head = EntryHeader::load(&mem, found.item);
        Some(Entry { at: found.item, head, found, shard: key.shard })
    }

    /// As [`Self::peek`], and counts a hit or a miss.
    pub fn peek_read(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let entry = self.peek(db, key);
        self.count_read(db, key, entry.is_some());
        entry
    }

    /// As [`Self::peek_read`], without the keyspace event of a miss.
    pub fn peek_no_event(&mut self, db: DbIndex, key: &Key<'_>) -> Option<Entry> {
        let entry = self.peek(db, key);
        let counter = if entry.is_some() { Counter::Hits } else { Counter::Misses };
        self.count(key.shard, counter, 1);
        entry
    }

    /// When, or how often, an entry was used.
    pub fn usage(&self, entry: &Entry) -> super::KeyUsage {
        self.space.clocks.usage(entry.at, self.now)
    }

    /// Bytes that a key takes in the arena, with its slots in dictionaries. What the elements of a
    /// large value take is estimated from `samples` of them; 0 means all.
    pub fn memory_usage(&self, entry: &Entry, samples: usize) -> u64 {
        let Entry { at, head, .. } = *entry;
        let mem = self.held.view(entry.shard);
        let references =
            1 + SecondaryIndex::ALL.iter().filter(|index| head.is_indexed_by(**index)).count()
                as u64;
        let value = match head.storage {
            ValueStorage::External => allocated_size(head.object(&mem, at).1),
            ValueStorage::Large => values::usage(&mem, &head, head.large_header(&mem, at), samples),
            ValueStorage::Inline | ValueStorage::Int => 0,
        };
        allocated_size(head.len()) + value + 12 * references
    }

    /// Calls `each` with all elements of a collection; in order, if its type has one.
    ///
    /// # Panics
    /// The value is a string.
    pub fn each_element(&self, entry: &Entry, mut each: impl FnMut(ElementView<'_>)) {
        let mem = self.held.view(entry.shard);
        values::each_element(&mem, entry.at, &entry.head, &mut each);
    }

    /// The reply of OBJECT ENCODING for an entry.
    pub fn encoding_name(&self, entry: &Entry) -> &'static str {
        match entry.head.storage {
            _ if entry.head.kind != ValueType::String => values::encoding_name(&entry.head),
            ValueStorage::Int => "int",
            _ if entry.head.value_len <= 44 && !entry.head.is_raw => "embstr",
            _ => "raw",
        }
    }

    /// Removes a key; tells whether it existed.
    pub fn remove(&mut self, db: DbIndex, key: &Key<'_>) -> bool {
        let Some(entry) = self.peek(db, key) else { return false };
        self.delete(db, key, &entry, 1);
        true
    }

    /// Removes the entry of a key, which counts as so many changes.
    pub(super) fn delete(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry, changes: u64) {
        self.unlink(db, key.hash, entry);
        self.free(entry);
        self.touched_times(db, key, changes);
    }

    /// Removes an entry that has expired.
    #[cold]
    pub(super) fn expire(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        self.count(entry.shard, Counter::Expired, 1);
        self.emit_event(KeyspaceEvent::Expired, db, entry.shard, entry.at);
        self.remove_entry(db, hash, entry);
    }

    /// Removes an entry that has expired or is evicted, without its key at hand.
    pub(super) fn remove_entry(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        let shard = entry.shard;
        let mem = self.held.view(shard);
        let home = ShardIndex::of_hash(hash);
        // The key's bytes are gone once the entry is freed.
        let key = self.has_watchers(home).then(|| entry.head.key(&mem, entry.at).to_vec());
        self.unlink(db, hash, entry);
        self.free(entry);
        self.changed_times(shard, 0);
        if let Some(bytes) = key {
            self.notify_of_removal(db, &Key { bytes: &bytes, hash, shard });
        }
    }

    /// Links the entry at `at`, whose key does not exist yet.
    pub(super) fn link(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        at: u64,
        head: &EntryHeader,
    ) -> Result<(), OutOfMemory> {
        self.link_no_event(db, key, at, head)?;
        self.emit_event(KeyspaceEvent::New, db, key.shard, at);
        Ok(())
    }

    /// As [`Self::link`], without the keyspace event of a new key.
    pub(super) fn link_no_event(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        at: u64,
        head: &EntryHeader,
    ) -> Result<(), OutOfMemory> {
        let Key { hash, shard, .. } = *key;
        let mut mem = self.held.mem(shard);
        index_entry(&mut mem, db, hash, at, |index| head.is_indexed_by(index))?;
        if let Err(full) = keys_of(shard, db).insert(&mut mem, hash, at, &EntryHasher) {
            unindex_entry(&mut mem, db, hash, at, |index| head.is_indexed_by(index));
            return Err(full);
        }
        self.record_shard(db, key);
        self.space.clocks.start(at, self.now);
        Ok(())
    }

    /// Emits a keyspace event for the key of the entry at `at`, if that event is enabled.
    #[inline]
    pub(super) fn emit_event(&self, event: KeyspaceEvent, db: DbIndex, shard: ShardIndex, at: u64) {
        if self.space.events.is_enabled(event) {
            let mem = self.held.view(shard);
            self.space.events.emit(event, db, EntryHeader::load(&mem, at).key(&mem, at));
        }
    }

    /// Links a new entry in place of what the key had, which is freed. On error the new entry and
    /// its value are freed, and nothing has changed.
    #[inline]
    pub(super) fn install(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        at: u64,
        head: EntryHeader,
    ) -> Result<(), OutOfMemory> {
        let Some(old) = old else {
            return self.link(db, key, at, &head).inspect_err(|_| {
                free_unlinked(&mut self.held.mem(key.shard), at);
            });
        };
        self.replace_entry(db, key.hash, old, at, head).map(drop)
    }

    /// Replaces the entry `old` of a key by the one at `at`, and frees `old`. On error the new
    /// entry and its value are freed, and nothing has changed.
    pub(super) fn replace_entry(
        &mut self,
        db: DbIndex,
        hash: u64,
        old: &Entry,
        at: u64,
        head: EntryHeader,
    ) -> Result<Entry, OutOfMemory> {
        if let Err(full) = self.relink(db, hash, old, at, &head) {
            free_unlinked(&mut self.mem(old.shard), at);
            return Err(full);
        }
        self.free(old);
        Ok(Entry { at, head, found: old.found.replaced(at), shard: old.shard })
    }

    /// The entry of a key that was installed just now.
    pub(super) fn installed(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        at: u64,
        head: EntryHeader,
    ) -> Entry {
        match old {
            Some(old) => Entry { at, head, found: old.found.replaced(at), shard: key.shard },
            // The dictionary does not say where it has put a new item.
            None => self.find(db, key).expect("invariant: a key that was linked is found"),
        }
    }

    /// Replaces the entry `old` of a key by a new one. `old` is not freed.
    pub(super) fn relink(
        &mut self,
        db: DbIndex,
        hash: u64,
        old: &Entry,
        at: u64,
        head: &EntryHeader,
    ) -> Result<(), OutOfMemory> {
        let mut mem = self.held.mem(old.shard);
        index_entry(&mut mem, db, hash, at, |index| {
            head.is_indexed_by(index) && !old.head.is_indexed_by(index)
        })?;
        for index in SecondaryIndex::ALL {
            if old.head.is_indexed_by(index) && head.is_indexed_by(index) {
                let dict = index.of(old.shard, db);
                let found = dict.find(&mem, hash, &ByOffset(old.at));
                dict.replace(&mut mem, found.unwrap_or_else(|| missing_in_index(old.at)), at);
            }
        }
        unindex_entry(&mut mem, db, hash, old.at, |index| {
            old.head.is_indexed_by(index) && !head.is_indexed_by(index)
        });
        keys_of(old.shard, db).replace(&mut mem, old.found, at);
        self.space.clocks.copy(old.at, at);
        Ok(())
    }

    /// Rewrites the header of an entry in place, and adjusts the secondary indexes.
    pub(super) fn rewrite_header(
        &mut self,
        db: DbIndex,
        hash: u64,
        entry: &Entry,
        head: EntryHeader,
    ) -> Result<Entry, OutOfMemory> {
        debug_assert_eq!(allocated_size(head.len()), allocated_size(entry.head.len()));
        let (mut mem, old) = (self.held.mem(entry.shard), entry.head);
        index_entry(&mut mem, db, hash, entry.at, |s| {
            head.is_indexed_by(s) && !old.is_indexed_by(s)
        })?;
        unindex_entry(&mut mem, db, hash, entry.at, |s| {
            old.is_indexed_by(s) && !head.is_indexed_by(s)
        });
        if head != old {
            head.store(&mut mem, entry.at);
        }
        Ok(Entry { head, ..*entry })
    }

    /// Replaces the entry `old` of a key by a new one to which no secondary index refers. The
    /// secondary indexes still refer to `old`; see [`Self::unindex`].
    pub(super) fn swap_entry(&mut self, db: DbIndex, old: &Entry, at: u64) {
        let mut mem = self.held.mem(old.shard);
        keys_of(old.shard, db).replace(&mut mem, old.found, at);
        self.space.clocks.copy(old.at, at);
    }

    /// Removes an entry from the secondary indexes.
    pub(super) fn unindex(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        let mut mem = self.held.mem(entry.shard);
        unindex_entry(&mut mem, db, hash, entry.at, |index| entry.head.is_indexed_by(index));
    }

    /// Removes an entry from its database, but does not free it.
    pub(super) fn unlink(&mut self, db: DbIndex, hash: u64, entry: &Entry) {
        self.unindex(db, hash, entry);
        let mut mem = self.held.mem(entry.shard);
        keys_of(entry.shard, db).remove(&mut mem, hash, entry.found);
        self.forget_shard(db, hash, entry.shard);
    }

    /// Frees an entry and its value.
    pub(super) fn free(&mut self, entry: &Entry) {
        free_entry(&mut self.held.mem(entry.shard), entry.at);
    }
}

#[inline]
fn of_kind(entry: Option<Entry>, kind: ValueType) -> Result<Option<Entry>, WrongType> {
    match entry {
        Some(entry) if entry.kind() != kind => Err(WrongType),
        entry => Ok(entry),
    }
}

/// Frees an unlinked entry and its value. Of a large value a part is freed at once, the rest
/// through the lazy-free list.
pub(super) fn free_entry(mem: &mut Mem<'_>, at: u64) {
    let head = EntryHeader::load(mem, at);
    match head.storage {
        ValueStorage::External => {
            let (object, len) = head.object(mem, at);
            mem.release(object, len);
        }
        ValueStorage::Large => values::defer_free(mem, head.kind, head.large_header(mem, at)),
        ValueStorage::Inline | ValueStorage::Int => {}
    }
    mem.release(at, head.len());
}

/// Frees at once an entry that was never linked, and its value.
pub(super) fn free_unlinked(mem: &mut Mem<'_>, at: u64) {
    let head = EntryHeader::load(mem, at);
    if head.is_large() {
        values::free_large(mem, head.kind, head.large_header(mem, at));
        mem.release(at, head.len());
    } else {
        free_entry(mem, at);
    }
}

/// Adds an entry to the secondary indexes for which `wanted` is true. On error to none of them.
fn index_entry(
    mem: &mut Mem<'_>,
    db: DbIndex,
    hash: u64,
    at: u64,
    wanted: impl Fn(SecondaryIndex) -> bool,
) -> Result<(), OutOfMemory> {
    for (i, index) in SecondaryIndex::ALL.into_iter().enumerate() {
        if !wanted(index) {
            continue;
        }
        if let Err(full) = index.of(mem.shard(), db).insert(mem, hash, at, &EntryHasher) {
            unindex_entry(mem, db, hash, at, |index| {
                SecondaryIndex::ALL[..i].contains(&index) && wanted(index)
            });
            return Err(full);
        }
    }
    Ok(())
}

/// Removes an entry from the secondary indexes for which `wanted` is true.
fn unindex_entry(
    mem: &mut Mem<'_>,
    db: DbIndex,
    hash: u64,
    at: u64,
    wanted: impl Fn(SecondaryIndex) -> bool,
) {
    for index in SecondaryIndex::ALL.into_iter().filter(|index| wanted(*index)) {
        let dict = index.of(mem.shard(), db);
        let found = dict.find(mem, hash, &ByOffset(at)).unwrap_or_else(|| missing_in_index(at));
        dict.remove(mem, hash, found);
    }
}

#[cold]
fn missing_in_index(at: u64) -> ! {
    panic!("keyspace: a secondary index lacks the entry at {at:#x}")
}
