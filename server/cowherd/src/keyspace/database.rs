//! Operations on whole databases: flush, swap, scan, random keys.

use cowherd_arena::containers::dict::{Dict, DictCursor, DictRoot, Hashed};
use cowherd_arena::{Mem, Offset, RacyView, ShardIndex};

use super::entry::{EntryHasher, EntryHeader};
use super::roots::{
    DATABASES, Databases, DbIndex, DbRoot, SecondaryIndex, db_root, expires_of, flushed_slots,
    keys_at, keys_of,
};
use super::shards::free_entry;
use super::{Entry, Keyspace, Shards, relocation, values};

/// The most keys that are prefetched together.
pub const PREFETCH_GROUP: usize = 16;

/// The result of choosing a key at random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RandomKey<'m> {
    /// The database has no key in this shard.
    Nothing,
    /// The chosen key had expired and was removed.
    Expired,
    /// The chosen key.
    Key(&'m [u8]),
}

/// A position in a scan over all shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanCursor {
    /// The shard to visit next.
    pub shard: ShardIndex,
    /// The position in that shard.
    pub within: DictCursor,
}

impl ScanCursor {
    /// The cursor that a client sent. Any number is a valid cursor; 0 is the start.
    pub const fn unpack(number: u64) -> Self {
        Self { shard: ShardIndex::of_hash(number), within: DictCursor::unpack(number >> 6) }
    }

    /// The number to send to the client.
    pub const fn pack(self) -> u64 {
        self.within.pack() << 6 | self.shard.get() as u64
    }

    /// The start of the next shard; `None` after the last.
    pub fn next_shard(self) -> Option<Self> {
        let shard = ShardIndex::new(self.shard.get() + 1)?;
        Some(Self { shard, within: DictCursor::default() })
    }
}

/// The size of one or several hash tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableSize {
    /// Items.
    pub items: u64,
    /// Segments.
    pub segments: u64,
    /// Entries of the directories, which name segments.
    pub directory_entries: u64,
}

impl TableSize {
    /// The size with that of another table added.
    fn with(self, root: &DictRoot) -> Self {
        Self {
            items: self.items + root.len,
            segments: self.segments + u64::from(root.segments),
            directory_entries: self.directory_entries
                + if root.len > 0 { 1 << root.depth } else { 0 },
        }
    }
}

