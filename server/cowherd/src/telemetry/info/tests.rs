use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cowherd_arena::checkpoint::RestoreProgress;

use super::*;
use crate::clock::Timestamp;
use crate::telemetry::{
    ArenaStats, CheckpointRecord, CheckpointStart, CheckpointStatus, ClientStats, DatabaseStats,
    EngineCounters, ForkTimes, MemoryStats, RestoreReport, ServerInfo,
};

/// What Redis 7.0 shows, section by section and in its order; the last section is Cowherd's own.
const REDIS: &[(&str, &str)] = &[
    (
        "Server",
        "redis_version redis_git_sha1 redis_git_dirty redis_build_id redis_mode os arch_bits \
         monotonic_clock multiplexing_api atomicvar_api gcc_version process_id \
         process_supervised run_id tcp_port server_time_usec uptime_in_seconds uptime_in_days hz \
         configured_hz lru_clock executable config_file io_threads_active listener0",
    ),
    (
        "Clients",
        "connected_clients cluster_connections maxclients client_recent_max_input_buffer \
         client_recent_max_output_buffer blocked_clients tracking_clients \
         clients_in_timeout_table",
    ),
    (
        "Memory",
        "used_memory used_memory_human used_memory_rss used_memory_rss_human used_memory_peak \
         used_memory_peak_human used_memory_peak_perc used_memory_overhead used_memory_startup \
         used_memory_dataset used_memory_dataset_perc allocator_allocated allocator_active \
         allocator_resident allocator_muzzy \
         total_system_memory total_system_memory_human used_memory_lua \
         used_memory_vm_eval used_memory_lua_human used_memory_scripts_eval \
         number_of_cached_scripts number_of_functions number_of_libraries \
         used_memory_vm_functions used_memory_vm_total used_memory_vm_total_human \
         used_memory_functions used_memory_scripts used_memory_scripts_human maxmemory \
         maxmemory_human maxmemory_policy allocator_frag_ratio allocator_frag_bytes \
         allocator_rss_ratio allocator_rss_bytes rss_overhead_ratio rss_overhead_bytes \
         mem_fragmentation_ratio mem_fragmentation_bytes mem_not_counted_for_evict \
         mem_replication_backlog mem_total_replication_buffers mem_clients_slaves \
         mem_clients_normal mem_cluster_links mem_aof_buffer mem_allocator \
         mem_overhead_db_hashtable_rehashing \
         active_defrag_running lazyfree_pending_objects lazyfreed_objects",
    ),
    (
        "Persistence",
        "loading async_loading current_cow_peak current_cow_size current_cow_size_age \
         current_fork_perc current_save_keys_processed current_save_keys_total \
         rdb_changes_since_last_save rdb_bgsave_in_progress rdb_last_save_time \
         rdb_last_bgsave_status rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec rdb_saves \
         rdb_last_cow_size rdb_last_load_keys_expired rdb_last_load_keys_loaded aof_enabled \
         aof_rewrite_in_progress aof_rewrite_scheduled aof_last_rewrite_time_sec \
         aof_current_rewrite_time_sec aof_last_bgrewrite_status aof_rewrites \
         aof_rewrites_consecutive_failures aof_last_write_status aof_last_cow_size \
         module_fork_in_progress module_fork_last_cow_size",
    ),
    (
        "Stats",
        "total_connections_received total_commands_processed instantaneous_ops_per_sec \
         total_net_input_bytes total_net_output_bytes total_net_repl_input_bytes \
         total_net_repl_output_bytes instantaneous_input_kbps instantaneous_output_kbps \
         instantaneous_input_repl_kbps instantaneous_output_repl_kbps rejected_connections \
         sync_full sync_partial_ok sync_partial_err expired_subkeys expired_keys \
         expired_stale_perc \
         expired_time_cap_reached_count expire_cycle_cpu_milliseconds evicted_keys \
         evicted_clients evicted_scripts total_eviction_exceeded_time \
         current_eviction_exceeded_time \
         keyspace_hits keyspace_misses pubsub_channels pubsub_patterns pubsubshard_channels \
         latest_fork_usec total_forks migrate_cached_sockets slave_expires_tracked_keys \
         active_defrag_hits active_defrag_misses active_defrag_key_hits \
         active_defrag_key_misses total_active_defrag_time current_active_defrag_time \
         tracking_total_keys tracking_total_items tracking_total_prefixes \
         unexpected_error_replies total_error_replies dump_payload_sanitizations \
         total_reads_processed total_writes_processed io_threaded_reads_processed \
         io_threaded_writes_processed client_query_buffer_limit_disconnections \
         client_output_buffer_limit_disconnections reply_buffer_shrinks reply_buffer_expands \
         eventloop_cycles eventloop_duration_sum eventloop_duration_cmd_sum \
         instantaneous_eventloop_cycles_per_sec instantaneous_eventloop_duration_usec \
         acl_access_denied_auth acl_access_denied_cmd acl_access_denied_key \
         acl_access_denied_channel",
    ),
    (
        "Replication",
        "role connected_slaves master_failover_state master_replid master_replid2 \
         master_repl_offset second_repl_offset repl_backlog_active repl_backlog_size \
         repl_backlog_first_byte_offset repl_backlog_histlen",
    ),
    (
        "CPU",
        "used_cpu_sys used_cpu_user used_cpu_sys_children used_cpu_user_children \
         used_cpu_sys_main_thread used_cpu_user_main_thread",
    ),
    ("Modules", ""),
    ("Commandstats", "cmdstat_get cmdstat_config|get"),
    ("Errorstats", "errorstat_ERR errorstat_WRONGTYPE"),
    ("Latencystats", "latency_percentiles_usec_get"),
    ("Cluster", "cluster_enabled"),
    ("Keyspace", "db0 db3"),
    (
        "Checkpoint",
        "isolation pages_asked pages cow_page_bytes arena_used_bytes arena_huge_bytes \
         thp_setting thp_splits thp_collapsed thp_stock_bytes thp_stock_misses checkpoints \
         checkpoints_failed \
         checkpoint_raw_bytes checkpoint_image_bytes other_page_faults checkpoint_read_usec \
         checkpoint_patch_usec checkpoint_compress_usec checkpoint_checksum_usec \
         checkpoint_write_usec checkpoint_sync_usec fork_usec fork_safepoint_wait_usec \
         fork_hold_up_usec cow cow_fault_usec latency_string_idle_usec",
    ),
];

