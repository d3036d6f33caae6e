//! The programs that the tests run, and what is missing on this machine.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output of a program that must have succeeded.
    ///
    /// # Errors
    /// When it did not; the error shows all that it wrote.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs `command` to its end, feeding it `input`, and stops it at the deadline.
///
/// # Errors
/// When it cannot be started, or is still running at the deadline.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Result<Outcome> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    let stdout = read_aside(child.stdout.take());
    let stderr = read_aside(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A program may well exit before it has read everything: its status tells.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let status = wait(&mut child, deadline)?;
    let late = status.is_none();
    if late {
        child.kill()?;
        child.wait()?;
    }
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().unwrap_or_default());
    match status {
        Some(status) => Ok(Outcome { status, stdout, stderr }),
        None => bail!("{shown} ran longer than {deadline:?}\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

/// Waits for `child` until the deadline; `None` when it is still running then.
///
/// # Errors
/// When its status cannot be read.
pub fn wait(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read_aside(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            drop(pipe.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The path of a program on `PATH`, if it is installed.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Are we root, and so allowed to mount and to fill the huge page pool?
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Where `./test` puts the client libraries of other languages: `COWHERD_CLIENT_TOOLS`, else
/// `target/client-tools`.
#[must_use]
pub fn client_tools() -> PathBuf {
    std::env::var_os("COWHERD_CLIENT_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/client-tools"),
        PathBuf::from,
    )
}

/// A file of this package, by its path below `client-tests/`.
#[must_use]
pub fn package_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Does process `pid` run (a zombie does not)?
#[must_use]
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // "pid (name) state ...", and the name may itself hold brackets.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends `signal` to process `pid`.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, signal).with_context(|| format!("cannot send {signal} to {pid}"))
}

/// Writes one line about a test that cannot run here; see [`skip!`](crate::skip).
pub fn report_skip(module: &str, reason: &str) {
    let thread = std::thread::current();
    let line = format!("{module}::{}: {reason}\n", thread.name().unwrap_or("?"));
    eprint!("skipped {line}");
    if let Some(path) = std::env::var_os("COWHERD_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            panic!("cannot note a skipped test: {error}");
        }
    }
}
