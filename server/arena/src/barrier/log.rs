//! The undo log: memory that parent and child share, with what was in the blocks that the parent
//! has changed since the fork.
//!
//! ```text
//!   0      slots of whole blocks grow upwards ->             <- slots of fine blocks    limit
//!   +------+--------+--------+--------+--- ...           ... ---+------+------+------+
//!   | (64) | slot   | slot   | slot   |                         | slot | slot | slot |
//!   +------+--------+--------+--------+--- ...           ... ---+------+------+------+
//!
//!   slot:  | next 8 | at 8 | bytes of the block |       heads[chunk] --> slot --> slot --> none
//! ```
//!
//! A slot holds one record. Those of a chunk form a chain; once the child is done with the chunk it
//! leaves the chain in `retired`, from where the parent puts the slots into one of two stacks, to be
//! taken again. `protocol` says why an image is exact; here is only where records stand.
//!
//! Invariants that unsafe code leans on:
//! 1. Slots lie inside the memory, at multiples of 16, and do not overlap: what is handed out from
//!    both ends together never exceeds the limit.
//! 2. A slot belongs to who took it until it is published; then nobody changes it until it is
//!    retired.
//! 3. A stack's head carries a number that changes each time a slot is taken, so that a thread that
//!    was held up between reading a head and exchanging it cannot bring back an old one.
//! 4. The child takes no slot and gives none back.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crossbeam_utils::CachePadded;

use super::blocks::{Blocks, FINE_BYTES};
use super::protocol::{self, CLOSED, NONE};
use crate::layout::{CHUNK_SIZE, ChunkIndex, index as to_index};
use crate::memory::side_tables::{SharedMemory, SharedTable};

/// Bytes of a slot in front of the block's.
const SLOT_HEAD: u64 = 16;
/// Where the first slot stands: 0 is no slot.
const FIRST: u64 = 64;
const PAGE: u64 = 4096;
/// Memory that is made ready before anybody needs it, at both ends: a writer that needs a page
/// which is not there waits for the kernel.
const AHEAD: [u64; 2] = [512 << 10, 4 << 20];
/// The least memory that a log can do with.
pub const LEAST_LIMIT: u64 = 1 << 20;
/// The most: stacks number slots with 32 bits, by 16 bytes.
pub const MOST_LIMIT: u64 = 16 << 32;

/// What a slot is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SlotClass {
    /// A fine block.
    Fine = 0,
    /// Any other.
    Whole = 1,
}

impl SlotClass {
    const ALL: [Self; 2] = [Self::Fine, Self::Whole];

    /// That of the block at `at`.
    const fn of(at: u64) -> Self {
        if at % CHUNK_SIZE < FINE_BYTES { Self::Fine } else { Self::Whole }
    }
}

/// Why nothing was captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The child has its copy: nothing needs to be.
    Closed,
    /// The log has no room.
    Full,
}

/// A log.
pub struct UndoLog {
    memory: SharedMemory,
    limit: u64,
    /// Bytes of slots.
    slot_bytes: [u64; 2],
    /// Each chunk's newest record.
    heads: SharedTable<AtomicU64>,
    /// Each chunk's records that the child needs no more.
    retired: SharedTable<AtomicU64>,
    /// Bytes handed out, of both ends; one word that the child sees.
    taken: SharedTable<AtomicU64>,
    parents: CachePadded<Parents>,
}

/// What only the parent needs.
#[derive(Default)]
struct Parents {
    /// Bytes handed out from each end.
    ends: [AtomicU64; 2],
    /// Bytes from each end whose memory is ready.
    ready: [AtomicU64; 2],
    /// Slots to be taken again: a number and a slot, 32 bits each.
    free: [AtomicU64; 2],
    /// Slots that were taken again.
    reused: AtomicU64,
}

