//! Hashes.

use super::{Answer, Hash, Line, State, int};
use crate::reply::{Reply, word};
use std::borrow::Cow;

pub(super) fn run(state: &mut State, line: Line<'_>, _: Option<&Reply>) -> Option<Answer> {
    let key = || line.word(1);
    Some(match line.name() {
        "HSET" => state.change(key(), |hash: &mut Hash| {
            let pairs = line.from(2).chunks(2);
            let added =
                pairs.filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
            Reply::count(added.count())
        }),
        "HSETNX" => state.change(key(), |hash: &mut Hash| {
            let is_there = hash.contains_key(line.word(2));
            hash.entry(line.word(2).clone()).or_insert_with(|| line.word(3).clone());
            Reply::count(usize::from(!is_there))
        }),
        "HDEL" => state.change(key(), |hash: &mut Hash| {
            let fields = line.from(2).iter();
            Reply::count(fields.filter(|field| hash.remove(*field).is_some()).count())
        }),
        "HGET" => read(state, line).map(|hash| Reply::maybe(hash.get(line.word(2)))),
        "HMGET" => read(state, line).map(|hash| {
            let values = line.from(2).iter().map(|field| Reply::maybe(hash.get(field)));
            Reply::Array(values.collect())
        }),
        "HLEN" => read(state, line).map(|hash| Reply::count(hash.len())),
        "HEXISTS" => {
            read(state, line).map(|hash| Reply::count(usize::from(hash.contains_key(line.word(2)))))
        }
        "HGETALL" => read(state, line)
            .map(|hash| Reply::bulks(hash.iter().flat_map(|(field, value)| [field, value]))),
        "HKEYS" => read(state, line).map(|hash| Reply::bulks(hash.keys())),
        "HINCRBY" => add(state, line),
        _ => return None,
    })
}

fn read<'s>(state: &'s State, line: Line<'_>) -> Result<Cow<'s, Hash>, Reply> {
    state.read_or_empty(line.word(1))
}

fn add(state: &mut State, line: Line<'_>) -> Answer {
    let (key, field) = (line.word(1), line.word(2));
    let old = state.read::<Hash>(key)?.and_then(|hash| hash.get(field));
    let old = old.map_or(Some(0), |value| int(value));
    let old = old.ok_or_else(|| Reply::error("ERR hash value is not an integer"))?;
    let new = old + line.int(3);
    state.change(key, |hash: &mut Hash| {
        hash.insert(field.clone(), word(new.to_string()));
        Reply::Int(new)
    })
}
