//! MEMORY: memory usage of keys and of the server, and advice.

use std::time::Duration;

use crate::keyspace::{DATABASES, EvictionScope};
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

pub(super) const COMMANDS: &[Command] =
    &[Command::container("memory").doc(GROUP, "4.0.0", "Tells what takes memory.").subcommands(&[
        Command::new("doctor", 2, CommandFlags::NONE, doctor).doc(
            GROUP,
            "4.0.0",
            "Says what to do about memory.",
        ),
        Command::new("malloc-stats", 2, CommandFlags::NONE, malloc_stats).doc(
            GROUP,
            "4.0.0",
            "Returns figures of the memory allocator.",
        ),
        Command::new("purge", 2, CommandFlags::NONE, purge).doc(
            GROUP,
            "4.0.0",
            "Compacts, and hands unused memory back to the system.",
        ),
        Command::new("stats", 2, CommandFlags::NONE, stats).doc(
            GROUP,
            "4.0.0",
            "Returns figures of memory.",
        ),
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
    call.reply.verbatim("txt", &text);
    Ok(())
}

/// A value of MEMORY STATS.
enum MemoryStat {
    Count(u64),
    Share(f64),
    Word(String),
}

fn stats(call: &mut Call<'_>) -> CommandResult {
    let snapshot = call.shared.stats_snapshot();
    let keyspace = &call.shared.keyspace;
    let keys: u64 = (0..DATABASES).map(|db| keyspace.len(db)).sum();
    let used = snapshot.memory.used;
    let peak = call.shared.telemetry.peak_memory().max(used);
    let resident = crate::telemetry::resident_bytes();
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let chunk = snapshot.arena.chunk_bytes;
    let in_use = snapshot.arena.used_chunks * chunk;
    let kept_for_checkpoints = if snapshot.has_undo_log() {
        ("undo.captured.bytes", MemoryStat::Count(snapshot.undo.captured_bytes))
    } else {
        ("cow.copied.bytes", MemoryStat::Count(snapshot.cow.copied_bytes))
    };
    let stats = [
        ("peak.allocated", MemoryStat::Count(peak)),
        ("total.allocated", MemoryStat::Count(used)),
        ("startup.allocated", MemoryStat::Count(snapshot.memory.startup)),
        ("replication.backlog", MemoryStat::Count(0)),
        ("clients.slaves", MemoryStat::Count(0)),
        ("clients.normal", MemoryStat::Count(snapshot.clients.memory)),
        ("cluster.links", MemoryStat::Count(0)),
        ("aof.buffer", MemoryStat::Count(0)),
        ("lua.caches", MemoryStat::Count(0)),
        ("functions.caches", MemoryStat::Count(0)),
        ("overhead.total", MemoryStat::Count(snapshot.memory.overhead)),
        ("keys.count", MemoryStat::Count(keys)),
        ("keys.bytes-per-key", MemoryStat::Count(used.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes", MemoryStat::Count(used.saturating_sub(snapshot.memory.overhead))),
        ("dataset.percentage", MemoryStat::Share(100.0)),
        ("peak.percentage", MemoryStat::Share(ratio(used, peak) * 100.0)),
        ("allocator.allocated", MemoryStat::Count(used)),
        ("allocator.active", MemoryStat::Count(in_use)),
        ("allocator.resident", MemoryStat::Count(resident)),
        ("allocator-fragmentation.ratio", MemoryStat::Share(ratio(in_use, used))),
        ("allocator-fragmentation.bytes", MemoryStat::Count(in_use.saturating_sub(used))),
        ("allocator-rss.ratio", MemoryStat::Share(ratio(resident, in_use))),
        ("allocator-rss.bytes", MemoryStat::Count(resident.saturating_sub(in_use))),
        ("fragmentation", MemoryStat::Share(ratio(resident, used))),
        ("fragmentation.bytes", MemoryStat::Count(resident.saturating_sub(used))),
        ("arena.pages", MemoryStat::Word(snapshot.arena.pages)),
        ("arena.capacity", MemoryStat::Count(snapshot.arena.capacity)),
        ("arena.chunks", MemoryStat::Count(snapshot.arena.used_chunks)),
        ("arena.huge.bytes", MemoryStat::Count(snapshot.arena.huge_bytes)),
        kept_for_checkpoints,
    ];
    call.reply.map(stats.len());
    for (name, stat) in stats {
        call.reply.bulk_str(name);
        match stat {
            MemoryStat::Count(count) => call.reply.integer(count.cast_signed()),
            MemoryStat::Share(share) => call.reply.double(share),
            MemoryStat::Word(word) => call.reply.bulk_str(&word),
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
    call.reply.verbatim("txt", &text);
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
    use super::super::testing::TestServer;
    use crate::config::{ArenaPages, Config};

    #[test]
    fn stats_is_a_map() {
        let server = TestServer::new();
        server.run("SET a 1");
        let stats = server.run("MEMORY STATS");
        assert!(stats.starts_with("*60\r\n$14\r\npeak.allocated\r\n:"), "{stats}");
        assert!(stats.contains("$10\r\nkeys.count\r\n:1\r\n"), "{stats}");
        assert!(stats.contains("$11\r\narena.pages\r\n$5\r\nsmall\r\n"), "{stats}");
        let server = server.resp3();
        assert!(server.run("MEMORY STATS").starts_with("%30\r\n"));
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