impl UndoLog {
    /// A log of `limit` bytes for an arena of `chunks` chunks. Its memory is committed as it is
    /// used.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub(super) fn new(limit: u64, chunks: u64, blocks: Blocks) -> io::Result<Self> {
        let limit = limit.clamp(LEAST_LIMIT, MOST_LIMIT) / PAGE * PAGE;
        let words = to_index(chunks);
        Ok(Self {
            memory: SharedMemory::new(to_index(limit))?,
            limit,
            slot_bytes: blocks.sizes().map(|bytes| SLOT_HEAD + bytes),
            heads: SharedTable::new(words)?,
            retired: SharedTable::new(words)?,
            taken: SharedTable::new(1)?,
            parents: CachePadded::default(),
        })
    }

    /// Bytes that it may take.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that it has taken since the fork: its high water, since slots that are taken again are
    /// not counted again.
    pub fn taken(&self) -> u64 {
        self.taken[0].load(Relaxed)
    }

    /// Bytes whose memory is there.
    pub fn committed(&self) -> u64 {
        let parents = &self.parents;
        let end = |i: usize| parents.ends[i].load(Relaxed).max(parents.ready[i].load(Relaxed));
        (end(0) + end(1)).min(self.limit)
    }

    /// Slots that were taken again since the fork.
    pub fn reused(&self) -> u64 {
        self.parents.reused.load(Relaxed)
    }

    /// Whether more than half of the limit is taken: then the child does well to write the chunks
    /// first that change most.
    pub fn above_half(&self) -> bool {
        self.taken() > self.limit / 2
    }

    /// Whether the child has its copy of a chunk.
    #[inline]
    pub fn is_closed(&self, chunk: ChunkIndex) -> bool {
        protocol::is_closed(&self.heads[chunk.0 as usize])
    }

    /// Captures the `len` bytes at `from`, which are the block at `at` of the arena.
    ///
    /// # Safety
    /// The bytes can be read, and the caller holds the lock that guards them.
    pub(super) unsafe fn capture(&self, at: u64, from: *const u8, len: u64) -> Result<(), Refused> {
        let head = &self.heads[ChunkIndex::of(at).0 as usize];
        let class = SlotClass::of(at);
        let Some(slot) = self.take(class) else {
            return Err(if protocol::is_closed(head) { Refused::Closed } else { Refused::Full });
        };
        self.word(slot + 8).store(at, Relaxed);
        let to = self.bytes(slot + SLOT_HEAD, len);
        // SAFETY: the caller's bytes, guarded by its lock; the slot is this thread's (invariants 1
        // and 2).
        unsafe { from.copy_to_nonoverlapping(to, to_index(len)) };
        let link = |next| self.word(slot).store(next, Relaxed);
        if protocol::publish(head, slot, link) {
            return Ok(());
        }
        self.push_free(class, slot);
        Err(Refused::Closed)
    }

    /// Takes a slot: a retired one, or a fresh one.
    fn take(&self, class: SlotClass) -> Option<u64> {
        if let Some(slot) = self.pop_free(class) {
            self.parents.reused.fetch_add(1, Relaxed);
            return Some(slot);
        }
        let bytes = self.slot_bytes[class as usize];
        let room = self.limit - 2 * FIRST;
        let more = |taken: u64| (taken + bytes <= room).then_some(taken + bytes);
        if self.taken[0].fetch_update(Relaxed, Relaxed, more).is_err() {
            return self.pop_free(class);
        }
        // Both ends together are within the limit now, in whatever order threads come here.
        let end = self.parents.ends[class as usize].fetch_add(bytes, Relaxed);
        Some(match class {
            SlotClass::Whole => FIRST + end,
            SlotClass::Fine => self.limit - FIRST - end - bytes,
        })
    }

    fn pop_free(&self, class: SlotClass) -> Option<u64> {
        let head = &self.parents.free[class as usize];
        let mut top = head.load(Acquire);
        loop {
            let slot = (top & u64::from(u32::MAX)) * SLOT_HEAD;
            if slot == NONE {
                return None;
            }
            // Another thread may have taken the slot meanwhile: then the exchange fails.
            let next = self.word(slot).load(Relaxed) / SLOT_HEAD;
            let number = (top >> 32).wrapping_add(1) << 32;
            match head.compare_exchange_weak(top, number | next, AcqRel, Acquire) {
                Ok(_) => return Some(slot),
                Err(now) => top = now,
            }
        }
    }

    /// Gives a slot back.
    fn push_free(&self, class: SlotClass, slot: u64) {
        let head = &self.parents.free[class as usize];
        let mut top = head.load(Relaxed);
        loop {
            self.word(slot).store((top & u64::from(u32::MAX)) * SLOT_HEAD, Relaxed);
            let new = (top >> 32 << 32) | (slot / SLOT_HEAD);
            match head.compare_exchange_weak(top, new, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Ends the capturing of a chunk and puts what was captured of it into `copy`, a copy that was
    /// made before; returns the number of records. For the child: no allocation, no lock.
    pub fn restore(&self, chunk: ChunkIndex, copy: &mut [u8]) -> u64 {
        let Some(head) = self.heads.get(chunk.0 as usize) else { return 0 };
        let chain = protocol::close(head);
        let (mut slot, mut records) = (chain, 0);
        while slot != NONE && slot != CLOSED {
            self.restore_record(slot, chunk, copy);
            slot = self.word(slot).load(Relaxed);
            records += 1;
            if records > self.limit / SLOT_HEAD {
                // More than there is room for: a chain without an end.
                outside();
            }
        }
        // Closed before, its records are the parent's already.
        if let Some(retired) = self.retired.get(chunk.0 as usize).filter(|_| chain != CLOSED) {
            retired.store(chain, Release);
        }
        records
    }

    fn restore_record(&self, slot: u64, chunk: ChunkIndex, copy: &mut [u8]) {
        let at = self.word(slot + 8).load(Relaxed);
        let len = self.slot_bytes[self.class_of(slot) as usize] - SLOT_HEAD;
        let start = to_index(at.wrapping_sub(chunk.start()));
        let Some(to) = start.checked_add(to_index(len)).and_then(|end| copy.get_mut(start..end))
        else {
            return;
        };
        let from = self.bytes(slot + SLOT_HEAD, len);
        // SAFETY: a published record, which nobody changes (invariant 2), of as many bytes as `to`.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
    }

    /// What the slot of a record is for.
    fn class_of(&self, slot: u64) -> SlotClass {
        SlotClass::of(self.word(slot + 8).load(Relaxed))
    }

    /// Makes the slots of chunks that the child is done with free to be taken again. For one thread
    /// of the parent.
    pub fn reclaim(&self) {
        for retired in self.retired.iter().filter(|retired| retired.load(Relaxed) != NONE) {
            let mut slot = retired.swap(NONE, Acquire);
            while slot != NONE {
                let next = self.word(slot).load(Relaxed);
                self.push_free(self.class_of(slot), slot);
                slot = next;
            }
        }
    }

    /// Makes memory ready ahead of the writers, who would wait for the kernel otherwise. For one
    /// thread of the parent.
    pub fn prefault(&self) {
        for class in SlotClass::ALL {
            let ahead = self.ahead(class);
            let ready = self.parents.ready[class as usize].load(Relaxed);
            let wanted = self.parents.ends[class as usize].load(Relaxed) + ahead;
            let wanted = wanted.next_multiple_of(PAGE).min(self.limit);
            if wanted < (ready + ahead / 2).min(self.limit) || wanted <= ready {
                continue;
            }
            let from = match class {
                SlotClass::Whole => ready,
                SlotClass::Fine => self.limit - wanted,
            };
            // Writers that come first, or alone as the kernel cannot, wait for it a page at a time.
            if self.memory.populate(to_index(from), to_index(wanted - ready)).is_ok() {
                self.parents.ready[class as usize].store(wanted, Relaxed);
            }
        }
    }

    /// Bytes that are to be ready before anybody needs them: of a small log no more than a quarter,
    /// so that both ends have room.
    fn ahead(&self, class: SlotClass) -> u64 {
        AHEAD[class as usize].min(self.limit / 4 / PAGE * PAGE)
    }

    /// Forgets all records and gives their memory back to the kernel, but for what the next save
    /// needs ready when it begins. No child has the log, and nobody captures.
    pub(super) fn reset(&self) {
        for table in [&self.heads, &self.retired, &self.taken] {
            super::bits::empty(table);
        }
        let parents = &self.parents;
        let kept = SlotClass::ALL.map(|class| {
            parents.ends[class as usize].store(0, Relaxed);
            let ready = &parents.ready[class as usize];
            ready.store(ready.load(Relaxed).min(self.ahead(class)), Relaxed);
            self.ahead(class)
        });
        let (from, len) = (kept[SlotClass::Whole as usize], self.limit - kept[0] - kept[1]);
        // SAFETY: nobody has a slot. What the kernel does not take is written over.
        let _ = unsafe { self.memory.hand_back(to_index(from), to_index(len)) };
        for word in parents.free.iter().chain([&parents.reused]) {
            word.store(0, Relaxed);
        }
    }

    fn bytes(&self, at: u64, len: u64) -> *mut u8 {
        if at.checked_add(len).is_none_or(|end| end > self.limit) {
            outside();
        }
        self.memory.start().wrapping_add(to_index(at))
    }

    #[inline]
    fn word(&self, at: u64) -> &AtomicU64 {
        let place = self.bytes(at & !7, 8).cast();
        // SAFETY: inside the memory and aligned; slots' heads are used as atomics only, and the
        // memory lives as long as the log.
        unsafe { AtomicU64::from_ptr(place) }
    }
}

/// Ends the process, without a word: a child may not say one.
#[cold]
#[inline(never)]
fn outside() -> ! {
    std::process::abort()
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
