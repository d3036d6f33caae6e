//! Statistics of the arena: histograms of durations and the costs of checkpoints.

mod costs;
mod histogram;
mod shared_histogram;

pub use costs::{CowFigures, Steps, UndoFigures};
pub use histogram::{Histogram, NativeHistogram, Snapshot, bump};
pub use shared_histogram::SharedHistogram;
