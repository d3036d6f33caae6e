//! Selecting, counting, emptying and swapping databases.

use std::sync::atomic::Ordering;

use crate::commands::testing::TestServer;
use crate::config::Config;
use crate::keyspace::{ShardIndex, ShardSet};

const OK: &str = "+OK\r\n";
const OUT_OF_RANGE: &str = "-ERR DB index is out of range\r\n";
const NOT_32_BITS: &str =
    "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n";

/// A bench with keys in databases 0 and 1.
fn bench() -> TestServer {
    let bench = TestServer::new();
    for i in 0..300 {
        bench.run(&format!("SET k{i} zero"));
    }
    bench.run("SELECT 1");
    for i in 0..100 {
        bench.run(&format!("SET k{i} one"));
    }
    bench.run("EXPIRE k1 100");
    bench.run("SELECT 0");
    bench
}

fn sizes(bench: &TestServer) -> (u64, u64) {
    (bench.shared.keyspace.len(0), bench.shared.keyspace.len(1))
}

#[test]
fn a_connection_works_with_the_database_it_selected() {
    let bench = bench();
    assert_eq!(bench.run("DBSIZE"), ":300\r\n");
    assert_eq!(bench.run("SELECT 1"), OK);
    assert_eq!(bench.shared.clients.list()[0].db.load(Ordering::Relaxed), 1);
    assert_eq!(bench.run("DBSIZE"), ":100\r\n");
    assert_eq!(bench.run("GET k1"), "$3\r\none\r\n");
    let refused = [
        ("16", OUT_OF_RANGE),
        ("-1", OUT_OF_RANGE),
        ("x", "-ERR value is not an integer or out of range\r\n"),
        ("99999999999", NOT_32_BITS),
    ];
    for (number, error) in refused {
        assert_eq!(bench.run(&format!("SELECT {number}")), error);
        assert_eq!(bench.run("DBSIZE"), ":100\r\n", "still selected");
    }
    assert_eq!(bench.run("SELECT 15"), OK);
    assert_eq!(bench.run("DBSIZE"), ":0\r\n");
}

#[test]
fn the_configuration_can_allow_fewer_databases() {
    let bench = TestServer::with(64 << 20, Config { databases: 2, ..Config::default() });
    bench.run("SET a 1");
    assert_eq!(bench.run("SELECT 1"), OK);
    assert_eq!(bench.run("SELECT 0"), OK);
    for line in ["SELECT 2", "MOVE a 2", "COPY a b DB 2", "SWAPDB 0 2", "SWAPDB 2 0"] {
        assert_eq!(bench.run(line), OUT_OF_RANGE, "{line}");
    }
}

#[test]
fn flushing_empties_one_database_or_all() {
    for how in ["", "SYNC", "async"] {
        let bench = bench();
        bench.run("SELECT 1");
        assert_eq!(bench.run(&format!("FLUSHDB {how}")), OK);
        assert_eq!(sizes(&bench), (300, 0));
        assert_eq!(bench.run("GET k1"), "$-1\r\n");
        bench.run("SET k1 again");
        assert_eq!(bench.run(&format!("FLUSHALL {how}")), OK);
        assert_eq!(sizes(&bench), (0, 0));
        bench.shared.keyspace.verify(1).unwrap();
    }
}

#[test]
fn flushing_frees_the_memory_before_it_answers_unless_told_otherwise() {
    for (how, at_once) in [("", true), ("SYNC", true), ("ASYNC", false)] {
        let bench = bench();
        bench.run(&format!("FLUSHALL {how}"));
        let arena = bench.shared.keyspace.arena();
        assert_eq!(arena.used_bytes() == 0, at_once, "{how}");
        for shard in ShardIndex::all() {
            bench.shared.keyspace.lock(ShardSet::one(shard), 0).free_all_deferred(shard);
        }
        assert_eq!(arena.used_bytes(), 0);
    }
}

#[test]
fn flushing_knows_no_other_word() {
    let bench = bench();
    for line in ["FLUSHDB foo", "FLUSHDB ASYNC SYNC", "FLUSHALL foo", "FLUSHALL SYNC SYNC"] {
        assert_eq!(bench.run(line), "-ERR syntax error\r\n", "{line}");
    }
    assert_eq!(sizes(&bench), (300, 100));
}

#[test]
fn a_flush_counts_each_key_as_a_change() {
    let bench = bench();
    let before = bench.shared.keyspace.stats().changes;
    bench.run("FLUSHALL");
    assert_eq!(bench.shared.keyspace.stats().changes, before + 400);
}

#[test]
fn swapped_databases_have_each_others_keys() {
    let bench = bench();
    assert_eq!(bench.run("SWAPDB 0 1"), OK);
    assert_eq!(sizes(&bench), (100, 300));
    assert_eq!(bench.run("GET k1"), "$3\r\none\r\n");
    assert_eq!(bench.run("TTL k1"), ":100\r\n");
    assert_eq!(bench.run("SWAPDB 1 1"), OK);
    assert_eq!(sizes(&bench), (100, 300));
    assert_eq!(bench.run("SWAPDB 1 0"), OK);
    assert_eq!(sizes(&bench), (300, 100));
    bench.shared.keyspace.verify(1).unwrap();
}

#[test]
fn a_swap_names_the_number_that_is_wrong() {
    let bench = bench();
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
        assert_eq!(bench.run(&format!("SWAPDB {numbers}")), error, "{numbers}");
    }
    assert_eq!(sizes(&bench), (300, 100));
}
