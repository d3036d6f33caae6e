//! Hints: words read without a lock, for prefetches and for choosing where to look under a lock.

use super::Arena;
use crate::backing_store::BackingStore;
use crate::layout::CHUNK_SIZE;
use crate::reader_epochs::ReadSection;

/// A read section over the arena without any lock. While it lives, memory that it has found present
/// is not returned to the kernel; keep it for microseconds.
pub struct RacyView<'a> {
    store: &'a BackingStore,
    _section: ReadSection<'a>,
}

impl RacyView<'_> {
    /// The word at `at`: a hint that may be torn or outdated. `None` outside the arena, for an
    /// unaligned offset, and for memory that is not present.
    #[inline]
    pub fn load_racy(&self, at: u64) -> Option<u64> {
        // SAFETY: `_section` is the read section.
        unsafe { self.store.load_racy(at) }
    }
}

impl Arena {
    /// Enters a read section.
    #[inline]
    pub fn racy(&self) -> RacyView<'_> {
        RacyView { store: &self.store, _section: self.epochs.enter() }
    }

    /// The word at `at` of the shard roots: a hint, as [`RacyView::load_racy`] returns it, without
    /// a read section, since the memory of chunk 0 is never returned. `None` for another offset.
    #[inline]
    pub fn load_root_racy(&self, at: u64) -> Option<u64> {
        if at >= CHUNK_SIZE {
            return None;
        }
        // SAFETY: chunk 0 holds a part of the chunk table: it is in use as long as the arena lives.
        unsafe { self.store.load_racy(at) }
    }
}
