//! A claim on the machine's hugetlb pool.
//!
//! Tests that need huge pages run one after the other, also across processes: what one of them has
//! seen free, no other takes away. `./test` fills the pool before the tests and empties it after.

use crate::wait::wait_until;
use anyhow::{Context, Result};
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A size of huge page.
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

    /// One figure of the pool, as `free_hugepages` or `nr_hugepages`.
    ///
    /// # Errors
    /// When this kernel has no such pool.
    pub fn figure(self, name: &str) -> Result<u64> {
        let path = format!("{}/{name}", self.folder());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        text.trim().parse().with_context(|| path)
    }

    /// Pages that no process holds or has reserved.
    #[must_use]
    pub fn available(self) -> u64 {
        let free = self.figure("free_hugepages").unwrap_or(0);
        free.saturating_sub(self.figure("resv_hugepages").unwrap_or(0))
    }
}

/// The right to use the pool, held until it is dropped.
#[derive(Debug)]
pub struct Claim {
    _file: File,
    _thread: MutexGuard<'static, ()>,
}

static THREADS: Mutex<()> = Mutex::new(());

/// Waits for the other users of the pool, then claims it when `pages` are free.
///
/// Returns `Ok(Err(reason))`, fit for [`skip!`](crate::skip), when there are too few.
///
/// # Errors
/// When the lock file cannot be used.
pub fn claim(size: PageSize, pages: u64) -> Result<Result<Claim, String>> {
    let thread = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join("cowherd-tests-hugepages.lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    // A process that was killed may hold its pages for a moment longer.
    if size.figure("nr_hugepages").is_ok_and(|all| all >= pages) {
        drop(wait_until(|| Ok(size.available() >= pages), PATIENCE, "free pages"));
    }
    let free = size.available();
    if free < pages {
        return Ok(Err(format!("needs {pages} free pages of {size:?}, the pool has {free}")));
    }
    Ok(Ok(Claim { _file: file, _thread: thread }))
}

/// Changes how many pages the pool has, and puts the old number back when dropped.
#[derive(Debug)]
pub struct PoolSize {
    size: PageSize,
    before: u64,
}

impl PoolSize {
    /// Sets the pool to `pages`; the caller holds the [`Claim`].
    ///
    /// # Errors
    /// When this process is not root, or the kernel did not follow.
    pub fn set(size: PageSize, pages: u64) -> Result<Self> {
        let guard = Self { size, before: size.figure("nr_hugepages")? };
        set(size, pages)?;
        Ok(guard)
    }
}

impl Drop for PoolSize {
    fn drop(&mut self) {
        if let Err(error) = set(self.size, self.before) {
            eprintln!("cannot put the pool back: {error:#}");
        }
    }
}

/// Where memory is scattered the kernel finds some pages each time.
fn set(size: PageSize, pages: u64) -> Result<()> {
    let follows = || {
        std::fs::write(format!("{}/nr_hugepages", size.folder()), pages.to_string())?;
        Ok(size.figure("nr_hugepages")? == pages)
    };
    wait_until(follows, PATIENCE, &format!("{pages} pages of {size:?} in the pool"))
}
