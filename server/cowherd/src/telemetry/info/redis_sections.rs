//! The sections that Redis has, in its order. Fields of features that Cowherd lacks are constant.

use std::time::Duration;

use cowherd_arena::CHUNK_SIZE;
use cowherd_arena::checkpoint::RestoreProgress;
use nix::sys::utsname::uname;

use super::writer::{InfoWriter, percent, ratio};
use super::{COWHERD_VERSION, InfoContext, REDIS_VERSION};
use crate::config::six_digits;
use crate::telemetry::persistence::{PersistenceStatus, RunningRestore};
use crate::telemetry::process;
use crate::telemetry::stats_source::ScriptStats;

/// A replication id of zeros: there is no replication.
const NO_REPLICATION_ID: &str = "0000000000000000000000000000000000000000";
/// The LRU clock is the lowest 24 bits of the seconds since 1970.
const LRU_CLOCK_MASK: i64 = (1 << 24) - 1;

pub(super) fn server(out: &mut InfoWriter, context: &InfoContext<'_>) {
    let server = &context.stats.server;
    let now = context.now;
    let uptime = now.since(&context.telemetry.started()).as_secs();
    out.section("Server");
    out.field("redis_version", REDIS_VERSION);
    out.field("redis_git_sha1", "00000000");
    out.field("redis_git_dirty", 0);
    out.field("redis_build_id", "0000000000000000");
    out.field("redis_mode", "standalone");
    out.field("os", operating_system());
    out.field("arch_bits", usize::BITS);
    out.field("monotonic_clock", "POSIX clock_gettime");
    out.field("multiplexing_api", "epoll");
    out.field("atomicvar_api", "rust-core");
    out.field("gcc_version", "0.0.0");
    out.field("process_id", std::process::id());
    out.field("process_supervised", &server.supervised);
    out.field("run_id", &server.run_id);
    out.field("tcp_port", server.tcp_port);
    out.field("server_time_usec", crate::clock::wall_us());
    out.field("uptime_in_seconds", uptime);
    out.field("uptime_in_days", uptime / 86_400);
    out.field("hz", server.hz);
    out.field("configured_hz", server.hz);
    out.field("lru_clock", now.wall_seconds() & LRU_CLOCK_MASK);
    let executable = std::env::current_exe().unwrap_or_default();
    out.field("executable", executable.display());
    out.field("config_file", &server.config_file);
    out.field("io_threads_active", u8::from(server.threads > 1));
    if server.tcp_port != 0 {
        let addresses: String = server.bind.iter().map(|one| format!("bind={one},")).collect();
        out.field("listener0", format_args!("name=tcp,{addresses}port={}", server.tcp_port));
    }
    if !server.unixsocket.is_empty() {
        out.field("listener1", format_args!("name=unix,bind={}", server.unixsocket));
    }
    out.field("cowherd_version", COWHERD_VERSION);
    out.field("cowherd_threads", server.threads);
}

/// System, release and machine, as uname(2) has them.
fn operating_system() -> String {
    let Ok(names) = uname() else { return "Linux".to_owned() };
    [names.sysname(), names.release(), names.machine()]
        .map(|name| name.to_string_lossy().into_owned())
        .join(" ")
}

pub(super) fn clients(out: &mut InfoWriter, context: &InfoContext<'_>) {
    let clients = &context.stats.clients;
    out.section("Clients");
    out.field("connected_clients", context.telemetry.totals().clients());
    out.field("cluster_connections", 0);
    out.field("maxclients", clients.limit);
    out.field("client_recent_max_input_buffer", clients.recent_max_input_buffer);
    out.field("client_recent_max_output_buffer", clients.recent_max_output_buffer);
    out.field("blocked_clients", clients.blocked);
    out.field("tracking_clients", clients.tracking);
    out.field("pubsub_clients", clients.pubsub);
    out.field("watching_clients", clients.watching);
    out.field("clients_in_timeout_table", 0);
    out.field("total_watched_keys", clients.watched_keys);
    out.field("total_blocking_keys", clients.blocking_keys);
    out.field("total_blocking_keys_on_nokey", 0);
}

