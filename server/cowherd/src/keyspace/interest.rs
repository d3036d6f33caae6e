//! Who wants to know that a key changes: connections that watch it, and those that wait for it.
//!
//! ```text
//! one a shard:  (hash, database, key) --> place { watchers, number of those that wait }
//!               in the shard that the key's hash names, wherever the key lives
//!
//! touched(db, key) --> every watcher of the place is told, once
//!                  --> if somebody waits: the key is `ready`, until `take_ready`
//! ```
//!
//! The places stand beside the arena, so that they are in no image. A change of a key that nobody
//! is interested in costs one load of a word that was just written: how many places the shard has.
//!
//! Invariants:
//! 1. A place is touched only by who holds the lock of the shard that its key lives in, but for
//!    the end of a wait and when ready keys are taken; so the places' mutex is hardly ever waited
//!    for. Who made a place held that lock too, so that whoever changes the key finds it.
//! 2. The count of a shard is the number of its places.
//! 3. A place has a watcher or somebody who waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cowherd_arena::ShardIndex;

use super::shards::Counter;
use super::{Databases, DbIndex, Key, Keyspace, Shards};

/// One connection's view of the keys that it watches: whether any of them was touched.
#[derive(Debug, Default)]
pub struct Watcher {
    touched: AtomicBool,
}

impl Watcher {
    /// Whether a key that it watches was touched.
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Starts anew. It must watch nothing.
    pub fn reset(&self) {
        self.touched.store(false, Ordering::Relaxed);
    }

    fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }
}

/// A key that was touched while somebody waits for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadyKey {
    /// Its database.
    pub db: DbIndex,
    /// Its bytes.
    pub key: Box<[u8]>,
}

/// Who is interested in one key.
#[derive(Debug, Default)]
struct Place {
    watchers: Vec<Arc<Watcher>>,
    /// How often [`Shards::wait`] was called without an end.
    waiting: usize,
    /// Whether the key is in the list of ready keys.
    is_ready: bool,
}

