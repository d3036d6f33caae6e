//! A save in the background as its parent sees it: progress, cancelling, the end, publishing.
//!
//! 1. The child is killed with the *thread* that forked it (`PR_SET_PDEATHSIG`, prctl(2)). So a
//!    [`RunningCheckpoint`] stays on that thread: it is not `Send`, and only its [`CheckpointHandle`] travels.
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

use super::fork::{ArenaInfo, PreparedCheckpoint, TempFile};
use super::report::{CheckpointProgress, ChildReport, NOT_INHERITED, WriterFailure, WriterPhase};
use super::storage::Storage;
use super::sys::SharedReport;
use super::{CheckpointError, ImageTarget};
use crate::memory::pages::HugetlbPool;
use crate::stats::WriterTimes;

/// A save that a child is writing. Dropping it kills the child.
pub struct RunningCheckpoint {
    prepared: PreparedCheckpoint,
    handle: CheckpointHandle,
    fork: Duration,
    begun: Instant,
    /// Keeps it on its thread (invariant 1).
    _stays: PhantomData<*const ()>,
}

/// Whoever looks after a save while its child writes.
pub trait CheckpointObserver {
    /// How long a look may be put off.
    fn poll_interval(&self) -> Duration;
    /// Looks after it; an error if nothing can come of it any more.
    fn poll(&mut self) -> Option<CheckpointError>;
    /// The child is about to give its memory back.
    fn child_exiting(&mut self);
    /// It shares no memory any more.
    fn child_exited(&mut self);
}

/// A look at a running save, from any thread.
#[derive(Clone)]
pub struct CheckpointHandle {
    pid: Pid,
    report: Arc<SharedReport>,
    state: Arc<Mutex<ReapState>>,
}

#[derive(Default)]
struct ReapState {
    reaped: bool,
    cancelled: bool,
}

/// What a save was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointOutcome {
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
    pub steps: WriterTimes,
    /// Time in `fork()`; zero in the foreground.
    pub fork: Duration,
    /// From the fork until the image was published.
    pub total: Duration,
}

impl CheckpointOutcome {
    pub(super) fn new(report: &ChildReport, fork: Duration, total: Duration) -> Self {
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

impl CheckpointHandle {
    /// The child's process id.
    pub const fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How far the save is.
    pub fn progress(&self) -> CheckpointProgress {
        self.report.progress()
    }

    /// Whether the child has done its work, well or not, and ends.
    pub fn is_over(&self) -> bool {
        self.report.phase() == WriterPhase::Done || self.report.failure().is_some()
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

impl RunningCheckpoint {
    pub(super) fn new(prepared: PreparedCheckpoint, pid: Pid, fork: Duration) -> Self {
        let begun = Instant::now().checked_sub(fork).unwrap_or_else(Instant::now);
        let report = Arc::clone(&prepared.report);
        let handle = CheckpointHandle { pid, report, state: Arc::default() };
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
    pub fn handle(&self) -> CheckpointHandle {
        self.handle.clone()
    }

    /// Waits for the child and publishes its image, unless `watch` finds it failed.
    ///
    /// # Errors
    /// There is no new image; the old one is kept and the temporary file is child_exited.
    pub fn wait(
        mut self,
        observer: &mut impl CheckpointObserver,
    ) -> Result<CheckpointOutcome, CheckpointError> {
        let pid = self.pid();
        let mut failed = None;
        while !self.prepared.completion.wait(observer.poll_interval()) {
            failed = failed.or_else(|| observer.poll());
            if failed.is_some() {
                self.handle.kill();
            }
        }
        observer.child_exiting();
        let (status, cancelled) = self.handle.reap();
        observer.child_exited();
        let report = &self.handle.report;
        if cancelled {
            return Err(CheckpointError::Cancelled);
        }
        let ArenaInfo { backing, capacity } = self.prepared.arena_info;
        let kind = backing.kind;
        if let (None, Some(WaitStatus::Signaled(_, signal, _))) = (&failed, status) {
            // Not by us.
            return Err(CheckpointError::Killed { pid, signal, backing, capacity });
        }
        // Whatever the child made of it: what it saw may be wrong.
        if let Some(why) = failed.or_else(|| observer.poll()) {
            return Err(why);
        }
        if report.failure() == Some(NOT_INHERITED) {
            // The kernel takes a page from the child when it has none for a copy.
            if HugetlbPool::read(kind).is_some_and(|pool| pool.available() == 0) {
                return Err(CheckpointError::PoolDry { pid, kind, capacity });
            }
            return Err(CheckpointError::NotInherited { pid, kind });
        }
        if let Some(WriterFailure { phase, errno }) = report.failure() {
            return Err(write_error(phase, errno, &self.prepared.temp.path));
        }
        // Without a status (SIGCHLD is ignored, or another part of the process waits for every
        // child) the report alone tells.
        let ended_well = matches!(status, None | Some(WaitStatus::Exited(_, 0)));
        if !ended_well || report.phase() != WriterPhase::Done {
            let what = format!("{status:?} while {:?}", report.phase());
            return Err(CheckpointError::Lost { pid, what });
        }
        let storage = Arc::clone(&self.prepared.job.out.storage);
        let PreparedCheckpoint { temp, target, .. } = &mut self.prepared;
        publish(temp, target, storage.as_ref())?;
        Ok(CheckpointOutcome::new(&self.prepared.report, self.fork, self.begun.elapsed()))
    }
}

impl Drop for RunningCheckpoint {
    fn drop(&mut self) {
        if self.handle.cancel() {
            self.handle.reap();
        }
    }
}

/// Puts a whole and durable temporary file in the place of the image.
pub(super) fn publish(
    temp: &mut TempFile,
    target: &ImageTarget,
    storage: &dyn Storage,
) -> Result<(), CheckpointError> {
    let image = target.path();
    if let Err(source) = storage.rename(&temp.path, &image) {
        return Err(CheckpointError::Rename { from: temp.path.clone(), to: image, source });
    }
    temp.published = true;
    storage.sync_dir(&target.dir).map_err(|source| CheckpointError::SyncDirectory { image, source })
}

/// The error of a writer that stopped in `phase`.
pub(super) fn write_error(phase: WriterPhase, errno: i32, path: &Path) -> CheckpointError {
    let action = if phase == WriterPhase::Syncing { "sync" } else { "write to" };
    CheckpointError::Write {
        action,
        path: path.to_owned(),
        source: io::Error::from_raw_os_error(errno),
    }
}
