//! XRANGE and XREVRANGE, and replies of entries.

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::value_reply::bulk_value;
use crate::keyspace::{Entry, Shards, StreamFields, StreamId};
use cowherd_resp::{ReplyWriter, parse_i64};

use super::{ids, read_stream};

/// Appends an entry: the id, then the fields and values.
pub(super) fn show_entry(reply: &mut ReplyWriter, id: StreamId, fields: StreamFields<'_>) {
    reply.array(2);
    ids::show(reply, id);
    reply.array(fields.len() * 2);
    for (field, value) in fields.iter() {
        bulk_value(reply, field);
        bulk_value(reply, value);
    }
}

/// Appends up to `most` entries from `start` to `end` as an array; calls `shown` with their ids.
pub(super) fn show_range(
    reply: &mut ReplyWriter,
    shards: &Shards<'_>,
    entry: &Entry,
    (start, end): (StreamId, StreamId),
    is_reverse: bool,
    most: u64,
    mut shown: impl FnMut(StreamId),
) {
    let list = reply.deferred_array();
    let mut count = 0;
    shards.stream_range(entry, start, end, is_reverse, most, |id, fields| {
        show_entry(reply, id, fields);
        shown(id);
        count += 1;
    });
    reply.set_array_len(list, count);
}

fn range(call: &mut Call<'_>, is_reverse: bool) -> CommandResult {
    let (from, to) = if is_reverse { (3, 2) } else { (2, 3) };
    let (start, end) = (ids::start(call.args.at(from))?, ids::end(call.args.at(to))?);
    let (mut most, mut i) = (None, 4);
    while i < call.args.len() {
        let value = call.args.get(i + 1).filter(|_| call.is(i, "count"));
        let count = parse_i64(value.ok_or(ErrorReply::SYNTAX)?).ok_or(ErrorReply::NOT_INTEGER)?;
        most = Some(u64::try_from(count).unwrap_or(0));
        i += 2;
    }
    let Some(entry) = read_stream(call, 1)? else {
        call.reply.array(0);
        return Ok(());
    };
    if most == Some(0) {
        call.reply.null_array();
        return Ok(());
    }
    let most = most.unwrap_or(u64::MAX);
    show_range(call.reply, &call.shards, &entry, (start, end), is_reverse, most, |_| {});
    Ok(())
}

pub(super) fn xrange(call: &mut Call<'_>) -> CommandResult {
    range(call, false)
}

pub(super) fn xrevrange(call: &mut Call<'_>) -> CommandResult {
    range(call, true)
}
