//! Lists, and the pops that block.
//!
//! The model executes a blocking command at the moment at which it takes effect: it pops then, or
//! finds nothing and times out. `BLPOP` pops from the first of its keys that has elements.

use super::{Answer, Args, List, State, impossible, range};
use crate::reply::{Reply, Word};
use std::borrow::Cow;

pub(super) fn run(state: &mut State, args: Args<'_>, _: Option<&Reply>) -> Option<Answer> {
    Some(match args.name() {
        "LPUSH" | "RPUSH" => push(state, args),
        "LPUSHX" | "RPUSHX" => match state.has(args.word(1)) {
            true => push(state, args),
            false => Ok(Reply::Int(0)),
        },
        "LPOP" | "RPOP" => pop(state, args),
        "LLEN" => read(state, args).map(|list| Reply::count(list.len())),
        "LRANGE" => read(state, args)
            .map(|list| Reply::bulks(list.range(range(args.int(2), args.int(3), list.len())))),
        "LINDEX" => read(state, args)
            .map(|list| Reply::maybe(position(&list, args.int(2)).map(|at| &list[at]))),
        "LSET" => set(state, args),
        "LINSERT" => insert(state, args),
        "LREM" => remove(state, args),
        "LTRIM" => state.change(args.word(1), |list: &mut List| {
            *list = list.range(range(args.int(2), args.int(3), list.len())).cloned().collect();
            Reply::ok()
        }),
        "LMOVE" | "BLMOVE" => r#move(state, args),
        "LMPOP" => pop_several(state, args, 1),
        "BLMPOP" => pop_several(state, args, 2),
        "BLPOP" | "BRPOP" => wait_and_pop(state, args),
        _ => return None,
    })
}

fn read<'s>(state: &'s State, args: Args<'_>) -> Result<Cow<'s, List>, Reply> {
    state.read_or_empty(args.word(1))
}

fn position(list: &List, index: i64) -> Option<usize> {
    let range = range(index, index, list.len());
    (!range.is_empty()).then_some(range.start)
}

fn push(state: &mut State, args: Args<'_>) -> Answer {
    let at_front = args.name().starts_with('L');
    state.change(args.word(1), |list: &mut List| {
        for element in args.from(2) {
            insert_at(list, at_front, element.clone());
        }
        Reply::count(list.len())
    })
}

fn insert_at(list: &mut List, at_front: bool, element: Word) {
    if at_front {
        list.push_front(element);
    } else {
        list.push_back(element);
    }
}

fn take(list: &mut List, at_front: bool) -> Option<Word> {
    if at_front { list.pop_front() } else { list.pop_back() }
}

fn take_some(list: &mut List, at_front: bool, count: usize) -> Vec<Word> {
    std::iter::from_fn(|| take(list, at_front)).take(count).collect()
}

fn pop(state: &mut State, args: Args<'_>) -> Answer {
    let at_front = args.name() == "LPOP";
    if state.read::<List>(args.word(1))?.is_none() {
        return Ok(Reply::Nil);
    }
    state.change(args.word(1), |list: &mut List| match args.len() {
        2 => Reply::maybe(take(list, at_front).as_ref()),
        _ => Reply::bulks(&take_some(list, at_front, args.count(2))),
    })
}

fn set(state: &mut State, args: Args<'_>) -> Answer {
    let list = state.read::<List>(args.word(1))?;
    let list = list.ok_or_else(|| Reply::error("ERR no such key"))?;
    let at = position(list, args.int(2));
    let at = at.ok_or_else(|| Reply::error("ERR index out of range"))?;
    state.change(args.word(1), |list: &mut List| {
        list[at] = args.word(3).clone();
        Reply::ok()
    })
}

/// LINSERT key BEFORE|AFTER pivot element.
fn insert(state: &mut State, args: Args<'_>) -> Answer {
    let Some(list) = state.read::<List>(args.word(1))? else { return Ok(Reply::Int(0)) };
    let pivot = list.iter().position(|element| element == args.word(3));
    let Some(pivot) = pivot else { return Ok(Reply::Int(-1)) };
    let at = if args.is(2, "BEFORE") { pivot } else { pivot + 1 };
    state.change(args.word(1), |list: &mut List| {
        list.insert(at, args.word(4).clone());
        Reply::count(list.len())
    })
}

/// LREM key count element: the first or the last ones, or all.
fn remove(state: &mut State, args: Args<'_>) -> Answer {
    let count = args.int(2);
    let most = if count == 0 { usize::MAX } else { usize::try_from(count.abs()).unwrap_or(0) };
    state.change(args.word(1), |list: &mut List| {
        let matches = |at: &usize| list[*at] == *args.word(3);
        let mut found: Vec<usize> = match count < 0 {
            true => (0..list.len()).rev().filter(matches).take(most).collect(),
            false => (0..list.len()).filter(matches).take(most).collect(),
        };
        found.sort_unstable();
        for at in found.iter().rev() {
            list.remove(*at);
        }
        Reply::count(found.len())
    })
}

/// LMOVE from to LEFT|RIGHT LEFT|RIGHT.
fn r#move(state: &mut State, args: Args<'_>) -> Answer {
    let (from, to) = (args.word(1), args.word(2));
    if state.read::<List>(from)?.is_none() {
        return Ok(Reply::Nil);
    }
    state.read::<List>(to)?;
    let (takes_front, adds_front) = (args.is(3, "LEFT"), args.is(4, "LEFT"));
    let element = state.change(from, |list: &mut List| {
        let element = take(list, takes_front)?;
        // A list of one element that is moved onto itself is never empty, and so keeps its expiry.
        if from == to {
            insert_at(list, adds_front, element.clone());
        }
        Some(element)
    })?;
    let element = element.ok_or_else(|| impossible("an element of an empty list"))?;
    if from != to {
        state.change(to, |list: &mut List| insert_at(list, adds_front, element.clone()))?;
    }
    Ok(Reply::Bulk(element))
}

/// LMPOP numkeys key [key ...] LEFT|RIGHT COUNT count; `at` is the position of the number.
fn pop_several(state: &mut State, args: Args<'_>, at: usize) -> Answer {
    let end = at + 1 + args.count(at);
    let (at_front, count) = (args.is(end, "LEFT"), args.count(end + 2));
    for key in &args.0[at + 1..end] {
        if state.read::<List>(key)?.is_some() {
            let taken = state.change(key, |list: &mut List| take_some(list, at_front, count))?;
            let elements = Reply::bulks(&taken);
            return Ok(Reply::Array(vec![Reply::Bulk(key.clone()), elements]));
        }
    }
    Ok(Reply::Nil)
}

/// BLPOP key [key ...] timeout.
fn wait_and_pop(state: &mut State, args: Args<'_>) -> Answer {
    let at_front = args.name() == "BLPOP";
    for key in &args.0[1..args.len() - 1] {
        if state.read::<List>(key)?.is_some() {
            let taken = state.change(key, |list: &mut List| take(list, at_front))?;
            return Ok(Reply::bulks([key.clone()].iter().chain(&taken)));
        }
    }
    Ok(Reply::Nil)
}

/// Whether a key of type `kind` serves a blocked command.
pub fn can_serve(name: &[u8], kind: &[u8]) -> bool {
    match name {
        b"BLPOP" | b"BRPOP" | b"BLMPOP" | b"BLMOVE" => kind == b"list",
        b"BZPOPMIN" | b"BZPOPMAX" => kind == b"zset",
        _ => false,
    }
}
