//! Sets. The model takes the choice of `SPOP` and `SRANDMEMBER` from the reply, if it is possible.

use super::{Answer, Args, Set, State, impossible};
use crate::reply::{Reply, Word};
use std::borrow::Cow;

pub(super) fn run(state: &mut State, args: Args<'_>, seen: Option<&Reply>) -> Option<Answer> {
    Some(match args.name() {
        "SADD" => state.change(args.word(1), |set: &mut Set| {
            let members = args.from(2).iter();
            Reply::count(members.filter(|member| set.insert((*member).clone())).count())
        }),
        "SREM" => state.change(args.word(1), |set: &mut Set| {
            let members = args.from(2).iter();
            Reply::count(members.filter(|member| set.remove(*member)).count())
        }),
        "SISMEMBER" => {
            read(state, args).map(|set| Reply::count(usize::from(set.contains(args.word(2)))))
        }
        "SCARD" => read(state, args).map(|set| Reply::count(set.len())),
        "SMEMBERS" => read(state, args).map(|set| Reply::bulks(set.iter())),
        "SMOVE" => r#move(state, args),
        "SPOP" => pop(state, args, seen),
        "SRANDMEMBER" => read(state, args).map(|set| choose(&set, args, seen)),
        "SINTER" | "SUNION" | "SDIFF" => {
            combine(state, args.name(), args.from(1)).map(|set| Reply::bulks(set.iter()))
        }
        "SINTERSTORE" | "SUNIONSTORE" | "SDIFFSTORE" => combine(state, args.name(), args.from(2))
            .map(|set| {
                let count = set.len();
                state.store(args.word(1), set);
                Reply::count(count)
            }),
        _ => return None,
    })
}

fn read<'s>(state: &'s State, args: Args<'_>) -> Result<Cow<'s, Set>, Reply> {
    state.read_or_empty(args.word(1))
}

/// SMOVE from to member.
fn r#move(state: &mut State, args: Args<'_>) -> Answer {
    let (from, to, member) = (args.word(1), args.word(2), args.word(3));
    let Some(source) = state.read::<Set>(from)? else { return Ok(Reply::Int(0)) };
    let is_there = source.contains(member);
    state.read::<Set>(to)?;
    if is_there && from != to {
        state.change(from, |set: &mut Set| set.remove(member))?;
        state.change(to, |set: &mut Set| set.insert(member.clone()))?;
    }
    Ok(Reply::count(usize::from(is_there)))
}

/// How many members a command asks for; `None`: one, not as an array.
fn asked(args: Args<'_>) -> Option<i64> {
    (args.len() > 2).then(|| args.int(2))
}

/// The reply that was seen, if a correct server may choose it from `set`; else an impossible one.
fn choose(set: &Set, args: Args<'_>, seen: Option<&Reply>) -> Reply {
    let (Some(count), length) = (asked(args), set.len()) else {
        return match seen {
            Some(Reply::Bulk(member)) if set.contains(member) => Reply::Bulk(member.clone()),
            _ if set.is_empty() => Reply::Nil,
            _ => impossible("not a member"),
        };
    };
    let chosen = seen.map(Reply::list).unwrap_or_default();
    let distinct = chosen.iter().cloned().collect::<Set>();
    let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let expected = match () {
        () if set.is_empty() => 0,
        () if count < 0 => most,
        () => most.min(length),
    };
    match () {
        () if chosen.len() != expected => impossible("not so many members"),
        () if count > 0 && distinct.len() != chosen.len() => impossible("a member twice"),
        () if !distinct.is_subset(set) => impossible("not a member"),
        () => Reply::bulks(&chosen),
    }
}

fn pop(state: &mut State, args: Args<'_>, seen: Option<&Reply>) -> Answer {
    let reply = choose(&*read(state, args)?, args, seen);
    let taken = match &reply {
        Reply::Bulk(member) => vec![member.clone()],
        reply => reply.list(),
    };
    if !taken.is_empty() {
        state.change(args.word(1), |set: &mut Set| set.retain(|member| !taken.contains(member)))?;
    }
    Ok(reply)
}

fn combine(state: &State, name: &str, keys: &[Word]) -> Result<Set, Reply> {
    let sets = keys.iter().map(|key| state.read::<Set>(key));
    let sets = sets.collect::<Result<Vec<_>, _>>()?.into_iter();
    let mut sets = sets.map(|set| set.cloned().unwrap_or_default());
    let first = sets.next().unwrap_or_default();
    Ok(match &name[..2] {
        "SI" => sets.fold(first, |all, set| all.intersection(&set).cloned().collect()),
        "SU" => sets.fold(first, |all, set| all.union(&set).cloned().collect()),
        _ => sets.fold(first, |all, set| all.difference(&set).cloned().collect()),
    })
}
