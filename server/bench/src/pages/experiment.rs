//! Execution of the experiment: all runs of all cells. Cells take turns, so that slow changes of
//! the machine affect all of them alike.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde::Serialize;

use super::PagesArguments;
use super::parameters::{MemoryKind, UNIT, WritePattern, Writer};
use super::process::{RunReport, WriteLatency, WriteReport, now};
use crate::cleanup::{self, Cleanup, CleanupStep};
use crate::machine::Machine;
use crate::settings;
use crate::stats::Summary;

/// Names of the phases, in order.
pub const PHASES: [&str; 6] = ["start", "populate", "fork", "hand over", "writes", "exit"];

/// Maximum number of attempts at a run, which fails if the child did not inherit every page.
const TRIES: usize = 100;

/// Results of all cells.
#[derive(Debug, Clone, Serialize)]
pub struct Experiment {
    /// Machine under test.
    pub machine: Machine,
    /// One cell per combination, ordered by writer, pattern, size and kind.
    pub cells: Vec<Cell>,
    /// Share of a mapping that lay on pages of its kind, from 0 to 1, for each kind.
    pub page_share: Vec<(MemoryKind, f64)>,
    /// Cells that could not be measured: reason and remedy.
    pub left_out: Vec<String>,
}

/// Results of one combination of parameters.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Kind of the mapping.
    pub kind: MemoryKind,
    /// Size in units of 2 MiB.
    pub size: usize,
    /// Addresses that were written after the fork.
    pub pattern: WritePattern,
    /// Process that wrote.
    pub writer: Writer,
    /// Runs without a timer per write.
    pub runs: Vec<Run>,
    /// Number of discarded runs whose child did not inherit every page.
    pub forks_with_missing_pages: u64,
    /// Errors of failed runs.
    pub failed: Vec<String>,
    /// Latency of single writes, one entry per run that timed each write.
    pub each: Vec<WriteLatency>,
}

/// Durations of one run in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Lifetime of the process, from before its start until it was waited for.
    pub whole_ms: f64,
    /// Durations of the phases of [`PHASES`], which add up to the lifetime.
    pub phases_ms: [f64; 6],
    /// Minor page faults of the writing process during the writes.
    pub faults: u64,
    /// Processor time of the process and its child in user mode.
    pub user_ms: f64,
    /// The same in the kernel, which copies pages.
    pub system_ms: f64,
}

impl Cell {
    /// Records the outcome of a run, unless the run only warms up.
    fn record(&mut self, outcome: Result<(Run, RunReport)>, warm_up: bool) {
        match outcome {
            Err(error) => self.failed.push(format!("{error:#}")),
            Ok((_, RunReport { writes: WriteReport { each: Some(distribution), .. }, .. })) => {
                self.each.push(distribution);
            }
            Ok((run, _)) if !warm_up => self.runs.push(run),
            Ok(_) => {}
        }
    }

    /// Lifetimes of all runs in milliseconds.
    pub fn whole_ms(&self) -> Vec<f64> {
        self.runs.iter().map(|run| run.whole_ms).collect()
    }

    /// Durations of one phase in all runs, in milliseconds.
    pub fn phase_ms(&self, phase: usize) -> Vec<f64> {
        self.runs.iter().map(|run| run.phases_ms[phase]).collect()
    }

    /// Means of user and system time in milliseconds; `None` without runs.
    pub fn cpu_ms(&self) -> Option<(f64, f64)> {
        let mean = |of: fn(&Run) -> f64| {
            Some(Summary::of(&self.runs.iter().map(of).collect::<Vec<_>>())?.mean)
        };
        Some((mean(|run| run.user_ms)?, mean(|run| run.system_ms)?))
    }

    /// Median number of page faults.
    pub fn faults(&self) -> f64 {
        let faults = self.runs.iter().map(|run| run.faults as f64).collect::<Vec<_>>();
        Summary::of(&faults).map_or(0.0, |summary| summary.median)
    }
}

impl Experiment {
    /// Finds a cell with at least one run.
    pub fn cell(
        &self,
        kind: MemoryKind,
        size: usize,
        pattern: WritePattern,
        writer: Writer,
    ) -> Option<&Cell> {
        let wanted = |cell: &&Cell| {
            (cell.kind, cell.size, cell.pattern, cell.writer) == (kind, size, pattern, writer)
                && !cell.runs.is_empty()
        };
        self.cells.iter().find(wanted)
    }
}

