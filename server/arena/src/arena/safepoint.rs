//! `Safepoint`: the proof that every shard is locked.

use std::marker::PhantomData;

use super::Arena;
use crate::bits;
use crate::layout::{CHUNK_SIZE, ChunkIndex, index};

/// Proof that every shard of an arena is locked: every structure in the arena is whole, and no byte
/// changes while the proof exists. A fork needs one. It stays on the thread that holds the locks.
pub struct Safepoint<'h> {
    arena: &'h Arena,
    not_send: PhantomData<*const ()>,
}

impl<'h> Safepoint<'h> {
    /// The proof for an arena whose shards the caller has all locked for `'h`.
    pub(super) const fn of(arena: &'h Arena) -> Self {
        Self { arena, not_send: PhantomData }
    }

    /// The arena whose shards are locked.
    pub const fn arena(&self) -> &'h Arena {
        self.arena
    }

    /// The chunks in use with their bytes, lowest first.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkIndex, &'h [u8])> {
        let store = &self.arena.store;
        bits::ones(&store.in_use).map(|chunk| {
            let address = store.address(chunk.start(), CHUNK_SIZE);
            // SAFETY: a chunk in use is present, and no byte changes while every shard is locked,
            // which is for `'h`.
            let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr(), index(CHUNK_SIZE)) };
            (chunk, bytes)
        })
    }
}
