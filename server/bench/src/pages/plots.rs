//! HTML report of the experiment: conclusions, charts by size, tables.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::PagesArguments;
use super::conclusions::{published, sentences};
use super::experiment::Experiment;
use super::parameters::{MemoryKind, WritePattern, Writer};
use super::tables::{self, CellGroup};
use crate::charts::{Axis, Chart, Scale, Series, svg};
use crate::report::HtmlPage;
use crate::stats::Summary;

const FORK: usize = 2;
const WRITES: usize = 4;

/// Writes `pages.html` and one SVG file per chart.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write(experiment: &Experiment, arguments: &PagesArguments, folder: &Path) -> Result<()> {
    let mut page =
        HtmlPage::new("What copy-on-write costs on each kind of page", &experiment.machine);
    page.section("Conclusions", "");
    page.list(&sentences(experiment));
    page.section(
        "The experiment",
        &format!(
            "A process maps memory, writes every byte once, forks, and lets one side write while \
             the other holds still. The whole process is timed, {} runs of each cell, all cells in \
             turns; so are its phases, and in {} further runs every single write. Ratios to small \
             pages have percentile bootstrap intervals. Published figures are those of \"There's a \
             CoW holding up my HugePages\", on another machine: compare ratios.",
            arguments.runs, arguments.fault_runs
        ),
    );
    page.list(&[tables::page_shares(experiment), experiment.left_out.clone()].concat());
    for group in tables::cell_groups(experiment) {
        page.section(&group.title(), "");
        let charts: &[_] = match group.pattern {
            WritePattern::None => &[("fork", Some(FORK))],
            _ => &[("writes", Some(WRITES)), ("whole", None)],
        };
        for (what, phase) in charts {
            let drawn = svg(&by_size(experiment, &group, *phase))?;
            let name = format!("{what}-{}-{}.svg", group.pattern.name(), group.writer.name());
            let path = folder.join(name);
            fs::write(&path, &drawn).with_context(|| format!("cannot write {}", path.display()))?;
            page.svg(&drawn);
        }
        for table in group.tables() {
            page.table(&table);
        }
    }
    let path = folder.join("pages.html");
    fs::write(&path, page.finish()).with_context(|| format!("cannot write {}", path.display()))
}

/// Chart of the mean duration by size, one line per kind: of one phase, or of the whole process.
fn by_size(experiment: &Experiment, group: &CellGroup<'_>, phase: Option<usize>) -> Chart {
    let (pattern, writer, kinds) = (group.pattern, group.writer, group.kinds());
    let mut series = Vec::new();
    for (color, kind) in kinds.iter().enumerate() {
        let cells = experiment
            .cells
            .iter()
            .filter(|cell| (cell.kind, cell.pattern, cell.writer) == (*kind, pattern, writer));
        let point = |cell: &super::experiment::Cell| {
            let values = phase.map_or_else(|| cell.whole_ms(), |phase| cell.phase_ms(phase));
            Some(((cell.size * 2) as f64, Summary::of(&values)?.mean))
        };
        let points = cells.filter_map(point).collect();
        series.push(Series { name: kind.name().to_owned(), color, dots: false, points });
    }
    if phase.is_none() && writer == Writer::Child && pattern != WritePattern::None {
        for (kind, name) in
            [(MemoryKind::Huge2Mb, "huge-2mb, published"), (MemoryKind::Small, "small, published")]
        {
            let color = kinds.iter().position(|known| *known == kind).unwrap_or(7);
            let points = [1, 128, 256, 512]
                .into_iter()
                .filter_map(|size| Some(((size * 2) as f64, published(kind, size, pattern)?.0)));
            let points = points.collect();
            series.push(Series { name: name.to_owned(), color, dots: true, points });
        }
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let least = points().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(10.0, f64::min);
    let most = points().map(|(_, y)| *y).fold(10.0, f64::max);
    let widest = points().map(|(x, _)| *x).fold(2.0, f64::max);
    let what = match phase {
        None => "Whole process",
        Some(FORK) => "fork()",
        Some(_) => "Writes after the fork",
    };
    Chart {
        title: format!("{what}, by size of memory"),
        x: Axis {
            label: "memory".to_owned(),
            scale: Scale::Linear,
            range: 0.0..widest * 1.02,
            format: |value| format!("{value} MiB"),
        },
        y: Axis {
            label: "time".to_owned(),
            scale: Scale::Log,
            range: 10_f64.powf(least.log10().floor())..10_f64.powf(most.log10().ceil()),
            format: |value| format!("{value} ms"),
        },
        shaded: None,
        strips: Vec::new(),
        series,
    }
}
