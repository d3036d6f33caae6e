//! LATENCY: latency spikes by event, histograms by command, and advice.

use crate::telemetry::{LatencyEvent, LatencyEventHistory, LatencySample, advice};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::memory;
use super::table::{Command, CommandFlags, CommandGroup, CommandRow};

const ALWAYS: CommandFlags = CommandFlags::ADMIN
    .with(CommandFlags::NOSCRIPT)
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::Server;

const FROM_ALL_NODES: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

pub(super) const COMMANDS: &[Command] = &[Command::container("latency")
    .doc(GROUP, "2.8.13", "Shows what held clients up.")
    .subcommands(&[
        Command::new("doctor", 2, ALWAYS, doctor)
            .doc(GROUP, "2.8.13", "Says what to do about latency.")
            .hints(FROM_ALL_NODES),
        Command::new("graph", 3, ALWAYS, graph)
            .doc(GROUP, "2.8.13", "Draws an event's samples.")
            .syntax("event")
            .hints(FROM_ALL_NODES),
        Command::new("histogram", -2, ALWAYS, histogram)
            .doc(GROUP, "7.0.0", "Returns the latencies of commands.")
            .syntax("[command...]")
            .hints(FROM_ALL_NODES),
        Command::new("history", 3, ALWAYS, history)
            .doc(GROUP, "2.8.13", "Returns an event's samples.")
            .syntax("event")
            .hints(FROM_ALL_NODES),
        Command::new("latest", 2, ALWAYS, latest)
            .doc(GROUP, "2.8.13", "Returns the last sample of each event.")
            .hints(FROM_ALL_NODES),
        Command::new("reset", -2, ALWAYS, reset)
            .doc(GROUP, "2.8.13", "Forgets samples.")
            .syntax("[event...]")
            .hints(&["request_policy:all_nodes", "response_policy:agg_sum"]),
        Command::new("help", 2, CommandFlags::LOADING.with(CommandFlags::STALE), help).doc(
            GROUP,
            "2.8.13",
            "Lists the subcommands.",
        ),
    ])];

fn latest(call: &mut Call<'_>) -> CommandResult {
    let events = call.shared.telemetry.latency_events();
    call.reply.array(events.len());
    for event in &events {
        let latest = event.latest();
        call.reply.array(4);
        call.reply.bulk_str(event.event.name());
        call.reply.integer(latest.at_s);
        call.reply.integer(latest.ms.cast_signed());
        call.reply.integer(event.max_ms.cast_signed());
    }
    Ok(())
}

/// The samples of the event that argument 2 names.
fn samples(call: &Call<'_>) -> Option<LatencyEventHistory> {
    let event = LatencyEvent::named(call.args.at(2))?;
    call.shared.telemetry.latency_events().into_iter().find(|history| history.event == event)
}

fn history(call: &mut Call<'_>) -> CommandResult {
    let samples = samples(call).map(|history| history.samples).unwrap_or_default();
    call.reply.array(samples.len());
    for sample in samples {
        call.reply.array(2);
        call.reply.integer(sample.at_s);
        call.reply.integer(sample.ms.cast_signed());
    }
    Ok(())
}

