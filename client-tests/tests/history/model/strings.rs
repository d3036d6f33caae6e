//! Strings and counters.

use super::{Answer, Args, Bytes, State, int, not_an_integer, range};
use crate::reply::{Reply, Word};

pub(super) fn run(state: &mut State, args: Args<'_>, _: Option<&Reply>) -> Option<Answer> {
    Some(match args.name() {
        "SET" => set(state, args),
        "SETNX" => Ok(set_unless_there(state, args.from(1))),
        "MSET" => {
            store_pairs(state, args.from(1));
            Ok(Reply::ok())
        }
        "MSETNX" => Ok(set_unless_there(state, args.from(1))),
        "GET" => get(state, args.word(1)),
        "MGET" => {
            let values = args.from(1).iter().map(|key| get(state, key).unwrap_or(Reply::Nil));
            Ok(Reply::Array(values.collect()))
        }
        "GETSET" => get(state, args.word(1)).inspect(|_| {
            state.store(args.word(1), args.word(2).to_vec());
        }),
        "GETDEL" => get(state, args.word(1)).inspect(|_| {
            state.keys.remove(args.word(1));
        }),
        "STRLEN" => bytes(state, args.word(1)).map(|bytes| Reply::count(bytes.len())),
        "GETRANGE" => bytes(state, args.word(1)).map(|bytes| {
            // An end before the first byte means the first byte, other than in ranges of lists.
            let last = args.int(3).max(-i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            Reply::Bulk(bytes[range(args.int(2), last, bytes.len())].into())
        }),
        "APPEND" => state.change(args.word(1), |bytes: &mut Bytes| {
            bytes.extend_from_slice(args.word(2));
            Reply::count(bytes.len())
        }),
        "SETRANGE" => state.change(args.word(1), |bytes: &mut Bytes| {
            let (at, with) = (args.count(2), args.word(3));
            bytes.resize(bytes.len().max(at + with.len()), 0);
            bytes[at..at + with.len()].copy_from_slice(with);
            Reply::count(bytes.len())
        }),
        "INCR" => add(state, args.word(1), 1),
        "DECR" => add(state, args.word(1), -1),
        "INCRBY" => add(state, args.word(1), args.int(2)),
        "DECRBY" => add(state, args.word(1), -args.int(2)),
        _ => return None,
    })
}

/// The bytes of a string; none, if there is no key.
fn bytes(state: &State, key: &Word) -> Result<Bytes, Reply> {
    Ok(state.read::<Bytes>(key)?.cloned().unwrap_or_default())
}

fn get(state: &State, key: &Word) -> Answer {
    Ok(state.read::<Bytes>(key)?.map_or(Reply::Nil, |bytes| Reply::Bulk(bytes[..].into())))
}

fn set(state: &mut State, args: Args<'_>) -> Answer {
    let (key, there) = (args.word(1), state.has(args.word(1)));
    let before = if args.has(3, "GET") { Some(get(state, key)?) } else { None };
    if there && args.has(3, "NX") || !there && args.has(3, "XX") {
        return Ok(before.unwrap_or(Reply::Nil));
    }
    let kept = state.entry(key).and_then(|entry| entry.expires);
    state.store(key, args.word(2).to_vec());
    let at = (3..args.len()).find(|i| args.is(*i, "EXAT")).map(|i| args.int(i + 1));
    let expires = if args.has(3, "KEEPTTL") { kept } else { at };
    if let Some(entry) = state.keys.get_mut(key) {
        std::sync::Arc::make_mut(entry).expires = expires;
    }
    Ok(before.unwrap_or_else(Reply::ok))
}

fn store_pairs(state: &mut State, pairs: &[Word]) {
    for pair in pairs.chunks(2) {
        state.store(&pair[0], pair[1].to_vec());
    }
}

/// SETNX and MSETNX: all or nothing.
fn set_unless_there(state: &mut State, pairs: &[Word]) -> Reply {
    if pairs.iter().step_by(2).any(|key| state.has(key)) {
        return Reply::Int(0);
    }
    store_pairs(state, pairs);
    Reply::Int(1)
}

fn add(state: &mut State, key: &Word, step: i64) -> Answer {
    let old = state.read::<Bytes>(key)?.map_or(Some(0), |bytes| int(bytes));
    let new = old.ok_or_else(not_an_integer)? + step;
    state.change(key, |bytes: &mut Bytes| {
        *bytes = new.to_string().into_bytes();
        Reply::Int(new)
    })
}
