//! Settings of the kernel that a benchmark may change, and puts back: hugetlb pools, sizes of
//! transparent huge pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::machine::bracketed;
use super::undo::{self, Undo};

/// Where the settings of transparent huge pages are.
pub const THP: &str = "/sys/kernel/mm/transparent_hugepage";

/// A hugetlb pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    kib: usize,
}

impl Pool {
    /// Pages of 2 MiB.
    pub const MIB_2: Self = Self { kib: 2048 };
    /// Pages of 1 GiB.
    pub const GIB_1: Self = Self { kib: 1 << 20 };

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/sys/kernel/mm/hugepages/hugepages-{}kB/{name}", self.kib))
    }

    /// Pages in it, and of them those that are free and not promised to anyone; zero where the
    /// kernel has no such pool.
    pub fn pages(self) -> (usize, usize) {
        let read = |name| {
            let text = fs::read_to_string(self.file(name)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let free: usize = read("free_hugepages");
        (read("nr_hugepages"), free.saturating_sub(read("resv_hugepages")))
    }

    /// The command that brings the pool to so many pages.
    pub fn command(self, pages: usize) -> String {
        let mib = pages * self.kib / 1024;
        format!("echo {pages} > {} ({mib} MiB)", self.file("nr_hugepages").display())
    }

    /// Enlarges it until so many are free, or the kernel finds no more; put back when dropped.
    ///
    /// # Errors
    /// When the setting cannot be written: that takes root.
    pub fn ensure_free(self, need: usize) -> Result<Undo> {
        let (all, free) = self.pages();
        let path = self.file("nr_hugepages");
        let missing = need.saturating_sub(free);
        let mut undo = Undo::begin();
        if missing > 0 {
            change(&mut undo, &path, &all.to_string(), &(all + missing).to_string())?;
        }
        Ok(undo)
    }
}

/// Lets the kernel give transparent huge pages of 64 KiB and of no other size; put back when
/// dropped.
///
/// # Errors
/// When a setting cannot be written: that takes root.
pub fn only_64kb_pages() -> Result<Undo> {
    let mut undo = Undo::begin();
    for (size, word) in [("hugepages-2048kB", "never"), ("hugepages-64kB", "madvise")] {
        let path = PathBuf::from(format!("{THP}/{size}/enabled"));
        let old = bracketed(&path).with_context(|| format!("cannot read {}", path.display()))?;
        change(&mut undo, &path, &old, word)?;
    }
    Ok(undo)
}

fn change(undo: &mut Undo, path: &Path, old: &str, new: &str) -> Result<()> {
    let written =
        undo.after(undo::Step::Setting(path.to_owned(), old.to_owned()), || fs::write(path, new));
    written.with_context(|| format!("cannot write {new} to {}; are you root?", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_put_back_backwards_to_what_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("setting");
        fs::write(&file, "1").unwrap();
        let mut undo = Undo::begin();
        change(&mut undo, &file, "1", "2").unwrap();
        change(&mut undo, &file, "2", "3").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "3");
        drop(undo);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    }

    #[test]
    fn a_pool_names_the_command_that_fills_it() {
        assert_eq!(
            Pool::MIB_2.command(1024),
            "echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (2048 MiB)"
        );
    }
}
