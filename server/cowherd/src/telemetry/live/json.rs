//! The JSON of the live page. Durations are in seconds, sizes in bytes, timestamps in milliseconds
//! since 1970.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cowherd_arena::OccupancyCell;
use cowherd_arena::stats::{CowStats, UndoStats};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::clock::Timestamp;
use crate::telemetry::checkpoint_figures::{CHECKPOINT_FIGURES, COW_FIGURES, Figure, UNDO_FIGURES};
use crate::telemetry::checkpoint_record::CheckpointRecord;
use crate::telemetry::persistence::{CheckpointInProgress, RunningRestore};
use crate::telemetry::process;
use crate::telemetry::registry::Telemetry;
use crate::telemetry::seconds::SecondStats;
use crate::telemetry::stats_source::{
    ArenaStats, HugePoolStats, StatsSnapshot, StatsSource, ThpStats,
};

/// The most cells of an occupancy map: one byte each in an event, four pixels each on a screen.
const MAX_CELLS: usize = 4096;

/// The event `hello`: everything that a new page needs.
#[derive(Debug, serde::Serialize)]
pub(super) struct HelloEvent {
    state: ServerState,
    seconds: Vec<SecondStats>,
    checkpoints: CheckpointList,
    map: OccupancyJson,
}

impl HelloEvent {
    pub(super) fn now(telemetry: &Telemetry, stats_source: &dyn StatsSource) -> Self {
        Self {
            state: ServerState::now(telemetry, stats_source),
            seconds: telemetry.seconds_after(0).1,
            checkpoints: CheckpointList::now(telemetry),
            map: OccupancyJson::now(stats_source),
        }
    }
}

/// The running checkpoint and the history.
#[derive(Debug, serde::Serialize)]
pub(super) struct CheckpointList {
    running: Option<CheckpointJson>,
    /// The oldest first.
    ended: Vec<CheckpointJson>,
}

impl CheckpointList {
    pub(super) fn now(telemetry: &Telemetry) -> Self {
        let persistence = telemetry.persistence();
        let running = persistence.status(Timestamp::now(), 0).running;
        Self {
            running: running.map(|running| CheckpointJson(up_to_date(running))),
            ended: persistence.history().into_iter().map(CheckpointJson).collect(),
        }
    }
}

/// The record of a running checkpoint with its duration of this moment, not of the last sample.
pub(super) fn up_to_date(running: CheckpointInProgress) -> CheckpointRecord {
    CheckpointRecord { duration: running.elapsed, ..running.record }
}

/// A checkpoint as a JSON object.
#[derive(Debug)]
pub(super) struct CheckpointJson(pub(super) CheckpointRecord);

impl Serialize for CheckpointJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        add_checkpoint(&mut map, &self.0)?;
        map.end()
    }
}

/// The event `checkpoint`: a checkpoint with its phase (`start`, `progress` or `end`).
pub(super) struct CheckpointEvent<'a> {
    pub(super) phase: &'static str,
    pub(super) record: &'a CheckpointRecord,
}

impl Serialize for CheckpointEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("phase", self.phase)?;
        add_checkpoint(&mut map, self.record)?;
        map.end()
    }
}

fn add_checkpoint<M: SerializeMap>(map: &mut M, record: &CheckpointRecord) -> Result<(), M::Error> {
    add_figures(map, CHECKPOINT_FIGURES, record)?;
    map.serialize_entry("steps", &StepsJson(record))?;
    map.serialize_entry("cow", &FiguresJson { table: COW_FIGURES, of: &record.cow })?;
    map.serialize_entry("undo", &FiguresJson { table: UNDO_FIGURES, of: &record.undo })?;
    map.serialize_entry("longest_stall", &record.longest_stall)
}

fn add_figures<T, M: SerializeMap>(
    map: &mut M,
    table: &'static [Figure<T>],
    of: &T,
) -> Result<(), M::Error> {
    for figure in table {
        if let Some(name) = figure.json {
            map.serialize_entry(name, &(figure.value)(of))?;
        }
    }
    Ok(())
}

/// The figures of a `T` as a JSON object.
struct FiguresJson<'a, T: 'static> {
    table: &'static [Figure<T>],
    of: &'a T,
}

impl<T> Serialize for FiguresJson<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        add_figures(&mut map, self.table, self.of)?;
        map.end()
    }
}

/// The times of the image writer's steps as a JSON object.
struct StepsJson<'a>(&'a CheckpointRecord);

impl Serialize for StepsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let steps = self.0.steps.named();
        serializer.collect_map(
            steps.iter().map(|(step, took)| (format!("{step}_seconds"), took.as_secs_f64())),
        )
    }
}

/// The occupancy map of the arena.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct OccupancyJson {
    chunks_per_cell: u64,
    /// The cells' bytes in base64; see [`OccupancyCell`].
    cells: String,
}

impl OccupancyJson {
    pub(super) fn now(stats_source: &dyn StatsSource) -> Self {
        let map = stats_source.occupancy_map(MAX_CELLS);
        let bytes: Vec<u8> = map.cells.iter().map(|OccupancyCell(bits)| *bits).collect();
        Self { chunks_per_cell: map.chunks_per_cell, cells: STANDARD.encode(bytes) }
    }
}

