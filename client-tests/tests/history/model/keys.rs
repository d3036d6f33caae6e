//! Commands for keys of any type.

use super::{Answer, Args, State};
use crate::reply::Reply;
use std::sync::Arc;

pub(super) fn run(state: &mut State, args: Args<'_>, _: Option<&Reply>) -> Option<Answer> {
    Some(match args.name() {
        "DEL" | "UNLINK" => Ok(count(args, |i| state.keys.remove(args.word(i)).is_some())),
        "EXISTS" | "TOUCH" => Ok(count(args, |i| state.has(args.word(i)))),
        "TYPE" => {
            let name = state.entry(args.word(1)).map_or("none", |entry| entry.value.type_name());
            Ok(Reply::Simple(crate::reply::word(name)))
        }
        "RENAME" => rename(state, args, true),
        "RENAMENX" => rename(state, args, false),
        "COPY" => copy(state, args),
        "EXPIREAT" => Ok(expire(state, args, args.int(2))),
        "PEXPIREAT" => Ok(expire(state, args, args.int(2) / 1000)),
        "PERSIST" => Ok(persist(state, args)),
        "EXPIRETIME" => Ok(Reply::Int(match state.entry(args.word(1)) {
            None => -2,
            Some(entry) => entry.expires.unwrap_or(-1),
        })),
        _ => return None,
    })
}

/// How many arguments, from 1 on, a closure agrees to.
fn count(args: Args<'_>, agrees: impl FnMut(usize) -> bool) -> Reply {
    let mut agrees = agrees;
    Reply::count((1..args.len()).filter(|i| agrees(*i)).count())
}

fn rename(state: &mut State, args: Args<'_>, replaces: bool) -> Answer {
    let (from, to) = (args.word(1), args.word(2));
    let entry = state.keys.get(from).cloned().ok_or_else(|| Reply::error("ERR no such key"))?;
    if !replaces && state.has(to) {
        return Ok(Reply::Int(0));
    }
    state.keys.remove(from);
    state.keys.insert(to.clone(), entry);
    Ok(if replaces { Reply::ok() } else { Reply::Int(1) })
}

fn copy(state: &mut State, args: Args<'_>) -> Answer {
    let (from, to) = (args.word(1), args.word(2));
    if from == to {
        return Err(Reply::error("ERR source and destination objects are the same"));
    }
    let Some(entry) = state.keys.get(from).cloned() else { return Ok(Reply::Int(0)) };
    if state.has(to) && !args.has(3, "REPLACE") {
        return Ok(Reply::Int(0));
    }
    state.keys.insert(to.clone(), entry);
    Ok(Reply::Int(1))
}

/// Times below this one are in the past, all others in the far future.
const FUTURE: i64 = 4_000_000_000;

fn expire(state: &mut State, args: Args<'_>, seconds: i64) -> Reply {
    let key = args.word(1);
    let Some(entry) = state.keys.get_mut(key) else { return Reply::Int(0) };
    if seconds < FUTURE {
        state.keys.remove(key);
    } else {
        Arc::make_mut(entry).expires = Some(seconds);
    }
    Reply::Int(1)
}

fn persist(state: &mut State, args: Args<'_>) -> Reply {
    let Some(entry) = state.keys.get_mut(args.word(1)) else { return Reply::Int(0) };
    if entry.expires.is_none() {
        return Reply::Int(0);
    }
    Arc::make_mut(entry).expires = None;
    Reply::Int(1)
}
