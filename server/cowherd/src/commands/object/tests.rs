//! OBJECT and MEMORY, and unknown subcommands.

use crate::commands::testing::TestServer;

const NULL: &str = "$-1\r\n";

fn advance(server: &TestServer, seconds: i64) {
    server.now.set(server.now.get() + seconds * 1000);
}

#[test]
fn encodings_have_the_names_of_redis() {
    let server = TestServer::new();
    let cases = [
        ("12345".to_owned(), "int"),
        ("012345".to_owned(), "embstr"),
        ("v".repeat(44), "embstr"),
        ("v".repeat(45), "raw"),
    ];
    for (value, name) in cases {
        server.run(&format!("SET a {value}"));
        let expected = format!("${}\r\n{name}\r\n", name.len());
        assert_eq!(server.run("object encoding a"), expected);
    }
    assert_eq!(server.run("OBJECT REFCOUNT a"), ":1\r\n");
}

#[test]
fn missing_keys_reply_null() {
    let lines = ["OBJECT ENCODING", "OBJECT FREQ", "OBJECT IDLETIME", "OBJECT REFCOUNT"];
    for line in lines.iter().chain(&["MEMORY USAGE"]) {
        assert_eq!(TestServer::new().run(&format!("{line} none")), NULL, "{line}");
        assert_eq!(TestServer::new().resp3().run(&format!("{line} none")), "_\r\n", "{line}");
    }
}

#[test]
fn idle_time_is_since_the_last_use() {
    let server = TestServer::new();
    server.run("SET a 1");
    advance(&server, 60);
    for line in ["EXISTS a", "TYPE a", "TTL a", "OBJECT ENCODING a", "MEMORY USAGE a", "SCAN 0"] {
        server.run(line);
        assert_eq!(server.run("OBJECT IDLETIME a"), ":60\r\n", "{line} is no use");
    }
    for line in ["GET a", "TOUCH a", "RENAME a a", "PERSIST a", "COPY a b"] {
        advance(&server, 60);
        server.run(line);
        assert_eq!(server.run("OBJECT IDLETIME a"), ":0\r\n", "{line} is one");
    }
    let error = server.run("OBJECT FREQ a");
    assert!(error.starts_with("-ERR An LFU maxmemory policy is not selected, "), "{error}");
}

#[test]
fn a_new_key_does_not_inherit_idle_time() {
    let server = TestServer::new();
    server.run("SET old 1");
    advance(&server, 1000);
    server.run("SET a 1");
    server.run("COPY a old REPLACE");
    assert_eq!(server.run("OBJECT IDLETIME old"), ":0\r\n");
    advance(&server, 1000);
    server.run("SET a 1");
    server.run("RENAME a old");
    assert_eq!(server.run("OBJECT IDLETIME old"), ":0\r\n");
}

#[test]
fn lfu_policies_count_accesses() {
    let server = TestServer::new();
    server.shared.keyspace.clocks().set_lfu(true);
    server.run("SET a 1");
    assert_eq!(server.run("OBJECT FREQ a"), ":5\r\n", "what a new key starts with");
    for _ in 0..1000 {
        server.run("GET a");
        server.now.set(server.now.get() + 7);
    }
    let count = server.run("OBJECT FREQ a");
    assert_ne!(count, ":5\r\n");
    server.run("SET b 1");
    server.run("RENAME a b");
    assert_ne!(server.run("OBJECT FREQ b"), ":5\r\n", "the count goes with the key");
    let error = server.run("OBJECT IDLETIME b");
    assert!(error.starts_with("-ERR An LFU maxmemory policy is selected, "), "{error}");
    assert_eq!(server.run("OBJECT IDLETIME none"), NULL);
}

#[test]
fn memory_usage_grows_with_key_and_value() {
    let server = TestServer::new();
    let usage = |key: &str, value: usize| -> u64 {
        server.run(&format!("SET {key} {}", "v".repeat(value)));
        let reply = server.run(&format!("MEMORY USAGE {key} SAMPLES 0"));
        reply.trim_end().strip_prefix(':').unwrap().parse().unwrap()
    };
    let short = usage("a", 10);
    assert!((20..100).contains(&short), "{short}");
    assert!(usage("a", 1000) >= short + 990);
    assert!((50_000..65_000).contains(&usage("a", 50_000)));
    assert!(usage(&"a".repeat(500), 10) >= short + 499);
}

#[test]
fn memory_usage_checks_its_options_first() {
    let server = TestServer::new();
    let lines = [
        ("none SAMPLES", "-ERR syntax error\r\n"),
        ("none FOO 1", "-ERR syntax error\r\n"),
        ("none SAMPLES -1", "-ERR syntax error\r\n"),
        ("none SAMPLES x", "-ERR value is not an integer or out of range\r\n"),
        ("none samples 3 SAMPLES 4", NULL),
    ];
    for (options, expected) in lines {
        assert_eq!(server.run(&format!("MEMORY USAGE {options}")), expected, "{options}");
    }
}

#[test]
fn malloc_stats_are_text() {
    let server = TestServer::new();
    assert_eq!(server.run("MEMORY PURGE"), "+OK\r\n");
    let capacity = format!("arena_capacity_bytes:{}\n", 64 << 20);
    assert!(server.run("MEMORY MALLOC-STATS").contains(&capacity));
    let reply = server.resp3().run("MEMORY MALLOC-STATS");
    assert!(reply.starts_with('=') && reply.contains("txt:arena_capacity_bytes"), "{reply}");
}

#[test]
fn unknown_subcommands_are_reported() {
    let server = TestServer::new();
    let lines = [
        ("OBJECT", "wrong number of arguments for 'object' command"),
        ("OBJECT foo", "unknown subcommand 'foo'. Try OBJECT HELP."),
        ("OBJECT foo a b", "unknown subcommand 'foo'. Try OBJECT HELP."),
        ("OBJECT ENCODING", "wrong number of arguments for 'object|encoding' command"),
        ("OBJECT ENCODING a b", "wrong number of arguments for 'object|encoding' command"),
        ("OBJECT HELP x", "wrong number of arguments for 'object|help' command"),
        ("MEMORY", "wrong number of arguments for 'memory' command"),
        ("MEMORY foo", "unknown subcommand 'foo'. Try MEMORY HELP."),
        ("MEMORY USAGE", "wrong number of arguments for 'memory|usage' command"),
        ("MEMORY PURGE x", "wrong number of arguments for 'memory|purge' command"),
    ];
    for (line, error) in lines {
        assert_eq!(server.run(line), format!("-ERR {error}\r\n"), "{line}");
    }
}

#[test]
fn help_names_every_subcommand() {
    let server = TestServer::new();
    for command in ["object", "memory"] {
        let help = server.run(&format!("{command} help"));
        let lines: Vec<&str> = help.trim_end().split("\r\n").collect();
        assert_eq!(lines[0], format!("*{}", lines.len() - 1));
        assert!(lines[1..].iter().all(|line| line.starts_with('+')), "simple strings");
        let row = server.shared.table.by_full_name(command).unwrap();
        for sub in row.command.subcommands {
            let name = format!("+{}", sub.name.to_uppercase());
            let named = lines.iter().any(|line| line.split(' ').next() == Some(&name));
            assert!(named, "{command} {}", sub.name);
        }
    }
}
