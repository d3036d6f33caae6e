//! The allocator: chunks of the pool are cut into units, units into slabs of one size class, for
//! one shard each; larger objects are runs of units or of chunks.

#![expect(unsafe_code, reason = "raw memory; see the invariants above")]

pub(crate) mod audit;
pub(crate) mod chunk_map;
pub(crate) mod chunk_pool;
pub(crate) mod failed_allocation;
pub(crate) mod heap;
pub(crate) mod size_classes;
mod unit_bitmap;
