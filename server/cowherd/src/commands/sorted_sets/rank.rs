//! Ranks, scores and counts of members.

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};

use super::bounds::{RangeKind, RankBounds};
use super::lookup_read;

pub(super) fn zcard(call: &mut Call<'_>) -> CommandResult {
    let len = match lookup_read(call, 1)? {
        Some(entry) => call.shards.sorted_set(&entry).len(),
        None => 0,
    };
    call.reply.integer(len.cast_signed());
    Ok(())
}

pub(super) fn zcount(call: &mut Call<'_>) -> CommandResult {
    count(call, RangeKind::Score)
}

pub(super) fn zlexcount(call: &mut Call<'_>) -> CommandResult {
    count(call, RangeKind::Member)
}

fn count(call: &mut Call<'_>, kind: RangeKind) -> CommandResult {
    let bounds = RankBounds::parse(call, kind, 2, 3)?;
    let count = match lookup_read(call, 1)? {
        Some(entry) => {
            let ranks = bounds.ranks(&call.shards.sorted_set(&entry), false);
            ranks.end - ranks.start
        }
        None => 0,
    };
    call.reply.integer(count.cast_signed());
    Ok(())
}

pub(super) fn zscore(call: &mut Call<'_>) -> CommandResult {
    let entry = lookup_read(call, 1)?;
    let member = call.args.at(2);
    match entry.and_then(|entry| call.shards.sorted_set(&entry).score(member)) {
        Some(score) => call.reply.double(score),
        None => call.reply.null(),
    }
    Ok(())
}

pub(super) fn zmscore(call: &mut Call<'_>) -> CommandResult {
    let entry = lookup_read(call, 1)?;
    call.reply.array(call.args.len() - 2);
    let view = entry.map(|entry| call.shards.sorted_set(&entry));
    for i in 2..call.args.len() {
        match view.as_ref().and_then(|view| view.score(call.args.at(i))) {
            Some(score) => call.reply.double(score),
            None => call.reply.null(),
        }
    }
    Ok(())
}

pub(super) fn zrank(call: &mut Call<'_>) -> CommandResult {
    rank(call, false)
}

pub(super) fn zrevrank(call: &mut Call<'_>) -> CommandResult {
    rank(call, true)
}

fn rank(call: &mut Call<'_>, reverse: bool) -> CommandResult {
    let with_score = match call.args.len() {
        3 => false,
        4 if call.is(3, "withscore") => true,
        4 => return Err(ErrorReply::SYNTAX),
        _ => return Err(call.row.wrong_arity()),
    };
    let entry = lookup_read(call, 1)?;
    let view = entry.map(|entry| call.shards.sorted_set(&entry));
    let found = view.and_then(|view| {
        let (rank, score) = view.rank(call.args.at(2))?;
        Some((if reverse { view.len() - 1 - rank } else { rank }, score))
    });
    match found {
        None if with_score => call.reply.null_array(),
        None => call.reply.null(),
        Some((rank, score)) => {
            if with_score {
                call.reply.array(2);
            }
            call.reply.integer(rank.cast_signed());
            if with_score {
                call.reply.double(score);
            }
        }
    }
    Ok(())
}