/// Fields that later versions of Redis 7 have, and tools look for.
const LATER: &str = "pubsub_clients watching_clients total_watched_keys total_blocking_keys \
                     total_blocking_keys_on_nokey";

fn inputs() -> StatsSnapshot {
    StatsSnapshot {
        server: ServerInfo {
            tcp_port: 6379,
            run_id: "a".repeat(40),
            config_file: "/etc/cowherd.conf".to_owned(),
            supervised: "no".to_owned(),
            hz: 10,
            threads: 2,
            bind: vec!["127.0.0.1".to_owned(), "-::1".to_owned()],
            unixsocket: String::new(),
            latency_percentiles: vec![50.0, 99.0, 99.9],
        },
        clients: ClientStats { limit: 10_000, blocked: 1, ..ClientStats::default() },
        memory: MemoryStats {
            used: 1 << 20,
            startup: 1 << 10,
            overhead: 1 << 18,
            tables: 1 << 12,
            not_limited: 1 << 14,
            active: 1 << 21,
            limit: 1 << 30,
            policy: "noeviction",
        },
        counters: EngineCounters { keyspace_hits: 5, evicted_keys: 4, ..Default::default() },
        databases: vec![
            DatabaseStats {
                number: 0,
                keys: 3,
                expires: 1,
                avg_ttl_ms: 77,
                volatile_hashes: 2,
                ..Default::default()
            },
            DatabaseStats { number: 1, ..DatabaseStats::default() },
            DatabaseStats { number: 3, keys: 1, ..Default::default() },
        ],
        arena: ArenaStats {
            cow_page_bytes: 4096,
            pages_asked: "auto".to_owned(),
            pages: "small".to_owned(),
            capacity: 1 << 30,
            chunk_bytes: 2 << 20,
            used_chunks: 3,
            huge_bytes: 0,
        },
        checkpoint_isolation: "kernel-cow".to_owned(),
        ..StatsSnapshot::default()
    }
}

