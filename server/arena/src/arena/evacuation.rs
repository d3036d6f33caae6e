//! Evacuation: objects move out of sparse slabs and chunks, so that whole chunks become free.
//!
//! A *compaction pass* chooses what is to be emptied ([`CompactionPlan`]), marks it, and lets the
//! layers above offer every object that they refer to: [`Mem::evacuate`] moves the object if it
//! lies in a marked place and a better one exists.
//!
//! ```text
//!   plan_compaction --> begin_compaction --> per shard: begin_evacuation, evacuate ... --.
//!   (reads hints)       (chunks marked)      (slabs withheld)                            |
//!                                      end_compaction, end_evacuation in each shard  <---'
//! ```
//!
//! | mark | where | guarded by |
//! |---|---|---|
//! | objects of the unit are to move | `sources`, a bit a unit | nothing: a hint |
//! | the slab is in no list, though not full | `withheld`, a bit a unit | the shard's lock |
//! | the chunk is in no bin and is not taken | the pool's `withheld` | the pool's lock |
//!
//! Nothing of this is in the arena: an image knows no compaction.
//!
//! Invariants:
//! 1. A slab with a free object is in its shard's list or withheld, never both.
//! 2. Withheld slabs of a shard are in `shards`, which may name slabs that are gone: the bit and
//!    the slab's entry in `ObjectWords` decide.
//! 3. An allocation that finds no memory takes withheld memory before it fails. If that is enough,
//!    it ends the marks that kept it withheld; otherwise the pass goes on.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Arena;
use super::compaction_plan::CompactionPlan;
use super::mem::Mem;
use crate::allocator::chunk_pool::TakenMemory;
use crate::allocator::size_classes::{CLASSES, MAX_RUN_OBJECT, SizeClass, large_size};
use crate::allocator::slab_lists::{NONE, split_unit_number};
use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex, SHARDS, UNIT_SIZE, UNITS_PER_CHUNK, index};
use crate::memory::side_tables::SideTable;

/// What compaction has done since the arena was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CompactionStats {
    /// Objects that were moved.
    pub moved: u64,
    /// Objects that had to stay in a place that was to be emptied: no better one had room.
    pub missed: u64,
    /// Bytes of the objects that were moved.
    pub moved_bytes: u64,
}

/// The marks of the pass that runs.
pub(crate) struct Evacuation {
    sources: SideTable<AtomicU64>,
    withheld: SideTable<AtomicU64>,
    /// Chunks that the pass empties, a bit for each; changes with the pool's `withheld`.
    chunks: SideTable<AtomicU64>,
    shards: Box<[Mutex<ShardMarks>; SHARDS]>,
    /// Whether evacuation may cut free chunks.
    may_cut: AtomicBool,
    /// The longest object that is moved.
    most: AtomicU64,
    /// Whether an allocation has ended the pass's marks.
    cancelled: AtomicBool,
    moved: AtomicU64,
    missed: AtomicU64,
    moved_bytes: AtomicU64,
}

/// What a pass has marked in one shard.
struct ShardMarks {
    withheld: Vec<u32>,
    /// Classes of which objects may move to slabs of a larger class.
    promoted: [bool; CLASSES],
}

impl Evacuation {
    pub(super) fn new(capacity: u64) -> io::Result<Self> {
        let bits = |count: u64| SideTable::new(index(count.div_ceil(64)));
        let marks = || Mutex::new(ShardMarks { withheld: Vec::new(), promoted: [false; CLASSES] });
        Ok(Self {
            sources: bits(capacity / UNIT_SIZE)?,
            withheld: bits(capacity / UNIT_SIZE)?,
            chunks: bits(capacity / CHUNK_SIZE)?,
            shards: Box::new(std::array::from_fn(|_| marks())),
            may_cut: AtomicBool::new(false),
            most: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            moved_bytes: AtomicU64::new(0),
        })
    }

    /// Notes that an allocation has taken what the pass withheld.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    #[inline]
    fn is_source(&self, at: u64) -> bool {
        bits::get(&self.sources, at / UNIT_SIZE)
    }

    fn is_source_chunk(&self, chunk: ChunkIndex) -> bool {
        bits::get(&self.chunks, u64::from(chunk.0))
    }

    fn mark(&self, first_unit: u64, units: u64, is_source: bool) {
        for unit in first_unit..first_unit + units {
            match is_source {
                true => drop(bits::set(&self.sources, unit)),
                false => bits::clear(&self.sources, unit),
            }
        }
    }

    /// Takes the mark off a slab that is gone or goes back to its list; tells whether it was
    /// withheld. The shard's lock is held.
    pub(super) fn release_slab(&self, slab: u32, units: u64) -> bool {
        let number = u64::from(slab);
        if !bits::get(&self.withheld, number) {
            return false;
        }
        bits::clear(&self.withheld, number);
        if !self.is_source_chunk(split_unit_number(slab).0) {
            self.mark(number, units, false);
        }
        true
    }