impl Shards<'_> {
    /// The sizes of the hash tables of a database: of all keys, and of those with an expiry. All
    /// shards are locked.
    pub fn table_sizes(&self, db: DbIndex) -> (TableSize, TableSize) {
        let sum = |of: &dyn Fn(ShardIndex) -> Dict| {
            ShardIndex::all().fold(TableSize::default(), |size, shard| {
                size.with(&of(shard).root(&self.held.view(shard)))
            })
        };
        (sum(&|shard| keys_of(shard, db)), sum(&|shard| expires_of(shard, db)))
    }

    /// The size of the hash table of a value's elements; `None` if the value has none.
    pub fn element_table(&self, entry: &Entry) -> Option<TableSize> {
        let mem = self.held.view(entry.shard);
        let table = values::table(&mem, entry.at, &entry.head)?;
        Some(TableSize::default().with(&table.root(&mem)))
    }

    /// Empties databases. The memory is freed later, in slices (see [`Shards::clean`]). Returns the
    /// number of removed keys. All shards are locked.
    pub fn flush(&mut self, databases: Databases) -> u64 {
        self.notify_of_flush(databases);
        let flushed = ShardIndex::all().map(|shard| self.flush_shard(shard, databases)).sum();
        (0..DATABASES)
            .filter(|db| databases.has(*db))
            .for_each(|db| self.space.flush_forwarding(db));
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
            let slot = free_flushed_slot(&mut mem, shard);
            mem.write(slot, root);
            mem.write(db_root(shard, db), DbRoot::EMPTY);
        }
        self.changed_times(shard, flushed);
        flushed
    }

    /// Swaps two databases. All shards are locked.
    pub fn swap_databases(&mut self, a: DbIndex, b: DbIndex) {
        // A swap is one change, counted by any shard, even if a database is swapped with itself.
        self.changed(ShardIndex::of_hash(0));
        if a == b {
            return;
        }
        self.notify_of_swap(a, b);
        for shard in ShardIndex::all() {
            let mut mem = self.held.mem(shard);
            let (first, second): (DbRoot, DbRoot) =
                (mem.read(db_root(shard, a)), mem.read(db_root(shard, b)));
            mem.write(db_root(shard, a), second);
            mem.write(db_root(shard, b), first);
        }
        self.space.swap_forwarding(a, b);
    }

    /// Calls `each` with keys of a database that are at home in a shard: `least` of them, or a few
    /// more, if there are so many. Skips expired keys. Returns the cursor to continue with. The
    /// shards of [`Keyspace::shards_of_home`] are locked.
    pub fn scan(
        &self,
        db: DbIndex,
        home: ShardIndex,
        cursor: DictCursor,
        least: usize,
        mut each: impl FnMut(&[u8], super::ValueType),
    ) -> Option<DictCursor> {
        let mem = self.held.view(home);
        let mut visit = |mem: &Mem<'_>, at| {
            let head = EntryHeader::load(mem, at);
            if head.expiry(mem, at).is_none_or(|expiry| expiry > self.now) {
                each(head.key(mem, at), head.kind);
            }
        };
        if self.space.relocations() == 0 {
            return keys_of(home, db).scan(&mem, cursor, least, |at| visit(&mem, at));
        }
        let mut items = Vec::new();
        let next = keys_of(home, db).scan(&mem, cursor, least, |at| items.push(at));
        let (relocated, next) = self.space.relocated_between(db, home, cursor, next, least);
        for at in items {
            let hash = EntryHasher.hash(&mem, at);
            // Keys that were relocated to this shard are visited with their home shards.
            if ShardIndex::of_hash(hash) == home && next.is_none_or(|next| next.is_past(hash)) {
                visit(&mem, at);
            }
        }
        for (hash, shard) in relocated {
            let mem = self.held.view(shard);
            relocation::each_of_hash(&mem, db, hash, |at| visit(&mem, at));
        }
        next
    }

    /// A random key of a database in one locked shard. A chosen key that has expired is removed, so
    /// that a caller that repeats the call ends with a key or with none.
    pub fn random_key(
        &mut self,
        db: DbIndex,
        shard: ShardIndex,
        random: impl FnMut() -> u64,
    ) -> RandomKey<'_> {
        let mem = self.held.view(shard);
        let Some(at) = keys_of(shard, db).random(&mem, random) else { return RandomKey::Nothing };
        let head = EntryHeader::load(&mem, at);
        if head.expiry(&mem, at).is_some_and(|expiry| expiry <= self.now) {
            self.expire_entry(shard, db, at);
            return RandomKey::Expired;
        }
        RandomKey::Key(self.held.view(shard).slice(at + head.key_at(), head.key_len))
    }

    /// The number and the sum of the times to live, in milliseconds, of about `most` keys with an
    /// expiry in a locked shard.
    pub fn sample_ttl(&self, db: DbIndex, shard: ShardIndex, most: usize) -> (u64, u64) {
        let mem = self.held.view(shard);
        let (mut count, mut sum) = (0, 0);
        expires_of(shard, db).scan(&mem, DictCursor::default(), most, |at| {
            let expiry = EntryHeader::load(&mem, at).expiry(&mem, at).unwrap_or(0);
            if expiry > self.now {
                count += 1;
                sum = expiry.abs_diff(self.now).saturating_add(sum);
            }
        });
        (count, sum)
    }
}

