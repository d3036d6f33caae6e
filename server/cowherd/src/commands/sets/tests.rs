use crate::commands::testing::{TestServer, follow};

fn script(lines: &[(&str, &str)]) -> TestServer {
    let server = TestServer::new();
    follow(&server, lines);
    server
}

/// The bulk strings of a reply, sorted.
fn sorted(reply: &str) -> Vec<String> {
    let lines: Vec<&str> = reply.split("\r\n").collect();
    let mut bulks: Vec<String> = lines
        .windows(2)
        .filter(|pair| pair[0].starts_with('$') && pair[0] != "$-1")
        .map(|pair| pair[1].to_owned())
        .collect();
    bulks.sort();
    bulks
}

const NOT_POSITIVE: &str = "-ERR value is out of range, must be positive";
const SYNTAX: &str = "-ERR syntax error";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
fn every_command_refuses_another_type() {
    let server = script(&[("SET s x", "+OK"), ("SADD set a", ":1")]);
    for line in [
        "SADD s a",
        "SREM s a",
        "SMOVE s set a",
        "SMOVE set s a",
        "SISMEMBER s a",
        "SMISMEMBER s a",
        "SCARD s",
        "SMEMBERS s",
        "SSCAN s 0",
        "SPOP s",
        "SPOP s 1",
        "SRANDMEMBER s",
        "SRANDMEMBER s 1",
        "SINTER none s",
        "SINTERCARD 2 none s",
        "SINTERSTORE t set s",
        "SUNION set s",
        "SUNIONSTORE t s",
        "SDIFF none s",
        "SDIFFSTORE t set s",
    ] {
        assert_eq!(server.run(line), format!("{WRONG_TYPE}\r\n"), "{line}");
    }
    assert_eq!(server.run("SMOVE none s a"), ":0\r\n");
}

