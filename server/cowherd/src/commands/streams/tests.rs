use super::*;
use crate::commands::testing::{TestServer, follow, refuse_too_few};
use crate::config::{Config, DebugCommand};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
const SYNTAX: &str = "-ERR syntax error";
const INVALID_ID: &str = "-ERR Invalid stream ID specified as stream command argument";

/// A server where nodes have three entries.
fn server() -> TestServer {
    let enable_debug_command = DebugCommand::Yes;
    let config = Config { stream_node_max_entries: 3, enable_debug_command, ..Config::default() };
    TestServer::with(64 << 20, config)
}

/// The texts and numbers of a reply as words.
fn words(server: &TestServer, line: &str) -> String {
    let reply = server.run(line);
    let words: Vec<&str> = reply
        .split("\r\n")
        .filter(|line| !line.starts_with(['$', '*']) && !line.is_empty())
        .map(|line| line.trim_start_matches(':'))
        .collect();
    words.join(" ")
}

fn say(server: &TestServer, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(words(server, line), *expected, "{line}");
    }
}

/// A stream of `count` entries 1-1, 1-2, ... and a group that begins before them.
fn filled(count: u64) -> TestServer {
    let server = server();
    for seq in 1..=count {
        server.run(&format!("XADD s 1-{seq} field {seq}"));
    }
    server.run("XGROUP CREATE s g 0");
    server
}

#[test]
fn every_command_counts_its_arguments() {
    let commands = COMMANDS.iter().filter(|command| command.subcommands.is_empty());
    refuse_too_few(&server(), commands);
}

#[test]
fn other_types_are_refused() {
    let server = server();
    server.run("SET k string");
    for line in [
        "XADD k * a 1",
        "XTRIM k MAXLEN 1",
        "XDEL k 1-1",
        "XLEN k",
        "XRANGE k - +",
        "XREVRANGE k + -",
        "XREAD STREAMS k 0",
        "XREADGROUP GROUP g c STREAMS k >",
        "XSETID k 1-1",
        "XACK k g 1-1",
        "XPENDING k g",
        "XCLAIM k g c 0 1-1",
        "XAUTOCLAIM k g c 0 0",
        "XGROUP CREATE k g 0",
        "XGROUP DESTROY k g",
        "XINFO STREAM k",
        "XINFO GROUPS k",
        "XINFO CONSUMERS k g",
    ] {
        follow(&server, &[(line, WRONG_TYPE)]);
    }
}

#[test]
fn generated_ids_follow_the_clock_and_the_last_id() {
    let server = server();
    let now = server.now.get();
    say(
        &server,
        &[
            ("XADD s * a 1", &format!("{now}-0")),
            ("XADD s * a 1", &format!("{now}-1")),
            (&format!("XADD s {now}-* a 1"), &format!("{now}-2")),
        ],
    );
    // The clock goes back.
    server.now.set(now - 1000);
    say(&server, &[("XADD s * a 1", &format!("{now}-3"))]);
    server.now.set(now + 1);
    say(
        &server,
        &[
            ("XADD s * a 1", &format!("{}-0", now + 1)),
            (
                "XADD s 18446744073709551615-18446744073709551615 a 1",
                "18446744073709551615-18446744073709551615",
            ),
        ],
    );
    let full = "-ERR The stream has exhausted the last possible ID, unable to add more items";
    follow(
        &server,
        &[
            ("XADD s * a 1", full),
            ("XADD t 0-0 a 1", "-ERR The ID specified in XADD must be greater than 0-0"),
        ],
    );
    for id in ["x", "1-x", "-", "+", "1-1-1", "", "*-1"] {
        follow(&server, &[(&format!("XADD t '{id}' a 1"), INVALID_ID)]);
    }
    follow(&server, &[("EXISTS t", ":0")]);
}

#[test]
fn ranges_cross_nodes_in_both_directions() {
    let server = filled(10);
    say(
        &server,
        &[
            ("XRANGE s 1-3 1-4", "1-3 field 3 1-4 field 4"),
            ("XRANGE s (1-3 (1-6 COUNT 9", "1-4 field 4 1-5 field 5"),
            ("XREVRANGE s (1-7 1-6", "1-6 field 6"),
            ("XREVRANGE s + - COUNT 2", "1-10 field 10 1-9 field 9"),
            ("XREAD COUNT 1 STREAMS s 1-9", "s 1-10 field 10"),
        ],
    );
    follow(&server, &[("XRANGE s + -", "*0"), ("XRANGE s - + COUNT 0", "*-1")]);
}

