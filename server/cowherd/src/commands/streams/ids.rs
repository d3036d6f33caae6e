//! Ids as clients write them.

use crate::commands::error_reply::ErrorReply;
use crate::keyspace::StreamId;
use cowherd_resp::{ReplyWriter, parse_u64};

const INVALID: ErrorReply =
    ErrorReply::new("ERR Invalid stream ID specified as stream command argument");
/// Longer ones are none.
const LONGEST: usize = 127;

/// An id of which the number may be left to be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NewId {
    /// All is to be chosen.
    Auto,
    /// The number is.
    Numbered(u64),
    /// Nothing is.
    Given(StreamId),
}

/// A number of an id, which may have zeros, and a plus or blanks, before it.
fn number(text: &[u8]) -> Option<u64> {
    parse_u64(text).or_else(|| {
        let text = text.trim_ascii_start();
        let digits = text.strip_prefix(b"+").unwrap_or(text);
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        match &digits[zeros..] {
            [] if zeros > 0 => Some(0),
            digits => parse_u64(digits),
        }
    })
}

/// `ms` or `ms-seq`; without a number it is `seq`.
pub(super) fn strict(text: &[u8], seq: u64) -> Result<StreamId, ErrorReply> {
    if text.len() > LONGEST {
        return Err(INVALID);
    }
    let (ms, rest) = match text.iter().position(|byte| *byte == b'-') {
        Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
        None => (text, None),
    };
    let ms = number(ms).ok_or(INVALID)?;
    let seq = rest.map_or(Some(seq), number).ok_or(INVALID)?;
    Ok(StreamId { ms, seq })
}

/// As [`strict`], or `-` for the lowest and `+` for the highest.
pub(super) fn loose(text: &[u8], seq: u64) -> Result<StreamId, ErrorReply> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        text => strict(text, seq),
    }
}

/// The id of a new entry.
pub(super) fn new(text: &[u8]) -> Result<NewId, ErrorReply> {
    if text == b"*" {
        return Ok(NewId::Auto);
    }
    match text.strip_suffix(b"-*") {
        Some(ms) if text.len() <= LONGEST => number(ms).map(NewId::Numbered).ok_or(INVALID),
        _ => strict(text, 0).map(NewId::Given),
    }
}

/// The lower end of a range, which a `(` excludes.
pub(super) fn start(text: &[u8]) -> Result<StreamId, ErrorReply> {
    const NO_START: ErrorReply = ErrorReply::new("ERR invalid start ID for the interval");
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => strict(rest, 0)?.next().ok_or(NO_START),
        text => loose(text, 0),
    }
}

/// The upper end of a range, which a `(` excludes.
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
