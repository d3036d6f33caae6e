//! Where everything stands in the arena: constants, offsets and the structs of its own tables.
//!
//! ```text
//! chunk 0                     chunk 1 .. 65535         chunk 65536 (the next group)
//! +--------+-------+-------+  +-------------------+   +---------------+-------+
//! | header | roots | table |  | units, runs, free |   | (unused)      | table |
//! +--------+-------+-------+  +-------------------+   +---------------+-------+
//! 0        64 KiB  1 MiB  2 MiB                                       1 MiB
//! ```
//!
//! The chunk table is cut into groups of 65,536 chunks (128 GiB); each group's part stands in the
//! group's first chunk, so the place of an entry follows from its index alone and does not depend
//! on the size of the arena. An image therefore restores into a larger arena as it is.
//!
//! A chunk that is cut into units begins with a descriptor of 64 bytes for each of its units:
//!
//! ```text
//! unit 0, 1: descriptors (the first is the chunk's own head)   unit 2 .. 255: slabs and runs
//! ```
//!
//! All integers are little-endian; all structs are free of padding.

use std::fmt;
use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in a chunk: the unit of page kind, of the image and of its checksums.
pub const CHUNK_SIZE: u64 = 2 << 20;
/// Bytes in a unit: the granularity of slabs and of runs inside a chunk.
pub const UNIT_SIZE: u64 = 8 << 10;
/// Units in a chunk, those of the descriptors included.
pub const UNITS_PER_CHUNK: u64 = CHUNK_SIZE / UNIT_SIZE;
/// Units at the front of a cut chunk that hold the descriptors.
pub const HEAD_UNITS: u64 = UNITS_PER_CHUNK * size_of::<UnitDescriptor>() as u64 / UNIT_SIZE;
/// Units in a chunk that can hold something.
pub const UNITS_IN_CHUNK: u64 = UNITS_PER_CHUNK - HEAD_UNITS;
/// Shards; fixed, because the image depends on it.
pub const SHARDS: usize = 64;
/// Chunks whose table entries share one table part.
pub const GROUP_CHUNKS: u64 = 1 << 16;
/// Offset of the shard roots in chunk 0.
pub const ROOTS_AT: u64 = 64 << 10;
/// Bytes of each shard's root, whose meaning belongs to the layers above.
pub const ROOT_SIZE: u64 = 4096;
/// Offset of the table part inside the first chunk of a group.
pub const TABLE_AT: u64 = 1 << 20;
/// First bytes of an arena.
pub const ARENA_MAGIC: u64 = u64::from_le_bytes(*b"COWARENA");
/// Changes whenever bytes in the arena get another meaning.
pub const LAYOUT_VERSION: u32 = 2;
/// The most objects in a slab.
pub const MAX_OBJECTS: u64 = 7 * u64::BITS as u64;
/// The smallest arena that can hold anything: tables and one chunk of data.
pub const MIN_CAPACITY: u64 = 4 * CHUNK_SIZE;

const _: () = assert!(HEAD_UNITS == 2);
const _: () = assert!(ROOTS_AT + ROOT_SIZE * SHARDS as u64 <= TABLE_AT);
const _: () = assert!(TABLE_AT + GROUP_CHUNKS * size_of::<ChunkEntry>() as u64 == CHUNK_SIZE);
const _: () = assert!(size_of::<UnitDescriptor>() == 64);
const _: () = assert!(size_of::<ChunkHead>() == size_of::<UnitDescriptor>());
const _: () = assert!(size_of::<ChunkEntry>() == 16);
const _: () = assert!(size_of::<Header>() == 64);
const _: () = assert!(size_of::<usize>() == size_of::<u64>());
const _: () = assert!(cfg!(target_endian = "little"), "the image is little-endian");

/// A place in the arena that holds a `T`, in bytes from the arena's start.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Offset<T>(u64, PhantomData<T>);

impl<T> Offset<T> {
    /// The place `raw` bytes from the arena's start.
    pub const fn new(raw: u64) -> Self {
        Self(raw, PhantomData)
    }

    /// Bytes from the arena's start.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl<T> Clone for Offset<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Offset<T> {}

impl<T> PartialEq for Offset<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> fmt::Debug for Offset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{:#x}", self.0)
    }
}

/// The number of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChunkIndex(pub u32);

impl ChunkIndex {
    /// The chunk that holds the byte at `offset`.
    #[expect(clippy::cast_possible_truncation, reason = "an arena is below 2^53 bytes")]
    pub const fn of(offset: u64) -> Self {
        Self((offset / CHUNK_SIZE) as u32)
    }

