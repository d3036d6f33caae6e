//! The keyspace: what keys and values mean, on top of the arena and its containers.
//!
//! | file | what |
//! |---|---|
//! | `roots` | where a shard's databases and lazy-free lists begin, in the arena |
//! | `entry` | the object of a key: header, expiry, key, value |
//! | `counters`, `clocks`, `events` | statistics, access clocks, keyspace events |
//! | `shards` | the locked shards of a command: lookup, link, unlink |
//! | `watch` | WATCH and blocked clients: notification when a key changes |
//! | `observer` | the listener that is told of every change |
//! | `relocation` | keys that do not live in their home shard, and the forwarding table |
//! | `strings` | string values |
//! | `compact` | collections of few elements: one packed run |
//! | `collection` | what every type of collection provides; large collections |
//! | `hash`, `list`, `set`, `sorted_set`, `stream` | one type of collection each |
//! | `values` | operations on a value of any type; the lazy-free list |
//! | `expiry`, `moving`, `database` | EXPIRE; RENAME, COPY, MOVE; whole databases |
//! | `cleaning` | background removal of expired keys, and lazy freeing |
//! | `compaction` | objects move, so that memory that is free is in one piece |
//! | `eviction` | which keys are removed when memory is short |
//! | `digest`, `content_digest` | the digest of a keyspace; the coarser one of Redis |
//! | `verify` | verification of an image |
//!
//! Invariants:
//! 1. A key is in one shard, in its database's `keys`, once: in its home shard, which its hash
//!    names, or, after RENAME of a large value, in the shard of the value (see `relocation`).
//! 2. An entry is in `expires` exactly if it has an expiry, and in `volatile` exactly if it is a
//!    hash whose fields may expire.
//! 3. After `OutOfMemory` nothing has changed.
//! 4. A collection is never empty, except for streams.
//!
//! Files import each other in circles in two places. First, [`Keyspace`] holds the tables of
//! `counters`, `watch` and `relocation`, and these files add methods of their topic to it. Second,
//! `shards` removes keys, and so must free values of any type through `values`, which dispatches to
//! the types; each type in turn removes its key with the last element, through `shards`. A registry
//! of types would cut that circle at run time only, at the price of an indirect call for each value
//! that is freed.

mod cleaning;
mod clocks;
mod collection;
mod compact;
mod compaction;
mod content_digest;
mod counters;
mod database;
mod digest;
mod entry;
mod events;
mod eviction;
mod expiry;
mod hash;
mod libraries;
mod list;
mod moving;
mod observer;
mod relocation;
mod roots;
mod set;
mod shards;
mod sorted_set;
mod stream;
mod strings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod values;
mod verify;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use cowherd_arena::containers::dict::Dict;
use cowherd_arena::{Arena, OpenError, ReservedArena};

pub use cleaning::CleanCursors;
pub use clocks::{AccessClocks, KeyUsage};
pub use collection::{ElementView, WrongType};
pub use compact::CompactLimits;
pub use compaction::CompactionSettings;
#[cfg(test)]
pub use cowherd_arena::CompactionGoal;
pub use cowherd_arena::containers::dict::DictCursor;
pub use cowherd_arena::{CHUNK_SIZE, OccupancyMap, OutOfMemory, SHARDS, ShardIndex, ShardSet};
pub use database::{PREFETCH_GROUP, RandomKey, ScanCursor, TableSize};
pub use entry::ValueType;
pub use events::{EventDispatcher, KeyspaceEvent};
pub use eviction::{EvictionScope, MemoryLimit, Reclaimer};
pub use expiry::{ExpireRule, Expiry};
pub use hash::FieldExpiryOutcome;
pub use list::{ListEnd, ListLimits};
pub use observer::{ChangeObserver, ClientId};
pub use roots::{DATABASES, Databases, DbIndex};
pub use set::{MemberList, SetLimits};
pub use shards::{Entry, Key, ReadyKey, Shards};
pub use sorted_set::{MemberChange, RangeBound, SortedSetView};
pub use stream::{
    Consumer, ConsumerInfo, Group, GroupInfo, PendingClaim, PendingEntry, PendingReservation,
    StreamFields, StreamId, StreamInfo, StreamLimits, StreamTrim,
};
pub use strings::{MAX_VALUE, StringError, Value};
#[cfg(test)]
pub use testing::MemoryExhauster;
pub use verify::{Contents, EntryInspector};
pub use watch::Watcher;

use counters::ShardCounters;
use relocation::ForwardingTable;
use roots::{FLUSHED_SLOTS, SHARD_ROOT_SIZE, expires_of, keys_of};
use watch::WatchTable;

/// Changes whenever a byte of the keyspace's structures gets another meaning.
const KEYSPACE_VERSION: u64 = 4;

/// The hash of all layouts of the keyspace and the arena, which an image must share to be restored.
pub fn layout_hash() -> u64 {
    cowherd_arena::layout_hash(&[
        KEYSPACE_VERSION,
        roots::ALL_DATABASES as u64,
        FLUSHED_SLOTS as u64,
        SHARD_ROOT_SIZE,
        entry::ENTRY_VERSION,
        values::LAYOUT,
    ])
}

