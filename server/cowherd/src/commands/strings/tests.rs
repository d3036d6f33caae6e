use super::*;
use crate::commands::table::CommandGroup;
use crate::commands::testing::{TestServer, follow};
use crate::config::Config;
use crate::keyspace::ShardSet;

/// Runs commands in order on a new server and compares the replies.
fn script(lines: &[(&str, &str)]) -> TestServer {
    let server = TestServer::new();
    follow(&server, lines);
    server
}

/// The expiry of a key in database 0; `None` if the key is missing.
fn expiry(server: &TestServer, name: &str) -> Option<Option<i64>> {
    let mut shards = server.shared.keyspace.lock(ShardSet::ALL, server.now.get());
    let key = server.shared.keyspace.key(0, name.as_bytes());
    shards.peek(0, &key).map(|entry| shards.expiry(&entry))
}

const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
const NOT_FLOAT: &str = "-ERR value is not a valid float";
const SYNTAX: &str = "-ERR syntax error";
const TOO_LONG: &str = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";

#[test]
fn get_returns_what_set_stored() {
    script(&[
        ("SET k v", "+OK"),
        ("GET k", "$1\r\nv"),
        ("GET none", "$-1"),
        ("SET n 0042", "+OK"),
        ("GET n", "$4\r\n0042"),
        ("SET n -42", "+OK"),
        ("GET n", "$3\r\n-42"),
        ("SET e \"\"", "+OK"),
        ("GET e", "$0\r\n"),
        ("STRLEN n", ":3"),
        ("STRLEN none", ":0"),
    ]);
    assert_eq!(TestServer::new().resp3().run("GET none"), "_\r\n");
}

#[test]
fn every_command_counts_its_arguments() {
    let server = TestServer::new();
    for command in COMMANDS {
        let name = command.name;
        let error = format!("-ERR wrong number of arguments for '{name}' command\r\n");
        let least = command.arity.unsigned_abs();
        let few = vec!["1"; least - 2].join(" ");
        assert_eq!(server.run(&format!("{name} {few}")), error);
        if command.arity > 0 {
            let many = vec!["1"; least].join(" ");
            assert_eq!(server.run(&format!("{name} {many}")), error);
        }
        assert!(!command.summary.is_empty() && command.group == CommandGroup::String);
    }
}

#[test]
fn set_takes_conditions() {
    script(&[
        ("SET k 1 XX", "$-1"),
        ("SET k 1 nx", "+OK"),
        ("SET k 2 NX NX", "$-1"),
        ("SET k 3 xx GET", "$1\r\n1"),
        ("SET k 4 NX GET", "$1\r\n3"),
        ("GET k", "$1\r\n3"),
        ("SET new 1 NX GET", "$-1"),
        ("GET new", "$1\r\n1"),
        ("SET k 1 NX XX", SYNTAX),
        ("SET k 1 EX", SYNTAX),
        ("SET k 1 EX 1 PX 1", SYNTAX),
        ("SET k 1 EX 1 KEEPTTL", SYNTAX),
        ("SET k 1 PERSIST", SYNTAX),
        ("SET k 1 bogus", SYNTAX),
        ("SET k 1 EX x", NOT_INTEGER),
        ("GET k", "$1\r\n3"),
        ("SETNX k 5", ":0"),
        ("SETNX other 5", ":1"),
        ("GETSET k 6", "$1\r\n3"),
        ("GETSET fresh 6", "$-1"),
        ("GETDEL k", "$1\r\n6"),
        ("GETDEL k", "$-1"),
    ]);
}

#[test]
fn set_takes_expiries() {
    let server = TestServer::new();
    let now = server.now.get();
    let absolute = now + 5_000;
    let at = |line: String| {
        assert_eq!(server.run(&line), "+OK\r\n", "{line}");
        expiry(&server, "k")
    };
    assert_eq!(at("SET k v EX 10".into()), Some(Some(now + 10_000)));
    assert_eq!(at("SET k v PX 10 px 11".into()), Some(Some(now + 11)));
    assert_eq!(at("SET k w KEEPTTL".into()), Some(Some(now + 11)));
    assert_eq!(at(format!("SET k v PXAT {absolute}")), Some(Some(absolute)));
    assert_eq!(at(format!("SET k v EXAT {}", absolute / 1000)), Some(Some(absolute)));
    assert_eq!(at("SET k v".into()), Some(None));
    assert_eq!(at("SETEX k 3 v".into()), Some(Some(now + 3_000)));
    assert_eq!(at("PSETEX k 3 v".into()), Some(Some(now + 3)));
    server.now.set(now + 3);
    assert_eq!(server.run("GET k"), "$-1\r\n");
    for past in ["SET k v PXAT 1", "SET k v EXAT 1 XX GET"] {
        server.run("SET k old");
        server.run(past);
        assert_eq!(expiry(&server, "k"), None, "{past}");
    }
}

