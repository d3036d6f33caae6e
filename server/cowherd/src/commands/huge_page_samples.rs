//! Statistics of huge pages that are sampled in the background, since determining them (scanning
//! page tables, reading /proc and /sys) is too slow for INFO and a metrics scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::keyspace::CHUNK_SIZE;
use crate::telemetry::{HugePoolStats, ThpStats};

/// The latest samples of the arena and the host.
#[derive(Debug, Default)]
pub struct HugePageSamples {
    huge_bytes: AtomicU64,
    splits: AtomicU64,
    collapsed: AtomicU64,
    host: Mutex<HostHugePages>,
}

/// The huge pages of the host.
#[derive(Debug, Default)]
struct HostHugePages {
    thp_setting: String,
    pool: Option<HugePoolStats>,
}

impl HugePageSamples {
    /// Stores the setting of transparent huge pages and the state of the huge page pool.
    pub fn set_host(&self, thp_setting: String, pool: Option<HugePoolStats>) {
        *self.host.lock() = HostHugePages { thp_setting, pool };
    }

    /// Stores the number of bytes of the arena on huge pages.
    pub fn set_huge_bytes(&self, bytes: u64) {
        self.huge_bytes.store(bytes, Relaxed);
    }

    /// Adds the results of a checkpoint.
    pub fn add_checkpoint(&self, huge_bytes: Option<u64>, splits: Option<u64>) {
        if let Some(bytes) = huge_bytes {
            self.set_huge_bytes(bytes);
        }
        self.splits.fetch_add(splits.unwrap_or(0), Relaxed);
    }

    /// Counts a chunk that was collapsed into a huge page since the last sample.
    pub fn count_collapse(&self) {
        self.huge_bytes.fetch_add(CHUNK_SIZE, Relaxed);
        self.collapsed.fetch_add(1, Relaxed);
    }

    /// The bytes of the arena on huge pages: the last sample plus the chunks collapsed since.
    pub fn huge_bytes(&self) -> u64 {
        self.huge_bytes.load(Relaxed)
    }

    /// The statistics of transparent huge pages.
    pub fn thp(&self) -> ThpStats {
        ThpStats {
            setting: self.host.lock().thp_setting.clone(),
            splits: self.splits.load(Relaxed),
            collapsed: self.collapsed.load(Relaxed),
            ..ThpStats::default()
        }
    }

    /// The state of the huge page pool that backs the arena.
    pub fn pool(&self) -> Option<HugePoolStats> {
        self.host.lock().pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page tables are scanned once a minute. Collapses were not counted until then: the number
    /// of bytes on huge pages still had the splits of the last checkpoint, and LATENCY DOCTOR
    /// warned.
    #[test]
    fn collapsed_chunks_count_as_huge_at_once() {
        let sampled = HugePageSamples::default();
        sampled.add_checkpoint(Some(CHUNK_SIZE), Some(2));
        sampled.count_collapse();
        sampled.count_collapse();
        assert_eq!(sampled.huge_bytes(), 3 * CHUNK_SIZE);
        assert_eq!((sampled.thp().splits, sampled.thp().collapsed), (2, 2));
        sampled.add_checkpoint(None, None);
        assert_eq!(sampled.huge_bytes(), 3 * CHUNK_SIZE, "not known");
        sampled.set_huge_bytes(CHUNK_SIZE);
        assert_eq!(sampled.huge_bytes(), CHUNK_SIZE);
    }
}
