//! Where the writer's chunks come from: the isolation decides what lies behind it.
//!
//! | source | for | memory |
//! |---|---|---|
//! | [`Still`](super::quiescent_source::Still) | `kernel-cow` | stands still |
//! | [`Patched`](super::undo_log_source::Patched) | `undo-log` | changes; put right in a copy |

use nix::errno::Errno;

use super::report::Report;
use crate::ChunkIndex;

/// The chunks of one instant, each once, in an order of the source's own.
pub(super) trait ChunkSource {
    /// Chunks in all.
    fn total(&self) -> u64;

    /// The next chunk, `None` after the last.
    fn next(&mut self) -> Option<ChunkIndex>;

    /// Writes the bytes that the chunk had at that instant into `to`, a chunk long.
    ///
    /// # Errors
    /// The kernel could not read them.
    fn copy(&mut self, chunk: ChunkIndex, to: &mut [u8], report: &Report) -> Result<(), Errno>;

    /// The bytes that the chunk had at that instant.
    ///
    /// # Errors
    /// The kernel could not read them.
    fn view(&mut self, chunk: ChunkIndex, report: &Report) -> Result<&[u8], Errno>;
}