#[test]
fn expiries_out_of_range_are_refused() {
    let server = script(&[("SET k old", "+OK")]);
    let max = i64::MAX;
    for (line, name) in [
        ("SET k v EX 0".to_owned(), "set"),
        ("SET k v PXAT -1".to_owned(), "set"),
        (format!("SET k v EX {max}"), "set"),
        (format!("SET k v EX {}", max / 1000), "set"),
        (format!("SET k v PX {max}"), "set"),
        (format!("SET k v EXAT {max}"), "set"),
        (format!("SETEX k {max} v"), "setex"),
        ("PSETEX k -5 v".to_owned(), "psetex"),
        (format!("GETEX k PX {max}"), "getex"),
    ] {
        let expected = format!("-ERR invalid expire time in '{name}' command\r\n");
        assert_eq!(server.run(&line), expected, "{line}");
    }
    follow(&server, &[("GETEX none PX 0", "$-1"), ("GET k", "$3\r\nold")]);
    assert_eq!(expiry(&server, "k"), Some(None));
}

#[test]
fn getex_changes_the_expiry() {
    let server = script(&[("SET k v", "+OK"), ("GETEX k", "$1\r\nv"), ("GETEX k EX 9", "$1\r\nv")]);
    let later = Some(Some(server.now.get() + 9_000));
    assert_eq!(expiry(&server, "k"), later);
    follow(&server, &[("GETEX k", "$1\r\nv"), ("GETEX k KEEPTTL", SYNTAX), ("GETEX k NX", SYNTAX)]);
    follow(&server, &[("GETEX k EX 9 PERSIST", SYNTAX), ("GETEX k PERSIST EX 9", SYNTAX)]);
    assert_eq!(expiry(&server, "k"), later);
    follow(&server, &[("GETEX k persist", "$1\r\nv")]);
    assert_eq!(expiry(&server, "k"), Some(None));
    follow(&server, &[("GETEX k PXAT 1", "$1\r\nv"), ("GET k", "$-1")]);
}

