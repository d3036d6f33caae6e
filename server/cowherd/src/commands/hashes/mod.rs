//! Hashes: HSET, HGET and their kin.
//!
//! | file | what |
//! |---|---|
//! | this one | the rows, and what sets, reads and removes fields |
//! | `counters` | fields as numbers |
//! | `random` | fields chosen at random |
//! | `scan` | all fields, at once or bit by bit |
//! | `expiry` | when fields expire |
//! | `ttl_multi` | commands that read or set fields and their expiry |

mod counters;
mod expiry;
mod random;
mod scan;
#[cfg(test)]
mod tests;
mod ttl_multi;

use crate::keyspace::{CompactLimits, Entry, Expiry, Key};

use super::call::Call;
use super::elements::bulk;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, Handler, KeyPositions};
use super::wrong_arity;
use crate::clients::EventClass;

use counters::{hincrby, hincrbyfloat};
use expiry::{
    hexpire, hexpireat, hexpiretime, hpersist, hpexpire, hpexpireat, hpexpiretime, hpttl, httl,
};
use random::hrandfield;
use scan::{hgetall, hkeys, hscan, hvals};
use ttl_multi::{hgetdel, hgetex, hsetex};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.and(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::DENYOOM).and(CommandFlags::FAST);
/// Commands that take rather than give may run without memory.
const TAKE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);

/// The family's rows.
pub(super) const COMMANDS: &[Command] = &[
    row("hset", -4, WRITE, hset, "2.0.0", "Sets fields of a hash."),
    row("hsetnx", 4, WRITE, hsetnx, "2.0.0", "Sets a field that is new."),
    row("hmset", -4, WRITE, hmset, "2.0.0", "Sets fields of a hash."),
    row("hget", 3, FAST_READ, hget, "2.0.0", "Returns the value of a field."),
    row("hmget", -3, FAST_READ, hmget, "2.0.0", "Returns the values of fields."),
    row("hdel", -3, TAKE, hdel, "2.0.0", "Removes fields, and the key with the last one."),
    row("hexists", 3, FAST_READ, hexists, "2.0.0", "Tells whether there is a field."),
    row("hlen", 2, FAST_READ, hlen, "2.0.0", "Returns the number of fields."),
    row("hstrlen", 3, FAST_READ, hstrlen, "3.2.0", "Returns the length of a field's value."),
    row("hincrby", 4, WRITE, hincrby, "2.0.0", "Adds to a whole number in a field."),
    row("hincrbyfloat", 4, WRITE, hincrbyfloat, "2.6.0", "Adds to a number in a field."),
    row("hgetall", 2, READ, hgetall, "2.0.0", "Returns all fields with their values."),
    row("hkeys", 2, READ, hkeys, "2.0.0", "Returns all fields."),
    row("hvals", 2, READ, hvals, "2.0.0", "Returns all values."),
    row("hscan", -3, READ, hscan, "2.8.0", "Returns some fields, and how to go on."),
    row("hrandfield", -2, READ, hrandfield, "6.2.0", "Returns fields chosen at random."),
    row("hexpire", -6, TAKE, hexpire, "7.4.0", "Lets fields expire in so many seconds."),
    row("hpexpire", -6, TAKE, hpexpire, "7.4.0", "Lets fields expire in so many ms."),
    row("hexpireat", -6, TAKE, hexpireat, "7.4.0", "Lets fields expire at a time in seconds."),
    row("hpexpireat", -6, TAKE, hpexpireat, "7.4.0", "Lets fields expire at a time in ms."),
    row("httl", -5, FAST_READ, httl, "7.4.0", "Returns the seconds until fields expire."),
    row("hpttl", -5, FAST_READ, hpttl, "7.4.0", "Returns the ms until fields expire."),
    row("hexpiretime", -5, FAST_READ, hexpiretime, "7.4.0", "Returns when fields expire, in s."),
    row("hpexpiretime", -5, FAST_READ, hpexpiretime, "7.4.0", "Returns when fields expire, in ms."),
    row("hpersist", -5, TAKE, hpersist, "7.4.0", "Takes the expiry of fields away."),
    row("hgetdel", -5, TAKE, hgetdel, "8.0.0", "Returns fields' values and removes them."),
    row("hgetex", -5, TAKE, hgetex, "8.0.0", "Returns fields' values, changes their expiry."),
    row("hsetex", -6, WRITE, hsetex, "8.0.0", "Sets fields and their expiry."),
];

/// A row of this family.
const fn row(
    name: &'static str,
    arity: isize,
    flags: CommandFlags,
    handler: Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, flags, KeyPositions::ONE, handler).doc("hash", since, summary)
}

