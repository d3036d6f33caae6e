//! Relocated keys: keys that live in another shard than their home shard, which their hash names.
//!
//! The objects of a large value belong to a shard. RENAME of such a value does not move them: the
//! new key is linked in the shard of the value, and a *forwarding table* beside its home shard
//! records where it lives.
//!
//! ```text
//!            home shard of "old"                 home shard of "new"
//! before:    keys { "old" -> value }             forwarding { }
//! after:     keys { "new" -> value }  <--------- forwarding { database, hash of "new" -> shard }
//! ```
//!
//! A command that names a key locks the key's home shard and every shard in which keys of its hash
//! live, and then checks that these are still the right ones. The table follows from the keys, so
//! it stands beside the arena, is in no image, and is filled when a keyspace is verified.
//!
//! Invariants:
//! 1. The hash of a relocated key is in the forwarding table of its home shard, under its database.
//! 2. All keys of one database that have the same hash live in one shard.
//! 3. A hash is added to the table only while its home shard, the shard that the new record names,
//!    and the shard in which its keys lived before are locked. A record is removed only while the
//!    home shard and the shard that the record names are locked, and that shard has no key of the
//!    hash. So a record does not change while a thread holds the home shard, or the shard in which
//!    the key lives.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use cowherd_arena::containers::dict::{DictCursor, Hashed, ItemMatcher};
use cowherd_arena::layout::shard_root;
use cowherd_arena::{Corruption, Held, Mem, SHARDS, ShardIndex, ShardSet};

use super::entry::{ByKey, EntryHasher};
use super::roots::{ALL_DATABASES, DbIndex, keys_of};
use super::{Key, Keyspace, Shards};

/// A part with at most so many records computes its filter anew when a record is removed. In a
/// larger part bits are only added: the filter has 64 bits, and would stay nearly full.
const REFILTERED: usize = 64;

/// Database and hash of a relocated key, and the shard in which it lives.
pub(super) type RelocatedKey = (DbIndex, u64, ShardIndex);

/// Where relocated keys of one home shard live, by database and hash.
type ForwardingPart = [BTreeMap<u64, ShardIndex>; ALL_DATABASES];

/// Where all relocated keys live.
pub(super) struct ForwardingTable {
    /// For each home shard a 64-bit filter: one bit for each relocated key, chosen by six bits of
    /// its hash.
    filters: [AtomicU64; SHARDS],
    /// For each home shard a bit for each shard in which relocated keys of it live.
    away: [AtomicU64; SHARDS],
    parts: Box<[Mutex<ForwardingPart>; SHARDS]>,
    /// How often a record was added or changed.
    relocations: AtomicU64,
    /// Relocated keys that were removed while their home shard was not locked.
    removed: Mutex<Vec<RelocatedKey>>,
    /// Records of flushed databases: dropped later, because all shards are locked in a flush.
    flushed: Mutex<Vec<BTreeMap<u64, ShardIndex>>>,
}

impl ForwardingTable {
    pub(super) fn new() -> Self {
        let parts = std::array::from_fn(|_| Mutex::new([const { BTreeMap::new() }; ALL_DATABASES]));
        Self {
            filters: [const { AtomicU64::new(0) }; SHARDS],
            away: [const { AtomicU64::new(0) }; SHARDS],
            parts: Box::new(parts),
            relocations: AtomicU64::new(0),
            removed: Mutex::default(),
            flushed: Mutex::default(),
        }
    }

    /// Whether keys of this hash may be relocated; if false, none is.
    #[inline]
    fn may_have(&self, hash: u64) -> bool {
        let filter = &self.filters[ShardIndex::of_hash(hash).get()];
        filter.load(Ordering::Relaxed) & bit_of(hash) != 0
    }

    /// The shard in which keys of this hash live.
    #[inline]
    fn shard_of(&self, db: DbIndex, hash: u64) -> ShardIndex {
        let home = ShardIndex::of_hash(hash);
        if self.may_have(hash) { self.look_up(db, hash).unwrap_or(home) } else { home }
    }

    #[cold]
    fn look_up(&self, db: DbIndex, hash: u64) -> Option<ShardIndex> {
        self.parts[ShardIndex::of_hash(hash).get()].lock()[db].get(&hash).copied()
    }

    /// The home shard of a hash, and all shards in which keys of it live in any database.
    #[inline]
    fn shards_of(&self, hash: u64) -> ShardSet {
        let home = ShardSet::one(ShardIndex::of_hash(hash));
        if self.may_have(hash) { home | self.look_up_all(hash) } else { home }
    }

