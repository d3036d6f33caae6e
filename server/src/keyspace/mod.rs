//! The keyspace: what keys and values mean, on top of the arena and its containers.
//!
//! ```text
//! shard root (one a shard, 4 KiB)
//! +-----------------------------+---------------------+------------------------+
//! | 16 databases                | garbage: keys       | garbage: expires       |
//! | { keys, expires } dictionary| 32 dictionaries     | 32 dictionaries        |
//! +-----------------------------+---------------------+------------------------+
//! ```
//!
//! `keys` refers to every entry of a database; `expires` to those of them that have an expiry. A
//! flushed database becomes garbage at once and is freed in slices.
//!
//! Invariants:
//! 1. A key is in the shard that its hash names, in its database's `keys`, once.
//! 2. An entry is in `expires` exactly if it has an expiry.
//! 3. On `OutOfMemory` nothing has changed.

mod clocks;
mod database;
mod digest;
mod entry;
mod expiry;
mod moving;
mod shards;
mod strings;
#[cfg(test)]
mod tests;
mod verify;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arena::layout::{ROOT_SIZE, shard_root};
use crate::arena::{Arena, Blank, Offset, OpenError, SHARDS};
use crate::collections::dict::{Dict, Root};

pub use crate::arena::{CHUNK_SIZE, OutOfMemory, ShardIndex, ShardSet};
pub use clocks::{Clocks, Usage};
pub use database::{Databases, Pick, ScanCursor};
pub use entry::{Encoding, Kind};
pub use expiry::ExpireRule;
pub use shards::{Entry, Key, ShardStats, Shards};
pub use strings::{Expiry, MAX_VALUE, StringError, Value};
pub use verify::Contents;

/// Databases; fixed, because the image depends on it.
pub const DATABASES: usize = 16;
/// Flushed databases of one shard that can wait to be freed.
const GARBAGE: usize = 32;
/// Changes whenever a byte of the keyspace's structures gets another meaning.
const KEYSPACE_VERSION: u64 = 1;

const _: () = assert!(size_of::<ShardRoot>() as u64 <= ROOT_SIZE);

/// The number of a database, below [`DATABASES`].
pub type DbIndex = usize;

/// One database's part of a shard.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DbRoot {
    keys: Root,
    expires: Root,
}

/// The root of a shard.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ShardRoot {
    databases: [DbRoot; DATABASES],
    garbage_keys: [Root; GARBAGE],
    garbage_expires: [Root; GARBAGE],
}

fn db_root(shard: ShardIndex, db: DbIndex) -> Offset<DbRoot> {
    assert!(db < DATABASES, "there is no database {db}");
    Offset::new(shard_root(shard.get()) + (db * size_of::<DbRoot>()) as u64)
}

fn keys_of(shard: ShardIndex, db: DbIndex) -> Dict {
    Dict::at(Offset::new(db_root(shard, db).raw()))
}

fn expires_of(shard: ShardIndex, db: DbIndex) -> Dict {
    Dict::at(Offset::new(db_root(shard, db).raw() + size_of::<Root>() as u64))
}

fn garbage_of(shard: ShardIndex, slot: usize) -> (Offset<Root>, Offset<Root>) {
    let at = |field: usize| {
        let within = field + slot * size_of::<Root>();
        Offset::new(shard_root(shard.get()) + within as u64)
    };
    (
        at(std::mem::offset_of!(ShardRoot, garbage_keys)),
        at(std::mem::offset_of!(ShardRoot, garbage_expires)),
    )
}

/// Hash of everything that gives an image its meaning.
pub fn layout_hash() -> u64 {
    crate::arena::layout_hash(&[
        KEYSPACE_VERSION,
        DATABASES as u64,
        GARBAGE as u64,
        size_of::<ShardRoot>() as u64,
        entry::HEAD,
    ])
}

/// All keys and values of one server.
pub struct Keyspace {
    arena: Arena,
    clocks: Clocks,
    stats: Box<[shards::ShardState; SHARDS]>,
}

impl Keyspace {
    /// An empty keyspace in fresh memory.
    ///
    /// # Errors
    /// The kernel has no page for the tables.
    pub fn create(blank: Blank, hash_seed: u64) -> Result<Self, OpenError> {
        Self::open(blank.format(layout_hash(), hash_seed)?)
    }

    /// The keyspace in an arena that was restored; see [`Self::verify`].
    ///
    /// # Errors
    /// No address space for the clocks.
    pub fn open(arena: Arena) -> Result<Self, OpenError> {
        let clocks =
            Clocks::new(arena.capacity(), crate::clock::wall_ms()).map_err(OpenError::SideTable)?;
        let stats = Box::new([const { shards::ShardState::new() }; SHARDS]);
        Ok(Self { arena, clocks, stats })
    }

    /// The arena.
    pub const fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The access clocks.
    pub const fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// A key, with its hash.
    #[inline]
    pub fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        let hash = entry::hash(&self.arena, bytes);
        Key { bytes, hash, shard: ShardIndex::of_hash(hash) }
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

    /// Whether no database has a key.
    pub fn is_empty(&self) -> bool {
        (0..DATABASES).all(|db| self.len(db) == 0)
    }

    /// Number of keys with an expiry in a database.
    pub fn expires_len(&self, db: DbIndex) -> u64 {
        ShardIndex::all().map(|shard| self.hint_len(expires_of(shard, db))).sum()
    }

    fn hint_len(&self, dict: Dict) -> u64 {
        dict.hint_len(&self.arena)
    }
}
