//! The statistics that telemetry cannot count itself: the engine supplies them for each reading.

use cowherd_arena::OccupancyMap;
use cowherd_arena::stats::{CowStats, Distribution, UndoStats};

/// Supplies the engine's statistics. Called for each INFO and each scrape, so an implementation is
/// quick and never waits for a command.
pub(crate) trait StatsSource: Send + Sync {
    /// The statistics of this moment.
    fn stats_snapshot(&self) -> StatsSnapshot;

    /// The state of the arena's chunks, in at most `max_cells` cells.
    fn occupancy_map(&self, max_cells: usize) -> OccupancyMap;
}

/// The engine's statistics at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct StatsSnapshot {
    /// Settings and names of the server.
    pub(crate) server: ServerInfo,
    /// Connections and what they block on, track or watch.
    pub(crate) clients: ClientStats,
    /// Memory for data.
    pub(crate) memory: MemoryStats,
    /// Scripts and functions.
    pub(crate) scripts: ScriptStats,
    /// Counters of the keyspace.
    pub(crate) counters: EngineCounters,
    /// Share of keys that have expired but are not yet removed, in percent.
    pub(crate) expired_stale_percent: f64,
    /// Channels with subscribers.
    pub(crate) pubsub_channels: u64,
    /// Patterns with subscribers.
    pub(crate) pubsub_patterns: u64,
    /// Shard channels with subscribers.
    pub(crate) pubsub_shard_channels: u64,
    /// The databases; empty ones may be left out.
    pub(crate) databases: Vec<DatabaseStats>,
    /// Size and pages of the arena.
    pub(crate) arena: ArenaStats,
    /// How a checkpoint sees one instant, such as `kernel-cow`.
    pub(crate) checkpoint_isolation: String,
    /// The cost of copy-on-write since the start.
    pub(crate) cow: CowStats,
    /// How long each copy-on-write fault took, since the start.
    pub(crate) cow_faults: Distribution,
    /// The cost of the undo log since the start, and what the log holds now.
    pub(crate) undo: UndoStats,
    /// How long each change with captures took to capture, since the start.
    pub(crate) undo_captures: Distribution,
    /// The limits of the undo log; None: checkpoints do not use one.
    pub(crate) undo_log: Option<UndoLogLimits>,
    /// Transparent huge pages of the arena.
    pub(crate) thp: ThpStats,
    /// Compaction of the arena.
    pub(crate) compaction: CompactionState,
    /// The pool of hugetlb pages that the arena is made of; None: the arena is made of others.
    pub(crate) pool: Option<HugePoolStats>,
}

impl StatsSnapshot {
    /// Whether the undo log isolates checkpoints, so that the kernel copies no page on write.
    pub(crate) const fn has_undo_log(&self) -> bool {
        self.undo_log.is_some()
    }
}

/// Configured limits of the undo log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct UndoLogLimits {
    /// Most bytes of the log.
    pub(crate) limit: u64,
    /// Bytes of a block.
    pub(crate) block_bytes: u64,
}

/// Transparent huge pages under the arena.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ThpStats {
    /// The machine's setting: `always`, `madvise` or `never`; empty if the kernel has none.
    pub(crate) setting: String,
    /// Huge pages that writers have split during checkpoints.
    pub(crate) splits: u64,
    /// Split ranges that were collapsed into huge pages again.
    pub(crate) collapsed: u64,
    /// Bytes of the free chunks that are kept on huge pages for the next data.
    pub(crate) stock_bytes: u64,
    /// Chunks that began on small pages, because the stock was empty.
    pub(crate) stock_misses: u64,
}

/// The machine's pool of hugetlb pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HugePoolStats {
    /// Bytes of a page.
    pub(crate) page_bytes: u64,
    /// Pages in the pool.
    pub(crate) total: u64,
    /// Pages that no process uses.
    pub(crate) free: u64,
    /// Free pages that are reserved for a mapping.
    pub(crate) reserved: u64,
}

