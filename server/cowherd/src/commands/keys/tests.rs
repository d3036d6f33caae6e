//! Commands on keys of any type, and their errors.

use crate::commands::testing::TestServer;
use crate::config::Config;

const NULL: &str = "$-1\r\n";
const SAME: &str = "-ERR source and destination objects are the same\r\n";
const OUT_OF_RANGE: &str = "-ERR DB index is out of range\r\n";

fn hits_and_misses(server: &TestServer) -> (u64, u64) {
    let stats = server.shared.keyspace.stats();
    (stats.hits, stats.misses)
}

#[test]
fn repeated_keys_are_counted_repeatedly() {
    let server = TestServer::new();
    server.run("SET a 1");
    server.run("SET b 2");
    for command in ["EXISTS", "TOUCH"] {
        assert_eq!(server.run(&format!("{command} a none a b")), ":3\r\n");
        assert_eq!(server.run(&format!("{command} none")), ":0\r\n");
    }
    for (command, key) in [("DEL", "a"), ("UNLINK", "b")] {
        assert_eq!(server.run(&format!("{command} {key} none {key}")), ":1\r\n");
        assert_eq!(server.run(&format!("GET {key}")), NULL);
    }
    for command in ["DEL", "UNLINK", "EXISTS", "TOUCH"] {
        let name = command.to_lowercase();
        let error = format!("-ERR wrong number of arguments for '{name}' command\r\n");
        assert_eq!(server.run(command), error);
    }
}

#[test]
fn a_type_is_a_simple_string() {
    for server in [TestServer::new(), TestServer::new().resp3()] {
        server.run("SET a 1");
        assert_eq!(server.run("TYPE a"), "+string\r\n");
        assert_eq!(server.run("TYPE none"), "+none\r\n");
    }
}

#[test]
fn reads_count_hits_and_misses_and_writes_do_not() {
    let server = TestServer::new();
    let counted = [
        ("EXISTS a none", (1, 1)),
        ("TOUCH a none", (1, 1)),
        ("TYPE a", (1, 0)),
        ("COPY none b", (0, 1)),
        ("COPY a b REPLACE", (1, 0)),
        ("RENAME a a", (0, 0)),
        ("RENAMENX none b", (0, 0)),
        ("MOVE none 1", (0, 0)),
        ("DEL none", (0, 0)),
    ];
    for (line, expected) in counted {
        server.run("SET a 1");
        let before = hits_and_misses(&server);
        server.run(line);
        let after = hits_and_misses(&server);
        assert_eq!((after.0 - before.0, after.1 - before.1), expected, "{line}");
    }
}

#[test]
fn expired_keys_are_missing_for_all_commands() {
    let server = TestServer::new();
    let lines = [
        ("DEL a", ":0\r\n"),
        ("EXISTS a", ":0\r\n"),
        ("TYPE a", "+none\r\n"),
        ("RENAME a b", "-ERR no such key\r\n"),
        ("COPY a b", ":0\r\n"),
        ("MOVE a 1", ":0\r\n"),
        ("RENAMENX b a", ":1\r\n"),
        ("COPY b a", ":1\r\n"),
    ];
    for (line, expected) in lines {
        server.run("FLUSHALL");
        server.run("SET a old");
        server.run("PEXPIRE a 1");
        server.now.set(server.now.get() + 1);
        if line.contains("b a") {
            server.run("SET b new");
        }
        assert_eq!(server.run(line), expected, "{line}");
        assert_ne!(server.run("GET a"), "$3\r\nold\r\n", "{line}");
    }
}

#[test]
fn rename_keeps_value_and_expiry() {
    let server = TestServer::new();
    // Enough pairs of names that some share a shard and most do not.
    for i in 0..200 {
        let value = "v".repeat(i * 17);
        server.run(&format!("SET from{i} x{value}"));
        server.run(&format!("EXPIRE from{i} 100"));
        server.run(&format!("SET to{i} old"));
        assert_eq!(server.run(&format!("RENAMENX from{i} to{i}")), ":0\r\n");
        assert_eq!(server.run(&format!("RENAME from{i} to{i}")), "+OK\r\n");
        assert_eq!(server.run(&format!("GET to{i}")), format!("${}\r\nx{value}\r\n", i * 17 + 1));
        assert_eq!(server.run(&format!("TTL to{i}")), ":100\r\n");
        assert_eq!(server.run(&format!("EXISTS from{i}")), ":0\r\n");
        assert_eq!(server.run(&format!("RENAMENX to{i} free{i}")), ":1\r\n");
    }
    assert_eq!(server.run("DBSIZE"), ":200\r\n");
    server.shared.keyspace.verify(1).unwrap();
}

