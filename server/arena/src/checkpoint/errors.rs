//! Errors of checkpoints, restores and directory locks: what happened, what it means, what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::memory::pages::HugetlbPool;
use crate::{Backing, ChunkIndex, OpenError, PageKind};

/// Why a checkpoint failed. Nothing in memory is lost.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The name of the image is no plain file name.
    #[error(
        "cannot write an image to {name:?}: its name must be a file name without directories. \
         Set dbfilename to one and dir to the directory"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The arena is being recorded for another checkpoint.
    #[error(
        "cannot checkpoint: another checkpoint is running. Wait until it has ended, or cancel it"
    )]
    Busy,
    /// The temporary file cannot be made.
    #[error(
        "cannot checkpoint: cannot create {}: {source}. {KEPT}{}",
        path.display(), remedy(source)
    )]
    Create {
        /// The temporary file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No memory for the buffers of a checkpoint.
    #[error(
        "cannot checkpoint: no memory for its buffers: {source}. {KEPT}Free some memory, then try \
         again"
    )]
    Buffers {
        /// The kernel's answer.
        source: io::Error,
    },
    /// No child.
    #[error(
        "cannot checkpoint in the background: fork failed: {source}. {KEPT}{}",
        fork_remedy(source)
    )]
    Fork {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error(
        "the checkpoint failed: cannot {action} {}: {source}. {KEPT}{}",
        path.display(), remedy(source)
    )]
    Write {
        /// What the writer was doing.
        action: &'static str,
        /// The temporary file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The image cannot take its place.
    #[error(
        "the checkpoint failed: cannot rename {} to {}: {source}. {KEPT}{}",
        from.display(), to.display(), remedy(source)
    )]
    Rename {
        /// The temporary file.
        from: PathBuf,
        /// The image.
        to: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The image is in place, but a power failure may undo that.
    #[error(
        "the checkpoint is not durable: the new image {} is complete and in place, but its \
         directory cannot be synced: {source}. A power failure may bring the old image back.{}",
        image.display(), remedy(source)
    )]
    SyncDirectory {
        /// The image.
        image: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A signal killed the child.
    #[error(
        "the checkpoint failed: its child {pid} was killed by {signal}{}",
        killed(*signal, *backing, *capacity)
    )]
    Killed {
        /// The child.
        pid: i32,
        /// The signal.
        signal: Signal,
        /// The memory of the arena.
        backing: Backing,
        /// Bytes of the arena.
        capacity: u64,
    },
    /// The child lacks pages, since the pool had none for copies.
    #[error("the checkpoint failed: {}", pool_exhausted(*kind, *capacity))]
    PoolExhausted {
        /// The child.
        pid: i32,
        /// The pages of the arena.
        kind: PageKind,
        /// Bytes of the arena.
        capacity: u64,
    },
    /// The program has no write barrier.
    #[error(
        "cannot checkpoint in the background: this program was built without the write barrier"
    )]
    NoBarrier,
    /// More was changed during the checkpoint than the undo log may hold.
    #[error(
        "the checkpoint failed: while it ran so much was changed that the undo log reached its \
         limit of {} MiB. {KEPT}Writers go on. Raise checkpoint-undo-limit (or maxmemory, of which \
         it takes 25 % unless it is set), checkpoint at a quieter time, or let dir name a faster \
         disk",
        limit >> 20
    )]
    UndoLimit {
        /// Bytes that the log may take.
        limit: u64,
    },
    /// The checkpoint was cancelled.
    #[error("the checkpoint was cancelled. {KEPT}")]
    Cancelled,
    /// The child lacks pages of the arena.
    #[error(
        "the checkpoint failed: the kernel left {kind} pages out of the child (pid {pid}), which \
         would have written zeros in their place. {KEPT} Another checkpoint mostly works; \
         arena-pages huge-2mb or thp avoid it"
    )]
    NotInherited {
        /// The child.
        pid: i32,
        /// The pages.
        kind: PageKind,
    },
    /// The child ended in a way that it never should.
    #[error(
        "the checkpoint failed: its child {pid} ended without a report ({what}). {KEPT}If nothing \
         else on this machine reaps or ends its processes, please report this"
    )]
    Lost {
        /// The child.
        pid: i32,
        /// What is known.
        what: String,
    },
}

const KEPT: &str = "The old image is kept and nothing in memory is lost. ";

/// What an operator does about an error of the disk.
fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        Errno::ENOSPC => "Free space on that filesystem, or let dir name a larger one",
        Errno::EDQUOT => "Raise the disk quota, or let dir name another filesystem",
        Errno::ENOENT | Errno::ENOTDIR => {
            "The directory is gone: create it again, or let dir name another"
        }
        Errno::EACCES | Errno::EPERM => "Let the server's user write to that directory",
        Errno::EROFS => "That filesystem is read-only: remount it, or let dir name another",
        Errno::EFBIG => "Raise the limit on the size of files (ulimit -f, LimitFSIZE)",
        Errno::EIO => "The disk reports errors: see the kernel's log (dmesg) and replace it",
        Errno::EMFILE | Errno::ENFILE => "Raise the limit on open files (ulimit -n)",
        Errno::EISDIR => "A directory has the name of the image: move it, or change dbfilename",
        _ => "",
    }
}

