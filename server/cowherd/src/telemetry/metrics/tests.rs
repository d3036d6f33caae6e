use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cowherd_arena::OccupancyMap;
use cowherd_arena::stats::{Distribution, Histogram, UndoStats};

use super::exposition::ExpositionFormat;
use super::source::MetricsSource;
use crate::clock::Timestamp;
use crate::telemetry::checkpoint_figures::{
    CHECKPOINT_FIGURES, COW_FIGURES, Figure, TOTAL_FIGURES, UNDO_FIGURES,
};
use crate::telemetry::{
    ArenaStats, CheckpointRecord, CheckpointStart, CheckpointStatus, DatabaseStats, ForkTimes,
    HugePoolStats, LatencyEvent, LongestStall, StallCause, StatsSnapshot, StatsSource, Telemetry,
    ThpStats, UndoLogLimits,
};

/// The catalogue of all metrics.
const CATALOGUE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md"));

struct TwoDatabases;

impl StatsSource for TwoDatabases {
    fn stats_snapshot(&self) -> StatsSnapshot {
        let database = |number| DatabaseStats {
            number,
            keys: 3,
            expires: 2,
            avg_ttl_ms: 1500,
            ..DatabaseStats::default()
        };
        StatsSnapshot {
            databases: vec![database(0), database(7)],
            arena: ArenaStats { cow_page_bytes: 2 << 20, ..ArenaStats::default() },
            thp: ThpStats {
                setting: "madvise".to_owned(),
                splits: 1,
                collapsed: 1,
                ..ThpStats::default()
            },
            pool: Some(HugePoolStats { page_bytes: 2 << 20, total: 9, free: 4, reserved: 1 }),
            undo: UndoStats { captures: 5, captured_bytes: 2500, written_bytes: 100, ..UNDO },
            undo_captures: captures(),
            undo_log: Some(UndoLogLimits { limit: 1 << 20, block_bytes: 512 }),
            ..StatsSnapshot::default()
        }
    }

    fn occupancy_map(&self, _max_cells: usize) -> OccupancyMap {
        OccupancyMap::default()
    }
}

const UNDO: UndoStats = UndoStats {
    captures: 3,
    captured_bytes: 1500,
    stall: std::time::Duration::from_millis(2),
    longest: std::time::Duration::from_millis(1),
    written_bytes: 300,
    reused_records: 1,
    log_bytes: 1548,
    committed_bytes: 4096,
};

/// Two captures, of 1 and 1.5 us.
fn captures() -> Distribution {
    let times = Histogram::default();
    [1000, 1500].into_iter().for_each(|nanos| times.record(nanos));
    times.distribution()
}

/// A source with at least one series in each family.
fn source() -> MetricsSource {
    let telemetry = Telemetry::new(2, vec!["get".to_owned(), "set".to_owned()], vec!["string"; 2]);
    let recorder = telemetry.recorder(0).unwrap();
    recorder.command(0, 1500, true);
    for _ in 0..3 {
        recorder.command(1, 3_000_000, false);
    }
    recorder.error(b"-ERR no");
    telemetry.set_slow(0, 10, 1);
    telemetry.latency_event(LatencyEvent::Fork, std::time::Duration::from_millis(3));
    telemetry.persistence().fork_finished(ForkTimes {
        hold_up: std::time::Duration::from_micros(100),
        ..ForkTimes::default()
    });
    let start = CheckpointStart { pid: 7, ..CheckpointStart::default() };
    telemetry.persistence().checkpoint_started(start, Timestamp::now());
    telemetry.persistence().checkpoint_finished(Timestamp::now(), |record| {
        record.status = CheckpointStatus::Ok;
        record.longest_stall = Some(LongestStall {
            took: std::time::Duration::from_millis(250),
            cause: StallCause::CowFault,
            command: "set".to_owned(),
        });
        record.huge_before_bytes = Some(4 << 20);
        record.huge_after_bytes = Some(2 << 20);
        record.thp_splits = Some(1);
        record.other_page_faults = Some(9);
        record.undo = UNDO;
    });
    let record = CheckpointRecord { chunks: 4, ..CheckpointRecord::default() };
    let start = CheckpointStart { pid: 1, record, ..CheckpointStart::default() };
    telemetry.persistence().checkpoint_started(start, Timestamp::now());
    telemetry
        .persistence()
        .checkpoint_sampled(1, Timestamp::now(), |record| record.chunks_done = 1);
    MetricsSource { telemetry, stats_source: Arc::new(TwoDatabases) }
}

