//! All runs of all cells, in turns: what varies with the hour hits every cell alike.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Arguments;
use super::kind::{Kind, Pattern, UNIT, Writer};
use super::process::{Distribution, Told, Writes, now};
use crate::machine::Machine;
use crate::settings;
use crate::stats::Summary;
use crate::undo::{self, Step, Undo};

/// Names of the phases, in their order.
pub const PHASES: [&str; 6] = ["start", "populate", "fork", "hand over", "writes", "exit"];

/// So often a run is tried anew whose child did not inherit every page.
const TRIES: usize = 100;

/// Everything that was found out.
#[derive(Debug, Clone, Serialize)]
pub struct Experiment {
    /// What it ran on.
    pub machine: Machine,
    /// One for each combination, ordered by writer, pattern, size and kind.
    pub cells: Vec<Cell>,
    /// For each kind: which share of the memory lay on its pages.
    pub really: Vec<(Kind, f64)>,
    /// What could not be measured, and what would change that.
    pub left_out: Vec<String>,
}

/// One combination.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// How memory was mapped.
    pub kind: Kind,
    /// How much, in units of 2 MiB.
    pub size: usize,
    /// What was written after the fork.
    pub pattern: Pattern,
    /// Who wrote.
    pub writer: Writer,
    /// Its runs.
    pub runs: Vec<Run>,
    /// Runs that were left out because the child did not inherit every page.
    pub forks_with_missing_pages: u64,
    /// Why runs failed.
    pub failed: Vec<String>,
    /// Single writes, of extra runs that timed each; one entry a run.
    pub each: Vec<Distribution>,
}

/// One run. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// From before the process was started until it was gone.
    pub whole_ms: f64,
    /// The phases of [`PHASES`]; they add up to the whole.
    pub phases_ms: [f64; 6],
    /// Minor page faults of the writer while it wrote.
    pub faults: u64,
}

impl Cell {
    /// Notes how a run went. The first run of a cell only warms up.
    fn take(&mut self, outcome: Result<(Run, Told)>, counts: bool) {
        match outcome {
            Err(error) => self.failed.push(format!("{error:#}")),
            Ok((_, Told { writes: Writes { each: Some(distribution), .. }, .. })) => {
                self.each.push(distribution);
            }
            Ok((run, _)) if counts => self.runs.push(run),
            Ok(_) => {}
        }
    }

    /// The whole times of all runs.
    pub fn whole_ms(&self) -> Vec<f64> {
        self.runs.iter().map(|run| run.whole_ms).collect()
    }

    /// The times of one phase in all runs.
    pub fn phase_ms(&self, phase: usize) -> Vec<f64> {
        self.runs.iter().map(|run| run.phases_ms[phase]).collect()
    }

    /// The middle of the runs' faults.
    pub fn faults(&self) -> f64 {
        let faults = self.runs.iter().map(|run| run.faults as f64).collect::<Vec<_>>();
        Summary::of(&faults).map_or(0.0, |summary| summary.median)
    }
}

impl Experiment {
    /// A cell, if it was measured.
    pub fn cell(&self, kind: Kind, size: usize, pattern: Pattern, writer: Writer) -> Option<&Cell> {
        let wanted = |cell: &&Cell| {
            (cell.kind, cell.size, cell.pattern, cell.writer) == (kind, size, pattern, writer)
                && !cell.runs.is_empty()
        };
        self.cells.iter().find(wanted)
    }
}

