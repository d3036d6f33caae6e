//! The keyspace: what keys and values mean, on top of the arena and its containers.
//!
//! ```text
//! shard root (one a shard, 4 KiB)
//! +-------------------------------------+---------------------------+----------+
//! | 16 databases                        | 24 flushed databases      | garbage: |
//! | { keys, expires, volatile } = 3     | { keys, expires, volatile |  first   |
//! |                   dictionaries      |  }                        |  value   |
//! +-------------------------------------+---------------------------+----------+
//! ```
//!
//! `keys` refers to every entry of a database; `expires` to those of them that have an expiry, and
//! `volatile` to hashes of the form whose fields may expire. A flushed database, and a large value
//! that was deleted, becomes garbage at once and is freed in slices.
//!
//! | file | what |
//! |---|---|
//! | `entry` | a key's bytes |
//! | `shards` | lookup, link, unlink |
//! | `strays` | in which shard a key lives |
//! | `strings` | string values |
//! | `compact` | values of few elements, in one packed run |
//! | `values` | what the keyspace asks of each kind of large value, and their garbage |
//! | `hash`, `list`, `set`, `sorted_set`, `stream` | a kind of value each |
//! | `expiry`, `moving`, `database` | what is done to keys whatever their values |
//! | `digest`, `verify` | all of them read |
//!
//! Invariants:
//! 1. A key is in one shard, in its database's `keys`, once: in the shard that its hash names, or,
//!    if it was renamed with a large value, in that of the value (see `strays`).
//! 2. An entry is in `expires` exactly if it has an expiry, and in `volatile` exactly if it is a
//!    hash of the form whose fields may expire.
//! 3. On `OutOfMemory` nothing has changed.
//! 4. A value of several elements is never empty, but for streams.

mod clocks;
mod compact;
mod database;
mod digest;
mod entry;
mod events;
mod eviction;
mod expiry;
mod hash;
mod interest;
mod list;
mod moving;

mod set;
mod shards;
mod sorted_set;
mod strays;
mod stream;
mod strings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod values;
mod verify;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{Dict, Root};
use cowherd_arena::layout::{ROOT_SIZE, shard_root};
use cowherd_arena::{Arena, Offset, OpenError, ReservedArena};

pub use clocks::{AccessClocks, KeyUsage};
pub use compact::CompactLimits;
pub use cowherd_arena::containers::dict::Cursor;
pub use cowherd_arena::{CHUNK_SIZE, OutOfMemory, SHARDS, ShardIndex, ShardSet};
pub use database::{Databases, RandomKey, ScanCursor};
#[cfg(test)]
pub use entry::Encoding;
pub use entry::ValueKind;
pub use events::{KeyspaceEvent, KeyspaceEvents};
pub use eviction::{EvictionScope, MemoryLimit, Reclaimer};
pub use expiry::{CleanCursors, ExpireRule};
pub use hash::FieldExpiryOutcome;
pub use interest::{ReadyKey, Watcher};
pub use list::{ListEnd, ListLimits};
pub use set::{MemberList, SetLimits};
pub use shards::{Entry, Key, Shards};
pub use sorted_set::{MemberChange, RangeBound, SortedSetView};
use strays::Strays;
pub use stream::{
    Consumer, ConsumerInfo, Group, GroupInfo, PendingClaim, PendingEntry, PendingReservation,
    StreamFields, StreamId, StreamInfo, StreamLimits, StreamTrim,
};
pub use strings::{Expiry, MAX_VALUE, StringError, Value};
#[cfg(test)]
pub use testing::MemoryExhauster;
pub use values::WrongType;
pub use verify::Contents;

/// Databases; fixed, because the image depends on it.
pub const DATABASES: usize = 16;
/// Flushed databases of one shard that can wait to be freed.
const GARBAGE: usize = 24;
/// Changes whenever a byte of the keyspace's structures gets another meaning.
const KEYSPACE_VERSION: u64 = 2;

const _: () = assert!(size_of::<ShardRoot>() as u64 <= ROOT_SIZE);

/// The number of a database, below [`DATABASES`].
pub type DbIndex = usize;

/// One database's part of a shard.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
struct DbRoot {
    keys: Root,
    expires: Root,
    volatile: Root,
}

impl DbRoot {
    const EMPTY: Self = Self { keys: Root::EMPTY, expires: Root::EMPTY, volatile: Root::EMPTY };
}

/// The root of a shard.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ShardRoot {
    databases: [DbRoot; DATABASES],
    garbage: [DbRoot; GARBAGE],
    /// The header of the first large value that is to be freed; 0 if there is none.
    garbage_value: u64,
}

/// A dictionary beside the keys, of those that have something in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// Keys with an expiry.
    Expires,
    /// Hashes whose fields may expire.
    Volatile,
}

impl Side {
    const ALL: [Self; 2] = [Self::Expires, Self::Volatile];

    /// The dictionary of a database in a shard.
    fn of(self, shard: ShardIndex, db: DbIndex) -> Dict {
        self.at(db_root(shard, db))
    }

