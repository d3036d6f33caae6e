//! Finds what has changed since the last poll and sends it to the connected pages. Without a
//! connected page nothing is polled.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::event_hub::{EventHub, event};
use super::json::{CheckpointEvent, OccupancyJson, ServerState, up_to_date};
use crate::clock::Timestamp;
use crate::telemetry::checkpoint_record::CheckpointRecord;
use crate::telemetry::registry::Telemetry;
use crate::telemetry::seconds::SecondStats;
use crate::telemetry::stats_source::StatsSource;

/// Time between two polls, so that even a short checkpoint is seen.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two occupancy maps while no checkpoint runs.
const IDLE_MAP_INTERVAL: Duration = Duration::from_secs(1);

/// The event `second`.
#[derive(Serialize)]
struct SecondEvent<'a> {
    second: &'a SecondStats,
    state: &'a ServerState,
}

/// The sources that are polled, and the pages that receive the changes.
pub(super) struct Feed<'a> {
    pub(super) telemetry: &'a Telemetry,
    pub(super) stats_source: &'a dyn StatsSource,
    pub(super) hub: &'a EventHub,
}

/// Timer of the polls.
pub(super) fn poll_timer() -> tokio::time::Interval {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The state that all pages have received. A page may receive a change twice, but misses none: the
/// first page resets this state before its `hello`, and the `hello` of a later page is at least as
/// new as this state.
#[derive(Debug, Default)]
pub(super) struct ChangeWatcher {
    seconds: u64,
    running: Option<CheckpointRecord>,
    /// Number and start of the last checkpoint that has ended.
    last: Option<(u64, i64)>,
    map: Option<OccupancyJson>,
    map_taken: Option<Instant>,
}

impl ChangeWatcher {
    /// The state of a page that receives a `hello` right after this.
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let status = telemetry.persistence().status(Timestamp::now(), 0);
        Self {
            seconds: telemetry.seconds_after(u64::MAX).0,
            running: status.running.map(|running| running.record),
            last: status.last.as_ref().map(key),
            map: None,
            map_taken: None,
        }
    }

    /// Sends what has changed since the last poll.
    pub(super) fn poll(&mut self, feed: &Feed<'_>) {
        self.poll_seconds(feed);
        let was_running = self.running.is_some();
        self.poll_checkpoints(feed);
        self.poll_map(feed, was_running);
    }

    fn poll_seconds(&mut self, feed: &Feed<'_>) {
        let (count, new) = feed.telemetry.seconds_after(self.seconds);
        self.seconds = count;
        if new.is_empty() {
            return;
        }
        let state = ServerState::now(feed.telemetry, feed.stats_source);
        for second in &new {
            feed.hub.send(&event("second", &SecondEvent { second, state: &state }));
        }
    }

    fn poll_checkpoints(&mut self, feed: &Feed<'_>) {
        let send = |phase, record: &CheckpointRecord| {
            feed.hub.send(&event("checkpoint", &CheckpointEvent { phase, record }));
        };
        let persistence = feed.telemetry.persistence();
        let status = persistence.status(Timestamp::now(), 0);
        let last = status.last.as_ref().map(key);
        if last != self.last {
            let history = persistence.history();
            let known = history.iter().rposition(|record| Some(key(record)) == self.last);
            let new = known.map_or(0, |known| known + 1);
            history[new..].iter().for_each(|record| send("end", record));
            self.last = last;
        }
        let running = status.running.map(up_to_date);
        if let Some(record) = &running {
            let is_same = |old: &CheckpointRecord| old.number == record.number;
            let phase =
                if self.running.as_ref().is_some_and(is_same) { "progress" } else { "start" };
            send(phase, record);
        }
        self.running = running;
    }

    /// Also sends a map right after the end of a checkpoint, to clear the marks of that checkpoint.
    fn poll_map(&mut self, feed: &Feed<'_>, was_running: bool) {
        let busy = was_running || self.running.is_some();
        let is_recent = self.map_taken.is_some_and(|at| at.elapsed() < IDLE_MAP_INTERVAL);
        if is_recent && !busy {
            return;
        }
        self.map_taken = Some(Instant::now());
        let map = OccupancyJson::now(feed.stats_source);
        if self.map.as_ref() != Some(&map) {
            feed.hub.send(&event("map", &map));
            self.map = Some(map);
        }
    }
}

/// What identifies a checkpoint: those that could not start have number 0.
fn key(record: &CheckpointRecord) -> (u64, i64) {
    (record.number, record.started_ms)
}
