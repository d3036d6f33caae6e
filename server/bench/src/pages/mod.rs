//! `cowherd bench pages`: cost of a fork and of the writes after it, for each kind of page.
//!
//! The experiment was published as "There's a CoW holding up my HugePages": a process populates
//! memory and forks; then parent or child writes one byte per 2 MiB (sparse) or per 4 KiB (dense)
//! while the other process waits; the lifetime of the whole process is measured. This module
//! repeats the published experiment (private pages of 4 KiB, private hugetlb pages of 2 MiB, the
//! child writes) and extends it to more kinds of pages, to writes by the parent, and to the
//! durations of the phases and of single writes.
//!
//! ```text
//!   experiment       runs all cells in turns, and starts ...
//!     process          ... one process per run: map, populate, fork, write
//!       memory           mapping of each kind
//!   parameters       kind of memory, write pattern, writing process
//!   conclusions      ratios beside the published ones, in sentences
//!   tables, plots    output
//! ```

mod conclusions;
mod experiment;
mod memory;
mod parameters;
mod plots;
pub mod process;
mod tables;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::report;
use experiment::Experiment;
use parameters::{MemoryKind, WritePattern, Writer};

/// Arguments of `cowherd bench pages`.
#[derive(Debug, Clone, clap::Args)]
pub struct PagesArguments {
    /// Runs of each cell
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Extra runs of each cell that time every write
    #[arg(long, default_value_t = 3)]
    fault_runs: u16,
    /// Memory, in units of 2 MiB
    #[arg(long, value_delimiter = ',', default_values_t = [1, 128, 256, 512], value_parser = size)]
    sizes: Vec<usize>,
    /// Kinds of memory
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = DEFAULT_KINDS)]
    kinds: Vec<MemoryKind>,
    /// What is written after the fork
    #[arg(
        long, value_enum, value_delimiter = ',',
        default_values_t = [WritePattern::Sparse, WritePattern::Dense]
    )]
    patterns: Vec<WritePattern>,
    /// Who writes after the fork
    #[arg(
        long, value_enum, value_delimiter = ',',
        default_values_t = [Writer::Child, Writer::Parent]
    )]
    writers: Vec<Writer>,
    /// As root: enlarge hugetlb pools as needed, and put them back
    #[arg(long)]
    set_pool: bool,
    /// As root: allow pages of 64 KiB only while they are measured, and put the setting back
    #[arg(long)]
    set_mthp: bool,
    /// Write an HTML report with plots, the tables as Markdown, the figures as JSON and CSV
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Write every run as JSON; - is the terminal
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write each cell's figures as CSV; - is the terminal
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

const DEFAULT_KINDS: [MemoryKind; 7] = [
    MemoryKind::Small,
    MemoryKind::Thp,
    MemoryKind::Mthp,
    MemoryKind::Huge2Mb,
    MemoryKind::Huge1Gb,
    MemoryKind::SharedSmall,
    MemoryKind::Shared2Mb,
];

fn size(text: &str) -> Result<usize, String> {
    let parsed = text.parse::<usize>().ok().filter(|size| (1..=1 << 20).contains(size));
    parsed.ok_or_else(|| format!("'{text}' is no size between 1 and {}", 1 << 20))
}

/// Content of `pages.json`.
#[derive(Serialize)]
struct PagesReport<'a> {
    experiment: &'a Experiment,
    ratios: Vec<conclusions::Ratio>,
    conclusions: &'a [String],
}

/// Runs the experiment, prints tables and conclusions, writes the requested files.
///
/// # Errors
/// Returns an error if nothing can be measured or a file cannot be written.
pub fn run(arguments: &PagesArguments) -> Result<()> {
    let experiment = experiment::measure(arguments)?;
    let sentences = conclusions::sentences(&experiment);
    println!("{}", tables::text(&experiment));
    for sentence in &sentences {
        println!("{sentence}");
    }
    for left_out in &experiment.left_out {
        println!("Left out: {left_out}");
    }
    let ratios = conclusions::ratios(&experiment);
    let report = PagesReport { experiment: &experiment, ratios, conclusions: &sentences };
    let json = serde_json::to_string_pretty(&report)?;
    let csv = tables::csv(&experiment)?;
    report::write(arguments.json.as_deref(), &json)?;
    report::write(arguments.csv.as_deref(), &csv)?;
    if let Some(folder) = &arguments.report {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        plots::write(&experiment, arguments, folder)?;
        report::write(Some(&folder.join("pages.json")), &json)?;
        report::write(Some(&folder.join("pages.csv")), &csv)?;
        report::write(Some(&folder.join("pages.md")), &tables::markdown(&experiment))?;
        println!("Report: {}", folder.join("pages.html").display());
    }
    Ok(())
}