/// Measures everything that was asked for and can be had.
///
/// # Errors
/// When a run fails in a way that makes the rest worthless.
pub fn measure(arguments: &Arguments) -> Result<Experiment> {
    undo::at_signals()?;
    let machine = Machine::read();
    let mut left_out = Vec::new();
    let (kinds, _pools) = available(arguments, &mut left_out)?;
    ensure!(!kinds.is_empty(), "nothing can be measured: {}", left_out.join("; "));
    let mut cells = cells(arguments, &kinds);
    let runs = usize::from(arguments.runs);
    let rounds = runs + usize::from(arguments.fault_runs) + 1;
    let progress = ProgressBar::new((rounds * cells.len() + kinds.len()) as u64);
    let style = "{elapsed_precise} [{bar:24}] {pos}/{len} {msg}";
    progress.set_style(ProgressStyle::with_template(style)?);
    let mut really = Vec::new();
    for (kind, _) in kinds {
        let size = arguments.sizes.iter().copied().filter(|size| kind.fits(*size)).min();
        let size = size.context("a kind without a size")?;
        match run(kind, size, Pattern::None, Writer::Parent, Some("--look")) {
            Ok((_, told)) => {
                let bytes = told.really_bytes.unwrap_or(0) as f64;
                really.push((kind, bytes / (size * UNIT) as f64));
            }
            Err(error) => left_out.push(format!("{error:#}")),
        }
        progress.inc(1);
    }
    for round in 0..rounds {
        for cell in &mut cells {
            progress.set_message(format!("{} {}", cell.kind.name(), cell.pattern.name()));
            let each = round > runs;
            if !each || cell.pattern != Pattern::None {
                let outcome = whole_run(cell, each.then_some("--each"));
                cell.take(outcome, round > 0);
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    ensure!(
        cells.iter().any(|cell| !cell.runs.is_empty()),
        "no run succeeded: {}",
        cells.iter().flat_map(|cell| &cell.failed).next().map_or("", String::as_str)
    );
    left_out.extend(cells.iter().filter_map(failures));
    Ok(Experiment { machine, cells, really, left_out })
}

/// What to say of a cell in which runs failed.
fn failures(cell: &Cell) -> Option<String> {
    let why = cell.failed.first()?;
    let Cell { kind, size, pattern, writer, failed, .. } = cell;
    let (kind, pattern, writer) = (kind.name(), pattern.name(), writer.name());
    let count = failed.len();
    Some(format!("{count} runs of {kind}, {size} x 2 MiB, {pattern}, {writer}: {why}"))
}

/// A kind that can be had, up to a size.
type Available = (Kind, usize);

/// The kinds that can be had, and the changes that make it so.
fn available(
    arguments: &Arguments,
    left_out: &mut Vec<String>,
) -> Result<(Vec<Available>, Vec<Undo>)> {
    let (mut kinds, mut changes) = (Vec::new(), Vec::new());
    let written = arguments.patterns.iter().any(|pattern| *pattern != Pattern::None);
    for kind in arguments.kinds.iter().copied() {
        let sizes = arguments.sizes.iter().copied().filter(|size| kind.fits(*size));
        let Some(most) = sizes.clone().max() else {
            left_out.push(format!("{}: only for whole GiB, so for sizes like 512", kind.name()));
            continue;
        };
        if let Some(why) = kind.refused(arguments.set_mthp) {
            left_out.push(format!("{}: {why}", kind.name()));
            continue;
        }
        let Some((pool, need)) = kind.pool_pages(most, written) else {
            kinds.push((kind, most));
            continue;
        };
        if arguments.set_pool {
            // Whatever is dropped first must be the newest.
            changes.insert(0, pool.ensure_free(need)?);
        }
        let (all, free) = pool.pages();
        let needs = |size| kind.pool_pages(size, written).map_or(0, |(_, need)| need);
        let fitting = sizes.filter(|size| needs(*size) <= free).max();
        kinds.extend(fitting.map(|size| (kind, size)));
        if fitting != Some(most) {
            let beyond = fitting.map_or(String::new(), |size| format!(" beyond {size}"));
            left_out.push(format!(
                "{}{beyond}: it needs {need} free pages in the pool and there are {free}; {}: {}",
                kind.name(),
                if arguments.set_pool { "the kernel found no more" } else { "as root" },
                pool.command(all + need - free)
            ));
        }
    }
    Ok((kinds, changes))
}

fn cells(arguments: &Arguments, kinds: &[Available]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for writer in &arguments.writers {
        for pattern in &arguments.patterns {
            for size in &arguments.sizes {
                let fits = |(kind, most): &&Available| kind.fits(*size) && size <= most;
                for (kind, _) in kinds.iter().filter(fits) {
                    cells.push(Cell {
                        kind: *kind,
                        size: *size,
                        pattern: *pattern,
                        writer: *writer,
                        runs: Vec::new(),
                        forks_with_missing_pages: 0,
                        failed: Vec::new(),
                        each: Vec::new(),
                    });
                }
            }
        }
    }
    cells
}

/// One run whose child inherited everything.
fn whole_run(cell: &mut Cell, option: Option<&str>) -> Result<(Run, Told)> {
    for _ in 0..TRIES {
        let (run, told) = run(cell.kind, cell.size, cell.pattern, cell.writer, option)?;
        if told.writes.missing == 0 {
            return Ok((run, told));
        }
        cell.forks_with_missing_pages += 1;
    }
    bail!("{}: no child of {TRIES} had inherited every page", cell.kind.name())
}

/// One process from its start to its end.
fn run(
    kind: Kind,
    size: usize,
    pattern: Pattern,
    writer: Writer,
    option: Option<&str>,
) -> Result<(Run, Told)> {
    let _pages = if kind == Kind::Mthp { Some(settings::only_64kb_pages()?) } else { None };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["pages-process", "--kind", kind.name(), "--size", &size.to_string()]);
    command.args(["--pattern", pattern.name(), "--writer", writer.name()]).args(option);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = now()?;
    let mut undo = Undo::begin();
    let process = undo.start(Step::Process, || {
        let process = command.spawn().context("cannot start a process of the experiment")?;
        let id = process.id();
        Ok((process, id))
    })?;
    let output = process.wait_with_output()?;
    let end = now()?;
    undo.processes_ended();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} of {size} x 2 MiB: {} {}", kind.name(), output.status, said.trim());
    }
    let told: Told = serde_json::from_slice(&output.stdout).context("a run told nothing")?;
    let borders =
        [begin, told.up, told.populated, told.forked, told.writes.begin, told.writes.end, end];
    let mut phases_ms = [0.0; 6];
    for (phase, pair) in phases_ms.iter_mut().zip(borders.windows(2)) {
        // Below zero where a child begins to write before the fork has returned in the parent.
        *phase = (pair[1] as f64 - pair[0] as f64) / 1e6;
    }
    let whole_ms = (end - begin) as f64 / 1e6;
    Ok((Run { whole_ms, phases_ms, faults: told.writes.faults }, told))
}
