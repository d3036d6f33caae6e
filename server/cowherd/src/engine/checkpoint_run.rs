//! One background checkpoint, from its safepoint to the record of its results and costs.
//!
//! ```text
//!   requested locked   forked  released           child exiting  exited
//!     |--wait---|--fork--|--------|  page scan, samples ----|------|--wait--| ended
//!     '------- stalled -----------'                                'stalled-'
//!   checkpoint_begins                                                 checkpoint_ends
//! ```
//!
//! Invariant: the write barrier records from a fork to the safepoint after the child's exit, and
//! its page state is reset before the next fork.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::clock::{self, Timestamp};
use crate::commands::Shared;
use crate::keyspace::{CHUNK_SIZE, DATABASES, Shards, layout_hash};
use crate::telemetry::{
    CheckpointRecord, CheckpointStart, CheckpointStatus, ForkTimes, LatencyEvent, LongestCommand,
    LongestStall, StallCause, log_checkpoint, minor_faults_of_other_threads,
};
use cowherd_arena::checkpoint::{
    CheckpointError, CheckpointHandle, CheckpointObserver, CheckpointOutcome, ChunkCodec,
    ImageOptions, ImageTarget, PreparedCheckpoint, RunningCheckpoint, buffer_bytes,
};
use cowherd_arena::stats::{CowStats, UndoStats};
use cowherd_arena::{ChunkSet, FinishedRecording, Recording, ShardSet};

/// A background checkpoint.
pub(super) struct CheckpointRun<'s> {
    shared: &'s Shared,
    target: ImageTarget,
    options: ImageOptions,
    /// Forks so far.
    pub(super) forks: u32,
    stall_windows: StallWindows,
    cow: CowStats,
    undo: UndoStats,
    pages: HugePageUsage,
    faults: MinorFaults,
    ended: Option<Timestamp>,
}

/// Huge-page usage before and after a checkpoint.
#[derive(Default)]
struct HugePageUsage {
    before_bytes: Option<u64>,
    after_bytes: Option<u64>,
    splits: Option<u64>,
}

/// Minor page faults of all threads but the checkpoint thread, whose faults come from page scans
/// and from prefaulting the undo log.
#[derive(Default)]
struct MinorFaults {
    before: Option<u64>,
    after: Option<u64>,
}

impl MinorFaults {
    /// Faults during the checkpoint outside of the arena, whose faults `cow` counts.
    fn outside_arena(&self, cow: &CowStats) -> Option<u64> {
        let all = self.after?.checked_sub(self.before?)?;
        // Saturates: two threads that touch a page first at the same time are both counted.
        Some(all.saturating_sub(cow.faults + cow.fresh_pages + cow.private_pages))
    }
}

impl<'s> CheckpointRun<'s> {
    /// Prepares a checkpoint with the current settings.
    pub(super) fn new(shared: &'s Shared) -> Self {
        let (target, options) = image_settings(shared);
        Self {
            shared,
            target,
            options,
            forks: 0,
            stall_windows: StallWindows::default(),
            cow: CowStats::default(),
            undo: UndoStats::default(),
            pages: HugePageUsage::default(),
            faults: MinorFaults::default(),
            ended: None,
        }
    }

