//! Running programs, and reporting of skipped tests.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Exit status and output of a program.
#[derive(Debug)]
pub struct ProgramOutput {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl ProgramOutput {
    /// Returns the standard output of a successful program.
    ///
    /// # Errors
    /// Returns an error with all output if the program failed.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs `command` with `input` as standard input; kills it at the deadline.
///
/// # Errors
/// Returns an error if the program cannot be started or exceeds the deadline.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Result<ProgramOutput> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    let stdout = read_in_background(child.stdout.take());
    let stderr = read_in_background(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A write error is no failure: a program may exit before it has read all input.
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
        Some(status) => Ok(ProgramOutput { status, stdout, stderr }),
        None => bail!("{shown} ran longer than {deadline:?}\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

/// Waits for `child` until the deadline. Returns `None` if the child is still running then.
///
/// # Errors
/// Returns the error of `waitpid`.
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

/// Reads a pipe in a thread, so that the program cannot block on a full pipe.
fn read_in_background(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            drop(pipe.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Path of a program on `PATH`, if installed.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether this process is root, which mounting and resizing a hugetlb pool require.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Folder into which `./test` installs the client libraries of other languages:
/// `COWHERD_CLIENT_TOOLS`, else `target/client-tools`.
#[must_use]
pub fn client_tools() -> PathBuf {
    std::env::var_os("COWHERD_CLIENT_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/client-tools"),
        PathBuf::from,
    )
}

/// Path of a file of this package, given relative to `client-tests/`.
#[must_use]
pub fn package_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether process `pid` runs; a zombie does not.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The format is "pid (name) state ...", and the name may contain parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends `signal` to process `pid`.
///
/// # Errors
/// Returns an error if there is no such process.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, signal).with_context(|| format!("cannot send {signal} to {pid}"))
}

/// Reports a test that cannot run on this machine; see [`skip!`](crate::skip).
pub fn report_skip(module: &str, reason: &str) {
    let thread = std::thread::current();
    let line = format!("{module}::{}: {reason}\n", thread.name().unwrap_or("?"));
    eprint!("skipped {line}");
    if let Some(path) = std::env::var_os("COWHERD_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            panic!("cannot report a skipped test: {error}");
        }
    }
}
