//! The few system calls without a safe wrapper.
//!
//! Invariants that unsafe code leans on:
//! 1. A [`SharedReport`] owns one page, mapped shared and anonymous until it goes: zero at first,
//!    page-aligned, and used through atomics only, in this process and in its child.
//! 2. A [`PageCacheMap`] owns a mapping of a file and never touches its bytes, so that a file that
//!    shrinks under it does no harm.
//! 3. System calls that take numbers and a file descriptor touch no memory of ours.

#![expect(unsafe_code, reason = "a shared page and raw system calls; invariants above")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::report::ChildReport;

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

const _: () = assert!(size_of::<ChildReport>() <= PAGE.get());

/// Nanoseconds for which the child keeps a processor that others want; see
/// docs/decisions/0012-short-turns.md.
const TURN_NS: u64 = 100_000;
/// Bytes of the first version of `struct sched_attr`, which all kernels know.
const SCHED_ATTR_SIZE: u32 = 48;
const MOST_NICE: libc::c_int = 19;

/// A report in a page that stays shared after a fork.
pub(super) struct SharedReport(NonNull<ChildReport>);

// SAFETY: the page is used through atomics only (invariant 1).
unsafe impl Send for SharedReport {}
// SAFETY: as for Send.
unsafe impl Sync for SharedReport {}

impl SharedReport {
    pub(super) fn new() -> io::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let page = unsafe { mmap_anonymous(None, PAGE, access, MapFlags::MAP_SHARED) }?;
        Ok(Self(page.cast()))
    }
}

impl Deref for SharedReport {
    type Target = ChildReport;

    fn deref(&self) -> &ChildReport {
        // SAFETY: mapped, aligned, and zeros are a report (invariant 1).
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedReport {
    fn drop(&mut self) {
        // SAFETY: no other reference to the address exists (invariant 1).
        let _ = unsafe { munmap(self.0.cast(), PAGE.get()) };
    }
}

/// Sets the calling thread's policy, adds to its niceness, and lets it keep a processor for short
/// turns only: a thread that wakes on the same one waits for the end of a turn, which is
/// milliseconds long by default. Since Linux 6.12 (sched_setattr(2), `sched_runtime`); before, the
/// length is ignored. False: there is no such call. Safe to call in the child of a fork.
pub(super) fn take_short_turns(policy: libc::c_int, nicer_by: libc::c_int) -> bool {
    // SAFETY: numbers (invariant 3).
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = libc::sched_attr {
        size: SCHED_ATTR_SIZE,
        sched_policy: policy.cast_unsigned(),
        sched_flags: 0,
        sched_nice: nice.saturating_add(nicer_by).min(MOST_NICE),
        sched_priority: 0,
        sched_runtime: TURN_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: reads `attributes`, which lives and says how long it is.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

/// Lets the calling thread keep a processor for short turns only, with the priority that it has.
/// Before Linux 6.12 the thread runs as any other.
pub fn take_short_background_turns() {
    take_short_turns(libc::SCHED_OTHER, 0);
}

/// Makes a file that would grow over its limit an error with a name, instead of the end of the
/// process.
pub fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal runs no code of ours.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// `sync_file_range(2)`; its errors show again in the final sync.
pub(super) fn sync_file_range(file: &File, at: u64, len: u64, flags: libc::c_uint) {
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else { return };
    // SAFETY: numbers and an open file (invariant 3).
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, flags) };
}

/// Whether the page at `address` is mapped in this process; `address` is a multiple of 4096.
/// Safe to call in the child of a fork.
pub(super) fn is_mapped(address: *const u8) -> bool {
    let mut page = 0_u8;
    // SAFETY: mincore looks at the mapping without touching it, and writes one byte for the one
    // page that it is asked about.
    let outcome = unsafe { libc::mincore(address.cast_mut().cast(), PAGE.get(), &raw mut page) };
    outcome == 0 && page & 1 == 1
}

/// Tells which parts of a file are in the page cache.
pub(super) struct PageCacheMap(MmapRaw);

impl PageCacheMap {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        MmapOptions::new().map_raw_read_only(file).map(Self)
    }

    /// Whether the page cache has all `len` bytes at `at`, a multiple of 4096.
    pub(super) fn has(&self, at: usize, len: usize) -> bool {
        // A chunk's pages, and a few more than a frame can have.
        let mut pages = [0_u8; 520];
        let count = len.div_ceil(PAGE.get());
        if at.checked_add(len).is_none_or(|end| end > self.0.len()) || count > pages.len() {
            return false;
        }
        // SAFETY: inside the mapping, as just checked.
        let start = unsafe { self.0.as_mut_ptr().add(at) };
        // SAFETY: mincore looks at the mapping without touching it (invariant 2), and writes one
        // byte a page into `pages`, which has room for them.
        let outcome = unsafe { libc::mincore(start.cast(), len, pages.as_mut_ptr()) };
        outcome == 0 && pages[..count].iter().all(|page| page & 1 == 1)
    }
}
