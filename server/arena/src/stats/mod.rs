//! Statistics of the arena.
//!
//! | file | content |
//! |---|---|
//! | `histogram` | histogram with one writer, its `Distribution`, Prometheus's native form |
//! | `shared_histogram` | histogram with any number of writers |
//! | `costs` | cost of copy-on-write, of the undo log and of the image writer's steps |

mod costs;
mod histogram;
mod shared_histogram;

pub use costs::{CowStats, UndoStats, WriterTimes};
pub use histogram::{Distribution, Histogram, NativeHistogram, bump};
pub use shared_histogram::SharedHistogram;