    /// The dictionary of a database, or of one that was flushed.
    fn at(self, root: Offset<DbRoot>) -> Dict {
        let field = match self {
            Self::Expires => std::mem::offset_of!(DbRoot, expires),
            Self::Volatile => std::mem::offset_of!(DbRoot, volatile),
        };
        Dict::at(Offset::new(root.raw() + field as u64))
    }
}

fn db_root(shard: ShardIndex, db: DbIndex) -> Offset<DbRoot> {
    assert!(db < DATABASES, "there is no database {db}");
    Offset::new(shard_root(shard.get()) + (db * size_of::<DbRoot>()) as u64)
}

fn keys_of(shard: ShardIndex, db: DbIndex) -> Dict {
    keys_at(db_root(shard, db))
}

fn keys_at(root: Offset<DbRoot>) -> Dict {
    Dict::at(Offset::new(root.raw()))
}

fn expires_of(shard: ShardIndex, db: DbIndex) -> Dict {
    Side::Expires.of(shard, db)
}

/// The flushed databases of a shard.
fn garbage_of(shard: ShardIndex) -> impl Iterator<Item = Offset<DbRoot>> + Clone {
    let first = shard_root(shard.get()) + std::mem::offset_of!(ShardRoot, garbage) as u64;
    (0..GARBAGE as u64).map(move |slot| Offset::new(first + slot * size_of::<DbRoot>() as u64))
}

/// Where the header of the first large value that is to be freed is named.
fn garbage_value_of(shard: ShardIndex) -> Offset<u64> {
    let field = std::mem::offset_of!(ShardRoot, garbage_value);
    Offset::new(shard_root(shard.get()) + field as u64)
}

/// Hash of everything that gives an image its meaning.
pub fn layout_hash() -> u64 {
    cowherd_arena::layout_hash(&[
        KEYSPACE_VERSION,
        DATABASES as u64,
        GARBAGE as u64,
        size_of::<ShardRoot>() as u64,
        entry::HEAD,
        values::LAYOUT,
    ])
}

/// All keys and values of one server.
pub struct Keyspace {
    arena: Arena,
    clocks: AccessClocks,
    stats: Box<[shards::ShardState; SHARDS]>,
    events: KeyspaceEvents,
    strays: Strays,
    memory_limit: MemoryLimit,
}

impl Keyspace {
    /// An empty keyspace in fresh memory.
    ///
    /// # Errors
    /// The kernel has no page for the tables.
    pub fn create(blank: ReservedArena, hash_seed: u64) -> Result<Self, OpenError> {
        Self::open(blank.format(layout_hash(), hash_seed)?)
    }

    /// The keyspace in an arena that was restored; see [`Self::verify`].
    ///
    /// # Errors
    /// No address space for the clocks.
    pub fn open(arena: Arena) -> Result<Self, OpenError> {
        let clocks = AccessClocks::new(arena.capacity(), crate::clock::wall_ms())
            .map_err(OpenError::SideTable)?;
        let memory_limit = MemoryLimit::new(arena.capacity());
        let stats = Box::new([const { shards::ShardState::new() }; SHARDS]);
        Ok(Self {
            arena,
            clocks,
            stats,
            events: KeyspaceEvents::new(),
            strays: Strays::new(),
            memory_limit,
        })
    }

    /// The arena.
    pub const fn arena(&self) -> &Arena {
        &self.arena
    }

    /// What others want to be told about keys.
    pub const fn events(&self) -> &KeyspaceEvents {
        &self.events
    }

    /// How many bytes may be in use before keys are evicted.
    pub const fn memory_limit(&self) -> &MemoryLimit {
        &self.memory_limit
    }

    /// The access clocks.
    pub const fn clocks(&self) -> &AccessClocks {
        &self.clocks
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        entry::hash(&self.arena, key)
    }

    /// Locks shards until the result goes. `now` is the wall clock in milliseconds: keys that
    /// expired before it are not there.
    #[inline]
    pub fn lock(&self, set: ShardSet, now: i64) -> Shards<'_> {
        Shards::lock(self, set, now)
    }

    /// Number of keys in a database, expired ones that are still there included. Exact when
    /// nobody writes.
    pub fn len(&self, db: DbIndex) -> u64 {
        ShardIndex::all().map(|shard| self.hint_len(keys_of(shard, db))).sum()
    }

    #[cfg(test)]
    /// Whether no database has a key.
    pub fn is_empty(&self) -> bool {
        (0..DATABASES).all(|db| self.len(db) == 0)
    }

    /// Number of keys with an expiry in a database.
    pub fn expires_len(&self, db: DbIndex) -> u64 {
        ShardIndex::all().map(|shard| self.hint_len(expires_of(shard, db))).sum()
    }

    #[cfg(test)]
    /// Number of hashes whose fields may expire in a database.
    pub fn volatile_len(&self, db: DbIndex) -> u64 {
        ShardIndex::all().map(|shard| self.hint_len(Side::Volatile.of(shard, db))).sum()
    }

    fn hint_len(&self, dict: Dict) -> u64 {
        dict.racy_len(&self.arena)
    }
}
