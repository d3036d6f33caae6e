//! Hash commands.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows, and commands that set, read and remove fields |
//! | `counters` | HINCRBY, HINCRBYFLOAT |
//! | `random` | HRANDFIELD |
//! | `scan` | HGETALL, HKEYS, HVALS, HSCAN |
//! | `expiry` | expiry of fields: HEXPIRE, HTTL, HPERSIST and others |
//! | `ttl_multi` | HGETDEL, HGETEX, HSETEX: values and expiry of several fields |

mod counters;
mod expiry;
mod random;
mod scan;
#[cfg(test)]
mod tests;
mod ttl_multi;

use crate::clients::EventClass;
use crate::config::Config;
use crate::keyspace::{CompactLimits, Entry, Expiry, Key};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};
use super::value_reply::bulk_value;

use counters::{hincrby, hincrbyfloat};
use expiry::{
    hexpire, hexpireat, hexpiretime, hpersist, hpexpire, hpexpireat, hpexpiretime, hpttl, httl,
};
use random::hrandfield;
use scan::{hgetall, hkeys, hscan, hvals};
use ttl_multi::{hgetdel, hgetex, hsetex};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const WRITE: CommandFlags =
    CommandFlags::WRITE.with(CommandFlags::DENYOOM).with(CommandFlags::FAST);
/// For commands that free more than they allocate, and may run when memory is full.
const TAKE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);

const GROUP: CommandGroup = CommandGroup::Hash;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("hset", -4, WRITE, hset)
        .doc(GROUP, "2.0.0", "Sets fields of a hash.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key data:(field value)..."),
    Command::new("hsetnx", 4, WRITE, hsetnx)
        .doc(GROUP, "2.0.0", "Sets a field that is new.")
        .keys(KeyPositions::ONE, KeyUse::INSERT)
        .syntax("key field value"),
    Command::new("hmset", -4, WRITE, hmset)
        .doc(GROUP, "2.0.0", "Sets fields of a hash.")
        .deprecated("4.0.0", "`HSET` with several fields")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key data:(field value)..."),
    Command::new("hget", 3, FAST_READ, hget)
        .doc(GROUP, "2.0.0", "Returns the value of a field.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key field"),
    Command::new("hmget", -3, FAST_READ, hmget)
        .doc(GROUP, "2.0.0", "Returns the values of fields.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key field..."),
    Command::new("hdel", -3, TAKE, hdel)
        .doc(GROUP, "2.0.0", "Removes fields, and the key with the last one.")
        .keys(KeyPositions::ONE, KeyUse::DELETE)
        .syntax("key field..."),
    Command::new("hexists", 3, FAST_READ, hexists)
        .doc(GROUP, "2.0.0", "Tells whether there is a field.")
        .keys(KeyPositions::ONE, KeyUse::INSPECT)
        .syntax("key field"),
    Command::new("hlen", 2, FAST_READ, hlen)
        .doc(GROUP, "2.0.0", "Returns the number of fields.")
        .keys(KeyPositions::ONE, KeyUse::INSPECT)
        .syntax("key"),
    Command::new("hstrlen", 3, FAST_READ, hstrlen)
        .doc(GROUP, "3.2.0", "Returns the length of a field's value.")
        .keys(KeyPositions::ONE, KeyUse::INSPECT)
        .syntax("key field"),
    Command::new("hincrby", 4, WRITE, hincrby)
        .doc(GROUP, "2.0.0", "Adds to a whole number in a field.")
        .keys(KeyPositions::ONE, KeyUse::READ_UPDATE)
        .syntax("key field increment"),
    Command::new("hincrbyfloat", 4, WRITE, hincrbyfloat)
        .doc(GROUP, "2.6.0", "Adds to a number in a field.")
        .keys(KeyPositions::ONE, KeyUse::READ_UPDATE)
        .syntax("key field increment:double"),
    Command::new("hgetall", 2, READ, hgetall)
        .doc(GROUP, "2.0.0", "Returns all fields with their values.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key")
        .hints(&["nondeterministic_output_order"]),
    Command::new("hkeys", 2, READ, hkeys)
        .doc(GROUP, "2.0.0", "Returns all fields.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key")
        .hints(&["nondeterministic_output_order"]),
    Command::new("hvals", 2, READ, hvals)
        .doc(GROUP, "2.0.0", "Returns all values.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key")
        .hints(&["nondeterministic_output_order"]),
    Command::new("hscan", -3, READ, hscan)
        .doc(GROUP, "2.8.0", "Returns some fields, and how to go on.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key cursor [MATCH pattern] [COUNT count] [NOVALUES]")
        .hints(&["nondeterministic_output"]),
    Command::new("hrandfield", -2, READ, hrandfield)
        .doc(GROUP, "6.2.0", "Returns fields chosen at random.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key options:[count [WITHVALUES]]")
        .hints(&["nondeterministic_output"]),
    Command::new("hexpire", -6, TAKE, hexpire)
        .doc(GROUP, "7.4.0", "Lets fields expire in so many seconds.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key seconds condition:[NX|XX|GT|LT] FIELDS numfields field..."),
    Command::new("hpexpire", -6, TAKE, hpexpire)
        .doc(GROUP, "7.4.0", "Lets fields expire in so many ms.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key milliseconds condition:[NX|XX|GT|LT] FIELDS numfields field..."),
    Command::new("hexpireat", -6, TAKE, hexpireat)
        .doc(GROUP, "7.4.0", "Lets fields expire at a time in seconds.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key unix-time-seconds condition:[NX|XX|GT|LT] FIELDS numfields field..."),
    Command::new("hpexpireat", -6, TAKE, hpexpireat)
        .doc(GROUP, "7.4.0", "Lets fields expire at a time in ms.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key unix-time-milliseconds condition:[NX|XX|GT|LT] FIELDS numfields field..."),
    Command::new("httl", -5, FAST_READ, httl)
        .doc(GROUP, "7.4.0", "Returns the seconds until fields expire.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key FIELDS numfields field...")
        .hints(&["nondeterministic_output"]),
    Command::new("hpttl", -5, FAST_READ, hpttl)
        .doc(GROUP, "7.4.0", "Returns the ms until fields expire.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key FIELDS numfields field...")
        .hints(&["nondeterministic_output"]),
    Command::new("hexpiretime", -5, FAST_READ, hexpiretime)
        .doc(GROUP, "7.4.0", "Returns when fields expire, in s.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key FIELDS numfields field..."),
    Command::new("hpexpiretime", -5, FAST_READ, hpexpiretime)
        .doc(GROUP, "7.4.0", "Returns when fields expire, in ms.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key FIELDS numfields field..."),
    Command::new("hpersist", -5, TAKE, hpersist)
        .doc(GROUP, "7.4.0", "Takes the expiry of fields away.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key FIELDS numfields field..."),
    Command::new("hgetdel", -5, TAKE, hgetdel)
        .doc(GROUP, "8.0.0", "Returns fields' values and removes them.")
        .keys(KeyPositions::ONE, KeyUse::POP)
        .syntax("key FIELDS numfields field..."),
    Command::new("hgetex", -5, TAKE, hgetex)
        .doc(GROUP, "8.0.0", "Returns fields' values, changes their expiry.")
        .keys(KeyPositions::ONE, KeyUse::READ_UPDATE)
        .syntax(
            "key expiration:[EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT \
             unix-time-milliseconds|PERSIST] FIELDS numfields field...",
        ),
    Command::new("hsetex", -6, WRITE, hsetex)
        .doc(GROUP, "8.0.0", "Sets fields and their expiry.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax(
            "key condition:[FNX|FXX] expiration:[EX seconds|PX milliseconds|EXAT unix-time-seconds\
             |PXAT unix-time-milliseconds|KEEPTTL] FIELDS numfields data:(field value)...",
        ),
];

