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
//! and looks again whether that is still so. What the table holds follows from the keys, so it
//! stands beside the arena, is in no image, and is filled by whoever verifies a keyspace.
//!
//! Invariants:
//! 1. A stray's hash is in the table, in the part of its home, under its database.
//! 2. All keys of one database that have the same hash live in one shard.
//! 3. What the table says of a hash in a database changes only while the hash's home, the shard
//!    named before and the one named afterwards are locked. So it holds still for whoever holds
//!    the home, or the shard in which the key lives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::arena::layout::shard_root;
use crate::arena::{Broken, Held, Mem, SHARDS, ShardIndex, ShardSet};
use crate::collections::dict::{Hashed, Items};

use super::entry::{ByHash, ByKey};
use super::{DATABASES, DbIndex, Key, Keyspace, Shards, keys_of};

/// A part with so many strays or fewer has a filter that fits; beyond, bits only come.
const REFILTERED: usize = 64;

/// Database and hash of a stray, and the shard that it lives in.
pub(super) type Stray = (DbIndex, u64, ShardIndex);

/// Where strays of one home live, by database and hash.
type Part = [BTreeMap<u64, ShardIndex>; DATABASES];

/// Where all strays live.
pub(super) struct Strays {
    /// For each home a bit for six bits of each stray's hash.
    filters: [AtomicU64; SHARDS],
    parts: Box<[Mutex<Part>; SHARDS]>,
    moves: AtomicU64,
}

/// A place among the strays of one home.
#[derive(Clone, Copy, Debug, Default)]
pub struct StrayCursor {
    db: DbIndex,
    hash: u64,
}

impl Strays {
    pub(super) fn new() -> Self {
        let parts = std::array::from_fn(|_| Mutex::new([const { BTreeMap::new() }; DATABASES]));
        Self {
            filters: [const { AtomicU64::new(0) }; SHARDS],
            parts: Box::new(parts),
            moves: AtomicU64::new(0),
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
        let shards = part.iter().filter_map(|strays| strays.get(&hash));
        shards.fold(ShardSet::NONE, |set, shard| set | ShardSet::one(*shard))
    }

    /// Notes where keys of a hash live from now on.
    fn set(&self, db: DbIndex, hash: u64, shard: ShardIndex) {
        let home = ShardIndex::of_hash(hash);
        let mut part = self.parts[home.get()].lock();
        if shard == home {
            part[db].remove(&hash);
        } else {
            part[db].insert(hash, shard);
        }
        self.refilter(home, &part, bit_of(hash));
        drop(part);
        // Last: who sees the number sees the rest.
        self.moves.fetch_add(1, Ordering::Release);
    }

    /// Swaps the strays of two databases.
    fn swap(&self, a: DbIndex, b: DbIndex) {
        for part in self.parts.iter() {
            part.lock().swap(a, b);
        }
        self.moves.fetch_add(1, Ordering::Release);
    }

    fn refilter(&self, home: ShardIndex, part: &Part, new: u64) {
        let filter = &self.filters[home.get()];
        let bits = if part.iter().map(BTreeMap::len).sum::<usize>() <= REFILTERED {
            part.iter().flat_map(BTreeMap::keys).fold(0, |bits, hash| bits | bit_of(*hash))
        } else {
            filter.load(Ordering::Relaxed) | new
        };
        filter.store(bits, Ordering::Relaxed);
    }

    /// Up to `most` strays of a home from a place on, and where to go on; from the start again
    /// after the last.
    fn list(&self, home: ShardIndex, from: StrayCursor, most: usize) -> (Vec<Stray>, StrayCursor) {
        let part = self.parts[home.get()].lock();
        let begin = |db| if db == from.db { from.hash } else { 0 };
        let rest = (from.db..DATABASES).flat_map(|db| {
            part[db].range(begin(db)..).map(move |(hash, shard)| (db, *hash, *shard))
        });
        let mut listed: Vec<_> = rest.take(most + 1).collect();
        let next = if listed.len() > most { listed.pop() } else { None };
        let cursor = next.map(|(db, hash, _)| StrayCursor { db, hash }).unwrap_or_default();
        (listed, cursor)
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
    pub const fn home(&self) -> ShardIndex {
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

    /// How often keys have changed their shard. If it is the same before [`Self::shards_of`] and
    /// after locking those, they are the right ones.
    #[inline]
    pub fn moves(&self) -> u64 {
        self.strays.moves.load(Ordering::Acquire)
    }

    /// Locks the shards that `plan` names, until the result goes. What it names with
    /// [`Self::shards_of`] holds still then: it is asked again if anything has moved meanwhile.
    pub fn lock_planned(&self, now: i64, plan: impl Fn() -> ShardSet) -> Shards<'_> {
        loop {
            let moves = self.moves();
            let shards = self.lock(plan(), now);
            if self.moves() == moves {
                return shards;
            }
        }
    }

    /// Forgets where keys lived that are no more: looks at up to `most` strays of one home. No
    /// lock is held. Returns where to go on.
    pub fn forget_strays(&self, home: ShardIndex, from: StrayCursor, most: usize) -> StrayCursor {
        if self.strays.filters[home.get()].load(Ordering::Relaxed) == 0 {
            return StrayCursor::default();
        }
        let (listed, next) = self.strays.list(home, from, most);
        for (db, hash, shard) in listed {
            let shards = self.lock(ShardSet::one(home) | ShardSet::one(shard), i64::MIN);
            let is_there = || has_hash(&shards.held.view(shard), db, hash);
            if self.strays.look_up(db, hash) == Some(shard) && !is_there() {
                self.strays.set(db, hash, home);
            }
        }
        next
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
    pub(super) fn learn_strays(&self, held: &Held<'_>, found: &[Stray]) -> Result<(), Broken> {
        let broken = |hash: u64, reason: String| {
            let home = ShardIndex::of_hash(hash).get();
            Err(Broken::at(shard_root(home), format!("a key of shard {home}: {reason}")))
        };
        let may_learn = self.moves() == 0;
        for (db, hash, shard) in found.iter().copied() {
            match self.strays.look_up(db, hash) {
                Some(known) if known == shard => {}
                None if may_learn => self.strays.set(db, hash, shard),
                known => {
                    let known = known.map_or_else(|| "at home".into(), |at| at.get().to_string());
                    let reason = format!("it is in shard {}, but also {known}", shard.get());
                    return broken(hash, reason);
                }
            }
        }
        for home in ShardIndex::all() {
            let (listed, _) = self.strays.list(home, StrayCursor::default(), usize::MAX - 1);
            for (db, hash, shard) in listed {
                if has_hash(&held.view(home), db, hash) {
                    let reason = format!("it is there, but should be in shard {}", shard.get());
                    return broken(hash, reason);
                }
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn count_strays(&self) -> usize {
        self.strays.count()
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

    /// Notes that a key lives in `shard` from now on. Its home is locked, and so are that shard and
    /// the one where it lived.
    pub(super) fn settle(&self, db: DbIndex, key: &Key<'_>, shard: ShardIndex) {
        if key.shard == shard {
            return;
        }
        let needed = [key.home(), key.shard, shard];
        assert!(needed.iter().all(|one| self.held.set().has(*one)), "a key moves under its locks");
        self.space.strays.set(db, key.hash, shard);
    }
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
