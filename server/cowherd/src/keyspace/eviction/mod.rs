//! Eviction: which keys are removed when memory is short, and how much of it.
//!
//! ```text
//!               under one shard's lock      candidate pool          under one shard's lock
//! evict_one:    sample some of its keys --> the best of many ---->  remove the best candidate,
//!               (next shard each time)      shards                  unless it was used since
//! ```
//!
//! | file | what |
//! |---|---|
//! | `policy` | `maxmemory-policy`: which keys may be evicted, and in which order |
//! | `scope` | under which locks an evictor works |
//! | `sampling` | eviction of single keys: sampling, candidate pool |
//! | `slab_eviction` | eviction of all keys of neighbouring slabs, for memory in one piece |
//! | `limit` | how many bytes may be in use |
//! | `reclaim` | how much a command evicts before it runs, or before it runs again |
//!
//! Memory that keys of one size class leave behind is of use to that class only, until a slab has
//! lost all its objects. Sampled one by one, nearly all keys would have to go before that happens;
//! `slab_eviction` removes the keys of neighbouring slabs together.
//!
//! Invariants:
//! 1. An evictor locks one shard at a time, and waits for a lock only if its caller holds none.
//! 2. Candidates are names of keys, never offsets: each is looked up again before it is removed.
//!
//! Nothing here calls into commands or sessions: keys for which blocked clients wait are collected,
//! and the caller takes them with [`Reclaimer::take_ready`].

mod limit;
mod policy;
mod reclaim;
mod sampling;
mod scope;
mod slab_eviction;
#[cfg(test)]
mod tests;

pub use limit::MemoryLimit;
pub use reclaim::Reclaimer;
pub use scope::EvictionScope;