    #[cold]
    fn look_up_all(&self, hash: u64) -> ShardSet {
        let part = self.parts[ShardIndex::of_hash(hash).get()].lock();
        part.iter().filter_map(|records| records.get(&hash)).copied().map(ShardSet::one).collect()
    }

    /// Records that keys of a hash live in another shard than their home shard.
    fn record(&self, db: DbIndex, hash: u64, shard: ShardIndex) {
        let home = ShardIndex::of_hash(hash);
        let mut part = self.parts[home.get()].lock();
        if part[db].insert(hash, shard) == Some(shard) {
            return;
        }
        self.filters[home.get()].fetch_or(bit_of(hash), Ordering::Relaxed);
        self.away[home.get()].fetch_or(1 << shard.get(), Ordering::Relaxed);
        drop(part);
        // Last, with release order: a thread that reads the new number sees the record.
        self.relocations.fetch_add(1, Ordering::Release);
    }

    /// Removes the record of a hash. The number of relocations stays: a command that has locked the
    /// shard as well has locked more than it needs, which does no harm.
    fn remove(&self, db: DbIndex, hash: u64) {
        let home = ShardIndex::of_hash(hash);
        let mut part = self.parts[home.get()].lock();
        if part[db].remove(&hash).is_some() {
            self.refilter(home, &part);
        }
    }

    /// Removes all records of a database.
    fn flush(&self, db: DbIndex) {
        for home in ShardIndex::all() {
            let mut part = self.parts[home.get()].lock();
            let records = std::mem::take(&mut part[db]);
            self.refilter(home, &part);
            drop(part);
            if !records.is_empty() {
                self.flushed.lock().push(records);
            }
        }
    }

    /// Swaps the records of two databases.
    fn swap(&self, a: DbIndex, b: DbIndex) {
        for part in self.parts.iter() {
            part.lock().swap(a, b);
        }
        for (db, ..) in self.removed.lock().iter_mut() {
            *db = match *db {
                db if db == a => b,
                db if db == b => a,
                db => db,
            };
        }
    }

