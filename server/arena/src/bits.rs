//! Sets of numbers as bits of atomic words: any thread reads them; writes change a bit at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

use crate::layout::{ChunkIndex, index as to_index};

/// Room for `count` numbers, none of them in the set. Words that the kernel zeroes, page by page as
/// they are written.
pub(crate) fn bits(count: u64) -> Box<[AtomicU64]> {
    <[AtomicU64]>::new_box_zeroed_with_elems(words(count)).unwrap_or_else(|_| no_words(count))
}

/// Words that hold `count` bits.
pub(super) const fn words(count: u64) -> usize {
    to_index(count.div_ceil(64))
}

#[cold]
fn no_words(count: u64) -> ! {
    panic!("arena: no memory for a table of {count} bits")
}

/// Whether a number is in the set.
#[inline]
pub(crate) fn get(bits: &[AtomicU64], index: u64) -> bool {
    bits.get(to_index(index / 64))
        .is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 == 1)
}

/// Takes a number out of the set.
pub(crate) fn clear(bits: &[AtomicU64], index: u64) {
    bits[to_index(index / 64)].fetch_and(!(1 << (index % 64)), Ordering::Relaxed);
}

/// Puts a number into the set and tells whether it was there before.
pub(crate) fn set(bits: &[AtomicU64], index: u64) -> bool {
    let mask = 1 << (index % 64);
    bits[to_index(index / 64)].fetch_or(mask, Ordering::Relaxed) & mask != 0
}

/// Makes the set `to` the same as `from`, which has as many words.
pub(crate) fn copy(from: &[AtomicU64], to: &[AtomicU64]) {
    for (from, to) in from.iter().zip(to) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Empties the set, writing only to words that hold something.
pub(super) fn empty(bits: &[AtomicU64]) {
    for word in bits.iter().filter(|word| word.load(Ordering::Relaxed) != 0) {
        word.store(0, Ordering::Relaxed);
    }
}

/// The chunks whose bits are set, lowest first.
pub(crate) fn ones(bits: &[AtomicU64]) -> impl Iterator<Item = ChunkIndex> {
    ones_from(bits, ChunkIndex(0))
}

/// The chunks from one on whose bits are set, lowest first.
#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
pub(super) fn ones_from(bits: &[AtomicU64], first: ChunkIndex) -> impl Iterator<Item = ChunkIndex> {
    let words = bits.iter().enumerate().skip(first.0 as usize / 64);
    let all = words.flat_map(|(i, word)| {
        let word = word.load(Ordering::Relaxed);
        (0..64)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| ChunkIndex(i as u32 * 64 + bit))
    });
    all.skip_while(move |chunk| chunk.0 < first.0)
}
