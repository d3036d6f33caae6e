//! The map of a chunk: which units are free, slabs or runs, and which objects share a slab. Freeing
//! all objects of neighbouring slabs returns their units to the pool in one piece.

use super::Arena;
use super::mem::Mem;
use super::racy::RacyView;
use crate::allocator::size_classes::SizeClass;
use crate::layout::{ChunkIndex, ChunkState, HEAD_UNITS, UNIT_SIZE, UNITS_PER_CHUNK, UnitKind};
use crate::shard::ShardIndex;

/// The use of a span of units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnitUse {
    /// Nothing.
    Nothing,
    /// A slab of a shard.
    Slab(ShardIndex),
    /// A large object, or a part of one.
    Run,
}

/// Neighbouring units of a chunk with one use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnitSpan {
    /// The chunk.
    pub chunk: ChunkIndex,
    /// The first of its units there.
    pub unit: u64,
    /// How many.
    pub units: u64,
    /// What it holds.
    pub holds: UnitUse,
}

impl Arena {
    /// What the units of a chunk hold, from the first to the last that can hold anything; empty if
    /// the chunk is not in use. Read without their locks: good for hints only. `None` for a chunk
    /// that holds something else, and for one that is not there.
    pub fn unit_spans(&self, chunk: ChunkIndex) -> Option<Vec<UnitSpan>> {
        if chunk.start() >= self.capacity() {
            return None;
        }
        match self.chunk_state(chunk) {
            ChunkState::Units => {}
            ChunkState::Free => return Some(Vec::new()),
            _ => return None,
        }
        let view = self.racy();
        let mut unit_spans = Vec::new();
        let mut unit = HEAD_UNITS;
        while unit < UNITS_PER_CHUNK {
            let (holds, units) = unit_use_at(&view, chunk, unit);
            let units = units.clamp(1, UNITS_PER_CHUNK - unit);
            unit_spans.push(UnitSpan { chunk, unit, units, holds });
            unit += units;
        }
        Some(unit_spans)
    }
}

/// What the unit begins, and how many units that has; a hint.
fn unit_use_at(view: &RacyView<'_>, chunk: ChunkIndex, unit: u64) -> (UnitUse, u64) {
    let word = view.load_racy(chunk.descriptor(unit).raw()).unwrap_or(0);
    let [kind, _class, shard, _, units @ .., _, _] = word.to_le_bytes();
    let units = u64::from(u16::from_le_bytes(units));
    match (kind, ShardIndex::new(usize::from(shard))) {
        (0, _) => (UnitUse::Nothing, 1),
        (kind, Some(shard)) if kind == UnitKind::Slab as u8 => (UnitUse::Slab(shard), units),
        _ => (UnitUse::Run, units),
    }
}

impl Mem<'_> {
    /// The objects in the slab that begins at a unit, and the bytes that each of them has; `None`
    /// if no slab of this shard does. Only what the objects are reachable from can tell for sure.
    pub fn slab_from(&self, chunk: ChunkIndex, unit: u64) -> Option<(Vec<u64>, u64)> {
        if unit_use_at(&self.arena().racy(), chunk, unit).0 != UnitUse::Slab(self.shard()) {
            return None;
        }
        let descriptor = self.read(chunk.descriptor(unit));
        let class = SizeClass::from_index(usize::from(descriptor.class))?;
        let start = chunk.start() + unit * UNIT_SIZE;
        let in_use =
            |object: &u64| crate::allocator::unit_bitmap::get(&descriptor.objects, *object);
        let objects = (0..class.objects()).filter(in_use);
        Some((objects.map(|object| start + object * class.size()).collect(), class.size()))
    }
}