/// All keys and values of one server.
pub struct Keyspace {
    arena: Arena,
    clocks: AccessClocks,
    counters: Box<[ShardCounters; SHARDS]>,
    watch_tables: Box<[CachePadded<Mutex<WatchTable>>; SHARDS]>,
    events: EventDispatcher,
    change_observer: OnceLock<Arc<dyn ChangeObserver>>,
    is_observed: AtomicBool,
    forwarding: ForwardingTable,
    memory_limit: MemoryLimit,
    compaction: compaction::Compaction,
    /// Number of threads that may keep shards locked for long: evictors do not wait for them.
    long_holders: AtomicUsize,
}

impl Keyspace {
    /// Creates an empty keyspace.
    ///
    /// # Errors
    /// The kernel has no memory for the tables.
    pub fn create(blank: ReservedArena, hash_seed: u64) -> Result<Self, OpenError> {
        Self::open(blank.format(layout_hash(), hash_seed)?)
    }

    /// Opens the keyspace of an arena that was restored. Unless the arena is trusted,
    /// [`Self::verify`] must be called before anything else.
    ///
    /// # Errors
    /// There is no address space for the access clocks.
    pub fn open(arena: Arena) -> Result<Self, OpenError> {
        let clocks = AccessClocks::new(&arena, crate::clock::wall_ms());
        let memory_limit = MemoryLimit::new(arena.capacity());
        let watch_table = || CachePadded::new(Mutex::new(WatchTable::new()));
        Ok(Self {
            arena,
            clocks,
            counters: Box::new([const { ShardCounters::new() }; SHARDS]),
            watch_tables: Box::new(std::array::from_fn(|_| watch_table())),
            events: EventDispatcher::new(),
            change_observer: OnceLock::new(),
            is_observed: AtomicBool::new(false),
            forwarding: ForwardingTable::new(),
            memory_limit,
            compaction: compaction::Compaction::new(),
            long_holders: AtomicUsize::new(0),
        })
    }

    /// The arena that holds the keys.
    pub const fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The listener of keyspace events.
    pub const fn events(&self) -> &EventDispatcher {
        &self.events
    }

    /// How many bytes may be in use before keys are evicted.
    pub const fn memory_limit(&self) -> &MemoryLimit {
        &self.memory_limit
    }

    /// When, or how often, keys were used.
    pub const fn clocks(&self) -> &AccessClocks {
        &self.clocks
    }

    /// The hash of a key with this keyspace's secret seed.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        entry::hash(&self.arena, key)
    }

    /// Locks shards until the result is dropped. `now` is the wall clock in milliseconds: keys that
    /// expired before do not exist.
    #[inline]
    pub fn lock(&self, set: ShardSet, now: i64) -> Shards<'_> {
        Shards::lock(self, set, now)
    }

    /// As [`Self::lock`], but gives up when `gives_up` returns true while it waits.
    #[inline]
    pub fn lock_unless(
        &self,
        set: ShardSet,
        now: i64,
        gives_up: impl Fn() -> bool,
    ) -> Option<Shards<'_>> {
        Shards::lock_unless(self, set, now, gives_up)
    }

    /// Tells evictors that the calling thread may keep its shards locked for long.
    pub fn begin_long_hold(&self) {
        self.long_holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends what [`Self::begin_long_hold`] has begun.
    pub fn end_long_hold(&self) {
        self.long_holders.fetch_sub(1, Ordering::Relaxed);
    }

    /// Locks a shard; `None` if it may stay locked for long.
    fn lock_soon(&self, shard: ShardIndex, now: i64) -> Option<Shards<'_>> {
        let gives_up = || self.long_holders.load(Ordering::Relaxed) > 0;
        self.lock_unless(ShardSet::one(shard), now, gives_up)
    }

    /// Number of keys in a database, including expired keys that are not removed yet. Read without
    /// locks, so exact only while no thread writes.
    pub fn len(&self, db: DbIndex) -> u64 {
        ShardIndex::all().map(|shard| self.hint_len(keys_of(shard, db))).sum()
    }

    /// Whether all databases are empty.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        (0..DATABASES).all(|db| self.len(db) == 0)
    }

    /// Number of keys with an expiry in a database.
    pub fn expires_len(&self, db: DbIndex) -> u64 {
        ShardIndex::all().map(|shard| self.hint_len(expires_of(shard, db))).sum()
    }

    /// Number of hashes whose fields may expire in a database.
    pub fn volatile_len(&self, db: DbIndex) -> u64 {
        ShardIndex::all()
            .map(|shard| self.hint_len(roots::SecondaryIndex::Volatile.of(shard, db)))
            .sum()
    }

    fn hint_len(&self, dict: Dict) -> u64 {
        dict.racy_len(&self.arena)
    }
}
