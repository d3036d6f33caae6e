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
//! 4. A unit in `clean`, and a free chunk that is not in `stale`, holds zeros: nothing was written
//!    to it since the kernel gave its memory.
//! 5. A chunk in `huge` was seen on a huge page and has kept its memory since: it is in use or in
//!    `dirty`. The *stock* is the chunks that are in `huge` and `free` and not in `busy`.
//! 6. A chunk in `preparing` is taken only if there is no other. Its memory is not returned to the
//!    kernel meanwhile (`Arena::trimming`), and nothing in it is changed.

use std::io;
use std::ops::Range;
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

/// Units or chunks that were taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TakenMemory {
    /// The chunk, or the first one of a run.
    pub chunk: ChunkIndex,
    /// The first unit; 0 for whole chunks.
    pub unit: u64,
    /// Whether all of it is zero (invariant 4).
    pub is_clean: bool,
}

/// Indexes over the chunk table.
pub(crate) struct ChunkPool {
    free: Vec<u64>,
    dirty: Vec<u64>,
    /// Free chunks whose memory may hold bytes of freed objects.
    stale: Vec<u64>,
    /// By cut chunk: its units that no object was in since the kernel gave the chunk's memory.
    clean: Vec<[u64; 4]>,
    busy: Vec<u64>,
    huge: Vec<u64>,
    /// Chunks that a compaction pass empties: in no bin, and not taken.
    withheld: Vec<u64>,
    withheld_count: u64,
    /// Free units of chunks that are cut.
    cut_free: u64,
    busy_count: u64,
    dirty_count: u64,
    search_from: usize,
    /// No chunk of the stock is in a lower word.
    stock_from: usize,
    preparing: Range<u32>,
    stock: StockState,
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
            stale: vec![0; words],
            clean: <[u64; 4]>::new_vec_zeroed(chunks as usize).map_err(no_memory)?,
            busy: vec![0; words],
            huge: vec![0; words],
            withheld: vec![0; words],
            withheld_count: 0,
            cut_free: 0,
            busy_count: 0,
            dirty_count: 0,
            search_from: 0,
            stock_from: 0,
            preparing: 0..0,
            stock: StockState::default(),
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

    /// Takes `count` neighbouring chunks, the lowest that are free; one chunk comes from the stock
    /// if there is any.
    fn take(&mut self, store: &BackingStore, count: u32) -> Result<TakenMemory, OutOfMemory> {
        let stocked = if count == 1 { self.find_stocked() } else { None };
        let first = stocked.or_else(|| self.find(count)).ok_or(OutOfMemory)?;
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
        let is_clean = (first..first + count).all(|chunk| !bit(&self.stale, chunk));
        for chunk in first..first + count {
            self.count_taken(bit(&self.huge, chunk));
            clear_bit(&mut self.free, chunk);
            clear_bit(&mut self.dirty, chunk);
            clear_bit(&mut self.stale, chunk);
            self.dirty_count -= 1;
            bits::set(&store.present, u64::from(chunk));
            store.set_in_use(ChunkIndex(chunk));
        }
        Ok(TakenMemory { chunk: ChunkIndex(first), unit: 0, is_clean })
    }

