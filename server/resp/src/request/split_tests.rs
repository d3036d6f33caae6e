//! Property tests: the division of the input into reads affects neither requests nor error.

use proptest::prelude::*;

use super::tests::{Owned, owned};
use super::*;

/// Read loop of a connection: buffers reads, parses batches of `max_requests`, drains the consumed
/// bytes. Returns the requests, and the error or the bytes of the unfinished request.
fn connection<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
    limits: &RequestLimits,
    max_requests: usize,
) -> (Owned, Result<Vec<u8>, ProtocolError>) {
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let (mut buf, mut seen) = (Vec::new(), Owned::new());
    for read in reads {
        buf.extend_from_slice(read);
        loop {
            batch.clear();
            let result = parser.parse(&buf, limits, &mut batch, max_requests);
            seen.extend(owned(&batch, &buf));
            match result {
                Ok(0) => break,
                Ok(consumed) => drop(buf.drain(..consumed)),
                Err(error) => return (seen, Err(error)),
            }
        }
        let wanted = parser.wanted(buf.len());
        assert!(wanted == 0 || !buf.is_empty(), "bytes wanted without a request in progress");
    }
    (seen, Ok(buf))
}

fn cut<'a>(input: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut reads, mut rest, mut sizes) = (Vec::new(), input, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |&size| size.clamp(1, rest.len()));
        let (read, behind) = rest.split_at(size);
        reads.push(read);
        rest = behind;
    }
    reads
}

/// Limits that short inputs reach.
fn small_limits(authenticated: bool) -> RequestLimits {
    RequestLimits { max_bulk: 40_000, max_inline: 24, max_args: 12, authenticated }
}

/// Strategy for valid and invalid fragments of requests.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed: Vec<&[u8]> = vec![
        b"*1\r\n",
        b"*2\r\n",
        b"*3\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*12\r\n",
        b"*13\r\n",
        b"*11\r\n",
        b"*01\r\n",
        b"*x\r\n",
        b"*1\n",
        b"*1\r",
        b"$0\r\n\r\n",
        b"$3\r\nGET\r\n",
        b"$3\r\n\r\n\r\r\n",
        b"$2\r\n",
        b"$-1\r\n",
        b"$40001\r\n",
        b"$16385\r\n",
        b"$1\r\n*\r\n",
        b"\r\n",
        b"\n",
        b"PING\r\n",
        b"PING\n",
        b"ECHO \"a b\"\r\n",
        b"ECHO 'a\\'b'\n",
        b"\"",
        b"'",
        b"\\x4",
        b" ",
        b"!",
        b"*",
        b"$",
        b"a line that is longer than it may be\r\n",
    ];
    prop_oneof![
        4 => prop::sample::select(fixed).prop_map(<[u8]>::to_vec),
        4 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..12)
            .prop_map(|args| encode(&args)),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ]
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend(format!("${}\r\n", arg.len()).into_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_division_into_reads_does_not_matter(
        pieces in prop::collection::vec(piece(), 0..12),
        sizes in prop::collection::vec(1..20_usize, 1..6),
        max_requests in 1..4_usize,
        authenticated: bool,
    ) {
        let input = pieces.concat();
        let limits = small_limits(authenticated);
        let whole = connection([&input[..]], &limits, usize::MAX);
        prop_assert_eq!(&connection(cut(&input, &sizes), &limits, max_requests), &whole);
        prop_assert_eq!(&connection(cut(&input, &[1]), &limits, usize::MAX), &whole);
    }

    #[test]
    fn encoded_requests_are_parsed(
        sent in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20), 0..10),
        sizes in prop::collection::vec(1..200_usize, 1..6),
    ) {
        let input: Vec<u8> = sent.iter().flat_map(|args| encode(args)).collect();
        let limits = RequestLimits::default();
        let (received, rest) = connection(cut(&input, &sizes), &limits, usize::MAX);
        prop_assert_eq!(received, sent);
        prop_assert_eq!(rest, Ok(Vec::new()));
    }
}

/// Lines near 64 KiB, which the strategy above does not generate.
#[test]
fn the_division_of_long_lines_does_not_matter() {
    let limits = RequestLimits { max_inline: 70_000, ..RequestLimits::default() };
    for filler in [65_530, 65_534, 65_535, 65_536, 65_537, 69_999, 70_000, 70_001] {
        let digits = "1".repeat(filler);
        for input in [
            format!("*{digits}"),
            format!("*{digits}\r\n"),
            format!("*2\r\n$1\r\nx\r\n${digits}"),
            format!("*2\r\n$1\r\nx\r\n${digits}\r\n"),
            digits.clone(),
            format!("{digits}\n"),
            format!("{digits}\r\n"),
        ] {
            let whole = connection([input.as_bytes()], &limits, usize::MAX);
            for size in [1_000, 4_096, 65_535] {
                let parts = connection(cut(input.as_bytes(), &[size]), &limits, usize::MAX);
                assert!(parts == whole, "{filler} bytes read by {size}: {:?}", &input[..12]);
            }
        }
    }
}
