//! The write barrier: the one door through which arena bytes change.
//!
//! Outside a checkpoint it is one load and one branch. During a `kernel-cow` checkpoint the first
//! write to each page since the fork makes the kernel copy the page; the barrier makes that first
//! touch itself and times it, so that every CoW fault is recorded alone, at its own cost.
//!
//! ```text
//!   a page of a chunk that had memory at the fork:
//!     untouched --claimed--> one writer touches it --done--> private: nothing more to do
//!                               |  others that come meanwhile touch it too, and wait for the
//!                               |  same fault: their time is a stall, not another fault
//!                               '-- copied, unless it held nothing at the fork (`survey`), or
//!                                   the child has let go of it (asked of the kernel)
//! ```
//!
//! Invariants:
//! 1. `active` changes only at a safepoint, so it is constant while any shard is locked.
//! 2. Only pages of chunks that had memory at the fork are counted, be they in use or free but not
//!    handed back yet: others are not shared with the child.
//! 3. All that is known of pages and chunks is clear whenever `active` turns on.
//! 4. A chunk is in `surveyed` only after all its bits in `resident` are set.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use zerocopy::FromZeros;

use super::Arena;
use super::layout::{CHUNK_SIZE, ChunkIndex, index as to_index};
use super::locks::Safepoint;
use super::pagemap::{Page, Pagemap};
use super::pages::PageKind;
use super::tally::Tally;
use crate::clock;
use crate::telemetry::{CowFigures, Snapshot};

/// How a chunk stands in a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ChunkState {
    /// It was in use at the fork.
    pub at_fork: bool,
    /// It was, and the child has written it.
    pub dumped: bool,
    /// Copy-on-write faults in it since the fork.
    pub faults: u64,
}

/// The barrier of one arena.
pub struct Barrier {
    active: AtomicBool,
    /// The child is about to end: a page may be private again.
    leaving: AtomicBool,
    page_shift: u32,
    hugetlb: bool,
    /// Pages whose first touch has begun.
    claimed: Box<[AtomicU64]>,
    /// Pages whose first touch is over.
    done: Box<[AtomicU64]>,
    /// Pages that held something at the fork.
    resident: Box<[AtomicU64]>,
    /// Chunks of which `resident` tells.
    surveyed: Box<[AtomicU64]>,
    /// Chunks in use at the fork: what the child dumps.
    at_fork: Box<[AtomicU64]>,
    /// Chunks that had memory at the fork, and still have the same: what is copied on write.
    shared: Box<[AtomicU64]>,
    /// Faults since the fork, by chunk.
    heat: Box<[AtomicU32]>,
    /// Chunks below this one are dumped, if they were in use at the fork.
    dumped_below: AtomicU64,
    /// Touches by others than the one who claimed the page, before that one was done.
    overtaken: AtomicU64,
    pagemap: Option<Pagemap>,
    tally: CachePadded<Tally>,
}

impl Barrier {
    /// The barrier of an arena of `capacity` bytes in pages of `kind`.
    pub(super) fn new(kind: PageKind, capacity: u64) -> Self {
        let page_shift = kind.cow_bytes().trailing_zeros();
        let (pages, chunks) = (capacity >> page_shift, capacity / CHUNK_SIZE);
        let pagemap = Pagemap::own().inspect_err(|error| {
            tracing::warn!(
                "cannot read /proc/self/pagemap ({error}): pages that a save finds empty are \
                 counted as copied"
            );
        });
        Self {
            active: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            page_shift,
            hugetlb: kind.is_hugetlb(),
            claimed: bits(pages),
            done: bits(pages),
            resident: bits(if kind.is_hugetlb() { 0 } else { pages }),
            surveyed: bits(chunks),
            at_fork: bits(chunks),
            shared: bits(chunks),
            heat: zeroed(chunks),
            dumped_below: AtomicU64::new(0),
            overtaken: AtomicU64::new(0),
            pagemap: pagemap.ok(),
            tally: CachePadded::default(),
        }
    }

    /// Announces a change of the `len` bytes at `at`. Whoever changes arena bytes calls this first
    /// and holds the lock that guards them.
    #[inline]
    pub(super) fn before_write(&self, arena: &Arena, at: u64, len: u64) {
        if self.active.load(Ordering::Relaxed) {
            self.first_touches(arena, at, len);
        }
    }

