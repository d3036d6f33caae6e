//! Commands on keys of any type: DEL, EXISTS, TYPE, TOUCH, RENAME, COPY, MOVE and variants.

use crate::clients::EventClass;

use super::call::Call;
use super::databases::{SAME_OBJECTS, database};
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

const READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const FAST_WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);
const COPIES: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);

const GROUP: CommandGroup = CommandGroup::Generic;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("del", -2, CommandFlags::WRITE, del)
        .doc(GROUP, "1.0.0", "Deletes keys.")
        .keys(KeyPositions::ALL, KeyUse::REMOVE)
        .syntax("key...")
        .hints(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    Command::new("unlink", -2, FAST_WRITE, del)
        .doc(GROUP, "4.0.0", "Deletes keys.")
        .keys(KeyPositions::ALL, KeyUse::REMOVE)
        .syntax("key...")
        .hints(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    Command::new("exists", -2, READ, exists)
        .doc(GROUP, "1.0.0", "Counts those of the given keys that are there.")
        .keys(KeyPositions::ALL, KeyUse::INSPECT)
        .syntax("key...")
        .hints(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    Command::new("type", 2, READ, type_of)
        .doc(GROUP, "1.0.0", "Names the type of a key's value.")
        .keys(KeyPositions::ONE, KeyUse::INSPECT)
        .syntax("key"),
    Command::new("touch", -2, READ, touch)
        .doc(GROUP, "3.2.1", "Counts the given keys that are there, as used just now.")
        .keys(KeyPositions::ALL, KeyUse::INSPECT)
        .syntax("key...")
        .hints(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    Command::new("rename", 3, CommandFlags::WRITE, rename)
        .doc(GROUP, "1.0.0", "Gives a key another name, in place of a key that has it.")
        .keys(KeyPositions::TWO, KeyUse::POP)
        .other_keys(KeyUse::OVERWRITE)
        .syntax("key newkey"),
    Command::new("renamenx", 3, FAST_WRITE, renamenx)
        .doc(GROUP, "1.0.0", "Gives a key another name, unless a key has it.")
        .keys(KeyPositions::TWO, KeyUse::POP)
        .other_keys(KeyUse::CREATE)
        .syntax("key newkey"),
    Command::new("copy", -3, COPIES, copy)
        .doc(GROUP, "6.2.0", "Copies a key with its value and expiry.")
        .keys(KeyPositions::TWO, KeyUse::READ)
        .other_keys(KeyUse::OVERWRITE)
        .syntax("source destination [DB destination-db:integer] [REPLACE]"),
    Command::new("move", 3, FAST_WRITE, move_key)
        .doc(GROUP, "1.0.0", "Moves a key to another database.")
        .keys(KeyPositions::ONE, KeyUse::READ_UPDATE)
        .syntax("key db:integer"),
];

/// Replies the number of arguments for which `holds` is true.
fn count(
    call: &mut Call<'_>,
    mut holds: impl FnMut(&mut Call<'_>, usize) -> bool,
) -> CommandResult {
    let mut count = 0;
    for i in 1..call.args.len() {
        count += i64::from(holds(call, i));
    }
    call.reply.integer(count);
    Ok(())
}

fn del(call: &mut Call<'_>) -> CommandResult {
    count(call, |call, i| {
        let key = call.key(i);
        let removed = call.shards.remove(call.session.db, &key);
        if removed {
            call.notify(EventClass::GENERIC, "del", key.bytes);
        }
        removed
    })
}

fn exists(call: &mut Call<'_>) -> CommandResult {
    count(call, |call, i| call.shards.peek_read(call.session.db, &call.key(i)).is_some())
}

fn touch(call: &mut Call<'_>) -> CommandResult {
    // TOUCH updates the access clock also for a client with CLIENT NO-TOUCH on.
    call.shards.set_touch(true);
    count(call, |call, i| call.shards.lookup_read(call.session.db, &call.key(i)).is_some())
}

fn type_of(call: &mut Call<'_>) -> CommandResult {
    let entry = call.shards.peek_read(call.session.db, &call.key(1));
    call.reply.simple(entry.map_or("none", |entry| entry.kind().name()));
    Ok(())
}

fn rename(call: &mut Call<'_>) -> CommandResult {
    rename_key(call, true)?;
    call.reply.ok();
    Ok(())
}

fn renamenx(call: &mut Call<'_>) -> CommandResult {
    let renamed = rename_key(call, false)?;
    call.reply.integer(i64::from(renamed));
    Ok(())
}

/// Renames a key. Returns false if the new name is in use and `replace` is not set.
fn rename_key(call: &mut Call<'_>, replace: bool) -> Result<bool, ErrorReply> {
    let (db, from, to) = (call.session.db, call.key(1), call.key(2));
    if call.shards.lookup(db, &from).is_none() {
        return Err(ErrorReply::NO_KEY);
    }
    if from.bytes == to.bytes {
        return Ok(replace);
    }
    if !replace && call.shards.peek(db, &to).is_some() {
        return Ok(false);
    }
    let renamed = call.shards.rename(db, &from, &to)?;
    if renamed {
        call.notify(EventClass::GENERIC, "rename_from", from.bytes);
        call.notify(EventClass::GENERIC, "rename_to", to.bytes);
    }
    Ok(renamed)
}

fn copy(call: &mut Call<'_>) -> CommandResult {
    let from_db = call.session.db;
    let (mut to_db, mut replace) = (from_db, false);
    let mut i = 3;
    while i < call.args.len() {
        if call.is(i, "replace") {
            replace = true;
        } else if call.is(i, "db") && i + 1 < call.args.len() {
            i += 1;
            to_db = database(call, i)?;
        } else {
            return Err(ErrorReply::SYNTAX);
        }
        i += 1;
    }
    let (from, to) = (call.key(1), call.shared.keyspace.key(to_db, call.args.at(2)));
    if from_db == to_db && from.bytes == to.bytes {
        return Err(SAME_OBJECTS);
    }
    let copied = call.shards.lookup_read(from_db, &from).is_some()
        && (replace || call.shards.peek(to_db, &to).is_none())
        && call.shards.copy(from_db, &from, to_db, &to)?;
    if copied {
        call.notify_in(to_db, EventClass::GENERIC, "copy_to", to.bytes);
    }
    call.reply.integer(i64::from(copied));
    Ok(())
}

fn move_key(call: &mut Call<'_>) -> CommandResult {
    let (from, to) = (call.session.db, database(call, 2)?);
    if from == to {
        return Err(SAME_OBJECTS);
    }
    let key = call.key(1);
    let moved = call.shards.move_key(from, &key, to)?;
    if moved {
        call.notify_in(from, EventClass::GENERIC, "move_from", key.bytes);
        call.notify_in(to, EventClass::GENERIC, "move_to", key.bytes);
    }
    call.reply.integer(i64::from(moved));
    Ok(())
}

#[cfg(test)]
mod tests;