    /// Forks at the safepoint.
    ///
    /// # Errors
    /// There is no child: memory, the temporary file or `fork` failed.
    pub(super) fn fork(&mut self) -> Result<RunningCheckpoint<'s>, CheckpointError> {
        let shared = self.shared;
        let prepared =
            PreparedCheckpoint::new(&self.target, &self.options, shared.keyspace.arena())?;
        if self.forks == 0 {
            shared.telemetry.checkpoint_begins();
        }
        self.forks += 1;
        self.faults.before = minor_faults_of_other_threads();
        let at = Timestamp::now();
        let requested = clock::monotonic_ns();
        let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        let locked = clock::monotonic_ns();
        let mut start = start_record(shared, &shards);
        let begun = clock::monotonic_ns();
        let running = match shards.held().safepoint() {
            Some(safepoint) => prepared.fork(&safepoint)?,
            None => unreachable!("all shards are locked"),
        };
        let fork = running.fork_duration();
        drop(shards);
        let released = clock::monotonic_ns();
        self.stall_windows
            .fork(Interval(requested, released), Interval(begun, begun + clock::nanos(fork)));
        let wait = Duration::from_nanos(locked - requested);
        let times = ForkTimes { wait, fork, hold_up: Duration::from_nanos(released - requested) };
        start.pid = running.pid();
        start.record = CheckpointRecord {
            background: true,
            safepoint_wait: times.wait,
            fork: times.fork,
            hold_up: times.hold_up,
            extra_memory_bytes: page_table_bytes(running.pid()) + buffer_bytes(start.record.chunks),
            ..start.record
        };
        let telemetry = &shared.telemetry;
        telemetry.persistence().fork_finished(times);
        telemetry.persistence().checkpoint_started(start, at);
        telemetry.latency_event(LatencyEvent::Fork, times.fork);
        telemetry.latency_event(LatencyEvent::Safepoint, times.wait);
        tracing::debug!(
            pid = running.pid(),
            fork_us = clock::micros(fork),
            safepoint_wait_us = clock::micros(wait),
            "Background saving started"
        );
        Ok(running)
    }

    /// Waits for the child's exit; meanwhile scans which huge pages it shares, unless the arena is
    /// shared memory.
    ///
    /// # Errors
    /// There is no new image.
    pub(super) fn wait(
        &mut self,
        running: RunningCheckpoint<'s>,
    ) -> Result<CheckpointOutcome, CheckpointError> {
        let arena = self.shared.keyspace.arena();
        let handle = running.handle();
        let mut observer =
            Observer { shared: self.shared, end: None, polled: None, finished: None };
        let keep_scanning = || !handle.is_over() && observer.poll_if_due();
        let before = arena.scan_child_pages(running.pid(), keep_scanning);
        let result = running.wait(&mut observer);
        self.stall_windows.safepoints.extend(observer.end);
        self.ended = Some(Timestamp::now());
        self.faults.after = minor_faults_of_other_threads();
        if let Some(finished) = observer.finished {
            self.cow = finished.cow_cost();
            self.undo = finished.undo_cost();
        }
        // With an undo log no page is split, and a scan would compete with the workers.
        if arena.barrier().undo_log().is_some() {
            let sampled = Some(self.shared.sampled.huge_bytes());
            self.pages =
                HugePageUsage { splits: Some(0), before_bytes: sampled, after_bytes: sampled };
            return result;
        }
        let after = arena.scan_pages(|| true).map(|report| report.huge);
        let bytes = |chunks: &ChunkSet| chunks.len() * CHUNK_SIZE;
        let both = before.as_ref().zip(after.as_ref());
        self.pages = HugePageUsage {
            splits: both.map(|(before, after)| arena.split_since(before, after)),
            before_bytes: before.as_ref().map(bytes),
            after_bytes: after.as_ref().map(bytes),
        };
        result
    }

    /// Records the result and the costs in telemetry and in the log.
    pub(super) fn finish(&self, result: &Result<CheckpointOutcome, CheckpointError>) {
        let telemetry = &self.shared.telemetry;
        let ended = self.ended.unwrap_or_else(Timestamp::now);
        let mut longest = None;
        if self.forks > 0 {
            telemetry.checkpoint_ends();
            longest = telemetry.longest_command();
        }
        let record = telemetry.persistence().checkpoint_finished(ended, |record| {
            record_costs(record, self.cow, self.undo);
            record.huge_before_bytes = self.pages.before_bytes;
            record.huge_after_bytes = self.pages.after_bytes;
            record.thp_splits = self.pages.splits;
            record.other_page_faults = self.faults.outside_arena(&self.cow);
            record.longest_stall = longest.map(|longest| LongestStall {
                took: Duration::from_nanos(longest.nanos),
                cause: self.stall_windows.cause(&longest, record.has_undo_log()),
                command: self.shared.table.rows()[longest.command].name.clone(),
            });
            record_result(record, result);
        });
        self.shared.sampled.add_checkpoint(self.pages.after_bytes, self.pages.splits);
        log_checkpoint(&record, &self.target.path());
    }
}

/// Writes an image on the calling thread. Requires that `shards` are all shards.
///
/// # Errors
/// There is no new image.
pub(super) fn write_in_foreground(
    shared: &Shared,
    shards: &mut Shards<'_>,
) -> Result<(), CheckpointError> {
    let (target, options) = image_settings(shared);
    let start = start_record(shared, shards);
    shared.telemetry.persistence().checkpoint_started(start, Timestamp::now());
    let prepared = PreparedCheckpoint::new(&target, &options, shared.keyspace.arena());
    let result = prepared.and_then(|prepared| match shards.held().safepoint() {
        Some(safepoint) => prepared.write_here(&safepoint),
        None => unreachable!("all shards are locked"),
    });
    let ended = Timestamp::now();
    let record = shared.telemetry.persistence().checkpoint_finished(ended, |record| {
        record_result(record, &result);
    });
    log_checkpoint(&record, &target.path());
    result.map(|_| ())
}

