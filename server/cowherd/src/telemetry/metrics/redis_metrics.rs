//! Metrics under the names of redis_exporter, for dashboards made for Redis. Types and odd units
//! are as redis_exporter has them.

use super::families::Families;
use super::scrape::Scrape;

pub(super) fn emit(out: &mut Families, scrape: &Scrape<'_>) {
    server(out, scrape);
    memory(out, scrape);
    commands(out, scrape);
    keyspace(out, scrape);
    persistence(out, scrape);
    latency(out, scrape);
}

fn server(out: &mut Families, scrape: &Scrape<'_>) {
    let (totals, clients) = (&scrape.totals, &scrape.stats.clients);
    let uptime = scrape.now.since(&scrape.telemetry.started()).as_secs();
    out.gauge("redis_up", "Always 1", 1_u64);
    out.gauge("redis_uptime_in_seconds", "Seconds since the start", uptime);
    out.gauge("redis_connected_clients", "Clients connected", totals.clients());
    let about = "Clients in a blocking command, or held by CLIENT PAUSE";
    out.gauge("redis_blocked_clients", about, clients.blocked);
    let rejected = totals.connections_rejected;
    out.counter("redis_rejected_connections_total", "Connections rejected", rejected);
    let received = totals.connections_received;
    out.counter("redis_connections_received_total", "Connections accepted", received);
    out.counter("redis_net_input_bytes_total", "Bytes read from clients", totals.input_bytes);
    out.counter("redis_net_output_bytes_total", "Bytes written to clients", totals.output_bytes);
}

fn memory(out: &mut Families, scrape: &Scrape<'_>) {
    let memory = &scrape.stats.memory;
    let peak = scrape.telemetry.peak_memory().max(memory.used);
    let fragmentation = match memory.used {
        0 => 0.0,
        used => scrape.resident_bytes as f64 / used as f64,
    };
    let (state, counters) = (&scrape.stats.compaction, &scrape.stats.counters);
    out.gauge("redis_memory_used_bytes", "Memory in use", memory.used);
    out.gauge("redis_memory_max_bytes", "Setting maxmemory", memory.limit);
    out.gauge("redis_memory_used_rss_bytes", "Resident memory", scrape.resident_bytes);
    out.gauge("redis_memory_used_peak_bytes", "The most memory in use", peak);
    out.gauge("redis_mem_fragmentation_ratio", "Resident memory by used memory", fragmentation);
    let running = state.running_percent;
    out.gauge("redis_active_defrag_running", "Percent of a core that compaction takes", running);
    out.gauge("redis_defrag_hits", "Objects moved by compaction", counters.defrag_hits);
    out.gauge("redis_defrag_misses", "Objects that it could not move", counters.defrag_misses);
    let (hits, misses) = (counters.defrag_key_hits, counters.defrag_key_misses);
    out.gauge("redis_defrag_key_hits", "Keys of which any object was moved", hits);
    out.gauge("redis_defrag_key_misses", "Keys of which none was", misses);
}

fn latency(out: &mut Families, scrape: &Scrape<'_>) {
    let length = scrape.telemetry.slowlog_len();
    out.gauge("redis_slowlog_length", "Entries that SLOWLOG holds", length);
    let events = scrape.telemetry.latency_events();
    let each = events
        .iter()
        .map(|event| ([("event_name", event.event.name())], event.latest().ms as f64 / 1e3));
    out.gauges(
        "redis_latency_spike_duration_seconds",
        "The last event of each kind that LATENCY has recorded",
        each,
    );
}

fn commands(out: &mut Families, scrape: &Scrape<'_>) {
    let each = || scrape.commands.iter().map(|(name, totals)| ([("cmd", *name)], totals));
    let executed = scrape.totals.commands;
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

fn keyspace(out: &mut Families, scrape: &Scrape<'_>) {
    let counters = &scrape.stats.counters;
    let (hits, misses) = (counters.keyspace_hits, counters.keyspace_misses);
    out.counter("redis_keyspace_hits_total", "Lookups that found their key", hits);
    out.counter("redis_keyspace_misses_total", "Lookups that found no key", misses);
    out.counter("redis_expired_keys_total", "Keys that have expired", counters.expired_keys);
    out.counter("redis_evicted_keys_total", "Keys evicted to free memory", counters.evicted_keys);
    let databases = &scrape.stats.databases;
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
        "Mean time to live of the keys with an expiry",
        each().map(|(labels, one)| (labels, one.avg_ttl_ms as f64 / 1e3)),
    );
}

fn persistence(out: &mut Families, scrape: &Scrape<'_>) {
    let status = &scrape.persistence;
    let running = status.running.as_ref();
    out.gauge(
        "redis_rdb_changes_since_last_save",
        "Changes that the last image does not hold",
        status.changes_since_checkpoint,
    );
    let is_running = u64::from(running.is_some());
    out.gauge("redis_rdb_bgsave_in_progress", "1 while a checkpoint runs", is_running);
    out.gauge(
        "redis_rdb_last_save_timestamp_seconds",
        "When the last checkpoint succeeded, since 1970",
        status.last_checkpoint_ms.div_euclid(1000) as f64,
    );
    let succeeded = u64::from(!status.last_checkpoint_failed);
    out.gauge("redis_rdb_last_bgsave_status", "1 unless the last checkpoint failed", succeeded);
    out.gauge(
        "redis_rdb_last_bgsave_duration_sec",
        "Seconds that the last checkpoint took; -1: there was none",
        status.last_duration.map_or(-1.0, |duration| duration.as_secs_f64().floor()),
    );
    out.gauge(
        "redis_rdb_current_bgsave_duration_sec",
        "Seconds that the running checkpoint has taken; -1: none runs",
        running.map_or(-1.0, |running| running.elapsed.as_secs_f64().floor()),
    );
    out.gauge(
        "redis_rdb_last_cow_size_bytes",
        "Bytes copied or captured during the last checkpoint",
        status.last_cow_bytes + status.last_undo_bytes,
    );
    out.counter("redis_rdb_saves_total", "Checkpoints begun", status.totals.begun);
    out.gauge(
        "redis_latest_fork_seconds",
        "How long the last fork held up the clients",
        status.latest_fork.hold_up.as_secs_f64(),
    );
    out.gauge("redis_aof_enabled", "0: there is no append-only file", 0_u64);
}
