//! One save, from the safepoint to the record of what it did and what it cost.
//!
//! ```text
//!   asked     locked   forked  released                 child leaves   gone
//!     |--wait---|--fork--|--------|  survey, samples, ... ----|---------|--wait--| ended
//!     '------- held up ----------'                                   '-safepoint-'
//!     checkpoint_begins                                                          checkpoint_ends
//! ```
//!
//! Invariant: the barrier records from a fork to the safepoint after its child is gone, and what it
//! knows of pages is cleared before the next fork.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::clock::{self, Timestamp};
use crate::commands::Shared;
use crate::keyspace::{CHUNK_SIZE, DATABASES, Shards, layout_hash};
use crate::telemetry::{
    CheckpointRecord, CheckpointStart, CheckpointStatus, CowStats, ForkTimes, LatencyEvent,
    LongestCommand, LongestStall, StallCause, UndoStats, minor_faults_of_other_threads,
};
use cowherd_arena::checkpoint::{
    CheckpointError, CheckpointHandle, CheckpointObserver, CheckpointOutcome, ChunkCodec,
    ImageOptions, ImageTarget, PreparedCheckpoint, RunningCheckpoint, buffer_bytes,
};
use cowherd_arena::{ChunkSet, ShardSet};

/// A save in the background.
pub(super) struct CheckpointRun<'s> {
    shared: &'s Shared,
    target: ImageTarget,
    options: ImageOptions,
    /// Forks that it has taken.
    pub(super) forks: u32,
    stall_windows: StallWindows,
    cow: CowStats,
    undo: UndoStats,
    pages: PagesSeen,
    faults: FaultsSeen,
    ended: Option<Timestamp>,
}

/// Huge pages before and after a save.
#[derive(Default)]
struct PagesSeen {
    before_bytes: Option<u64>,
    after_bytes: Option<u64>,
    splits: Option<u64>,
}

/// Minor page faults of all threads but the saver's, which surveys and makes memory ready.
#[derive(Default)]
struct FaultsSeen {
    before: Option<u64>,
    after: Option<u64>,
}

impl FaultsSeen {
    /// Those that came during the save, without the arena's that `cow` counts.
    fn without(&self, cow: &CowStats) -> Option<u64> {
        let all = self.after?.checked_sub(self.before?)?;
        // A page that two threads touch first at the same moment is a fault of both.
        Some(all.saturating_sub(cow.faults + cow.fresh_pages + cow.private_pages))
    }
}

impl<'s> CheckpointRun<'s> {
    /// A save with the settings of this moment.
    pub(super) fn new(shared: &'s Shared) -> Self {
        let (target, options) = plan(shared);
        Self {
            shared,
            target,
            options,
            forks: 0,
            stall_windows: StallWindows::default(),
            cow: CowStats::default(),
            undo: UndoStats::default(),
            pages: PagesSeen::default(),
            faults: FaultsSeen::default(),
            ended: None,
        }
    }

