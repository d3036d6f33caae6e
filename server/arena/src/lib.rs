//! An arena: one reservation of memory in pages of one kind, cut into chunks of 2 MiB, that holds
//! offsets and never pointers, so that its bytes mean the same at any address.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

mod allocator;
mod arena;
pub mod barrier;
pub mod checkpoint;
pub mod clock;
pub mod containers;
pub mod layout;
mod locks;
pub mod memory;
mod open;
#[cfg(test)]
mod speed_tests;
pub mod stats;
#[cfg(test)]
mod tests;

pub use allocator::audit::{Audit, Corruption, Summary};
pub use allocator::chunk_map::{UnitSpan, UnitUse};
pub use allocator::chunk_pool::OutOfMemory;
pub use allocator::failed_allocation::take_last_failed_allocation;
pub use allocator::heap::contiguous_bytes_for;
pub use allocator::size_classes::{MAX_SLAB_OBJECT, SizeClass, allocated_size};
pub use arena::Arena;
pub use barrier::counters::{StallTimes, take_stall_times};
pub use barrier::{BLOCK_SIZES, LEAST_LIMIT, MOST_LIMIT, UndoLog};
pub use layout::{CHUNK_SIZE, ChunkIndex, Offset, SHARDS, UNIT_SIZE, UNITS_IN_CHUNK};
pub use locks::{Held, Safepoint, ShardIndex, ShardSet};
pub use memory::access::{Mem, ReadOnly};
pub use memory::backing::{Backing, Isolation, UndoOptions};
pub use memory::page_scan::{ChunkSet, PageReport};
pub use memory::pages;
pub use memory::pages::{PageKind, PagesError};
pub use memory::side_tables::SideTable;
pub use open::{OpenError, ReservedArena, layout_hash};
