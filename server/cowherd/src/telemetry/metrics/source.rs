//! Makes the body of `/metrics`.

use std::fmt;
use std::sync::Arc;

use super::exposition::ExpositionFormat;
use super::families::Families;
use super::scrape::Scrape;
use super::{checkpoint_metrics, protobuf, redis_metrics, server_metrics, text};
use crate::telemetry::registry::Telemetry;
use crate::telemetry::stats_source::StatsSource;

/// The sources of all metrics.
pub(super) struct MetricsSource {
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) stats_source: Arc<dyn StatsSource>,
}

impl fmt::Debug for MetricsSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MetricsSource").finish_non_exhaustive()
    }
}

impl MetricsSource {
    fn collect(&self) -> Families {
        let scrape = Scrape::new(&self.telemetry, self.stats_source.stats_snapshot());
        let mut families = Families::default();
        server_metrics::emit(&mut families, &scrape);
        checkpoint_metrics::emit(&mut families, &scrape);
        redis_metrics::emit(&mut families, &scrape);
        families
    }

    /// The body of `/metrics` in a format.
    pub(super) fn render(&self, format: ExpositionFormat) -> Vec<u8> {
        let families = self.collect();
        match format {
            ExpositionFormat::OpenMetrics => text::openmetrics(&families).into_bytes(),
            ExpositionFormat::Plain => text::plain(&families).into_bytes(),
            ExpositionFormat::Protobuf => protobuf::delimited(&families),
        }
    }
}
