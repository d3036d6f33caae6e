//! The arena's reservation: one mapping of `capacity` bytes.
//!
//! ```text
//!   kernel-cow   private: anonymous, or of a hugetlb memfd; a child has copies of the pages
//!   undo-log     shared: of a memfd, hugetlb or not, laid over a reservation that is aligned as
//!                its pages ask; a child has the same pages, and reads them through the file
//! ```
//!
//! Invariants that unsafe code in the arena leans on:
//! 1. `base` is valid for reads and writes of `len` bytes for as long as the mapping lives, is
//!    aligned to 2 MiB, and never moves.
//! 2. The address is private to this crate: every access goes through the backing store.
//! 3. Only this process and its children have the file; its size is sealed, and the children only
//!    read it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

use crate::layout::{CHUNK_SIZE, index};
use crate::memory::pages::{self, Backing, HugetlbPool, Isolation, PageKind, PagesError};
use crate::memory::prefetch::prefetch_line;

const SMALL_PAGE: u64 = 4096;
const MEMFD_NAME: &CStr = c"cowherd-arena";

/// The arena's memory.
pub struct Mapping {
    map: MmapMut,
    base: NonNull<u8>,
    shift: usize,
    len: u64,
    backing: Backing,
    /// What a shared mapping is of; byte 0 is that of the arena.
    file: Option<File>,
    /// Chunks are committed when they are taken: the kernel counts what is used, and would kill
    /// for a page that it cannot give.
    commits: bool,
}

// SAFETY: `base` points into `map`, which any thread may use; the shard locks decide which thread
// may touch which byte (invariant 2).
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `capacity` bytes. Memory is committed when it is first touched; only 1 GiB pages,
    /// whose clearing takes a tenth of a second, are all taken here.
    ///
    /// # Errors
    /// The machine cannot give such pages; the error carries the remedy.
    pub fn reserve(backing: Backing, capacity: u64) -> Result<Self, PagesError> {
        let kind = backing.kind;
        let refused = |source| PagesError::Mapping { kind, capacity, source };
        let len = usize::try_from(capacity).map_err(|e| refused(io::Error::other(e)))?;
        pages::check(backing, capacity)?;
        let mut file = None;
        let (mut map, shift) = match (backing.isolation, kind) {
            (Isolation::UndoLog(_), _) => {
                let memory = memfd(kind, capacity)?;
                let laid = lay_over(&memory, kind, len).map_err(|e| explain(kind, capacity, e))?;
                file = Some(memory);
                laid
            }
            (_, PageKind::Small | PageKind::Thp) => {
                reservation(len, index(CHUNK_SIZE)).map_err(refused)?
            }
            (_, PageKind::Huge2Mb | PageKind::Huge1Gb) => {
                let memory = memfd(kind, capacity)?;
                // SAFETY: no other process has the file, so it cannot change under the mapping.
                let map = unsafe { MmapOptions::new().len(len).map_copy(&memory) };
                (map.map_err(|e| explain(kind, capacity, e))?, 0)
            }
        };
        match kind {
            PageKind::Thp => map.advise_range(Advice::HugePage, shift, len).map_err(refused)?,
            // A kernel without transparent huge pages has nothing to switch off.
            PageKind::Small => map.advise_range(Advice::NoHugePage, shift, len).unwrap_or(()),
            PageKind::Huge1Gb => {
                map.advise_range(Advice::PopulateWrite, shift, len).map_err(refused)?;
            }
            PageKind::Huge2Mb => {}
        }
        let start = &mut map.as_mut()[shift..];
        let base = NonNull::from(start).cast::<u8>();
        let strict = file.is_some() && pages::overcommit_is_strict();
        let commits = kind == PageKind::Huge2Mb || (strict && kind != PageKind::Huge1Gb);
        Ok(Self { map, base, shift, len: capacity, backing, file, commits })
    }

    /// Address of the first byte.
    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Address of `len` bytes at `at`.
    ///
    /// # Panics
    /// They are outside the mapping.
    #[inline]
    pub(crate) fn address(&self, at: u64, len: u64) -> NonNull<u8> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => {}
            _ => outside(at, len, self.len),
        }
        // SAFETY: `at` is inside the mapping, as just checked (invariant 1).
        unsafe { self.base.add(index(at)) }
    }

    /// Asks the processor to fetch the cache line at `at`; offsets outside do nothing.
    #[inline]
    pub(crate) fn prefetch(&self, at: u64) {
        if at >= self.len {
            return;
        }
        // SAFETY: inside the mapping, as just checked.
        let address = unsafe { self.base.add(index(at)) };
        prefetch_line(address.as_ptr());
    }

    /// Bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The pages behind it.
    pub const fn kind(&self) -> PageKind {
        self.backing.kind
    }

    /// What it was asked to be.
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// How a child sees it.
    pub const fn isolation(&self) -> Isolation {
        self.backing.isolation
    }

    /// The file that a shared mapping is of, for a child to read: what is missing reads as zeros
    /// and takes no memory.
    pub(crate) const fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Whether reading a page that is missing takes memory, or kills the process if there is none.
    pub const fn reading_takes_memory(&self) -> bool {
        self.backing.kind.is_hugetlb() || self.file.is_some()
    }

    /// Makes sure that the `len` bytes at `offset` can be touched: a page that is missing might
    /// otherwise raise SIGBUS.
    ///
    /// # Errors
    /// The pool is dry, or the kernel may give no more memory.
    pub fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.commits {
            return Ok(());
        }
        let (at, len) = self.range(offset, len);
        self.map.advise_range(Advice::PopulateWrite, at, len)
    }

    /// Gives the memory of the `len` bytes at `offset` back to the kernel.
    ///
    /// # Errors
    /// The kernel's, for example EINVAL for hugetlb pages before Linux 5.18.
    ///
    /// # Safety
    /// The range is whole chunks, and no thread uses them.
    pub unsafe fn release(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.kind() == PageKind::Huge1Gb {
            return Ok(());
        }
        let (at, len) = self.range(offset, len);
        let advice = match self.isolation() {
            Isolation::KernelCow => UncheckedAdvice::DontNeed,
            Isolation::UndoLog(_) => UncheckedAdvice::Remove,
        };
        // SAFETY: the caller promises that no reference into the range exists.
        unsafe { self.map.unchecked_advise_range(advice, at, len) }
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

    /// Gives each of `chunks` chunks at `offset`, which may be empty, a huge page, and changes no
    /// byte of them.
    ///
    /// # Errors
    /// As [`Self::collapse`].
    pub(crate) fn prepare(&self, offset: u64, chunks: u32) -> io::Result<()> {
        let chunks = u64::from(chunks);
        for chunk in 0..chunks {
            // The kernel collapses no range in which nothing is present.
            let (at, len) = self.range(offset + chunk * CHUNK_SIZE, SMALL_PAGE);
            self.map.advise_range(Advice::PopulateWrite, at, len)?;
        }
        self.collapse(offset, chunks * CHUNK_SIZE)
    }

    fn range(&self, offset: u64, len: u64) -> (usize, usize) {
        assert!(offset + len <= self.len, "{offset:#x}+{len:#x} is outside the arena");
        (self.shift + index(offset), index(len))
    }
}

