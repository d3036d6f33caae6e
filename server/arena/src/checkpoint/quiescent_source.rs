//! `QuiescentSource`: chunks of memory that does not change.
//!
//! Invariant that unsafe code cites: the memory behind a [`QuiescentSource`] is the child's own
//! copy of a private mapping, or every shard is locked while the source is used.

#![expect(unsafe_code, reason = "reads the arena without its locks; invariant above")]

use std::time::Instant;

use nix::errno::Errno;

use super::report::ChildReport;
use super::source::ChunkSource;
use super::writer::fill;
use crate::barrier::ChildView;
use crate::layout::{CHUNK_SIZE, ChunkIndex, index};

/// The chunks in use at the fork, lowest first.
pub(super) struct QuiescentSource<'a> {
    view: ChildView<'a>,
    /// Chunks below this number are written.
    next: u32,
}

impl<'a> QuiescentSource<'a> {
    /// The chunks of an arena.
    ///
    /// # Safety
    /// The memory does not change (see the invariant).
    pub(super) const unsafe fn new(view: ChildView<'a>) -> Self {
        Self { view, next: 0 }
    }
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
    ) -> Result<(), Errno> {
        let begun = Instant::now();
        fill(to, self.view(chunk, report)?);
        report.read.lap(begun);
        Ok(())
    }

    fn view(&mut self, chunk: ChunkIndex, _report: &ChildReport) -> Result<&[u8], Errno> {
        let address = self.view.chunk_address(chunk);
        // SAFETY: a chunk of the arena, whose bytes do not change.
        Ok(unsafe { std::slice::from_raw_parts(address, index(CHUNK_SIZE)) })
    }
}
