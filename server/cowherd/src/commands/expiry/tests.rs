//! The four ways to set an expiry, the four ways to ask for it, and what happens when it comes.

use crate::commands::testing::TestServer;

const NOT_WITH_NX: &str =
    "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n";
const NOT_BOTH: &str = "-ERR GT and LT options at the same time are not compatible\r\n";

/// A bench with a key `a`, and its clock.
fn bench() -> (TestServer, i64) {
    let bench = TestServer::new();
    bench.run("SET a 1");
    let now = bench.now.get();
    (bench, now)
}

fn advance(bench: &TestServer, milliseconds: i64) {
    bench.now.set(bench.now.get() + milliseconds);
}

#[test]
fn each_unit_and_origin_says_the_same_time() {
    let (bench, now) = bench();
    let lines = [
        "EXPIRE a 100".to_owned(),
        "PEXPIRE a 100000".to_owned(),
        format!("EXPIREAT a {}", now / 1000 + 100),
        format!("PEXPIREAT a {}", now + 100_000),
    ];
    for line in lines {
        assert_eq!(bench.run("PERSIST a"), ":0\r\n");
        assert_eq!(bench.run(&line), ":1\r\n", "{line}");
        assert_eq!(bench.run("TTL a"), ":100\r\n");
        assert_eq!(bench.run("PTTL a"), ":100000\r\n");
        assert_eq!(bench.run("EXPIRETIME a"), format!(":{}\r\n", now / 1000 + 100));
        assert_eq!(bench.run("PEXPIRETIME a"), format!(":{}\r\n", now + 100_000));
        assert_eq!(bench.run("PERSIST a"), ":1\r\n");
        for question in ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"] {
            assert_eq!(bench.run(&format!("{question} a")), ":-1\r\n");
            assert_eq!(bench.run(&format!("{question} none")), ":-2\r\n");
        }
    }
    bench.shared.keyspace.verify(1).unwrap();
}

#[test]
fn seconds_are_rounded_to_the_nearest() {
    let (bench, now) = bench();
    for (milliseconds, seconds) in [(1, 0), (499, 0), (500, 1), (1499, 1), (1500, 2)] {
        bench.run(&format!("PEXPIRE a {milliseconds}"));
        assert_eq!(bench.run("TTL a"), format!(":{seconds}\r\n"), "{milliseconds} ms");
        assert_eq!(bench.run("EXPIRETIME a"), format!(":{}\r\n", now / 1000 + seconds));
    }
}

#[test]
fn a_key_is_gone_when_its_time_has_come() {
    let (bench, _) = bench();
    bench.run("EXPIRE a 10");
    advance(&bench, 9_999);
    assert_eq!(bench.run("PTTL a"), ":1\r\n");
    assert_eq!(bench.run("GET a"), "$1\r\n1\r\n");
    advance(&bench, 1);
    assert_eq!(bench.run("TTL a"), ":-2\r\n");
    assert_eq!(bench.run("GET a"), "$-1\r\n");
    assert_eq!(bench.run("EXPIRE a 10"), ":0\r\n");
    assert_eq!(bench.run("PERSIST a"), ":0\r\n");
    assert_eq!(bench.shared.keyspace.stats().expired, 1);
}

#[test]
fn a_time_that_has_passed_deletes_at_once() {
    let (bench, now) = bench();
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
        bench.run("SET a 1");
        assert_eq!(bench.run(&line), ":1\r\n", "{line}");
        assert_eq!(bench.run("EXISTS a"), ":0\r\n", "{line}");
        assert_eq!(bench.run(&line), ":0\r\n", "{line}");
    }
    bench.run("SET a 1");
    assert_eq!(bench.run("EXPIRE a -1 XX"), ":0\r\n", "the rule comes first");
    assert_eq!(bench.run("EXISTS a"), ":1\r\n");
}

#[test]
fn conditions_hold_an_expiry_back() {
    let (bench, _) = bench();
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
            bench.run(before);
            let old = bench.run("TTL a");
            let line = format!("EXPIRE a {rule}");
            assert_eq!(bench.run(&line), format!(":{}\r\n", u8::from(allowed)), "{before}, {line}");
            let set = format!(":{}\r\n", rule.split(' ').next().unwrap());
            let expected = if allowed { set } else { old };
            assert_eq!(bench.run("TTL a"), expected, "{before}, {line}");
        }
    }
}

#[test]
fn conditions_that_contradict_each_other_are_refused() {
    let (bench, _) = bench();
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
            // The conditions are read before the time, and both before the key.
            for line in [format!("{command} a x {rule}"), format!("{command} none 10 {rule}")] {
                assert_eq!(bench.run(&line), error, "{line}");
            }
        }
    }
    assert_eq!(bench.run("TTL a"), ":-1\r\n");
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let (bench, now) = bench();
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
        assert_eq!(bench.run(&format!("{name} a {time}")), expected, "{name} {time}");
        let expected = if fits { ":0\r\n" } else { error.as_str() };
        assert_eq!(bench.run(&format!("{name} none {time}")), expected, "{name} {time}");
        let no_number = format!("{name} none 1{}", i64::MAX);
        assert_eq!(bench.run(&no_number), "-ERR value is not an integer or out of range\r\n");
    }
    assert_eq!(bench.run("PEXPIRETIME a"), format!(":{}\r\n", i64::MAX));
    assert_eq!(bench.run("EXPIRETIME a"), ":9223372036854776\r\n");
}

#[test]
fn asking_is_no_use_of_a_key_and_setting_is() {
    let (bench, _) = bench();
    advance(&bench, 60_000);
    for question in ["TTL a", "PTTL a", "EXPIRETIME a", "PEXPIRETIME a"] {
        let hits = bench.shared.keyspace.stats().hits;
        bench.run(question);
        assert_eq!(bench.shared.keyspace.stats().hits, hits + 1, "{question}");
    }
    assert_eq!(bench.run("OBJECT IDLETIME a"), ":60\r\n");
    bench.run("EXPIRE a 1000");
    assert_eq!(bench.run("OBJECT IDLETIME a"), ":0\r\n");
}
