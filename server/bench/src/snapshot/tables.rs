//! Tables and remarks for the terminal and the report, and CSV.

use anyhow::Result;

use super::results::{PHASES, ROUND_METRICS, Round, RoundMetric, summarize};
use super::{Comparison, ServerResult};
use crate::report::thousands;
use crate::stats::Summary;
use crate::table::{self, Table};

/// All tables and remarks as text.
pub fn text(comparison: &Comparison) -> String {
    let mut text = format!("{}\n{}\n", comparison.machine.line(), describe_load(comparison));
    for table in tables(comparison) {
        text.push_str(&format!("\n{}", table.text()));
    }
    for sentence in remarks(comparison) {
        text.push_str(&format!("{sentence}\n"));
    }
    text
}

/// All tables and remarks as Markdown.
pub fn markdown(comparison: &Comparison) -> String {
    let tables = table::markdown(&tables(comparison));
    let remarks = remarks(comparison).join("\n\n");
    format!("{}\n\n{}\n\n{tables}{remarks}\n", comparison.machine.line(), describe_load(comparison))
}

/// Sentence about the parameters of the load.
fn describe_load(comparison: &Comparison) -> String {
    let arguments = &comparison.arguments;
    format!(
        "{} keys of {} bytes, {} requests/s over {} connections, SET:GET {}, {}; {} s after the \
         checkpoint; medians of the rounds, and below them the least and the most",
        thousands(arguments.keys),
        arguments.value_size,
        thousands(arguments.rate),
        arguments.connections,
        arguments.mix,
        if arguments.spawn { "servers pinned alike" } else { "servers as they are" },
        arguments.after.as_secs_f64(),
    )
}

/// Tables of the latency, of the checkpoint, and of the load generator.
pub fn tables(comparison: &Comparison) -> Vec<Table> {
    let servers = &comparison.servers;
    let measured = servers.iter().filter(|server| !server.rounds.is_empty()).collect::<Vec<_>>();
    if measured.is_empty() {
        return Vec::new();
    }
    vec![latency(&measured), aftermath(&measured), checkpoint(&measured), load(&measured)]
}

fn latency(servers: &[&ServerResult]) -> Table {
    let mut rows = Vec::new();
    for server in servers {
        for (index, phase) in PHASES.into_iter().enumerate() {
            let mut row = vec![if index == 0 { title(server) } else { String::new() }];
            row.push(phase.to_owned());
            for metric in ["p50", "p99", "p99.9", "p99.99", "max", "rate"] {
                row.push(metric_cell(server, &format!("{phase}_{metric}")));
            }
            rows.push(row);
        }
    }
    Table {
        title: "Latency, counted from the due time of a request".to_owned(),
        head: vec!["server", "phase", "p50", "p99", "p99.9", "p99.99", "max", "answers/s"],
        rows,
    }
}

/// How the phase after the checkpoint compares with the one before it.
fn aftermath(servers: &[&ServerResult]) -> Table {
    let columns = [
        ("before, p99", "before_p99"),
        ("after, p99", "after_p99"),
        ("after / before", "after_to_before_p99"),
        ("before, p99.9", "before_p99.9"),
        ("after, p99.9", "after_p99.9"),
        ("after / before", "after_to_before_p99.9"),
    ];
    metrics_table(servers, "After the checkpoint beside before it; ratios of each round", &columns)
}

