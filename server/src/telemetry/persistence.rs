//! The state of saving and restoring, as INFO, the metrics and the live page show it.
//!
//! The engine tells events, named after what happened; readers take a [`View`].
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

use super::histogram::{Histogram, Snapshot};
use crate::clock::{self, Moment};

/// A save begins: what is known at the fork.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SaveStart {
    /// The child's process id.
    pub pid: i32,
    /// All changes ever made, read inside the safepoint.
    pub changes: u64,
    /// Chunks to be written.
    pub chunks: u64,
    /// Keys there are.
    pub keys: u64,
    /// A digest of the data, taken inside the safepoint; for tests.
    pub digest: Option<String>,
}

/// What a save that succeeded reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaveReport {
    /// Size of the image.
    pub image_bytes: u64,
    /// Bytes copied because they were changed during the save.
    pub cow_bytes: u64,
}

/// What a restore reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
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
    start: SaveStart,
    at: Moment,
    cow: u64,
    cow_peak: u64,
    cow_at: Option<Moment>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    loading_since: Option<Moment>,
    /// The value of the counter of changes that the image on disk holds.
    saved_changes: u64,
    last_save_ms: i64,
    last_error: Option<String>,
    last_failed: bool,
    last_duration: Option<Duration>,
    last_cow: u64,
    last_digest: Option<String>,
    image_bytes: u64,
    saves: u64,
    failures: u64,
    latest_fork: Duration,
    restore: Option<(LoadReport, Duration)>,
}

/// The state of saving and restoring.
#[derive(Debug, Default)]
pub struct Persistence {
    loading: AtomicBool,
    loaded_bytes: AtomicU64,
    loading_total_bytes: AtomicU64,
    chunks_done: AtomicU64,
    chunks_total: AtomicU64,
    /// Asked for at each write: not behind the lock.
    last_failed: AtomicBool,
    state: Mutex<State>,
    /// Written under the lock of `state`.
    forks: Histogram,
}

impl Persistence {
    /// The state of a server that starts now with no image.
    pub(super) fn new(now: Moment) -> Self {
        let persistence = Self::default();
        persistence.state.lock().last_save_ms = now.wall_ms;
        persistence
    }

    /// A restore begins, from an image of so many bytes.
    pub fn loading_started(&self, total_bytes: u64, now: Moment) {
        self.state.lock().loading_since = Some(now);
        self.loaded_bytes.store(0, Relaxed);
        self.loading_total_bytes.store(total_bytes, Relaxed);
        self.loading.store(true, Release);
    }

    /// So many bytes of the image are read; from any thread.
    pub fn loading_progress(&self, bytes: u64) {
        self.loaded_bytes.store(bytes, Relaxed);
    }