fn reset(call: &mut Call<'_>) -> CommandResult {
    let telemetry = &call.shared.telemetry;
    let named = (2..call.args.len()).filter_map(|i| LatencyEvent::named(call.args.at(i)));
    let count = match call.args.len() {
        2 => LatencyEvent::ALL
            .into_iter()
            .filter(|event| telemetry.reset_latency_event(*event))
            .count(),
        _ => named.filter(|event| telemetry.reset_latency_event(*event)).count(),
    };
    call.reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn graph(call: &mut Call<'_>) -> CommandResult {
    let Some(history) = samples(call) else {
        let event = call.args.at(2);
        return Err(ErrorReply::quoting(&[b"ERR No samples available for event '", event, b"'"]));
    };
    let graph = plot(&history, call.now.div_euclid(1000));
    call.reply.verbatim(b"txt", graph.as_bytes());
    Ok(())
}

/// The size of a graph in characters.
const COLUMNS: usize = 80;
const ROWS: u64 = 6;

/// Plots the newest samples as bars, with the age of each written downwards below.
fn plot(history: &LatencyEventHistory, now_s: i64) -> String {
    let samples = &history.samples[history.samples.len().saturating_sub(COLUMNS)..];
    let times = || samples.iter().map(|sample| sample.ms);
    let (most, least) = (times().max().unwrap_or(0), times().min().unwrap_or(0));
    let name = history.event.name();
    let mut graph = format!(
        "{name} - high {most} ms, low {least} ms (all time high {} ms)\n{}\n",
        history.max_ms,
        "-".repeat(COLUMNS)
    );
    for row in (1..=ROWS).rev() {
        // A row has two steps; a dot is half a row.
        let bar = |ms: u64| match (ms * ROWS * 2).div_ceil(most.max(1)) {
            height if height >= row * 2 => '|',
            height if height + 1 == row * 2 => '.',
            _ => ' ',
        };
        graph.push_str(times().map(bar).collect::<String>().trim_end());
        graph.push('\n');
    }
    let ages: Vec<String> = samples.iter().map(|sample| age(sample, now_s)).collect();
    for line in 0..ages.iter().map(String::len).max().unwrap_or(0) {
        let letter = |age: &String| age.as_bytes().get(line).map_or(' ', |byte| char::from(*byte));
        graph.push_str(ages.iter().map(letter).collect::<String>().trim_end());
        graph.push('\n');
    }
    graph
}

/// The age of a sample in its largest unit.
fn age(sample: &LatencySample, now_s: i64) -> String {
    match (now_s - sample.at_s).max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The upper bounds of Redis's buckets in nanoseconds: powers of two from 1024 ns to 1.07 s, each
/// with the 127 lower ones that Redis's histogram does not tell apart. The last bucket also has all
/// that took longer.
fn bounds() -> impl Iterator<Item = u64> {
    (10..=30).map(|power| (1 << power) + (1 << (power - 7)) - 1)
}

/// Replies the buckets that add something, as cumulative counts by upper bound in microseconds.
/// Durations up to a 64th above a bound count as below, because the borders that durations are
/// recorded by lie so near to it.
fn histogram(call: &mut Call<'_>) -> CommandResult {
    let rows = requested_rows(call);
    let telemetry = &call.shared.telemetry;
    let used = rows.iter().filter_map(|row| {
        let (totals, latency) = telemetry.command_since_reset(row.number);
        (totals.calls > 0).then_some((row, totals.calls, latency.unwrap_or_default()))
    });
    let used: Vec<_> = used.collect();
    call.reply.map(used.len());
    for (row, calls, latency) in used {
        let (total, mut below) = (latency.count(), 0);
        let mut buckets = Vec::new();
        for bound in bounds() {
            let count = match bound >> 30 {
                0 => latency.count_up_to(bound + bound / 64),
                _ => total,
            };
            if count > std::mem::replace(&mut below, count) {
                buckets.push((bound / 1000, count));
            }
        }
        call.reply.bulk_str(&row.name);
        call.reply.map(2);
        call.reply.bulk_str("calls");
        call.reply.integer(calls.cast_signed());
        call.reply.bulk_str("histogram_usec");
        call.reply.map(buckets.len());
        for (bound, below) in buckets {
            call.reply.integer(bound.cast_signed());
            call.reply.integer(below.cast_signed());
        }
    }
    Ok(())
}

/// The commands in the arguments with their subcommands; all commands without arguments.
fn requested_rows<'a>(call: &Call<'a>) -> Vec<&'a CommandRow> {
    let rows = call.shared.table.rows();
    if call.args.len() == 2 {
        return rows.iter().collect();
    }
    let named = (2..call.args.len())
        .filter_map(|i| call.shared.table.by_full_name(&call.text(i).to_lowercase()));
    named
        .flat_map(|row| {
            std::iter::once(row).chain(row.subcommands.iter().map(|number| &rows[*number]))
        })
        .collect()
}

