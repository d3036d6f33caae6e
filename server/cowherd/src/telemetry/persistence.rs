//! The state of checkpoints and of the restore at the start, as INFO, the metrics and the live page
//! show it.
//!
//! The engine reports events to [`Persistence`]; readers take a [`PersistenceStatus`].
//!
//! Invariants:
//! 1. The lock is held for a few moves only. No thread that holds the lock waits for a command, and
//!    a forked child never touches this module.
//! 2. Changes since the last checkpoint are the difference of two readings of one counter, so
//!    changes made while a checkpoint runs count as not yet in an image.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use cowherd_arena::checkpoint::RestoreProgress;
use cowherd_arena::stats::{Distribution, Histogram};
use parking_lot::Mutex;

use super::checkpoint_record::{
    CheckpointHistory, CheckpointRecord, CheckpointStatus, CheckpointTotals,
};
use crate::clock::{self, Timestamp};

/// The figures of a checkpoint that are known at the fork.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CheckpointStart {
    /// The child's process id; 0 for a checkpoint in the foreground.
    pub(crate) pid: i32,
    /// All changes ever made, read inside the safepoint.
    pub(crate) changes: u64,
    /// A digest of the data, taken inside the safepoint; for tests.
    pub(crate) digest: Option<String>,
    /// The figures so far. [`Persistence`] fills in number, time and status.
    pub(crate) record: CheckpointRecord,
}

/// How long a fork held up the clients, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ForkTimes {
    /// From the request for the first lock to holding the last.
    pub(crate) wait: Duration,
    /// In `fork(2)`.
    pub(crate) fork: Duration,
    /// From the request for the first lock to the release of the last.
    pub(crate) hold_up: Duration,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RestoreReport {
    /// Keys restored.
    pub(crate) keys_loaded: u64,
    /// Keys dropped because they had expired.
    pub(crate) keys_expired: u64,
    pub(crate) image_bytes: u64,
    /// All changes counted so far; they are in the image.
    pub(crate) changes: u64,
    /// A digest of the restored data; for tests.
    pub(crate) digest: Option<String>,
}

/// The running checkpoint.
#[derive(Debug, Clone)]
struct CurrentCheckpoint {
    start: CheckpointStart,
    began: Timestamp,
    sampled: Timestamp,
}

#[derive(Debug, Default)]
struct PersistenceState {
    running: Option<CurrentCheckpoint>,
    loading_since: Option<Timestamp>,
    /// The value of the counter of changes that the image on disk holds.
    changes_in_image: u64,
    last_checkpoint_ms: i64,
    last_error: Option<String>,
    last_failed: bool,
    last_duration: Option<Duration>,
    last_cow_bytes: u64,
    last_undo_bytes: u64,
    last_digest: Option<String>,
    image_bytes: u64,
    totals: CheckpointTotals,
    history: CheckpointHistory,
    latest_fork: ForkTimes,
    restore: Option<(RestoreReport, Duration)>,
}

/// The state of checkpoints and of the restore.
#[derive(Debug, Default)]
pub(crate) struct Persistence {
    loading: AtomicBool,
    loaded_bytes: AtomicU64,
    loading_total_bytes: AtomicU64,
    loaded_chunks: AtomicU64,
    loading_total_chunks: AtomicU64,
    /// Read by each write command, so not behind the lock.
    writes_are_unsafe: AtomicBool,
    state: Mutex<PersistenceState>,
    // Histograms have one writer at a time: recorded under the lock of `state`.
    hold_ups: Histogram,
    waits: Histogram,
    forks: Histogram,
}

impl Persistence {
    /// The state of a server that starts now, without an image.
    pub(super) fn new(now: Timestamp) -> Self {
        let persistence = Self::default();
        persistence.state.lock().last_checkpoint_ms = now.wall_ms;
        persistence
    }

    /// A restore begins.
    pub(crate) fn loading_started(&self, now: Timestamp) {
        self.state.lock().loading_since = Some(now);
        self.loading.store(true, Release);
    }

    /// The restore has read so much of the image. Any thread may call this; the figures never fall.
    pub(crate) fn loading_progress(&self, progress: RestoreProgress) {
        self.loading_total_bytes.store(progress.total_bytes, Relaxed);
        self.loading_total_chunks.store(progress.total_chunks, Relaxed);
        self.loaded_bytes.fetch_max(progress.read_bytes, Relaxed);
        self.loaded_chunks.fetch_max(progress.chunks, Relaxed);
    }

    /// The progress of the restore.
    pub(crate) fn restore_progress(&self) -> RestoreProgress {
        RestoreProgress {
            read_bytes: self.loaded_bytes.load(Relaxed),
            total_bytes: self.loading_total_bytes.load(Relaxed),
            chunks: self.loaded_chunks.load(Relaxed),
            total_chunks: self.loading_total_chunks.load(Relaxed),
        }
    }