fn fork_remedy(error: &io::Error) -> &'static str {
    match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        Errno::ENOMEM => {
            "The kernel will not promise memory for a copy of this process. \
             Run: sysctl vm.overcommit_memory=1"
        }
        Errno::EAGAIN => {
            "There are too many processes: raise the limit (ulimit -u, TasksMax, pids.max)"
        }
        _ => "",
    }
}

/// What a signal means for the child of a checkpoint.
fn pool_exhausted(kind: PageKind, capacity: u64) -> String {
    format!(
        "the pool of {} MiB huge pages was exhausted while the kernel copied pages that were \
         written during the checkpoint; it then takes the page from the child. {KEPT}Let the pool \
         hold twice the arena. Run: {}  or choose arena-pages thp",
        kind.cow_bytes() >> 20,
        pool_remedy(kind, capacity)
    )
}

fn killed(signal: Signal, backing: Backing, capacity: u64) -> String {
    let kind = backing.kind;
    // Only where pages are copied does the kernel take one from the child.
    match (signal, kind.is_hugetlb() && backing.copies() > 1) {
        (Signal::SIGBUS, true) => format!(": {}", pool_exhausted(kind, capacity)),
        (Signal::SIGKILL, true) => format!(
            ": by somebody, or by the kernel because memory ran out (see dmesg), or because {}",
            pool_exhausted(kind, capacity)
        ),
        (Signal::SIGKILL, false) => format!(
            ": by somebody, or by the kernel because memory ran out, and it takes the child first \
             (see dmesg). {KEPT}Free some memory, or lower maxmemory"
        ),
        (Signal::SIGBUS, false) => format!(
            ": the kernel could not give it a page that it read (see dmesg for memory errors). \
             {KEPT}"
        ),
        _ => format!(". {KEPT}"),
    }
}

/// The command after which the pool holds the arena twice.
fn pool_remedy(kind: PageKind, capacity: u64) -> String {
    let arena = capacity.div_ceil(kind.cow_bytes());
    // What is taken and promised now, the arena's own pages among it, and once more the arena.
    let taken =
        HugetlbPool::read(kind).map_or(arena, |pool| pool.total.saturating_sub(pool.available()));
    let pages = taken.max(arena) + arena;
    match kind {
        PageKind::Huge1Gb => {
            format!("echo {pages} > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
        }
        _ => format!("sysctl vm.nr_hugepages={pages}"),
    }
}

/// The part of an image that an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageRegion {
    /// The file as a whole.
    File,
    /// The first 4096 bytes.
    Header,
    /// The table of frames.
    Index,
    /// The last 64 bytes.
    Footer,
    /// The frame of a chunk, or its index entry.
    Chunk(ChunkIndex),
}

impl fmt::Display for ImageRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Header => f.write_str("header"),
            Self::Index => f.write_str("index"),
            Self::Footer => f.write_str("footer"),
            Self::Chunk(chunk) => write!(f, "chunk {}", chunk.0),
        }
    }
}

/// Why an image cannot be restored. The file was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no image: a first start.
    #[error("there is no image {}", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The image cannot be opened or read.
    #[error(
        "cannot read the image {}: {place}: {source}. The file was left as it is",
        path.display()
    )]
    Read {
        /// The image.
        path: PathBuf,
        /// What was read.
        place: ImageRegion,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The bytes are not what a writer wrote.
    #[error(
        "the image {} is damaged: {place}: {reason}. The file was left as it is: put a sound copy \
         in its place, or move it away to start empty",
        path.display()
    )]
    Damaged {
        /// The image.
        path: PathBuf,
        /// Where.
        place: ImageRegion,
        /// What is wrong, with the figures.
        reason: String,
    },
    /// It was written by a version with another format or another layout.
    #[error(
        "the image {} was written by {writer:?} and has {what} {found:#x}, this version reads \
         {expected:#x}. The file was left as it is: start {writer:?} with it, start this version \
         beside that with another dir and port, and copy the keys from one to the other with a \
         client (SCAN, PTTL, and the commands of each type; see Versions in docs/operations.md)",
        path.display()
    )]
    Version {
        /// The image.
        path: PathBuf,
        /// The program that wrote the image.
        writer: String,
        /// What differs.
        what: &'static str,
        /// What the image has.
        found: u64,
        /// What this version reads.
        expected: u64,
    },
    /// The arena is too small for it.
    #[error(
        "the image {} does not fit into maxmemory ({} MiB): set maxmemory to at least {}mb. The \
         file was left as it is",
        path.display(), capacity >> 20, needed >> 20
    )]
    TooSmall {
        /// The image.
        path: PathBuf,
        /// Bytes of the arena.
        capacity: u64,
        /// Bytes that it needs.
        needed: u64,
    },
    /// No arena, or no memory for a chunk.
    #[error("cannot restore {}: {source}. The file was left as it is", path.display())]
    Arena {
        /// The image.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
}

/// Why a directory cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another server{} has the directory of {}: two servers would overwrite each other's image. \
         Stop it, or let dir name another directory",
        owner.map(|pid| format!(" (process {pid})")).unwrap_or_default(), path.display()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The owner, if the file tells.
        owner: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}: {source}. {}", path.display(), remedy(source))]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}
