//! The experiment as tables: for the terminal, for the report, as CSV.

use anyhow::Result;

use super::experiment::{Cell, Experiment, PHASES};
use super::kind::{Kind, Pattern, Writer};
use super::process::Distribution;
use super::verdict::{Ratio, published, ratios};
use crate::sheet::{self, Sheet};
use crate::stats::{Interval, Summary};

/// What belongs together: one side writes one pattern.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    experiment: &'a Experiment,
    /// What is written.
    pub pattern: Pattern,
    /// Who writes.
    pub writer: Writer,
}

/// All parts, as they were measured.
pub fn parts(experiment: &Experiment) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for Cell { pattern, writer, .. } in &experiment.cells {
        let (pattern, writer) = (*pattern, *writer);
        if !parts.iter().any(|part| (part.pattern, part.writer) == (pattern, writer)) {
            parts.push(Part { experiment, pattern, writer });
        }
    }
    parts
}

/// The text of all tables.
pub fn text(experiment: &Experiment) -> String {
    let mut text = format!("{}\n", experiment.machine.line());
    for sentence in really(experiment) {
        text.push_str(&format!("{sentence}\n"));
    }
    for part in parts(experiment) {
        text.push_str(&format!("\n== {}\n", part.title()));
        for sheet in part.sheets() {
            text.push_str(&format!("\n{}", sheet.text()));
        }
    }
    text
}

/// The same as Markdown.
pub fn markdown(experiment: &Experiment) -> String {
    let part =
        |part: Part<'_>| format!("## {}\n\n{}", part.title(), sheet::markdown(&part.sheets()));
    let parts = parts(experiment).into_iter().map(part).collect::<String>();
    format!("{}\n\n{parts}", experiment.machine.line())
}

/// Which kinds did not get the pages that they are named for.
pub fn really(experiment: &Experiment) -> Vec<String> {
    let short = experiment.really.iter().filter(|(_, share)| *share < 0.995);
    let sentence = |(kind, share): &(Kind, f64)| {
        format!("Only {:.0} % of {} lay on such pages.", share * 100.0, kind.name())
    };
    short.map(sentence).collect()
}

