//! HTML report: latency over time with the checkpoint shaded, percentile curves, memory over time.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::memory::MemorySample;
use super::results::{PHASES, Round, TimelineSlice};
use super::tables::{self, title};
use super::{Comparison, ServerResult};
use crate::charts::{Axis, Chart, Scale, Series, microseconds, svg};
use crate::report::{HtmlPage, thousands};

/// Writes `snapshot.html` and one SVG file per chart.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write(comparison: &Comparison, folder: &Path) -> Result<()> {
    let servers: Vec<(&ServerResult, &Round)> = comparison
        .servers
        .iter()
        .filter_map(|server| Some((server, typical(&server.rounds)?)))
        .collect();
    let arguments = &comparison.arguments;
    let mut page = HtmlPage::new("Latency of a server during a checkpoint", &comparison.machine);
    page.section(
        "The test",
        &format!(
            "{} keys of {} bytes. {} requests per second are due, SET:GET {}, over {} connections, \
             regardless of the server's replies. Latency counts from the due time of a request, so \
             a stall shows in every request that was due meanwhile. The load sends BGSAVE, and \
             goes on for {} s after its end. \
             Tables show medians of {} rounds, and below them minimum and maximum; each plot shows \
             the round with the median p99.9 during the checkpoint.",
            thousands(arguments.keys),
            arguments.value_size,
            thousands(arguments.rate),
            arguments.mix,
            arguments.connections,
            arguments.after.as_secs_f64(),
            arguments.rounds
        ),
    );
    page.list(&tables::remarks(comparison));
    let write_chart = |page: &mut HtmlPage, name: String, chart: &Chart| -> Result<()> {
        let drawn = svg(chart)?;
        let path = folder.join(name);
        fs::write(&path, &drawn).with_context(|| format!("cannot write {}", path.display()))?;
        page.svg(&drawn);
        Ok(())
    };
    if servers.is_empty() {
        page.section("Nothing was measured", "The messages on the terminal say why.");
    } else {
        page.section(
            "Latency over time",
            "Each point covers the requests that were due in 50 ms. The checkpoint is shaded.",
        );
        write_chart(&mut page, "latency-all.svg".to_owned(), &p99_of_all(&servers))?;
        for (index, (server, round)) in servers.iter().enumerate() {
            let chart = over_time(server, round, &servers);
            write_chart(&mut page, format!("latency-{index}.svg"), &chart)?;
        }
        page.section(
            "Percentile curves",
            "The latency that only the given share of requests exceeds, in each phase.",
        );
        for (index, (server, round)) in servers.iter().enumerate() {
            write_chart(
                &mut page,
                format!("percentiles-{index}.svg"),
                &percentile_curves(server, round, &servers),
            )?;
        }
        page.section(
            "Memory over time",
            "Increase over the use just before the checkpoint, with hugetlb pages: of the whole \
             machine, without the page cache; then of the server and its child, where shared pages \
             count twice.",
        );
        let host =
            memory_over_time(&servers, "Extra memory of the machine", |sample| sample.host_bytes);
        write_chart(&mut page, "memory.svg".to_owned(), &host)?;
        let tree = "Extra memory of the server's processes";
        let tree = memory_over_time(&servers, tree, |sample| sample.processes_bytes);
        write_chart(&mut page, "memory-processes.svg".to_owned(), &tree)?;
        page.section("Figures", "");
        for table in tables::tables(comparison) {
            page.table(&table);
        }
    }
    let path = folder.join("snapshot.html");
    fs::write(&path, page.finish()).with_context(|| format!("cannot write {}", path.display()))
}

