//! The state of saving and restoring, as INFO, the metrics and the live page show it.
//!
//! The engine tells events, named after what happened; readers take a [`PersistenceStatus`].
//!
//! Invariants:
//! 1. The lock is held for a few moves only. Nothing a command waits for holds it, and a forked
//!    child never touches this module.
//! 2. Changes since the last save are the difference of two readings of one counter, so what is
//!    written while a save runs is counted as not saved yet.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;

use super::saves::{CheckpointRecord, CheckpointStatus, History};
use crate::clock::{self, Timestamp};
use cowherd_arena::stats::WriterTimes;
use cowherd_arena::stats::{Distribution, Histogram};

/// A save begins: what is known at the fork.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointStart {
    /// The child's process id; 0 for a save in the foreground.
    pub pid: i32,
    /// All changes ever made, read inside the safepoint.
    pub changes: u64,
    /// A digest of the data, taken inside the safepoint; for tests.
    pub digest: Option<String>,
    /// The figures there are; number, time and status are filled in here.
    pub record: CheckpointRecord,
}

/// How long a fork held up the clients, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForkTimes {
    /// From asking for the first lock to holding the last.
    pub wait: Duration,
    /// In `fork(2)`.
    pub fork: Duration,
    /// From asking for the first lock to releasing the last.
    pub hold_up: Duration,
}

/// What a restore reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreReport {
    /// Keys restored.
    pub keys_loaded: u64,
    /// Keys dropped because their time was over.
    pub keys_expired: u64,
    /// Size of the image.
    pub image_bytes: u64,
    /// All changes counted so far; they are in the image.
    pub changes: u64,
    /// A digest of the restored data; for tests.
    pub digest: Option<String>,
}

/// A save that runs.
#[derive(Debug, Clone)]
struct Running {
    start: CheckpointStart,
    at: Timestamp,
    sampled: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    loading_since: Option<Timestamp>,
    /// The value of the counter of changes that the image on disk holds.
    saved_changes: u64,
    last_checkpoint_ms: i64,
    last_error: Option<String>,
    last_failed: bool,
    last_duration: Option<Duration>,
    last_cow: u64,
    last_undo: u64,
    last_digest: Option<String>,
    image_bytes: u64,
    totals: CheckpointTotals,
    history: History,
    latest_fork: ForkTimes,
    restore: Option<(RestoreReport, Duration)>,
}

/// Sums over all saves since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointTotals {
    /// Saves begun.
    pub begun: u64,
    /// Saves that failed.
    pub failed: u64,
    /// Where the writers' time went.
    pub steps: WriterTimes,
    /// Bytes of memory written.
    pub raw_bytes: u64,
    /// Bytes of the images.
    pub image_bytes: u64,
    /// Records of undo logs that were written where an older one had stood.
    pub undo_reused_records: u64,
    /// See [`CheckpointRecord::other_page_faults`].
    pub other_page_faults: u64,
}

impl CheckpointTotals {
    fn add(&mut self, record: &CheckpointRecord) {
        self.steps = self.steps.plus(&record.steps);
        self.raw_bytes += record.raw_bytes;
        self.image_bytes += record.image_bytes;
        self.undo_reused_records += record.undo.reused_records;
        self.other_page_faults += record.other_page_faults.unwrap_or(0);
    }
}

/// The state of saving and restoring.
#[derive(Debug, Default)]
pub struct Persistence {
    loading: AtomicBool,
    loaded_bytes: AtomicU64,
    loading_total_bytes: AtomicU64,
    /// Asked for at each write: not behind the lock.
    writes_are_unsafe: AtomicBool,
    state: Mutex<State>,
    /// Written under the lock of `state`, as the two that follow.
    hold_ups: Histogram,
    waits: Histogram,
    forks: Histogram,
}

impl Persistence {
    /// The state of a server that starts now with no image.
    pub(super) fn new(now: Timestamp) -> Self {
        let persistence = Self::default();
        persistence.state.lock().last_checkpoint_ms = now.wall_ms;
        persistence
    }

    /// A restore begins, from an image of so many bytes.
    pub fn loading_started(&self, total_bytes: u64, now: Timestamp) {
        self.state.lock().loading_since = Some(now);
        self.loaded_bytes.store(0, Relaxed);
        self.loading_total_bytes.store(total_bytes, Relaxed);
        self.loading.store(true, Release);
    }

    #[cfg(test)]
    /// So many bytes of the image are read; from any thread.
    pub fn loading_progress(&self, bytes: u64) {
        self.loaded_bytes.store(bytes, Relaxed);
    }

