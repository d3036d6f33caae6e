//! The commands that set and read an expiry, and the expiry itself.

use crate::commands::testing::TestServer;

const NOT_WITH_NX: &str =
    "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n";
const NOT_BOTH: &str = "-ERR GT and LT options at the same time are not compatible\r\n";

/// A server with a key `a`, and its clock.
fn server() -> (TestServer, i64) {
    let server = TestServer::new();
    server.run("SET a 1");
    let now = server.now.get();
    (server, now)
}

fn advance(server: &TestServer, milliseconds: i64) {
    server.now.set(server.now.get() + milliseconds);
}

#[test]
fn all_units_and_origins_agree() {
    let (server, now) = server();
    let lines = [
        "EXPIRE a 100".to_owned(),
        "PEXPIRE a 100000".to_owned(),
        format!("EXPIREAT a {}", now / 1000 + 100),
        format!("PEXPIREAT a {}", now + 100_000),
    ];
    for line in lines {
        assert_eq!(server.run("PERSIST a"), ":0\r\n");
        assert_eq!(server.run(&line), ":1\r\n", "{line}");
        assert_eq!(server.run("TTL a"), ":100\r\n");
        assert_eq!(server.run("PTTL a"), ":100000\r\n");
        assert_eq!(server.run("EXPIRETIME a"), format!(":{}\r\n", now / 1000 + 100));
        assert_eq!(server.run("PEXPIRETIME a"), format!(":{}\r\n", now + 100_000));
        assert_eq!(server.run("PERSIST a"), ":1\r\n");
        for question in ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"] {
            assert_eq!(server.run(&format!("{question} a")), ":-1\r\n");
            assert_eq!(server.run(&format!("{question} none")), ":-2\r\n");
        }
    }
    server.shared.keyspace.verify(1).unwrap();
}

#[test]
fn seconds_are_rounded_to_the_nearest() {
    let (server, now) = server();
    for (milliseconds, seconds) in [(1, 0), (499, 0), (500, 1), (1499, 1), (1500, 2)] {
        server.run(&format!("PEXPIRE a {milliseconds}"));
        assert_eq!(server.run("TTL a"), format!(":{seconds}\r\n"), "{milliseconds} ms");
        assert_eq!(server.run("EXPIRETIME a"), format!(":{}\r\n", now / 1000 + seconds));
    }
}

#[test]
fn keys_expire_in_time() {
    let (server, _) = server();
    server.run("EXPIRE a 10");
    advance(&server, 9_999);
    assert_eq!(server.run("PTTL a"), ":1\r\n");
    assert_eq!(server.run("GET a"), "$1\r\n1\r\n");
    advance(&server, 1);
    assert_eq!(server.run("TTL a"), ":-2\r\n");
    assert_eq!(server.run("GET a"), "$-1\r\n");
    assert_eq!(server.run("EXPIRE a 10"), ":0\r\n");
    assert_eq!(server.run("PERSIST a"), ":0\r\n");
    assert_eq!(server.shared.keyspace.stats().expired, 1);
}

#[test]
fn a_past_time_deletes_at_once() {
    let (server, now) = server();
    let lines = [
        "EXPIRE a 0".to_owned(),
        "EXPIRE a -1".to_owned(),
        "PEXPIRE a 0".to_owned(),
        format!("PEXPIRE a {}", i64::MIN),
        format!("EXPIREAT a {}", now / 1000),
        format!("PEXPIREAT a {now}"),
        format!("PEXPIREAT a {}", i64::MIN),
    ];
    for line in lines {
        server.run("SET a 1");
        assert_eq!(server.run(&line), ":1\r\n", "{line}");
        assert_eq!(server.run("EXISTS a"), ":0\r\n", "{line}");
        assert_eq!(server.run(&line), ":0\r\n", "{line}");
    }
    server.run("SET a 1");
    assert_eq!(server.run("EXPIRE a -1 XX"), ":0\r\n", "the rule comes first");
    assert_eq!(server.run("EXISTS a"), ":1\r\n");
}

