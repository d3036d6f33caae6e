//! The stock: free chunks that lie on huge pages before they hold anything.
//!
//! Shared memory gets small pages when it is touched, unless the machine's settings say otherwise,
//! and collapsing a chunk in use makes those that touch it wait. So a background thread prepares
//! free chunks (touch one page, then `MADV_COLLAPSE`), and the chunk pool takes those first. A
//! caller that finds the stock empty takes small pages: it never waits. Private memory needs no
//! stock, since the kernel gives it a huge page at the first touch.
//!
//! Invariant: a chunk is prepared under `Arena::trimming`, so that no memory that was just returned
//! to the kernel is committed again. Preparing changes no byte: the chunk may be taken meanwhile.

use std::io;
use std::time::Duration;

use super::Arena;
use crate::allocator::chunk_pool::StockStats;
use crate::layout::ChunkIndex;
use crate::memory::pages::{Backing, Isolation, PageKind};

/// Whether an arena of such memory keeps a stock.
pub(super) const fn is_kept_for(backing: Backing) -> bool {
    matches!((backing.kind, backing.isolation), (PageKind::Thp, Isolation::UndoLog(_)))
}

impl Arena {
    /// Whether the arena keeps a stock: transparent huge pages of shared memory.
    pub const fn keeps_stock(&self) -> bool {
        is_kept_for(self.backing())
    }

    /// The stock at this moment; zeros for an arena that keeps none.
    pub fn stock(&self) -> StockStats {
        if self.keeps_stock() { self.pool.lock().stock() } else { StockStats::default() }
    }

    /// Sets how many chunks the stock is to hold; an arena that keeps none ignores it.
    pub fn set_stock_mark(&self, chunks: u32) {
        if self.keeps_stock() {
            self.pool.lock().set_stock_mark(chunks);
        }
    }

    /// Prepares up to `most` neighbouring free chunks for the stock, the lowest, and returns their
    /// number; 0 if the stock is complete or no chunk is left. Takes some tenths of a millisecond a
    /// chunk, several at once less: for a background thread.
    ///
    /// # Errors
    /// The kernel's: there is no huge page to be had (`EAGAIN`, `ENOMEM`), or it knows no
    /// `MADV_COLLAPSE` (`EINVAL`, before Linux 6.1).
    pub fn prepare_chunks(&self, most: u32) -> io::Result<u32> {
        let _excludes_release = self.trimming.lock();
        let Some(chunks) = self.pool.lock().begin_prepare(most) else { return Ok(0) };
        let count = chunks.end - chunks.start;
        let prepare = |first: u32, count| self.store.map.prepare(ChunkIndex(first).start(), count);
        let mut outcome = prepare(chunks.start, count);
        let mut done = if outcome.is_ok() { count } else { 0 };
        if outcome.is_err() {
            // The kernel does not tell which ones it refused.
            while done < count && prepare(chunks.start + done, 1).is_ok() {
                done += 1;
                outcome = Ok(());
            }
        }
        self.pool.lock().end_prepare(done);
        outcome.map(|()| done)
    }

    /// Waits until half of the stock is gone, at most for `timeout`; not at all if `is_stopped`.
    pub fn wait_for_low_stock(&self, timeout: Duration, is_stopped: impl Fn() -> bool) {
        let mut pool = self.pool.lock();
        if !is_stopped() && !pool.stock_is_low() {
            self.stock_is_low.wait_for(&mut pool, timeout);
        }
    }

    /// Ends a wait for the stock, after a change of what its `is_stopped` says.
    pub fn end_stock_wait(&self) {
        let _waits_or_has_seen_it = self.pool.lock();
        self.stock_is_low.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arena, CHUNK_SIZE, ReservedArena, ShardIndex, ShardSet, UndoOptions};

    const MARK: u32 = 3;
    const EINVAL: i32 = nix::libc::EINVAL;

    /// An arena of shared transparent huge pages; `None` where the kernel has none.
    fn arena() -> Option<Arena> {
        let isolation = Isolation::UndoLog(UndoOptions { limit: crate::MIN_LIMIT, block: 512 });
        let backing = Backing { kind: PageKind::Thp, isolation };
        let Ok(blank) = ReservedArena::reserve(backing, 64 << 20) else {
            eprintln!("skipped: no transparent huge pages for shared memory");
            return None;
        };
        let arena = blank.format(7, 1).unwrap();
        arena.set_stock_mark(MARK);
        match arena.prepare_chunks(1) {
            Err(error) if error.raw_os_error() == Some(EINVAL) => {
                eprintln!("skipped: the kernel has no MADV_COLLAPSE");
                None
            }
            outcome => {
                assert_eq!(outcome.unwrap(), 1);
                Some(arena)
            }
        }
    }

    #[test]
    fn chunks_lie_on_huge_pages_before_they_hold_anything() {
        let Some(arena) = arena() else { return };
        while arena.prepare_chunks(2).unwrap() > 0 {}
        assert_eq!((arena.stock().chunks, arena.stock().taken), (u64::from(MARK), 0));
        let shard = ShardIndex::of_hash(0);
        let mut held = arena.lock(ShardSet::one(shard));
        for _ in 0..=MARK {
            held.mem(shard).allocate(CHUNK_SIZE - 4096).unwrap();
        }
        drop(held);
        let stock = arena.stock();
        assert_eq!((stock.chunks, stock.taken, stock.taken_small), (0, 4, 1), "{stock:?}");
        if let Some(report) = arena.scan_pages(|| true) {
            assert_eq!(report.huge.len(), u64::from(MARK));
            assert_eq!(arena.stock().huge_in_use, u64::from(MARK));
        }
    }

    #[test]
    fn trimming_keeps_the_stock() {
        let Some(arena) = arena() else { return };
        while arena.prepare_chunks(2).unwrap() > 0 {}
        let shard = ShardIndex::of_hash(0);
        let mut held = arena.lock(ShardSet::one(shard));
        let at = held.mem(shard).allocate(40 << 20).unwrap();
        held.mem(shard).release(at, 40 << 20);
        drop(held);
        assert!(arena.trim(usize::MAX) > 0);
        assert_eq!(arena.stock().chunks, u64::from(MARK));
    }

    #[test]
    fn loaded_chunks_get_huge_pages() {
        let Some(old) = arena() else { return };
        let shard = ShardIndex::of_hash(0);
        let mut held = old.lock(ShardSet::ALL);
        for _ in 0..5 {
            held.mem(shard).allocate(CHUNK_SIZE - 4096).unwrap();
        }
        let blank = ReservedArena::reserve(old.backing(), 64 << 20).unwrap();
        for (chunk, bytes) in held.safepoint().unwrap().chunks() {
            blank.chunk(chunk).unwrap().copy_from_slice(bytes);
        }
        let arena = blank.open(7).unwrap();
        let stock = arena.stock();
        assert_eq!((stock.huge_in_use, stock.taken, stock.taken_small), (6, 6, 0), "{stock:?}");
        assert_eq!(arena.scan_pages(|| true).map_or(6, |report| report.huge.len()), 6);
    }

    #[test]
    fn private_memory_keeps_no_stock() {
        let blank = ReservedArena::reserve(PageKind::Small, 16 << 20).unwrap();
        let arena = blank.format(7, 1).unwrap();
        arena.set_stock_mark(MARK);
        assert!(!arena.keeps_stock() && arena.prepare_chunks(1).unwrap() == 0);
        assert_eq!(arena.stock(), StockStats::default());
    }
}