/// When a hash is too large to be compact.
fn limits(call: &Call<'_>) -> CompactLimits {
    CompactLimits {
        entries: call.config.hash_max_listpack_entries,
        value: call.config.hash_max_listpack_value,
    }
}

/// The hash of argument 1, as a use that counts a hit or a miss.
#[inline]
fn read(call: &mut Call<'_>) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(1);
    Ok(call.shards.hash_read(call.session.db, &key)?)
}

/// Sets the fields from argument 2 on; returns how many are new.
#[inline]
fn set_pairs(call: &mut Call<'_>) -> Result<u64, ErrorReply> {
    if !call.args.len().is_multiple_of(2) {
        return Err(wrong_arity(call.row));
    }
    let (db, key, args, limits) = (call.session.db, call.key(1), call.args, limits(call));
    let old = call.shards.hash(db, &key)?;
    let pairs = (2..args.len()).step_by(2).map(|i| (args.at(i), args.at(i + 1)));
    let added = call.shards.hash_set(db, &key, old.as_ref(), pairs, Expiry::None, &limits)?;
    call.notify(EventClass::HASH, "hset", key.bytes);
    Ok(added)
}

/// Tells that fields were removed, and that the key is gone if they were the last.
fn notify_removal(call: &mut Call<'_>, key: &Key<'_>) {
    call.notify(EventClass::HASH, "hdel", key.bytes);
    if call.shards.peek(call.session.db, key).is_none() {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
}

fn hset(call: &mut Call<'_>) -> CommandResult {
    let added = set_pairs(call)?;
    call.reply.integer(added.cast_signed());
    Ok(())
}

fn hmset(call: &mut Call<'_>) -> CommandResult {
    set_pairs(call)?;
    call.reply.ok();
    Ok(())
}

fn hsetnx(call: &mut Call<'_>) -> CommandResult {
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let (field, value) = (call.args.at(2), call.args.at(3));
    let old = call.shards.hash(db, &key)?;
    let is_new = old.is_none_or(|old| call.shards.hash_get(&old, field).is_none());
    if is_new {
        let pair = std::iter::once((field, value));
        call.shards.hash_set(db, &key, old.as_ref(), pair, Expiry::None, &limits)?;
        call.notify(EventClass::HASH, "hset", key.bytes);
    }
    call.reply.integer(i64::from(is_new));
    Ok(())
}

/// Replies the value of a field, or null.
#[inline]
fn show(call: &mut Call<'_>, entry: Option<&Entry>, field: &[u8]) {
    match entry.and_then(|entry| call.shards.hash_get(entry, field)) {
        Some((value, _)) => bulk(call.reply, value),
        None => call.reply.null(),
    }
}

fn hget(call: &mut Call<'_>) -> CommandResult {
    let entry = read(call)?;
    let field = call.args.at(2);
    show(call, entry.as_ref(), field);
    Ok(())
}

fn hmget(call: &mut Call<'_>) -> CommandResult {
    let entry = read(call)?;
    let fields = call.args.from(2);
    call.reply.array(fields.len());
    for field in fields.iter() {
        show(call, entry.as_ref(), field);
    }
    Ok(())
}

fn hdel(call: &mut Call<'_>) -> CommandResult {
    let (db, key, fields) = (call.session.db, call.key(1), call.args.from(2));
    let removed = match call.shards.hash(db, &key)? {
        Some(entry) => call.shards.hash_remove(db, &key, &entry, fields.iter())?,
        None => 0,
    };
    if removed > 0 {
        notify_removal(call, &key);
    }
    call.reply.integer(removed.cast_signed());
    Ok(())
}

fn hexists(call: &mut Call<'_>) -> CommandResult {
    let (entry, field) = (read(call)?, call.args.at(2));
    let is_there = entry.is_some_and(|entry| call.shards.hash_get(&entry, field).is_some());
    call.reply.integer(i64::from(is_there));
    Ok(())
}

fn hlen(call: &mut Call<'_>) -> CommandResult {
    let len = read(call)?.map_or(0, |entry| call.shards.hash_len(&entry));
    call.reply.integer(len.cast_signed());
    Ok(())
}

fn hstrlen(call: &mut Call<'_>) -> CommandResult {
    let (entry, field) = (read(call)?, call.args.at(2));
    let value = entry.as_ref().and_then(|entry| call.shards.hash_get(entry, field));
    call.reply.integer(value.map_or(0, |(value, _)| value.size().cast_signed()));
    Ok(())
}
