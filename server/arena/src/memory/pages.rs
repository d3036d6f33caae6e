//! Page kinds: what may be asked for, what this machine can give, and what to do about the rest.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _};
use std::path::PathBuf;

use crate::layout::CHUNK_SIZE;

/// The kind of pages behind the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// 4 KiB pages.
    Small,
    /// Transparent huge pages: 2 MiB where the kernel finds them, 4 KiB elsewhere.
    Thp,
    /// 2 MiB pages of the hugetlb pool.
    Huge2Mb,
    /// 1 GiB pages of the hugetlb pool.
    Huge1Gb,
}

impl PageKind {
    /// All kinds, smallest first.
    pub const ALL: [Self; 4] = [Self::Small, Self::Thp, Self::Huge2Mb, Self::Huge1Gb];

    /// The name that the configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Thp => "thp",
            Self::Huge2Mb => "huge-2mb",
            Self::Huge1Gb => "huge-1gb",
        }
    }

    /// Bytes that the kernel copies for one CoW fault. A fault on a transparent huge page splits
    /// it and copies 4 KiB (since Linux 5.8, commit 3917c80280c9).
    pub const fn cow_bytes(self) -> u64 {
        match self {
            Self::Small | Self::Thp => 4 << 10,
            Self::Huge2Mb => 2 << 20,
            Self::Huge1Gb => 1 << 30,
        }
    }

    /// Whether the pages come from the hugetlb pool.
    pub const fn is_hugetlb(self) -> bool {
        matches!(self, Self::Huge2Mb | Self::Huge1Gb)
    }

    /// What the arena's size is rounded up to.
    pub const fn granularity(self) -> u64 {
        match self {
            Self::Huge1Gb => 1 << 30,
            _ => CHUNK_SIZE,
        }
    }
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a checkpoint's child sees the arena of one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// The arena is private memory: the kernel copies the pages that the parent changes.
    KernelCow,
    /// The arena is shared memory: before the parent changes a block it logs what was in it.
    UndoLog(UndoOptions),
}

/// What an undo log is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UndoOptions {
    /// Bytes that it may take.
    pub limit: u64,
    /// Bytes of a block, one of [`BLOCK_SIZES`](crate::BLOCK_SIZES).
    pub block: u64,
}

/// What an arena's memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backing {
    /// The pages.
    pub kind: PageKind,
    /// Whether a child has copies of them, or the same.
    pub isolation: Isolation,
}

impl Backing {
    /// How many times the hugetlb pool must hold the arena: where the kernel copies pages after a
    /// fork, an exhausted pool kills the child.
    pub const fn copies(self) -> u64 {
        match self.isolation {
            Isolation::KernelCow => 2,
            Isolation::UndoLog(_) => 1,
        }
    }
}

/// Private pages.
impl From<PageKind> for Backing {
    fn from(kind: PageKind) -> Self {
        Self { kind, isolation: Isolation::KernelCow }
    }
}

/// The hugetlb pool of one page size, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HugetlbPool {
    /// Pages in the pool.
    pub total: u64,
    /// Pages that no process has taken.
    pub free: u64,
    /// Free pages that are promised to a process.
    pub reserved: u64,
}

impl HugetlbPool {
    /// Reads the pool of `kind` from sysfs; `None` if the kernel has no such pool.
    pub fn read(kind: PageKind) -> Option<Self> {
        let dir = pool_dir(kind)?;
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
        };
        Some(Self {
            total: number("nr_hugepages")?,
            free: number("free_hugepages")?,
            reserved: number("resv_hugepages")?,
        })
    }

    /// Pages that can still be promised.
    pub const fn available(self) -> u64 {
        self.free.saturating_sub(self.reserved)
    }
}

