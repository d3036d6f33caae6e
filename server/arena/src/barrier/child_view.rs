//! `ChildView`: what the child of a fork may use of the arena and its barrier.
//!
//! The child lacks every table that is kept out of it (`SideTable`), and must not take a lock or a
//! slot of the undo log. This type names only what the child has: its own copy of the set of
//! chunks, the memory that it shares with its parent, and the arena's mapping.

use std::fs::File;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::records::Records;
use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex};
use crate::memory::mapping::Mapping;
use crate::memory::pages::PageKind;

/// The child's side of a recording. None of its functions allocates, locks or panics.
#[derive(Clone, Copy)]
pub(crate) struct ChildView<'a> {
    map: &'a Mapping,
    at_fork: &'a [AtomicU64],
    cut_at_fork: &'a [AtomicU64],
    write_counts: &'a [AtomicU32],
    records: Option<&'a Records>,
}

impl<'a> ChildView<'a> {
    pub(super) const fn new(
        map: &'a Mapping,
        [at_fork, cut_at_fork]: [&'a [AtomicU64]; 2],
        write_counts: &'a [AtomicU32],
        records: Option<&'a Records>,
    ) -> Self {
        Self { map, at_fork, cut_at_fork, write_counts, records }
    }

    /// The chunks in use at the fork, lowest first.
    pub(crate) fn chunks(self) -> impl Iterator<Item = ChunkIndex> + use<'a> {
        bits::ones(self.at_fork)
    }

    /// The chunks in use at the fork, lowest first, from one on.
    pub(crate) fn chunks_from(
        self,
        first: ChunkIndex,
    ) -> impl Iterator<Item = ChunkIndex> + use<'a> {
        bits::ones_from(self.at_fork, first)
    }

    /// Number of the chunks in use at the fork.
    pub(crate) fn chunk_count(self) -> u64 {
        self.chunks().count() as u64
    }

    /// Whether a chunk was cut into units at the fork. The chunk table, which the parent changes,
    /// does not tell.
    pub(crate) fn is_cut(self, chunk: ChunkIndex) -> bool {
        bits::get(self.cut_at_fork, u64::from(chunk.0))
    }

    /// Blocks captured in a chunk since the fork.
    pub(crate) fn write_count(self, chunk: ChunkIndex) -> u32 {
        self.write_counts.get(chunk.0 as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The records of the undo log and the arena's file, with that isolation.
    pub(crate) fn shared_memory(self) -> Option<(&'a Records, &'a File)> {
        self.records.zip(self.map.file())
    }

    /// The arena's page kind.
    pub(crate) const fn page_kind(self) -> PageKind {
        self.map.kind()
    }

    /// Address of a chunk's first byte.
    pub(crate) fn chunk_address(self, chunk: ChunkIndex) -> *const u8 {
        self.map.address(chunk.start(), CHUNK_SIZE).as_ptr()
    }
}
