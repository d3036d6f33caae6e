//! The allocator's parts below a locked shard: size classes, the pool of chunks and units, and the
//! lists of slabs.
//!
//! | file | content |
//! |---|---|
//! | `size_classes` | sizes of small objects, units of their slabs, sizes of large objects |
//! | `unit_bitmap` | bitmaps of a chunk's units and a slab's objects |
//! | `chunk_pool` | whole chunks and runs of units, shared by all shards |
//! | `object_words` | a word beside the arena for each object |
//! | `slab_lists` | slabs with a free object, by shard and class |
//! | `failed_allocation` | the size that the arena last refused to the calling thread |

#[expect(unsafe_code, reason = "tables in raw memory; the file lists its invariants")]
pub(crate) mod chunk_pool;
pub(crate) mod failed_allocation;
pub(crate) mod object_words;
pub(crate) mod size_classes;
pub(crate) mod slab_lists;
pub(crate) mod unit_bitmap;
