//! The barrier of a `kernel-cow` checkpoint. The first write to each page since the fork makes the
//! kernel copy the page; the barrier makes that first touch itself and times it, so that every CoW
//! fault is recorded alone, at its own cost.
//!
//! ```text
//!   a page of a chunk that had memory at the fork:
//!     untouched --claimed--> one writer touches it --done--> private: nothing more to do
//!                               |  others that come meanwhile touch it too, and wait for the
//!                               |  same fault: their time is a stall, not another fault
//!                               '-- copied, unless it held nothing at the fork (page scan), or
//!                                   the child has let go of it (asked of the kernel)
//! ```
//!
//! Invariants:
//! 1. Only pages of chunks that had memory at the fork are counted, be they in use or free but not
//!    handed back yet: others are not shared with the child.
//! 2. A chunk is in `scanned` only after all its bits in `resident` are set.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::barrier::counters::CowCounters;
use crate::bits::{self, clear, get, ones, set};
use crate::clock;
use crate::layout::{CHUNK_SIZE, ChunkIndex, index as to_index};
use crate::memory::mapping::Mapping;
use crate::memory::pagemap::{PageState, Pagemap};
use crate::memory::pages::PageKind;
use crate::memory::side_tables::SideTable;

/// A set that the child does not have: changing it copies no page of it.
type Set = SideTable<AtomicU64>;

/// What is known of pages since the fork.
pub(crate) struct CowState {
    /// The child is about to end: a page may be private again.
    leaving: AtomicBool,
    page_shift: u32,
    hugetlb: bool,
    /// Pages whose first touch has begun.
    claimed: Set,
    /// Pages whose first touch is over.
    done: Set,
    /// Pages that held something at the fork.
    resident: Set,
    /// Chunks of which `resident` tells.
    scanned: Set,
    /// Chunks that had memory at the fork, and still have the same: what is copied on write.
    shared: Set,
    /// Touches of a claimed page by threads other than the claiming one, before that one was done.
    overtaken: AtomicU64,
    pagemap: Option<Pagemap>,
}

impl CowState {
    pub(super) fn new(kind: PageKind, capacity: u64) -> io::Result<Self> {
        let page_shift = kind.cow_bytes().trailing_zeros();
        let (pages, chunks) = (capacity >> page_shift, capacity / CHUNK_SIZE);
        let pagemap = Pagemap::own().inspect_err(|error| {
            tracing::warn!(
                "cannot read /proc/self/pagemap ({error}): pages without content at the fork are \
                 counted as copied"
            );
        });
        let set_of = |count| Set::new(bits::words(count));
        Ok(Self {
            leaving: AtomicBool::new(false),
            page_shift,
            hugetlb: kind.is_hugetlb(),
            claimed: set_of(pages)?,
            done: set_of(pages)?,
            resident: set_of(if kind.is_hugetlb() { 0 } else { pages })?,
            scanned: set_of(chunks)?,
            shared: set_of(chunks)?,
            overtaken: AtomicU64::new(0),
            pagemap: pagemap.ok(),
        })
    }

    pub(super) const fn page_shift(&self) -> u32 {
        self.page_shift
    }

    pub(super) fn begin(&self, kind: PageKind, fill_resident: impl FnOnce(&[AtomicU64])) {
        fill_resident(&self.shared);
        if kind == PageKind::Huge1Gb {
            // All of them were taken at start, and are never handed back.
            self.shared.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        }
        self.leaving.store(false, Ordering::Relaxed);
    }

