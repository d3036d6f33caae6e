//! Client side of the protocol: request writer and reply parser.
//!
//! [`write_request`] encodes a request. [`parse_reply`] decodes the reply at the front of a buffer
//! into a [`Reply`] that borrows from the buffer. [`ReplyScanner`] only finds the end of a reply: a
//! test keeps the exact bytes, and a reader of large replies avoids parsing them once per read.
//!
//! All types of RESP2 and RESP3 are understood except streamed strings and aggregates (`$?`, `*?`),
//! which no server sends.

use memchr::memchr;
use thiserror::Error;

use crate::number::{parse_f64, parse_i64};

/// Maximum nesting of aggregates, which bounds the recursion of [`parse_reply`]. Replies of Redis
/// nest about ten deep (`COMMAND DOCS`).
const MAX_DEPTH: u32 = 32;

/// Maximum length of an excerpt in an error.
const MAX_EXCERPT: usize = 64;

/// Decoded reply that borrows from the input buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// Simple string (`+`).
    Simple(&'a [u8]),
    /// Error (`-`, or `!` for arbitrary bytes), without the marker.
    Error(&'a [u8]),
    /// Integer (`:`).
    Integer(i64),
    /// Null of RESP3 (`_`), or a null bulk string or array of RESP2 (`$-1`, `*-1`).
    Null,
    /// Boolean (`#`).
    Boolean(bool),
    /// Double (`,`), also `inf`, `-inf` and `nan`.
    Double(f64),
    /// Integer of any size (`(`), in decimal.
    BigNumber(&'a [u8]),
    /// Bulk string (`$`).
    Bulk(&'a [u8]),
    /// Verbatim string (`=`): three bytes of format, and the text.
    Verbatim(&'a [u8], &'a [u8]),
    /// Array (`*`).
    Array(Vec<Reply<'a>>),
    /// Map (`%`), as pairs of key and value.
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// Set (`~`).
    Set(Vec<Reply<'a>>),
    /// Push message (`>`).
    Push(Vec<Reply<'a>>),
}

impl<'a> Reply<'a> {
    /// The bytes of a simple, bulk or verbatim string or of an error; `None` for other types.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Simple(text) | Self::Error(text) | Self::Bulk(text) | Self::Verbatim(_, text) => {
                Some(text)
            }
            _ => None,
        }
    }
}

/// Input that is not a reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the server's answer is not RESP: {}", excerpt.escape_ascii())]
pub struct InvalidReply {
    /// First bytes of the offending line, or of the text after a bulk string.
    pub excerpt: Vec<u8>,
}

impl InvalidReply {
    fn new(bytes: &[u8]) -> Self {
        Self { excerpt: bytes[..bytes.len().min(MAX_EXCERPT)].to_vec() }
    }
}

/// Appends a request with these arguments, the command's name first.
pub fn write_request<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    let header = |out: &mut Vec<u8>, marker: u8, len: usize| {
        out.push(marker);
        out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    header(out, b'*', args.len());
    for arg in args {
        let arg = arg.as_ref();
        header(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Decodes the reply at the front of `input`. Returns the reply and its length in bytes, or `None`
/// if the reply is incomplete. Attributes (`|`) before a reply are skipped.
///
/// # Errors
/// Returns an error if the input is not RESP, or nests deeper than 32 aggregates.
pub fn parse_reply(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, InvalidReply> {
    parse_at(input, 0, 0)
}

/// First line of a reply, with the whole payload of a string.
enum ReplyHead<'a> {
    /// Type that consists of one line: marker and text.
    Line(u8, &'a [u8]),
    /// Type with a length in bytes: marker and payload, `None` for the null bulk string.
    Blob(u8, Option<&'a [u8]>),
    /// Type with a number of elements: marker and number, `None` for the null array. A map and an
    /// attribute count key and value.
    Aggregate(u8, Option<u64>),
}

/// Parses the head at offset `at`. Returns the head and its end, or `None` if it is incomplete. The
/// first `searched` bytes are known to hold no line feed.
fn parse_head(
    input: &[u8],
    at: usize,
    searched: usize,
) -> Result<Option<(ReplyHead<'_>, usize)>, InvalidReply> {
    let rest = &input[at..];
    let Some(found) = memchr(b'\n', &rest[searched..]) else { return Ok(None) };
    let line = &rest[..searched + found];
    let invalid = || InvalidReply::new(line);
    let (&marker, text) =
        line.strip_suffix(b"\r").and_then(<[u8]>::split_first).ok_or_else(invalid)?;
    let line_end = at + line.len() + 1;
    let count = || match parse_i64(text) {
        Some(-1) if matches!(marker, b'$' | b'*') => Ok(None),
        Some(count) => u64::try_from(count).map(Some).map_err(|_| invalid()),
        None => Err(invalid()),
    };
    match marker {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
            Ok(Some((ReplyHead::Line(marker, text), line_end)))
        }
        b'*' | b'~' | b'>' => Ok(Some((ReplyHead::Aggregate(marker, count()?), line_end))),
        b'%' | b'|' => {
            let elements = count()?.map(|pairs| pairs.saturating_mul(2));
            Ok(Some((ReplyHead::Aggregate(marker, elements), line_end)))
        }
        b'$' | b'=' | b'!' => {
            let Some(len) = count()? else {
                return Ok(Some((ReplyHead::Blob(marker, None), line_end)));
            };
            let payload_end = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(line_end);
            let end = payload_end.saturating_add(2);
            let Some(payload) = input.get(line_end..end) else { return Ok(None) };
            let Some(payload) = payload.strip_suffix(b"\r\n") else {
                return Err(InvalidReply::new(&input[payload_end..end]));
            };
            Ok(Some((ReplyHead::Blob(marker, Some(payload)), end)))
        }
        _ => Err(invalid()),
    }
}

fn parse_at(
    input: &[u8],
    at: usize,
    depth: u32,
) -> Result<Option<(Reply<'_>, usize)>, InvalidReply> {
    let Some((head, mut end)) = parse_head(input, at, 0)? else { return Ok(None) };
    let invalid = || InvalidReply::new(&input[at..end]);
    let reply = match head {
        ReplyHead::Line(b'+', text) => Reply::Simple(text),
        ReplyHead::Line(b'-', text) => Reply::Error(text),
        ReplyHead::Line(b':', text) => Reply::Integer(parse_i64(text).ok_or_else(invalid)?),
        ReplyHead::Line(b',', b"nan") => Reply::Double(f64::NAN),
        ReplyHead::Line(b',', text) => Reply::Double(parse_f64(text).ok_or_else(invalid)?),
        ReplyHead::Line(b'(', text) => Reply::BigNumber(text),
        ReplyHead::Line(b'#', b"t") => Reply::Boolean(true),
        ReplyHead::Line(b'#', b"f") => Reply::Boolean(false),
        ReplyHead::Line(b'_', b"") => Reply::Null,
        ReplyHead::Line(..) => return Err(invalid()),
        ReplyHead::Blob(_, None) | ReplyHead::Aggregate(_, None) => Reply::Null,
        ReplyHead::Blob(b'!', Some(text)) => Reply::Error(text),
        ReplyHead::Blob(b'=', Some(payload)) => match payload.split_at_checked(4) {
            Some((format, text)) if format[3] == b':' => Reply::Verbatim(&format[..3], text),
            _ => return Err(invalid()),
        },
        ReplyHead::Blob(_, Some(bytes)) => Reply::Bulk(bytes),
        ReplyHead::Aggregate(..) if depth == MAX_DEPTH => return Err(invalid()),
        ReplyHead::Aggregate(marker, Some(count)) => {
            // Not reserved in advance: the count is a claim of the server.
            let mut elements = Vec::new();
            for _ in 0..count {
                let Some((element, element_end)) = parse_at(input, end, depth + 1)? else {
                    return Ok(None);
                };
                elements.push(element);
                end = element_end;
            }
            match marker {
                b'|' => return parse_at(input, end, depth + 1),
                b'%' => Reply::Map(into_pairs(elements)),
                b'~' => Reply::Set(elements),
                b'>' => Reply::Push(elements),
                _ => Reply::Array(elements),
            }
        }
    };
    Ok(Some((reply, end)))
}

fn into_pairs<'a>(elements: Vec<Reply<'a>>) -> Vec<(Reply<'a>, Reply<'a>)> {
    let mut elements = elements.into_iter();
    std::iter::from_fn(|| Some((elements.next()?, elements.next()?))).collect()
}

/// Incremental search for the end of the reply at the front of a growing buffer. Each byte is
/// examined once, whatever the division of the reply into reads.
#[derive(Clone, Debug)]
pub struct ReplyScanner {
    /// Offset of the first element whose end is not known yet.
    at: usize,
    /// Number of bytes from `at` on that are known to hold no line feed.
    searched: usize,
    /// Number of elements whose end is not known yet.
    missing: u64,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self { at: 0, searched: 0, missing: 1 }
    }
}

impl ReplyScanner {
    /// Creates a scanner for one reply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the length of the reply at the front of `input`, or `None` if the reply is
    /// incomplete. Each call must receive the bytes of the previous call and possibly more. After
    /// the end was found, the scanner is ready for the next reply, at the front of the next input.
    ///
    /// # Errors
    /// Returns an error if the input is not RESP. Texts of lines are not checked.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, InvalidReply> {
        while self.missing > 0 {
            // A line feed inside an incomplete bulk string is found again, which is cheap: the line
            // of its length is short.
            let Some((head, end)) = parse_head(input, self.at, self.searched)? else {
                let rest = &input[self.at..];
                self.searched = memchr(b'\n', rest).unwrap_or(rest.len());
                return Ok(None);
            };
            let elements = match head {
                ReplyHead::Aggregate(_, count) => count.unwrap_or(0),
                ReplyHead::Line(..) | ReplyHead::Blob(..) => 0,
            };
            // The reply that follows an attribute counts as missing, as the attribute itself did.
            let is_attribute = input[self.at] == b'|';
            self.missing = (self.missing - u64::from(!is_attribute)).saturating_add(elements);
            self.at = end;
            self.searched = 0;
        }
        let end = self.at;
        *self = Self::default();
        Ok(Some(end))
    }
}

#[cfg(test)]
mod tests;
