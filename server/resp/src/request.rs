//! Request parser: RESP arrays and inline requests.
//!
//! A [`RequestParser`] finds the complete requests in a read buffer and appends them to a
//! [`Batch`]. An argument is an [`ArgSpan`] of the buffer: parsing copies nothing, and a warm
//! parser and batch allocate nothing.
//!
//! ```text
//!  buf    *2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGE
//!                    ~~~         ~             ~~~~   |
//!  batch  spans     (8,3)      (17,1)         (28,4)  | consumed: drained by the caller
//!         requests  0..2                      2..3    | the unfinished request stays in the
//!                                                     | buffer, its state in the parser
//! ```
//!
//! An inline request with quotes cannot be used in place: its unescaped words lie in a side buffer
//! of the batch, and its spans point there. [`Batch::request`] selects the buffer.
//!
//! # Read loop of a connection
//!
//! 1. Read into the buffer, clear the batch, call [`RequestParser::parse`].
//! 2. Execute each [`Batch::request`] against the same, unchanged buffer.
//! 3. Drain the consumed bytes from the front of the buffer.
//! 4. If any bytes were consumed, go to 1 without reading: the buffer may hold more complete
//!    requests.
//! 5. On an error, execute the batch as in 2, send the error, close the connection.

mod inline;
mod parser;

use std::fmt;
use std::ops::Index;

pub use parser::RequestParser;
use thiserror::Error;

/// Number of spans and requests that stay allocated after a large request, so that one client's
/// peak does not hold memory for the life of its connection.
const RETAINED_SPANS: usize = 16 * 1024;

/// Number of unescaped bytes that stay allocated after a large inline request.
const RETAINED_UNESCAPED: usize = 64 * 1024;

/// Position of an argument in the buffer given to [`RequestParser::parse`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArgSpan {
    /// Offset of the first byte from the start of the buffer.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

/// Arguments of one request, the command's name first; cheap to copy.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [ArgSpan],
}

impl<'a> Args<'a> {
    /// Creates arguments from `spans` of `buf`. Each span must lie inside `buf`.
    #[inline]
    #[must_use]
    pub fn new(buf: &'a [u8], spans: &'a [ArgSpan]) -> Self {
        Self { buf, spans }
    }

    /// Number of arguments.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the request has no arguments, which a parsed one never is.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `i`, or `None` if the request is shorter.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.spans.get(i).map(|span| resolve(self.buf, span))
    }

    /// Argument `i` with the buffer's lifetime, where indexing borrows from `self`.
    ///
    /// # Panics
    /// If the request is shorter.
    #[inline]
    #[must_use]
    pub fn at(&self, i: usize) -> &'a [u8] {
        resolve(self.buf, &self.spans[i])
    }

    /// Iterates over all arguments in order.
    #[inline]
    pub fn iter(&self) -> ArgsIter<'a> {
        ArgsIter { buf: self.buf, spans: self.spans.iter() }
    }

    /// `count` arguments from index `i` on.
    ///
    /// # Panics
    /// If the request is shorter.
    #[must_use]
    pub fn slice(&self, i: usize, count: usize) -> Args<'a> {
        Args { buf: self.buf, spans: &self.spans[i..i + count] }
    }

    /// Arguments from index `i` on; empty if the request is shorter.
    #[inline]
    #[must_use]
    pub fn from(&self, i: usize) -> Args<'a> {
        Args { buf: self.buf, spans: self.spans.get(i..).unwrap_or_default() }
    }
}

#[inline]
fn resolve<'a>(buf: &'a [u8], span: &ArgSpan) -> &'a [u8] {
    &buf[span.start..span.start + span.len]
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, i: usize) -> &[u8] {
        self.at(i)
    }
}

impl<'a> IntoIterator for Args<'a> {
    type Item = &'a [u8];
    type IntoIter = ArgsIter<'a>;

    fn into_iter(self) -> ArgsIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for arg in self.iter() {
            list.entry(&format_args!("\"{}\"", arg.escape_ascii()));
        }
        list.finish()
    }
}

/// Iterator over [`Args`].
#[derive(Clone, Debug)]
pub struct ArgsIter<'a> {
    buf: &'a [u8],
    spans: std::slice::Iter<'a, ArgSpan>,
}

