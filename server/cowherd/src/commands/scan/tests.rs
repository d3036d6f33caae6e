//! KEYS, SCAN and RANDOMKEY, also while keys are created and deleted between the calls.

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

/// The reply of one SCAN: the next cursor and the keys.
fn scan(server: &TestServer, cursor: &str, options: &str) -> (String, Vec<String>) {
    let reply = server.run(&format!("SCAN {cursor} {options}"));
    let lines: Vec<&str> = reply.trim_end().split("\r\n").collect();
    assert_eq!(lines[0], "*2", "{reply}");
    assert_eq!(lines[1], format!("${}", lines[2].len()));
    (lines[2].to_owned(), elements(&lines[3..]))
}

/// All keys of a complete scan, and the number of calls.
fn scan_all(server: &TestServer, options: &str) -> (BTreeSet<String>, usize) {
    let (mut cursor, mut seen, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let (next, keys) = scan(server, &cursor, options);
        seen.extend(keys);
        calls += 1;
        if next == "0" {
            return (seen, calls);
        }
        assert!(calls < 10_000, "the scan does not end");
        cursor = next;
    }
}

fn keys(server: &TestServer, pattern: &str) -> BTreeSet<String> {
    let reply = server.run(&format!("KEYS {pattern}"));
    let listed = elements(&reply.trim_end().split("\r\n").collect::<Vec<_>>());
    let unique: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len(), "each key once");
    unique
}

fn names(prefix: &str, numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(|i| format!("{prefix}{i}")).collect()
}

fn fill(server: &TestServer, names: &BTreeSet<String>) {
    for name in names {
        server.run(&format!("SET {name} 1"));
    }
}

#[test]
fn scan_lists_every_key_with_any_count() {
    let server = TestServer::new();
    let all = names("key:", 0..3000);
    fill(&server, &all);
    for count in [1, 10, 333, 3000, 1_000_000] {
        let (seen, calls) = scan_all(&server, &format!("COUNT {count}"));
        assert_eq!(seen, all, "COUNT {count}");
        assert!(calls <= 3000 / count + 1, "{calls} calls of COUNT {count}");
    }
    let (_, calls) = scan_all(&server, "");
    assert!((30..=300).contains(&calls), "{calls} calls look at about ten keys each");
}

#[test]
fn a_scan_goes_on_over_empty_shards() {
    let server = TestServer::new();
    assert_eq!(server.run("SCAN 0"), "*2\r\n$1\r\n0\r\n*0\r\n");
    fill(&server, &names("k", 0..5));
    let (cursor, seen) = scan(&server, "0", "");
    assert_eq!((cursor.as_str(), seen.len()), ("0", 5));
}

/// The guarantee of SCAN: a key that exists from the first call to the last is listed, and a key
/// that never exists in that time is not. Nothing is guaranteed for other keys.
#[test]
fn stable_keys_are_listed_during_changes() {
    let stay = names("stay:", 0..2000);
    // The tables grow, shrink or churn during the scan.
    for (before, added, removed) in [(0, 100, 0), (12_000, 0, 150), (4000, 60, 60)] {
        let server = TestServer::new();
        fill(&server, &stay);
        fill(&server, &names("old:", 0..before));
        fill(&server, &names("gone:", 0..500));
        for i in 0..500 {
            server.run(&format!("DEL gone:{i}"));
        }
        let (mut cursor, mut seen, mut step) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let (next, keys) = scan(&server, &cursor, "COUNT 25");
            seen.extend(keys);
            if next == "0" {
                break;
            }
            cursor = next;
            for i in 0..added {
                server.run(&format!("SET new:{step}:{i} 1"));
            }
            for i in 0..removed {
                server.run(&format!("DEL old:{}", step * removed + i));
            }
            step += 1;
            assert!(step < 3000, "the scan does not end");
        }
        let missed: Vec<&String> = stay.difference(&seen).collect();
        assert!(missed.is_empty(), "missed {missed:?}");
        assert!(seen.iter().all(|key| !key.starts_with("gone:")));
        assert!(step > 50, "{step} steps prove nothing");
        server.shared.keyspace.verify(1).unwrap();
    }
}

