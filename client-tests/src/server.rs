//! Running server under test, started by its command line.

use crate::{binaries, ports, tools, wait::wait_until, wire::RawConnection};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time limit for the start and the end of a server.
const DEADLINE: Duration = Duration::from_secs(30);
/// Time limit for a delayed checkpoint of the largest arena in the tests.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(120);
/// Name of the image in the data folder.
pub const IMAGE: &str = "dump.cow";

/// Command line of a server.
#[derive(Clone, Debug)]
pub struct ServerBuilder {
    arguments: Vec<(String, String)>,
    folder: Option<PathBuf>,
    /// Program and arguments that start the server, see [`ServerBuilder::start_held`].
    wrapper: Vec<String>,
}

impl ServerBuilder {
    /// Sets a directive (`"--threads"`, `"4"`); replaces an earlier value.
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
    /// Returns an error with the log if the server exits or does not answer.
    pub fn start(self) -> Result<Server> {
        let mut server = Server::spawn(self)?;
        server.wait_ready_or_move()?;
        Ok(server)
    }

    /// Starts a server that is held up while it reads its image: each of its threads gets no
    /// further than its sixth `pread`. strace holds it, as a process beside it, until
    /// [`Server::release`]. Returns once the server answers that it is loading.
    ///
    /// # Errors
    /// Returns an error with the log if the server exits or does not answer.
    pub fn start_held(mut self) -> Result<Server> {
        let words = "strace -D -f -qq -o /dev/null -e trace=pread64 \
                     -e inject=pread64:delay_enter=600000000:when=6+";
        self.wrapper = words.split_ascii_whitespace().map(str::to_owned).collect();
        let mut server = Server::spawn(self)?;
        server.wait_for(b"-LOADING ")?;
        Ok(server)
    }

    /// Starts a server that must exit by itself; returns its exit status and log.
    ///
    /// # Errors
    /// Returns an error if the server keeps running.
    pub fn start_refused(self) -> Result<(ExitStatus, String)> {
        let mut server = Server::spawn(self)?;
        loop {
            let status = tools::wait(&mut server.process, DEADLINE)?;
            let log = server.log();
            let status =
                status.with_context(|| format!("the server should have refused:\n{log}"))?;
            // Another process may have bound one of the free ports meanwhile, which says nothing.
            let chosen = server.builder.arguments.iter().any(|(name, _)| name.ends_with("port"));
            if chosen || !log.contains("Address already in use") {
                return Ok((status, log));
            }
            std::fs::write(server.scratch.path().join("log"), "")?;
            server.respawn()?;
        }
    }
}

/// Server process with its data folder; dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    builder: ServerBuilder,
    process: Child,
    port: u16,
    metrics_port: u16,
    folder: PathBuf,
    control: Mutex<Option<RawConnection>>,
    /// Folder of the log, and of the data unless the builder names another one.
    scratch: tempfile::TempDir,
}