/// The limits of the compact encoding.
const fn limits(call: &Call<'_>) -> CompactLimits {
    limits_of(call.config)
}

/// The limits of compact hashes.
pub(super) const fn limits_of(config: &Config) -> CompactLimits {
    CompactLimits {
        entries: config.hash_max_listpack_entries,
        value: config.hash_max_listpack_value,
    }
}

/// The hash of argument 1; counts a hit or a miss.
#[inline]
fn read(call: &mut Call<'_>) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(1);
    Ok(call.shards.hash_read(call.session.db, &key)?)
}

/// Sets the fields from argument 2 on; returns the number of new fields.
#[inline]
fn set_pairs(call: &mut Call<'_>) -> Result<u64, ErrorReply> {
    if !call.args.len().is_multiple_of(2) {
        return Err(call.row.wrong_arity());
    }
    let (db, key, args, limits) = (call.session.db, call.key(1), call.args, limits(call));
    let old = call.shards.hash(db, &key)?;
    let pairs = (2..args.len()).step_by(2).map(|i| (args.at(i), args.at(i + 1)));
    let added = call.shards.hash_set(db, &key, old.as_ref(), pairs, Expiry::None, &limits)?;
    call.notify(EventClass::HASH, "hset", key.bytes);
    Ok(added)
}

/// Emits the event of removed fields, and that of the key if these were the last.
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
        Some((value, _)) => bulk_value(call.reply, value),
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
