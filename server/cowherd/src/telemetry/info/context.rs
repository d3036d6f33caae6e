//! The inputs of INFO's sections.

use crate::clock::Timestamp;
use crate::telemetry::persistence::PersistenceStatus;
use crate::telemetry::registry::{Baseline, Telemetry};
use crate::telemetry::stats_source::StatsSnapshot;

/// The version of Redis whose behaviour clients may expect.
pub(crate) const REDIS_VERSION: &str = "7.4.0";
/// The version of this server.
pub(crate) const COWHERD_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that a section may read.
pub(super) struct InfoContext<'a> {
    pub(super) telemetry: &'a Telemetry,
    pub(super) stats: &'a StatsSnapshot,
    pub(super) now: Timestamp,
    /// The counters at the last CONFIG RESETSTAT.
    pub(super) baseline: &'a Baseline,
}

impl InfoContext<'_> {
    /// The state of checkpoints and of the restore.
    pub(super) fn persistence(&self) -> PersistenceStatus {
        self.telemetry.persistence().status(self.now, self.stats.counters.changes)
    }
}
