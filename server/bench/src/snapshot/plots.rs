//! The report: latency over time with the save shaded, percentile curves, memory over time.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::figures::{PHASES, Round, Slice};
use super::memory::Memory;
use super::tables::{self, title};
use super::{Comparison, Measured};
use crate::charts::{Axis, Chart, Scale, Series, microseconds, svg};
use crate::report::{Page, thousands};

/// Writes `snapshot.html`, and each chart as an SVG of its own.
///
/// # Errors
/// When a file cannot be written.
pub fn write(comparison: &Comparison, folder: &Path) -> Result<()> {
    let servers: Vec<(&Measured, &Round)> = comparison
        .servers
        .iter()
        .filter_map(|server| Some((server, typical(&server.rounds)?)))
        .collect();
    let asked = &comparison.arguments;
    let mut page = Page::new("What clients feel while a server saves", &comparison.machine);
    page.section(
        "The test",
        &format!(
            "{} keys of {} bytes. {} requests a second fall due, SET:GET {}, over {} connections, \
             whatever the server does; each latency counts from the moment at which its request \
             was due, so a stall counts for every request that it held up. Midway, BGSAVE. Tables \
             show medians of the rounds ({}), and below them the least and the most; each plot \
             shows the round with the median p99.9 during the save.",
            thousands(asked.keys),
            asked.value_size,
            thousands(asked.rate),
            asked.mix,
            asked.connections,
            asked.rounds
        ),
    );
    page.list(&tables::remarks(comparison));
    let save = |page: &mut Page, name: String, chart: &Chart| -> Result<()> {
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
            "Each point covers the requests that fell due in 50 ms. The shade is the save.",
        );
        save(&mut page, "latency-all.svg".to_owned(), &together(&servers))?;
        for (index, (server, round)) in servers.iter().enumerate() {
            let chart = over_time(server, round, &servers);
            save(&mut page, format!("latency-{index}.svg"), &chart)?;
        }
        page.section(
            "How rare is how slow",
            "The latency that only the given share of requests exceeds, in each phase.",
        );
        for (index, (server, round)) in servers.iter().enumerate() {
            save(&mut page, format!("percentiles-{index}.svg"), &curves(server, round, &servers))?;
        }
        page.section(
            "Memory over time",
            "Beyond what was in use right before the save, hugetlb pools included. Of the whole \
             machine, without the page cache; then of the server and its child, where pages that \
             both have count twice.",
        );
        let host = memory(&servers, "Extra memory of the machine", |moment| moment.host_bytes);
        save(&mut page, "memory.svg".to_owned(), &host)?;
        let tree = "Extra memory of the server's processes";
        let tree = memory(&servers, tree, |moment| moment.processes_bytes);
        save(&mut page, "memory-processes.svg".to_owned(), &tree)?;
        page.section("Figures", "");
        for sheet in tables::sheets(comparison) {
            page.sheet(&sheet);
        }
    }
    let path = folder.join("snapshot.html");
    fs::write(&path, page.finish()).with_context(|| format!("cannot write {}", path.display()))
}

/// The round with the median p99.9 during the save.
fn typical(rounds: &[Round]) -> Option<&Round> {
    let mut sorted = rounds.iter().collect::<Vec<_>>();
    sorted.sort_by(|a, b| a.phases[1].p999_us.total_cmp(&b.phases[1].p999_us));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn latency_axis(servers: &[(&Measured, &Round)]) -> Axis {
    let slices = || servers.iter().flat_map(|(_, round)| &round.timeline);
    let most = slices().map(|slice| slice.max_us).fold(1000.0, f64::max);
    let least = slices().map(|slice| slice.p50_us).fold(100.0, f64::min).max(1.0);
    let range = 10_f64.powf(least.log10().floor())..10_f64.powf(most.log10().ceil());
    Axis { label: "latency".to_owned(), scale: Scale::Log, range, format: microseconds }
}

fn time_axis(servers: &[(&Measured, &Round)]) -> Axis {
    let times = || servers.iter().flat_map(|(_, round)| &round.timeline).map(|slice| slice.at);
    let longest = servers.iter().map(|(_, round)| round.save_seconds).fold(0.0, f64::max);
    let range =
        times().fold(0.0, f64::min).max(-3.0)..times().fold(1.0, f64::max).min(longest + 3.0);
    Axis {
        label: "seconds since BGSAVE".to_owned(),
        scale: Scale::Linear,
        range,
        format: |value| format!("{value}"),
    }
}

fn line(
    name: &str,
    ink: usize,
    slices: &[Slice],
    within: &Range<f64>,
    value: fn(&Slice) -> f64,
) -> Series {
    let seen = slices.iter().filter(|slice| within.contains(&slice.at));
    let points = seen.map(|slice| (slice.at, value(slice))).collect();
    Series { name: name.to_owned(), ink, dots: false, points }
}

/// One server: median, p99.9 and the slowest.
fn over_time(server: &Measured, round: &Round, all: &[(&Measured, &Round)]) -> Chart {
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

/// All servers: the 99th percentile of each.
fn together(all: &[(&Measured, &Round)]) -> Chart {
    let (x, y) = (time_axis(all), latency_axis(all));
    let series = all.iter().enumerate().map(|(index, (server, round))| {
        line(&server.name, index, &round.timeline, &x.range, |slice| slice.p99_us)
    });
    let series = series.collect();
    let saves = all.iter().enumerate().map(|(index, (_, round))| (index, 0.0..round.save_seconds));
    let title = "p99 of each server, BGSAVE at 0; the strips at the foot are the saves".to_owned();
    Chart { title, x, y, shaded: None, strips: saves.collect(), series }
}

fn curves(server: &Measured, round: &Round, all: &[(&Measured, &Round)]) -> Chart {
    let series = PHASES.iter().zip(&round.phases).zip([7, 0, 2]).map(|((name, phase), ink)| {
        let points = phase.curve.iter().map(|(share, us)| (1.0 / share, *us)).collect();
        Series { name: (*name).to_owned(), ink, dots: false, points }
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

fn memory(all: &[(&Measured, &Round)], title: &str, bytes: fn(&Memory) -> u64) -> Chart {
    const MIB: f64 = 1_048_576.0;
    let x = time_axis(all);
    let series: Vec<Series> =
        all.iter()
            .enumerate()
            .map(|(index, (server, round))| {
                let before = round.memory.iter().rfind(|moment| moment.at_us < 0);
                let before = before.map_or(0.0, |moment| bytes(moment) as f64);
                let points = round.memory.iter().map(|moment| {
                    (moment.at_us as f64 / 1e6, (bytes(moment) as f64 - before) / MIB)
                });
                let points = points.filter(|(at, _)| x.range.contains(at)).collect();
                Series { name: server.name.clone(), ink: index, dots: false, points }
            })
            .collect();
    let values = || series.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
    let range = values().fold(0.0, f64::min)..values().fold(64.0, f64::max) * 1.05;
    let format = |value: f64| format!("{value} MiB");
    let y = Axis { label: "extra memory".to_owned(), scale: Scale::Linear, range, format };
    Chart { title: title.to_owned(), x, y, shaded: None, strips: Vec::new(), series }
}
