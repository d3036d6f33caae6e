//! The checkpoint scheduler: admits checkpoints one at a time and owns the thread that forks.
//!
//! One thread forks and waits for its children, since a child is killed with the thread that forked
//! it (`PR_SET_PDEATHSIG`). Other threads send requests through a channel; the answer comes after
//! the fork, so that a client that reads `Background saving started` knows that the image will hold
//! everything it wrote before. Between checkpoints the thread collapses chunks that lie on
//! small pages into huge ones.
//!
//! Invariants:
//! 1. At most one checkpoint runs: `SchedulerState::busy` is set before one starts.
//! 2. The write barrier records exactly while a child runs.
//! 3. No command runs after the last checkpoint of a shutdown: `Shared::closing` is set before the
//!    safepoint ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::checkpoint_run::{self, CheckpointRun, write_in_foreground};
use super::thp_collapser::ThpCollapser;
use crate::clock;
use crate::commands::Shared;
use cowherd_arena::ShardSet;
use cowherd_arena::checkpoint::{CheckpointError, CheckpointHandle, CheckpointOutcome};

pub(super) const BUSY: &str = "ERR Background save already in progress";
const CLOSED: &str = "ERR The server is shutting down";
/// Most forks of one checkpoint: see [`CheckpointError::NotInherited`].
const MAX_FORKS: u32 = 30;
/// Pause before a repeated fork, because each fork stalls all clients.
const REFORK_PAUSE: Duration = Duration::from_millis(10);
/// Period at which a shutdown cancels again: a child that is forked after the first cancellation
/// does not notify `idle`.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// Starts checkpoints, one at a time, and gives access to the running one.
pub(crate) struct CheckpointScheduler {
    state: Mutex<SchedulerState>,
    /// Notified when `busy` is cleared.
    idle: Condvar,
    /// `None` once the scheduler is closed, which ends the thread.
    requests: Mutex<Option<Sender<OnFork>>>,
}

#[derive(Default)]
struct SchedulerState {
    busy: bool,
    /// The running checkpoint holds all shards, so it cannot be cancelled.
    foreground: bool,
    /// Another background checkpoint follows the running one.
    scheduled: bool,
    closed: bool,
    /// The running checkpoint was cancelled while it had no child.
    cancelled: bool,
    running: Option<CheckpointHandle>,
}

/// Called once a background checkpoint has forked or failed to, with the reply for the client.
type OnFork = Box<dyn FnOnce(Result<String, String>) + Send>;

/// How the scheduler accepted a request for a background checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CheckpointRequest {
    /// The checkpoint starts now; the answer comes after its fork.
    Accepted,
    /// The checkpoint starts after the running one.
    Scheduled,
}

