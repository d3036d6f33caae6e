//! INFO: the same sections, fields and order as Redis 7, since monitoring tools and clients read
//! them by name. Fields of our own stand at the end of a section and begin with `cowherd_`.
//!
//! ```text
//!   # Server\r\n
//!   redis_version:7.4.0\r\n
//!   ...
//!   \r\n                        an empty line between sections
//!   # Clients\r\n
//! ```

mod checkpoint;
mod page;
mod sections;

use super::inputs::StatsSnapshot;
use super::{Baseline, Telemetry};
use crate::clock::Timestamp;
use page::InfoWriter;

/// The version of Redis whose behaviour clients may expect.
pub const REDIS_VERSION: &str = "7.4.0";
/// The version of this server.
pub const COWHERD_VERSION: &str = env!("CARGO_PKG_VERSION");

/// All that a section may read.
struct InfoContext<'a> {
    telemetry: &'a Telemetry,
    inputs: &'a StatsSnapshot,
    now: Timestamp,
    /// Where statistics count from.
    zero: &'a Baseline,
}

/// A section: its name in lower case, whether plain INFO shows it, and how it is written.
struct InfoSection {
    name: &'static str,
    default: bool,
    write: fn(&mut InfoWriter, &InfoContext<'_>),
}

const fn section(
    name: &'static str,
    default: bool,
    write: fn(&mut InfoWriter, &InfoContext<'_>),
) -> InfoSection {
    InfoSection { name, default, write }
}

/// The sections in the order they are shown.
const SECTIONS: [InfoSection; 14] = [
    section("server", true, sections::server),
    section("clients", true, sections::clients),
    section("memory", true, sections::memory),
    section("persistence", true, sections::persistence),
    section("stats", true, sections::stats),
    section("replication", true, sections::replication),
    section("cpu", true, sections::cpu),
    section("modules", true, sections::modules),
    section("commandstats", false, sections::command_stats),
    section("errorstats", true, sections::error_stats),
    section("latencystats", false, sections::latency_stats),
    section("cluster", true, sections::cluster),
    section("keyspace", true, sections::keyspace),
    section("checkpoint", false, checkpoint::checkpoint),
];

impl InfoContext<'_> {
    /// The state of saving and restoring.
    fn persistence(&self) -> super::PersistenceStatus {
        self.telemetry.persistence.status(self.now, self.inputs.counters.changes)
    }
}

impl InfoSection {
    /// Whether a request asks for this section. Unknown names ask for none.
    fn is_asked(&self, asked: &[&str]) -> bool {
        asked.is_empty() && self.default
            || asked.iter().any(|name| {
                name.eq_ignore_ascii_case(self.name)
                    || name.eq_ignore_ascii_case("all")
                    || name.eq_ignore_ascii_case("everything")
                    || self.default && name.eq_ignore_ascii_case("default")
            })
    }
}

/// The reply to INFO with these arguments: section names, `default`, `all` or `everything`;
/// none means `default`.
pub fn render(telemetry: &Telemetry, asked: &[&str], inputs: &StatsSnapshot) -> String {
    let zero = telemetry.zero.lock();
    let reading = InfoContext { telemetry, inputs, now: Timestamp::now(), zero: &zero };
    let mut page = InfoWriter::default();
    for section in SECTIONS.iter().filter(|section| section.is_asked(asked)) {
        (section.write)(&mut page, &reading);
    }
    page.finish()
}

#[cfg(test)]
mod tests;
