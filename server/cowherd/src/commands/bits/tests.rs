use std::collections::BTreeMap;

use proptest::prelude::*;

use super::COMMANDS;
use crate::commands::testing::{TestServer, refuse_too_few};
use crate::keyspace::ShardSet;

fn script(lines: &[(&str, &str)]) {
    let server = TestServer::new();
    for (line, expected) in lines {
        assert_eq!(server.run(line), format!("{expected}\r\n"), "{line}");
    }
}

const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
const SYNTAX: &str = "-ERR syntax error";
const BAD_OFFSET: &str = "-ERR bit offset is not an integer or out of range";
const BAD_TYPE: &str = "-ERR Invalid bitfield type. Use something like i16 u8. \
                        Note that u64 is not supported but i64 is.";

#[test]
fn every_command_counts_its_arguments() {
    refuse_too_few(&TestServer::new(), COMMANDS);
}

#[test]
fn single_bits() {
    script(&[
        ("SETBIT k 7 1", ":0"),
        ("SETBIT k 7 0", ":1"),
        ("SETBIT k 0 1", ":0"),
        ("GET k", "$1\r\n\u{fffd}"),
        ("GETBIT k 0", ":1"),
        ("GETBIT k 100", ":0"),
        ("GETBIT none 1", ":0"),
        ("SETBIT far 100 0", ":0"),
        ("STRLEN far", ":13"),
        ("SET n 1", "+OK"),
        ("SETBIT n 6 1", ":0"),
        ("GET n", "$1\r\n3"),
        ("SETBIT k x 1", BAD_OFFSET),
        ("SETBIT k -1 1", BAD_OFFSET),
        ("SETBIT k #1 1", BAD_OFFSET),
        ("GETBIT k 4294967296", BAD_OFFSET),
        ("SETBIT k 1 2", "-ERR bit is not an integer or out of range"),
        ("SETBIT k 1 x", "-ERR bit is not an integer or out of range"),
    ]);
}

#[test]
fn bitcount_and_bitpos() {
    script(&[
        ("SET k foobar", "+OK"),
        ("BITCOUNT k", ":26"),
        ("BITCOUNT k 0 0", ":4"),
        ("BITCOUNT k 1 1 BYTE", ":6"),
        ("BITCOUNT k 5 30 bit", ":17"),
        ("BITCOUNT k -1 -100", ":0"),
        ("BITCOUNT none", ":0"),
        ("BITCOUNT none 1 x", NOT_INTEGER),
        ("BITCOUNT none 1", SYNTAX),
        ("BITCOUNT none 1 2 bat", SYNTAX),
        ("BITCOUNT k -1 -100 bat", SYNTAX),
        ("BITCOUNT k 1", SYNTAX),
        ("BITCOUNT k 0 1 bat", SYNTAX),
        ("BITCOUNT k 0 x", NOT_INTEGER),
        ("SET b \"\\xff\\xf0\\x00\"", "+OK"),
        ("BITPOS b 0", ":12"),
        ("BITPOS b 1", ":0"),
        ("BITPOS b 1 2", ":-1"),
        ("BITPOS b 0 1 -1 BIT", ":12"),
        ("BITPOS b 1 9 15 BIT", ":9"),
        ("BITPOS b 1 9 15 bat", SYNTAX),
        ("BITPOS b 2", "-ERR The bit argument must be 1 or 0."),
        ("BITPOS b x", NOT_INTEGER),
        ("SET ones \"\\xff\\xff\"", "+OK"),
        ("BITPOS ones 0", ":16"),
        ("BITPOS ones 0 1", ":16"),
        ("BITPOS ones 0 0 -1", ":-1"),
        ("BITPOS ones 0 5", ":-1"),
        ("BITPOS none 0", ":0"),
        ("BITPOS none 1", ":-1"),
        ("BITPOS none 0 x", NOT_INTEGER),
        ("BITPOS none 0 0 -1 bat", SYNTAX),
        ("BITPOS none 0 0 -1 bit x", SYNTAX),
    ]);
}

#[test]
fn operations() {
    script(&[
        ("MSET a foof b foobar n 12", "+OK"),
        ("BITOP AND d a b", ":6"),
        ("GET d", "$6\r\nfoob\0\0"),
        ("BITOP OR d a b", ":6"),
        ("GET d", "$6\r\nfoofar"),
        ("BITOP xor d n n", ":2"),
        ("GET d", "$2\r\n\0\0"),
        ("BITOP NOT d n", ":2"),
        ("BITOP NOT d d", ":2"),
        ("GET d", "$2\r\n12"),
        ("BITOP AND d none none", ":0"),
        ("GET d", "$-1"),
        ("BITOP NOT d a b", "-ERR BITOP NOT must be called with a single source key."),
        ("BITOP NAND d a b", SYNTAX),
    ]);
}

