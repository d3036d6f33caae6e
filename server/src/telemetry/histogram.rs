//! A histogram of durations: fixed memory, one writer, any number of readers.
//!
//! Each power of two of nanoseconds is cut into 8 buckets of equal width, the first 8 nanoseconds
//! into one each. A bucket holds the values above its lower and up to its upper bound, so the
//! powers of two are exact borders, as Prometheus counts them (`le`).
//!
//! ```text
//!   bucket    0     1    ...   7   | 8       9  ...  15  | 16       17  ...  | ... 271
//!   values  0..=1   2          8   | 9      10       16  | 17..=18  19..=20  | ... 2^36 and more
//! ```
//!
//! Invariants:
//! 1. A bucket is at most 1/8 of its lower bound wide: a quantile is never below the exact one
//!    and at most 12.5 % above it.
//! 2. Only one thread at a time records (plain loads and stores, no read-modify-write). Readers
//!    may see a record half done: a count without its sum.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Each power of two has 2 to the power of this many buckets.
const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;
/// Values from 2 to the power of this (69 s) on share the last bucket.
const MAX_BITS: u32 = 36;
const BUCKETS: usize = SUB + (MAX_BITS - SUB_BITS) as usize * SUB;

/// The Prometheus buckets: upper bounds of 2^10 ns (1.024 us) to 2^32 ns (4.3 s).
const EXPORTED_BITS: std::ops::RangeInclusive<u32> = 10..=32;

const _: () = assert!(BUCKETS == 272);

/// Adds to a counter that only the calling thread writes.
#[inline]
pub(super) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

#[inline]
fn bucket_of(nanos: u64) -> usize {
    let below = nanos.saturating_sub(1).min((1 << MAX_BITS) - 1);
    let shift = (u64::BITS - below.leading_zeros()).saturating_sub(SUB_BITS + 1);
    // Both summands fit: the value is below 2^36.
    ((shift as usize) << SUB_BITS) + usize::try_from(below >> shift).unwrap_or(BUCKETS - 1)
}

/// The greatest value that belongs into a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let mantissa = bucket - (shift << SUB_BITS);
    (mantissa as u64 + 1) << shift
}

/// A histogram that is being written.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn record(&self, nanos: u64) {
        self.record_many(1, nanos);
    }

    /// Counts the same duration `times` times.
    #[inline]
    pub fn record_many(&self, times: u64, nanos: u64) {
        bump(&self.buckets[bucket_of(nanos)], times);
        bump(&self.sum, nanos.wrapping_mul(times));
        if nanos > self.max.load(Relaxed) {
            self.max.store(nanos, Relaxed);
        }
    }

    /// Adds what was recorded so far to a snapshot.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for (own, total) in self.buckets.iter().zip(snapshot.buckets.iter_mut()) {
            *total += own.load(Relaxed);
        }
        snapshot.sum = snapshot.sum.wrapping_add(self.sum.load(Relaxed));
        snapshot.max = snapshot.max.max(self.max.load(Relaxed));
    }

    /// What was recorded so far.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.add_to(&mut snapshot);
        snapshot
    }
}

/// Durations as they were counted at some moment; sums of several histograms too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
    max: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), sum: 0, max: 0 }
    }
}

impl Snapshot {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all durations in nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.sum
    }

    /// Adds another snapshot to this one.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *own += other;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// What was recorded after an earlier snapshot of the same histograms.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rest = self.clone();
        for (own, earlier) in rest.buckets.iter_mut().zip(earlier.buckets.iter()) {
            *own = own.saturating_sub(*earlier);
        }
        rest.sum = rest.sum.wrapping_sub(earlier.sum);
        // The greatest value may be an old one; then the bucket is all that is known.
        let last = rest.buckets.iter().rposition(|count| *count > 0);
        rest.max = last.map_or(0, |bucket| rest.highest(bucket));
        rest
    }

    /// The duration in nanoseconds that the share `quantile` (0 to 1) of all stay below or reach;
    /// up to 12.5 % too high. None: nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        // Beyond 2^53 records the rank loses its last digits, which no one can see.
        #[expect(clippy::cast_possible_truncation, reason = "0 to 2^64 by construction")]
        let rank = (quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64;
        let mut left = rank.clamp(1, count.max(1));
        for (bucket, own) in self.buckets.iter().enumerate() {
            if left <= *own {
                return Some(self.highest(bucket));
            }
            left -= own;
        }
        None
    }

    /// The greatest value that may be in a bucket.
    fn highest(&self, bucket: usize) -> u64 {
        if bucket == BUCKETS - 1 { self.max } else { upper_bound(bucket).min(self.max) }
    }

    /// Base-2 buckets of 1.024 us to 4.3 s and the rest: upper bound in seconds, count in the
    /// bucket alone.
    pub fn exported(&self) -> Vec<(f64, u64)> {
        let mut counts = self.buckets.iter().enumerate().peekable();
        let mut take_up_to = |bound: u64| {
            let mut sum = 0;
            while let Some((_, count)) = counts.next_if(|(bucket, _)| upper_bound(*bucket) <= bound)
            {
                sum += count;
            }
            sum
        };
        let mut exported: Vec<(f64, u64)> = EXPORTED_BITS
            .map(|bits| ((1_u64 << bits) as f64 / 1e9, take_up_to(1 << bits)))
            .collect();
        exported.push((f64::INFINITY, take_up_to(u64::MAX)));
        exported
    }
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
