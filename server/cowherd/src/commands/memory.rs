//! MEMORY: memory usage of keys and of the server, and advice.

use std::time::Duration;

use crate::keyspace::EvictionScope;
use crate::telemetry::{StatsSource as _, advice};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

/// The default SAMPLES of MEMORY USAGE: the elements from which the size of the others is
/// estimated.
const SAMPLES: usize = 5;

/// MEMORY PURGE compacts no longer.
const PURGE_TIME: Duration = Duration::from_secs(1);

const GROUP: CommandGroup = CommandGroup::Server;

const FROM_ALL_SHARDS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

pub(super) const COMMANDS: &[Command] =
    &[Command::container("memory").doc(GROUP, "4.0.0", "Tells what takes memory.").subcommands(&[
        Command::new("doctor", 2, CommandFlags::NONE, doctor)
            .doc(GROUP, "4.0.0", "Says what to do about memory.")
            .hints(FROM_ALL_SHARDS),
        Command::new("malloc-stats", 2, CommandFlags::NONE, malloc_stats)
            .doc(GROUP, "4.0.0", "Returns figures of the memory allocator.")
            .hints(FROM_ALL_SHARDS),
        Command::new("purge", 2, CommandFlags::NONE, purge)
            .doc(GROUP, "4.0.0", "Compacts, and hands unused memory back to the system.")
            .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        Command::new("stats", 2, CommandFlags::NONE, stats)
            .doc(GROUP, "4.0.0", "Returns figures of memory.")
            .hints(FROM_ALL_SHARDS),
        Command::new("usage", -3, CommandFlags::READONLY, usage)
            .doc(GROUP, "4.0.0", "Returns the bytes that a key and its value take.")
            .keys(KeyPositions::SECOND, KeyUse::INSPECT)
            .syntax("key [SAMPLES count]"),
        Command::new("help", 2, CommandFlags::LOADING.with(CommandFlags::STALE), help).doc(
            GROUP,
            "4.0.0",
            "Lists the subcommands.",
        ),
    ])];

fn usage(call: &mut Call<'_>) -> CommandResult {
    let (mut i, mut samples) = (3, SAMPLES);
    while i < call.args.len() {
        if !call.is(i, "samples") || i + 1 == call.args.len() {
            return Err(ErrorReply::SYNTAX);
        }
        samples = usize::try_from(call.integer(i + 1)?).map_err(|_| ErrorReply::SYNTAX)?;
        i += 2;
    }
    match call.shards.peek(call.session.db, &call.key(2)) {
        None => call.reply.null(),
        Some(entry) => {
            let bytes = call.shards.memory_usage(&entry, samples);
            call.reply.integer(bytes.cast_signed());
        }
    }
    Ok(())
}

/// Compacts, and returns all free chunks to the system. In a transaction shards that other threads
/// have locked are passed over.
fn purge(call: &mut Call<'_>) -> CommandResult {
    let (space, now) = (&call.shared.keyspace, call.now);
    if call.shards.locked().is_empty() {
        space.purge(&mut EvictionScope::Unlocked { space, now }, PURGE_TIME);
    } else {
        let mut scope = EvictionScope::Within { shards: &mut call.shards, spared: &[] };
        space.purge(&mut scope, PURGE_TIME);
    }
    call.reply.ok();
    Ok(())
}

