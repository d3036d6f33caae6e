//! Tables of the experiment for the terminal and the report, and CSV.

use anyhow::Result;

use super::conclusions::{Ratio, published, published_cpu, ratios};
use super::experiment::{Cell, Experiment, PHASES};
use super::parameters::{MemoryKind, WritePattern, Writer};
use super::process::WriteLatency;
use crate::stats::{Interval, Summary};
use crate::table::{self, Table};

/// Cells with the same pattern and the same writing process.
#[derive(Debug, Clone, Copy)]
pub struct CellGroup<'a> {
    experiment: &'a Experiment,
    /// Addresses that are written.
    pub pattern: WritePattern,
    /// Process that writes.
    pub writer: Writer,
}

/// Groups in the order of measurement.
pub fn cell_groups(experiment: &Experiment) -> Vec<CellGroup<'_>> {
    let mut groups: Vec<CellGroup<'_>> = Vec::new();
    for Cell { pattern, writer, .. } in &experiment.cells {
        let (pattern, writer) = (*pattern, *writer);
        if !groups.iter().any(|group| (group.pattern, group.writer) == (pattern, writer)) {
            groups.push(CellGroup { experiment, pattern, writer });
        }
    }
    groups
}

/// All tables as text.
pub fn text(experiment: &Experiment) -> String {
    let mut text = format!("{}\n", experiment.machine.line());
    for sentence in page_shares(experiment) {
        text.push_str(&format!("{sentence}\n"));
    }
    for group in cell_groups(experiment) {
        text.push_str(&format!("\n== {}\n", group.title()));
        for table in group.tables() {
            text.push_str(&format!("\n{}", table.text()));
        }
    }
    text
}

/// All tables as Markdown.
pub fn markdown(experiment: &Experiment) -> String {
    let section = |group: CellGroup<'_>| {
        format!("## {}\n\n{}", group.title(), table::markdown(&group.tables()))
    };
    let sections = cell_groups(experiment).into_iter().map(section).collect::<String>();
    format!("{}\n\n{sections}", experiment.machine.line())
}

/// Sentences about kinds whose mapping did not lie on their pages.
pub fn page_shares(experiment: &Experiment) -> Vec<String> {
    let short = experiment.page_share.iter().filter(|(_, share)| *share < 0.995);
    let sentence = |(kind, share): &(MemoryKind, f64)| {
        format!("Only {:.0} % of {} lay on such pages.", share * 100.0, kind.name())
    };
    short.map(sentence).collect()
}