#[cold]
#[inline(never)]
fn outside(at: u64, len: u64, capacity: u64) -> ! {
    panic!("arena: {len} bytes at {at:#x} are outside its {capacity} bytes")
}

/// Private memory of `len` bytes, and how far into it the first multiple of `align` is.
fn reservation(len: usize, align: usize) -> io::Result<(MmapMut, usize)> {
    let map = MmapOptions::new().len(len + align).no_reserve_swap().map_anon()?;
    let shift = map.as_ptr().align_offset(align);
    Ok((map, shift))
}

/// Lays a shared mapping of `file` over a reservation: there it is aligned as its pages ask, which
/// the kernel does not do by itself for transparent huge pages.
fn lay_over(file: &File, kind: PageKind, len: usize) -> io::Result<(MmapMut, usize)> {
    let (map, shift) = reservation(len, index(kind.granularity()))?;
    let at = NonZeroUsize::new(map.as_ptr().addr() + shift);
    let bytes = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
    // SAFETY: it replaces a part of the reservation just made, which no thread uses yet; `map` goes
    // on owning the addresses and unmaps them.
    unsafe { mmap(at, bytes, access, flags, file, 0) }?;
    Ok((map, shift))
}

/// A file of `capacity` bytes in memory, in pages of `kind`.
fn memfd(kind: PageKind, capacity: u64) -> Result<File, PagesError> {
    let refused = |source| PagesError::Mapping { kind, capacity, source };
    let pages = match kind {
        PageKind::Small | PageKind::Thp => MFdFlags::empty(),
        PageKind::Huge2Mb => MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB,
        PageKind::Huge1Gb => MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_1GB,
    };
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | pages;
    let fd = memfd_create(MEMFD_NAME, flags).map_err(|errno| refused(errno.into()))?;
    let file = File::from(fd);
    match file.set_len(capacity) {
        Ok(()) => {
            // A file that shrank would turn loads and stores into SIGBUS. Handing memory back
            // punches holes, which these seals allow.
            let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
            fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| refused(errno.into()))?;
            Ok(file)
        }
        Err(error) if error.raw_os_error() == Some(libc::EFBIG) => {
            Err(PagesError::FileTooLarge { capacity })
        }
        Err(error) => Err(refused(error)),
    }
}

/// The error of a mapping that the kernel refused.
fn explain(kind: PageKind, capacity: u64, source: io::Error) -> PagesError {
    match (source.raw_os_error(), HugetlbPool::read(kind)) {
        // Another process took pages between the check and now.
        (Some(libc::ENOMEM), Some(pool)) => pages::pool_too_small(kind, capacity, pool),
        _ => PagesError::Mapping { kind, capacity, source },
    }
}
