//! `cowherd bench snapshot`: what clients of a Redis-compatible server feel while it saves.
//!
//! ```text
//!   target, spawn        which server: one that runs, or ours and its peers in turns
//!   schedule             what is sent, and when
//!   load ------------->  the open-loop load, BGSAVE in its midst
//!     connection, resp   one socket; the bytes on it
//!     memory             of the machine and of the server, over time
//!   figures              percentiles by phase, medians over rounds
//!   tables, plots        for the terminal and for a report
//! ```

mod connection;
mod control;
mod figures;
mod load;
mod memory;
mod plots;
mod resp;
mod schedule;
mod spawn;
mod tables;
mod target;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::machine::Machine;
use super::report;
use super::undo::{self, Undo};
use figures::Round;
use schedule::{Keys, Mix, Requests};
use target::{Identity, Target};

/// Requests that one measurement may remember; each takes 24 bytes.
const MOST_REQUESTS: u64 = 100_000_000;

/// What `cowherd bench snapshot` is asked to do.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(after_help = "Without --target and --spawn it measures the server on 127.0.0.1:6379.")]
pub struct Arguments {
    /// Servers to measure, in turn: HOST:PORT, or a port on this machine
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., conflicts_with = "spawn")]
    pub target: Vec<String>,
    /// Password of the targets
    #[arg(long)]
    #[serde(skip)]
    pub password: Option<String>,
    /// Start Cowherd and its peers, and compare them
    #[arg(long)]
    pub spawn: bool,
    /// With --spawn: page kinds of Cowherd
    #[arg(long, value_name = "KIND", value_delimiter = ',', default_values = spawn::PAGES)]
    pub pages: Vec<String>,
    /// With --spawn: how Cowherd isolates a save
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = spawn::ISOLATIONS)]
    pub isolation: Vec<String>,
    /// With --spawn, as root: enlarge hugetlb pools as needed, and put them back
    #[arg(long)]
    pub set_pool: bool,
    /// With --spawn: one more server to compare with, by its program; may be given several times
    #[arg(long, value_name = "NAME=PROGRAM")]
    pub server: Vec<String>,
    /// With --spawn: leave out the peers on the path
    #[arg(long)]
    pub no_peers: bool,
    /// With --spawn: where the servers' folders are made
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    pub work: PathBuf,
    /// Keys that the server holds
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 512)]
    pub value_size: usize,
    /// Requests a second
    #[arg(long, default_value_t = 20_000, value_parser = rate)]
    pub rate: u64,
    /// Connections that carry them
    #[arg(long, default_value_t = 50, value_parser = connections)]
    pub connections: usize,
    /// SETs to GETs
    #[arg(long, default_value = "1:0", value_name = "SET:GET")]
    pub mix: Mix,
    /// Which keys are drawn
    #[arg(long, value_enum, default_value_t = Keys::Uniform)]
    pub distribution: Keys,
    /// Seconds measured before the save, and again after it
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub duration: Duration,
    /// Seconds of load before anything is measured
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    pub warm_up: Duration,
    /// Seconds after which an answer counts as late
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Duration,
    /// Seconds after which a save is given up
    #[arg(long, default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub longest_save: Duration,
    /// How often each server is measured; the servers take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub rounds: u64,
    /// With --spawn: processors of the servers [auto: all but the last]
    #[arg(long, default_value = "auto", value_name = "LIST")]
    pub server_cpus: String,
    /// Processors of the load [auto: the last]
    #[arg(long, default_value = "auto", value_name = "LIST")]
    pub load_cpus: String,
    /// Write an HTML report with plots, the tables as Markdown, the figures as JSON and CSV
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub report: Option<PathBuf>,
    /// Write all figures as JSON; - is the terminal
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Write each round's figures as CSV; - is the terminal
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub csv: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<f64>().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    let wrong = || format!("'{text}' is no number of seconds between 0.001 and 86400");
    parsed.map(Duration::from_secs_f64).ok_or_else(wrong)
}

fn rate(text: &str) -> Result<u64, String> {
    let parsed = text.parse::<u64>().ok().filter(|rate| (1..=1_000_000).contains(rate));
    parsed.ok_or_else(|| format!("'{text}' is no rate between 1 and 1000000"))
}

fn connections(text: &str) -> Result<usize, String> {
    let parsed = text.parse::<usize>().ok().filter(|count| (1..=10_000).contains(count));
    parsed.ok_or_else(|| format!("'{text}' is no number of connections between 1 and 10000"))
}

/// A server and its rounds.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// What tables and plots call it.
    pub name: String,
    /// What it said it is.
    pub identity: Option<Identity>,
    /// One after the other; fewer than asked for when some failed.
    pub rounds: Vec<Round>,
    /// Why rounds failed.
    pub failed: Vec<String>,
}

/// Everything that a run found out.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What it ran on.
    pub machine: Machine,
    /// What was asked for.
    pub arguments: Arguments,
    /// The servers, in the order in which they were named.
    pub servers: Vec<Measured>,
}

