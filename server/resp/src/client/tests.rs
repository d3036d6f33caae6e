use proptest::prelude::*;

use super::*;
use crate::{ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};

fn parsed(input: &[u8]) -> Reply<'_> {
    let (reply, length) = parse_reply(input).unwrap().unwrap();
    assert_eq!(length, input.len(), "{}", input.escape_ascii());
    reply
}

#[test]
fn each_type() {
    for (input, reply) in [
        (&b"+OK\r\n"[..], Reply::Simple(b"OK")),
        (b"-ERR no\r\n", Reply::Error(b"ERR no")),
        (b"!5\r\nE a\r\n\r\n", Reply::Error(b"E a\r\n")),
        (b":-7\r\n", Reply::Integer(-7)),
        (b"_\r\n", Reply::Null),
        (b"$-1\r\n", Reply::Null),
        (b"*-1\r\n", Reply::Null),
        (b"#t\r\n", Reply::Boolean(true)),
        (b"#f\r\n", Reply::Boolean(false)),
        (b",3.5\r\n", Reply::Double(3.5)),
        (b",-inf\r\n", Reply::Double(f64::NEG_INFINITY)),
        (b"(12345678901234567890\r\n", Reply::BigNumber(b"12345678901234567890")),
        (b"$0\r\n\r\n", Reply::Bulk(b"")),
        (b"$4\r\na\r\nb\r\n", Reply::Bulk(b"a\r\nb")),
        (b"=7\r\ntxt:hi\n\r\n", Reply::Verbatim(b"txt", b"hi\n")),
        (b"*0\r\n", Reply::Array(Vec::new())),
        (b"*2\r\n:1\r\n*1\r\n_\r\n", {
            Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![Reply::Null])])
        }),
        (b"%1\r\n+a\r\n:1\r\n", Reply::Map(vec![(Reply::Simple(b"a"), Reply::Integer(1))])),
        (b"~1\r\n:1\r\n", Reply::Set(vec![Reply::Integer(1)])),
        (b">2\r\n+message\r\n:1\r\n", {
            Reply::Push(vec![Reply::Simple(b"message"), Reply::Integer(1)])
        }),
        (b"|1\r\n+ttl\r\n:9\r\n:1\r\n", Reply::Integer(1)),
    ] {
        assert_eq!(parsed(input), reply, "{}", input.escape_ascii());
        assert_eq!(ReplyScanner::new().scan(input), Ok(Some(input.len())));
        for short in 0..input.len() {
            assert_eq!(parse_reply(&input[..short]), Ok(None), "{short} bytes of {reply:?}");
        }
    }
    assert!(matches!(parsed(b",nan\r\n"), Reply::Double(nan) if nan.is_nan()));
}

#[test]
fn invalid_input() {
    let deep = b"*1\r\n".repeat(40);
    let deep = [&deep[..], b":1\r\n"].concat();
    for input in [
        &b"HTTP/1.1 400\r\n"[..],
        b"+\n",
        b"\r\n",
        b":x\r\n",
        b"#x\r\n",
        b",x\r\n",
        b"_x\r\n",
        b"$-2\r\n",
        b"%-1\r\n",
        b"|-1\r\n",
        b"$x\r\n",
        b"$1\r\nabc",
        b"=2\r\nab\r\n",
        b"*x\r\n",
        &deep,
    ] {
        let error = parse_reply(input).expect_err(&input.escape_ascii().to_string());
        assert!(error.excerpt.len() <= MAX_EXCERPT);
    }
    let error = parse_reply(b"HTTP/1.1 400\r\n").unwrap_err();
    assert_eq!(error.to_string(), "the server's answer is not RESP: HTTP/1.1 400\\r");
}

#[test]
fn a_reply_ends_where_the_next_one_starts() {
    let input = b"*1\r\n:1\r\n-ERR no\r\n";
    let (first, length) = parse_reply(input).unwrap().unwrap();
    assert_eq!((first, length), (Reply::Array(vec![Reply::Integer(1)]), 8));
    assert_eq!(parse_reply(&input[length..]), Ok(Some((Reply::Error(b"ERR no"), 9))));
    let mut scanner = ReplyScanner::new();
    assert_eq!(scanner.scan(input), Ok(Some(8)));
    assert_eq!(scanner.scan(&input[8..]), Ok(Some(9)));
}

/// Replies as [`ReplyWriter`] encodes them.
fn written() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|value| encoded(|writer| writer.integer(value))),
        any::<f64>().prop_map(|value| encoded(|writer| writer.double(value))),
        any::<bool>().prop_map(|value| encoded(|writer| writer.boolean(value))),
        Just(encoded(ReplyWriter::null)),
        "[a-z]{0,10}".prop_map(|text| encoded(|writer| writer.simple(&text))),
        "[\\r\\na-z]{0,10}"
            .prop_map(|text| encoded(|writer| writer.verbatim(b"txt", text.as_bytes()))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| encoded(|writer| writer.bulk(&b))),
    ];
    leaf.prop_recursive(4, 40, 6, |element| {
        prop::collection::vec(element, 0..6).prop_flat_map(|elements| {
            let len = elements.len();
            let headers = vec![
                encoded(|writer| writer.array(len)),
                encoded(|writer| writer.set(len)),
                encoded(|writer| writer.push(len)),
                encoded(|writer| writer.map(len / 2)),
            ];
            let body = elements.concat();
            prop::sample::select(headers).prop_map(move |header| [header, body.clone()].concat())
        })
    })
}

fn encoded(write: impl FnOnce(&mut ReplyWriter)) -> Vec<u8> {
    let mut writer = ReplyWriter::new(ProtocolVersion::Resp3);
    write(&mut writer);
    writer.out
}

proptest! {
    #[test]
    fn the_scanner_agrees_with_the_parser(
        input in written(),
        reads in prop::collection::vec(1..30_usize, 1..6),
    ) {
        // A map of an odd number of elements leaves one of them to the next reply.
        let (_, length) = parse_reply(&input).unwrap().unwrap();
        let (mut scanner, mut received) = (ReplyScanner::new(), 0);
        for read in reads.iter().cycle() {
            received = (received + read).min(input.len());
            match scanner.scan(&input[..received]) {
                Ok(None) => prop_assert!(received < length),
                end => {
                    prop_assert_eq!(end, Ok(Some(length)));
                    break;
                }
            }
        }
    }

    #[test]
    fn parsing_never_panics(input in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = (parse_reply(&input), ReplyScanner::new().scan(&input));
    }

    #[test]
    fn written_requests_are_parsed(
        args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..12),
    ) {
        let mut out = Vec::new();
        write_request(&mut out, &args);
        let mut batch = crate::Batch::new();
        let consumed =
            RequestParser::new().parse(&out, &RequestLimits::default(), &mut batch, 1);
        prop_assert_eq!(consumed, Ok(out.len()));
        let received: Vec<_> = batch.request(0, &out).iter().map(<[u8]>::to_vec).collect();
        prop_assert_eq!(received, args);
    }
}
