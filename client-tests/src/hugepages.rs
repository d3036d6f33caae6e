//! Exclusive use of the machine's hugetlb pools.
//!
//! Tests that need huge pages exclude each other, also across processes, so that free pages stay
//! free until the test uses them. Unit tests of the arena take the same lock. `./test` fills the
//! pools before the tests and restores them afterwards.

use crate::wait::wait_until;
use anyhow::{Context, Result};
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time limit for pages to become free, or for the kernel to resize a pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(20);

/// Size of a huge page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 2 MiB.
    Huge2M,
    /// 1 GiB.
    Huge1G,
}

impl PageSize {
    const fn folder(self) -> &'static str {
        match self {
            Self::Huge2M => "/sys/kernel/mm/hugepages/hugepages-2048kB",
            Self::Huge1G => "/sys/kernel/mm/hugepages/hugepages-1048576kB",
        }
    }

    /// Size of the page in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Huge2M => 2 << 20,
            Self::Huge1G => 1 << 30,
        }
    }

    /// Reads a counter of the pool, such as `free_hugepages` or `nr_hugepages`.
    ///
    /// # Errors
    /// Returns an error if the kernel has no such pool.
    pub fn figure(self, name: &str) -> Result<u64> {
        let path = format!("{}/{name}", self.folder());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        text.trim().parse().with_context(|| path)
    }

    /// Number of pages that are neither in use nor reserved.
    #[must_use]
    pub fn available(self) -> u64 {
        let free = self.figure("free_hugepages").unwrap_or(0);
        free.saturating_sub(self.figure("resv_hugepages").unwrap_or(0))
    }
}

/// Exclusive use of the pools until dropped.
#[derive(Debug)]
pub struct PoolClaim {
    _file: File,
    _thread: MutexGuard<'static, ()>,
}

static THREADS: Mutex<()> = Mutex::new(());

/// Waits for other users of the pools, then claims them if `pages` are free.
///
/// Returns `Ok(Err(reason))`, for [`skip!`](crate::skip), if too few are free.
///
/// # Errors
/// Returns an error if the lock file cannot be used.
pub fn claim(size: PageSize, pages: u64) -> Result<Result<PoolClaim, String>> {
    let thread = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join("cowherd-tests-hugepages.lock");
    // Another user's file can be opened for reading, which is enough to lock it.
    let file = File::open(&path).or_else(|_| File::create(&path));
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    // The pages of a killed process are not free at once.
    if size.figure("nr_hugepages").is_ok_and(|all| all >= pages) {
        drop(wait_until(|| Ok(size.available() >= pages), POOL_TIMEOUT, "free pages"));
    }
    let free = size.available();
    if free < pages {
        return Ok(Err(format!("needs {pages} free pages of {size:?}, the pool has {free}")));
    }
    Ok(Ok(PoolClaim { _file: file, _thread: thread }))
}

/// Changed size of a pool; dropping it restores the old size.
#[derive(Debug)]
pub struct PoolSize {
    size: PageSize,
    before: u64,
}

impl PoolSize {
    /// Resizes the pool to `pages`. The caller must hold a [`PoolClaim`].
    ///
    /// # Errors
    /// Returns an error if this process is not root or the kernel does not reach the size.
    pub fn set(size: PageSize, pages: u64) -> Result<Self> {
        let guard = Self { size, before: size.figure("nr_hugepages")? };
        set(size, pages)?;
        Ok(guard)
    }
}

impl Drop for PoolSize {
    fn drop(&mut self) {
        if let Err(error) = set(self.size, self.before) {
            eprintln!("cannot restore the pool: {error:#}");
        }
    }
}

/// Resizes a pool by repeated requests: in fragmented memory each request yields only some pages.
fn set(size: PageSize, pages: u64) -> Result<()> {
    let follows = || {
        std::fs::write(format!("{}/nr_hugepages", size.folder()), pages.to_string())?;
        Ok(size.figure("nr_hugepages")? == pages)
    };
    wait_until(follows, POOL_TIMEOUT, &format!("{pages} pages of {size:?} in the pool"))
}
