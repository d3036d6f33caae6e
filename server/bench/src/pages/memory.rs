//! The memory that is written, forked and written again.
//!
//! Invariants:
//! 1. A region is one mapping that was made here and is never unmapped, moved or shrunk while the
//!    process lives. Nobody else knows its address.
//! 2. Every offset that is written is below the region's length.
#![expect(unsafe_code, reason = "mappings are made and written by address")]

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous};

use super::kind::{Kind, UNIT};

const GIB: usize = 1 << 30;

/// Memory of one kind.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// Maps at least `bytes`: whole pages of its kind, on a border of 2 MiB.
    ///
    /// # Errors
    /// When the kernel refuses; the pool may be too small.
    pub fn map(kind: Kind, bytes: usize) -> Result<Self> {
        let private = MapFlags::MAP_PRIVATE;
        match kind {
            Kind::Small => Self::anonymous(bytes, MmapAdvise::MADV_NOHUGEPAGE),
            Kind::Thp | Kind::Mthp => Self::anonymous(bytes, MmapAdvise::MADV_HUGEPAGE),
            Kind::Huge2Mb => Self::file(bytes, MFdFlags::MFD_HUGE_2MB, private),
            Kind::Huge1Gb => {
                Self::file(bytes.next_multiple_of(GIB), MFdFlags::MFD_HUGE_1GB, private)
            }
            Kind::SharedSmall => Self::file(bytes, MFdFlags::empty(), MapFlags::MAP_SHARED),
            Kind::Shared2Mb => Self::file(bytes, MFdFlags::MFD_HUGE_2MB, MapFlags::MAP_SHARED),
        }
    }

    fn anonymous(bytes: usize, advice: MmapAdvise) -> Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // One unit more, so that there is a border of 2 MiB to begin at.
        let length = NonZeroUsize::new(bytes + UNIT).context("no memory asked for")?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let mapped = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }
            .context("cannot map anonymous memory")?
            .cast::<u8>();
        let skipped = mapped.as_ptr().align_offset(UNIT);
        // SAFETY: invariant 1: `skipped` is below UNIT, and the mapping has UNIT bytes to spare.
        let base = unsafe { mapped.add(skipped) };
        // SAFETY: invariant 1: the range is ours; advice changes no byte of it.
        let advised = unsafe { madvise(base.cast::<c_void>(), bytes, advice) };
        match advised {
            // A kernel without transparent huge pages has only small ones anyway.
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
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let mapped = unsafe { mmap(None, length, protection, flags, &file, 0) };
        match mapped {
            Ok(base) => Ok(Self { base: base.cast(), bytes }),
            Err(nix::errno::Errno::ENOMEM) => bail!("the hugetlb pool has too few free pages"),
            Err(error) => Err(error).context("cannot map the memfd"),
        }
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it begins, to find it in the kernel's tables.
    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// Hugetlb pages that this process does not have mapped; 0 for memory of other kinds. One call
    /// of some hundred nanoseconds a page.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn missing(&self, kind: Kind) -> Result<usize> {
        let step = match kind {
            Kind::Huge1Gb => GIB,
            Kind::Huge2Mb => UNIT,
            _ => return Ok(0),
        };
        let mut missing = 0;
        for offset in (0..self.bytes).step_by(step) {
            let mut there = 0_u8;
            // SAFETY: invariant 1: `offset` is below the region's length.
            let page = unsafe { self.base.add(offset) };
            // SAFETY: invariant 1: the kernel looks at the page and writes one byte, to `there`.
            let failed = unsafe { libc::mincore(page.as_ptr().cast(), 4096, &raw mut there) } != 0;
            if failed {
                return Err(nix::errno::Errno::last()).context("the kernel tells no missing pages");
            }
            missing += usize::from(there & 1 == 0);
        }
        Ok(missing)
    }

    /// Writes every byte once.
    pub fn fill(&mut self) {
        // SAFETY: invariant 1: the whole mapping is ours, writable and `bytes` long.
        unsafe { self.base.as_ptr().write_bytes(1, self.bytes) };
    }

    /// Writes one byte.
    ///
    /// # Panics
    /// When the offset is outside.
    #[inline]
    pub fn touch(&mut self, offset: usize) {
        assert!(offset < self.bytes, "outside the region");
        // SAFETY: invariant 2, just checked.
        let byte = unsafe { self.base.add(offset) };
        // SAFETY: invariant 1: it is ours and writable. Volatile, so that it is really written.
        unsafe { byte.as_ptr().write_volatile(2) };
    }
}