#[test]
fn rename_replaces_the_expiry_of_the_target() {
    let server = TestServer::new();
    server.run("SET a new");
    server.run("SET b old");
    server.run("EXPIRE b 100");
    assert_eq!(server.run("RENAME a b"), "+OK\r\n");
    assert_eq!(server.run("TTL b"), ":-1\r\n");
    assert_eq!(server.run("GET b"), "$3\r\nnew\r\n");
}

#[test]
fn a_key_may_be_renamed_to_itself() {
    let server = TestServer::new();
    server.run("SET a 1");
    assert_eq!(server.run("RENAME a a"), "+OK\r\n");
    assert_eq!(server.run("RENAMENX a a"), ":0\r\n");
    assert_eq!(server.run("GET a"), "$1\r\n1\r\n");
    for line in ["RENAME none none", "RENAME none a", "RENAMENX none none", "RENAMENX none b"] {
        assert_eq!(server.run(line), "-ERR no such key\r\n", "{line}");
    }
}

#[test]
fn copies_are_independent() {
    let server = TestServer::new();
    for value in ["7".to_owned(), "short".to_owned(), "long".repeat(2000)] {
        server.run("FLUSHALL");
        server.run(&format!("SET a {value}"));
        server.run("EXPIRE a 100");
        assert_eq!(server.run("COPY a b"), ":1\r\n");
        assert_eq!(server.run("TTL b"), ":100\r\n");
        server.run("SET a other");
        assert_eq!(server.run("GET b"), format!("${}\r\n{value}\r\n", value.len()));
        assert_eq!(server.run("COPY a b"), ":0\r\n", "there is one");
        assert_eq!(server.run("COPY a b replace"), ":1\r\n");
        assert_eq!(server.run("GET b"), "$5\r\nother\r\n");
        assert_eq!(server.run("TTL b"), ":-1\r\n");
        assert_eq!(server.run("COPY a a DB 1"), ":1\r\n");
        assert_eq!(server.run("COPY a a DB 1"), ":0\r\n");
        assert_eq!(server.run("COPY a a db 1 REPLACE DB 2 REPLACE"), ":1\r\n", "the last one");
        assert_eq!(server.run("COPY none b"), ":0\r\n");
        server.shared.keyspace.verify(1).unwrap();
    }
}

#[test]
fn invalid_copies_are_refused() {
    let server = TestServer::new();
    server.run("SET a 1");
    let lines = [
        ("COPY a a", SAME),
        ("COPY a a DB 0 REPLACE", SAME),
        ("COPY none none", SAME),
        ("COPY a b DB", "-ERR syntax error\r\n"),
        ("COPY a b DB 1 FOO", "-ERR syntax error\r\n"),
        ("COPY a b DB x", "-ERR value is not an integer or out of range\r\n"),
        ("COPY a b DB 16", OUT_OF_RANGE),
        ("COPY a b DB -1 FOO", OUT_OF_RANGE),
        ("COPY a", "-ERR wrong number of arguments for 'copy' command\r\n"),
    ];
    for (line, error) in lines {
        assert_eq!(server.run(line), error, "{line}");
    }
    assert_eq!(server.run("DBSIZE"), ":1\r\n");
}

#[test]
fn copy_without_memory_changes_nothing() {
    let server = TestServer::with(16 << 20, Config::default());
    server.run(&format!("SET a {}", "v".repeat(60_000)));
    let full = (1..1000).find(|i| server.run(&format!("COPY a copy{i}")) != ":1\r\n").unwrap();
    let error = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert_eq!(server.run(&format!("COPY a copy{full}")), error);
    assert_eq!(server.run(&format!("EXISTS copy{full}")), ":0\r\n");
    assert_eq!(server.run("DBSIZE"), format!(":{full}\r\n"));
    server.shared.keyspace.verify(1).unwrap();
}

#[test]
fn move_needs_a_free_name() {
    let server = TestServer::new();
    server.run("SET a 1");
    server.run("EXPIRE a 100");
    assert_eq!(server.run("MOVE a 3"), ":1\r\n");
    assert_eq!(server.run("EXISTS a"), ":0\r\n");
    assert_eq!(server.run("MOVE a 3"), ":0\r\n", "nothing to move");
    server.run("SET a 2");
    assert_eq!(server.run("MOVE a 3"), ":0\r\n", "there is one");
    server.run("SELECT 3");
    assert_eq!(server.run("GET a"), "$1\r\n1\r\n");
    assert_eq!(server.run("TTL a"), ":100\r\n");
    let lines = [
        ("MOVE a 3", SAME),
        ("MOVE none 3", SAME),
        ("MOVE a x", "-ERR value is not an integer or out of range\r\n"),
        ("MOVE a 16", OUT_OF_RANGE),
        ("MOVE a -1", OUT_OF_RANGE),
        (
            "MOVE a 99999999999",
            "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
        ),
    ];
    for (line, error) in lines {
        assert_eq!(server.run(line), error, "{line}");
    }
    server.shared.keyspace.verify(1).unwrap();
}