/// Measures, prints the tables, writes what was asked for.
///
/// # Errors
/// When no server could be measured, or a file cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.value_size <= 512 << 20, "a value has at most 512 MiB");
    let seconds = (arguments.warm_up + 2 * arguments.duration).as_secs() + 60;
    ensure!(
        seconds.saturating_mul(arguments.rate) <= MOST_REQUESTS,
        "that would be more than {MOST_REQUESTS} requests to remember; lower --rate or --duration"
    );
    undo::at_signals()?;
    let comparison = measure(arguments)?;
    println!("{}", tables::all(&comparison));
    let json = serde_json::to_string_pretty(&comparison)?;
    let csv = tables::csv(&comparison)?;
    report::write(arguments.json.as_deref(), &json)?;
    report::write(arguments.csv.as_deref(), &csv)?;
    if let Some(folder) = &arguments.report {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        plots::write(&comparison, folder)?;
        report::write(Some(&folder.join("snapshot.json")), &json)?;
        report::write(Some(&folder.join("snapshot.csv")), &csv)?;
        report::write(Some(&folder.join("snapshot.md")), &tables::markdown(&comparison))?;
        println!("Report: {}", folder.join("snapshot.html").display());
    }
    ensure!(
        comparison.servers.iter().any(|server| !server.rounds.is_empty()),
        "no server could be measured"
    );
    Ok(())
}

/// One thing to measure: a server that runs, or one to be started for each round.
enum Subject {
    Running(Target),
    Candidate(spawn::Candidate),
}

fn measure(arguments: &Arguments) -> Result<Comparison> {
    // Read before this thread is pinned, or there would be one processor only.
    let machine = Machine::read();
    let subjects = subjects(arguments)?;
    let _pools = pools(arguments)?;
    let (server_cpus, load_cpus) = spawn::processors(&arguments.server_cpus, &arguments.load_cpus)?;
    // Servers that are started here get processors of their own.
    spawn::pin(&load_cpus)?;
    let progress = ProgressBar::new(arguments.rounds * subjects.len() as u64);
    let style = "{elapsed_precise} [{bar:24}] {pos}/{len} {msg}";
    progress.set_style(ProgressStyle::with_template(style)?);
    let mut servers: Vec<Measured> = subjects
        .iter()
        .map(|(name, _)| Measured {
            name: name.clone(),
            identity: None,
            rounds: Vec::new(),
            failed: Vec::new(),
        })
        .collect();
    for round in 0..arguments.rounds {
        for turn in 0..subjects.len() {
            // Whoever comes first does so in one round only.
            let index = (turn + usize::try_from(round)?) % subjects.len();
            let (name, subject) = &subjects[index];
            let title = format!("{name}, round {} of {}", round + 1, arguments.rounds);
            match one_round(arguments, subject, &server_cpus, &progress, &title) {
                Ok((identity, measured)) => {
                    servers[index].identity = Some(identity);
                    servers[index].rounds.push(measured);
                }
                Err(error) => {
                    progress.suspend(|| eprintln!("{title}: {error:#}"));
                    servers[index].failed.push(format!("{error:#}"));
                }
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(Comparison { machine, arguments: arguments.clone(), servers })
}

/// Hugetlb pages for a server and for the copies that its save may need.
fn pools(arguments: &Arguments) -> Result<Vec<Undo>> {
    let mut changes = Vec::new();
    if arguments.spawn && arguments.set_pool {
        for (pool, pages) in spawn::pool_pages(arguments) {
            changes.push(pool.ensure_free(pages)?);
        }
    }
    Ok(changes)
}

fn subjects(arguments: &Arguments) -> Result<Vec<(String, Subject)>> {
    if arguments.spawn {
        let found = spawn::candidates(arguments)?;
        return Ok(found.into_iter().map(|c| (c.name.clone(), Subject::Candidate(c))).collect());
    }
    let mut targets = arguments.target.clone();
    if targets.is_empty() {
        targets.push("127.0.0.1:6379".to_owned());
    }
    let parse = |text: &String| {
        let target = Target::parse(text, arguments.password.as_deref())?;
        Ok((text.clone(), Subject::Running(target)))
    };
    targets.iter().map(parse).collect()
}

fn one_round(
    arguments: &Arguments,
    subject: &Subject,
    cpus: &[usize],
    progress: &ProgressBar,
    title: &str,
) -> Result<(Identity, Round)> {
    progress.set_message(format!("{title}: starting"));
    let spawned = match subject {
        Subject::Running(_) => None,
        Subject::Candidate(candidate) => Some(candidate.start(&arguments.work, cpus)?),
    };
    let target = match (&spawned, subject) {
        (Some(spawned), _) => &spawned.target,
        (None, Subject::Running(target)) => target,
        (None, Subject::Candidate(_)) => anyhow::bail!("it was not started"),
    };
    let Arguments { keys, value_size, mix, distribution, .. } = *arguments;
    let mut requests = Requests::new(keys, value_size, mix, distribution);
    target.fill(&mut requests, keys, |done| {
        if done % 65_536 == 0 {
            progress.set_message(format!("{title}: {} % of the keys", done * 100 / keys));
        }
    })?;
    // Read when it is full, so that it names the pages that are really there.
    let identity = target.identify()?;
    let told = |phase: &str| progress.set_message(format!("{title}: {phase}"));
    let round = target.measure(arguments, identity.process, &mut requests, told)?;
    Ok((identity, round))
}

#[cfg(test)]
#[path = "stall_tests.rs"]
mod stall_tests;
