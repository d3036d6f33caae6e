//! Key watchers: connections that WATCH a key, and blocked clients that wait for one.
//!
//! ```text
//! watch table (one for each shard):  (hash, database, key) --> entry { watchers, waiters }
//!
//! touched(db, key) --> tells the observer of changes, if there is one
//!                  --> sets the flag of every watcher of the key, once
//!                  --> if the key has waiters: it is *ready*, until `take_ready`
//! ```
//!
//! A key's entry is in the table of its home shard, wherever the key lives. The tables stand beside
//! the arena, so that they are in no image. Changing a key without watchers costs one load of a
//! word that was just written: the number of entries in the shard's table, and of observers.
//!
//! Invariants:
//! 1. An entry is changed only under the lock of the shard in which its key lives, except when a
//!    wait ends and when ready keys are taken; so the table's mutex is hardly ever contended. The
//!    entry was added under that lock too, so that a thread that changes the key finds it.
//! 2. `Counter::WatchEntries` of a shard is the number of entries in its table, plus one while
//!    changes are observed.
//! 3. An entry has a watcher or a waiter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cowherd_arena::ShardIndex;

use super::counters::Counter;
use super::roots::{Databases, DbIndex};
use super::{ClientId, Key, Keyspace, ReadyKey, Shards};

/// Whether any of the keys was changed that a connection watches.
#[derive(Debug, Default)]
pub struct Watcher {
    touched: AtomicBool,
}

impl Watcher {
    /// Whether a watched key was changed since the last [`Self::reset`].
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Clears the flag. The connection must watch no key.
    pub fn reset(&self) {
        self.touched.store(false, Ordering::Relaxed);
    }

    fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }
}

/// The watchers and waiters of one key.
#[derive(Debug, Default)]
struct WatchEntry {
    watchers: Vec<Arc<Watcher>>,
    /// Calls of [`Shards::add_waiter`] without a [`Keyspace::remove_waiter`].
    waiters: usize,
    /// Whether the key is in the list of ready keys.
    is_ready: bool,
}

impl WatchEntry {
    /// Makes the key ready if it has waiters.
    fn make_ready(&mut self, ready: &mut Vec<ReadyKey>, db: DbIndex, key: &Key<'_>) {
        if self.waiters > 0 && !self.is_ready {
            self.is_ready = true;
            ready.push(ReadyKey { db, key: key.bytes.into() });
        }
    }

    fn touch_watchers(&mut self) {
        for watcher in self.watchers.drain(..) {
            watcher.touch();
        }
    }
}

/// The hash comes first, so that keys are rarely compared.
type WatchKey = (u64, DbIndex, Box<[u8]>);

/// The watch entries of the keys that are at home in one shard.
#[derive(Debug, Default)]
pub(super) struct WatchTable {
    entries: BTreeMap<WatchKey, WatchEntry>,
}

impl WatchTable {
    pub(super) const fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

fn watch_key(db: DbIndex, key: &Key<'_>) -> WatchKey {
    (key.hash, db, key.bytes.into())
}

impl Keyspace {
    /// Removes a waiter that [`Shards::add_waiter`] added. The shard need not be locked.
    pub fn remove_waiter(&self, db: DbIndex, key: &Key<'_>) {
        self.with_watch_entry(db, key, false, |entry| {
            entry.waiters = entry.waiters.saturating_sub(1)
        });
    }

    /// Removes a watcher of a key. The shard need not be locked.
    pub fn unwatch(&self, db: DbIndex, key: &Key<'_>, watcher: &Arc<Watcher>) {
        self.with_watch_entry(db, key, false, |entry| {
            entry.watchers.retain(|known| !Arc::ptr_eq(known, watcher));
        });
    }

    /// Changes the watch entry of a key; adds it first if `add`, and removes it if it has become
    /// empty.
    fn with_watch_entry(
        &self,
        db: DbIndex,
        key: &Key<'_>,
        add: bool,
        change: impl FnOnce(&mut WatchEntry),
    ) {
        let home = key.home_shard().get();
        let mut table = self.watch_tables[home].lock();
        if !add && table.entries.is_empty() {
            return;
        }
        let watch_key = watch_key(db, key);
        if add {
            table.entries.entry(watch_key.clone()).or_default();
        }
        let Some(entry) = table.entries.get_mut(&watch_key) else { return };
        change(entry);
        if entry.watchers.is_empty() && entry.waiters == 0 {
            table.entries.remove(&watch_key);
        }
        self.set_watch_entries(home, &table);
    }

    fn set_watch_entries(&self, home: usize, table: &WatchTable) {
        let observers = u64::from(self.is_observed.load(Ordering::Relaxed));
        self.counters[home].set(Counter::WatchEntries, table.entries.len() as u64 + observers);
    }

    /// Sets the counters of all tables anew, since changes are observed from now on, or no more.
    pub(super) fn count_watch_entries(&self) {
        for (home, table) in self.watch_tables.iter().enumerate() {
            self.set_watch_entries(home, &table.lock());
        }
    }
}

impl Shards<'_> {
    /// Counts a change of a key and notifies its watchers. Called after the change.
    #[inline]
    pub(super) fn touched(&mut self, db: DbIndex, key: &Key<'_>) {
        self.changed(key.shard);
        self.notify(db, key);
    }

