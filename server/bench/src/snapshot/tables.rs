//! What the terminal and the report show, and the same as CSV.

use anyhow::Result;

use super::figures::{FIGURES, Figure, PHASES, Round, over_rounds};
use super::{Comparison, Measured};
use crate::report::thousands;
use crate::sheet::{self, Sheet};
use crate::stats::Summary;

/// The whole text.
pub fn all(comparison: &Comparison) -> String {
    let mut text = format!("{}\n{}\n", comparison.machine.line(), asked(comparison));
    for sheet in sheets(comparison) {
        text.push_str(&format!("\n{}", sheet.text()));
    }
    for sentence in remarks(comparison) {
        text.push_str(&format!("{sentence}\n"));
    }
    text
}

/// The same as Markdown.
pub fn markdown(comparison: &Comparison) -> String {
    let tables = sheet::markdown(&sheets(comparison));
    let remarks = remarks(comparison).join("\n\n");
    format!("{}\n\n{}\n\n{tables}{remarks}\n", comparison.machine.line(), asked(comparison))
}

/// What the load was.
fn asked(comparison: &Comparison) -> String {
    let asked = &comparison.arguments;
    format!(
        "{} keys of {} bytes, {} requests/s over {} connections, SET:GET {}, {}; medians of the \
         rounds, and below them the least and the most",
        thousands(asked.keys),
        asked.value_size,
        thousands(asked.rate),
        asked.connections,
        asked.mix,
        if asked.spawn { "servers pinned alike" } else { "servers as they are" },
    )
}

/// All tables: latency, the save, the load generator's own.
pub fn sheets(comparison: &Comparison) -> Vec<Sheet> {
    let servers = &comparison.servers;
    let measured = servers.iter().filter(|server| !server.rounds.is_empty()).collect::<Vec<_>>();
    if measured.is_empty() {
        return Vec::new();
    }
    vec![latency(&measured), save(&measured), load(&measured)]
}

fn latency(servers: &[&Measured]) -> Sheet {
    let mut rows = Vec::new();
    for server in servers {
        for (index, phase) in PHASES.into_iter().enumerate() {
            let mut row = vec![if index == 0 { title(server) } else { String::new() }];
            row.push(phase.to_owned());
            for figure in ["p50", "p99", "p99.9", "p99.99", "max", "rate"] {
                row.push(shown(server, &format!("{phase}_{figure}")));
            }
            rows.push(row);
        }
    }
    Sheet {
        title: "Latency, counted from the moment at which a request was due".to_owned(),
        head: vec!["server", "phase", "p50", "p99", "p99.9", "p99.99", "max", "answers/s"],
        rows,
    }
}

