//! What is sampled now and then, since finding it out is too slow for whoever asks: how the arena
//! lies on huge pages, and what the machine has of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::keyspace::CHUNK_SIZE;
use crate::telemetry::{HugePoolStats, ThpStats};

/// The samples.
#[derive(Debug, Default)]
pub struct SampledStats {
    huge_bytes: AtomicU64,
    splits: AtomicU64,
    collapsed: AtomicU64,
    machine: Mutex<Machine>,
}

/// Huge pages of the machine.
#[derive(Debug, Default)]
struct Machine {
    thp_setting: String,
    pool: Option<HugePoolStats>,
}

impl SampledStats {
    /// The machine has this much of huge pages.
    pub fn saw_machine(&self, thp_setting: String, pool: Option<HugePoolStats>) {
        *self.machine.lock() = Machine { thp_setting, pool };
    }

    /// So many bytes of the arena lie on huge pages.
    pub fn saw_huge(&self, bytes: u64) {
        self.huge_bytes.store(bytes, Relaxed);
    }

    /// A save has ended, and has found out this much.
    pub fn saw_save(&self, huge_bytes: Option<u64>, splits: Option<u64>) {
        if let Some(bytes) = huge_bytes {
            self.saw_huge(bytes);
        }
        self.splits.fetch_add(splits.unwrap_or(0), Relaxed);
    }

    /// A chunk that did not lie on a huge page when that was last looked at does now.
    pub fn healed_one(&self) {
        self.huge_bytes.fetch_add(CHUNK_SIZE, Relaxed);
        self.collapsed.fetch_add(1, Relaxed);
    }

    /// Bytes of the arena that lie on huge pages, as last looked at and healed since.
    pub fn huge_bytes(&self) -> u64 {
        self.huge_bytes.load(Relaxed)
    }

    /// Transparent huge pages.
    pub fn thp(&self) -> ThpStats {
        ThpStats {
            setting: self.machine.lock().thp_setting.clone(),
            splits: self.splits.load(Relaxed),
            collapsed: self.collapsed.load(Relaxed),
        }
    }

    /// The pool that the arena is made of.
    pub fn pool(&self) -> Option<HugePoolStats> {
        self.machine.lock().pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page tables are looked at once a minute: until then the figure told of a save's splits,
    /// though all had been made whole, and LATENCY DOCTOR complained.
    #[test]
    fn what_is_healed_lies_on_huge_pages_at_once() {
        let sampled = SampledStats::default();
        sampled.saw_save(Some(CHUNK_SIZE), Some(2));
        sampled.healed_one();
        sampled.healed_one();
        assert_eq!(sampled.huge_bytes(), 3 * CHUNK_SIZE);
        assert_eq!((sampled.thp().splits, sampled.thp().collapsed), (2, 2));
        sampled.saw_save(None, None);
        assert_eq!(sampled.huge_bytes(), 3 * CHUNK_SIZE, "not known");
        sampled.saw_huge(CHUNK_SIZE);
        assert_eq!(sampled.huge_bytes(), CHUNK_SIZE);
    }
}
