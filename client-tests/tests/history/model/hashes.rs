//! Hashes.

use super::{Answer, Args, Hash, State, int};
use crate::reply::{Reply, word};
use std::borrow::Cow;

pub(super) fn run(state: &mut State, args: Args<'_>, _: Option<&Reply>) -> Option<Answer> {
    let key = || args.word(1);
    Some(match args.name() {
        "HSET" => state.change(key(), |hash: &mut Hash| {
            let pairs = args.from(2).chunks(2);
            let added =
                pairs.filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
            Reply::count(added.count())
        }),
        "HSETNX" => state.change(key(), |hash: &mut Hash| {
            let is_there = hash.contains_key(args.word(2));
            hash.entry(args.word(2).clone()).or_insert_with(|| args.word(3).clone());
            Reply::count(usize::from(!is_there))
        }),
        "HDEL" => state.change(key(), |hash: &mut Hash| {
            let fields = args.from(2).iter();
            Reply::count(fields.filter(|field| hash.remove(*field).is_some()).count())
        }),
        "HGET" => read(state, args).map(|hash| Reply::maybe(hash.get(args.word(2)))),
        "HMGET" => read(state, args).map(|hash| {
            let values = args.from(2).iter().map(|field| Reply::maybe(hash.get(field)));
            Reply::Array(values.collect())
        }),
        "HLEN" => read(state, args).map(|hash| Reply::count(hash.len())),
        "HEXISTS" => {
            read(state, args).map(|hash| Reply::count(usize::from(hash.contains_key(args.word(2)))))
        }
        "HGETALL" => read(state, args)
            .map(|hash| Reply::bulks(hash.iter().flat_map(|(field, value)| [field, value]))),
        "HKEYS" => read(state, args).map(|hash| Reply::bulks(hash.keys())),
        "HINCRBY" => add(state, args),
        _ => return None,
    })
}

fn read<'s>(state: &'s State, args: Args<'_>) -> Result<Cow<'s, Hash>, Reply> {
    state.read_or_empty(args.word(1))
}

fn add(state: &mut State, args: Args<'_>) -> Answer {
    let (key, field) = (args.word(1), args.word(2));
    let old = state.read::<Hash>(key)?.and_then(|hash| hash.get(field));
    let old = old.map_or(Some(0), |value| int(value));
    let old = old.ok_or_else(|| Reply::error("ERR hash value is not an integer"))?;
    let new = old + args.int(3);
    state.change(key, |hash: &mut Hash| {
        hash.insert(field.clone(), word(new.to_string()));
        Reply::Int(new)
    })
}
