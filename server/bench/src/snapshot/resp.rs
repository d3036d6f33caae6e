//! Just enough RESP for a load generator: requests out, replies in, out of a growing buffer.

use std::io::Write as _;

/// Nesting of arrays beyond which an answer is taken for nonsense.
const DEEPEST: u32 = 8;

/// One reply, borrowed from the buffer that it arrived in.
#[derive(Debug, PartialEq)]
pub enum Reply<'a> {
    /// A status, a number or a line of any other simple type, without its first byte.
    Line(&'a [u8]),
    /// An error's text.
    Error(&'a [u8]),
    /// A string of bytes; `None` for null.
    Bulk(Option<&'a [u8]>),
    /// An array; empty for null.
    Array(Vec<Reply<'a>>),
}

/// Why bytes are no reply.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("the server's answer is not RESP: {}", String::from_utf8_lossy(.0))]
pub struct NotResp(pub Vec<u8>);

/// Appends a request.
pub fn request(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first reply in `input` and how many bytes it takes; `None` while it is not complete.
///
/// # Errors
/// When the bytes are no reply.
pub fn reply(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, NotResp> {
    nested(input, 0)
}

fn nested(input: &[u8], depth: u32) -> Result<Option<(Reply<'_>, usize)>, NotResp> {
    let Some(end) = memchr::memchr(b'\n', input) else { return Ok(None) };
    let nonsense = || NotResp(input[..end.min(64)].to_vec());
    let line = input[..end].strip_suffix(b"\r").ok_or_else(nonsense)?;
    let (&kind, line) = line.split_first().ok_or_else(nonsense)?;
    let after = end + 1;
    let number = || {
        let text = std::str::from_utf8(line).map_err(|_| nonsense())?;
        text.parse::<i64>().map_err(|_| nonsense())
    };
    match kind {
        b'+' | b':' | b'_' | b'#' | b',' => Ok(Some((Reply::Line(line), after))),
        b'-' => Ok(Some((Reply::Error(line), after))),
        b'$' | b'=' => {
            let Ok(length) = usize::try_from(number()?) else {
                return Ok(Some((Reply::Bulk(None), after)));
            };
            let whole = after.saturating_add(length).saturating_add(2);
            let bytes = input.get(after..whole).map(|bytes| &bytes[..length]);
            Ok(bytes.map(|bytes| (Reply::Bulk(Some(bytes)), whole)))
        }
        b'*' | b'%' | b'~' if depth < DEEPEST => {
            let count = usize::try_from(number()?).unwrap_or(0) * if kind == b'%' { 2 } else { 1 };
            let (mut items, mut at) = (Vec::new(), after);
            for _ in 0..count {
                let Some((item, length)) = nested(&input[at..], depth + 1)? else {
                    return Ok(None);
                };
                items.push(item);
                at += length;
            }
            Ok(Some((Reply::Array(items), at)))
        }
        _ => Err(nonsense()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_cut_at_their_ends_and_waited_for_when_short() {
        let whole: &[u8] = b"*3\r\n$3\r\na\r\n\r\n:7\r\n$-1\r\n-ERR no\r\n";
        let (first, length) = reply(whole).unwrap().unwrap();
        let items = vec![Reply::Bulk(Some(b"a\r\n")), Reply::Line(b"7"), Reply::Bulk(None)];
        assert_eq!(first, Reply::Array(items));
        assert_eq!(reply(&whole[length..]).unwrap(), Some((Reply::Error(b"ERR no"), 9)));
        for short in 0..length {
            assert_eq!(reply(&whole[..short]).unwrap(), None, "{short} bytes");
        }
        assert!(reply(b"HTTP/1.1 400\r\n").is_err());
        assert!(reply(b"+\n").is_err());
    }

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        request(&mut out, &[b"SET", b"k", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
