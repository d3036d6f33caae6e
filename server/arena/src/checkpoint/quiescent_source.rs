//! `QuiescentSource`: chunks of memory that does not change, and that is not changed here either.
//!
//! Invariant that unsafe code cites: the memory behind a [`QuiescentSource`] is the child's own
//! copy of a private mapping, or every shard is locked while the source is used.

#![expect(unsafe_code, reason = "reads the arena without its locks; invariant above")]

use std::time::Instant;

use memmap2::MmapMut;
use nix::errno::Errno;

use super::packing::{Form, PackedChunk, is_stored_as_it_is, pack};
use super::report::ChildReport;
use super::source::ChunkSource;
use crate::barrier::ChildView;
use crate::layout::{CHUNK_SIZE, ChunkIndex, index};

/// The chunks in use at the fork, lowest first.
pub(super) struct QuiescentSource<'a> {
    view: ChildView<'a>,
    /// Room for a chunk that is packed before it is compressed.
    buffer: &'a mut MmapMut,
    /// Chunks below this number are written.
    next: u32,
}

impl<'a> QuiescentSource<'a> {
    /// The chunks of an arena.
    ///
    /// # Safety
    /// The memory does not change (see the invariant).
    pub(super) const unsafe fn new(view: ChildView<'a>, buffer: &'a mut MmapMut) -> Self {
        Self { view, buffer, next: 0 }
    }
}

/// The bytes of a chunk.
///
/// # Safety
/// As for [`QuiescentSource::new`].
unsafe fn bytes(view: ChildView<'_>, chunk: ChunkIndex) -> &[u8] {
    let address = view.chunk_address(chunk);
    // SAFETY: a chunk of the arena, whose bytes do not change (the caller's promise).
    unsafe { std::slice::from_raw_parts(address, index(CHUNK_SIZE)) }
}

impl ChunkSource for QuiescentSource<'_> {
    fn total(&self) -> u64 {
        self.view.chunk_count()
    }

    fn next(&mut self) -> Option<ChunkIndex> {
        let chunk = self.view.chunks_from(ChunkIndex(self.next)).next()?;
        self.next = chunk.0 + 1;
        Some(chunk)
    }

    fn copy(
        &mut self,
        chunk: ChunkIndex,
        to: &mut [u8],
        report: &ChildReport,
    ) -> Result<PackedChunk, Errno> {
        let begun = Instant::now();
        // SAFETY: the memory does not change (invariant).
        let from = unsafe { bytes(self.view, chunk) };
        let packed = pack(Some(from), to, self.view.is_cut(chunk));
        report.read.lap(begun);
        Ok(packed)
    }

    fn view(&mut self, chunk: ChunkIndex, report: &ChildReport) -> Result<(&[u8], Form), Errno> {
        // SAFETY: the memory does not change (invariant).
        let from = unsafe { bytes(self.view, chunk) };
        let is_cut = self.view.is_cut(chunk);
        if !is_cut && is_stored_as_it_is(from) {
            return Ok((from, Form::Whole));
        }
        let begun = Instant::now();
        let packed = pack(Some(from), self.buffer, is_cut);
        report.read.lap(begun);
        Ok((self.buffer.get(..packed.len).unwrap_or_default(), packed.form))
    }
}
