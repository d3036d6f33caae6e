//! `cowherd-bench`: benchmarks of copy-on-write and of checkpoints.
//!
//! | module | content |
//! |---|---|
//! | [`pages`] | cost of a fork and of the writes after it, for each kind of page |
//! | [`snapshot`] | latency of a Redis-compatible server during a checkpoint |
//! | [`table`], [`charts`], [`report`] | tables, line charts, HTML page |
//! | [`machine`] | description of the machine under test |
//! | [`settings`], [`cleanup`] | kernel settings, and their restoration, also after a signal |
//! | [`stats`] | means, spreads, quantiles, confidence intervals |
//!
//! Only code inside a measurement is optimized; the rest may allocate and print.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

mod charts;
mod cleanup;
mod machine;
mod pages;
mod report;
mod settings;
mod snapshot;
mod stats;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cowherd-bench", about = "Measures copy-on-write and checkpoints", version)]
struct CommandLine {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Cost of a fork and of the writes after it, for each kind of page
    Pages(pages::PagesArguments),
    /// One process of that experiment
    #[command(hide = true)]
    PagesProcess(pages::process::RunArguments),
    /// Latency of a Redis-compatible server during a checkpoint
    Snapshot(Box<snapshot::SnapshotArguments>),
}

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().bench {
        Bench::Pages(arguments) => pages::run(&arguments),
        Bench::PagesProcess(arguments) => pages::process::run(&arguments),
        Bench::Snapshot(arguments) => snapshot::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cowherd-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
