//! Formatting an empty arena, loading chunks into one, and opening what was loaded.
//!
//! A [`ReservedArena`] has memory without content. [`ReservedArena::format`] makes it an empty
//! [`Arena`]. Or chunks are loaded into it, and [`ReservedArena::open`] opens them: it audits the
//! tables before it builds any index from them.

#![expect(unsafe_code, reason = "raw memory; see the invariants above")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use zerocopy::FromZeros as _;

use super::Arena;
use super::audit::{self, Corruption};
use super::evacuation::Evacuation;
use super::held::OutOfOrder;
use super::owners::UnitOwners;
use super::shard_locks::ShardLocks;
use crate::allocator::chunk_pool::{ChunkPool, OutOfMemory};
use crate::allocator::object_words::ObjectWords;
use crate::allocator::size_classes::{CLASSES, SizeClass};
use crate::allocator::slab_lists::{SlabLists, unit_number};
use crate::backing_store::BackingStore;
use crate::bits;
use crate::layout::{
    ARENA_MAGIC, CHUNK_SIZE, ChunkEntry, ChunkIndex, ChunkState, GROUP_CHUNKS, HEAD_UNITS, Header,
    LAYOUT_VERSION, MIN_CAPACITY, Offset, ROOT_SIZE, SHARDS, UNIT_SIZE, UNITS_PER_CHUNK, UnitKind,
    index,
};
use crate::memory::pages::Backing;
use crate::memory::pages::{PageKind, PagesError};
use crate::reader_epochs::ReaderEpochs;
use crate::shard::ShardIndex;

/// The largest arena: the allocator numbers units with 32 bits.
const MAX_CAPACITY: u64 = UNIT_SIZE << u32::BITS;

const _: () = assert!(MAX_CAPACITY.is_multiple_of(PageKind::Huge1Gb.granularity()));

/// This many chunks in a row without a huge page end the attempts during a restore: each of them
/// may take long.
const MAX_REFUSALS: u64 = 8;

