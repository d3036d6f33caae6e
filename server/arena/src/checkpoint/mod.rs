//! Checkpoints: how the bytes of an arena survive. Bytes are copied; what they mean is not known
//! here.
//!
//! ```text
//! PreparedCheckpoint::new --> [ safepoint: begin recording, fork ] --> RunningCheckpoint::wait --> image
//!   file, buffers                     |                        reap, rename,
//!                                     +--> child: chunks       sync directory
//!                                            --> temp file
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `fork` | preparing a save, the fork, saving in the foreground |
//! | `child` | what the child does |
//! | `source`, `still`, `patched` | where the writer's chunks come from |
//! | `writer` | chunks in, file out |
//! | `storage` | the seam to the disk |
//! | `report` | counters that child and parent share |
//! | `running` | waiting, cancelling, publishing |
//! | `format` | the file, byte by byte |
//! | `image` | reading and checking header, index and footer |
//! | `restore` | reading chunks into an arena |
//! | `lock` | one server a directory |
//! | `errors` | what went wrong, what it means, what to do |
//! | `sys` | system calls without a safe wrapper |
//!
//! 1. A save is a success only after the file is durable, renamed, and its directory synced.
//! 2. A save that fails child_exiting the old image and removes its temporary file.
//! 3. Anything read from an image is bounded before it is used.

mod child;
mod completion_pipe;
mod errors;
mod fork;
mod format;
mod image;
mod lock;
mod quiescent_source;
mod report;
mod restore;
mod running;
mod source;
mod storage;
mod sys;
#[cfg(test)]
mod tests;
mod undo_log_source;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

pub use errors::{CheckpointError, ImageRegion, LockError, RestoreError};
pub use fork::PreparedCheckpoint;
pub use image::{ImageInfo, inspect};
pub use lock::DirLock;
pub use report::{CheckpointProgress, WriterPhase};
pub use restore::{RestoreStats, restore};
pub use running::{CheckpointHandle, CheckpointObserver, CheckpointOutcome, RunningCheckpoint};
pub use sys::ignore_file_size_signal;
pub use writer::buffer_bytes;

/// How chunks are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkCodec {
    /// As they are.
    None,
    /// Each as one LZ4 block; a chunk that would not shrink is stored as it is.
    Lz4,
}

/// Where an image goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageTarget {
    /// The directory, which also holds the temporary file `temp-<pid>-<n>.cow`.
    pub dir: PathBuf,
    /// Name of the image in it.
    pub filename: String,
}

impl ImageTarget {
    /// The image.
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.filename)
    }
}

/// What a save is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageOptions {
    /// How chunks are stored.
    pub codec: ChunkCodec,
    /// The arena's layout hash, for the header.
    pub layout: u64,
    /// The time for the header, in milliseconds since 1970.
    pub created_ms: u64,
    /// Sleep after each chunk, so that a test or a demonstration can look at a running save.
    pub delay_per_chunk: Duration,
}