fn plain() -> String {
    String::from_utf8(source().render(ExpositionFormat::Plain)).unwrap()
}

/// Type and names of labels of a family.
type Family = (String, BTreeSet<String>);

/// The families of a plain text.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            let old = families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
            assert!(old.is_none(), "{name} is there twice");
        } else if !line.starts_with('#') {
            let (kind, labels) = families.get_mut(&current).expect(line);
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, own) = series.split_once('{').unwrap_or((series, ""));
            let fits = match kind.as_str() {
                "histogram" => name.starts_with(&format!("{current}_")),
                _ => name == current,
            };
            assert!(fits, "{line} stands under {current}");
            let own = own.trim_end_matches('}').split(',').filter_map(|one| one.split_once('='));
            labels.extend(own.map(|(label, _)| label.to_owned()).filter(|label| label != "le"));
        }
    }
    families
}

#[test]
fn no_two_families_share_a_name_in_openmetrics() {
    let families = families(&plain());
    let stem = |(name, (kind, _)): (&String, &Family)| match kind.as_str() {
        "counter" => name.strip_suffix("_total").unwrap().to_owned(),
        _ => name.clone(),
    };
    let stems: BTreeSet<String> = families.iter().map(stem).collect();
    assert_eq!(stems.len(), families.len(), "a counter without _total is another family");
    // The names of samples belong to the family without the suffix.
    for suffix in ["_total", "_created", "_bucket", "_count", "_sum", "_info"] {
        let taken = stems.iter().filter_map(|name| name.strip_suffix(suffix));
        let taken: Vec<_> = taken.filter(|stem| stems.contains(*stem)).collect();
        assert!(taken.is_empty(), "{taken:?} and the same with {suffix}");
    }
}

/// The rows of the catalogue, with their unit.
fn catalogue() -> BTreeMap<String, (Family, String)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].strip_prefix('`')?.strip_suffix('`')?.to_owned();
        assert_eq!(cells.len(), 6, "{line}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "an empty cell in {line}");
        let labels = cells[3].split(',').map(str::trim).filter(|label| *label != "-");
        let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
        Some((name, ((cells[1].to_owned(), labels), cells[2].to_owned())))
    };
    let rows: Vec<_> = CATALOGUE.lines().filter(|l| l.starts_with("| `")).filter_map(row).collect();
    let count = rows.len();
    let catalogue: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(catalogue.len(), count, "a metric is in the catalogue twice");
    catalogue
}

#[test]
fn the_catalogue_and_the_metrics_agree() {
    let emitted = families(&plain());
    let catalogue = catalogue();
    for (name, family) in &emitted {
        let (described, _) = catalogue.get(name).unwrap_or_else(|| panic!("{name}: not in docs"));
        assert_eq!(described, family, "{name}");
    }
    for name in catalogue.keys() {
        assert!(emitted.contains_key(name), "{name} is in docs/metrics.md only");
    }
}

/// Checks that the catalogue describes each metric of a table of figures with its help text.
fn check_help_texts<T>(table: &[Figure<T>]) {
    for figure in table {
        let names = [figure.last, figure.running, figure.total, figure.total_by_page_size];
        for name in names.into_iter().flatten() {
            let row = CATALOGUE.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let meaning = row.unwrap_or_else(|| panic!("{name}: not in docs")).split(" | ").nth(4);
            assert!(meaning.unwrap().starts_with(figure.help), "{name}: {}", figure.help);
        }
    }
}

#[test]
fn the_catalogue_describes_checkpoint_figures_as_their_table_does() {
    check_help_texts(CHECKPOINT_FIGURES);
    check_help_texts(TOTAL_FIGURES);
    check_help_texts(COW_FIGURES);
    check_help_texts(UNDO_FIGURES);
}

#[test]
fn names_end_in_the_units_of_the_catalogue() {
    for (name, (_, unit)) in catalogue() {
        let base = name.strip_suffix("_total").unwrap_or(&name);
        let suffix = ["seconds", "bytes", "ratio"].into_iter().find(|unit| base.ends_with(unit));
        // A suffix of redis_exporter.
        let suffix = if base.ends_with("_sec") { Some("seconds") } else { suffix };
        assert_eq!(suffix.unwrap_or("1"), unit, "{name}");
    }
}

