//! Records of the undo log: memory that parent and child share, with what was in the blocks that
//! the parent has changed since the fork.
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
//! A slot holds one record. The records of a chunk form a chain. When the child has written the
//! chunk it moves the chain to `retired`, from where the parent returns the slots to its stacks of
//! free slots (`log`). `protocol` proves that an image is exact; this file only places the records.
//!
//! Invariants that unsafe code cites:
//! 1. Slots lie inside the memory, at multiples of 16, and do not overlap: what is allocated from
//!    both ends together never exceeds the limit.
//! 2. A slot belongs to the thread that has taken it until it is published; a published record is
//!    immutable until it is retired.
//! 3. The child takes no slot and frees none.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::blocks::{Blocks, FINE_BYTES};
use super::protocol::{self, CLOSED, NONE};
use crate::layout::{CHUNK_SIZE, ChunkIndex, index as to_index};
use crate::memory::side_tables::{SharedMemory, SharedTable};

/// Bytes of a slot in front of the block's.
pub(super) const SLOT_HEAD: u64 = 16;
/// Offset of the first slot: 0 is no slot.
pub(super) const FIRST: u64 = 64;
pub(super) const PAGE: u64 = 4096;
/// The smallest limit of a log in bytes.
pub const MIN_LIMIT: u64 = 1 << 20;
/// The largest: the stacks number slots with 32 bits, in units of 16 bytes.
pub const MAX_LIMIT: u64 = 16 << 32;

/// The two kinds of slots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotClass {
    /// For a fine block.
    Fine = 0,
    /// For any other block.
    Whole = 1,
}

impl SlotClass {
    pub(super) const ALL: [Self; 2] = [Self::Fine, Self::Whole];

    /// The class of the block at `at`.
    pub(super) const fn of(at: u64) -> Self {
        if at % CHUNK_SIZE < FINE_BYTES { Self::Fine } else { Self::Whole }
    }
}

/// Why a block was not captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotCaptured {
    /// The child has its copy of the chunk: no capture is needed.
    Closed,
    /// The log is full.
    Full,
}

/// The records and the chain of each chunk, as both parent and child see them.
pub(crate) struct Records {
    memory: SharedMemory,
    limit: u64,
    /// Bytes of a slot, by class.
    slot_bytes: [u64; 2],
    /// Each chunk's newest record.
    heads: SharedTable<AtomicU64>,
    /// Each chunk's records that the child needs no more.
    retired: SharedTable<AtomicU64>,
    /// Bytes allocated from both ends: one word.
    allocated: SharedTable<AtomicU64>,
}

