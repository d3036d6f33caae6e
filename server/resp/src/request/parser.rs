//! Incremental request parser. The parent module describes the read loop.
//!
//! Invariants:
//! 1. Each byte is examined once: the state of an unfinished request records how far it was parsed
//!    and how far its current line was searched. A large argument costs one comparison per read.
//! 2. The division of the input into reads affects neither the requests nor the error.
//! 3. A claimed length reserves no memory: the vector of spans grows with the received arguments.

use memchr::memchr;

use super::inline;
use super::{ArgSpan, Batch, ProtocolError, RETAINED_SPANS, RequestLimits};
use crate::number::parse_i64;

/// Longest line that starts with `*` or `$`, in bytes, with the marker and without the line end; as
/// in Redis.
pub(super) const MAX_LENGTH_LINE: usize = 64 * 1024;

/// Maximum number of arguments before authentication; as in Redis.
const UNAUTHENTICATED_ARGS: usize = 10;

/// Longest argument in bytes before authentication; as in Redis.
const UNAUTHENTICATED_BULK: usize = 16 * 1024;

/// Parser of one connection's requests; keeps the state of a partially received request.
#[derive(Debug, Default)]
pub struct RequestParser {
    progress: RequestProgress,
    /// Complete arguments of the request in progress, relative to its first byte.
    pub(super) spans: Vec<ArgSpan>,
    consumed: usize,
    failed: Option<ProtocolError>,
}

/// State of a partially received request.
#[derive(Clone, Copy, Debug, Default)]
struct RequestProgress {
    /// Offset of the first byte that is not parsed yet, relative to the request's first byte.
    at: usize,
    /// Number of bytes from `at` on that are known to hold no line end.
    searched: usize,
    /// Number of missing arguments; 0 while the count is not known.
    args_left: usize,
    /// Length of the argument at `at`, once its `$` line is parsed.
    bulk: Option<usize>,
}

/// Parsed `*` or `$` line.
struct LengthLine {
    /// `None` if the text is not an integer.
    value: Option<i64>,
    /// Offset of the byte after the line end.
    end: usize,
}

