//! Reads keys by ordinary commands into entries of the model.

use crate::model::{Entry, Keys, SortedSet, Stream, Value, parse_id};
use crate::reply::{Reply, Word, Words, word};
use anyhow::{Context, Result, bail};
use client_tests::wire::{RawConnection, encode};
use std::sync::Arc;

/// Sends commands together and returns their replies.
pub fn pipeline(raw: &mut RawConnection, commands: &[Words]) -> Result<Vec<Reply>> {
    raw.send(&commands.iter().flat_map(|words| encode(words)).collect::<Vec<u8>>())?;
    let read = |words: &Words| Ok(Reply::parse(&raw.read_reply()?)?.in_order_of(words));
    commands.iter().map(read).collect()
}

fn command(name: &str, key: &Word, more: &[&str]) -> Words {
    let start = [word(name), key.clone()];
    start.into_iter().chain(more.iter().map(word)).collect()
}

/// The entries of those of `keys` that exist. Nothing else may change them meanwhile.
pub fn read(raw: &mut RawConnection, keys: &[Word]) -> Result<Keys> {
    let types = keys.iter().map(|key| command("TYPE", key, &[])).collect::<Vec<_>>();
    let mut there = Vec::new();
    let mut asked = Vec::new();
    for (key, kind) in keys.iter().zip(pipeline(raw, &types)?) {
        let Reply::Simple(kind) = kind else { bail!("TYPE says {kind}") };
        let more = match &kind[..] {
            b"none" => continue,
            b"string" => command("GET", key, &[]),
            b"list" => command("LRANGE", key, &["0", "-1"]),
            b"hash" => command("HGETALL", key, &[]),
            b"set" => command("SMEMBERS", key, &[]),
            b"zset" => command("ZRANGE", key, &["0", "-1", "WITHSCORES"]),
            b"stream" => command("XRANGE", key, &["-", "+"]),
            _ => bail!("a key of type {}", Reply::Simple(kind)),
        };
        asked.extend([command("EXPIRETIME", key, &[]), more]);
        if kind[..] == *b"stream" {
            asked.push(vec![word("XINFO"), word("STREAM"), key.clone()]);
        }
        there.push((key, kind));
    }
    let mut replies = pipeline(raw, &asked)?.into_iter();
    let mut next = || replies.next().context("a reply is missing");
    let mut found = Keys::new();
    for (key, kind) in there {
        let expires = match next()? {
            Reply::Int(-1) => None,
            Reply::Int(time) if time >= 0 => Some(time),
            reply => bail!("EXPIRETIME of {} says {reply}", Reply::Bulk(key.clone())),
        };
        let content = next()?;
        let value = match &kind[..] {
            b"stream" => Value::Stream(stream(&content, &next()?)?),
            kind => value(kind, &content)?,
        };
        found.insert(key.clone(), Arc::new(Entry { value, expires }));
    }
    Ok(found)
}

fn pairs(list: Vec<Word>) -> impl Iterator<Item = (Word, Word)> {
    let (firsts, seconds): (Vec<_>, Vec<_>) =
        list.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
    firsts.into_iter().zip(seconds)
}

fn value(kind: &[u8], content: &Reply) -> Result<Value> {
    let list = content.list();
    Ok(match kind {
        b"string" => match content {
            Reply::Bulk(bytes) => Value::String(bytes.to_vec()),
            reply => bail!("a string reads as {reply}"),
        },
        b"list" => Value::List(list.into_iter().collect()),
        b"hash" => Value::Hash(pairs(list).collect()),
        b"set" => Value::Set(list.into_iter().collect()),
        _ => {
            let score = |score: Word| -> Result<i64> { Ok(std::str::from_utf8(&score)?.parse()?) };
            let members = pairs(list).map(|(member, with)| Ok((member, score(with)?)));
            Value::SortedSet(members.collect::<Result<SortedSet>>()?)
        }
    })
}

/// A stream from the replies to XRANGE and XINFO STREAM.
fn stream(entries: &Reply, info: &Reply) -> Result<Stream> {
    let mut stream = Stream::default();
    let Reply::Array(items) = entries else { bail!("XRANGE says {entries}") };
    for item in items {
        let Reply::Array(parts) = item else { bail!("an entry {item}") };
        let [Reply::Bulk(id), fields] = &parts[..] else { bail!("an entry {item}") };
        stream.entries.insert(parse_id(id).context("an id")?, fields.list());
    }
    let Reply::Array(figures) = info else { bail!("XINFO says {info}") };
    for figure in figures.chunks(2) {
        let [Reply::Bulk(name), value] = figure else { continue };
        match (&name[..], value) {
            (b"last-generated-id", Reply::Bulk(id)) => {
                stream.last = parse_id(id).context("an id")?
            }
            (b"max-deleted-entry-id", Reply::Bulk(id)) => {
                stream.deleted = parse_id(id).context("an id")?;
            }
            (b"entries-added", Reply::Int(added)) => stream.added = u64::try_from(*added)?,
            _ => {}
        }
    }
    Ok(stream)
}