    /// Computes the filters of a home shard anew, if its part is small enough.
    fn refilter(&self, home: ShardIndex, part: &ForwardingPart) {
        if part.iter().map(BTreeMap::len).sum::<usize>() <= REFILTERED {
            let records = part.iter().flatten();
            let (bits, away) = records.fold((0, 0), |(bits, away), (hash, shard)| {
                (bits | bit_of(*hash), away | 1 << shard.get())
            });
            self.filters[home.get()].store(bits, Ordering::Relaxed);
            self.away[home.get()].store(away, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.parts.iter().map(|part| part.lock().iter().map(BTreeMap::len).sum::<usize>()).sum()
    }
}

/// The filter's bit for a hash. The six highest bits choose it, since the lowest choose the home
/// shard.
#[inline]
const fn bit_of(hash: u64) -> u64 {
    1 << (hash >> 58)
}

impl Key<'_> {
    /// The home shard: the one that the key's hash names. The key's watchers are recorded there,
    /// wherever the key lives.
    #[inline]
    pub const fn home_shard(&self) -> ShardIndex {
        ShardIndex::of_hash(self.hash)
    }
}

impl Keyspace {
    /// A key of a database. Its shard is reliable only while the home shard is locked.
    #[inline]
    pub fn key<'k>(&self, db: DbIndex, bytes: &'k [u8]) -> Key<'k> {
        self.key_of(db, bytes, self.hash(bytes))
    }

    /// As [`Self::key`], for a key whose hash is known.
    #[inline]
    pub fn key_of<'k>(&self, db: DbIndex, bytes: &'k [u8], hash: u64) -> Key<'k> {
        Key { bytes, hash, shard: self.forwarding.shard_of(db, hash) }
    }

    /// The shards that a command has to lock for a key of this hash: the home shard, and all shards
    /// in which such keys live in any database.
    #[inline]
    pub fn shards_of(&self, hash: u64) -> ShardSet {
        self.forwarding.shards_of(hash)
    }

    /// How often keys were relocated. If the number is the same before [`Self::shards_of`] and
    /// after these shards are locked, they are the right ones.
    #[inline]
    pub fn relocations(&self) -> u64 {
        self.forwarding.relocations.load(Ordering::Acquire)
    }

    /// Locks the shards that `named` returns, until the result is dropped.
    #[cfg(test)]
    pub fn lock_named(&self, now: i64, named: impl Fn() -> ShardSet) -> Shards<'_> {
        self.lock_with_retry(now, named, |set| set, || false)
            .expect("invariant: a request that never gives up succeeds")
    }

    /// Locks the shards that `named` returns, and those that `widen` adds. If keys were relocated
    /// meanwhile, so that `named` returns others now, unlocks all and tries again. Once the home
    /// shards are locked, the results of [`Self::shards_of`] do not change any more. `None`: a
    /// request waited, and `gives_up` has returned true.
    pub fn lock_with_retry(
        &self,
        now: i64,
        named: impl Fn() -> ShardSet,
        widen: impl Fn(ShardSet) -> ShardSet,
        gives_up: impl Fn() -> bool,
    ) -> Option<Shards<'_>> {
        loop {
            let shards = self.lock_unless(widen(named()), now, &gives_up)?;
            if shards.locked().covers(named()) {
                return Some(shards);
            }
        }
    }

    /// Removes the records of up to `most` relocated keys that were removed while their home shard
    /// was not locked, and all records of flushed databases. The caller holds no lock. Tells
    /// whether there are more.
    pub fn prune_relocations(&self, most: usize) -> bool {
        let flushed = std::mem::take(&mut *self.forwarding.flushed.lock());
        drop(flushed);
        let mut removed = self.forwarding.removed.lock();
        let rest = removed.len().saturating_sub(most);
        let some = removed.split_off(rest);
        drop(removed);
        for (db, hash, shard) in some {
            let home = ShardSet::one(ShardIndex::of_hash(hash));
            self.lock(home | ShardSet::one(shard), i64::MIN).forget_shard(db, hash, shard);
        }
        rest > 0
    }

    /// A home shard, and all shards in which relocated keys of it live; perhaps some more.
    pub fn shards_of_home(&self, home: ShardIndex) -> ShardSet {
        let away = self.forwarding.away[home.get()].load(Ordering::Relaxed);
        ShardSet::one(home) | ShardSet::of_bits(away)
    }

    /// The relocated keys of a home shard that a scan visits between two cursors, or to the end,
    /// and the cursor behind them. If there are more than `least`, only about as many.
    pub(super) fn relocated_between(
        &self,
        db: DbIndex,
        home: ShardIndex,
        from: DictCursor,
        to: Option<DictCursor>,
        least: usize,
    ) -> (Vec<(u64, ShardIndex)>, Option<DictCursor>) {
        let seen = |hash: u64| !from.is_past(hash) && to.is_none_or(|to| to.is_past(hash));
        let range = from.lowest()..=to.map_or(u64::MAX, DictCursor::highest);
        if range.is_empty() {
            return (Vec::new(), to);
        }
        let part = self.forwarding.parts[home.get()].lock();
        let ahead = part[db].range(range).filter(|(hash, _)| seen(**hash));
        let mut relocated: Vec<_> = ahead.map(|(hash, shard)| (*hash, *shard)).collect();
        drop(part);
        if relocated.len() <= least {
            return (relocated, to);
        }
        let scale = to.unwrap_or(from);
        let order = |key: &(u64, ShardIndex)| scale.order(key.0);
        let last = order(relocated.select_nth_unstable_by_key(least.max(1) - 1, order).1);
        // A cursor cannot stand between keys of one bucket: these are visited together.
        let rest = relocated.iter().filter(|key| order(key) > last).min_by_key(|key| order(key));
        let end = rest.map(|(hash, _)| scale.at(*hash)).or(to);
        relocated.retain(|key| order(key) <= last);
        (relocated, end)
    }

    /// Removes all records of a database that was flushed. All shards are locked.
    pub(super) fn flush_forwarding(&self, db: DbIndex) {
        self.forwarding.flush(db);
    }

    /// Swaps the records of two databases that were swapped. All shards are locked.
    pub(super) fn swap_forwarding(&self, a: DbIndex, b: DbIndex) {
        self.forwarding.swap(a, b);
    }

    /// Records the relocated keys that were found in an arena, if no key was relocated since it was
    /// opened; otherwise checks that they are recorded. `held` locks all shards.
    ///
    /// # Errors
    /// A key is in a shard where commands cannot find it.
    pub(super) fn load_forwarding(
        &self,
        held: &Held<'_>,
        found: &[RelocatedKey],
    ) -> Result<(), Corruption> {
        let broken = |hash: u64, reason: String| {
            let home = ShardIndex::of_hash(hash).get();
            Err(Corruption::at(shard_root(home), format!("a key of shard {home}: {reason}")))
        };
        let is_new = self.relocations() == 0;
        for (db, hash, shard) in found.iter().copied() {
            match self.forwarding.look_up(db, hash) {
                Some(known) if known == shard => {}
                None if is_new => self.forwarding.record(db, hash, shard),
                known => {
                    let known = known.map_or_else(|| "at home".into(), |at| at.get().to_string());
                    let reason = format!("it is in shard {}, but also {known}", shard.get());
                    return broken(hash, reason);
                }
            }
        }
        let hashes = RefCell::default();
        for home in ShardIndex::all() {
            let (mem, part) = (held.view(home), self.forwarding.parts[home.get()].lock());
            let records = part.iter().enumerate();
            for (db, (hash, shard)) in records.flat_map(|(db, s)| s.iter().map(move |s| (db, s))) {
                let of_hash = CachingHashMatcher { hash: *hash, hashes: &hashes };
                if keys_of(home, db).find(&mem, *hash, &of_hash).is_some() {
                    let reason = format!("it is there, but should be in shard {}", shard.get());
                    return broken(*hash, reason);
                }
            }
        }
        Ok(())
    }
}

