//! The sections of INFO, in order. Fields of features that do not exist here are constant.

use std::time::Duration;

use nix::sys::utsname::uname;

use super::page::{InfoWriter, percent, ratio};
use super::{COWHERD_VERSION, InfoContext, REDIS_VERSION};
use crate::telemetry::persistence::{PersistenceStatus, RunningRestore};
use crate::telemetry::process;

/// No replication: an id of zeros.
const NO_REPLICATION_ID: &str = "0000000000000000000000000000000000000000";
/// The lowest 24 bits of a clock in seconds.
const LRU_CLOCK_MASK: i64 = (1 << 24) - 1;

pub(super) fn server(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    let server = &reading.inputs.server;
    let now = reading.now;
    let uptime = now.since(&reading.telemetry.started()).as_secs();
    page.section("Server");
    page.field("redis_version", REDIS_VERSION);
    page.field("redis_git_sha1", "00000000");
    page.field("redis_git_dirty", 0);
    page.field("redis_build_id", "0000000000000000");
    page.field("redis_mode", "standalone");
    page.field("os", operating_system());
    page.field("arch_bits", usize::BITS);
    page.field("monotonic_clock", "POSIX clock_gettime");
    page.field("multiplexing_api", "epoll");
    page.field("atomicvar_api", "rust-core");
    page.field("gcc_version", "0.0.0");
    page.field("process_id", std::process::id());
    page.field("process_supervised", &server.supervised);
    page.field("run_id", &server.run_id);
    page.field("tcp_port", server.tcp_port);
    page.field("server_time_usec", crate::clock::wall_us());
    page.field("uptime_in_seconds", uptime);
    page.field("uptime_in_days", uptime / 86_400);
    page.field("hz", server.hz);
    page.field("configured_hz", server.hz);
    page.field("lru_clock", now.wall_seconds() & LRU_CLOCK_MASK);
    let executable = std::env::current_exe().unwrap_or_default();
    page.field("executable", executable.display());
    page.field("config_file", &server.config_file);
    page.field("io_threads_active", u8::from(server.threads > 1));
    page.field("cowherd_version", COWHERD_VERSION);
    page.field("cowherd_threads", server.threads);
}

/// System, release and machine, as uname(2) has them.
fn operating_system() -> String {
    let Ok(names) = uname() else { return "Linux".to_owned() };
    [names.sysname(), names.release(), names.machine()]
        .map(|name| name.to_string_lossy().into_owned())
        .join(" ")
}

pub(super) fn clients(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    let clients = &reading.inputs.clients;
    page.section("Clients");
    page.field("connected_clients", reading.telemetry.totals().clients());
    page.field("cluster_connections", 0);
    page.field("maxclients", clients.limit);
    page.field("client_recent_max_input_buffer", clients.recent_max_input_buffer);
    page.field("client_recent_max_output_buffer", clients.recent_max_output_buffer);
    page.field("blocked_clients", clients.blocked);
    page.field("tracking_clients", clients.tracking);
    page.field("pubsub_clients", clients.pubsub);
    page.field("watching_clients", clients.watching);
    page.field("clients_in_timeout_table", 0);
    page.field("total_watched_keys", clients.watched_keys);
    page.field("total_blocking_keys", clients.blocking_keys);
    page.field("total_blocking_keys_on_nokey", 0);
}

