//! Chunks in memory that stands still.
//!
//! Invariant that unsafe code leans on: the memory behind a [`QuiescentSource`] is a child's own copy of a
//! private mapping, or every shard is locked for as long as it is used.

#![expect(unsafe_code, reason = "reads the arena without its locks; invariant above")]

use std::time::Instant;

use nix::errno::Errno;

use super::report::ChildReport;
use super::source::ChunkSource;
use super::writer::fill;
use crate::layout::index;
use crate::{Arena, CHUNK_SIZE, ChunkIndex};

/// The chunks in use at the last fork, lowest first.
pub(super) struct QuiescentSource<'a, I> {
    arena: &'a Arena,
    chunks: I,
    total: u64,
}

/// The chunks of an arena.
///
/// # Safety
/// The memory stands still (see the invariant).
pub(super) unsafe fn still(
    arena: &Arena,
) -> QuiescentSource<'_, impl Iterator<Item = ChunkIndex> + use<'_>> {
    let chunks = arena.barrier().chunks_at_fork();
    let total = arena.barrier().chunks_at_fork().count() as u64;
    QuiescentSource { arena, chunks, total }
}

impl<I: Iterator<Item = ChunkIndex>> ChunkSource for QuiescentSource<'_, I> {
    fn total(&self) -> u64 {
        self.total
    }

    fn next(&mut self) -> Option<ChunkIndex> {
        self.chunks.next()
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
        let address = self.arena.chunk_address(chunk);
        // SAFETY: a chunk of the arena, whose bytes stand still.
        Ok(unsafe { std::slice::from_raw_parts(address, index(CHUNK_SIZE)) })
    }
}
