//! The metrics of our own: `cowherd_*`. docs/metrics.md explains each; a test holds the two
//! against each other.

use std::time::Duration;

use super::Collected;
use super::families::Families;
use crate::telemetry::FamilyLatency;
use crate::telemetry::info::{COWHERD_VERSION, REDIS_VERSION};

pub(super) fn emit(out: &mut Families, collected: &Collected<'_>) {
    server(out, collected);
    clients(out, collected);
    commands(out, collected);
    keyspace(out, collected);
    memory(out, collected);
    restores(out, collected);
}

fn server(out: &mut Families, collected: &Collected<'_>) {
    let versions = [("version", COWHERD_VERSION), ("redis_version", REDIS_VERSION)];
    out.gauges("cowherd_build_info", "Versions of the server", [(versions, 1_u64)]);
    out.gauge(
        "cowherd_start_time_seconds",
        "When the server started, since 1970",
        collected.telemetry.started().wall_ms as f64 / 1e3,
    );
    let cpu = &collected.cpu;
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

fn clients(out: &mut Families, collected: &Collected<'_>) {
    let (totals, clients) = (&collected.totals, &collected.inputs.clients);
    out.gauge("cowherd_clients", "Clients connected", totals.clients());
    out.gauge("cowherd_clients_blocked", "Clients in a blocking command", clients.blocked);
    out.gauge("cowherd_clients_limit", "The most clients at a time", clients.limit);
    out.counter(
        "cowherd_connections_received_total",
        "Connections accepted",
        totals.connections_received,
    );
    out.counter(
        "cowherd_connections_rejected_total",
        "Connections turned away",
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

fn commands(out: &mut Families, collected: &Collected<'_>) {
    let each = || collected.commands.iter().map(|(name, totals)| ([("command", *name)], totals));
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
    let families = &collected.latency;
    let phases = |one: &FamilyLatency| {
        one.by_phase()
            .map(|(phase, times)| ([("family", one.family), ("phase", phase)], times.clone()))
    };
    out.histograms(
        "cowherd_command_duration_seconds",
        "Execution time of commands, apart while a save runs, while latency-tracking is on",
        families.iter().flat_map(phases),
    );
    let events = collected.telemetry.latency_events();
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
        "cowherd_slowlog_entries",
        "Entries that SLOWLOG holds",
        collected.telemetry.slowlog_len(),
    );
    out.counter(
        "cowherd_slowlog_entries_total",
        "Commands that were slow enough for SLOWLOG",
        collected.telemetry.slowlog_total(),
    );
    out.counters(
        "cowherd_errors_total",
        "Error replies by their first word",
        collected.telemetry.errors().into_iter().map(|(word, count)| ([("error", word)], count)),
    );
}

fn keyspace(out: &mut Families, collected: &Collected<'_>) {
    let counters = &collected.inputs.counters;
    let hits = counters.keyspace_hits;
    out.counter("cowherd_keyspace_hits_total", "Lookups that found their key", hits);
    let misses = counters.keyspace_misses;
    out.counter("cowherd_keyspace_misses_total", "Lookups that found no key", misses);
    let expired = counters.expired_keys;
    out.counter("cowherd_expired_keys_total", "Keys removed as their time was over", expired);
    let evicted = counters.evicted_keys;
    out.counter("cowherd_evicted_keys_total", "Keys dropped to make room", evicted);
    let databases = &collected.inputs.databases;
    let names: Vec<String> = databases.iter().map(|one| format!("db{}", one.number)).collect();
    let each = || names.iter().map(|name| [("db", name.as_str())]).zip(databases);
    out.gauges("cowherd_keys", "Keys", each().map(|(labels, one)| (labels, one.keys)));
    out.gauges(
        "cowherd_keys_expiring",
        "Keys with an expiry",
        each().map(|(labels, one)| (labels, one.expires)),
    );
}

fn memory(out: &mut Families, collected: &Collected<'_>) {
    let (memory, arena) = (&collected.inputs.memory, &collected.inputs.arena);
    let peak = collected.telemetry.peak_memory().max(memory.used);
    out.gauge("cowherd_memory_used_bytes", "Memory in use for data", memory.used);
    out.gauge("cowherd_memory_peak_bytes", "The most memory in use so far", peak);
    out.gauge("cowherd_memory_limit_bytes", "Setting maxmemory; 0: automatic", memory.limit);
    out.gauge(
        "cowherd_memory_resident_bytes",
        "Memory of the process, hugetlb pages included",
        collected.resident_bytes,
    );
    let kinds = [
        ("pages_asked", arena.pages_asked.as_str()),
        ("pages", arena.pages.as_str()),
        ("isolation", collected.inputs.checkpoint_isolation.as_str()),
    ];
    out.gauges("cowherd_arena_info", "What the arena is made of", [(kinds, 1_u64)]);
    out.gauge("cowherd_arena_capacity_bytes", "Size of the arena", arena.capacity);
    out.gauge("cowherd_arena_chunks_used", "Chunks of the arena in use", arena.used_chunks);
    out.gauge("cowherd_arena_huge_bytes", "Arena that lies on huge pages", arena.huge_bytes);
}

fn restores(out: &mut Families, collected: &Collected<'_>) {
    let view = &collected.view;
    let loading = u64::from(view.loading.is_some());
    out.gauge("cowherd_loading", "1 while the image is being restored", loading);
    out.gauge(
        "cowherd_restore_seconds",
        "How long the restore at the start took",
        view.restore_duration.unwrap_or_default().as_secs_f64(),
    );
    out.gauge(
        "cowherd_restored_keys",
        "Keys that the restore at the start brought",
        view.restored.keys_loaded,
    );
}
