//! A running Cowherd: the program under test, started as a user would start it.

use crate::tools::{self, Outcome};
use crate::{ports, wait::wait_until, wire::Raw};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);
/// Enough for a slowed-down save of the largest arena that the tests use.
const SAVE_DEADLINE: Duration = Duration::from_secs(120);
/// The image's name in the data folder.
pub const IMAGE: &str = "dump.cow";

/// The program under test: `COWHERD_BIN`, else `cowherd` in the profile's folder of this test.
///
/// # Errors
/// When it was not built; the message says how.
pub fn binary() -> Result<PathBuf> {
    let path = if let Some(path) = std::env::var_os("COWHERD_BIN") {
        PathBuf::from(path)
    } else {
        // target/<profile>/deps/<this test>
        let test = std::env::current_exe()?;
        let folder = test.parent().and_then(Path::parent).context("this test has no folder")?;
        folder.join("cowherd")
    };
    ensure!(
        path.is_file(),
        "the server is not built: there is no {}. Build it with `cargo build -p cowherd` and the \
         profile of this test, or name a binary in COWHERD_BIN",
        path.display()
    );
    Ok(path)
}

/// Runs `cowherd` with these arguments to its end, as for its subcommands.
///
/// # Errors
/// When it is not built or does not end.
pub fn run<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Result<Outcome> {
    run_within(arguments, DEADLINE)
}