/// Settings and names of the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ServerInfo {
    /// Port for clients; 0 for none.
    pub(crate) tcp_port: u16,
    /// The setting `bind`.
    pub(crate) bind: Vec<String>,
    /// Path of the Unix socket; empty for none.
    pub(crate) unixsocket: String,
    /// 40 hexadecimal digits, new with each start.
    pub(crate) run_id: String,
    /// Path of the configuration file; empty for none.
    pub(crate) config_file: String,
    /// The process supervisor: `no` or `systemd`.
    pub(crate) supervised: String,
    /// Rounds of background work in a second.
    pub(crate) hz: u32,
    /// Worker threads.
    pub(crate) threads: usize,
    /// The percentiles of the section `latencystats`, 0 to 100.
    pub(crate) latency_percentiles: Vec<f64>,
}

/// Statistics of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ClientStats {
    /// The most connections at a time.
    pub(crate) limit: u64,
    /// Clients in a blocking command.
    pub(crate) blocked: u64,
    /// Clients that track keys.
    pub(crate) tracking: u64,
    /// Keys that clients track.
    pub(crate) tracked_keys: u64,
    /// Pairs of a tracked key and a client that tracks it.
    pub(crate) tracked_items: u64,
    /// Prefixes that clients track in broadcast mode.
    pub(crate) tracked_prefixes: u64,
    /// Clients with subscriptions.
    pub(crate) pubsub: u64,
    /// Clients with watched keys.
    pub(crate) watching: u64,
    /// Keys that are watched.
    pub(crate) watched_keys: u64,
    /// Keys that clients block on.
    pub(crate) blocking_keys: u64,
    /// The largest recent input buffer, in bytes.
    pub(crate) recent_max_input_buffer: u64,
    /// The largest recent output buffer, in bytes.
    pub(crate) recent_max_output_buffer: u64,
    /// Bytes of all clients' buffers.
    pub(crate) memory: u64,
}

/// Memory for data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct MemoryStats {
    /// In use now, overhead included.
    pub(crate) used: u64,
    /// In use right after an empty start.
    pub(crate) startup: u64,
    /// The part of `used` that is not data: `startup`, `tables`, the clients, scripts and
    /// functions, and the hash tables.
    pub(crate) overhead: u64,
    /// What arena and access clocks take beside the objects, above their part of `startup`.
    pub(crate) tables: u64,
    /// The part of `used` that is not compared with `maxmemory`: all but the objects.
    pub(crate) not_limited: u64,
    /// `used` and the free memory of the chunks in use.
    pub(crate) active: u64,
    /// The setting `maxmemory`; 0 for automatic.
    pub(crate) limit: u64,
    /// The setting `maxmemory-policy`.
    pub(crate) policy: &'static str,
}

impl MemoryStats {
    /// The part of `used` that is data.
    pub(crate) const fn dataset(&self) -> u64 {
        self.used.saturating_sub(self.overhead)
    }
}

/// Scripts and functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScriptStats {
    /// Scripts that EVALSHA finds.
    pub(crate) scripts: u64,
    /// Bytes of these scripts.
    pub(crate) script_bytes: u64,
    /// Libraries of functions.
    pub(crate) libraries: u64,
    /// Functions in them.
    pub(crate) functions: u64,
    /// Bytes of the libraries, beside those in the keyspace.
    pub(crate) function_bytes: u64,
    /// Bytes of the workers' interpreters, each of which runs both scripts and functions.
    pub(crate) interpreter_bytes: u64,
}

impl ScriptStats {
    /// Bytes of scripts and libraries.
    pub(crate) const fn code_bytes(&self) -> u64 {
        self.script_bytes + self.function_bytes
    }

    /// All bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.code_bytes() + self.interpreter_bytes
    }
}

