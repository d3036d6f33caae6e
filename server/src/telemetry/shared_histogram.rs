//! placeholder
use super::histogram::{Histogram, Snapshot};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// x
#[derive(Debug, Default)]
pub struct SharedHistogram(parking_lot::Mutex<Histogram>, AtomicU64);
impl SharedHistogram {
    /// x
    pub fn record(&self, nanos: u64) {
        self.0.lock().record(nanos);
        self.1.fetch_max(nanos, Relaxed);
    }
    /// x
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().snapshot()
    }
    /// x
    pub fn max(&self) -> u64 {
        self.1.load(Relaxed)
    }
}