/// As [`run`], for what takes its time.
///
/// # Errors
/// When it was not built, cannot run, or takes too long.
pub fn run_within<A: AsRef<std::ffi::OsStr>>(
    arguments: &[A],
    deadline: Duration,
) -> Result<Outcome> {
    tools::run(Command::new(binary()?).args(arguments), b"", deadline)
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Builder {
    arguments: Vec<(String, String)>,
    folder: Option<PathBuf>,
}

impl Builder {
    /// Sets a directive (`"--threads"`, `"4"`), in place of an earlier value.
    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.arguments.retain(|(known, _)| known != name);
        self.arguments.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses this data folder instead of a temporary one.
    #[must_use]
    pub fn dir(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// When it is not built, exits, or does not answer; with the end of its log.
    pub fn start(self) -> Result<Server> {
        let mut server = Server::spawn(self)?;
        server.wait_ready_or_move()?;
        Ok(server)
    }

    /// Starts a server that must refuse to run: waits for its end, returns status and log.
    ///
    /// # Errors
    /// When it does run.
    pub fn start_refused(self) -> Result<(ExitStatus, String)> {
        let mut server = Server::spawn(self)?;
        let status = tools::wait(&mut server.process, DEADLINE)?;
        let log = server.log();
        Ok((status.with_context(|| format!("the server should have refused:\n{log}"))?, log))
    }
}

/// A server process with its data folder; killed when dropped.
#[derive(Debug)]
pub struct Server {
    builder: Builder,
    process: Child,
    port: u16,
    metrics_port: u16,
    folder: PathBuf,
    control: Mutex<Option<Raw>>,
    /// Holds the log, and the data unless the builder names another folder.
    scratch: tempfile::TempDir,
}

impl Server {
    /// A server for tests: loopback, no save points, `DEBUG` allowed, small and two threads.
    #[must_use]
    pub fn builder() -> Builder {
        let arguments = [
            ("--bind", "127.0.0.1"),
            ("--save", ""),
            ("--enable-debug-command", "yes"),
            ("--maxmemory", "256mb"),
            ("--arena-pages", "small"),
            ("--threads", "2"),
        ];
        let arguments = arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Builder { arguments, folder: None }
    }

    /// As [`Self::builder`], started.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    fn spawn(builder: Builder) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let folder = match &builder.folder {
            Some(folder) => folder.clone(),
            None => {
                let folder = scratch.path().join("data");
                std::fs::create_dir(&folder)?;
                folder
            }
        };
        let (port, metrics_port) = (ports::free()?, ports::free()?);
        let log = File::create(scratch.path().join("log"))?;
        let process = spawn_process(&builder, &folder, port, metrics_port, log)?;
        let control = Mutex::new(None);
        Ok(Self { builder, process, port, metrics_port, folder, control, scratch })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("the server did not start: {status}; its log:\n{}", self.log());
            }
            match Raw::connect(self.port).and_then(|mut raw| raw.text(&["PING"])) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > DEADLINE => {
                    let log = self.log();
                    bail!("the server does not answer ({error:#}); its log:\n{log}");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Kills the server if it still runs, and starts it anew on the same folder.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.respawn()?;
        self.wait_ready_or_move()
    }

    fn respawn(&mut self) -> Result<()> {
        self.port = ports::free()?;
        self.metrics_port = ports::free()?;
        let log = File::options().append(true).open(self.scratch.path().join("log"))?;
        self.process =
            spawn_process(&self.builder, &self.folder, self.port, self.metrics_port, log)?;
        Ok(())
    }

    /// Waits for the first answer; moves to other ports when somebody else was faster to take ours.
    fn wait_ready_or_move(&mut self) -> Result<()> {
        for _ in 0..5 {
            match self.wait_ready() {
                Err(error) if error.to_string().contains("Address already in use") => {
                    self.respawn()?;
                }
                result => return result,
            }
        }
        self.wait_ready()
    }

    /// Kills the server with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill9(&mut self) -> Result<()> {
        self.forget_control();
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Asks the server to stop with SIGTERM and returns how it ended.
    ///
    /// # Errors
    /// When it does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        tools::signal(self.pid(), Signal::SIGTERM)?;
        self.wait_exit()
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        self.forget_control();
        match tools::wait(&mut self.process, DEADLINE)? {
            Some(status) => Ok(status),
            None => bail!("the server did not end within {DEADLINE:?}; its log:\n{}", self.log()),
        }
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The port that clients use.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port of `/metrics` and `/healthz`.
    #[must_use]
    pub const fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The image's path.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join(IMAGE)
    }

    /// What the server wrote to standard output and error since the first start.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.scratch.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A new bare connection.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn raw(&self) -> Result<Raw> {
        Raw::connect(self.port)
    }

    /// A new connection of redis-rs.
    ///
    /// # Errors
    /// When the server has gone or the handshake fails.
    pub fn connection(&self) -> Result<redis::Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        Ok(client.get_connection()?)
    }

    /// Runs `work` on a connection that all helpers here share.
    ///
    /// # Errors
    /// The work's own; then the connection is opened anew next time.
    pub fn control<T>(&self, work: impl FnOnce(&mut Raw) -> Result<T>) -> Result<T> {
        let mut slot = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut raw = match slot.take() {
            Some(raw) => raw,
            None => self.raw()?,
        };
        let result = work(&mut raw)?;
        *slot = Some(raw);
        Ok(result)
    }

    /// Sends one command and returns its reply, which must be text.
    ///
    /// # Errors
    /// An error reply, or a lost connection.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        self.control(|raw| raw.text(arguments)).with_context(|| arguments.join(" "))
    }

    /// One field of `INFO`, `None` when there is no such field.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn info_field(&self, field: &str) -> Result<Option<String>> {
        let info = self.text(&["INFO"])?;
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        Ok(lines.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned()))
    }

    /// One field of `INFO`, which must be there.
    ///
    /// # Errors
    /// When it is not, or the server does not answer.
    pub fn info(&self, field: &str) -> Result<String> {
        self.info_field(field)?.with_context(|| format!("INFO has no field {field}"))
    }

    /// The figures of one line of `INFO checkpoint`, such as `checkpoint_1`.
    ///
    /// # Errors
    /// When there is no such line.
    pub fn checkpoint(&self, line: &str) -> Result<HashMap<String, String>> {
        let info = self.text(&["INFO", "checkpoint"])?;
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| *name == line);
        let (_, figures) = found.with_context(|| format!("no {line} in {info}"))?;
        let pairs = figures.split(',').filter_map(|pair| pair.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The digest of the whole keyspace now.
    ///
    /// # Errors
    /// When the reply is not 40 hexadecimal digits.
    pub fn digest(&self) -> Result<String> {
        let digest = self.text(&["DEBUG", "DIGEST"])?;
        let hex = digest.len() == 40 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(hex, "not a digest: {digest:?}");
        Ok(digest)
    }

    /// Starts a save in a child.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn bgsave(&self) -> Result<()> {
        let reply = self.text(&["BGSAVE"])?;
        ensure!(reply.starts_with("Background saving started"), "BGSAVE says {reply:?}");
        Ok(())
    }

    /// Is a child saving now?
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn is_saving(&self) -> Result<bool> {
        Ok(self.info("rdb_bgsave_in_progress")? != "0")
    }

    /// Waits until no child is saving; `Ok(Err(reason))` when the last save failed.
    ///
    /// # Errors
    /// When the server does not answer, or the save does not end.
    pub fn wait_saved(&self) -> Result<Result<(), String>> {
        wait_until(|| Ok(!self.is_saving()?), SAVE_DEADLINE, "the save to end")?;
        if self.info("rdb_last_bgsave_status")? == "ok" {
            return Ok(Ok(()));
        }
        let reason = self.info_field("cowherd_last_checkpoint_error")?;
        Ok(Err(reason.unwrap_or_default()))
    }

    /// Saves, and waits for success.
    ///
    /// # Errors
    /// When the save fails, with its reason and the log.
    pub fn bgsave_and_wait(&self) -> Result<()> {
        self.bgsave()?;
        match self.wait_saved()? {
            Ok(()) => Ok(()),
            Err(reason) => bail!("the save failed: {reason}; the log:\n{}", self.log()),
        }
    }

    /// Makes the child sleep after each chunk, so that a test can meet it at work.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn delay_saves(&self, microseconds_per_chunk: u64) -> Result<()> {
        let delay = microseconds_per_chunk.to_string();
        self.text(&["DEBUG", "CHECKPOINT-DELAY", &delay]).map(drop)
    }

    /// The process that saves now, if one does.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn child_pid(&self) -> Result<Option<u32>> {
        let pid = self.info("cowherd_checkpoint_child_pid")?.parse::<i64>()?;
        Ok(u32::try_from(pid).ok().filter(|pid| *pid > 0))
    }

    fn forget_control(&self) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn spawn_process(
    builder: &Builder,
    folder: &Path,
    port: u16,
    metrics_port: u16,
    log: File,
) -> Result<Child> {
    let mut command = Command::new(binary()?);
    let given = |name| builder.arguments.iter().any(|(known, _)| known == name);
    for (name, port) in [("--port", port), ("--metrics-port", metrics_port)] {
        if !given(name) {
            command.arg(name).arg(port.to_string());
        }
    }
    command.arg("--dir").arg(folder);
    for (name, value) in &builder.arguments {
        command.arg(name).arg(value);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {command:?}"))
}

/// Did the process end by its own decision with this code, not by a signal?
///
/// # Errors
/// When it did not; the error shows what it wrote.
pub fn expect_code(status: ExitStatus, code: i32, wrote: &str) -> Result<()> {
    if let Some(signal) = status.signal() {
        bail!("died of signal {signal}, but should exit with {code}; it wrote:\n{wrote}");
    }
    ensure!(status.code() == Some(code), "{status}, expected {code}; it wrote:\n{wrote}");
    ensure!(!wrote.contains("panicked at"), "it panicked:\n{wrote}");
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        // The test runner shows this only when the test fails.
        let log = self.log();
        let lines = log.lines().collect::<Vec<_>>();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        eprintln!("the end of the server's log:\n{tail}");
    }
}
