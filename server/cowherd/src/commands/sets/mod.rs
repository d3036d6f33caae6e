//! Set commands.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows, and commands that add, find, list and remove members |
//! | `random` | SPOP, SRANDMEMBER |
//! | `algebra` | intersections, unions and differences |

mod algebra;
mod random;
#[cfg(test)]
mod tests;

use crate::clients::EventClass;
use crate::config::Config;
use crate::keyspace::{CompactLimits, Entry, SetLimits, ValueType};

use super::call::Call;
use super::element_scan::ElementScanOptions;
use super::error_reply::{CommandResult, ErrorReply};
use super::scan;
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};
use super::value_reply::bulk_value;

use algebra::{sdiff, sdiffstore, sinter, sintercard, sinterstore, sunion, sunionstore};
use random::{spop, srandmember};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);
const FAST_WRITE: CommandFlags = WRITE.with(CommandFlags::FAST);
/// For commands that free more than they allocate, and may run when memory is full.
const TAKE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);
const ONE: KeyPositions = KeyPositions::ONE;
const TWO: KeyPositions = KeyPositions::TWO;
const ALL: KeyPositions = KeyPositions::ALL;
const COUNTED: KeyPositions = KeyPositions::COUNTED;

const GROUP: CommandGroup = CommandGroup::Set;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("sadd", -3, FAST_WRITE, sadd)
        .doc(GROUP, "1.0.0", "Adds members to a set.")
        .keys(ONE, KeyUse::INSERT)
        .syntax("key member..."),
    Command::new("srem", -3, TAKE, srem)
        .doc(GROUP, "1.0.0", "Removes members of a set.")
        .keys(ONE, KeyUse::DELETE)
        .syntax("key member..."),
    Command::new("smove", 4, TAKE, smove)
        .doc(GROUP, "1.0.0", "Moves a member from one set to another.")
        .keys(TWO, KeyUse::POP)
        .other_keys(KeyUse::INSERT)
        .syntax("source destination member"),
    Command::new("sismember", 3, FAST_READ, sismember)
        .doc(GROUP, "1.0.0", "Tells whether a set has a member.")
        .keys(ONE, KeyUse::INSPECT)
        .syntax("key member"),
    Command::new("smismember", -3, FAST_READ, smismember)
        .doc(GROUP, "6.2.0", "Tells which members a set has.")
        .keys(ONE, KeyUse::READ)
        .syntax("key member..."),
    Command::new("scard", 2, FAST_READ, scard)
        .doc(GROUP, "1.0.0", "Returns the number of members.")
        .keys(ONE, KeyUse::INSPECT)
        .syntax("key"),
    Command::new("smembers", 2, READ, smembers)
        .doc(GROUP, "1.0.0", "Returns all members of a set.")
        .keys(ONE, KeyUse::READ)
        .syntax("key")
        .hints(&["nondeterministic_output_order"]),
    Command::new("sscan", -3, READ, sscan)
        .doc(GROUP, "2.8.0", "Returns some members, and how to go on.")
        .keys(ONE, KeyUse::READ)
        .syntax("key cursor [MATCH pattern] [COUNT count]")
        .hints(&["nondeterministic_output"]),
    Command::new("spop", -2, TAKE, spop)
        .doc(GROUP, "1.0.0", "Removes members chosen at random.")
        .keys(ONE, KeyUse::POP)
        .syntax("key [count@3.2.0]")
        .hints(&["nondeterministic_output"]),
    Command::new("srandmember", -2, READ, srandmember)
        .doc(GROUP, "1.0.0", "Returns members chosen at random.")
        .keys(ONE, KeyUse::READ)
        .syntax("key [count@2.6.0]")
        .hints(&["nondeterministic_output"]),
    Command::new("sinter", -2, READ, sinter)
        .doc(GROUP, "1.0.0", "Returns what is in all of several sets.")
        .keys(ALL, KeyUse::READ)
        .syntax("key...")
        .hints(&["nondeterministic_output_order"]),
    Command::new("sintercard", -3, READ, sintercard)
        .doc(GROUP, "7.0.0", "Counts what is in all sets.")
        .keys(COUNTED, KeyUse::READ)
        .syntax("numkeys key... [LIMIT limit]"),
    Command::new("sinterstore", -3, WRITE, sinterstore)
        .doc(GROUP, "1.0.0", "Stores what is in all sets.")
        .keys(ALL, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax("destination key..."),
    Command::new("sunion", -2, READ, sunion)
        .doc(GROUP, "1.0.0", "Returns what is in any of several sets.")
        .keys(ALL, KeyUse::READ)
        .syntax("key...")
        .hints(&["nondeterministic_output_order"]),
    Command::new("sunionstore", -3, WRITE, sunionstore)
        .doc(GROUP, "1.0.0", "Stores what is in any set.")
        .keys(ALL, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax("destination key..."),
    Command::new("sdiff", -2, READ, sdiff)
        .doc(GROUP, "1.0.0", "Returns what is in the first set alone.")
        .keys(ALL, KeyUse::READ)
        .syntax("key...")
        .hints(&["nondeterministic_output_order"]),
    Command::new("sdiffstore", -3, WRITE, sdiffstore)
        .doc(GROUP, "1.0.0", "Stores what is in the first alone.")
        .keys(ALL, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax("destination key..."),
];

/// The limits of the compact encodings.
const fn limits(call: &Call<'_>) -> SetLimits {
    limits_of(call.config)
}

/// The limits of compact sets.
pub(super) const fn limits_of(config: &Config) -> SetLimits {
    SetLimits {
        ints: config.set_max_intset_entries,
        run: CompactLimits {
            entries: config.set_max_listpack_entries,
            value: config.set_max_listpack_value,
        },
    }
}

/// The set of argument `i`; counts a hit or a miss.
#[inline]
fn read(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind_read(call.session.db, &key, ValueType::Set)?)
}

fn sadd(call: &mut Call<'_>) -> CommandResult {
    let (db, key, limits, members) =
        (call.session.db, call.key(1), limits(call), call.args.from(2));
    let entry = call.shards.set_of(db, &key)?;
    let added = call.shards.set_add(db, &key, entry.as_ref(), members.iter(), &limits)?;
    if added > 0 {
        call.notify(EventClass::SET, "sadd", key.bytes);
    }
    call.reply.integer(added.cast_signed());
    Ok(())
}

fn srem(call: &mut Call<'_>) -> CommandResult {
    let (db, key, members) = (call.session.db, call.key(1), call.args.from(2));
    let Some(entry) = call.shards.set_of(db, &key)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let (removed, gone) = call.shards.set_remove(db, &key, &entry, members.iter())?;
    if removed > 0 {
        call.notify(EventClass::SET, "srem", key.bytes);
    }
    if gone {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
    call.reply.integer(removed.cast_signed());
    Ok(())
}

fn smove(call: &mut Call<'_>) -> CommandResult {
    let (db, from, to, member) = (call.session.db, call.key(1), call.key(2), call.args.at(3));
    let Some(source) = call.shards.set_of(db, &from)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let target = call.shards.set_of(db, &to)?;
    if !call.shards.set_has(&source, member) {
        call.reply.integer(0);
        return Ok(());
    }
    if from.bytes == to.bytes {
        call.reply.integer(1);
        return Ok(());
    }
    let (limits, member) = (limits(call), std::iter::once(member));
    let added = call.shards.set_add(db, &to, target.as_ref(), member.clone(), &limits)?;
    // Creating the destination may have moved the slot of the source.
    let source = call.shards.set_of(db, &from)?.unwrap_or(source);
    let removed = call.shards.set_remove(db, &from, &source, member.clone());
    let (_, gone) = match removed {
        Ok(removed) => removed,
        Err(full) => {
            if added > 0
                && let Some(target) = call.shards.set_of(db, &to)?
            {
                call.shards.set_remove(db, &to, &target, member)?;
            }
            return Err(full.into());
        }
    };
    call.notify(EventClass::SET, "srem", from.bytes);
    if gone {
        call.notify(EventClass::GENERIC, "del", from.bytes);
    }
    if added > 0 {
        call.notify(EventClass::SET, "sadd", to.bytes);
    }
    call.reply.integer(1);
    Ok(())
}

fn sismember(call: &mut Call<'_>) -> CommandResult {
    let (entry, member) = (read(call, 1)?, call.args.at(2));
    let has = entry.is_some_and(|entry| call.shards.set_has(&entry, member));
    call.reply.integer(i64::from(has));
    Ok(())
}

fn smismember(call: &mut Call<'_>) -> CommandResult {
    let (entry, members) = (read(call, 1)?, call.args.from(2));
    call.reply.array(members.len());
    for member in members.iter() {
        let has = entry.is_some_and(|entry| call.shards.set_has(&entry, member));
        call.reply.integer(i64::from(has));
    }
    Ok(())
}

fn scard(call: &mut Call<'_>) -> CommandResult {
    let len = read(call, 1)?.map_or(0, |entry| call.shards.set_len(&entry));
    call.reply.integer(len.cast_signed());
    Ok(())
}

/// Replies all members as a set.
fn show_all(call: &mut Call<'_>, entry: Option<&Entry>) {
    let len = entry.map_or(0, |entry| call.shards.set_len(entry));
    call.reply.set(usize::try_from(len).unwrap_or(usize::MAX));
    if let Some(entry) = entry {
        call.shards.set_each(entry, |member| bulk_value(call.reply, member));
    }
}

fn smembers(call: &mut Call<'_>) -> CommandResult {
    let entry = read(call, 1)?;
    show_all(call, entry.as_ref());
    Ok(())
}

fn sscan(call: &mut Call<'_>) -> CommandResult {
    let cursor = scan::cursor(call, 2)?;
    let Some(entry) = read(call, 1)? else {
        call.reply.array(2);
        call.reply.bulk(b"0");
        call.reply.array(0);
        return Ok(());
    };
    let options = ElementScanOptions::parse(call, false)?;
    let mut found = Vec::new();
    let next = call.shards.set_scan(&entry, cursor, options.count, |member| {
        if options.matches(member) {
            found.push(member);
        }
    });
    call.reply.array(2);
    call.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    call.reply.array(found.len());
    found.into_iter().for_each(|member| bulk_value(call.reply, member));
    Ok(())
}
