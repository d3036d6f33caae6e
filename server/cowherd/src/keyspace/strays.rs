//! Strays: keys that live in another shard than their *home*, which their hash names.
//!
//! The objects of a large value belong to a shard. RENAME of such a value does not move them: the
//! new key is taken to where the value is, and its home notes that.
//!
//! ```text
//!            home of "old"                       home of "new"
//! before:    keys { "old" -> value }             strays { }
//! after:     keys { "new" -> value }  <--------- strays { database, hash of "new" -> shard }
//! ```
//!
//! A command that names a key locks the key's home and every shard in which keys of its hash live,
//! and makes sure that these are still the right ones. What the table holds follows from the keys,
//! so it stands beside the arena, is in no image, and is filled by whoever verifies a keyspace.
//!
//! Invariants:
//! 1. A stray's hash is in the table, in the part of its home, under its database.
//! 2. All keys of one database that have the same hash live in one shard.
//! 3. A hash is added to the table only while its home, the shard that it names, and the one in
//!    which its keys lived before are locked; it is taken out only while its home and the shard
//!    that it names are, and no key of it is there. So it holds still for whoever holds the home,
//!    or the shard in which the key lives.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use cowherd_arena::containers::dict::{Cursor, Hashed, Items};
use cowherd_arena::layout::shard_root;
use cowherd_arena::{Corruption, Held, Mem, SHARDS, ShardIndex, ShardSet};

use super::entry::{ByHash, ByKey};
use super::{DATABASES, DbIndex, Key, Keyspace, Shards, keys_of};

/// A part with so many strays or fewer has bits that fit; beyond, bits only come.
const REFILTERED: usize = 64;

/// Database and hash of a stray, and the shard that it lives in.
pub(super) type Stray = (DbIndex, u64, ShardIndex);

/// Where strays of one home live, by database and hash.
type Part = [BTreeMap<u64, ShardIndex>; DATABASES];

/// Where all strays live.
pub(super) struct Strays {
    /// For each home a bit for six bits of each stray's hash.
    filters: [AtomicU64; SHARDS],
    /// For each home a bit for each shard in which a stray of it lives.
    away: [AtomicU64; SHARDS],
    parts: Box<[Mutex<Part>; SHARDS]>,
    moves: AtomicU64,
    /// Strays that went while their home was not locked.
    gone: Mutex<Vec<Stray>>,
    /// What is left of databases that were flushed.
    flushed: Mutex<Vec<BTreeMap<u64, ShardIndex>>>,
}

impl Strays {
    pub(super) fn new() -> Self {
        let parts = std::array::from_fn(|_| Mutex::new([const { BTreeMap::new() }; DATABASES]));
        Self {
            filters: [const { AtomicU64::new(0) }; SHARDS],
            away: [const { AtomicU64::new(0) }; SHARDS],
            parts: Box::new(parts),
            moves: AtomicU64::new(0),
            gone: Mutex::default(),
            flushed: Mutex::default(),
        }
    }

    /// Whether keys of this hash may be strays; if not, they are none.
    #[inline]
    fn may_have(&self, hash: u64) -> bool {
        let filter = &self.filters[ShardIndex::of_hash(hash).get()];
        filter.load(Ordering::Relaxed) & bit_of(hash) != 0
    }

    /// The shard of keys of this hash.
    #[inline]
    fn shard_of(&self, db: DbIndex, hash: u64) -> ShardIndex {
        let home = ShardIndex::of_hash(hash);
        if self.may_have(hash) { self.look_up(db, hash).unwrap_or(home) } else { home }
    }

    #[cold]
    fn look_up(&self, db: DbIndex, hash: u64) -> Option<ShardIndex> {
        self.parts[ShardIndex::of_hash(hash).get()].lock()[db].get(&hash).copied()
    }

    /// The home of a hash, and all shards in which keys of it live in any database.
    #[inline]
    fn shards_of(&self, hash: u64) -> ShardSet {
        let home = ShardSet::one(ShardIndex::of_hash(hash));
        if self.may_have(hash) { home | self.look_up_all(hash) } else { home }
    }