pub(super) fn memory(out: &mut InfoWriter, context: &InfoContext<'_>) {
    let memory = &context.stats.memory;
    let arena = &context.stats.arena;
    let resident = process::resident_bytes();
    let peak = context.telemetry.peak_memory().max(memory.used);
    let (dataset, active) = (memory.dataset(), memory.active);
    out.section("Memory");
    out.bytes("used_memory", memory.used);
    out.bytes("used_memory_rss", resident);
    out.bytes("used_memory_peak", peak);
    out.field("used_memory_peak_perc", percent(memory.used, peak));
    out.field("used_memory_overhead", memory.overhead);
    out.field("used_memory_startup", memory.startup);
    out.field("used_memory_dataset", dataset);
    let beyond_startup = memory.used.saturating_sub(memory.startup);
    out.field("used_memory_dataset_perc", percent(dataset, beyond_startup));
    out.field("allocator_allocated", memory.used);
    out.field("allocator_active", active);
    out.field("allocator_resident", active);
    out.zeros(&["allocator_muzzy"]);
    out.bytes("total_system_memory", process::system_memory_bytes());
    scripts(out, &context.stats.scripts);
    out.bytes("maxmemory", memory.limit);
    out.field("maxmemory_policy", memory.policy);
    out.field("allocator_frag_ratio", two_decimals(ratio(active, memory.used)));
    out.field("allocator_frag_bytes", difference(active, memory.used));
    out.field("allocator_rss_ratio", "1.00");
    out.field("allocator_rss_bytes", 0);
    out.field("rss_overhead_ratio", two_decimals(ratio(resident, active)));
    out.field("rss_overhead_bytes", difference(resident, active));
    out.field("mem_fragmentation_ratio", two_decimals(ratio(resident, memory.used)));
    out.field("mem_fragmentation_bytes", difference(resident, memory.used));
    out.field("mem_not_counted_for_evict", memory.not_limited);
    out.zeros(&["mem_replication_backlog"]);
    out.zeros(&["mem_total_replication_buffers", "mem_clients_slaves"]);
    out.field("mem_clients_normal", context.stats.clients.memory);
    out.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    out.field("mem_allocator", "cowherd-arena");
    // Hash tables grow a segment at a time: there is no second table meanwhile.
    out.zeros(&["mem_overhead_db_hashtable_rehashing"]);
    out.field("active_defrag_running", context.stats.compaction.running_percent);
    out.zeros(&["lazyfree_pending_objects", "lazyfreed_objects"]);
    out.field("cowherd_arena_pages_asked", &arena.pages_asked);
    out.field("cowherd_arena_pages", &arena.pages);
    out.field("cowherd_arena_capacity", arena.capacity);
    out.field("cowherd_arena_used_chunks", arena.used_chunks);
    out.field("cowherd_arena_huge_bytes", arena.huge_bytes);
}

/// The interpreters run functions too, and count as those of EVAL alone, so that the total is
/// right.
fn scripts(out: &mut InfoWriter, scripts: &ScriptStats) {
    let interpreters = scripts.interpreter_bytes;
    out.field("used_memory_lua", interpreters);
    out.field("used_memory_vm_eval", interpreters);
    out.human("used_memory_lua", interpreters);
    out.field("used_memory_scripts_eval", scripts.script_bytes);
    out.field("number_of_cached_scripts", scripts.scripts);
    out.field("number_of_functions", scripts.functions);
    out.field("number_of_libraries", scripts.libraries);
    out.zeros(&["used_memory_vm_functions"]);
    out.bytes("used_memory_vm_total", interpreters);
    out.field("used_memory_functions", scripts.function_bytes);
    out.bytes("used_memory_scripts", scripts.code_bytes());
}

fn two_decimals(value: f64) -> String {
    format!("{value:.2}")
}

fn difference(left: u64, right: u64) -> i128 {
    i128::from(left) - i128::from(right)
}

