//! Memory use over time, of the machine and of a server's processes.
//!
//! Sampling reads only counters that the kernel maintains anyway. Walking page tables, as smaps
//! does, would hold the lock that the server's page faults need.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use serde::Serialize;

/// Fields of `/proc/meminfo` that count as memory in use.
const MEMINFO: [&str; 3] = ["AnonPages", "Shmem", "PageTables"];
const HUGE_POOLS: &str = "/sys/kernel/mm/hugepages";
const PAGE: u64 = 4096;
const KIB: u64 = 1024;

/// Memory in use at one time, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemorySample {
    /// Time in microseconds relative to the sending of BGSAVE.
    pub at_us: i64,
    /// Memory of the machine: anonymous and shared memory, page tables, and hugetlb pages in use.
    /// Without the page cache, which the kernel reclaims on demand.
    pub host_bytes: u64,
    /// Hugetlb pages in use, a part of `host_bytes`.
    pub hugetlb_bytes: u64,
    /// Sum of resident and hugetlb bytes of the server and its children, so that pages shared by
    /// parent and child count twice.
    pub processes_bytes: u64,
}

/// Sampler of memory use. Files stay open, so that a sample takes tens of microseconds.
#[derive(Debug)]
pub struct MemorySampler {
    meminfo: Option<File>,
    pools: Vec<PoolFiles>,
    server: Option<i32>,
    buffer: Vec<u8>,
}

/// Open files of the hugetlb pool of one page size.
#[derive(Debug)]
struct PoolFiles {
    page_bytes: u64,
    all: File,
    free: File,
}

impl MemorySampler {
    /// Creates a sampler for a server with this process id, if it runs on this machine.
    pub fn new(server: Option<i32>) -> Self {
        let folders = fs::read_dir(HUGE_POOLS).into_iter().flatten();
        let pool = |folder: fs::DirEntry| {
            let name = folder.file_name();
            let size = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            let open = |name| File::open(folder.path().join(name)).ok();
            Some(PoolFiles {
                page_bytes: size.parse::<u64>().ok()? * KIB,
                all: open("nr_hugepages")?,
                free: open("free_hugepages")?,
            })
        };
        Self {
            meminfo: File::open("/proc/meminfo").ok(),
            pools: folders.filter_map(|folder| pool(folder.ok()?)).collect(),
            server,
            buffer: vec![0; 16 << 10],
        }
    }

    /// Samples the memory in use now.
    pub fn sample(&mut self, at_us: i64) -> MemorySample {
        let meminfo = self.meminfo.as_ref().map_or("", |file| reread(file, &mut self.buffer));
        let counted = MEMINFO.iter().filter_map(|name| kib(meminfo, name)).sum::<u64>();
        let mut number =
            |file: &File| reread(file, &mut self.buffer).trim().parse::<u64>().unwrap_or(0);
        let mut hugetlb_bytes = 0;
        for pool in &self.pools {
            let (all, free) = (number(&pool.all), number(&pool.free));
            // The two files are inconsistent while the pool is resized.
            hugetlb_bytes += all.saturating_sub(free) * pool.page_bytes;
        }
        let processes_bytes =
            self.server.map_or(0, |server| process_tree(server, hugetlb_bytes > 0));
        MemorySample { at_us, host_bytes: counted + hugetlb_bytes, hugetlb_bytes, processes_bytes }
    }
}

/// Content of an open kernel file.
fn reread<'a>(file: &File, buffer: &'a mut [u8]) -> &'a str {
    let length = file.read_at(buffer, 0).unwrap_or(0);
    std::str::from_utf8(&buffer[..length]).unwrap_or("")
}

/// Value in bytes of a line `Name:   123 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * KIB)
}

/// Memory of a process and its children in bytes.
fn process_tree(server: i32, hugetlb: bool) -> u64 {
    let threads = fs::read_dir(format!("/proc/{server}/task"));
    let children = threads.into_iter().flatten().filter_map(|thread| {
        let list = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        Some(list.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<i32>>())
    });
    let bytes = |process| resident(process, hugetlb);
    bytes(server) + children.flatten().map(bytes).sum::<u64>()
}

/// Resident bytes of a process, with its hugetlb pages, which `statm` lacks, if `hugetlb` is set.
fn resident(process: i32, hugetlb: bool) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let status = |()| fs::read_to_string(format!("/proc/{process}/status")).ok();
    let huge = hugetlb.then_some(()).and_then(status);
    pages * PAGE + huge.and_then(|status| kib(&status, "HugetlbPages")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn lines_of_meminfo_are_parsed() {
        let text = "MemTotal:  10 kB\nAnonPages:       1234 kB\nHugePages_Total:  3\n";
        assert_eq!(kib(text, "AnonPages"), Some(1234 * 1024));
        assert_eq!(kib(text, "HugePages_Total"), None, "no kB");
        assert_eq!(kib(text, "Anon"), None);
    }

    /// Uses a process of its own, because other tests of this process free memory meanwhile.
    #[test]
    fn growth_of_a_child_is_measured() {
        let mut server = Command::new("sh")
            .args(["-c", "tail -c 64M; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut sampler = MemorySampler::new(Some(i32::try_from(server.id()).unwrap()));
        let before = sampler.sample(0);
        let mut input = server.stdin.take().unwrap();
        // When this returns, all bytes but those in the pipe are in the child's memory.
        input.write_all(&vec![1; 64 << 20]).unwrap();
        let after = sampler.sample(1);
        drop(input);
        assert!(server.wait().unwrap().success());
        let grown = after.processes_bytes.saturating_sub(before.processes_bytes);
        assert!(grown >= 48 << 20, "{before:?} {after:?}");
        assert!(before.processes_bytes > 0 && before.host_bytes > 0, "{before:?}");
    }
}