#[test]
fn fields() {
    script(&[
        ("BITFIELD k", "*0"),
        ("BITFIELD k INCRBY i5 100 1 GET u4 0", "*2\r\n:1\r\n:0"),
        ("STRLEN k", ":14"),
        ("BITFIELD f SET u8 #1 300 GET u8 #1", "*2\r\n:0\r\n:44"),
        ("BITFIELD f OVERFLOW SAT SET u8 8 300 GET u8 8", "*2\r\n:44\r\n:255"),
        ("BITFIELD f OVERFLOW FAIL INCRBY u8 8 1", "*1\r\n$-1"),
        ("BITFIELD f OVERFLOW fail INCRBY u8 8 1 OVERFLOW wrap INCRBY u8 8 1", "*2\r\n$-1\r\n:0"),
        ("BITFIELD f SET i8 0 -1 GET u8 0", "*2\r\n:0\r\n:255"),
        ("BITFIELD f OVERFLOW SAT INCRBY i8 0 -200", "*1\r\n:-128"),
        (
            "BITFIELD f SET i64 0 -9223372036854775808 INCRBY i64 0 -1",
            "*2\r\n:-9223372036854775808\r\n:9223372036854775807",
        ),
        ("BITFIELD f GET u64 0", BAD_TYPE),
        ("BITFIELD f GET i65 0", BAD_TYPE),
        ("BITFIELD f GET u0 0", BAD_TYPE),
        ("BITFIELD f GET x8 0", BAD_TYPE),
        ("BITFIELD f GET u8 -1", BAD_OFFSET),
        ("BITFIELD f GET u8 #9223372036854775807", BAD_OFFSET),
        ("BITFIELD f SET u8 0 x", NOT_INTEGER),
        ("BITFIELD f SET u8 0", SYNTAX),
        ("BITFIELD f OVERFLOW bogus", "-ERR Invalid OVERFLOW type specified"),
        ("BITFIELD_RO f GET i8 0", "*1\r\n:127"),
        ("BITFIELD_RO none GET u8 0", "*1\r\n:0"),
        ("BITFIELD_RO f SET u8 0 1", "-ERR BITFIELD_RO only supports the GET subcommand"),
    ]);
    assert_eq!(TestServer::new().resp3().run("BITFIELD k OVERFLOW FAIL SET u2 0 4"), "*1\r\n_\r\n");
}

/// An unchanged bit or field is not written, so that a checkpoint has nothing to save for it.
#[test]
fn unchanged_bits_are_not_written() {
    let server = TestServer::new();
    server.run("SETRANGE k 100 x");
    let before = server.shared.keyspace.stats().changes;
    for line in ["SETBIT k 9 0", "BITFIELD k SET u8 0 0", "BITFIELD k OVERFLOW FAIL SET u2 0 9"] {
        server.run(line);
    }
    assert_eq!(server.shared.keyspace.stats().changes, before);
    server.run("SETBIT k 9 1");
    assert_eq!(server.shared.keyspace.stats().changes, before + 1);
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, Vec<u8>),
    SetBit(u8, u64, bool),
    SetRange(u8, u64, Vec<u8>),
    Append(u8, Vec<u8>),
    Combine(&'static str, u8, u8, u8),
    Field {
        key: u8,
        signed: bool,
        bits: u32,
        offset: u64,
        by: i64,
        overflow: &'static str,
        add: bool,
    },
    Count(u8, i64, i64, bool),
    Find(u8, bool, i64, Option<(i64, bool)>),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..3;
    let at = || prop_oneof![8 => 0u64..300, 1 => 20_000u64..20_100];
    let place = || -400i64..400;
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            (prop::sample::select(vec![0u8, 255]), 0usize..60).prop_map(|(b, n)| vec![b; n]),
            any::<i32>().prop_map(|n| n.to_string().into_bytes()),
        ]
    };
    let operation = prop::sample::select(vec!["AND", "OR", "XOR", "NOT"]);
    let overflow = prop::sample::select(vec!["WRAP", "SAT", "FAIL"]);
    let by = prop_oneof![-300i64..300, -1i64 << 62..1 << 62];
    let field = (key.clone(), any::<bool>(), 1u32..64, at(), by, overflow, any::<bool>()).prop_map(
        |(key, signed, bits, offset, by, overflow, add)| Step::Field {
            key,
            signed,
            bits: bits + u32::from(signed),
            offset,
            by,
            overflow,
            add,
        },
    );
    prop_oneof![
        1 => (key.clone(), bytes()).prop_map(|(k, v)| Step::Set(k, v)),
        1 => (key.clone(), at(), any::<bool>()).prop_map(|(k, at, on)| Step::SetBit(k, at, on)),
        1 => (key.clone(), at(), bytes()).prop_map(|(k, at, v)| Step::SetRange(k, at, v)),
        1 => (key.clone(), bytes()).prop_map(|(k, v)| Step::Append(k, v)),
        1 => (operation, key.clone(), key.clone(), key.clone())
            .prop_map(|(o, d, a, b)| Step::Combine(o, d, a, b)),
        3 => field,
        1 => (key.clone(), place(), place(), any::<bool>())
            .prop_map(|(k, s, e, b)| Step::Count(k, s, e, b)),
        1 => (key, any::<bool>(), place(), prop::option::of((place(), any::<bool>())))
            .prop_map(|(k, bit, s, e)| Step::Find(k, bit, s, e)),
    ]
}

