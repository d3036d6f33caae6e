//! Reply writer for RESP2 and RESP3.
//!
//! A [`ReplyWriter`] appends replies to one output buffer, so that a pipelined batch needs one
//! `write`. Types that RESP2 lacks are encoded as Redis encodes them:
//!
//! | | RESP2 | RESP3 |
//! |---|---|---|
//! | null, null array | `$-1`, `*-1` | `_` |
//! | map of n | `*2n` | `%n` |
//! | set, push | `*n` | `~n`, `>n` |
//! | double | `$3 3.5` | `,3.5` |
//! | boolean | `:1` | `#t` |
//! | big number | `$n ..` | `(..` |
//! | verbatim string | `$n ..` | `=n txt:..` |
//!
//! The header of an aggregate states its length; the caller must append exactly that many elements.

use super::number::format_double;
use super::request::ProtocolError;

/// Protocol version of a connection; the command `HELLO` changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProtocolVersion {
    /// Version of a new connection.
    #[default]
    Resp2,
    /// Version after `HELLO 3`.
    Resp3,
}

/// Appends replies to an output buffer in the connection's protocol version.
#[derive(Debug, Default)]
pub struct ReplyWriter {
    /// Encoded replies that have not been sent yet.
    pub out: Vec<u8>,
    /// Version in which replies are encoded.
    pub version: ProtocolVersion,
    /// Number of open deferred aggregates.
    open: usize,
}

/// Open aggregate whose length is not known yet; from [`ReplyWriter::deferred_array`].
#[derive(Debug)]
#[must_use = "without its length the reply is broken"]
pub struct DeferredAggregate {
    at: usize,
    depth: usize,
}

const OK: &[u8] = b"+OK\r\n";
const CRLF: &[u8] = b"\r\n";
const NULL_BULK: &[u8] = b"$-1\r\n";
const NULL_ARRAY: &[u8] = b"*-1\r\n";
const NULL: &[u8] = b"_\r\n";

/// Encoded integers from 0 to 9.
const DIGITS: [&[u8; 4]; 10] = [
    b":0\r\n", b":1\r\n", b":2\r\n", b":3\r\n", b":4\r\n", b":5\r\n", b":6\r\n", b":7\r\n",
    b":8\r\n", b":9\r\n",
];

/// Upper bound for a marker, a 64-bit integer and two line ends.
const HEADER_MAX: usize = 32;

impl ReplyWriter {
    /// Creates a writer with an empty buffer.
    #[must_use]
    pub fn new(version: ProtocolVersion) -> Self {
        Self { out: Vec::new(), version, open: 0 }
    }