#[test]
fn deleted_entries_are_not_replied() {
    let server = filled(7);
    follow(&server, &[("XDEL s 1-2 1-4 1-5 1-6 9-9", ":4"), ("XDEL s 1-2", ":0")]);
    say(
        &server,
        &[
            ("XRANGE s - +", "1-1 field 1 1-3 field 3 1-7 field 7"),
            ("XLEN s", "3"),
            (
                "XADD s 1-6 a 1",
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ),
        ],
    );
    let info = words(&server, "XINFO STREAM s");
    assert!(info.contains("max-deleted-entry-id 1-6 entries-added 7"), "{info}");
    follow(&server, &[("XDEL s 1-1 1-3 1-7", ":3"), ("EXISTS s", ":1"), ("XRANGE s - +", "*0")]);
    assert_eq!(server.run("DEBUG VERIFY"), "+OK\r\n");
}

#[test]
fn approximate_trimming_removes_whole_nodes() {
    let server = filled(10);
    follow(
        &server,
        &[
            ("XTRIM s MAXLEN ~ 8", ":0"),
            ("XTRIM s MAXLEN ~ 7 LIMIT 2", ":0"),
            ("XTRIM s MAXLEN ~ 6", ":3"),
            ("XTRIM s MINID ~ 1-6", ":0"),
            ("XTRIM s MINID 1-6", ":2"),
            ("XTRIM s MAXLEN = 4", ":1"),
            (
                "XTRIM s MAXLEN 4 LIMIT 1",
                "-ERR syntax error, LIMIT cannot be used without the special ~ option",
            ),
            ("XTRIM s MAXLEN 4 x", SYNTAX),
        ],
    );
    say(&server, &[("XADD s MAXLEN ~ 0 2-1 a 1", "2-1"), ("XRANGE s - +", ""), ("XLEN s", "0")]);
}

#[test]
fn a_group_delivers_each_entry_once() {
    let server = filled(5);
    say(
        &server,
        &[
            ("XREADGROUP GROUP g bob COUNT 2 STREAMS s >", "s 1-1 field 1 1-2 field 2"),
            ("XREADGROUP GROUP g alice COUNT 1 STREAMS s >", "s 1-3 field 3"),
            ("XREADGROUP GROUP g bob NOACK STREAMS s >", "s 1-4 field 4 1-5 field 5"),
            ("XREADGROUP GROUP g bob STREAMS s >", ""),
            ("XREADGROUP GROUP g bob STREAMS s 1-1", "s 1-2 field 2"),
            ("XPENDING s g", "3 1-1 1-3 alice 1 bob 2"),
            ("XACK s g 1-1 1-4", "1"),
            ("XPENDING s g", "2 1-2 1-3 alice 1 bob 1"),
            (
                "XINFO GROUPS s",
                "name g consumers 2 pending 2 last-delivered-id 1-5 entries-read 5 lag 0",
            ),
        ],
    );
    server.now.set(server.now.get() + 250);
    say(&server, &[("XPENDING s g - + 9", "1-2 bob 250 2 1-3 alice 250 1")]);
}

#[test]
fn the_same_stream_may_be_read_twice_at_once() {
    let server = filled(3);
    let line = "XREADGROUP GROUP g c COUNT 1 STREAMS s s s > > 0";
    say(&server, &[(line, "s 1-1 field 1 s 1-2 field 2 s 1-1 field 1")]);
    say(&server, &[("XPENDING s g - + 9", "1-1 c 0 2 1-2 c 0 1")]);
}

#[test]
fn claims_count_and_set_times() {
    let server = filled(3);
    server.run("XREADGROUP GROUP g bob STREAMS s >");
    server.now.set(server.now.get() + 1000);
    say(
        &server,
        &[
            ("XCLAIM s g alice 1001 1-1", ""),
            (
                "XINFO CONSUMERS s g",
                "name alice pending 0 idle 0 inactive -1 \
                 name bob pending 3 idle 1000 inactive 1000",
            ),
            ("XCLAIM s g alice 1000 1-1 1-1", "1-1 field 1"),
            ("XCLAIM s g alice 0 1-2 IDLE 5000 RETRYCOUNT 9 JUSTID", "1-2"),
            ("XPENDING s g - + 9", "1-1 alice 0 2 1-2 alice 5000 9 1-3 bob 1000 1"),
            ("XPENDING s g IDLE 1001 - + 9", "1-2 alice 5000 9"),
            ("XDEL s 1-3", "1"),
            ("XAUTOCLAIM s g carol 1001 - COUNT 2", "0-0 1-2 field 2 1-3"),
            ("XAUTOCLAIM s g carol 0 1-3", "0-0"),
            ("XPENDING s g - + 9", "1-1 alice 0 2 1-2 carol 0 10"),
            ("XGROUP DELCONSUMER s g carol", "1"),
            ("XPENDING s g", "1 1-1 1-1 alice 1"),
        ],
    );
    assert_eq!(server.run("DEBUG VERIFY"), "+OK\r\n");
}