    /// Forks at the safepoint.
    ///
    /// # Errors
    /// There is no child.
    pub(super) fn fork(&mut self) -> Result<RunningCheckpoint, CheckpointError> {
        let shared = self.shared;
        let prepared =
            PreparedCheckpoint::new(&self.target, &self.options, shared.keyspace.arena())?;
        if self.forks == 0 {
            shared.telemetry.checkpoint_begins();
        }
        self.forks += 1;
        self.faults.before = minor_faults_of_other_threads();
        let at = Timestamp::now();
        let asked = clock::monotonic_ns();
        let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        let locked = clock::monotonic_ns();
        let mut start = start_of(shared, &shards);
        let begun = clock::monotonic_ns();
        let running = match shards.held().safepoint() {
            Some(safepoint) => prepared.fork(&safepoint)?,
            None => unreachable!("all shards are locked"),
        };
        let fork = running.fork_duration();
        drop(shards);
        let released = clock::monotonic_ns();
        self.stall_windows.fork(Span(asked, released), Span(begun, begun + clock::nanos(fork)));
        let wait = Duration::from_nanos(locked - asked);
        let times = ForkTimes { wait, fork, hold_up: Duration::from_nanos(released - asked) };
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

    /// Finds out what the child shares, and waits for its end.
    ///
    /// # Errors
    /// There is no new image.
    pub(super) fn wait(
        &mut self,
        running: RunningCheckpoint,
    ) -> Result<CheckpointOutcome, CheckpointError> {
        let arena = self.shared.keyspace.arena();
        let barrier = arena.barrier();
        let handle = running.handle();
        let mut attendant = Observer { shared: self.shared, end: None, looked: None };
        let goes_on = || !handle.is_over() && attendant.look_now_and_then();
        let before = arena.scan_child_pages(running.pid(), goes_on);
        let result = running.wait(&mut attendant);
        self.stall_windows.safepoints.extend(attendant.end);
        self.ended = Some(Timestamp::now());
        self.faults.after = minor_faults_of_other_threads();
        self.cow = barrier.cost();
        self.undo = barrier.undo_cost();
        barrier.reset();
        let after = arena.scan_pages(|| true).map(|look| look.huge);
        let bytes = |chunks: &ChunkSet| chunks.len() * CHUNK_SIZE;
        let both = before.as_ref().zip(after.as_ref());
        self.pages = PagesSeen {
            splits: both.map(|(before, after)| arena.split_since(before, after)),
            before_bytes: before.as_ref().map(bytes),
            after_bytes: after.as_ref().map(bytes),
        };
        result
    }

    /// Tells log and figures how the save ended.
    pub(super) fn finish(&self, result: &Result<CheckpointOutcome, CheckpointError>) {
        let telemetry = &self.shared.telemetry;
        let ended = self.ended.unwrap_or_else(Timestamp::now);
        let mut worst = None;
        if self.forks > 0 {
            telemetry.checkpoint_ends();
            worst = telemetry.longest_command();
        }
        let record = telemetry.persistence().checkpoint_finished(ended, |record| {
            note_cost(record, self.cow, self.undo);
            record.huge_before_bytes = self.pages.before_bytes;
            record.huge_after_bytes = self.pages.after_bytes;
            record.thp_splits = self.pages.splits;
            record.other_page_faults = self.faults.without(&self.cow);
            record.longest_stall = worst.map(|worst| LongestStall {
                took: Duration::from_nanos(worst.nanos),
                cause: self.stall_windows.cause(&worst, record.has_undo_log()),
                command: self.shared.table.rows()[worst.command].name.clone(),
            });
            conclude(record, result);
        });
        self.shared.sampled.saw_save(self.pages.after_bytes, self.pages.splits);
        log(&record, &self.target);
    }
}

/// Writes an image on this thread, while all shards are locked.
///
/// # Errors
/// There is no new image.
pub(super) fn write_here(shared: &Shared, shards: &mut Shards<'_>) -> Result<(), CheckpointError> {
    let (target, options) = plan(shared);
    let start = start_of(shared, shards);
    shared.telemetry.persistence().checkpoint_started(start, Timestamp::now());
    let prepared = PreparedCheckpoint::new(&target, &options, shared.keyspace.arena());
    let result = prepared.and_then(|prepared| match shards.held().safepoint() {
        Some(safepoint) => prepared.write_here(&safepoint),
        None => unreachable!("all shards are locked"),
    });
    let ended = Timestamp::now();
    let record = shared.telemetry.persistence().checkpoint_finished(ended, |record| {
        conclude(record, &result);
    });
    log(&record, &target);
    result.map(|_| ())
}

/// Notes what a running save has done and cost by now.
pub(super) fn sample(shared: &Shared, child: &CheckpointHandle) {
    let progress = child.progress();
    let barrier = shared.keyspace.arena().barrier();
    if !barrier.is_active() {
        // The save is ending: its last figures are taken there.
        return;
    }
    barrier.note_dumped(progress.done_below);
    let (cow, undo) = (barrier.cost(), barrier.undo_cost());
    shared.telemetry.persistence().checkpoint_sampled(child.pid(), Timestamp::now(), |record| {
        note_cost(record, cow, undo);
        record.chunks_done = progress.chunks_done;
        record.raw_bytes = progress.raw_bytes;
        record.image_bytes = progress.image_bytes;
        record.steps = progress.steps;
    });
}

/// Notes what a save has cost by now, and the memory that this has taken since it was last noted.
fn note_cost(record: &mut CheckpointRecord, cow: CowStats, undo: UndoStats) {
    record.extra_memory_bytes += cow.copied_bytes.saturating_sub(record.cow.copied_bytes)
        + undo.committed_bytes.saturating_sub(record.undo.committed_bytes);
    record.cow = cow;
    record.undo = undo;
}

/// How often an undo log is looked after: its spent records are taken back and its memory is made
/// ready faster than writers can use it up.
const LOOK_AFTER_LOG: Duration = Duration::from_millis(5);
/// How often the save of an arena without one is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after a save while its child writes.
struct Observer<'s> {
    shared: &'s Shared,
    /// When all clients were held up for its end.
    end: Option<Span>,
    looked: Option<Instant>,
}

