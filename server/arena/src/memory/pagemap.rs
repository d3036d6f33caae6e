//! Reads page tables from `/proc/<pid>/pagemap`: which pages are resident, shared with another
//! process, or mapped as a huge page (Linux:
//! Documentation/admin-guide/mm/pagemap.rst).
//!
//! A walk holds the lock of the address space for reading, which a `fork` waits for. So a range is
//! walked in steps of [`STEP`], some tens of microseconds each.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;

use crate::layout::CHUNK_SIZE;

/// The page size of page tables, on all machines that this runs on.
const PAGE: u64 = 4096;
const ENTRY: u64 = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const EXCLUSIVE: u64 = 1 << 56;

/// Bytes that are walked in one call.
const STEP: u64 = 32 * CHUNK_SIZE;
/// Regions that one call returns.
const REGIONS: usize = 512;

/// Categories of pages in the `PAGEMAP_SCAN` call (Linux 6.7).
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_PFN_ZERO: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;

/// `struct page_region`: neighbouring pages of the same categories.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<Region>() == 24 && size_of::<Scan>() == 96);

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, Scan);

/// Residency of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageState {
    /// The page has no memory yet: the first write allocates a zeroed page.
    Absent,
    /// Only this process maps the page: a write changes it in place.
    Private,
    /// Another process maps it too: a write copies it.
    Shared,
}

/// Neighbouring pages that hold something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Resident {
    /// Address of the first byte.
    pub start: u64,
    /// Address behind the last byte.
    pub end: u64,
    /// Whether a single entry of the page table maps each 2 MiB of them.
    pub huge: bool,
}

/// The page tables of one process.
#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    /// Those of this process.
    ///
    /// # Errors
    /// There is no /proc, or the process may not look at itself.
    pub(crate) fn own() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Those of another process of the same user.
    ///
    /// # Errors
    /// It is gone, or it may not be looked at.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
    }

    /// Returns the state of the page at an address: one system call of a microsecond.
    pub(crate) fn page(&self, address: u64) -> io::Result<PageState> {
        let mut entry = [0; 8];
        self.0.read_exact_at(&mut entry, address / PAGE * ENTRY)?;
        let entry = u64::from_ne_bytes(entry);
        Ok(match entry {
            _ if entry & (PRESENT | SWAPPED) == 0 => PageState::Absent,
            _ if entry & EXCLUSIVE != 0 => PageState::Private,
            _ => PageState::Shared,
        })
    }

    /// Finds the pages between two addresses that hold something, in ascending order. Pages that
    /// were only ever read, and read as zeros, hold nothing.
    ///
    /// `found` gets the pages; `step` is asked after each step, with the address up to which all
    /// is known, whether to go on.
    ///
    /// # Errors
    /// The kernel's; `Unsupported` before Linux 6.7.
    pub(crate) fn residents(
        &self,
        start: u64,
        end: u64,
        mut found: impl FnMut(Resident),
        mut step: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        let mut regions = [Region::default(); REGIONS];
        let mut at = start;
        while at < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start: at,
                end: end.min(at + STEP),
                vec: regions.as_mut_ptr() as u64,
                vec_len: REGIONS as u64,
                category_inverted: IS_PFN_ZERO,
                category_mask: IS_PFN_ZERO,
                category_anyof_mask: IS_PRESENT | IS_SWAPPED,
                return_mask: IS_HUGE,
                ..Scan::default()
            };
            // SAFETY: the kernel writes at most `vec_len` regions to `vec`, which lives, and the
            // fields of `scan`.
            let count = match unsafe { pagemap_scan(self.0.as_raw_fd(), &raw mut scan) } {
                Ok(count) => usize::try_from(count).unwrap_or(0),
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOTTY | Errno::EINVAL) => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                Err(errno) => return Err(errno.into()),
            };
            for region in &regions[..count.min(REGIONS)] {
                let huge = region.categories & IS_HUGE != 0;
                found(Resident { start: region.start, end: region.end, huge });
            }
            if scan.walk_end <= at {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at = scan.walk_end;
            if !step(at) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use memmap2::{Advice, MmapMut};

    use super::*;

    #[test]
    fn pages_are_found_once_they_are_written() {
        let mut map = MmapMut::map_anon(64 * PAGE as usize).unwrap();
        let _ = map.advise(Advice::NoHugePage);
        let base = map.as_ptr() as u64;
        let own = Pagemap::own().unwrap();
        assert_eq!(own.page(base).unwrap(), PageState::Absent);
        map[3 * PAGE as usize] = 1;
        map[4 * PAGE as usize] = 1;
        map[9 * PAGE as usize] = 1;
        // A page that is only read is the zero page.
        assert_eq!(map[20 * PAGE as usize], 0);
        assert_eq!(own.page(base + 3 * PAGE + 5).unwrap(), PageState::Private);

        let mut found = Vec::new();
        let outcome = own.residents(base, base + 64 * PAGE, |one| found.push(one), |_| true);
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            outcome => outcome.unwrap(),
        }
        let at =
            |from, to| Resident { start: base + from * PAGE, end: base + to * PAGE, huge: false };
        assert_eq!(found, [at(3, 5), at(9, 10)]);
    }

    #[test]
    fn a_walk_can_be_broken_off() {
        let map = MmapMut::map_anon(3 * STEP as usize).unwrap();
        let base = map.as_ptr() as u64;
        let mut steps = Vec::new();
        let own = Pagemap::own().unwrap();
        let outcome = own.residents(
            base,
            base + 3 * STEP,
            |_| {},
            |at| {
                steps.push(at - base);
                steps.len() < 2
            },
        );
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            outcome => {
                outcome.unwrap();
                assert_eq!(steps, [STEP, 2 * STEP]);
            }
        }
    }
}