fn telemetry() -> Arc<Telemetry> {
    let names = ["get", "set", "config|get"].map(str::to_owned);
    let telemetry = Telemetry::new(1, names.to_vec(), vec!["string", "string", "server"]);
    let recorder = telemetry.recorder(0).unwrap();
    recorder.command(0, 11_007, false);
    recorder.command(0, 11_007, true);
    recorder.rejected(2);
    recorder.error(b"-WRONGTYPE Operation");
    recorder.error(b"-ERR wrong number");
    recorder.connection_received();
    recorder.client_opened();
    recorder.output_limit_exceeded();
    (0..2).for_each(|_| recorder.query_limit_exceeded());
    telemetry.auth_failed();
    telemetry
}

fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}

fn titles(info: &str) -> String {
    let titles = info.lines().filter_map(|line| line.strip_prefix("# "));
    titles.collect::<Vec<_>>().join(" ")
}

#[test]
fn sections_and_fields_are_those_of_redis_in_its_order() {
    let info = render(&telemetry(), &["everything"], &inputs());
    let sections: Vec<&str> = info.split("\r\n\r\n").collect();
    assert_eq!(sections.len(), REDIS.len());
    for (section, (title, names)) in sections.iter().zip(REDIS) {
        let (first, rest) = section.split_once("\r\n").unwrap_or((section, ""));
        assert_eq!(first, format!("# {title}"));
        let found: Vec<&str> = rest
            .lines()
            .map(|line| line.split_once(':').expect(line).0)
            .filter(|name| !name.starts_with("cowherd_") && !LATER.contains(*name))
            .collect();
        assert_eq!(found, names.split_whitespace().collect::<Vec<_>>(), "in {title}");
    }
    assert!(LATER.split_whitespace().all(|name| fields(&info).contains_key(name)));
    assert!(!info.replace("\r\n", "").contains('\n') && info.ends_with("\r\n"));
}

#[test]
fn own_fields_are_there() {
    let info = render(&telemetry(), &["all"], &inputs());
    let fields = fields(&info);
    for name in [
        "version",
        "arena_pages_asked",
        "arena_pages",
        "arena_capacity",
        "arena_used_chunks",
        "arena_huge_bytes",
        "checkpoint_isolation",
        "checkpoint_child_pid",
        "last_checkpoint_error",
        "last_checkpoint_digest",
        "image_bytes",
        "restore_seconds",
        "restored_digest",
    ] {
        assert!(fields.contains_key(format!("cowherd_{name}").as_str()), "{name}");
    }
}

#[test]
fn sections_are_chosen_as_in_redis() {
    let shown = |asked: &[&str]| titles(&render(&telemetry(), asked, &inputs()));
    let all = "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats \
               Errorstats Latencystats Cluster Keyspace Checkpoint";
    let default = "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats \
                   Cluster Keyspace";
    assert_eq!(shown(&[]), default);
    assert_eq!(shown(&["DEFAULT"]), default);
    assert_eq!(shown(&["all"]), all);
    assert_eq!(shown(&["Everything"]), all);
    assert_eq!(
        shown(&["default", "commandstats"]),
        default.replace("Errorst", "Commandstats Errorst")
    );
    assert_eq!(shown(&["keyspace", "server", "SERVER"]), "Server Keyspace");
    assert_eq!(render(&telemetry(), &["bogus"], &inputs()), "");
}