impl Server {
    /// Command line of a small server for tests: loopback, no save points, `DEBUG` enabled, two
    /// threads.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        let arguments = [
            ("--bind", "127.0.0.1"),
            ("--save", ""),
            ("--enable-debug-command", "yes"),
            ("--maxmemory", "256mb"),
            ("--arena-pages", "small"),
            ("--threads", "2"),
        ];
        let arguments = arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        ServerBuilder { arguments, folder: None, wrapper: Vec::new() }
    }

    /// Starts a server with the command line of [`Self::builder`].
    ///
    /// # Errors
    /// As [`ServerBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    fn spawn(builder: ServerBuilder) -> Result<Self> {
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
        self.wait_for(b"+PONG\r\n")
    }

    /// Waits for a reply to PING that begins with `expected`.
    fn wait_for(&mut self, expected: &[u8]) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("the server did not start: {status}; its log:\n{}", self.log());
            }
            let asked = RawConnection::connect(self.port).and_then(|mut raw| {
                raw.send(b"PING\r\n")?;
                raw.read_reply()
            });
            match asked {
                Ok(reply) if reply.starts_with(expected) => return Ok(()),
                Ok(reply) if start.elapsed() > DEADLINE => {
                    bail!("the reply to PING is {:?}", reply.escape_ascii().to_string());
                }
                Err(error) if start.elapsed() > DEADLINE => {
                    let log = self.log();
                    bail!("the server does not answer ({error:#}); its log:\n{log}");
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Lets a server of [`ServerBuilder::start_held`] read its image, and waits until it serves.
    ///
    /// # Errors
    /// Returns an error with the log if the server exits or does not answer.
    pub fn release(&mut self) -> Result<()> {
        self.end_tracer()?;
        self.wait_ready()
    }

    /// Ends the tracer of [`ServerBuilder::start_held`], if there is one; what it holds goes on.
    ///
    /// # Errors
    /// Returns an error if the server has ended.
    pub fn end_tracer(&self) -> Result<()> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        match tracer.context("no TracerPid")?.trim().parse()? {
            0 => Ok(()),
            tracer => tools::signal(tracer, Signal::SIGKILL),
        }
    }

    /// Kills the server if it still runs, and starts it again on the same folder.
    ///
    /// # Errors
    /// As [`ServerBuilder::start`].
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

    /// Waits for the first answer; starts the server on other ports if another process has bound
    /// one of its ports meanwhile.
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
    /// Returns the error of `kill` or `waitpid`.
    pub fn kill9(&mut self) -> Result<()> {
        self.close_control();
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Sends SIGTERM to the server and waits for its end.
    ///
    /// # Errors
    /// Returns an error if the server does not end within 30 s.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        tools::signal(self.pid(), Signal::SIGTERM)?;
        self.wait_exit()
    }

    /// Waits until the server ends by itself.
    ///
    /// # Errors
    /// Returns an error if the server does not end within 30 s.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        self.close_control();
        match tools::wait(&mut self.process, DEADLINE)? {
            Some(status) => Ok(status),
            None => bail!("the server did not end within {DEADLINE:?}; its log:\n{}", self.log()),
        }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Port for clients.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Port of `/metrics` and `/healthz`.
    #[must_use]
    pub const fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of the image.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join(IMAGE)
    }

    /// Standard output and error of the server since the first start.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.scratch.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Returns an error if the server has ended.
    pub fn raw(&self) -> Result<RawConnection> {
        RawConnection::connect(self.port)
    }

    /// Opens a connection of redis-rs.
    ///
    /// # Errors
    /// Returns an error if the server has ended or the handshake fails.
    pub fn connection(&self) -> Result<redis::Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        Ok(client.get_connection()?)
    }

    /// Runs `work` on the connection that the methods below share. After an error the next call
    /// opens a new connection.
    ///
    /// # Errors
    /// Returns the error of `work`.
    pub fn control<T>(&self, work: impl FnOnce(&mut RawConnection) -> Result<T>) -> Result<T> {
        let mut slot = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut raw = match slot.take() {
            Some(raw) => raw,
            None => self.raw()?,
        };
        let result = work(&mut raw)?;
        *slot = Some(raw);
        Ok(result)
    }

    /// Sends one command whose reply is text.
    ///
    /// # Errors
    /// Returns an error reply as an error, or an error if the connection is lost.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        self.control(|raw| raw.text(arguments)).with_context(|| arguments.join(" "))
    }

    /// Value of a field of `INFO`, or `None` if there is no such field.
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn info_field(&self, field: &str) -> Result<Option<String>> {
        let info = self.text(&["INFO"])?;
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        Ok(lines.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned()))
    }

    /// Value of a field of `INFO`.
    ///
    /// # Errors
    /// Returns an error if there is no such field or the server does not answer.
    pub fn info(&self, field: &str) -> Result<String> {
        self.info_field(field)?.with_context(|| format!("INFO has no field {field}"))
    }

    /// Name-value pairs of one line of `INFO checkpoint`, such as `checkpoint_1`.
    ///
    /// # Errors
    /// Returns an error if there is no such line.
    pub fn checkpoint(&self, line: &str) -> Result<HashMap<String, String>> {
        let info = self.text(&["INFO", "checkpoint"])?;
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| *name == line);
        let (_, figures) = found.with_context(|| format!("no {line} in {info}"))?;
        let pairs = figures.split(',').filter_map(|pair| pair.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Digest of the keyspace, as checkpoints compute it.
    ///
    /// # Errors
    /// Returns an error if the reply is not 40 hexadecimal digits.
    pub fn digest(&self) -> Result<String> {
        let digest = self.text(&["DEBUG", "CHECKPOINT-DIGEST"])?;
        let hex = digest.len() == 40 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(hex, "not a digest: {digest:?}");
        Ok(digest)
    }

    /// Starts a checkpoint in the background.
    ///
    /// # Errors
    /// Returns an error if the server refuses.
    pub fn bgsave(&self) -> Result<()> {
        let reply = self.text(&["BGSAVE"])?;
        ensure!(reply.starts_with("Background saving started"), "BGSAVE says {reply:?}");
        Ok(())
    }

    /// Whether a checkpoint runs.
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn is_checkpoint_running(&self) -> Result<bool> {
        Ok(self.info("rdb_bgsave_in_progress")? != "0")
    }

    /// Waits until no checkpoint runs. Returns `Ok(Err(reason))` if the last one failed.
    ///
    /// # Errors
    /// Returns an error if the server does not answer or the checkpoint does not end.
    pub fn wait_checkpoint(&self) -> Result<Result<(), String>> {
        wait_until(
            || Ok(!self.is_checkpoint_running()?),
            CHECKPOINT_DEADLINE,
            "the checkpoint to end",
        )?;
        if self.info("rdb_last_bgsave_status")? == "ok" {
            return Ok(Ok(()));
        }
        let reason = self.info_field("cowherd_last_checkpoint_error")?;
        Ok(Err(reason.unwrap_or_default()))
    }

    /// Writes a checkpoint in the background and waits for its success.
    ///
    /// # Errors
    /// Returns an error with reason and log if the checkpoint fails.
    pub fn bgsave_and_wait(&self) -> Result<()> {
        self.bgsave()?;
        match self.wait_checkpoint()? {
            Ok(()) => Ok(()),
            Err(reason) => bail!("the checkpoint failed: {reason}; the log:\n{}", self.log()),
        }
    }

    /// Makes the child sleep after each chunk, so that a test can act during a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the server refuses.
    pub fn delay_checkpoints(&self, microseconds_per_chunk: u64) -> Result<()> {
        let delay = microseconds_per_chunk.to_string();
        self.text(&["DEBUG", "CHECKPOINT-DELAY", &delay]).map(drop)
    }

    /// Process id of the child that writes a checkpoint, if one does.
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn child_pid(&self) -> Result<Option<u32>> {
        let pid = self.info("cowherd_checkpoint_child_pid")?.parse::<i64>()?;
        Ok(u32::try_from(pid).ok().filter(|pid| *pid > 0))
    }

    fn close_control(&self) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn spawn_process(
    builder: &ServerBuilder,
    folder: &Path,
    port: u16,
    metrics_port: u16,
    log: File,
) -> Result<Child> {
    let mut command = match builder.wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(binaries::cowherd()?);
            command
        }
        None => Command::new(binaries::cowherd()?),
    };
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

/// Checks that a process exited with `code`, neither by a signal nor by a panic.
///
/// # Errors
/// Returns an error with the output of the process if it did not.
pub fn expect_code(status: ExitStatus, code: i32, output: &str) -> Result<()> {
    if let Some(signal) = status.signal() {
        bail!("died of signal {signal}, but should exit with {code}; it wrote:\n{output}");
    }
    ensure!(status.code() == Some(code), "{status}, expected {code}; it wrote:\n{output}");
    ensure!(!output.contains("panicked at"), "it panicked:\n{output}");
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails once the server has ended.
        drop(self.end_tracer());
        drop(self.process.kill());
        drop(self.process.wait());
        // The test harness shows this only if the test fails.
        let log = self.log();
        let lines = log.lines().collect::<Vec<_>>();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        eprintln!("the end of the server's log:\n{tail}");
    }
}
