//! Replies of hash commands, mostly those that are newer than Redis 7.0: the `client-tests` compare
//! the others with a `redis-server`.

use crate::commands::testing::TestServer;

fn all(server: &TestServer, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(server.run(line), *expected, "{line}");
    }
}

/// An array of integers.
fn integers(numbers: &[i64]) -> String {
    let items: String = numbers.iter().map(|number| format!(":{number}\r\n")).collect();
    format!("*{}\r\n{items}", numbers.len())
}

#[test]
fn fields_expire() {
    let server = TestServer::new();
    server.run("HSET h a 1 b 2 c 3");
    assert_eq!(server.run("HEXPIRE h 100 FIELDS 2 a zz"), integers(&[1, -2]));
    assert_eq!(server.run("HPEXPIRE h 100500 NX FIELDS 2 a b"), integers(&[0, 1]));
    assert_eq!(server.run("HTTL h FIELDS 4 a b c d"), integers(&[100, 101, -1, -2]));
    assert_eq!(server.run("HPTTL h FIELDS 2 a b"), integers(&[100_000, 100_500]));
    assert_eq!(server.run("HEXPIRETIME h FIELDS 2 a b"), integers(&[1_700_000_100, 1_700_000_101]));
    assert_eq!(server.run("OBJECT ENCODING h"), "$10\r\nlistpackex\r\n");
    server.now.set(server.now.get() + 100_000);
    all(
        &server,
        &[
            ("HGET h a", "$-1\r\n"),
            ("HEXISTS h a", ":0\r\n"),
            ("HLEN h", ":2\r\n"),
            ("HDEL h a", ":0\r\n"),
            ("HSETNX h a 5", ":1\r\n"),
            ("HTTL h FIELDS 1 a", "*1\r\n:-1\r\n"),
            ("HPERSIST h FIELDS 3 a b x", "*3\r\n:-1\r\n:1\r\n:-2\r\n"),
            ("HEXPIRE h 0 FIELDS 3 a b c", "*3\r\n:2\r\n:2\r\n:2\r\n"),
            ("EXISTS h", ":0\r\n"),
        ],
    );
}

#[test]
fn hexpire_has_the_conditions_of_expire() {
    for entries in [0, 512] {
        let server = TestServer::new();
        server.run(&format!("CONFIG SET hash-max-listpack-entries {entries}"));
        server.run("HSET h a 1 b 2");
        let expire = |rest: &str| server.run(&format!("HEXPIRE h {rest}"));
        assert_eq!(expire("10 XX FIELDS 1 a"), integers(&[0]));
        assert_eq!(expire("10 GT FIELDS 1 a"), integers(&[0]));
        assert_eq!(expire("10 LT FIELDS 1 a"), integers(&[1]));
        assert_eq!(expire("10 LT FIELDS 1 a"), integers(&[0]));
        assert_eq!(expire("11 gt FIELDS 2 a b"), integers(&[1, 0]));
        assert_eq!(expire("9 xx FIELDS 2 a b"), integers(&[1, 0]));
        assert_eq!(expire("9 nx FIELDS 2 a b"), integers(&[0, 1]));
    }
}

#[test]
fn writes_clear_or_keep_the_expiry_of_fields() {
    for entries in [0, 512] {
        let server = TestServer::new();
        server.run(&format!("CONFIG SET hash-max-listpack-entries {entries}"));
        let ttl = |set: &str| {
            server.run("HSET h f 1 g 2");
            server.run("HEXPIRE h 50 FIELDS 1 f");
            let reply = server.run(set);
            assert_ne!(reply.as_bytes()[0], b'-', "{reply}");
            server.run("HTTL h FIELDS 1 f")
        };
        assert_eq!(ttl("HSET h f 2"), integers(&[-1]));
        assert_eq!(ttl("HMSET h f 2 g 3"), integers(&[-1]));
        assert_eq!(ttl("HINCRBY h f 2"), integers(&[50]));
        assert_eq!(ttl("HINCRBYFLOAT h f 2.5"), integers(&[50]));
        assert_eq!(ttl("HSETEX h KEEPTTL FIELDS 1 f a-longer-one"), integers(&[50]));
        assert_eq!(ttl("HSETEX h EX 7 FIELDS 1 f 2"), integers(&[7]));
        assert_eq!(ttl("HGETEX h EX 8 FIELDS 1 f"), integers(&[8]));
        assert_eq!(ttl("HGETEX h PERSIST FIELDS 1 f"), integers(&[-1]));
        assert_eq!(ttl("HGETEX h FIELDS 1 f"), integers(&[50]));
        assert_eq!(ttl("COPY h other"), integers(&[50]));
        assert_eq!(server.run("HTTL other FIELDS 1 f"), integers(&[50]));
    }
}

