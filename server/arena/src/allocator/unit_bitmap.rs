//! Bit maps: of the 256 units of a chunk, where a set bit is a free unit, and of the objects of a
//! slab, where a set bit is an object in use.

/// Number of set bits.
pub(crate) fn count<const N: usize>(map: &[u64; N]) -> u64 {
    map.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// Whether bit `index` is set.
pub(crate) const fn get<const N: usize>(map: &[u64; N], index: u64) -> bool {
    map[(index / 64) as usize] >> (index % 64) & 1 == 1
}

/// The runs of set bits, lowest first, as (start, length).
pub(crate) fn runs<const N: usize>(map: &[u64; N]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = next(map, at, true)?;
        let end = next(map, start, false).unwrap_or(N as u64 * 64);
        at = end;
        Some((start, end - start))
    })
}

/// The first bit at or after `from` whose value is `value`.
fn next<const N: usize>(map: &[u64; N], from: u64, value: bool) -> Option<u64> {
    let mut index = from;
    while index < N as u64 * 64 {
        let word = map[(index / 64) as usize];
        let wanted = if value { word } else { !word } >> (index % 64);
        if wanted != 0 {
            return Some(index + u64::from(wanted.trailing_zeros()));
        }
        index = (index / 64 + 1) * 64;
    }
    None
}

/// Length of the longest run of set bits.
pub(crate) fn longest(map: &[u64; 4]) -> u64 {
    runs(map).map(|(_, length)| length).max().unwrap_or(0)
}

/// Start of the first run of at least `length` set bits.
pub(crate) fn find(map: &[u64; 4], length: u64) -> Option<u64> {
    runs(map).find(|&(_, found)| found >= length).map(|(start, _)| start)
}

/// Sets `length` bits from `start` on.
pub(crate) fn set<const N: usize>(map: &mut [u64; N], start: u64, length: u64) {
    each_word(N, start, length, |word, mask| map[word] |= mask);
}

/// Clears `length` bits from `start` on.
pub(crate) fn clear<const N: usize>(map: &mut [u64; N], start: u64, length: u64) {
    each_word(N, start, length, |word, mask| map[word] &= !mask);
}

fn each_word(words: usize, start: u64, length: u64, mut apply: impl FnMut(usize, u64)) {
    for word in 0..words {
        let first = word as u64 * 64;
        let from = start.clamp(first, first + 64) - first;
        let to = (start + length).clamp(first, first + 64) - first;
        if from < to {
            let ones = if to - from == 64 { u64::MAX } else { (1 << (to - from)) - 1 };
            apply(word, ones << from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(
            ranges in prop::collection::vec((0u64..256, 1u64..200, any::<bool>()), 0..20),
            wanted in 1u64..256,
        ) {
            let mut map = [u64::MAX; 4];
            let mut plain = [true; 256];
            for (start, length, on) in ranges {
                let length = length.min(256 - start);
                if on { set(&mut map, start, length) } else { clear(&mut map, start, length) }
                plain[start as usize..(start + length) as usize].fill(on);
            }
            let runs: Vec<(usize, usize)> = plain
                .chunk_by(|a, b| a == b)
                .scan(0, |at, run| { let s = *at; *at += run.len(); Some((s, run)) })
                .filter(|(_, run)| run[0])
                .map(|(start, run)| (start, run.len()))
                .collect();
            prop_assert_eq!(count(&map), plain.iter().filter(|b| **b).count() as u64);
            prop_assert_eq!(longest(&map), runs.iter().map(|r| r.1).max().unwrap_or(0) as u64);
            let first = runs.iter().find(|r| r.1 as u64 >= wanted).map(|r| r.0 as u64);
            prop_assert_eq!(find(&map, wanted), first);
            for (i, bit) in plain.iter().enumerate() {
                prop_assert_eq!(get(&map, i as u64), *bit);
            }
        }
    }
}