    /// Notes that a slab of a place to be emptied has a free object now; false if the slab is in no
    /// such place, and belongs into its list. The shard's lock is held.
    pub(super) fn withhold(&self, shard: usize, slab: u32) -> bool {
        if !bits::get(&self.sources, u64::from(slab)) {
            return false;
        }
        if !bits::set(&self.withheld, u64::from(slab)) {
            self.shards[shard].lock().withheld.push(slab);
        }
        true
    }
}

impl Arena {
    /// Marks the chunks of a plan; objects of up to `most` bytes will be moved. The shards' slabs
    /// are marked by [`Mem::begin_evacuation`].
    pub fn begin_compaction(&self, plan: &CompactionPlan, most: u64) {
        let evacuation = &self.evacuation;
        evacuation.cancelled.store(false, Relaxed);
        evacuation.may_cut.store(plan.may_cut, Relaxed);
        evacuation.most.store(most, Relaxed);
        for &chunk in &plan.chunks {
            let mut pool = self.pool.lock();
            pool.withhold(chunk);
            bits::set(&evacuation.chunks, u64::from(chunk.0));
            evacuation.mark(u64::from(chunk.0) * UNITS_PER_CHUNK, UNITS_PER_CHUNK, true);
        }
    }

    /// Ends the marks of a plan's chunks. Afterwards each shard's must be ended with
    /// [`Mem::end_evacuation`].
    pub fn end_compaction(&self, plan: &CompactionPlan) {
        let evacuation = &self.evacuation;
        self.pool.lock().end_withholding(&self.store);
        for &chunk in &plan.chunks {
            bits::clear(&evacuation.chunks, u64::from(chunk.0));
            evacuation.mark(u64::from(chunk.0) * UNITS_PER_CHUNK, UNITS_PER_CHUNK, false);
        }
    }

    /// Whether an allocation has ended the marks of the pass that runs, for want of memory.
    pub fn compaction_is_cancelled(&self) -> bool {
        self.evacuation.cancelled.load(Relaxed)
    }

    /// What compaction has done since the arena was opened.
    pub fn compaction_stats(&self) -> CompactionStats {
        let evacuation = &self.evacuation;
        CompactionStats {
            moved: evacuation.moved.load(Relaxed),
            missed: evacuation.missed.load(Relaxed),
            moved_bytes: evacuation.moved_bytes.load(Relaxed),
        }
    }

    /// Bytes that belong to no slab and no large object.
    pub fn free_bytes(&self) -> u64 {
        self.pool.lock().free_units() * UNIT_SIZE
    }

    /// Whether the pool has memory in one piece for an object of `len` bytes, a slab if it is
    /// small.
    pub fn has_contiguous(&self, len: u64) -> bool {
        let bytes = crate::contiguous_bytes_for(len);
        let pool = self.pool.lock();
        if bytes <= MAX_RUN_OBJECT && pool.has_units(&self.store, bytes / UNIT_SIZE) {
            return true;
        }
        pool.has_run(bytes.div_ceil(CHUNK_SIZE))
    }
}

