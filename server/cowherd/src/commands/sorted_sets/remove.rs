//! Removal of members: by name, by range, and pops from the ends, some of which block.

use crate::clients::{EventClass, TimeoutReply, WakeCondition};
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::multi_pop::{self, MultiPop};
use crate::commands::value_reply::bulk_value;
use crate::keyspace::{Entry, Key, ValueType};
use cowherd_resp::{ProtocolVersion, parse_i64};

use super::bounds::{RangeKind, RankBounds};
use super::lookup;
use super::range::MemberReply;

const CONDITION: WakeCondition =
    WakeCondition { kind: ValueType::SortedSet, wake_on_delete: false };

pub(super) fn zrem(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let mut entry = lookup(call, 1)?;
    let mut removed = 0;
    for i in 2..call.args.len() {
        let Some(old) = entry else { break };
        let (was_there, left) = call.shards.remove_member(db, &key, old, call.args.at(i))?;
        removed += i64::from(was_there);
        entry = left;
    }
    if removed > 0 {
        notify(call, "zrem", &key, entry.is_none());
    }
    call.reply.integer(removed);
    Ok(())
}

pub(super) fn by_rank(call: &mut Call<'_>) -> CommandResult {
    remove(call, RangeKind::Rank)
}

pub(super) fn by_score(call: &mut Call<'_>) -> CommandResult {
    remove(call, RangeKind::Score)
}

pub(super) fn by_lex(call: &mut Call<'_>) -> CommandResult {
    remove(call, RangeKind::Member)
}

/// Emits the event of removed members, and that of the key if these were the last.
fn notify(call: &Call<'_>, event: &str, key: &Key<'_>, is_gone: bool) {
    call.notify(EventClass::SORTED_SET, event, key.bytes);
    if is_gone {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
}

fn remove(call: &mut Call<'_>, kind: RangeKind) -> CommandResult {
    let bounds = RankBounds::parse(call, kind, 2, 3)?;
    let (db, key) = (call.session.db, call.key(1));
    let mut count = 0;
    if let Some(entry) = lookup(call, 1)? {
        let ranks = bounds.ranks(&call.shards.sorted_set(&entry), false);
        count = ranks.end - ranks.start;
        let left = call.shards.remove_ranks(db, &key, entry, ranks.start, count)?;
        if count > 0 {
            let event = match kind {
                RangeKind::Rank => "zremrangebyrank",
                RangeKind::Score => "zremrangebyscore",
                RangeKind::Member => "zremrangebylex",
            };
            notify(call, event, &key, left.is_none());
        }
    }
    call.reply.integer(count.cast_signed());
    Ok(())
}

pub(super) fn zpopmin(call: &mut Call<'_>) -> CommandResult {
    pop_one_key(call, false)
}

pub(super) fn zpopmax(call: &mut Call<'_>) -> CommandResult {
    pop_one_key(call, true)
}

fn pop_one_key(call: &mut Call<'_>, is_max: bool) -> CommandResult {
    let count = match call.args.len() {
        2 => None,
        3 => {
            let count = parse_i64(call.args.at(2)).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or(ErrorReply::NOT_POSITIVE)?)
        }
        _ => return Err(ErrorReply::SYNTAX),
    };
    let key = call.key(1);
    let entry = lookup(call, 1)?;
    let Some(entry) = entry.filter(|_| count != Some(0)) else {
        call.reply.array(0);
        return Ok(());
    };
    if count.is_none() && call.reply.version == ProtocolVersion::Resp3 {
        // In RESP3, the reply without a count is one pair, not an array of pairs.
        call.reply.array(2);
        return pop_flat(call, &key, entry, is_max);
    }
    pop(call, &key, entry, is_max, count.unwrap_or(1), false)
}

/// Pops one member, and appends it and its score to an array whose header is written.
fn pop_flat(call: &mut Call<'_>, key: &Key<'_>, entry: Entry, is_max: bool) -> CommandResult {
    let view = call.shards.sorted_set(&entry);
    let rank = if is_max { view.len() - 1 } else { 0 };
    view.each(rank, 1, false, |member, score| {
        bulk_value(call.reply, member);
        call.reply.double(score);
    });
    remove_end(call, key, entry, is_max, rank, 1)
}

/// Removes members from an end; emits the events.
fn remove_end(
    call: &mut Call<'_>,
    key: &Key<'_>,
    entry: Entry,
    is_max: bool,
    rank: u64,
    count: u64,
) -> CommandResult {
    let left = call.shards.remove_ranks(call.session.db, key, entry, rank, count)?;
    notify(call, if is_max { "zpopmax" } else { "zpopmin" }, key, left.is_none());
    Ok(())
}

/// Pops members from an end and replies them.
fn pop(
    call: &mut Call<'_>,
    key: &Key<'_>,
    entry: Entry,
    is_max: bool,
    count: u64,
    in_pairs: bool,
) -> CommandResult {
    let view = call.shards.sorted_set(&entry);
    let count = count.min(view.len());
    let (first, lowest) = match is_max {
        true => (view.len() - 1, view.len() - count),
        false => (0, 0),
    };
    let mut members = match in_pairs {
        true => MemberReply::pairs(call.reply, count),
        false => MemberReply::begin(call.reply, count, true),
    };
    view.each(first, count, is_max, |member, score| members.add(member, score));
    remove_end(call, key, entry, is_max, lowest, count)
}

fn end(call: &Call<'_>, i: usize) -> Result<bool, ErrorReply> {
    match () {
        () if call.is(i, "max") => Ok(true),
        () if call.is(i, "min") => Ok(false),
        () => Err(ErrorReply::SYNTAX),
    }
}

/// Pops from the sorted set of argument `i` and replies key and members; returns whether it exists.
fn pop_from(call: &mut Call<'_>, i: usize, pop_args: &MultiPop<bool>) -> Result<bool, ErrorReply> {
    let Some(entry) = lookup(call, i)? else { return Ok(false) };
    let key = call.key(i);
    call.reply.array(2);
    call.reply.bulk(key.bytes);
    pop(call, &key, entry, pop_args.end, pop_args.count, true)?;
    Ok(true)
}

pub(super) fn zmpop(call: &mut Call<'_>) -> CommandResult {
    multi_pop::pop_or_null(call, end, pop_from)
}

pub(super) fn bzmpop(call: &mut Call<'_>) -> CommandResult {
    multi_pop::pop_or_block(call, end, pop_from, CONDITION)
}

pub(super) fn bzpopmin(call: &mut Call<'_>) -> CommandResult {
    pop_or_block(call, false)
}

pub(super) fn bzpopmax(call: &mut Call<'_>) -> CommandResult {
    pop_or_block(call, true)
}

fn pop_or_block(call: &mut Call<'_>, is_max: bool) -> CommandResult {
    let last = call.args.len() - 1;
    let timeout = call.timeout_seconds(last)?;
    for i in 1..last {
        if let Some(entry) = lookup(call, i)? {
            let key = call.key(i);
            call.reply.array(3);
            call.reply.bulk(key.bytes);
            return pop_flat(call, &key, entry, is_max);
        }
    }
    call.wait((1..last).collect(), CONDITION, timeout, TimeoutReply::NullArray)
}
