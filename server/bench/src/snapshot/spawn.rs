//! Servers that the benchmark starts: each in an empty folder, all pinned to the same processors.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::SnapshotArguments;
use super::target::Target;
use crate::cleanup::{Cleanup, CleanupStep};
use crate::settings::HugePool;

/// Programs of peers, which are measured if found on the path.
const PEERS: [&str; 3] = ["redis-server", "valkey-server", "keydb-server"];
/// Default page kinds of Cowherd.
pub const PAGES: [&str; 3] = ["small", "thp", "huge-2mb"];
/// Default checkpoint isolations of Cowherd.
pub const ISOLATIONS: [&str; 2] = ["kernel-cow", "undo-log"];
/// Time limit for the first reply of a started server.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Upper estimate of the bytes of a key with its entry and its slot in the tables.
const KEY_OVERHEAD: u64 = 160;
/// Lower bound of `maxmemory`.
const MIN_MEMORY: u64 = 256 << 20;
const MIB: u64 = 1 << 20;

/// Server that can be started.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Name in tables: `cowherd small kernel-cow`, `redis-server`.
    pub name: String,
    program: PathBuf,
    options: Vec<String>,
}

/// Lists the servers to compare: Cowherd with each page kind and isolation, peers on the path, and
/// the servers named in the arguments.
///
/// # Errors
/// Returns an error if a program does not exist.
pub fn candidates(arguments: &SnapshotArguments) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    let own = cowherd()?;
    let max_memory = max_memory(arguments);
    for pages in &arguments.pages {
        for isolation in &arguments.isolation {
            let options = [
                ("--maxmemory", max_memory.to_string()),
                ("--arena-pages", pages.clone()),
                ("--checkpoint-isolation", isolation.clone()),
                ("--metrics-port", "0".to_owned()),
            ];
            found.push(Candidate {
                name: format!("cowherd {pages} {isolation}"),
                program: own.clone(),
                options: options.into_iter().flat_map(|(name, v)| [name.to_owned(), v]).collect(),
            });
        }
    }
    let on_path = PEERS.iter().filter_map(|name| Some(((*name).to_owned(), on_path(name)?)));
    let mut peers = if arguments.no_peers { Vec::new() } else { on_path.collect::<Vec<_>>() };
    for named in &arguments.server {
        let (name, path) = named
            .split_once('=')
            .with_context(|| format!("'{named}' names no server; write NAME=/path/to/program"))?;
        peers.push((name.to_owned(), PathBuf::from(path)));
    }
    for (name, program) in peers {
        if !program.is_file() {
            bail!("there is no program {} for {name}", program.display());
        }
        let options = ["--appendonly", "no", "--daemonize", "no"].map(str::to_owned).to_vec();
        found.push(Candidate { name, program, options });
    }
    Ok(found)
}

/// Path of `cowherd`, in the folder of this program or on the path.
fn cowherd() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program itself")?;
    let beside = own.with_file_name("cowherd");
    if beside.is_file() {
        return Ok(beside);
    }
    on_path("cowherd").context(
        "there is no cowherd beside cowherd-bench or on the path. \
         Build it with: cargo build --release -p cowherd",
    )
}

/// Value of `maxmemory` for Cowherd in bytes.
fn max_memory(arguments: &SnapshotArguments) -> u64 {
    let need = arguments.keys * (arguments.value_size as u64 + KEY_OVERHEAD);
    (need + need / 2).max(MIN_MEMORY).next_multiple_of(2 * MIB)
}