/// Runs all requested cells that the machine supports.
///
/// # Errors
/// Returns an error if no cell can be measured.
pub fn measure(arguments: &PagesArguments) -> Result<Experiment> {
    cleanup::run_on_signals()?;
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
    let mut page_share = Vec::new();
    for (kind, _) in kinds {
        let size = arguments.sizes.iter().copied().filter(|size| kind.fits(*size)).min();
        let size = size.context("a kind without a size")?;
        match run(kind, size, WritePattern::None, Writer::Parent, Some("--check-pages")) {
            Ok((_, report)) => {
                let bytes = report.bytes_on_pages.unwrap_or(0) as f64;
                page_share.push((kind, bytes / (size * UNIT) as f64));
            }
            Err(error) => left_out.push(format!("{error:#}")),
        }
        progress.inc(1);
    }
    for round in 0..rounds {
        for cell in &mut cells {
            progress.set_message(format!("{} {}", cell.kind.name(), cell.pattern.name()));
            let each = round > runs;
            if !each || cell.pattern != WritePattern::None {
                let outcome = complete_run(cell, each.then_some("--time-each"));
                cell.record(outcome, round == 0);
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
    Ok(Experiment { machine, cells, page_share, left_out })
}

/// Sentence about a cell with failed runs.
fn failures(cell: &Cell) -> Option<String> {
    let why = cell.failed.first()?;
    let Cell { kind, size, pattern, writer, failed, .. } = cell;
    let (kind, pattern, writer) = (kind.name(), pattern.name(), writer.name());
    let count = failed.len();
    Some(format!("{count} runs of {kind}, {size} x 2 MiB, {pattern}, {writer}: {why}"))
}

/// Kind that the machine supports, and its largest size.
type AvailableKind = (MemoryKind, usize);

/// Determines the kinds that the machine supports; enlarges pools if allowed.
fn available(
    arguments: &PagesArguments,
    left_out: &mut Vec<String>,
) -> Result<(Vec<AvailableKind>, Vec<Cleanup>)> {
    let (mut kinds, mut changes) = (Vec::new(), Vec::new());
    let written = arguments.patterns.iter().any(|pattern| *pattern != WritePattern::None);
    for kind in arguments.kinds.iter().copied() {
        let sizes = arguments.sizes.iter().copied().filter(|size| kind.fits(*size));
        let Some(most) = sizes.clone().max() else {
            left_out.push(format!("{}: only for whole GiB, so for sizes like 512", kind.name()));
            continue;
        };
        if let Some(why) = kind.unavailable(arguments.set_mthp) {
            left_out.push(format!("{}: {why}", kind.name()));
            continue;
        }
        let Some((pool, need)) = kind.pool_pages(most, written) else {
            kinds.push((kind, most));
            continue;
        };
        if arguments.set_pool {
            // A vector drops its elements in order, and the newest change must be reverted first.
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

fn cells(arguments: &PagesArguments, kinds: &[AvailableKind]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for writer in &arguments.writers {
        for pattern in &arguments.patterns {
            for size in &arguments.sizes {
                let fits = |(kind, most): &&AvailableKind| kind.fits(*size) && size <= most;
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

/// Repeats a run until its child has inherited every page.
fn complete_run(cell: &mut Cell, option: Option<&str>) -> Result<(Run, RunReport)> {
    for _ in 0..TRIES {
        let (run, report) = run(cell.kind, cell.size, cell.pattern, cell.writer, option)?;
        if report.writes.missing == 0 {
            return Ok((run, report));
        }
        cell.forks_with_missing_pages += 1;
    }
    bail!("{}: no child of {TRIES} had inherited every page", cell.kind.name())
}

/// Starts one process of the experiment and waits for its end.
fn run(
    kind: MemoryKind,
    size: usize,
    pattern: WritePattern,
    writer: Writer,
    option: Option<&str>,
) -> Result<(Run, RunReport)> {
    let _pages = if kind == MemoryKind::Mthp { Some(settings::only_64kb_pages()?) } else { None };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["pages-process", "--kind", kind.name(), "--size", &size.to_string()]);
    command.args(["--pattern", pattern.name(), "--writer", writer.name()]).args(option);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let cpu_before = cpu_of_children()?;
    let begin = now()?;
    let mut cleanup = Cleanup::new();
    let process = cleanup.start_process(CleanupStep::Process, || {
        let process = command.spawn().context("cannot start a process of the experiment")?;
        let id = process.id();
        Ok((process, id))
    })?;
    let output = process.wait_with_output()?;
    let end = now()?;
    let cpu = cpu_of_children()?;
    cleanup.forget_processes();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} of {size} x 2 MiB: {} {}", kind.name(), output.status, stderr.trim());
    }
    let report: RunReport =
        serde_json::from_slice(&output.stdout).context("a run printed no report")?;
    let RunReport { up, populated, forked, ref writes, .. } = report;
    let boundaries = [begin, up, populated, forked, writes.begin, writes.end, end];
    let mut phases_ms = [0.0; 6];
    for (phase, pair) in phases_ms.iter_mut().zip(boundaries.windows(2)) {
        // Negative if the child begins to write before the fork has returned in the parent.
        *phase = (pair[1] as f64 - pair[0] as f64) / 1e6;
    }
    let whole_ms = (end - begin) as f64 / 1e6;
    let (user_ms, system_ms) = (cpu.0 - cpu_before.0, cpu.1 - cpu_before.1);
    Ok((Run { whole_ms, phases_ms, faults: writes.faults, user_ms, system_ms }, report))
}

/// User and system time in milliseconds of all processes that were started and waited for, and of
/// those that they waited for. Runs follow each other, so a difference is that of one run.
fn cpu_of_children() -> Result<(f64, f64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let ms = |time: TimeVal| time.num_microseconds() as f64 / 1000.0;
    Ok((ms(usage.user_time()), ms(usage.system_time())))
}
