//! Tables of atomic words beside the arena. They differ in what a forked child sees of them, and so
//! in what a fork makes their owner pay: neither kind is ever copied on write.
//!
//! | table | the child | for |
//! |---|---|---|
//! | [`SideTable`] | has nothing of it | what a checkpoint does not see |
//! | [`SharedTable`] | has the same words | what parent and child tell each other |
//!
//! Invariants that unsafe code leans on:
//! 1. The mapping is page-aligned, zero at first, and lives as long as the table.
//! 2. It is used through the atomics of its word type only, and zeros are one.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use nix::sys::memfd::{MFdFlags, memfd_create};

const MEMFD_NAME: &CStr = c"cowherd-shared";

mod sealed {
    /// Words that tables can be made of.
    ///
    /// # Safety
    /// Zeros are one, and it may be used from several threads and processes at once.
    pub unsafe trait Word: Send + Sync {}

    // SAFETY: an atomic number.
    unsafe impl Word for super::AtomicU32 {}
    // SAFETY: an atomic number.
    unsafe impl Word for super::AtomicU64 {}
}

pub(super) use sealed::Word;

/// Words in a mapping.
struct Words<W> {
    map: MmapRaw,
    words: usize,
    word: PhantomData<W>,
}

impl<W: Word> Words<W> {
    const fn new(map: MmapRaw, words: usize) -> Self {
        Self { map, words, word: PhantomData }
    }

    #[inline]
    fn all(&self) -> &[W] {
        // SAFETY: `words` words, aligned, zero at first and used as atomics only (invariants 1, 2).
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.words) }
    }
}

fn bytes_of<W>(words: usize) -> usize {
    (words * size_of::<W>()).max(1)
}

/// A table that a checkpoint does not see: committed as it is used, and left out of the child.
pub struct SideTable<W = AtomicU32>(Words<W>);

impl<W: Word> SideTable<W> {
    /// A table of `words` words.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub fn new(words: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(bytes_of::<W>(words)).no_reserve_swap().map_anon()?;
        map.advise(Advice::DontFork)?;
        Ok(Self(Words::new(map.into(), words)))
    }

    /// Asks the processor to fetch the word with this number; numbers outside do nothing.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if let Some(word) = self.get(index) {
            super::memory::prefetch_line(std::ptr::from_ref(word).cast());
        }
    }

    /// The word with this number.
    #[inline]
    pub fn word(&self, index: usize) -> &W {
        assert!(index < self.len(), "side table: {index} of {}", self.len());
        &self[index]
    }
}

impl<W: Word> Deref for SideTable<W> {
    type Target = [W];

    #[inline]
    fn deref(&self) -> &[W] {
        self.0.all()
    }
}

/// A table that a child forked later shares with its parent.
pub(super) struct SharedTable<W>(Words<W>);

impl<W: Word> SharedTable<W> {
    /// A table of `words` words.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub(super) fn new(words: usize) -> io::Result<Self> {
        Ok(Self(Words::new(shared_memory(bytes_of::<W>(words))?, words)))
    }
}

impl<W: Word> Deref for SharedTable<W> {
    type Target = [W];

    #[inline]
    fn deref(&self) -> &[W] {
        self.0.all()
    }
}

/// Memory that stays shared after a fork: zero at first, committed as it is used.
///
/// # Errors
/// The kernel refused it.
pub(super) fn shared_memory(bytes: usize) -> io::Result<MmapRaw> {
    let file = File::from(memfd_create(MEMFD_NAME, MFdFlags::MFD_CLOEXEC)?);
    file.set_len(bytes as u64)?;
    MmapOptions::new().len(bytes).map_raw(&file)
}

/// Gives a part of [`shared_memory`] back to the kernel: it is zero again.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// Nobody uses that part.
pub(super) unsafe fn hand_back(map: &MmapRaw, at: usize, len: usize) -> io::Result<()> {
    // SAFETY: the caller promises that nobody uses the part.
    unsafe { map.unchecked_advise_range(UncheckedAdvice::Remove, at, len) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn tables_begin_with_zeros_and_keep_their_length() {
        let side = SideTable::<AtomicU32>::new(3000).unwrap();
        let shared = SharedTable::<AtomicU64>::new(3000).unwrap();
        assert_eq!((side.len(), shared.len()), (3000, 3000));
        assert!(side.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        shared[2999].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(shared.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count(), 1);
        assert!(SharedTable::<AtomicU64>::new(0).unwrap().is_empty());
    }

    #[test]
    fn what_is_handed_back_is_zero_again() {
        let map = shared_memory(3 * 4096).unwrap();
        let byte = map.as_mut_ptr().wrapping_add(4096);
        // SAFETY: inside the mapping, and nobody else uses it.
        unsafe { byte.write(7) };
        // SAFETY: nobody uses it.
        unsafe { hand_back(&map, 4096, 4096) }.unwrap();
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { byte.read() }, 0);
    }
}