#[test]
fn values_are_written_as_in_redis() {
    let telemetry = telemetry();
    let info = render(&telemetry, &["all"], &inputs());
    let fields = fields(&info);
    for (name, value) in [
        ("redis_version", "7.4.0"),
        ("redis_mode", "standalone"),
        ("tcp_port", "6379"),
        ("listener0", "name=tcp,bind=127.0.0.1,bind=-::1,port=6379"),
        ("eventloop_duration_cmd_sum", "22"),
        ("acl_access_denied_auth", "1"),
        ("client_output_buffer_limit_disconnections", "1"),
        ("client_query_buffer_limit_disconnections", "2"),
        ("connected_clients", "1"),
        ("blocked_clients", "1"),
        ("used_memory", "1048576"),
        ("used_memory_human", "1.00M"),
        ("used_memory_peak", "1048576"),
        ("used_memory_peak_perc", "100.00%"),
        ("used_memory_dataset", "786432"),
        ("maxmemory_policy", "noeviction"),
        ("rdb_last_bgsave_status", "ok"),
        ("rdb_last_bgsave_time_sec", "-1"),
        ("rdb_current_bgsave_time_sec", "-1"),
        ("total_commands_processed", "2"),
        ("total_error_replies", "2"),
        ("keyspace_hits", "5"),
        ("role", "master"),
        ("cluster_enabled", "0"),
        ("cmdstat_get", "calls=2,usec=22,usec_per_call=11.01,rejected_calls=0,failed_calls=1"),
        ("cmdstat_config|get", "calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0"),
        ("errorstat_WRONGTYPE", "count=1"),
        ("latency_percentiles_usec_get", "p50=11.007,p99=11.007,p99.9=11.007"),
        ("db0", "keys=3,expires=1,avg_ttl=77,subexpiry=2"),
    ] {
        assert_eq!(fields[name], value, "{name}");
    }
    assert!(fields["os"].starts_with("Linux "));
    assert!(fields["used_memory_rss"].parse::<u64>().unwrap() > 0);
}

#[test]
fn percentiles_and_listeners_follow_the_settings() {
    let mut inputs = inputs();
    inputs.server.latency_percentiles = vec![0.5, 100.0];
    inputs.server.unixsocket = "/run/cowherd.sock".to_owned();
    let telemetry = telemetry();
    let info = render(&telemetry, &["latencystats", "server"], &inputs);
    let shown = fields(&info);
    assert_eq!(shown["latency_percentiles_usec_get"], "p0.5=11.007,p100=11.007");
    assert_eq!(shown["listener1"], "name=unix,bind=/run/cowherd.sock");
    inputs.server.latency_percentiles.clear();
    inputs.server.tcp_port = 0;
    let info = render(&telemetry, &["latencystats", "server"], &inputs);
    assert_eq!(fields(&info)["latency_percentiles_usec_get"], "");
    assert!(!fields(&info).contains_key("listener0"));
}

#[test]
fn a_running_and_a_failed_checkpoint_are_shown() {
    let telemetry = telemetry();
    let persistence = telemetry.persistence();
    let hold_up = Duration::from_micros(347);
    persistence.fork_finished(ForkTimes { hold_up, ..ForkTimes::default() });
    let record = CheckpointRecord { chunks: 4, keys: 8, ..CheckpointRecord::default() };
    let start = CheckpointStart { pid: 42, record, ..CheckpointStart::default() };
    persistence.checkpoint_started(start, Timestamp::now());
    persistence.checkpoint_sampled(42, Timestamp::now(), |record| record.chunks_done = 1);
    let info = render(&telemetry, &["persistence", "stats"], &inputs());
    let running = fields(&info);
    assert_eq!(running["rdb_bgsave_in_progress"], "1");
    assert_eq!(running["current_fork_perc"], "25.00");
    assert_eq!(running["current_save_keys_processed"], "2");
    assert_eq!(running["cowherd_checkpoint_child_pid"], "42");
    assert_eq!((running["latest_fork_usec"], running["total_forks"]), ("347", "1"));

    persistence.checkpoint_finished(Timestamp::now(), |record| {
        record.status = CheckpointStatus::Failed;
        record.error = Some("disk full\nfree some".to_owned());
    });
    let info = render(&telemetry, &["persistence"], &inputs());
    let failed = fields(&info);
    assert_eq!(failed["rdb_last_bgsave_status"], "err");
    assert_eq!(failed["rdb_bgsave_in_progress"], "0");
    assert_eq!(failed["cowherd_last_checkpoint_error"], "disk full free some");
}