type Model = BTreeMap<u8, Vec<u8>>;

fn quoted(bytes: &[u8]) -> String {
    let inner: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{inner}\"")
}

fn get_bit(bytes: &[u8], at: u64) -> bool {
    bytes.get((at / 8) as usize).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
}

fn put_bit(bytes: &mut Vec<u8>, at: u64, on: bool) {
    let byte = (at / 8) as usize;
    bytes.resize(bytes.len().max(byte + 1), 0);
    bytes[byte] = bytes[byte] & !(0x80 >> (at % 8)) | u8::from(on) << (7 - at % 8);
}

/// The bits of a range, one by one.
fn places(len: usize, start: i64, end: i64, in_bits: bool) -> Vec<u64> {
    let units = len as i64 * if in_bits { 8 } else { 1 };
    let clip = |at: i64| if at < 0 { (at + units).max(0) } else { at };
    let wide = if in_bits { 1 } else { 8 };
    (clip(start)..=clip(end).min(units - 1))
        .flat_map(|unit| (unit * wide..(unit + 1) * wide).map(|bit| bit as u64))
        .collect()
}

/// The reply to a step, by the simplest algorithm.
fn expect(model: &mut Model, step: &Step) -> String {
    match step {
        Step::Set(key, value) => {
            model.insert(*key, value.clone());
            "+OK\r\n".into()
        }
        Step::SetBit(key, at, on) => {
            let value = model.entry(*key).or_default();
            let was = get_bit(value, *at);
            put_bit(value, *at, *on);
            format!(":{}\r\n", u8::from(was))
        }
        Step::SetRange(key, at, part) => {
            if part.is_empty() {
                return format!(":{}\r\n", model.get(key).map_or(0, Vec::len));
            }
            let value = model.entry(*key).or_default();
            let (at, end) = (*at as usize, *at as usize + part.len());
            value.resize(value.len().max(end), 0);
            value[at..end].copy_from_slice(part);
            format!(":{}\r\n", value.len())
        }
        Step::Append(key, tail) => {
            let value = model.entry(*key).or_default();
            value.extend(tail);
            format!(":{}\r\n", value.len())
        }
        Step::Combine(operation, target, a, b) => {
            let value = |key| model.get(key).cloned().unwrap_or_default();
            let (a, b) = (value(a), if *operation == "NOT" { vec![] } else { value(b) });
            let byte = |of: &[u8], at: usize| of.get(at).copied().unwrap_or(0);
            let combine = |at| match *operation {
                "AND" => byte(&a, at) & byte(&b, at),
                "OR" => byte(&a, at) | byte(&b, at),
                "XOR" => byte(&a, at) ^ byte(&b, at),
                _ => !byte(&a, at),
            };
            let result: Vec<u8> = (0..a.len().max(b.len())).map(combine).collect();
            let reply = format!(":{}\r\n", result.len());
            if result.is_empty() {
                model.remove(target)
            } else {
                model.insert(*target, result)
            };
            reply
        }
        Step::Field { .. } => expect_field(model, step),
        Step::Count(key, start, end, in_bits) => {
            let value = model.get(key).cloned().unwrap_or_default();
            let backward = *start < 0 && *end < 0 && start > end;
            let bits = if backward { vec![] } else { places(value.len(), *start, *end, *in_bits) };
            format!(":{}\r\n", bits.iter().filter(|at| get_bit(&value, **at)).count())
        }
        Step::Find(key, wanted, start, end) => {
            let Some(value) = model.get(key) else {
                return if *wanted { ":-1\r\n" } else { ":0\r\n" }.into();
            };
            let (to, in_bits) = end.unwrap_or((-1, false));
            let bits = places(value.len(), *start, to, in_bits);
            let found = bits.iter().copied().find(|at| get_bit(value, *at) == *wanted);
            let beyond = value.len() as u64 * 8;
            let pads = !*wanted && end.is_none() && !bits.is_empty();
            match found.or(pads.then_some(beyond)) {
                Some(at) => format!(":{at}\r\n"),
                None => ":-1\r\n".into(),
            }
        }
    }
}