    /// As [`Self::touched`], for a change that counts as so many, as [`Self::changed_times`] does.
    #[inline]
    pub(super) fn touched_times(&mut self, db: DbIndex, key: &Key<'_>, times: u64) {
        self.changed_times(key.shard, times);
        self.notify(db, key);
    }

    /// Notifies the observer, the watchers and the waiters of a key that has changed.
    #[inline]
    pub(super) fn notify(&mut self, db: DbIndex, key: &Key<'_>) {
        if self.has_watchers(key.home_shard()) {
            self.notify_watched(db, key, self.client);
        }
    }

    /// As [`Self::notify`], for a change that is not the client's.
    pub(super) fn notify_of_removal(&mut self, db: DbIndex, key: &Key<'_>) {
        if self.has_watchers(key.home_shard()) {
            self.notify_watched(db, key, None);
        }
    }

    /// Whether any key that is at home in a shard has watchers, waiters or an observer.
    #[inline]
    pub(super) fn has_watchers(&self, shard: ShardIndex) -> bool {
        self.space.counters[shard.get()].get(Counter::WatchEntries) > 0
    }

    /// Notifies the waiters of a key, but not its watchers.
    pub(super) fn notify_waiters(&mut self, db: DbIndex, key: &Key<'_>) {
        if self.has_watchers(key.home_shard()) {
            self.with_entry(db, key, false, |entry, ready| entry.make_ready(ready, db, key));
        }
    }

    #[cold]
    fn notify_watched(&mut self, db: DbIndex, key: &Key<'_>, by: Option<ClientId>) {
        if let Some(observer) = self.space.change_observer() {
            observer.key_changed(key.bytes, key.hash, by);
        }
        self.with_entry(db, key, false, |entry, ready| {
            entry.touch_watchers();
            entry.make_ready(ready, db, key);
        });
    }

    /// As [`Keyspace::with_watch_entry`], with the list of ready keys.
    fn with_entry(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        add: bool,
        change: impl FnOnce(&mut WatchEntry, &mut Vec<ReadyKey>),
    ) {
        assert!(self.held.set().has(key.shard), "shard {} is not locked", key.shard.get());
        let ready = &mut self.ready;
        self.space.with_watch_entry(db, key, add, |entry| change(entry, ready));
    }

    /// Adds a watcher of a key: its flag is set when the key changes. Adding it twice is the same
    /// as once.
    pub fn watch(&mut self, db: DbIndex, key: &Key<'_>, watcher: &Arc<Watcher>) {
        // An expired key does not exist any more: its removal must not count as a change.
        self.peek(db, key);
        self.with_entry(db, key, true, |entry, _| {
            if !entry.watchers.iter().any(|known| Arc::ptr_eq(known, watcher)) {
                entry.watchers.push(Arc::clone(watcher));
            }
        });
    }

    /// Adds a waiter of a key: the key is ready whenever it changes. Waiters are counted.
    pub fn add_waiter(&mut self, db: DbIndex, key: &Key<'_>) {
        self.with_entry(db, key, true, |entry, _| entry.waiters += 1);
    }

    /// Whether any key is ready.
    #[inline]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Adds keys that became ready under other locks.
    pub fn add_ready(&mut self, mut ready: Vec<ReadyKey>) {
        self.ready.append(&mut ready);
    }

    /// Takes the ready keys, in the order in which they became ready. Whether such a key holds
    /// anything is for the caller to check.
    pub fn take_ready(&mut self) -> Vec<ReadyKey> {
        let ready = std::mem::take(&mut self.ready);
        for ReadyKey { db, key } in &ready {
            // The shard need not be locked any more: serving the waiters locks it again.
            let key = self.space.key(*db, key);
            self.space.with_watch_entry(*db, &key, false, |entry| entry.is_ready = false);
        }
        ready
    }

    /// Notifies the observer, and the watchers of all existing keys of these databases, which are
    /// about to be flushed. All shards are locked.
    pub(super) fn notify_of_flush(&mut self, databases: Databases) {
        let space = self.space;
        if let Some(observer) = space.change_observer() {
            observer.all_changed();
        }
        for (hash, db, bytes) in self.watch_keys_of(databases) {
            let key = space.key_of(db, &bytes, hash);
            if self.find(db, &key).is_some() {
                self.notify(db, &key);
            }
        }
    }

    /// Notifies the observer, and the watchers of keys of two databases, which are about to be
    /// swapped, if the key exists in either. All shards are locked.
    pub(super) fn notify_of_swap(&mut self, a: DbIndex, b: DbIndex) {
        if let Some(observer) = self.space.change_observer() {
            observer.all_changed();
        }
        let mut watch_keys = self.watch_keys_of(Databases::One(a));
        watch_keys.extend(self.watch_keys_of(Databases::One(b)));
        let space = self.space;
        for (hash, db, bytes) in watch_keys {
            let here = self.peek(a, &space.key_of(a, &bytes, hash)).is_some();
            if self.peek(b, &space.key_of(b, &bytes, hash)).is_some() || here {
                self.notify(db, &space.key_of(db, &bytes, hash));
            }
        }
    }

    fn watch_keys_of(&self, databases: Databases) -> Vec<WatchKey> {
        let mut watch_keys = Vec::new();
        for shard in ShardIndex::all().filter(|shard| self.has_watchers(*shard)) {
            let table = self.space.watch_tables[shard.get()].lock();
            let named = table.entries.keys().filter(|(_, db, _)| databases.has(*db));
            watch_keys.extend(named.cloned());
        }
        watch_keys
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