    /// The restore succeeded; the server serves from now on.
    pub fn loading_finished(&self, now: Timestamp, report: RestoreReport) {
        let mut state = self.state.lock();
        let duration = state.loading_since.take().map_or(Duration::ZERO, |start| now.since(&start));
        state.saved_changes = report.changes;
        state.image_bytes = report.image_bytes;
        state.restore = Some((report, duration));
        drop(state);
        self.loading.store(false, Release);
    }

    /// Whether a restore runs, so that data is not there yet.
    pub fn is_loading(&self) -> bool {
        self.loading.load(Acquire)
    }

    /// A fork was made.
    pub fn fork_finished(&self, times: ForkTimes) {
        let mut state = self.state.lock();
        state.latest_fork = times;
        self.hold_ups.record(clock::nanos(times.hold_up));
        self.waits.record(clock::nanos(times.wait));
        self.forks.record(clock::nanos(times.fork));
    }

    /// A save began, `at` the moment at which it asked for the first lock. If one runs already it
    /// has forked anew: it goes on with the new figures.
    pub fn checkpoint_started(&self, start: CheckpointStart, at: Timestamp) {
        let mut state = self.state.lock();
        let (number, at) = match state.running.take() {
            Some(old) => (old.start.record.number, old.at),
            None => {
                state.totals.begun += 1;
                (state.totals.begun, at)
            }
        };
        let mut start = start;
        start.record.number = number;
        start.record.started_ms = at.wall_ms;
        state.running = Some(Running { start, at, sampled: at });
    }

    /// What the running save has done and cost up to now; ignored if it is another's than that of
    /// the child `pid`, who may have ended since.
    pub fn checkpoint_sampled(
        &self,
        pid: i32,
        now: Timestamp,
        update: impl FnOnce(&mut CheckpointRecord),
    ) {
        let mut state = self.state.lock();
        if let Some(running) = state.running.as_mut().filter(|running| running.start.pid == pid) {
            running.sampled = now;
            running.start.record.duration = now.since(&running.at);
            update(&mut running.start.record);
        }
    }

    /// The save is over: `finish` sets its status and its last figures; returns what is kept of
    /// it. A save that could not even start is told here too.
    pub fn checkpoint_finished(
        &self,
        now: Timestamp,
        finish: impl FnOnce(&mut CheckpointRecord),
    ) -> CheckpointRecord {
        let mut state = self.state.lock();
        let running = state.running.take();
        let mut record = running.as_ref().map(|running| running.start.record.clone());
        let record = record.get_or_insert_with(|| CheckpointRecord {
            started_ms: now.wall_ms,
            ..CheckpointRecord::default()
        });
        record.duration = running.as_ref().map_or(Duration::ZERO, |one| now.since(&one.at));
        finish(record);
        match record.status {
            CheckpointStatus::Ok => {
                state.last_checkpoint_ms = now.wall_ms;
                state.image_bytes = record.image_bytes;
                if let Some(Running { start, .. }) = &running {
                    state.saved_changes = start.changes;
                    state.last_digest.clone_from(&start.digest);
                }
            }
            CheckpointStatus::Failed => state.totals.failed += 1,
            CheckpointStatus::Cancelled | CheckpointStatus::Running => {}
        }
        if record.status != CheckpointStatus::Cancelled {
            state.last_failed = record.status != CheckpointStatus::Ok;
            // Writers that were faster than the save tell nothing of whether the disk takes one.
            if !record.outpaced {
                self.writes_are_unsafe.store(state.last_failed, Relaxed);
            }
            state.last_error.clone_from(&record.error);
            if running.is_some() {
                state.last_duration = Some(record.duration);
                state.last_cow = record.cow.copied_bytes;
                state.last_undo = record.undo.captured_bytes;
            }
        }
        state.totals.add(record);
        state.history.push(record.clone());
        record.clone()
    }

    /// The last saves that have ended, the oldest first.
    pub fn history(&self) -> Vec<CheckpointRecord> {
        self.state.lock().history.list()
    }

    /// Whether the last save failed.
    pub fn last_checkpoint_failed(&self) -> bool {
        self.state.lock().last_failed
    }

    /// Whether the last save failed, those left out that writers outpaced; writes may be refused
    /// then.
    #[inline]
    pub fn writes_are_unsafe(&self) -> bool {
        self.writes_are_unsafe.load(Relaxed)
    }

    /// The child that saves, if one does.
    pub fn checkpoint_pid(&self) -> Option<i32> {
        self.state.lock().running.as_ref().map(|running| running.start.pid)
    }

    /// When the last save succeeded, in milliseconds since 1970 (LASTSAVE).
    pub fn last_checkpoint_ms(&self) -> i64 {
        self.state.lock().last_checkpoint_ms
    }

