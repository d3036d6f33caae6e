//! The arena's reservation: one private mapping of `capacity` bytes, and side tables beside it.
//!
//! Invariants that unsafe code in the arena leans on:
//! 1. `base` is valid for reads and writes of `len` bytes for as long as the mapping lives, is
//!    aligned to 2 MiB, and never moves.
//! 2. Nobody else knows the address: every access goes through the arena.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw, UncheckedAdvice};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::layout::{CHUNK_SIZE, index};
use super::pages::{self, PageKind, PagesError, Pool};

const MEMFD_NAME: &CStr = c"cowherd-arena";

/// The arena's memory.
pub struct Mapping {
    map: MmapMut,
    base: NonNull<u8>,
    shift: usize,
    len: u64,
    kind: PageKind,
}

// SAFETY: `base` points into `map`, which any thread may use; who may touch which byte when is
// decided by the shard locks (invariant 2).
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `capacity` bytes of `kind`. Memory is committed when it is first touched; only
    /// 1 GiB pages, whose clearing takes a tenth of a second, are all taken here.
    ///
    /// # Errors
    /// The machine cannot give such pages; the error carries the remedy.
    pub fn reserve(kind: PageKind, capacity: u64) -> Result<Self, PagesError> {
        let refused = |source| PagesError::Mapping { kind, capacity, source };
        let len = usize::try_from(capacity).map_err(|e| refused(io::Error::other(e)))?;
        let (mut map, shift) = match kind {
            PageKind::Small | PageKind::Thp => {
                pages::check(kind, capacity)?;
                let room = len + index(CHUNK_SIZE);
                let map =
                    MmapOptions::new().len(room).no_reserve_swap().map_anon().map_err(refused)?;
                let shift = map.as_ptr().align_offset(index(CHUNK_SIZE));
                let advice =
                    if kind == PageKind::Thp { Advice::HugePage } else { Advice::NoHugePage };
                // A kernel without transparent huge pages has nothing to switch off either.
                let advised = map.advise_range(advice, shift, len);
                if kind == PageKind::Thp {
                    advised.map_err(refused)?;
                }
                (map, shift)
            }
            PageKind::Huge2Mb | PageKind::Huge1Gb => (map_hugetlb(kind, capacity, len)?, 0),
        };
        if kind == PageKind::Huge1Gb {
            map.advise_range(Advice::PopulateWrite, 0, len).map_err(refused)?;
        }
        let start = &mut map.as_mut()[shift..];
        let base = NonNull::from(start).cast::<u8>();
        Ok(Self { map, base, shift, len: capacity, kind })
    }

    /// Address of the first byte.
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The pages behind it.
    pub const fn kind(&self) -> PageKind {
        self.kind
    }

    /// Makes sure that the `len` bytes at `offset` can be touched: a hugetlb page that is missing
    /// would otherwise raise SIGBUS.
    ///
    /// # Errors
    /// The pool is dry.
    pub fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.kind {
            PageKind::Huge2Mb => {
                let (at, len) = self.range(offset, len);
                self.map.advise_range(Advice::PopulateWrite, at, len)
            }
            _ => Ok(()),
        }
    }

    /// Gives the memory of the `len` bytes at `offset` back to the kernel.
    ///
    /// # Errors
    /// The kernel's, for example EINVAL for hugetlb pages before Linux 5.18.
    ///
    /// # Safety
    /// The range is whole chunks, and nobody uses them.
    pub unsafe fn release(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.kind == PageKind::Huge1Gb {
            return Ok(());
        }
        let (at, len) = self.range(offset, len);
        // SAFETY: the caller promises that no reference into the range exists.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, at, len) }
    }

    /// Puts the `len` bytes at `offset` onto huge pages, whether they lie on some or not.
    ///
    /// # Errors
    /// The kernel's: no huge page to be had, or no `MADV_COLLAPSE` (before Linux 6.1).
    pub fn collapse(&self, offset: u64, len: u64) -> io::Result<()> {
        let (at, len) = self.range(offset, len);
        let start = self.map.as_ptr().wrapping_add(at).cast_mut().cast();
        // SAFETY: `range` lies inside the mapping, and the kernel keeps its contents.
        let outcome = unsafe { libc::madvise(start, len, libc::MADV_COLLAPSE) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn range(&self, offset: u64, len: u64) -> (usize, usize) {
        assert!(offset + len <= self.len, "{offset:#x}+{len:#x} is outside the arena");
        (self.shift + index(offset), index(len))
    }
}

fn map_hugetlb(kind: PageKind, capacity: u64, len: usize) -> Result<MmapMut, PagesError> {
    pages::check(kind, capacity)?;
    let refused = |source| PagesError::Mapping { kind, capacity, source };
    let size = match kind {
        PageKind::Huge1Gb => MFdFlags::MFD_HUGE_1GB,
        _ => MFdFlags::MFD_HUGE_2MB,
    };
    let fd = memfd_create(MEMFD_NAME, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB | size)
        .map_err(|errno| refused(errno.into()))?;
    let file = File::from(fd);
    file.set_len(capacity).map_err(refused)?;
    // SAFETY: nobody else has the file, so it cannot change under the mapping.
    let map = unsafe { MmapOptions::new().len(len).map_copy(&file) };
    map.map_err(|source| match (source.raw_os_error(), Pool::read(kind)) {
        // Somebody took pages between the check and now.
        (Some(nix::libc::ENOMEM), Some(pool)) => pages::pool_too_small(kind, capacity, pool),
        _ => refused(source),
    })
}

/// A table beside the arena that a checkpoint does not see: zero at start, committed as it is
/// used, and left out of the child.
pub struct SideTable {
    map: MmapRaw,
    words: usize,
}

impl SideTable {
    /// A table of `words` words.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub fn new(words: usize) -> io::Result<Self> {
        let bytes = (words * size_of::<AtomicU32>()).max(1);
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        map.advise(Advice::DontFork)?;
        Ok(Self { map: map.into(), words })
    }

    /// Asks the processor to fetch the word with this number; numbers outside do nothing.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if index < self.words {
            super::memory::prefetch_line(self.map.as_ptr().wrapping_add(index * 4));
        }
    }

    /// The word with this number.
    #[inline]
    pub fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.words, "side table: {index} of {}", self.words);
        let start = self.map.as_mut_ptr().cast::<AtomicU32>();
        // SAFETY: `index` is inside the mapping, as just checked.
        let word = unsafe { start.add(index) };
        // SAFETY: the mapping is page-aligned, lives as long as `self`, and is only ever used
        // through these atomics.
        unsafe { &*word }
    }
}
