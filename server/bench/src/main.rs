//! `cowherd-bench`: evidence about copy-on-write and checkpoints, on anyone's own machine.
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
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

mod charts;
mod machine;
mod pages;
mod report;
mod settings;
mod sheet;
mod snapshot;
mod stats;
mod undo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cowherd-bench", about = "Measures copy-on-write and checkpoints", version)]
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

fn main() -> ExitCode {
    let outcome = match Arguments::parse().bench {
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
