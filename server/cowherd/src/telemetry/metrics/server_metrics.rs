//! Metrics of the server (`cowherd_*`), without those of checkpoints. A test checks that
//! docs/metrics.md describes each family.

use std::time::Duration;

use super::families::Families;
use super::scrape::Scrape;
use crate::telemetry::info::{COWHERD_VERSION, REDIS_VERSION};
use crate::telemetry::registry::FamilyLatency;

pub(super) fn emit(out: &mut Families, scrape: &Scrape<'_>) {
    server(out, scrape);
    clients(out, scrape);
    commands(out, scrape);
    keyspace(out, scrape);
    memory(out, scrape);
    scripts(out, scrape);
    compaction(out, scrape);
    restores(out, scrape);
}

fn server(out: &mut Families, scrape: &Scrape<'_>) {
    let versions = [("version", COWHERD_VERSION), ("redis_version", REDIS_VERSION)];
    out.gauges("cowherd_build_info", "Versions of the server", [(versions, 1_u64)]);
    out.gauge(
        "cowherd_start_time_seconds",
        "When the server started, since 1970",
        scrape.telemetry.started().wall_ms as f64 / 1e3,
    );
    let cpu = &scrape.cpu;
    let series = |process, mode, time: Duration| {
        ([("process", process), ("mode", mode)], time.as_secs_f64())
    };
    out.counters(
        "cowherd_cpu_seconds_total",
        "Processor time of the server and of its finished children",
        [
            series("server", "user", cpu.own.user),
            series("server", "system", cpu.own.system),
            series("children", "user", cpu.children.user),
            series("children", "system", cpu.children.system),
        ],
    );
}

fn clients(out: &mut Families, scrape: &Scrape<'_>) {
    let (totals, clients) = (&scrape.totals, &scrape.stats.clients);
    out.gauge("cowherd_clients", "Clients connected", totals.clients());
    let about = "Clients in a blocking command, or held by CLIENT PAUSE";
    out.gauge("cowherd_clients_blocked", about, clients.blocked);
    out.gauge(
        "cowherd_clients_tracking",
        "Clients that track keys for their caches",
        clients.tracking,
    );
    out.gauge(
        "cowherd_tracked_keys",
        "Keys that clients have read and track",
        clients.tracked_keys,
    );
    out.gauge("cowherd_clients_limit", "The most clients at a time", clients.limit);
    out.counter(
        "cowherd_connections_received_total",
        "Connections accepted",
        totals.connections_received,
    );
    out.counter(
        "cowherd_connections_rejected_total",
        "Connections rejected",
        totals.connections_rejected,
    );
    out.counter("cowherd_network_input_bytes_total", "Bytes read from clients", totals.input_bytes);
    out.counter(
        "cowherd_network_output_bytes_total",
        "Bytes written to clients",
        totals.output_bytes,
    );
    out.counter("cowherd_socket_reads_total", "Reads from clients' sockets", totals.reads);
    out.counter("cowherd_socket_writes_total", "Writes to clients' sockets", totals.writes);
}

fn commands(out: &mut Families, scrape: &Scrape<'_>) {
    let each = || scrape.commands.iter().map(|(name, totals)| ([("command", *name)], totals));
    out.counters(
        "cowherd_commands_total",
        "Commands executed",
        each().map(|(labels, totals)| (labels, totals.calls)),
    );
    out.counters(
        "cowherd_commands_seconds_total",
        "Time spent executing commands",
        each().map(|(labels, totals)| (labels, totals.nanos as f64 / 1e9)),
    );
    out.counters(
        "cowherd_commands_failed_total",
        "Commands that were executed and replied with an error",
        each().map(|(labels, totals)| (labels, totals.failed)),
    );
    out.counters(
        "cowherd_commands_rejected_total",
        "Commands refused before they were executed",
        each().map(|(labels, totals)| (labels, totals.rejected)),
    );
    let families = &scrape.latency;
    let phases = |one: &FamilyLatency| {
        one.by_phase()
            .map(|(phase, times)| ([("family", one.family), ("phase", phase)], times.clone()))
    };
    out.histograms(
        "cowherd_command_duration_seconds",
        "Execution time of commands, with and without a running checkpoint",
        families.iter().flat_map(phases),
    );
    let events = scrape.telemetry.latency_events();
    out.gauges(
        "cowherd_latency_event_latest_seconds",
        "The last event of each kind that LATENCY has recorded",
        events
            .iter()
            .map(|event| ([("event", event.event.name())], event.latest().ms as f64 / 1e3)),
    );
    out.gauges(
        "cowherd_latency_event_max_seconds",
        "The longest event of each kind that LATENCY has recorded",
        events.iter().map(|event| ([("event", event.event.name())], event.max_ms as f64 / 1e3)),
    );
    out.gauge(
        "cowherd_slowlog_length",
        "Entries that SLOWLOG holds",
        scrape.telemetry.slowlog_len(),
    );
    out.counter(
        "cowherd_slowlog_entries_total",
        "Commands that were slow enough for SLOWLOG",
        scrape.telemetry.slowlog_total(),
    );
    out.counters(
        "cowherd_errors_total",
        "Error replies by their first word",
        scrape.telemetry.errors().into_iter().map(|(word, count)| ([("error", word)], count)),
    );
}

