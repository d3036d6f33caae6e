//! The statistics of keyspace and connections, for INFO and the metrics.

use std::sync::atomic::Ordering;

use crate::keyspace::{CHUNK_SIZE, DATABASES, OccupancyMap};
use crate::telemetry::{
    ArenaStats, ClientStats, CompactionState, DatabaseStats, EngineCounters, MemoryStats,
    ScriptStats, ServerInfo, StatsSnapshot, StatsSource, ThpStats, UndoLogLimits,
};
use cowherd_arena::OccupancyCell;

use super::shared::Shared;

impl StatsSource for Shared {
    fn stats_snapshot(&self) -> StatsSnapshot {
        let config = self.config.current();
        let arena = self.keyspace.arena();
        let stats = self.keyspace.stats();
        let databases: Vec<_> = (0..DATABASES).map(|db| self.database(db)).collect();
        let used_chunks = self.used_chunks();
        let scripts = self.script_stats();
        let memory = self.memory(&databases, used_chunks, &scripts);
        let stock = arena.stock();
        let compaction = self.keyspace.compaction_figures();
        let fragmentation = self.keyspace.fragmentation();
        let tracking = self.tracking.counts();
        StatsSnapshot {
            server: ServerInfo {
                tcp_port: config.port,
                bind: config.bind.iter().map(ToString::to_string).collect(),
                unixsocket: config
                    .unixsocket
                    .as_ref()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default(),
                run_id: self.run_id.to_string(),
                config_file: self
                    .config
                    .file()
                    .map(|f| f.display().to_string())
                    .unwrap_or_default(),
                supervised: config.supervised.name().to_owned(),
                hz: config.hz,
                threads: config.threads,
                latency_percentiles: config.latency_tracking_info_percentiles.clone(),
            },
            clients: ClientStats {
                limit: u64::from(config.maxclients),
                blocked: self.blocked_clients.count() + self.clients.held(),
                blocking_keys: self.blocked_clients.keys(),
                pubsub: self.pubsub.clients(),
                tracking: tracking.clients,
                tracked_keys: tracking.keys,
                tracked_items: tracking.items,
                tracked_prefixes: tracking.prefixes,
                memory: self.clients.memory(),
                ..ClientStats::default()
            },
            memory: MemoryStats { policy: config.maxmemory_policy.name(), ..memory },
            scripts,
            counters: EngineCounters {
                changes: stats.changes,
                keyspace_hits: stats.hits,
                keyspace_misses: stats.misses,
                expired_keys: stats.expired,
                expired_fields: stats.expired_fields,
                evicted_keys: stats.evicted,
                evicted_scripts: self.scripting.cache.evicted(),
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
            databases,
            arena: ArenaStats {
                pages_asked: config.arena_pages.name().to_owned(),
                pages: match self.loading_capacity {
                    Some(_) => "loading",
                    None => arena.page_kind().name(),
                }
                .to_owned(),
                capacity: self.capacity(),
                chunk_bytes: CHUNK_SIZE,
                used_chunks,
                huge_bytes: if arena.keeps_stock() {
                    stock.huge_in_use * CHUNK_SIZE
                } else {
                    self.sampled.huge_bytes()
                },
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
            thp: ThpStats {
                stock_bytes: stock.chunks * CHUNK_SIZE,
                stock_misses: stock.taken_small,
                ..self.sampled.thp()
            },
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
        if let Some(capacity) = self.loading_capacity {
            // Which chunks are in use is known once the image is read.
            let chunks = capacity.div_ceil(CHUNK_SIZE);
            let chunks_per_cell = chunks.div_ceil(max_cells.max(1) as u64).max(1);
            let cells = usize::try_from(chunks.div_ceil(chunks_per_cell)).unwrap_or(max_cells);
            return OccupancyMap { chunks_per_cell, cells: vec![OccupancyCell::default(); cells] };
        }
        self.keyspace.arena().occupancy_map(max_cells)
    }
}

impl Shared {
    /// Bytes in use, as INFO has them.
    pub fn used_memory(&self) -> u64 {
        self.memory(&[], self.used_chunks(), &self.script_stats()).used
    }

    /// Chunks in use, or read so far.
    fn used_chunks(&self) -> u64 {
        match self.loading_capacity {
            Some(_) => self.telemetry.persistence().restore_progress().chunks,
            None => self.keyspace.arena().used_chunks(),
        }
    }

    /// The memory in use, in `used_chunks` chunks, with the hash tables of `databases` as overhead.
    fn memory(
        &self,
        databases: &[DatabaseStats],
        used_chunks: u64,
        scripts: &ScriptStats,
    ) -> MemoryStats {
        let arena = self.keyspace.arena();
        let loading = self.loading_capacity.is_some();
        let chunks = used_chunks * CHUNK_SIZE;
        // What lies in a chunk that was just read is known later.
        let objects = if loading { chunks } else { arena.used_bytes() };
        let fixed = arena.fixed_bytes();
        let overhead = arena.overhead_bytes();
        let clocks = if loading { 0 } else { self.keyspace.clocks().bytes() };
        let tables = overhead.saturating_sub(fixed) + clocks;
        let startup = self.startup_bytes + fixed;
        // What is neither in the arena nor of its tables.
        let private = self.clients.memory() + scripts.bytes();
        let not_limited = startup + tables + private;
        let hash_tables: u64 =
            databases.iter().map(|db| db.table_bytes + db.expires_table_bytes).sum();
        MemoryStats {
            used: objects + not_limited,
            startup,
            overhead: not_limited + hash_tables.min(objects),
            tables,
            not_limited,
            active: (chunks + self.startup_bytes + clocks + private).max(objects + not_limited),
            limit: self.keyspace.memory_limit().maxmemory(),
            policy: "",
        }
    }

    fn script_stats(&self) -> ScriptStats {
        let (scripts, script_bytes) = self.scripting.cache.size();
        let (libraries, functions, function_bytes) = self.scripting.functions.size();
        let interpreter_bytes = self.scripting.interpreters.bytes();
        ScriptStats {
            scripts,
            script_bytes,
            libraries,
            functions,
            function_bytes,
            interpreter_bytes,
        }
    }

    fn database(&self, number: usize) -> DatabaseStats {
        let keys = self.keyspace.len(number);
        let (table_bytes, expires_table_bytes) =
            if keys == 0 { (0, 0) } else { self.keyspace.table_bytes(number) };
        DatabaseStats {
            number,
            keys,
            table_bytes,
            expires_table_bytes,
            expires: self.keyspace.expires_len(number),
            volatile_hashes: self.keyspace.volatile_len(number),
            avg_ttl_ms: self.ttl_samples[number].load(Ordering::Relaxed),
        }
    }
}