    #[cold]
    fn look_up_all(&self, hash: u64) -> ShardSet {
        let part = self.parts[ShardIndex::of_hash(hash).get()].lock();
        part.iter().filter_map(|strays| strays.get(&hash)).copied().map(ShardSet::one).collect()
    }

    /// Notes where keys of a hash live from now on, away from home.
    fn note(&self, db: DbIndex, hash: u64, shard: ShardIndex) {
        let home = ShardIndex::of_hash(hash);
        let mut part = self.parts[home.get()].lock();
        if part[db].insert(hash, shard) == Some(shard) {
            return;
        }
        self.filters[home.get()].fetch_or(bit_of(hash), Ordering::Relaxed);
        self.away[home.get()].fetch_or(1 << shard.get(), Ordering::Relaxed);
        drop(part);
        // Last: who sees the number sees the rest.
        self.moves.fetch_add(1, Ordering::Release);
    }

    /// Forgets where keys of a hash lived. Who has locked that shard as well has locked too much:
    /// no reason to think again.
    fn forget(&self, db: DbIndex, hash: u64) {
        let home = ShardIndex::of_hash(hash);
        let mut part = self.parts[home.get()].lock();
        if part[db].remove(&hash).is_some() {
            self.refilter(home, &part);
        }
    }

    /// Forgets all strays of a database.
    fn flush(&self, db: DbIndex) {
        for home in ShardIndex::all() {
            let mut part = self.parts[home.get()].lock();
            let strays = std::mem::take(&mut part[db]);
            self.refilter(home, &part);
            drop(part);
            if !strays.is_empty() {
                self.flushed.lock().push(strays);
            }
        }
    }

    /// Swaps the strays of two databases.
    fn swap(&self, a: DbIndex, b: DbIndex) {
        for part in self.parts.iter() {
            part.lock().swap(a, b);
        }
        for (db, ..) in self.gone.lock().iter_mut() {
            *db = match *db {
                db if db == a => b,
                db if db == b => a,
                db => db,
            };
        }
    }

    fn refilter(&self, home: ShardIndex, part: &Part) {
        if part.iter().map(BTreeMap::len).sum::<usize>() <= REFILTERED {
            let strays = part.iter().flatten();
            let (bits, away) = strays.fold((0, 0), |(bits, away), (hash, shard)| {
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

/// The six highest bits choose one of the filter's; the lowest choose the home.
#[inline]
const fn bit_of(hash: u64) -> u64 {
    1 << (hash >> 58)
}

impl Key<'_> {
    /// The shard that its hash names. Who is interested in the key is noted there, wherever the
    /// key lives.
    #[inline]
    pub const fn home_shard(&self) -> ShardIndex {
        ShardIndex::of_hash(self.hash)
    }
}

impl Keyspace {
    /// A key of a database. Its home is locked, or it is for a look only.
    #[inline]
    pub fn key<'k>(&self, db: DbIndex, bytes: &'k [u8]) -> Key<'k> {
        self.key_of(db, bytes, self.hash(bytes))
    }

    /// As [`Self::key`], if its hash is known.
    #[inline]
    pub fn key_of<'k>(&self, db: DbIndex, bytes: &'k [u8], hash: u64) -> Key<'k> {
        Key { bytes, hash, shard: self.strays.shard_of(db, hash) }
    }

    /// What a command that names a key of this hash has to lock: the hash's home, and all shards
    /// in which such keys live in any database.
    #[inline]
    pub fn shards_of(&self, hash: u64) -> ShardSet {
        self.strays.shards_of(hash)
    }

    /// How often keys have gone to another shard. If it is the same before [`Self::shards_of`] and
    /// after locking those, they are the right ones.
    #[inline]
    pub fn relocations(&self) -> u64 {
        self.strays.moves.load(Ordering::Acquire)
    }

