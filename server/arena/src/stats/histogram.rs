//! A histogram of durations: fixed memory, any number of readers.
//!
//! The buckets are those of Prometheus's native histograms of schema 3: bucket number `i` holds the
//! durations above 2^((i-1)/8) and up to 2^(i/8) seconds, eight buckets to each power of two, from
//! 60 ns to 70 s. The counts are exported without conversion, and powers of two of a second are
//! exact bucket borders.
//!
//! ```text
//!   slot        0            1             2            ...  192          ...  242
//!   number      -192, lower  -191          -190              0                 50 and higher
//!   seconds     ..=2^-24     ..=2^-23.875  ..=2^-23.75       ..=1              above 2^(49/8)
//! ```
//!
//! The slot of a duration is found without division or logarithm: the first one bit and the four
//! bits behind it choose one of 16 lines to the power of two. A line holds one bucket border at
//! most, and one comparison decides between its two sides.
//!
//! Invariants:
//! 1. A bucket's upper border is at most 9.1 % above its lower one: a quantile is never below the
//!    exact one and at most as much above it.
//! 2. Only one thread at a time records into a [`Histogram`] (plain loads and stores, no
//!    read-modify-write). Readers may see a count before its sum.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The schema of a native histogram: 2^SCHEMA buckets to each power of two.
const SCHEMA: i32 = 3;
const PER_OCTAVE: usize = 1 << SCHEMA;
/// The number of the bucket in slot 0, which also holds all shorter durations.
const LOWEST: i32 = -192;
const BUCKETS: usize = 243;
/// Upper border of slot 0, the zero bucket of native histograms: 2^-24 s.
const ZERO_THRESHOLD: f64 = 1.0 / (1 << 24) as f64;

/// Powers of two of the buckets in text formats: upper bounds of 2^-20 s (0.95 us) to 2^2 s.
const EXPORTED: std::ops::RangeInclusive<i32> = -20..=2;

/// Number of bits behind the first one bit that choose a line.
const LINE_BITS: u32 = 4;
/// Number of lines: up to 2^37 ns.
const LINES: usize = 37 << LINE_BITS;

/// 2^(k/8), correctly rounded.
const EIGHTHS: [f64; PER_OCTAVE] = [
    1.0,
    1.090_507_732_665_257_7,
    1.189_207_115_002_721,
    1.296_839_554_651_009_6,
    std::f64::consts::SQRT_2,
    1.542_210_825_407_940_7,
    1.681_792_830_507_429,
    1.834_008_086_409_342_4,
];

/// The longest duration of each slot in nanoseconds; the last slot is unbounded.
const BORDERS: [u64; BUCKETS] = {
    let mut borders = [u64::MAX; BUCKETS];
    let mut slot = 0;
    while slot < BUCKETS - 1 {
        let octave = slot / PER_OCTAVE;
        let nanos = 1e9 * ZERO_THRESHOLD * (1_u64 << octave) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "below 2^37, rounded down")]
        let border = (nanos * EIGHTHS[slot % PER_OCTAVE]) as u64;
        borders[slot] = border;
        slot += 1;
    }
    borders
};

