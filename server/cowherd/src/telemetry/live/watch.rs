//! Tells listeners what has changed, and asks for nothing while there are none.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::LivePage;
use super::hub::event;
use super::seconds::SecondStats;
use super::state::{MapView, SaveView, State};
use crate::clock::Timestamp;
use crate::telemetry::{CheckpointRecord, Telemetry};

/// Time from one look to the next.
const LOOK: Duration = Duration::from_millis(100);
/// Time from one look at the arena to the next while no save runs.
const IDLE_MAP: Duration = Duration::from_secs(1);

/// The event `second`.
#[derive(Serialize)]
struct SecondEvent<'a> {
    second: &'a SecondStats,
    state: &'a State,
}

/// The event `save`.
#[derive(Serialize)]
struct SaveEvent<'a> {
    phase: &'static str,
    #[serde(flatten)]
    save: SaveView<'a>,
}

/// Looks while somebody listens; never ends.
pub(super) async fn run(live: &LivePage) {
    loop {
        live.hub.heard().await;
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while live.hub.is_heard() {
            live.watch.lock().look(live);
            ticks.tick().await;
        }
    }
}

/// What listeners have been told. They may be told a thing twice, but miss none: who comes first
/// sets this back before the first look, and who comes later is told no less than this.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seconds: u64,
    running: Option<CheckpointRecord>,
    /// Number and start of the last save that has ended.
    last: Option<(u64, i64)>,
    map: Option<MapView>,
    map_looked: Option<Instant>,
}

impl Watch {
    /// Of a listener who is told everything right after this.
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let view = telemetry.persistence().status(Timestamp::now(), 0);
        Self {
            seconds: telemetry.seconds_after(u64::MAX).0,
            running: view.saving.map(|saving| saving.record),
            last: view.last.as_ref().map(key),
            map: None,
            map_looked: None,
        }
    }

    fn look(&mut self, live: &LivePage) {
        self.look_at_seconds(live);
        let was_running = self.running.is_some();
        self.look_at_saves(live);
        self.look_at_map(live, was_running);
    }

    fn look_at_seconds(&mut self, live: &LivePage) {
        let (count, new) = live.telemetry.seconds_after(self.seconds);
        self.seconds = count;
        if new.is_empty() {
            return;
        }
        let state = State::now(&live.telemetry, &*live.stats_source);
        for second in &new {
            live.hub.send(&event("second", &SecondEvent { second, state: &state }));
        }
    }

    fn look_at_saves(&mut self, live: &LivePage) {
        let send = |phase, record: &CheckpointRecord| {
            live.hub.send(&event("save", &SaveEvent { phase, save: SaveView::of(record) }));
        };
        let persistence = live.telemetry.persistence();
        let view = persistence.status(Timestamp::now(), 0);
        let last = view.last.as_ref().map(key);
        if last != self.last {
            let history = persistence.history();
            let known = history.iter().rposition(|record| Some(key(record)) == self.last);
            let new = known.map_or(0, |known| known + 1);
            history[new..].iter().for_each(|record| send("end", record));
            self.last = last;
        }
        let running = view.saving.map(|saving| {
            // Between two samples time goes on.
            CheckpointRecord { duration: saving.elapsed, ..saving.record }
        });
        if let Some(record) = &running {
            let is_same = |old: &CheckpointRecord| old.number == record.number;
            let phase =
                if self.running.as_ref().is_some_and(is_same) { "progress" } else { "start" };
            send(phase, record);
        }
        self.running = running;
    }

    /// Looks once more when a save has just ended, so that its traces go.
    fn look_at_map(&mut self, live: &LivePage, was_running: bool) {
        let busy = was_running || self.running.is_some();
        let rests = self.map_looked.is_some_and(|looked| looked.elapsed() < IDLE_MAP);
        if rests && !busy {
            return;
        }
        self.map_looked = Some(Instant::now());
        let map = MapView::now(&*live.stats_source);
        if self.map.as_ref() != Some(&map) {
            live.hub.send(&event("map", &map));
            self.map = Some(map);
        }
    }
}

fn key(record: &CheckpointRecord) -> (u64, i64) {
    (record.number, record.started_ms)
}
