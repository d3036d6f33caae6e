//! Stream commands.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows, XLEN, XDEL, XSETID |
//! | `ids` | entry ids in arguments and replies |
//! | `add` | XADD, XTRIM |
//! | `range` | XRANGE, XREVRANGE, and replies of entries |
//! | `read` | XREAD, XREADGROUP |
//! | `groups` | XGROUP, XACK |
//! | `pending` | pending entries: XPENDING, XCLAIM, XAUTOCLAIM |
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

use crate::clients::EventClass;
use crate::config::Config;
use crate::keyspace::{Consumer, Entry, Group, StreamId, StreamLimits, ValueType};
use cowherd_resp::parse_i64;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

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
const FAST_READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);
const FAST_WRITE: CommandFlags = WRITE.with(CommandFlags::FAST);
/// For commands that free more than they allocate, and may run when memory is full.
const TAKE: CommandFlags = CommandFlags::WRITE;
const FAST_TAKE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);
const WAIT: CommandFlags = CommandFlags::READONLY.with(CommandFlags::BLOCKING);
const WAIT_WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::BLOCKING);
const HELP: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);
const ONE: KeyPositions = KeyPositions::ONE;
const SECOND: KeyPositions = KeyPositions::SECOND;

/// The limits of nodes.
pub(super) const fn limits_of(config: &Config) -> StreamLimits {
    StreamLimits { bytes: config.stream_node_max_bytes, entries: config.stream_node_max_entries }
}

const GROUP: CommandGroup = CommandGroup::Stream;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("xadd", -5, FAST_WRITE, xadd)
        .doc(GROUP, "5.0.0", "Adds an entry to a stream.")
        .keys(ONE, KeyUse::UPDATE)
        .syntax(
            "key [NOMKSTREAM@6.2.0] trim:[strategy:(MAXLEN|MINID@6.2.0) operator:[equal:=|\
             approximately:~] threshold [LIMIT@6.2.0 count]] id-selector:(auto-id:*|id) \
             data:(field value)...",
        )
        .hints(&["nondeterministic_output"]),
    Command::new("xtrim", -4, TAKE, xtrim)
        .doc(GROUP, "5.0.0", "Removes the oldest entries.")
        .keys(ONE, KeyUse::DELETE)
        .syntax(
            "key trim:(strategy:(MAXLEN|MINID@6.2.0) operator:[equal:=|approximately:~] threshold \
             [LIMIT@6.2.0 count])",
        )
        .hints(&["nondeterministic_output"]),
    Command::new("xdel", -3, FAST_TAKE, xdel)
        .doc(GROUP, "5.0.0", "Removes entries by their ids.")
        .keys(ONE, KeyUse::DELETE)
        .syntax("key id..."),
    Command::new("xlen", 2, FAST_READ, xlen)
        .doc(GROUP, "5.0.0", "Returns the number of entries.")
        .keys(ONE, KeyUse::INSPECT)
        .syntax("key"),
    Command::new("xrange", -4, READ, xrange)
        .doc(GROUP, "5.0.0", "Returns entries by their ids.")
        .keys(ONE, KeyUse::READ)
        .syntax("key start:string end:string [COUNT count]"),
    Command::new("xrevrange", -4, READ, xrevrange)
        .doc(GROUP, "5.0.0", "Does so in descending order.")
        .keys(ONE, KeyUse::READ)
        .syntax("key end:string start:string [COUNT count]"),
    Command::new("xread", -4, WAIT, xread)
        .doc(GROUP, "5.0.0", "Returns new entries, or waits.")
        .keys(KeyPositions::streams(1), KeyUse::READ)
        .syntax("[COUNT count] [BLOCK milliseconds] STREAMS key... id..."),
    Command::new("xreadgroup", -7, WAIT_WRITE, xreadgroup)
        .doc(GROUP, "5.0.0", "Returns entries to a consumer of a group, or waits for new ones.")
        .keys(KeyPositions::streams(4), KeyUse::READ)
        .syntax(
            "(GROUP group-block:(group consumer)) [COUNT count] [BLOCK milliseconds] [NOACK] \
             STREAMS key... id...",
        ),
    Command::new("xsetid", -3, FAST_WRITE, xsetid)
        .doc(GROUP, "5.0.0", "Sets the highest id of a stream.")
        .keys(ONE, KeyUse::UPDATE)
        .syntax(
            "key last-id [ENTRIESADDED@7.0.0 entries-added] [MAXDELETEDID@7.0.0 max-deleted-id]",
        ),
    Command::new("xack", -4, FAST_TAKE, xack)
        .doc(GROUP, "5.0.0", "Ends that entries are pending.")
        .keys(ONE, KeyUse::UPDATE)
        .syntax("key group id..."),
    Command::new("xpending", -3, READ, xpending)
        .doc(GROUP, "5.0.0", "Lists what is pending.")
        .keys(ONE, KeyUse::READ)
        .syntax(
            "key group filters:[[IDLE@6.2.0 min-idle-time:integer] start:string end:string count \
             [consumer]]",
        )
        .hints(&["nondeterministic_output"]),
    Command::new("xclaim", -6, FAST_TAKE, xclaim)
        .doc(GROUP, "5.0.0", "Gives pending entries to a consumer.")
        .keys(ONE, KeyUse::UPDATE)
        .syntax(
            "key group consumer min-idle-time id... [IDLE ms] [TIME unix-time-milliseconds] \
             [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
        )
        .hints(&["nondeterministic_output"]),
    Command::new("xautoclaim", -6, FAST_TAKE, xautoclaim)
        .doc(GROUP, "6.2.0", "Does so with those long idle.")
        .keys(ONE, KeyUse::DELETE)
        .syntax("key group consumer min-idle-time start:string [COUNT count] [JUSTID]")
        .hints(&["nondeterministic_output"]),
    Command::container("xgroup").doc(GROUP, "5.0.0", "Manages groups.").subcommands(XGROUP),
    Command::container("xinfo").doc(GROUP, "5.0.0", "Tells about streams.").subcommands(XINFO),
];