impl Place {
    /// Makes the key ready if somebody waits for it.
    fn make_ready(&mut self, ready: &mut Vec<ReadyKey>, db: DbIndex, key: &Key<'_>) {
        if self.waiting > 0 && !self.is_ready {
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

/// A hash first, so that comparing keys is rare.
type PlaceName = (u64, DbIndex, Box<[u8]>);

/// The places of one shard.
#[derive(Debug, Default)]
pub(super) struct Interests {
    places: BTreeMap<PlaceName, Place>,
}

impl Interests {
    pub(super) const fn new() -> Self {
        Self { places: BTreeMap::new() }
    }
}

fn name(db: DbIndex, key: &Key<'_>) -> PlaceName {
    (key.hash, db, key.bytes.into())
}

impl Keyspace {
    /// Ends one [`Shards::wait`]; the shard need not be locked.
    pub fn remove_waiter(&self, db: DbIndex, key: &Key<'_>) {
        self.with_place(db, key, false, |place| place.waiting = place.waiting.saturating_sub(1));
    }

    /// Changes the place of a key, which is made first if `make`, and dropped if nobody is left.
    fn with_place(&self, db: DbIndex, key: &Key<'_>, make: bool, change: impl FnOnce(&mut Place)) {
        let state = &self.stats[key.home_shard().get()];
        let mut interests = state.interests.lock();
        let name = name(db, key);
        if make {
            interests.places.entry(name.clone()).or_default();
        }
        let Some(place) = interests.places.get_mut(&name) else { return };
        change(place);
        if place.watchers.is_empty() && place.waiting == 0 {
            interests.places.remove(&name);
        }
        state.set(Counter::Interests, interests.places.len() as u64);
    }
}

impl Shards<'_> {
    /// Counts a change of a key, and tells those who are interested in it. Called once the change
    /// is made.
    #[inline]
    pub(super) fn touched(&mut self, db: DbIndex, key: &Key<'_>) {
        self.changed(key.shard);
        self.tell(db, key);
    }

    /// Tells those who are interested in a key that it has changed.
    #[inline]
    pub(super) fn tell(&mut self, db: DbIndex, key: &Key<'_>) {
        if self.has_watchers(key.home_shard()) {
            self.tell_them(db, key);
        }
    }

    /// Whether anybody is interested in any key of a shard.
    #[inline]
    pub(super) fn has_watchers(&self, shard: ShardIndex) -> bool {
        self.space.stats[shard.get()].get(Counter::Interests) > 0
    }

    /// Tells those who wait for a key, but not those who watch it.
    pub(super) fn wake(&mut self, db: DbIndex, key: &Key<'_>) {
        if self.has_watchers(key.home_shard()) {
            self.with_place(db, key, false, |place, ready| place.make_ready(ready, db, key));
        }
    }

    #[cold]
    fn tell_them(&mut self, db: DbIndex, key: &Key<'_>) {
        self.with_place(db, key, false, |place, ready| {
            place.touch_watchers();
            place.make_ready(ready, db, key);
        });
    }

    /// As [`Keyspace::with_place`], with the list of ready keys.
    fn with_place(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        make: bool,
        change: impl FnOnce(&mut Place, &mut Vec<ReadyKey>),
    ) {
        assert!(self.held.set().has(key.shard), "shard {} is not locked", key.shard.get());
        let ready = &mut self.ready;
        self.space.with_place(db, key, make, |place| change(place, ready));
    }

    /// Lets `watcher` know when a key is touched from now on, once. Watching a key again changes
    /// nothing.
    pub fn watch(&mut self, db: DbIndex, key: &Key<'_>, watcher: &Arc<Watcher>) {
        // What has expired is no longer there: that it is removed later is no change.
        self.peek(db, key);
        self.with_place(db, key, true, |place, _| {
            if !place.watchers.iter().any(|known| Arc::ptr_eq(known, watcher)) {
                place.watchers.push(Arc::clone(watcher));
            }
        });
    }

    /// Ends [`Self::watch`].
    pub fn unwatch(&mut self, db: DbIndex, key: &Key<'_>, watcher: &Arc<Watcher>) {
        if self.has_watchers(key.home_shard()) {
            self.with_place(db, key, false, |place, _| {
                place.watchers.retain(|known| !Arc::ptr_eq(known, watcher));
            });
        }
    }

    /// Lets a key be ready whenever it is touched from now on. Calls are counted.
    pub fn add_waiter(&mut self, db: DbIndex, key: &Key<'_>) {
        self.with_place(db, key, true, |place, _| place.waiting += 1);
    }

    /// Whether a key was touched for which somebody waits.
    #[inline]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Adds keys that were touched under other locks.
    pub fn add_ready(&mut self, mut ready: Vec<ReadyKey>) {
        self.ready.append(&mut ready);
    }

    /// The keys that were touched while somebody waited for them, in the order in which they were
    /// touched first. Whether there is anything in them is for the caller to see.
    pub fn take_ready(&mut self) -> Vec<ReadyKey> {
        let ready = std::mem::take(&mut self.ready);
        for ReadyKey { db, key } in &ready {
            // Whether its shard is locked is for those to see who serve it.
            let key = self.space.key(*db, key);
            self.space.with_place(*db, &key, false, |place| place.is_ready = false);
        }
        ready
    }

    /// Tells those who watch a key of these databases that it will be gone, if it is there. All
    /// shards are locked.
    pub(super) fn tell_of_flush(&mut self, databases: Databases) {
        let space = self.space;
        for (hash, db, bytes) in self.places_of(databases) {
            let key = space.key_of(db, &bytes, hash);
            if self.find(db, &key).is_some() {
                self.tell(db, &key);
            }
        }
    }

    /// Tells those who are interested in a key of one of two databases that are about to be
    /// swapped, if it is in either. All shards are locked.
    pub(super) fn tell_of_swap(&mut self, a: DbIndex, b: DbIndex) {
        let mut places = self.places_of(Databases::One(a));
        places.extend(self.places_of(Databases::One(b)));
        let space = self.space;
        for (hash, db, bytes) in places {
            let here = self.peek(a, &space.key_of(a, &bytes, hash)).is_some();
            if self.peek(b, &space.key_of(b, &bytes, hash)).is_some() || here {
                self.tell(db, &space.key_of(db, &bytes, hash));
            }
        }
    }

    fn places_of(&self, databases: Databases) -> Vec<PlaceName> {
        let mut places = Vec::new();
        for shard in ShardIndex::all().filter(|shard| self.has_watchers(*shard)) {
            let interests = self.space.stats[shard.get()].interests.lock();
            let named = interests.places.keys().filter(|(_, db, _)| databases.has(*db));
            places.extend(named.cloned());
        }
        places
    }
}

#[cfg(test)]
#[path = "interest_tests.rs"]
mod tests;