/// Whole seconds; -1 for none, as Redis writes it.
fn seconds(duration: Option<Duration>) -> i64 {
    duration.map_or(-1, |duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

fn word(failed: bool) -> &'static str {
    if failed { "err" } else { "ok" }
}

pub(super) fn persistence(out: &mut InfoWriter, context: &InfoContext<'_>) {
    let status = context.persistence();
    let running = status.running.as_ref();
    out.section("Persistence");
    out.field("loading", u8::from(status.loading.is_some()));
    out.field("async_loading", 0);
    // Old data that is kept, copied by the kernel or captured for the undo log.
    let kept = running.map_or(0, |running| running.record.copied_bytes());
    out.field("current_cow_peak", kept);
    out.field("current_cow_size", kept);
    out.field("current_cow_size_age", running.map_or(0, |running| running.age.as_secs()));
    let done = running.map_or(0.0, |running| running.progress()) * 100.0;
    out.field("current_fork_perc", two_decimals(done));
    out.field("current_save_keys_processed", running.map_or(0, |running| running.keys_done()));
    out.field("current_save_keys_total", running.map_or(0, |running| running.record.keys));
    out.field("rdb_changes_since_last_save", status.changes_since_checkpoint);
    out.field("rdb_bgsave_in_progress", u8::from(running.is_some()));
    out.field("rdb_last_save_time", status.last_checkpoint_ms.div_euclid(1000));
    out.field("rdb_last_bgsave_status", word(status.last_checkpoint_failed));
    out.field("rdb_last_bgsave_time_sec", seconds(status.last_duration));
    out.field("rdb_current_bgsave_time_sec", seconds(running.map(|running| running.elapsed)));
    out.field("rdb_saves", status.totals.begun.saturating_sub(context.baseline.checkpoints));
    out.field("rdb_last_cow_size", status.last_cow_bytes + status.last_undo_bytes);
    out.field("rdb_last_load_keys_expired", status.restored.keys_expired);
    out.field("rdb_last_load_keys_loaded", status.restored.keys_loaded);
    out.zeros(&["aof_enabled", "aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    out.field("aof_last_rewrite_time_sec", -1);
    out.field("aof_current_rewrite_time_sec", -1);
    out.field("aof_last_bgrewrite_status", "ok");
    out.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures"]);
    out.field("aof_last_write_status", "ok");
    out.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if let Some(loading) = &status.loading {
        loading_progress(out, loading);
    }
    own_persistence(out, context, &status);
}

fn loading_progress(out: &mut InfoWriter, loading: &RunningRestore) {
    let RestoreProgress { read_bytes, total_bytes, total_chunks, .. } = loading.progress;
    // As Redis, 1 second while nothing is known.
    let left = loading.remaining().map_or(1, |left| left.as_millis().div_ceil(1000));
    out.field("loading_start_time", loading.since.wall_seconds());
    out.field("loading_total_bytes", total_bytes);
    out.field("loading_rdb_used_mem", total_chunks.saturating_mul(CHUNK_SIZE));
    out.field("loading_loaded_bytes", read_bytes);
    out.field("loading_loaded_perc", two_decimals(loading.share() * 100.0));
    out.field("loading_eta_seconds", left);
}

fn own_persistence(out: &mut InfoWriter, context: &InfoContext<'_>, status: &PersistenceStatus) {
    let running = status.running.as_ref();
    out.field("cowherd_checkpoint_isolation", &context.stats.checkpoint_isolation);
    out.field("cowherd_checkpoint_child_pid", running.map_or(0, |running| running.pid));
    out.field(
        "cowherd_checkpoint_chunks_done",
        running.map_or(0, |running| running.record.chunks_done),
    );
    out.field(
        "cowherd_checkpoint_chunks_total",
        running.map_or(0, |running| running.record.chunks),
    );
    out.field("cowherd_last_checkpoint_error", status.last_error.as_deref().unwrap_or(""));
    out.field("cowherd_last_checkpoint_digest", status.last_digest.as_deref().unwrap_or(""));
    let took = status.last_duration.unwrap_or_default().as_secs_f64();
    out.field("cowherd_last_checkpoint_seconds", format_args!("{took:.6}"));
    out.field("cowherd_checkpoint_failures", status.totals.failed);
    out.field("cowherd_image_bytes", status.image_bytes);
    let restore = status.restore_duration.unwrap_or_default().as_secs_f64();
    out.field("cowherd_restore_seconds", format_args!("{restore:.6}"));
    out.field("cowherd_restored_digest", status.restored.digest.as_deref().unwrap_or(""));
}

pub(super) fn stats(out: &mut InfoWriter, context: &InfoContext<'_>) {
    let totals = context.telemetry.totals().since(&context.baseline.totals);
    let engine = context.stats.counters.since(&context.baseline.engine);
    let rates = context.telemetry.rates();
    let kbps = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    let status = context.persistence();
    let forks = status.hold_ups.count().saturating_sub(context.baseline.forks);
    let latest_fork = if forks == 0 { Duration::ZERO } else { status.latest_fork.hold_up };
    out.section("Stats");
    out.field("total_connections_received", totals.connections_received);
    out.field("total_commands_processed", totals.commands);
    out.field("instantaneous_ops_per_sec", rates.commands);
    out.field("total_net_input_bytes", totals.input_bytes);
    out.field("total_net_output_bytes", totals.output_bytes);
    out.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    out.field("instantaneous_input_kbps", kbps(rates.input_bytes));
    out.field("instantaneous_output_kbps", kbps(rates.output_bytes));
    out.field("instantaneous_input_repl_kbps", "0.00");
    out.field("instantaneous_output_repl_kbps", "0.00");
    out.field("rejected_connections", totals.connections_rejected);
    out.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    out.field("expired_subkeys", engine.expired_fields);
    out.field("expired_keys", engine.expired_keys);
    out.field("expired_stale_perc", two_decimals(context.stats.expired_stale_percent));
    out.field("expired_time_cap_reached_count", engine.expired_time_cap_reached);
    out.field("expire_cycle_cpu_milliseconds", engine.expire_cycle_us / 1000);
    out.field("evicted_keys", engine.evicted_keys);
    out.field("evicted_clients", engine.evicted_clients);
    out.field("evicted_scripts", engine.evicted_scripts);
    out.zeros(&["total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    out.field("keyspace_hits", engine.keyspace_hits);
    out.field("keyspace_misses", engine.keyspace_misses);
    out.field("pubsub_channels", context.stats.pubsub_channels);
    out.field("pubsub_patterns", context.stats.pubsub_patterns);
    out.field("pubsubshard_channels", context.stats.pubsub_shard_channels);
    out.field("latest_fork_usec", latest_fork.as_micros());
    out.field("total_forks", forks);
    out.zeros(&["migrate_cached_sockets", "slave_expires_tracked_keys"]);
    out.field("active_defrag_hits", engine.defrag_hits);
    out.field("active_defrag_misses", engine.defrag_misses);
    out.field("active_defrag_key_hits", engine.defrag_key_hits);
    out.field("active_defrag_key_misses", engine.defrag_key_misses);
    out.field("total_active_defrag_time", engine.defrag_us / 1000);
    out.field("current_active_defrag_time", context.stats.compaction.current_us / 1000);
    out.field("tracking_total_keys", context.stats.clients.tracked_keys);
    out.field("tracking_total_items", context.stats.clients.tracked_items);
    out.field("tracking_total_prefixes", context.stats.clients.tracked_prefixes);
    out.zeros(&["unexpected_error_replies"]);
    out.field("total_error_replies", totals.errors);
    out.zeros(&["dump_payload_sanitizations"]);
    out.field("total_reads_processed", totals.reads);
    out.field("total_writes_processed", totals.writes);
    out.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    let (query, output) = (totals.query_limit_disconnects, totals.output_limit_disconnects);
    out.field("client_query_buffer_limit_disconnections", query);
    out.field("client_output_buffer_limit_disconnections", output);
    out.zeros(&["reply_buffer_shrinks", "reply_buffer_expands"]);
    event_loop(out, context, totals.reads);
    out.field("acl_access_denied_auth", context.telemetry.auth_failures());
    out.zeros(&["acl_access_denied_cmd", "acl_access_denied_key", "acl_access_denied_channel"]);
}

/// A cycle is one read from a client with the commands that it brings; its duration is processor
/// time of the worker.
fn event_loop(out: &mut InfoWriter, context: &InfoContext<'_>, cycles: u64) {
    let (telemetry, baseline, rates) =
        (context.telemetry, context.baseline, context.telemetry.rates());
    let since = |now: u64, then: u64| now.saturating_sub(then);
    out.field("eventloop_cycles", cycles);
    out.field("eventloop_duration_sum", since(telemetry.worker_us(), baseline.worker_us));
    out.field("eventloop_duration_cmd_sum", since(telemetry.command_us(), baseline.command_us));
    out.field("instantaneous_eventloop_cycles_per_sec", rates.cycles);
    let each = rates.worker_us.checked_div(rates.cycles).unwrap_or(0);
    out.field("instantaneous_eventloop_duration_usec", each);
}

pub(super) fn replication(out: &mut InfoWriter, _context: &InfoContext<'_>) {
    out.section("Replication");
    out.field("role", "master");
    out.field("connected_slaves", 0);
    out.field("master_failover_state", "no-failover");
    out.field("master_replid", NO_REPLICATION_ID);
    out.field("master_replid2", NO_REPLICATION_ID);
    out.field("master_repl_offset", 0);
    out.field("second_repl_offset", -1);
    out.zeros(&["repl_backlog_active", "repl_backlog_size"]);
    out.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

pub(super) fn cpu(out: &mut InfoWriter, _context: &InfoContext<'_>) {
    let times = process::cpu_times();
    out.section("CPU");
    let mut field = |name: &str, time: Duration| {
        out.field(name, format_args!("{:.6}", time.as_secs_f64()));
    };
    field("used_cpu_sys", times.own.system);
    field("used_cpu_user", times.own.user);
    field("used_cpu_sys_children", times.children.system);
    field("used_cpu_user_children", times.children.user);
    field("used_cpu_sys_main_thread", times.main_thread.system);
    field("used_cpu_user_main_thread", times.main_thread.user);
}

pub(super) fn modules(out: &mut InfoWriter, _context: &InfoContext<'_>) {
    out.section("Modules");
}

pub(super) fn command_stats(out: &mut InfoWriter, context: &InfoContext<'_>) {
    out.section("Commandstats");
    for (number, name) in context.telemetry.commands() {
        let earlier = context.baseline.commands.get(number).copied().unwrap_or_default();
        let totals = context.telemetry.command(number).since(&earlier);
        if !totals.is_used() {
            continue;
        }
        let usec = totals.nanos / 1000;
        let each = ratio(totals.nanos, totals.calls) / 1000.0;
        out.field(
            format_args!("cmdstat_{name}"),
            format_args!(
                "calls={},usec={usec},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                totals.calls, totals.rejected, totals.failed
            ),
        );
    }
}

pub(super) fn error_stats(out: &mut InfoWriter, context: &InfoContext<'_>) {
    out.section("Errorstats");
    for (word, count) in context.telemetry.errors_since(&context.baseline.errors) {
        out.field(format_args!("errorstat_{word}"), format_args!("count={count}"));
    }
}

pub(super) fn latency_stats(out: &mut InfoWriter, context: &InfoContext<'_>) {
    out.section("Latencystats");
    for (number, name) in context.telemetry.commands() {
        let Some(mut latency) = context.telemetry.latency(number) else { continue };
        if let Some(Some(earlier)) = context.baseline.latencies.get(number) {
            latency = latency.since(earlier);
        }
        if latency.count() == 0 {
            continue;
        }
        let percentile = |percent: &f64| {
            let micros = latency.quantile(percent / 100.0).unwrap_or(0) as f64 / 1000.0;
            format!("p{}={micros:.3}", six_digits(*percent))
        };
        let percentiles = &context.stats.server.latency_percentiles;
        let shown: Vec<String> = percentiles.iter().map(percentile).collect();
        out.field(format_args!("latency_percentiles_usec_{name}"), shown.join(","));
    }
}

pub(super) fn cluster(out: &mut InfoWriter, _context: &InfoContext<'_>) {
    out.section("Cluster");
    out.field("cluster_enabled", 0);
}

pub(super) fn keyspace(out: &mut InfoWriter, context: &InfoContext<'_>) {
    out.section("Keyspace");
    let databases = context.stats.databases.iter().filter(|database| database.keys > 0);
    for database in databases {
        out.field(
            format_args!("db{}", database.number),
            format_args!(
                "keys={},expires={},avg_ttl={},subexpiry={}",
                database.keys, database.expires, database.avg_ttl_ms, database.volatile_hashes
            ),
        );
    }
}
