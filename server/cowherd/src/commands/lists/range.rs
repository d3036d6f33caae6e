//! Commands on elements by index or value: LINDEX, LRANGE, LSET, LINSERT, LREM, LTRIM, and LLEN.

use std::ops::RangeInclusive;

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::index_range::index;
use crate::commands::value_reply::bulk_value;
use crate::keyspace::{Entry, ListEnd};

use super::{limits, list, read};

const OUT_OF_RANGE: ErrorReply = ErrorReply::new("ERR index out of range");
const NO_COUNT: ErrorReply = ErrorReply::new(
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
);

/// The part of a range that exists in a list of `len` elements. Both ends are included, and
/// negative ones count from the back.
fn within(start: i64, end: i64, len: u64) -> Option<RangeInclusive<u64>> {
    let from_front = |at: i64| match at {
        0.. => Some(at.unsigned_abs()),
        back => len.checked_sub(back.unsigned_abs()),
    };
    let start = from_front(start).unwrap_or(0);
    let end = from_front(end)?.min(len.checked_sub(1)?);
    (start <= end).then_some(start..=end)
}

pub(super) fn llen(call: &mut Call<'_>) -> CommandResult {
    let len = read(call)?.map_or(0, |entry| call.shards.list_len(&entry));
    call.reply.integer(len.cast_signed());
    Ok(())
}

/// The index in argument 2, counted from the front; `None` before the first element.
fn list_index(call: &Call<'_>, entry: &Entry) -> Result<Option<u64>, ErrorReply> {
    let at = call.integer(2)?;
    Ok(match u64::try_from(at) {
        Ok(at) => Some(at),
        Err(_) => call.shards.list_len(entry).checked_sub(at.unsigned_abs()),
    })
}

pub(super) fn lindex(call: &mut Call<'_>) -> CommandResult {
    let Some(entry) = read(call)? else {
        call.reply.null();
        return Ok(());
    };
    let at = list_index(call, &entry)?;
    match at.and_then(|at| call.shards.list_get(&entry, at)) {
        Some(element) => bulk_value(call.reply, element),
        None => call.reply.null(),
    }
    Ok(())
}

pub(super) fn lrange(call: &mut Call<'_>) -> CommandResult {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    let Some(entry) = read(call)? else {
        call.reply.array(0);
        return Ok(());
    };
    let Some(range) = within(start, end, call.shards.list_len(&entry)) else {
        call.reply.array(0);
        return Ok(());
    };
    call.reply.array(index(range.end() - range.start() + 1));
    call.shards.list_range(&entry, &range, |element| bulk_value(call.reply, element));
    Ok(())
}

pub(super) fn lset(call: &mut Call<'_>) -> CommandResult {
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let Some(entry) = list(call, &key)? else { return Err(ErrorReply::NO_KEY) };
    let at = list_index(call, &entry)?.ok_or(OUT_OF_RANGE)?;
    if !call.shards.list_set(db, &key, &entry, at, call.args.at(3), &limits)? {
        return Err(OUT_OF_RANGE);
    }
    call.notify(EventClass::LIST, "lset", key.bytes);
    call.reply.ok();
    Ok(())
}

pub(super) fn linsert(call: &mut Call<'_>) -> CommandResult {
    let before = call.is(2, "before");
    if !before && !call.is(2, "after") {
        return Err(ErrorReply::SYNTAX);
    }
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let Some(entry) = list(call, &key)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let (pivot, element) = (call.args.at(3), call.args.at(4));
    match call.shards.list_insert(db, &key, &entry, (pivot, before), element, &limits)? {
        Some(len) => {
            call.notify(EventClass::LIST, "linsert", key.bytes);
            call.reply.integer(len.cast_signed());
        }
        None => call.reply.integer(-1),
    }
    Ok(())
}

pub(super) fn lrem(call: &mut Call<'_>) -> CommandResult {
    let count = call.integer(2)?;
    let (end, most) = match count {
        i64::MIN => return Err(NO_COUNT),
        0 => (ListEnd::Front, u64::MAX),
        1.. => (ListEnd::Front, count.unsigned_abs()),
        _ => (ListEnd::Back, count.unsigned_abs()),
    };
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let Some(entry) = list(call, &key)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let len = call.shards.list_len(&entry);
    let element = call.args.at(3);
    let removed = call.shards.list_remove(db, &key, &entry, element, (end, most), &limits)?;
    if removed > 0 {
        call.notify(EventClass::LIST, "lrem", key.bytes);
    }
    if removed == len {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
    call.reply.integer(removed.cast_signed());
    Ok(())
}

pub(super) fn ltrim(call: &mut Call<'_>) -> CommandResult {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    if let Some(entry) = list(call, &key)? {
        let len = call.shards.list_len(&entry);
        let ends = match within(start, end, len) {
            Some(range) => (*range.start(), len - 1 - range.end()),
            None => (len, 0),
        };
        let is_gone = call.shards.list_trim(db, &key, &entry, ends, &limits)?;
        call.notify(EventClass::LIST, "ltrim", key.bytes);
        if is_gone {
            call.notify(EventClass::GENERIC, "del", key.bytes);
        }
    }
    call.reply.ok();
    Ok(())
}