impl Shards<'_> {
    /// Whether a key may live in `shard`. If another key has the same hash, the key has to stay in
    /// its present shard (invariant 2).
    pub(super) fn may_live_in(&self, db: DbIndex, key: &Key<'_>, shard: ShardIndex) -> bool {
        let others = OtherKeyMatcher { key: key.bytes, hash: key.hash };
        let here = || keys_of(key.shard, db).find(&self.held.view(key.shard), key.hash, &others);
        key.shard == shard || here().is_none()
    }

    /// Records in which shard a key lives that was linked just now.
    #[inline]
    pub(super) fn record_shard(&self, db: DbIndex, key: &Key<'_>) {
        if key.shard != key.home_shard() || self.space.forwarding.may_have(key.hash) {
            self.record_relocated(db, key);
        }
    }

    #[cold]
    fn record_relocated(&self, db: DbIndex, key: &Key<'_>) {
        assert!(
            self.held.set().has(key.home_shard()),
            "shard {} is not locked",
            key.home_shard().get()
        );
        if key.shard == key.home_shard() {
            self.space.forwarding.remove(db, key.hash);
        } else {
            self.space.forwarding.record(db, key.hash, key.shard);
        }
    }

    /// Removes the record of a key that was unlinked, if it was a relocated one and the last of its
    /// hash.
    #[inline]
    pub(super) fn forget_shard(&self, db: DbIndex, hash: u64, shard: ShardIndex) {
        if ShardIndex::of_hash(hash) != shard {
            self.forget_relocated(db, hash, shard);
        }
    }

    #[cold]
    fn forget_relocated(&self, db: DbIndex, hash: u64, shard: ShardIndex) {
        let forwarding = &self.space.forwarding;
        if !self.held.set().has(ShardIndex::of_hash(hash)) {
            forwarding.removed.lock().push((db, hash, shard));
        } else if forwarding.look_up(db, hash) == Some(shard)
            && !has_hash(&self.held.view(shard), db, hash)
        {
            forwarding.remove(db, hash);
        }
    }
}

/// Calls `each` with the entries of all keys of this hash in a shard.
pub(super) fn each_of_hash(mem: &Mem<'_>, db: DbIndex, hash: u64, each: impl FnMut(u64)) {
    struct Each<F>(u64, RefCell<F>);
    impl<F: FnMut(u64)> ItemMatcher for Each<F> {
        fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
            if HashMatcher(self.0).matches(mem, item) {
                (self.1.borrow_mut())(item);
            }
            false
        }
    }
    keys_of(mem.shard(), db).find(mem, hash, &Each(hash, RefCell::new(each)));
}

/// Whether a shard has a key of this hash.
fn has_hash(mem: &Mem<'_>, db: DbIndex, hash: u64) -> bool {
    keys_of(mem.shard(), db).find(mem, hash, &HashMatcher(hash)).is_some()
}

/// Finds the entries of all keys of a hash.
struct HashMatcher(u64);

impl ItemMatcher for HashMatcher {
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        EntryHasher.hash(mem, item) == self.0
    }
}

/// As [`HashMatcher`], with a cache of hashes: a key is hashed once, however many lookups pass it.
struct CachingHashMatcher<'h> {
    hash: u64,
    hashes: &'h RefCell<HashMap<u64, u64>>,
}

impl ItemMatcher for CachingHashMatcher<'_> {
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        *self.hashes.borrow_mut().entry(item).or_insert_with(|| EntryHasher.hash(mem, item))
            == self.hash
    }
}

/// Finds the entries of other keys that have the hash of a key.
struct OtherKeyMatcher<'k> {
    key: &'k [u8],
    hash: u64,
}

impl ItemMatcher for OtherKeyMatcher<'_> {
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        !ByKey(self.key).matches(mem, item) && HashMatcher(self.hash).matches(mem, item)
    }
}

#[cfg(test)]
#[path = "relocation_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "relocation_model_tests.rs"]
mod model_tests;
