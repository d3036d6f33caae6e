//! `ChunkSource`: where the image writer's chunks come from.
//!
//! | source | isolation | memory |
//! |---|---|---|
//! | `QuiescentSource` | `kernel-cow` | does not change |
//! | `UndoLogSource` | `undo-log` | changes; a copy is patched from the undo log |

use nix::errno::Errno;

use super::packing::{Form, PackedChunk};
use super::report::ChildReport;
use crate::layout::ChunkIndex;

/// The chunks of one instant, each once, in an order that the source chooses.
pub(super) trait ChunkSource {
    /// Chunks in all.
    fn total(&self) -> u64;

    /// The next chunk, `None` after the last.
    fn next(&mut self) -> Option<ChunkIndex>;

    /// Writes the chunk as it was at that instant into `to`, a chunk long, and packs it there.
    ///
    /// # Errors
    /// The kernel could not read the chunk.
    fn copy(
        &mut self,
        chunk: ChunkIndex,
        to: &mut [u8],
        report: &ChildReport,
    ) -> Result<PackedChunk, Errno>;

    /// The chunk as it was at that instant, packed, and its form.
    ///
    /// # Errors
    /// The kernel could not read the chunk.
    fn view(&mut self, chunk: ChunkIndex, report: &ChildReport) -> Result<(&[u8], Form), Errno>;
}
