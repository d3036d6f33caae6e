//! The kinds of memory that are compared, and what each needs of the machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::settings::{Pool, THP};

/// The experiment's unit: a size of N means N times these bytes.
pub const UNIT: usize = 2 << 20;
const GIB_UNITS: usize = 512;

/// How memory is mapped.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
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

impl Kind {
    /// As options and tables write it.
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

    /// The pool that its pages come from, and how many of them a run of `size` takes at most: those
    /// of the mapping, and for a private one that is `written` after the fork as many copies.
    pub fn pool_pages(self, size: usize, written: bool) -> Option<(Pool, usize)> {
        let times = if written { 2 } else { 1 };
        match self {
            Self::Huge2Mb => Some((Pool::MIB_2, times * size)),
            Self::Shared2Mb => Some((Pool::MIB_2, size)),
            Self::Huge1Gb => Some((Pool::GIB_1, times * size.div_ceil(GIB_UNITS))),
            Self::Small | Self::Thp | Self::Mthp | Self::SharedSmall => None,
        }
    }

    /// Whether a run of `size` makes sense: pages of 1 GiB come whole.
    pub fn fits(self, size: usize) -> bool {
        self != Self::Huge1Gb || size.is_multiple_of(GIB_UNITS)
    }

    /// Why the kernel cannot give such memory as it is set up; `None` when it can.
    pub fn refused(self, may_set: bool) -> Option<String> {
        let enabled = |size: &str| crate::machine::bracketed(format!("{THP}/{size}enabled"));
        match self {
            Self::Thp if enabled("").is_none_or(|word| word == "never") => {
                Some(format!("transparent huge pages are off: echo madvise > {THP}/enabled"))
            }
            Self::Mthp if !Path::new(&format!("{THP}/hugepages-64kB")).exists() => {
                Some("this kernel knows no transparent huge pages of 64 KiB (Linux 6.8)".to_owned())
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

/// What is written after the fork.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// One byte of each 2 MiB
    Sparse,
    /// One byte of each 4 KiB
    Dense,
    /// Nothing: the fork alone
    None,
}

impl Pattern {
    /// As options and tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Dense => "dense",
            Self::None => "none",
        }
    }

    /// Where it writes within so many bytes.
    pub fn offsets(self, bytes: usize) -> impl Iterator<Item = usize> {
        let (end, stride) = match self {
            Self::Sparse => (bytes, UNIT),
            Self::Dense => (bytes, 4096),
            Self::None => (0, UNIT),
        };
        (0..end).step_by(stride)
    }
}

/// Who writes after the fork.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Writer {
    /// The child, as in the published experiment
    Child,
    /// The parent, as a server does while its child saves
    Parent,
}

impl Writer {
    /// As options and tables write it.
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
    fn a_private_kind_needs_its_memory_twice_when_it_is_written() {
        assert_eq!(Kind::Huge2Mb.pool_pages(512, true), Some((Pool::MIB_2, 1024)));
        assert_eq!(Kind::Huge2Mb.pool_pages(512, false), Some((Pool::MIB_2, 512)));
        assert_eq!(Kind::Shared2Mb.pool_pages(512, true), Some((Pool::MIB_2, 512)));
        assert_eq!(Kind::Huge1Gb.pool_pages(1024, true), Some((Pool::GIB_1, 4)));
        assert_eq!(Kind::Thp.pool_pages(512, true), None);
        assert!(Kind::Huge1Gb.fits(1024) && !Kind::Huge1Gb.fits(256));
    }

    #[test]
    fn patterns_write_once_in_each_of_their_steps() {
        assert_eq!(Pattern::Sparse.offsets(3 * UNIT).collect::<Vec<_>>(), [0, UNIT, 2 * UNIT]);
        assert_eq!(Pattern::Dense.offsets(3 * UNIT).count(), 3 * 512);
        assert_eq!(Pattern::None.offsets(3 * UNIT).count(), 0);
    }
}