    /// The restore succeeded; the server serves from now on.
    pub fn loading_finished(&self, now: Moment, report: LoadReport) {
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

    /// A fork was made; it held up the clients for so long.
    pub fn forked(&self, duration: Duration) {
        let mut state = self.state.lock();
        state.latest_fork = duration;
        self.forks.record(clock::nanos(duration));
    }

    /// A save began.
    pub fn save_started(&self, start: SaveStart, at: Moment) {
        self.chunks_done.store(0, Relaxed);
        self.chunks_total.store(start.chunks, Relaxed);
        let mut state = self.state.lock();
        state.saves += 1;
        state.running = Some(Running { start, at, cow: 0, cow_peak: 0, cow_at: None });
    }

    /// So many chunks are written, of so many.
    pub fn save_progress(&self, done: u64, total: u64) {
        self.chunks_done.store(done, Relaxed);
        self.chunks_total.store(total, Relaxed);
    }

    /// The running save has caused so many bytes to be copied so far.
    pub fn cow_sampled(&self, bytes: u64, now: Moment) {
        if let Some(running) = &mut self.state.lock().running {
            running.cow = bytes;
            running.cow_peak = running.cow_peak.max(bytes);
            running.cow_at = Some(now);
        }
    }

    /// The save is over: the image is published, or nothing has changed on disk. A save that
    /// could not even start is told here too.
    pub fn save_finished(&self, now: Moment, result: Result<SaveReport, String>) {
        let mut state = self.state.lock();
        let running = state.running.take();
        if let Some(running) = &running {
            state.last_duration = Some(now.since(&running.at));
            state.last_cow = running.cow_peak;
        }
        match result {
            Ok(report) => {
                self.last_failed.store(false, Relaxed);
                state.last_failed = false;
                state.last_error = None;
                state.last_save_ms = now.wall_ms;
                state.last_cow = report.cow_bytes;
                state.image_bytes = report.image_bytes;
                if let Some(Running { start, .. }) = running {
                    state.saved_changes = start.changes;
                    state.last_digest = start.digest;
                }
            }
            Err(error) => {
                self.last_failed.store(true, Relaxed);
                state.last_failed = true;
                state.last_error = Some(error);
                state.failures += 1;
            }
        }
    }

    /// The save was called off: nothing has changed on disk, and nothing failed.
    pub fn save_cancelled(&self) {
        self.state.lock().running = None;
    }

    /// Whether the last save failed; writes may be refused then.
    #[inline]
    pub fn last_save_failed(&self) -> bool {
        self.last_failed.load(Relaxed)
    }

    /// The child that saves, if one does.
    pub fn saving_pid(&self) -> Option<i32> {
        self.state.lock().running.as_ref().map(|running| running.start.pid)
    }

    /// When the last save succeeded, in milliseconds since 1970 (LASTSAVE).
    pub fn last_save_ms(&self) -> i64 {
        self.state.lock().last_save_ms
    }

    /// All there is to know at this moment. `changes` are all changes ever made.
    pub fn view(&self, now: Moment, changes: u64) -> View {
        let state = self.state.lock();
        let restore = state.restore.as_ref();
        View {
            loading: state.loading_since.map(|since| Loading {
                since,
                elapsed: now.since(&since),
                loaded_bytes: self.loaded_bytes.load(Relaxed),
                total_bytes: self.loading_total_bytes.load(Relaxed),
            }),
            saving: state.running.as_ref().map(|running| self.saving(running, now)),
            changes_since_last_save: changes.saturating_sub(state.saved_changes),
            last_save_ms: state.last_save_ms,
            last_save_failed: state.last_failed,
            last_error: state.last_error.clone(),
            last_duration: state.last_duration,
            last_cow_bytes: state.last_cow,
            last_digest: state.last_digest.clone(),
            image_bytes: state.image_bytes,
            saves: state.saves,
            failures: state.failures,
            latest_fork: state.latest_fork,
            forks: self.forks.snapshot(),
            restored: restore.map(|(report, _)| report.clone()).unwrap_or_default(),
            restore_duration: restore.map(|(_, duration)| *duration),
        }
    }

    fn saving(&self, running: &Running, now: Moment) -> Saving {
        let (done, total) = (self.chunks_done.load(Relaxed), self.chunks_total.load(Relaxed));
        Saving {
            pid: running.start.pid,
            since: running.at,
            elapsed: now.since(&running.at),
            chunks_done: done.min(total),
            chunks_total: total,
            keys_total: running.start.keys,
            cow_bytes: running.cow,
            cow_peak_bytes: running.cow_peak,
            cow_age: running.cow_at.map_or(Duration::ZERO, |at| now.since(&at)),
        }
    }
}

/// What a [`Persistence`] knew at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// The restore that runs.
    pub loading: Option<Loading>,
    /// The save that runs.
    pub saving: Option<Saving>,
    /// Changes that the last save does not hold.
    pub changes_since_last_save: u64,
    /// When the last save succeeded, or when the server started; milliseconds since 1970.
    pub last_save_ms: i64,
    /// Whether the last save failed.
    pub last_save_failed: bool,
    /// Why the last save failed; None when it succeeded.
    pub last_error: Option<String>,
    /// How long the last save took, failed or not.
    pub last_duration: Option<Duration>,
    /// Bytes copied because they were changed during the last save.
    pub last_cow_bytes: u64,
    /// The digest taken at the fork of the last save that succeeded.
    pub last_digest: Option<String>,
    /// Size of the image on disk.
    pub image_bytes: u64,
    /// Saves begun.
    pub saves: u64,
    /// Saves that failed.
    pub failures: u64,
    /// How long the last fork held up the clients.
    pub latest_fork: Duration,
    /// All forks' times.
    pub forks: Snapshot,
    /// The restore at the start; zeros when there was none.
    pub restored: LoadReport,
    /// How long that restore took; None when there was none.
    pub restore_duration: Option<Duration>,
}

/// A restore that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// When it began.
    pub since: Moment,
    /// How long it has run.
    pub elapsed: Duration,
    /// Bytes of the image that are read.
    pub loaded_bytes: u64,
    /// Bytes of the image.
    pub total_bytes: u64,
}

/// A save that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saving {
    /// The child's process id.
    pub pid: i32,
    /// When it began.
    pub since: Moment,
    /// How long it has run.
    pub elapsed: Duration,
    /// Chunks written.
    pub chunks_done: u64,
    /// Chunks to be written.
    pub chunks_total: u64,
    /// Keys there were at the fork.
    pub keys_total: u64,
    /// Bytes copied so far because they were changed.
    pub cow_bytes: u64,
    /// The most that was seen of those.
    pub cow_peak_bytes: u64,
    /// How old that figure is.
    pub cow_age: Duration,
}

impl Saving {
    /// The share that is written, 0 to 1.
    pub fn progress(&self) -> f64 {
        if self.chunks_total == 0 {
            return 0.0;
        }
        self.chunks_done as f64 / self.chunks_total as f64
    }

    /// Keys written, estimated from the chunks: the child knows no keys.
    pub fn keys_done(&self) -> u64 {
        let done = u128::from(self.keys_total) * u128::from(self.chunks_done);
        let done = done.checked_div(u128::from(self.chunks_total)).unwrap_or(0);
        u64::try_from(done).unwrap_or(self.keys_total)
    }
}

#[cfg(test)]
#[path = "persistence_tests.rs"]
mod tests;
