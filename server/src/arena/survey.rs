//! Looking at the arena's pages from outside the hot path: what a child shares, how much lies on
//! huge pages; and making split huge pages whole again.
//!
//! Invariants:
//! 1. Nothing here runs while anybody forks: the saver's thread does both.
//! 2. A chunk is made whole only while the trimmer stands aside (`Arena::trimming`), so that no
//!    memory is brought back that was just handed back.

use std::io;

use super::Arena;
use super::barrier::{get, ones};
use super::layout::{CHUNK_SIZE, ChunkIndex};
use super::pagemap::Pagemap;
use super::pages::{self, PageKind};

/// A set of chunks.
#[derive(Debug, Default)]
pub struct ChunkSet(Vec<u64>);

impl ChunkSet {
    fn of(arena: &Arena) -> Self {
        Self(vec![0; arena.in_use.len()])
    }

    fn add(&mut self, chunk: ChunkIndex) {
        self.0[chunk.0 as usize / 64] |= 1 << (chunk.0 % 64);
    }

    /// Whether a chunk is in it.
    pub fn has(&self, chunk: ChunkIndex) -> bool {
        self.0.get(chunk.0 as usize / 64).is_some_and(|word| word >> (chunk.0 % 64) & 1 == 1)
    }

    /// How many chunks are in it.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn chunks(&self) -> impl Iterator<Item = ChunkIndex> {
        let words = self.0.len() as u64 * 64;
        (0..words).map(|chunk| ChunkIndex::of(chunk * CHUNK_SIZE)).filter(|chunk| self.has(*chunk))
    }
}

impl Arena {
    /// Looks at the page tables of a child that was just forked: tells the barrier which pages
    /// held something at the fork, and returns the chunks that lay on huge pages. Stops when
    /// `goes_on` says so: a child that ends has given its pages back. `None`: the kernel does not
    /// tell, and the barrier goes on asking page by page.
    pub fn survey(&self, child: i32, mut goes_on: impl FnMut() -> bool) -> Option<ChunkSet> {
        let mut huge = ChunkSet::of(self);
        if self.page_kind().is_hugetlb() {
            self.barrier.shared_chunks().for_each(|chunk| huge.add(chunk));
            return Some(huge);
        }
        let pagemap = Pagemap::of(child).ok()?;
        let base = self.map.base().as_ptr() as u64;
        let mut complete = true;
        for (first, end) in runs(self.barrier.shared_chunks()) {
            let mut next = first;
            let walked = pagemap.residents(
                base + first.start(),
                base + end.start(),
                |pages| {
                    let (from, to) = (pages.start - base, pages.end - base);
                    self.barrier.note_resident(from, to);
                    if pages.huge {
                        chunks_within(from, to).for_each(|chunk| huge.add(chunk));
                    }
                },
                |up_to| {
                    complete = goes_on();
                    let up_to = ChunkIndex::of(up_to - base);
                    while complete && next.0 < up_to.0 {
                        self.barrier.note_surveyed(next);
                        next.0 += 1;
                    }
                    complete
                },
            );
            walked.ok()?;
            if !complete {
                return None;
            }
        }
        Some(huge)
    }

    /// The chunks in use that lie on huge pages. Walks the page tables of transparent huge pages,
    /// in short steps; of the others it is known. `None`: the kernel does not tell.
    pub fn huge_chunks(&self) -> Option<ChunkSet> {
        let mut huge = ChunkSet::of(self);
        match self.page_kind() {
            PageKind::Small => return Some(huge),
            PageKind::Huge2Mb | PageKind::Huge1Gb => {
                ones(&self.present).for_each(|chunk| huge.add(chunk));
                return Some(huge);
            }
            PageKind::Thp => {}
        }
        let pagemap = Pagemap::own().ok()?;
        let base = self.map.base().as_ptr() as u64;
        for (first, end) in runs(ones(&self.in_use)) {
            let (from, to) = (base + first.start(), base + end.start());
            let note = |pages: super::pagemap::Resident| {
                if pages.huge {
                    let inside = chunks_within(pages.start - base, pages.end - base);
                    inside.for_each(|chunk| huge.add(chunk));
                }
            };
            pagemap.residents(from, to, note, |_| true).ok()?;
        }
        Some(huge)
    }