impl Mem<'_> {
    /// Marks up to `most` slabs of this shard that the plan empties; false once all are marked.
    pub fn begin_evacuation(&mut self, plan: &mut CompactionPlan, most: usize) -> bool {
        let shard = self.shard;
        let part = &mut plan.shards[shard.get()];
        let evacuation = &self.arena.evacuation;
        evacuation.shards[shard.get()].lock().promoted = part.promoted;
        let rest = part.slabs.len().saturating_sub(most);
        for slab in part.slabs.split_off(rest) {
            // The plan is made of hints: only a slab of this shard in its list is marked.
            let Some((class, used)) = self.own_slab(slab) else { continue };
            let is_linked =
                used < class.objects() && !bits::get(&evacuation.withheld, u64::from(slab));
            if !is_linked {
                continue;
            }
            evacuation.mark(u64::from(slab), class.units(), true);
            self.arena.slabs.unlink(shard, class, slab);
            evacuation.withhold(shard.get(), slab);
        }
        !part.slabs.is_empty()
    }

    /// Puts the slabs of this shard that are still marked back into their lists.
    pub fn end_evacuation(&mut self) {
        let shard = self.shard;
        let evacuation = &self.arena.evacuation;
        let withheld = {
            let mut marks = evacuation.shards[shard.get()].lock();
            marks.promoted = [false; CLASSES];
            std::mem::take(&mut marks.withheld)
        };
        for slab in withheld {
            // A slab of another shard may stand where one of this shard was.
            let Some((class, _)) = self.own_slab(slab) else { continue };
            if evacuation.release_slab(slab, class.units()) {
                self.arena.slabs.link(shard, class, slab);
            }
        }
    }

    /// The class and the objects of the slab that begins at a unit, if it is one of this shard.
    fn own_slab(&self, slab: u32) -> Option<(SizeClass, u64)> {
        let class = self.arena.words.slab_of(u64::from(slab) * UNIT_SIZE, self.shard)?;
        let (chunk, unit) = split_unit_number(slab);
        Some((class, u64::from(self.read(chunk.descriptor(unit)).used)))
    }

    /// Whether the object at `at` lies in a place that a pass empties.
    #[inline]
    pub fn is_source(&self, at: u64) -> bool {
        self.arena.evacuation.is_source(at)
    }

    /// Moves the object of `len` bytes at `at` if it lies in a place that is to be emptied and a
    /// better one has room; returns its new offset, for the caller to write wherever it refers to
    /// the old one.
    #[inline]
    pub fn evacuate(&mut self, at: u64, len: u64) -> Option<u64> {
        let to = self.copy_out(at, len)?;
        self.release(at, len);
        Some(to)
    }

    /// As [`Self::evacuate`], but the old object stays: the caller releases it, or the new one if
    /// it cannot refer to that.
    #[inline]
    pub fn copy_out(&mut self, at: u64, len: u64) -> Option<u64> {
        if !self.is_source(at) {
            return None;
        }
        self.copy_elsewhere(at, len)
    }

    fn copy_elsewhere(&mut self, at: u64, len: u64) -> Option<u64> {
        let evacuation = &self.arena.evacuation;
        let to = match len <= evacuation.most.load(Relaxed) {
            true => self.allocate_elsewhere(at, len),
            false => None,
        };
        let Some(to) = to else {
            evacuation.missed.fetch_add(1, Relaxed);
            return None;
        };
        evacuation.moved.fetch_add(1, Relaxed);
        evacuation.moved_bytes.fetch_add(len, Relaxed);
        self.copy(at, to, len);
        // The bytes behind its length are zero (invariant 3 of `objects`).
        let size = self.slab_class_at(to).map_or_else(|| large_size(len), SizeClass::size);
        if size > len {
            self.bytes_mut(to + len, size - len).fill(0);
        }
        Some(to)
    }

    /// Takes `len` bytes in a place that no pass empties.
    fn allocate_elsewhere(&mut self, at: u64, len: u64) -> Option<u64> {
        let chunk = ChunkIndex::of(at);
        let Some(class) = SizeClass::of(len) else {
            return self.allocate_large_elsewhere(chunk, len);
        };
        // The slab that is emptied may be of a larger class than its objects: of their coarse one,
        // or of one that an earlier pass has moved them to.
        let from = self.slab_class_at(at)?;
        let is_promoted =
            self.arena.evacuation.shards[self.shard.get()].lock().promoted[from.index()];
        let last = if is_promoted { CLASSES } else { from.index() + 1 };
        let larger = (class.index() + 1..last).filter_map(SizeClass::from_index);
        let fitting = larger.filter(|larger| class.fits_slab_of(*larger));
        for slab_class in std::iter::once(class).chain(fitting) {
            if let Some(object) = self.take_listed(slab_class) {
                if slab_class != class {
                    self.arena.slabs.coarse_taken(self.shard, class);
                }
                return Some(object);
            }
        }
        // A slab in a chunk that stays is no better than another one there.
        if !self.arena.evacuation.is_source_chunk(chunk) {
            return None;
        }
        let slab = self.new_slab_elsewhere(class)?;
        Some(self.take_object(slab, class))
    }

    /// An object of a slab in the list of a class.
    fn take_listed(&mut self, class: SizeClass) -> Option<u64> {
        match self.arena.slabs.first(self.shard, class) {
            NONE => None,
            slab => Some(self.take_object(slab, class)),
        }
    }

    fn new_slab_elsewhere(&mut self, class: SizeClass) -> Option<u32> {
        let TakenMemory { chunk, unit, .. } = self.take_units_elsewhere(class.units())?;
        self.format_slab(chunk, unit, class).ok()
    }

    fn take_units_elsewhere(&self, units: u64) -> Option<TakenMemory> {
        let may_cut = self.arena.evacuation.may_cut.load(Relaxed);
        self.arena.pool.lock().take_units_elsewhere(&self.arena.store, units, may_cut)
    }

    fn allocate_large_elsewhere(&mut self, chunk: ChunkIndex, len: u64) -> Option<u64> {
        let size = large_size(len);
        if len <= MAX_RUN_OBJECT {
            let TakenMemory { chunk, unit, .. } = self.take_units_elsewhere(size / UNIT_SIZE)?;
            return self.format_unit_run(chunk, unit, size).ok();
        }
        let count = u32::try_from(size / CHUNK_SIZE).ok()?;
        let to = self.arena.pool.lock().take_run(&self.arena.store, count).ok()?;
        debug_assert_ne!(to.chunk, chunk, "a chunk in use is not taken");
        self.format_chunk_run(to.chunk, size).ok()
    }
}
