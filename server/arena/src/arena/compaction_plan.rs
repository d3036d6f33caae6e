//! Which slabs and chunks a compaction pass empties.
//!
//! The plan is made of hints: descriptors are read without their locks. Whatever has changed when a
//! slab or an object is visited under its lock is left as it is.
//!
//! Slabs: of each shard and class, the fullest partly used slabs that hold all objects of the
//! others stay. The last of them is emptied too if its objects fit into free ones of a somewhat
//! larger class: a shard with a few objects of each of many sizes needs a few slabs, not one for
//! each.
//!
//! Chunks: either the sparsest ones, if the others have free units for theirs, or the
//! neighbouring chunks with the least in them that an object of several chunks needs.

use super::Arena;
use super::racy::RacyView;
use crate::allocator::size_classes::{CLASSES, SizeClass, is_near_enough};
use crate::allocator::slab_lists::unit_number;
use crate::layout::{
    CHUNK_SIZE, ChunkIndex, ChunkState, HEAD_UNITS, SHARDS, UNITS_IN_CHUNK, UNITS_PER_CHUNK,
    UnitKind, index,
};
use crate::shard::{ShardIndex, ShardSet};

/// A chunk with more units in use is not worth emptying for the few that are free.
const MAX_USED_UNITS: u64 = UNITS_IN_CHUNK * 7 / 8;
/// Units to move for a chunk of tables, which cannot move: more than any window without one has.
const TABLE_COST: u64 = u32::MAX as u64;

/// What a compaction pass is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompactionGoal {
    /// As few chunks in use as possible.
    FewerChunks,
    /// So many neighbouring chunks that are free.
    Contiguous(u64),
}

/// What a compaction pass empties.
#[derive(Debug)]
pub struct CompactionPlan {
    pub(super) chunks: Vec<ChunkIndex>,
    pub(super) shards: Vec<ShardPlan>,
    pub(super) may_cut: bool,
    /// Shards that may have objects to move.
    affected: ShardSet,
    chunks_in_use: u64,
    units_in_use: u64,
}

/// The slabs of one shard that a pass empties.
#[derive(Clone, Debug)]
pub(super) struct ShardPlan {
    pub slabs: Vec<u32>,
    /// Classes of which objects may move to slabs of a larger class.
    pub promoted: [bool; CLASSES],
}

impl CompactionPlan {
    /// Shards that may have objects to move.
    pub const fn affected(&self) -> ShardSet {
        self.affected
    }

    /// A measure of the memory in use before the pass: chunks, and units in them. A pass after
    /// which the next plan has not less is of no use.
    pub const fn in_use(&self) -> (u64, u64) {
        (self.chunks_in_use, self.units_in_use)
    }
}

/// A partly used slab.
#[derive(Clone, Copy)]
struct PartialSlab {
    slab: u32,
    used: u64,
}

/// What a chunk holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChunkUse {
    Free,
    /// Units in use.
    Units(u64),
    /// The first chunk of the run that it belongs to, and the run's chunks.
    Run(u64, u64),
    Table,
}

/// The whole arena as the hints say.
struct Survey {
    chunks: Vec<ChunkUse>,
    /// For each shard and class its partly used slabs.
    partial: Vec<Vec<PartialSlab>>,
}

const fn list(shard: usize, class: usize) -> usize {
    shard * CLASSES + class
}