fn metrics_table(
    servers: &[&ServerResult],
    title: &str,
    metrics: &[(&'static str, &str)],
) -> Table {
    let mut head = vec!["server"];
    head.extend(metrics.iter().map(|(title, _)| *title));
    let row = |server: &&ServerResult| {
        let cells = metrics.iter().map(|(_, name)| metric_cell(server, name));
        std::iter::once(self::title(server)).chain(cells).collect()
    };
    Table { title: title.to_owned(), head, rows: servers.iter().map(row).collect() }
}

fn checkpoint(servers: &[&ServerResult]) -> Table {
    let columns = [
        ("BGSAVE's reply", "bgsave_reply"),
        ("fork", "fork"),
        ("checkpoint", "save"),
        ("more on machine", "extra_host"),
        ("more in processes", "extra_processes"),
        ("copied, reported", "reported_cow"),
        ("image", "image"),
    ];
    let title = "The checkpoint: times, and memory beyond the use before it; pages shared by \
                 parent and child count twice in processes";
    metrics_table(servers, title, &columns)
}

fn load(servers: &[&ServerResult]) -> Table {
    let columns = [
        ("requests", "requests"),
        ("errors", "errors"),
        ("late", "late"),
        ("unanswered", "unanswered"),
        ("sent late by p99.9", "own_lag_p99.9"),
        ("max", "own_lag_max"),
    ];
    let title = "The load: requests that went wrong, and how late the load generator itself was";
    metrics_table(servers, title, &columns)
}

/// Remarks beside the tables: the main result, failures, delays of the load generator.
pub fn remarks(comparison: &Comparison) -> Vec<String> {
    let servers = &comparison.servers;
    let measured = servers.iter().filter(|server| !server.rounds.is_empty()).collect::<Vec<_>>();
    let mut remarks = Vec::new();
    remarks.extend(main_result(&measured));
    remarks.extend(generator_delays(&measured));
    for server in servers {
        for (index, round) in server.rounds.iter().enumerate() {
            let failures = round.failures();
            if failures > 0 {
                remarks.push(format!(
                    "{}, round {}: {failures} requests failed: {:?}, {} unanswered.",
                    server.name,
                    index + 1,
                    round.errors,
                    round.unanswered
                ));
            }
        }
        let failed = server.failed.iter();
        remarks.extend(failed.map(|reason| format!("{}: not measured: {reason}", server.name)));
    }
    remarks
}

/// Latency during the checkpoint in one sentence.
fn main_result(servers: &[&ServerResult]) -> Option<String> {
    let median = |server: &ServerResult, name: &str| {
        let summary = summarize(&server.rounds, name);
        summary.map_or_else(|| "-".to_owned(), |summary| with_unit(summary.median, "us"))
    };
    let figure = |server: &&ServerResult| {
        let at = |phase: &str| median(server, &format!("{phase}_p99.9"));
        format!("{} {} ({}, {})", server.name, at("during"), at("before"), at("after"))
    };
    let figures = servers.iter().map(figure).collect::<Vec<_>>().join(", ");
    (!servers.is_empty()).then(|| {
        format!(
            "99.9 % of the requests during the checkpoint (before it, after it) took no longer \
             than: {figures}."
        )
    })
}

/// Sentence about rounds in which the load generator did not keep its schedule.
fn generator_delays(servers: &[&ServerResult]) -> Option<String> {
    let late = |server: &&ServerResult| {
        let rounds = server.rounds.iter().filter(|round| round.off_schedule().next().is_some());
        let rounds = rounds.count();
        let mut phases = server.rounds.iter().flat_map(Round::off_schedule).collect::<Vec<_>>();
        phases.sort_by_key(|phase| PHASES.iter().position(|known| known == phase));
        phases.dedup();
        (rounds > 0).then(|| {
            let of = server.rounds.len();
            format!(
                "{} in {rounds} of {of} rounds ({} the checkpoint)",
                server.name,
                phases.join(", ")
            )
        })
    };
    let late = servers.iter().filter_map(late).collect::<Vec<_>>();
    if servers.is_empty() {
        None
    } else if late.is_empty() {
        Some("The load generator kept to its schedule in every round.".to_owned())
    } else {
        Some(format!(
            "The load generator was late itself: {}. Its own lateness was more than a quarter of \
             the p99.9 there, which includes it: give it a processor of its own, or a lower rate.",
            late.join("; ")
        ))
    }
}

/// Title of a server: `redis-server (redis 7.0.15)`, `cowherd thp kernel-cow (cowherd 0.1.0)`; with
/// Cowherd's page kind and isolation unless the name contains them.
pub fn title(server: &ServerResult) -> String {
    let Some(identity) = &server.identity else { return server.name.clone() };
    let details = &identity.details;
    let known = details.is_empty() || server.name.ends_with(&details.replace(", ", " "));
    let details = if known { String::new() } else { format!(", {details}") };
    format!("{} ({} {}{details})", server.name, identity.kind, identity.version)
}

/// Cell with a metric of a server: the median, and on a second line the range over several rounds.
fn metric_cell(server: &ServerResult, name: &str) -> String {
    let metric = ROUND_METRICS.iter().find(|(known, _, _)| *known == name);
    let (Some((_, unit, _)), Some(summary)) = (metric, summarize(&server.rounds, name)) else {
        return "-".to_owned();
    };
    let Summary { min, median, max, count, .. } = summary;
    if count == 1 || min == max {
        return with_unit(median, unit);
    }
    format!("{}\n{}..{}", with_unit(median, unit), with_unit(min, unit), with_unit(max, unit))
}

/// Formats three significant digits with a scaled unit: `35.2 ms`.
fn with_unit(value: f64, unit: &str) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (size, name) = steps.iter().rfind(|(size, _)| value >= *size).unwrap_or(&steps[0]);
        let value = value / size;
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        format!("{value:.digits$} {name}")
    };
    match unit {
        "us" => scaled(&[(1.0, "\u{b5}s"), (1e3, "ms"), (1e6, "s")]),
        "bytes" => {
            scaled(&[(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB"), (1_073_741_824.0, "GiB")])
        }
        "s" => format!("{value:.2} s"),
        "x" => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// CSV with one line per round and one column per metric.
///
/// # Errors
/// Returns the error of the CSV writer, which cannot fail on a vector.
pub fn csv(comparison: &Comparison) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let unit = |(name, unit, _): &RoundMetric| match *unit {
        "" => (*name).to_owned(),
        "x" => (*name).to_owned(),
        "/s" => format!("{name}_per_second"),
        unit => format!("{name}_{unit}"),
    };
    let heads = ["server", "version", "round"].map(str::to_owned).into_iter();
    writer.write_record(heads.chain(ROUND_METRICS.iter().map(unit)))?;
    for server in &comparison.servers {
        let version = server.identity.as_ref().map(|i| format!("{} {}", i.kind, i.version));
        for (index, round) in server.rounds.iter().enumerate() {
            let mut row = vec![
                server.name.clone(),
                version.clone().unwrap_or_default(),
                (index + 1).to_string(),
            ];
            let value =
                |(_, _, read): &RoundMetric| read(round).map_or(String::new(), |v| v.to_string());
            row.extend(ROUND_METRICS.iter().map(value));
            writer.write_record(row)?;
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