    /// The restore succeeded; the server serves from now on.
    pub(crate) fn loading_finished(&self, now: Timestamp, report: RestoreReport) {
        let mut state = self.state.lock();
        let duration = state.loading_since.take().map_or(Duration::ZERO, |start| now.since(&start));
        state.changes_in_image = report.changes;
        state.image_bytes = report.image_bytes;
        state.restore = Some((report, duration));
        drop(state);
        self.loading.store(false, Release);
    }

    /// There was nothing to restore; the server serves from now on.
    pub(crate) fn loading_skipped(&self) {
        self.state.lock().loading_since = None;
        self.loading.store(false, Release);
    }

    /// Whether a restore runs, so that the data is not complete yet.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.load(Acquire)
    }

    /// A fork was made.
    pub(crate) fn fork_finished(&self, times: ForkTimes) {
        let mut state = self.state.lock();
        state.latest_fork = times;
        self.hold_ups.record(clock::nanos(times.hold_up));
        self.waits.record(clock::nanos(times.wait));
        self.forks.record(clock::nanos(times.fork));
    }

    /// A checkpoint began; `began` is the time of the request for the first lock. If a checkpoint
    /// runs already, it has forked again and continues with the new figures.
    pub(crate) fn checkpoint_started(&self, start: CheckpointStart, began: Timestamp) {
        let mut state = self.state.lock();
        let (number, began) = match state.running.take() {
            Some(old) => (old.start.record.number, old.began),
            None => {
                state.totals.begun += 1;
                (state.totals.begun, began)
            }
        };
        let mut start = start;
        start.record.number = number;
        start.record.started_ms = began.wall_ms;
        state.running = Some(CurrentCheckpoint { start, began, sampled: began });
    }

    /// Updates the figures of the running checkpoint. Ignored if `pid` is not the child of the
    /// running checkpoint: that child may have ended since the sample was taken.
    pub(crate) fn checkpoint_sampled(
        &self,
        pid: i32,
        now: Timestamp,
        update: impl FnOnce(&mut CheckpointRecord),
    ) {
        let mut state = self.state.lock();
        if let Some(running) = state.running.as_mut().filter(|running| running.start.pid == pid) {
            running.sampled = now;
            running.start.record.duration = now.since(&running.began);
            update(&mut running.start.record);
        }
    }

    /// The checkpoint is over: `finish` sets its status and its last figures. Returns the record.
    /// A checkpoint that could not start is reported here too.
    pub(crate) fn checkpoint_finished(
        &self,
        now: Timestamp,
        finish: impl FnOnce(&mut CheckpointRecord),
    ) -> CheckpointRecord {
        let mut state = self.state.lock();
        let running = state.running.take();
        let mut record = match &running {
            Some(running) => running.start.record.clone(),
            None => CheckpointRecord { started_ms: now.wall_ms, ..CheckpointRecord::default() },
        };
        record.duration =
            running.as_ref().map_or(Duration::ZERO, |running| now.since(&running.began));
        finish(&mut record);
        match record.status {
            CheckpointStatus::Ok => {
                state.last_checkpoint_ms = now.wall_ms;
                state.image_bytes = record.image_bytes;
                if let Some(CurrentCheckpoint { start, .. }) = &running {
                    state.changes_in_image = start.changes;
                    state.last_digest.clone_from(&start.digest);
                }
            }
            CheckpointStatus::Failed => state.totals.failed += 1,
            CheckpointStatus::Cancelled | CheckpointStatus::Running => {}
        }
        if record.status != CheckpointStatus::Cancelled {
            state.last_failed = record.status != CheckpointStatus::Ok;
            // A full undo log says nothing about whether the disk accepts an image.
            if !record.outpaced {
                self.writes_are_unsafe.store(state.last_failed, Relaxed);
            }
            state.last_error.clone_from(&record.error);
            if running.is_some() {
                state.last_duration = Some(record.duration);
                state.last_cow_bytes = record.cow.copied_bytes;
                state.last_undo_bytes = record.undo.captured_bytes;
            }
        }
        state.totals.add(&record);
        state.history.push(record.clone());
        record
    }

    /// The last checkpoints that have ended, the oldest first.
    pub(crate) fn history(&self) -> Vec<CheckpointRecord> {
        self.state.lock().history.list()
    }

    /// Whether the last checkpoint failed.
    pub(crate) fn last_checkpoint_failed(&self) -> bool {
        self.state.lock().last_failed
    }

    /// Whether the last checkpoint failed, except for a full undo log: then writes may be refused
    /// (`stop-writes-on-bgsave-error`).
    #[inline]
    pub(crate) fn writes_are_unsafe(&self) -> bool {
        self.writes_are_unsafe.load(Relaxed)
    }

    /// Process id of the child that writes a checkpoint; 0 in the foreground. None: no checkpoint
    /// runs.
    pub(crate) fn checkpoint_pid(&self) -> Option<i32> {
        self.state.lock().running.as_ref().map(|running| running.start.pid)
    }

    /// When the last checkpoint succeeded, in milliseconds since 1970 (LASTSAVE).
    pub(crate) fn last_checkpoint_ms(&self) -> i64 {
        self.state.lock().last_checkpoint_ms
    }

    /// The whole state at this moment. `changes` are all changes ever made.
    pub(crate) fn status(&self, now: Timestamp, changes: u64) -> PersistenceStatus {
        let state = self.state.lock();
        let restore = state.restore.as_ref();
        PersistenceStatus {
            loading: state.loading_since.map(|since| RunningRestore {
                since,
                elapsed: now.since(&since),
                progress: self.restore_progress(),
            }),
            running: state.running.as_ref().map(|running| CheckpointInProgress {
                pid: running.start.pid,
                elapsed: now.since(&running.began),
                age: now.since(&running.sampled),
                record: running.start.record.clone(),
            }),
            changes_since_checkpoint: changes.saturating_sub(state.changes_in_image),
            last_checkpoint_ms: state.last_checkpoint_ms,
            last_checkpoint_failed: state.last_failed,
            last_error: state.last_error.clone(),
            last_duration: state.last_duration,
            last_cow_bytes: state.last_cow_bytes,
            last_undo_bytes: state.last_undo_bytes,
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

/// The state of a [`Persistence`] at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct PersistenceStatus {
    pub(crate) loading: Option<RunningRestore>,
    pub(crate) running: Option<CheckpointInProgress>,
    /// Changes that the last image does not hold.
    pub(crate) changes_since_checkpoint: u64,
    /// When the last checkpoint succeeded, or when the server started; milliseconds since 1970.
    pub(crate) last_checkpoint_ms: i64,
    pub(crate) last_checkpoint_failed: bool,
    /// Why the last checkpoint failed; None when it succeeded.
    pub(crate) last_error: Option<String>,
    /// Duration of the last checkpoint that began and was not cancelled.
    pub(crate) last_duration: Option<Duration>,
    /// Bytes that the kernel copied during that checkpoint.
    pub(crate) last_cow_bytes: u64,
    /// Bytes that the undo log captured during that checkpoint.
    pub(crate) last_undo_bytes: u64,
    /// The digest taken at the fork of the last checkpoint that succeeded.
    pub(crate) last_digest: Option<String>,
    /// The last checkpoint that ended, with any status.
    pub(crate) last: Option<CheckpointRecord>,
    /// Size of the image on disk.
    pub(crate) image_bytes: u64,
    pub(crate) totals: CheckpointTotals,
    pub(crate) latest_fork: ForkTimes,
    /// How long each fork held up the clients.
    pub(crate) hold_ups: Distribution,
    /// The part of that time that was the wait for the safepoint.
    pub(crate) waits: Distribution,
    /// The part of that time that was `fork(2)`.
    pub(crate) forks: Distribution,
    /// The restore at the start; zeros when there was none.
    pub(crate) restored: RestoreReport,
    /// How long that restore took; None when there was none.
    pub(crate) restore_duration: Option<Duration>,
}

/// A running restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunningRestore {
    pub(crate) since: Timestamp,
    pub(crate) elapsed: Duration,
    pub(crate) progress: RestoreProgress,
}