fn figures(servers: &[&Measured], title: &str, figures: &[(&'static str, &str)]) -> Sheet {
    let mut head = vec!["server"];
    head.extend(figures.iter().map(|(title, _)| *title));
    let row = |server: &&Measured| {
        let figures = figures.iter().map(|(_, name)| shown(server, name));
        std::iter::once(self::title(server)).chain(figures).collect()
    };
    Sheet { title: title.to_owned(), head, rows: servers.iter().map(row).collect() }
}

fn save(servers: &[&Measured]) -> Sheet {
    let columns = [
        ("BGSAVE's reply", "bgsave_reply"),
        ("fork", "fork"),
        ("save", "save"),
        ("more on machine", "extra_host"),
        ("more in processes", "extra_processes"),
        ("copied, it says", "reported_cow"),
        ("image", "image"),
    ];
    let title = "The save: times, and memory beyond what was in use before it; what parent and \
                 child share counts twice in processes";
    figures(servers, title, &columns)
}

fn load(servers: &[&Measured]) -> Sheet {
    let columns = [
        ("requests", "requests"),
        ("errors", "errors"),
        ("late", "late"),
        ("unanswered", "unanswered"),
        ("sent late by p99.9", "own_lag_p99.9"),
        ("max", "own_lag_max"),
    ];
    let title = "The load: requests that went wrong, and how late the load generator itself was";
    figures(servers, title, &columns)
}

/// What a reader must know beside the tables: the one figure, failures, whether the load itself was
/// late.
pub fn remarks(comparison: &Comparison) -> Vec<String> {
    let servers = &comparison.servers;
    let measured = servers.iter().filter(|server| !server.rounds.is_empty()).collect::<Vec<_>>();
    let mut said = Vec::new();
    said.extend(felt(&measured));
    said.extend(schedule(&measured));
    for server in servers {
        for (index, round) in server.rounds.iter().enumerate() {
            let failures = round.failures();
            if failures > 0 {
                said.push(format!(
                    "{}, round {}: {failures} requests failed: {:?}, {} unanswered.",
                    server.name,
                    index + 1,
                    round.errors,
                    round.unanswered
                ));
            }
        }
        let failed = server.failed.iter();
        said.extend(failed.map(|reason| format!("{}: not measured: {reason}", server.name)));
    }
    said
}

/// What clients felt, in one sentence.
fn felt(servers: &[&Measured]) -> Option<String> {
    let median = |server: &Measured, name: &str| {
        let summary = over_rounds(&server.rounds, name);
        summary.map_or_else(|| "-".to_owned(), |summary| with_unit(summary.median, "us"))
    };
    let figure = |server: &&Measured| {
        let (during, before) = (median(server, "during_p99.9"), median(server, "before_p99.9"));
        format!("{} {during} ({before})", server.name)
    };
    let figures = servers.iter().map(figure).collect::<Vec<_>>().join(", ");
    (!servers.is_empty()).then(|| {
        format!(
            "99.9 % of the requests during the save (before it) took no longer than: {figures}."
        )
    })
}

/// Whether the load generator kept to its schedule.
fn schedule(servers: &[&Measured]) -> Option<String> {
    let late = |server: &&Measured| {
        let rounds = server.rounds.iter().filter(|round| round.off_schedule().next().is_some());
        let rounds = rounds.count();
        let mut phases = server.rounds.iter().flat_map(Round::off_schedule).collect::<Vec<_>>();
        phases.sort_by_key(|phase| PHASES.iter().position(|known| known == phase));
        phases.dedup();
        (rounds > 0).then(|| {
            let of = server.rounds.len();
            format!("{} in {rounds} of {of} rounds ({} the save)", server.name, phases.join(", "))
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

/// `redis-server (redis 7.0.15)`, `cowherd thp kernel-cow (cowherd 0.1.0)`; with what Cowherd says
/// of its pages where the name does not.
pub fn title(server: &Measured) -> String {
    let Some(identity) = &server.identity else { return server.name.clone() };
    let details = &identity.details;
    let known = details.is_empty() || server.name.ends_with(&details.replace(", ", " "));
    let details = if known { String::new() } else { format!(", {details}") };
    format!("{} ({} {}{details})", server.name, identity.kind, identity.version)
}

/// A figure of a server: the median, and below it the range when there are several rounds.
fn shown(server: &Measured, name: &str) -> String {
    let figure = FIGURES.iter().find(|(known, _, _)| *known == name);
    let (Some((_, unit, _)), Some(summary)) = (figure, over_rounds(&server.rounds, name)) else {
        return "-".to_owned();
    };
    let Summary { min, median, max, count, .. } = summary;
    if count == 1 || min == max {
        return with_unit(median, unit);
    }
    format!("{}\n{}..{}", with_unit(median, unit), with_unit(min, unit), with_unit(max, unit))
}

/// Three digits that count, and a unit that people read: `35.2 ms`.
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
        _ => format!("{value:.0}"),
    }
}

/// One line a round with every figure.
///
/// # Errors
/// Never in fact: it is written to memory.
pub fn csv(comparison: &Comparison) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let unit = |(name, unit, _): &Figure| match *unit {
        "" => (*name).to_owned(),
        "/s" => format!("{name}_per_second"),
        unit => format!("{name}_{unit}"),
    };
    let heads = ["server", "version", "round"].map(str::to_owned).into_iter();
    writer.write_record(heads.chain(FIGURES.iter().map(unit)))?;
    for server in &comparison.servers {
        let version = server.identity.as_ref().map(|i| format!("{} {}", i.kind, i.version));
        for (index, round) in server.rounds.iter().enumerate() {
            let mut row = vec![
                server.name.clone(),
                version.clone().unwrap_or_default(),
                (index + 1).to_string(),
            ];
            let value =
                |(_, _, read): &Figure| read(round).map_or(String::new(), |v| v.to_string());
            row.extend(FIGURES.iter().map(value));
            writer.write_record(row)?;
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