/// Why an arena cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No memory of that kind.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// No address space for a side table.
    #[error(
        "cannot reserve memory beside the arena: {0}. Lower maxmemory or checkpoint-undo-limit, \
         or, if vm.overcommit_memory is 2, raise vm.overcommit_ratio"
    )]
    SideTable(io::Error),
    /// What was loaded breaks an invariant.
    #[error(transparent)]
    Corruption(#[from] Corruption),
    /// More than the allocator can number.
    #[error(
        "an arena of {} MiB: the largest has {} MiB. Lower maxmemory; an image that asks for so \
         much is damaged",
        capacity >> 20, MAX_CAPACITY >> 20
    )]
    TooLarge {
        /// Bytes asked for.
        capacity: u64,
    },
    /// A chunk does not fit.
    #[error(
        "chunk {} is beyond the arena's {} MiB: it needs maxmemory of at least {} MiB",
        chunk.0, capacity >> 20, (chunk.start() + CHUNK_SIZE) >> 20
    )]
    TooSmall {
        /// The chunk.
        chunk: ChunkIndex,
        /// The arena's bytes.
        capacity: u64,
    },
    /// A chunk was to be loaded twice.
    #[error("chunk {} is there twice", chunk.0)]
    Twice {
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// The kernel has no page for a chunk.
    #[error("no memory for chunk {}: {source}", chunk.0)]
    NoMemory {
        /// The chunk.
        chunk: ChunkIndex,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Hash of everything that gives the arena's bytes their meaning below the shard roots. `upper` is
/// the same of the layers above.
pub fn layout_hash(upper: &[u64]) -> u64 {
    let mut facts = vec![
        u64::from(LAYOUT_VERSION),
        CHUNK_SIZE,
        UNIT_SIZE,
        SHARDS as u64,
        GROUP_CHUNKS,
        ROOT_SIZE,
    ];
    for index in 0..CLASSES {
        facts.extend(SizeClass::from_index(index).map(|c| c.size() << 8 | c.units()));
    }
    facts.extend_from_slice(upper);
    let bytes: Vec<u8> = facts.iter().flat_map(|fact| fact.to_le_bytes()).collect();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// An arena that has memory but no meaning yet.
pub struct ReservedArena {
    arena: Arena,
    loaded: Box<[AtomicU64]>,
    /// Chunks that got a huge page before they were loaded.
    huge: Box<[AtomicU64]>,
    /// Chunks that were to get one and did not.
    refused: AtomicU64,
    /// Such chunks since the last that got one.
    refused_in_a_row: AtomicU64,
}

impl ReservedArena {
    /// Reserves `capacity` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// They are more than 32 TiB, or the machine cannot give them; the error carries the remedy.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    pub fn reserve(backing: impl Into<Backing>, capacity: u64) -> Result<Self, OpenError> {
        let backing = backing.into();
        if capacity > MAX_CAPACITY {
            return Err(OpenError::TooLarge { capacity });
        }
        let capacity = capacity.max(MIN_CAPACITY).next_multiple_of(backing.kind.granularity());
        let chunks = capacity / CHUNK_SIZE;
        let arena = Arena {
            store: BackingStore::reserve(backing, capacity)?.map_err(OpenError::SideTable)?,
            locks: ShardLocks::new(),
            out_of_order: OutOfOrder::new(),
            pool: Mutex::new(ChunkPool::new(chunks as u32).map_err(OpenError::SideTable)?),
            slabs: SlabLists::new(capacity).map_err(OpenError::SideTable)?,
            words: Arc::new(ObjectWords::new(capacity).map_err(OpenError::SideTable)?),
            evacuation: Evacuation::new(capacity).map_err(OpenError::SideTable)?,
            owners: UnitOwners::new(capacity).map_err(OpenError::SideTable)?,
            epochs: ReaderEpochs::default(),
            trimming: Mutex::new(()),
            stock_is_low: Condvar::new(),
            hash_seed: 0,
        };
        let set = || {
            AtomicU64::new_vec_zeroed(index(chunks.div_ceil(64)))
                .map(Vec::into_boxed_slice)
                .map_err(|_| OpenError::SideTable(io::ErrorKind::OutOfMemory.into()))
        };
        let (refused, refused_in_a_row) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { arena, loaded: set()?, huge: set()?, refused, refused_in_a_row })
    }

    /// Bytes in all.
    pub const fn capacity(&self) -> u64 {
        self.arena.capacity()
    }

    /// The bytes of a chunk, to be filled; each chunk can be asked for once, from any thread. It
    /// gets a huge page if the arena has transparent ones.
    ///
    /// # Errors
    /// The chunk is outside, was asked for before, or the kernel has no page for it.
    pub fn chunk(&self, chunk: ChunkIndex) -> Result<&mut [u8], OpenError> {
        self.claim(chunk)?;
        if self.arena.keeps_stock() {
            self.prepare(chunk);
        }
        self.commit(chunk)
    }

    /// Notes that a chunk is given out.
    fn claim(&self, chunk: ChunkIndex) -> Result<(), OpenError> {
        let capacity = self.capacity();
        if chunk.start() + CHUNK_SIZE > capacity {
            return Err(OpenError::TooSmall { chunk, capacity });
        }
        let mask = 1 << (chunk.0 % 64);
        let before = self.loaded[chunk.0 as usize / 64].fetch_or(mask, Ordering::Relaxed);
        if before & mask != 0 {
            return Err(OpenError::Twice { chunk });
        }
        Ok(())
    }

    /// Gives a chunk that was claimed a huge page, unless the kernel has refused several in a row.
    fn prepare(&self, chunk: ChunkIndex) {
        let tries = self.refused_in_a_row.load(Ordering::Relaxed) < MAX_REFUSALS;
        if tries && self.arena.store.map.prepare(chunk.start(), 1).is_ok() {
            self.refused_in_a_row.store(0, Ordering::Relaxed);
            bits::set(&self.huge, u64::from(chunk.0));
        } else {
            self.refused_in_a_row.fetch_add(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The bytes of a chunk that the caller has claimed.
    #[expect(clippy::mut_from_ref, reason = "each chunk is claimed once")]
    fn commit(&self, chunk: ChunkIndex) -> Result<&mut [u8], OpenError> {
        self.arena
            .store
            .map
            .populate(chunk.start(), CHUNK_SIZE)
            .map_err(|source| OpenError::NoMemory { chunk, source })?;
        let address = self.arena.store.address(chunk.start(), CHUNK_SIZE);
        let len = index(CHUNK_SIZE);
        // SAFETY: inside the mapping; no other thread has this chunk: it is given out once and
        // the arena is not open yet.
        Ok(unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), len) })
    }

    /// Makes it an empty arena.
    ///
    /// # Errors
    /// The kernel has no page for the tables.
    pub fn format(mut self, layout: u64, hash_seed: u64) -> Result<Arena, OpenError> {
        let chunks = self.capacity() / CHUNK_SIZE;
        self.claim(ChunkIndex(0))?;
        self.commit(ChunkIndex(0))?;
        let header = Header { magic: ARENA_MAGIC, layout, chunks, hash_seed, reserved: [0; 4] };
        self.set_header(header);
        self.set_tables()?;
        self.arena.hash_seed = hash_seed;
        self.into_indexed()
    }

    /// Opens what was loaded, after checking the arena's own tables. The layers above check
    /// theirs with an [`Audit`](crate::Audit).
    ///
    /// # Errors
    /// A table breaks an invariant, or has another layout.
    pub fn open(mut self, layout: u64) -> Result<Arena, OpenError> {
        let header = self.header();
        audit::header(&header, layout)?;
        self.set_tables()?;
        audit::tables(&self.arena)?;
        for chunk in self.indexes() {
            let used = self.entry(chunk).state != ChunkState::Free as u8;
            if used != self.is_loaded(chunk) {
                let is = if used { "in use but was not loaded" } else { "free but was loaded" };
                return Err(
                    Corruption::new(chunk, format!("the chunk table says it is {is}")).into()
                );
            }
        }
        self.arena.hash_seed = header.hash_seed;
        self.set_header(Header { chunks: self.capacity() / CHUNK_SIZE, ..header });
        self.into_indexed()
    }

    /// Gives the first chunk of each group its part of the chunk table.
    fn set_tables(&mut self) -> Result<(), OpenError> {
        for chunk in self.indexes().filter(|chunk| chunk.is_table()) {
            if !self.is_loaded(chunk) {
                self.claim(chunk)?;
                self.commit(chunk)?;
            }
            let entry = self.entry(chunk);
            if entry.state == ChunkState::Free as u8 {
                let entry = ChunkEntry::new(ChunkState::Table, 0);
                // SAFETY: the arena is not open yet: no other reference to it exists.
                unsafe { self.arena.store.store(chunk.entry(), entry) };
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn indexes(&self) -> impl Iterator<Item = ChunkIndex> + use<> {
        (0..(self.capacity() / CHUNK_SIZE) as u32).map(ChunkIndex)
    }

    fn is_loaded(&self, chunk: ChunkIndex) -> bool {
        self.loaded[chunk.0 as usize / 64].load(Ordering::Relaxed) >> (chunk.0 % 64) & 1 == 1
    }

    fn entry(&self, chunk: ChunkIndex) -> ChunkEntry {
        // SAFETY: the arena is not open yet: no other reference to it exists.
        unsafe { self.arena.store.load(chunk.entry()) }
    }

    fn header(&self) -> Header {
        // SAFETY: the arena is not open yet: no other reference to it exists.
        unsafe { self.arena.store.load(Offset::new(0)) }
    }

    fn set_header(&self, header: Header) {
        // SAFETY: the arena is not open yet: no other reference to it exists.
        unsafe { self.arena.store.store(Offset::new(0), header) };
    }

    /// Builds the indexes from tables that are known to be sound.
    ///
    /// # Errors
    /// The kernel has no memory for the words of the objects.
    fn into_indexed(self) -> Result<Arena, OpenError> {
        let mut pool = self.arena.pool.lock();
        let (huge, small) = (bits::ones(&self.huge), self.refused.load(Ordering::Relaxed));
        pool.count_loaded(huge.count() as u64 + small, small);
        for chunk in self.indexes() {
            let state = self.entry(chunk).state;
            if state != ChunkState::Free as u8 {
                pool.adopt(chunk);
                bits::set(&self.arena.store.present, u64::from(chunk.0));
                self.arena.store.set_in_use(chunk);
                pool.note_pages(chunk, bits::get(&self.huge, u64::from(chunk.0)));
            }
            if state == ChunkState::Units as u8 {
                bits::set(&self.arena.store.cut, u64::from(chunk.0));
                // SAFETY: the arena is not open yet: no other reference to it exists.
                let head = unsafe { self.arena.store.load(chunk.head()) };
                pool.adopt_units(chunk, &head.free);
                self.arena.owners.set_descriptors(chunk);
                self.index_units(chunk).map_err(no_words)?;
            } else if state == ChunkState::RunHead as u8 {
                let run = u64::from(self.entry(chunk).run);
                self.arena.slabs.count(OWNERLESS, run * CHUNK_SIZE);
                self.arena.words.add_run(chunk.start()).map_err(no_words)?;
                self.arena.owners.set_unknown(chunk.start(), run * CHUNK_SIZE);
            }
        }
        drop(pool);
        Ok(self.arena)
    }

    fn index_units(&self, chunk: ChunkIndex) -> Result<(), OutOfMemory> {
        let mut unit = HEAD_UNITS;
        while unit < UNITS_PER_CHUNK {
            // SAFETY: the arena is not open yet: no other reference to it exists.
            let descriptor = unsafe { self.arena.store.load(chunk.descriptor(unit)) };
            let at = unit;
            // A free unit says nothing of its length.
            unit += u64::from(descriptor.units).max(1);
            if descriptor.is(UnitKind::Run) {
                let bytes = u64::from(descriptor.units) * UNIT_SIZE;
                self.arena.slabs.count(OWNERLESS, bytes);
                self.arena.words.add_run(chunk.start() + at * UNIT_SIZE)?;
                self.arena.owners.set_unknown(chunk.start() + at * UNIT_SIZE, bytes);
            }
            let class = SizeClass::from_index(usize::from(descriptor.class));
            let shard = ShardIndex::new(usize::from(descriptor.shard));
            let (true, Some(class), Some(shard)) = (descriptor.is(UnitKind::Slab), class, shard)
            else {
                continue;
            };
            let start = chunk.start() + at * UNIT_SIZE;
            self.arena.owners.set(start, class.units() * UNIT_SIZE, shard);
            let used = u64::from(descriptor.used);
            self.arena.slabs.count(shard, used * class.size());
            self.arena.slabs.slab_added(shard, class);
            self.arena.words.add_slab(start, class, shard)?;
            if used < class.objects() {
                self.arena.slabs.link(shard, class, unit_number(chunk, at));
            }
        }
        Ok(())
    }
}

fn no_words(_: OutOfMemory) -> OpenError {
    OpenError::SideTable(io::ErrorKind::OutOfMemory.into())
}

/// Large objects carry no shard: after opening, shard 0 counts their bytes, so its count may exceed
/// its own bytes and another shard's may fall below zero. Only the sum has a meaning.
const OWNERLESS: ShardIndex = ShardIndex::of_hash(0);
