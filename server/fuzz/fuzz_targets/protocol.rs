//! Fuzz target of the request parser and the reply parser. Both parse the input in one read and in
//! many, and must give the same result.
//!
//! The first three bytes of an input select the size of reads, the size of batches, and the limits;
//! the rest is sent by the peer.
#![no_main]

use cowherd_resp::{
    Batch, ProtocolError, ProtocolVersion, ReplyScanner, ReplyWriter, RequestLimits, RequestParser,
    parse_reply,
};
use libfuzzer_sys::fuzz_target;

/// Parsed requests, and the error of the connection or the bytes of an unfinished request.
type ParsedInput = (Vec<Vec<Vec<u8>>>, Result<Vec<u8>, ProtocolError>);

fuzz_target!(|input: &[u8]| {
    let [read_size, max_requests, flags, sent @ ..] = input else { return };
    let limits = RequestLimits {
        max_bulk: 1 << 20,
        max_inline: if flags & 1 == 0 { 32 } else { 1 << 20 },
        max_args: 64,
        authenticated: flags & 2 == 0,
    };
    let read_size = usize::from(*read_size).max(1);
    let max_requests = usize::from(*max_requests).max(1);

    let whole = connection([sent], &limits, usize::MAX);
    let parts = connection(sent.chunks(read_size), &limits, max_requests);
    assert_eq!(parts, whole);
    let bytes = connection(sent.chunks(1), &limits, usize::MAX);
    assert_eq!(bytes, whole);
    scan_reply(sent, read_size);
});

/// Read loop of a connection: buffers reads, parses batches, drains the consumed bytes.
fn connection<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
    limits: &RequestLimits,
    max_requests: usize,
) -> ParsedInput {
    let (mut parser, mut batch) = (RequestParser::new(), Batch::new());
    let (mut buf, mut seen) = (Vec::new(), Vec::new());
    for read in reads {
        buf.extend_from_slice(read);
        loop {
            batch.clear();
            let result = parser.parse(&buf, limits, &mut batch, max_requests);
            for i in 0..batch.len() {
                let args = batch.request(i, &buf);
                assert!(!args.is_empty() && args.len() <= limits.max_args.max(limits.max_inline));
                seen.push(args.iter().map(<[u8]>::to_vec).collect());
            }
            match result {
                Ok(0) => break,
                Ok(consumed) => drop(buf.drain(..consumed)),
                Err(error) => {
                    assert_one_line(error);
                    return (seen, Err(error));
                }
            }
        }
        let wanted = parser.wanted(buf.len());
        assert!(wanted <= limits.max_bulk + 2 + 6 * limits.max_args);
    }
    (seen, Ok(buf))
}

/// Finds the end of a reply in reads of `read_size`, and compares it with that of the parsed reply.
fn scan_reply(sent: &[u8], read_size: usize) {
    let mut scanner = ReplyScanner::new();
    let mut end = Ok(None);
    let mut received = 0;
    while received < sent.len() && end == Ok(None) {
        received = (received + read_size).min(sent.len());
        end = scanner.scan(&sent[..received]);
    }
    // The scanner accepts more: it checks neither the texts of lines nor the depth.
    if let Ok(Some((_, length))) = parse_reply(sent) {
        assert_eq!(end, Ok(Some(length)));
    }
}

/// An error must be encoded as one line, whatever bytes it quotes.
fn assert_one_line(error: ProtocolError) {
    let mut reply = ReplyWriter::new(ProtocolVersion::Resp2);
    reply.protocol_error(error);
    let line = reply.out.strip_suffix(b"\r\n").expect("a reply ends its line");
    assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
}
