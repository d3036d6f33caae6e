use super::*;
use crate::commands::testing::{TestServer, follow, refuse_too_few};
use crate::config::Config;
use crate::keyspace::ShardSet;

const NOT_A_SKETCH: &str = "-WRONGTYPE Key is not a valid HyperLogLog string value.";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
const INVALID: &str = "-INVALIDOBJ Corrupted HLL object detected";

/// The bytes of a string.
fn value(server: &TestServer, name: &str) -> Vec<u8> {
    let mut shards = server.shared.keyspace.lock(ShardSet::ALL, server.now.get());
    let key = server.shared.keyspace.key(0, name.as_bytes());
    let entry = shards.peek(0, &key).unwrap();
    shards.string(&entry).unwrap().bytes(&mut itoa::Buffer::new()).to_vec()
}

fn changes(server: &TestServer) -> u64 {
    server.shared.keyspace.stats().changes
}

#[test]
fn every_command_counts_its_arguments() {
    let commands = COMMANDS.iter().filter(|command| command.arity != 1);
    refuse_too_few(&TestServer::new(), commands);
}

#[test]
fn elements_are_counted() {
    let server = TestServer::new();
    follow(
        &server,
        &[
            ("PFCOUNT k", ":0"),
            ("PFADD k", ":1"),
            ("PFADD k", ":0"),
            ("PFADD k a b c", ":1"),
            ("PFADD k a b c", ":0"),
            ("PFCOUNT k", ":3"),
            ("PFADD j c d e", ":1"),
            ("PFCOUNT k j none", ":5"),
            ("PFMERGE all k none j", "+OK"),
            ("PFCOUNT all", ":5"),
            ("PFMERGE k", "+OK"),
            ("PFCOUNT k", ":3"),
            ("TYPE all", "+string"),
            ("OBJECT ENCODING all", "$3\r\nraw"),
        ],
    );
}