fn doctor(call: &mut Call<'_>) -> CommandResult {
    let text = memory::diagnosis(call, "latency", advice::on_latency);
    call.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "DOCTOR",
        "    Says what could be better about latency, and which setting changes it.",
        "GRAPH <event>",
        "    Draws an event's samples.",
        "HISTOGRAM [<command> ...]",
        "    Returns the latencies of commands, cumulated by microseconds.",
        "HISTORY <event>",
        "    Returns an event's samples: Unix time and milliseconds.",
        "LATEST",
        "    Returns of each event the last sample and the longest.",
        "RESET [<event> ...]",
        "    Forgets the samples of these events, or of all.",
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::TestServer;
    use super::*;

    fn server() -> TestServer {
        let server = TestServer::new();
        assert_eq!(server.run("CONFIG SET latency-monitor-threshold 5"), "+OK\r\n");
        server.shared.telemetry.latency_event(LatencyEvent::Fork, Duration::from_millis(30));
        let recorder = server.shared.telemetry.recorder(0).unwrap();
        recorder.latency_event(LatencyEvent::CowFault, 1000, Duration::from_millis(7));
        recorder.latency_event(LatencyEvent::CowFault, 2000, Duration::from_millis(4));
        recorder.latency_event(LatencyEvent::CowFault, 3000, Duration::from_millis(6));
        server
    }

    #[test]
    fn events_are_listed_and_reset() {
        let server = server();
        let latest = server.run("LATENCY LATEST");
        assert!(latest.starts_with("*2\r\n*4\r\n$4\r\nfork\r\n:"), "{latest}");
        assert!(latest.ends_with("$9\r\ncow-fault\r\n:3\r\n:6\r\n:7\r\n"), "{latest}");
        assert_eq!(
            server.run("LATENCY HISTORY cow-fault"),
            "*2\r\n*2\r\n:1\r\n:7\r\n*2\r\n:3\r\n:6\r\n"
        );
        assert_eq!(server.run("LATENCY HISTORY command"), "*0\r\n");
        assert_eq!(server.run("LATENCY HISTORY nonsense"), "*0\r\n");
        assert_eq!(server.run("LATENCY RESET cow-fault command nonsense"), ":1\r\n");
        assert_eq!(server.run("LATENCY HISTORY cow-fault"), "*0\r\n");
        assert_eq!(server.run("LATENCY RESET"), ":1\r\n");
        assert_eq!(server.run("LATENCY LATEST"), "*0\r\n");
    }

    #[test]
    fn graph_plots_samples() {
        let server = server();
        server.now.set(5000);
        let graph = server.run("LATENCY GRAPH cow-fault");
        let head = "cow-fault - high 7 ms, low 6 ms (all time high 7 ms)\n";
        assert!(graph.contains(head), "{graph}");
        assert!(graph.contains("--\n|.\n||\n||\n||\n||\n||\n42\nss\n"), "{graph}");
        assert_eq!(
            server.run("LATENCY GRAPH command"),
            "-ERR No samples available for event 'command'\r\n"
        );
        let ages = [0, 59, 60, 7199, 90_000]
            .map(|ago| age(&LatencySample { at_s: 100_000 - ago, ms: 1 }, 100_000));
        assert_eq!(ages, ["0s", "59s", "1m", "1h", "1d"]);
    }

    #[test]
    fn histograms_are_cumulative_in_microseconds() {
        let server = TestServer::new();
        let recorder = server.shared.telemetry.recorder(0).unwrap();
        let number = |name: &str| server.shared.table.by_full_name(name).unwrap().number;
        for nanos in [900, 1_800, 1_850, 30_000] {
            recorder.command(number("get"), nanos, false);
        }
        recorder.command(number("config|get"), 900, false);
        // The bounds themselves, and one that is above all of them.
        for nanos in bounds().chain([u64::MAX >> 20]) {
            recorder.command(number("ping"), nanos, false);
        }
        let ping = server.run("LATENCY HISTOGRAM ping");
        let micros = ["1", "2", "4", "8", "16", "33", "66", "132", "264", "528", "1056", "2113"];
        for (i, bound) in micros.into_iter().enumerate() {
            assert!(ping.contains(&format!(":{bound}\r\n:{}\r\n", i + 1)), "{bound}: {ping}");
        }
        assert!(ping.ends_with(":541065\r\n:20\r\n:1082130\r\n:22\r\n"), "{ping}");
        let get = "$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:4\r\n$14\r\nhistogram_usec\r\n\
                   *6\r\n:1\r\n:1\r\n:2\r\n:3\r\n:33\r\n:4\r\n";
        assert_eq!(server.run("LATENCY HISTOGRAM get set nonsense"), format!("*2\r\n{get}"));
        assert!(server.run("LATENCY HISTOGRAM config").starts_with("*2\r\n$10\r\nconfig|get\r\n"));
        assert!(server.run("LATENCY HISTOGRAM").starts_with("*6\r\n"));
        server.run("CONFIG RESETSTAT");
        assert_eq!(server.run("LATENCY HISTOGRAM get"), "*0\r\n");
    }

    #[test]
    fn doctor_reports_spikes() {
        let healthy = TestServer::new();
        assert!(healthy.run("LATENCY DOCTOR").contains("The latency monitor is off"));
        let server = server();
        assert!(server.run("LATENCY DOCTOR").contains("fork: 1 seconds with spikes, 30 ms"));
        assert!(server.run("LATENCY HELP").contains("GRAPH <event>"));
    }
}
