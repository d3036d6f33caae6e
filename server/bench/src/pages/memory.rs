//! Mapping that the experiment writes before and after the fork.
//!
//! Invariants:
//! 1. A region is one mapping created in this module, never unmapped, moved or shrunk while the
//!    process lives. No other code accesses its addresses.
//! 2. Every written offset is below the region's length.
#![expect(unsafe_code, reason = "mappings are made and written by address")]

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous};

use super::parameters::{MemoryKind, UNIT};

const GIB: usize = 1 << 30;

/// Mapping of one kind.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// Maps at least `bytes`: whole pages of `kind`, aligned to 2 MiB.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses, for example because the pool is too small.
    pub fn map(kind: MemoryKind, bytes: usize) -> Result<Self> {
        let private = MapFlags::MAP_PRIVATE;
        match kind {
            MemoryKind::Small => Self::anonymous(bytes, MmapAdvise::MADV_NOHUGEPAGE),
            MemoryKind::Thp | MemoryKind::Mthp => Self::anonymous(bytes, MmapAdvise::MADV_HUGEPAGE),
            MemoryKind::Huge2Mb => Self::file(bytes, MFdFlags::MFD_HUGE_2MB, private),
            MemoryKind::Huge1Gb => {
                Self::file(bytes.next_multiple_of(GIB), MFdFlags::MFD_HUGE_1GB, private)
            }
            MemoryKind::SharedSmall => Self::file(bytes, MFdFlags::empty(), MapFlags::MAP_SHARED),
            MemoryKind::Shared2Mb => {
                Self::file(bytes, MFdFlags::MFD_HUGE_2MB, MapFlags::MAP_SHARED)
            }
        }
    }

    fn anonymous(bytes: usize, advice: MmapAdvise) -> Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // One unit more, so that the mapping contains an aligned range.
        let length = NonZeroUsize::new(bytes + UNIT).context("no memory asked for")?;
        // SAFETY: a new mapping at an address chosen by the kernel overlaps no other memory.
        let mapped = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }
            .context("cannot map anonymous memory")?
            .cast::<u8>();
        let skipped = mapped.as_ptr().align_offset(UNIT);
        // SAFETY: invariant 1: `skipped` is below UNIT, and the mapping has UNIT bytes to spare.
        let base = unsafe { mapped.add(skipped) };
        // SAFETY: invariant 1: the range is part of the mapping; advice changes no byte.
        let advised = unsafe { madvise(base.cast::<c_void>(), bytes, advice) };
        match advised {
            // A kernel without transparent huge pages has only small pages.
            Err(nix::errno::Errno::EINVAL) if advice == MmapAdvise::MADV_NOHUGEPAGE => {}
            advised => advised.context("the kernel refuses the advice about huge pages")?,
        }
        Ok(Self { base, bytes })
    }

    fn file(bytes: usize, size: MFdFlags, sharing: MapFlags) -> Result<Self> {
        let hugetlb = !size.is_empty();
        let flags = if hugetlb { MFdFlags::MFD_HUGETLB | size } else { size };
        let file =
            File::from(memfd_create(c"cowherd-bench", flags).context("cannot make a memfd")?);
        file.set_len(bytes as u64)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = if hugetlb { sharing | MapFlags::MAP_HUGETLB } else { sharing };
        let length = NonZeroUsize::new(bytes).context("no memory asked for")?;
        // SAFETY: a new mapping at an address chosen by the kernel overlaps no other memory.
        let mapped = unsafe { mmap(None, length, protection, flags, &file, 0) };
        match mapped {
            Ok(base) => Ok(Self { base: base.cast(), bytes }),
            Err(nix::errno::Errno::ENOMEM) => bail!("the hugetlb pool has too few free pages"),
            Err(error) => Err(error).context("cannot map the memfd"),
        }
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Address of the first byte, which identifies the mapping in `smaps`.
    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// Number of hugetlb pages that are not mapped in this process; 0 for other kinds. Takes some
    /// hundred nanoseconds per page.
    ///
    /// # Errors
    /// Returns the error of `mincore`.
    pub fn missing_pages(&self, kind: MemoryKind) -> Result<usize> {
        let step = match kind {
            MemoryKind::Huge1Gb => GIB,
            MemoryKind::Huge2Mb => UNIT,
            _ => return Ok(0),
        };
        let mut missing = 0;
        for offset in (0..self.bytes).step_by(step) {
            let mut residency = 0_u8;
            // SAFETY: invariant 1: `offset` is below the region's length.
            let page = unsafe { self.base.add(offset) };
            // SAFETY: invariant 1: the page is mapped, and the kernel writes one byte, to
            // `residency`.
            let failed =
                unsafe { libc::mincore(page.as_ptr().cast(), 4096, &raw mut residency) } != 0;
            if failed {
                return Err(nix::errno::Errno::last()).context("mincore failed");
            }
            missing += usize::from(residency & 1 == 0);
        }
        Ok(missing)
    }

    /// Writes every byte.
    pub fn fill(&mut self) {
        // SAFETY: invariant 1: the mapping is writable and `bytes` long.
        unsafe { self.base.as_ptr().write_bytes(1, self.bytes) };
    }

    /// Writes one byte.
    ///
    /// # Panics
    /// If the offset is out of range.
    #[inline]
    pub fn touch(&mut self, offset: usize) {
        assert!(offset < self.bytes, "outside the region");
        // SAFETY: invariant 2, checked above.
        let byte = unsafe { self.base.add(offset) };
        // SAFETY: invariant 1: the byte is mapped and writable. Volatile, or the store is elided.
        unsafe { byte.as_ptr().write_volatile(2) };
    }
}
