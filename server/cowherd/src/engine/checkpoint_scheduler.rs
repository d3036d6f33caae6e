//! Saving: who may, when, and what became of it.
//!
//! One thread forks and waits for its children, since a child dies with the thread that forked it.
//! Others ask it through a channel and get an answer once the fork is done, so that a client that
//! reads `Background saving started` knows that everything it wrote before is in the image.
//!
//! Invariants:
//! 1. At most one save runs: whoever starts one has set `busy` before.
//! 2. The barrier records exactly while a child runs.
//! 3. Once the final save of a shutdown is taken, no command runs any more: `Shared::closing` is
//!    set before the safepoint ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::checkpoint_run::{self, CheckpointRun, plan, write_here};
use super::thp_collapser::ThpCollapser;
use crate::clock;
use crate::commands::Shared;
use crate::keyspace::Keyspace;
use cowherd_arena::ShardSet;
use cowherd_arena::checkpoint::{CheckpointError, CheckpointHandle, CheckpointOutcome, restore};

pub(super) const BUSY: &str = "ERR Background save already in progress";
/// Forks that one save may take: see [`CheckpointError::NotInherited`].
const MAX_FORKS: u32 = 30;
/// From one of them to the next: each holds all clients up.
const REFORK_PAUSE: Duration = Duration::from_millis(10);
const CLOSED: &str = "ERR The server is shutting down";

/// Starts saves, one at a time, and knows the one that runs.
pub struct CheckpointScheduler {
    state: Mutex<State>,
    /// Told when `busy` ends.
    idle: Condvar,
    requests: Mutex<Option<Sender<Request>>>,
}

#[derive(Default)]
struct State {
    busy: bool,
    /// The save that runs is one that everybody waits for: nobody can cancel it.
    foreground: bool,
    scheduled: bool,
    closed: bool,
    /// The save that runs was told to stop between two forks.
    cancelled: bool,
    running: Option<CheckpointHandle>,
}

/// Is told what to reply.
type CommandResult = Box<dyn FnOnce(Result<String, String>) + Send>;

/// Asks the saver's thread for a save; the answer comes after the fork.
struct Request {
    answer: CommandResult,
}

/// What became of the wish for a save.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointRequest {
    /// The saver's thread was asked for it.
    Asked,
    /// It follows the one that runs.
    Scheduled,
}