impl Observer<'_> {
    /// Looks after the save unless it has just done so, for whoever has other work meanwhile;
    /// tells whether something can still come of it.
    fn look_now_and_then(&mut self) -> bool {
        if self.looked.is_some_and(|looked| looked.elapsed() < self.poll_interval()) {
            return true;
        }
        let failed = self.poll();
        self.looked = Some(Instant::now());
        failed.is_none()
    }
}

impl CheckpointObserver for Observer<'_> {
    fn poll_interval(&self) -> Duration {
        let log = self.shared.keyspace.arena().barrier().undo_log();
        if log.is_some() { LOOK_AFTER_LOG } else { LOOK }
    }

    fn poll(&mut self) -> Option<CheckpointError> {
        let barrier = self.shared.keyspace.arena().barrier();
        let log = barrier.undo_log()?;
        if barrier.has_overflowed() {
            return Some(CheckpointError::UndoLimit { limit: log.limit() });
        }
        log.reclaim();
        log.prefault();
        None
    }

    fn child_exiting(&mut self) {
        self.shared.keyspace.arena().barrier().child_exiting();
    }

    fn child_exited(&mut self) {
        let asked = clock::monotonic_ns();
        let mut shards = self.shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
        if let Some(safepoint) = shards.held().safepoint() {
            self.shared.keyspace.arena().barrier().end(&safepoint);
        }
        drop(shards);
        let released = clock::monotonic_ns();
        self.end = Some(Span(asked, released));
        let took = Duration::from_nanos(released.saturating_sub(asked));
        self.shared.telemetry.latency_event(LatencyEvent::Safepoint, took);
    }
}

