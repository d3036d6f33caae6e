//! INFO: the sections, fields and order of Redis 7, which monitoring tools and clients read by
//! name. Cowherd's own fields stand at the end of a section and begin with `cowherd_`.
//!
//! ```text
//!   # Server\r\n
//!   redis_version:7.4.0\r\n
//!   ...
//!   \r\n                        an empty line between sections
//!   # Clients\r\n
//! ```

mod checkpoint_section;
mod context;
mod redis_sections;
mod writer;

use super::registry::Telemetry;
use super::stats_source::StatsSnapshot;
use crate::clock::Timestamp;
use context::InfoContext;
pub(crate) use context::{COWHERD_VERSION, REDIS_VERSION};
use writer::InfoWriter;

/// A section: its name in lower case, whether INFO without arguments shows it, and its writer.
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

/// The sections in the order of the reply.
const SECTIONS: [InfoSection; 14] = [
    section("server", true, redis_sections::server),
    section("clients", true, redis_sections::clients),
    section("memory", true, redis_sections::memory),
    section("persistence", true, redis_sections::persistence),
    section("stats", true, redis_sections::stats),
    section("replication", true, redis_sections::replication),
    section("cpu", true, redis_sections::cpu),
    section("modules", true, redis_sections::modules),
    section("commandstats", false, redis_sections::command_stats),
    section("errorstats", true, redis_sections::error_stats),
    section("latencystats", false, redis_sections::latency_stats),
    section("cluster", true, redis_sections::cluster),
    section("keyspace", true, redis_sections::keyspace),
    section("checkpoint", false, checkpoint_section::checkpoint),
];

impl InfoSection {
    /// Whether these arguments of INFO select the section. Unknown names select nothing.
    fn is_selected(&self, asked: &[&str]) -> bool {
        asked.is_empty() && self.default
            || asked.iter().any(|name| {
                name.eq_ignore_ascii_case(self.name)
                    || name.eq_ignore_ascii_case("all")
                    || name.eq_ignore_ascii_case("everything")
                    || self.default && name.eq_ignore_ascii_case("default")
            })
    }
}

/// The reply to INFO with these arguments: section names, `default`, `all` or `everything`; none
/// means `default`.
pub(crate) fn render(telemetry: &Telemetry, asked: &[&str], stats: &StatsSnapshot) -> String {
    let baseline = telemetry.baseline.lock();
    let context = InfoContext { telemetry, stats, now: Timestamp::now(), baseline: &baseline };
    let mut out = InfoWriter::default();
    for section in SECTIONS.iter().filter(|section| section.is_selected(asked)) {
        (section.write)(&mut out, &context);
    }
    out.finish()
}

#[cfg(test)]
mod tests;
