//! SELECT, DBSIZE, FLUSHDB, FLUSHALL and SWAPDB.

use std::sync::atomic::Ordering;

use crate::commands::testing::TestServer;
use crate::config::Config;
use crate::keyspace::{ShardIndex, ShardSet};

const OK: &str = "+OK\r\n";
const OUT_OF_RANGE: &str = "-ERR DB index is out of range\r\n";
const NOT_32_BITS: &str =
    "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n";

/// A server with keys in databases 0 and 1.
fn server() -> TestServer {
    let server = TestServer::new();
    for i in 0..300 {
        server.run(&format!("SET k{i} zero"));
    }
    server.run("SELECT 1");
    for i in 0..100 {
        server.run(&format!("SET k{i} one"));
    }
    server.run("EXPIRE k1 100");
    server.run("SELECT 0");
    server
}

fn sizes(server: &TestServer) -> (u64, u64) {
    (server.shared.keyspace.len(0), server.shared.keyspace.len(1))
}

#[test]
fn select_sets_the_database_of_the_connection() {
    let server = server();
    assert_eq!(server.run("DBSIZE"), ":300\r\n");
    assert_eq!(server.run("SELECT 1"), OK);
    assert_eq!(server.shared.clients.list()[0].db.load(Ordering::Relaxed), 1);
    assert_eq!(server.run("DBSIZE"), ":100\r\n");
    assert_eq!(server.run("GET k1"), "$3\r\none\r\n");
    let refused = [
        ("16", OUT_OF_RANGE),
        ("-1", OUT_OF_RANGE),
        ("x", "-ERR value is not an integer or out of range\r\n"),
        ("99999999999", NOT_32_BITS),
    ];
    for (number, error) in refused {
        assert_eq!(server.run(&format!("SELECT {number}")), error);
        assert_eq!(server.run("DBSIZE"), ":100\r\n", "still selected");
    }
    assert_eq!(server.run("SELECT 15"), OK);
    assert_eq!(server.run("DBSIZE"), ":0\r\n");
}

#[test]
fn databases_directive_limits_the_index() {
    let server = TestServer::with(64 << 20, Config { databases: 2, ..Config::default() });
    server.run("SET a 1");
    assert_eq!(server.run("SELECT 1"), OK);
    assert_eq!(server.run("SELECT 0"), OK);
    for line in ["SELECT 2", "MOVE a 2", "COPY a b DB 2", "SWAPDB 0 2", "SWAPDB 2 0"] {
        assert_eq!(server.run(line), OUT_OF_RANGE, "{line}");
    }
}

#[test]
fn flushdb_and_flushall() {
    for how in ["", "SYNC", "async"] {
        let server = server();
        server.run("SELECT 1");
        assert_eq!(server.run(&format!("FLUSHDB {how}")), OK);
        assert_eq!(sizes(&server), (300, 0));
        assert_eq!(server.run("GET k1"), "$-1\r\n");
        server.run("SET k1 again");
        assert_eq!(server.run(&format!("FLUSHALL {how}")), OK);
        assert_eq!(sizes(&server), (0, 0));
        server.shared.keyspace.verify(1).unwrap();
    }
}

#[test]
fn flush_frees_memory_before_the_reply_unless_async() {
    for (how, at_once) in [("", true), ("SYNC", true), ("ASYNC", false)] {
        let server = server();
        server.run(&format!("FLUSHALL {how}"));
        let arena = server.shared.keyspace.arena();
        assert_eq!(arena.used_bytes() == 0, at_once, "{how}");
        for shard in ShardIndex::all() {
            server.shared.keyspace.lock(ShardSet::one(shard), 0).free_all_deferred(shard);
        }
        assert_eq!(arena.used_bytes(), 0);
    }
}

#[test]
fn flush_refuses_unknown_options() {
    let server = server();
    for line in ["FLUSHDB foo", "FLUSHDB ASYNC SYNC", "FLUSHALL foo", "FLUSHALL SYNC SYNC"] {
        assert_eq!(server.run(line), "-ERR syntax error\r\n", "{line}");
    }
    assert_eq!(sizes(&server), (300, 100));
}

#[test]
fn flush_counts_each_key_as_a_change() {
    let server = server();
    let before = server.shared.keyspace.stats().changes;
    server.run("FLUSHALL");
    assert_eq!(server.shared.keyspace.stats().changes, before + 400);
}

#[test]
fn swapdb_swaps_the_keys() {
    let server = server();
    assert_eq!(server.run("SWAPDB 0 1"), OK);
    assert_eq!(sizes(&server), (100, 300));
    assert_eq!(server.run("GET k1"), "$3\r\none\r\n");
    assert_eq!(server.run("TTL k1"), ":100\r\n");
    assert_eq!(server.run("SWAPDB 1 1"), OK);
    assert_eq!(sizes(&server), (100, 300));
    assert_eq!(server.run("SWAPDB 1 0"), OK);
    assert_eq!(sizes(&server), (300, 100));
    server.shared.keyspace.verify(1).unwrap();
}

#[test]
fn swapdb_reports_which_index_is_wrong() {
    let server = server();
    let refused = [
        ("0 x", "-ERR invalid second DB index\r\n"),
        ("x 0", "-ERR invalid first DB index\r\n"),
        ("x y", "-ERR invalid first DB index\r\n"),
        ("0 99999999999", "-ERR invalid second DB index\r\n"),
        ("99999999999 0", "-ERR invalid first DB index\r\n"),
        ("16 x", "-ERR invalid second DB index\r\n"),
        ("0 16", OUT_OF_RANGE),
        ("-1 0", OUT_OF_RANGE),
    ];
    for (numbers, error) in refused {
        assert_eq!(server.run(&format!("SWAPDB {numbers}")), error, "{numbers}");
    }
    assert_eq!(sizes(&server), (300, 100));
}
