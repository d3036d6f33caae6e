//! Writes families of metrics through prometheus-client, by their full names.
//!
//! prometheus-client adds the unit and a counter's `_total` itself, so both are taken off here.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::telemetry::Snapshot;

/// One series of a family: labels and value.
pub(super) type Series<'a, const N: usize, V> = ([(&'static str, &'a str); N], V);

/// Writes families.
pub(super) struct Emitter<'a>(DescriptorEncoder<'a>);

impl<'a> Emitter<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| metric.encode_gauge(&value))
    }

    pub(super) fn gauges<'s, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N, V>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut metric| {
            series
                .into_iter()
                .try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
        })
    }

    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut metric| {
            metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    pub(super) fn counters<'s, const N: usize, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'s, N, V>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut metric| {
            series.into_iter().try_for_each(|(labels, value)| {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
            })
        })
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        durations: &Snapshot,
    ) -> fmt::Result {
        let sum = durations.sum_nanos() as f64 / 1e9;
        self.family(name, help, MetricType::Histogram, |mut metric| {
            let buckets = durations.exported();
            metric.encode_histogram::<NoLabelSet>(sum, durations.count(), &buckets, None)
        })
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let base = match kind {
            MetricType::Counter => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let (stem, unit) = split_unit(base);
        write(self.0.encode_descriptor(stem, help, unit.as_ref(), kind)?)
    }
}

/// Cuts a base unit off the end of a name.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    let cut = |suffix| name.strip_suffix(suffix);
    match (cut("_seconds"), cut("_bytes")) {
        (Some(stem), _) => (stem, Some(Unit::Seconds)),
        (_, Some(stem)) => (stem, Some(Unit::Bytes)),
        _ => (name, None),
    }
}