impl CellGroup<'_> {
    /// Title of the group.
    pub fn title(&self) -> String {
        let by = self.writer.name();
        match self.pattern {
            WritePattern::Sparse => format!("Sparse writes by the {by}: one byte in each 2 MiB"),
            WritePattern::Dense => format!("Dense writes by the {by}: one byte in each 4 KiB"),
            WritePattern::None => "The fork alone: nothing is written".to_owned(),
        }
    }

    /// Tables of the group.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.whole(), self.cpu()];
        let written = self.pattern != WritePattern::None;
        if written && self.kinds().contains(&MemoryKind::Small) && self.kinds().len() > 1 {
            tables.push(
                self.ratios("Whole process beside small: ratio of means", |ratio| ratio.whole),
            );
            tables.push(
                self.ratios("Writes alone beside small: ratio of means", |ratio| ratio.writes),
            );
        }
        if !written {
            tables.push(self.forks());
        }
        tables.push(self.phases());
        if written && self.cells().any(|cell| !cell.each.is_empty()) {
            tables.push(self.writes());
        }
        tables
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        let wanted = (self.pattern, self.writer);
        self.experiment
            .cells
            .iter()
            .filter(move |cell| (cell.pattern, cell.writer) == wanted && !cell.runs.is_empty())
    }

    /// Kinds that were measured.
    pub fn kinds(&self) -> Vec<MemoryKind> {
        let mut kinds = self.cells().map(|cell| cell.kind).collect::<Vec<_>>();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes = self.cells().map(|cell| cell.size).collect::<Vec<_>>();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    fn cell(&self, kind: MemoryKind, size: usize) -> Option<&Cell> {
        self.experiment.cell(kind, size, self.pattern, self.writer)
    }

    /// Rows by size, columns by kind.
    fn by_size(
        &self,
        kinds: &[MemoryKind],
        value: impl Fn(&Cell) -> Option<String>,
    ) -> Vec<Vec<String>> {
        let row = |size: usize| {
            let cells = kinds.iter().map(|kind| {
                let value = self.cell(*kind, size).and_then(&value);
                value.unwrap_or_else(|| "-".to_owned())
            });
            std::iter::once(format!("{size} x 2 MiB")).chain(cells).collect()
        };
        self.sizes().into_iter().map(row).collect()
    }

    /// Whether the published experiment has this group.
    fn is_published(&self) -> bool {
        self.writer == Writer::Child && self.pattern != WritePattern::None
    }

    fn whole(&self) -> Table {
        let kinds = self.kinds();
        let mut head = vec!["memory"];
        head.extend(kinds.iter().map(|kind| kind.name()));
        let mut rows = self.by_size(&kinds, |cell| mean_and_range(&cell.whole_ms()));
        if self.is_published() {
            head.extend(["published huge", "published small"]);
            for (row, size) in rows.iter_mut().zip(self.sizes()) {
                row.extend([MemoryKind::Huge2Mb, MemoryKind::Small].map(|kind| {
                    let published = published(kind, size, self.pattern);
                    published
                        .map_or_else(|| "-".to_owned(), |(mean, sd)| format!("{mean} \u{b1} {sd}"))
                }));
            }
        }
        let title =
            "Whole process in ms: mean \u{b1} standard deviation, least and most".to_owned();
        Table { title, head, rows }
    }

    fn cpu(&self) -> Table {
        let kinds = self.kinds();
        let mut head = vec!["memory"];
        head.extend(kinds.iter().map(|kind| kind.name()));
        let both = |(user, system)| format!("{} / {}", digits(user), digits(system));
        let mut rows = self.by_size(&kinds, |cell| cell.cpu_ms().map(both));
        if self.is_published() {
            head.extend(["published huge", "published small"]);
            for (row, size) in rows.iter_mut().zip(self.sizes()) {
                row.extend([MemoryKind::Huge2Mb, MemoryKind::Small].map(|kind| {
                    let published = published_cpu(kind, size, self.pattern);
                    published.map_or_else(
                        || "-".to_owned(),
                        |(user, system)| format!("{user} / {system}"),
                    )
                }));
            }
        }
        let title = "User / system time of the process and its child in ms: means".to_owned();
        Table { title, head, rows }
    }

    fn forks(&self) -> Table {
        let kinds = self.kinds();
        let mut head = vec!["memory"];
        head.extend(kinds.iter().map(|kind| kind.name()));
        let rows = self.by_size(&kinds, |cell| mean_and_range(&cell.phase_ms(FORK)));
        let title = "fork() in ms: mean \u{b1} standard deviation, least and most".to_owned();
        Table { title, head, rows }
    }

    fn ratios(&self, title: &str, value: fn(&Ratio) -> Interval) -> Table {
        let kinds = self.kinds().into_iter().filter(|kind| *kind != MemoryKind::Small);
        let kinds = kinds.collect::<Vec<_>>();
        let whole = title.starts_with("Whole");
        let all = ratios(self.experiment);
        let of = |cell: &Cell| {
            all.iter().find(|ratio| {
                (ratio.kind, ratio.size, ratio.pattern, ratio.writer)
                    == (cell.kind, cell.size, cell.pattern, cell.writer)
            })
        };
        let mut head = vec!["memory"];
        head.extend(kinds.iter().map(|kind| kind.name()));
        let mut rows = self.by_size(&kinds, |cell| {
            let Interval { estimate, low, high } = value(of(cell)?);
            Some(format!("{}\n{}..{}", digits(estimate), digits(low), digits(high)))
        });
        if self.is_published() && whole {
            head.push("huge-2mb, published");
            for (row, size) in rows.iter_mut().zip(self.sizes()) {
                let ratio = self.cell(MemoryKind::Huge2Mb, size).and_then(of);
                let published = ratio.and_then(|ratio| ratio.published);
                row.push(published.map_or_else(|| "-".to_owned(), digits));
            }
        }
        Table { title: format!("{title}, interval of 95 %"), head, rows }
    }

    /// Cells of the largest size of each kind.
    fn largest(&self) -> Vec<&Cell> {
        let largest = |kind: MemoryKind| {
            self.cells().filter(|cell| cell.kind == kind).max_by_key(|cell| cell.size)
        };
        self.kinds().into_iter().filter_map(largest).collect()
    }

    fn phases(&self) -> Table {
        let row = |cell: &&Cell| {
            let mean = |phase| Summary::of(&cell.phase_ms(phase)).map_or(0.0, |all| all.mean);
            let phases = (0..PHASES.len()).map(|phase| format!("{:.2}", mean(phase)));
            std::iter::once(name(cell)).chain(phases).collect()
        };
        let mut head = vec!["largest memory"];
        head.extend(PHASES);
        let rows = self.largest().iter().map(row).collect();
        Table { title: "Phases of the process in ms: means".to_owned(), head, rows }
    }

    fn writes(&self) -> Table {
        let row = |cell: &&Cell| {
            let median = |value: fn(&WriteLatency) -> f64| {
                let values = cell.each.iter().map(value).collect::<Vec<_>>();
                let summary = Summary::of(&values);
                summary.map_or_else(|| "-".to_owned(), |summary| digits(summary.median))
            };
            vec![
                name(cell),
                cell.each.first().map_or_else(|| "-".to_owned(), |each| each.count.to_string()),
                format!("{:.0}", cell.faults()),
                median(|each| each.mean_us),
                median(|each| each.p50_us),
                median(|each| each.p99_us),
                median(|each| each.p999_us),
                median(|each| each.max_us),
            ]
        };
        Table {
            title: "Single writes after the fork in \u{b5}s: medians of the runs that time each"
                .to_owned(),
            head: vec!["largest memory", "writes", "faults", "mean", "p50", "p99", "p99.9", "max"],
            rows: self.largest().iter().map(row).collect(),
        }
    }
}