/// Copying or renaming a key keeps entries, groups and pending entries.
#[test]
fn copied_streams_are_independent() {
    let server = filled(8);
    server.run("XREADGROUP GROUP g bob COUNT 5 STREAMS s >");
    server.run("XDEL s 1-2");
    let full = server.run("XINFO STREAM s FULL");
    follow(
        &server,
        &[("COPY s t", ":1"), ("TYPE t", "+stream"), ("OBJECT ENCODING t", "$6\r\nstream")],
    );
    assert_eq!(server.run("XINFO STREAM t FULL"), full);
    // The copy has no spare capacity in its nodes.
    let usage = |key: &str| -> u64 { words(&server, key).parse().unwrap() };
    assert!((500..=usage("MEMORY USAGE s")).contains(&usage("MEMORY USAGE t")));
    let digest = server.run("DEBUG CHECKPOINT-DIGEST");
    for change in ["XACK t g 1-1", "XADD t 2-1 a 1", "XDEL t 1-8", "XGROUP DESTROY t g"] {
        let before = server.run("DEBUG CHECKPOINT-DIGEST");
        assert_ne!(server.run(change), ":0\r\n", "{change}");
        assert_ne!(server.run("DEBUG CHECKPOINT-DIGEST"), before, "{change}");
    }
    assert_eq!(server.run("XINFO STREAM s FULL"), full);
    follow(&server, &[("COPY s t REPLACE", ":1")]);
    assert_eq!(server.run("DEBUG CHECKPOINT-DIGEST"), digest);
    follow(&server, &[("RENAME t u", "+OK"), ("UNLINK s", ":1")]);
    assert_eq!(server.run("XINFO STREAM u FULL"), full);
    assert_eq!(server.run("DEBUG VERIFY"), "+OK\r\n");
}

/// XREADGROUP, XCLAIM and XAUTOCLAIM allocate all memory before they change anything.
#[test]
fn without_memory_nothing_is_delivered() {
    let server = TestServer::with(8 << 20, Config::default());
    let mut ids = Vec::new();
    for seq in 1..=3000 {
        server.run(&format!("XADD s 1-{seq} a 1"));
        ids.push(format!("1-{seq}"));
    }
    server.run("XADD t 1-1 a 1");
    server.run("XGROUP CREATE s g 0");
    server.run("XGROUP CREATE t g 0");
    server.run("XREADGROUP GROUP g old COUNT 1500 STREAMS s >");
    server.run("XGROUP SETID s g 0");
    let (mut i, mut size) = (0, 1 << 16);
    while size >= 16 {
        let reply = server.run(&format!("SET fill{i} {}", "x".repeat(size)));
        i += 1;
        if reply.starts_with('-') {
            size /= 2;
        }
    }
    let state = || [server.run("XINFO STREAM s FULL COUNT 0"), server.run("XINFO STREAM t FULL")];
    let before = state();
    let claim = format!("XCLAIM s g new 0 {} FORCE", ids.join(" "));
    let lines = [
        "XREADGROUP GROUP g new STREAMS t s > >",
        "XREADGROUP GROUP g old STREAMS s >",
        "XAUTOCLAIM s g new 0 0 COUNT 3000",
        &claim,
    ];
    for line in lines {
        let reply = server.run(line);
        assert!(reply.starts_with("-OOM"), "{line}: {}", &reply[..reply.len().min(90)]);
        assert_eq!(state(), before, "{line}");
    }
    server.shared.keyspace.verify(1).unwrap();
}

/// The check at restore refused an image: a deleted entry that still had its place in a node was
/// above the last id.
#[test]
fn last_id_may_be_below_the_highest_deleted_id() {
    let server = filled(5);
    follow(
        &server,
        &[
            ("XDEL s 1-4 1-5", ":2"),
            (
                "XSETID s 1-3",
                "-ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
            ),
            ("XSETID s 1-5 MAXDELETEDID 0-1", "+OK"),
            ("XSETID s 1-3", "+OK"),
            ("DEBUG VERIFY", "+OK"),
            ("XADD s 1-4 a b", "$3\r\n1-4"),
            ("XDEL s 1-4", ":1"),
            ("XADD s 1-5 a b", "$3\r\n1-5"),
            ("XLEN s", ":4"),
            ("DEBUG VERIFY", "+OK"),
        ],
    );
}

/// The server aborted, since the command had locked the shard of another key than the one it read.
#[test]
fn locked_keys_are_the_parsed_keys() {
    let server = filled(2);
    follow(&server, &[("XGROUP CREATE s streams 0", "+OK")]);
    for line in [
        "XREADGROUP NOACK GROUP streams streams STREAMS s >",
        "XREADGROUP COUNT 9 GROUP streams count STREAMS s 0",
        "XREADGROUP GROUP g streams GROUP streams group COUNT 1 STREAMS s 0",
    ] {
        let reply = server.run(line);
        assert!(reply.starts_with('*'), "{line}: {reply}");
    }
}