impl RunningRestore {
    /// The share of the image that is read, 0 to 1; 1 while it is being verified.
    pub(crate) fn share(&self) -> f64 {
        let RestoreProgress { read_bytes, total_bytes, .. } = self.progress;
        if total_bytes == 0 { 0.0 } else { read_bytes.min(total_bytes) as f64 / total_bytes as f64 }
    }

    /// Time until the image is read, at the rate so far; `None` before a byte is read.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let share = self.share();
        (share > 0.0).then(|| self.elapsed.mul_f64((1.0 - share) / share))
    }
}

/// A running checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckpointInProgress {
    /// The child's process id; 0 in the foreground.
    pub(crate) pid: i32,
    pub(crate) elapsed: Duration,
    /// Time since the last sample of the figures.
    pub(crate) age: Duration,
    /// The figures so far.
    pub(crate) record: CheckpointRecord,
}

impl CheckpointInProgress {
    /// The share of the chunks that is written, 0 to 1.
    pub(crate) fn progress(&self) -> f64 {
        if self.record.chunks == 0 {
            return 0.0;
        }
        self.record.chunks_done.min(self.record.chunks) as f64 / self.record.chunks as f64
    }

    /// Keys written, estimated from the chunks: the child does not count keys.
    pub(crate) fn keys_done(&self) -> u64 {
        let record = &self.record;
        let done = u128::from(record.keys) * u128::from(record.chunks_done.min(record.chunks));
        let done = done.checked_div(u128::from(record.chunks)).unwrap_or(0);
        u64::try_from(done).unwrap_or(record.keys)
    }
}

#[cfg(test)]
#[path = "persistence_tests.rs"]
mod tests;
