//! Requests and replies as values that can be compared, hashed and printed.
//!
//! [`Reply::parse`] reads RESP2. Where Redis leaves the order of a reply open (`SMEMBERS`,
//! `HGETALL`), [`Reply::in_order_of`] sorts it, so that two replies are equal when they mean the
//! same.

use anyhow::{Context, Result, ensure};
use client_tests::wire::show;
use std::fmt;
use std::sync::Arc;

/// One argument, key, element or text; clones share the bytes.
pub type Word = Arc<[u8]>;
/// The words of one command; the first is its name in capitals.
pub type Words = Vec<Word>;

pub fn word(text: impl AsRef<[u8]>) -> Word {
    Word::from(text.as_ref())
}

pub fn words<const N: usize>(texts: [&str; N]) -> Words {
    texts.iter().map(word).collect()
}

/// Words as text, long ones cut.
pub fn line(words: &[Word]) -> String {
    const MOST: usize = 12;
    let mut text = words.iter().take(MOST).map(|word| show(word)).collect::<Vec<_>>().join(" ");
    if words.len() > MOST {
        text.push_str(&format!(" ... ({} words)", words.len()));
    }
    text
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reply {
    /// A null bulk string or a null array.
    Nil,
    Int(i64),
    Simple(Word),
    Bulk(Word),
    Error(Word),
    Array(Vec<Self>),
}

impl Reply {
    pub fn ok() -> Self {
        Self::Simple(word("OK"))
    }

    pub fn error(text: &str) -> Self {
        Self::Error(word(text))
    }

    pub fn text(text: impl fmt::Display) -> Self {
        Self::Bulk(word(text.to_string()))
    }

    pub fn count(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    pub fn maybe(bulk: Option<&Word>) -> Self {
        bulk.map_or(Self::Nil, |word| Self::Bulk(word.clone()))
    }

    /// An array of bulk strings.
    pub fn bulks<'w>(words: impl IntoIterator<Item = &'w Word>) -> Self {
        Self::Array(words.into_iter().map(|word| Self::Bulk(word.clone())).collect())
    }

    /// The bulk strings of an array; of any other reply, none.
    pub fn list(&self) -> Vec<Word> {
        let Self::Array(items) = self else { return Vec::new() };
        let bulk = |item: &Self| match item {
            Self::Bulk(word) => Some(word.clone()),
            _ => None,
        };
        items.iter().filter_map(bulk).collect()
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Whether the server refused a command for want of memory.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Error(text) if text.starts_with(b"OOM "))
    }

    /// Reads one whole reply.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (reply, rest) = parse(bytes).with_context(|| show(bytes))?;
        ensure!(rest.is_empty(), "bytes behind a reply: {}", show(rest));
        Ok(reply)
    }

    /// The reply to `command` with its elements sorted, if their order means nothing.
    pub fn in_order_of(self, command: &[Word]) -> Self {
        let name = command.first().map_or(&b""[..], |name| &name[..]);
        match (self, name) {
            (Self::Array(mut items), b"SMEMBERS" | b"SINTER" | b"SUNION" | b"SDIFF" | b"HKEYS") => {
                items.sort();
                Self::Array(items)
            }
            (Self::Array(items), b"HGETALL") => {
                let mut pairs = items.chunks(2).map(<[Self]>::to_vec).collect::<Vec<_>>();
                pairs.sort();
                Self::Array(pairs.concat())
            }
            (reply, _) => reply,
        }
    }
}

/// One reply and the bytes behind it.
fn parse(bytes: &[u8]) -> Result<(Reply, &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n").context("a line without an end")?;
    let (line, mut rest) = (&bytes[..end], &bytes[end + 2..]);
    let (kind, body) = line.split_first().context("an empty line")?;
    let number = || -> Result<i64> { Ok(std::str::from_utf8(body)?.parse()?) };
    let reply = match kind {
        b'+' => Reply::Simple(word(body)),
        b'-' => Reply::Error(word(body)),
        b':' => Reply::Int(number()?),
        b'$' | b'*' if number()? < 0 => Reply::Nil,
        b'$' => {
            let length = usize::try_from(number()?)?;
            ensure!(rest.len() >= length + 2, "a bulk string is cut short");
            let bulk = word(&rest[..length]);
            rest = &rest[length + 2..];
            Reply::Bulk(bulk)
        }
        b'*' => {
            let mut items = Vec::new();
            for _ in 0..number()? {
                let (item, behind) = parse(rest)?;
                items.push(item);
                rest = behind;
            }
            Reply::Array(items)
        }
        _ => anyhow::bail!("not RESP2"),
    };
    Ok((reply, rest))
}

impl fmt::Display for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => out.write_str("nil"),
            Self::Int(number) => write!(out, "{number}"),
            Self::Simple(text) => write!(out, "+{}", show(text)),
            Self::Bulk(text) => write!(out, "\"{}\"", show(text)),
            Self::Error(text) => write!(out, "-{}", show(text)),
            Self::Array(items) => {
                let texts = items.iter().take(20).map(ToString::to_string).collect::<Vec<_>>();
                let more = items.len().saturating_sub(texts.len());
                let more = if more > 0 { format!(", {more} more") } else { String::new() };
                write!(out, "[{}{more}]", texts.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_reply_is_read() -> Result<()> {
        let bytes = b"*6\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n-ERR no\r\n*1\r\n+OK\r\n";
        let items = vec![
            Reply::Int(-7),
            Reply::Bulk(word("a\r\n")),
            Reply::Nil,
            Reply::Nil,
            Reply::error("ERR no"),
            Reply::Array(vec![Reply::ok()]),
        ];
        ensure!(Reply::parse(bytes)? == Reply::Array(items));
        ensure!(Reply::parse(b"$5\r\nab\r\n").is_err());
        ensure!(Reply::parse(b":1\r\n:2\r\n").is_err());
        Ok(())
    }

    #[test]
    fn order_counts_only_where_it_means_something() {
        let reply = |texts: [&str; 4]| Reply::bulks(&words(texts));
        let same = |name: &str, one, other| {
            let command = words([name, "k"]);
            reply(one).in_order_of(&command) == reply(other).in_order_of(&command)
        };
        assert!(same("SMEMBERS", ["a", "b", "c", "d"], ["d", "c", "b", "a"]));
        assert!(same("HGETALL", ["a", "1", "b", "2"], ["b", "2", "a", "1"]));
        assert!(!same("HGETALL", ["a", "1", "b", "2"], ["a", "2", "b", "1"]));
        assert!(!same("LRANGE", ["a", "b", "c", "d"], ["d", "c", "b", "a"]));
    }
}
