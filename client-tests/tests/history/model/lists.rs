//! Lists, and the pops that wait.
//!
//! A command that waits is modelled at the moment at which it takes effect: it pops then, or, if
//! its time is over, finds nothing. `BLPOP` answers from the first of its keys that has elements.

use super::{Answer, Line, List, State, impossible, range};
use crate::reply::{Reply, Word};
use std::borrow::Cow;

pub(super) fn run(state: &mut State, line: Line<'_>, _: Option<&Reply>) -> Option<Answer> {
    Some(match line.name() {
        "LPUSH" | "RPUSH" => push(state, line),
        "LPUSHX" | "RPUSHX" => match state.has(line.word(1)) {
            true => push(state, line),
            false => Ok(Reply::Int(0)),
        },
        "LPOP" | "RPOP" => pop(state, line),
        "LLEN" => read(state, line).map(|list| Reply::count(list.len())),
        "LRANGE" => read(state, line)
            .map(|list| Reply::bulks(list.range(range(line.int(2), line.int(3), list.len())))),
        "LINDEX" => read(state, line)
            .map(|list| Reply::maybe(position(&list, line.int(2)).map(|at| &list[at]))),
        "LSET" => set(state, line),
        "LINSERT" => insert(state, line),
        "LREM" => remove(state, line),
        "LTRIM" => state.change(line.word(1), |list: &mut List| {
            *list = list.range(range(line.int(2), line.int(3), list.len())).cloned().collect();
            Reply::ok()
        }),
        "LMOVE" | "BLMOVE" => r#move(state, line),
        "LMPOP" => pop_several(state, line, 1),
        "BLMPOP" => pop_several(state, line, 2),
        "BLPOP" | "BRPOP" => wait_and_pop(state, line),
        _ => return None,
    })
}

fn read<'s>(state: &'s State, line: Line<'_>) -> Result<Cow<'s, List>, Reply> {
    state.read_or_empty(line.word(1))
}

fn position(list: &List, index: i64) -> Option<usize> {
    let range = range(index, index, list.len());
    (!range.is_empty()).then_some(range.start)
}

fn push(state: &mut State, line: Line<'_>) -> Answer {
    let at_front = line.name().starts_with('L');
    state.change(line.word(1), |list: &mut List| {
        for element in line.from(2) {
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

fn pop(state: &mut State, line: Line<'_>) -> Answer {
    let at_front = line.name() == "LPOP";
    if state.read::<List>(line.word(1))?.is_none() {
        return Ok(Reply::Nil);
    }
    state.change(line.word(1), |list: &mut List| match line.len() {
        2 => Reply::maybe(take(list, at_front).as_ref()),
        _ => Reply::bulks(&take_some(list, at_front, line.count(2))),
    })
}

fn set(state: &mut State, line: Line<'_>) -> Answer {
    let list = state.read::<List>(line.word(1))?;
    let list = list.ok_or_else(|| Reply::error("ERR no such key"))?;
    let at = position(list, line.int(2));
    let at = at.ok_or_else(|| Reply::error("ERR index out of range"))?;
    state.change(line.word(1), |list: &mut List| {
        list[at] = line.word(3).clone();
        Reply::ok()
    })
}

/// LINSERT key BEFORE|AFTER pivot element.
fn insert(state: &mut State, line: Line<'_>) -> Answer {
    let Some(list) = state.read::<List>(line.word(1))? else { return Ok(Reply::Int(0)) };
    let pivot = list.iter().position(|element| element == line.word(3));
    let Some(pivot) = pivot else { return Ok(Reply::Int(-1)) };
    let at = if line.is(2, "BEFORE") { pivot } else { pivot + 1 };
    state.change(line.word(1), |list: &mut List| {
        list.insert(at, line.word(4).clone());
        Reply::count(list.len())
    })
}

/// LREM key count element: the first or the last ones, or all.
fn remove(state: &mut State, line: Line<'_>) -> Answer {
    let count = line.int(2);
    let most = if count == 0 { usize::MAX } else { usize::try_from(count.abs()).unwrap_or(0) };
    state.change(line.word(1), |list: &mut List| {
        let matches = |at: &usize| list[*at] == *line.word(3);
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
fn r#move(state: &mut State, line: Line<'_>) -> Answer {
    let (from, to) = (line.word(1), line.word(2));
    if state.read::<List>(from)?.is_none() {
        return Ok(Reply::Nil);
    }
    state.read::<List>(to)?;
    let (takes_front, adds_front) = (line.is(3, "LEFT"), line.is(4, "LEFT"));
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
fn pop_several(state: &mut State, line: Line<'_>, at: usize) -> Answer {
    let end = at + 1 + line.count(at);
    let (at_front, count) = (line.is(end, "LEFT"), line.count(end + 2));
    for key in &line.0[at + 1..end] {
        if state.read::<List>(key)?.is_some() {
            let taken = state.change(key, |list: &mut List| take_some(list, at_front, count))?;
            let elements = Reply::bulks(&taken);
            return Ok(Reply::Array(vec![Reply::Bulk(key.clone()), elements]));
        }
    }
    Ok(Reply::Nil)
}

/// BLPOP key [key ...] timeout.
fn wait_and_pop(state: &mut State, line: Line<'_>) -> Answer {
    let at_front = line.name() == "BLPOP";
    for key in &line.0[1..line.len() - 1] {
        if state.read::<List>(key)?.is_some() {
            let taken = state.change(key, |list: &mut List| take(list, at_front))?;
            return Ok(Reply::bulks([key.clone()].iter().chain(&taken)));
        }
    }
    Ok(Reply::Nil)
}

/// Whether a command that waits would be served from a key of type `kind`.
pub fn waits_for(name: &[u8], kind: &[u8]) -> bool {
    match name {
        b"BLPOP" | b"BRPOP" | b"BLMPOP" | b"BLMOVE" => kind == b"list",
        b"BZPOPMIN" | b"BZPOPMAX" => kind == b"zset",
        _ => false,
    }
}
