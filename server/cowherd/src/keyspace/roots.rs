//! The root of a shard: where its databases and its lazy-free lists begin.
//!
//! ```text
//! shard root (one for each shard, 4 KiB)
//! +-------------------------------------+---------------------------+------------+
//! | 17 databases                        | 24 flushed databases      | lazy-free  |
//! | { keys, expires, volatile } = 3     | { keys, expires, volatile | list: its  |
//! |                   dictionaries      |  }                        | first value|
//! +-------------------------------------+---------------------------+------------+
//! ```
//!
//! `keys` refers to every entry of a database. The secondary indexes refer to some of them:
//! `expires` to the entries with an expiry, `volatile` to the hashes whose fields may expire.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::dict::{Dict, DictRoot};
use cowherd_arena::layout::{ROOT_SIZE, shard_root};
use cowherd_arena::{Offset, ShardIndex};

/// Databases; fixed, because the image depends on it.
pub const DATABASES: usize = 16;
/// The database of the code of functions, which no command selects.
pub(super) const LIBRARIES: DbIndex = DATABASES;
/// All databases, that of functions included.
pub(super) const ALL_DATABASES: usize = DATABASES + 1;
/// Flushed databases of one shard that can wait to be freed.
pub(super) const FLUSHED_SLOTS: usize = 24;
/// Bytes that a root takes.
pub(super) const SHARD_ROOT_SIZE: u64 = size_of::<ShardRoot>() as u64;

const _: () = assert!(SHARD_ROOT_SIZE <= ROOT_SIZE);

/// The number of a database, below [`ALL_DATABASES`].
pub type DbIndex = usize;

/// Which databases a command is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Databases {
    /// One database.
    One(DbIndex),
    /// All databases.
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

/// One database's part of a shard.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub(super) struct DbRoot {
    pub keys: DictRoot,
    pub expires: DictRoot,
    pub volatile: DictRoot,
}

impl DbRoot {
    pub const EMPTY: Self =
        Self { keys: DictRoot::EMPTY, expires: DictRoot::EMPTY, volatile: DictRoot::EMPTY };
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ShardRoot {
    databases: [DbRoot; ALL_DATABASES],
    flushed: [DbRoot; FLUSHED_SLOTS],
    /// The header of the first large value that is to be freed; 0 if there is none.
    lazy_free: u64,
}

/// A dictionary of a database that refers to some of its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SecondaryIndex {
    /// Keys with an expiry.
    Expires,
    /// Hashes whose fields may expire.
    Volatile,
}

impl SecondaryIndex {
    pub const ALL: [Self; 2] = [Self::Expires, Self::Volatile];

    /// The dictionary of a database in a shard.
    pub fn of(self, shard: ShardIndex, db: DbIndex) -> Dict {
        self.at(db_root(shard, db))
    }

    /// The dictionary of a database, or of a flushed one, by its root.
    pub fn at(self, root: Offset<DbRoot>) -> Dict {
        let field = match self {
            Self::Expires => std::mem::offset_of!(DbRoot, expires),
            Self::Volatile => std::mem::offset_of!(DbRoot, volatile),
        };
        Dict::at(Offset::new(root.raw() + field as u64))
    }
}

pub(super) fn db_root(shard: ShardIndex, db: DbIndex) -> Offset<DbRoot> {
    assert!(db < ALL_DATABASES, "there is no database {db}");
    Offset::new(shard_root(shard.get()) + (db * size_of::<DbRoot>()) as u64)
}

/// The dictionary of all keys of a database in a shard.
pub(super) fn keys_of(shard: ShardIndex, db: DbIndex) -> Dict {
    keys_at(db_root(shard, db))
}

/// The dictionary of all keys of a database, or of a flushed one, by its root.
pub(super) fn keys_at(root: Offset<DbRoot>) -> Dict {
    Dict::at(Offset::new(root.raw()))
}

pub(super) fn expires_of(shard: ShardIndex, db: DbIndex) -> Dict {
    SecondaryIndex::Expires.of(shard, db)
}

/// The slots of a shard's flushed databases; an unused one is [`DbRoot::EMPTY`].
pub(super) fn flushed_slots(shard: ShardIndex) -> impl Iterator<Item = Offset<DbRoot>> + Clone {
    let first = shard_root(shard.get()) + std::mem::offset_of!(ShardRoot, flushed) as u64;
    (0..FLUSHED_SLOTS as u64)
        .map(move |slot| Offset::new(first + slot * size_of::<DbRoot>() as u64))
}

/// The word that names the first header of a shard's lazy-free list; 0 if the list is empty.
pub(super) fn lazy_free_list(shard: ShardIndex) -> Offset<u64> {
    let field = std::mem::offset_of!(ShardRoot, lazy_free);
    Offset::new(shard_root(shard.get()) + field as u64)
}