    /// Starts recording: from now on the pages of the chunks in use are shared with a child.
    pub fn begin(&self, safepoint: &Safepoint<'_>) {
        let arena = safepoint.arena();
        arena.pool.lock().copy_sets(&self.at_fork, &self.shared);
        if arena.page_kind() == PageKind::Huge1Gb {
            // All of them were taken at start, and are never handed back.
            self.shared.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        }
        self.tally.begin();
        self.leaving.store(false, Ordering::Relaxed);
        self.dumped_below.store(0, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    /// Notes that the child needs its memory no more and is about to give it back.
    pub fn child_leaves(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Stops recording: the child is gone.
    pub fn end(&self, _safepoint: &Safepoint<'_>) {
        self.active.store(false, Ordering::Relaxed);
    }

    /// Clears what is known of pages and chunks after [`Self::end`], off the safepoint
    /// (invariant 3).
    pub fn forget(&self) {
        for map in [&self.claimed, &self.done, &self.resident, &self.surveyed] {
            map.iter().filter(|word| word.load(Ordering::Relaxed) != 0).for_each(|word| {
                word.store(0, Ordering::Relaxed);
            });
        }
        for heat in self.heat.iter().filter(|heat| heat.load(Ordering::Relaxed) != 0) {
            heat.store(0, Ordering::Relaxed);
        }
        self.dumped_below.store(0, Ordering::Relaxed);
    }

    /// Notes that a chunk's memory was handed back: what it gets next is not the child's.
    pub(super) fn unshare(&self, chunk: ChunkIndex) {
        clear(&self.shared, u64::from(chunk.0));
    }

    /// Whether a checkpoint is being recorded.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// The chunks that were in use at the last [`Self::begin`], lowest first. The child walks
    /// them: no lock, no allocation.
    pub fn chunks_at_fork(&self) -> impl Iterator<Item = ChunkIndex> {
        ones(&self.at_fork)
    }

    /// The chunks that share memory with the child.
    pub(super) fn shared_chunks(&self) -> impl Iterator<Item = ChunkIndex> {
        ones(&self.shared)
    }

    /// Whether a chunk was in use at the last fork.
    pub(super) fn was_used(&self, chunk: ChunkIndex) -> bool {
        get(&self.at_fork, u64::from(chunk.0))
    }

    /// Whether a chunk has kept the memory that it had at the last fork.
    pub(super) fn shares(&self, chunk: ChunkIndex) -> bool {
        get(&self.shared, u64::from(chunk.0))
    }

    /// Notes that the pages of a part of a chunk held something at the fork.
    pub(super) fn note_resident(&self, start: u64, end: u64) {
        let (mut page, end) = (start >> self.page_shift, end >> self.page_shift);
        while page < end {
            let count = (64 - page % 64).min(end - page);
            let mask = (u64::MAX >> (64 - count)) << (page % 64);
            self.resident[to_index(page / 64)].fetch_or(mask, Ordering::Relaxed);
            page += count;
        }
    }

    /// Notes that all of a chunk's pages that held something at the fork are known.
    pub(super) fn note_surveyed(&self, chunk: ChunkIndex) {
        // Whoever sees the chunk sees its pages (invariant 4).
        let mask = 1 << (chunk.0 % 64);
        self.surveyed[chunk.0 as usize / 64].fetch_or(mask, Ordering::Release);
    }

    /// Notes that the child has written all chunks with numbers below this one.
    pub fn note_dumped(&self, below: u64) {
        if self.is_active() {
            self.dumped_below.store(below, Ordering::Relaxed);
        }
    }

    /// How a chunk stands in the checkpoint that runs.
    pub(super) fn state_of(&self, chunk: ChunkIndex) -> ChunkState {
        let at_fork = get(&self.at_fork, u64::from(chunk.0));
        ChunkState {
            at_fork,
            dumped: at_fork && u64::from(chunk.0) < self.dumped_below.load(Ordering::Relaxed),
            faults: u64::from(self.heat[chunk.0 as usize].load(Ordering::Relaxed)),
        }
    }

    /// What this checkpoint, or else the last one, has cost writers.
    pub fn cost(&self) -> CowFigures {
        self.tally.since_begin(self.page_shift)
    }

    /// What all checkpoints have cost writers.
    pub fn total_cost(&self) -> CowFigures {
        self.tally.total(self.page_shift)
    }

    /// How long each fault took, in all checkpoints.
    pub fn fault_times(&self) -> Snapshot {
        self.tally.times()
    }

    #[cold]
    #[inline(never)]
    fn first_touches(&self, arena: &Arena, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.tally.written(len);
        let first = at >> self.page_shift;
        let last = (at + len - 1) >> self.page_shift;
        for page in first..=last {
            let start = page << self.page_shift;
            if !get(&self.done, page) && self.shared_at_fork(start) {
                self.first_touch(arena, page, start.max(at));
            }
        }
    }

    /// Touches the page of the byte at `at`, which is shared with the child as far as is known.
    fn first_touch(&self, arena: &Arena, page: u64, at: u64) {
        let overtaken = self.overtaken.load(Ordering::SeqCst);
        let is_first = !set(&self.claimed, page);
        let found = if is_first {
            let found = self.look(arena, page, at);
            // Another writer may have made it private between the claim and the look.
            let sure = found != Page::Private || self.overtaken.load(Ordering::SeqCst) == overtaken;
            if sure { found } else { Page::Shared }
        } else {
            self.overtaken.fetch_add(1, Ordering::SeqCst);
            Page::Shared
        };
        let begun = clock::monotonic_ns();
        touch(arena, at);
        let took = clock::monotonic_ns().saturating_sub(begun);
        set(&self.done, page);
        match (is_first, found) {
            (false, _) => self.tally.stalled(took),
            (true, Page::Absent) => self.tally.fresh(),
            (true, Page::Private) => self.tally.private(),
            (true, Page::Shared) => {
                self.tally.copied(took);
                let chunks = (1 << self.page_shift).max(CHUNK_SIZE) / CHUNK_SIZE;
                let chunk = (page << self.page_shift) / CHUNK_SIZE;
                for heat in self.heat.iter().skip(to_index(chunk)).take(to_index(chunks)) {
                    heat.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// How a page of a chunk that had memory at the fork stands. A chunk on a hugetlb page is one
    /// page, or a part of one, and there since it was taken; of others the survey tells.
    fn look(&self, arena: &Arena, page: u64, at: u64) -> Page {
        if !self.leaving.load(Ordering::Relaxed) {
            if self.hugetlb {
                return Page::Shared;
            }
            let chunk = at / CHUNK_SIZE;
            let word = &self.surveyed[to_index(chunk / 64)];
            if word.load(Ordering::Acquire) >> (chunk % 64) & 1 == 1 {
                let held = get(&self.resident, page);
                return if held { Page::Shared } else { Page::Absent };
            }
        }
        let address = arena.address(at, 1).as_ptr() as u64;
        let asked = self.pagemap.as_ref().map(|pagemap| pagemap.page(address));
        asked.and_then(Result::ok).unwrap_or(Page::Shared)
    }

    /// Whether a page holds a chunk that was in use at the fork. A page of 1 GiB holds 512.
    fn shared_at_fork(&self, start: u64) -> bool {
        let size = (1 << self.page_shift).max(CHUNK_SIZE);
        let first = start / CHUNK_SIZE;
        (first..first + size / CHUNK_SIZE).any(|chunk| get(&self.shared, chunk))
    }
}

/// Writes to the page of the byte at `at` without changing it: the byte is the caller's to change,
/// its neighbours on the page may be another shard's. Volatile, since an optimiser knows that an
/// atomic `|= 0` changes nothing, and leaves it out: the page would be copied later, and by whoever
/// comes, untimed.
fn touch(arena: &Arena, at: u64) {
    let address = arena.address(at, 1).as_ptr();
    // SAFETY: a byte inside the arena; the caller holds the lock that guards it.
    let byte = unsafe { address.read_volatile() };
    // SAFETY: as above.
    unsafe { address.write_volatile(byte) };
}

pub(super) fn bits(count: u64) -> Box<[AtomicU64]> {
    zeroed(count.div_ceil(64))
}

/// Words that the kernel zeroes, page by page as they are written.
fn zeroed<T: FromZeros>(count: u64) -> Box<[T]> {
    <[T]>::new_box_zeroed_with_elems(to_index(count)).unwrap_or_else(|_| no_words(count))
}

#[cold]
fn no_words(count: u64) -> ! {
    panic!("arena: no memory for a table of {count} words")
}

pub(super) fn get(bits: &[AtomicU64], index: u64) -> bool {
    bits.get(to_index(index / 64))
        .is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 == 1)
}

/// Clears a bit.
pub(super) fn clear(bits: &[AtomicU64], index: u64) {
    bits[to_index(index / 64)].fetch_and(!(1 << (index % 64)), Ordering::Relaxed);
}

/// Sets a bit and tells whether it was set before.
pub(super) fn set(bits: &[AtomicU64], index: u64) -> bool {
    let mask = 1 << (index % 64);
    bits[to_index(index / 64)].fetch_or(mask, Ordering::Relaxed) & mask != 0
}

/// The chunks whose bits are set, lowest first.
#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
pub(super) fn ones(bits: &[AtomicU64]) -> impl Iterator<Item = ChunkIndex> {
    bits.iter().enumerate().flat_map(|(i, word)| {
        let word = word.load(Ordering::Relaxed);
        (0..64)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| ChunkIndex(i as u32 * 64 + bit))
    })
}

#[cfg(test)]
#[path = "barrier_tests.rs"]
pub(super) mod tests;