fn malloc_stats(call: &mut Call<'_>) -> CommandResult {
    let arena = call.shared.keyspace.arena();
    let text = format!(
        "arena_capacity_bytes:{}\narena_object_bytes:{}\narena_used_chunks:{}\n",
        arena.capacity(),
        arena.used_bytes(),
        arena.used_chunks(),
    );
    call.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// A value of MEMORY STATS.
enum MemoryStat {
    Count(u64),
    Difference(i64),
    /// Bytes of the hash tables of a database: of its keys, and of those with an expiry.
    Tables(u64, u64),
    Share(f64),
    Word(String),
}

/// Figures that add up: `total.allocated` is `dataset.bytes` and `overhead.total`, which is the sum
/// of the figures behind `startup.allocated`, up to the tables of the arena.
fn stats(call: &mut Call<'_>) -> CommandResult {
    use MemoryStat::{Count, Share, Tables, Word};
    let snapshot = call.shared.stats_snapshot();
    let keys: u64 = snapshot.databases.iter().map(|db| db.keys).sum();
    let memory = &snapshot.memory;
    let used = memory.used;
    let peak = call.shared.telemetry.peak_memory().max(used);
    let resident = crate::telemetry::resident_bytes();
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let difference = |left: u64, right: u64| left.cast_signed() - right.cast_signed();
    let beyond_startup = used.saturating_sub(memory.startup);
    let kept_for_checkpoints = if snapshot.has_undo_log() {
        ("undo.captured.bytes".to_owned(), Count(snapshot.undo.captured_bytes))
    } else {
        ("cow.copied.bytes".to_owned(), Count(snapshot.cow.copied_bytes))
    };
    let mut stats: Vec<(String, MemoryStat)> = Vec::new();
    let mut add = |name: &str, stat: MemoryStat| stats.push((name.to_owned(), stat));
    add("peak.allocated", Count(peak));
    add("total.allocated", Count(used));
    add("startup.allocated", Count(memory.startup));
    add("replication.backlog", Count(0));
    add("clients.slaves", Count(0));
    add("clients.normal", Count(snapshot.clients.memory));
    add("cluster.links", Count(0));
    add("aof.buffer", Count(0));
    add("lua.caches", Count(snapshot.scripts.script_bytes));
    add("functions.caches", Count(snapshot.scripts.function_bytes));
    add("script.VMs", Count(snapshot.scripts.interpreter_bytes));
    for db in snapshot.databases.iter().filter(|db| db.keys > 0) {
        add(&format!("db.{}", db.number), Tables(db.table_bytes, db.expires_table_bytes));
    }
    let tables = snapshot.databases.iter().map(|db| db.table_bytes + db.expires_table_bytes);
    add("overhead.db.hashtable.lut", Count(tables.sum()));
    add("overhead.db.hashtable.rehashing", Count(0));
    add("arena.tables", Count(memory.tables));
    add("overhead.total", Count(memory.overhead));
    add("db.dict.rehashing.count", Count(0));
    add("keys.count", Count(keys));
    add("keys.bytes-per-key", Count(beyond_startup.checked_div(keys).unwrap_or(0)));
    add("dataset.bytes", Count(memory.dataset()));
    add("dataset.percentage", Share(ratio(memory.dataset(), beyond_startup) * 100.0));
    add("peak.percentage", Share(ratio(used, peak) * 100.0));
    add("allocator.allocated", Count(used));
    add("allocator.active", Count(memory.active));
    add("allocator.resident", Count(resident));
    add("allocator.muzzy", Count(0));
    add("allocator-fragmentation.ratio", Share(ratio(memory.active, used)));
    add("allocator-fragmentation.bytes", Count(memory.active - used));
    add("allocator-rss.ratio", Share(ratio(resident, memory.active)));
    add("allocator-rss.bytes", MemoryStat::Difference(difference(resident, memory.active)));
    add("rss-overhead.ratio", Share(1.0));
    add("rss-overhead.bytes", Count(0));
    add("fragmentation", Share(ratio(resident, used)));
    add("fragmentation.bytes", MemoryStat::Difference(difference(resident, used)));
    add("arena.pages", Word(snapshot.arena.pages));
    add("arena.capacity", Count(snapshot.arena.capacity));
    add("arena.chunks", Count(snapshot.arena.used_chunks));
    add("arena.huge.bytes", Count(snapshot.arena.huge_bytes));
    add("arena.stock.bytes", Count(snapshot.thp.stock_bytes));
    stats.push(kept_for_checkpoints);
    call.reply.map(stats.len());
    for (name, stat) in stats {
        call.reply.bulk_str(&name);
        match stat {
            Count(count) => call.reply.integer(count.cast_signed()),
            MemoryStat::Difference(bytes) => call.reply.integer(bytes),
            Share(share) => call.reply.double(share),
            Word(word) => call.reply.bulk_str(&word),
            Tables(main, expires) => {
                call.reply.map(2);
                call.reply.bulk_str("overhead.hashtable.main");
                call.reply.integer(main.cast_signed());
                call.reply.bulk_str("overhead.hashtable.expires");
                call.reply.integer(expires.cast_signed());
            }
        }
    }
    Ok(())
}

/// The text of MEMORY DOCTOR and LATENCY DOCTOR: the state of the pages, and advice from `ask`.
pub(super) fn diagnosis(
    call: &Call<'_>,
    about: &str,
    ask: fn(&advice::AdviceInputs<'_>) -> Vec<String>,
) -> String {
    let telemetry = &call.shared.telemetry;
    let situation = advice::AdviceInputs {
        stats: &call.shared.stats_snapshot(),
        events: &telemetry.latency_events(),
        checkpoints: &telemetry.persistence().history(),
        threshold_ms: call.config.latency_monitor_threshold,
        collapses_thp: call.config.arena_thp_collapse,
        peak_memory: telemetry.peak_memory(),
    };
    let mut text = advice::on_pages(&situation) + "\n";
    let remarks = ask(&situation);
    if remarks.is_empty() {
        text += &format!("Nothing to improve about {about} as far as can be seen from here.\n");
    }
    for (i, remark) in remarks.iter().enumerate() {
        text += &format!("{}. {remark}\n", i + 1);
    }
    text
}

fn doctor(call: &mut Call<'_>) -> CommandResult {
    let text = diagnosis(call, "memory", advice::on_memory);
    call.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "DOCTOR",
        "    Says what could be better about memory, and which setting changes it.",
        "MALLOC-STATS",
        "    Returns figures of the memory allocator.",
        "PURGE",
        "    Moves values together, and hands unused memory back to the system.",
        "STATS",
        "    Returns figures of memory.",
        "USAGE <key> [SAMPLES <count>]",
        "    Returns the bytes that the key and its value take; nothing is sampled.",
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::testing::TestServer;
    use crate::config::{ArenaPages, Config};
    use crate::telemetry::StatsSource as _;

    #[test]
    fn stats_is_a_map() {
        let server = TestServer::new();
        let empty = server.run("MEMORY STATS");
        assert!(empty.starts_with("*78\r\n$14\r\npeak.allocated\r\n:"), "{empty}");
        server.run("SET a 1");
        let stats = server.run("MEMORY STATS");
        assert!(stats.starts_with("*80\r\n$14\r\npeak.allocated\r\n:"), "{stats}");
        assert!(stats.contains("$4\r\ndb.0\r\n*4\r\n$23\r\noverhead.hashtable.main\r\n:128\r\n"));
        assert!(stats.contains("$10\r\nkeys.count\r\n:1\r\n"), "{stats}");
        assert!(stats.contains("$11\r\narena.pages\r\n$5\r\nsmall\r\n"), "{stats}");
        let server = server.resp3();
        assert!(server.run("MEMORY STATS").starts_with("%40\r\n"));
    }

    /// The integers of MEMORY STATS by name, and the sum of the hash tables of all databases.
    fn figures(server: &TestServer) -> (HashMap<String, i64>, i64) {
        let reply = server.run("MEMORY STATS");
        let lines: Vec<&str> = reply.lines().collect();
        let pairs = lines.windows(2).filter_map(|pair| {
            Some((pair[0].to_owned(), pair[1].strip_prefix(':')?.parse().ok()?))
        });
        let pairs: Vec<(String, i64)> = pairs.collect();
        let hash_tables = pairs.iter().filter(|(name, _)| name.starts_with("overhead.hashtable."));
        let hash_tables = hash_tables.map(|(_, bytes)| bytes).sum();
        (pairs.into_iter().collect(), hash_tables)
    }

    fn check_sums(server: &TestServer) -> HashMap<String, i64> {
        let (figures, hash_tables) = figures(server);
        let at = |name: &str| figures[name];
        assert_eq!(
            at("total.allocated"),
            at("dataset.bytes") + at("overhead.total"),
            "{figures:?}"
        );
        let parts = [
            "startup.allocated",
            "clients.normal",
            "lua.caches",
            "functions.caches",
            "script.VMs",
            "arena.tables",
        ];
        let sum: i64 = parts.map(at).iter().sum();
        assert_eq!(at("overhead.total"), sum + hash_tables, "{figures:?}");
        assert!(at("peak.allocated") >= at("total.allocated"));
        assert!(at("allocator.active") >= at("allocator.allocated"), "{figures:?}");
        let snapshot = server.shared.stats_snapshot();
        let objects = server.shared.keyspace.arena().used_bytes();
        assert_eq!(snapshot.memory.used - snapshot.memory.not_limited, objects);
        figures
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        /// Whatever the data, the figures add up, and with the data they go.
        #[test]
        fn the_figures_add_up(
            keys in prop::collection::vec((0_u32..2000, 0_usize..30_000, 0_u8..4), 0..300),
        ) {
            let server = TestServer::new();
            let empty = check_sums(&server);
            prop_assert!(empty["total.allocated"] > 0);
            prop_assert_eq!(empty["dataset.bytes"], 0);
            for (key, len, kind) in keys {
                server.run(&match kind {
                    0 => format!("SETRANGE s:{key} {len} x"),
                    1 => format!("SET t:{key} {len} EX 1000"),
                    2 => format!("HSET h f:{key} {len}"),
                    _ => format!("ZADD z {len} {key}"),
                });
            }
            check_sums(&server);
            server.run("FLUSHALL SYNC");
            let flushed = check_sums(&server);
            prop_assert_eq!(flushed["dataset.bytes"], 0);
            // What no object is in stays for a while as free chunks, which are not in use.
            prop_assert!(flushed["total.allocated"] <= empty["total.allocated"] + (1 << 20));
        }
    }

    /// The estimate of the hash tables against what the arena counts when keys are all alike, with
    /// entries of 32 bytes, a coarse class.
    #[test]
    fn the_hash_tables_are_estimated_within_a_fifth() {
        let server = TestServer::new();
        let arena = || server.shared.keyspace.arena().used_bytes();
        for count in [1000, 20_000] {
            server.run("FLUSHALL SYNC");
            (0..count)
                .for_each(|key| drop(server.run(&format!("SET key:{key:06} value-of-18-bytes!"))));
            let usage = server.run("MEMORY USAGE key:000001");
            let usage: u64 = usage.trim_start_matches(':').trim().parse().unwrap();
            let (_, estimate) = figures(&server);
            // MEMORY USAGE has 12 bytes for the reference in the hash table.
            let exact = arena() as f64 - ((usage - 12) * count) as f64;
            let share = estimate as f64 / exact;
            assert!((0.8..1.25).contains(&share), "{count} keys: {estimate} for {exact}");
        }
    }

    #[test]
    fn doctor_reports_findings() {
        let config = Config { arena_pages: ArenaPages::Small, ..Config::default() };
        let server = TestServer::with(64 << 20, config.clone());
        let said = server.run("MEMORY DOCTOR");
        assert!(said.contains("Pages are small (small asked for)"), "{said}");
        assert!(said.contains("\nNothing to improve about memory"), "{said}");
        let full = TestServer::with(64 << 20, config);
        (0..8).for_each(|key| drop(full.run(&format!("SETRANGE key:{key} 999999 x"))));
        assert_eq!(full.run("CONFIG SET maxmemory 8mb"), "+OK\r\n");
        let said = full.run("MEMORY DOCTOR");
        assert!(said.contains("1. 9") && said.contains("% of maxmemory is in use"), "{said}");
        assert!(full.run("MEMORY HELP").contains("USAGE <key>"));
    }
}
