//! `Mem` and `ReadOnly`: offsets in, checked bytes out, for the thread that holds a shard's lock.
//!
//! Invariants that unsafe code cites:
//! 1. Every access is checked against the capacity before a pointer is made.
//! 2. A [`Mem`] exists only while its shard is locked and borrows the `Held` that locked it; it
//!    returns shared slices from `&self` and unique ones from `&mut self`.
//! 3. Every change calls [`Barrier::before_write`](crate::barrier::Barrier::before_write) first.
//!    There is no other way to change a byte that a checkpoint may be reading.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Arena;
use crate::layout::{Offset, index};
use crate::shard::ShardIndex;

/// The memory of one locked shard, and read access to a second one.
pub struct Mem<'h> {
    pub(super) arena: &'h Arena,
    pub(super) shard: ShardIndex,
    /// The shard that may be read too; `shard` itself if there is no second one.
    source: ShardIndex,
}

impl<'h> Mem<'h> {
    #[inline]
    pub(crate) const fn new(arena: &'h Arena, shard: ShardIndex) -> Self {
        Self { arena, shard, source: shard }
    }

    /// As [`Self::new`], and `source` may be read.
    #[inline]
    pub(crate) const fn reading(arena: &'h Arena, shard: ShardIndex, source: ShardIndex) -> Self {
        Self { arena, shard, source }
    }

    /// The shard.
    pub const fn shard(&self) -> ShardIndex {
        self.shard
    }

    /// The arena.
    pub const fn arena(&self) -> &'h Arena {
        self.arena
    }

    /// In builds with debug assertions: asserts that the bytes belong to the shard or to the
    /// source.
    #[inline]
    fn check_read(&self, at: u64, len: u64) {
        self.arena.owners.check_either(at, len, self.shard, self.source);
    }

    /// The `len` bytes at `at`.
    ///
    /// # Panics
    /// They are outside the arena.
    #[inline]
    pub fn bytes(&self, at: u64, len: u64) -> &[u8] {
        let address = self.arena.store.address(at, len);
        self.check_read(at, len);
        // SAFETY: valid for `len` bytes (invariant 1); the shard's lock and the borrow of `self`
        // keep writers away (invariant 2).
        unsafe { std::slice::from_raw_parts(address.as_ptr(), index(len)) }
    }

    /// The `len` bytes at `at`, to be changed.
    ///
    /// # Panics
    /// They are outside the arena.
    #[inline]
    pub fn bytes_mut(&mut self, at: u64, len: u64) -> &mut [u8] {
        let address = self.arena.store.address(at, len);
        self.arena.owners.check(at, len, self.shard);
        self.arena.store.before_write(at, len);
        // SAFETY: valid for `len` bytes (invariant 1); the shard's lock and the unique borrow of
        // `self` exclude every other access (invariant 2).
        unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), index(len)) }
    }

    /// Reads a `T`.
    ///
    /// # Panics
    /// It is outside the arena.
    #[inline]
    pub fn read<T: FromBytes>(&self, at: Offset<T>) -> T {
        self.check_read(at.raw(), size_of::<T>() as u64);
        // SAFETY: the shard is locked (invariant 2).
        unsafe { self.arena.store.load(at) }
    }

    /// Writes a `T`.
    ///
    /// # Panics
    /// It is outside the arena.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&mut self, at: Offset<T>, value: T) {
        self.arena.owners.check(at.raw(), size_of::<T>() as u64, self.shard);
        // SAFETY: the shard is locked (invariant 2).
        unsafe { self.arena.store.store(at, value) };
    }

    /// Copies `len` bytes from `from` to `to`; the two must not overlap.
    ///
    /// # Panics
    /// One of them is outside the arena, or they overlap.
    pub fn copy(&mut self, from: u64, to: u64, len: u64) {
        let source = self.arena.store.address(from, len);
        let target = self.arena.store.address(to, len);
        self.check_read(from, len);
        self.arena.owners.check(to, len, self.shard);
        assert!(from.abs_diff(to) >= len, "arena: copy of {len} bytes overlaps itself");
        self.arena.store.before_write(to, len);
        // SAFETY: both are valid for `len` bytes (invariant 1) and do not overlap, and the shard's
        // lock and the unique borrow of `self` exclude every other access (invariant 2).
        unsafe { source.copy_to_nonoverlapping(target, index(len)) };
    }
}

/// The memory of one locked shard, to be read only; it lives as long as the locks.
pub struct ReadOnly<'h>(Mem<'h>);

impl<'h> ReadOnly<'h> {
    #[inline]
    pub(crate) const fn new(arena: &'h Arena, shard: ShardIndex) -> Self {
        Self(Mem::new(arena, shard))
    }

    /// The `len` bytes at `at`, for as long as the locks are borrowed.
    ///
    /// # Panics
    /// They are outside the arena.
    #[inline]
    pub fn slice(&self, at: u64, len: u64) -> &'h [u8] {
        let address = self.0.arena.store.address(at, len);
        self.0.check_read(at, len);
        // SAFETY: valid for `len` bytes (invariant 1); the shard is locked, and the locks
        // are borrowed for 'h, so that no writer exists meanwhile (invariant 2).
        unsafe { std::slice::from_raw_parts(address.as_ptr(), index(len)) }
    }
}

impl<'h> std::ops::Deref for ReadOnly<'h> {
    type Target = Mem<'h>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