#[test]
fn mget_mset_msetnx() {
    script(&[
        ("MSET a 1 b two a 3", "+OK"),
        ("MGET a none b", "*3\r\n$1\r\n3\r\n$-1\r\n$3\r\ntwo"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("MSETNX a 1 b", "-ERR wrong number of arguments for 'msetnx' command"),
        ("MSETNX c 1 b 2", ":0"),
        ("GET c", "$-1"),
        ("MSETNX c 1 d 2 c 9", ":1"),
        ("MGET c d", "*2\r\n$1\r\n9\r\n$1\r\n2"),
    ]);
    assert_eq!(TestServer::new().resp3().run("MGET none"), "*1\r\n_\r\n");
}

#[test]
fn append_setrange_getrange_strlen() {
    script(&[
        ("APPEND k 12", ":2"),
        ("APPEND k 3", ":3"),
        ("APPEND k \"\"", ":3"),
        ("APPEND empty \"\"", ":0"),
        ("GET empty", "$0\r\n"),
        ("INCR k", ":124"),
        ("SETRANGE k 5 xy", ":7"),
        ("GET k", "$7\r\n124\0\0xy"),
        ("SETRANGE k 1 \"\"", ":7"),
        ("SETRANGE none 1 \"\"", ":0"),
        ("GET none", "$-1"),
        ("SETRANGE k -1 x", "-ERR offset is out of range"),
        ("SETRANGE k x x", NOT_INTEGER),
        ("SETRANGE k 536870911 xy", TOO_LONG),
        ("SETRANGE k 9223372036854775807 xy", TOO_LONG),
        ("STRLEN k", ":7"),
        ("SET k 12345", "+OK"),
        ("GETRANGE k 1 2", "$2\r\n23"),
        ("GETRANGE k -3 -2", "$2\r\n34"),
        ("GETRANGE k 3 100", "$2\r\n45"),
        ("GETRANGE k 3 2", "$0\r\n"),
        ("GETRANGE k -1 -100", "$0\r\n"),
        ("GETRANGE k -50 -100", "$0\r\n"),
        ("GETRANGE none 0 -1", "$0\r\n"),
        ("GETRANGE none 0 x", NOT_INTEGER),
        ("SUBSTR k 0 -1", "$5\r\n12345"),
    ]);
}

/// Without the memory for such a value, the error tells which limit applies.
#[test]
fn values_beyond_512_mb_are_allowed_up_to_a_gigabyte() {
    let config = Config { proto_max_bulk_len: i64::MAX.unsigned_abs(), ..Config::default() };
    let server = TestServer::with(64 << 20, config);
    let full = server.run("SETRANGE k 1073741823 x");
    assert!(full.starts_with("-OOM "), "{full}");
    follow(&server, &[("SETRANGE k 1073741824 x", TOO_LONG), ("EXISTS k", ":0")]);
}

#[test]
fn values_stay_below_the_limit() {
    let config = Config { proto_max_bulk_len: 1 << 20, ..Config::default() };
    let server = TestServer::with(64 << 20, config);
    follow(
        &server,
        &[
            ("SETRANGE k 1048575 x", ":1048576"),
            ("SETRANGE k 1048576 x", TOO_LONG),
            ("APPEND k x", TOO_LONG),
            ("SETBIT k 8388607 1", ":0"),
            ("SETBIT k 8388608 1", "-ERR bit offset is not an integer or out of range"),
            ("STRLEN k", ":1048576"),
        ],
    );
}

#[test]
fn integer_counters() {
    script(&[
        ("INCR k", ":1"),
        ("INCRBY k 41", ":42"),
        ("DECR k", ":41"),
        ("DECRBY k 50", ":-9"),
        ("INCRBY k x", NOT_INTEGER),
        ("INCRBY k 1.5", NOT_INTEGER),
        ("DECRBY k -9223372036854775808", "-ERR decrement would overflow"),
        ("INCRBY k -9223372036854775808", "-ERR increment or decrement would overflow"),
        ("SET k 9223372036854775807", "+OK"),
        ("INCR k", "-ERR increment or decrement would overflow"),
        ("GET k", "$19\r\n9223372036854775807"),
        ("SET k \" 1\"", "+OK"),
        ("INCR k", NOT_INTEGER),
        ("SET k \"\"", "+OK"),
        ("DECR k", NOT_INTEGER),
    ]);
    let server =
        script(&[("SET k 1 EX 9", "+OK"), ("INCR k", ":2"), ("INCRBYFLOAT k 1", "$1\r\n3")]);
    assert_eq!(expiry(&server, "k"), Some(Some(server.now.get() + 9_000)));
}

#[test]
fn incrbyfloat_adds_fractions() {
    script(&[
        ("INCRBYFLOAT k 0.1", "$3\r\n0.1"),
        ("INCRBYFLOAT k 0.2", "$3\r\n0.3"),
        ("INCRBYFLOAT k 1e2", "$5\r\n100.3"),
        ("INCRBYFLOAT k -100.3", "$1\r\n0"),
        ("INCRBYFLOAT k inf", "-ERR increment would produce NaN or Infinity"),
        ("INCRBYFLOAT k nan", NOT_FLOAT),
        ("INCRBYFLOAT k \"\"", NOT_FLOAT),
        ("SET k abc", "+OK"),
        ("INCRBYFLOAT k 1", NOT_FLOAT),
        ("SET k 1e4900", "+OK"),
        ("INCRBYFLOAT other 465.4434", "$21\r\n465.44339999999999999"),
    ]);
}

const DNA_A: &str = "SET a ohmytext";
const DNA_B: &str = "SET b mynewtext";

#[test]
fn longest_common_subsequences() {
    let server = script(&[
        (DNA_A, "+OK"),
        (DNA_B, "+OK"),
        ("LCS a b", "$6\r\nmytext"),
        ("LCS a b LEN", ":6"),
        ("LCS a none", "$0\r\n"),
        ("LCS none none LEN", ":0"),
        ("LCS a b MINMATCHLEN", SYNTAX),
        ("LCS a b MINMATCHLEN x", NOT_INTEGER),
        ("LCS a b bogus", SYNTAX),
        ("LCS a b LEN IDX", "-ERR If you want both the length and indexes, please just use IDX."),
    ]);
    let range = |a, b| format!("*2\r\n:{a}\r\n:{b}\r\n");
    let text = format!("{}{}", range(4, 7), range(5, 8));
    let my = format!("{}{}", range(2, 3), range(0, 1));
    let head = "*4\r\n$7\r\nmatches\r\n";
    let tail = "$3\r\nlen\r\n:6\r\n";
    assert_eq!(server.run("LCS a b IDX"), format!("{head}*2\r\n*2\r\n{text}*2\r\n{my}{tail}"));
    assert_eq!(
        server.run("LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN"),
        format!("{head}*1\r\n*3\r\n{text}:4\r\n{tail}")
    );
    let server = server.resp3();
    assert_eq!(
        server.run("LCS a b IDX MINMATCHLEN 5"),
        "%2\r\n$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:6\r\n"
    );
}

#[test]
fn lcs_bounds_its_memory() {
    let config = Config { proto_max_bulk_len: 1 << 20, ..Config::default() };
    let server = TestServer::with(64 << 20, config);
    follow(
        &server,
        &[
            ("SETRANGE a 600 x", ":601"),
            ("SETRANGE b 600 x", ":601"),
            (
                "LCS a b LEN",
                "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ),
            ("LCS a c LEN", ":0"),
        ],
    );
}

#[test]
fn without_memory_nothing_changes() {
    const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";
    let server = TestServer::with(20 << 20, Config::default());
    let big = "x".repeat(60_000);
    server.run("SET small 1");
    // Sets keys until there is no memory for one more.
    let full = (0..600).find(|i| {
        let reply = server.run(&format!("MSET small {i} new{i} {big}"));
        reply.strip_suffix("\r\n") == Some(OOM)
    });
    let full = full.expect("the arena never fills");
    assert!(full > 0);
    let last = (full - 1).to_string();
    follow(
        &server,
        &[
            ("GET small", &format!("${}\r\n{last}", last.len())),
            (&format!("GET new{full}"), "$-1"),
            (&format!("MSETNX other 1 newer {big}"), OOM),
            ("MGET other newer", "*2\r\n$-1\r\n$-1"),
            (&format!("SET newer {big} GET"), OOM),
            (&format!("APPEND small {big}"), OOM),
            ("BITFIELD bits SET u8 0 1 SET u8 100000000 1", OOM),
            ("SETBIT bits 100000000 1", OOM),
            ("SETRANGE bits 10000000 x", OOM),
            ("BITFIELD small SET u8 0 1 SET u8 100000000 1", OOM),
            ("MGET bits newer", "*2\r\n$-1\r\n$-1"),
            ("GET small", &format!("${}\r\n{last}", last.len())),
        ],
    );
    server.shared.keyspace.verify(2).unwrap();
}

#[test]
fn only_reading_commands_count_hits() {
    let server = script(&[("SET k 1", "+OK"), ("INCR k", ":2"), ("SETNX k 1", ":0")]);
    let count = |line: &str| {
        let before = server.shared.keyspace.stats();
        server.run(line);
        let after = server.shared.keyspace.stats();
        (after.hits - before.hits, after.misses - before.misses)
    };
    assert_eq!(count("GET k"), (1, 0));
    assert_eq!(count("MGET k none k"), (2, 1));
    assert_eq!(count("SET k 2 GET"), (1, 0));
    assert_eq!(count("SET k 2"), (0, 0));
    assert_eq!(count("APPEND k 2"), (0, 0));
    assert_eq!(count("GETDEL none"), (0, 1));
    assert_eq!(count("BITOP OR d k none"), (1, 1));
    assert_eq!(count("BITFIELD k GET u8 0"), (1, 0));
    assert_eq!(count("BITFIELD k SET u8 0 0"), (0, 0));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Commands and the keyspace parse integers by functions of two crates that must agree: INCR
    /// accepts exactly the strings that are stored as integers.
    #[test]
    fn incr_accepts_what_is_stored_as_an_integer(text in "[-+]?[0-9]{1,20}|[-0-9a]{1,3}") {
        let server = TestServer::new();
        server.run(&format!("SET k {text}"));
        let is_stored_as_integer = server.run("OBJECT ENCODING k") == "$3\r\nint\r\n";
        let is_parsed = cowherd_resp::parse_i64(text.as_bytes()).is_some();
        proptest::prop_assert_eq!(is_stored_as_integer, is_parsed, "{}", text);
    }
}
