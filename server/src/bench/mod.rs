//! `cowherd bench`: evidence about copy-on-write and checkpoints, on anyone's own machine.
//!
//! | module | what it does |
//! |---|---|
//! | [`pages`] | the experiment: what a fork and the writes after it cost on each kind of page |
//! | [`snapshot`] | what clients of a Redis-compatible server feel while it saves |
//! | [`sheet`], [`charts`], [`report`] | tables, line charts, one HTML page |
//! | [`machine`] | what the figures were measured on |
//! | [`settings`], [`undo`] | pools and page settings; what is put back, also at Ctrl-C |
//! | [`stats`] | means, spreads, quantiles, confidence intervals |
//!
//! These are tools, not the server: they may allocate, print and take their time, except where a
//! module says that it measures.

pub mod charts;
pub mod machine;
pub mod pages;
pub mod report;
pub mod settings;
pub mod sheet;
pub mod snapshot;
pub mod stats;
pub mod undo;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cowherd bench", about = "Measures copy-on-write and checkpoints", version)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// What a fork and the writes after it cost, on each kind of page
    Pages(pages::Arguments),
    /// One run of that experiment, timed by it from outside
    #[command(hide = true)]
    PagesProcess(pages::process::Arguments),
    /// What clients of a Redis-compatible server feel while it saves
    Snapshot(Box<snapshot::Arguments>),
}

/// Runs the benchmark that the words after `cowherd bench` ask for; ends the process itself when
/// they only ask for help, or cannot be understood.
///
/// # Errors
/// When it cannot be carried out; the message says what to change.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let words = std::iter::once("cowherd bench").chain(args.iter().map(String::as_str));
    match Arguments::parse_from(words).bench {
        Bench::Pages(arguments) => pages::run(&arguments),
        Bench::PagesProcess(arguments) => pages::process::run(&arguments),
        Bench::Snapshot(arguments) => snapshot::run(&arguments),
    }
}
