//! The binary form: `io.prometheus.client.MetricFamily` messages, each behind its length. It alone
//! can carry native histograms; each histogram is there in both ways, with its buckets of powers of
//! two and as a native one.
//!
//! Field numbers: <https://github.com/prometheus/client_model>, `metrics.proto`; only the fields
//! that are used here.

use prost::Message as _;

use super::families::{Families, Family, MetricKind, MetricSeries, MetricValue};
use crate::telemetry::Distribution;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub help: String,
    /// Baseline is a counter, and has to be there all the same.
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub metrics: Vec<Metric>,
    #[prost(string, tag = "5")]
    pub unit: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Durations>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `Gauge` or `Counter`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Number {
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// `Histogram`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Durations {
    #[prost(uint64, optional, tag = "1")]
    pub count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub buckets: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    pub spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "13")]
    pub deltas: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
}

/// `BucketSpan`: so many buckets after so many that are left out.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Span {
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

/// All families, each behind its length.
pub(super) fn delimited(families: &Families) -> Vec<u8> {
    families.0.iter().flat_map(|family| message(family).encode_length_delimited_to_vec()).collect()
}

fn message(family: &Family) -> MetricFamily {
    let kind = match family.kind {
        MetricKind::Counter => 0,
        MetricKind::Gauge => 1,
        MetricKind::Histogram => 4,
    };
    MetricFamily {
        name: family.name.to_owned(),
        help: family.help.to_owned(),
        kind: Some(kind),
        metrics: family.series.iter().map(|series| metric(family.kind, series)).collect(),
        unit: family.unit().unwrap_or("").to_owned(),
    }
}

fn metric(kind: MetricKind, series: &MetricSeries) -> Metric {
    let label =
        |(name, value): &(&str, String)| Label { name: (*name).to_owned(), value: value.clone() };
    let mut metric =
        Metric { labels: series.labels.iter().map(label).collect(), ..Metric::default() };
    match &series.value {
        MetricValue::Durations(times) => metric.histogram = Some(durations(times)),
        MetricValue::Number(value) => {
            let number = Some(Number { value: Some(*value) });
            match kind {
                MetricKind::Counter => metric.counter = number,
                _ => metric.gauge = number,
            }
        }
    }
    metric
}

fn durations(times: &Distribution) -> Durations {
    let mut below = 0;
    let buckets = times.exported().into_iter().map(|(bound, count)| {
        below += count;
        Bucket { cumulative_count: Some(below), upper_bound: Some(bound) }
    });
    let buckets = buckets.collect();
    let native = times.native();
    let (spans, deltas) = spans(native.offset, &native.counts);
    Durations {
        count: Some(native.count),
        sum: Some(native.sum_seconds),
        buckets,
        schema: Some(native.schema),
        zero_threshold: Some(native.zero_threshold),
        zero_count: Some(native.zero_count),
        spans,
        deltas,
    }
}

/// Buckets from the one numbered `offset` on, as runs of those that are not empty, and as the
/// differences from one to the next. Without any there is one empty span: a native histogram that
/// has counted nothing yet must be known from a classic one.
fn spans(offset: i32, counts: &[u64]) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<Span>::new(), Vec::new());
    let (mut left_out, mut last) = (offset, 0_i64);
    let mut in_span = false;
    for &count in counts {
        if count == 0 {
            left_out += 1;
            in_span = false;
            continue;
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - last);
        last = count;
        match spans.last_mut() {
            Some(span) if in_span => span.length = span.length.map(|length| length + 1),
            _ => spans.push(Span { offset: Some(left_out), length: Some(1) }),
        }
        (in_span, left_out) = (true, 0);
    }
    if spans.is_empty() {
        spans.push(Span { offset: Some(0), length: Some(0) });
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Histogram;

    fn decode(bytes: &[u8]) -> Vec<MetricFamily> {
        let mut rest = bytes;
        let mut families = Vec::new();
        while !rest.is_empty() {
            families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
        }
        families
    }

    #[test]
    fn runs_of_buckets_become_spans() {
        let found = |offset, counts: &[u64]| {
            let (spans, deltas) = spans(offset, counts);
            let spans: Vec<_> =
                spans.iter().map(|span| (span.offset.unwrap(), span.length.unwrap())).collect();
            (spans, deltas)
        };
        assert_eq!(found(-80, &[]), (vec![(0, 0)], vec![]));
        assert_eq!(found(-80, &[0, 0]), (vec![(0, 0)], vec![]));
        assert_eq!(found(-80, &[5, 7, 7]), (vec![(-80, 3)], vec![5, 2, 0]));
        assert_eq!(found(-80, &[0, 5, 0, 0, 1, 2, 0]), (vec![(-79, 1), (2, 2)], vec![5, -4, 1]));
    }

    #[test]
    fn families_are_read_back() {
        let times = Histogram::default();
        [1_500, 1_500, 3_000_000].iter().for_each(|nanos| times.record(*nanos));
        let mut families = Families::default();
        families.counters("a_bytes_total", "Bytes", [([("x", "y")], 7_u64)]);
        families.gauge("b_ratio", "Share", 0.5);
        families.histogram("t_seconds", "Time", &times.distribution());
        let read = decode(&delimited(&families));
        let heads: Vec<_> =
            read.iter().map(|f| (f.name.as_str(), f.kind.unwrap(), f.unit.as_str())).collect();
        let expected =
            [("a_bytes_total", 0, "bytes"), ("b_ratio", 1, "ratio"), ("t_seconds", 4, "seconds")];
        assert_eq!(heads, expected);
        assert_eq!(read[0].metrics[0].counter.unwrap().value, Some(7.0));
        assert_eq!(read[0].metrics[0].labels[0].value, "y");
        assert_eq!(read[1].metrics[0].gauge.unwrap().value, Some(0.5));
        let histogram = read[2].metrics[0].histogram.clone().unwrap();
        assert_eq!((histogram.count, histogram.schema), (Some(3), Some(3)));
        let last = histogram.buckets.last().unwrap();
        assert_eq!((last.cumulative_count, last.upper_bound), (Some(3), Some(f64::INFINITY)));
        // Buckets 8 log2(seconds): 1.5 us lies in -154, 3 ms in -67.
        let (mut number, mut at, mut counts) = (0, 0, Vec::new());
        let mut deltas = histogram.deltas.iter();
        for span in &histogram.spans {
            number += span.offset.unwrap();
            for _ in 0..span.length.unwrap() {
                at += deltas.next().unwrap();
                counts.push((number, at));
                number += 1;
            }
        }
        assert_eq!(counts, [(-154, 2), (-67, 1)]);
    }
}