impl Arena {
    /// Chooses what a pass for `goal` empties; `None` if nothing is worth it. Reads a cache line
    /// for each unit in use: for a background thread, or a command that would fail.
    pub fn plan_compaction(&self, goal: CompactionGoal) -> Option<CompactionPlan> {
        let survey = self.survey();
        let chunks = match goal {
            CompactionGoal::FewerChunks => survey.sparsest(),
            CompactionGoal::Contiguous(count) => survey.window(count)?,
        };
        let mut emptied = vec![false; survey.chunks.len()];
        chunks.iter().for_each(|chunk| emptied[chunk.0 as usize] = true);
        let mut plan = CompactionPlan {
            may_cut: goal != CompactionGoal::FewerChunks,
            // A run of units does not tell its shard.
            affected: if chunks.is_empty() { ShardSet::NONE } else { ShardSet::ALL },
            chunks,
            shards: Vec::with_capacity(SHARDS),
            chunks_in_use: 0,
            units_in_use: 0,
        };
        for chunk in &survey.chunks {
            let units = match chunk {
                ChunkUse::Free => continue,
                ChunkUse::Units(used) => *used,
                ChunkUse::Run(..) | ChunkUse::Table => UNITS_IN_CHUNK,
            };
            plan.chunks_in_use += 1;
            plan.units_in_use += units;
        }
        for shard in ShardIndex::all() {
            let part = survey.choose_slabs(shard.get(), &emptied);
            if !part.slabs.is_empty() {
                plan.affected = plan.affected | ShardSet::one(shard);
            }
            plan.shards.push(part);
        }
        (!plan.affected.is_empty()).then_some(plan)
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn survey(&self) -> Survey {
        let count = index(self.capacity() / CHUNK_SIZE);
        let mut survey = Survey {
            chunks: Vec::with_capacity(count),
            partial: vec![Vec::new(); SHARDS * CLASSES],
        };
        while survey.chunks.len() < count {
            let at = survey.chunks.len();
            let chunk = ChunkIndex(at as u32);
            match self.chunk_state(chunk) {
                ChunkState::Free => survey.chunks.push(ChunkUse::Free),
                ChunkState::Table => survey.chunks.push(ChunkUse::Table),
                ChunkState::Units => {
                    let used = survey.units_of(&self.racy(), chunk);
                    survey.chunks.push(ChunkUse::Units(used));
                }
                ChunkState::RunHead => survey.chunks.push(ChunkUse::Run(at as u64, 1)),
                ChunkState::RunTail => {
                    let head = match survey.chunks.last() {
                        Some(ChunkUse::Run(head, _)) => *head,
                        _ => at as u64,
                    };
                    survey.chunks.push(ChunkUse::Run(head, 1));
                }
            }
        }
        survey.measure_runs();
        survey
    }
}

impl Survey {
    /// Files the slabs of a chunk; returns the units in use.
    fn units_of(&mut self, view: &RacyView<'_>, chunk: ChunkIndex) -> u64 {
        let (mut unit, mut in_use) = (HEAD_UNITS, 0);
        while unit < UNITS_PER_CHUNK {
            let word = view.load_racy(chunk.descriptor(unit).raw()).unwrap_or(0);
            let [kind, class, shard, _, units_low, units_high, used_low, used_high] =
                word.to_le_bytes();
            let units = u64::from(u16::from_le_bytes([units_low, units_high]));
            let units = units.clamp(1, UNITS_PER_CHUNK - unit);
            if kind == 0 {
                unit += 1;
                continue;
            }
            in_use += units;
            let class = SizeClass::from_index(usize::from(class));
            if kind == UnitKind::Slab as u8
                && let Some(class) = class
                && usize::from(shard) < SHARDS
            {
                let used = u64::from(u16::from_le_bytes([used_low, used_high]));
                if used < class.objects() {
                    let slab = unit_number(chunk, unit);
                    self.partial[list(usize::from(shard), class.index())]
                        .push(PartialSlab { slab, used });
                }
            }
            unit += units;
        }
        in_use
    }

    /// Tells each chunk of a run how many the run has.
    fn measure_runs(&mut self) {
        let mut end = self.chunks.len();
        while end > 0 {
            let first = match self.chunks[end - 1] {
                ChunkUse::Run(head, _) => index(head),
                _ => end - 1,
            };
            let len = (end - first) as u64;
            for chunk in &mut self.chunks[first..end] {
                if let ChunkUse::Run(_, run) = chunk {
                    *run = len;
                }
            }
            end = first;
        }
    }

    /// The sparsest chunks; the others have free units for theirs.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn sparsest(&self) -> Vec<ChunkIndex> {
        let units = |(at, chunk): (usize, &ChunkUse)| match chunk {
            ChunkUse::Units(used) => Some((*used, at as u32)),
            _ => None,
        };
        let mut chunks: Vec<(u64, u32)> =
            self.chunks.iter().enumerate().filter_map(units).collect();
        // Of two that are equally sparse the higher one: the lowest chunks are taken first.
        chunks.sort_unstable_by_key(|(used, at)| (*used, std::cmp::Reverse(*at)));
        let mut free: u64 = chunks.iter().map(|(used, _)| UNITS_IN_CHUNK - used).sum();
        let (mut moved, mut chosen) = (0, Vec::new());
        for (used, at) in chunks {
            moved += used;
            free -= UNITS_IN_CHUNK - used;
            // Some free units are in pieces that are too short.
            if used > MAX_USED_UNITS || moved > free - free / 8 {
                break;
            }
            chosen.push(ChunkIndex(at));
        }
        chosen
    }