/// Round with the median p99.9 during the checkpoint.
fn typical(rounds: &[Round]) -> Option<&Round> {
    let mut sorted = rounds.iter().collect::<Vec<_>>();
    sorted.sort_by(|a, b| a.phases[1].p999_us.total_cmp(&b.phases[1].p999_us));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn latency_axis(servers: &[(&ServerResult, &Round)]) -> Axis {
    let slices = || servers.iter().flat_map(|(_, round)| &round.timeline);
    let most = slices().map(|slice| slice.max_us).fold(1000.0, f64::max);
    let least = slices().map(|slice| slice.p50_us).fold(100.0, f64::min).max(1.0);
    let range = 10_f64.powf(least.log10().floor())..10_f64.powf(most.log10().ceil());
    Axis { label: "latency".to_owned(), scale: Scale::Log, range, format: microseconds }
}

fn time_axis(servers: &[(&ServerResult, &Round)]) -> Axis {
    let times = || servers.iter().flat_map(|(_, round)| &round.timeline).map(|slice| slice.at);
    let range = times().fold(0.0, f64::min).max(-5.0)..times().fold(1.0, f64::max);
    Axis {
        label: "seconds since BGSAVE".to_owned(),
        scale: Scale::Linear,
        range,
        format: |value| format!("{value}"),
    }
}

fn line(
    name: &str,
    color: usize,
    slices: &[TimelineSlice],
    within: &Range<f64>,
    value: fn(&TimelineSlice) -> f64,
) -> Series {
    let seen = slices.iter().filter(|slice| within.contains(&slice.at));
    let points = seen.map(|slice| (slice.at, value(slice))).collect();
    Series { name: name.to_owned(), color, dots: false, points }
}

/// Latency of one server over time: median, p99, p99.9 and maximum.
fn over_time(server: &ServerResult, round: &Round, all: &[(&ServerResult, &Round)]) -> Chart {
    let (x, y) = (time_axis(all), latency_axis(all));
    let slices = &round.timeline;
    let mut max = line("max", 1, slices, &x.range, |slice| slice.max_us);
    max.dots = true;
    let series = vec![
        max,
        line("p50", 7, slices, &x.range, |slice| slice.p50_us),
        line("p99", 2, slices, &x.range, |slice| slice.p99_us),
        line("p99.9", 0, slices, &x.range, |slice| slice.p999_us),
    ];
    let shaded = Some(0.0..round.save_seconds);
    Chart { title: title(server), x, y, shaded, strips: Vec::new(), series }
}

/// 99th percentile of all servers over time.
fn p99_of_all(all: &[(&ServerResult, &Round)]) -> Chart {
    let (x, y) = (time_axis(all), latency_axis(all));
    let series = all.iter().enumerate().map(|(index, (server, round))| {
        line(&server.name, index, &round.timeline, &x.range, |slice| slice.p99_us)
    });
    let series = series.collect();
    let strips = all.iter().enumerate().map(|(index, (_, round))| (index, 0.0..round.save_seconds));
    let title =
        "p99 of each server, BGSAVE at 0; the strips at the bottom are the checkpoints".to_owned();
    Chart { title, x, y, shaded: None, strips: strips.collect(), series }
}

/// Percentile curves of one server, one per phase.
fn percentile_curves(
    server: &ServerResult,
    round: &Round,
    all: &[(&ServerResult, &Round)],
) -> Chart {
    let series = PHASES.iter().zip(&round.phases).zip([7, 0, 2]).map(|((name, phase), color)| {
        let points = phase.curve.iter().map(|(share, us)| (1.0 / share, *us)).collect();
        Series { name: (*name).to_owned(), color, dots: false, points }
    });
    let x = Axis {
        label: "one request in ...".to_owned(),
        scale: Scale::Log,
        range: 1.0..1e6,
        format: |value| format!("{value:.0}"),
    };
    let series = series.collect();
    Chart {
        title: title(server),
        x,
        y: latency_axis(all),
        shaded: None,
        strips: Vec::new(),
        series,
    }
}

/// Increase of memory use over time, one line per server.
fn memory_over_time(
    all: &[(&ServerResult, &Round)],
    title: &str,
    bytes: fn(&MemorySample) -> u64,
) -> Chart {
    const MIB: f64 = 1_048_576.0;
    let x = time_axis(all);
    let series: Vec<Series> =
        all.iter()
            .enumerate()
            .map(|(index, (server, round))| {
                let before = round.memory.iter().rfind(|sample| sample.at_us < 0);
                let before = before.map_or(0.0, |sample| bytes(sample) as f64);
                let points = round.memory.iter().map(|sample| {
                    (sample.at_us as f64 / 1e6, (bytes(sample) as f64 - before) / MIB)
                });
                let points = points.filter(|(at, _)| x.range.contains(at)).collect();
                Series { name: server.name.clone(), color: index, dots: false, points }
            })
            .collect();
    let values = || series.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
    let range = values().fold(0.0, f64::min)..values().fold(64.0, f64::max) * 1.05;
    let format = |value: f64| format!("{value} MiB");
    let y = Axis { label: "extra memory".to_owned(), scale: Scale::Linear, range, format };
    Chart { title: title.to_owned(), x, y, shaded: None, strips: Vec::new(), series }
}
