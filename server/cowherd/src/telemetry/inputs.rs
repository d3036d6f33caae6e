//! What telemetry cannot know itself: the figures that the engine hands in for each reading.

use cowherd_arena::OccupancyMap;
use cowherd_arena::stats::{CowStats, Distribution, UndoStats};

/// Gives the engine's figures of this moment. Must be quick and never wait for a command: it is
/// called for each INFO and each scrape.
pub trait StatsSource: Send + Sync {
    /// The figures of this moment.
    fn stats_snapshot(&self) -> StatsSnapshot;

    /// The state of the arena's chunks, in at most `most` cells.
    fn occupancy_map(&self, max_cells: usize) -> OccupancyMap;
}

/// The engine's figures of one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StatsSnapshot {
    /// The server's settings and names.
    pub server: ServerInfo,
    /// The clients.
    pub clients: ClientStats,
    /// Memory for data.
    pub memory: MemoryStats,
    /// Counters of the keyspace.
    pub counters: EngineCounters,
    /// Share of keys that are expired but still there, in percent.
    pub expired_stale_percent: f64,
    /// Channels with subscribers.
    pub pubsub_channels: u64,
    /// Patterns with subscribers.
    pub pubsub_patterns: u64,
    /// Shard channels with subscribers.
    pub pubsub_shard_channels: u64,
    /// The databases; empty ones may be left out.
    pub databases: Vec<DatabaseStats>,
    /// The arena.
    pub arena: ArenaStats,
    /// How checkpoints see one instant, such as `kernel-cow`.
    pub checkpoint_isolation: String,
    /// What copy-on-write has cost since the start.
    pub cow: CowStats,
    /// How long each copy-on-write fault took, since the start.
    pub cow_faults: Distribution,
    /// What the undo log has cost since the start; what it holds now.
    pub undo: UndoStats,
    /// How long each change took that had blocks captured, since the start.
    pub undo_captures: Distribution,
    /// What the undo log is to be, if saves isolate by one.
    pub undo_log: Option<UndoLogLimits>,
    /// Transparent huge pages.
    pub thp: ThpStats,
    /// The pool of huge pages that the arena is made of, if it is.
    pub pool: Option<HugePoolStats>,
}

impl StatsSnapshot {
    /// Whether saves isolate by an undo log, so that nothing is copied on write.
    pub const fn has_undo_log(&self) -> bool {
        self.undo_log.is_some()
    }
}

/// What an undo log is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UndoLogLimits {
    /// Bytes that it may take.
    pub limit: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
}

/// Transparent huge pages under the arena.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ThpStats {
    /// The machine's setting: `always`, `madvise` or `never`; empty if the kernel has none.
    pub setting: String,
    /// Huge pages that writers have split during saves.
    pub splits: u64,
    /// Huge pages made whole again.
    pub collapsed: u64,
}

/// A pool of hugetlb pages, of the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HugePoolStats {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages there are.
    pub total: u64,
    /// Pages that nobody has.
    pub free: u64,
    /// Free pages that are promised to somebody.
    pub reserved: u64,
}

/// The server's settings and names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerInfo {
    /// Port for clients; 0 for none.
    pub tcp_port: u16,
    /// 40 hexadecimal digits, new with each start.
    pub run_id: String,
    /// Path of the configuration file; empty for none.
    pub config_file: String,
    /// Who supervises the process: `no` or `systemd`.
    pub supervised: String,
    /// Rounds of background work in a second.
    pub hz: u32,
    /// Worker threads.
    pub threads: usize,
}

/// The clients.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClientStats {
    /// The most connections at a time.
    pub limit: u64,
    /// Clients in a blocking command.
    pub blocked: u64,
    /// Clients that track keys.
    pub tracking: u64,
    /// Clients with subscriptions.
    pub pubsub: u64,
    /// Clients with watched keys.
    pub watching: u64,
    /// Keys that are watched.
    pub watched_keys: u64,
    /// Keys that clients block on.
    pub blocking_keys: u64,
    /// The largest input buffer of late, in bytes.
    pub recent_max_input_buffer: u64,
    /// The largest output buffer of late, in bytes.
    pub recent_max_output_buffer: u64,
    /// Bytes that all clients' buffers take.
    pub memory: u64,
}

/// Memory for data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MemoryStats {
    /// In use now, overhead included.
    pub used: u64,
    /// In use right after an empty start.
    pub startup: u64,
    /// Of what is used, what is not data.
    pub overhead: u64,
    /// The setting `maxmemory`; 0 for automatic.
    pub limit: u64,
    /// The setting `maxmemory-policy`.
    pub policy: &'static str,
}

/// Counters of the keyspace, since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineCounters {
    /// Changes ever made to the data.
    pub changes: u64,
    /// Lookups that found their key.
    pub keyspace_hits: u64,
    /// Lookups that did not.
    pub keyspace_misses: u64,
    /// Keys removed because their time was over.
    pub expired_keys: u64,
    /// Rounds of expiry that ran out of time.
    pub expired_time_cap_reached: u64,
    /// Microseconds spent on rounds of expiry.
    pub expire_cycle_us: u64,
    /// Keys dropped to make room.
    pub evicted_keys: u64,
    /// Clients closed to make room.
    pub evicted_clients: u64,
}

impl EngineCounters {
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let passed = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        Self {
            changes: self.changes,
            keyspace_hits: passed(|counters| counters.keyspace_hits),
            keyspace_misses: passed(|counters| counters.keyspace_misses),
            expired_keys: passed(|counters| counters.expired_keys),
            expired_time_cap_reached: passed(|counters| counters.expired_time_cap_reached),
            expire_cycle_us: passed(|counters| counters.expire_cycle_us),
            evicted_keys: passed(|counters| counters.evicted_keys),
            evicted_clients: passed(|counters| counters.evicted_clients),
        }
    }
}

/// One database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DatabaseStats {
    /// Its number.
    pub number: usize,
    /// Its keys.
    pub keys: u64,
    /// Its keys with an expiry.
    pub expires: u64,
    /// The mean time those have left, in milliseconds.
    pub avg_ttl_ms: u64,
}

/// The arena.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArenaStats {
    /// The setting `arena-pages`.
    pub pages_asked: String,
    /// What it is made of.
    pub pages: String,
    /// Bytes reserved.
    pub capacity: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// Chunks in use.
    pub used_chunks: u64,
    /// Bytes that really lie on huge pages.
    pub huge_bytes: u64,
    /// Bytes that a copy-on-write fault copies.
    pub cow_page_bytes: u64,
}