/// An unused slot for a flushed database; if all are in use, the first is freed at once.
fn free_flushed_slot(mem: &mut Mem<'_>, shard: ShardIndex) -> Offset<DbRoot> {
    let mut slots = flushed_slots(shard);
    if let Some(free) = slots.clone().find(|slot| mem.read(*slot) == DbRoot::EMPTY) {
        return free;
    }
    let first = slots.next().expect("invariant: a shard has slots for flushed databases");
    while !drain_flushed(mem, first, usize::MAX) {}
    first
}

/// Frees about `most` entries of a flushed database; tells whether that was all. The entries are
/// freed through `keys`, after the secondary indexes that refer to them.
pub(super) fn drain_flushed(mem: &mut Mem<'_>, root: Offset<DbRoot>, most: usize) -> bool {
    SecondaryIndex::ALL.iter().all(|index| index.at(root).drain(mem, most, |_, _| {}))
        && keys_at(root).drain(mem, most, free_entry)
}

impl Keyspace {
    /// Number of keys of a database in a shard, read without a lock.
    pub fn shard_len(&self, shard: ShardIndex, db: DbIndex) -> u64 {
        self.hint_len(keys_of(shard, db))
    }

    /// Bytes of the hash tables of a database, estimated without a lock: of all keys, and of those
    /// with an expiry.
    pub fn table_bytes(&self, db: DbIndex) -> (u64, u64) {
        let sum = |of: &dyn Fn(ShardIndex) -> Dict| {
            ShardIndex::all().map(|shard| of(shard).racy_bytes(&self.arena)).sum::<u64>()
        };
        let indexes = SecondaryIndex::ALL.into_iter();
        let expires = indexes.map(|index| sum(&|shard| index.of(shard, db))).sum();
        (sum(&|shard| keys_of(shard, db)), expires)
    }

    /// Enters a read section for prefetches.
    #[inline]
    fn racy(&self) -> RacyView<'_> {
        self.arena.racy()
    }

    /// Prefetches the entries of up to [`PREFETCH_GROUP`] keys of a database by their hashes. The
    /// three dependent cache misses of a lookup overlap between the keys.
    #[inline]
    pub fn prefetch(&self, db: DbIndex, hashes: impl Iterator<Item = u64> + Clone) {
        let view = self.racy();
        let mut places = [None; PREFETCH_GROUP];
        for (place, hash) in places.iter_mut().zip(hashes.clone()) {
            *place = self.prefetch_segment(&view, db, hash);
        }
        for (place, hash) in places.iter_mut().zip(hashes.clone()) {
            *place = place.and_then(|at| self.prefetch_bucket(&view, at, hash));
        }
        for (place, hash) in places.iter_mut().zip(hashes) {
            *place = place.and_then(|at| self.prefetch_entry(&view, at, hash));
        }
    }

    /// Prefetches the segment of a key's hash; returns its offset, `None` if there is none.
    #[inline]
    fn prefetch_segment(&self, view: &RacyView<'_>, db: DbIndex, hash: u64) -> Option<u64> {
        let segment = keys_of(ShardIndex::of_hash(hash), db).racy_segment(view, hash)?;
        self.arena.prefetch(segment);
        Some(segment)
    }

    /// Prefetches the bucket of a hash in a segment from [`Self::prefetch_segment`], and the one
    /// behind it.
    #[inline]
    fn prefetch_bucket(&self, view: &RacyView<'_>, segment: u64, hash: u64) -> Option<u64> {
        let bucket = Dict::racy_bucket(view, segment, hash)?;
        self.arena.prefetch(bucket);
        self.arena.prefetch(bucket + 64);
        Some(bucket)
    }

    /// Prefetches the entry of a hash in a bucket from [`Self::prefetch_bucket`].
    #[inline]
    fn prefetch_entry(&self, view: &RacyView<'_>, bucket: u64, hash: u64) -> Option<u64> {
        let entry = Dict::racy_item(view, bucket, hash)?;
        self.arena.prefetch(entry);
        self.arena.prefetch(entry + 64);
        self.clocks.prefetch(entry);
        Some(entry)
    }
}
