//! The formats of `/metrics` and their choice by the `Accept` header.

/// A format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpositionFormat {
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Plain,
    /// Protocol buffers of Prometheus, the only format with native histograms.
    Protobuf,
}

impl ExpositionFormat {
    /// The format's content type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }

    /// The format that the `Accept` header prefers; plain text without a preference.
    pub(super) fn accepted(header: &str) -> Self {
        let ranges = header.split(',').filter_map(|range| {
            let (format, preference) = parse_range(range)?;
            (preference > 0).then_some((preference, format))
        });
        // Among equal preferences the richest format wins.
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

/// Reads one range of an `Accept` header: the format, if the server has it, and the quality in
/// thousandths.
fn parse_range(range: &str) -> Option<(ExpositionFormat, u16)> {
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
        () if is("text/plain") => ExpositionFormat::Plain,
        () if is("application/openmetrics-text") => ExpositionFormat::OpenMetrics,
        () if is("application/vnd.google.protobuf")
            && parameter("proto") == Some("io.prometheus.client.MetricFamily")
            && parameter("encoding").is_none_or(|encoding| encoding == "delimited") =>
        {
            ExpositionFormat::Protobuf
        }
        () => return None,
    };
    Some((format, parameter("q").map_or(1000, thousandths)))
}

/// A quality such as `0.75` in thousandths; 0 if it cannot be read.
fn thousandths(quality: &str) -> u16 {
    let (whole, fraction) = quality.split_once('.').unwrap_or((quality, ""));
    match (whole, fraction) {
        ("1", _) => 1000,
        ("0", digits) if digits.len() <= 3 => format!("{digits:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_selects_the_format() {
        let open = "application/openmetrics-text";
        for (header, expected) in [
            ("", ExpositionFormat::Plain),
            ("*/*", ExpositionFormat::Plain),
            ("text/plain;version=0.0.4", ExpositionFormat::Plain),
            (open, ExpositionFormat::OpenMetrics),
            (
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ExpositionFormat::OpenMetrics,
            ),
            ("Application/OpenMetrics-Text;Q=0.5, text/plain;q=0.2", ExpositionFormat::OpenMetrics),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.75", ExpositionFormat::Plain),
            ("application/openmetrics-text;q=0", ExpositionFormat::Plain),
            ("application/openmetrics-text;q=0.000,*/*", ExpositionFormat::Plain),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                ExpositionFormat::OpenMetrics,
            ),
            // What Prometheus sends when it takes native histograms.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                ExpositionFormat::Protobuf,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=text",
                ExpositionFormat::Plain,
            ),
            ("application/vnd.google.protobuf", ExpositionFormat::Plain),
        ] {
            assert_eq!(ExpositionFormat::accepted(header), expected, "{header}");
        }
        assert_eq!(
            ["1", "1.000", "0.7", "0.05", "0", "2", "x", ""].map(thousandths),
            [1000, 1000, 700, 50, 0, 0, 0, 0]
        );
    }
}
