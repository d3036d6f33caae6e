//! The metrics of our own: `cowherd_*`. docs/metrics.md explains each; a test holds the two
//! against each other.

use std::fmt;
use std::time::Duration;

use super::Collected;
use super::emit::Emitter;
use crate::telemetry::info::{COWHERD_VERSION, REDIS_VERSION};

pub(super) fn emit(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    server(out, collected)?;
    clients(out, collected)?;
    commands(out, collected)?;
    keyspace(out, collected)?;
    memory(out, collected)?;
    saves(out, collected)?;
    forks_and_restores(out, collected)
}

fn seconds(duration: Option<Duration>) -> f64 {
    duration.unwrap_or_default().as_secs_f64()
}

fn server(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    let versions = [("version", COWHERD_VERSION), ("redis_version", REDIS_VERSION)];
    out.gauges("cowherd_build_info", "Versions of the server", [(versions, 1_u64)])?;
    out.gauge(
        "cowherd_start_time_seconds",
        "When the server started, since 1970",
        collected.telemetry.started().wall_ms as f64 / 1e3,
    )?;
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
    )
}

fn clients(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    let (totals, clients) = (&collected.totals, &collected.inputs.clients);
    out.gauge("cowherd_clients", "Clients connected", totals.clients())?;
    out.gauge("cowherd_clients_blocked", "Clients in a blocking command", clients.blocked)?;
    out.gauge("cowherd_clients_limit", "The most clients at a time", clients.limit)?;
    out.counter(
        "cowherd_connections_received_total",
        "Connections accepted",
        totals.connections_received,
    )?;
    out.counter(
        "cowherd_connections_rejected_total",
        "Connections turned away",
        totals.connections_rejected,
    )?;
    out.counter(
        "cowherd_network_input_bytes_total",
        "Bytes read from clients",
        totals.input_bytes,
    )?;
    out.counter(
        "cowherd_network_output_bytes_total",
        "Bytes written to clients",
        totals.output_bytes,
    )?;
    out.counter("cowherd_socket_reads_total", "Reads from clients' sockets", totals.reads)?;
    out.counter("cowherd_socket_writes_total", "Writes to clients' sockets", totals.writes)
}

fn commands(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    let each = || collected.commands.iter().map(|(name, totals)| ([("command", *name)], totals));
    out.counters(
        "cowherd_commands_total",
        "Commands executed",
        each().map(|(labels, totals)| (labels, totals.calls)),
    )?;
    out.counters(
        "cowherd_commands_seconds_total",
        "Time spent executing commands",
        each().map(|(labels, totals)| (labels, totals.nanos as f64 / 1e9)),
    )?;
    out.counters(
        "cowherd_commands_failed_total",
        "Commands that were executed and replied with an error",
        each().map(|(labels, totals)| (labels, totals.failed)),
    )?;
    out.counters(
        "cowherd_commands_rejected_total",
        "Commands refused before they were executed",
        each().map(|(labels, totals)| (labels, totals.rejected)),
    )?;
    out.histogram(
        "cowherd_command_duration_seconds",
        "Execution time of commands, while latency-tracking is on",
        &collected.latency,
    )?;
    out.counters(
        "cowherd_errors_total",
        "Error replies by their first word",
        collected.telemetry.errors().into_iter().map(|(word, count)| ([("error", word)], count)),
    )
}

fn keyspace(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    let counters = &collected.inputs.counters;
    let hits = counters.keyspace_hits;
    out.counter("cowherd_keyspace_hits_total", "Lookups that found their key", hits)?;
    let misses = counters.keyspace_misses;
    out.counter("cowherd_keyspace_misses_total", "Lookups that found no key", misses)?;
    let expired = counters.expired_keys;
    out.counter("cowherd_expired_keys_total", "Keys removed as their time was over", expired)?;
    let evicted = counters.evicted_keys;
    out.counter("cowherd_evicted_keys_total", "Keys dropped to make room", evicted)?;
    let databases = &collected.inputs.databases;
    let names: Vec<String> = databases.iter().map(|one| format!("db{}", one.number)).collect();
    let each = || names.iter().map(|name| [("db", name.as_str())]).zip(databases);
    out.gauges("cowherd_keys", "Keys", each().map(|(labels, one)| (labels, one.keys)))?;
    out.gauges(
        "cowherd_keys_expiring",
        "Keys with an expiry",
        each().map(|(labels, one)| (labels, one.expires)),
    )
}

