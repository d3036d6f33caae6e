//! `ChunkPool`: whole chunks and runs of units, shared by all shards.
//!
//! The persistent state (chunk states, free units) lies in the arena. The pool keeps indexes beside
//! it, which are rebuilt when an arena is opened, so that finding memory writes only to the pages
//! of the memory that is taken.
//!
//! Invariants:
//! 1. Chunk entries and chunk heads change only under the pool's lock, by a caller that holds a
//!    shard's lock too: at a safepoint they stand still.
//! 2. `free` has a bit for exactly the chunks whose state is `Free`; a chunk whose memory is
//!    being returned to the kernel is in `busy` and is not taken.
//! 3. Every chunk in state `Units` with a free unit is in the bin of its longest free run, unless
//!    a compaction pass empties it: then it is in `withheld` and in no bin.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromZeros, IntoBytes as _};

use crate::allocator::unit_bitmap;
use crate::backing_store::BackingStore;
use crate::barrier::Barrier;
use crate::bits;
use crate::layout::{
    CHUNK_SIZE, ChunkEntry, ChunkHead, ChunkIndex, ChunkState, HEAD_UNITS, UNITS_IN_CHUNK,
    UNITS_PER_CHUNK, UnitDescriptor,
};

/// Free chunks that keep their memory for the next allocation, at most.
const KEEP_DIRTY: u64 = 8;
/// In a small arena one of so many chunks does.
const KEEP_SHARE: u64 = 32;
/// No chunk: chunk 0 holds a table and is never in a bin.
const NONE: u32 = 0;
const BINS: usize = 8;

/// There is no room left in the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the arena is full")]
pub struct OutOfMemory;

/// Indexes over the chunk table.
pub(crate) struct ChunkPool {
    free: Vec<u64>,
    dirty: Vec<u64>,
    busy: Vec<u64>,
    /// Chunks that a compaction pass empties: in no bin, and not taken.
    withheld: Vec<u64>,
    withheld_count: u64,
    /// Free units of chunks that are cut.
    cut_free: u64,
    busy_count: u64,
    dirty_count: u64,
    search_from: usize,
    bins: [u32; BINS],
    links: Vec<Link>,
}

/// Zero is a chunk in no bin, so that the links of a large arena cost nothing until they are used.
#[derive(Clone, Copy, FromZeros)]
struct Link {
    next: u32,
    previous: u32,
    /// Number of the bin, plus 1.
    bin: u8,
}

const UNLINKED: Link = Link { next: NONE, previous: NONE, bin: 0 };

fn bit(map: &[u64], index: u32) -> bool {
    map[index as usize / 64] >> (index % 64) & 1 == 1
}

fn set_bit(map: &mut [u64], index: u32) {
    map[index as usize / 64] |= 1 << (index % 64);
}

fn clear_bit(map: &mut [u64], index: u32) {
    map[index as usize / 64] &= !(1 << (index % 64));
}

