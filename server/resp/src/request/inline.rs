//! Inline requests: a line of words, as typed into telnet.
//!
//! A blank ends a word. A quoted part extends to the end of its word. The escapes of `"..."` are
//! `\n \r \t \b \a \xHH`, and a backslash before any other byte stands for that byte; the only
//! escape of `'...'` is `\'`.

use super::{ArgSpan, Batch, ProtocolError};

/// Appends the words of `buf[start..end]`, a line without its end, to the batch's spans. Returns
/// whether the spans refer to the batch's side buffer.
pub(super) fn split(
    buf: &[u8],
    start: usize,
    end: usize,
    batch: &mut Batch,
) -> Result<bool, ProtocolError> {
    let line = &buf[start..end];
    if memchr::memchr2(b'"', b'\'', line).is_some() {
        unescape_words(line, batch)?;
        return Ok(true);
    }
    let mut at = 0;
    while let Some(first) = next_word(line, at) {
        at = line[first..].iter().position(|&b| ends_word(b)).map_or(line.len(), |n| first + n);
        batch.spans.push(ArgSpan { start: start + first, len: at - first });
    }
    Ok(false)
}

fn unescape_words(line: &[u8], batch: &mut Batch) -> Result<(), ProtocolError> {
    let mut at = 0;
    while let Some(first) = next_word(line, at) {
        let start = batch.unescaped.len();
        at = unescape_word(line, first, &mut batch.unescaped)
            .ok_or(ProtocolError::UnbalancedQuotes)?;
        batch.spans.push(ArgSpan { start, len: batch.unescaped.len() - start });
    }
    Ok(())
}

/// Start of the next word at or after `at`.
fn next_word(line: &[u8], at: usize) -> Option<usize> {
    line[at..].iter().position(|&b| !is_space(b)).map(|blanks| at + blanks)
}

/// Whether a byte separates words: C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Whether a byte ends an unquoted word. As in Redis, these are fewer bytes than those that
/// separate words.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Appends the word that starts at `at`; returns its end, or `None` if a quote is misplaced.
fn unescape_word(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    while let Some(&byte) = line.get(at) {
        match byte {
            b'"' => return end_of_quoted_word(line, double_quoted(line, at + 1, out)?),
            b'\'' => return end_of_quoted_word(line, single_quoted(line, at + 1, out)?),
            _ if ends_word(byte) => break,
            _ => out.push(byte),
        }
        at += 1;
    }
    Some(at)
}

/// Returns `at` if a blank or the end of the line follows a closing quote there.
fn end_of_quoted_word(line: &[u8], at: usize) -> Option<usize> {
    line.get(at).is_none_or(|&b| is_space(b)).then_some(at)
}

/// Appends text up to a closing `"`; returns the offset after the quote.
fn double_quoted(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    loop {
        let (byte, len) = match *line.get(at..)? {
            [] => return None,
            [b'"', ..] => return Some(at + 1),
            [b'\\', b'x', high, low, ..] if is_hex(high) && is_hex(low) => {
                (hex_value(high) << 4 | hex_value(low), 4)
            }
            [b'\\', escaped, ..] => (unescape(escaped), 2),
            [byte, ..] => (byte, 1),
        };
        out.push(byte);
        at += len;
    }
}

/// Appends text up to a closing `'`; returns the offset after the quote.
fn single_quoted(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    loop {
        let (byte, len) = match *line.get(at..)? {
            [] => return None,
            [b'\'', ..] => return Some(at + 1),
            [b'\\', b'\'', ..] => (b'\'', 2),
            [byte, ..] => (byte, 1),
        };
        out.push(byte);
        at += len;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn hex_value(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}
