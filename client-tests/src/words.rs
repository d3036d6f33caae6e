//! Words of a line, for files of commands.

use anyhow::{Context, Result};

/// Splits a line as redis-cli does: words, "with \x00 escapes", 'or without'.
///
/// # Errors
/// Returns an error if a quote is not closed or an escape is not complete.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' => {
                let body = &rest[1..];
                let end =
                    closing_quote(body).with_context(|| format!("no closing quote: {line}"))?;
                (unescape(&body[..end])?, &body[end + 1..])
            }
            '\'' => {
                let (body, after) = rest[1..].split_once('\'').context("no closing quote")?;
                (body.into(), after)
            }
            _ => {
                let (body, after) = rest.split_once(' ').unwrap_or((rest, ""));
                (body.into(), after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

fn closing_quote(body: &str) -> Option<usize> {
    let mut escaped = false;
    body.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(body: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = body.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().context("a backslash at the end")? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = [rest.next().context("no digit")?, rest.next().context("no digit")?];
                u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?
            }
            other => other,
        });
    }
    Ok(bytes)
}
