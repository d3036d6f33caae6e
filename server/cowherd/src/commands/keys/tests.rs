//! Each command on keys as such, its errors included.

use crate::commands::testing::TestServer;
use crate::config::Config;

const NULL: &str = "$-1\r\n";
const SAME: &str = "-ERR source and destination objects are the same\r\n";
const OUT_OF_RANGE: &str = "-ERR DB index is out of range\r\n";

fn hits_and_misses(bench: &TestServer) -> (u64, u64) {
    let stats = bench.shared.keyspace.stats();
    (stats.hits, stats.misses)
}

#[test]
fn keys_are_counted_as_often_as_they_are_named() {
    let bench = TestServer::new();
    bench.run("SET a 1");
    bench.run("SET b 2");
    for command in ["EXISTS", "TOUCH"] {
        assert_eq!(bench.run(&format!("{command} a none a b")), ":3\r\n");
        assert_eq!(bench.run(&format!("{command} none")), ":0\r\n");
    }
    for (command, key) in [("DEL", "a"), ("UNLINK", "b")] {
        assert_eq!(bench.run(&format!("{command} {key} none {key}")), ":1\r\n");
        assert_eq!(bench.run(&format!("GET {key}")), NULL);
    }
    for command in ["DEL", "UNLINK", "EXISTS", "TOUCH"] {
        let name = command.to_lowercase();
        let error = format!("-ERR wrong number of arguments for '{name}' command\r\n");
        assert_eq!(bench.run(command), error);
    }
}

#[test]
fn a_type_is_a_simple_string() {
    for bench in [TestServer::new(), TestServer::new().resp3()] {
        bench.run("SET a 1");
        assert_eq!(bench.run("TYPE a"), "+string\r\n");
        assert_eq!(bench.run("TYPE none"), "+none\r\n");
    }
}

#[test]
fn questions_count_as_hits_and_misses_and_changes_do_not() {
    let bench = TestServer::new();
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
        bench.run("SET a 1");
        let before = hits_and_misses(&bench);
        bench.run(line);
        let after = hits_and_misses(&bench);
        assert_eq!((after.0 - before.0, after.1 - before.1), expected, "{line}");
    }
}

#[test]
fn an_expired_key_is_not_there_for_anybody() {
    let bench = TestServer::new();
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
        bench.run("FLUSHALL");
        bench.run("SET a old");
        bench.run("PEXPIRE a 1");
        bench.now.set(bench.now.get() + 1);
        if line.contains("b a") {
            bench.run("SET b new");
        }
        assert_eq!(bench.run(line), expected, "{line}");
        assert_ne!(bench.run("GET a"), "$3\r\nold\r\n", "{line}");
    }
}

#[test]
fn renaming_takes_value_and_expiry_along() {
    let bench = TestServer::new();
    // Many pairs of names, so that some share a shard and most do not.
    for i in 0..200 {
        let value = "v".repeat(i * 17);
        bench.run(&format!("SET from{i} x{value}"));
        bench.run(&format!("EXPIRE from{i} 100"));
        bench.run(&format!("SET to{i} old"));
        assert_eq!(bench.run(&format!("RENAMENX from{i} to{i}")), ":0\r\n");
        assert_eq!(bench.run(&format!("RENAME from{i} to{i}")), "+OK\r\n");
        assert_eq!(bench.run(&format!("GET to{i}")), format!("${}\r\nx{value}\r\n", i * 17 + 1));
        assert_eq!(bench.run(&format!("TTL to{i}")), ":100\r\n");
        assert_eq!(bench.run(&format!("EXISTS from{i}")), ":0\r\n");
        assert_eq!(bench.run(&format!("RENAMENX to{i} free{i}")), ":1\r\n");
    }
    assert_eq!(bench.run("DBSIZE"), ":200\r\n");
    bench.shared.keyspace.verify(1).unwrap();
}