/// What saves write, and where to, by the settings of this moment.
pub(super) fn plan(shared: &Shared) -> (ImageTarget, ImageOptions) {
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

/// What is known of a save at its safepoint.
fn start_of(shared: &Shared, shards: &Shards<'_>) -> CheckpointStart {
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

fn conclude(record: &mut CheckpointRecord, result: &Result<CheckpointOutcome, CheckpointError>) {
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

/// One line for each save.
fn log(record: &CheckpointRecord, target: &ImageTarget) {
    let stall = record.longest_stall.as_ref();
    // Only what the isolation has; a save in the foreground needs none.
    let cow = (record.background && !record.has_undo_log()).then_some(&record.cow);
    let undo = (record.background && record.has_undo_log()).then_some(&record.undo);
    let hundredths = |ratio: f64| (ratio * 100.0).round() / 100.0;
    macro_rules! line {
        ($level:ident, $($message:tt)*) => {
            tracing::$level!(
                save = record.number,
                image = %target.path().display(),
                keys = record.keys,
                chunks = record.chunks_done,
                image_bytes = record.image_bytes,
                seconds = record.duration.as_secs_f64(),
                bytes_per_second = record.bytes_per_second().round(),
                fork_us = clock::micros(record.fork),
                safepoint_wait_us = clock::micros(record.safepoint_wait),
                cow_faults = cow.map(|cow| cow.faults),
                cow_bytes = cow.map(|cow| cow.copied_bytes),
                cow_stall_us = cow.map(|cow| clock::micros(cow.stall)),
                cow_amplification = cow.map(|cow| hundredths(cow.amplification())),
                undo_captures = undo.map(|undo| undo.captures),
                undo_bytes = undo.map(|undo| undo.captured_bytes),
                undo_stall_us = undo.map(|undo| clock::micros(undo.stall)),
                undo_log_bytes = undo.map(|undo| undo.log_bytes),
                undo_amplification = undo.map(|undo| hundredths(undo.amplification())),
                undo_patch_us = undo.map(|_| clock::micros(record.steps.patch)),
                longest_stall_us = stall.map_or(0, |stall| clock::micros(stall.took)),
                longest_stall_cause = stall.map_or("none", |stall| stall.cause.name()),
                extra_memory_bytes = record.extra_memory_bytes,
                thp_splits = cow.and(record.thp_splits),
                other_page_faults = record.other_page_faults,
                $($message)*
            )
        };
    }
    match (record.status, &record.error) {
        (CheckpointStatus::Failed, Some(error)) => line!(error, "Checkpoint failed: {error}"),
        (CheckpointStatus::Cancelled, _) => line!(info, "Checkpoint cancelled"),
        _ => line!(info, "Checkpoint saved"),
    }
}

/// Bytes of a process's page tables: what the kernel copied for it at the fork.
fn page_table_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmPTE:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0) << 10
}

/// From one moment to another, as [`clock::monotonic_ns`] counts.
#[derive(Clone, Copy)]
struct Span(u64, u64);

impl Span {
    /// Nanoseconds that two have in common.
    fn overlap(self, other: Self) -> u64 {
        self.1.min(other.1).saturating_sub(self.0.max(other.0))
    }
}

/// When a save held all clients up.
#[derive(Default)]
struct StallWindows {
    /// Locks asked for, held and released.
    safepoints: Vec<Span>,
    /// The parts of those in which the kernel forked.
    forks: Vec<Span>,
}

impl StallWindows {
    fn fork(&mut self, safepoint: Span, fork: Span) {
        self.safepoints.push(safepoint);
        self.forks.push(fork);
    }

    /// What took most of a command's time; `undo_log` tells what its stalls were.
    fn cause(&self, worst: &LongestCommand, undo_log: bool) -> StallCause {
        let command = Span(worst.begun_ns, worst.begun_ns + worst.nanos);
        let common = |spans: &[Span]| spans.iter().map(|span| span.overlap(command)).sum::<u64>();
        let fork = common(&self.forks);
        let safepoint = common(&self.safepoints).saturating_sub(fork);
        let other = worst.nanos.saturating_sub(fork + safepoint + worst.stall_nanos);
        let shares = [
            (other, StallCause::Other),
            (
                worst.stall_nanos,
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
    fn the_cause_is_what_took_most_of_the_time() {
        let mut stall_windows = StallWindows::default();
        stall_windows.fork(Span(1000, 1900), Span(1200, 1800));
        stall_windows.safepoints.push(Span(5000, 5500));
        let cause = |begun_ns, nanos, stall_nanos| {
            stall_windows.cause(&LongestCommand { nanos, begun_ns, stall_nanos, command: 0 }, false)
        };
        assert_eq!(cause(1100, 800, 0), StallCause::Fork);
        assert_eq!(cause(900, 320, 0), StallCause::Safepoint);
        assert_eq!(cause(5100, 420, 10), StallCause::Safepoint);
        assert_eq!(cause(3000, 100, 60), StallCause::CowFault);
        assert_eq!(cause(3000, 100, 40), StallCause::Other);
        assert_eq!(cause(1150, 1500, 0), StallCause::Other);
        assert_eq!(cause(0, 0, 0), StallCause::Fork, "a tie goes to what is asked for most");
        let captured = LongestCommand { nanos: 100, begun_ns: 3000, stall_nanos: 60, command: 0 };
        assert_eq!(stall_windows.cause(&captured, true), StallCause::UndoCapture);
    }

    #[test]
    fn other_faults_are_those_that_copy_on_write_does_not_count() {
        let seen = FaultsSeen { before: Some(100), after: Some(150) };
        let cow = CowStats { faults: 20, fresh_pages: 10, ..CowStats::default() };
        assert_eq!(seen.without(&cow), Some(20));
        assert_eq!(seen.without(&CowStats { faults: 60, ..cow }), Some(0));
        assert_eq!(FaultsSeen { after: None, ..seen }.without(&cow), None);
    }

    #[test]
    fn page_tables_are_read_of_a_process_that_lives() {
        assert!(page_table_bytes(std::process::id().cast_signed()) >= 4096);
        assert_eq!(page_table_bytes(-1), 0);
    }
}
