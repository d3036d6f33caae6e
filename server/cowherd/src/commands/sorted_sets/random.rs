//! ZRANDMEMBER and ZSCAN.

use std::collections::HashSet;

use crate::commands::call::Call;
use crate::commands::element_scan::{ElementScanOptions, scan_cursor, scan_head};
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::random::random;
use crate::commands::value_reply::bulk_value;
use crate::keyspace::SortedSetView;
use cowherd_resp::{format_double, format_general};

use super::lookup_read;
use super::range::MemberReply;

const OUT_OF_RANGE: ErrorReply = ErrorReply::new("ERR value is out of range");
const TOO_LOW: ErrorReply = ErrorReply::new(
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
);
/// The largest count with repetitions, which bounds the memory of the reply.
const MAX_REPEATED: u64 = 1 << 24;

pub(super) fn zrandmember(call: &mut Call<'_>) -> CommandResult {
    let count = match call.args.len() {
        2 => None,
        _ => Some(call.integer(2)?).filter(|count| *count > i64::MIN).map(Some).ok_or(TOO_LOW)?,
    };
    let with_scores = call.args.len() == 4 && call.is(3, "withscores");
    if call.args.len() > 3 && !with_scores {
        return Err(ErrorReply::SYNTAX);
    }
    if with_scores && count.is_some_and(|count| count.abs() > i64::MAX / 2) {
        return Err(OUT_OF_RANGE);
    }
    let entry = lookup_read(call, 1)?;
    let Some(entry) = entry else {
        match count {
            Some(_) => call.reply.array(0),
            None => call.reply.null(),
        }
        return Ok(());
    };
    let view = call.shards.sorted_set(&entry);
    let Some(count) = count else {
        view.each(random() % view.len(), 1, false, |member, _| bulk_value(call.reply, member));
        return Ok(());
    };
    let (most, is_repeating) = (count.unsigned_abs(), count < 0);
    if is_repeating && most > MAX_REPEATED {
        return Err(OUT_OF_RANGE);
    }
    let count = if is_repeating { most } else { most.min(view.len()) };
    let mut members = MemberReply::begin(call.reply, count, with_scores);
    for rank in ranks(&view, count, is_repeating) {
        view.each(rank, 1, false, |member, score| members.add(member, score));
    }
    Ok(())
}

/// `count` random ranks, distinct unless `is_repeating`.
fn ranks(view: &SortedSetView<'_>, count: u64, is_repeating: bool) -> Vec<u64> {
    let len = view.len();
    if is_repeating {
        return (0..count).map(|_| random() % len).collect();
    }
    if count == len {
        return (0..len).collect();
    }
    // Floyd's sampling algorithm: each step adds a rank that was not chosen before.
    let mut chosen = HashSet::new();
    let mut ranks = Vec::new();
    for last in len - count..len {
        let rank = random() % (last + 1);
        let rank = if chosen.contains(&rank) { last } else { rank };
        chosen.insert(rank);
        ranks.push(rank);
    }
    ranks
}

pub(super) fn zscan(call: &mut Call<'_>) -> CommandResult {
    let cursor = scan_cursor(call)?;
    let Some(entry) = lookup_read(call, 1)? else {
        scan_head(call.reply, None);
        call.reply.array(0);
        return Ok(());
    };
    let options = ElementScanOptions::parse(call, false)?;
    let start = call.reply.len();
    let (list, mut listed) = (call.reply.deferred_array(), 0);
    let view = call.shards.sorted_set(&entry);
    let is_compact = view.is_compact();
    let next = view.scan(cursor, options.count, |member, score| {
        if options.matches(member) {
            bulk_value(call.reply, member);
            // As in Redis, where large sorted sets have scores as numbers and not as text.
            match is_compact {
                true => call.reply.bulk(&format_double(score)),
                false => call.reply.bulk(format_general(score, 17).as_bytes()),
            }
            listed += 2;
        }
    });
    call.reply.set_array_len(list, listed);
    // The cursor precedes the elements, but is known only after the scan.
    let end = call.reply.len();
    scan_head(call.reply, next);
    let head = call.reply.len() - end;
    call.reply.out[start..].rotate_right(head);
    Ok(())
}