/// Records the progress and the costs of a running checkpoint.
pub(super) fn sample(shared: &Shared, child: &CheckpointHandle) {
    let progress = child.progress();
    let barrier = shared.keyspace.arena().barrier();
    if !barrier.is_active() {
        // The checkpoint is ending, and its end records the final values.
        return;
    }
    barrier.note_written(progress.done_below);
    let (cow, undo) = (barrier.cost(), barrier.undo_cost());
    shared.telemetry.persistence().checkpoint_sampled(child.pid(), Timestamp::now(), |record| {
        record_costs(record, cow, undo);
        record.chunks_done = progress.chunks_done;
        record.raw_bytes = progress.raw_bytes;
        record.image_bytes = progress.image_bytes;
        record.steps = progress.steps;
    });
}

/// Updates the costs in `record`, and adds the memory that they took since the last update.
fn record_costs(record: &mut CheckpointRecord, cow: CowStats, undo: UndoStats) {
    record.extra_memory_bytes += cow.copied_bytes.saturating_sub(record.cow.copied_bytes)
        + undo.committed_bytes.saturating_sub(record.undo.committed_bytes);
    record.cow = cow;
    record.undo = undo;
}

/// Poll interval with an undo log: short enough to reclaim retired records and prefault log memory
/// faster than writers use memory up.
const UNDO_LOG_POLL: Duration = Duration::from_millis(5);
/// Poll interval without an undo log, where a poll has nothing to do.
const COW_POLL: Duration = Duration::from_secs(1);

/// Maintains the write barrier while the child of a checkpoint writes.
struct Observer<'s> {
    shared: &'s Shared,
    /// The safepoint at which the barrier stopped recording.
    end: Option<Interval>,
    polled: Option<Instant>,
    /// The recording after the child's exit: its costs are read before it is reset.
    finished: Option<FinishedRecording<'s>>,
}

impl Observer<'_> {
    /// Polls if the poll interval is over; false once the checkpoint has failed.
    fn poll_if_due(&mut self) -> bool {
        if self.polled.is_some_and(|polled| polled.elapsed() < self.poll_interval()) {
            return true;
        }
        let failed = self.poll();
        self.polled = Some(Instant::now());
        failed.is_none()
    }
}

impl<'s> CheckpointObserver<'s> for Observer<'s> {
    fn poll_interval(&self) -> Duration {
        let log = self.shared.keyspace.arena().barrier().undo_log();
        if log.is_some() { UNDO_LOG_POLL } else { COW_POLL }
    }

    fn poll(&mut self) -> Option<CheckpointError> {
        let barrier = self.shared.keyspace.arena().barrier();
        let log = barrier.undo_log()?;
        if barrier.has_overflowed() {
            return Some(CheckpointError::UndoLimit { limit: log.limit() });
        }
        log.reclaim();
        log.prefault_some();
        None
    }

    fn child_exiting(&mut self) {
        self.shared.keyspace.arena().barrier().child_exiting();
    }

    fn child_exited(&mut self, recording: Recording<'s>) {
        let requested = clock::monotonic_ns();
        let mut shards = self.shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        let safepoint = shards.held().safepoint().expect("invariant: every shard is locked");
        self.finished = Some(recording.finish(&safepoint));
        drop(shards);
        let released = clock::monotonic_ns();
        self.end = Some(Interval(requested, released));
        let took = Duration::from_nanos(released.saturating_sub(requested));
        self.shared.telemetry.latency_event(LatencyEvent::Safepoint, took);
    }
}

/// The image's target and options by the current configuration.
pub(super) fn image_settings(shared: &Shared) -> (ImageTarget, ImageOptions) {
    let config = shared.config.current();
    let codec = if config.rdbcompression { ChunkCodec::Lz4 } else { ChunkCodec::None };
    let delay = shared.hooks.checkpoint_delay.load(Ordering::Relaxed);
    let target = ImageTarget { dir: config.dir.clone(), filename: config.dbfilename.clone() };
    let options = ImageOptions {
        codec,
        layout: layout_hash(),
        created_ms: clock::wall_ms().unsigned_abs(),
        delay_per_chunk: Duration::from_micros(delay),
    };
    (target, options)
}

/// The record of a checkpoint at its safepoint.
fn start_record(shared: &Shared, shards: &Shards<'_>) -> CheckpointStart {
    let space = &shared.keyspace;
    let kind = space.arena().page_kind();
    let digest = shared.hooks.checkpoint_digest.load(Ordering::Relaxed);
    CheckpointStart {
        pid: 0,
        changes: space.stats().changes,
        record: CheckpointRecord {
            chunks: space.arena().used_chunks(),
            keys: (0..DATABASES).map(|db| space.len(db)).sum(),
            pages: kind.name(),
            isolation: shared.config.current().checkpoint_isolation.name(),
            page_bytes: kind.cow_bytes(),
            ..CheckpointRecord::default()
        },
        digest: digest.then(|| shards.digest()),
    }
}