/// Counters of the keyspace, since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EngineCounters {
    /// Changes ever made to the data.
    pub(crate) changes: u64,
    /// Lookups that found their key.
    pub(crate) keyspace_hits: u64,
    /// Lookups that did not.
    pub(crate) keyspace_misses: u64,
    /// Keys removed because they had expired.
    pub(crate) expired_keys: u64,
    /// Fields of hashes removed because they had expired.
    pub(crate) expired_fields: u64,
    /// Rounds of expiry that ran out of time.
    pub(crate) expired_time_cap_reached: u64,
    /// Microseconds spent on rounds of expiry.
    pub(crate) expire_cycle_us: u64,
    /// Keys evicted to free memory.
    pub(crate) evicted_keys: u64,
    /// Clients closed to free memory.
    pub(crate) evicted_clients: u64,
    /// Scripts of EVAL dropped for newer ones.
    pub(crate) evicted_scripts: u64,
    /// Objects that compaction has moved.
    pub(crate) defrag_hits: u64,
    /// Objects that it could not move.
    pub(crate) defrag_misses: u64,
    /// Bytes that it has moved.
    pub(crate) defrag_bytes: u64,
    /// Keys of which it has moved any object.
    pub(crate) defrag_key_hits: u64,
    /// Keys that it has visited without moving anything.
    pub(crate) defrag_key_misses: u64,
    /// Time with more wasted memory than the settings allow, in microseconds.
    pub(crate) defrag_us: u64,
}

impl EngineCounters {
    /// The counters since an earlier reading; `changes` stays as it is.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let passed = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        Self {
            changes: self.changes,
            keyspace_hits: passed(|counters| counters.keyspace_hits),
            keyspace_misses: passed(|counters| counters.keyspace_misses),
            expired_keys: passed(|counters| counters.expired_keys),
            expired_fields: passed(|counters| counters.expired_fields),
            expired_time_cap_reached: passed(|counters| counters.expired_time_cap_reached),
            expire_cycle_us: passed(|counters| counters.expire_cycle_us),
            evicted_keys: passed(|counters| counters.evicted_keys),
            evicted_clients: passed(|counters| counters.evicted_clients),
            evicted_scripts: passed(|counters| counters.evicted_scripts),
            defrag_hits: passed(|counters| counters.defrag_hits),
            defrag_misses: passed(|counters| counters.defrag_misses),
            defrag_bytes: passed(|counters| counters.defrag_bytes),
            defrag_key_hits: passed(|counters| counters.defrag_key_hits),
            defrag_key_misses: passed(|counters| counters.defrag_key_misses),
            defrag_us: passed(|counters| counters.defrag_us),
        }
    }
}

/// The state of compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CompactionState {
    /// The setting `activedefrag`.
    pub(crate) enabled: bool,
    /// Present effort of the background thread in percent of a core; 0: no pass runs.
    pub(crate) running_percent: u64,
    /// For how long more has been wasted than the settings allow, in microseconds; 0: less is.
    pub(crate) current_us: u64,
    /// Bytes of chunks in use that no object uses.
    pub(crate) wasted_bytes: u64,
    /// Those bytes in percent of the bytes of objects.
    pub(crate) wasted_percent: u64,
}

/// One database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DatabaseStats {
    /// As SELECT counts.
    pub(crate) number: usize,
    /// Keys in the database.
    pub(crate) keys: u64,
    /// Keys with an expiry.
    pub(crate) expires: u64,
    /// Hashes of which fields have an expiry.
    pub(crate) volatile_hashes: u64,
    /// Mean time to live of the keys with an expiry, in milliseconds.
    pub(crate) avg_ttl_ms: u64,
    /// Bytes of the hash table of the keys.
    pub(crate) table_bytes: u64,
    /// Bytes of the hash tables of the keys with an expiry.
    pub(crate) expires_table_bytes: u64,
}

/// Size and pages of the arena.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ArenaStats {
    /// The setting `arena-pages`.
    pub(crate) pages_asked: String,
    /// The kind of pages in use.
    pub(crate) pages: String,
    /// Bytes reserved.
    pub(crate) capacity: u64,
    /// Bytes of a chunk.
    pub(crate) chunk_bytes: u64,
    /// Chunks in use.
    pub(crate) used_chunks: u64,
    /// Bytes that lie on huge pages.
    pub(crate) huge_bytes: u64,
    /// Bytes that a copy-on-write fault copies.
    pub(crate) cow_page_bytes: u64,
}
