//! Whole databases: flushing, swapping, scanning, choosing at random.

use cowherd_arena::containers::dict::{Cursor, Dict, Hashed};
use cowherd_arena::{Mem, Offset, RacyView, ShardIndex};

use super::entry::{ByHash, Shape};
use super::shards::{Counter, free_entry};
use super::{
    DATABASES, DbIndex, DbRoot, Keyspace, Shards, Side, db_root, expires_of, garbage_of, keys_at,
    keys_of,
};

/// Which databases a command is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Databases {
    /// One.
    One(DbIndex),
    /// All.
    All,
}

impl Databases {
    pub(super) fn has(self, db: DbIndex) -> bool {
        match self {
            Self::One(one) => one == db,
            Self::All => true,
        }
    }
}

/// A key chosen at random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RandomKey<'m> {
    /// There is none.
    Nothing,
    /// The chosen one had expired, and is gone now.
    Expired,
    /// This one.
    Key(&'m [u8]),
}

/// A place in a scan over all shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanCursor {
    /// The shard that is next.
    pub shard: ShardIndex,
    /// The place in it.
    pub within: Cursor,
}

impl ScanCursor {
    /// The cursor that a client sent; any number is some cursor, 0 the start.
    pub const fn unpack(number: u64) -> Self {
        Self { shard: ShardIndex::of_hash(number), within: Cursor::unpack(number >> 6) }
    }

    /// The number to send to the client.
    pub const fn pack(self) -> u64 {
        self.within.pack() << 6 | self.shard.get() as u64
    }

    /// The start of the next shard; `None` after the last.
    pub fn next_shard(self) -> Option<Self> {
        let shard = ShardIndex::new(self.shard.get() + 1)?;
        Some(Self { shard, within: Cursor::default() })
    }
}

impl Shards<'_> {
    /// Empties databases at once, with all shards locked; the memory is freed in slices later (see
    /// [`Shards::clean`]). Returns the number of keys that were there.
    pub fn flush(&mut self, databases: Databases) -> u64 {
        self.tell_of_flush(databases);
        let flushed = ShardIndex::all().map(|shard| self.flush_shard(shard, databases)).sum();
        (0..DATABASES).filter(|db| databases.has(*db)).for_each(|db| self.space.flush_strays(db));
        flushed
    }

    fn flush_shard(&mut self, shard: ShardIndex, databases: Databases) -> u64 {
        let mut mem = self.held.mem(shard);
        let mut flushed = 0;
        for db in (0..DATABASES).filter(|db| databases.has(*db)) {
            let root: DbRoot = mem.read(db_root(shard, db));
            if root == DbRoot::EMPTY {
                continue;
            }
            flushed += root.keys.len;
            let slot = free_garbage_slot(&mut mem, shard);
            mem.write(slot, root);
            mem.write(db_root(shard, db), DbRoot::EMPTY);
        }
        self.count(shard, Counter::Changes, flushed);
        flushed
    }

    /// Swaps two databases, with all shards locked.
    pub fn swap_databases(&mut self, a: DbIndex, b: DbIndex) {
        self.tell_of_swap(a, b);
        for shard in ShardIndex::all() {
            let mut mem = self.held.mem(shard);
            let (first, second): (DbRoot, DbRoot) =
                (mem.read(db_root(shard, a)), mem.read(db_root(shard, b)));
            mem.write(db_root(shard, a), second);
            mem.write(db_root(shard, b), first);
        }
        self.space.swap_strays(a, b);
        // One change, counted with the first shard.
        self.count(ShardIndex::of_hash(0), Counter::Changes, 1);
    }

    /// Hands keys of a database whose home is a shard to `each`, about `least` of them or more if
    /// there are so many; expired ones are left out. What [`Keyspace::shards_of_home`] names is
    /// locked. Returns where to go on.
    pub fn scan(
        &self,
        db: DbIndex,
        home: ShardIndex,
        cursor: Cursor,
        least: usize,
        mut each: impl FnMut(&[u8], super::ValueKind),
    ) -> Option<Cursor> {
        let mem = self.held.view(home);
        let mut hand_over = |mem: &Mem<'_>, at| {
            let shape = Shape::load(mem, at);
            if shape.expiry(mem, at).is_none_or(|expiry| expiry > self.now) {
                each(shape.key(mem, at), shape.kind);
            }
        };
        if self.space.relocations() == 0 {
            return keys_of(home, db).scan(&mem, cursor, least, |at| hand_over(&mem, at));
        }
        let mut there = Vec::new();
        let next = keys_of(home, db).scan(&mem, cursor, least, |at| there.push(at));
        let (strays, next) = self.space.strays_between(db, home, cursor, next, least);
        for at in there {
            let hash = ByHash.hash(&mem, at);
            // What is not at home here is seen with the strays of its home.
            if ShardIndex::of_hash(hash) == home && next.is_none_or(|next| next.is_past(hash)) {
                hand_over(&mem, at);
            }
        }
        for (hash, shard) in strays {
            let mem = self.held.view(shard);
            super::strays::each_of_hash(&mem, db, hash, |at| hand_over(&mem, at));
        }
        next
    }

    /// A key of a database in one locked shard, chosen at random. If that one has expired, it is
    /// removed instead: who asks until there is an answer will get one.
    pub fn random_key(
        &mut self,
        db: DbIndex,
        shard: ShardIndex,
        random: impl FnMut() -> u64,
    ) -> RandomKey<'_> {
        let mem = self.held.view(shard);
        let Some(at) = keys_of(shard, db).random(&mem, random) else { return RandomKey::Nothing };
        let shape = Shape::load(&mem, at);
        if shape.expiry(&mem, at).is_some_and(|expiry| expiry <= self.now) {
            self.expire_entry(shard, db, at);
            return RandomKey::Expired;
        }
        RandomKey::Key(self.held.view(shard).slice(at + shape.key_at(), shape.key_len))
    }

    /// Milliseconds to live of about `most` keys with an expiry in a locked shard: their number
    /// and their sum.
    pub fn sample_ttl(&self, db: DbIndex, shard: ShardIndex, most: usize) -> (u64, u64) {
        let mem = self.held.view(shard);
        let (mut count, mut sum) = (0, 0);
        expires_of(shard, db).scan(&mem, Cursor::default(), most, |at| {
            let expiry = Shape::load(&mem, at).expiry(&mem, at).unwrap_or(0);
            if expiry > self.now {
                count += 1;
                sum = expiry.abs_diff(self.now).saturating_add(sum);
            }
        });
        (count, sum)
    }
}

