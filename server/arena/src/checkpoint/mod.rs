//! Checkpoints: images of an arena, written by a forked child or in the foreground, and restored.
//! Bytes are copied; their meaning is not known here.
//!
//! ```text
//! PreparedCheckpoint::new --> [ safepoint: recording, fork ] --> RunningCheckpoint::wait --> image
//!   file, buffers                        |                         reap, rename,
//!                                        '--> child: chunks        sync directory
//!                                               --> temporary file
//! ```
//!
//! | file | content |
//! |---|---|
//! | `fork` | preparation, the fork, the foreground checkpoint |
//! | `child` | the child's process: priorities, signals, the image, the end |
//! | `running` | the parent's side: progress, cancellation, the child's end |
//! | `publish` | the temporary file and its rename to the image |
//! | `source`, `quiescent_source`, `undo_log_source` | where the writer's chunks come from |
//! | `packing` | what of a chunk stands in a frame: all but free memory |
//! | `writer` | chunks in, file out |
//! | `storage` | the disk, replaceable in tests |
//! | `report`, `completion_pipe` | counters and a signal from the child to its parent |
//! | `format` | the image format, byte by byte |
//! | `image` | reading and checking header, index and footer |
//! | `restore` | reading chunks into an arena |
//! | `lock` | one process for a directory |
//! | `errors` | errors: what happened, what it means, what to do |
//! | `sys` | system calls without a safe wrapper |
//!
//! 1. A checkpoint is a success only after the file is durable, renamed, and its directory synced.
//! 2. A checkpoint that fails leaves the old image and removes its temporary file.
//! 3. Every length and offset of an image is bounded before it is used.

mod child;
mod completion_pipe;
mod errors;
mod fork;
mod format;
mod image;
mod lock;
mod packing;
mod publish;
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
pub use restore::{RestoreHooks, RestoreProgress, RestoreStats, restore, restore_with};
pub use running::{CheckpointHandle, CheckpointObserver, CheckpointOutcome, RunningCheckpoint};
pub use sys::{ignore_file_size_signal, take_short_background_turns};
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

/// Options of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageOptions {
    /// How chunks are stored.
    pub codec: ChunkCodec,
    /// The arena's layout hash, for the header.
    pub layout: u64,
    /// The time for the header, in milliseconds since 1970.
    pub created_ms: u64,
    /// Sleep after each chunk, so that a test or a demonstration can observe a running checkpoint.
    pub delay_per_chunk: Duration,
}
