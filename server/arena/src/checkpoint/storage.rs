//! The seam between the writer and the disk, where tests put faults.
//!
//! 1. [`Storage::write_at`], the write-back pair and [`Storage::sync`] run in the forked child:
//!    they are one system call each, allocate nothing and take no lock. A `std::io::Error` from the
//!    operating system is a number, not an allocation.
//! 2. Everything else runs in the parent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use nix::libc;

use super::sys;

/// The disk operations of a checkpoint.
pub(super) trait Storage: Send + Sync {
    /// Creates the temporary file; with `direct`, past the page cache.
    fn create(&self, path: &Path, direct: bool) -> io::Result<File> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
    }

    /// Writes some of the bytes.
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        file.write_at(bytes, at)
    }

    /// Makes what was written durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Puts the temporary file in the place of the image.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Makes a rename durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// The disk as it is.
pub(super) struct Disk;

impl Storage for Disk {}

/// Sends later writes through the page cache.
pub(super) fn leave_direct(file: &File) {
    // O_DIRECT is the only flag of the temporary file that F_SETFL knows.
    let _ = fcntl(file, FcntlArg::F_SETFL(OFlag::empty()));
}

/// Asks the kernel to begin writing a part of the page cache. A failure shows in the final sync.
pub(super) fn start_writeback(file: &File, at: u64, len: u64) {
    sys::sync_file_range(file, at, len, libc::SYNC_FILE_RANGE_WRITE);
}

/// Waits until a part of the page cache is written, and drops it: a checkpoint must not push other
/// files out of memory, nor leave one huge sync to the end.
pub(super) fn finish_writeback(file: &File, at: u64, len: u64) {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sys::sync_file_range(file, at, len, flags);
    if let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) {
        let _ = posix_fadvise(file, at, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}
