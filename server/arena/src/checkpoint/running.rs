//! `RunningCheckpoint`: a background checkpoint as its parent sees it: progress, cancellation, the
//! end, publication.
//!
//! 1. The kernel kills the child when the *thread* that forked it ends (`PR_SET_PDEATHSIG`,
//!    prctl(2)). So a [`RunningCheckpoint`] stays on that thread: it is not `Send`; other threads
//!    get a [`CheckpointHandle`].
//! 2. A process id is used only while the child is not reaped: reaping and killing exclude each
//!    other.
//! 3. Success is reported only after the rename and the sync of the directory. In every other case
//!    the old image stays and the temporary file is removed.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::completion_pipe::CompletionPipe;
use super::publish::TempFile;
use super::report::{CheckpointProgress, ChildReport, NOT_INHERITED, WriterFailure, WriterPhase};
use super::sys::SharedReport;
use super::writer::Job;
use super::{CheckpointError, ImageTarget};
use crate::Recording;
use crate::memory::pages::{Backing, HugetlbPool};
use crate::stats::WriterTimes;

/// The arena of a checkpoint, for the texts of errors.
#[derive(Clone, Copy)]
pub(super) struct ArenaInfo {
    pub backing: Backing,
    pub capacity: u64,
}

/// What the parent keeps of a prepared checkpoint while the child writes.
pub(super) struct Resources {
    pub job: Job,
    pub _buffer: MmapMut,
    pub report: Arc<SharedReport>,
    pub temp: TempFile,
    pub target: ImageTarget,
    pub completion: CompletionPipe,
    pub arena: ArenaInfo,
}

/// A checkpoint whose image a child is writing. Dropping it kills the child and ends the recording.
pub struct RunningCheckpoint<'a> {
    resources: Resources,
    handle: CheckpointHandle,
    recording: Option<Recording<'a>>,
    fork: Duration,
    begun: Instant,
    /// Invariant 1.
    not_send: PhantomData<*const ()>,
}

/// Callbacks while a child writes.
pub trait CheckpointObserver<'a> {
    /// The longest time between two calls of [`Self::poll`].
    fn poll_interval(&self) -> Duration;
    /// Work that the running checkpoint needs; an error if the checkpoint can only fail.
    fn poll(&mut self) -> Option<CheckpointError>;
    /// The child is about to return its memory.
    fn child_exiting(&mut self);
    /// The child has ended: the observer finishes the recording at a safepoint.
    fn child_exited(&mut self, recording: Recording<'a>);
}

/// A running checkpoint for other threads.
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

/// Figures of a checkpoint that has ended well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointOutcome {
    /// Chunks in the image.
    pub chunks: u64,
    /// Compressed chunks among them.
    pub lz4_chunks: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes of the chunks without what is free in them.
    pub raw_bytes: u64,
    /// Whether the image was written past the page cache.
    pub direct: bool,
    /// Time that the writer spent on each step. Compression reads chunks where they lie.
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

    /// The counters of the child.
    pub fn progress(&self) -> CheckpointProgress {
        self.report.progress()
    }

    /// Whether the child has finished its work, well or not, and is ending.
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

    /// Kills the child; returns whether the checkpoint now ends as cancelled.
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

    /// Waits for the end of the child and reaps it; `None` if another part of the process did.
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

impl<'a> RunningCheckpoint<'a> {
    pub(super) fn new(
        pid: Pid,
        fork: Duration,
        recording: Recording<'a>,
        resources: Resources,
    ) -> Self {
        let begun = Instant::now().checked_sub(fork).unwrap_or_else(Instant::now);
        let report = Arc::clone(&resources.report);
        let handle = CheckpointHandle { pid, report, state: Arc::default() };
        let recording = Some(recording);
        Self { resources, handle, recording, fork, begun, not_send: PhantomData }
    }

    /// The child's process id.
    pub const fn pid(&self) -> i32 {
        self.handle.pid()
    }

    /// Time in `fork()`.
    pub const fn fork_duration(&self) -> Duration {
        self.fork
    }

    /// A handle for other threads.
    pub fn handle(&self) -> CheckpointHandle {
        self.handle.clone()
    }

    /// Waits for the end of the child and publishes its image, unless `observer` finds that the
    /// checkpoint has failed.
    ///
    /// # Errors
    /// There is no new image; the old one is kept and the temporary file is removed.
    pub fn wait(
        mut self,
        observer: &mut impl CheckpointObserver<'a>,
    ) -> Result<CheckpointOutcome, CheckpointError> {
        let mut failed = None;
        while !self.resources.completion.wait(observer.poll_interval()) {
            failed = failed.or_else(|| observer.poll());
            if failed.is_some() {
                self.handle.kill();
            }
        }
        observer.child_exiting();
        let (status, cancelled) = self.handle.reap();
        if let Some(recording) = self.recording.take() {
            observer.child_exited(recording);
        }
        if cancelled {
            return Err(CheckpointError::Cancelled);
        }
        self.check_end(status, failed, observer)?;
        let Resources { temp, target, job, report, .. } = &mut self.resources;
        temp.publish(target, job.out.storage.as_ref())?;
        Ok(CheckpointOutcome::new(report, self.fork, self.begun.elapsed()))
    }

    /// Checks that the child has written a complete image.
    fn check_end(
        &self,
        status: Option<WaitStatus>,
        failed: Option<CheckpointError>,
        observer: &mut impl CheckpointObserver<'a>,
    ) -> Result<(), CheckpointError> {
        let pid = self.pid();
        let report = &self.handle.report;
        let ArenaInfo { backing, capacity } = self.resources.arena;
        let kind = backing.kind;
        if let (None, Some(WaitStatus::Signaled(_, signal, _))) = (&failed, status) {
            // Not by this process.
            return Err(CheckpointError::Killed { pid, signal, backing, capacity });
        }
        // Whatever the child has written: what it saw may be wrong.
        if let Some(why) = failed.or_else(|| observer.poll()) {
            return Err(why);
        }
        if report.failure() == Some(NOT_INHERITED) {
            // The kernel takes a page from the child when it has none for a copy.
            if HugetlbPool::read(kind).is_some_and(|pool| pool.available() == 0) {
                return Err(CheckpointError::PoolExhausted { pid, kind, capacity });
            }
            return Err(CheckpointError::NotInherited { pid, kind });
        }
        if let Some(WriterFailure { phase, errno }) = report.failure() {
            return Err(self.resources.temp.write_error(phase, errno));
        }
        // Without a status (SIGCHLD is ignored, or another part of the process waits for every
        // child) only the report tells the outcome.
        let ended_well = matches!(status, None | Some(WaitStatus::Exited(_, 0)));
        if !ended_well || report.phase() != WriterPhase::Done {
            let what = format!("{status:?} while {:?}", report.phase());
            return Err(CheckpointError::Lost { pid, what });
        }
        Ok(())
    }
}

impl Drop for RunningCheckpoint<'_> {
    fn drop(&mut self) {
        // The recording, if it is still there, ends after this: the child must be gone first.
        if self.handle.cancel() {
            self.handle.reap();
        }
    }
}
