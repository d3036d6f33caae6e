//! The protobuf format: messages `io.prometheus.client.MetricFamily`, each prefixed by its length,
//! the only format with native histograms. Each histogram is written both as a classic one with
//! buckets of powers of two and as a native one.
//!
//! Field numbers: <https://github.com/prometheus/client_model>, `metrics.proto`; only the fields
//! that are used here.

use prost::Message as _;

use super::families::{Families, MetricFamily, MetricKind, MetricSeries, MetricValue};
use cowherd_arena::stats::Distribution;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FamilyMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub help: String,
    /// Optional, so that the value 0, a counter, is written too.
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub metrics: Vec<MetricMessage>,
    #[prost(string, tag = "5")]
    pub unit: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetricMessage {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<LabelMessage>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<NumberMessage>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<NumberMessage>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<HistogramMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LabelMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `Gauge` and `Counter` of metrics.proto have the same field.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct NumberMessage {
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// `Histogram` of metrics.proto.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HistogramMessage {
    #[prost(uint64, optional, tag = "1")]
    pub count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub buckets: Vec<BucketMessage>,
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    pub spans: Vec<SpanMessage>,
    #[prost(sint64, repeated, tag = "13")]
    pub deltas: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct BucketMessage {
    #[prost(uint64, optional, tag = "1")]
    pub cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
}

/// `BucketSpan`: `length` buckets in use after `offset` empty ones.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct SpanMessage {
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

/// All families, each prefixed by its length.
pub(super) fn delimited(families: &Families) -> Vec<u8> {
    families.0.iter().flat_map(|family| message(family).encode_length_delimited_to_vec()).collect()
}

fn message(family: &MetricFamily) -> FamilyMessage {
    let kind = match family.kind {
        MetricKind::Counter => 0,
        MetricKind::Gauge => 1,
        MetricKind::Histogram => 4,
    };
    FamilyMessage {
        name: family.name.to_owned(),
        help: family.help.to_owned(),
        kind: Some(kind),
        metrics: family.series.iter().map(|series| metric(family.kind, series)).collect(),
        unit: family.unit().unwrap_or("").to_owned(),
    }
}

fn metric(kind: MetricKind, series: &MetricSeries) -> MetricMessage {
    let label = |(name, value): &(&str, String)| LabelMessage {
        name: (*name).to_owned(),
        value: value.clone(),
    };
    let mut metric = MetricMessage {
        labels: series.labels.iter().map(label).collect(),
        ..MetricMessage::default()
    };
    match &series.value {
        MetricValue::Durations(times) => metric.histogram = Some(durations(times)),
        MetricValue::Number(value) => {
            let number = Some(NumberMessage { value: Some(*value) });
            match kind {
                MetricKind::Counter => metric.counter = number,
                _ => metric.gauge = number,
            }
        }
    }
    metric
}

fn durations(times: &Distribution) -> HistogramMessage {
    let mut below = 0;
    let buckets = times.exported().into_iter().map(|(bound, count)| {
        below += count;
        BucketMessage { cumulative_count: Some(below), upper_bound: Some(bound) }
    });
    let buckets = buckets.collect();
    let native = times.native();
    let (spans, deltas) = spans(native.offset, &native.counts);
    HistogramMessage {
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

/// The buckets from number `offset` on as spans of buckets that are not empty, and as differences
/// between neighbours. An empty histogram has one empty span, which tells a native histogram from a
/// classic one.
fn spans(offset: i32, counts: &[u64]) -> (Vec<SpanMessage>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<SpanMessage>::new(), Vec::new());
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
            _ => spans.push(SpanMessage { offset: Some(left_out), length: Some(1) }),
        }
        (in_span, left_out) = (true, 0);
    }
    if spans.is_empty() {
        spans.push(SpanMessage { offset: Some(0), length: Some(0) });
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowherd_arena::stats::Histogram;

    fn decode(bytes: &[u8]) -> Vec<FamilyMessage> {
        let mut rest = bytes;
        let mut families = Vec::new();
        while !rest.is_empty() {
            families.push(FamilyMessage::decode_length_delimited(&mut rest).unwrap());
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
