//! SELECT, DBSIZE, FLUSHDB, FLUSHALL and SWAPDB.

use std::sync::atomic::Ordering;

use crate::keyspace::ShardIndex;
use crate::keyspace::{Databases, DbIndex};
use cowherd_resp::parse_i64;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, LockScope};

const READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const SWAP: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);
const SELECT: CommandFlags =
    CommandFlags::LOADING.with(CommandFlags::STALE).with(CommandFlags::FAST);

const NO_DATABASE: ErrorReply = ErrorReply::new("ERR DB index is out of range");
const NOT_32_BITS: ErrorReply =
    ErrorReply::new("ERR value is out of range, value must between -2147483648 and 2147483647");
pub(super) const SAME_OBJECTS: ErrorReply =
    ErrorReply::new("ERR source and destination objects are the same");

pub(super) const COMMANDS: &[Command] = &[
    Command::new("select", 2, SELECT, select)
        .doc(
            CommandGroup::Connection,
            "1.0.0",
            "Chooses the database that the connection works with.",
        )
        .syntax("index"),
    // Within a transaction, which holds the locks, DBSIZE counts under all of them.
    Command::new("dbsize", 1, READ, dbsize)
        .doc(CommandGroup::Server, "1.0.0", "Counts the keys of the selected database.")
        .locking(LockScope::Handler)
        .categories(&["@keyspace"])
        .hints(&["request_policy:all_shards", "response_policy:agg_sum"]),
    Command::new("flushdb", -1, CommandFlags::WRITE, flushdb)
        .doc(CommandGroup::Server, "1.0.0", "Deletes all keys of the selected database.")
        .syntax("flush-type:[ASYNC@4.0.0|SYNC@6.2.0]")
        .locking(LockScope::All)
        .categories(&["@keyspace", "@dangerous"])
        .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    Command::new("flushall", -1, CommandFlags::WRITE, flushall)
        .doc(CommandGroup::Server, "1.0.0", "Deletes all keys of all databases.")
        .syntax("flush-type:[ASYNC@4.0.0|SYNC@6.2.0]")
        .locking(LockScope::All)
        .categories(&["@keyspace", "@dangerous"])
        .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    Command::new("swapdb", 3, SWAP, swapdb)
        .doc(CommandGroup::Server, "4.0.0", "Swaps the keys of two databases.")
        .syntax("index1 index2")
        .locking(LockScope::All)
        .categories(&["@keyspace", "@dangerous"]),
];

/// The database number in argument `i`.
///
/// # Errors
/// The argument is no integer, or there is no such database.
pub(super) fn database(call: &Call<'_>, i: usize) -> Result<DbIndex, ErrorReply> {
    let number = call.integer(i)?;
    let number = i32::try_from(number).map_err(|_| NOT_32_BITS)?;
    in_range(call, number)
}

fn in_range(call: &Call<'_>, number: i32) -> Result<DbIndex, ErrorReply> {
    let index = usize::try_from(number).ok();
    index.filter(|db| *db < call.config.databases).ok_or(NO_DATABASE)
}

fn select(call: &mut Call<'_>) -> CommandResult {
    let db = database(call, 1)?;
    call.session.db = db;
    call.session.client.db.store(db as u64, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

fn dbsize(call: &mut Call<'_>) -> CommandResult {
    let len = call.shared.keyspace.len(call.session.db);
    call.reply.integer(i64::try_from(len).unwrap_or(i64::MAX));
    Ok(())
}

fn flushdb(call: &mut Call<'_>) -> CommandResult {
    flush(call, Databases::One(call.session.db))
}

fn flushall(call: &mut Call<'_>) -> CommandResult {
    flush(call, Databases::All)
}

fn flush(call: &mut Call<'_>, databases: Databases) -> CommandResult {
    let in_slices = match call.args.len() {
        1 => false,
        2 if call.is(1, "sync") => false,
        2 if call.is(1, "async") => true,
        _ => return Err(ErrorReply::SYNTAX),
    };
    call.shards.flush(databases);
    if !in_slices {
        ShardIndex::all().for_each(|shard| call.shards.free_all_deferred(shard));
    }
    call.reply.ok();
    Ok(())
}

fn swapdb(call: &mut Call<'_>) -> CommandResult {
    let number = |i, error| {
        let number = parse_i64(call.args.at(i)).and_then(|number| i32::try_from(number).ok());
        number.ok_or(error)
    };
    let first = number(1, ErrorReply::new("ERR invalid first DB index"))?;
    let second = number(2, ErrorReply::new("ERR invalid second DB index"))?;
    let (first, second) = (in_range(call, first)?, in_range(call, second)?);
    call.shards.swap_databases(first, second);
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests;