impl CheckpointScheduler {
    /// Creates the scheduler and starts its thread, which ends after [`Self::close`].
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub(crate) fn start(
        shared: &Arc<Shared>,
    ) -> std::io::Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let (sender, receiver) = channel();
        let scheduler = Arc::new(Self {
            state: Mutex::default(),
            idle: Condvar::new(),
            requests: Mutex::new(Some(sender)),
        });
        let (this, shared) = (Arc::clone(&scheduler), Arc::clone(shared));
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || this.run(&shared, &receiver))?;
        Ok((scheduler, thread))
    }

    /// A scheduler that is closed from the start and has no thread.
    pub(super) fn closed() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(SchedulerState { closed: true, ..SchedulerState::default() }),
            idle: Condvar::new(),
            requests: Mutex::new(None),
        })
    }

    /// Starts a background checkpoint or, if one runs and `schedule` is set, schedules the next.
    /// Once the started checkpoint has forked, or failed to, `on_fork` is called with the reply; a
    /// scheduled checkpoint does not call it.
    ///
    /// # Errors
    /// A checkpoint runs already, or the server is shutting down; the text is the reply.
    pub(crate) fn start_background(
        &self,
        schedule: bool,
        on_fork: impl FnOnce(Result<String, String>) + Send + 'static,
    ) -> Result<CheckpointRequest, String> {
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(CLOSED.into());
            }
            if state.busy && schedule {
                state.scheduled = true;
                return Ok(CheckpointRequest::Scheduled);
            }
            if state.busy {
                return Err(BUSY.into());
            }
            state.busy = true;
        }
        if self.send(Box::new(on_fork)) {
            Ok(CheckpointRequest::Accepted)
        } else {
            Err(CLOSED.into())
        }
    }

    /// Starts a background checkpoint and waits for its fork.
    ///
    /// # Errors
    /// As [`Self::start_background`], or the fork failed.
    pub(super) fn start_background_and_await_fork(&self) -> Result<(), String> {
        let (sender, receiver) = sync_channel(1);
        self.start_background(false, move |result| drop(sender.send(result)))?;
        receiver.recv().unwrap_or_else(|_| Err(CLOSED.into())).map(drop)
    }

    /// Sends a request to the thread; false once the scheduler is closed.
    fn send(&self, on_fork: OnFork) -> bool {
        self.requests.lock().as_ref().is_some_and(|requests| requests.send(on_fork).is_ok())
    }

    /// Runs a checkpoint on the calling thread with all shards locked.
    ///
    /// # Errors
    /// A checkpoint runs already, or this one failed; the text is the reply.
    pub(crate) fn run_foreground(&self, shared: &Shared) -> Result<(), String> {
        self.begin_foreground()?;
        let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        let result = write_in_foreground(shared, &mut shards);
        drop(shards);
        self.end_foreground();
        result.map_err(|error| format!("ERR {error}"))
    }

    /// Sets `busy` for a checkpoint on the calling thread.
    pub(super) fn begin_foreground(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(CLOSED.into());
        }
        if state.busy {
            return Err(BUSY.into());
        }
        state.busy = true;
        state.foreground = true;
        Ok(())
    }

    /// Clears `busy`, or passes it on to a checkpoint that was scheduled meanwhile.
    pub(super) fn end_foreground(&self) {
        let mut state = self.state.lock();
        state.foreground = false;
        // The client that scheduled the checkpoint has its reply already.
        if std::mem::take(&mut state.scheduled) && !state.closed && self.send(Box::new(drop)) {
            return;
        }
        state.busy = false;
        self.idle.notify_all();
    }

    /// Cancels the running background checkpoint and the scheduled one.
    ///
    /// # Errors
    /// There is neither; the text is the reply.
    pub(super) fn cancel(&self, shared: &Shared) -> Result<String, String> {
        let mut state = self.state.lock();
        // A killed child frees its memory without a notice through the completion pipe.
        shared.keyspace.arena().barrier().child_exiting();
        let scheduled = std::mem::take(&mut state.scheduled);
        let forking = state.busy && !state.foreground && state.running.is_none();
        state.cancelled = forking;
        let cancelled = forking || state.running.as_ref().is_some_and(CheckpointHandle::cancel);
        if cancelled || scheduled {
            Ok("Background saving cancelled".into())
        } else {
            Err("ERR Background saving is currently not in progress or scheduled".into())
        }
    }

    /// Cancels the running checkpoint and rejects new ones; afterwards only the caller may run one.
    pub(super) fn close_for_shutdown(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.scheduled = false;
        while state.busy {
            if let Some(handle) = &state.running {
                handle.cancel();
            }
            self.idle.wait_for(&mut state, CANCEL_POLL);
        }
        state.busy = true;
        state.foreground = true;
    }

    /// Runs the last checkpoint, if `save` is set, and stops all commands. Requires
    /// [`Self::close_for_shutdown`].
    ///
    /// # Errors
    /// The checkpoint failed; commands still run.
    pub(super) fn checkpoint_on_shutdown(
        &self,
        shared: &Shared,
        save: bool,
    ) -> Result<(), CheckpointError> {
        let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        if save {
            write_in_foreground(shared, &mut shards)?;
        }
        shared.closing.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Stops all commands although the last checkpoint failed.
    pub(super) fn force_close(shared: &Shared) {
        let _shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        shared.closing.store(true, Ordering::Relaxed);
    }

    /// Admits checkpoints again after a shutdown that failed.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        state.closed = false;
        state.busy = false;
        state.foreground = false;
        self.idle.notify_all();
    }

    /// Ends the scheduler's thread.
    pub(crate) fn close(&self) {
        self.requests.lock().take();
    }

    /// Records the progress and the cost of the running checkpoint, if there is one.
    pub(super) fn sample(&self, shared: &Shared) {
        let running = self.state.lock().running.clone();
        if let Some(child) = running {
            checkpoint_run::sample(shared, &child);
        }
    }

    fn run(&self, shared: &Shared, requests: &Receiver<OnFork>) {
        let mut collapser = ThpCollapser::new();
        if let Some(log) = shared.keyspace.arena().barrier().undo_log() {
            log.prefault();
        }
        loop {
            match requests.recv_timeout(collapser.idle_time()) {
                Ok(on_fork) => {
                    let mut on_fork = Some(on_fork);
                    while self.run_background(shared, on_fork.take()) {}
                    // Under the undo log a checkpoint splits nothing.
                    if !shared.keyspace.arena().keeps_stock() {
                        collapser.rescan();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    collapser.step(shared, || self.state.lock().busy);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Runs one background checkpoint; returns whether another is scheduled.
    fn run_background(&self, shared: &Shared, mut on_fork: Option<OnFork>) -> bool {
        let mut run = CheckpointRun::new(shared);
        let result = loop {
            let running = match run.fork() {
                Ok(running) => running,
                Err(error) => break Err(error),
            };
            self.set_running(running.handle());
            if let Some(on_fork) = on_fork.take() {
                on_fork(Ok("Background saving started".into()));
            }
            match run.wait(running) {
                // The child detects this before it writes anything, and a later safepoint serves
                // as well.
                Err(CheckpointError::NotInherited { .. })
                    if run.forks < MAX_FORKS && self.may_fork_again() =>
                {
                    std::thread::sleep(REFORK_PAUSE);
                }
                result => break result,
            }
        };
        let again = self.finish(&run, &result);
        if let (Err(error), Some(on_fork)) = (result, on_fork) {
            on_fork(Err(format!("ERR {error}")));
        }
        again
    }

    /// Publishes the child's handle, and cancels the child if a cancellation came during the fork.
    fn set_running(&self, handle: CheckpointHandle) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.cancelled) || state.closed {
            handle.cancel();
        }
        state.running = Some(handle);
    }

    /// Removes the handle of a failed child; returns whether the checkpoint may fork again.
    fn may_fork_again(&self) -> bool {
        let mut state = self.state.lock();
        state.running = None;
        !state.closed
    }

    /// Ends a checkpoint; returns whether another is scheduled.
    fn finish(
        &self,
        run: &CheckpointRun<'_>,
        result: &Result<CheckpointOutcome, CheckpointError>,
    ) -> bool {
        let mut state = self.state.lock();
        // Under the lock: a client that sees the end in INFO can start the next checkpoint.
        run.finish(result);
        state.running = None;
        state.cancelled = false;
        let again = std::mem::take(&mut state.scheduled) && !state.closed;
        if !again {
            state.busy = false;
            self.idle.notify_all();
        }
        again
    }
}
