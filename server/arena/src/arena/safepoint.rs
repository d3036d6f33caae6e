//! `Safepoint`: the proof that every shard is locked.

use std::marker::PhantomData;

use super::Arena;

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
}
