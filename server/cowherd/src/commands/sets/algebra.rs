//! Intersections, unions and differences.

use std::collections::HashSet;
use std::ops::Range;

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::value_reply::bulk_value;
use crate::keyspace::{Entry, MemberList, Shards, Value};
use cowherd_resp::parse_i64;

use super::{limits, read};

const NO_KEYS: ErrorReply = ErrorReply::new("ERR numkeys should be greater than 0");
const TOO_MANY_KEYS: ErrorReply =
    ErrorReply::new("ERR Number of keys can't be greater than number of args");
const NEGATIVE_LIMIT: ErrorReply = ErrorReply::new("ERR LIMIT can't be negative");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SetOperation {
    Inter,
    Union,
    Diff,
}

/// The sets of some keys; `None` for a missing key.
fn sources(call: &mut Call<'_>, keys: Range<usize>) -> Result<Vec<Option<Entry>>, ErrorReply> {
    keys.map(|i| read(call, i)).collect()
}

/// Calls `each` once with each member of the result.
fn compute<'s>(
    shards: &'s Shards<'_>,
    operation: SetOperation,
    sets: &[Option<Entry>],
    each: impl FnMut(Value<'s>),
) {
    match operation {
        SetOperation::Inter => intersect(shards, sets, usize::MAX, each),
        SetOperation::Union => unite(shards, sets, each),
        SetOperation::Diff => subtract(shards, sets, each),
    }
}

/// Calls `each` with at most `max` of the members that are in all sets.
fn intersect<'s>(
    shards: &'s Shards<'_>,
    sets: &[Option<Entry>],
    max: usize,
    mut each: impl FnMut(Value<'s>),
) {
    /// Members that are tested before the next check of the limit.
    const STEP: usize = 64;
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<Entry>>>() else { return };
    // Iterates over the smallest set.
    sets.sort_by_key(|set| shards.set_len(set));
    let Some((first, others)) = sets.split_first() else { return };
    let step = if max == usize::MAX { usize::MAX } else { STEP };
    let (mut cursor, mut found) = (0, 0);
    loop {
        cursor = shards.set_scan(first, cursor, step, |member| {
            if found < max && others.iter().all(|set| shards.set_has_value(set, member)) {
                found += 1;
                each(member);
            }
        });
        if cursor == 0 || found >= max {
            return;
        }
    }
}

fn unite<'s>(shards: &'s Shards<'_>, sets: &[Option<Entry>], mut each: impl FnMut(Value<'s>)) {
    let sets: Vec<&Entry> = sets.iter().flatten().collect();
    if let [set] = sets[..] {
        return shards.set_each(set, each);
    }
    let mut seen = HashSet::new();
    for set in sets {
        shards.set_each(set, |member| {
            if seen.insert(member) {
                each(member);
            }
        });
    }
}

fn subtract<'s>(shards: &'s Shards<'_>, sets: &[Option<Entry>], mut each: impl FnMut(Value<'s>)) {
    let Some((Some(first), others)) = sets.split_first() else { return };
    let mut others: Vec<&Entry> = others.iter().flatten().collect();
    let len = |set: &Entry| shards.set_len(set);
    let total: u64 = others.iter().map(|set| len(set)).sum();
    // Either looks up each member in each other set, or collects the members of the other sets.
    if len(first).saturating_mul(others.len() as u64) / 2 <= total {
        // The largest set is the likeliest to contain a member.
        others.sort_by_key(|set| std::cmp::Reverse(len(set)));
        return shards.set_each(first, |member| {
            if !others.iter().any(|set| shards.set_has_value(set, member)) {
                each(member);
            }
        });
    }
    let mut gathered = HashSet::new();
    for set in others {
        shards.set_each(set, |member| {
            gathered.insert(member);
        });
    }
    shards.set_each(first, |member| {
        if !gathered.contains(&member) {
            each(member);
        }
    });
}

fn show(call: &mut Call<'_>, operation: SetOperation) -> CommandResult {
    let sets = sources(call, 1..call.args.len())?;
    let (list, mut count) = (call.reply.deferred_array(), 0);
    compute(&call.shards, operation, &sets, |member| {
        bulk_value(call.reply, member);
        count += 1;
    });
    call.reply.set_set_len(list, count);
    Ok(())
}

fn store(call: &mut Call<'_>, operation: SetOperation, event: &'static str) -> CommandResult {
    let sets = sources(call, 2..call.args.len())?;
    let mut members = MemberList::default();
    compute(&call.shards, operation, &sets, |member| members.push(member));
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let changed = call.shards.set_store(db, &key, &members, &limits)?;
    if !members.is_empty() {
        call.notify(EventClass::SET, event, key.bytes);
    } else if changed {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
    call.reply.integer(members.len().cast_signed());
    Ok(())
}

pub(super) fn sinter(call: &mut Call<'_>) -> CommandResult {
    show(call, SetOperation::Inter)
}

pub(super) fn sunion(call: &mut Call<'_>) -> CommandResult {
    show(call, SetOperation::Union)
}

pub(super) fn sdiff(call: &mut Call<'_>) -> CommandResult {
    show(call, SetOperation::Diff)
}

pub(super) fn sinterstore(call: &mut Call<'_>) -> CommandResult {
    store(call, SetOperation::Inter, "sinterstore")
}

pub(super) fn sunionstore(call: &mut Call<'_>) -> CommandResult {
    store(call, SetOperation::Union, "sunionstore")
}

pub(super) fn sdiffstore(call: &mut Call<'_>) -> CommandResult {
    store(call, SetOperation::Diff, "sdiffstore")
}

pub(super) fn sintercard(call: &mut Call<'_>) -> CommandResult {
    let count = parse_i64(call.args.at(1)).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0).ok_or(NO_KEYS)?;
    if count > call.args.len() - 2 {
        return Err(TOO_MANY_KEYS);
    }
    let (mut max, mut i) = (usize::MAX, 2 + count);
    while i < call.args.len() {
        let value = call.args.get(i + 1).filter(|_| call.is(i, "limit"));
        let limit = parse_i64(value.ok_or(ErrorReply::SYNTAX)?);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).ok_or(NEGATIVE_LIMIT)?;
        max = if limit == 0 { usize::MAX } else { limit };
        i += 2;
    }
    let sets = sources(call, 2..2 + count)?;
    let mut found = 0;
    intersect(&call.shards, &sets, max, |_| found += 1);
    call.reply.integer(found);
    Ok(())
}