/// The slot of the shortest duration on each line.
const FIRST_SLOT: [u8; LINES] = {
    let mut slots = [0; LINES];
    let mut line = 0;
    let mut slot = 0;
    while line < LINES {
        let shortest = shortest_on(line);
        while BORDERS[slot] < shortest {
            slot += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are 243")]
        let first = slot as u8;
        slots[line] = first;
        line += 1;
    }
    slots
};

/// The shortest duration on a line.
const fn shortest_on(line: usize) -> u64 {
    let (octave, rest) = (line >> LINE_BITS, line as u64 & ((1 << LINE_BITS) - 1));
    (((1 << LINE_BITS) | rest) << octave) >> LINE_BITS
}

const _: () = assert!(BUCKETS <= u8::MAX as usize);

/// Adds to a counter that only the calling thread writes.
#[inline]
pub fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// The slot of a duration.
#[inline]
fn slot_of(nanos: u64) -> usize {
    let octave = (nanos | 1).ilog2();
    // The mask drops the first one bit; the bits behind it choose the line.
    let rest = (nanos << LINE_BITS >> octave) & ((1 << LINE_BITS) - 1);
    let line = (octave as usize) << LINE_BITS | usize::try_from(rest).unwrap_or(0);
    match FIRST_SLOT.get(line) {
        Some(slot) => {
            let slot = usize::from(*slot);
            slot + usize::from(nanos > BORDERS[slot])
        }
        None => BUCKETS - 1,
    }
}

/// A histogram with one writer at a time.
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
        bump(&self.buckets[slot_of(nanos)], 1);
        bump(&self.sum, nanos);
        if nanos > self.max.load(Relaxed) {
            self.max.store(nanos, Relaxed);
        }
    }

    /// Counts one duration; any number of threads may call this at a time.
    pub(super) fn record_shared(&self, nanos: u64) {
        self.buckets[slot_of(nanos)].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
        self.max.fetch_max(nanos, Relaxed);
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// The sum of all durations in nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// The longest duration so far, in nanoseconds.
    pub fn max(&self) -> u64 {
        self.max.load(Relaxed)
    }

    /// Adds the durations recorded so far to `total`.
    pub fn add_to(&self, total: &mut Distribution) {
        for (own, bucket) in self.buckets.iter().zip(total.buckets.iter_mut()) {
            *bucket += own.load(Relaxed);
        }
        total.sum = total.sum.wrapping_add(self.sum.load(Relaxed));
        total.max = total.max.max(self.max.load(Relaxed));
    }

    /// The durations recorded so far.
    pub fn distribution(&self) -> Distribution {
        let mut total = Distribution::default();
        self.add_to(&mut total);
        total
    }
}

/// The counts of one or several histograms at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
    max: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), sum: 0, max: 0 }
    }
}

impl Distribution {
    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all durations in nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.sum
    }

    /// Adds the counts of another distribution.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *own += other;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The durations recorded since `earlier`, a distribution of the same histograms.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rest = self.clone();
        for (own, earlier) in rest.buckets.iter_mut().zip(earlier.buckets.iter()) {
            *own = own.saturating_sub(*earlier);
        }
        rest.sum = rest.sum.wrapping_sub(earlier.sum);
        // The longest duration may be older than `earlier`: the bucket's border bounds the rest.
        let last = rest.buckets.iter().rposition(|count| *count > 0);
        rest.max = last.map_or(0, |bucket| rest.highest(bucket));
        rest
    }

    /// Number of durations in the buckets with borders of at most `nanos`: some of those between
    /// the last such border and `nanos` may be left out.
    pub fn count_up_to(&self, nanos: u64) -> u64 {
        let below = BORDERS.iter().take_while(|border| **border <= nanos).count();
        self.buckets[..below].iter().sum()
    }

    /// The duration in nanoseconds that the share `quantile` (0 to 1) of all durations does not
    /// exceed, at most 9.1 % too high. None: nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        // Beyond 2^53 records the rank loses its last digits, far below the bucket width.
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
        BORDERS[bucket].min(self.max)
    }

    /// Base-2 buckets of 2^-20 s (0.95 us) to 4 s and one for the rest: upper bound in seconds and
    /// count of that bucket alone (not cumulative).
    pub fn exported(&self) -> Vec<(f64, u64)> {
        let mut exported = Vec::new();
        let mut from = 0;
        for power in EXPORTED {
            let past = ((power << SCHEMA) - LOWEST + 1).unsigned_abs() as usize;
            exported.push((f64::from(power).exp2(), self.buckets[from..past].iter().sum()));
            from = past;
        }
        exported.push((f64::INFINITY, self.buckets[from..].iter().sum()));
        exported
    }

    /// The counts as a native histogram of Prometheus.
    pub fn native(&self) -> NativeHistogram {
        NativeHistogram {
            schema: SCHEMA,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: self.buckets[0],
            count: self.count(),
            sum_seconds: self.sum as f64 / 1e9,
            offset: LOWEST + 1,
            counts: self.buckets[1..].to_vec(),
        }
    }
}

/// A native histogram of Prometheus. Bucket `i` has the upper border 2^(i/2^schema) seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeHistogram {
    /// Base-2 logarithm of the number of buckets to each power of two.
    pub schema: i32,
    /// The zero bucket holds durations of up to so many seconds.
    pub zero_threshold: f64,
    /// Durations in the zero bucket.
    pub zero_count: u64,
    /// All durations.
    pub count: u64,
    /// The sum of all durations.
    pub sum_seconds: f64,
    /// Number of the bucket of `counts[0]`.
    pub offset: i32,
    /// Durations in each bucket from `offset` on.
    pub counts: Vec<u64>,
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