/// The words of Redis 7.4, which those of 8.0 differ from.
#[test]
fn unbalanced_streams_are_refused_by_command() {
    let server = server();
    let error = |command: &str, ids: &str| {
        format!(
            "-ERR Unbalanced '{command}' list of streams: for each stream key an ID or {ids} must \
             be specified."
        )
    };
    follow(
        &server,
        &[
            ("XREAD STREAMS a b 0", &error("xread", "'$'")),
            ("xreadgroup GROUP g c STREAMS a b >", &error("xreadgroup", "'>'")),
        ],
    );
}

/// The group lagged for ever: an entry that was deleted ahead of the group was never counted as
/// read.
#[test]
fn a_deleted_entry_ahead_of_a_group_does_not_lag_for_ever() {
    let server = filled(4);
    let group = |last: &str, read: &str, pending: u64, lag: &str| {
        format!(
            "name g consumers 1 pending {pending} last-delivered-id {last} entries-read {read} \
             lag {lag}"
        )
    };
    server.run("XREADGROUP GROUP g c COUNT 2 STREAMS s >");
    say(
        &server,
        &[
            ("XINFO GROUPS s", &group("1-2", "2", 2, "2")),
            ("XDEL s 1-3", "1"),
            (
                "XINFO GROUPS s",
                "name g consumers 1 pending 2 last-delivered-id 1-2 entries-read 2 lag",
            ),
            ("XREADGROUP GROUP g c STREAMS s >", "s 1-4 field 4"),
            ("XINFO GROUPS s", &group("1-4", "4", 3, "0")),
            ("XADD s 1-5 field 5", "1-5"),
            ("XINFO GROUPS s", &group("1-4", "4", 3, "1")),
            ("XGROUP SETID s g 1-4 ENTRIESREAD 100", "+OK"),
            ("XINFO GROUPS s", &group("1-4", "5", 3, "0")),
            ("XSETID s 1-5 ENTRIESADDED 4", "+OK"),
            ("XINFO GROUPS s", &group("1-4", "5", 3, "0")),
            ("XTRIM s MAXLEN 1", "3"),
            ("XGROUP CREATE s h 1-2 ENTRIESREAD 2", "+OK"),
            (
                "XINFO GROUPS s",
                &format!(
                    "{} name h consumers 0 pending 0 last-delivered-id 1-2 entries-read 2 lag 1",
                    group("1-4", "5", 3, "1")
                ),
            ),
        ],
    );
}

/// A consumer that reads or claims nothing exists and was seen, but was never active.
#[test]
fn consumers_are_seen_and_active() {
    let server = filled(1);
    let pass = || server.now.set(server.now.get() + 10);
    let consumers = |expected: &str| {
        assert_eq!(words(&server, "XINFO CONSUMERS s g"), expected);
    };
    server.run("XREADGROUP GROUP g a STREAMS s >");
    pass();
    server.run("XREADGROUP GROUP g a STREAMS s >");
    consumers("name a pending 1 idle 0 inactive 10");
    pass();
    server.run("XREADGROUP GROUP g a STREAMS s 0");
    server.run("XREADGROUP GROUP g b BLOCK 1 STREAMS s >");
    consumers("name a pending 1 idle 0 inactive 20 name b pending 0 idle 0 inactive -1");
    pass();
    server.run("XADD s 1-2 f v");
    server.run("XREADGROUP GROUP g b NOACK STREAMS s >");
    server.run("XCLAIM s g c 1000 1-1");
    server.run("XAUTOCLAIM s g d 1000 0");
    let idle = "name a pending 1 idle 10 inactive 30 name b pending 0 idle 0 inactive -1";
    let claimers = "name c pending 0 idle 0 inactive -1 name d pending 0 idle 0 inactive -1";
    consumers(&format!("{idle} {claimers}"));
    server.run("XCLAIM s g c 0 1-1 JUSTID");
    server.run("XAUTOCLAIM s g d 0 0");
    let idle = "name a pending 0 idle 10 inactive 30 name b pending 0 idle 0 inactive -1";
    let claimers = "name c pending 0 idle 0 inactive 0 name d pending 1 idle 0 inactive 0";
    consumers(&format!("{idle} {claimers}"));
    let full = words(&server, "XINFO STREAM s FULL");
    let now = server.now.get();
    let active = format!("name d seen-time {now} active-time {now} pel-count 1");
    let never = format!("name b seen-time {now} active-time -1 pel-count 0");
    assert!(full.contains(&active) && full.contains(&never), "{full}");
}