const FORK: usize = 2;

fn name(cell: &Cell) -> String {
    format!("{}, {} x 2 MiB", cell.kind.name(), cell.size)
}

fn mean_and_range(values: &[f64]) -> Option<String> {
    let Summary { mean, sd, min, max, .. } = Summary::of(values)?;
    Some(format!("{} \u{b1} {}\n{}..{}", digits(mean), digits(sd), digits(min), digits(max)))
}

/// Formats about three significant digits, with at most three decimal places.
fn digits(value: f64) -> String {
    let decimals = match value {
        0.0 => 0,
        0.0..0.1 => 3,
        0.1..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// CSV with one line per cell.
///
/// # Errors
/// Returns the error of the CSV writer, which cannot fail on a vector.
pub fn csv(experiment: &Experiment) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let heads = ["kind", "size_mib", "pattern", "writer", "runs", "mean_ms", "sd_ms", "min_ms"];
    let more = ["median_ms", "max_ms", "published_ms", "user_ms", "system_ms"].into_iter();
    let more = more.chain(["published_user_ms", "published_system_ms", "faults"]);
    let phases = PHASES.iter().map(|phase| format!("{}_ms", phase.replace(' ', "_")));
    let each = ["mean", "p50", "p99", "p999", "max"].map(|name| format!("write_{name}_us"));
    let heads = heads.into_iter().chain(more).map(str::to_owned);
    writer.write_record(heads.chain(phases).chain(each))?;
    for cell in &experiment.cells {
        let Some(summary) = Summary::of(&cell.whole_ms()) else { continue };
        let mut row = vec![
            cell.kind.name().to_owned(),
            (cell.size * 2).to_string(),
            cell.pattern.name().to_owned(),
            cell.writer.name().to_owned(),
            summary.count.to_string(),
        ];
        let Summary { mean, sd, min, median, max, .. } = summary;
        row.extend([mean, sd, min, median, max].map(|value| value.to_string()));
        let published = published(cell.kind, cell.size, cell.pattern);
        row.push(published.map_or(String::new(), |(mean, _)| mean.to_string()));
        let cpu = [cell.cpu_ms(), published_cpu(cell.kind, cell.size, cell.pattern)];
        row.extend(cpu.into_iter().flat_map(|cpu| match cpu {
            Some((user, system)) => [user.to_string(), system.to_string()],
            None => [String::new(), String::new()],
        }));
        row.push(cell.faults().to_string());
        let mean = |phase| Summary::of(&cell.phase_ms(phase)).map_or(0.0, |summary| summary.mean);
        row.extend((0..PHASES.len()).map(|phase| mean(phase).to_string()));
        let last = cell.each.last();
        let figures = last.map(|each| {
            [each.mean_us, each.p50_us, each.p99_us, each.p999_us, each.max_us]
                .map(|value| value.to_string())
        });
        row.extend(figures.unwrap_or_default());
        writer.write_record(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
