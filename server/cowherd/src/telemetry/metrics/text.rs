//! The two text formats, OpenMetrics 1.0.0 and Prometheus 0.0.4, which differ in the comment lines
//! and in the end mark.
//!
//! ```text
//!   # HELP cowherd_cpu_seconds Processor time       # HELP cowherd_cpu_seconds_total Processor ...
//!   # TYPE cowherd_cpu_seconds counter              # TYPE cowherd_cpu_seconds_total counter
//!   # UNIT cowherd_cpu_seconds seconds
//!   cowherd_cpu_seconds_total{mode="user"} 1.5      cowherd_cpu_seconds_total{mode="user"} 1.5
//!   # EOF
//! ```

use std::fmt::Write as _;

use super::families::{Families, MetricFamily, MetricSeries, MetricValue};
use cowherd_arena::stats::Distribution;

/// OpenMetrics 1.0.0.
pub(super) fn openmetrics(families: &Families) -> String {
    let mut text = TextWriter::default();
    for family in &families.0 {
        text.head(family, family.stem());
        if let Some(unit) = family.unit() {
            text.parts(&["# UNIT ", family.stem(), " ", unit, "\n"]);
        }
        text.samples(family);
    }
    text.parts(&["# EOF\n"]);
    text.0
}

/// Prometheus 0.0.4.
pub(super) fn plain(families: &Families) -> String {
    let mut text = TextWriter::default();
    for family in &families.0 {
        text.head(family, family.name);
        text.samples(family);
    }
    text.0
}

#[derive(Default)]
struct TextWriter(String);

impl TextWriter {
    fn parts(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.0.push_str(part));
    }

    fn head(&mut self, family: &MetricFamily, name: &str) {
        self.parts(&["# HELP ", name, " "]);
        self.escaped(family.help);
        self.parts(&["\n# TYPE ", name, " ", family.kind.name(), "\n"]);
    }

    fn samples(&mut self, family: &MetricFamily) {
        for series in &family.series {
            match &series.value {
                MetricValue::Number(value) => self.sample(family.name, "", series, None, *value),
                MetricValue::Durations(times) => self.durations(family.name, series, times),
            }
        }
    }

    fn durations(&mut self, name: &str, series: &MetricSeries, times: &Distribution) {
        let mut below = 0;
        for (bound, count) in times.exported() {
            below += count;
            self.sample(name, "_bucket", series, Some(bound), below as f64);
        }
        self.sample(name, "_sum", series, None, times.sum_nanos() as f64 / 1e9);
        self.sample(name, "_count", series, None, below as f64);
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        series: &MetricSeries,
        le: Option<f64>,
        value: f64,
    ) {
        self.parts(&[name, suffix]);
        let mut separator = "{";
        for (label, value) in &series.labels {
            self.parts(&[separator, label, "=\""]);
            self.escaped(value);
            self.parts(&["\""]);
            separator = ",";
        }
        if let Some(bound) = le {
            self.parts(&[separator, "le=\"", &bound_name(bound), "\""]);
            separator = ",";
        }
        self.parts(&[if separator == "{" { " " } else { "} " }]);
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{value}");
    }

    /// Writes a label value or help text with its escapes.
    fn escaped(&mut self, text: &str) {
        for char in text.chars() {
            match char {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }
}

/// A bucket's bound as Prometheus writes a bound read from protobuf, so that a series has the same
/// labels in all formats: the shortest digits, an exponent of two digits below 0.0001, and `.0`
/// after whole numbers.
fn bound_name(bound: f64) -> String {
    if bound == f64::INFINITY {
        return "+Inf".to_owned();
    }
    if bound >= 1e-4 {
        return format!("{bound:?}");
    }
    let short = format!("{bound:e}");
    match short.split_once("e-") {
        Some((digits, exponent)) if exponent.len() == 1 => format!("{digits}e-0{exponent}"),
        _ => short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowherd_arena::stats::Histogram;

    fn sample() -> Families {
        let mut families = Families::default();
        families.counters("a_seconds_total", "Time", [([("x", "a\"\\\n")], 1.5)]);
        families.gauge("b", "Back\\slash", 3);
        families.gauges::<1, u64>("none", "No series", []);
        families
    }

    impl crate::telemetry::metrics::families::IntoMetricValue for i32 {
        fn value(self) -> MetricValue {
            MetricValue::Number(f64::from(self))
        }
    }

    #[test]
    fn openmetrics_names_units_and_ends() {
        let expected = "# HELP a_seconds Time\n# TYPE a_seconds counter\n\
                        # UNIT a_seconds seconds\na_seconds_total{x=\"a\\\"\\\\\\n\"} 1.5\n\
                        # HELP b Back\\\\slash\n# TYPE b gauge\nb 3\n# EOF\n";
        assert_eq!(openmetrics(&sample()), expected);
        assert_eq!(openmetrics(&Families::default()), "# EOF\n");
    }

    #[test]
    fn plain_text_names_counters_in_full() {
        let expected = "# HELP a_seconds_total Time\n# TYPE a_seconds_total counter\n\
                        a_seconds_total{x=\"a\\\"\\\\\\n\"} 1.5\n\
                        # HELP b Back\\\\slash\n# TYPE b gauge\nb 3\n";
        assert_eq!(plain(&sample()), expected);
    }

    #[test]
    fn buckets_are_cumulative() {
        let times = Histogram::default();
        let all = [2_000, 2_100, 1_000_000_000, 90_000_000_000];
        all.iter().for_each(|nanos| times.record(*nanos));
        let mut families = Families::default();
        families.histogram("t_seconds", "Time", &times.distribution());
        let text = plain(&families);
        let count = |line: &str| text.lines().filter(|found| *found == line).count();
        assert_eq!(count("t_seconds_bucket{le=\"1.0\"} 3"), 1, "{text}");
        assert_eq!(count("t_seconds_bucket{le=\"+Inf\"} 4"), 1, "{text}");
        assert_eq!(count("t_seconds_count 4"), 1, "{text}");
        assert_eq!(count("t_seconds_sum 91.0000041"), 1, "{text}");
    }

    #[test]
    fn bounds_are_named_as_prometheus_names_them() {
        for (bound, name) in [
            (9.5367431640625e-07, "9.5367431640625e-07"),
            (0.0001220703125, "0.0001220703125"),
            (1e-12, "1e-12"),
            (0.5, "0.5"),
            (4.0, "4.0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(bound_name(bound), name);
        }
    }
}
