//! Sets: SADD, SMEMBERS and their kin.
//!
//! | file | what |
//! |---|---|
//! | this one | the rows, and what adds, finds, lists and removes members |
//! | `random` | members chosen at random |
//! | `algebra` | intersections, unions and differences |

mod algebra;
mod random;
#[cfg(test)]
mod tests;

use crate::keyspace::{CompactLimits, Entry, SetLimits, ValueKind};

use super::call::Call;
use super::elements::{ScanOptions, bulk};
use super::error_reply::{CommandResult, ErrorReply};
use super::scan::{NO_CURSOR, parse_cursor};
use super::table::{Command, CommandFlags, Handler, KeyPositions};
use crate::clients::EventClass;

use algebra::{sdiff, sdiffstore, sinter, sintercard, sinterstore, sunion, sunionstore};
use random::{spop, srandmember};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.and(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::DENYOOM);
const FAST_WRITE: CommandFlags = WRITE.and(CommandFlags::FAST);
/// Commands that take rather than give may run without memory.
const TAKE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);
const ONE: KeyPositions = KeyPositions::ONE;
const TWO: KeyPositions = KeyPositions::TWO;
const ALL: KeyPositions = KeyPositions::ALL;
const COUNTED: KeyPositions = KeyPositions::COUNTED;

/// The family's rows.
pub(super) const COMMANDS: &[Command] = &[
    row("sadd", -3, FAST_WRITE, ONE, sadd, "1.0.0", "Adds members to a set."),
    row("srem", -3, TAKE, ONE, srem, "1.0.0", "Removes members of a set."),
    row("smove", 4, TAKE, TWO, smove, "1.0.0", "Moves a member from one set to another."),
    row("sismember", 3, FAST_READ, ONE, sismember, "1.0.0", "Tells whether a set has a member."),
    row("smismember", -3, FAST_READ, ONE, smismember, "6.2.0", "Tells which members a set has."),
    row("scard", 2, FAST_READ, ONE, scard, "1.0.0", "Returns the number of members."),
    row("smembers", 2, READ, ONE, smembers, "1.0.0", "Returns all members of a set."),
    row("sscan", -3, READ, ONE, sscan, "2.8.0", "Returns some members, and how to go on."),
    row("spop", -2, TAKE, ONE, spop, "1.0.0", "Removes members chosen at random."),
    row("srandmember", -2, READ, ONE, srandmember, "1.0.0", "Returns members chosen at random."),
    row("sinter", -2, READ, ALL, sinter, "1.0.0", "Returns what is in all of several sets."),
    row("sintercard", -3, READ, COUNTED, sintercard, "7.0.0", "Counts what is in all sets."),
    row("sinterstore", -3, WRITE, ALL, sinterstore, "1.0.0", "Stores what is in all sets."),
    row("sunion", -2, READ, ALL, sunion, "1.0.0", "Returns what is in any of several sets."),
    row("sunionstore", -3, WRITE, ALL, sunionstore, "1.0.0", "Stores what is in any set."),
    row("sdiff", -2, READ, ALL, sdiff, "1.0.0", "Returns what is in the first set alone."),
    row("sdiffstore", -3, WRITE, ALL, sdiffstore, "1.0.0", "Stores what is in the first alone."),
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
    Command::new(name, arity, flags, keys, handler).doc("set", since, summary)
}

/// When a set is too large to be compact.
const fn limits(call: &Call<'_>) -> SetLimits {
    SetLimits {
        ints: call.config.set_max_intset_entries,
        run: CompactLimits {
            entries: call.config.set_max_listpack_entries,
            value: call.config.set_max_listpack_value,
        },
    }
}

/// The set of argument `i`, as a use that counts a hit or a miss.
#[inline]
fn read(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind_read(call.session.db, &key, ValueKind::Set)?)
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
    // Adding the new key may have moved the old one's slot.
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
        call.shards.set_each(entry, |member| bulk(call.reply, member));
    }
}

fn smembers(call: &mut Call<'_>) -> CommandResult {
    let entry = read(call, 1)?;
    show_all(call, entry.as_ref());
    Ok(())
}

fn sscan(call: &mut Call<'_>) -> CommandResult {
    let cursor = parse_cursor(call.args.at(2)).ok_or(NO_CURSOR)?;
    let Some(entry) = read(call, 1)? else {
        call.reply.array(2);
        call.reply.bulk(b"0");
        call.reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(call, false)?;
    let mut found = Vec::new();
    let next = call.shards.set_scan(&entry, cursor, options.count, |member| {
        if options.wants(member) {
            found.push(member);
        }
    });
    call.reply.array(2);
    call.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    call.reply.array(found.len());
    found.into_iter().for_each(|member| bulk(call.reply, member));
    Ok(())
}
