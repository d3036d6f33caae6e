//! The write barrier: the one door through which arena bytes change.
//!
//! Outside a checkpoint it is one load and one branch. During a `kernel-cow` checkpoint the first
//! write to each page since the fork makes the kernel copy the page; the barrier makes that first
//! touch itself and times it, so that every CoW fault is recorded alone, at its own cost.
//!
//! Invariants:
//! 1. `active` changes only at a safepoint, so it is constant while any shard is locked.
//! 2. Only pages of chunks that had memory at the fork are counted, be they in use or free but not
//!    handed back yet: others are not shared with the child.
//! 3. The bits of the pages are all clear whenever `active` turns on.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use super::Arena;
use super::layout::{CHUNK_SIZE, ChunkIndex, index as to_index};
use super::locks::Safepoint;
use super::pages::PageKind;

/// What copy-on-write has cost since the fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CowCost {
    /// Pages of the arena that were first written after the fork.
    pub faults: u64,
    /// Bytes of those pages: what the kernel copied.
    pub bytes: u64,
    /// Nanoseconds that writers stood still for it.
    pub nanoseconds: u64,
}

/// What copy-on-write has cost one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stalls {
    /// Pages that the kernel copied for it.
    pub faults: u64,
    /// Nanoseconds that it stood still, for those or for another thread's.
    pub nanoseconds: u64,
    /// The longest of these, in nanoseconds.
    pub longest: u64,
}

impl Stalls {
    const NONE: Self = Self { faults: 0, nanoseconds: 0, longest: 0 };
}

thread_local! {
    static STALLS: Cell<Stalls> = const { Cell::new(Stalls::NONE) };
}

/// What copy-on-write has cost the calling thread since it last asked.
#[inline]
pub fn take_stalls() -> Stalls {
    STALLS.replace(Stalls::NONE)
}

/// The barrier of one arena.
pub struct Barrier {
    active: AtomicBool,
    page_shift: u32,
    touched: Box<[AtomicU64]>,
    /// Chunks in use at the fork: what the child dumps.
    at_fork: Box<[AtomicU64]>,
    /// Chunks that had memory at the fork, and still have the same: what is copied on write.
    shared: Box<[AtomicU64]>,
    faults: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Barrier {
    /// The barrier of an arena of `capacity` bytes in pages of `kind`.
    pub(super) fn new(kind: PageKind, capacity: u64) -> Self {
        let page_shift = kind.cow_bytes().trailing_zeros();
        Self {
            active: AtomicBool::new(false),
            page_shift,
            touched: bits(capacity >> page_shift),
            at_fork: bits(capacity / CHUNK_SIZE),
            shared: bits(capacity / CHUNK_SIZE),
            faults: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
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
        safepoint.arena().pool.lock().copy_sets(&self.at_fork, &self.shared);
        self.faults.store(0, Ordering::Relaxed);
        self.nanoseconds.store(0, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    /// Stops recording: the child is gone.
    pub fn end(&self, _safepoint: &Safepoint<'_>) {
        self.active.store(false, Ordering::Relaxed);
    }

    /// Clears the pages' bits after [`Self::end`], off the safepoint (invariant 3).
    pub fn forget(&self) {
        for word in &self.touched {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
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
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    pub fn chunks_at_fork(&self) -> impl Iterator<Item = ChunkIndex> {
        self.at_fork
            .iter()
            .enumerate()
            .flat_map(|(i, word)| {
                let word = word.load(Ordering::Relaxed);
                (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| i as u32 * 64 + bit)
            })
            .map(ChunkIndex)
    }

    /// What the checkpoint has cost writers so far.
    pub fn cost(&self) -> CowCost {
        let faults = self.faults.load(Ordering::Relaxed);
        let nanoseconds = self.nanoseconds.load(Ordering::Relaxed);
        CowCost { faults, bytes: faults << self.page_shift, nanoseconds }
    }

    #[cold]
    #[inline(never)]
    fn first_touches(&self, arena: &Arena, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        let first = at >> self.page_shift;
        let last = (at + len - 1) >> self.page_shift;
        for page in first..=last {
            let start = page << self.page_shift;
            if !self.shared_at_fork(start) || set(&self.touched, page) {
                continue;
            }
            let begun = Instant::now();
            touch(arena, start.max(at));
            let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.faults.fetch_add(1, Ordering::Relaxed);
            self.nanoseconds.fetch_add(took, Ordering::Relaxed);
            let stalls = STALLS.get();
            STALLS.set(Stalls {
                faults: stalls.faults + 1,
                nanoseconds: stalls.nanoseconds + took,
                longest: stalls.longest.max(took),
            });
        }
    }

    /// Whether a page holds a chunk that was in use at the fork. A page of 1 GiB holds 512.
    fn shared_at_fork(&self, start: u64) -> bool {
        let size = (1 << self.page_shift).max(CHUNK_SIZE);
        let first = start / CHUNK_SIZE;
        (first..first + size / CHUNK_SIZE).any(|chunk| get(&self.shared, chunk))
    }
}

/// Writes to the page of the byte at `at` without changing it. The caller may change that byte;
/// its neighbours on the page may be another shard's.
fn touch(arena: &Arena, at: u64) {
    let address = arena.address(at, 1);
    // SAFETY: a byte inside the arena; the caller holds the lock that guards it.
    let byte = unsafe { AtomicU8::from_ptr(address.as_ptr()) };
    byte.fetch_or(0, Ordering::Relaxed);
}

pub(super) fn bits(count: u64) -> Box<[AtomicU64]> {
    use zerocopy::FromZeros as _;
    // Zeroed by the kernel, page by page as bits are set.
    let words = to_index(count.div_ceil(64));
    <[AtomicU64]>::new_box_zeroed_with_elems(words).unwrap_or_else(|_| no_bits(count))
}

#[cold]
fn no_bits(count: u64) -> ! {
    panic!("arena: no memory for {count} bits")
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