/// The state of the server: `/api/state`.
#[derive(Debug, serde::Serialize)]
pub(super) struct ServerState {
    version: &'static str,
    now_ms: i64,
    uptime_seconds: u64,
    /// The restore of the image; null once the server serves.
    loading: Option<LoadingJson>,
    port: u16,
    threads: usize,
    clients: u64,
    keys: u64,
    changes_since_checkpoint: u64,
    last_checkpoint_ms: i64,
    arena: ArenaJson,
    isolation: String,
    memory: MemoryJson,
    thp: ThpJson,
    pool: Option<HugePoolJson>,
    cow: CowJson,
    undo: Option<UndoJson>,
}

#[derive(Debug, serde::Serialize)]
struct LoadingJson {
    /// The part of the image that is read, 0 to 1. At 1 the data is being verified.
    share: f64,
    read_bytes: u64,
    total_bytes: u64,
    elapsed_seconds: f64,
    /// Time until the image is read, at the rate so far; null before a byte is read.
    remaining_seconds: Option<f64>,
}

impl From<RunningRestore> for LoadingJson {
    fn from(restore: RunningRestore) -> Self {
        Self {
            share: restore.share(),
            read_bytes: restore.progress.read_bytes,
            total_bytes: restore.progress.total_bytes,
            elapsed_seconds: restore.elapsed.as_secs_f64(),
            remaining_seconds: restore.remaining().map(|time| time.as_secs_f64()),
        }
    }
}

#[derive(Debug, serde::Serialize)]
struct ArenaJson {
    pages_asked: String,
    pages: String,
    capacity_bytes: u64,
    chunk_bytes: u64,
    used_chunks: u64,
    huge_bytes: u64,
    cow_page_bytes: u64,
}

#[derive(Debug, serde::Serialize)]
struct MemoryJson {
    used_bytes: u64,
    peak_bytes: u64,
    limit_bytes: u64,
    resident_bytes: u64,
    policy: &'static str,
}

#[derive(Debug, serde::Serialize)]
struct ThpJson {
    setting: String,
    splits: u64,
    collapsed: u64,
}

#[derive(Debug, serde::Serialize)]
struct HugePoolJson {
    page_bytes: u64,
    total: u64,
    free: u64,
    reserved: u64,
}

/// The cost of copy-on-write since the start.
#[derive(Debug)]
struct CowJson(CowStats);

impl Serialize for CowJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        add_figures(&mut map, COW_FIGURES, &self.0)?;
        map.serialize_entry("amplification", &self.0.amplification())?;
        map.end()
    }
}

/// The limits of the undo log, and its cost since the start.
#[derive(Debug)]
struct UndoJson {
    block_bytes: u64,
    limit_bytes: u64,
    stats: UndoStats,
}

impl UndoJson {
    fn new(stats: &StatsSnapshot, reused_records: u64) -> Option<Self> {
        let log = stats.undo_log?;
        Some(Self {
            block_bytes: log.block_bytes,
            limit_bytes: log.limit,
            stats: UndoStats { reused_records, ..stats.undo },
        })
    }
}

impl Serialize for UndoJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("block_bytes", &self.block_bytes)?;
        map.serialize_entry("limit_bytes", &self.limit_bytes)?;
        add_figures(&mut map, UNDO_FIGURES, &self.stats)?;
        map.serialize_entry("amplification", &self.stats.amplification())?;
        map.end()
    }
}

impl ServerState {
    pub(super) fn now(telemetry: &Telemetry, stats_source: &dyn StatsSource) -> Self {
        let now = Timestamp::now();
        let stats = stats_source.stats_snapshot();
        let status = telemetry.persistence().status(now, stats.counters.changes);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now_ms: now.wall_ms,
            uptime_seconds: now.since(&telemetry.started()).as_secs(),
            loading: status.loading.map(LoadingJson::from),
            port: stats.server.tcp_port,
            threads: stats.server.threads,
            clients: telemetry.totals().clients(),
            keys: stats.databases.iter().map(|database| database.keys).sum(),
            changes_since_checkpoint: status.changes_since_checkpoint,
            last_checkpoint_ms: status.last_checkpoint_ms,
            memory: MemoryJson {
                used_bytes: stats.memory.used,
                peak_bytes: telemetry.peak_memory().max(stats.memory.used),
                limit_bytes: stats.memory.limit,
                resident_bytes: process::resident_bytes(),
                policy: stats.memory.policy,
            },
            undo: UndoJson::new(&stats, status.totals.undo_reused_records),
            arena: stats.arena.into(),
            isolation: stats.checkpoint_isolation,
            thp: stats.thp.into(),
            pool: stats.pool.map(HugePoolJson::from),
            cow: CowJson(stats.cow),
        }
    }
}

impl From<ArenaStats> for ArenaJson {
    fn from(arena: ArenaStats) -> Self {
        Self {
            pages_asked: arena.pages_asked,
            pages: arena.pages,
            capacity_bytes: arena.capacity,
            chunk_bytes: arena.chunk_bytes,
            used_chunks: arena.used_chunks,
            huge_bytes: arena.huge_bytes,
            cow_page_bytes: arena.cow_page_bytes,
        }
    }
}

impl From<ThpStats> for ThpJson {
    fn from(thp: ThpStats) -> Self {
        Self { setting: thp.setting, splits: thp.splits, collapsed: thp.collapsed }
    }
}

impl From<HugePoolStats> for HugePoolJson {
    fn from(pool: HugePoolStats) -> Self {
        Self {
            page_bytes: pool.page_bytes,
            total: pool.total,
            free: pool.free,
            reserved: pool.reserved,
        }
    }
}