impl RequestParser {
    /// Creates a parser for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the complete requests at the front of `buf` to `batch`, at most `max_requests`, and
    /// returns the number of bytes of these requests and of the empty requests between them.
    ///
    /// Drain exactly these bytes before the next call, and append newly read bytes; the next call
    /// must find the unfinished request at the front. A call that consumed bytes may have left
    /// complete requests in the buffer: because of `max_requests`, or because the client is not
    /// authenticated (see [`RequestLimits::authenticated`]).
    ///
    /// # Errors
    /// Returns an error if the bytes after the complete requests violate the protocol. The batch
    /// still holds the complete requests, which must be answered before the error is sent and the
    /// connection closed; [`consumed`](Self::consumed) is where they end. Every later call returns
    /// the same error.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        batch: &mut Batch,
        max_requests: usize,
    ) -> Result<usize, ProtocolError> {
        self.consumed = 0;
        if let Some(error) = self.failed {
            return Err(error);
        }
        let most = if limits.authenticated { max_requests } else { max_requests.min(1) };
        let full = batch.requests.len().saturating_add(most);
        while batch.requests.len() < full {
            let first_span = batch.spans.len();
            let step = match buf.get(self.consumed) {
                None => break,
                Some(b'*') => self.multibulk(buf, limits, batch),
                Some(_) => self.inline(buf, limits, batch),
            };
            match step {
                Ok(Some(end)) => {
                    self.consumed = end;
                    self.progress = RequestProgress::default();
                    batch.set_end(end);
                }
                Ok(None) => break,
                Err(error) => {
                    batch.spans.truncate(first_span);
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
        Ok(self.consumed)
    }

    /// Number of bytes that the last call of [`parse`](Self::parse) consumed, also on an error.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Lower bound for the number of missing bytes of the request in progress, so that a reader can
    /// size its buffer; 0 if unknown. `buffered` is the number of its bytes in the buffer.
    ///
    /// The value rests on the client's claim, which is at most [`RequestLimits::max_bulk`] and a
    /// few bytes: a reader with limited memory must grow its buffer in steps.
    #[must_use]
    pub fn wanted(&self, buffered: usize) -> usize {
        /// Size of `$0\r\n\r\n`.
        const SMALLEST_ARGUMENT: usize = 6;
        let Some(bulk) = self.progress.bulk else {
            return 0;
        };
        let others = self.progress.args_left.saturating_sub(1).saturating_mul(SMALLEST_ARGUMENT);
        let end = self.progress.at.saturating_add(bulk).saturating_add(2).saturating_add(others);
        end.saturating_sub(buffered)
    }

    /// Parses a `*` request that starts at `consumed`; returns its end if it is complete.
    #[inline]
    fn multibulk(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        batch: &mut Batch,
    ) -> Result<Option<usize>, ProtocolError> {
        let start = self.consumed;
        if self.progress.args_left > 0 {
            return self.resume(buf, limits, batch);
        }
        let too_long = ProtocolError::MultibulkCountTooLong;
        let Some(line) = length_line(buf, start, &mut self.progress.searched, too_long)? else {
            return Ok(None);
        };
        let count = match line.value {
            Some(value) => usize::try_from(value).unwrap_or(0),
            None => return Err(ProtocolError::InvalidMultibulkLength),
        };
        if count > limits.max_args {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if count > UNAUTHENTICATED_ARGS && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        if count == 0 {
            return Ok(Some(line.end));
        }

        let first = batch.spans.len();
        let mut progress =
            RequestProgress { at: line.end, searched: 0, args_left: count, bulk: None };
        if arguments(buf, limits, &mut progress, &mut batch.spans)? {
            batch.push_request(first, false);
            return Ok(Some(progress.at));
        }
        // The next buffer starts with this request, so its offsets become relative to its start.
        let received = batch.spans.drain(first..);
        self.spans.extend(received.map(|span| ArgSpan { start: span.start - start, ..span }));
        progress.at -= start;
        self.progress = progress;
        Ok(None)
    }

    /// Continues the request at the front of the buffer, whose number of arguments is known.
    #[cold]
    fn resume(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        batch: &mut Batch,
    ) -> Result<Option<usize>, ProtocolError> {
        if !arguments(buf, limits, &mut self.progress, &mut self.spans)? {
            return Ok(None);
        }
        let first = batch.spans.len();
        batch.spans.append(&mut self.spans);
        self.spans.shrink_to(RETAINED_SPANS);
        batch.push_request(first, false);
        Ok(Some(self.progress.at))
    }

    /// Parses an inline request that starts at `consumed`; returns its end if it is complete.
    fn inline(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        batch: &mut Batch,
    ) -> Result<Option<usize>, ProtocolError> {
        let start = self.consumed;
        let rest = &buf[start..];
        let window = &rest[..rest.len().min(limits.max_inline.saturating_add(1))];
        let searched = self.progress.searched;
        let unsearched = window.get(searched..).unwrap_or_default();
        let Some(found) = memchr(b'\n', unsearched) else {
            if window.len() > limits.max_inline {
                return Err(ProtocolError::InlineTooLong);
            }
            self.progress.searched = window.len();
            return Ok(None);
        };
        let line_feed = start + searched + found;
        let ends_in_cr = line_feed > start && buf[line_feed - 1] == b'\r';
        let line_end = line_feed - usize::from(ends_in_cr);
        let first = batch.spans.len();
        let unescaped = inline::split(buf, start, line_end, batch)?;
        if batch.spans.len() > first {
            batch.push_request(first, unescaped);
        }
        Ok(Some(line_feed + 1))
    }
}

/// Parses arguments from `progress.at`, an offset into `buf`, on; returns whether all are complete.
///
/// As in Redis, the two bytes after an argument are skipped unchecked.
#[inline]
fn arguments(
    buf: &[u8],
    limits: &RequestLimits,
    progress: &mut RequestProgress,
    spans: &mut Vec<ArgSpan>,
) -> Result<bool, ProtocolError> {
    while progress.args_left > 0 {
        let len = match progress.bulk {
            Some(len) => len,
            None => match bulk_line(buf, limits, progress)? {
                Some(len) => len,
                None => return Ok(false),
            },
        };
        if buf.len().saturating_sub(progress.at) < len.saturating_add(2) {
            progress.bulk = Some(len);
            return Ok(false);
        }
        spans.push(ArgSpan { start: progress.at, len });
        progress.at += len + 2;
        progress.bulk = None;
        progress.args_left -= 1;
    }
    Ok(true)
}

/// Parses the `$` line at `progress.at` and advances past it; returns the length if the line is
/// complete.
#[inline]
fn bulk_line(
    buf: &[u8],
    limits: &RequestLimits,
    progress: &mut RequestProgress,
) -> Result<Option<usize>, ProtocolError> {
    let too_long = ProtocolError::BulkLengthTooLong;
    let Some(line) = length_line(buf, progress.at, &mut progress.searched, too_long)? else {
        return Ok(None);
    };
    let marker = buf[progress.at];
    if marker != b'$' {
        return Err(ProtocolError::ExpectedBulk(marker));
    }
    let len = line.value.and_then(|value| usize::try_from(value).ok());
    let len = match len {
        Some(len) if len <= limits.max_bulk => len,
        _ => return Err(ProtocolError::InvalidBulkLength),
    };
    if len > UNAUTHENTICATED_BULK && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedBulkLength);
    }
    progress.at = line.end;
    progress.searched = 0;
    Ok(Some(len))
}

/// Parses the line at `at`: one marker byte, an integer, two bytes of which the first is `\r`.
/// Returns `None` if the line is incomplete; `searched` then records how much of it was searched.
#[inline]
fn length_line(
    buf: &[u8],
    at: usize,
    searched: &mut usize,
    too_long: ProtocolError,
) -> Result<Option<LengthLine>, ProtocolError> {
    match buf.get(at + 1..).and_then(short_number) {
        Some((value, len)) => Ok(Some(LengthLine { value: Some(value), end: at + 1 + len })),
        None => length_line_slow(buf, at, searched, too_long),
    }
}

/// Fast path of a length line: a complete line with a canonical number of up to nine digits.
/// Returns the value, and the length of the text with the two bytes of the line end.
#[inline]
fn short_number(text: &[u8]) -> Option<(i64, usize)> {
    const MAX_DIGITS: usize = 9;
    let mut value = 0;
    for (i, &byte) in text.iter().take(MAX_DIGITS + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let complete = byte == b'\r' && i > 0 && i + 1 < text.len();
            let canonical = i == 1 || text[0] != b'0';
            return (complete && canonical).then_some((value, i + 2));
        }
        value = value * 10 + i64::from(digit);
    }
    None
}

/// Slow path of a length line: incomplete, negative, long, or invalid.
#[cold]
fn length_line_slow(
    buf: &[u8],
    at: usize,
    searched: &mut usize,
    too_long: ProtocolError,
) -> Result<Option<LengthLine>, ProtocolError> {
    let rest = &buf[at..];
    let window = &rest[..rest.len().min(MAX_LENGTH_LINE + 1)];
    let Some(found) = memchr(b'\r', &window[*searched..]) else {
        if window.len() > MAX_LENGTH_LINE {
            return Err(too_long);
        }
        *searched = window.len();
        return Ok(None);
    };
    let len = *searched + found;
    if rest.len() < len + 2 {
        *searched = len;
        return Ok(None);
    }
    // A line that consists of its end alone has neither marker nor number.
    let value = rest.get(1..len).and_then(parse_i64);
    Ok(Some(LengthLine { value, end: at + len + 2 }))
}