    /// Number of bytes in the buffer.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether the buffer is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Appends `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(OK);
    }

    /// Appends a simple string, such as `PONG` or `QUEUED`; `text` must not contain a line end.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "{text:?} would break the protocol");
        self.line(b'+', text.as_bytes());
    }

    /// Appends a simple string of arbitrary bytes, whose line ends become spaces.
    pub fn simple_bytes(&mut self, text: &[u8]) {
        self.one_line(b'+', &[text]);
    }

    /// Appends an error: code, space, description (`ERR syntax error`), without the `-`. Line ends
    /// in `text` become spaces.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// Appends an error that may quote arbitrary bytes; see [`error`](Self::error).
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.error_parts(&[text]);
    }

    /// Appends the last reply of a connection whose input is not valid RESP.
    pub fn protocol_error(&mut self, error: ProtocolError) {
        match error {
            // The byte is sent unchanged; it need not be UTF-8.
            ProtocolError::ExpectedBulk(byte) => {
                self.error_parts(&[b"ERR Protocol error: expected '$', got '", &[byte], b"'"]);
            }
            other => self.error(&format!("ERR {other}")),
        }
    }

    /// Line ends behind the text are left out.
    fn error_parts(&mut self, parts: &[&[u8]]) {
        let ends = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let count = parts.iter().rev().flat_map(|part| part.iter().rev()).take_while(ends).count();
        self.one_line(b'-', parts);
        self.out.truncate(self.out.len() - CRLF.len() - count);
        self.out.extend_from_slice(CRLF);
    }

    /// Appends a line, in which line ends become spaces.
    fn one_line(&mut self, marker: u8, parts: &[&[u8]]) {
        self.out.push(marker);
        let start = self.out.len();
        for part in parts {
            self.out.extend_from_slice(part);
        }
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(CRLF);
    }

    /// Appends an integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        match usize::try_from(value).ok().and_then(|value| DIGITS.get(value)) {
            Some(precomputed) => self.out.extend_from_slice(*precomputed),
            None => self.line(b':', itoa::Buffer::new().format(value).as_bytes()),
        }
    }

    /// Appends a bulk string of arbitrary bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + HEADER_MAX);
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(CRLF);
    }

    /// Appends a bulk string of text.
    #[inline]
    pub fn bulk_str(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }

    /// Appends a bulk string that holds an integer.
    #[inline]
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Appends null in place of a single value.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.version {
            ProtocolVersion::Resp2 => NULL_BULK,
            ProtocolVersion::Resp3 => NULL,
        });
    }

    /// Appends null in place of an array, as for an aborted `EXEC` or a `BLPOP` that timed out.
    #[inline]
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.version {
            ProtocolVersion::Resp2 => NULL_ARRAY,
            ProtocolVersion::Resp3 => NULL,
        });
    }

    /// Appends the header of an array of `len` elements.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// Appends the header of a map of `len` pairs: key, value, key, value.
    #[inline]
    pub fn map(&mut self, len: usize) {
        let (marker, len) = self.map_header(len);
        self.header(marker, len);
    }

    /// Appends the header of a set of `len` members.
    #[inline]
    pub fn set(&mut self, len: usize) {
        self.header(self.marker(b'~'), len);
    }

    /// Appends the header of a push message of `len` elements, the first of which is its kind.
    #[inline]
    pub fn push(&mut self, len: usize) {
        self.header(self.marker(b'>'), len);
    }

    /// Appends the header of an attribute of `len` pairs, which describe the reply that follows.
    /// Only RESP3 has attributes.
    pub fn attribute(&mut self, len: usize) {
        self.header(b'|', len);
    }

    /// Appends a double in its shortest form; see [`format_double`].
    pub fn double(&mut self, value: f64) {
        self.double_text(&format_double(value));
    }

    /// Appends a double that is given in decimal.
    pub fn double_text(&mut self, text: &[u8]) {
        match self.version {
            ProtocolVersion::Resp2 => self.bulk(text),
            ProtocolVersion::Resp3 => self.line(b',', text),
        }
    }

    /// Appends a boolean.
    pub fn boolean(&mut self, value: bool) {
        match (self.version, value) {
            (ProtocolVersion::Resp2, _) => self.integer(i64::from(value)),
            (ProtocolVersion::Resp3, true) => self.out.extend_from_slice(b"#t\r\n"),
            (ProtocolVersion::Resp3, false) => self.out.extend_from_slice(b"#f\r\n"),
        }
    }

    /// Appends an integer of any size, given in decimal. Line ends become spaces.
    pub fn big_number(&mut self, digits: &[u8]) {
        let start = self.out.len();
        self.one_line(b'(', &[digits]);
        if self.version == ProtocolVersion::Resp2 {
            let line = self.out.split_off(start);
            self.bulk(&line[1..line.len() - CRLF.len()]);
        }
    }

    /// Appends a verbatim string, as `INFO` does; `format` is `txt` or `mkd`.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        match self.version {
            ProtocolVersion::Resp2 => self.bulk(text),
            ProtocolVersion::Resp3 => {
                self.header(b'=', format.len() + 1 + text.len());
                for part in [&format[..], b":", text, CRLF] {
                    self.out.extend_from_slice(part);
                }
            }
        }
    }

    /// Opens an aggregate whose length is known only at its end. Append the elements, then call
    /// one of the `set_..._len` functions. Open aggregates nest: the last one opened is closed
    /// first.
    pub fn deferred_array(&mut self) -> DeferredAggregate {
        self.open += 1;
        DeferredAggregate { at: self.out.len(), depth: self.open }
    }

    /// Closes an aggregate as an array of `len` elements. The header is inserted before the
    /// elements, which moves them by its few bytes.
    pub fn set_array_len(&mut self, deferred: DeferredAggregate, len: usize) {
        self.insert_header(deferred, b'*', len);
    }

    /// Closes an aggregate as a map of `len` pairs; see [`set_array_len`](Self::set_array_len).
    pub fn set_map_len(&mut self, deferred: DeferredAggregate, len: usize) {
        let (marker, len) = self.map_header(len);
        self.insert_header(deferred, marker, len);
    }

    /// Closes an aggregate as a set of `len` members; see [`set_array_len`](Self::set_array_len).
    pub fn set_set_len(&mut self, deferred: DeferredAggregate, len: usize) {
        self.insert_header(deferred, self.marker(b'~'), len);
    }

    fn insert_header(&mut self, deferred: DeferredAggregate, marker: u8, len: usize) {
        debug_assert_eq!(deferred.depth, self.open, "the last aggregate opened is closed first");
        self.open = self.open.saturating_sub(1);
        let elements_end = self.out.len();
        self.header(marker, len);
        let header_len = self.out.len() - elements_end;
        self.out[deferred.at..].rotate_right(header_len);
    }

    /// Marker of an aggregate that RESP2 encodes as an array.
    #[inline]
    fn marker(&self, resp3: u8) -> u8 {
        match self.version {
            ProtocolVersion::Resp2 => b'*',
            ProtocolVersion::Resp3 => resp3,
        }
    }

    #[inline]
    fn map_header(&self, pairs: usize) -> (u8, usize) {
        match self.version {
            ProtocolVersion::Resp2 => (b'*', 2 * pairs),
            ProtocolVersion::Resp3 => (b'%', pairs),
        }
    }

    /// Appends `<marker><len>\r\n`.
    #[inline]
    fn header(&mut self, marker: u8, len: usize) {
        match u8::try_from(len) {
            Ok(len @ 0..=9) => self.out.extend_from_slice(&[marker, b'0' + len, b'\r', b'\n']),
            Ok(len @ 10..=99) => {
                let (tens, ones) = (b'0' + len / 10, b'0' + len % 10);
                self.out.extend_from_slice(&[marker, tens, ones, b'\r', b'\n']);
            }
            _ => self.line(marker, itoa::Buffer::new().format(len).as_bytes()),
        }
    }

    /// Appends `<marker><text>\r\n`.
    #[inline]
    fn line(&mut self, marker: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(marker);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(CRLF);
    }
}

#[cfg(test)]
mod tests;