/// The error messages are those of Redis 8.2.
#[test]
fn hgetdel_hgetex_hsetex_check_their_arguments() {
    let server = TestServer::new();
    server.run("HSET h a 1 b 2");
    server.run("SET s x");
    for (line, error) in [
        ("HEXPIRE h x FIELDS 1 a", "ERR value is not an integer or out of range"),
        ("HEXPIRE h -1 FIELDS 1 a", "ERR invalid expire time, must be >= 0"),
        ("HEXPIRE h 100 FIELDS 0 a", "ERR Parameter `numFields` should be greater than 0"),
        ("HEXPIRE h 99999999999999999 FIELDS 1 a", "ERR invalid expire time in 'hexpire' command"),
        (
            "HPEXPIREAT h 70368744177664 FIELDS 1 a",
            "ERR invalid expire time in 'hpexpireat' command",
        ),
        (
            "HEXPIRE h 100 FIELDS 2 a",
            "ERR The `numfields` parameter must match the number of arguments",
        ),
        (
            "HEXPIRE h 100 nx xx FIELDS 1 a",
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ),
        ("HTTL h FIELDS 0 a", "ERR Number of fields must be a positive integer"),
        ("HTTL s FIELDS 0 a", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("HSETEX h FNX FXX FIELDS 1 a 1", "ERR Only one of FXX or FNX arguments can be specified"),
        (
            "HSETEX h EX 10 KEEPTTL FIELDS 1 a 1",
            "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
        ),
        ("HSETEX h FIELDS 0 a 1", "ERR invalid number of fields"),
        ("HSETEX h FIELDS 2 a 1", "ERR wrong number of arguments for 'hsetex' command"),
        ("HSETEX h FIELDZ 1 a 1", "ERR unknown argument: FIELDZ"),
        (
            "HGETEX h EX 10 PERSIST FIELDS 1 a",
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ),
    ] {
        assert_eq!(server.run(line), format!("-{error}\r\n"), "{line}");
    }
    all(&server, &[("HGET h a", "$1\r\n1\r\n"), ("HTTL h FIELDS 1 a", "*1\r\n:-1\r\n")]);
}

#[test]
fn hgetdel_hgetex_hsetex_read_and_set() {
    let server = TestServer::new();
    all(
        &server,
        &[
            ("HSETEX h FXX FIELDS 1 a 1", ":0\r\n"),
            ("HSETEX h FNX FIELDS 2 a 1 b 2", ":1\r\n"),
            ("HSETEX h FNX FIELDS 2 b 1 c 2", ":0\r\n"),
            ("HSETEX h FXX EX 5 FIELDS 2 a 3 b 4", ":1\r\n"),
            ("HTTL h FIELDS 2 a b", "*2\r\n:5\r\n:5\r\n"),
            ("HGETEX h FIELDS 2 a x", "*2\r\n$1\r\n3\r\n$-1\r\n"),
            ("HSETEX h EXAT 1 FIELDS 1 a 9", ":1\r\n"),
            ("HGETDEL h FIELDS 3 a b b", "*3\r\n$-1\r\n$1\r\n4\r\n$-1\r\n"),
            ("EXISTS h", ":0\r\n"),
            ("HGETDEL h FIELDS 1 a", "*1\r\n$-1\r\n"),
            ("HGETEX h EX 5 FIELDS 1 a", "*1\r\n$-1\r\n"),
        ],
    );
}

#[test]
fn encodings_follow_the_limits() {
    let server = TestServer::new();
    let encoding = || server.run("OBJECT ENCODING h");
    server.run("CONFIG SET hash-max-ziplist-entries 3 hash-max-listpack-value 5");
    server.run("HSET h a 1 b 2 c 3");
    assert_eq!(encoding(), "$8\r\nlistpack\r\n");
    server.run("HSET h c 12345");
    assert_eq!(encoding(), "$8\r\nlistpack\r\n");
    server.run("HSET h d 4");
    assert_eq!(encoding(), "$9\r\nhashtable\r\n");
    server.run("HDEL h d c b");
    assert_eq!(encoding(), "$9\r\nhashtable\r\n", "it stays one");
    server.run("DEL h");
    server.run("HSET h a 123456");
    assert_eq!(encoding(), "$9\r\nhashtable\r\n");
    server.run("HEXPIRE h 10 FIELDS 1 a");
    assert_eq!(encoding(), "$9\r\nhashtable\r\n");
}

#[test]
fn random_fields_exist_and_are_distinct() {
    for entries in [0, 512] {
        let server = TestServer::new();
        server.run(&format!("CONFIG SET hash-max-listpack-entries {entries}"));
        for i in 0..100 {
            server.run(&format!("HSET h field:{i} {i}"));
        }
        let names = |reply: &str| -> Vec<String> {
            reply.split("\r\n").filter(|s| s.starts_with("field")).map(String::from).collect()
        };
        for count in [1, 5, 30, 99, 100] {
            let mut chosen = names(&server.run(&format!("HRANDFIELD h {count}")));
            chosen.sort();
            chosen.dedup();
            assert_eq!(chosen.len(), count);
        }
        assert_eq!(names(&server.run("HRANDFIELD h 1000")).len(), 100);
        assert_eq!(names(&server.run("HRANDFIELD h -1000")).len(), 1000);
        assert_eq!(names(&server.run("HRANDFIELD h")).len(), 1);
        assert!(server.run("HRANDFIELD h -2 WITHVALUES").starts_with("*4\r\n$"));
        assert_eq!(server.run("HRANDFIELD h -999999999"), "-ERR value is out of range\r\n");
        let server = server.resp3();
        assert!(server.run("HRANDFIELD h -2 WITHVALUES").starts_with("*2\r\n*2\r\n$"));
    }
}

#[test]
fn a_scan_sees_each_field_of_a_growing_hash() {
    let server = TestServer::new();
    for i in 0..2000 {
        server.run(&format!("HSET h field:{i} {i}"));
    }
    let (mut cursor, mut seen, mut more) =
        ("0".to_owned(), std::collections::BTreeSet::new(), 2000);
    loop {
        let reply = server.run(&format!("HSCAN h {cursor} COUNT 50 NOVALUES MATCH field:*"));
        let mut lines = reply.split("\r\n").filter(|line| !line.starts_with(['$', '*']));
        cursor = lines.next().unwrap().to_owned();
        seen.extend(lines.map(str::to_owned));
        for _ in 0..100 {
            server.run(&format!("HSET h field:{more} {more}"));
            more += 1;
        }
        if cursor == "0" {
            break;
        }
    }
    for i in 0..2000 {
        assert!(seen.contains(&format!("field:{i}")), "{i}");
    }
}

#[test]
fn string_commands_refuse_hashes() {
    let server = TestServer::new();
    server.run("HSET h a 1");
    let refused = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    for line in [
        "GET h",
        "SET h x GET",
        "APPEND h x",
        "STRLEN h",
        "INCR h",
        "INCRBYFLOAT h 1",
        "GETRANGE h 0 1",
        "SETRANGE h 0 x",
        "GETSET h x",
        "GETDEL h",
        "GETEX h",
        "LCS h h",
        "SETBIT h 1 1",
        "GETBIT h 1",
        "BITCOUNT h",
        "BITPOS h 1",
        "BITFIELD h GET u8 0",
        "BITOP NOT d h",
    ] {
        let reply = server.run(line);
        let is_lcs = line.starts_with("LCS") && reply.starts_with("-");
        assert!(reply == refused || is_lcs, "{line}: {reply}");
    }
    all(
        &server,
        &[
            ("MGET h", "*1\r\n$-1\r\n"),
            ("TYPE h", "+hash\r\n"),
            ("SETNX h x", ":0\r\n"),
            ("SET h x", "+OK\r\n"),
            ("HGET h a", refused),
        ],
    );
}
