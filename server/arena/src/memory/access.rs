//! Offsets in, checked bytes out: how code that holds a shard's lock reads and changes its memory.
//!
//! Invariants that unsafe code leans on:
//! 1. Every access is checked against the capacity before a pointer is made.
//! 2. A [`Mem`] exists only while its shard is locked, and borrows the `Held` that locked it; it
//!    gives out shared slices from `&self` and unique ones from `&mut self`.
//! 3. Every change passes [`Barrier::before_write`](crate::barrier::Barrier::before_write) first.
//!    There is no other way to change a byte that a checkpoint may be reading.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Arena;
use crate::layout::{Offset, index};
use crate::locks::ShardIndex;

impl Arena {
    /// Address of `len` bytes at `at`.
    #[inline]
    pub(crate) fn address(&self, at: u64, len: u64) -> NonNull<u8> {
        match at.checked_add(len) {
            Some(end) if end <= self.capacity() => {}
            _ => outside(at, len, self.capacity()),
        }
        // SAFETY: `at` is inside the mapping, as just checked (mapping invariant 1).
        unsafe { self.map.base().add(index(at)) }
    }

    /// Reads a `T`.
    ///
    /// # Safety
    /// The caller holds the lock that guards these bytes.
    #[inline]
    pub(crate) unsafe fn load<T: FromBytes>(&self, at: Offset<T>) -> T {
        let address = self.address(at.raw(), size_of::<T>() as u64).cast::<T>();
        // SAFETY: the address is valid (invariant 1), any bytes are a `T`, and the caller's lock
        // keeps writers away.
        unsafe { address.read_unaligned() }
    }

    /// Writes a `T`, through the barrier.
    ///
    /// # Safety
    /// The caller holds the lock that guards these bytes.
    #[inline]
    pub(crate) unsafe fn store<T: IntoBytes + Immutable>(&self, at: Offset<T>, value: T) {
        let address = self.address(at.raw(), size_of::<T>() as u64).cast::<T>();
        self.barrier.before_write(self, at.raw(), size_of::<T>() as u64);
        // SAFETY: the address is valid (invariant 1) and the caller's lock keeps others away.
        unsafe { address.write_unaligned(value) };
    }

    /// A word as it is at this moment, read without any lock: good for hints only, such as what to
    /// prefetch, or where it is worth a look under a lock. `None` outside the arena.
    #[inline]
    pub fn load_racy(&self, at: u64) -> Option<u64> {
        if !at.is_multiple_of(8) || at >= self.capacity() {
            return None;
        }
        let must_be_there = self.map.reading_takes_memory();
        if must_be_there && !crate::barrier::get(&self.present, at / crate::layout::CHUNK_SIZE) {
            return None;
        }
        // SAFETY: an aligned word inside the mapping, as just checked.
        let address = unsafe { self.map.base().add(index(at)) };
        // SAFETY: the word is valid and aligned. Writers do not use atomics, so that the value
        // may be torn; no unsafe code depends on it.
        let word = unsafe { AtomicU64::from_ptr(address.as_ptr().cast()) };
        Some(word.load(Ordering::Relaxed))
    }

    /// Asks the processor to fetch the cache line at `at`.
    #[inline]
    pub fn prefetch(&self, at: u64) {
        if at >= self.capacity() {
            return;
        }
        // SAFETY: inside the mapping, as just checked.
        let address = unsafe { self.map.base().add(index(at)) };
        prefetch_line(address.as_ptr());
    }
}

#[inline]
pub(crate) fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch has no effect that a program can see.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

#[cold]
#[inline(never)]
fn outside(at: u64, len: u64, capacity: u64) -> ! {
    panic!("arena: {len} bytes at {at:#x} are outside its {capacity} bytes")
}

/// The memory of one locked shard.
pub struct Mem<'h> {
    pub(crate) arena: &'h Arena,
    pub(crate) shard: ShardIndex,
}

impl<'h> Mem<'h> {
    #[inline]
    pub(crate) const fn new(arena: &'h Arena, shard: ShardIndex) -> Self {
        Self { arena, shard }
    }

    /// The shard.
    pub const fn shard(&self) -> ShardIndex {
        self.shard
    }

    /// The arena.
    pub const fn arena(&self) -> &'h Arena {
        self.arena
    }

    /// The `len` bytes at `at`.
    ///
    /// # Panics
    /// They are outside the arena.
    #[inline]
    pub fn bytes(&self, at: u64, len: u64) -> &[u8] {
        let address = self.arena.address(at, len);
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
        let address = self.arena.address(at, len);
        self.arena.barrier.before_write(self.arena, at, len);
        // SAFETY: valid for `len` bytes (invariant 1); the shard's lock and the unique borrow of
        // `self` keep everybody else away (invariant 2).
        unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), index(len)) }
    }

    /// Reads a `T`.
    ///
    /// # Panics
    /// It is outside the arena.
    #[inline]
    pub fn read<T: FromBytes>(&self, at: Offset<T>) -> T {
        // SAFETY: the shard is locked (invariant 2).
        unsafe { self.arena.load(at) }
    }

    /// Writes a `T`.
    ///
    /// # Panics
    /// It is outside the arena.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&mut self, at: Offset<T>, value: T) {
        // SAFETY: the shard is locked (invariant 2).
        unsafe { self.arena.store(at, value) };
    }

    /// Copies `len` bytes from `from` to `to`; the two must not overlap.
    ///
    /// # Panics
    /// One of them is outside the arena, or they overlap.
    pub fn copy(&mut self, from: u64, to: u64, len: u64) {
        let source = self.arena.address(from, len);
        let target = self.arena.address(to, len);
        assert!(from.abs_diff(to) >= len, "arena: copy of {len} bytes overlaps itself");
        self.arena.barrier.before_write(self.arena, to, len);
        // SAFETY: both are valid for `len` bytes (invariant 1) and do not overlap, and the shard's
        // lock and the unique borrow of `self` keep everybody else away (invariant 2).
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
        let address = self.0.arena.address(at, len);
        // SAFETY: valid for `len` bytes (invariant 1); the shard is locked, and whoever made this
        // borrows the locks for 'h, so that nobody can write meanwhile (invariant 2).
        unsafe { std::slice::from_raw_parts(address.as_ptr(), index(len)) }
    }
}

impl<'h> std::ops::Deref for ReadOnly<'h> {
    type Target = Mem<'h>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
