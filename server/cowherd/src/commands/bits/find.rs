//! Counting and searching bits, eight bytes at a time.

use super::{index, index_range};

/// The number of set bits.
fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let of_words: u64 =
        words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    of_words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// The number of set bits from bit `first` to bit `last`, which must exist.
pub(super) fn ones_between(bytes: &[u8], first: u64, last: u64) -> u64 {
    let part = index_range::bytes(bytes, &(first / 8..=last / 8));
    let before = u32::from(bytes[index(first / 8)]) >> (8 - first % 8);
    let after = bytes[index(last / 8)] & low_bits(7 - last % 8);
    ones(part) - u64::from(before.count_ones()) - u64::from(after.count_ones())
}

/// A byte whose lowest `count` bits are set; `count` is below 8.
const fn low_bits(count: u64) -> u8 {
    (1 << count) - 1
}

/// The first bit equal to `wanted` from `first` to `last`, which must exist.
pub(super) fn first(bytes: &[u8], wanted: bool, first: u64, last: u64) -> Option<u64> {
    let none = if wanted { 0x00 } else { 0xff };
    let part = index_range::bytes(bytes, &(first / 8..=last / 8));
    // The bits of a byte that equal `wanted`, as ones.
    let hits = |byte: u8| byte ^ none;
    let in_first = hits(part[0]) & (0xff >> (first % 8));
    let (at, byte) = if in_first != 0 {
        (0, in_first)
    } else {
        let at = 1 + other_byte(&part[1..], none)?;
        (at, hits(part[at]))
    };
    let bit = (first / 8 + at as u64) * 8 + u64::from(byte.leading_zeros());
    (bit <= last).then_some(bit)
}

/// The index of the first byte that differs from `byte`.
fn other_byte(bytes: &[u8], byte: u8) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let skipped = words.iter().take_while(|word| **word == [byte; 8]).count() * 8;
    bytes[skipped..].iter().position(|other| *other != byte).map(|at| skipped + at)
}
