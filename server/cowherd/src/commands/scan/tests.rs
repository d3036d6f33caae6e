//! KEYS, SCAN and RANDOMKEY, also while keys come and go between the calls.

use std::collections::BTreeSet;

use crate::commands::testing::TestServer;

const SYNTAX: &str = "-ERR syntax error\r\n";

/// The elements of a list of bulk strings.
fn elements(lines: &[&str]) -> Vec<String> {
    let len: usize = lines[0].strip_prefix('*').unwrap().parse().unwrap();
    let elements: Vec<String> =
        lines[1..].iter().skip(1).step_by(2).map(|s| s.to_string()).collect();
    assert_eq!(elements.len(), len);
    elements
}

/// One SCAN: the next cursor and the keys.
fn scan(bench: &TestServer, cursor: &str, options: &str) -> (String, Vec<String>) {
    let reply = bench.run(&format!("SCAN {cursor} {options}"));
    let lines: Vec<&str> = reply.trim_end().split("\r\n").collect();
    assert_eq!(lines[0], "*2", "{reply}");
    assert_eq!(lines[1], format!("${}", lines[2].len()));
    (lines[2].to_owned(), elements(&lines[3..]))
}

/// All keys that a whole scan lists, and the number of calls it took.
fn scan_all(bench: &TestServer, options: &str) -> (BTreeSet<String>, usize) {
    let (mut cursor, mut seen, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let (next, keys) = scan(bench, &cursor, options);
        seen.extend(keys);
        calls += 1;
        if next == "0" {
            return (seen, calls);
        }
        assert!(calls < 10_000, "the scan does not end");
        cursor = next;
    }
}

fn keys(bench: &TestServer, pattern: &str) -> BTreeSet<String> {
    let reply = bench.run(&format!("KEYS {pattern}"));
    let listed = elements(&reply.trim_end().split("\r\n").collect::<Vec<_>>());
    let unique: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len(), "each key once");
    unique
}

fn names(prefix: &str, numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(|i| format!("{prefix}{i}")).collect()
}

fn fill(bench: &TestServer, names: &BTreeSet<String>) {
    for name in names {
        bench.run(&format!("SET {name} 1"));
    }
}

#[test]
fn a_scan_lists_every_key_whatever_its_steps() {
    let bench = TestServer::new();
    let all = names("key:", 0..3000);
    fill(&bench, &all);
    for count in [1, 10, 333, 3000, 1_000_000] {
        let (seen, calls) = scan_all(&bench, &format!("COUNT {count}"));
        assert_eq!(seen, all, "COUNT {count}");
        assert!(calls <= 3000 / count + 1, "{calls} calls of COUNT {count}");
    }
    let (_, calls) = scan_all(&bench, "");
    assert!((30..=300).contains(&calls), "{calls} calls look at about ten keys each");
}

#[test]
fn a_scan_goes_on_over_empty_shards() {
    let bench = TestServer::new();
    assert_eq!(bench.run("SCAN 0"), "*2\r\n$1\r\n0\r\n*0\r\n");
    fill(&bench, &names("k", 0..5));
    let (cursor, seen) = scan(&bench, "0", "");
    assert_eq!((cursor.as_str(), seen.len()), ("0", 5));
}

/// What SCAN promises: a key that is there from the first call to the last is listed, one that
/// never is in that time is not; all else is open.
#[test]
fn keys_that_stay_are_listed_though_others_come_and_go() {
    let stay = names("stay:", 0..2000);
    // The tables grow, shrink, or churn while they are walked.
    for (before, added, removed) in [(0, 100, 0), (12_000, 0, 150), (4000, 60, 60)] {
        let bench = TestServer::new();
        fill(&bench, &stay);
        fill(&bench, &names("old:", 0..before));
        fill(&bench, &names("gone:", 0..500));
        for i in 0..500 {
            bench.run(&format!("DEL gone:{i}"));
        }
        let (mut cursor, mut seen, mut step) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let (next, keys) = scan(&bench, &cursor, "COUNT 25");
            seen.extend(keys);
            if next == "0" {
                break;
            }
            cursor = next;
            for i in 0..added {
                bench.run(&format!("SET new:{step}:{i} 1"));
            }
            for i in 0..removed {
                bench.run(&format!("DEL old:{}", step * removed + i));
            }
            step += 1;
            assert!(step < 3000, "the scan does not end");
        }
        let missed: Vec<&String> = stay.difference(&seen).collect();
        assert!(missed.is_empty(), "missed {missed:?}");
        assert!(seen.iter().all(|key| !key.starts_with("gone:")));
        assert!(step > 50, "{step} steps prove nothing");
        bench.shared.keyspace.verify(1).unwrap();
    }
}