/// A garbage slot that is free; if all are taken, the first is freed here and now.
fn free_garbage_slot(mem: &mut Mem<'_>, shard: ShardIndex) -> Offset<DbRoot> {
    let mut slots = garbage_of(shard);
    if let Some(free) = slots.clone().find(|slot| mem.read(*slot) == DbRoot::EMPTY) {
        return free;
    }
    let Some(first) = slots.next() else { unreachable!("there are garbage slots") };
    while !free_all_deferred(mem, first, usize::MAX) {}
    first
}

/// Frees about `most` entries of a flushed database; tells whether that was all. What the other
/// dictionaries refer to is freed through `keys`, and only after them.
pub(super) fn free_all_deferred(mem: &mut Mem<'_>, root: Offset<DbRoot>, most: usize) -> bool {
    Side::ALL.iter().all(|side| side.at(root).drain(mem, most, |_, _| {}))
        && keys_at(root).drain(mem, most, free_entry)
}

impl Keyspace {
    /// Number of keys of each shard in a database, read without a lock.
    pub fn shard_len(&self, shard: ShardIndex, db: DbIndex) -> u64 {
        self.hint_len(keys_of(shard, db))
    }

    /// Enters a read section for prefetches.
    #[inline]
    pub fn racy(&self) -> RacyView<'_> {
        self.arena.racy()
    }

    /// Prefetches the segment of a key's hash; returns its offset, `None` if there is none.
    #[inline]
    pub fn prefetch_segment(&self, view: &RacyView<'_>, db: DbIndex, hash: u64) -> Option<u64> {
        let segment = keys_of(ShardIndex::of_hash(hash), db).racy_segment(view, hash)?;
        self.arena.prefetch(segment);
        Some(segment)
    }

    /// Prefetches the bucket of a hash in a segment from [`Self::prefetch_segment`].
    #[inline]
    pub fn prefetch_bucket(&self, view: &RacyView<'_>, segment: u64, hash: u64) -> Option<u64> {
        let bucket = Dict::racy_bucket(view, segment, hash)?;
        self.arena.prefetch(bucket);
        Some(bucket)
    }

    /// Prefetches the entry of a hash in a bucket from [`Self::prefetch_bucket`].
    #[inline]
    pub fn prefetch_entry(&self, view: &RacyView<'_>, bucket: u64, hash: u64) -> Option<u64> {
        let entry = Dict::racy_item(view, bucket, hash)?;
        self.arena.prefetch(entry);
        self.arena.prefetch(entry + 64);
        self.clocks.prefetch(entry);
        Some(entry)
    }
}
