//! `UndoLogSource`: chunks of memory that the parent goes on changing. Each chunk is copied, and
//! the copy is patched from the undo log.
//!
//! The copy is read through the arena's file, not through its mapping: the kernel reads the bytes
//! that another process may be writing, a page that was never touched reads as zeros without being
//! committed, and the child's page tables need not be filled.
//!
//! Nothing here allocates, locks, logs or panics: it runs in the child of a fork.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use memmap2::MmapMut;
use nix::errno::Errno;

use super::packing::{Form, PackedChunk, pack};
use super::report::ChildReport;
use super::source::ChunkSource;
use crate::barrier::{ChildView, Records};
use crate::layout::ChunkIndex;

/// The chunks in use at the fork, each as it was at that instant.
pub(super) struct UndoLogSource<'a> {
    view: ChildView<'a>,
    records: &'a Records,
    file: &'a File,
    buffer: &'a mut MmapMut,
    /// Chunks below this number are written.
    next: u32,
    most_written: MostWritten,
}

impl<'a> UndoLogSource<'a> {
    /// The chunks of an arena; `buffer` has room for one.
    pub(super) const fn new(
        view: ChildView<'a>,
        records: &'a Records,
        file: &'a File,
        buffer: &'a mut MmapMut,
    ) -> Self {
        Self { view, records, file, buffer, next: 0, most_written: MostWritten::NONE }
    }

    /// One of the chunks with the most captures, of those that are not written yet.
    fn next_most_written(&mut self) -> Option<ChunkIndex> {
        if let Some(chunk) = self.most_written.pop() {
            return Some(chunk);
        }
        for chunk in self.view.chunks().filter(|chunk| !self.records.is_closed(*chunk)) {
            self.most_written.offer(self.view.write_count(chunk), chunk);
        }
        self.most_written.pop()
    }

    fn next_lowest(&mut self) -> Option<ChunkIndex> {
        let mut rest = self.view.chunks_from(ChunkIndex(self.next));
        let chunk = rest.find(|chunk| !self.records.is_closed(*chunk))?;
        self.next = chunk.0;
        Some(chunk)
    }
}

/// The chunks with the highest write counts of all that were offered: one pass over the chunks
/// serves several calls.
struct MostWritten {
    /// The lowest count first.
    found: [(u32, ChunkIndex); 16],
    len: usize,
}

impl MostWritten {
    const NONE: Self = Self { found: [(0, ChunkIndex(0)); 16], len: 0 };

    fn clear(&mut self) {
        self.len = 0;
    }

    fn offer(&mut self, write_count: u32, chunk: ChunkIndex) {
        let mut offered = (write_count, chunk);
        // From the highest down: a higher count takes the place of a lower one.
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

    /// Removes the chunk with the highest count.
    fn pop(&mut self) -> Option<ChunkIndex> {
        self.len = self.len.checked_sub(1)?;
        self.found.get(self.len).map(|(_, chunk)| *chunk)
    }
}

impl ChunkSource for UndoLogSource<'_> {
    fn total(&self) -> u64 {
        self.view.chunk_count()
    }

    fn next(&mut self) -> Option<ChunkIndex> {
        if self.records.above_half() {
            return self.next_most_written();
        }
        self.most_written.clear();
        self.next_lowest()
    }

    fn copy(
        &mut self,
        chunk: ChunkIndex,
        to: &mut [u8],
        report: &ChildReport,
    ) -> Result<PackedChunk, Errno> {
        copy(self.view, self.file, self.records, chunk, to, report)
    }

    fn view(&mut self, chunk: ChunkIndex, report: &ChildReport) -> Result<(&[u8], Form), Errno> {
        let packed = copy(self.view, self.file, self.records, chunk, self.buffer, report)?;
        Ok((self.buffer.get(..packed.len).unwrap_or_default(), packed.form))
    }
}

fn copy(
    view: ChildView<'_>,
    file: &File,
    records: &Records,
    chunk: ChunkIndex,
    to: &mut [u8],
    report: &ChildReport,
) -> Result<PackedChunk, Errno> {
    let begun = Instant::now();
    read(file, to, chunk.start())?;
    let begun = report.read.lap(begun);
    report.patched.add(records.restore(chunk, to));
    let begun = report.patch.lap(begun);
    // The descriptors of the patched copy say what was in use at the fork.
    let packed = pack(None, to, view.is_cut(chunk));
    report.read.lap(begun);
    Ok(packed)
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
    fn chunks_come_by_descending_write_count() {
        for many in [0_u32, 1, 15, 16, 17, 100] {
            let mut most = MostWritten::NONE;
            for i in 0..many {
                most.offer(i * 37 % 101, ChunkIndex(i));
            }
            let mut wanted: Vec<u32> = (0..many).collect();
            wanted.sort_by_key(|i| std::cmp::Reverse(i * 37 % 101));
            wanted.truncate(16);
            let taken: Vec<u32> = std::iter::from_fn(|| most.pop()).map(|chunk| chunk.0).collect();
            assert_eq!(taken, wanted, "of {many}");
        }
    }
}
