//! Families of metrics, independent of the format of the reply.

use cowherd_arena::stats::Distribution;

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Counts durations.
    Histogram,
}

impl MetricKind {
    /// The name in the text formats.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One family: a name with one series per combination of labels.
#[derive(Debug)]
pub(super) struct MetricFamily {
    /// The full name, a counter's `_total` included.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricKind,
    pub series: Vec<MetricSeries>,
}

impl MetricFamily {
    /// The name without a counter's `_total`.
    pub(super) fn stem(&self) -> &'static str {
        match self.kind {
            MetricKind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        }
    }

    /// The unit that the name ends in.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let stem = self.stem();
        let has_unit = |unit: &str| stem.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
        ["seconds", "bytes", "ratio"].into_iter().find(|unit| has_unit(unit))
    }
}

/// One series of a family.
#[derive(Debug)]
pub(super) struct MetricSeries {
    pub labels: Vec<(&'static str, String)>,
    pub value: MetricValue,
}

/// The value of a series.
#[derive(Debug)]
pub(super) enum MetricValue {
    Number(f64),
    Durations(Box<Distribution>),
}

/// A Rust value that a series can have.
pub(super) trait IntoMetricValue {
    fn value(self) -> MetricValue;
}

impl IntoMetricValue for u64 {
    fn value(self) -> MetricValue {
        MetricValue::Number(self as f64)
    }
}

impl IntoMetricValue for f64 {
    fn value(self) -> MetricValue {
        MetricValue::Number(self)
    }
}

impl IntoMetricValue for Distribution {
    fn value(self) -> MetricValue {
        MetricValue::Durations(Box::new(self))
    }
}

/// The labels and the value of a series.
pub(super) type Labelled<'a, const N: usize, F> = ([(&'static str, &'a str); N], F);

/// The families of one scrape, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Families(pub Vec<MetricFamily>);

impl Families {
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        value: impl IntoMetricValue,
    ) {
        self.gauges(name, help, [([], value)]);
    }

    pub(super) fn gauges<'a, const N: usize, F: IntoMetricValue>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = Labelled<'a, N, F>>,
    ) {
        self.add(name, help, MetricKind::Gauge, series);
    }

    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        value: impl IntoMetricValue,
    ) {
        self.counters(name, help, [([], value)]);
    }

    pub(super) fn counters<'a, const N: usize, F: IntoMetricValue>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = Labelled<'a, N, F>>,
    ) {
        self.add(name, help, MetricKind::Counter, series);
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        times: &Distribution,
    ) {
        self.histograms(name, help, [([], times.clone())]);
    }

    pub(super) fn histograms<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = Labelled<'a, N, Distribution>>,
    ) {
        self.add(name, help, MetricKind::Histogram, series);
    }

    /// Adds a family if it has any series.
    fn add<'a, const N: usize, F: IntoMetricValue>(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricKind,
        series: impl IntoIterator<Item = Labelled<'a, N, F>>,
    ) {
        let series = series.into_iter().map(|(labels, figure)| MetricSeries {
            labels: labels.map(|(label, value)| (label, value.to_owned())).to_vec(),
            value: figure.value(),
        });
        let series: Vec<MetricSeries> = series.collect();
        if !series.is_empty() {
            self.0.push(MetricFamily { name, help, kind, series });
        }
    }
}