    fn find(&mut self, count: u32) -> Option<u32> {
        let spared = self.preparing.clone();
        self.find_sparing(count, spared.clone()).or_else(|| {
            if spared.is_empty() {
                return None;
            }
            self.search_from = 0;
            self.find_sparing(count, 0..0)
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn find_sparing(&mut self, count: u32, spared: Range<u32>) -> Option<u32> {
        let (mut run, mut start) = (0, 0);
        let mut seen_free = false;
        for word in self.search_from..self.free.len() {
            let mut usable = self.free[word] & !self.busy[word] & !self.withheld[word];
            for chunk in spared.clone().filter(|chunk| *chunk as usize / 64 == word) {
                usable &= !(1 << (chunk % 64));
            }
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
            bits::clear(&store.cut, u64::from(chunk));
            set_bit(&mut self.free, chunk);
            set_bit(&mut self.dirty, chunk);
            set_bit(&mut self.stale, chunk);
            if bit(&self.huge, chunk) {
                self.stock.in_use -= 1;
                self.stock.chunks += 1;
            }
        }
        self.stock_from = self.stock_from.min(first.0 as usize / 64);
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

    /// Takes `units` neighbouring units.
    pub(crate) fn take_units(
        &mut self,
        store: &BackingStore,
        units: u64,
    ) -> Result<TakenMemory, OutOfMemory> {
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
        let clean = &mut self.clean[chunk.0 as usize];
        let is_clean = (unit..unit + units).all(|unit| unit_bitmap::get(clean, unit));
        unit_bitmap::clear(clean, unit, units);
        Ok(TakenMemory { chunk, unit, is_clean })
    }

    /// Takes `units` neighbouring units for an object that moves: of a chunk that is cut already,
    /// or with `may_cut` of any.
    pub(crate) fn take_units_elsewhere(
        &mut self,
        store: &BackingStore,
        units: u64,
        may_cut: bool,
    ) -> Option<TakenMemory> {
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

    /// Lets all withheld chunks be taken again; returns them.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    pub(crate) fn end_withholding(&mut self, store: &BackingStore) -> Vec<ChunkIndex> {
        let mut chunks = Vec::new();
        if self.withheld_count == 0 {
            return chunks;
        }
        self.withheld_count = 0;
        self.search_from = 0;
        self.stock_from = 0;
        for word in 0..self.withheld.len() {
            let mut left = std::mem::take(&mut self.withheld[word]);
            while left != 0 {
                let chunk = ChunkIndex(word as u32 * 64 + left.trailing_zeros());
                left &= left - 1;
                chunks.push(chunk);
                // SAFETY: chunk entries are guarded by the pool's lock (invariant 1).
                let entry = unsafe { store.load(chunk.entry()) };
                if entry.state == ChunkState::Units as u8 {
                    // SAFETY: as are heads of cut chunks.
                    let head = unsafe { store.load(chunk.head()) };
                    self.refile(chunk, &head.free);
                }
            }
        }
        chunks
    }

    /// Cuts a fresh chunk into units.
    fn cut(&mut self, store: &BackingStore) -> Result<ChunkIndex, OutOfMemory> {
        let TakenMemory { chunk, is_clean, .. } = self.take(store, 1)?;
        let mut free = [u64::MAX; 4];
        unit_bitmap::clear(&mut free, 0, HEAD_UNITS);
        self.clean[chunk.0 as usize] = if is_clean { free } else { [0; 4] };
        bits::set(&store.cut, u64::from(chunk.0));
        self.cut_free += UNITS_IN_CHUNK;
        for unit in 1..UNITS_PER_CHUNK {
            // SAFETY: the chunk was free: no other thread knows it yet.
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
    ) -> Result<TakenMemory, OutOfMemory> {
        let taken = self.take(store, count)?;
        let first = taken.chunk;
        for i in 0..count {
            let entry = match i {
                0 => ChunkEntry::new(ChunkState::RunHead, count),
                back => ChunkEntry::new(ChunkState::RunTail, back),
            };
            // SAFETY: chunk entries are guarded by the pool's lock (invariant 1).
            unsafe { store.store(ChunkIndex(first.0 + i).entry(), entry) };
        }
        Ok(taken)
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

    /// Marks a free chunk as busy, so that the caller can return its memory to the kernel. Keeps
    /// the stock and `keep` chunks at least.
    pub(crate) fn begin_release(&mut self, barrier: &Barrier, keep: u64) -> Option<ChunkIndex> {
        let idle = self.dirty_count - self.busy_count;
        if idle <= keep.max(u64::from(self.stock.mark)) {
            return None;
        }
        // Small pages first: huge ones serve better.
        let small = if idle > self.stock.chunks { self.highest_idle(barrier, true) } else { None };
        let chunk = small.or_else(|| self.highest_idle(barrier, false))?;
        set_bit(&mut self.busy, chunk.0);
        self.busy_count += 1;
        if bit(&self.huge, chunk.0) {
            self.stock.chunks -= 1;
        }
        Some(chunk)
    }

    /// The highest free chunk with memory that may be returned: the lowest are taken next.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn highest_idle(&self, barrier: &Barrier, small: bool) -> Option<ChunkIndex> {
        for word in (0..self.dirty.len()).rev() {
            let mut left = self.dirty[word] & !self.busy[word];
            if small {
                left &= !self.huge[word];
            }
            while left != 0 {
                let top = 63 - left.leading_zeros();
                let chunk = ChunkIndex(word as u32 * 64 + top);
                if barrier.may_decommit(chunk) {
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
            clear_bit(&mut self.stale, chunk.0);
            self.dirty_count -= 1;
            clear_bit(&mut self.huge, chunk.0);
        } else if bit(&self.huge, chunk.0) {
            self.stock.chunks += 1;
            self.stock_from = self.stock_from.min(chunk.0 as usize / 64);
        }
    }
}

/// The stock's figures.
#[derive(Clone, Copy, Default, Debug)]
struct StockState {
    /// Chunks in it.
    chunks: u64,
    /// Chunks in use on huge pages.
    in_use: u64,
    /// Chunks that it is to hold; 0 without a stock.
    mark: u32,
    /// Chunks taken since the start, and those of them that had no huge page.
    taken: u64,
    taken_small: u64,
    /// Preparing a chunk has failed, or none was left: until the next try no thread waits for one.
    paused: bool,
}

/// The stock of free chunks on huge pages, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StockStats {
    /// Free chunks on huge pages.
    pub chunks: u64,
    /// Chunks in use on huge pages, as far as they were seen to be.
    pub huge_in_use: u64,
    /// Chunks that the stock is to hold.
    pub mark: u32,
    /// Chunks taken since the start.
    pub taken: u64,
    /// Those of them that began on small pages, because the stock was empty.
    pub taken_small: u64,
}

impl ChunkPool {
    pub(crate) const fn stock(&self) -> StockStats {
        let StockState { chunks, in_use, mark, taken, taken_small, .. } = self.stock;
        StockStats { chunks, huge_in_use: in_use, mark, taken, taken_small }
    }

    /// Sets how many chunks the stock is to hold.
    pub(crate) const fn set_stock_mark(&mut self, chunks: u32) {
        self.stock.mark = chunks;
    }

    /// Whether chunks ought to be prepared: half of the stock is gone.
    pub(crate) fn stock_is_low(&self) -> bool {
        !self.stock.paused
            && self.stock.chunks * 2 <= u64::from(self.stock.mark)
            && self.stock.mark > 0
    }

    /// Counts a chunk that begins its use.
    const fn count_taken(&mut self, huge: bool) {
        self.stock.taken += 1;
        if huge {
            self.stock.chunks -= 1;
            self.stock.in_use += 1;
        } else {
            self.stock.taken_small += 1;
        }
    }

    /// Counts chunks that were loaded and adopted; for opening an arena.
    pub(crate) const fn count_loaded(&mut self, chunks: u64, small: u64) {
        self.stock.taken += chunks;
        self.stock.taken_small += small;
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn find_stocked(&mut self) -> Option<u32> {
        if self.stock.chunks == 0 {
            return None;
        }
        for word in self.stock_from..self.free.len() {
            let stocked =
                self.free[word] & self.huge[word] & !self.busy[word] & !self.withheld[word];
            if stocked != 0 {
                self.stock_from = word;
                return Some(word as u32 * 64 + stocked.trailing_zeros());
            }
        }
        None
    }

    /// The chunks that join the stock next, up to `most` neighbours, the lowest free ones; none if
    /// the stock is complete. The caller excludes that memory is returned to the kernel until
    /// [`Self::end_prepare`].
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    pub(crate) fn begin_prepare(&mut self, most: u32) -> Option<Range<u32>> {
        self.stock.paused = false;
        let missing = u64::from(self.stock.mark).saturating_sub(self.stock.chunks) as u32;
        if missing == 0 {
            return None;
        }
        let first = self.search_from;
        let candidates = |word: usize| {
            self.free[word] & !self.huge[word] & !self.busy[word] & !self.withheld[word]
        };
        let word = (first..self.free.len()).find(|&word| candidates(word) != 0);
        self.stock.paused = word.is_none();
        let (word, candidates) = (word?, candidates(word?));
        let first = candidates.trailing_zeros();
        let neighbours = (candidates >> first).trailing_ones();
        let first = word as u32 * 64 + first;
        self.preparing = first..first + neighbours.min(missing).min(most);
        Some(self.preparing.clone())
    }

    /// Ends what [`Self::begin_prepare`] began: the first `huge` of the chunks now lie on huge
    /// pages, and the others could not be helped.
    pub(crate) fn end_prepare(&mut self, huge: u32) {
        let Range { start, end } = std::mem::replace(&mut self.preparing, 0..0);
        self.search_from = self.search_from.min(start as usize / 64);
        self.stock.paused = start + huge < end;
        for chunk in start..start + huge {
            if bit(&self.free, chunk) && !bit(&self.dirty, chunk) {
                set_bit(&mut self.dirty, chunk);
                self.dirty_count += 1;
            }
            self.note_pages(ChunkIndex(chunk), true);
        }
    }

    /// Notes on which pages a chunk was seen; a chunk without memory lies on none.
    pub(crate) fn note_pages(&mut self, chunk: ChunkIndex, huge: bool) {
        let free = bit(&self.free, chunk.0);
        let has_memory = !free || bit(&self.dirty, chunk.0);
        if huge == bit(&self.huge, chunk.0) || !has_memory || bit(&self.busy, chunk.0) {
            return;
        }
        let count = if free { &mut self.stock.chunks } else { &mut self.stock.in_use };
        if huge {
            *count += 1;
            set_bit(&mut self.huge, chunk.0);
            self.stock_from = self.stock_from.min(chunk.0 as usize / 64);
        } else {
            *count -= 1;
            clear_bit(&mut self.huge, chunk.0);
        }
    }
}

/// Whether a descriptor says nothing, as those of free units do.
pub(crate) fn is_blank(descriptor: &UnitDescriptor) -> bool {
    descriptor.as_bytes() == UnitDescriptor::NONE.as_bytes()
}

#[cfg(test)]
#[path = "chunk_pool_tests.rs"]
mod tests;
