//! What an arena's memory is: its pages, and what a child has of them.

use crate::memory::pages::PageKind;

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
    /// fork, a pool that runs dry kills the child.
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
