//! Parameters of a cell of the experiment: kind of memory, write pattern, writing process.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::settings::{HugePool, THP};

/// Unit of sizes in bytes: a size of N means N x 2 MiB.
pub const UNIT: usize = 2 << 20;
/// Units in 1 GiB.
const GIB_UNITS: usize = 512;

/// Kind of a mapping.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryKind {
    /// Anonymous and private, pages of 4 KiB
    Small,
    /// Anonymous and private, transparent huge pages of 2 MiB
    Thp,
    /// Anonymous and private, transparent huge pages of 64 KiB
    #[value(name = "mthp-64kb")]
    #[serde(rename = "mthp-64kb")]
    Mthp,
    /// A memfd of the hugetlb pool, private, pages of 2 MiB
    #[value(name = "huge-2mb")]
    #[serde(rename = "huge-2mb")]
    Huge2Mb,
    /// A memfd of the hugetlb pool, private, pages of 1 GiB
    #[value(name = "huge-1gb")]
    #[serde(rename = "huge-1gb")]
    Huge1Gb,
    /// A memfd, shared, pages of 4 KiB
    SharedSmall,
    /// A memfd of the hugetlb pool, shared, pages of 2 MiB
    #[value(name = "shared-2mb")]
    #[serde(rename = "shared-2mb")]
    Shared2Mb,
}

impl MemoryKind {
    /// Name in options and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Thp => "thp",
            Self::Mthp => "mthp-64kb",
            Self::Huge2Mb => "huge-2mb",
            Self::Huge1Gb => "huge-1gb",
            Self::SharedSmall => "shared-small",
            Self::Shared2Mb => "shared-2mb",
        }
    }

    /// Pool of the pages, and the maximum number of pages that a run of `size` takes: those of the
    /// mapping, and as many copies of a private mapping that is `written` after the fork.
    pub fn pool_pages(self, size: usize, written: bool) -> Option<(HugePool, usize)> {
        let times = if written { 2 } else { 1 };
        match self {
            Self::Huge2Mb => Some((HugePool::MIB_2, times * size)),
            Self::Shared2Mb => Some((HugePool::MIB_2, size)),
            Self::Huge1Gb => Some((HugePool::GIB_1, times * size.div_ceil(GIB_UNITS))),
            Self::Small | Self::Thp | Self::Mthp | Self::SharedSmall => None,
        }
    }

    /// Whether `size` is a multiple of the page size.
    pub fn fits(self, size: usize) -> bool {
        self != Self::Huge1Gb || size.is_multiple_of(GIB_UNITS)
    }

    /// Reason why the kernel's settings rule out this kind; `None` if they do not.
    pub fn unavailable(self, may_set: bool) -> Option<String> {
        let enabled = |size: &str| crate::machine::bracketed(format!("{THP}/{size}enabled"));
        match self {
            Self::Thp if enabled("").is_none_or(|word| word == "never") => {
                Some(format!("transparent huge pages are off: echo madvise > {THP}/enabled"))
            }
            Self::Mthp if !Path::new(&format!("{THP}/hugepages-64kB")).exists() => {
                Some("this kernel has no transparent huge pages of 64 KiB (Linux 6.8)".to_owned())
            }
            Self::Mthp if !may_set => Some(
                "it needs 64 KiB pages on and 2 MiB pages off while it runs: --set-mthp as root \
                 sets that and puts it back"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Set of addresses that are written after the fork.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum WritePattern {
    /// One byte of each 2 MiB
    Sparse,
    /// One byte of each 4 KiB
    Dense,
    /// Nothing: the fork alone
    None,
}

impl WritePattern {
    /// Name in options and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Dense => "dense",
            Self::None => "none",
        }
    }

    /// Offsets that are written within `bytes` bytes.
    pub fn offsets(self, bytes: usize) -> impl Iterator<Item = usize> {
        let (end, stride) = match self {
            Self::Sparse => (bytes, UNIT),
            Self::Dense => (bytes, 4096),
            Self::None => (0, UNIT),
        };
        (0..end).step_by(stride)
    }
}

/// Process that writes after the fork.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Writer {
    /// The child, as in the published experiment
    Child,
    /// The parent, as in a server during a checkpoint
    Parent,
}

impl Writer {
    /// Name in options and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Child => "child",
            Self::Parent => "parent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_private_mapping_needs_twice_its_pages() {
        assert_eq!(MemoryKind::Huge2Mb.pool_pages(512, true), Some((HugePool::MIB_2, 1024)));
        assert_eq!(MemoryKind::Huge2Mb.pool_pages(512, false), Some((HugePool::MIB_2, 512)));
        assert_eq!(MemoryKind::Shared2Mb.pool_pages(512, true), Some((HugePool::MIB_2, 512)));
        assert_eq!(MemoryKind::Huge1Gb.pool_pages(1024, true), Some((HugePool::GIB_1, 4)));
        assert_eq!(MemoryKind::Thp.pool_pages(512, true), None);
        assert!(MemoryKind::Huge1Gb.fits(1024) && !MemoryKind::Huge1Gb.fits(256));
    }

    #[test]
    fn offsets_of_each_pattern() {
        assert_eq!(WritePattern::Sparse.offsets(3 * UNIT).collect::<Vec<_>>(), [0, UNIT, 2 * UNIT]);
        assert_eq!(WritePattern::Dense.offsets(3 * UNIT).count(), 3 * 512);
        assert_eq!(WritePattern::None.offsets(3 * UNIT).count(), 0);
    }
}
