//! A histogram that any thread may write to. For what is rare: each record is three atomic
//! additions.

use super::histogram::{Distribution, Histogram};

/// A histogram with any number of writers.
#[derive(Debug, Default)]
pub struct SharedHistogram(Histogram);

impl SharedHistogram {
    /// Counts one duration.
    pub fn record(&self, nanos: u64) {
        self.0.record_shared(nanos);
    }

    /// What was recorded so far.
    pub fn distribution(&self) -> Distribution {
        self.0.distribution()
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// Their sum in nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.0.sum_nanos()
    }

    /// The longest so far, in nanoseconds.
    pub fn max(&self) -> u64 {
        self.0.max()
    }
}