#[test]
fn a_restore_is_shown_while_it_runs() {
    let telemetry = telemetry();
    telemetry.persistence().loading_started(Timestamp::now());
    telemetry.persistence().loading_progress(RestoreProgress {
        read_bytes: 250,
        total_bytes: 1000,
        chunks: 1,
        total_chunks: 4,
    });
    let info = render(&telemetry, &["persistence"], &inputs());
    let loading = fields(&info);
    assert_eq!((loading["loading"], loading["loading_loaded_perc"]), ("1", "25.00"));
    telemetry.persistence().loading_finished(
        Timestamp::now(),
        RestoreReport { keys_loaded: 9, digest: Some("d1".to_owned()), ..Default::default() },
    );
    let info = render(&telemetry, &["persistence"], &inputs());
    let loaded = fields(&info);
    assert_eq!((loaded["loading"], loaded["rdb_last_load_keys_loaded"]), ("0", "9"));
    assert_eq!(loaded["cowherd_restored_digest"], "d1");
    assert!(!loaded.contains_key("loading_start_time"));
}

#[test]
fn a_reset_starts_statistics_over_and_keeps_states() {
    let telemetry = telemetry();
    telemetry.persistence().fork_finished(ForkTimes::default());
    telemetry.persistence().checkpoint_started(CheckpointStart::default(), Timestamp::now());
    telemetry
        .persistence()
        .checkpoint_finished(Timestamp::now(), |record| record.status = CheckpointStatus::Ok);
    telemetry.reset(&inputs());
    let info = render(&telemetry, &["all"], &inputs());
    let after = fields(&info);
    for name in [
        "total_connections_received",
        "total_commands_processed",
        "total_error_replies",
        "keyspace_hits",
        "evicted_keys",
        "rdb_saves",
        "total_forks",
        "latest_fork_usec",
    ] {
        assert_eq!(after[name], "0", "{name}");
    }
    assert!(!after.contains_key("cmdstat_get") && !after.contains_key("errorstat_ERR"));
    assert!(!after.contains_key("latency_percentiles_usec_get"));
    assert_eq!(after["connected_clients"], "1");
    assert_eq!(telemetry.totals().commands, 2, "the counters themselves go on");

    let recorder = telemetry.recorder(0).unwrap();
    recorder.command(0, 5000, false);
    recorder.error(b"-ERR again");
    let info = render(&telemetry, &["all"], &inputs());
    let after = fields(&info);
    assert!(after["cmdstat_get"].starts_with("calls=1,usec=5,usec_per_call=5.00"));
    assert_eq!(after["errorstat_ERR"], "count=1");
    assert!(after["latency_percentiles_usec_get"].starts_with("p50=5.394"));
}

#[test]
fn each_checkpoint_has_a_line() {
    use crate::telemetry::{HugePoolStats, LongestStall, StallCause};
    use cowherd_arena::stats::CowStats;

    let telemetry = telemetry();
    let persistence = telemetry.persistence();
    let recorder = telemetry.recorder(0).unwrap();
    telemetry.checkpoint_begins();
    recorder.command(0, 9000, false);
    recorder.command(0, 9000, false);
    let ms = Duration::from_millis;
    persistence.fork_finished(ForkTimes { wait: ms(1), fork: ms(2), hold_up: ms(4) });
    let record = CheckpointRecord { chunks: 4, hold_up: ms(4), ..CheckpointRecord::default() };
    persistence.checkpoint_started(
        CheckpointStart { record, ..CheckpointStart::default() },
        Timestamp::now(),
    );
    persistence.checkpoint_sampled(0, Timestamp::now(), |record| record.chunks_done = 1);
    let mut inputs = inputs();
    inputs.pool = Some(HugePoolStats { page_bytes: 2 << 20, total: 9, free: 4, reserved: 1 });
    let info = render(&telemetry, &["checkpoint"], &inputs);
    let running = fields(&info);
    assert_eq!(running["checkpoint_progress_percent"], "25.00");
    assert!(running["checkpoint_current"].starts_with("status=running,"));
    assert_eq!(running["pool"], "page_bytes=2097152,total=9,free=4,reserved=1");
    assert!(running["fork_hold_up_usec"].starts_with("count=1,p50="));
    assert!(running["latency_string_idle_usec"].starts_with("count=2,p50=11."));
    assert!(running["latency_string_checkpoint_usec"].starts_with("count=2,p50=9."));

    persistence.checkpoint_finished(Timestamp::now(), |record| {
        record.status = CheckpointStatus::Ok;
        record.thp_splits = Some(5);
        record.cow = CowStats { copied_bytes: 100, written_bytes: 40, ..CowStats::default() };
        let command = "set".to_owned();
        record.longest_stall =
            Some(LongestStall { took: ms(3), cause: StallCause::CowFault, command });
    });
    let info = render(&telemetry, &["checkpoint"], &inputs);
    let ended = fields(&info);
    assert!(!ended.contains_key("checkpoint_current"));
    let checkpoint: HashMap<&str, &str> =
        ended["checkpoint_1"].split(',').filter_map(|pair| pair.split_once('=')).collect();
    for (name, value) in [
        ("status", "ok"),
        ("hold_up_usec", "4000"),
        ("thp_splits", "5"),
        ("amplification", "2.50"),
        ("longest_stall_usec", "3000"),
        ("longest_stall_cause", "cow-fault"),
    ] {
        assert_eq!(checkpoint[name], value, "{name}");
    }
    assert!(!checkpoint.contains_key("huge_before_bytes"), "not known");
    assert!(ended.contains_key("cow") && !ended.contains_key("undo"));
}

