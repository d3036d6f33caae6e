//! MurmurHash64A, the hash function of Austin Appleby (public domain), and the register that an
//! element belongs to.

use super::sketch::REGISTER_BITS;

/// The seed of Redis: values are exchanged with it, so that all elements must hash alike.
const SEED: u64 = 0xadc8_3b19;
const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
const SHIFT: u32 = 47;

/// The register of an element, and the rank to which the element raises it: 1 to 51.
#[inline]
pub fn register_and_rank(element: &[u8]) -> (usize, u8) {
    let hash = murmur64(element, SEED);
    let register = hash & ((1 << REGISTER_BITS) - 1);
    // The bit behind the last one ends the count of zeros.
    let rest = hash >> REGISTER_BITS | 1 << (u64::BITS - REGISTER_BITS);
    let rank = rest.trailing_zeros() + 1;
    #[expect(clippy::cast_possible_truncation, reason = "14 bits, and at most 51")]
    (register as usize, rank as u8)
}

const fn mix(block: u64) -> u64 {
    let block = block.wrapping_mul(MULTIPLIER);
    (block ^ block >> SHIFT).wrapping_mul(MULTIPLIER)
}

fn murmur64(bytes: &[u8], seed: u64) -> u64 {
    let (blocks, tail) = bytes.as_chunks::<8>();
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    for block in blocks {
        hash = (hash ^ mix(u64::from_le_bytes(*block))).wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(MULTIPLIER);
    hash ^ hash >> SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_raise_the_registers_that_they_raise_in_redis() {
        // By PFADD of each and PFDEBUG DECODE of redis-server 7.0.15.
        for (element, expected) in [
            (&b""[..], (5938, 2)),
            (b"a", (12711, 2)),
            (b"ab", (719, 1)),
            (b"abcdefg", (5634, 2)),
            (b"abcdefgh", (1383, 1)),
            (b"abcdefghi", (6903, 1)),
            (b"element:1234", (8951, 4)),
            (&b"\x00\xff".repeat(13), (160, 1)),
        ] {
            assert_eq!(register_and_rank(element), expected, "{}", element.escape_ascii());
        }
    }
}
