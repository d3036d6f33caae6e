//! Chunks of memory that the parent goes on changing: each is copied, and then put right from the
//! undo log.
//!
//! The copy is read through the arena's file, not through its mapping. The kernel then does the
//! reading of bytes that another process may be writing; a page that was never touched reads as
//! zeros without being committed; and the child's page tables need not be filled.
//!
//! Nothing here allocates, locks, logs or panics: it runs in the child of a fork.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use memmap2::MmapMut;
use nix::errno::Errno;

use super::report::Report;
use super::source::ChunkSource;
use crate::arena::barrier::Barrier;
use crate::arena::{ChunkIndex, UndoLog};

/// The chunks in use at the fork, each as it was then.
pub(super) struct Patched<'a> {
    barrier: &'a Barrier,
    log: &'a UndoLog,
    file: &'a File,
    buffer: &'a mut MmapMut,
    total: u64,
    /// Chunks below this one are written.
    next: u32,
}

impl<'a> Patched<'a> {
    /// The chunks of an arena; `buffer` has room for one.
    pub(super) fn new(
        barrier: &'a Barrier,
        log: &'a UndoLog,
        file: &'a File,
        buffer: &'a mut MmapMut,
    ) -> Self {
        let total = barrier.chunks_at_fork().count() as u64;
        Self { barrier, log, file, buffer, total, next: 0 }
    }

    /// The chunk that was changed most, of those that are still to be written.
    fn hottest(&self) -> Option<ChunkIndex> {
        let open = self.barrier.chunks_at_fork().filter(|chunk| !self.log.is_closed(*chunk));
        open.max_by_key(|chunk| self.barrier.heat(*chunk))
    }

    fn lowest(&mut self) -> Option<ChunkIndex> {
        let from = ChunkIndex(self.next);
        let mut rest = self.barrier.chunks_at_fork_from(from);
        let chunk = rest.find(|chunk| !self.log.is_closed(*chunk))?;
        self.next = chunk.0;
        Some(chunk)
    }
}

impl ChunkSource for Patched<'_> {
    fn total(&self) -> u64 {
        self.total
    }

    fn next(&mut self) -> Option<ChunkIndex> {
        if self.log.runs_short() { self.hottest() } else { self.lowest() }
    }

    fn copy(&mut self, chunk: ChunkIndex, to: &mut [u8], report: &Report) -> Result<(), Errno> {
        copy(self.file, self.log, chunk, to, report)
    }

    fn view(&mut self, chunk: ChunkIndex, report: &Report) -> Result<&[u8], Errno> {
        copy(self.file, self.log, chunk, self.buffer, report)?;
        Ok(self.buffer)
    }
}

fn copy(
    file: &File,
    log: &UndoLog,
    chunk: ChunkIndex,
    to: &mut [u8],
    report: &Report,
) -> Result<(), Errno> {
    let begun = Instant::now();
    read(file, to, chunk.start())?;
    let begun = report.read.lap(begun);
    report.patched.add(log.restore(chunk, to));
    report.patch.lap(begun);
    Ok(())
}

fn read(file: &File, to: &mut [u8], at: u64) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(done as u64)) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => done += count,
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
    Ok(())
}
