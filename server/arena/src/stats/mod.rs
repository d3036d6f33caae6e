//! Statistics of the arena: histograms of durations and the costs of checkpoints.

mod costs;
mod histogram;
mod shared_histogram;

pub use costs::{CowStats, UndoStats, WriterTimes};
pub use histogram::{Distribution, Histogram, NativeHistogram, bump};
pub use shared_histogram::SharedHistogram;
