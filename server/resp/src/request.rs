//! Requests as they come off the wire.
//!
//! A [`RequestParser`] cuts a read buffer into requests and lists them in a [`Batch`]: an argument is a
//! [`ArgSpan`] of the buffer, nothing is copied, and once both are warm nothing is allocated.
//!
//! ```text
//!  buf    *2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGE
//!                    ~~~         ~             ~~~~   |
//!  batch  spans     (8,3)      (17,1)         (28,4)  | consumed: drained by the caller
//!         requests  0..2                      2..3    | what follows stays at the front of the
//!                                                     | buffer, its state stays in the parser
//! ```
//!
//! An inline request with quotes cannot be read in place; the words of such a request lie in a side
//! buffer of the batch, and its spans point there. [`Batch::request`] picks the right one.
//!
//! # The loop around it
//!
//! 1. read into the buffer; clear the batch; [`RequestParser::parse`];
//! 2. run each [`Batch::request`] against the same, unchanged buffer;
//! 3. drain the consumed bytes from the front of the buffer;
//! 4. if any were consumed, go to 1 without reading: there may be more complete requests;
//! 5. on an error, run the batch as in 2, send the error, close.

mod inline;
mod parser;

use std::fmt;
use std::ops::Index;

pub use parser::RequestParser;
use thiserror::Error;

/// Spans and requests that stay allocated when one large request has passed.
const RETAINED_SPANS: usize = 16 * 1024;

/// Unescaped bytes that stay allocated when one large inline request has passed.
const RETAINED_UNESCAPED: usize = 64 * 1024;

/// Where one argument lies, counted from the start of the buffer given to [`RequestParser::parse`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArgSpan {
    /// Offset of the first byte.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

/// The arguments of one request, the command's name first; cheap to copy.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [ArgSpan],
}

impl<'a> Args<'a> {
    /// The arguments that `spans` cut out of `buf`. Each span must lie inside `buf`.
    #[inline]
    #[must_use]
    pub fn new(buf: &'a [u8], spans: &'a [ArgSpan]) -> Self {
        Self { buf, spans }
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `i`, if there are so many.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.spans.get(i).map(|span| resolve(self.buf, span))
    }

    /// Argument `i`, for as long as the buffer lives (indexing lends it only as long as `self`).
    ///
    /// # Panics
    /// When there are not so many.
    #[inline]
    #[must_use]
    pub fn at(&self, i: usize) -> &'a [u8] {
        resolve(self.buf, &self.spans[i])
    }

    /// All of them in order.
    #[inline]
    pub fn iter(&self) -> ArgsIter<'a> {
        ArgsIter { buf: self.buf, spans: self.spans.iter() }
    }

    /// The arguments from `i` on; none if there are fewer.
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

/// Iterates over [`Args`].
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

/// What a client may ask for. Claims beyond it are refused before anything is set aside for them.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Longest argument in bytes: `proto-max-bulk-len`.
    pub max_bulk: usize,
    /// Longest inline request in bytes, without its line feed.
    pub max_inline: usize,
    /// Most arguments in one request.
    pub max_args: usize,
    /// Whether the client may run any command. Until then a request has at most 10 arguments of at
    /// most 16384 bytes, and [`RequestParser::parse`] takes one request at a time, because running it may
    /// be what authenticates the client.
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

/// The bytes are no request, so the connection cannot go on. The texts are those that Redis sends;
/// [`ReplyWriter::protocol_error`](super::ReplyWriter::protocol_error) writes them to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The count behind `*` is no integer, or above [`RequestLimits::max_args`].
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The length behind `$` is no integer, negative, or above [`RequestLimits::max_bulk`].
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument starts with this byte.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// The line with the count of arguments does not end.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkCountTooLong,
    /// The line with the length of an argument does not end.
    #[error("Protocol error: too big bulk count string")]
    BulkLengthTooLong,
    /// An inline request is longer than [`RequestLimits::max_inline`].
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// A quote of an inline request is not closed, or something follows it at once.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More than 10 arguments before the client has authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// An argument of more than 16384 bytes before the client has authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
}

/// Requests parsed out of one read buffer; reused between reads, so that parsing allocates nothing
/// once warm.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<ArgSpan>,
    requests: Vec<Entry>,
    /// Words of the inline requests that had quotes.
    unescaped: Vec<u8>,
}

/// One request: which spans are its arguments, and what they point into.
#[derive(Clone, Copy, Debug)]
struct Entry {
    first: usize,
    end: usize,
    /// Where its bytes end in the buffer.
    bytes_end: usize,
    unescaped: bool,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the requests, keeps the memory, unless it has grown out of proportion.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.requests.clear();
        self.unescaped.clear();
        self.spans.shrink_to(RETAINED_SPANS);
        self.requests.shrink_to(RETAINED_SPANS);
        self.unescaped.shrink_to(RETAINED_UNESCAPED);
    }

    /// How many requests it holds.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether it holds none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The arguments of request `i`, never empty; `buf` is the buffer that was parsed, unchanged.
    ///
    /// # Panics
    /// When there are not so many requests.
    #[inline]
    #[must_use]
    pub fn request<'a>(&'a self, i: usize, buf: &'a [u8]) -> Args<'a> {
        let entry = self.requests[i];
        let buf = if entry.unescaped { &self.unescaped } else { buf };
        Args::new(buf, &self.spans[entry.first..entry.end])
    }

    /// Where the bytes of the first `requests` requests end in the buffer that was parsed.
    #[must_use]
    pub fn end_of(&self, requests: usize) -> usize {
        requests.checked_sub(1).map_or(0, |last| self.requests[last].bytes_end)
    }

    /// Notes where the bytes of the last request end, blank lines behind it included.
    #[inline]
    fn ends_at(&mut self, end: usize) {
        if let Some(request) = self.requests.last_mut() {
            request.bytes_end = end;
        }
    }

    /// Makes a request of the spans from `first` on.
    #[inline]
    fn complete(&mut self, first: usize, unescaped: bool) {
        self.requests.push(Entry { first, end: self.spans.len(), bytes_end: 0, unescaped });
    }
}

#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;
