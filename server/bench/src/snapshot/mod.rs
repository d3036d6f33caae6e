//! `cowherd bench snapshot`: latency of a Redis-compatible server during a checkpoint.
//!
//! ```text
//!   target, spawn    server under test: a running one, or Cowherd and its peers in turns
//!   client           blocking client, which fills and queries the server
//!   workload         requests and their due times
//!   load             open-loop load generator, which sends BGSAVE
//!     connection       non-blocking connection
//!     memory           memory use over time
//!   results          percentiles by phase, medians over rounds
//!   tables, plots    output
//! ```

mod client;
mod connection;
mod load;
mod memory;
mod plots;
mod results;
mod spawn;
mod tables;
mod target;
mod workload;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::cleanup::{self, Cleanup};
use super::machine::Machine;
use super::report;
use results::Round;
use target::{ServerIdentity, Target};
use workload::{KeyDistribution, RequestGenerator, RequestMix};

/// Maximum number of requests per round; a sample takes 24 bytes.
const MAX_REQUESTS: u64 = 100_000_000;

/// Arguments of `cowherd bench snapshot`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(after_help = "Without --target and --spawn it measures the server on 127.0.0.1:6379.")]
pub struct SnapshotArguments {
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
    /// With --spawn: how Cowherd isolates a checkpoint
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
    /// Requests per second
    #[arg(long, default_value_t = 20_000, value_parser = rate)]
    pub rate: u64,
    /// Connections of the load
    #[arg(long, default_value_t = 50, value_parser = connections)]
    pub connections: usize,
    /// Ratio of SETs to GETs
    #[arg(long, default_value = "1:0", value_name = "SET:GET")]
    pub mix: RequestMix,
    /// Distribution of keys
    #[arg(long, value_enum, default_value_t = KeyDistribution::Uniform)]
    pub distribution: KeyDistribution,
    /// Seconds measured before the checkpoint
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub duration: Duration,
    /// Seconds measured after the checkpoint: what it left behind shows then
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub after: Duration,
    /// Seconds of load before anything is measured
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    pub warm_up: Duration,
    /// Seconds after which an answer counts as late
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Duration,
    /// Seconds after which the test fails because the checkpoint has not ended
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

/// Results of one server.
#[derive(Debug, Serialize)]
pub struct ServerResult {
    /// Name in tables and plots.
    pub name: String,
    /// Identity reported by the server.
    pub identity: Option<ServerIdentity>,
    /// Successful rounds in order.
    pub rounds: Vec<Round>,
    /// Errors of failed rounds.
    pub failed: Vec<String>,
}

/// Results of all servers.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Machine under test.
    pub machine: Machine,
    /// Arguments of the run.
    pub arguments: SnapshotArguments,
    /// Results by server, in the order of the arguments.
    pub servers: Vec<ServerResult>,
}

/// Measures all servers, prints the tables, writes the requested files.
///
/// # Errors
/// Returns an error if no server could be measured or a file cannot be written.
pub fn run(arguments: &SnapshotArguments) -> Result<()> {
    ensure!(arguments.value_size <= 512 << 20, "a value has at most 512 MiB");
    let SnapshotArguments { warm_up, duration, after, .. } = *arguments;
    let seconds = (warm_up + duration + after).as_secs() + 60;
    ensure!(
        seconds.saturating_mul(arguments.rate) <= MAX_REQUESTS,
        "that would be more than {MAX_REQUESTS} requests in memory; lower --rate, \
         --duration or --after"
    );
    cleanup::run_on_signals()?;
    let comparison = measure(arguments)?;
    println!("{}", tables::text(&comparison));
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

/// Server under test: a running one, or one that is started for each round.
enum TestedServer {
    Running(Target),
    Candidate(spawn::Candidate),
}

fn measure(arguments: &SnapshotArguments) -> Result<Comparison> {
    // Read before this thread is pinned, which reduces the number of available processors.
    let machine = Machine::read();
    let tested_servers = tested_servers(arguments)?;
    let _pools = enlarge_pools(arguments)?;
    let (server_cpus, load_cpus) = spawn::processors(&arguments.server_cpus, &arguments.load_cpus)?;
    // The load must not share processors with the servers that are started below.
    spawn::pin(&load_cpus)?;
    let progress = ProgressBar::new(arguments.rounds * tested_servers.len() as u64);
    let style = "{elapsed_precise} [{bar:24}] {pos}/{len} {msg}";
    progress.set_style(ProgressStyle::with_template(style)?);
    let mut servers: Vec<ServerResult> = tested_servers
        .iter()
        .map(|(name, _)| ServerResult {
            name: name.clone(),
            identity: None,
            rounds: Vec::new(),
            failed: Vec::new(),
        })
        .collect();
    for round in 0..arguments.rounds {
        for turn in 0..tested_servers.len() {
            // Each round starts with another server.
            let index = (turn + usize::try_from(round)?) % tested_servers.len();
            let (name, server) = &tested_servers[index];
            let title = format!("{name}, round {} of {}", round + 1, arguments.rounds);
            match one_round(arguments, server, &server_cpus, &progress, &title) {
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

/// Enlarges the hugetlb pools for a server and the copies during its checkpoint, if allowed.
fn enlarge_pools(arguments: &SnapshotArguments) -> Result<Vec<Cleanup>> {
    let mut changes = Vec::new();
    if arguments.spawn && arguments.set_pool {
        for (pool, pages) in spawn::pool_pages(arguments) {
            changes.push(pool.ensure_free(pages)?);
        }
    }
    Ok(changes)
}

fn tested_servers(arguments: &SnapshotArguments) -> Result<Vec<(String, TestedServer)>> {
    if arguments.spawn {
        let found = spawn::candidates(arguments)?;
        return Ok(found
            .into_iter()
            .map(|c| (c.name.clone(), TestedServer::Candidate(c)))
            .collect());
    }
    let mut targets = arguments.target.clone();
    if targets.is_empty() {
        targets.push("127.0.0.1:6379".to_owned());
    }
    let parse = |text: &String| {
        let target = Target::parse(text, arguments.password.as_deref())?;
        Ok((text.clone(), TestedServer::Running(target)))
    };
    targets.iter().map(parse).collect()
}

fn one_round(
    arguments: &SnapshotArguments,
    server: &TestedServer,
    cpus: &[usize],
    progress: &ProgressBar,
    title: &str,
) -> Result<(ServerIdentity, Round)> {
    progress.set_message(format!("{title}: starting"));
    let spawned = match server {
        TestedServer::Running(_) => None,
        TestedServer::Candidate(candidate) => Some(candidate.start(&arguments.work, cpus)?),
    };
    let target = match (&spawned, server) {
        (Some(spawned), _) => &spawned.target,
        (None, TestedServer::Running(target)) => target,
        (None, TestedServer::Candidate(_)) => anyhow::bail!("it was not started"),
    };
    let SnapshotArguments { keys, value_size, mix, distribution, .. } = *arguments;
    let mut requests = RequestGenerator::new(keys, value_size, mix, distribution);
    target.fill(&mut requests, keys, |done| {
        if done % 65_536 == 0 {
            progress.set_message(format!("{title}: {} % of the keys", done * 100 / keys));
        }
    })?;
    // Identified after filling, so that INFO reports the actual page kind.
    let identity = target.identify()?;
    let show_phase = |phase: &str| progress.set_message(format!("{title}: {phase}"));
    let round = target.measure(arguments, identity.process, &mut requests, show_phase)?;
    Ok((identity, round))
}

#[cfg(test)]
#[path = "stall_tests.rs"]
mod stall_tests;
