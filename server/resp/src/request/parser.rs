//! The incremental parser. See the parent module for the loop around it.
//!
//! Invariants:
//! 1. Each byte is looked at once: an unfinished request remembers how far it was understood and
//!    how far its current line was searched. A large argument costs one comparison per read.
//! 2. However the bytes are cut into reads, requests and error come out the same.
//! 3. Nothing is allocated for what is merely claimed: spans grow with the arguments received.

use memchr::memchr;

use super::inline;
use super::{ArgSpan, Batch, ProtocolError, RETAINED_SPANS, RequestLimits};
use crate::number::parse_i64;

/// Longest line behind `*` or `$`, marker included, carriage return not.
pub(super) const MAX_LENGTH_LINE: usize = 64 * 1024;

/// Most arguments of a request before authentication.
const UNAUTHENTICATED_ARGS: usize = 10;

/// Longest argument before authentication.
const UNAUTHENTICATED_BULK: usize = 16 * 1024;

/// Finds requests in what has been read so far; keeps its place inside a half-received one.
#[derive(Debug, Default)]
pub struct RequestParser {
    progress: Progress,
    /// Arguments of the request in progress that are complete, counted from its first byte.
    pub(super) spans: Vec<ArgSpan>,
    consumed: usize,
    failed: Option<ProtocolError>,
}

/// How far the request in progress has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The first byte not understood yet, counted from the request's first byte.
    at: usize,
    /// How many bytes from `at` on were searched for the end of the line, in vain.
    searched: usize,
    /// Arguments still to come; 0 while the count is not known.
    args_left: usize,
    /// Length of the argument at `at`, once its `$` line has been read.
    bulk: Option<usize>,
}

/// A length line that has been read.
struct LengthLine {
    /// `None` if it is no integer.
    value: Option<i64>,
    /// Offset behind the line's end.
    end: usize,
}

impl RequestParser {
    /// A parser at the start of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the complete requests at the front of `buf` to `batch`, at most `max_requests`, and
    /// returns how many bytes they and the empty requests between them take.
    ///
    /// Drain just these bytes before the next call, and append what was read since; the next call
    /// must see the unfinished request at the front. As long as bytes were consumed there may be
    /// more complete requests: the limit was reached, or the client is not authenticated, which
    /// limits a call to one request (see [`RequestLimits::authenticated`]).
    ///
    /// # Errors
    /// The bytes behind the complete requests are no request. These requests are in the batch all
    /// the same and have to be answered before the error is sent and the connection closed;
    /// [`consumed`](Self::consumed) tells where they end. Every further call fails likewise.
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
                    self.progress = Progress::default();
                    batch.ends_at(end);
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

    /// What the last call of [`parse`](Self::parse) consumed, also if it failed.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// How many more bytes the request in progress is known to need, so that a reader can size its
    /// buffer; 0 if unknown. `buffered` is how many bytes of it have been read.
    ///
    /// This is what the client claims, [`RequestLimits::max_bulk`] and a few bytes at most: a reader that
    /// guards its memory grows towards it in steps.
    #[must_use]
    pub fn wanted(&self, buffered: usize) -> usize {
        /// `$0\r\n\r\n`
        const SMALLEST_ARGUMENT: usize = 6;
        let Some(bulk) = self.progress.bulk else {
            return 0;
        };
        let others = self.progress.args_left.saturating_sub(1).saturating_mul(SMALLEST_ARGUMENT);
        let end = self.progress.at.saturating_add(bulk).saturating_add(2).saturating_add(others);
        end.saturating_sub(buffered)
    }

    /// Takes a `*` request that starts at `consumed`; where it ends, if it does.
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
        let mut progress = Progress { at: line.end, searched: 0, args_left: count, bulk: None };
        if arguments(buf, limits, &mut progress, &mut batch.spans)? {
            batch.complete(first, false);
            return Ok(Some(progress.at));
        }
        // The request will start the next buffer: from here on, offsets count from its start.
        let received = batch.spans.drain(first..);
        self.spans.extend(received.map(|span| ArgSpan { start: span.start - start, ..span }));
        progress.at -= start;
        self.progress = progress;
        Ok(None)
    }

    /// Goes on with the request at the front of the buffer, whose count is known.
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
        batch.complete(first, false);
        Ok(Some(self.progress.at))
    }

    /// Takes an inline request that starts at `consumed`; where it ends, if it does.
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
            batch.complete(first, unescaped);
        }
        Ok(Some(line_feed + 1))
    }
}

/// Reads arguments from `progress.at`, an offset into `buf`, on; whether all are there.
///
/// The two bytes behind an argument are skipped unseen, as Redis does.
#[inline]
fn arguments(
    buf: &[u8],
    limits: &RequestLimits,
    progress: &mut Progress,
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

/// Reads the `$` line at `progress.at` and moves behind it; the length, if the line is complete.
#[inline]
fn bulk_line(
    buf: &[u8],
    limits: &RequestLimits,
    progress: &mut Progress,
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

/// Reads the line at `at`: one marker byte, an integer, two bytes of which the first is `\r`.
/// `None` if it is not complete; `searched` then remembers how much of it was searched.
#[inline]
fn length_line(
    buf: &[u8],
    at: usize,
    searched: &mut usize,
    too_long: ProtocolError,
) -> Result<Option<LengthLine>, ProtocolError> {
    match buf.get(at + 1..).and_then(short_number) {
        Some((value, len)) => Ok(Some(LengthLine { value: Some(value), end: at + 1 + len })),
        None => any_length_line(buf, at, searched, too_long),
    }
}

/// The usual case of a length line: a complete one with a canonical number of up to nine digits.
/// Its value, and its length with the two bytes of the line's end.
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

/// The other cases: incomplete, negative, long, or wrong.
#[cold]
fn any_length_line(
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
    // A line that starts with its end has no marker, hence no number either.
    let value = rest.get(1..len).and_then(parse_i64);
    Ok(Some(LengthLine { value, end: at + len + 2 }))
}
