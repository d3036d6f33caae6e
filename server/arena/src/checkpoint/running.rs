//! A save in the background as its parent sees it: progress, cancelling, the end, publishing.
//!
//! 1. The child is killed with the *thread* that forked it (`PR_SET_PDEATHSIG`, prctl(2)). So a
//!    [`Running`] stays on that thread: it is not `Send`, and only its [`Handle`] travels.
//! 2. A process id is used only while the child is not reaped: reaping and killing exclude each
//!    other.
//! 3. Success is told only after rename and sync of the directory. Whatever else happens, the old
//!    image stays and the temporary file goes.

use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::fork::{Prepared, Subject, TempFile};
use super::report::{Failure, NOT_INHERITED, Phase, Progress, Report};
use super::storage::Storage;
use super::sys::SharedReport;
use super::{SaveError, Target};
use crate::memory::pages::Pool;
use crate::stats::Steps;

/// A save that a child is writing. Dropping it kills the child.
pub struct Running {
    prepared: Prepared,
    handle: Handle,
    fork: Duration,
    begun: Instant,
    /// Keeps it on its thread (invariant 1).
    _stays: PhantomData<*const ()>,
}

/// Whoever looks after a save while its child writes.
pub trait Watch {
    /// How long a look may be put off.
    fn patience(&self) -> Duration;
    /// Looks after it; an error if nothing can come of it any more.
    fn look(&mut self) -> Option<SaveError>;
    /// The child is about to give its memory back.
    fn leaves(&mut self);
    /// It shares no memory any more.
    fn gone(&mut self);
}

/// A look at a running save, from any thread.
#[derive(Clone)]
pub struct Handle {
    pid: Pid,
    report: Arc<SharedReport>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    reaped: bool,
    cancelled: bool,
}

/// What a save was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Chunks in the image.
    pub chunks: u64,
    /// Those of them that are compressed.
    pub lz4_chunks: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes of its chunks in memory.
    pub raw_bytes: u64,
    /// Whether the page cache was left aside.
    pub direct: bool,
    /// Where the writer's time went. Compression reads chunks where they lie.
    pub steps: Steps,
    /// Time in `fork()`; zero in the foreground.
    pub fork: Duration,
    /// From the fork until the image was published.
    pub total: Duration,
}

impl Outcome {
    pub(super) fn new(report: &Report, fork: Duration, total: Duration) -> Self {
        Self {
            chunks: report.chunks_done.get(),
            lz4_chunks: report.lz4_chunks.get(),
            image_bytes: report.image_bytes.get(),
            raw_bytes: report.raw_bytes.get(),
            direct: report.direct.get() != 0,
            steps: report.steps(),
            fork,
            total,
        }
    }
}

impl Handle {
    /// The child's process id.
    pub const fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How far the save is.
    pub fn progress(&self) -> Progress {
        self.report.progress()
    }

    /// Whether the child has done its work, well or not, and ends.
    pub fn is_over(&self) -> bool {
        self.report.phase() == Phase::Done || self.report.failure().is_some()
    }

