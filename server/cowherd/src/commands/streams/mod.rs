//! Streams: XADD, XREAD and their kin.
//!
//! | file | what |
//! |---|---|
//! | this one | the rows, and what is small |
//! | `ids` | ids as clients write them |
//! | `add` | adding and trimming |
//! | `range` | entries by their ids, and replies of entries |
//! | `read` | XREAD and XREADGROUP, which may wait |
//! | `groups` | groups and consumers |
//! | `pending` | what was handed out and is not acknowledged |
//! | `info` | XINFO |

mod add;
mod groups;
mod ids;
mod info;
mod pending;
mod range;
mod read;
#[cfg(test)]
mod tests;

use crate::keyspace::{Consumer, Entry, Group, StreamId, ValueKind};
use cowherd_resp::parse_i64;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::no_subcommand;
use super::table::{Command, CommandFlags, Handler, KeyPositions};
use crate::clients::EventClass;

use add::{xadd, xtrim};
use groups::{
    xack, xgroup_create, xgroup_createconsumer, xgroup_delconsumer, xgroup_destroy, xgroup_help,
    xgroup_setid,
};
use info::{xinfo_consumers, xinfo_groups, xinfo_help, xinfo_stream};
use pending::{xautoclaim, xclaim, xpending};
use range::{xrange, xrevrange};
use read::{xread, xreadgroup};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.and(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::DENYOOM);
const FAST_WRITE: CommandFlags = WRITE.and(CommandFlags::FAST);
/// Commands that take rather than give may run without memory.
const TAKE: CommandFlags = CommandFlags::WRITE;
const FAST_TAKE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);
const WAIT: CommandFlags = CommandFlags::READONLY.and(CommandFlags::BLOCKING);
const WAIT_WRITE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::BLOCKING);
const HELP: CommandFlags = CommandFlags::LOADING.and(CommandFlags::STALE);
const ONE: KeyPositions = KeyPositions::ONE;
const SECOND: KeyPositions = KeyPositions::SECOND;

/// The family's rows.
pub(super) const COMMANDS: &[Command] = &[
    row("xadd", -5, FAST_WRITE, ONE, xadd, "5.0.0", "Adds an entry to a stream."),
    row("xtrim", -4, TAKE, ONE, xtrim, "5.0.0", "Removes the oldest entries."),
    row("xdel", -3, FAST_TAKE, ONE, xdel, "5.0.0", "Removes entries by their ids."),
    row("xlen", 2, FAST_READ, ONE, xlen, "5.0.0", "Returns the number of entries."),
    row("xrange", -4, READ, ONE, xrange, "5.0.0", "Returns entries by their ids."),
    row("xrevrange", -4, READ, ONE, xrevrange, "5.0.0", "Does so in descending order."),
    row(
        "xread",
        -4,
        WAIT,
        KeyPositions::streams(1),
        xread,
        "5.0.0",
        "Returns new entries, or waits.",
    ),
    row(
        "xreadgroup",
        -7,
        WAIT_WRITE,
        KeyPositions::streams(1),
        xreadgroup,
        "5.0.0",
        "Returns entries to a consumer of a group, or waits for new ones.",
    ),
    row("xsetid", -3, FAST_WRITE, ONE, xsetid, "5.0.0", "Sets the highest id of a stream."),
    row("xack", -4, FAST_TAKE, ONE, xack, "5.0.0", "Ends that entries are pending."),
    row("xpending", -3, READ, ONE, xpending, "5.0.0", "Lists what is pending."),
    row("xclaim", -6, FAST_TAKE, ONE, xclaim, "5.0.0", "Gives pending entries to a consumer."),
    row("xautoclaim", -6, FAST_TAKE, ONE, xautoclaim, "6.2.0", "Does so with those long idle."),
    row(
        "xgroup",
        -2,
        CommandFlags::NONE,
        KeyPositions::NONE,
        no_subcommand,
        "5.0.0",
        "Manages groups.",
    )
    .with(XGROUP),
    row(
        "xinfo",
        -2,
        CommandFlags::NONE,
        KeyPositions::NONE,
        no_subcommand,
        "5.0.0",
        "Tells about streams.",
    )
    .with(XINFO),
];

const XGROUP: &[Command] = &[
    row("create", -5, WRITE, SECOND, xgroup_create, "5.0.0", "Makes a group."),
    row("setid", -5, TAKE, SECOND, xgroup_setid, "5.0.0", "Sets what a group was handed last."),
    row("destroy", 4, TAKE, SECOND, xgroup_destroy, "5.0.0", "Destroys a group."),
    row("createconsumer", 5, WRITE, SECOND, xgroup_createconsumer, "6.2.0", "Makes a consumer."),
    row("delconsumer", 5, TAKE, SECOND, xgroup_delconsumer, "5.0.0", "Deletes a consumer."),
    row("help", 2, HELP, KeyPositions::NONE, xgroup_help, "5.0.0", "Lists the subcommands."),
];

