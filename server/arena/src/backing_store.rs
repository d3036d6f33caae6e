//! `BackingStore`: the arena's mapping behind its write barrier, and which of its chunks have
//! memory.
//!
//! Everything above (chunk pool, objects, containers) reads and writes arena bytes through it.
//!
//! Invariants that unsafe code cites:
//! 1. Every access is checked against the capacity before a pointer is made.
//! 2. Every change calls [`Barrier::before_write`] first.
//! 3. A chunk is in `present` while its memory may be touched. Touching a missing page of hugetlb
//!    or shared memory commits one, or raises SIGBUS when there is none.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::barrier::Barrier;
use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex, Offset, index};
use crate::memory::mapping::Mapping;
use crate::memory::pages::{Backing, PagesError};

/// The mapping, its barrier, and the sets of chunks with memory, in use, and cut into units.
pub(crate) struct BackingStore {
    pub(crate) map: Mapping,
    pub(crate) barrier: Barrier,
    /// Chunks whose memory is there.
    pub(crate) present: Box<[AtomicU64]>,
    /// Chunks in use: a copy of the pool's set that is read without the pool's lock.
    pub(crate) in_use: Box<[AtomicU64]>,
    /// Those of them that are cut into units.
    pub(crate) cut: Box<[AtomicU64]>,
}

impl BackingStore {
    /// Reserves `capacity` bytes, a multiple of the chunk size.
    ///
    /// # Errors
    /// The machine cannot give such pages, or there is no memory for the barrier's tables.
    pub(crate) fn reserve(
        backing: Backing,
        capacity: u64,
    ) -> Result<Result<Self, io::Error>, PagesError> {
        let map = Mapping::reserve(backing, capacity)?;
        let chunks = capacity / CHUNK_SIZE;
        Ok(Barrier::new(backing, capacity).map(|barrier| Self {
            map,
            barrier,
            present: bits::bits(chunks),
            in_use: bits::bits(chunks),
            cut: bits::bits(chunks),
        }))
    }

    /// Bytes in all.
    #[inline]
    pub(crate) const fn capacity(&self) -> u64 {
        self.map.len()
    }

    /// Address of `len` bytes at `at`.
    #[inline]
    pub(crate) fn address(&self, at: u64, len: u64) -> NonNull<u8> {
        self.map.address(at, len)
    }

    /// Announces a change of `len` bytes at `at` to the barrier.
    #[inline]
    pub(crate) fn before_write(&self, at: u64, len: u64) {
        self.barrier.before_write(&self.map, at, len);
    }

    /// Reads a `T`.
    ///
    /// # Safety
    /// The caller holds the lock that guards these bytes.
    #[inline]
    pub(crate) unsafe fn load<T: FromBytes>(&self, at: Offset<T>) -> T {
        let address = self.address(at.raw(), size_of::<T>() as u64).cast::<T>();
        // SAFETY: the address is valid (invariant 1), any bytes are a `T`, and the caller's lock
        // excludes writers.
        unsafe { address.read_unaligned() }
    }

    /// Writes a `T` through the barrier.
    ///
    /// # Safety
    /// The caller holds the lock that guards these bytes.
    #[inline]
    pub(crate) unsafe fn store<T: IntoBytes + Immutable>(&self, at: Offset<T>, value: T) {
        let address = self.address(at.raw(), size_of::<T>() as u64).cast::<T>();
        self.before_write(at.raw(), size_of::<T>() as u64);
        // SAFETY: the address is valid (invariant 1) and the caller's lock excludes every other
        // access.
        unsafe { address.write_unaligned(value) };
    }

    /// Whether a chunk's memory may be touched (invariant 3).
    #[inline]
    pub(crate) fn is_present(&self, chunk: ChunkIndex) -> bool {
        let word = &self.present[chunk.0 as usize / 64];
        // The chunk's memory was committed before the bit was set.
        word.load(Ordering::Acquire) >> (chunk.0 % 64) & 1 == 1
    }

    /// Adds a chunk to the set of chunks in use.
    pub(crate) fn set_in_use(&self, chunk: ChunkIndex) {
        bits::set(&self.in_use, u64::from(chunk.0));
    }

    /// The word at `at` without any lock: a hint. `None` outside the capacity, for an unaligned
    /// offset, and for memory that is not present.
    ///
    /// # Safety
    /// The caller is in a read section of [`ReaderEpochs`](crate::reader_epochs::ReaderEpochs), so
    /// that a chunk found present keeps its memory until the section ends.
    #[inline]
    pub(crate) unsafe fn load_racy(&self, at: u64) -> Option<u64> {
        if !at.is_multiple_of(8) || at >= self.capacity() {
            return None;
        }
        if self.map.reading_takes_memory() && !self.is_present(ChunkIndex::of(at)) {
            return None;
        }
        // SAFETY: an aligned word inside the mapping, as just checked.
        let address = unsafe { self.map.base().add(index(at)) }.cast::<u64>();
        // SAFETY: valid and aligned, and present until the read section ends. A writer may change
        // the word at the same time, and its stores are not atomic: this is a data race by the
        // letter of the memory model. The load is volatile, so that the compiler reads the word
        // exactly once and assumes nothing about it; the value may be torn, and no unsafe code
        // depends on it.
        Some(unsafe { address.read_volatile() })
    }
}