#[test]
fn conditions_prevent_a_new_expiry() {
    let (server, _) = server();
    // Without an expiry, then with one in 100 seconds.
    let cases = [
        ("50 NX", true, false),
        ("50 XX", false, true),
        ("50 GT", false, false),
        ("50 LT", true, true),
        ("150 GT", false, true),
        ("150 LT", true, false),
        ("100 gt", false, false),
        ("100 lt", true, false),
        ("150 XX GT", false, true),
        ("50 lt xx", false, true),
        ("150 XX XX", false, true),
    ];
    for (rule, without, with) in cases {
        for (before, allowed) in [("PERSIST a", without), ("EXPIRE a 100", with)] {
            server.run(before);
            let old = server.run("TTL a");
            let line = format!("EXPIRE a {rule}");
            assert_eq!(
                server.run(&line),
                format!(":{}\r\n", u8::from(allowed)),
                "{before}, {line}"
            );
            let set = format!(":{}\r\n", rule.split(' ').next().unwrap());
            let expected = if allowed { set } else { old };
            assert_eq!(server.run("TTL a"), expected, "{before}, {line}");
        }
    }
}

#[test]
fn contradicting_conditions_are_refused() {
    let (server, _) = server();
    let cases = [
        ("NX XX", NOT_WITH_NX),
        ("XX NX", NOT_WITH_NX),
        ("NX GT", NOT_WITH_NX),
        ("LT NX", NOT_WITH_NX),
        ("NX GT LT", NOT_WITH_NX),
        ("GT LT", NOT_BOTH),
        ("XX LT GT", NOT_BOTH),
        ("Foo", "-ERR Unsupported option Foo\r\n"),
        ("NX XX bar", "-ERR Unsupported option bar\r\n"),
    ];
    for command in ["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"] {
        for (rule, error) in cases {
            // The conditions are parsed before the time, and both before the key is looked up.
            for line in [format!("{command} a x {rule}"), format!("{command} none 10 {rule}")] {
                assert_eq!(server.run(&line), error, "{line}");
            }
        }
    }
    assert_eq!(server.run("TTL a"), ":-1\r\n");
}

#[test]
fn times_out_of_range_are_refused() {
    let (server, now) = server();
    let cases = [
        ("expire", i64::MAX, false),
        ("expire", i64::MIN, false),
        ("expire", i64::MAX / 1000, false),
        ("expire", (i64::MAX - now) / 1000, true),
        ("pexpire", i64::MAX, false),
        ("pexpire", i64::MAX - now + 1, false),
        ("pexpire", i64::MAX - now, true),
        ("expireat", i64::MAX / 1000 + 1, false),
        ("expireat", i64::MAX / 1000, true),
        ("expireat", i64::MIN / 1000 - 1, false),
        ("pexpireat", i64::MAX, true),
    ];
    for (name, time, fits) in cases {
        let error = format!("-ERR invalid expire time in '{name}' command\r\n");
        let expected = if fits { ":1\r\n" } else { error.as_str() };
        assert_eq!(server.run(&format!("{name} a {time}")), expected, "{name} {time}");
        let expected = if fits { ":0\r\n" } else { error.as_str() };
        assert_eq!(server.run(&format!("{name} none {time}")), expected, "{name} {time}");
        let no_number = format!("{name} none 1{}", i64::MAX);
        assert_eq!(server.run(&no_number), "-ERR value is not an integer or out of range\r\n");
    }
    assert_eq!(server.run("PEXPIRETIME a"), format!(":{}\r\n", i64::MAX));
    assert_eq!(server.run("EXPIRETIME a"), ":9223372036854776\r\n");
}

#[test]
fn ttl_counts_no_access_and_expire_does() {
    let (server, _) = server();
    advance(&server, 60_000);
    for question in ["TTL a", "PTTL a", "EXPIRETIME a", "PEXPIRETIME a"] {
        let hits = server.shared.keyspace.stats().hits;
        server.run(question);
        assert_eq!(server.shared.keyspace.stats().hits, hits + 1, "{question}");
    }
    assert_eq!(server.run("OBJECT IDLETIME a"), ":60\r\n");
    server.run("EXPIRE a 1000");
    assert_eq!(server.run("OBJECT IDLETIME a"), ":0\r\n");
}