const XINFO: &[Command] = &[
    row("stream", -3, READ, SECOND, xinfo_stream, "5.0.0", "Tells about a stream."),
    row("groups", 3, READ, SECOND, xinfo_groups, "5.0.0", "Tells about a stream's groups."),
    row("consumers", 4, READ, SECOND, xinfo_consumers, "5.0.0", "Tells about consumers."),
    row("help", 2, HELP, KeyPositions::NONE, xinfo_help, "5.0.0", "Lists the subcommands."),
];

/// A row of this family.
const fn row(
    name: &'static str,
    arity: isize,
    flags: CommandFlags,
    keys: KeyPositions,
    handler: Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, flags, keys, handler).doc("stream", since, summary)
}

/// The stream of argument `i`, as a use that counts a hit or a miss.
#[inline]
fn read_stream(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind_read(call.session.db, &key, ValueKind::Stream)?)
}

/// The error for a group that is not there.
fn no_group(call: &Call<'_>, key: usize, group: usize) -> ErrorReply {
    let (key, group) = (call.text(key), call.text(group));
    ErrorReply::text(format!("NOGROUP No such key '{key}' or consumer group '{group}'"))
}

/// The consumer of a group, and whether it was made now.
fn consumer_of(
    call: &mut Call<'_>,
    entry: &Entry,
    group: Group,
    name: &[u8],
) -> Result<(Consumer, bool), ErrorReply> {
    match call.shards.consumer(entry, group, name) {
        Some(consumer) => Ok((consumer, false)),
        None => Ok((call.shards.consumer_create(entry, group, name)?, true)),
    }
}

/// The error for arguments that no form of a subcommand has.
fn wrong_subcommand(call: &Call<'_>) -> ErrorReply {
    let (name, given) = (call.text(0).to_uppercase(), call.text(1));
    ErrorReply::text(format!(
        "ERR unknown subcommand or wrong number of arguments for '{given}'. Try {name} HELP."
    ))
}

/// Argument `i` and those behind it as ids.
fn ids_from(call: &Call<'_>, i: usize) -> Result<Vec<StreamId>, ErrorReply> {
    call.args.from(i).iter().map(|id| ids::strict(id, 0)).collect()
}

fn xlen(call: &mut Call<'_>) -> CommandResult {
    let len = read_stream(call, 1)?.map_or(0, |entry| call.shards.stream_len(&entry).0);
    call.reply.integer(len.cast_signed());
    Ok(())
}

fn xdel(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let Some(entry) = call.shards.stream(db, &key)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let ids = ids_from(call, 2)?;
    let removed = call.shards.stream_delete(db, &key, &entry, ids.into_iter());
    if removed > 0 {
        call.notify(EventClass::STREAM, "xdel", key.bytes);
    }
    call.reply.integer(removed.cast_signed());
    Ok(())
}

fn xsetid(call: &mut Call<'_>) -> CommandResult {
    const BELOW_DELETED: ErrorReply = ErrorReply::new(
        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
    );
    const BELOW_TOP: ErrorReply = ErrorReply::new(
        "ERR The ID specified in XSETID is smaller than the target stream top item",
    );
    const BELOW_LENGTH: ErrorReply = ErrorReply::new(
        "ERR The entries_added specified in XSETID is smaller than the target stream length",
    );
    const NOT_POSITIVE: ErrorReply = ErrorReply::new("ERR entries_added must be positive");
    let (db, key) = (call.session.db, call.key(1));
    let last = ids::strict(call.args.at(2), 0)?;
    let (mut added, mut deleted, mut i) = (None, None, 3);
    while i < call.args.len() {
        let Some(value) = call.args.get(i + 1) else { return Err(ErrorReply::SYNTAX) };
        if call.is(i, "entriesadded") {
            let number = parse_i64(value).ok_or(ErrorReply::NOT_INTEGER)?;
            added = Some(u64::try_from(number).map_err(|_| NOT_POSITIVE)?);
        } else if call.is(i, "maxdeletedid") {
            let id = ids::strict(value, 0)?;
            if last < id {
                return Err(BELOW_DELETED);
            }
            deleted = Some(id);
        } else {
            return Err(ErrorReply::SYNTAX);
        }
        i += 2;
    }
    let entry = call.shards.stream(db, &key)?.ok_or(ErrorReply::NO_KEY)?;
    let info = call.shards.stream_info(&entry);
    if info.length > 0 {
        let mut top = StreamId::MIN;
        call.shards.stream_range(&entry, StreamId::MIN, StreamId::MAX, true, 1, |id, _| top = id);
        if last < top {
            return Err(BELOW_TOP);
        }
        if added.is_some_and(|added| added < info.length) {
            return Err(BELOW_LENGTH);
        }
    }
    call.shards.stream_set_last(&entry, last, added, deleted);
    call.notify(EventClass::STREAM, "xsetid", key.bytes);
    call.reply.ok();
    Ok(())
}
