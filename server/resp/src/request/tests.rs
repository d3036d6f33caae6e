use super::*;

/// Requests with owned arguments.
pub(super) type Owned = Vec<Vec<Vec<u8>>>;

pub(super) fn owned(batch: &Batch, buf: &[u8]) -> Owned {
    (0..batch.len()).map(|i| batch.request(i, buf).iter().map(<[u8]>::to_vec).collect()).collect()
}

/// Parses `input` with one call.
fn parse(input: &[u8], limits: &RequestLimits) -> (Owned, Result<usize, ProtocolError>) {
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let result = parser.parse(input, limits, &mut batch, usize::MAX);
    (owned(&batch, input), result)
}

/// The requests in `input`, which must be complete and valid.
fn requests(input: &[u8]) -> Owned {
    let (requests, result) = parse(input, &RequestLimits::default());
    assert_eq!(result, Ok(input.len()), "{}", input.escape_ascii());
    requests
}

fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

fn error(input: &[u8]) -> ProtocolError {
    error_within(input, &RequestLimits::default())
}

fn error_within(input: &[u8], limits: &RequestLimits) -> ProtocolError {
    parse(input, limits).1.expect_err(&input.escape_ascii().to_string())
}

#[test]
fn arrays_of_bulk_strings() {
    assert_eq!(requests(b""), Owned::new());
    assert_eq!(
        requests(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$7\r\nva\r\nlue\r\n*1\r\n$0\r\n\r\n"),
        [words(&[b"SET", b"key", b"va\r\nlue"]), words(&[b""])]
    );
    let long = vec![b'x'; 70_000];
    let request = [b"*2\r\n$4\r\nECHO\r\n$70000\r\n", &long[..], b"\r\n"].concat();
    assert_eq!(requests(&request), [words(&[b"ECHO", &long])]);
}

#[test]
fn empty_requests_are_skipped() {
    for empty in
        ["*0\r\n", "*-1\r\n", "*-9223372036854775808\r\n", "\r\n", "\n", " \t\r\n", "\r\r\n"]
    {
        assert_eq!(requests(empty.as_bytes()), Owned::new(), "{empty:?}");
        let input = [empty.as_bytes(), b"*1\r\n$4\r\nPING\r\n", empty.as_bytes()].concat();
        assert_eq!(requests(&input), [words(&[b"PING"])], "{empty:?}");
    }
}

/// Redis checks only the `\r` of a length line, and neither byte after an argument.
#[test]
fn line_ends_are_not_checked() {
    assert_eq!(requests(b"*1\rx$4\r?PING..\n"), [words(&[b"PING"])]);
}

#[test]
fn each_protocol_error() {
    use ProtocolError::*;
    let long = "1".repeat(parser::MAX_LENGTH_LINE + 1);
    for (input, expected) in [
        ("*\r\n", InvalidMultibulkLength),
        ("*a\r\n", InvalidMultibulkLength),
        ("*01\r\n", InvalidMultibulkLength),
        ("*+1\r\n", InvalidMultibulkLength),
        ("* 1\r\n", InvalidMultibulkLength),
        ("*-0\r\n", InvalidMultibulkLength),
        ("*1\nPING\r\n", InvalidMultibulkLength),
        ("*1048577\r\n", InvalidMultibulkLength),
        ("*2147483648\r\n", InvalidMultibulkLength),
        ("*11111111111111111111\r\n", InvalidMultibulkLength),
        ("*1\r\n$\r\n", InvalidBulkLength),
        ("*1\r\n$a\r\n", InvalidBulkLength),
        ("*1\r\n$-1\r\n", InvalidBulkLength),
        ("*1\r\n$04\r\n", InvalidBulkLength),
        ("*1\r\n$+4\r\n", InvalidBulkLength),
        ("*1\r\n$536870913\r\n", InvalidBulkLength),
        ("*1\r\n$9223372036854775807\r\n", InvalidBulkLength),
        ("*1\r\n$9223372036854775808\r\n", InvalidBulkLength),
        ("*2\r\n$1\r\nx\r\nfoo\r\n", ExpectedBulk(b'f')),
        ("*1\r\n\r\n", ExpectedBulk(b'\r')),
        ("*1\r\n:5\r\n", ExpectedBulk(b':')),
        (&format!("*{long}"), MultibulkCountTooLong),
        (&format!("*1\r\n${long}"), BulkLengthTooLong),
        (&format!("*1\r\n{long}"), BulkLengthTooLong),
        ("PING \"\r\n", UnbalancedQuotes),
        ("PING '\n", UnbalancedQuotes),
    ] {
        let shown = &input[..input.len().min(40)];
        assert_eq!(error(input.as_bytes()), expected, "{shown:?}");
    }
}

#[test]
fn error_texts_are_those_of_redis() {
    use ProtocolError::*;
    for (error, text) in [
        (InvalidMultibulkLength, "invalid multibulk length"),
        (InvalidBulkLength, "invalid bulk length"),
        (ExpectedBulk(b'x'), "expected '$', got 'x'"),
        (MultibulkCountTooLong, "too big mbulk count string"),
        (BulkLengthTooLong, "too big bulk count string"),
        (InlineTooLong, "too big inline request"),
        (UnbalancedQuotes, "unbalanced quotes in request"),
        (UnauthenticatedMultibulkLength, "unauthenticated multibulk length"),
        (UnauthenticatedBulkLength, "unauthenticated bulk length"),
    ] {
        assert_eq!(error.to_string(), format!("Protocol error: {text}"));
    }
}

#[test]
fn lengths_at_the_limits_reserve_no_memory() {
    for claim in ["*1048576\r\n", "*1\r\n$536870912\r\n", "*1048576\r\n$536870912\r\n"] {
        let mut batch = Batch::new();
        let result =
            RequestParser::new().parse(claim.as_bytes(), &RequestLimits::default(), &mut batch, 9);
        assert_eq!((result, batch.len()), (Ok(0), 0), "{claim:?}");
        assert_eq!(batch.spans.capacity(), 0, "memory reserved for a claimed length: {claim:?}");
    }
}

#[test]
fn limits_are_parameters() {
    let limits = RequestLimits { max_bulk: 4, max_inline: 8, max_args: 2, authenticated: true };
    let fits: &[u8] = b"*2\r\n$4\r\nECHO\r\n$4\r\nabcd\r\nECHO ab\r\n";
    assert_eq!(parse(fits, &limits).1, Ok(fits.len()));
    assert_eq!(error_within(b"*3\r\n", &limits), ProtocolError::InvalidMultibulkLength);
    assert_eq!(error_within(b"*1\r\n$5\r\n", &limits), ProtocolError::InvalidBulkLength);
    assert_eq!(error_within(b"ECHO abcd\n", &limits), ProtocolError::InlineTooLong);
    assert_eq!(error_within(b"ECHO abcd", &limits), ProtocolError::InlineTooLong);
    assert_eq!(parse(b"ECHO abc", &limits).1, Ok(0), "it may still end here");
    assert_eq!(parse(b"ECHO abc\n", &limits).1, Ok(9));
}

#[test]
fn limits_before_authentication() {
    let limits = RequestLimits { authenticated: false, ..RequestLimits::default() };
    let error = |input| error_within(input, &limits);
    assert_eq!(error(b"*11\r\n"), ProtocolError::UnauthenticatedMultibulkLength);
    assert_eq!(error(b"*1\r\n$16385\r\n"), ProtocolError::UnauthenticatedBulkLength);
    assert_eq!(error(b"*1\r\n$536870913\r\n"), ProtocolError::InvalidBulkLength);
    assert_eq!(parse(b"*10\r\n$16384\r\n", &limits).1, Ok(0));
}

/// A client may send AUTH and a large request in one packet.
#[test]
fn one_request_per_call_before_authentication() {
    let input: &[u8] = b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n*11\r\n";
    let mut limits = RequestLimits { authenticated: false, ..RequestLimits::default() };
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let consumed = parser.parse(input, &limits, &mut batch, usize::MAX).unwrap();
    assert_eq!(owned(&batch, input), [words(&[b"AUTH", b"x"])]);
    limits.authenticated = true;
    batch.clear();
    assert_eq!(parser.parse(&input[consumed..], &limits, &mut batch, usize::MAX), Ok(0));
}

#[test]
fn requests_before_an_error_are_returned() {
    let input = b"*1\r\n$4\r\nPING\r\nECHO \"a b\"\r\n*2\r\n$1\r\nx\r\n!\r\n*1\r\n$4\r\nPING\r\n";
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let limits = RequestLimits::default();
    let failed = Err(ProtocolError::ExpectedBulk(b'!'));
    assert_eq!(parser.parse(input, &limits, &mut batch, usize::MAX), failed);
    assert_eq!(owned(&batch, input), [words(&[b"PING"]), words(&[b"ECHO", b"a b"])]);
    assert_eq!(parser.consumed(), b"*1\r\n$4\r\nPING\r\nECHO \"a b\"\r\n".len());
    batch.clear();
    assert_eq!(parser.parse(b"PING\r\n", &limits, &mut batch, usize::MAX), failed);
    assert!(batch.is_empty(), "the error is permanent");
}

#[test]
fn inline_words() {
    for (line, expected) in [
        ("PING\n", &[b"PING" as &[u8]][..]),
        ("PING\r\r\n", &[b"PING"]),
        ("  SET\ta \x0bb\x0c c \r\n", &[b"SET", b"a", b"b\x0c", b"c"]),
        ("a\x0bb a\rb\n", &[b"a\x0bb", b"a", b"b"]),
        ("a\0b\n", &[b"a\0b"]),
        (r"a\nb", &[br"a\nb"]),
        (r#"E "" ''"#, &[b"E", b"", b""]),
        (r#"E a"b c" 'd e'"#, &[b"E", b"ab c", b"d e"]),
        (r#""\x41\xfF\n\r\t\b\a\q\\\"\xZZ\x4""#, &[b"A\xff\n\r\t\x08\x07q\\\"xZZx4"]),
        (r"'a\'b' 'a\nb' '\\x'", &[b"a'b", br"a\nb", br"\\x"]),
        (r#"E "a'b" 'a"b'"#, &[b"E", b"a'b", b"a\"b"]),
        ("\"a\rb\"\x0bc\n", &[b"a\rb", b"c"]),
    ] {
        let line = if line.ends_with('\n') { line.to_owned() } else { format!("{line}\r\n") };
        assert_eq!(requests(line.as_bytes()), [words(expected)], "{line:?}");
    }
}

#[test]
fn misplaced_quotes() {
    for line in [
        r#"""#,
        "'",
        r#"E "a"b"#,
        "E 'a'b",
        r#"E a"b"#,
        r#"E "a""b""#,
        r#"E "a\"#,
        r#"E "a\""#,
        r"E 'a\'",
    ] {
        let input = format!("PING\r\n{line}\r\n");
        let (before, result) = parse(input.as_bytes(), &RequestLimits::default());
        assert_eq!(result, Err(ProtocolError::UnbalancedQuotes), "{line:?}");
        assert_eq!(before, [words(&[b"PING"])], "{line:?}");
    }
}

#[test]
fn a_deep_pipeline_is_parsed_in_batches() {
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let mut buf: Vec<u8> = (0..10_000)
        .flat_map(|i| format!("*2\r\n$4\r\nECHO\r\n$5\r\n{i:05}\r\necho '{i}'\r\n").into_bytes())
        .collect();
    let mut seen = 0;
    loop {
        batch.clear();
        let consumed = parser.parse(&buf, &RequestLimits::default(), &mut batch, 128).unwrap();
        if consumed == 0 {
            break;
        }
        for i in 0..batch.len() {
            let args = batch.request(i, &buf);
            let number: usize = std::str::from_utf8(args.at(1)).unwrap().parse().unwrap();
            assert_eq!(number, seen / 2);
            seen += 1;
        }
        assert!(batch.len() == 128 || consumed == buf.len());
        buf.drain(..consumed);
    }
    assert_eq!((seen, buf.len()), (20_000, 0));
}

#[test]
fn a_large_argument_is_not_scanned_again() {
    let limits = RequestLimits::default();
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let mut buf = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n".to_vec();
    let total = buf.len() + 100_002;
    assert_eq!(parser.parse(&buf, &limits, &mut batch, 9), Ok(0));
    assert_eq!(parser.wanted(buf.len()), 100_002);
    // The parsed part is overwritten to show that the parser does not examine it again.
    let header = buf.len();
    buf[header - 9..].fill(b'?');
    while buf.len() < total {
        assert_eq!(parser.parse(&buf, &limits, &mut batch, 9), Ok(0));
        assert_eq!(parser.wanted(buf.len()), total - buf.len());
        buf.resize((buf.len() + 4096).min(total), b'v');
    }
    assert_eq!(parser.parse(&buf, &limits, &mut batch, 9), Ok(total));
    let args = batch.request(0, &buf);
    assert_eq!((&args[0], &args[1], args[2].len()), (&b"SET"[..], &b"k"[..], 100_000));
    assert_eq!(parser.wanted(0), 0);
}

#[test]
fn wanted_is_positive_only_inside_an_argument() {
    let limits = RequestLimits::default();
    for (input, wanted) in
        [("*2", 0), ("*2\r\n$1", 0), ("*2\r\n$1\r\n", 9), ("*2\r\n$1\r\nx\r\n", 0), ("PING", 0)]
    {
        let mut parser = RequestParser::new();
        assert_eq!(parser.parse(input.as_bytes(), &limits, &mut Batch::new(), 9), Ok(0));
        assert_eq!(parser.wanted(input.len()), wanted, "{input:?}");
    }
}

#[test]
fn a_warm_batch_is_not_reallocated() {
    let input = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\nECHO 'a b'\r\n".repeat(100);
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let mut capacities = [(0, 0, 0); 2];
    for capacity in &mut capacities {
        parser.parse(&input, &RequestLimits::default(), &mut batch, usize::MAX).unwrap();
        *capacity = (batch.spans.capacity(), batch.requests.capacity(), batch.unescaped.capacity());
        batch.clear();
    }
    assert_eq!(capacities[0], capacities[1]);
}

#[test]
fn memory_of_a_giant_request_is_released() {
    let input = [b"*1000000\r\n".to_vec(), b"$0\r\n\r\n".repeat(1_000_000)].concat();
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let half = input.len() / 2;
    assert_eq!(parser.parse(&input[..half], &RequestLimits::default(), &mut batch, 1), Ok(0));
    assert_eq!(parser.parse(&input, &RequestLimits::default(), &mut batch, 1), Ok(input.len()));
    assert_eq!(batch.request(0, &input).len(), 1_000_000);
    assert!(parser.spans.capacity() <= RETAINED_SPANS);
    batch.clear();
    assert!(batch.spans.capacity() <= RETAINED_SPANS);
}

#[test]
fn arguments_by_index_and_tail() {
    let buf = b"SETkeyvalue";
    let spans =
        [ArgSpan { start: 0, len: 3 }, ArgSpan { start: 3, len: 3 }, ArgSpan { start: 6, len: 5 }];
    let args = Args::new(buf, &spans);
    assert_eq!((args.len(), args.is_empty()), (3, false));
    assert_eq!((args.get(2), args.get(3)), (Some(&b"value"[..]), None));
    assert_eq!((&args[0], args.at(1)), (&b"SET"[..], &b"key"[..]));
    assert_eq!(args.from(1).iter().collect::<Vec<_>>(), [&b"key"[..], b"value"]);
    assert_eq!(args.iter().rev().len(), 3);
    assert!(args.from(3).is_empty() && args.from(4).is_empty());
    assert_eq!(format!("{args:?}"), r#"["SET", "key", "value"]"#);
}
