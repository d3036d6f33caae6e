//! Entry ids in arguments and replies.

use crate::commands::error_reply::ErrorReply;
use crate::keyspace::StreamId;
use cowherd_resp::{ReplyWriter, before_zero, parse_u64_loose};

const INVALID: ErrorReply =
    ErrorReply::new("ERR Invalid stream ID specified as stream command argument");
/// The longest text of an id that Redis accepts.
const MAX_TEXT: usize = 127;

/// The id argument of XADD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NewId {
    /// `*`: time and sequence number are generated.
    Auto,
    /// `ms-*`: the sequence number is generated.
    Numbered(u64),
    /// A complete id.
    Given(StreamId),
}

/// The text of an id: it ends at its first zero byte.
fn checked(text: &[u8]) -> Result<&[u8], ErrorReply> {
    if text.len() > MAX_TEXT {
        return Err(INVALID);
    }
    Ok(before_zero(text))
}

/// Parses `ms-seq`, or `ms` with `seq` as the default.
pub(super) fn strict(text: &[u8], seq: u64) -> Result<StreamId, ErrorReply> {
    let text = checked(text)?;
    let (ms, rest) = match text.iter().position(|byte| *byte == b'-') {
        Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
        None => (text, None),
    };
    let ms = parse_u64_loose(ms).ok_or(INVALID)?;
    let seq = rest.map_or(Some(seq), parse_u64_loose).ok_or(INVALID)?;
    Ok(StreamId { ms, seq })
}

/// As [`strict`], and `-` for the lowest and `+` for the highest id.
pub(super) fn loose(text: &[u8], seq: u64) -> Result<StreamId, ErrorReply> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        text => strict(text, seq),
    }
}

/// Parses the id argument of XADD.
pub(super) fn new(text: &[u8]) -> Result<NewId, ErrorReply> {
    if text == b"*" {
        return Ok(NewId::Auto);
    }
    match checked(text)?.strip_suffix(b"-*") {
        Some(ms) => parse_u64_loose(ms).map(NewId::Numbered).ok_or(INVALID),
        None => strict(text, 0).map(NewId::Given),
    }
}

/// Parses the lower bound of a range, exclusive after `(`.
pub(super) fn start(text: &[u8]) -> Result<StreamId, ErrorReply> {
    const NO_START: ErrorReply = ErrorReply::new("ERR invalid start ID for the interval");
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => strict(rest, 0)?.next().ok_or(NO_START),
        text => loose(text, 0),
    }
}

/// Parses the upper bound of a range, exclusive after `(`.
pub(super) fn end(text: &[u8]) -> Result<StreamId, ErrorReply> {
    const NO_END: ErrorReply = ErrorReply::new("ERR invalid end ID for the interval");
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => strict(rest, u64::MAX)?.previous().ok_or(NO_END),
        text => loose(text, u64::MAX),
    }
}

/// Replies an id.
pub(super) fn show(reply: &mut ReplyWriter, id: StreamId) {
    let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (ms, seq) = (ms.format(id.ms).as_bytes(), seq.format(id.seq).as_bytes());
    let mut text = [0; 41];
    let len = ms.len() + 1 + seq.len();
    text[..ms.len()].copy_from_slice(ms);
    text[ms.len()] = b'-';
    text[ms.len() + 1..len].copy_from_slice(seq);
    reply.bulk(&text[..len]);
}
