//! How a chunk is cut into the blocks that the undo log captures.
//!
//! ```text
//!   0                       16 KiB                                                     2 MiB
//!   +--+--+--+-- ... --+--+--+--------+--------+---------- ... ----------+--------+
//!   |64|64|64|         |64|64| block  | block  |                         | block  |
//!   +--+--+--+-- ... --+--+--+--------+--------+---------- ... ----------+--------+
//!    descriptors of units      256 B to 4 KiB, all alike
//! ```
//!
//! Invariant: whatever a block holds is guarded by one lock at a time. A unit of 8 KiB belongs to
//! one shard; a descriptor of 64 bytes to the shard of its unit, and the first one, the chunk's
//! head, to the pool. A root of 4 KiB belongs to its shard, the chunk table to the pool.

use crate::layout::{CHUNK_SIZE, HEAD_UNITS, ROOT_SIZE, UNIT_SIZE, UnitDescriptor};

/// Bytes at the front of each chunk that are cut finely, as they may hold descriptors.
pub(super) const FINE_BYTES: u64 = HEAD_UNITS * UNIT_SIZE;
/// Bytes of a block there.
const FINE_BLOCK: u64 = size_of::<UnitDescriptor>() as u64;
const FINE_BLOCKS: u64 = FINE_BYTES / FINE_BLOCK;
/// The sizes that blocks elsewhere can have.
pub const BLOCK_SIZES: [u64; 5] = [256, 512, 1024, 2048, 4096];

const _: () = assert!(UNIT_SIZE.is_multiple_of(BLOCK_SIZES[4]));
const _: () = assert!(ROOT_SIZE.is_multiple_of(BLOCK_SIZES[4]));
const _: () = assert!(FINE_BYTES.is_multiple_of(BLOCK_SIZES[4]));

/// One block of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    /// Its number in the chunk.
    pub number: u64,
    /// Where it begins in the chunk.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
}

/// How chunks are cut.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    shift: u32,
}

impl Blocks {
    /// Blocks of `bytes` bytes, one of [`BLOCK_SIZES`].
    ///
    /// # Panics
    /// It is none of them.
    pub(super) fn of(bytes: u64) -> Self {
        assert!(BLOCK_SIZES.contains(&bytes), "arena: blocks of {bytes} bytes");
        Self { shift: bytes.trailing_zeros() }
    }

    /// Number of blocks in a chunk, rounded up to a multiple of 64 so that no two chunks share a
    /// word.
    pub(super) const fn in_chunk(self) -> u64 {
        (FINE_BLOCKS + ((CHUNK_SIZE - FINE_BYTES) >> self.shift)).next_multiple_of(64)
    }

    /// Bytes of a fine block and of any other.
    pub(super) const fn sizes(self) -> [u64; 2] {
        [FINE_BLOCK, 1 << self.shift]
    }

    /// The block that holds the byte at `within` of its chunk.
    #[inline]
    pub(super) const fn at(self, within: u64) -> Block {
        if within < FINE_BYTES {
            let number = within / FINE_BLOCK;
            return Block { number, start: number * FINE_BLOCK, len: FINE_BLOCK };
        }
        let number = (within - FINE_BYTES) >> self.shift;
        let start = FINE_BYTES + (number << self.shift);
        Block { number: FINE_BLOCKS + number, start, len: 1 << self.shift }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_a_chunk_without_gaps() {
        for size in BLOCK_SIZES {
            let blocks = Blocks::of(size);
            let (mut at, mut number) = (0, 0);
            while at < CHUNK_SIZE {
                let block = blocks.at(at);
                assert_eq!((block.start, block.number), (at, number));
                assert_eq!(blocks.at(at + block.len - 1), block);
                assert!(blocks.sizes().contains(&block.len));
                (at, number) = (at + block.len, number + 1);
            }
            assert_eq!(at, CHUNK_SIZE);
            assert!((number..number + 64).contains(&blocks.in_chunk()));
        }
    }
}
