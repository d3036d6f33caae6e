//! Streams. The model takes the id that `XADD *` chooses from the reply, if it is above the last
//! one.

use super::{Answer, Args, State, impossible, text};
use crate::reply::{Reply, Word};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Milliseconds and a sequence number.
pub type Id = (u64, u64);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stream {
    pub entries: BTreeMap<Id, Vec<Word>>,
    pub last: Id,
    /// Entries ever added.
    pub added: u64,
    /// The highest id that was deleted.
    pub deleted: Id,
}

/// Reads `ms-seq`.
pub fn parse_id(word: &[u8]) -> Option<Id> {
    let (time, number) = text(word).split_once('-')?;
    Some((time.parse().ok()?, number.parse().ok()?))
}

fn show_id(id: Id) -> Reply {
    Reply::text(format!("{}-{}", id.0, id.1))
}

pub(super) fn run(state: &mut State, args: Args<'_>, seen: Option<&Reply>) -> Option<Answer> {
    Some(match args.name() {
        "XADD" => add(state, args, seen),
        "XLEN" => read(state, args.word(1)).map(|stream| Reply::count(stream.entries.len())),
        "XRANGE" => read(state, args.word(1)).map(|stream| entries(in_range(&stream, args, 2, 3))),
        "XREVRANGE" => {
            read(state, args.word(1)).map(|stream| entries(in_range(&stream, args, 3, 2).rev()))
        }
        "XDEL" => delete(state, args),
        "XTRIM" => trim(state, args),
        "XREAD" => {
            let at = (1..args.len()).find(|i| args.is(*i, "STREAMS")).unwrap_or(1);
            read(state, args.word(at + 1)).map(|stream| newer(&stream, args, at))
        }
        _ => return None,
    })
}

fn read<'s>(state: &'s State, key: &Word) -> Result<Cow<'s, Stream>, Reply> {
    state.read_or_empty(key)
}

/// XADD key [MAXLEN n] id field value: the id as `ms-seq`, `ms-*` or `*`.
fn add(state: &mut State, args: Args<'_>, seen: Option<&Reply>) -> Answer {
    let stream = state.read::<Stream>(args.word(1))?;
    let last = stream.map_or((0, 0), |stream| stream.last);
    let at = if args.is(2, "MAXLEN") { 4 } else { 2 };
    let asked = args.word(at);
    let chosen = || match seen {
        Some(Reply::Bulk(id)) => parse_id(id).filter(|id| *id > last),
        _ => None,
    };
    let id = match text(asked) {
        "*" => chosen().ok_or_else(|| impossible("an id that is not above the last one"))?,
        ending if ending.ends_with("-*") => {
            let time = ending.trim_end_matches("-*").parse::<u64>().unwrap_or_default();
            if time == last.0 { (time, last.1 + 1) } else { (time, 0) }
        }
        _ => parse_id(asked).unwrap_or_default(),
    };
    if id <= last {
        return Err(Reply::error(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        ));
    }
    state.change(args.word(1), |stream: &mut Stream| {
        stream.entries.insert(id, args.from(at + 1).to_vec());
        stream.last = id;
        stream.added += 1;
        if at > 2 {
            shorten(stream, args.count(3));
        }
        show_id(id)
    })
}

/// Removes the oldest entries above a number.
fn shorten(stream: &mut Stream, most: usize) -> usize {
    let over = stream.entries.len().saturating_sub(most);
    for _ in 0..over {
        stream.entries.pop_first();
    }
    over
}

/// The entries between two ids, `-` and `+` included.
fn in_range<'s>(
    stream: &'s Stream,
    args: Args<'_>,
    first: usize,
    last: usize,
) -> impl DoubleEndedIterator<Item = (&'s Id, &'s Vec<Word>)> {
    let bound = |i: usize, open: Id| parse_id(args.word(i)).unwrap_or(open);
    let (first, last) = (bound(first, (0, 0)), bound(last, (u64::MAX, u64::MAX)));
    let all = if first <= last { first..=last } else { (1, 0)..=(1, 0) };
    stream.entries.range(all).filter(move |_| first <= last)
}

fn entries<'s>(found: impl Iterator<Item = (&'s Id, &'s Vec<Word>)>) -> Reply {
    let entry =
        |(id, fields): (&Id, &Vec<Word>)| Reply::Array(vec![show_id(*id), Reply::bulks(fields)]);
    Reply::Array(found.map(entry).collect())
}

fn delete(state: &mut State, args: Args<'_>) -> Answer {
    if state.read::<Stream>(args.word(1))?.is_none() {
        return Ok(Reply::Int(0));
    }
    state.change(args.word(1), |stream: &mut Stream| {
        let ids = args.from(2).iter().filter_map(|id| parse_id(id));
        let gone = ids.filter(|id| stream.entries.remove(id).is_some()).collect::<Vec<_>>();
        stream.deleted = gone.iter().copied().fold(stream.deleted, Id::max);
        Reply::count(gone.len())
    })
}

/// XTRIM key MAXLEN n.
fn trim(state: &mut State, args: Args<'_>) -> Answer {
    if state.read::<Stream>(args.word(1))?.is_none() {
        return Ok(Reply::Int(0));
    }
    state.change(args.word(1), |stream: &mut Stream| Reply::count(shorten(stream, args.count(3))))
}

/// XREAD [COUNT n] [BLOCK ms] STREAMS key id: entries above an id; nil, if there are none.
fn newer(stream: &Stream, args: Args<'_>, at: usize) -> Reply {
    let after = parse_id(args.word(at + 2)).unwrap_or_default();
    let count = (1..at).find(|i| args.is(*i, "COUNT")).map_or(usize::MAX, |i| args.count(i + 1));
    let found = stream.entries.iter().filter(|(id, _)| **id > after).take(count);
    match entries(found) {
        Reply::Array(found) if found.is_empty() => Reply::Nil,
        found => {
            let one = Reply::Array(vec![Reply::Bulk(args.word(at + 1).clone()), found]);
            Reply::Array(vec![one])
        }
    }
}
