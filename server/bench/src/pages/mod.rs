//! `cowherd bench pages`: what a fork and the writes after it cost on each kind of page.
//!
//! The experiment was published as "There's a CoW holding up my HugePages": memory is populated,
//! the process forks, and one side writes a byte in each 2 MiB (sparse) or in each 4 KiB (dense)
//! while the other holds still; the whole process is timed. Here it is repeated to the letter on
//! private pages of 4 KiB and on private hugetlb pages of 2 MiB, with the child writing; beyond
//! that with more kinds of pages, with the parent writing, and with the phases and the single
//! writes timed.
//!
//! ```text
//!   experiment   all cells in turns; starts ...
//!     process      ... one process a run: map, populate, fork, write
//!       memory       mappings of each kind
//!   verdict      ratios beside the published ones, in words
//!   tables, plots
//! ```

mod experiment;
mod kind;
mod memory;
mod plots;
pub mod process;
mod tables;
mod verdict;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::report;
use experiment::Experiment;
use kind::{Kind, Pattern, Writer};

/// What `cowherd bench pages` is asked to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
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
    kinds: Vec<Kind>,
    /// What is written after the fork
    #[arg(
        long, value_enum, value_delimiter = ',',
        default_values_t = [Pattern::Sparse, Pattern::Dense]
    )]
    patterns: Vec<Pattern>,
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

const DEFAULT_KINDS: [Kind; 7] = [
    Kind::Small,
    Kind::Thp,
    Kind::Mthp,
    Kind::Huge2Mb,
    Kind::Huge1Gb,
    Kind::SharedSmall,
    Kind::Shared2Mb,
];

fn size(text: &str) -> Result<usize, String> {
    let parsed = text.parse::<usize>().ok().filter(|size| (1..=1 << 20).contains(size));
    parsed.ok_or_else(|| format!("'{text}' is no size between 1 and {}", 1 << 20))
}

/// The experiment with what follows from it.
#[derive(Serialize)]
struct Outcome<'a> {
    experiment: &'a Experiment,
    ratios: Vec<verdict::Ratio>,
    verdict: &'a [String],
}

/// Measures, prints tables and verdict, writes what was asked for.
///
/// # Errors
/// When nothing can be measured, or a file cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let experiment = experiment::measure(arguments)?;
    let sentences = verdict::sentences(&experiment);
    println!("{}", tables::text(&experiment));
    for sentence in &sentences {
        println!("{sentence}");
    }
    for left_out in &experiment.left_out {
        println!("Left out: {left_out}");
    }
    let ratios = verdict::ratios(&experiment);
    let outcome = Outcome { experiment: &experiment, ratios, verdict: &sentences };
    let json = serde_json::to_string_pretty(&outcome)?;
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
