#![doc = include_str!("../README.md")]
//!
//! # Layers
//!
//! Each module uses only those above it in this table.
//!
//! | module | content |
//! |---|---|
//! | `layout` | constants, offsets, the structs of the arena's own tables |
//! | `bits`, `shard`, `clock`, `stats` | bit sets, shard sets, time, statistics |
//! | `reader_epochs` | epochs for readers without a lock |
//! | `memory` | pages, the mapping, tables beside the arena, the kernel's page tables |
//! | `barrier` | the write barrier: copy-on-write faults, the undo log |
//! | `backing_store` | the mapping behind its barrier |
//! | `allocator` | size classes, the chunk pool, lists of slabs |
//! | `arena` | `Arena`: locks, access, objects, audits, recordings |
//! | `containers`, `checkpoint` | dictionaries, trees, deques; images |

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

mod allocator;
mod arena;
#[expect(unsafe_code, reason = "raw memory; the file lists its invariants")]
mod backing_store;
pub mod barrier;
mod bits;
pub mod checkpoint;
pub mod clock;
#[cfg(test)]
mod compaction_tests;
pub mod containers;
pub mod layout;
mod memory;
mod reader_epochs;
mod shard;
#[cfg(test)]
mod speed_tests;
pub mod stats;
#[cfg(test)]
mod tests;

pub use allocator::chunk_pool::{OutOfMemory, StockStats};
pub use allocator::failed_allocation::take_last_failed_allocation;
pub use allocator::object_words::ObjectWords;
pub use allocator::size_classes::{
    MAX_SLAB_OBJECT, MIN_OBJECT, SizeClass, allocated_size, contiguous_bytes_for,
};
pub use arena::Arena;
pub use arena::audit::{Audit, AuditSummary, Corruption};
pub use arena::chunk_map::{UnitSpan, UnitUse};
pub use arena::compaction_plan::{CompactionGoal, CompactionPlan};
pub use arena::evacuation::CompactionStats;
pub use arena::held::{Held, OutOfOrderPermit};
pub use arena::mem::{Mem, ReadOnly};
pub use arena::object_notes::{ObjectInspector, ObjectNotes, SlabObject};
pub use arena::occupancy::{OccupancyCell, OccupancyMap};
pub use arena::open::{OpenError, ReservedArena, layout_hash};
pub use arena::page_scan::{ChunkSet, PageReport};
pub use arena::racy::RacyView;
pub use arena::recording::{FinishedRecording, Recording};
pub use arena::safepoint::Safepoint;
pub use barrier::counters::{StallTimes, take_stall_times};
pub use barrier::{BLOCK_SIZES, MAX_LIMIT, MIN_LIMIT, UndoLog};
pub use layout::{CHUNK_SIZE, ChunkIndex, Offset, SHARDS, UNIT_SIZE, UNITS_IN_CHUNK};
pub use memory::pages;
pub use memory::pages::{Backing, Isolation, PageKind, PagesError, UndoOptions};
pub use memory::side_tables::SideTable;
pub use shard::{ShardIndex, ShardSet};