fn pool_dir(kind: PageKind) -> Option<PathBuf> {
    kind.is_hugetlb().then(|| {
        let kib = kind.cow_bytes() >> 10;
        PathBuf::from(format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB"))
    })
}

/// The machine's setting of transparent huge pages for memory of that kind: `always`, `madvise` or
/// `never` for private memory; for shared memory `always`, `within_size`, `advise`, `never`, `deny`
/// or `force`. `None` if the kernel has none.
pub fn thp_setting(isolation: Isolation) -> Option<String> {
    let name = match isolation {
        Isolation::KernelCow => "enabled",
        Isolation::UndoLog(_) => "shmem_enabled",
    };
    let text = fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{name}")).ok()?;
    let start = text.find('[')? + 1;
    let end = text.find(']')?;
    text.get(start..end).map(str::to_owned)
}

/// Whether the kernel promises only memory that it has (`vm.overcommit_memory` is 2).
pub(crate) fn overcommit_is_strict() -> bool {
    fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2")
}

/// Why the machine cannot give an arena of a kind, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The hugetlb pool is too small.
    #[error(
        "arena-pages {kind} needs {needed} free huge pages of {} MiB for {} MiB of maxmemory, \
         but the pool has {available} ({total} in all). Run: {remedy}  or choose a smaller \
         maxmemory, or arena-pages thp",
        kind.cow_bytes() >> 20, capacity >> 20
    )]
    PoolTooSmall {
        /// The kind asked for.
        kind: PageKind,
        /// Bytes asked for.
        capacity: u64,
        /// Pages needed.
        needed: u64,
        /// Pages that can be promised.
        available: u64,
        /// Pages in the pool.
        total: u64,
        /// The command that makes the pool large enough.
        remedy: String,
    },
    /// The kernel or the processor has no such pages.
    #[error(
        "arena-pages {kind}: this kernel has no huge pages of that size. \
         Choose arena-pages thp or small"
    )]
    NoSuchPages {
        /// The kind asked for.
        kind: PageKind,
    },
    /// Transparent huge pages are switched off.
    #[error(
        "arena-pages thp: transparent huge pages are switched off on this machine. Run: \
         echo madvise > /sys/kernel/mm/transparent_hugepage/enabled  or choose arena-pages small"
    )]
    ThpOff,
    /// They are switched off for shared memory.
    #[error(
        "arena-pages thp: transparent huge pages are denied to shared memory on this machine. \
         Run: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled  or choose \
         arena-pages small, or checkpoint-isolation kernel-cow"
    )]
    SharedThpOff,
    /// The process may not have files so large.
    #[error(
        "the arena's shared memory counts as a file, and this process may have none of {} MiB \
         (ulimit -f, LimitFSIZE= of systemd). Raise that limit, lower maxmemory, or choose \
         checkpoint-isolation kernel-cow",
        capacity >> 20
    )]
    FileTooLarge {
        /// Bytes asked for.
        capacity: u64,
    },
    /// The kernel refused the mapping.
    #[error(
        "cannot reserve {} MiB of address space for the arena ({kind} pages): {source}. \
         Lower maxmemory, or, if vm.overcommit_memory is 2, raise vm.overcommit_ratio or set \
         vm.overcommit_memory=1",
        capacity >> 20
    )]
    Mapping {
        /// The kind asked for.
        kind: PageKind,
        /// Bytes asked for.
        capacity: u64,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Checks that the machine can give `capacity` bytes of such memory. Shared memory whose setting
/// is `never` gets no huge page by being touched, but does when it is asked for one later.
///
/// # Errors
/// The pool is too small, or there are no such pages; the error carries the remedy.
pub fn check(backing: Backing, capacity: u64) -> Result<(), PagesError> {
    let Backing { kind, isolation } = backing;
    match kind {
        PageKind::Small => Ok(()),
        PageKind::Thp => match (isolation, thp_setting(isolation).as_deref()) {
            (Isolation::KernelCow, Some("always" | "madvise")) => Ok(()),
            (Isolation::KernelCow, _) => Err(PagesError::ThpOff),
            (Isolation::UndoLog(_), None | Some("deny")) => Err(PagesError::SharedThpOff),
            (Isolation::UndoLog(_), _) => Ok(()),
        },
        PageKind::Huge2Mb | PageKind::Huge1Gb => {
            let pool = HugetlbPool::read(kind).ok_or(PagesError::NoSuchPages { kind })?;
            let needed = capacity.div_ceil(kind.cow_bytes());
            if pool.available() >= needed {
                return Ok(());
            }
            Err(pool_too_small(kind, capacity, pool))
        }
    }
}

/// The error for a pool that cannot hold `capacity` bytes.
pub(crate) fn pool_too_small(kind: PageKind, capacity: u64, pool: HugetlbPool) -> PagesError {
    let needed = capacity.div_ceil(kind.cow_bytes());
    let pages = pool.total + needed.saturating_sub(pool.available());
    let remedy = match (kind, pool_dir(kind)) {
        (PageKind::Huge1Gb, Some(dir)) => {
            format!("echo {pages} > {}", dir.join("nr_hugepages").display())
        }
        _ => format!("sysctl vm.nr_hugepages={pages}"),
    };
    let (available, total) = (pool.available(), pool.total);
    PagesError::PoolTooSmall { kind, capacity, needed, available, total, remedy }
}

/// The best kind that this machine gives for `capacity` bytes, and why not a better one. It takes
/// pages of the hugetlb pool only if the pool holds the arena as often as a checkpoint may need.
pub fn choose(capacity: u64, isolation: Isolation) -> (PageKind, Option<PagesError>) {
    let backing = |kind| Backing { kind, isolation };
    let huge = backing(PageKind::Huge2Mb);
    let refused = match check(huge, capacity.saturating_mul(huge.copies())) {
        Ok(()) => return (PageKind::Huge2Mb, None),
        Err(PagesError::PoolTooSmall { kind, needed, available, total, remedy, .. }) => {
            PagesError::PoolTooSmall { kind, capacity, needed, available, total, remedy }
        }
        Err(error) => error,
    };
    match check(backing(PageKind::Thp), capacity) {
        Ok(()) => (PageKind::Thp, Some(refused)),
        Err(error) => (PageKind::Small, Some(error)),
    }
}

/// Bytes on huge pages in the mappings between `start` and `start + len`, from smaps.
pub(crate) fn huge_bytes(start: usize, len: u64) -> Option<u64> {
    let smaps = fs::File::open("/proc/self/smaps").ok()?;
    sum_huge(io::BufReader::new(smaps).lines().map_while(Result::ok), start as u64, len)
}

fn sum_huge(lines: impl Iterator<Item = String>, start: u64, len: u64) -> Option<u64> {
    let (mut inside, mut sum) = (false, 0);
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), value) = (words.next(), words.next()) else { continue };
        if let Some((from, to)) = name.split_once('-')
            && let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16))
        {
            inside = from < start + len && to > start;
            continue;
        }
        let huge = ["AnonHugePages:", "ShmemPmdMapped:", "Private_Hugetlb:", "Shared_Hugetlb:"];
        if inside && huge.contains(&name) {
            sum += value?.parse::<u64>().ok()? << 10;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_counts_what_is_taken_already() {
        let pool = HugetlbPool { total: 10, free: 4, reserved: 3 };
        let error = pool_too_small(PageKind::Huge2Mb, 8 << 20, pool).to_string();
        assert!(error.contains("needs 4 free huge pages of 2 MiB for 8 MiB"), "{error}");
        assert!(error.contains("sysctl vm.nr_hugepages=13"), "{error}");
    }

    #[test]
    fn one_gib_pages_have_a_remedy_of_their_own() {
        let pool = HugetlbPool { total: 0, free: 0, reserved: 0 };
        let error = pool_too_small(PageKind::Huge1Gb, 3 << 30, pool).to_string();
        assert!(error.contains("echo 3 > /sys/kernel/mm/hugepages/hugepages-1048576kB"), "{error}");
    }

    #[test]
    fn huge_pages_are_summed_over_the_mapping_only() {
        let smaps = "7f0000000000-7f0000200000 rw-p 00000000 00:00 0\nAnonHugePages: 2048 kB\n\
            7f0000200000-7f0000400000 rw-p 00000000 00:00 0 [heap]\nRss: 8 kB\n\
            AnonHugePages: 4 kB\nPrivate_Hugetlb: 16 kB\n\
            7f0000400000-7f0000600000 rw-p 00000000 00:00 0\nAnonHugePages: 2048 kB\n";
        let lines = smaps.lines().map(str::to_owned);
        assert_eq!(sum_huge(lines, 0x7f00_0020_0000, 2 << 20), Some(20 << 10));
    }

    #[test]
    fn auto_always_finds_something() {
        let (kind, _) = choose(1 << 50, Isolation::KernelCow);
        assert_ne!(kind, PageKind::Huge2Mb);
    }
}