impl Records {
    /// Room for `limit` bytes of records of `chunks` chunks. Memory is committed as it is used.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub(super) fn new(limit: u64, chunks: u64, blocks: Blocks) -> io::Result<Self> {
        let limit = limit.clamp(MIN_LIMIT, MAX_LIMIT) / PAGE * PAGE;
        let words = to_index(chunks);
        Ok(Self {
            memory: SharedMemory::new(to_index(limit))?,
            limit,
            slot_bytes: blocks.sizes().map(|bytes| SLOT_HEAD + bytes),
            heads: SharedTable::new(words)?,
            retired: SharedTable::new(words)?,
            allocated: SharedTable::new(1)?,
        })
    }

    /// Bytes that the log may take.
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes of a slot of a class.
    pub(super) const fn slot_bytes(&self, class: SlotClass) -> u64 {
        self.slot_bytes[class as usize]
    }

    /// The memory of the slots.
    pub(super) const fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Bytes allocated since the fork, from both ends: the log's high water, since a reused slot is
    /// not counted again.
    pub(super) fn allocated(&self) -> u64 {
        self.allocated[0].load(Relaxed)
    }

    /// Adds the bytes of a slot to those allocated; false if the limit leaves no room.
    pub(super) fn allocate(&self, class: SlotClass) -> bool {
        let bytes = self.slot_bytes(class);
        let room = self.limit - 2 * FIRST;
        let more = |allocated: u64| (allocated + bytes <= room).then_some(allocated + bytes);
        self.allocated[0].fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Whether more than half of the limit is allocated: the child then writes the chunks with the
    /// most captures first.
    pub(crate) fn above_half(&self) -> bool {
        self.allocated() > self.limit / 2
    }

    /// Whether the child has its copy of a chunk.
    #[inline]
    pub(crate) fn is_closed(&self, chunk: ChunkIndex) -> bool {
        protocol::is_closed(&self.heads[chunk.0 as usize])
    }

    /// Writes the record of the `len` bytes at `from`, which are the block at `at`, into a slot and
    /// publishes it; false if the chunk is closed: the slot is the caller's again.
    ///
    /// # Safety
    /// The bytes can be read, the caller holds the lock that guards them, and has taken the slot.
    pub(super) unsafe fn publish(&self, slot: u64, at: u64, from: *const u8, len: u64) -> bool {
        self.word(slot + 8).store(at, Relaxed);
        let to = self.bytes(slot + SLOT_HEAD, len);
        // SAFETY: the caller's bytes, guarded by its lock; the slot is this thread's (invariants 1
        // and 2).
        unsafe { from.copy_to_nonoverlapping(to, to_index(len)) };
        let head = &self.heads[ChunkIndex::of(at).0 as usize];
        protocol::publish(head, slot, |next| self.word(slot).store(next, Relaxed))
    }

    /// Closes a chunk and writes what was captured of it into `copy`, a copy that was made before;
    /// returns the number of records. For the child: no allocation, no lock.
    pub(crate) fn restore(&self, chunk: ChunkIndex, copy: &mut [u8]) -> u64 {
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
        // The records of a chunk that was closed before are the parent's already.
        if let Some(retired) = self.retired.get(chunk.0 as usize).filter(|_| chain != CLOSED) {
            retired.store(chain, Release);
        }
        records
    }

    fn restore_record(&self, slot: u64, chunk: ChunkIndex, copy: &mut [u8]) {
        let at = self.word(slot + 8).load(Relaxed);
        let len = self.slot_bytes(self.class_of(slot)) - SLOT_HEAD;
        let start = to_index(at.wrapping_sub(chunk.start()));
        let Some(to) = start.checked_add(to_index(len)).and_then(|end| copy.get_mut(start..end))
        else {
            return;
        };
        let from = self.bytes(slot + SLOT_HEAD, len);
        // SAFETY: a published record, which is immutable (invariant 2), of as many bytes as `to`.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
    }

    /// The class of the slot of a record.
    fn class_of(&self, slot: u64) -> SlotClass {
        SlotClass::of(self.word(slot + 8).load(Relaxed))
    }

    /// Passes each retired slot to `free`. For one thread of the parent.
    pub(super) fn take_retired(&self, free: impl Fn(SlotClass, u64)) {
        for retired in self.retired.iter().filter(|retired| retired.load(Relaxed) != NONE) {
            let mut slot = retired.swap(NONE, Acquire);
            while slot != NONE {
                let next = self.word(slot).load(Relaxed);
                free(self.class_of(slot), slot);
                slot = next;
            }
        }
    }

    /// Forgets all records and returns the memory between the bytes kept at each end to the kernel.
    /// No child has the log, and no thread captures.
    pub(super) fn reset(&self, kept: [u64; 2]) {
        for table in [&self.heads, &self.retired, &self.allocated] {
            crate::bits::empty(table);
        }
        let from = kept[SlotClass::Whole as usize];
        let len = self.limit - kept[0] - kept[1];
        // SAFETY: no thread has a slot. Memory that the kernel does not take is written over.
        let _ = unsafe { self.memory.hand_back(to_index(from), to_index(len)) };
    }

    fn bytes(&self, at: u64, len: u64) -> *mut u8 {
        if at.checked_add(len).is_none_or(|end| end > self.limit) {
            outside();
        }
        self.memory.start().wrapping_add(to_index(at))
    }

    /// The word at `at` of the slots.
    #[inline]
    pub(super) fn word(&self, at: u64) -> &AtomicU64 {
        let place = self.bytes(at & !7, 8).cast();
        // SAFETY: inside the memory and aligned; the heads of slots are used as atomics only, and
        // the memory lives as long as the log.
        unsafe { AtomicU64::from_ptr(place) }
    }
}

/// Ends the process without a message: a child may not format one.
#[cold]
#[inline(never)]
fn outside() -> ! {
    std::process::abort()
}