#[test]
fn renaming_over_a_key_ends_its_expiry() {
    let bench = TestServer::new();
    bench.run("SET a new");
    bench.run("SET b old");
    bench.run("EXPIRE b 100");
    assert_eq!(bench.run("RENAME a b"), "+OK\r\n");
    assert_eq!(bench.run("TTL b"), ":-1\r\n");
    assert_eq!(bench.run("GET b"), "$3\r\nnew\r\n");
}

#[test]
fn a_key_may_be_renamed_to_itself() {
    let bench = TestServer::new();
    bench.run("SET a 1");
    assert_eq!(bench.run("RENAME a a"), "+OK\r\n");
    assert_eq!(bench.run("RENAMENX a a"), ":0\r\n");
    assert_eq!(bench.run("GET a"), "$1\r\n1\r\n");
    for line in ["RENAME none none", "RENAME none a", "RENAMENX none none", "RENAMENX none b"] {
        assert_eq!(bench.run(line), "-ERR no such key\r\n", "{line}");
    }
}

#[test]
fn a_copy_has_value_and_expiry_and_a_life_of_its_own() {
    let bench = TestServer::new();
    for value in ["7".to_owned(), "short".to_owned(), "long".repeat(2000)] {
        bench.run("FLUSHALL");
        bench.run(&format!("SET a {value}"));
        bench.run("EXPIRE a 100");
        assert_eq!(bench.run("COPY a b"), ":1\r\n");
        assert_eq!(bench.run("TTL b"), ":100\r\n");
        bench.run("SET a other");
        assert_eq!(bench.run("GET b"), format!("${}\r\n{value}\r\n", value.len()));
        assert_eq!(bench.run("COPY a b"), ":0\r\n", "there is one");
        assert_eq!(bench.run("COPY a b replace"), ":1\r\n");
        assert_eq!(bench.run("GET b"), "$5\r\nother\r\n");
        assert_eq!(bench.run("TTL b"), ":-1\r\n");
        assert_eq!(bench.run("COPY a a DB 1"), ":1\r\n");
        assert_eq!(bench.run("COPY a a DB 1"), ":0\r\n");
        assert_eq!(bench.run("COPY a a db 1 REPLACE DB 2 REPLACE"), ":1\r\n", "the last one");
        assert_eq!(bench.run("COPY none b"), ":0\r\n");
        bench.shared.keyspace.verify(1).unwrap();
    }
}

#[test]
fn a_copy_that_makes_no_sense_is_refused() {
    let bench = TestServer::new();
    bench.run("SET a 1");
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
        assert_eq!(bench.run(line), error, "{line}");
    }
    assert_eq!(bench.run("DBSIZE"), ":1\r\n");
}

#[test]
fn a_copy_without_room_leaves_nothing_behind() {
    let bench = TestServer::with(16 << 20, Config::default());
    bench.run(&format!("SET a {}", "v".repeat(60_000)));
    let full = (1..1000).find(|i| bench.run(&format!("COPY a copy{i}")) != ":1\r\n").unwrap();
    let error = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert_eq!(bench.run(&format!("COPY a copy{full}")), error);
    assert_eq!(bench.run(&format!("EXISTS copy{full}")), ":0\r\n");
    assert_eq!(bench.run("DBSIZE"), format!(":{full}\r\n"));
    bench.shared.keyspace.verify(1).unwrap();
}

#[test]
fn a_key_moves_to_a_database_that_has_it_not() {
    let bench = TestServer::new();
    bench.run("SET a 1");
    bench.run("EXPIRE a 100");
    assert_eq!(bench.run("MOVE a 3"), ":1\r\n");
    assert_eq!(bench.run("EXISTS a"), ":0\r\n");
    assert_eq!(bench.run("MOVE a 3"), ":0\r\n", "nothing to move");
    bench.run("SET a 2");
    assert_eq!(bench.run("MOVE a 3"), ":0\r\n", "there is one");
    bench.run("SELECT 3");
    assert_eq!(bench.run("GET a"), "$1\r\n1\r\n");
    assert_eq!(bench.run("TTL a"), ":100\r\n");
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
        assert_eq!(bench.run(line), error, "{line}");
    }
    bench.shared.keyspace.verify(1).unwrap();
}
