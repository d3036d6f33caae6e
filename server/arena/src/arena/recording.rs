//! `Recording`: the barrier's recording of one checkpoint, from the safepoint of the fork to the
//! safepoint after the child's end.
//!
//! ```text
//!   begin(safepoint) --> Recording --finish(safepoint)--> FinishedRecording --drop--> reset
//!                            '------ drop: locks every shard, then finishes and resets
//! ```

use super::Arena;
use super::safepoint::Safepoint;
use crate::barrier::ChildView;
use crate::bits;
use crate::shard::ShardSet;
use crate::stats::{CowStats, UndoStats};

/// Keeps the write barrier active. At most one exists for an arena.
///
/// Dropping an unfinished recording locks all shards: do it on a thread that holds no shard lock.
pub struct Recording<'a> {
    arena: &'a Arena,
    finished: bool,
}

impl<'a> Recording<'a> {
    /// Starts recording: a child forked under this safepoint reads the arena as it is now. `None`
    /// if another recording
    /// exists.
    ///
    /// # Panics
    /// The safepoint is of another arena.
    pub fn begin(arena: &'a Arena, safepoint: &Safepoint<'_>) -> Option<Self> {
        assert!(std::ptr::eq(arena, safepoint.arena()), "a safepoint of another arena");
        let barrier = &arena.store.barrier;
        if barrier.is_active() {
            return None;
        }
        let pool = &arena.pool;
        barrier.begin(
            &arena.store.map,
            |in_use, cut| {
                pool.lock().copy_in_use(in_use);
                bits::copy(&arena.store.cut, cut);
            },
            |resident| pool.lock().copy_resident(resident),
        );
        Some(Self { arena, finished: false })
    }

    /// What a child forked now may use.
    pub(crate) fn child_view(&self) -> ChildView<'a> {
        self.arena.store.barrier.child_view(&self.arena.store.map)
    }

    /// The arena whose changes are recorded.
    pub const fn arena(&self) -> &'a Arena {
        self.arena
    }

    /// Notes that the child is about to release its memory: from then on pages may be private
    /// again.
    pub fn child_exiting(&self) {
        self.arena.store.barrier.child_exiting();
    }

    /// Stops recording; the child has ended.
    ///
    /// # Panics
    /// The safepoint is of another arena; or the barrier checker is on and bytes have changed
    /// without an announcement.
    pub fn finish(mut self, safepoint: &Safepoint<'_>) -> FinishedRecording<'a> {
        self.stop(safepoint);
        FinishedRecording { arena: self.arena }
    }

    fn stop(&mut self, safepoint: &Safepoint<'_>) {
        assert!(std::ptr::eq(self.arena, safepoint.arena()), "a safepoint of another arena");
        self.finished = true;
        let store = &self.arena.store;
        store.barrier.end(&store.map, &store.in_use);
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut held = self.arena.lock(ShardSet::ALL);
        let safepoint = held.safepoint().expect("invariant: every shard is locked");
        self.stop(&safepoint);
        self.arena.store.barrier.reset();
    }
}

/// A stopped recording, for reading its costs. Drop clears the barrier's state of pages, blocks and
/// chunks, outside the safepoint, so that the next recording can begin.
pub struct FinishedRecording<'a> {
    arena: &'a Arena,
}

impl FinishedRecording<'_> {
    /// What copy-on-write has cost writers in this checkpoint.
    pub fn cow_cost(&self) -> CowStats {
        self.arena.store.barrier.cost()
    }

    /// What the undo log has cost writers in this checkpoint.
    pub fn undo_cost(&self) -> UndoStats {
        self.arena.store.barrier.undo_cost()
    }
}

impl Drop for FinishedRecording<'_> {
    fn drop(&mut self) {
        self.arena.store.barrier.reset();
    }
}

/// The steps of a recording one by one, for tests that inspect the state between them.
#[cfg(test)]
pub(crate) mod steps {
    use super::*;
    use crate::Held;

    /// Starts recording.
    pub(crate) fn begin(arena: &Arena, held: &mut Held<'_>) {
        let recording = Recording::begin(arena, &held.safepoint().unwrap());
        std::mem::forget(recording.unwrap());
    }

    /// Stops recording without a reset.
    pub(crate) fn end(arena: &Arena, held: &mut Held<'_>) {
        Recording { arena, finished: false }.stop(&held.safepoint().unwrap());
    }
}