fn expect_field(model: &mut Model, step: &Step) -> String {
    let Step::Field { key, signed, bits, offset, by, overflow, add } = step else { unreachable!() };
    let value = model.entry(*key).or_default();
    let last = offset + u64::from(*bits) - 1;
    value.resize(value.len().max((last / 8 + 1) as usize), 0);
    let range = 1i128 << bits;
    let (low, high) = if *signed { (-range / 2, range / 2 - 1) } else { (0, range - 1) };
    let mut old = (*offset..=last).fold(0i128, |n, at| n * 2 + i128::from(get_bit(value, at)));
    if old > high {
        old -= range;
    }
    let given = if *signed || *add { i128::from(*by) } else { i128::from(*by as u64) };
    let wanted = if *add { old + given } else { given };
    let mut new = wanted;
    if !(low..=high).contains(&wanted) {
        new = match *overflow {
            "WRAP" => (wanted - low).rem_euclid(range) + low,
            "SAT" => wanted.clamp(low, high),
            _ => return "*1\r\n$-1\r\n".into(),
        };
    }
    for (i, at) in (*offset..=last).rev().enumerate() {
        put_bit(value, at, new >> i & 1 == 1);
    }
    format!("*1\r\n:{}\r\n", if *add { new } else { old })
}

fn line(step: &Step) -> String {
    match step {
        Step::Set(k, v) => format!("SET {k} {}", quoted(v)),
        Step::SetBit(k, at, on) => format!("SETBIT {k} {at} {}", u8::from(*on)),
        Step::SetRange(k, at, v) => format!("SETRANGE {k} {at} {}", quoted(v)),
        Step::Append(k, v) => format!("APPEND {k} {}", quoted(v)),
        Step::Combine("NOT", d, a, _) => format!("BITOP NOT {d} {a}"),
        Step::Combine(o, d, a, b) => format!("BITOP {o} {d} {a} {b}"),
        Step::Field { key, signed, bits, offset, by, overflow, add } => {
            let (sign, action) =
                (if *signed { 'i' } else { 'u' }, if *add { "INCRBY" } else { "SET" });
            format!("BITFIELD {key} OVERFLOW {overflow} {action} {sign}{bits} {offset} {by}")
        }
        Step::Count(k, s, e, bits) => {
            format!("BITCOUNT {k} {s} {e} {}", if *bits { "BIT" } else { "BYTE" })
        }
        Step::Find(k, bit, s, None) => format!("BITPOS {k} {} {s}", u8::from(*bit)),
        Step::Find(k, bit, s, Some((e, bits))) => {
            let unit = if *bits { "BIT" } else { "BYTE" };
            format!("BITPOS {k} {} {s} {e} {unit}", u8::from(*bit))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_plain_bytes(steps in prop::collection::vec(step(), 1..80)) {
        let server = TestServer::new();
        let mut model = Model::new();
        for step in &steps {
            prop_assert_eq!(server.run(&line(step)), expect(&mut model, step), "{:?}", step);
        }
        let mut shards = server.shared.keyspace.lock(ShardSet::ALL, server.now.get());
        for key in 0u8..3 {
            let name = key.to_string();
            let entry = shards.peek(0, &server.shared.keyspace.key(0, name.as_bytes()));
            let mut number = itoa::Buffer::new();
            let value = entry.map(|e| shards.string(&e).unwrap().bytes(&mut number).to_vec());
            prop_assert_eq!(value.as_ref(), model.get(&key));
        }
        drop(shards);
        server.shared.keyspace.verify(2).unwrap();
    }
}
