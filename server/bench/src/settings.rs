//! Kernel settings that a benchmark may change and restores afterwards: hugetlb pools and the sizes
//! of transparent huge pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cleanup::{Cleanup, CleanupStep};
use super::machine::bracketed;

/// Folder with the settings of transparent huge pages.
pub const THP: &str = "/sys/kernel/mm/transparent_hugepage";

/// Hugetlb pool of one page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HugePool {
    kib: usize,
}

impl HugePool {
    /// Pool of 2 MiB pages.
    pub const MIB_2: Self = Self { kib: 2048 };
    /// Pool of 1 GiB pages.
    pub const GIB_1: Self = Self { kib: 1 << 20 };

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/sys/kernel/mm/hugepages/hugepages-{}kB/{name}", self.kib))
    }

    /// Number of pages in the pool, and of those that are free and not reserved; zero if the kernel
    /// has no such pool.
    pub fn pages(self) -> (usize, usize) {
        let read = |name| {
            let text = fs::read_to_string(self.file(name)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let free: usize = read("free_hugepages");
        (read("nr_hugepages"), free.saturating_sub(read("resv_hugepages")))
    }

    /// Shell command that resizes the pool to `pages`.
    pub fn command(self, pages: usize) -> String {
        let mib = pages * self.kib / 1024;
        format!("echo {pages} > {} ({mib} MiB)", self.file("nr_hugepages").display())
    }

    /// Enlarges the pool until `need` pages are free or the kernel finds no more. Dropping the
    /// result restores the size.
    ///
    /// # Errors
    /// Returns an error if the setting cannot be written, which requires root.
    pub fn ensure_free(self, need: usize) -> Result<Cleanup> {
        let (all, free) = self.pages();
        let path = self.file("nr_hugepages");
        let missing = need.saturating_sub(free);
        let mut cleanup = Cleanup::new();
        if missing > 0 {
            change(&mut cleanup, &path, &all.to_string(), &(all + missing).to_string())?;
        }
        Ok(cleanup)
    }
}

/// Enables transparent huge pages of 64 KiB and disables those of 2 MiB. Dropping the result
/// restores both settings.
///
/// # Errors
/// Returns an error if a setting cannot be written, which requires root.
pub fn only_64kb_pages() -> Result<Cleanup> {
    let mut cleanup = Cleanup::new();
    for (size, word) in [("hugepages-2048kB", "never"), ("hugepages-64kB", "madvise")] {
        let path = PathBuf::from(format!("{THP}/{size}/enabled"));
        let old = bracketed(&path).with_context(|| format!("cannot read {}", path.display()))?;
        change(&mut cleanup, &path, &old, word)?;
    }
    Ok(cleanup)
}

fn change(cleanup: &mut Cleanup, path: &Path, old: &str, new: &str) -> Result<()> {
    let written = cleanup
        .guard(CleanupStep::Setting(path.to_owned(), old.to_owned()), || fs::write(path, new));
    written.with_context(|| format!("cannot write {new} to {}; are you root?", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_restores_the_first_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("setting");
        fs::write(&file, "1").unwrap();
        let mut cleanup = Cleanup::new();
        change(&mut cleanup, &file, "1", "2").unwrap();
        change(&mut cleanup, &file, "2", "3").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "3");
        drop(cleanup);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    }

    #[test]
    fn command_that_resizes_a_pool() {
        assert_eq!(
            HugePool::MIB_2.command(1024),
            "echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (2048 MiB)"
        );
    }
}
