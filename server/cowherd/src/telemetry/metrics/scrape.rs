//! The values behind one scrape, read at one moment.

use crate::clock::Timestamp;
use crate::telemetry::persistence::PersistenceStatus;
use crate::telemetry::process::{self, CpuTimes};
use crate::telemetry::registry::{FamilyLatency, Telemetry};
use crate::telemetry::stats_source::StatsSnapshot;
use crate::telemetry::thread_counters::{CommandTotals, ServerTotals};

/// Everything that one scrape shows.
pub(super) struct Scrape<'a> {
    pub(super) telemetry: &'a Telemetry,
    pub(super) stats: StatsSnapshot,
    pub(super) totals: ServerTotals,
    pub(super) persistence: PersistenceStatus,
    /// The commands that clients have used.
    pub(super) commands: Vec<(&'a str, CommandTotals)>,
    pub(super) latency: Vec<FamilyLatency>,
    pub(super) resident_bytes: u64,
    pub(super) cpu: CpuTimes,
    pub(super) now: Timestamp,
}

impl<'a> Scrape<'a> {
    pub(super) fn new(telemetry: &'a Telemetry, stats: StatsSnapshot) -> Self {
        let now = Timestamp::now();
        let commands = telemetry.commands().map(|(number, name)| (name, telemetry.command(number)));
        let persistence = telemetry.persistence().status(now, stats.counters.changes);
        Self {
            telemetry,
            stats,
            totals: telemetry.totals(),
            persistence,
            commands: commands.filter(|(_, totals)| totals.is_used()).collect(),
            latency: telemetry.latency_by_family(),
            resident_bytes: process::resident_bytes(),
            cpu: process::cpu_times(),
            now,
        }
    }
}
