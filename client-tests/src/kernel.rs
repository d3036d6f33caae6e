//! Counters of the kernel for a process: page faults of threads, and the memory of the largest
//! mapping, which is the arena.

use anyhow::{Context, Result};
use std::fs::read_to_string;

/// Minor page faults of the threads whose names begin with `name`, since their start.
///
/// # Errors
/// Returns an error if the process has ended.
pub fn faults_of_threads(pid: u32, name: &str) -> Result<u64> {
    let mut faults = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = read_to_string(task?.path().join("stat"))?;
        let (head, tail) = stat.rsplit_once(')').context("stat without a name")?;
        if head.split_once('(').is_some_and(|(_, thread)| thread.starts_with(name)) {
            // The tenth field, counted from the process id; the name is the second.
            faults += tail.split_whitespace().nth(7).context("short stat")?.parse::<u64>()?;
        }
    }
    Ok(faults)
}

/// Memory of a mapping in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Bytes in pages that no other process maps.
    pub private: u64,
    /// Bytes on huge pages, transparent or hugetlb.
    pub huge: u64,
}

/// Memory of the largest mapping of a process, from smaps.
///
/// # Errors
/// Returns an error if the process has ended.
pub fn largest_mapping(pid: u32) -> Result<Mapping> {
    let smaps = read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut largest, mut size) = (Mapping::default(), 0);
    let (mut current, mut current_size) = (Mapping::default(), 0);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let bytes = value.parse::<u64>().unwrap_or(0) << 10;
        match name {
            "Size:" => (current, current_size) = (Mapping::default(), bytes),
            "Private_Clean:" | "Private_Dirty:" => current.private += bytes,
            "AnonHugePages:" | "ShmemPmdMapped:" | "Shared_Hugetlb:" => current.huge += bytes,
            "Private_Hugetlb:" => {
                current.private += bytes;
                current.huge += bytes;
            }
            "VmFlags:" if current_size > size => (largest, size) = (current, current_size),
            _ => {}
        }
    }
    Ok(largest)
}