    /// Kills the child, unless it is reaped.
    fn kill(&self) {
        let state = self.state.lock();
        if !state.reaped {
            // The child exists until it is reaped (invariant 2); it may have ended already.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Kills the child; returns whether the save now ends as cancelled.
    pub fn cancel(&self) -> bool {
        let mut state = self.state.lock();
        if state.reaped {
            return false;
        }
        state.cancelled = true;
        // The child exists until it is reaped (invariant 2); it may have ended already.
        let _ = kill(self.pid, Signal::SIGKILL);
        true
    }

    /// Waits for the child to end, and reaps it; `None` if somebody else did.
    fn reap(&self) -> (Option<WaitStatus>, bool) {
        let ended =
            retry(|| waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT));
        let mut state = self.state.lock();
        let status = ended.and_then(|_| retry(|| waitpid(self.pid, None))).ok();
        state.reaped = true;
        (status, state.cancelled)
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

impl Running {
    pub(super) fn new(prepared: Prepared, pid: Pid, fork: Duration) -> Self {
        let begun = Instant::now().checked_sub(fork).unwrap_or_else(Instant::now);
        let report = Arc::clone(&prepared.report);
        let handle = Handle { pid, report, state: Arc::default() };
        Self { prepared, handle, fork, begun, _stays: PhantomData }
    }

    /// The child's process id.
    pub const fn pid(&self) -> i32 {
        self.handle.pid()
    }

    /// How long `fork()` took.
    pub const fn fork_duration(&self) -> Duration {
        self.fork
    }

    /// A look at it for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for the child and publishes its image, unless `watch` finds it worthless.
    ///
    /// # Errors
    /// There is no new image; the old one is kept and the temporary file is gone.
    pub fn wait(mut self, watch: &mut impl Watch) -> Result<Outcome, SaveError> {
        let pid = self.pid();
        let mut worthless = None;
        while !self.prepared.farewell.wait(watch.patience()) {
            worthless = worthless.or_else(|| watch.look());
            if worthless.is_some() {
                self.handle.kill();
            }
        }
        watch.leaves();
        let (status, cancelled) = self.handle.reap();
        watch.gone();
        let report = &self.handle.report;
        if cancelled {
            return Err(SaveError::Cancelled);
        }
        let Subject { backing, capacity } = self.prepared.subject;
        let kind = backing.kind;
        if let (None, Some(WaitStatus::Signaled(_, signal, _))) = (&worthless, status) {
            // Not by us.
            return Err(SaveError::Killed { pid, signal, backing, capacity });
        }
        // Whatever the child made of it: what it saw may be wrong.
        if let Some(why) = worthless.or_else(|| watch.look()) {
            return Err(why);
        }
        if report.failure() == Some(NOT_INHERITED) {
            // The kernel takes a page from the child when it has none for a copy.
            if Pool::read(kind).is_some_and(|pool| pool.available() == 0) {
                return Err(SaveError::PoolDry { pid, kind, capacity });
            }
            return Err(SaveError::NotInherited { pid, kind });
        }
        if let Some(Failure { phase, errno }) = report.failure() {
            return Err(write_error(phase, errno, &self.prepared.temp.path));
        }
        // Without a status (SIGCHLD is ignored, or another part of the process waits for every
        // child) the report alone tells.
        let ended_well = matches!(status, None | Some(WaitStatus::Exited(_, 0)));
        if !ended_well || report.phase() != Phase::Done {
            let what = format!("{status:?} while {:?}", report.phase());
            return Err(SaveError::Lost { pid, what });
        }
        let storage = Arc::clone(&self.prepared.job.out.storage);
        let Prepared { temp, target, .. } = &mut self.prepared;
        publish(temp, target, storage.as_ref())?;
        Ok(Outcome::new(&self.prepared.report, self.fork, self.begun.elapsed()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.handle.cancel() {
            self.handle.reap();
        }
    }
}

/// Puts a whole and durable temporary file in the place of the image.
pub(super) fn publish(
    temp: &mut TempFile,
    target: &Target,
    storage: &dyn Storage,
) -> Result<(), SaveError> {
    let image = target.path();
    if let Err(source) = storage.rename(&temp.path, &image) {
        return Err(SaveError::Rename { from: temp.path.clone(), to: image, source });
    }
    temp.published = true;
    storage.sync_dir(&target.dir).map_err(|source| SaveError::SyncDirectory { image, source })
}

/// The error of a writer that stopped in `phase`.
pub(super) fn write_error(phase: Phase, errno: i32, path: &Path) -> SaveError {
    let action = if phase == Phase::Syncing { "sync" } else { "write to" };
    SaveError::Write { action, path: path.to_owned(), source: io::Error::from_raw_os_error(errno) }
}