#[test]
fn the_bytes_are_those_of_redis() {
    // By GET of redis-server 7.0.15.
    let server = TestServer::new();
    server.run("PFADD k");
    assert_eq!(value(&server, "k"), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff");
    server.run("PFADD k a");
    assert_eq!(value(&server, "k"), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80q\xa6\x84NW");
    server.run("PFCOUNT k");
    assert_eq!(value(&server, "k"), b"HYLL\x01\0\0\0\x01\0\0\0\0\0\0\0q\xa6\x84NW");
    follow(
        &server,
        &[
            ("PFDEBUG DECODE k", "$20\r\nZ:12711 v:2,1 Z:3672"),
            ("PFDEBUG ENCODING k", "+sparse"),
            ("PFDEBUG todense k", ":1"),
            ("PFDEBUG TODENSE k", ":0"),
            ("PFDEBUG ENCODING k", "+dense"),
            ("PFDEBUG DECODE k", "-ERR HLL encoding is not sparse"),
            ("PFCOUNT k", ":1"),
        ],
    );
    let dense = value(&server, "k");
    assert_eq!(dense.len(), 12_304);
    assert_eq!(dense[..16], *b"HYLL\0\0\0\0\x01\0\0\0\0\0\0\0");
    assert_eq!(dense[16 + 12711 * 6 / 8..][..2], [8, 0]);
}

#[test]
fn sketches_become_dense_by_length_or_rank() {
    let config = Config { hll_sparse_max_bytes: 40, ..Config::default() };
    let server = TestServer::with(64 << 20, config);
    for i in 0..20 {
        assert_eq!(server.run(&format!("PFADD k {i}")), ":1\r\n");
        let len = value(&server, "k").len();
        assert!(len <= 40 || len == 12_304, "{len}");
    }
    follow(&server, &[("PFDEBUG ENCODING k", "+dense"), ("PFCOUNT k", ":20")]);
    // All registers are in order, whatever the encoding.
    for i in 0..20 {
        server.run(&format!("PFADD j {}", 19 - i));
        server.run(&format!("CONFIG SET hll-sparse-max-bytes {}", 3000 + i));
        server.run(&format!("PFADD sparse {i}"));
    }
    follow(&server, &[("PFDEBUG ENCODING sparse", "+sparse")]);
    assert_eq!(server.run("PFDEBUG GETREG sparse"), server.run("PFDEBUG GETREG k"));
    follow(&server, &[("PFDEBUG ENCODING sparse", "+dense")]);
}

#[test]
fn merges_are_dense_if_any_key_is() {
    let server = TestServer::new();
    server.run("PFADD sparse a b");
    server.run("PFADD dense b c");
    server.run("PFDEBUG TODENSE dense");
    server.run("EXPIRE sparse 100");
    follow(
        &server,
        &[
            ("PFMERGE copy sparse", "+OK"),
            ("PFDEBUG ENCODING copy", "+sparse"),
            ("PFMERGE copy dense", "+OK"),
            ("PFDEBUG ENCODING copy", "+dense"),
            ("PFCOUNT copy", ":3"),
            ("PFMERGE sparse dense", "+OK"),
            ("PFDEBUG ENCODING sparse", "+dense"),
            ("TTL sparse", ":100"),
            ("PFADD sparse z", ":1"),
            ("TTL sparse", ":100"),
        ],
    );
}

#[test]
fn other_values_are_refused() {
    let server = TestServer::new();
    server.run("LPUSH list x");
    server.run("SET number 1");
    server.run("SET text HYLL");
    server.run("PFADD good a");
    for (key, error) in [("list", WRONG_TYPE), ("number", NOT_A_SKETCH), ("text", NOT_A_SKETCH)] {
        for line in [
            format!("PFADD {key}"),
            format!("PFADD {key} a"),
            format!("PFCOUNT {key}"),
            format!("PFCOUNT good {key}"),
            format!("PFMERGE {key} good"),
            format!("PFMERGE new good {key}"),
            format!("PFDEBUG ENCODING {key}"),
        ] {
            follow(&server, &[(&line, error)]);
        }
    }
    follow(
        &server,
        &[
            ("EXISTS new", ":0"),
            ("GET text", "$4\r\nHYLL"),
            ("PFDEBUG ENCODING none", "-ERR The specified key does not exist"),
            ("PFDEBUG nothing good", "-ERR Unknown PFDEBUG subcommand 'nothing'"),
        ],
    );
}

#[test]
fn damaged_values_are_found() {
    let server = TestServer::new();
    let sketch = |opcodes: &str| format!(r#""HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80{opcodes}""#);
    let sketch = |opcodes| sketch(opcodes).replace(r"\0", r"\x00");
    server.run("PFADD good a b");
    // No opcodes, too few registers, too many, an opcode that is cut off.
    for opcodes in ["", r"\x7f\xfe", r"\x7f\xff\x00", r"\x7f\xff\x7f\xff", r"\x7f\x00\x7f"] {
        server.run(&format!("SET bad {}", sketch(opcodes)));
        for line in [
            "PFCOUNT bad",
            "PFCOUNT good bad",
            "PFMERGE bad good",
            "PFMERGE good bad",
            "PFDEBUG GETREG bad",
            "PFDEBUG TODENSE bad",
        ] {
            follow(&server, &[(line, INVALID)]);
        }
        server.run("PFDEBUG DECODE bad");
        server.run("PFADD bad a b c d e f");
        server.run("PFADD bad 1 2 3 4 5 6");
    }
    // The register of `a` is behind the end.
    server.run(&format!("SET bad {}", sketch(r"\x40\x00")));
    let before = value(&server, "bad");
    follow(&server, &[("PFADD bad a", INVALID), ("PFCOUNT good", ":2")]);
    assert_eq!(value(&server, "bad"), before);
    server.shared.keyspace.verify(2).unwrap();
}

#[test]
fn changes_are_counted_as_registers() {
    let server = TestServer::new();
    for (line, expected) in [
        ("PFADD k", 1),
        ("PFADD j a b a", 3),
        ("PFADD j a c d", 2),
        ("PFCOUNT j", 1),
        ("PFCOUNT j", 0),
        ("PFADD j a", 0),
        ("PFCOUNT j k", 0),
        ("PFMERGE j", 1),
        ("PFMERGE m j k", 1),
        ("PFDEBUG TODENSE j", 1),
        ("PFDEBUG TODENSE j", 0),
        ("PFADD j a 1 2 3", 3),
        ("PFCOUNT j", 1),
        ("PFADD j 4", 1),
    ] {
        let before = changes(&server);
        server.run(line);
        assert_eq!(changes(&server) - before, expected, "{line}");
    }
}

#[test]
fn the_self_test_passes() {
    follow(&TestServer::new(), &[("PFSELFTEST", "+OK")]);
}
