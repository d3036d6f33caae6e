//! Where the writer gets its chunks from: the isolation decides what lies behind it.

use crate::arena::ChunkIndex;

/// The chunks of one instant, each once.
///
/// `next` returns the bytes of a chunk as they were at that instant; they stay as they are until
/// it is called again. A source that shares memory with writers returns a private copy that it has
/// put right; one whose memory stands still returns the memory itself.
pub(super) trait ChunkSource {
    /// Chunks in all.
    fn total(&self) -> u64;

    /// The next chunk, `None` after the last.
    fn next(&mut self) -> Option<(ChunkIndex, &[u8])>;
}