    /// Offset of the chunk's first byte.
    pub const fn start(self) -> u64 {
        self.0 as u64 * CHUNK_SIZE
    }

    /// Where the chunk's entry stands in the chunk table.
    pub const fn entry(self) -> Offset<ChunkEntry> {
        let group = self.0 as u64 / GROUP_CHUNKS * GROUP_CHUNKS;
        let within = self.0 as u64 % GROUP_CHUNKS;
        Offset::new(group * CHUNK_SIZE + TABLE_AT + within * size_of::<ChunkEntry>() as u64)
    }

    /// Whether the chunk holds a part of the chunk table.
    pub const fn is_table(self) -> bool {
        (self.0 as u64).is_multiple_of(GROUP_CHUNKS)
    }

    /// Where the head of the chunk stands, if it is cut into units.
    pub const fn head(self) -> Offset<ChunkHead> {
        Offset::new(self.start())
    }

    /// Where the descriptor of the chunk's unit `unit` stands, if it is cut into units.
    pub const fn descriptor(self, unit: u64) -> Offset<UnitDescriptor> {
        Offset::new(self.start() + unit * size_of::<UnitDescriptor>() as u64)
    }
}

/// A number of bytes or words as an index into memory.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "64-bit targets only")]
pub const fn index(number: u64) -> usize {
    number as usize
}

/// Where the root of shard `shard` stands.
pub const fn shard_root(shard: usize) -> u64 {
    ROOTS_AT + shard as u64 * ROOT_SIZE
}

/// The first bytes of the arena.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
pub struct Header {
    /// [`ARENA_MAGIC`].
    pub magic: u64,
    /// Hash of everything that gives the bytes their meaning; see `crate::layout_hash`.
    pub layout: u64,
    /// Capacity in chunks when the arena was last opened.
    pub chunks: u64,
    /// Seed of every hash table in the arena.
    pub hash_seed: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

/// What a chunk is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChunkState {
    /// Not in use.
    Free = 0,
    /// Holds a part of the chunk table (and in chunk 0 the header and the roots).
    Table = 1,
    /// Cut into units.
    Units = 2,
    /// First chunk of a large object.
    RunHead = 3,
    /// A further chunk of a large object.
    RunTail = 4,
}

impl ChunkState {
    /// The state with this number.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Free,
            1 => Self::Table,
            2 => Self::Units,
            3 => Self::RunHead,
            4 => Self::RunTail,
            _ => return None,
        })
    }
}

/// A chunk's entry in the chunk table.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
pub struct ChunkEntry {
    /// A [`ChunkState`].
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// `RunHead`: chunks in the run; `RunTail`: chunks back to its head; otherwise 0.
    pub run: u32,
    /// Zero.
    pub reserved_end: u64,
}

impl ChunkEntry {
    /// An entry in `state`, with `run` as that state reads it.
    pub const fn new(state: ChunkState, run: u32) -> Self {
        Self { state: state as u8, reserved: [0; 3], run, reserved_end: 0 }
    }
}

/// The head of a chunk that is cut into units; it takes the place of descriptor 0.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
pub struct ChunkHead {
    /// A set bit is a free unit.
    pub free: [u64; 4],
    /// Zero.
    pub reserved: [u64; 4],
}

/// What a unit is used for. Units inside a run have no kind of their own: the run's head covers
/// them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum UnitKind {
    /// Free, or covered by a run.
    None = 0,
    /// First unit of a slab.
    Slab = 1,
    /// A further unit of a slab.
    SlabTail = 2,
    /// First unit of a run.
    Run = 3,
}

/// What the units of a chunk hold.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
pub struct UnitDescriptor {
    /// A [`UnitKind`].
    pub kind: u8,
    /// Size class of a slab.
    pub class: u8,
    /// The shard that a slab belongs to.
    pub shard: u8,
    /// Zero.
    pub reserved: u8,
    /// Heads: units in all; slab tails: units back to the head.
    pub units: u16,
    /// Objects in use in a slab.
    pub used: u16,
    /// A set bit is an object in use.
    pub objects: [u64; 7],
}

impl UnitDescriptor {
    /// A descriptor that says nothing.
    pub const NONE: Self = Self {
        kind: UnitKind::None as u8,
        class: 0,
        shard: 0,
        reserved: 0,
        units: 0,
        used: 0,
        objects: [0; 7],
    };

    /// Whether the descriptor is of this kind.
    pub const fn is(&self, kind: UnitKind) -> bool {
        self.kind == kind as u8
    }
}
