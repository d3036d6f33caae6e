//! Requests: parses the input in one read and in many; requests, error and rest must be the same.
//!
//! The first three bytes of an input choose how it is cut and which limits hold; the rest is what
//! the client sends.
#![no_main]

use cowherd_resp::{
    Batch, ProtocolError, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser,
};
use libfuzzer_sys::fuzz_target;

/// The requests seen, and the error that ended the connection or the bytes that wait for more.
type Outcome = (Vec<Vec<Vec<u8>>>, Result<Vec<u8>, ProtocolError>);

fuzz_target!(|input: &[u8]| {
    let [read_size, max_requests, kind, sent @ ..] = input else { return };
    let limits = RequestLimits {
        max_bulk: 1 << 20,
        max_inline: if kind & 1 == 0 { 32 } else { 1 << 20 },
        max_args: 64,
        authenticated: kind & 2 == 0,
    };
    let read_size = usize::from(*read_size).max(1);
    let max_requests = usize::from(*max_requests).max(1);

    let whole = connection([sent], &limits, usize::MAX);
    let parts = connection(sent.chunks(read_size), &limits, max_requests);
    assert_eq!(parts, whole);
    let bytes = connection(sent.chunks(1), &limits, usize::MAX);
    assert_eq!(bytes, whole);
});

/// Buffers what arrives, takes requests in batches, drains what was consumed.
fn connection<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
    limits: &RequestLimits,
    max_requests: usize,
) -> Outcome {
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

/// An error must reach the client as one line, whatever bytes it quotes.
fn assert_one_line(error: ProtocolError) {
    let mut reply = ReplyWriter::new(ProtocolVersion::Resp2);
    reply.protocol_error(error);
    let line = reply.out.strip_suffix(b"\r\n").expect("a reply ends its line");
    assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
}