impl<'a> Iterator for ArgsIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.spans.next().map(|span| resolve(self.buf, span))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.spans.size_hint()
    }
}

impl DoubleEndedIterator for ArgsIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.spans.next_back().map(|span| resolve(self.buf, span))
    }
}

impl ExactSizeIterator for ArgsIter<'_> {}

/// Limits of a request. The parser rejects a claimed length beyond a limit before it reserves
/// memory for it.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Longest argument in bytes: the directive `proto-max-bulk-len`.
    pub max_bulk: usize,
    /// Longest inline request in bytes, without its line feed.
    pub max_inline: usize,
    /// Most arguments in one request.
    pub max_args: usize,
    /// Whether the client is authenticated. Before that, a request has at most 10 arguments of at
    /// most 16384 bytes, and [`RequestParser::parse`] returns one request per call, because its
    /// execution may authenticate the client and so change the limits for the next request.
    pub authenticated: bool,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_bulk: 512 * 1024 * 1024,
            max_inline: 1024 * 1024,
            max_args: 1024 * 1024,
            authenticated: true,
        }
    }
}

/// Violation of the protocol, after which the connection must be closed. The texts are those of
/// Redis; [`ReplyWriter::protocol_error`](super::ReplyWriter::protocol_error) encodes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The count after `*` is not an integer, or exceeds [`RequestLimits::max_args`].
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The length after `$` is not an integer, is negative, or exceeds [`RequestLimits::max_bulk`].
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument starts with this byte instead of `$`.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// The line with the number of arguments exceeds 64 KiB.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkCountTooLong,
    /// The line with the length of an argument exceeds 64 KiB.
    #[error("Protocol error: too big bulk count string")]
    BulkLengthTooLong,
    /// An inline request is longer than [`RequestLimits::max_inline`].
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// A quote of an inline request is not closed, or is followed by neither blank nor line end.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More than 10 arguments before the client has authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// An argument of more than 16384 bytes before the client has authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
}

/// Requests found in one read buffer; reused between reads, so that a warm batch allocates nothing.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<ArgSpan>,
    requests: Vec<BatchEntry>,
    /// Words of the inline requests with quotes.
    unescaped: Vec<u8>,
}

/// Request in a batch: the range of its spans, and the buffer that they refer to.
#[derive(Clone, Copy, Debug)]
struct BatchEntry {
    first: usize,
    end: usize,
    /// End of the request's bytes in the read buffer.
    bytes_end: usize,
    /// Whether the spans refer to [`Batch::unescaped`] instead of the read buffer.
    unescaped: bool,
}

impl Batch {
    /// Creates an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all requests and keeps the memory up to a limit.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.requests.clear();
        self.unescaped.clear();
        self.spans.shrink_to(RETAINED_SPANS);
        self.requests.shrink_to(RETAINED_SPANS);
        self.unescaped.shrink_to(RETAINED_UNESCAPED);
    }

    /// Number of requests.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the batch holds no request.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Arguments of request `i`, never empty; `buf` is the unchanged buffer that was parsed.
    ///
    /// # Panics
    /// If the batch holds fewer requests.
    #[inline]
    #[must_use]
    pub fn request<'a>(&'a self, i: usize, buf: &'a [u8]) -> Args<'a> {
        let entry = self.requests[i];
        let buf = if entry.unescaped { &self.unescaped } else { buf };
        Args::new(buf, &self.spans[entry.first..entry.end])
    }

    /// End of the first `requests` requests in the buffer that was parsed.
    #[must_use]
    pub fn end_of(&self, requests: usize) -> usize {
        requests.checked_sub(1).map_or(0, |last| self.requests[last].bytes_end)
    }

    /// Records the end of the last request, including empty requests that follow it.
    #[inline]
    fn set_end(&mut self, end: usize) {
        if let Some(request) = self.requests.last_mut() {
            request.bytes_end = end;
        }
    }

    /// Appends a request that consists of the spans from `first` on.
    #[inline]
    fn push_request(&mut self, first: usize, unescaped: bool) {
        self.requests.push(BatchEntry { first, end: self.spans.len(), bytes_end: 0, unescaped });
    }
}

#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;