#[test]
fn a_scan_lists_what_its_options_want() {
    let bench = TestServer::new();
    fill(&bench, &names("one:", 0..200));
    fill(&bench, &names("two:", 0..200));
    let two = names("two:", 0..200);
    assert_eq!(scan_all(&bench, "MATCH two:*").0, two);
    assert_eq!(scan_all(&bench, "match two:* TYPE String count 7").0, two);
    assert_eq!(scan_all(&bench, "MATCH one:[1-2]").0, names("one:", 1..3));
    assert!(scan_all(&bench, "TYPE list").0.is_empty());
    assert!(scan_all(&bench, "TYPE nonsense").0.is_empty());
    assert!(scan_all(&bench, "MATCH *").0.len() == 400);
    let (cursor, keys) = scan(&bench, "0", "MATCH none");
    assert!(cursor != "0" && keys.is_empty(), "keys were looked at, though none is listed");
    bench.run("SELECT 1");
    assert!(scan_all(&bench, "").0.is_empty());
}

#[test]
fn a_scan_that_makes_no_sense_is_refused() {
    let bench = TestServer::new();
    let cursor = "-ERR invalid cursor\r\n";
    let lines = [
        ("SCAN", "-ERR wrong number of arguments for 'scan' command\r\n"),
        ("SCAN x", cursor),
        ("SCAN x COUNT", cursor),
        ("SCAN -", cursor),
        ("SCAN 1x", cursor),
        ("SCAN \" 0\"", cursor),
        ("SCAN \"0 \"", cursor),
        ("SCAN 18446744073709551616", cursor),
        ("SCAN 0 COUNT", SYNTAX),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT -1", SYNTAX),
        ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range\r\n"),
        ("SCAN 0 MATCH", SYNTAX),
        ("SCAN 0 TYPE", SYNTAX),
        ("SCAN 0 FOO 1", SYNTAX),
    ];
    for (line, error) in lines {
        assert_eq!(bench.run(line), error, "{line}");
    }
}

#[test]
fn any_number_is_some_cursor() {
    let bench = TestServer::new();
    fill(&bench, &names("k", 0..1000));
    for cursor in ["18446744073709551615", "-1", "+7", "007", "\"\"", "123456789012345678"] {
        let (next, _) = scan(&bench, cursor, "");
        assert!(next.parse::<u64>().is_ok(), "{cursor}");
    }
    assert_eq!(scan(&bench, "\"\"", ""), scan(&bench, "0", ""));
}

#[test]
fn keys_lists_all_that_match() {
    let bench = TestServer::new();
    assert_eq!(bench.run("KEYS *"), "*0\r\n");
    let all = names("key:", 0..2000);
    fill(&bench, &all);
    assert_eq!(keys(&bench, "*"), all);
    assert_eq!(keys(&bench, "key:1?"), names("key:", 10..20));
    assert_eq!(keys(&bench, "key:7"), names("key:", 7..8));
    assert!(keys(&bench, "KEY:*").is_empty());
    assert_eq!(bench.resp3().run("KEYS key:7"), "*1\r\n$5\r\nkey:7\r\n");
}

#[test]
fn expired_keys_are_listed_by_nothing() {
    let bench = TestServer::new();
    fill(&bench, &names("old:", 0..300));
    fill(&bench, &names("new:", 0..3));
    for i in 0..300 {
        bench.run(&format!("PEXPIRE old:{i} 5"));
    }
    bench.now.set(bench.now.get() + 5);
    assert_eq!(keys(&bench, "*"), names("new:", 0..3));
    assert_eq!(scan_all(&bench, "").0, names("new:", 0..3));
    for _ in 0..20 {
        assert!(bench.run("RANDOMKEY").contains("new:"));
    }
}

#[test]
fn any_key_can_be_the_random_one() {
    let bench = TestServer::new();
    assert_eq!(bench.run("RANDOMKEY"), "$-1\r\n");
    let all = names("k", 0..10);
    fill(&bench, &all);
    // That one of ten is never met in 2000 tries has a chance below 1e-90.
    let met: BTreeSet<String> = (0..2000)
        .map(|_| bench.run("RANDOMKEY").split("\r\n").nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(met, all);
    bench.run("SELECT 1");
    assert_eq!(bench.resp3().run("RANDOMKEY"), "_\r\n");
}

#[test]
fn the_random_key_of_expired_ones_is_null() {
    let bench = TestServer::new();
    for i in 0..100 {
        bench.run(&format!("SET k{i} 1"));
        bench.run(&format!("PEXPIRE k{i} 1"));
    }
    bench.now.set(bench.now.get() + 1);
    assert_eq!(bench.run("RANDOMKEY"), "$-1\r\n");
    assert_eq!(bench.run("DBSIZE"), ":0\r\n", "it removed them all");
    bench.shared.keyspace.verify(1).unwrap();
}
