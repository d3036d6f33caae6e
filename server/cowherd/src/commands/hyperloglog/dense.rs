//! The dense encoding: 16384 registers of 6 bits, the lowest bits of a byte first.
//!
//! ```text
//! byte      0                1                2
//!       +--+------------+----+--------+--------+----+------------+
//! bits  |r1|     r0     |     r2      |   r1   |    r3      | r2 |      highest bit first
//!       +--+------------+----+--------+--------+----+------------+
//! ```

use super::estimator::RankCounts;
use super::sketch::REGISTERS;

const RANK_BITS: usize = 6;
const RANK_MASK: u8 = (1 << RANK_BITS) - 1;
/// Bytes of all registers.
pub const LEN: usize = REGISTERS * RANK_BITS / 8;

/// The first byte of a register, its lowest bit there, and whether it reaches into the next byte.
const fn place(register: usize) -> (usize, usize, bool) {
    let (byte, bit) = (register * RANK_BITS / 8, register * RANK_BITS % 8);
    (byte, bit, bit + RANK_BITS > 8)
}

/// The rank of a register.
///
/// # Panics
/// There are fewer registers.
#[inline]
pub fn rank(registers: &[u8], register: usize) -> u8 {
    let (byte, bit, is_split) = place(register);
    let high = if is_split { registers[byte + 1] } else { 0 };
    let bits = u16::from_le_bytes([registers[byte], high]) >> bit;
    bits.to_le_bytes()[0] & RANK_MASK
}

/// What to write to set the rank of a register: one or two bytes, and where they belong.
pub fn patch(registers: &[u8], register: usize, rank: u8) -> (usize, RegisterBytes) {
    let (byte, bit, is_split) = place(register);
    let high = if is_split { registers[byte + 1] } else { 0 };
    let others = u16::from_le_bytes([registers[byte], high]) & !(u16::from(RANK_MASK) << bit);
    let bytes = (others | u16::from(rank) << bit).to_le_bytes();
    (byte, RegisterBytes { bytes, len: if is_split { 2 } else { 1 } })
}

/// The bytes that contain a register.
#[derive(Clone, Copy, Debug)]
pub struct RegisterBytes {
    bytes: [u8; 2],
    len: usize,
}

impl RegisterBytes {
    /// One or two bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Sets the rank of a register.
///
/// # Panics
/// There are fewer registers.
pub fn set_rank(registers: &mut [u8], register: usize, rank: u8) {
    let (at, patch) = patch(registers, register, rank);
    registers[at..at + patch.len].copy_from_slice(patch.as_slice());
}

/// Calls `each` with the ranks of all registers, four at a time. `registers` has [`LEN`] bytes.
fn each_four(registers: &[u8], mut each: impl FnMut([u8; 4])) {
    for [low, middle, high] in registers.as_chunks::<3>().0 {
        let bits = u32::from_le_bytes([*low, *middle, *high, 0]);
        let rank = |i: usize| (bits >> (i * RANK_BITS)).to_le_bytes()[0] & RANK_MASK;
        each([rank(0), rank(1), rank(2), rank(3)]);
    }
}

/// Counts the registers by rank.
pub fn count_ranks(registers: &[u8]) -> RankCounts {
    let mut counts = [0; 64];
    each_four(registers, |ranks| ranks.iter().for_each(|rank| counts[usize::from(*rank)] += 1));
    counts
}

/// Raises the `ranks` of all registers to at least those of `registers`.
pub fn merge_into(ranks: &mut [u8], registers: &[u8]) {
    let mut at = 0;
    each_four(registers, |four| {
        for (rank, other) in ranks[at..at + 4].iter_mut().zip(four) {
            *rank = (*rank).max(other);
        }
        at += 4;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_independent() {
        let mut registers = vec![0; LEN];
        let mut expected = vec![0u8; REGISTERS];
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (register, rank) = ((state >> 40) as usize % REGISTERS, (state >> 58) as u8);
            set_rank(&mut registers, register, rank);
            expected[register] = rank;
        }
        let last = REGISTERS - 1;
        set_rank(&mut registers, last, 63);
        expected[last] = 63;
        assert!((0..REGISTERS).all(|i| rank(&registers, i) == expected[i]));
        let mut merged = vec![0; REGISTERS];
        merge_into(&mut merged, &registers);
        assert_eq!(merged, expected);
        merged.iter_mut().for_each(|rank| *rank = 20);
        merge_into(&mut merged, &registers);
        assert!(merged.iter().zip(&expected).all(|(merged, rank)| *merged == (*rank).max(20)));
        let mut counts = [0; 64];
        expected.iter().for_each(|rank| counts[usize::from(*rank)] += 1);
        assert_eq!(count_ranks(&registers), counts);
    }

    #[test]
    fn the_lowest_bits_come_first() {
        let mut registers = vec![0; LEN];
        set_rank(&mut registers, 0, 0b11_1111);
        set_rank(&mut registers, 2, 0b10_0001);
        assert_eq!(registers[..3], [0b0011_1111, 0b0001_0000, 0b0000_0010]);
    }
}
