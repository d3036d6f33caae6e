//! Prometheus metrics: the server's own names (`cowherd_*`) and those that dashboards made for
//! redis_exporter read (`redis_*`), over HTTP.
//!
//! ```text
//!   GET /metrics --> http --> Source --> Collected --> own, checkpoints, compatible --> Families
//!                                                                                        |
//!       text: OpenMetrics 1.0.0 or Prometheus 0.0.4; protobuf: with native histograms <--'
//! ```
//!
//! A scrape sums counters and asks the engine for its [`StatsSource`]; it walks no data.

mod checkpoints;
mod compatible;
mod families;
mod http;
mod last_save;
mod own;
mod protobuf;
mod text;

use std::fmt;
use std::sync::Arc;

use super::inputs::{StatsSnapshot, StatsSource};
use super::persistence::PersistenceStatus;
use super::process::{self, CpuTimes};
use super::workers::{CommandTotals, ServerTotals};
use super::{FamilyLatency, Telemetry};
use crate::clock::Timestamp;
use families::Families;
pub use http::serve;

/// All that one scrape tells.
struct Collected<'a> {
    telemetry: &'a Telemetry,
    inputs: StatsSnapshot,
    totals: ServerTotals,
    view: PersistenceStatus,
    commands: Vec<(&'a str, CommandTotals)>,
    latency: Vec<FamilyLatency>,
    resident_bytes: u64,
    cpu: CpuTimes,
    now: Timestamp,
}

impl<'a> Collected<'a> {
    fn new(telemetry: &'a Telemetry, inputs: StatsSnapshot) -> Self {
        let now = Timestamp::now();
        let commands = telemetry.commands().map(|(number, name)| (name, telemetry.command(number)));
        let view = telemetry.persistence().status(now, inputs.counters.changes);
        Self {
            telemetry,
            inputs,
            totals: telemetry.totals(),
            view,
            commands: commands.filter(|(_, totals)| totals.is_used()).collect(),
            latency: telemetry.latency_by_family(),
            resident_bytes: process::resident_bytes(),
            cpu: process::cpu_times(),
            now,
        }
    }
}

/// Where metrics come from.
struct Source {
    telemetry: Arc<Telemetry>,
    stats_source: Arc<dyn StatsSource>,
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Source {
    fn collect(&self) -> Families {
        let collected = Collected::new(&self.telemetry, self.stats_source.stats_snapshot());
        let mut families = Families::default();
        own::emit(&mut families, &collected);
        checkpoints::emit(&mut families, &collected);
        last_save::emit(&mut families, &collected);
        compatible::emit(&mut families, &collected);
        families
    }

    /// The body of `/metrics`.
    fn render(&self, format: Format) -> Vec<u8> {
        let families = self.collect();
        match format {
            Format::OpenMetrics => text::openmetrics(&families).into_bytes(),
            Format::Plain => text::plain(&families).into_bytes(),
            Format::Protobuf => protobuf::delimited(&families),
        }
    }
}

/// The forms in which metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Plain,
    /// Prometheus's protocol buffers, which alone can carry native histograms.
    Protobuf,
}

impl Format {
    /// The content type that names this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }

    /// The form that a client prefers by its `Accept` header; plain when it does not mind.
    pub fn accepted(header: &str) -> Self {
        let ranges = header.split(',').filter_map(|range| {
            let (format, preference) = offered(range)?;
            (preference > 0).then_some((preference, format))
        });
        // Of those that are wanted as much, the one that can say more; plain is the last resort.
        let best = ranges.max_by_key(|(preference, format)| (*preference, format.rank()));
        best.map_or(Self::Plain, |(_, format)| format)
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::OpenMetrics => 1,
            Self::Protobuf => 2,
        }
    }
}

/// Reads one range of an `Accept` header: the form that it names, if it is served here, and its
/// quality in thousandths.
fn offered(range: &str) -> Option<(Format, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?;
    let parameter = |wanted: &str| {
        parts.clone().find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    let format = match () {
        () if is("text/plain") => Format::Plain,
        () if is("application/openmetrics-text") => Format::OpenMetrics,
        () if is("application/vnd.google.protobuf")
            && parameter("proto") == Some("io.prometheus.client.MetricFamily")
            && parameter("encoding").is_none_or(|encoding| encoding == "delimited") =>
        {
            Format::Protobuf
        }
        () => return None,
    };
    Some((format, parameter("q").map_or(1000, thousandths)))
}

/// A quality such as `0.75`; what cannot be read is 0.
fn thousandths(quality: &str) -> u16 {
    let (whole, fraction) = quality.split_once('.').unwrap_or((quality, ""));
    match (whole, fraction) {
        ("1", _) => 1000,
        ("0", digits) if digits.len() <= 3 => format!("{digits:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
