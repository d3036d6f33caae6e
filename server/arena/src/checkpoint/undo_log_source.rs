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

use super::report::ChildReport;
use super::source::ChunkSource;
use crate::barrier::Barrier;
use crate::{ChunkIndex, UndoLog};

/// The chunks in use at the fork, each as it was then.
pub(super) struct UndoLogSource<'a> {
    barrier: &'a Barrier,
    log: &'a UndoLog,
    file: &'a File,
    buffer: &'a mut MmapMut,
    total: u64,
    /// Chunks below this one are written.
    next: u32,
    hot: Hottest,
}

impl<'a> UndoLogSource<'a> {
    /// The chunks of an arena; `buffer` has room for one.
    pub(super) fn new(
        barrier: &'a Barrier,
        log: &'a UndoLog,
        file: &'a File,
        buffer: &'a mut MmapMut,
    ) -> Self {
        let total = barrier.chunks_at_fork().count() as u64;
        Self { barrier, log, file, buffer, total, next: 0, hot: Hottest::NONE }
    }

    /// One of the chunks that were changed most, of those that are still to be written.
    fn hottest(&mut self) -> Option<ChunkIndex> {
        if let Some(chunk) = self.hot.take() {
            return Some(chunk);
        }
        for chunk in self.barrier.chunks_at_fork().filter(|chunk| !self.log.is_closed(*chunk)) {
            self.hot.offer(self.barrier.write_count(chunk), chunk);
        }
        self.hot.take()
    }

    fn lowest(&mut self) -> Option<ChunkIndex> {
        let from = ChunkIndex(self.next);
        let mut rest = self.barrier.chunks_at_fork_from(from);
        let chunk = rest.find(|chunk| !self.log.is_closed(*chunk))?;
        self.next = chunk.0;
        Some(chunk)
    }
}

/// A few chunks with the most write_count of all that were offered, so that one look at all of them serves
/// several times.
struct Hottest {
    /// The coolest first.
    found: [(u32, ChunkIndex); 16],
    len: usize,
}

impl Hottest {
    const NONE: Self = Self { found: [(0, ChunkIndex(0)); 16], len: 0 };

    fn clear(&mut self) {
        self.len = 0;
    }

    fn offer(&mut self, write_count: u32, chunk: ChunkIndex) {
        let mut offered = (write_count, chunk);
        // From the hottest down: what is hotter than a place's chunk takes the place.
        for place in self.found[..self.len].iter_mut().rev() {
            if offered.0 > place.0 {
                std::mem::swap(&mut offered, place);
            }
        }
        if self.len < self.found.len() {
            self.found.copy_within(..self.len, 1);
            self.found[0] = offered;
            self.len += 1;
        }
    }

    /// The hottest of them.
    fn take(&mut self) -> Option<ChunkIndex> {
        self.len = self.len.checked_sub(1)?;
        self.found.get(self.len).map(|(_, chunk)| *chunk)
    }
}

impl ChunkSource for UndoLogSource<'_> {
    fn total(&self) -> u64 {
        self.total
    }

    fn next(&mut self) -> Option<ChunkIndex> {
        if self.log.above_half() {
            return self.hottest();
        }
        self.hot.clear();
        self.lowest()
    }

    fn copy(
        &mut self,
        chunk: ChunkIndex,
        to: &mut [u8],
        report: &ChildReport,
    ) -> Result<(), Errno> {
        copy(self.file, self.log, chunk, to, report)
    }

    fn view(&mut self, chunk: ChunkIndex, report: &ChildReport) -> Result<&[u8], Errno> {
        copy(self.file, self.log, chunk, self.buffer, report)?;
        Ok(self.buffer)
    }
}

fn copy(
    file: &File,
    log: &UndoLog,
    chunk: ChunkIndex,
    to: &mut [u8],
    report: &ChildReport,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_of_many_come_hottest_first() {
        for many in [0_u32, 1, 15, 16, 17, 100] {
            let mut hot = Hottest::NONE;
            for i in 0..many {
                hot.offer(i * 37 % 101, ChunkIndex(i));
            }
            let mut wanted: Vec<u32> = (0..many).collect();
            wanted.sort_by_key(|i| std::cmp::Reverse(i * 37 % 101));
            wanted.truncate(16);
            let taken: Vec<u32> = std::iter::from_fn(|| hot.take()).map(|chunk| chunk.0).collect();
            assert_eq!(taken, wanted, "of {many}");
        }
    }
}
