//! Prometheus metrics: the server's own names (`cowherd_*`) and those that dashboards made for
//! redis_exporter read (`redis_*`), over HTTP.
//!
//! ```text
//!   GET /metrics --> http --> Body --> prometheus-client --> Collected (own, compatible)
//!                                            |
//!                          OpenMetrics 1.0 --+--> text: plain Prometheus 0.0.4
//! ```
//!
//! A scrape sums counters and asks the engine for its [`Figures`]; it walks no data.

mod compatible;
mod emit;
mod http;
mod own;
mod text;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text as openmetrics};
use prometheus_client::registry::Registry;

use super::inputs::{Figures, InfoInputs};
use super::persistence::View;
use super::process::{self, CpuTimes};
use super::workers::{CommandTotals, Totals};
use super::{Snapshot, Telemetry};
use crate::clock::Moment;
use emit::Emitter;
pub use http::{MetricsError, MetricsServer, serve};

/// All that one scrape tells.
struct Collected<'a> {
    telemetry: &'a Telemetry,
    inputs: InfoInputs,
    totals: Totals,
    view: View,
    commands: Vec<(&'a str, CommandTotals)>,
    /// Of all commands together.
    latency: Snapshot,
    resident_bytes: u64,
    cpu: CpuTimes,
    now: Moment,
}

impl<'a> Collected<'a> {
    fn new(telemetry: &'a Telemetry, inputs: InfoInputs) -> Self {
        let now = Moment::now();
        let commands = telemetry.commands().map(|(number, name)| (name, telemetry.command(number)));
        let view = telemetry.persistence().view(now, inputs.counters.changes);
        Self {
            telemetry,
            inputs,
            totals: telemetry.totals(),
            view,
            commands: commands.filter(|(_, totals)| totals.is_used()).collect(),
            latency: telemetry.latency_of_all(),
            resident_bytes: process::resident_bytes(),
            cpu: process::cpu_times(),
            now,
        }
    }
}

/// Where metrics come from.
struct Source {
    telemetry: Arc<Telemetry>,
    figures: Arc<dyn Figures>,
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Collector for Source {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let collected = Collected::new(&self.telemetry, self.figures.figures());
        let mut emitter = Emitter::new(encoder);
        own::emit(&mut emitter, &collected)?;
        compatible::emit(&mut emitter, &collected)
    }
}

/// The forms in which metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Plain,
}

impl Format {
    /// The content type that names this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The form that a client prefers by its `Accept` header; plain when it does not mind.
    pub fn accepted(header: &str) -> Self {
        let preference = |wanted: &str| header.split(',').filter_map(quality_of(wanted)).max();
        match (preference("application/openmetrics-text"), preference("text/plain")) {
            (Some(open), plain) if open > 0 && Some(open) >= plain => Self::OpenMetrics,
            _ => Self::Plain,
        }
    }
}

/// Reads one range of an `Accept` header: its quality in thousandths, if it is of this type.
fn quality_of(wanted: &str) -> impl Fn(&str) -> Option<u16> {
    move |range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().filter(|name| name.eq_ignore_ascii_case(wanted))?;
        let quality = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()))
        });
        Some(quality.unwrap_or(1000))
    }
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

/// Makes the body of `/metrics`.
struct Body(Registry);

impl Body {
    fn new(telemetry: Arc<Telemetry>, figures: Arc<dyn Figures>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Source { telemetry, figures }));
        Self(registry)
    }

    fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let mut body = String::new();
        openmetrics::encode(&mut body, &self.0)?;
        match format {
            Format::OpenMetrics => Ok(body),
            Format::Plain => Ok(text::plain(&body)),
        }
    }
}

#[cfg(test)]
mod tests;
