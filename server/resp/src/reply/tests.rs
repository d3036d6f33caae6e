use super::ProtocolVersion::{Resp2, Resp3};
use super::*;

/// The bytes that `write` appends in RESP2 and in RESP3.
fn both(write: impl Fn(&mut ReplyWriter)) -> [String; 2] {
    [Resp2, Resp3].map(|version| {
        let mut reply = ReplyWriter::new(version);
        write(&mut reply);
        assert_eq!(reply.len(), reply.out.len());
        String::from_utf8(reply.out).unwrap()
    })
}

fn assert_both(write: impl Fn(&mut ReplyWriter), resp2: &str, resp3: &str) {
    assert_eq!(both(write), [resp2, resp3]);
}

fn assert_same(write: impl Fn(&mut ReplyWriter), text: &str) {
    assert_both(write, text, text);
}

#[test]
fn encodings_shared_by_both_versions() {
    assert_same(ReplyWriter::ok, "+OK\r\n");
    assert_same(|r| r.simple("PONG"), "+PONG\r\n");
    assert_same(|r| r.simple_bytes(b"a\r\nb"), "+a  b\r\n");
    assert_same(|r| r.error("ERR syntax error"), "-ERR syntax error\r\n");
    assert_same(|r| r.error_bytes(b"ERR unknown 'a\r\nb'"), "-ERR unknown 'a  b'\r\n");
    assert_same(|r| r.error_bytes(b"ERR \nbehind\r\n\n"), "-ERR  behind\r\n");
    assert_same(|r| r.bulk(b""), "$0\r\n\r\n");
    assert_same(|r| r.bulk_str("hello"), "$5\r\nhello\r\n");
    assert_same(|r| r.bulk_integer(-42), "$3\r\n-42\r\n");
    assert_same(|r| r.array(0), "*0\r\n");
    assert_same(|r| r.array(12), "*12\r\n");
    assert_same(|r| r.array(1_048_576), "*1048576\r\n");
}

#[test]
fn encodings_of_types_that_resp2_lacks() {
    assert_both(ReplyWriter::null, "$-1\r\n", "_\r\n");
    assert_both(ReplyWriter::null_array, "*-1\r\n", "_\r\n");
    assert_both(|r| r.map(3), "*6\r\n", "%3\r\n");
    assert_both(|r| r.map(50), "*100\r\n", "%50\r\n");
    assert_both(|r| r.set(3), "*3\r\n", "~3\r\n");
    assert_both(|r| r.push(3), "*3\r\n", ">3\r\n");
    assert_both(|r| r.boolean(true), ":1\r\n", "#t\r\n");
    assert_both(|r| r.boolean(false), ":0\r\n", "#f\r\n");
    assert_both(|r| r.double(3.5), "$3\r\n3.5\r\n", ",3.5\r\n");
    assert_both(|r| r.double(1e20), "$5\r\n1e+20\r\n", ",1e+20\r\n");
    assert_both(|r| r.double(f64::INFINITY), "$3\r\ninf\r\n", ",inf\r\n");
    assert_both(|r| r.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
    assert_both(|r| r.double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n");
    assert_both(
        |r| r.big_number(b"12345678901234567890"),
        "$20\r\n12345678901234567890\r\n",
        "(12345678901234567890\r\n",
    );
    assert_both(|r| r.verbatim(b"txt", b"hi\n"), "$3\r\nhi\n\r\n", "=7\r\ntxt:hi\n\r\n");
}

#[test]
fn integers_of_every_length() {
    for value in (-1_200..1_200).chain([i64::MIN, i64::MAX, 1 << 40]) {
        assert_same(|r| r.integer(value), &format!(":{value}\r\n"));
    }
}

#[test]
fn bulks_of_every_length() {
    for len in (0..300).chain([999, 1000, 65_536]) {
        let text = "x".repeat(len);
        assert_same(|r| r.bulk_str(&text), &format!("${len}\r\n{text}\r\n"));
    }
}

#[test]
fn bulks_carry_any_bytes() {
    let mut reply = ReplyWriter::new(Resp2);
    reply.bulk(b"\r\n\0\xff");
    assert_eq!(reply.out, b"$4\r\n\r\n\0\xff\r\n");
}

#[test]
fn deferred_headers_are_inserted_before_their_elements() {
    assert_both(
        |r| {
            r.ok();
            let outer = r.deferred_array();
            r.bulk_str("a");
            let inner = r.deferred_array();
            for i in 0..12 {
                r.integer(i % 2);
            }
            r.set_map_len(inner, 6);
            let empty = r.deferred_array();
            r.set_set_len(empty, 0);
            r.set_array_len(outer, 3);
            r.ok();
        },
        &format!("+OK\r\n*3\r\n$1\r\na\r\n*12\r\n{}*0\r\n+OK\r\n", ":0\r\n:1\r\n".repeat(6)),
        &format!("+OK\r\n*3\r\n$1\r\na\r\n%6\r\n{}~0\r\n+OK\r\n", ":0\r\n:1\r\n".repeat(6)),
    );
}

#[test]
#[should_panic(expected = "the last aggregate opened is closed first")]
fn deferred_aggregates_close_in_reverse_order() {
    let mut reply = ReplyWriter::new(Resp2);
    let outer = reply.deferred_array();
    let _inner = reply.deferred_array();
    reply.set_array_len(outer, 0);
}

#[test]
fn protocol_errors_quote_the_byte_unchanged() {
    let mut reply = ReplyWriter::new(Resp2);
    reply.protocol_error(ProtocolError::ExpectedBulk(0xff));
    reply.protocol_error(ProtocolError::ExpectedBulk(b'\r'));
    reply.protocol_error(ProtocolError::UnbalancedQuotes);
    let expected: &[u8] = b"-ERR Protocol error: expected '$', got '\xff'\r\n\
        -ERR Protocol error: expected '$', got ' '\r\n\
        -ERR Protocol error: unbalanced quotes in request\r\n";
    assert_eq!(reply.out, expected);
}

#[test]
fn a_warm_buffer_is_not_reallocated() {
    let mut reply = ReplyWriter::new(Resp3);
    let write = |reply: &mut ReplyWriter| {
        for i in 0..100 {
            reply.integer(i * 1_000);
            reply.bulk(&[b'x'; 100]);
            reply.double(0.1);
        }
    };
    write(&mut reply);
    // The same replies again fit, up to the slack that a bulk reserves for its header.
    reply.out.reserve(HEADER_MAX);
    let (capacity, place) = (reply.out.capacity(), reply.out.as_ptr());
    reply.out.clear();
    write(&mut reply);
    assert_eq!((reply.out.capacity(), reply.out.as_ptr()), (capacity, place));
}
