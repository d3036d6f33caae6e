use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cowherd_arena::{OccupancyCell, OccupancyMap};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::*;
use crate::clock::Timestamp;
use crate::telemetry::{
    CheckpointRecord, CheckpointStart, CheckpointStatus, StatsSnapshot, UndoLogLimits,
};

/// A source that counts the occupancy maps taken.
#[derive(Default)]
struct MapCounter(AtomicUsize);

impl StatsSource for MapCounter {
    fn stats_snapshot(&self) -> StatsSnapshot {
        let undo_log = Some(UndoLogLimits { limit: 4096, block_bytes: 512 });
        StatsSnapshot { undo_log, ..StatsSnapshot::default() }
    }

    fn occupancy_map(&self, max_cells: usize) -> OccupancyMap {
        assert!(max_cells >= 2);
        let taken = self.0.fetch_add(1, Relaxed);
        let cell = OccupancyCell::new(OccupancyCell::USED | OccupancyCell::AT_FORK, taken as u64);
        OccupancyMap { chunks_per_cell: 3, cells: vec![cell, OccupancyCell(0)] }
    }
}

fn live() -> (Arc<Telemetry>, Arc<MapCounter>, Arc<LivePage>) {
    let telemetry = Telemetry::new(1, vec!["get".to_owned()], vec!["string"]);
    let source = Arc::new(MapCounter::default());
    let dynamic = Arc::clone(&source) as Arc<dyn StatsSource>;
    let live = Arc::new(LivePage::new(Arc::clone(&telemetry), dynamic));
    (telemetry, source, live)
}

fn get(live: &LivePage, path: &str) -> (Response<Payload>, Option<Disconnected>) {
    live.answer(&Method::GET, path).unwrap()
}

