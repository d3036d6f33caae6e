//! Page scans, off the hot path: which pages a child shares, and which chunks lie on huge pages;
//! and collapsing chunks into huge pages.
//!
//! Invariants:
//! 1. No scan runs during a fork: one thread does both.
//! 2. A chunk is collapsed under `Arena::trimming`, so that no memory that was just returned to the
//!    kernel is committed again.

use std::io;

use super::Arena;
use crate::bits::{get, ones};
use crate::layout::{CHUNK_SIZE, ChunkIndex};
use crate::memory::pagemap::Pagemap;
use crate::memory::pages::{self, PageKind};

/// A set of chunks.
#[derive(Debug, Default)]
pub struct ChunkSet(Vec<u64>);

impl ChunkSet {
    fn of(arena: &Arena) -> Self {
        Self(vec![0; arena.store.in_use.len()])
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

/// How the chunks in use lie at one moment.
#[derive(Debug)]
pub struct PageReport {
    /// Those that lie on huge pages.
    pub huge: ChunkSet,
    /// Those that do not though they could, lowest first: at least half of their pages are there.
    /// Others hold little, and putting them on a huge page would take memory.
    pub split: Vec<ChunkIndex>,
}

/// Counts small pages, chunk by chunk in ascending order.
#[derive(Default)]
struct SmallPages {
    chunk: u64,
    bytes: u64,
}

impl SmallPages {
    /// Notes that there are pages from one offset to another; adds the chunks of which half is
    /// there by now.
    fn add(&mut self, from: u64, to: u64, split: &mut Vec<ChunkIndex>) {
        let mut from = from;
        while from < to {
            let chunk = from / CHUNK_SIZE;
            let end = to.min((chunk + 1) * CHUNK_SIZE);
            if chunk != self.chunk {
                *self = Self { chunk, bytes: 0 };
            }
            let before = self.bytes;
            self.bytes += end - from;
            if before < CHUNK_SIZE / 2 && self.bytes >= CHUNK_SIZE / 2 {
                split.push(ChunkIndex::of(from));
            }
            from = end;
        }
    }
}

impl Arena {
    /// Looks at the page tables of a child that was just forked: tells the barrier which pages
    /// held something at the fork, and returns the chunks that lay on huge pages. Stops when
    /// `goes_on` says so: a child that ends has given its pages back. `None` at once with an
    /// undo log: no page is copied or split. `None` also if the kernel does not tell: the barrier
    /// then goes on asking page by page.
    pub fn scan_child_pages(
        &self,
        child: i32,
        mut goes_on: impl FnMut() -> bool,
    ) -> Option<ChunkSet> {
        let cow = self.store.barrier.cow()?;
        let mut huge = ChunkSet::of(self);
        if self.page_kind().is_hugetlb() {
            self.store.barrier.chunks_at_fork().for_each(|chunk| huge.add(chunk));
            return Some(huge);
        }
        let pagemap = Pagemap::of(child).ok()?;
        let base = self.store.map.base().as_ptr() as u64;
        let mut complete = true;
        for (first, end) in runs(cow.shared_chunks()) {
            let mut next = first;
            let walked = pagemap.residents(
                base + first.start(),
                base + end.start(),
                |pages| {
                    let (from, to) = (pages.start - base, pages.end - base);
                    cow.note_resident(from, to);
                    if pages.huge {
                        let used =
                            chunks_within(from, to).filter(|c| self.store.barrier.was_in_use(*c));
                        used.for_each(|chunk| huge.add(chunk));
                    }
                },
                |up_to| {
                    complete = goes_on();
                    let up_to = ChunkIndex::of(up_to - base);
                    while complete && next.0 < up_to.0 {
                        cow.note_scanned(next);
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

    /// Looks how the chunks in use lie. Walks the page tables of transparent huge pages, in short
    /// steps; of the others it is known. `None`: the kernel does not tell (before Linux 6.7), or
    /// `goes_on` did not want to.
    pub fn scan_pages(&self, mut goes_on: impl FnMut() -> bool) -> Option<PageReport> {
        let mut report = PageReport { huge: ChunkSet::of(self), split: Vec::new() };
        match self.page_kind() {
            PageKind::Small => return Some(report),
            PageKind::Huge2Mb | PageKind::Huge1Gb => {
                ones(&self.store.in_use).for_each(|chunk| report.huge.add(chunk));
                return Some(report);
            }
            PageKind::Thp => {}
        }
        let pagemap = Pagemap::own().ok()?;
        let base = self.store.map.base().as_ptr() as u64;
        let mut complete = true;
        for (first, end) in runs(ones(&self.store.in_use)) {
            let mut small = SmallPages::default();
            let note = |pages: crate::memory::pagemap::Resident| {
                let (from, to) = (pages.start - base, pages.end - base);
                if pages.huge {
                    chunks_within(from, to).for_each(|chunk| report.huge.add(chunk));
                } else {
                    small.add(from, to, &mut report.split);
                }
            };
            let step = |_| {
                complete = goes_on();
                complete
            };
            let (from, to) = (base + first.start(), base + end.start());
            pagemap.residents(from, to, note, step).ok()?;
            if !complete {
                return None;
            }
        }
        if self.keeps_stock() {
            // One lock a chunk: others take chunks meanwhile.
            let note = |chunk, huge| self.pool.lock().note_pages(chunk, huge);
            report.huge.chunks().for_each(|chunk| note(chunk, true));
            report.split.iter().for_each(|chunk| note(*chunk, false));
        }
        Some(report)
    }

    /// Bytes of the arena that lie on huge pages, from smaps, for kernels for which
    /// [`Self::scan_pages`] tells nothing. The kernel walks the whole arena in one go: not for a
    /// hot path.
    pub fn huge_bytes_of_old_kernels(&self) -> Option<u64> {
        pages::huge_bytes(self.store.map.base().as_ptr() as usize, self.store.map.len())
    }

    /// Of the chunks that lay on huge pages at the last fork, how many do no more though they have
    /// kept their memory: writers have split them.
    pub fn split_since(&self, before: &ChunkSet, after: &ChunkSet) -> u64 {
        let lost = before.chunks().filter(|chunk| !after.has(*chunk));
        let kept = |chunk: &ChunkIndex| {
            let kept = self.store.barrier.cow().is_none_or(|cow| cow.shares(*chunk));
            kept && get(&self.store.in_use, u64::from(chunk.0))
        };
        lost.filter(kept).count() as u64
    }

    /// Makes a chunk's memory one huge page again, if it is in use. Tells whether it tried. Others
    /// that touch the chunk meanwhile wait for the copying of 2 MiB.
    ///
    /// # Errors
    /// The kernel's: there is no huge page to be had (`EAGAIN`, `ENOMEM`), or it knows no
    /// `MADV_COLLAPSE` (`EINVAL`, before Linux 6.1).
    pub fn collapse(&self, chunk: ChunkIndex) -> io::Result<bool> {
        let _aside = self.trimming.lock();
        if !get(&self.store.in_use, u64::from(chunk.0)) {
            return Ok(false);
        }
        self.store.map.collapse(chunk.start(), CHUNK_SIZE)?;
        self.pool.lock().note_pages(chunk, true);
        Ok(true)
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
    fn a_chunk_is_split_once_half_of_it_is_there() {
        let (mut small, mut split) = (SmallPages::default(), Vec::new());
        let half = CHUNK_SIZE / 2;
        for (from, to) in [
            (0, half - 4096),
            (CHUNK_SIZE - 8192, CHUNK_SIZE + 4096),
            (2 * CHUNK_SIZE, 4 * CHUNK_SIZE + half),
            (5 * CHUNK_SIZE, 5 * CHUNK_SIZE + 4096),
        ] {
            small.add(from, to, &mut split);
        }
        assert_eq!(split, [0, 2, 3, 4].map(ChunkIndex));
    }

    #[test]
    fn only_whole_chunks_count() {
        let within = |from, to| chunks_within(from, to).map(|c| c.0).collect::<Vec<_>>();
        assert_eq!(within(0, 2 * CHUNK_SIZE), [0, 1]);
        assert_eq!(within(4096, 3 * CHUNK_SIZE - 1), [1]);
    }
}
