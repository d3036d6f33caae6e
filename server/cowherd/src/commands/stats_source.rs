//! The statistics of keyspace and connections, for INFO and the metrics.

use std::sync::atomic::Ordering;

use crate::keyspace::{CHUNK_SIZE, DATABASES, OccupancyMap};
use crate::telemetry::{
    ArenaStats, ClientStats, CompactionState, DatabaseStats, EngineCounters, MemoryStats,
    ServerInfo, StatsSnapshot, StatsSource, UndoLogLimits,
};

use super::shared::Shared;

impl StatsSource for Shared {
    fn stats_snapshot(&self) -> StatsSnapshot {
        let config = self.config.current();
        let arena = self.keyspace.arena();
        let stats = self.keyspace.stats();
        let used = arena.used_bytes();
        let compaction = self.keyspace.compaction_figures();
        let fragmentation = self.keyspace.fragmentation();
        StatsSnapshot {
            server: ServerInfo {
                tcp_port: config.port,
                run_id: self.run_id.clone(),
                config_file: self
                    .config
                    .file()
                    .map(|f| f.display().to_string())
                    .unwrap_or_default(),
                supervised: config.supervised.name().to_owned(),
                hz: config.hz,
                threads: config.threads,
            },
            clients: ClientStats {
                limit: u64::from(config.maxclients),
                blocked: self.blocked_clients.count(),
                blocking_keys: self.blocked_clients.keys(),
                pubsub: self.pubsub.clients(),
                ..ClientStats::default()
            },
            memory: MemoryStats {
                used,
                startup: 0,
                overhead: 0,
                limit: self.keyspace.memory_limit().maxmemory(),
                policy: config.maxmemory_policy.name(),
            },
            counters: EngineCounters {
                changes: stats.changes,
                keyspace_hits: stats.hits,
                keyspace_misses: stats.misses,
                expired_keys: stats.expired,
                evicted_keys: stats.evicted,
                defrag_hits: compaction.hits,
                defrag_misses: compaction.misses,
                defrag_bytes: compaction.moved_bytes,
                defrag_key_hits: compaction.key_hits,
                defrag_key_misses: compaction.key_misses,
                defrag_us: compaction.total_time_us,
                ..EngineCounters::default()
            },
            pubsub_channels: self.pubsub.channels(),
            pubsub_patterns: self.pubsub.patterns(),
            pubsub_shard_channels: self.pubsub.shard_channels(),
            databases: (0..DATABASES).map(|db| self.database(db)).collect(),
            arena: ArenaStats {
                pages_asked: config.arena_pages.name().to_owned(),
                pages: arena.page_kind().name().to_owned(),
                capacity: arena.capacity(),
                chunk_bytes: CHUNK_SIZE,
                used_chunks: arena.used_chunks(),
                huge_bytes: self.sampled.huge_bytes(),
                cow_page_bytes: arena.page_kind().cow_bytes(),
            },
            checkpoint_isolation: config.checkpoint_isolation.name().to_owned(),
            cow: arena.barrier().total_cost(),
            cow_faults: arena.barrier().fault_times(),
            undo: arena.barrier().total_undo_cost(),
            undo_captures: arena.barrier().capture_times(),
            undo_log: arena.barrier().undo_log().map(|log| UndoLogLimits {
                limit: log.limit(),
                block_bytes: config.checkpoint_undo_block.bytes(),
            }),
            thp: self.sampled.thp(),
            compaction: CompactionState {
                enabled: config.activedefrag,
                running_percent: compaction.running,
                current_us: compaction.current_time_us,
                wasted_bytes: fragmentation.wasted(),
                wasted_percent: fragmentation.percent(),
            },
            pool: self.sampled.pool(),
            ..StatsSnapshot::default()
        }
    }

    fn occupancy_map(&self, max_cells: usize) -> OccupancyMap {
        self.keyspace.arena().occupancy_map(max_cells)
    }
}

impl Shared {
    fn database(&self, number: usize) -> DatabaseStats {
        DatabaseStats {
            number,
            keys: self.keyspace.len(number),
            expires: self.keyspace.expires_len(number),
            avg_ttl_ms: self.ttl_samples[number].load(Ordering::Relaxed),
        }
    }
}
