//! A histogram with any number of writers, for rare events: each record costs three atomic
//! read-modify-write operations.

use super::histogram::{Distribution, Histogram};

/// A histogram with any number of writers.
#[derive(Debug, Default)]
pub struct SharedHistogram(Histogram);

impl SharedHistogram {
    /// Counts one duration.
    pub fn record(&self, nanos: u64) {
        self.0.record_shared(nanos);
    }

    /// The durations recorded so far.
    pub fn distribution(&self) -> Distribution {
        self.0.distribution()
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// The sum of all durations in nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.0.sum_nanos()
    }

    /// The longest duration so far, in nanoseconds.
    pub fn max(&self) -> u64 {
        self.0.max()
    }
}
