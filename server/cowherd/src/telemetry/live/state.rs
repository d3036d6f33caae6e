//! The shapes of the page's JSON. Durations are seconds, sizes are bytes, moments are milliseconds
//! since 1970.

use std::borrow::Cow::{self, Borrowed, Owned};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::seconds::SecondStats;
use crate::clock::Timestamp;
use crate::telemetry::{
    ArenaStats, CheckpointRecord, CowStats, HugePoolStats, OccupancyCell, StatsSnapshot,
    StatsSource, Telemetry, ThpStats, UndoStats, process,
};

/// The most cells of a map.
const CELLS: usize = 4096;

/// All that a page is told when it comes.
#[derive(Debug, Serialize)]
pub(super) struct Hello {
    state: State,
    seconds: Vec<SecondStats>,
    saves: Saves,
    map: MapView,
}

impl Hello {
    pub(super) fn now(telemetry: &Telemetry, stats_source: &dyn StatsSource) -> Self {
        Self {
            state: State::now(telemetry, stats_source),
            seconds: telemetry.seconds_after(0).1,
            saves: saves(telemetry),
            map: MapView::now(stats_source),
        }
    }
}

/// The saves that are remembered.
#[derive(Debug, Serialize)]
pub(super) struct Saves {
    running: Option<SaveView<'static>>,
    /// The oldest first.
    ended: Vec<SaveView<'static>>,
}

pub(super) fn saves(telemetry: &Telemetry) -> Saves {
    let persistence = telemetry.persistence();
    let running = persistence.status(Timestamp::now(), 0).saving;
    Saves {
        running: running.map(|saving| {
            // Between two samples time goes on.
            let record = CheckpointRecord { duration: saving.elapsed, ..saving.record };
            SaveView::new(Owned(record))
        }),
        ended: persistence.history().into_iter().map(|one| SaveView::new(Owned(one))).collect(),
    }
}

/// A save, with what follows from its figures.
#[derive(Debug, Serialize)]
pub(super) struct SaveView<'a> {
    #[serde(flatten)]
    record: Cow<'a, CheckpointRecord>,
    cow_amplification: f64,
    undo_amplification: f64,
    bytes_per_second: f64,
}

impl<'a> SaveView<'a> {
    fn new(record: Cow<'a, CheckpointRecord>) -> Self {
        Self {
            cow_amplification: record.cow.amplification(),
            undo_amplification: record.undo.amplification(),
            bytes_per_second: record.bytes_per_second(),
            record,
        }
    }

    pub(super) fn of(record: &'a CheckpointRecord) -> Self {
        Self::new(Borrowed(record))
    }
}

/// A picture of the arena.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct MapView {
    chunks_per_cell: u64,
    /// The cells' bytes in base64; see [`OccupancyCell`].
    cells: String,
}

impl MapView {
    pub(super) fn now(stats_source: &dyn StatsSource) -> Self {
        let map = stats_source.occupancy_map(CELLS);
        let bytes: Vec<u8> = map.cells.iter().map(|OccupancyCell(bits)| *bits).collect();
        Self { chunks_per_cell: map.chunks_per_cell, cells: STANDARD.encode(bytes) }
    }
}

/// The server as it is.
#[derive(Debug, Serialize)]
pub(super) struct State {
    version: &'static str,
    now_ms: i64,
    uptime_seconds: u64,
    port: u16,
    threads: usize,
    clients: u64,
    keys: u64,
    changes_since_checkpoint: u64,
    last_checkpoint_ms: i64,
    arena: Arena,
    isolation: String,
    memory: Memory,
    thp: Thp,
    pool: Option<Pool>,
    cow: CowCost,
    undo: Option<UndoCost>,
}

#[derive(Debug, Serialize)]
struct Arena {
    pages_asked: String,
    pages: String,
    capacity_bytes: u64,
    chunk_bytes: u64,
    used_chunks: u64,
    huge_bytes: u64,
    cow_page_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    used_bytes: u64,
    peak_bytes: u64,
    limit_bytes: u64,
    resident_bytes: u64,
    policy: &'static str,
}

#[derive(Debug, Serialize)]
struct Thp {
    setting: String,
    splits: u64,
    collapsed: u64,
}

#[derive(Debug, Serialize)]
struct Pool {
    page_bytes: u64,
    total: u64,
    free: u64,
    reserved: u64,
}

/// What copy-on-write has cost since the start.
#[derive(Debug, Serialize)]
struct CowCost {
    #[serde(flatten)]
    figures: CowStats,
    amplification: f64,
}

/// What the undo log is to be, and what it has cost since the start.
#[derive(Debug, Serialize)]
struct UndoCost {
    block_bytes: u64,
    limit_bytes: u64,
    #[serde(flatten)]
    figures: UndoStats,
    amplification: f64,
}

impl UndoCost {
    fn new(inputs: &StatsSnapshot, reused_records: u64) -> Option<Self> {
        let log = inputs.undo_log?;
        Some(Self {
            block_bytes: log.block_bytes,
            limit_bytes: log.limit,
            figures: UndoStats { reused_records, ..inputs.undo },
            amplification: inputs.undo.amplification(),
        })
    }
}

impl State {
    pub(super) fn now(telemetry: &Telemetry, stats_source: &dyn StatsSource) -> Self {
        let now = Timestamp::now();
        let inputs = stats_source.stats_snapshot();
        let view = telemetry.persistence().status(now, inputs.counters.changes);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now_ms: now.wall_ms,
            uptime_seconds: now.since(&telemetry.started()).as_secs(),
            port: inputs.server.tcp_port,
            threads: inputs.server.threads,
            clients: telemetry.totals().clients(),
            keys: inputs.databases.iter().map(|database| database.keys).sum(),
            changes_since_checkpoint: view.changes_since_checkpoint,
            last_checkpoint_ms: view.last_checkpoint_ms,
            memory: Memory {
                used_bytes: inputs.memory.used,
                peak_bytes: telemetry.peak_memory().max(inputs.memory.used),
                limit_bytes: inputs.memory.limit,
                resident_bytes: process::resident_bytes(),
                policy: inputs.memory.policy,
            },
            undo: UndoCost::new(&inputs, view.totals.undo_reused_records),
            arena: inputs.arena.into(),
            isolation: inputs.checkpoint_isolation,
            thp: inputs.thp.into(),
            pool: inputs.pool.map(Pool::from),
            cow: CowCost { amplification: inputs.cow.amplification(), figures: inputs.cow },
        }
    }
}

impl From<ArenaStats> for Arena {
    fn from(figures: ArenaStats) -> Self {
        Self {
            pages_asked: figures.pages_asked,
            pages: figures.pages,
            capacity_bytes: figures.capacity,
            chunk_bytes: figures.chunk_bytes,
            used_chunks: figures.used_chunks,
            huge_bytes: figures.huge_bytes,
            cow_page_bytes: figures.cow_page_bytes,
        }
    }
}

impl From<ThpStats> for Thp {
    fn from(figures: ThpStats) -> Self {
        Self { setting: figures.setting, splits: figures.splits, collapsed: figures.collapsed }
    }
}

impl From<HugePoolStats> for Pool {
    fn from(figures: HugePoolStats) -> Self {
        Self {
            page_bytes: figures.page_bytes,
            total: figures.total,
            free: figures.free,
            reserved: figures.reserved,
        }
    }
}