impl ChunkPool {
    /// An index in which all `chunks` chunks are free and clean.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn new(chunks: u32) -> io::Result<Self> {
        let no_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let words = (chunks as usize).div_ceil(64);
        let mut free = vec![u64::MAX; words];
        if !chunks.is_multiple_of(64) {
            free[words - 1] = (1 << (chunks % 64)) - 1;
        }
        Ok(Self {
            free,
            dirty: vec![0; words],
            busy: vec![0; words],
            withheld: vec![0; words],
            withheld_count: 0,
            cut_free: 0,
            busy_count: 0,
            dirty_count: 0,
            search_from: 0,
            bins: [NONE; BINS],
            links: Link::new_vec_zeroed(chunks as usize).map_err(no_memory)?,
        })
    }

    /// Marks a chunk as in use; for opening an arena.
    pub(crate) fn adopt(&mut self, chunk: ChunkIndex) {
        clear_bit(&mut self.free, chunk.0);
    }

    /// Files a cut chunk under its longest free run; for opening an arena.
    pub(crate) fn adopt_units(&mut self, chunk: ChunkIndex, free: &[u64; 4]) {
        self.cut_free += unit_bitmap::count(free);
        self.refile(chunk, free);
    }

    /// Copies the set of chunks in use.
    pub(crate) fn copy_in_use(&self, to: &[AtomicU64]) {
        for (i, free) in self.free.iter().enumerate() {
            to[i].store(!free & self.valid(i), Ordering::Relaxed);
        }
    }

    /// Copies the set of chunks that have memory: those in use, and those that are free but were
    /// not handed back.
    pub(crate) fn copy_resident(&self, to: &[AtomicU64]) {
        for (i, free) in self.free.iter().enumerate() {
            to[i].store((!free | self.dirty[i]) & self.valid(i), Ordering::Relaxed);
        }
    }

    /// The bits of a word that stand for chunks.
    fn valid(&self, word: usize) -> u64 {
        match self.links.len().saturating_sub(word * 64) {
            64.. => u64::MAX,
            n => (1 << n) - 1,
        }
    }

    /// Takes `count` neighbouring chunks, the lowest that are free.
    fn take(&mut self, store: &BackingStore, count: u32) -> Result<ChunkIndex, OutOfMemory> {
        let first = self.find(count).ok_or(OutOfMemory)?;
        for chunk in first..first + count {
            if !bit(&self.dirty, chunk) {
                store
                    .map
                    .populate(ChunkIndex(chunk).start(), CHUNK_SIZE)
                    .map_err(|_| OutOfMemory)?;
                set_bit(&mut self.dirty, chunk);
                self.dirty_count += 1;
            }
        }
        for chunk in first..first + count {
            clear_bit(&mut self.free, chunk);
            clear_bit(&mut self.dirty, chunk);
            self.dirty_count -= 1;
            bits::set(&store.present, u64::from(chunk));
            store.set_in_use(ChunkIndex(chunk));
        }
        Ok(ChunkIndex(first))
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn find(&mut self, count: u32) -> Option<u32> {
        let (mut run, mut start) = (0, 0);
        let mut seen_free = false;
        for word in self.search_from..self.free.len() {
            let usable = self.free[word] & !self.busy[word] & !self.withheld[word];
            if usable == 0 {
                run = 0;
                continue;
            }
            if !seen_free {
                seen_free = true;
                if self.busy[word] == 0 {
                    self.search_from = word;
                }
            }
            for i in 0..64 {
                if usable >> i & 1 == 0 {
                    run = 0;
                    continue;
                }
                if run == 0 {
                    start = word as u32 * 64 + i;
                }
                run += 1;
                if run == count {
                    return Some(start);
                }
            }
        }
        None
    }

    fn put_back(&mut self, store: &BackingStore, first: ChunkIndex, count: u32) {
        for chunk in first.0..first.0 + count {
            bits::clear(&store.in_use, u64::from(chunk));
            set_bit(&mut self.free, chunk);
            set_bit(&mut self.dirty, chunk);
        }
        self.dirty_count += u64::from(count);
        self.search_from = self.search_from.min(first.0 as usize / 64);
    }

    fn unlink(&mut self, chunk: ChunkIndex) {
        let link = self.links[chunk.0 as usize];
        let Some(bin) = link.bin.checked_sub(1) else { return };
        if link.previous == NONE {
            self.bins[usize::from(bin)] = link.next;
        } else {
            self.links[link.previous as usize].next = link.next;
        }
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        self.links[chunk.0 as usize] = UNLINKED;
    }

    fn refile(&mut self, chunk: ChunkIndex, free: &[u64; 4]) {
        if bit(&self.withheld, chunk.0) {
            return;
        }
        let longest = unit_bitmap::longest(free);
        let bin = longest.checked_ilog2();
        let old = self.links[chunk.0 as usize].bin;
        let filed = bin.map_or(0, |b| b.to_le_bytes()[0] + 1);
        if filed == old {
            return;
        }
        self.unlink(chunk);
        if let Some(bin) = bin {
            let head = self.bins[bin as usize];
            self.links[chunk.0 as usize] = Link { next: head, previous: NONE, bin: filed };
            if head != NONE {
                self.links[head as usize].previous = chunk.0;
            }
            self.bins[bin as usize] = chunk.0;
        }
    }

    /// A cut chunk with `units` free neighbouring units.
    fn with_room(&self, store: &BackingStore, units: u64) -> Option<ChunkIndex> {
        let sure = units.next_power_of_two().ilog2() as usize;
        let perhaps = units.ilog2() as usize;
        if perhaps < sure {
            let mut next = self.bins[perhaps];
            for _ in 0..4 {
                if next == NONE {
                    break;
                }
                // SAFETY: heads of cut chunks are guarded by the pool's lock (invariant 1).
                let head = unsafe { store.load(ChunkIndex(next).head()) };
                if unit_bitmap::longest(&head.free) >= units {
                    return Some(ChunkIndex(next));
                }
                next = self.links[next as usize].next;
            }
        }
        self.bins.get(sure..)?.iter().find(|&&head| head != NONE).map(|&head| ChunkIndex(head))
    }

    /// Takes `units` neighbouring units; returns the chunk and the first unit's number.
    pub(crate) fn take_units(
        &mut self,
        store: &BackingStore,
        units: u64,
    ) -> Result<(ChunkIndex, u64), OutOfMemory> {
        let chunk = match self.with_room(store, units) {
            Some(chunk) => chunk,
            None => self.cut(store)?,
        };
        // SAFETY: heads of cut chunks are guarded by the pool's lock (invariant 1).
        let mut head = unsafe { store.load(chunk.head()) };
        let unit = unit_bitmap::find(&head.free, units)
            .expect("invariant: a chunk in this bin has a free run of so many units");
        unit_bitmap::clear(&mut head.free, unit, units);
        self.cut_free -= units;
        // SAFETY: as above.
        unsafe { store.store(chunk.head(), head) };
        self.refile(chunk, &head.free);
        Ok((chunk, unit))
    }

    /// Takes `units` neighbouring units for an object that moves: of a chunk that is cut already,
    /// or with `may_cut` of any.
    pub(crate) fn take_units_elsewhere(
        &mut self,
        store: &BackingStore,
        units: u64,
        may_cut: bool,
    ) -> Option<(ChunkIndex, u64)> {
        if !may_cut {
            self.with_room(store, units)?;
        }
        self.take_units(store, units).ok()
    }

    /// Whether a cut chunk has `units` neighbouring free units.
    pub(crate) fn has_units(&self, store: &BackingStore, units: u64) -> bool {
        self.with_room(store, units).is_some()
    }

    /// Whether `count` neighbouring chunks are free, those included that a pass has emptied.
    pub(crate) fn has_run(&self, count: u64) -> bool {
        let mut run = 0;
        for (word, free) in self.free.iter().enumerate() {
            let free = free & self.valid(word);
            if free == 0 {
                run = 0;
            }
            for i in 0..64 {
                run = if free >> i & 1 == 1 { run + 1 } else { 0 };
                if run >= count {
                    return true;
                }
            }
        }
        false
    }

    /// Units that are free, those of free chunks included.
    pub(crate) fn free_units(&self) -> u64 {
        let words = self.free.iter().enumerate();
        let chunks: u32 = words.map(|(i, free)| (free & self.valid(i)).count_ones()).sum();
        self.cut_free + u64::from(chunks) * UNITS_IN_CHUNK
    }

    /// Keeps a chunk from being taken, and its free units too.
    pub(crate) fn withhold(&mut self, chunk: ChunkIndex) {
        if !bit(&self.withheld, chunk.0) {
            self.unlink(chunk);
            set_bit(&mut self.withheld, chunk.0);
            self.withheld_count += 1;
        }
    }

    /// Whether any chunk is withheld.
    pub(crate) const fn is_withholding(&self) -> bool {
        self.withheld_count > 0
    }

    /// Lets all withheld chunks be taken again; tells whether there were any.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    pub(crate) fn end_withholding(&mut self, store: &BackingStore) -> bool {
        if self.withheld_count == 0 {
            return false;
        }
        self.withheld_count = 0;
        self.search_from = 0;
        for word in 0..self.withheld.len() {
            let mut left = std::mem::take(&mut self.withheld[word]);
            while left != 0 {
                let chunk = ChunkIndex(word as u32 * 64 + left.trailing_zeros());
                left &= left - 1;
                // SAFETY: chunk entries are guarded by the pool's lock (invariant 1).
                let entry = unsafe { store.load(chunk.entry()) };
                if entry.state == ChunkState::Units as u8 {
                    // SAFETY: as are heads of cut chunks.
                    let head = unsafe { store.load(chunk.head()) };
                    self.refile(chunk, &head.free);
                }
            }
        }
        true
    }

    /// Cuts a fresh chunk into units.
    fn cut(&mut self, store: &BackingStore) -> Result<ChunkIndex, OutOfMemory> {
        let chunk = self.take(store, 1)?;
        let mut free = [u64::MAX; 4];
        unit_bitmap::clear(&mut free, 0, HEAD_UNITS);
        self.cut_free += UNITS_IN_CHUNK;
        for unit in 1..UNITS_PER_CHUNK {
            // SAFETY: the chunk was free: nobody else knows it yet.
            unsafe { store.store(chunk.descriptor(unit), UnitDescriptor::NONE) };
        }
        // SAFETY: as above.
        unsafe { store.store(chunk.head(), ChunkHead { free, reserved: [0; 4] }) };
        // SAFETY: chunk entries are guarded by the pool's lock (invariant 1).
        unsafe { store.store(chunk.entry(), ChunkEntry::new(ChunkState::Units, 0)) };
        self.refile(chunk, &free);
        Ok(chunk)
    }

    /// Takes units back; a chunk with no unit in use falls free.
    pub(crate) fn put_units(
        &mut self,
        store: &BackingStore,
        chunk: ChunkIndex,
        unit: u64,
        units: u64,
    ) {
        // SAFETY: heads of cut chunks are guarded by the pool's lock (invariant 1).
        let mut head = unsafe { store.load(chunk.head()) };
        unit_bitmap::set(&mut head.free, unit, units);
        self.cut_free += units;
        if unit_bitmap::count(&head.free) == UNITS_IN_CHUNK {
            self.unlink(chunk);
            self.cut_free -= UNITS_IN_CHUNK;
            // SAFETY: chunk entries are guarded by the pool's lock (invariant 1).
            unsafe { store.store(chunk.entry(), ChunkEntry::new(ChunkState::Free, 0)) };
            self.put_back(store, chunk, 1);
            return;
        }
        // SAFETY: as above.
        unsafe { store.store(chunk.head(), head) };
        self.refile(chunk, &head.free);
    }

    /// Takes a run of whole chunks for one object.
    pub(crate) fn take_run(
        &mut self,
        store: &BackingStore,
        count: u32,
    ) -> Result<ChunkIndex, OutOfMemory> {
        let first = self.take(store, count)?;
        for i in 0..count {
            let entry = match i {
                0 => ChunkEntry::new(ChunkState::RunHead, count),
                back => ChunkEntry::new(ChunkState::RunTail, back),
            };
            // SAFETY: chunk entries are guarded by the pool's lock (invariant 1).
            unsafe { store.store(ChunkIndex(first.0 + i).entry(), entry) };
        }
        Ok(first)
    }

    /// Takes a run of whole chunks back.
    pub(crate) fn put_run(&mut self, store: &BackingStore, first: ChunkIndex, count: u32) {
        for i in 0..count {
            let entry = ChunkEntry::new(ChunkState::Free, 0);
            // SAFETY: chunk entries are guarded by the pool's lock (invariant 1).
            unsafe { store.store(ChunkIndex(first.0 + i).entry(), entry) };
        }
        self.put_back(store, first, count);
    }
}