async fn body(response: Response<Payload>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The next event that has this name, as JSON.
async fn next(feed: &mut Payload, name: &str) -> serde_json::Value {
    loop {
        let frame = timeout(Duration::from_secs(20), feed.frame()).await.unwrap().unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        let (head, data) = text.strip_suffix("\n\n").unwrap().split_once('\n').unwrap();
        if head.strip_prefix("event: ") == Some(name) {
            return serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn each_file_of_the_page_is_served_with_a_strict_policy() {
    let (_, _, live) = live();
    let (response, _) = get(&live, "/");
    let page = body(response).await;
    let mut paths: Vec<&str> = page
        .split(['"', '\''])
        .filter(|text| text.starts_with("/live/") || text.starts_with("./"))
        .collect();
    paths.push("/");
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let (response, _) = live.answer(&Method::GET, path).expect(path);
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        let mut sources = policy.split("; ").flat_map(|rule| rule.split(' ').skip(1));
        assert!(sources.all(|source| ["'none'", "'self'"].contains(&source)), "{policy}");
        assert!(!body(response).await.is_empty(), "{path}");
    }
    assert!(live.answer(&Method::GET, "/live/none.js").is_none());
    assert!(live.answer(&Method::GET, "/live/").is_none());
}

#[tokio::test]
async fn checkpoints_and_state_are_json() {
    let (telemetry, _, live) = live();
    let persistence = telemetry.persistence();
    persistence.checkpoint_started(CheckpointStart::default(), Timestamp::now());
    persistence.checkpoint_finished(Timestamp::now(), |record| {
        record.status = CheckpointStatus::Failed;
        record.error = Some("the disk is full".to_owned());
        record.cow.copied_bytes = 4096;
        record.cow.written_bytes = 64;
        record.undo.captured_bytes = 512;
        record.undo.written_bytes = 64;
        record.undo.reused_records = 7;
    });
    persistence.checkpoint_started(CheckpointStart::default(), Timestamp::now());
    let checkpoints: serde_json::Value =
        serde_json::from_str(&body(get(&live, "/api/checkpoints").0).await).unwrap();
    assert_eq!(checkpoints["running"]["number"], 2);
    assert_eq!(checkpoints["ended"][0]["status"], "failed");
    assert_eq!(checkpoints["ended"][0]["error"], "the disk is full");
    assert_eq!(checkpoints["ended"][0]["cow_amplification"], 64.0);
    assert_eq!(checkpoints["ended"][0]["undo_amplification"], 8.0);
    assert_eq!(checkpoints["ended"][0]["undo"]["captured_bytes"], 512);
    let state: serde_json::Value =
        serde_json::from_str(&body(get(&live, "/api/state").0).await).unwrap();
    assert_eq!(state["version"], env!("CARGO_PKG_VERSION"));
    assert!(state["pool"].is_null());
    assert_eq!(
        (&state["undo"]["limit_bytes"], &state["undo"]["block_bytes"]),
        (&4096.into(), &512.into())
    );
    assert_eq!(state["undo"]["reused_records"], 7, "those of checkpoints that have ended");
}

#[tokio::test]
async fn a_page_receives_everything_and_then_the_changes() {
    let (telemetry, source, live) = live();
    telemetry.tick(0, 0);
    telemetry.recorder(0).unwrap().command(0, 2000, false);
    telemetry.tick(1_000_000, 0);
    let watching = Arc::clone(&live);
    let watcher = tokio::spawn(async move { watching.run().await });
    tokio::task::yield_now().await;
    assert_eq!(source.0.load(Relaxed), 0, "no map is taken without a page");

    let (response, _kept) = get(&live, "/events");
    assert_eq!(response.headers()[CONTENT_TYPE], EVENTS);
    let mut feed = response.into_body();
    let hello = next(&mut feed, "hello").await;
    assert_eq!(hello["seconds"].as_array().unwrap().len(), 1);
    assert_eq!(hello["seconds"][0]["max_seconds"], 2e-6);
    assert_eq!(hello["map"]["chunks_per_cell"], 3);
    assert_eq!(hello["map"]["cells"], "AwA=");
    assert!(hello["checkpoints"]["running"].is_null());

    telemetry.tick(2_000_000, 0);
    let second = next(&mut feed, "second").await;
    assert!(second["second"]["p50_seconds"].is_null());
    assert_eq!(second["state"]["keys"], 0);

    let persistence = telemetry.persistence();
    let record = CheckpointRecord { chunks: 4, ..CheckpointRecord::default() };
    let start = CheckpointStart { record, ..CheckpointStart::default() };
    persistence.checkpoint_started(start, Timestamp::now());
    assert_eq!(next(&mut feed, "checkpoint").await["phase"], "start");
    persistence.checkpoint_sampled(0, Timestamp::now(), |record| record.chunks_done = 3);
    let progress = next(&mut feed, "checkpoint").await;
    assert_eq!((&progress["phase"], &progress["chunks"]), (&"progress".into(), &4.into()));
    assert!(next(&mut feed, "map").await["cells"].is_string(), "taken while a checkpoint runs");
    persistence
        .checkpoint_finished(Timestamp::now(), |record| record.status = CheckpointStatus::Ok);
    loop {
        let checkpoint = next(&mut feed, "checkpoint").await;
        if checkpoint["phase"] == "end" {
            assert_eq!((&checkpoint["number"], &checkpoint["status"]), (&1.into(), &"ok".into()));
            break;
        }
    }
    watcher.abort();
}

#[tokio::test]
async fn too_many_pages_are_refused_and_all_are_disconnected_at_the_end() {
    let (_, _, live) = live();
    let mut all: Vec<_> = (0..MAX_PAGES).map(|_| get(&live, "/events")).collect();
    let (refused, disconnected) = get(&live, "/events");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(disconnected.is_none());
    live.close();
    let (response, disconnected) = all.pop().unwrap();
    assert!(disconnected.unwrap().await.is_err(), "the sender is gone");
    assert!(body(response).await.starts_with("event: hello\n"), "and the body ends");
}

#[tokio::test]
async fn a_head_request_for_events_connects_no_page() {
    let (_, _, live) = live();
    let (response, disconnected) = live.answer(&Method::HEAD, "/events").unwrap();
    assert!(disconnected.is_none() && !live.hub.has_pages());
    assert_eq!(body(response).await, "");
}
