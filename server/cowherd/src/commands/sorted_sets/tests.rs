use super::*;
use crate::commands::testing::{TestServer, follow, refuse_too_few, words};
use crate::config::Config;

const NOT_FLOAT: &str = "-ERR value is not a valid float";
const NO_SCORE: &str = "-ERR min or max is not a float";
const SYNTAX: &str = "-ERR syntax error";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

/// A server where sorted sets of up to four members are compact.
fn server() -> TestServer {
    TestServer::with(64 << 20, Config { zset_max_listpack_entries: 4, ..Config::default() })
}

#[test]
fn every_command_counts_its_arguments() {
    refuse_too_few(&server(), COMMANDS);
}

#[test]
fn other_types_are_refused() {
    let server = server();
    server.run("SET s string");
    for line in [
        "ZADD s 1 a",
        "ZINCRBY s 1 a",
        "ZCARD s",
        "ZCOUNT s 1 2",
        "ZLEXCOUNT s - +",
        "ZSCORE s a",
        "ZMSCORE s a",
        "ZRANK s a",
        "ZREVRANK s a",
        "ZRANGE s 0 1",
        "ZREVRANGE s 0 1",
        "ZRANGEBYSCORE s 0 1",
        "ZREVRANGEBYSCORE s 0 1",
        "ZRANGEBYLEX s - +",
        "ZREVRANGEBYLEX s + -",
        "ZRANGESTORE t s 0 1",
        "ZREM s a",
        "ZREMRANGEBYRANK s 0 1",
        "ZREMRANGEBYSCORE s 0 1",
        "ZREMRANGEBYLEX s - +",
        "ZPOPMIN s",
        "ZPOPMAX s",
        "ZMPOP 1 s MIN",
        "ZUNION 1 s",
        "ZINTER 1 s",
        "ZDIFF 1 s",
        "ZUNIONSTORE t 1 s",
        "ZINTERSTORE t 1 s",
        "ZDIFFSTORE t 1 s",
        "ZINTERCARD 1 s",
        "ZRANDMEMBER s",
        "ZSCAN s 0",
    ] {
        follow(&server, &[(line, WRONG_TYPE)]);
    }
    follow(&server, &[("GET s", "$6\r\nstring"), ("EXISTS t", ":0")]);
}

#[test]
fn members_are_ordered_in_both_encodings() {
    let server = server();
    follow(&server, &[("ZADD z 3 c 1 a 2 b", ":3"), ("OBJECT ENCODING z", "$8\r\nlistpack")]);
    assert_eq!(words(&server, "ZRANGE z 0 -1 WITHSCORES"), "a 1 b 2 c 3");
    follow(&server, &[("ZADD z 0.5 d 2 aa", ":2"), ("OBJECT ENCODING z", "$8\r\nskiplist")]);
    assert_eq!(words(&server, "ZRANGE z 0 -1 WITHSCORES"), "d 0.5 a 1 aa 2 b 2 c 3");
    assert_eq!(words(&server, "ZRANGE z (1 3 BYSCORE"), "aa b c");
    assert_eq!(words(&server, "ZRANGE z 3 (1 BYSCORE REV LIMIT 1 2"), "b aa");
    follow(
        &server,
        &[
            ("ZADD z 9 d", ":0"),
            ("ZREVRANK z d", ":0"),
            ("ZRANK z d WITHSCORE", "*2\r\n:4\r\n$1\r\n9"),
            ("ZRANK z none WITHSCORE", "*-1"),
            ("ZRANK z none", "$-1"),
            ("ZRANK z d WITHSCORES", SYNTAX),
        ],
    );
}

#[test]
fn zadd_adds_all_pairs_or_none() {
    let server = server();
    follow(
        &server,
        &[
            ("ZADD z 1 a x b", NOT_FLOAT),
            ("EXISTS z", ":0"),
            ("ZADD z 1 a 2 a 3 b", ":2"),
            ("ZADD z CH GT 0 a 4 b 5 c", ":2"),
            ("ZADD z CH 1 a 1 b 1 c 1 d 1 e 1 f", ":6"),
            ("OBJECT ENCODING z", "$8\r\nskiplist"),
            ("ZADD z CH LT 0 a 2 b 0 c", ":2"),
        ],
    );
    assert_eq!(words(&server, "ZRANGE z 0 -1"), "a c b d e f");
}

#[test]
fn scores_are_doubles() {
    let server = server().resp3();
    follow(
        &server,
        &[
            ("ZADD z 0.1 a inf b", ":2"),
            ("ZSCORE z a", ",0.1"),
            ("ZINCRBY z 0.2 a", ",0.30000000000000004"),
            ("ZSCORE z b", ",inf"),
            ("ZINCRBY z -inf b", "-ERR resulting score is not a number (NaN)"),
            ("ZADD z INCR 17 a", ",17.3"),
            ("ZADD z NX INCR 17 a", "_"),
            ("ZPOPMAX z", "*2\r\n$1\r\nb\r\n,inf"),
            ("ZPOPMAX z 1", "*1\r\n*2\r\n$1\r\na\r\n,17.3"),
            ("ZPOPMAX z", "*0"),
        ],
    );
}

#[test]
fn score_bounds_are_parsed_as_strtod_does() {
    let server = server();
    server.run("ZADD z 0 a 1 b 2 c");
    follow(
        &server,
        &[
            ("ZCOUNT z \"\" 1", ":2"),
            ("ZCOUNT z \" 1\" 1e999", ":2"),
            ("ZCOUNT z ( 5", ":2"),
            ("ZCOUNT z \"1 \" 5", NO_SCORE),
            ("ZCOUNT z \" \" 5", NO_SCORE),
            ("ZCOUNT z nan 5", NO_SCORE),
            ("ZLEXCOUNT z a b", "-ERR min or max not valid string range item"),
        ],
    );
}

#[test]
fn random_members_are_members() {
    let server = server();
    server.run("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f");
    for count in 1..8usize {
        let reply = words(&server, &format!("ZRANDMEMBER z {count}"));
        let mut members: Vec<_> = reply.split(' ').collect();
        members.sort_unstable();
        members.dedup();
        assert_eq!(members.len(), count.min(6), "{reply}");
        assert!(members.iter().all(|member| "abcdef".contains(member)));
    }
    let reply = words(&server, "ZRANDMEMBER z -20");
    assert_eq!(reply.split(' ').count(), 20);
    follow(&server, &[("ZRANDMEMBER z -9000000000", "-ERR value is out of range")]);
}

#[test]
fn zscan_of_a_large_set_sees_every_member() {
    let server = server();
    for i in 0..300 {
        server.run(&format!("ZADD z {i} member:{i}"));
    }
    let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let reply = words(&server, &format!("ZSCAN z {cursor} MATCH member:* COUNT 20"));
        let mut parts = reply.split(' ');
        cursor = parts.next().unwrap().to_owned();
        while let (Some(member), Some(score)) = (parts.next(), parts.next()) {
            assert_eq!(member, format!("member:{score}"));
            seen.insert(member.to_owned());
        }
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 300);
    assert_eq!(words(&server, "ZSCAN missing 0 nonsense"), "0");
}