    /// All there is to know at this moment. `changes` are all changes ever made.
    pub fn status(&self, now: Timestamp, changes: u64) -> PersistenceStatus {
        let state = self.state.lock();
        let restore = state.restore.as_ref();
        PersistenceStatus {
            loading: state.loading_since.map(|since| RunningRestore {
                since,
                elapsed: now.since(&since),
                loaded_bytes: self.loaded_bytes.load(Relaxed),
                total_bytes: self.loading_total_bytes.load(Relaxed),
            }),
            saving: state.running.as_ref().map(|running| RunningCheckpoint {
                pid: running.start.pid,
                since: running.at,
                elapsed: now.since(&running.at),
                age: now.since(&running.sampled),
                record: running.start.record.clone(),
            }),
            changes_since_checkpoint: changes.saturating_sub(state.saved_changes),
            last_checkpoint_ms: state.last_checkpoint_ms,
            last_checkpoint_failed: state.last_failed,
            last_error: state.last_error.clone(),
            last_duration: state.last_duration,
            last_cow_bytes: state.last_cow,
            last_undo_bytes: state.last_undo,
            last_digest: state.last_digest.clone(),
            last: state.history.last().cloned(),
            image_bytes: state.image_bytes,
            totals: state.totals,
            latest_fork: state.latest_fork,
            hold_ups: self.hold_ups.distribution(),
            waits: self.waits.distribution(),
            forks: self.forks.distribution(),
            restored: restore.map(|(report, _)| report.clone()).unwrap_or_default(),
            restore_duration: restore.map(|(_, duration)| *duration),
        }
    }
}

/// What a [`Persistence`] knew at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PersistenceStatus {
    /// The restore that runs.
    pub loading: Option<RunningRestore>,
    /// The save that runs.
    pub saving: Option<RunningCheckpoint>,
    /// Changes that the last save does not hold.
    pub changes_since_checkpoint: u64,
    /// When the last save succeeded, or when the server started; milliseconds since 1970.
    pub last_checkpoint_ms: i64,
    /// Whether the last save failed.
    pub last_checkpoint_failed: bool,
    /// Why the last save failed; None when it succeeded.
    pub last_error: Option<String>,
    /// How long the last save took that began and was not called off.
    pub last_duration: Option<Duration>,
    /// Bytes that the kernel copied because they were changed during that save.
    pub last_cow_bytes: u64,
    /// Bytes that the undo log captured because they were changed during that save.
    pub last_undo_bytes: u64,
    /// The digest taken at the fork of the last save that succeeded.
    pub last_digest: Option<String>,
    /// The last save that ended, however it did.
    pub last: Option<CheckpointRecord>,
    /// Size of the image on disk.
    pub image_bytes: u64,
    /// Sums over all saves.
    pub totals: CheckpointTotals,
    /// How long the last fork held up the clients.
    pub latest_fork: ForkTimes,
    /// How long forks held up the clients.
    pub hold_ups: Distribution,
    /// How much of it was waiting for the safepoint.
    pub waits: Distribution,
    /// How much of it was `fork(2)`.
    pub forks: Distribution,
    /// The restore at the start; zeros when there was none.
    pub restored: RestoreReport,
    /// How long that restore took; None when there was none.
    pub restore_duration: Option<Duration>,
}

/// A restore that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningRestore {
    /// When it began.
    pub since: Timestamp,
    /// How long it has run.
    pub elapsed: Duration,
    /// Bytes of the image that are read.
    pub loaded_bytes: u64,
    /// Bytes of the image.
    pub total_bytes: u64,
}

/// A save that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningCheckpoint {
    /// The child's process id; 0 in the foreground.
    pub pid: i32,
    /// When it asked for the first lock.
    pub since: Timestamp,
    /// How long it has run.
    pub elapsed: Duration,
    /// How old the figures are.
    pub age: Duration,
    /// Its figures so far.
    pub record: CheckpointRecord,
}

impl RunningCheckpoint {
    /// The share that is written, 0 to 1.
    pub fn progress(&self) -> f64 {
        if self.record.chunks == 0 {
            return 0.0;
        }
        self.record.chunks_done.min(self.record.chunks) as f64 / self.record.chunks as f64
    }

    /// Keys written, estimated from the chunks: the child knows no keys.
    pub fn keys_done(&self) -> u64 {
        let record = &self.record;
        let done = u128::from(record.keys) * u128::from(record.chunks_done.min(record.chunks));
        let done = done.checked_div(u128::from(record.chunks)).unwrap_or(0);
        u64::try_from(done).unwrap_or(record.keys)
    }
}

#[cfg(test)]
#[path = "persistence_tests.rs"]
mod tests;
