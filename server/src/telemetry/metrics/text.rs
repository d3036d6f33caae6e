//! From OpenMetrics to the plain Prometheus text format, version 0.0.4.
//!
//! They differ in the comments: plain text names a counter's family with its `_total`, an info's
//! with its `_info`, knows neither UNIT nor EOF, and calls the unknown `untyped`.
//!
//! ```text
//!   # HELP cowherd_cpu_seconds Processor time.      # HELP cowherd_cpu_seconds_total Processor ...
//!   # TYPE cowherd_cpu_seconds counter        -->   # TYPE cowherd_cpu_seconds_total counter
//!   # UNIT cowherd_cpu_seconds seconds
//!   cowherd_cpu_seconds_total 1.5                   cowherd_cpu_seconds_total 1.5
//!   # EOF
//! ```

/// Converts a complete exposition as prometheus-client writes it: HELP, then TYPE, then samples,
/// without exemplars.
pub(super) fn plain(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| out.push_str(part));
        out.push('\n');
    };
    // HELP waits for the TYPE that tells the family's name.
    let mut help = "";
    for text in openmetrics.lines() {
        if let Some(rest) = text.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(rest) = text.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            line(&["# HELP ", name, suffix, " ", help]);
            line(&["# TYPE ", name, suffix, " ", kind]);
        } else if !text.starts_with('#') {
            line(&[text]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_renamed_and_samples_kept() {
        let openmetrics = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n\
                           # UNIT a_seconds seconds\na_seconds_total{x=\"# y\"} 1.5\n\
                           # HELP b Built.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                           # HELP c What.\n# TYPE c unknown\nc 3\n\
                           # HELP d Level.\n# TYPE d gauge\nd -1\n# EOF\n";
        let expected = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\n\
                        a_seconds_total{x=\"# y\"} 1.5\n\
                        # HELP b_info Built.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
                        # HELP c What.\n# TYPE c untyped\nc 3\n\
                        # HELP d Level.\n# TYPE d gauge\nd -1\n";
        assert_eq!(plain(openmetrics), expected);
        assert_eq!(plain("# EOF\n"), "");
    }
}