    pub(super) fn child_exiting(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn reset(&self) {
        for map in [&self.claimed, &self.done, &self.resident, &self.scanned] {
            bits::empty(map);
        }
    }

    pub(super) fn forget_chunk(&self, chunk: ChunkIndex) {
        clear(&self.shared, u64::from(chunk.0));
    }

    /// The chunks that share memory with the child.
    pub(crate) fn shared_chunks(&self) -> impl Iterator<Item = ChunkIndex> {
        ones(&self.shared)
    }

    /// Whether a chunk has kept the memory that it had at the last fork.
    pub(crate) fn shares(&self, chunk: ChunkIndex) -> bool {
        get(&self.shared, u64::from(chunk.0))
    }

    /// Notes that the pages of a part of a chunk held something at the fork.
    pub(crate) fn note_resident(&self, start: u64, end: u64) {
        let (mut page, end) = (start >> self.page_shift, end >> self.page_shift);
        while page < end {
            let count = (64 - page % 64).min(end - page);
            let mask = (u64::MAX >> (64 - count)) << (page % 64);
            self.resident[to_index(page / 64)].fetch_or(mask, Ordering::Relaxed);
            page += count;
        }
    }

    /// Notes that all of a chunk's pages that held something at the fork are known.
    pub(crate) fn note_scanned(&self, chunk: ChunkIndex) {
        // A thread that sees the chunk in the set sees its pages (invariant 2).
        let mask = 1 << (chunk.0 % 64);
        self.scanned[chunk.0 as usize / 64].fetch_or(mask, Ordering::Release);
    }

    /// Whether the page of the byte at `at` was touched since the fork.
    pub(super) fn has_touched(&self, at: u64) -> bool {
        get(&self.done, at >> self.page_shift)
    }

    /// Touches the pages of the `len` bytes at `at`, unless they are private already.
    pub(super) fn first_touches(
        &self,
        map: &Mapping,
        counters: &CowCounters,
        write_count: &[AtomicU32],
        at: u64,
        len: u64,
    ) {
        let first = at >> self.page_shift;
        let last = (at + len - 1) >> self.page_shift;
        for page in first..=last {
            let start = page << self.page_shift;
            if !get(&self.done, page)
                && self.shared_at_fork(start)
                && self.first_touch(map, counters, page, start.max(at))
            {
                let chunks = (1 << self.page_shift).max(CHUNK_SIZE) / CHUNK_SIZE;
                let chunk = start / CHUNK_SIZE;
                for write_count in write_count.iter().skip(to_index(chunk)).take(to_index(chunks)) {
                    write_count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Touches the page of the byte at `at`, which is shared with the child as far as is known.
    /// Tells whether the kernel copied it.
    fn first_touch(&self, map: &Mapping, counters: &CowCounters, page: u64, at: u64) -> bool {
        let overtaken = self.overtaken.load(Ordering::SeqCst);
        let is_first = !set(&self.claimed, page);
        let found = if is_first {
            let found = self.page_state(map, page, at);
            // Another writer may have made it private between the claim and the look.
            let sure =
                found != PageState::Private || self.overtaken.load(Ordering::SeqCst) == overtaken;
            if sure { found } else { PageState::Shared }
        } else {
            self.overtaken.fetch_add(1, Ordering::SeqCst);
            PageState::Shared
        };
        let begun = clock::monotonic_ns();
        touch(map, at);
        let took = clock::monotonic_ns().saturating_sub(begun);
        set(&self.done, page);
        match (is_first, found) {
            (false, _) => counters.stalled(took),
            (true, PageState::Absent) => counters.fresh(),
            (true, PageState::Private) => counters.private(),
            (true, PageState::Shared) => counters.copied(took),
        }
        is_first && found == PageState::Shared
    }

    /// How a page of a chunk that had memory at the fork stands. A chunk on a hugetlb page is one
    /// page, or a part of one, and there since it was taken; of others the page scan tells.
    fn page_state(&self, map: &Mapping, page: u64, at: u64) -> PageState {
        if !self.leaving.load(Ordering::Relaxed) {
            if self.hugetlb {
                return PageState::Shared;
            }
            let chunk = at / CHUNK_SIZE;
            let word = &self.scanned[to_index(chunk / 64)];
            if word.load(Ordering::Acquire) >> (chunk % 64) & 1 == 1 {
                let held = get(&self.resident, page);
                return if held { PageState::Shared } else { PageState::Absent };
            }
        }
        let address = map.address(at, 1).as_ptr() as u64;
        let asked = self.pagemap.as_ref().map(|pagemap| pagemap.page(address));
        asked.and_then(Result::ok).unwrap_or(PageState::Shared)
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
/// atomic `|= 0` changes nothing, and leaves it out: the page would be copied later, by the change
/// itself, untimed.
fn touch(map: &Mapping, at: u64) {
    let address = map.address(at, 1).as_ptr();
    // SAFETY: a byte inside the arena; the caller holds the lock that guards it.
    let byte = unsafe { address.read_volatile() };
    // SAFETY: as above.
    unsafe { address.write_volatile(byte) };
}

#[cfg(test)]
#[path = "cow_tests.rs"]
pub(crate) mod tests;