impl ChunkPool {
    /// Free chunks that keep their memory.
    pub(crate) fn kept(&self) -> u64 {
        (self.links.len() as u64 / KEEP_SHARE).clamp(1, KEEP_DIRTY)
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    pub(crate) fn begin_release(&mut self, barrier: &Barrier, keep: u64) -> Option<ChunkIndex> {
        if self.dirty_count - self.busy_count <= keep {
            return None;
        }
        // The highest first: the lowest are taken next.
        for word in (0..self.dirty.len()).rev() {
            let mut left = self.dirty[word] & !self.busy[word];
            while left != 0 {
                let top = 63 - left.leading_zeros();
                let chunk = ChunkIndex(word as u32 * 64 + top);
                if barrier.may_decommit(chunk) {
                    set_bit(&mut self.busy, chunk.0);
                    self.busy_count += 1;
                    return Some(chunk);
                }
                left &= !(1 << top);
            }
        }
        None
    }

    /// Whether the memory of a chunk is being returned.
    pub(crate) const fn is_releasing(&self) -> bool {
        self.busy_count > 0
    }

    pub(crate) fn end_release(&mut self, chunk: ChunkIndex, released: bool) {
        clear_bit(&mut self.busy, chunk.0);
        self.busy_count -= 1;
        self.search_from = self.search_from.min(chunk.0 as usize / 64);
        if released {
            clear_bit(&mut self.dirty, chunk.0);
            self.dirty_count -= 1;
        }
    }
}

/// Whether a descriptor says nothing, as those of free units do.
pub(crate) fn is_blank(descriptor: &UnitDescriptor) -> bool {
    descriptor.as_bytes() == UnitDescriptor::NONE.as_bytes()
}