fn record_result(
    record: &mut CheckpointRecord,
    result: &Result<CheckpointOutcome, CheckpointError>,
) {
    match result {
        Ok(outcome) => {
            record.status = CheckpointStatus::Ok;
            record.chunks_done = outcome.chunks;
            record.raw_bytes = outcome.raw_bytes;
            record.image_bytes = outcome.image_bytes;
            record.steps = outcome.steps;
        }
        Err(CheckpointError::Cancelled) => record.status = CheckpointStatus::Cancelled,
        Err(error) => {
            record.status = CheckpointStatus::Failed;
            record.outpaced = matches!(error, CheckpointError::UndoLimit { .. });
            record.error = Some(error.to_string());
        }
    }
}

/// Bytes of a process's page tables, which the kernel copied at the fork.
fn page_table_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmPTE:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0) << 10
}

/// Begin and end on the clock of [`clock::monotonic_ns`].
#[derive(Clone, Copy)]
struct Interval(u64, u64);

impl Interval {
    /// Nanoseconds that both intervals cover.
    fn overlap(self, other: Self) -> u64 {
        self.1.min(other.1).saturating_sub(self.0.max(other.0))
    }
}

/// The intervals in which a checkpoint stalled all clients.
#[derive(Default)]
struct StallWindows {
    /// From the request for all locks to their release.
    safepoints: Vec<Interval>,
    /// The parts of the safepoints in which the kernel forked.
    forks: Vec<Interval>,
}

impl StallWindows {
    fn fork(&mut self, safepoint: Interval, fork: Interval) {
        self.safepoints.push(safepoint);
        self.forks.push(fork);
    }

    /// What took most of a command's time. With `undo_log`, write-barrier stalls are undo captures,
    /// otherwise copy-on-write faults.
    fn cause(&self, longest: &LongestCommand, undo_log: bool) -> StallCause {
        let command = Interval(longest.begun_ns, longest.begun_ns + longest.nanos);
        let common =
            |spans: &[Interval]| spans.iter().map(|span| span.overlap(command)).sum::<u64>();
        let fork = common(&self.forks);
        let safepoint = common(&self.safepoints).saturating_sub(fork);
        let other = longest.nanos.saturating_sub(fork + safepoint + longest.stall_nanos);
        let shares = [
            (other, StallCause::Other),
            (
                longest.stall_nanos,
                if undo_log { StallCause::UndoCapture } else { StallCause::CowFault },
            ),
            (safepoint, StallCause::Safepoint),
            (fork, StallCause::Fork),
        ];
        shares
            .into_iter()
            .max_by_key(|(share, _)| *share)
            .map_or(StallCause::Other, |(_, cause)| cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_largest_share_of_the_time() {
        let mut stall_windows = StallWindows::default();
        stall_windows.fork(Interval(1000, 1900), Interval(1200, 1800));
        stall_windows.safepoints.push(Interval(5000, 5500));
        let cause = |begun_ns, nanos, stall_nanos| {
            stall_windows.cause(&LongestCommand { nanos, begun_ns, stall_nanos, command: 0 }, false)
        };
        assert_eq!(cause(1100, 800, 0), StallCause::Fork);
        assert_eq!(cause(900, 320, 0), StallCause::Safepoint);
        assert_eq!(cause(5100, 420, 10), StallCause::Safepoint);
        assert_eq!(cause(3000, 100, 60), StallCause::CowFault);
        assert_eq!(cause(3000, 100, 40), StallCause::Other);
        assert_eq!(cause(1150, 1500, 0), StallCause::Other);
        assert_eq!(cause(0, 0, 0), StallCause::Fork, "a tie goes to the last share in the list");
        let captured = LongestCommand { nanos: 100, begun_ns: 3000, stall_nanos: 60, command: 0 };
        assert_eq!(stall_windows.cause(&captured, true), StallCause::UndoCapture);
    }

    #[test]
    fn outside_arena_subtracts_the_faults_of_the_arena() {
        let faults = MinorFaults { before: Some(100), after: Some(150) };
        let cow = CowStats { faults: 20, fresh_pages: 10, ..CowStats::default() };
        assert_eq!(faults.outside_arena(&cow), Some(20));
        assert_eq!(faults.outside_arena(&CowStats { faults: 60, ..cow }), Some(0));
        assert_eq!(MinorFaults { after: None, ..faults }.outside_arena(&cow), None);
    }

    #[test]
    fn page_table_bytes_of_a_dead_process_are_zero() {
        assert!(page_table_bytes(std::process::id().cast_signed()) >= 4096);
        assert_eq!(page_table_bytes(-1), 0);
    }
}
