//! Metrics under the names of redis_exporter, as INFO's figures give them, so that dashboards
//! made for Redis work. The types and odd units are part of those names.

use super::Collected;
use super::families::Families;

pub(super) fn emit(out: &mut Families, collected: &Collected<'_>) {
    server(out, collected);
    memory(out, collected);
    commands(out, collected);
    keyspace(out, collected);
    persistence(out, collected);
    latency(out, collected);
}

fn server(out: &mut Families, collected: &Collected<'_>) {
    let (totals, clients) = (&collected.totals, &collected.inputs.clients);
    let uptime = collected.now.since(&collected.telemetry.started()).as_secs();
    out.gauge("redis_up", "1: the server is there", 1_u64);
    out.gauge("redis_uptime_in_seconds", "Seconds since the start", uptime);
    out.gauge("redis_connected_clients", "Clients connected", totals.clients());
    out.gauge("redis_blocked_clients", "Clients in a blocking command", clients.blocked);
    let rejected = totals.connections_rejected;
    out.counter("redis_rejected_connections_total", "Connections turned away", rejected);
    let received = totals.connections_received;
    out.counter("redis_connections_received_total", "Connections accepted", received);
    out.counter("redis_net_input_bytes_total", "Bytes read from clients", totals.input_bytes);
    out.counter("redis_net_output_bytes_total", "Bytes written to clients", totals.output_bytes);
}

fn memory(out: &mut Families, collected: &Collected<'_>) {
    let memory = &collected.inputs.memory;
    let peak = collected.telemetry.peak_memory().max(memory.used);
    let fragmentation = match memory.used {
        0 => 0.0,
        used => collected.resident_bytes as f64 / used as f64,
    };
    out.gauge("redis_memory_used_bytes", "Memory in use", memory.used);
    out.gauge("redis_memory_max_bytes", "Setting maxmemory", memory.limit);
    out.gauge("redis_memory_used_rss_bytes", "Resident memory", collected.resident_bytes);
    out.gauge("redis_memory_used_peak_bytes", "The most memory in use", peak);
    out.gauge("redis_mem_fragmentation_ratio", "Resident memory by used memory", fragmentation);
}

fn latency(out: &mut Families, collected: &Collected<'_>) {
    let length = collected.telemetry.slowlog_len();
    out.gauge("redis_slowlog_length", "Entries that SLOWLOG holds", length);
    let events = collected.telemetry.latency_events();
    let each = events
        .iter()
        .map(|event| ([("event_name", event.event.name())], event.latest().ms as f64 / 1e3));
    out.gauges(
        "redis_latency_spike_duration_seconds",
        "The last event of each kind that LATENCY has recorded",
        each,
    );
}

fn commands(out: &mut Families, collected: &Collected<'_>) {
    let each = || collected.commands.iter().map(|(name, totals)| ([("cmd", *name)], totals));
    let executed = collected.totals.commands;
    out.counter("redis_commands_processed_total", "Commands executed", executed);
    out.counters(
        "redis_commands_total",
        "Commands executed, by command",
        each().map(|(labels, totals)| (labels, totals.calls)),
    );
    out.counters(
        "redis_commands_duration_seconds_total",
        "Time spent executing, by command",
        each().map(|(labels, totals)| (labels, totals.nanos as f64 / 1e9)),
    );
}

fn keyspace(out: &mut Families, collected: &Collected<'_>) {
    let counters = &collected.inputs.counters;
    let (hits, misses) = (counters.keyspace_hits, counters.keyspace_misses);
    out.counter("redis_keyspace_hits_total", "Lookups that found their key", hits);
    out.counter("redis_keyspace_misses_total", "Lookups that found no key", misses);
    out.counter("redis_expired_keys_total", "Keys whose time was over", counters.expired_keys);
    out.counter("redis_evicted_keys_total", "Keys dropped to make room", counters.evicted_keys);
    let databases = &collected.inputs.databases;
    let names: Vec<String> = databases.iter().map(|one| format!("db{}", one.number)).collect();
    let each = || names.iter().map(|name| [("db", name.as_str())]).zip(databases);
    out.gauges("redis_db_keys", "Keys", each().map(|(labels, one)| (labels, one.keys)));
    out.gauges(
        "redis_db_keys_expiring",
        "Keys with an expiry",
        each().map(|(labels, one)| (labels, one.expires)),
    );
    out.gauges(
        "redis_db_avg_ttl_seconds",
        "Mean time that expiring keys have left",
        each().map(|(labels, one)| (labels, one.avg_ttl_ms as f64 / 1e3)),
    );
}

fn persistence(out: &mut Families, collected: &Collected<'_>) {
    let view = &collected.view;
    let saving = view.saving.as_ref();
    out.gauge(
        "redis_rdb_changes_since_last_save",
        "Changes that the last save does not hold",
        view.changes_since_checkpoint,
    );
    let running = u64::from(saving.is_some());
    out.gauge("redis_rdb_bgsave_in_progress", "1 while a save runs", running);
    out.gauge(
        "redis_rdb_last_save_timestamp_seconds",
        "When the last save succeeded, since 1970",
        view.last_checkpoint_ms.div_euclid(1000) as f64,
    );
    let succeeded = u64::from(!view.last_checkpoint_failed);
    out.gauge("redis_rdb_last_bgsave_status", "1 unless the last save failed", succeeded);
    out.gauge(
        "redis_rdb_last_bgsave_duration_sec",
        "Seconds that the last save took; -1: there was none",
        view.last_duration.map_or(-1.0, |duration| duration.as_secs_f64().floor()),
    );
    out.gauge(
        "redis_rdb_current_bgsave_duration_sec",
        "Seconds that the running save has taken; -1: none runs",
        saving.map_or(-1.0, |saving| saving.elapsed.as_secs_f64().floor()),
    );
    out.gauge(
        "redis_rdb_last_cow_size_bytes",
        "Bytes copied, or captured, because they changed during the last save",
        view.last_cow_bytes + view.last_undo_bytes,
    );
    out.counter("redis_rdb_saves_total", "Saves begun", view.totals.begun);
    out.gauge(
        "redis_latest_fork_seconds",
        "How long the last fork held up the clients",
        view.latest_fork.hold_up.as_secs_f64(),
    );
    out.gauge("redis_aof_enabled", "0: there is no append-only file", 0_u64);
}