#[test]
fn names_that_redis_dashboards_read_are_there() {
    let emitted = families(&plain());
    let names = "up uptime_in_seconds connected_clients blocked_clients \
        rejected_connections_total connections_received_total memory_used_bytes \
        memory_max_bytes memory_used_rss_bytes memory_used_peak_bytes mem_fragmentation_ratio \
        commands_processed_total commands_total commands_duration_seconds_total \
        keyspace_hits_total keyspace_misses_total net_input_bytes_total net_output_bytes_total \
        db_keys db_keys_expiring db_avg_ttl_seconds expired_keys_total evicted_keys_total \
        rdb_changes_since_last_save rdb_bgsave_in_progress rdb_last_save_timestamp_seconds \
        rdb_last_bgsave_status rdb_last_bgsave_duration_sec rdb_current_bgsave_duration_sec \
        rdb_last_cow_size_bytes rdb_saves_total latest_fork_seconds aof_enabled slowlog_length \
        latency_spike_duration_seconds";
    for name in names.split_whitespace() {
        assert!(emitted.contains_key(&format!("redis_{name}")), "redis_{name}");
    }
}

#[test]
fn values_and_labels_are_written() {
    let text = plain();
    for line in [
        "cowherd_commands_total{command=\"set\"} 3",
        "cowherd_commands_failed_total{command=\"get\"} 1",
        "cowherd_errors_total{error=\"ERR\"} 1",
        "cowherd_keys{db=\"db7\"} 3",
        "cowherd_checkpoint_progress_ratio 0.25",
        "cowherd_command_duration_seconds_bucket{family=\"string\",phase=\"idle\",le=\"+Inf\"} 4",
        "cowherd_command_duration_seconds_count{family=\"string\",phase=\"idle\"} 4",
        "cowherd_last_checkpoint_longest_stall_seconds{cause=\"cow-fault\"} 0.25",
        "cowherd_last_checkpoint_longest_stall_seconds{cause=\"fork\"} 0",
        "cowherd_last_checkpoint_longest_stall_seconds{cause=\"undo-capture\"} 0",
        "cowherd_undo_captures_total 5",
        "cowherd_undo_amplification_ratio 25",
        "cowherd_undo_limit_bytes 1048576",
        "cowherd_undo_block_bytes 512",
        "cowherd_undo_reused_records_total 1",
        "cowherd_undo_capture_duration_seconds_count 2",
        "cowherd_last_checkpoint_undo_captures 3",
        "cowherd_last_checkpoint_undo_log_bytes 1548",
        "cowherd_last_checkpoint_undo_amplification_ratio 5",
        "cowherd_last_checkpoint_undo_stall_seconds 0.002",
        "cowherd_last_checkpoint_written_bytes 300",
        "cowherd_last_checkpoint_other_page_faults 9",
        "cowherd_checkpoint_other_page_faults_total 9",
        "cowherd_last_checkpoint_cow_bytes 0",
        "redis_rdb_last_cow_size_bytes 1500",
        "cowherd_latency_event_max_seconds{event=\"fork\"} 0.003",
        "cowherd_hugetlb_pool_pages{page_size=\"2097152\",state=\"used\"} 5",
        "cowherd_fork_duration_seconds_bucket{le=\"6.103515625e-05\"} 0",
        "cowherd_fork_duration_seconds_bucket{le=\"0.0001220703125\"} 1",
        "redis_db_avg_ttl_seconds{db=\"db0\"} 1.5",
        "redis_rdb_last_bgsave_duration_sec 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn openmetrics_is_complete_and_free_of_what_needs_escaping() {
    let text = String::from_utf8(source().render(ExpositionFormat::OpenMetrics)).unwrap();
    assert!(text.ends_with("\n# EOF\n"));
    assert!(text.contains("# UNIT cowherd_fork_duration_seconds seconds\n"));
    assert!(
        text.contains("# TYPE cowherd_cpu_seconds counter\n# UNIT cowherd_cpu_seconds seconds\n")
    );
    assert!(text.contains("\ncowherd_cpu_seconds_total{process=\"server\",mode=\"user\"} "));
    for help in text.lines().filter(|line| line.starts_with("# HELP ")) {
        assert!(!help.contains(['\\', '"']), "{help}");
        assert!(help.split(' ').count() > 3, "{help}");
    }
}

/// Skipped where promtool is not installed.
#[test]
fn promtool_accepts_the_own_names() {
    let text = plain();
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else { return };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let printed =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    let own: Vec<&str> = printed.lines().filter(|line| !line.starts_with("redis_")).collect();
    assert!(own.is_empty(), "{own:#?}");
}