    /// The `count` neighbouring chunks with the least in them, if that finds room elsewhere.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    fn window(&self, count: u64) -> Option<Vec<ChunkIndex>> {
        let cost = |chunk: &ChunkUse| match chunk {
            ChunkUse::Free => 0,
            ChunkUse::Units(used) => *used,
            ChunkUse::Run(..) => UNITS_IN_CHUNK,
            ChunkUse::Table => TABLE_COST,
        };
        let costs: Vec<u64> = self.chunks.iter().map(cost).collect();
        let total: u64 = costs.iter().filter(|cost| **cost < TABLE_COST).sum();
        let tables = costs.iter().filter(|cost| **cost == TABLE_COST).count() as u64;
        let len = index(count);
        if count == 0 || len > costs.len() {
            return None;
        }
        let mut sum: u64 = costs[..len].iter().sum();
        let mut best: Option<(u64, usize)> = None;
        for start in 0..=costs.len() - len {
            if start > 0 {
                sum = sum - costs[start - 1] + costs[start + len - 1];
            }
            // Runs that only begin or end in the window have to go as a whole.
            let whole = sum + self.outside(start, len);
            if best.is_none_or(|(least, _)| whole < least) {
                best = Some((whole, start));
            }
        }
        let (moved, start) = best?;
        let places = (costs.len() as u64 - count - tables) * UNITS_IN_CHUNK;
        let others = total.saturating_sub(sum_of(&costs, start, len));
        if moved >= TABLE_COST || others + moved > places {
            return None;
        }
        let (first, end) = self.widened(start, start + len);
        Some((first..end).map(|at| ChunkIndex(at as u32)).collect())
    }

    /// The chunks from `start` to `end`, and those of runs that begin or end among them.
    fn widened(&self, start: usize, end: usize) -> (usize, usize) {
        let first = match self.chunks[start] {
            ChunkUse::Run(head, _) => index(head),
            _ => start,
        };
        let last = match self.chunks[end - 1] {
            ChunkUse::Run(head, len) => index(head + len),
            _ => end,
        };
        (first, last)
    }

    /// Units of runs outside a window of which a part is inside.
    fn outside(&self, start: usize, len: usize) -> u64 {
        let (first, end) = self.widened(start, start + len);
        (start - first + end - start - len) as u64 * UNITS_IN_CHUNK
    }

    /// The slabs of a shard that are to be emptied. From the largest class down: the last slab of
    /// each class either hands its objects to one of a larger class, or is there for smaller ones.
    fn choose_slabs(&self, shard: usize, emptied: &[bool]) -> ShardPlan {
        let mut plan = ShardPlan { slabs: Vec::new(), promoted: [false; CLASSES] };
        let mut hosts: Vec<Host> = Vec::new();
        for class in (0..CLASSES).rev().filter_map(SizeClass::from_index) {
            let partial = &self.partial[list(shard, class.index())];
            let is_emptied =
                |slab: &PartialSlab| emptied[index(u64::from(slab.slab) / UNITS_PER_CHUNK)];
            let (leaving, mut staying): (Vec<PartialSlab>, Vec<PartialSlab>) =
                partial.iter().partition(|slab| is_emptied(slab));
            let objects: u64 = partial.iter().map(|slab| slab.used).sum();
            if objects == 0 {
                continue;
            }
            plan.slabs.extend(leaving.iter().map(|slab| slab.slab));
            staying.sort_unstable_by_key(|slab| std::cmp::Reverse(slab.used));
            let needed = index(objects.div_ceil(class.objects()));
            let surplus = staying.split_off(needed.min(staying.len()));
            plan.slabs.extend(surplus.iter().map(|slab| slab.slab));
            // All but the last slab are full in the end.
            let full = (staying.len() as u64).saturating_sub(1) * class.objects();
            let rest = objects.saturating_sub(full);
            let fitting = hosts.iter_mut().filter(|host| host.takes(class, rest));
            if let Some(host) = fitting.min_by_key(|host| host.class.size()) {
                host.free -= rest;
                plan.promoted[class.index()] = true;
                plan.slabs.extend(staying.last().map(|slab| slab.slab));
            } else if !staying.is_empty() {
                hosts.push(Host { class, free: class.objects().saturating_sub(rest) });
            }
        }
        plan
    }
}

fn sum_of(costs: &[u64], start: usize, len: usize) -> u64 {
    costs[start..start + len].iter().sum()
}

/// A slab that stays, and takes objects of smaller classes.
struct Host {
    class: SizeClass,
    /// Objects that it still has room for.
    free: u64,
}

impl Host {
    /// Whether it has room for `objects` that lie in a slab of a smaller class.
    fn takes(&self, class: SizeClass, objects: u64) -> bool {
        let is_aligned = self.class.size().is_multiple_of(class.alignment());
        objects <= self.free && is_aligned && is_near_enough(class.smallest_held(), self.class)
    }
}