    /// Bytes of the arena that really lie on huge pages; `None` if the kernel does not tell.
    ///
    /// Before Linux 6.7 it is read from smaps, for which the kernel walks the whole arena in one
    /// go: not for a hot path.
    pub fn huge_bytes(&self) -> Option<u64> {
        match self.huge_chunks() {
            Some(chunks) => Some(chunks.len() * CHUNK_SIZE),
            None => pages::huge_bytes(self.map.base().as_ptr() as usize, self.map.len()),
        }
    }

    /// Chunks in use that do not lie on huge pages though they could, lowest first; none but for
    /// transparent huge pages.
    pub fn split_chunks(&self) -> Vec<ChunkIndex> {
        if self.page_kind() != PageKind::Thp {
            return Vec::new();
        }
        let Some(huge) = self.huge_chunks() else { return Vec::new() };
        ones(&self.in_use).filter(|chunk| !huge.has(*chunk)).collect()
    }

    /// Of the chunks that lay on huge pages at the last fork, how many do no more though they have
    /// kept their memory: writers have split them.
    pub fn split_since(&self, before: &ChunkSet, after: &ChunkSet) -> u64 {
        let lost = before.chunks().filter(|chunk| !after.has(*chunk));
        lost.filter(|chunk| self.barrier.shares(*chunk)).count() as u64
    }

    /// Makes a chunk's memory one huge page again, if it is in use. Tells whether it tried. Others
    /// that touch the chunk meanwhile wait for the copying of 2 MiB.
    ///
    /// # Errors
    /// The kernel's: there is no huge page to be had (`EAGAIN`, `ENOMEM`), or it knows no
    /// `MADV_COLLAPSE` (`EINVAL`, before Linux 6.1).
    pub fn collapse(&self, chunk: ChunkIndex) -> io::Result<bool> {
        let _aside = self.trimming.lock();
        if !get(&self.in_use, u64::from(chunk.0)) {
            return Ok(false);
        }
        self.map.collapse(chunk.start(), CHUNK_SIZE).map(|()| true)
    }
}

/// The chunks that lie wholly between two offsets.
#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
fn chunks_within(from: u64, to: u64) -> impl Iterator<Item = ChunkIndex> {
    (from.div_ceil(CHUNK_SIZE)..to / CHUNK_SIZE).map(|chunk| ChunkIndex(chunk as u32))
}

/// Neighbouring chunks together: the first of them, and the one behind the last.
fn runs(
    chunks: impl Iterator<Item = ChunkIndex>,
) -> impl Iterator<Item = (ChunkIndex, ChunkIndex)> {
    let mut chunks = chunks.peekable();
    std::iter::from_fn(move || {
        let first = chunks.next()?;
        let mut end = first.0 + 1;
        while chunks.next_if(|next| next.0 == end).is_some() {
            end += 1;
        }
        Some((first, ChunkIndex(end)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_form_runs() {
        let chunks = [0, 1, 2, 5, 7, 8].map(ChunkIndex);
        let found: Vec<(u32, u32)> =
            runs(chunks.into_iter()).map(|(first, end)| (first.0, end.0)).collect();
        assert_eq!(found, [(0, 3), (5, 6), (7, 9)]);
        assert_eq!(runs(std::iter::empty()).count(), 0);
    }

    #[test]
    fn only_whole_chunks_count() {
        let within = |from, to| chunks_within(from, to).map(|c| c.0).collect::<Vec<_>>();
        assert_eq!(within(0, 2 * CHUNK_SIZE), [0, 1]);
        assert_eq!(within(4096, 3 * CHUNK_SIZE - 1), [1]);
    }
}