fn memory(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    let (memory, arena) = (&collected.inputs.memory, &collected.inputs.arena);
    let peak = collected.telemetry.peak_memory().max(memory.used);
    out.gauge("cowherd_memory_used_bytes", "Memory in use for data", memory.used)?;
    out.gauge("cowherd_memory_peak_bytes", "The most memory in use so far", peak)?;
    out.gauge("cowherd_memory_limit_bytes", "Setting maxmemory; 0: automatic", memory.limit)?;
    out.gauge(
        "cowherd_memory_resident_bytes",
        "Memory of the process, hugetlb pages included",
        collected.resident_bytes,
    )?;
    let kinds = [
        ("pages_asked", arena.pages_asked.as_str()),
        ("pages", arena.pages.as_str()),
        ("isolation", collected.inputs.checkpoint_isolation.as_str()),
    ];
    out.gauges("cowherd_arena_info", "What the arena is made of", [(kinds, 1_u64)])?;
    out.gauge("cowherd_arena_capacity_bytes", "Size of the arena", arena.capacity)?;
    out.gauge("cowherd_arena_chunks_used", "Chunks of the arena in use", arena.used_chunks)?;
    out.gauge("cowherd_arena_huge_bytes", "Arena that lies on huge pages", arena.huge_bytes)
}

fn saves(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    let view = &collected.view;
    let saving = view.saving.as_ref();
    out.gauge("cowherd_save_running", "1 while a save runs", u64::from(saving.is_some()))?;
    out.gauge(
        "cowherd_save_progress_ratio",
        "Share of the chunks that the running save has written",
        saving.map_or(0.0, |saving| saving.progress()),
    )?;
    out.gauge(
        "cowherd_save_elapsed_seconds",
        "How long the running save has taken",
        seconds(saving.map(|saving| saving.elapsed)),
    )?;
    out.gauge(
        "cowherd_save_cow_bytes",
        "Bytes copied so far because they changed during the running save",
        saving.map_or(0, |saving| saving.record.cow.copied_bytes),
    )?;
    out.counter("cowherd_saves_total", "Saves begun", view.totals.begun)?;
    out.counter("cowherd_saves_failed_total", "Saves that failed", view.totals.failed)?;
    out.gauge(
        "cowherd_last_save_success",
        "1 unless the last save failed",
        u64::from(!view.last_save_failed),
    )?;
    out.gauge(
        "cowherd_last_save_timestamp_seconds",
        "When the last save succeeded (or the server started), since 1970",
        view.last_save_ms as f64 / 1e3,
    )?;
    out.gauge(
        "cowherd_last_save_duration_seconds",
        "How long the last save took",
        seconds(view.last_duration),
    )?;
    out.gauge(
        "cowherd_last_save_cow_bytes",
        "Bytes copied because they changed during the last save",
        view.last_cow_bytes,
    )?;
    out.gauge("cowherd_image_bytes", "Size of the image on disk", view.image_bytes)?;
    out.gauge(
        "cowherd_unsaved_changes",
        "Changes that the last save does not hold",
        view.changes_since_last_save,
    )
}

fn forks_and_restores(out: &mut Emitter<'_>, collected: &Collected<'_>) -> fmt::Result {
    let view = &collected.view;
    out.histogram(
        "cowherd_fork_duration_seconds",
        "How long forks held up the clients",
        &view.hold_ups,
    )?;
    out.gauge(
        "cowherd_last_fork_seconds",
        "How long the last fork held up the clients",
        view.latest_fork.hold_up.as_secs_f64(),
    )?;
    out.gauge(
        "cowherd_loading",
        "1 while the image is being restored",
        u64::from(view.loading.is_some()),
    )?;
    out.gauge(
        "cowherd_restore_seconds",
        "How long the restore at the start took",
        seconds(view.restore_duration),
    )?;
    out.gauge(
        "cowherd_restored_keys",
        "Keys that the restore at the start brought",
        view.restored.keys_loaded,
    )
}
