//! The number of distinct elements, estimated from how many registers have each rank: Otmar Ertl,
//! "New cardinality estimation algorithms for HyperLogLog sketches", arXiv:1702.01284, algorithm 6.

use super::sketch::{REGISTER_BITS, REGISTERS};

/// The highest rank that an element has: all bits of its hash behind the register are zero.
const MAX_RANK: usize = 65 - REGISTER_BITS as usize;
/// 1 / (2 ln 2), which takes the bias away.
const ALPHA: f64 = 0.5 / std::f64::consts::LN_2;

/// How many registers have each rank. Elements have ranks up to 51; those beyond occur only in
/// values that were made by hand, and are not counted, as in Redis.
pub type RankCounts = [u32; 64];

/// The estimate. One of 2^63 or more becomes 2^63, and so does an infinite one: that of registers
/// which are all at the highest rank.
pub fn estimate(counts: &RankCounts) -> u64 {
    let registers = REGISTERS as f64;
    let share = |count: u32| f64::from(count) / registers;
    let saturated = (registers - f64::from(counts[MAX_RANK])) / registers;
    let mut sum = registers * tau(saturated);
    for count in counts[1..MAX_RANK].iter().rev() {
        sum = 0.5 * (sum + f64::from(*count));
    }
    sum += registers * sigma(share(counts[0]));
    let estimate = (ALPHA * registers * registers / sum).round();
    if estimate < (1u64 << 63) as f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        return estimate as u64;
    }
    1 << 63
}

/// What the registers without an element contribute: the sum of x^(2^k) * 2^(k-1).
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut factor, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * factor;
        factor += factor;
        if sum == before {
            return sum;
        }
    }
}

/// What the saturated registers contribute: one third of 1 - x - the sum of (1 - x^(2^-k))^2 *
/// 2^-k.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut factor, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        factor *= 0.5;
        sum -= (1.0 - x).powi(2) * factor;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(usize, u32)]) -> RankCounts {
        let mut counts = [0; 64];
        pairs.iter().for_each(|(rank, count)| counts[*rank] = *count);
        counts
    }

    #[test]
    fn few_elements_are_counted_exactly() {
        let empty = REGISTERS as u32;
        assert_eq!(estimate(&counts(&[(0, empty)])), 0);
        assert_eq!(estimate(&counts(&[(0, empty - 1), (1, 1)])), 1);
        assert_eq!(estimate(&counts(&[(0, empty - 100), (1, 50), (2, 50)])), 100);
    }

    #[test]
    fn the_constant_is_that_of_the_paper() {
        assert_eq!(ALPHA, 0.721_347_520_444_481_7);
    }

    #[test]
    fn saturated_registers_are_infinitely_many_elements() {
        let all = REGISTERS as u32;
        assert_eq!(estimate(&counts(&[(51, all)])), 1 << 63);
        assert_eq!(estimate(&counts(&[(63, all)])), 1 << 63);
        assert_eq!(estimate(&counts(&[(50, all)])), 1 << 63);
        assert!(estimate(&counts(&[(49, all)])) < 1 << 63);
    }
}