#[test]
fn members_are_added_and_removed() {
    let server = script(&[
        ("SADD s 3 1 2 1", ":3"),
        ("SMEMBERS s", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3"),
        ("OBJECT ENCODING s", "$6\r\nintset"),
        ("SADD s x 1", ":1"),
        ("OBJECT ENCODING s", "$8\r\nlistpack"),
        ("SCARD s", ":4"),
        ("SISMEMBER s 01", ":0"),
        ("SISMEMBER s x", ":1"),
        ("SMISMEMBER s x y 3", "*3\r\n:1\r\n:0\r\n:1"),
        ("SMISMEMBER none x", "*1\r\n:0"),
        ("SREM s x y 1 2", ":3"),
        ("SREM s 3", ":1"),
        ("EXISTS s", ":0"),
        ("SREM s 3", ":0"),
        ("SCARD s", ":0"),
        ("SMEMBERS s", "*0"),
    ]);
    let long = "y".repeat(65);
    follow(
        &server,
        &[
            ("SADD l a", ":1"),
            (&format!("SADD l {long}"), ":1"),
            ("OBJECT ENCODING l", "$9\r\nhashtable"),
            (&format!("SISMEMBER l {long}"), ":1"),
            ("SREM l a", ":1"),
            ("OBJECT ENCODING l", "$9\r\nhashtable"),
        ],
    );
    let numbers: Vec<String> = (0..513).map(|i| i.to_string()).collect();
    follow(
        &server,
        &[
            (&format!("SADD i {}", numbers[..512].join(" ")), ":512"),
            ("OBJECT ENCODING i", "$6\r\nintset"),
            ("SADD i 512", ":1"),
            ("OBJECT ENCODING i", "$9\r\nhashtable"),
            (&format!("SADD j {}", numbers.join(" ")), ":513"),
            ("OBJECT ENCODING j", "$9\r\nhashtable"),
        ],
    );
    assert_eq!(TestServer::new().resp3().run("SMEMBERS none"), "~0\r\n");
}

#[test]
fn smove_moves_a_member() {
    script(&[
        ("SADD a x y", ":2"),
        ("SMOVE a b x", ":1"),
        ("SMOVE a b x", ":0"),
        ("SMOVE b b x", ":1"),
        ("SMOVE b b y", ":0"),
        ("SADD b y", ":1"),
        ("SMOVE a b y", ":1"),
        ("EXISTS a", ":0"),
        ("SCARD b", ":2"),
    ]);
}

#[test]
fn spop_and_srandmember() {
    let server = script(&[
        ("SPOP none", "$-1"),
        ("SPOP none 3", "*0"),
        ("SPOP none -1", NOT_POSITIVE),
        ("SPOP none x", NOT_POSITIVE),
        ("SPOP none 1 2", SYNTAX),
        ("SRANDMEMBER none", "$-1"),
        ("SRANDMEMBER none 3", "*0"),
        ("SRANDMEMBER none x", "-ERR value is not an integer or out of range"),
        ("SRANDMEMBER none 1 2", SYNTAX),
        ("SADD s a b c", ":3"),
        ("SPOP s 0", "*0"),
        ("SRANDMEMBER s 0", "*0"),
    ]);
    assert_eq!(sorted(&server.run("SRANDMEMBER s 10")), ["a", "b", "c"]);
    assert_eq!(sorted(&server.run("SRANDMEMBER s 2")).len(), 2);
    assert_eq!(sorted(&server.run("SRANDMEMBER s -10")).len(), 10);
    assert_eq!(sorted(&server.run("SPOP s 2")).len(), 2);
    assert_eq!(sorted(&server.run("SPOP s 2")).len(), 1);
    assert_eq!(server.run("EXISTS s"), ":0\r\n");
    let numbers: Vec<String> = (0..1000).map(|i| format!("m{i}")).collect();
    server.run(&format!("SADD big {}", numbers.join(" ")));
    let mut some = sorted(&server.run("SRANDMEMBER big 100"));
    some.dedup();
    assert_eq!(some.len(), 100);
    let mut most = sorted(&server.run("SRANDMEMBER big 999"));
    most.dedup();
    assert_eq!(most.len(), 999);
    assert_eq!(sorted(&server.run("SPOP big 990")).len(), 990);
    assert_eq!(server.run("SCARD big"), ":10\r\n");
}

#[test]
fn intersections_unions_differences() {
    let server = script(&[
        ("SADD a 1 2 3 x", ":4"),
        ("SADD b 2 3 4", ":3"),
        ("SADD c 3 x", ":2"),
        ("SINTER a none", "*0"),
        ("SINTERCARD 2 a b", ":2"),
        ("SINTERCARD 2 a b LIMIT 1", ":1"),
        ("SINTERCARD 2 a b LIMIT 0", ":2"),
        ("SINTERCARD 0 a", "-ERR numkeys should be greater than 0"),
        ("SINTERCARD x a", "-ERR numkeys should be greater than 0"),
        ("SINTERCARD 3 a b", "-ERR Number of keys can't be greater than number of args"),
        ("SINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative"),
        ("SINTERCARD 1 a LIMIT", SYNTAX),
        ("SINTERCARD 1 a b", SYNTAX),
        ("SUNIONSTORE d a b c", ":5"),
        ("SDIFFSTORE e a none", ":4"),
        ("SINTERSTORE d b none", ":0"),
        ("EXISTS d", ":0"),
        ("SINTERSTORE a a b", ":2"),
        ("OBJECT ENCODING a", "$6\r\nintset"),
    ]);
    assert_eq!(sorted(&server.run("SINTER e c")), ["3", "x"]);
    assert_eq!(sorted(&server.run("SUNION a c none")), ["2", "3", "x"]);
    assert_eq!(sorted(&server.run("SDIFF e b none")), ["1", "x"]);
    assert_eq!(sorted(&server.run("SDIFF none b")), [""; 0]);
}

#[test]
fn both_difference_algorithms_agree() {
    let server = TestServer::new();
    let numbers: Vec<String> = (0..300).map(|i| format!("m{i}")).collect();
    server.run(&format!("SADD all {}", numbers.join(" ")));
    for i in 0..5 {
        server.run(&format!("SADD few{i} m{i} m{}", i * 10));
    }
    let difference = sorted(&server.run("SDIFF all few0 few1 few2 few3 few4"));
    assert_eq!(difference.len(), 300 - 9);
    let mut gone = 0;
    for i in 0..5 {
        gone += sorted(&server.run(&format!("SDIFF few{i} all"))).len();
    }
    assert_eq!(gone, 0);
}

#[test]
fn a_scan_sees_every_member() {
    let server = script(&[
        ("SSCAN none 0", "*2\r\n$1\r\n0\r\n*0"),
        ("SSCAN none 0 COUNT x", "*2\r\n$1\r\n0\r\n*0"),
        ("SSCAN none x", "-ERR invalid cursor"),
        ("SADD s 2 1", ":2"),
        ("SSCAN s 0", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\n1\r\n$1\r\n2"),
        ("SSCAN s 0 MATCH 2*", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\n2"),
        ("SSCAN s 0 COUNT 0", SYNTAX),
        ("SSCAN s 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN"),
        ("SSCAN s 0 TYPE set", SYNTAX),
    ]);
    let numbers: Vec<String> = (0..2000).map(|i| format!("m{i}")).collect();
    server.run(&format!("SADD big {}", numbers.join(" ")));
    let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let reply = server.run(&format!("SSCAN big {cursor}"));
        cursor = reply.split("\r\n").nth(2).unwrap().to_owned();
        seen.extend(sorted(&reply).into_iter().filter(|member| member.starts_with('m')));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 2000);
}