#[test]
fn scan_filters_by_its_options() {
    let server = TestServer::new();
    fill(&server, &names("one:", 0..200));
    fill(&server, &names("two:", 0..200));
    let two = names("two:", 0..200);
    assert_eq!(scan_all(&server, "MATCH two:*").0, two);
    assert_eq!(scan_all(&server, "match two:* TYPE String count 7").0, two);
    assert_eq!(scan_all(&server, "MATCH one:[1-2]").0, names("one:", 1..3));
    assert!(scan_all(&server, "TYPE list").0.is_empty());
    assert!(scan_all(&server, "TYPE nonsense").0.is_empty());
    assert!(scan_all(&server, "MATCH *").0.len() == 400);
    let (cursor, keys) = scan(&server, "0", "MATCH none");
    assert!(cursor != "0" && keys.is_empty(), "keys were looked at, though none is listed");
    server.run("SELECT 1");
    assert!(scan_all(&server, "").0.is_empty());
}

#[test]
fn invalid_scans_are_refused() {
    let server = TestServer::new();
    let cursor = "-ERR invalid cursor\r\n";
    let lines = [
        ("SCAN", "-ERR wrong number of arguments for 'scan' command\r\n"),
        ("SCAN x", cursor),
        ("SCAN x COUNT", cursor),
        ("SCAN -", cursor),
        ("SCAN 1x", cursor),
        ("SCAN -1", cursor),
        ("SCAN -9223372036854775808", cursor),
        ("SCAN \"\"", cursor),
        ("SCAN \" \"", cursor),
        ("SCAN \"0 \"", cursor),
        ("SCAN 18446744073709551616", cursor),
        ("SCAN 0 COUNT", SYNTAX),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT -1", SYNTAX),
        ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range\r\n"),
        ("SCAN 0 MATCH", SYNTAX),
        ("SCAN 0 TYPE", SYNTAX),
        ("SCAN 0 FOO 1", SYNTAX),
        ("SCAN 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN\r\n"),
        ("HSCAN none -1", cursor),
        ("SSCAN none \"\"", cursor),
        ("ZSCAN none -1", cursor),
    ];
    for (line, error) in lines {
        assert_eq!(server.run(line), error, "{line}");
    }
}

#[test]
fn any_number_is_a_cursor() {
    let server = TestServer::new();
    fill(&server, &names("k", 0..1000));
    for cursor in ["18446744073709551615", "+7", "007", "\"  0\"", "123456789012345678"] {
        let (next, _) = scan(&server, cursor, "");
        assert!(next.parse::<u64>().is_ok(), "{cursor}");
    }
    assert_eq!(scan(&server, "-0", ""), scan(&server, "0", ""));
}

#[test]
fn keys_lists_all_that_match() {
    let server = TestServer::new();
    assert_eq!(server.run("KEYS *"), "*0\r\n");
    let all = names("key:", 0..2000);
    fill(&server, &all);
    assert_eq!(keys(&server, "*"), all);
    assert_eq!(keys(&server, "key:1?"), names("key:", 10..20));
    assert_eq!(keys(&server, "key:7"), names("key:", 7..8));
    assert!(keys(&server, "KEY:*").is_empty());
    assert_eq!(server.resp3().run("KEYS key:7"), "*1\r\n$5\r\nkey:7\r\n");
}

#[test]
fn expired_keys_are_never_listed() {
    let server = TestServer::new();
    fill(&server, &names("old:", 0..300));
    fill(&server, &names("new:", 0..3));
    for i in 0..300 {
        server.run(&format!("PEXPIRE old:{i} 5"));
    }
    server.now.set(server.now.get() + 5);
    assert_eq!(keys(&server, "*"), names("new:", 0..3));
    assert_eq!(scan_all(&server, "").0, names("new:", 0..3));
    for _ in 0..20 {
        assert!(server.run("RANDOMKEY").contains("new:"));
    }
}

#[test]
fn randomkey_can_return_any_key() {
    let server = TestServer::new();
    assert_eq!(server.run("RANDOMKEY"), "$-1\r\n");
    let all = names("k", 0..10);
    fill(&server, &all);
    // The probability that one of ten keys is missed in 2000 draws is below 1e-90.
    let met: BTreeSet<String> = (0..2000)
        .map(|_| server.run("RANDOMKEY").split("\r\n").nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(met, all);
    server.run("SELECT 1");
    assert_eq!(server.resp3().run("RANDOMKEY"), "_\r\n");
}

#[test]
fn randomkey_is_null_if_all_keys_are_expired() {
    let server = TestServer::new();
    for i in 0..100 {
        server.run(&format!("SET k{i} 1"));
        server.run(&format!("PEXPIRE k{i} 1"));
    }
    server.now.set(server.now.get() + 1);
    assert_eq!(server.run("RANDOMKEY"), "$-1\r\n");
    assert_eq!(server.run("DBSIZE"), ":0\r\n", "it removed them all");
    server.shared.keyspace.verify(1).unwrap();
}