/// Hugetlb pools of the requested page kinds with the number of pages needed: twice `maxmemory`,
/// because a private page may be copied during a checkpoint.
pub fn pool_pages(arguments: &SnapshotArguments) -> Vec<(HugePool, usize)> {
    let pages = |bytes: u64| usize::try_from(2 * max_memory(arguments).div_ceil(bytes)).ok();
    let kinds = [("huge-2mb", HugePool::MIB_2, 2 * MIB), ("huge-1gb", HugePool::GIB_1, 1024 * MIB)];
    let asked = kinds.iter().filter(|(kind, _, _)| arguments.pages.iter().any(|p| p == kind));
    asked.filter_map(|(_, pool, bytes)| Some((*pool, pages(*bytes)?))).collect()
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Running server. Dropping it kills the server and its children and removes the folder.
#[derive(Debug)]
pub struct SpawnedServer {
    process: Child,
    cleanup: Cleanup,
    /// Address of the server.
    pub target: Target,
}

impl Candidate {
    /// Starts the server on a free port, in a new folder below `below`, pinned to `cpus`.
    ///
    /// # Errors
    /// Returns an error with the server's output if the server does not answer in time.
    pub fn start(&self, below: &Path, cpus: &[usize]) -> Result<SpawnedServer> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = below.join(format!("cowherd-bench-{}-{port}", std::process::id()));
        let mut cleanup = Cleanup::new();
        cleanup
            .guard(CleanupStep::Folder(folder.clone()), || fs::create_dir_all(&folder))
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        let log = folder.join("log");
        let output = File::create(&log)?;
        let mut command = Command::new(&self.program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(&folder).args(["--loglevel", "warning"]).args(&self.options);
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        command.process_group(0);
        let process = cleanup.start_process(CleanupStep::Group, || {
            let process = pinned(cpus, || command.spawn())?
                .with_context(|| format!("cannot start {}", self.program.display()))?;
            let id = process.id();
            Ok((process, id))
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target { address, password: None };
        let mut spawned = SpawnedServer { process, cleanup, target };
        let deadline = Instant::now() + STARTUP_TIMEOUT;
        loop {
            let answers = spawned.target.client().and_then(|mut client| client.text(&["PING"]));
            if answers.is_ok() {
                return Ok(spawned);
            }
            let ended = spawned.process.try_wait()?;
            if ended.is_some() {
                spawned.cleanup.forget_processes();
            }
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} did not come up: {}", self.name, log.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processors for the servers and for the load. By default the load takes the last processor and
/// the servers the others; a single processor is shared.
///
/// # Errors
/// Returns an error if a list is malformed or names a processor that this process may not use.
pub fn processors(servers: &str, load: &str) -> Result<(Vec<usize>, Vec<usize>)> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let all: Vec<usize> =
        (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let (last, others) = all.split_last().context("no processor to run on")?;
    let default_servers = if others.is_empty() { &all } else { others };
    let servers = parse_cpu_list(servers, default_servers, &all)?;
    let load = parse_cpu_list(load, &[*last], &all)?;
    Ok((servers, load))
}

/// Parses `auto`, or numbers and ranges: `0`, `2-5`, `0,2-3`.
fn parse_cpu_list(text: &str, default: &[usize], all: &[usize]) -> Result<Vec<usize>> {
    if text == "auto" {
        return Ok(default.to_vec());
    }
    let wrong = || format!("'{text}' is no list of processors; write auto, 0, 0,2 or 0-3");
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = first.parse::<usize>().with_context(wrong)?;
        let last = last.parse::<usize>().with_context(wrong)?;
        if let Some(missing) = (first..=last).find(|cpu| !all.contains(cpu)) {
            bail!("processor {missing} of '{text}' is none that this process may use: {all:?}");
        }
        found.extend(first..=last);
    }
    Ok(found)
}

/// Pins this thread to processors.
///
/// # Errors
/// Returns the error of `sched_setaffinity`.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin to processors")
}

/// Executes `act` while this thread is pinned. Processes that `act` starts stay pinned.
fn pinned<T>(cpus: &[usize], act: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(Pid::from_raw(0))?;
    pin(cpus)?;
    let done = act();
    sched_setaffinity(Pid::from_raw(0), &before).context("cannot unpin")?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_parsed_and_checked() {
        let all = [0, 1, 2, 3];
        assert_eq!(parse_cpu_list("auto", &[3], &all).unwrap(), [3]);
        assert_eq!(parse_cpu_list("0,2-3", &[3], &all).unwrap(), [0, 2, 3]);
        for wrong in ["", "x", "1-", "4", "0-9"] {
            assert!(parse_cpu_list(wrong, &[3], &all).is_err(), "{wrong}");
        }
    }
}