impl CheckpointScheduler {
    /// The saver of one server, and its thread, which ends when the saver is closed.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        shared: &Arc<Shared>,
    ) -> std::io::Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let (sender, receiver) = channel();
        let saver = Arc::new(Self {
            state: Mutex::default(),
            idle: Condvar::new(),
            requests: Mutex::new(Some(sender)),
        });
        let (this, shared) = (Arc::clone(&saver), Arc::clone(shared));
        let thread = std::thread::Builder::new()
            .name("saver".into())
            .spawn(move || this.serve(&shared, &receiver))?;
        Ok((saver, thread))
    }

    /// Starts a save in the background, or after the one that runs if `schedule`. Once it has
    /// forked, or could not, `answer` is told what to reply; it is not called for one that is
    /// scheduled.
    ///
    /// # Errors
    /// One runs already, or the server is shutting down.
    pub fn start_background(
        &self,
        schedule: bool,
        answer: impl FnOnce(Result<String, String>) + Send + 'static,
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
        if self.ask(Request { answer: Box::new(answer) }) {
            Ok(CheckpointRequest::Asked)
        } else {
            Err(CLOSED.into())
        }
    }

    /// As [`Self::start_background`], and waits until it has forked.
    ///
    /// # Errors
    /// As that, or there is no child to be had.
    pub(super) fn start_background_and_await_fork(&self) -> Result<(), String> {
        let (answer, answered) = sync_channel(1);
        // Whoever asks waits.
        self.start_background(false, move |came| drop(answer.send(came)))?;
        answered.recv().unwrap_or_else(|_| Err(CLOSED.into())).map(drop)
    }

    /// Hands a request to the saver's thread; tells whether there is one.
    fn ask(&self, request: Request) -> bool {
        self.requests.lock().as_ref().is_some_and(|requests| requests.send(request).is_ok())
    }

    /// Saves here and now, while everybody waits.
    ///
    /// # Errors
    /// A save runs, or this one failed; the text is the reply.
    pub fn run_foreground(&self, shared: &Shared) -> Result<(), String> {
        self.begin_here()?;
        let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        let result = write_here(shared, &mut shards);
        drop(shards);
        self.end_here();
        result.map_err(|error| format!("ERR {error}"))
    }

    /// Reserves the right to save on this thread.
    fn begin_here(&self) -> Result<(), String> {
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

    /// Gives it back, or passes it on to a save that was scheduled meanwhile.
    fn end_here(&self) {
        let mut state = self.state.lock();
        state.foreground = false;
        if std::mem::take(&mut state.scheduled) && !state.closed {
            // Nobody waits for the answer: the schedule was answered already.
            if self.ask(Request { answer: Box::new(drop) }) {
                return;
            }
        }
        state.busy = false;
        self.idle.notify_all();
    }

    /// Stops the save that runs, and forgets the one that is scheduled.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn cancel(&self, shared: &Shared) -> Result<String, String> {
        let mut state = self.state.lock();
        // Killed, the child gives its memory back without a word.
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

    /// Stops the save that runs and lets no other start; from then on the caller alone may save.
    pub(super) fn close_for_shutdown(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.scheduled = false;
        while state.busy {
            if let Some(handle) = &state.running {
                handle.cancel();
            }
            // A child may be forked only after the look at it: look again now and then.
            self.idle.wait_for(&mut state, Duration::from_millis(20));
        }
        state.busy = true;
        state.foreground = true;
    }

    /// The final save, after [`Self::close_for_shutdown`]. If it succeeds no command runs any
    /// more.
    pub(super) fn checkpoint_on_shutdown(
        &self,
        shared: &Shared,
        save: bool,
    ) -> Result<(), CheckpointError> {
        let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        if save {
            write_here(shared, &mut shards)?;
        }
        shared.closing.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Lets commands run although the final save failed.
    pub(super) fn force_close(shared: &Shared) {
        let _shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        shared.closing.store(true, Ordering::Relaxed);
    }

    /// Lets saves start again.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        state.closed = false;
        state.busy = false;
        state.foreground = false;
        self.idle.notify_all();
    }

    /// Ends the saver's thread.
    pub fn close(&self) {
        self.requests.lock().take();
    }

    /// Takes samples of the save that runs.
    pub fn sample(&self, shared: &Shared) {
        let running = self.state.lock().running.clone();
        if let Some(child) = running {
            checkpoint_run::sample(shared, &child);
        }
    }

    fn serve(&self, shared: &Shared, requests: &Receiver<Request>) {
        let mut healer = ThpCollapser::new();
        if let Some(log) = shared.keyspace.arena().barrier().undo_log() {
            log.prefault();
        }
        loop {
            match requests.recv_timeout(healer.pause()) {
                Ok(request) => {
                    let mut answer = Some(request.answer);
                    while self.save(shared, answer.take()) {}
                    healer.look_soon();
                }
                Err(RecvTimeoutError::Timeout) => {
                    healer.step(shared, || self.state.lock().busy);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One save from beginning to end; tells whether another is to follow. `answer` is told once
    /// the fork is done.
    fn save(&self, shared: &Shared, mut answer: Option<CommandResult>) -> bool {
        let mut save = CheckpointRun::new(shared);
        let result = loop {
            let running = match save.fork() {
                Ok(running) => running,
                Err(error) => break Err(error),
            };
            self.set_running(running.handle());
            if let Some(answer) = answer.take() {
                answer(Ok("Background saving started".into()));
            }
            match save.wait(running) {
                // Seen at once, before anything was written; a later instant does as well.
                Err(CheckpointError::NotInherited { .. })
                    if save.forks < MAX_FORKS && self.may_fork_again() =>
                {
                    std::thread::sleep(REFORK_PAUSE);
                }
                result => break result,
            }
        };
        let again = self.end(&save, &result);
        if let (Err(error), Some(answer)) = (result, answer) {
            answer(Err(format!("ERR {error}")));
        }
        again
    }

    /// Makes the child known; ends it at once if the save was cancelled meanwhile.
    fn set_running(&self, handle: CheckpointHandle) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.cancelled) || state.closed {
            handle.cancel();
        }
        state.running = Some(handle);
    }

    /// Whether a save whose child was of no use may fork once more.
    fn may_fork_again(&self) -> bool {
        let mut state = self.state.lock();
        state.running = None;
        !state.closed
    }

    /// Ends a save; tells whether another is to follow. Whoever sees in the figures that it has
    /// ended can start the next one.
    fn end(
        &self,
        save: &CheckpointRun<'_>,
        result: &Result<CheckpointOutcome, CheckpointError>,
    ) -> bool {
        let mut state = self.state.lock();
        save.finish(result);
        state.running = None;
        state.cancelled = false;
        let again = std::mem::take(&mut state.scheduled) && !state.closed;
        if !again {
            state.busy = false;
            self.idle.notify_all();
        }
        again
    }

    /// DEBUG RELOAD: saves, restores the image beside what is there, and compares the two.
    pub(super) fn reload(&self, shared: &Shared) -> Result<(), String> {
        self.begin_here()?;
        let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        let saved = write_here(shared, &mut shards);
        self.end_here();
        saved.map_err(|error| format!("ERR {error}"))?;
        let (target, options) = plan(shared);
        let here = shards.digest();
        let arena = shared.keyspace.arena();
        let kind = cowherd_arena::PageKind::Small;
        let there = restore(&target.path(), kind, arena.capacity(), options.layout, 2)
            .map_err(|error| format!("ERR {error}"))?;
        let again = Keyspace::open(there.0).map_err(|error| format!("ERR {error}"))?;
        again.verify(2).map_err(|broken| format!("ERR {broken}"))?;
        if again.lock(ShardSet::ALL, 0).digest() == here {
            Ok(())
        } else {
            Err("ERR what was restored is not what was saved".into())
        }
    }
}
