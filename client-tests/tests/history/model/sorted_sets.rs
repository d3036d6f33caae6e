//! Sorted sets. The workload uses whole numbers as scores, so that there is one way to write them.

use super::{Answer, Args, Set, State, range};
use crate::reply::{Reply, Word};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub type SortedSet = BTreeMap<Word, i64>;

/// Members with their scores, in order.
type Ranked = Vec<(i64, Word)>;

pub(super) fn run(state: &mut State, args: Args<'_>, _: Option<&Reply>) -> Option<Answer> {
    Some(match args.name() {
        "ZADD" => add(state, args),
        "ZINCRBY" => state.change(args.word(1), |set: &mut SortedSet| {
            let score = set.entry(args.word(3).clone()).or_insert(0);
            *score += args.int(2);
            Reply::text(*score)
        }),
        "ZREM" => state.change(args.word(1), |set: &mut SortedSet| {
            let members = args.from(2).iter();
            Reply::count(members.filter(|member| set.remove(*member).is_some()).count())
        }),
        "ZSCORE" => {
            read(state, args).map(|set| set.get(args.word(2)).map_or(Reply::Nil, Reply::text))
        }
        "ZCARD" => read(state, args).map(|set| Reply::count(set.len())),
        "ZRANK" => read(state, args).map(|set| {
            let ranked = ranked(&set);
            let at = ranked.iter().position(|(_, member)| member == args.word(2));
            at.map_or(Reply::Nil, Reply::count)
        }),
        "ZCOUNT" => read(state, args).map(|set| {
            let bounds = args.int(2)..=args.int(3);
            Reply::count(set.values().filter(|score| bounds.contains(score)).count())
        }),
        "ZRANGE" => read(state, args).map(|set| {
            let ranked = ranked(&set);
            let chosen = &ranked[range(args.int(2), args.int(3), ranked.len())];
            flat(chosen, args.has(4, "WITHSCORES"))
        }),
        "ZPOPMIN" | "ZPOPMAX" => {
            let count = if args.len() > 2 { args.count(2) } else { 1 };
            pop(state, args.word(1), args.name() == "ZPOPMIN", count).map(|all| flat(&all, true))
        }
        "BZPOPMIN" | "BZPOPMAX" => wait_and_pop(state, args),
        "ZREMRANGEBYRANK" => state.change(args.word(1), |set: &mut SortedSet| {
            let ranked = ranked(set);
            let chosen = &ranked[range(args.int(2), args.int(3), ranked.len())];
            remove(set, chosen);
            Reply::count(chosen.len())
        }),
        "ZRANGESTORE" => range_store(state, args),
        "ZUNIONSTORE" => union_store(state, args),
        _ => return None,
    })
}

fn read<'s>(state: &'s State, args: Args<'_>) -> Result<Cow<'s, SortedSet>, Reply> {
    state.read_or_empty(args.word(1))
}

fn ranked(set: &SortedSet) -> Ranked {
    let ranked = set.iter().map(|(member, score)| (*score, member.clone()));
    ranked.collect::<BTreeSet<_>>().into_iter().collect()
}

fn remove(set: &mut SortedSet, chosen: &[(i64, Word)]) {
    for (_, member) in chosen {
        set.remove(member);
    }
}

fn flat(chosen: &[(i64, Word)], with_scores: bool) -> Reply {
    let mut items = Vec::new();
    for (score, member) in chosen {
        items.push(Reply::Bulk(member.clone()));
        if with_scores {
            items.push(Reply::text(score));
        }
    }
    Reply::Array(items)
}

/// ZADD key [NX|XX] [GT|LT] [CH] score member [score member ...].
fn add(state: &mut State, args: Args<'_>) -> Answer {
    let options = ["NX", "XX", "GT", "LT", "CH"];
    let is_option = |i: usize| options.iter().any(|option| args.is(i, option));
    let first = (2..args.len()).find(|i| !is_option(*i)).unwrap_or(args.len());
    let has = |option| (2..first).any(|i| args.is(i, option));
    state.change(args.word(1), |set: &mut SortedSet| {
        let (mut added, mut changed) = (0, 0);
        for i in (first..args.len()).step_by(2) {
            let (score, member) = (args.int(i), args.word(i + 1));
            match set.get(member) {
                None if has("XX") => continue,
                None => added += 1,
                Some(_) if has("NX") => continue,
                Some(old) if has("GT") && score <= *old => continue,
                Some(old) if has("LT") && score >= *old => continue,
                Some(old) if score == *old => continue,
                Some(_) => changed += 1,
            }
            set.insert(member.clone(), score);
        }
        Reply::count(if has("CH") { added + changed } else { added })
    })
}

fn pop(state: &mut State, key: &Word, lowest: bool, count: usize) -> Result<Ranked, Reply> {
    state.change(key, |set: &mut SortedSet| {
        let mut ranked = ranked(set);
        if !lowest {
            ranked.reverse();
        }
        ranked.truncate(count);
        remove(set, &ranked);
        ranked
    })
}

/// BZPOPMIN key [key ...] timeout.
fn wait_and_pop(state: &mut State, args: Args<'_>) -> Answer {
    for key in &args.0[1..args.len() - 1] {
        if state.read::<SortedSet>(key)?.is_some() {
            let popped = pop(state, key, args.name() == "BZPOPMIN", 1)?;
            let Reply::Array(pair) = flat(&popped, true) else { break };
            return Ok(Reply::Array([vec![Reply::Bulk(key.clone())], pair].concat()));
        }
    }
    Ok(Reply::Nil)
}

/// ZRANGESTORE to from first last.
fn range_store(state: &mut State, args: Args<'_>) -> Answer {
    let set = state.read_or_empty::<SortedSet>(args.word(2))?;
    let ranked = ranked(&set);
    let chosen = &ranked[range(args.int(3), args.int(4), ranked.len())];
    let stored = chosen.iter().map(|(score, member)| (member.clone(), *score));
    state.store(args.word(1), stored.collect::<SortedSet>());
    Ok(Reply::count(chosen.len()))
}

/// ZUNIONSTORE to numkeys key [key ...]: scores of members in several sets are added up; those of
/// a plain set count 1.
fn union_store(state: &mut State, args: Args<'_>) -> Answer {
    let mut union = SortedSet::new();
    for key in &args.from(3)[..args.count(2)] {
        let scored = match state.read::<Set>(key) {
            Ok(set) => set.into_iter().flatten().map(|member| (member.clone(), 1)).collect(),
            Err(_) => state.read::<SortedSet>(key)?.cloned().unwrap_or_default(),
        };
        for (member, score) in scored {
            *union.entry(member).or_insert(0) += score;
        }
    }
    let count = union.len();
    state.store(args.word(1), union);
    Ok(Reply::count(count))
}