#[test]
fn a_checkpoint_with_an_undo_log_shows_no_copy_on_write() {
    use crate::telemetry::UndoLogLimits;
    use cowherd_arena::stats::UndoStats;

    let telemetry = telemetry();
    let persistence = telemetry.persistence();
    let record = CheckpointRecord { isolation: "undo-log", ..CheckpointRecord::default() };
    persistence.checkpoint_started(
        CheckpointStart { record, ..CheckpointStart::default() },
        Timestamp::now(),
    );
    let undo = UndoStats {
        captures: 4,
        captured_bytes: 2048,
        written_bytes: 100,
        log_bytes: 2112,
        reused_records: 2,
        longest: Duration::from_micros(7),
        ..UndoStats::default()
    };
    persistence.checkpoint_sampled(0, Timestamp::now(), |record| record.undo = undo);
    let log = UndoLogLimits { limit: 1 << 20, block_bytes: 512 };
    let checkpoint_isolation = "undo-log".to_owned();
    let inputs = StatsSnapshot { undo, undo_log: Some(log), checkpoint_isolation, ..inputs() };
    let info = render(&telemetry, &["persistence"], &inputs);
    assert_eq!(fields(&info)["current_cow_size"], "2048");
    persistence.checkpoint_finished(Timestamp::now(), |record| {
        record.status = CheckpointStatus::Ok;
        record.other_page_faults = Some(31);
        record.steps.patch = Duration::from_micros(90);
    });
    let info = render(&telemetry, &["persistence"], &inputs);
    assert_eq!(fields(&info)["rdb_last_cow_size"], "2048");
    let info = render(&telemetry, &["checkpoint"], &inputs);
    let ended = fields(&info);
    let figures = "captures=4,captured_bytes=2048,written_bytes=100,amplification=20.48,\
                   stall_usec=0,longest_capture_usec=7,log_bytes=2112,committed_bytes=0,\
                   reused_records=2";
    assert_eq!(ended["undo"], figures);
    assert!(ended["checkpoint_1"].ends_with(figures), "{}", ended["checkpoint_1"]);
    assert!(ended["checkpoint_1"].contains(",patch_usec=90,"), "{}", ended["checkpoint_1"]);
    assert!(ended["checkpoint_1"].contains(",other_page_faults=31,"), "{}", ended["checkpoint_1"]);
    assert_eq!((ended["undo_limit_bytes"], ended["undo_block_bytes"]), ("1048576", "512"));
    assert!(ended["undo_capture_usec"].starts_with("count=0,"));
    assert_eq!(ended["other_page_faults"], "31");
    assert!(!info.contains("cow"), "{info}");
}
