//! How many bytes of the arena may be in use before keys are evicted.

use std::sync::atomic::{AtomicU64, Ordering};

use cowherd_arena::Arena;

/// The part of the memory in use that is kept free after the arena was full.
const PRESSURE_STEP: u64 = 64;
/// The part of the pressure limit by which each [`MemoryLimit::relax_pressure`] raises the limit.
const PRESSURE_FADES: u64 = 4096;

/// The lower of two limits: `maxmemory`, and a pressure limit that is learned.
///
/// The arena refuses memory before every byte of it is in use, because memory is divided into size
/// classes. How much earlier depends on the data. So the limit is lowered whenever the arena was
/// full, and rises slowly while it is not.
#[derive(Debug)]
pub struct MemoryLimit {
    /// The arena's size, or less if `maxmemory` is lower.
    maxmemory: AtomicU64,
    /// Bytes in use above which the arena is likely to refuse memory; `u64::MAX` until it did once.
    pressure: AtomicU64,
}

impl MemoryLimit {
    pub(in crate::keyspace) const fn new(capacity: u64) -> Self {
        Self { maxmemory: AtomicU64::new(capacity), pressure: AtomicU64::new(u64::MAX) }
    }

    /// Sets `maxmemory`, in bytes.
    pub fn set_maxmemory(&self, bytes: u64) {
        self.maxmemory.store(bytes, Ordering::Relaxed);
    }

    /// `maxmemory`, in bytes.
    pub fn maxmemory(&self) -> u64 {
        self.maxmemory.load(Ordering::Relaxed)
    }

    /// Bytes in use above which keys are evicted.
    pub fn eviction_limit(&self) -> u64 {
        self.maxmemory().min(self.pressure.load(Ordering::Relaxed))
    }

    /// Whether more is in use than `maxmemory` allows. The arena cannot grow beyond its
    /// reservation, so that only a lower limit has to be compared.
    pub fn is_exceeded(&self, arena: &Arena) -> bool {
        let limit = self.maxmemory();
        limit < arena.capacity() && arena.used_bytes() > limit
    }

    /// Lowers the pressure limit: the arena has refused memory with as much in use as now.
    pub fn learn_pressure(&self, arena: &Arena) {
        let used = arena.used_bytes();
        self.pressure.fetch_min(used - used / PRESSURE_STEP, Ordering::Relaxed);
    }

    /// Raises the pressure limit a little: as the data changes, so does how much of it fits.
    pub fn relax_pressure(&self, arena: &Arena) {
        let learned = self.pressure.load(Ordering::Relaxed);
        if learned <= arena.capacity() {
            let relaxed = learned + learned / PRESSURE_FADES;
            // On failure another thread has learned a newer limit meanwhile, which stays.
            let _ = self.pressure.compare_exchange(
                learned,
                relaxed,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}
