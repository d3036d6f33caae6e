//! `UndoLog`: the parent's side of the undo log. Writers take slots and publish records; the
//! thread that runs the checkpoint commits memory ahead of them and frees retired slots.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_utils::CachePadded;

use super::blocks::Blocks;
use super::records::{FIRST, NotCaptured, PAGE, Records, SLOT_HEAD, SlotClass};
use super::slot_stack;
use crate::layout::{ChunkIndex, index as to_index};

/// Bytes that are committed in one go, in some 0.2 ms: on a shared processor the workers wait
/// meanwhile.
const PREFAULT_STEP: u64 = 512 << 10;
/// Memory that is committed before it is needed, at both ends: a writer that touches a missing page
/// waits for the kernel.
const AHEAD: [u64; 2] = [512 << 10, 4 << 20];

/// The undo log of one arena.
pub struct UndoLog {
    records: Records,
    slots: CachePadded<Slots>,
}

/// What only the parent needs.
#[derive(Default)]
struct Slots {
    /// Bytes allocated from each end.
    ends: [AtomicU64; 2],
    /// Bytes from each end that are committed.
    committed: [AtomicU64; 2],
    /// Stacks of free slots, in units of 16 bytes.
    free: [AtomicU64; 2],
    /// Slots that were taken from a stack.
    reused: AtomicU64,
}

impl UndoLog {
    /// A log of `limit` bytes for an arena of `chunks` chunks.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub(super) fn new(limit: u64, chunks: u64, blocks: Blocks) -> io::Result<Self> {
        Ok(Self { records: Records::new(limit, chunks, blocks)?, slots: CachePadded::default() })
    }

    /// The part that a child uses too.
    pub(crate) const fn records(&self) -> &Records {
        &self.records
    }

    /// Bytes that the log may take.
    pub const fn limit(&self) -> u64 {
        self.records.limit()
    }

    /// Bytes of slots allocated since the fork: the log's high water.
    pub fn allocated(&self) -> u64 {
        self.records.allocated()
    }

    /// Bytes of committed memory.
    pub fn committed(&self) -> u64 {
        let slots = &self.slots;
        let end = |i: usize| slots.ends[i].load(Relaxed).max(slots.committed[i].load(Relaxed));
        (end(0) + end(1)).min(self.limit())
    }

    /// Slots reused since the fork.
    pub fn reused(&self) -> u64 {
        self.slots.reused.load(Relaxed)
    }

    /// Captures the `len` bytes at `from`, which are the block at `at` of the arena.
    ///
    /// # Safety
    /// The bytes can be read, and the caller holds the lock that guards them.
    pub(super) unsafe fn capture(
        &self,
        at: u64,
        from: *const u8,
        len: u64,
    ) -> Result<(), NotCaptured> {
        let class = SlotClass::of(at);
        let Some(slot) = self.take(class) else {
            let closed = self.records.is_closed(ChunkIndex::of(at));
            return Err(if closed { NotCaptured::Closed } else { NotCaptured::Full });
        };
        // SAFETY: as the caller promises; the slot was just taken.
        if unsafe { self.records.publish(slot, at, from, len) } {
            return Ok(());
        }
        self.push_free(class, slot);
        Err(NotCaptured::Closed)
    }

    /// Takes a slot: a free one, or else a new one.
    fn take(&self, class: SlotClass) -> Option<u64> {
        if let Some(slot) = self.pop_free(class) {
            self.slots.reused.fetch_add(1, Relaxed);
            return Some(slot);
        }
        if !self.records.allocate(class) {
            return self.pop_free(class);
        }
        // Both ends together are within the limit now, in whatever order threads come here.
        let bytes = self.records.slot_bytes(class);
        let end = self.slots.ends[class as usize].fetch_add(bytes, Relaxed);
        Some(match class {
            SlotClass::Whole => FIRST + end,
            SlotClass::Fine => self.limit() - FIRST - end - bytes,
        })
    }

    fn pop_free(&self, class: SlotClass) -> Option<u64> {
        let link = |slot| self.records.word(slot * SLOT_HEAD).load(Relaxed) / SLOT_HEAD;
        slot_stack::pop(&self.slots.free[class as usize], link).map(|slot| slot * SLOT_HEAD)
    }

    fn push_free(&self, class: SlotClass, slot: u64) {
        let set_link = |next| self.records.word(slot).store(next * SLOT_HEAD, Relaxed);
        slot_stack::push(&self.slots.free[class as usize], slot / SLOT_HEAD, set_link);
    }

    /// Frees the slots of chunks that the child has written. For one thread of the parent.
    pub fn reclaim(&self) {
        self.records.take_retired(|class, slot| self.push_free(class, slot));
    }

    /// Commits memory ahead of the writers, which would wait for the kernel otherwise. For one
    /// thread of the parent.
    pub fn prefault(&self) {
        while self.prefault_some() {}
    }

    /// As [`Self::prefault`], at most a step at each end; tells whether there was any to commit.
    pub fn prefault_some(&self) -> bool {
        let mut is_any = false;
        for class in SlotClass::ALL {
            let ahead = self.ahead(class);
            let committed = self.slots.committed[class as usize].load(Relaxed);
            let wanted = self.slots.ends[class as usize].load(Relaxed) + ahead;
            let wanted = wanted.next_multiple_of(PAGE).min(self.limit());
            if wanted < (committed + ahead / 2).min(self.limit()) || wanted <= committed {
                continue;
            }
            let wanted = wanted.min(committed + PREFAULT_STEP);
            let from = match class {
                SlotClass::Whole => committed,
                SlotClass::Fine => self.limit() - wanted,
            };
            let (from, len) = (to_index(from), to_index(wanted - committed));
            // On an error the writers commit memory themselves, a page at a time.
            if self.records.memory().populate(from, len).is_ok() {
                self.slots.committed[class as usize].store(wanted, Relaxed);
                is_any = true;
            }
        }
        is_any
    }

    /// Bytes to commit before they are needed: of a small log at most a quarter, so that both ends
    /// have room.
    fn ahead(&self, class: SlotClass) -> u64 {
        AHEAD[class as usize].min(self.limit() / 4 / PAGE * PAGE)
    }

    /// Forgets all records and returns their memory to the kernel, but for what the next checkpoint
    /// needs committed at its start. No child has the log, and no thread captures.
    pub(super) fn reset(&self) {
        let slots = &self.slots;
        let kept = SlotClass::ALL.map(|class| {
            slots.ends[class as usize].store(0, Relaxed);
            let committed = &slots.committed[class as usize];
            committed.store(committed.load(Relaxed).min(self.ahead(class)), Relaxed);
            self.ahead(class)
        });
        self.records.reset(kept);
        for word in slots.free.iter().chain([&slots.reused]) {
            word.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