    /// Locks the shards that `named` tells, until the result goes.
    pub fn lock_named(&self, now: i64, named: impl Fn() -> ShardSet) -> Shards<'_> {
        self.lock_with_retry(now, named, |set| set)
    }

    /// Locks the shards that `named` tells, and more if `widen` adds some. What is told by means
    /// of [`Self::shards_of`] holds still once the homes are locked; if it was another before, all
    /// are locked anew.
    pub fn lock_with_retry(
        &self,
        now: i64,
        named: impl Fn() -> ShardSet,
        widen: impl Fn(ShardSet) -> ShardSet,
    ) -> Shards<'_> {
        loop {
            let shards = self.lock(widen(named()), now);
            if shards.locked().covers(named()) {
                return shards;
            }
        }
    }

    /// Forgets up to `most` strays that have gone while their home was not locked, and all of
    /// flushed databases. No lock is held. Tells whether there are more.
    pub fn prune_relocations(&self, most: usize) -> bool {
        let flushed = std::mem::take(&mut *self.strays.flushed.lock());
        drop(flushed);
        let mut gone = self.strays.gone.lock();
        let rest = gone.len().saturating_sub(most);
        let some = gone.split_off(rest);
        drop(gone);
        for (db, hash, shard) in some {
            let home = ShardSet::one(ShardIndex::of_hash(hash));
            self.lock(home | ShardSet::one(shard), i64::MIN).left(db, hash, shard);
        }
        rest > 0
    }

    /// A home, and the shards in which keys live that are at home there; perhaps some more.
    pub fn shards_of_home(&self, home: ShardIndex) -> ShardSet {
        let away = self.strays.away[home.get()].load(Ordering::Relaxed);
        ShardSet::one(home) | ShardSet::of_bits(away)
    }

    /// The strays of a home that a scan sees between two places, or to the end; and where they end.
    /// If these are more than `least`, not all, but as many if they can be told apart.
    pub(super) fn strays_between(
        &self,
        db: DbIndex,
        home: ShardIndex,
        from: Cursor,
        to: Option<Cursor>,
        least: usize,
    ) -> (Vec<(u64, ShardIndex)>, Option<Cursor>) {
        let seen = |hash: u64| !from.is_past(hash) && to.is_none_or(|to| to.is_past(hash));
        let range = from.lowest()..=to.map_or(u64::MAX, Cursor::highest);
        if range.is_empty() {
            return (Vec::new(), to);
        }
        let part = self.strays.parts[home.get()].lock();
        let ahead = part[db].range(range).filter(|(hash, _)| seen(**hash));
        let mut strays: Vec<_> = ahead.map(|(hash, shard)| (*hash, *shard)).collect();
        drop(part);
        if strays.len() <= least {
            return (strays, to);
        }
        let scale = to.unwrap_or(from);
        let order = |stray: &(u64, ShardIndex)| scale.order(stray.0);
        let last = order(strays.select_nth_unstable_by_key(least.max(1) - 1, order).1);
        // Those at one place are seen together.
        let rest =
            strays.iter().filter(|stray| order(stray) > last).min_by_key(|stray| order(stray));
        let end = rest.map(|(hash, _)| scale.at(*hash)).or(to);
        strays.retain(|stray| order(stray) <= last);
        (strays, end)
    }

    /// All strays of a database have gone; all shards are locked.
    pub(super) fn flush_strays(&self, db: DbIndex) {
        self.strays.flush(db);
    }

    /// Two databases have been swapped; all shards are locked.
    pub(super) fn swap_strays(&self, a: DbIndex, b: DbIndex) {
        self.strays.swap(a, b);
    }

    /// Notes strays that were found in an arena, all of which is locked by `held`, if nothing has
    /// moved in it yet. Otherwise they must be known.
    ///
    /// # Errors
    /// A key could not be found where it is.
    pub(super) fn learn_strays(&self, held: &Held<'_>, found: &[Stray]) -> Result<(), Corruption> {
        let broken = |hash: u64, reason: String| {
            let home = ShardIndex::of_hash(hash).get();
            Err(Corruption::at(shard_root(home), format!("a key of shard {home}: {reason}")))
        };
        let may_learn = self.relocations() == 0;
        for (db, hash, shard) in found.iter().copied() {
            match self.strays.look_up(db, hash) {
                Some(known) if known == shard => {}
                None if may_learn => self.strays.note(db, hash, shard),
                known => {
                    let known = known.map_or_else(|| "at home".into(), |at| at.get().to_string());
                    let reason = format!("it is in shard {}, but also {known}", shard.get());
                    return broken(hash, reason);
                }
            }
        }
        let hashes = RefCell::default();
        for home in ShardIndex::all() {
            let (mem, part) = (held.view(home), self.strays.parts[home.get()].lock());
            let strays = part.iter().enumerate();
            for (db, (hash, shard)) in strays.flat_map(|(db, s)| s.iter().map(move |s| (db, s))) {
                let of_hash = OfHashOnce { hash: *hash, hashes: &hashes };
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
    /// Whether a key can live in `shard`. If another key has the same hash, it has to stay where
    /// it lives now (invariant 2).
    pub(super) fn may_settle(&self, db: DbIndex, key: &Key<'_>, shard: ShardIndex) -> bool {
        let others = Others { key: key.bytes, hash: key.hash };
        let here = || keys_of(key.shard, db).find(&self.held.view(key.shard), key.hash, &others);
        key.shard == shard || here().is_none()
    }

    /// Notes where a key lives that was linked just now.
    #[inline]
    pub(super) fn settle(&self, db: DbIndex, key: &Key<'_>) {
        if key.shard != key.home_shard() || self.space.strays.may_have(key.hash) {
            self.settle_somewhere(db, key);
        }
    }

    #[cold]
    fn settle_somewhere(&self, db: DbIndex, key: &Key<'_>) {
        assert!(
            self.held.set().has(key.home_shard()),
            "shard {} is not locked",
            key.home_shard().get()
        );
        if key.shard == key.home_shard() {
            self.space.strays.forget(db, key.hash);
        } else {
            self.space.strays.note(db, key.hash, key.shard);
        }
    }

    /// Notes that a key of this hash has left a shard, if it was not at home there.
    #[inline]
    pub(super) fn left(&self, db: DbIndex, hash: u64, shard: ShardIndex) {
        if ShardIndex::of_hash(hash) != shard {
            self.left_another(db, hash, shard);
        }
    }

    #[cold]
    fn left_another(&self, db: DbIndex, hash: u64, shard: ShardIndex) {
        let strays = &self.space.strays;
        if !self.held.set().has(ShardIndex::of_hash(hash)) {
            strays.gone.lock().push((db, hash, shard));
        } else if strays.look_up(db, hash) == Some(shard)
            && !has_hash(&self.held.view(shard), db, hash)
        {
            strays.forget(db, hash);
        }
    }
}

/// Hands over the entries in a shard of all keys of this hash.
pub(super) fn each_of_hash(mem: &Mem<'_>, db: DbIndex, hash: u64, each: impl FnMut(u64)) {
    struct Each<F>(u64, RefCell<F>);
    impl<F: FnMut(u64)> Items for Each<F> {
        fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
            if OfHash(self.0).matches(mem, item) {
                (self.1.borrow_mut())(item);
            }
            false
        }
    }
    keys_of(mem.shard(), db).find(mem, hash, &Each(hash, RefCell::new(each)));
}

/// Whether a shard has a key of this hash.
fn has_hash(mem: &Mem<'_>, db: DbIndex, hash: u64) -> bool {
    keys_of(mem.shard(), db).find(mem, hash, &OfHash(hash)).is_some()
}

/// Recognises the entries of all keys of a hash.
struct OfHash(u64);

impl Items for OfHash {
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        ByHash.hash(mem, item) == self.0
    }
}

/// As [`OfHash`], for many hashes: no key is hashed twice, however many are looked for near it.
struct OfHashOnce<'h> {
    hash: u64,
    hashes: &'h RefCell<HashMap<u64, u64>>,
}

impl Items for OfHashOnce<'_> {
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        *self.hashes.borrow_mut().entry(item).or_insert_with(|| ByHash.hash(mem, item)) == self.hash
    }
}

/// Recognises the entries of other keys that have the hash of a key.
struct Others<'k> {
    key: &'k [u8],
    hash: u64,
}

impl Items for Others<'_> {
    fn matches(&self, mem: &Mem<'_>, item: u64) -> bool {
        !ByKey(self.key).matches(mem, item) && OfHash(self.hash).matches(mem, item)
    }
}

#[cfg(test)]
#[path = "strays_tests.rs"]
mod tests;