fn keyspace(out: &mut Families, scrape: &Scrape<'_>) {
    let counters = &scrape.stats.counters;
    let hits = counters.keyspace_hits;
    out.counter("cowherd_keyspace_hits_total", "Lookups that found their key", hits);
    let misses = counters.keyspace_misses;
    out.counter("cowherd_keyspace_misses_total", "Lookups that found no key", misses);
    let expired = counters.expired_keys;
    out.counter("cowherd_expired_keys_total", "Keys removed because they had expired", expired);
    let evicted = counters.evicted_keys;
    out.counter("cowherd_evicted_keys_total", "Keys evicted to free memory", evicted);
    let databases = &scrape.stats.databases;
    let names: Vec<String> = databases.iter().map(|one| format!("db{}", one.number)).collect();
    let each = || names.iter().map(|name| [("db", name.as_str())]).zip(databases);
    out.gauges("cowherd_keys", "Keys", each().map(|(labels, one)| (labels, one.keys)));
    out.gauges(
        "cowherd_keys_expiring",
        "Keys with an expiry",
        each().map(|(labels, one)| (labels, one.expires)),
    );
}

fn memory(out: &mut Families, scrape: &Scrape<'_>) {
    let (memory, arena) = (&scrape.stats.memory, &scrape.stats.arena);
    let peak = scrape.telemetry.peak_memory().max(memory.used);
    out.gauge("cowherd_memory_used_bytes", "Memory in use, overhead included", memory.used);
    out.gauge("cowherd_memory_peak_bytes", "The most memory in use so far", peak);
    out.gauge("cowherd_memory_limit_bytes", "Setting maxmemory; 0: automatic", memory.limit);
    out.gauge(
        "cowherd_memory_resident_bytes",
        "Memory of the process, hugetlb pages included",
        scrape.resident_bytes,
    );
    let kinds = [
        ("pages_asked", arena.pages_asked.as_str()),
        ("pages", arena.pages.as_str()),
        ("isolation", scrape.stats.checkpoint_isolation.as_str()),
    ];
    out.gauges("cowherd_arena_info", "Pages and isolation of the arena", [(kinds, 1_u64)]);
    out.gauge("cowherd_arena_capacity_bytes", "Size of the arena", arena.capacity);
    out.gauge("cowherd_arena_chunks_used", "Chunks of the arena in use", arena.used_chunks);
    out.gauge("cowherd_arena_huge_bytes", "Bytes of the arena on huge pages", arena.huge_bytes);
}

fn scripts(out: &mut Families, scrape: &Scrape<'_>) {
    let scripts = &scrape.stats.scripts;
    out.gauge("cowherd_scripts_cached", "Scripts that EVALSHA finds", scripts.scripts);
    out.counter(
        "cowherd_scripts_evicted_total",
        "Scripts of EVAL dropped for newer ones",
        scrape.stats.counters.evicted_scripts,
    );
    out.gauge("cowherd_libraries", "Libraries of functions", scripts.libraries);
    out.gauge("cowherd_functions", "Functions in the libraries", scripts.functions);
    let parts = [
        ([("part", "scripts")], scripts.script_bytes),
        ([("part", "libraries")], scripts.function_bytes),
        ([("part", "interpreters")], scripts.interpreter_bytes),
    ];
    out.gauges("cowherd_scripting_memory_bytes", "Memory of scripts and functions", parts);
}

fn compaction(out: &mut Families, scrape: &Scrape<'_>) {
    let (state, counters) = (&scrape.stats.compaction, &scrape.stats.counters);
    out.gauge(
        "cowherd_arena_wasted_bytes",
        "Bytes of chunks in use that no object uses",
        state.wasted_bytes,
    );
    out.gauge(
        "cowherd_compaction_effort_ratio",
        "Effort of compaction in the background, of a core; 0: none runs",
        state.running_percent as f64 / 100.0,
    );
    let objects = [
        ([("outcome", "moved")], counters.defrag_hits),
        ([("outcome", "stayed")], counters.defrag_misses),
    ];
    out.counters("cowherd_compaction_objects_total", "Objects to be moved", objects);
    let keys = [
        ([("outcome", "moved")], counters.defrag_key_hits),
        ([("outcome", "stayed")], counters.defrag_key_misses),
    ];
    out.counters("cowherd_compaction_keys_total", "Keys that compaction has visited", keys);
    out.counter(
        "cowherd_compaction_moved_bytes_total",
        "Bytes that compaction has moved",
        counters.defrag_bytes,
    );
    out.counter(
        "cowherd_compaction_seconds_total",
        "Time in which more was wasted than the settings allow",
        counters.defrag_us as f64 / 1e6,
    );
}

fn restores(out: &mut Families, scrape: &Scrape<'_>) {
    let status = &scrape.persistence;
    let loading = u64::from(status.loading.is_some());
    out.gauge("cowherd_loading", "1 while the image is being restored", loading);
    let progress = scrape.telemetry.persistence().restore_progress();
    let read = "Bytes of the image that the restore at the start has read";
    out.gauge("cowherd_loading_read_bytes", read, progress.read_bytes);
    let total = "Bytes of the image that the restore at the start reads";
    out.gauge("cowherd_loading_total_bytes", total, progress.total_bytes);
    out.gauge(
        "cowherd_restore_seconds",
        "How long the restore at the start took",
        status.restore_duration.unwrap_or_default().as_secs_f64(),
    );
    out.gauge(
        "cowherd_restored_keys",
        "Keys that the restore at the start loaded",
        status.restored.keys_loaded,
    );
}
