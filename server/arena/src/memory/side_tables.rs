//! Tables of atomic words beside the arena. They differ in what a forked child sees of them, and so
//! in what a fork makes their owner pay: neither kind is ever copied on write.
//!
//! | table | the child | for |
//! |---|---|---|
//! | [`SideTable`] | has nothing of it | what a checkpoint does not see |
//! | [`SharedTable`] | has the same words | what parent and child tell each other |
//!
//! A kernel that never promises more than it has (`vm.overcommit_memory=2`) counts both when they
//! are made, so that no later write to them dies for want of memory.
//!
//! Invariants that unsafe code leans on:
//! 1. The mapping is page-aligned, zero at first, and lives as long as the table.
//! 2. It is used through the atomics of its word type only, and zeros are one.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

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

pub(crate) use sealed::Word;

fn bytes_of<W>(words: usize) -> usize {
    (words * size_of::<W>()).max(1)
}

/// The words that stand at an address.
///
/// # Safety
/// The mapping there has room for them and outlives the result (invariants 1 and 2).
#[inline]
unsafe fn words_at<'a, W: Word>(start: *const u8, words: usize) -> &'a [W] {
    // SAFETY: mapped, aligned, zero at first and used as atomics only, as the caller promises.
    unsafe { std::slice::from_raw_parts(start.cast(), words) }
}

/// A table that a checkpoint does not see: committed as it is used, and left out of the child.
pub struct SideTable<W = AtomicU32> {
    map: MmapRaw,
    words: usize,
    word: PhantomData<W>,
}

impl<W: Word> SideTable<W> {
    /// A table of `words` words.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub fn new(words: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(bytes_of::<W>(words)).no_reserve_swap().map_anon()?;
        map.advise(Advice::DontFork)?;
        Ok(Self { map: map.into(), words, word: PhantomData })
    }

    /// Asks the processor to fetch the word with this number; numbers outside do nothing.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if let Some(word) = self.get(index) {
            crate::memory::prefetch::prefetch_line(std::ptr::from_ref(word).cast());
        }
    }

    /// Returns the memory of `words` words from `first` on to the kernel, as far as they fill whole
    /// pages: they are zero again.
    ///
    /// # Panics
    /// The table does not have them.
    pub(crate) fn discard(&self, first: usize, words: usize) {
        assert!(first.checked_add(words).is_some_and(|end| end <= self.words));
        let (at, len) = (first * size_of::<W>(), words * size_of::<W>());
        // SAFETY: inside the mapping, which only the atomics of this table refer to: whoever reads
        // them sees zeros, which are words (invariant 2).
        let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, at, len) };
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
        // SAFETY: `words` words, in a mapping of this table's own.
        unsafe { words_at(self.map.as_ptr(), self.words) }
    }
}

/// A table that a child forked later shares with its parent.
pub(crate) struct SharedTable<W> {
    memory: SharedMemory,
    words: usize,
    word: PhantomData<W>,
}

impl<W: Word> SharedTable<W> {
    /// A table of `words` words.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub(crate) fn new(words: usize) -> io::Result<Self> {
        let memory = SharedMemory::new(bytes_of::<W>(words))?;
        Ok(Self { memory, words, word: PhantomData })
    }
}

impl<W: Word> Deref for SharedTable<W> {
    type Target = [W];

    #[inline]
    fn deref(&self) -> &[W] {
        // SAFETY: `words` words, in a mapping of this table's own.
        unsafe { words_at(self.memory.start(), self.words) }
    }
}

/// Anonymous memory that stays shared after a fork: zero at first, committed as it is used.
pub(crate) struct SharedMemory {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: an address alone; each use of the memory states why it is sound.
unsafe impl Send for SharedMemory {}
// SAFETY: as for Send.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Memory of `bytes` bytes.
    ///
    /// # Errors
    /// The kernel refused it.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Not reserved, yet counted in full by a kernel that never promises more than it has.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let start = unsafe { mmap_anonymous(None, len, access, flags) }?;
        Ok(Self { start: start.cast(), len })
    }

    /// Address of the first byte: valid for reads and writes as long as this lives.
    #[inline]
    pub(crate) const fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Makes the pages of a part ready, so that writing to them waits for nothing.
    ///
    /// # Errors
    /// There is no memory, or the kernel cannot (before Linux 5.14).
    pub(crate) fn populate(&self, at: usize, len: usize) -> io::Result<()> {
        // SAFETY: it changes no byte.
        unsafe { self.advise(at, len, MmapAdvise::MADV_POPULATE_WRITE) }
    }

    /// Gives a part back to the kernel: it is zero again.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Safety
    /// No thread uses that part.
    pub(crate) unsafe fn hand_back(&self, at: usize, len: usize) -> io::Result<()> {
        // SAFETY: the caller promises that no thread uses the part.
        unsafe { self.advise(at, len, MmapAdvise::MADV_REMOVE) }
    }

    /// # Safety
    /// Every user of the part can bear what the advice does.
    unsafe fn advise(&self, at: usize, len: usize, advice: MmapAdvise) -> io::Result<()> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len.get()), "shared: {at}+{len}");
        // SAFETY: inside the mapping.
        let place = unsafe { self.start.add(at) };
        // SAFETY: as the caller promises.
        unsafe { madvise(place.cast(), len, advice) }.map_err(io::Error::from)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: no other reference to the address exists any more.
        let _ = unsafe { munmap(self.start.cast(), self.len.get()) };
    }
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
        let memory = SharedMemory::new(3 * 4096).unwrap();
        let byte = memory.start().wrapping_add(4096);
        // SAFETY: inside the mapping, and no other thread uses it.
        unsafe { byte.write(7) };
        // SAFETY: no thread uses it.
        unsafe { memory.hand_back(4096, 4096) }.unwrap();
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { byte.read() }, 0);
    }
}