pub(super) fn memory(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    let memory = &reading.inputs.memory;
    let arena = &reading.inputs.arena;
    let resident = process::resident_bytes();
    let peak = reading.telemetry.peak_memory().max(memory.used);
    let dataset = memory.used.saturating_sub(memory.overhead);
    let active = arena.used_chunks.saturating_mul(arena.chunk_bytes);
    page.section("Memory");
    page.bytes("used_memory", memory.used);
    page.bytes("used_memory_rss", resident);
    page.bytes("used_memory_peak", peak);
    page.field("used_memory_peak_perc", percent(memory.used, peak));
    page.field("used_memory_overhead", memory.overhead);
    page.field("used_memory_startup", memory.startup);
    page.field("used_memory_dataset", dataset);
    let beyond_startup = memory.used.saturating_sub(memory.startup);
    page.field("used_memory_dataset_perc", percent(dataset, beyond_startup));
    page.field("allocator_allocated", memory.used);
    page.field("allocator_active", active);
    page.field("allocator_resident", active);
    page.bytes("total_system_memory", process::system_memory_bytes());
    page.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    page.human("used_memory_lua", 0);
    page.zeros(&["used_memory_scripts_eval", "number_of_cached_scripts", "number_of_functions"]);
    page.zeros(&["number_of_libraries", "used_memory_vm_functions", "used_memory_vm_total"]);
    page.human("used_memory_vm_total", 0);
    page.zeros(&["used_memory_functions", "used_memory_scripts"]);
    page.human("used_memory_scripts", 0);
    page.bytes("maxmemory", memory.limit);
    page.field("maxmemory_policy", memory.policy);
    page.field("allocator_frag_ratio", two_decimals(ratio(active, memory.used)));
    page.field("allocator_frag_bytes", difference(active, memory.used));
    page.field("allocator_rss_ratio", "1.00");
    page.field("allocator_rss_bytes", 0);
    page.field("rss_overhead_ratio", two_decimals(ratio(resident, active)));
    page.field("rss_overhead_bytes", difference(resident, active));
    page.field("mem_fragmentation_ratio", two_decimals(ratio(resident, memory.used)));
    page.field("mem_fragmentation_bytes", difference(resident, memory.used));
    page.zeros(&["mem_not_counted_for_evict", "mem_replication_backlog"]);
    page.zeros(&["mem_total_replication_buffers", "mem_clients_slaves"]);
    page.field("mem_clients_normal", reading.inputs.clients.memory);
    page.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    page.field("mem_allocator", "cowherd-arena");
    page.zeros(&["active_defrag_running", "lazyfree_pending_objects", "lazyfreed_objects"]);
    page.field("cowherd_arena_pages_asked", &arena.pages_asked);
    page.field("cowherd_arena_pages", &arena.pages);
    page.field("cowherd_arena_capacity", arena.capacity);
    page.field("cowherd_arena_used_chunks", arena.used_chunks);
    page.field("cowherd_arena_huge_bytes", arena.huge_bytes);
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

pub(super) fn persistence(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    let view = reading.persistence();
    let saving = view.saving.as_ref();
    page.section("Persistence");
    page.field("loading", u8::from(view.loading.is_some()));
    page.field("async_loading", 0);
    // What is kept of the old data, whoever copies it.
    let kept = saving.map_or(0, |saving| saving.record.copied_bytes());
    page.field("current_cow_peak", kept);
    page.field("current_cow_size", kept);
    page.field("current_cow_size_age", saving.map_or(0, |saving| saving.age.as_secs()));
    let done = saving.map_or(0.0, |saving| saving.progress()) * 100.0;
    page.field("current_fork_perc", two_decimals(done));
    page.field("current_save_keys_processed", saving.map_or(0, |saving| saving.keys_done()));
    page.field("current_save_keys_total", saving.map_or(0, |saving| saving.record.keys));
    page.field("rdb_changes_since_last_save", view.changes_since_checkpoint);
    page.field("rdb_bgsave_in_progress", u8::from(saving.is_some()));
    page.field("rdb_last_save_time", view.last_checkpoint_ms.div_euclid(1000));
    page.field("rdb_last_bgsave_status", word(view.last_checkpoint_failed));
    page.field("rdb_last_bgsave_time_sec", seconds(view.last_duration));
    page.field("rdb_current_bgsave_time_sec", seconds(saving.map(|saving| saving.elapsed)));
    page.field("rdb_saves", view.totals.begun.saturating_sub(reading.zero.saves));
    page.field("rdb_last_cow_size", view.last_cow_bytes + view.last_undo_bytes);
    page.field("rdb_last_load_keys_expired", view.restored.keys_expired);
    page.field("rdb_last_load_keys_loaded", view.restored.keys_loaded);
    page.zeros(&["aof_enabled", "aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    page.field("aof_last_rewrite_time_sec", -1);
    page.field("aof_current_rewrite_time_sec", -1);
    page.field("aof_last_bgrewrite_status", "ok");
    page.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures"]);
    page.field("aof_last_write_status", "ok");
    page.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if let Some(loading) = &view.loading {
        loading_progress(page, loading);
    }
    own_persistence(page, reading, &view);
}

fn loading_progress(page: &mut InfoWriter, loading: &RunningRestore) {
    let left = loading.total_bytes.saturating_sub(loading.loaded_bytes);
    // At the pace so far; Redis says 1 second as long as there is no pace.
    let pace = loading.loaded_bytes.checked_div(loading.elapsed.as_secs()).unwrap_or(0);
    let share = ratio(loading.loaded_bytes, loading.total_bytes) * 100.0;
    page.field("loading_start_time", loading.since.wall_seconds());
    page.field("loading_total_bytes", loading.total_bytes);
    page.field("loading_rdb_used_mem", 0);
    page.field("loading_loaded_bytes", loading.loaded_bytes);
    page.field("loading_loaded_perc", two_decimals(share));
    page.field("loading_eta_seconds", left.checked_div(pace).unwrap_or(1));
}

fn own_persistence(page: &mut InfoWriter, reading: &InfoContext<'_>, view: &PersistenceStatus) {
    let saving = view.saving.as_ref();
    page.field("cowherd_checkpoint_isolation", &reading.inputs.checkpoint_isolation);
    page.field("cowherd_checkpoint_child_pid", saving.map_or(0, |saving| saving.pid));
    page.field(
        "cowherd_checkpoint_chunks_done",
        saving.map_or(0, |saving| saving.record.chunks_done),
    );
    page.field("cowherd_checkpoint_chunks_total", saving.map_or(0, |saving| saving.record.chunks));
    page.field("cowherd_last_checkpoint_error", view.last_error.as_deref().unwrap_or(""));
    page.field("cowherd_last_checkpoint_digest", view.last_digest.as_deref().unwrap_or(""));
    let took = view.last_duration.unwrap_or_default().as_secs_f64();
    page.field("cowherd_last_checkpoint_seconds", format_args!("{took:.6}"));
    page.field("cowherd_checkpoint_failures", view.totals.failed);
    page.field("cowherd_image_bytes", view.image_bytes);
    let restore = view.restore_duration.unwrap_or_default().as_secs_f64();
    page.field("cowherd_restore_seconds", format_args!("{restore:.6}"));
    page.field("cowherd_restored_digest", view.restored.digest.as_deref().unwrap_or(""));
}

pub(super) fn stats(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    let totals = reading.telemetry.totals().since(&reading.zero.totals);
    let engine = reading.inputs.counters.since(&reading.zero.engine);
    let rates = reading.telemetry.rates();
    let kbps = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    let view = reading.persistence();
    let forks = view.hold_ups.count().saturating_sub(reading.zero.forks);
    let latest_fork = if forks == 0 { Duration::ZERO } else { view.latest_fork.hold_up };
    page.section("Stats");
    page.field("total_connections_received", totals.connections_received);
    page.field("total_commands_processed", totals.commands);
    page.field("instantaneous_ops_per_sec", rates.commands);
    page.field("total_net_input_bytes", totals.input_bytes);
    page.field("total_net_output_bytes", totals.output_bytes);
    page.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    page.field("instantaneous_input_kbps", kbps(rates.input_bytes));
    page.field("instantaneous_output_kbps", kbps(rates.output_bytes));
    page.field("instantaneous_input_repl_kbps", "0.00");
    page.field("instantaneous_output_repl_kbps", "0.00");
    page.field("rejected_connections", totals.connections_rejected);
    page.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    page.field("expired_keys", engine.expired_keys);
    page.field("expired_stale_perc", two_decimals(reading.inputs.expired_stale_percent));
    page.field("expired_time_cap_reached_count", engine.expired_time_cap_reached);
    page.field("expire_cycle_cpu_milliseconds", engine.expire_cycle_us / 1000);
    page.field("evicted_keys", engine.evicted_keys);
    page.field("evicted_clients", engine.evicted_clients);
    page.zeros(&["total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    page.field("keyspace_hits", engine.keyspace_hits);
    page.field("keyspace_misses", engine.keyspace_misses);
    page.field("pubsub_channels", reading.inputs.pubsub_channels);
    page.field("pubsub_patterns", reading.inputs.pubsub_patterns);
    page.field("pubsubshard_channels", reading.inputs.pubsub_shard_channels);
    page.field("latest_fork_usec", latest_fork.as_micros());
    page.field("total_forks", forks);
    page.zeros(&["migrate_cached_sockets", "slave_expires_tracked_keys", "active_defrag_hits"]);
    page.zeros(&["active_defrag_misses", "active_defrag_key_hits", "active_defrag_key_misses"]);
    page.zeros(&["total_active_defrag_time", "current_active_defrag_time"]);
    page.zeros(&["tracking_total_keys", "tracking_total_items", "tracking_total_prefixes"]);
    page.zeros(&["unexpected_error_replies"]);
    page.field("total_error_replies", totals.errors);
    page.zeros(&["dump_payload_sanitizations"]);
    page.field("total_reads_processed", totals.reads);
    page.field("total_writes_processed", totals.writes);
    page.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    page.zeros(&["reply_buffer_shrinks", "reply_buffer_expands"]);
}

pub(super) fn replication(page: &mut InfoWriter, _reading: &InfoContext<'_>) {
    page.section("Replication");
    page.field("role", "master");
    page.field("connected_slaves", 0);
    page.field("master_failover_state", "no-failover");
    page.field("master_replid", NO_REPLICATION_ID);
    page.field("master_replid2", NO_REPLICATION_ID);
    page.field("master_repl_offset", 0);
    page.field("second_repl_offset", -1);
    page.zeros(&["repl_backlog_active", "repl_backlog_size"]);
    page.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

pub(super) fn cpu(page: &mut InfoWriter, _reading: &InfoContext<'_>) {
    let times = process::cpu_times();
    page.section("CPU");
    let mut field = |name: &str, time: Duration| {
        page.field(name, format_args!("{:.6}", time.as_secs_f64()));
    };
    field("used_cpu_sys", times.own.system);
    field("used_cpu_user", times.own.user);
    field("used_cpu_sys_children", times.children.system);
    field("used_cpu_user_children", times.children.user);
    field("used_cpu_sys_main_thread", times.main_thread.system);
    field("used_cpu_user_main_thread", times.main_thread.user);
}

pub(super) fn modules(page: &mut InfoWriter, _reading: &InfoContext<'_>) {
    page.section("Modules");
}

pub(super) fn command_stats(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    page.section("Commandstats");
    for (number, name) in reading.telemetry.commands() {
        let zero = reading.zero.commands.get(number).copied().unwrap_or_default();
        let totals = reading.telemetry.command(number).since(&zero);
        if !totals.is_used() {
            continue;
        }
        let usec = totals.nanos / 1000;
        let each = ratio(totals.nanos, totals.calls) / 1000.0;
        page.field(
            format_args!("cmdstat_{name}"),
            format_args!(
                "calls={},usec={usec},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                totals.calls, totals.rejected, totals.failed
            ),
        );
    }
}

pub(super) fn error_stats(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    page.section("Errorstats");
    for (word, count) in reading.telemetry.errors_since(&reading.zero.errors) {
        page.field(format_args!("errorstat_{word}"), format_args!("count={count}"));
    }
}

pub(super) fn latency_stats(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    page.section("Latencystats");
    for (number, name) in reading.telemetry.commands() {
        let Some(mut latency) = reading.telemetry.latency(number) else { continue };
        if let Some(Some(zero)) = reading.zero.latencies.get(number) {
            latency = latency.since(zero);
        }
        let micros = |quantile| latency.quantile(quantile).map(|nanos| nanos as f64 / 1000.0);
        let (Some(half), Some(p99), Some(p999)) = (micros(0.5), micros(0.99), micros(0.999)) else {
            continue;
        };
        page.field(
            format_args!("latency_percentiles_usec_{name}"),
            format_args!("p50={half:.3},p99={p99:.3},p99.9={p999:.3}"),
        );
    }
}

pub(super) fn cluster(page: &mut InfoWriter, _reading: &InfoContext<'_>) {
    page.section("Cluster");
    page.field("cluster_enabled", 0);
}

pub(super) fn keyspace(page: &mut InfoWriter, reading: &InfoContext<'_>) {
    page.section("Keyspace");
    let databases = reading.inputs.databases.iter().filter(|database| database.keys > 0);
    for database in databases {
        page.field(
            format_args!("db{}", database.number),
            format_args!(
                "keys={},expires={},avg_ttl={}",
                database.keys, database.expires, database.avg_ttl_ms
            ),
        );
    }
}