impl Part<'_> {
    /// `Sparse writes by the child`.
    pub fn title(&self) -> String {
        let by = self.writer.name();
        match self.pattern {
            Pattern::Sparse => format!("Sparse writes by the {by}: one byte in each 2 MiB"),
            Pattern::Dense => format!("Dense writes by the {by}: one byte in each 4 KiB"),
            Pattern::None => "The fork alone: nothing is written".to_owned(),
        }
    }

    /// Its tables.
    pub fn sheets(&self) -> Vec<Sheet> {
        let mut sheets = vec![self.whole()];
        let written = self.pattern != Pattern::None;
        if written && self.kinds().contains(&Kind::Small) && self.kinds().len() > 1 {
            sheets.push(
                self.ratios("Whole process beside small: ratio of means", |ratio| ratio.whole),
            );
            sheets.push(
                self.ratios("Writes alone beside small: ratio of means", |ratio| ratio.writes),
            );
        }
        if !written {
            sheets.push(self.forks());
        }
        sheets.push(self.phases());
        if written && self.cells().any(|cell| !cell.each.is_empty()) {
            sheets.push(self.writes());
        }
        sheets
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        let wanted = (self.pattern, self.writer);
        self.experiment
            .cells
            .iter()
            .filter(move |cell| (cell.pattern, cell.writer) == wanted && !cell.runs.is_empty())
    }

    /// The kinds that were measured.
    pub fn kinds(&self) -> Vec<Kind> {
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

    fn cell(&self, kind: Kind, size: usize) -> Option<&Cell> {
        self.experiment.cell(kind, size, self.pattern, self.writer)
    }

    /// A row for each size, a column for each kind.
    fn by_size(&self, kinds: &[Kind], value: impl Fn(&Cell) -> Option<String>) -> Vec<Vec<String>> {
        let row = |size: usize| {
            let cells = kinds.iter().map(|kind| {
                let value = self.cell(*kind, size).and_then(&value);
                value.unwrap_or_else(|| "-".to_owned())
            });
            std::iter::once(format!("{size} x 2 MiB")).chain(cells).collect()
        };
        self.sizes().into_iter().map(row).collect()
    }

    /// As published: the child writes.
    fn is_published(&self) -> bool {
        self.writer == Writer::Child && self.pattern != Pattern::None
    }

    fn whole(&self) -> Sheet {
        let kinds = self.kinds();
        let mut head = vec!["memory"];
        head.extend(kinds.iter().map(|kind| kind.name()));
        let mut rows = self.by_size(&kinds, |cell| mean_and_range(&cell.whole_ms()));
        if self.is_published() {
            head.extend(["published huge", "published small"]);
            for (row, size) in rows.iter_mut().zip(self.sizes()) {
                row.extend([Kind::Huge2Mb, Kind::Small].map(|kind| {
                    let told = published(kind, size, self.pattern);
                    told.map_or_else(|| "-".to_owned(), |(mean, sd)| format!("{mean} \u{b1} {sd}"))
                }));
            }
        }
        let title =
            "Whole process in ms: mean \u{b1} standard deviation, least and most".to_owned();
        Sheet { title, head, rows }
    }

    fn forks(&self) -> Sheet {
        let kinds = self.kinds();
        let mut head = vec!["memory"];
        head.extend(kinds.iter().map(|kind| kind.name()));
        let rows = self.by_size(&kinds, |cell| mean_and_range(&cell.phase_ms(FORK)));
        let title = "fork() in ms: mean \u{b1} standard deviation, least and most".to_owned();
        Sheet { title, head, rows }
    }

    fn ratios(&self, title: &str, value: fn(&Ratio) -> Interval) -> Sheet {
        let kinds = self.kinds().into_iter().filter(|kind| *kind != Kind::Small);
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
                let told = self.cell(Kind::Huge2Mb, size).and_then(of);
                let told = told.and_then(|ratio| ratio.published);
                row.push(told.map_or_else(|| "-".to_owned(), digits));
            }
        }
        Sheet { title: format!("{title}, interval of 95 %"), head, rows }
    }

    /// The cells of the largest size of each kind.
    fn largest(&self) -> Vec<&Cell> {
        let largest =
            |kind: Kind| self.cells().filter(|cell| cell.kind == kind).max_by_key(|cell| cell.size);
        self.kinds().into_iter().filter_map(largest).collect()
    }

    fn phases(&self) -> Sheet {
        let row = |cell: &&Cell| {
            let mean = |phase| Summary::of(&cell.phase_ms(phase)).map_or(0.0, |all| all.mean);
            let phases = (0..PHASES.len()).map(|phase| format!("{:.2}", mean(phase)));
            std::iter::once(name(cell)).chain(phases).collect()
        };
        let mut head = vec!["largest memory"];
        head.extend(PHASES);
        let rows = self.largest().iter().map(row).collect();
        Sheet { title: "Phases of the process in ms: means".to_owned(), head, rows }
    }

    fn writes(&self) -> Sheet {
        let row = |cell: &&Cell| {
            let median = |value: fn(&Distribution) -> f64| {
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
        Sheet {
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

/// Some three digits that count, and no more than three behind the point.
fn digits(value: f64) -> String {
    let behind = match value {
        0.0 => 0,
        0.0..0.1 => 3,
        0.1..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.behind$}")
}

/// One line a cell with everything.
///
/// # Errors
/// Never in fact: it is written to memory.
pub fn csv(experiment: &Experiment) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let heads = ["kind", "size_mib", "pattern", "writer", "runs", "mean_ms", "sd_ms", "min_ms"];
    let more = ["median_ms", "max_ms", "published_ms", "faults"].into_iter();
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
        let told = published(cell.kind, cell.size, cell.pattern);
        row.push(told.map_or(String::new(), |(mean, _)| mean.to_string()));
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