const XGROUP: &[Command] = &[
    Command::new("create", -5, WRITE, xgroup_create)
        .doc(GROUP, "5.0.0", "Makes a group.")
        .keys(SECOND, KeyUse::INSERT)
        .syntax(
            "key group id-selector:(id|new-id:$) [MKSTREAM] [ENTRIESREAD entriesread=entries-read]",
        ),
    Command::new("setid", -5, TAKE, xgroup_setid)
        .doc(GROUP, "5.0.0", "Sets what a group was handed last.")
        .keys(SECOND, KeyUse::UPDATE)
        .syntax("key group id-selector:(id|new-id:$) [ENTRIESREAD entriesread=entries-read]"),
    Command::new("destroy", 4, TAKE, xgroup_destroy)
        .doc(GROUP, "5.0.0", "Destroys a group.")
        .keys(SECOND, KeyUse::DELETE)
        .syntax("key group"),
    Command::new("createconsumer", 5, WRITE, xgroup_createconsumer)
        .doc(GROUP, "6.2.0", "Makes a consumer.")
        .keys(SECOND, KeyUse::INSERT)
        .syntax("key group consumer"),
    Command::new("delconsumer", 5, TAKE, xgroup_delconsumer)
        .doc(GROUP, "5.0.0", "Deletes a consumer.")
        .keys(SECOND, KeyUse::DELETE)
        .syntax("key group consumer"),
    Command::new("help", 2, HELP, xgroup_help).doc(GROUP, "5.0.0", "Lists the subcommands."),
];

const XINFO: &[Command] = &[
    Command::new("stream", -3, READ, xinfo_stream)
        .doc(GROUP, "5.0.0", "Tells about a stream.")
        .keys(SECOND, KeyUse::READ)
        .syntax("key full-block:[(FULL) [COUNT count]]"),
    Command::new("groups", 3, READ, xinfo_groups)
        .doc(GROUP, "5.0.0", "Tells about a stream's groups.")
        .keys(SECOND, KeyUse::READ)
        .syntax("key"),
    Command::new("consumers", 4, READ, xinfo_consumers)
        .doc(GROUP, "5.0.0", "Tells about consumers.")
        .keys(SECOND, KeyUse::READ)
        .syntax("key group")
        .hints(&["nondeterministic_output"]),
    Command::new("help", 2, HELP, xinfo_help).doc(GROUP, "5.0.0", "Lists the subcommands."),
];

/// The stream of argument `i`; counts a hit or a miss.
#[inline]
fn read_stream(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind_read(call.session.db, &key, ValueType::Stream)?)
}

/// The error for a missing group.
fn no_group(call: &Call<'_>, key: usize, group: usize) -> ErrorReply {
    let (key, group) = (call.args.at(key), call.args.at(group));
    ErrorReply::quoting(&[b"NOGROUP No such key '", key, b"' or consumer group '", group, b"'"])
}

/// The error of XGROUP and XINFO for the missing group of argument 3.
fn no_group_for_key(call: &Call<'_>) -> ErrorReply {
    let (key, group) = (call.args.at(2), call.args.at(3));
    let (before, between) = (b"NOGROUP No such consumer group '", b"' for key name '");
    ErrorReply::quoting(&[before, group, between, key, b"'"])
}

/// The consumer of a group, created if missing, and whether it was created.
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

/// The ids in argument `i` and all that follow.
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
    const BELOW_CURRENT_DELETED: ErrorReply = ErrorReply::new(
        "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
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
    if last < info.deleted {
        return Err(BELOW_CURRENT_DELETED);
    }
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
