//! Expiry of keys: EXPIRE, TTL, PERSIST and variants.

use crate::clients::EventClass;
use crate::keyspace::ExpireRule;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

const READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);

const GROUP: CommandGroup = CommandGroup::Generic;

const NOT_WITH_NX: ErrorReply =
    ErrorReply::new("ERR NX and XX, GT or LT options at the same time are not compatible");
const NOT_BOTH: ErrorReply =
    ErrorReply::new("ERR GT and LT options at the same time are not compatible");

pub(super) const COMMANDS: &[Command] = &[
    Command::new("expire", -3, WRITE, expire)
        .doc(GROUP, "1.0.0", "Lets a key expire in so many seconds.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key seconds condition:[NX|XX|GT|LT]@7.0.0"),
    Command::new("pexpire", -3, WRITE, pexpire)
        .doc(GROUP, "2.6.0", "Lets a key expire in so many milliseconds.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key milliseconds condition:[NX|XX|GT|LT]@7.0.0"),
    Command::new("expireat", -3, WRITE, expireat)
        .doc(GROUP, "1.2.0", "Lets a key expire at a Unix time in seconds.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key unix-time-seconds condition:[NX|XX|GT|LT]@7.0.0"),
    Command::new("pexpireat", -3, WRITE, pexpireat)
        .doc(GROUP, "2.6.0", "Lets a key expire at a Unix time in milliseconds.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key unix-time-milliseconds condition:[NX|XX|GT|LT]@7.0.0"),
    Command::new("ttl", 2, READ, ttl)
        .doc(GROUP, "1.0.0", "Returns the seconds until a key expires.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key")
        .hints(&["nondeterministic_output"]),
    Command::new("pttl", 2, READ, pttl)
        .doc(GROUP, "2.6.0", "Returns the milliseconds until a key expires.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key")
        .hints(&["nondeterministic_output"]),
    Command::new("expiretime", 2, READ, expiretime)
        .doc(GROUP, "7.0.0", "Returns the Unix time in seconds at which a key expires.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key"),
    Command::new("pexpiretime", 2, READ, pexpiretime)
        .doc(GROUP, "7.0.0", "Returns the Unix time in milliseconds at which a key expires.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key"),
    Command::new("persist", 2, WRITE, persist)
        .doc(GROUP, "2.2.0", "Takes a key's expiry away.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax("key"),
];

/// Units in milliseconds.
const SECOND: i64 = 1000;
const MILLISECOND: i64 = 1;

fn expire(call: &mut Call<'_>) -> CommandResult {
    set(call, SECOND, call.now)
}

fn pexpire(call: &mut Call<'_>) -> CommandResult {
    set(call, MILLISECOND, call.now)
}

fn expireat(call: &mut Call<'_>) -> CommandResult {
    set(call, SECOND, 0)
}

fn pexpireat(call: &mut Call<'_>) -> CommandResult {
    set(call, MILLISECOND, 0)
}

/// Sets the expiry to the time in argument 2, in `unit`s from `base` on.
fn set(call: &mut Call<'_>, unit: i64, base: i64) -> CommandResult {
    let rule = rule(call)?;
    let time = call.integer(2)?;
    let at = time.checked_mul(unit).and_then(|time| time.checked_add(base));
    let at = at.ok_or_else(|| {
        let name = call.row.command.name;
        ErrorReply::text(format!("ERR invalid expire time in '{name}' command"))
    })?;
    let key = call.key(1);
    let set = call.shards.expire_at(call.session.db, &key, at, rule)?;
    if set {
        let event = if at <= call.now { "del" } else { "expire" };
        call.notify(EventClass::GENERIC, event, key.bytes);
    }
    call.reply.integer(i64::from(set));
    Ok(())
}

/// The conditions from argument 3 on.
fn rule(call: &Call<'_>) -> Result<ExpireRule, ErrorReply> {
    let mut rule = ExpireRule::default();
    for i in 3..call.args.len() {
        let condition = match () {
            () if call.is(i, "nx") => &mut rule.if_none,
            () if call.is(i, "xx") => &mut rule.if_some,
            () if call.is(i, "gt") => &mut rule.if_later,
            () if call.is(i, "lt") => &mut rule.if_earlier,
            () => {
                let option = call.args.at(i);
                return Err(ErrorReply::quoting(&[b"ERR Unsupported option ", option]));
            }
        };
        *condition = true;
    }
    if rule.if_none && (rule.if_some || rule.if_later || rule.if_earlier) {
        return Err(NOT_WITH_NX);
    }
    if rule.if_later && rule.if_earlier {
        return Err(NOT_BOTH);
    }
    Ok(rule)
}

fn ttl(call: &mut Call<'_>) -> CommandResult {
    get(call, SECOND, call.now)
}

fn pttl(call: &mut Call<'_>) -> CommandResult {
    get(call, MILLISECOND, call.now)
}

fn expiretime(call: &mut Call<'_>) -> CommandResult {
    get(call, SECOND, 0)
}

fn pexpiretime(call: &mut Call<'_>) -> CommandResult {
    get(call, MILLISECOND, 0)
}

/// Replies the expiry in `unit`s from `base` on, rounded to the nearest.
fn get(call: &mut Call<'_>, unit: i64, base: i64) -> CommandResult {
    let time = match call.shards.peek_read(call.session.db, &call.key(1)) {
        None => -2,
        Some(entry) => call.shards.expiry(&entry).map_or(-1, |at| {
            let time = at.saturating_sub(base);
            time / unit + i64::from(time % unit * 2 >= unit)
        }),
    };
    call.reply.integer(time);
    Ok(())
}

fn persist(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(1);
    let had_one = call.shards.persist(call.session.db, &key)?;
    if had_one {
        call.notify(EventClass::GENERIC, "persist", key.bytes);
    }
    call.reply.integer(i64::from(had_one));
    Ok(())
}

#[cfg(test)]
mod tests;
