//! List commands.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows; LPUSH, LPOP and their variants |
//! | `range` | commands on elements by index or value: LRANGE, LSET, LINSERT, LREM and others |
//! | `position` | LPOS |
//! | `moving` | LMOVE, RPOPLPUSH and their blocking variants |
//! | `blocking_pop` | pops from the first nonempty list: BLPOP, BRPOP, LMPOP, BLMPOP |

mod blocking_pop;
mod moving;
mod position;
mod range;
#[cfg(test)]
mod tests;

use crate::clients::EventClass;
use crate::config::Config;
use crate::keyspace::{Entry, Key, ListEnd, ListLimits, ValueType};
use cowherd_resp::parse_i64;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};
use super::value_reply::bulk_value;

use blocking_pop::{blmpop, blpop, brpop, lmpop};
use moving::{blmove, brpoplpush, lmove, rpoplpush};
use position::lpos;
use range::{lindex, linsert, llen, lrange, lrem, lset, ltrim};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);
const PUSH: CommandFlags = WRITE.with(CommandFlags::FAST);
/// For commands that free more than they allocate, and may run when memory is full.
const TAKE: CommandFlags = CommandFlags::WRITE;
const FAST_TAKE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);
const WAIT: CommandFlags = CommandFlags::WRITE.with(CommandFlags::BLOCKING);
const WAIT_MOVE: CommandFlags = WAIT.with(CommandFlags::DENYOOM);

const ONE: KeyPositions = KeyPositions::ONE;
const TWO: KeyPositions = KeyPositions::TWO;
const ALL_BUT_LAST: KeyPositions = KeyPositions::ALL_BUT_LAST;
const COUNTED: KeyPositions = KeyPositions::COUNTED;
const COUNTED_SECOND: KeyPositions = KeyPositions::COUNTED_SECOND;

const GROUP: CommandGroup = CommandGroup::List;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("lpush", -3, PUSH, lpush)
        .doc(GROUP, "1.0.0", "Adds elements before the first of a list.")
        .keys(ONE, KeyUse::INSERT)
        .syntax("key element..."),
    Command::new("rpush", -3, PUSH, rpush)
        .doc(GROUP, "1.0.0", "Adds elements behind the last of a list.")
        .keys(ONE, KeyUse::INSERT)
        .syntax("key element..."),
    Command::new("lpushx", -3, PUSH, lpushx)
        .doc(GROUP, "2.2.0", "Does what LPUSH does if there is a list.")
        .keys(ONE, KeyUse::INSERT)
        .syntax("key element..."),
    Command::new("rpushx", -3, PUSH, rpushx)
        .doc(GROUP, "2.2.0", "Does what RPUSH does if there is a list.")
        .keys(ONE, KeyUse::INSERT)
        .syntax("key element..."),
    Command::new("lpop", -2, FAST_TAKE, lpop)
        .doc(GROUP, "1.0.0", "Removes and returns the first elements.")
        .keys(ONE, KeyUse::POP)
        .syntax("key [count@6.2.0]"),
    Command::new("rpop", -2, FAST_TAKE, rpop)
        .doc(GROUP, "1.0.0", "Removes and returns the last elements.")
        .keys(ONE, KeyUse::POP)
        .syntax("key [count@6.2.0]"),
    Command::new("llen", 2, FAST_READ, llen)
        .doc(GROUP, "1.0.0", "Returns the number of elements.")
        .keys(ONE, KeyUse::INSPECT)
        .syntax("key"),
    Command::new("lindex", 3, READ, lindex)
        .doc(GROUP, "1.0.0", "Returns an element by its number.")
        .keys(ONE, KeyUse::READ)
        .syntax("key index"),
    Command::new("lrange", 4, READ, lrange)
        .doc(GROUP, "1.0.0", "Returns a range of elements.")
        .keys(ONE, KeyUse::READ)
        .syntax("key start stop"),
    Command::new("lpos", -3, READ, lpos)
        .doc(GROUP, "6.0.6", "Finds elements that equal a value.")
        .keys(ONE, KeyUse::READ)
        .syntax("key element [RANK rank] [COUNT num-matches:integer] [MAXLEN len]"),
    Command::new("lset", 4, WRITE, lset)
        .doc(GROUP, "1.0.0", "Replaces an element by its number.")
        .keys(ONE, KeyUse::UPDATE)
        .syntax("key index element"),
    Command::new("linsert", 5, WRITE, linsert)
        .doc(GROUP, "2.2.0", "Adds an element before or behind another.")
        .keys(ONE, KeyUse::INSERT)
        .syntax("key where:(BEFORE|AFTER) pivot element"),
    Command::new("lrem", 4, TAKE, lrem)
        .doc(GROUP, "1.0.0", "Removes elements that equal a value.")
        .keys(ONE, KeyUse::DELETE)
        .syntax("key count element"),
    Command::new("ltrim", 4, TAKE, ltrim)
        .doc(GROUP, "1.0.0", "Removes all elements but a range.")
        .keys(ONE, KeyUse::DELETE)
        .syntax("key start stop"),
    Command::new("lmove", 5, WRITE, lmove)
        .doc(GROUP, "6.2.0", "Moves an element to another list.")
        .keys(TWO, KeyUse::POP)
        .other_keys(KeyUse::INSERT)
        .syntax("source destination wherefrom:(LEFT|RIGHT) whereto:(LEFT|RIGHT)"),
    Command::new("rpoplpush", 3, WRITE, rpoplpush)
        .doc(GROUP, "1.2.0", "Moves the last element to a list's front.")
        .deprecated("6.2.0", "`LMOVE` from `RIGHT` to `LEFT`")
        .keys(TWO, KeyUse::POP)
        .other_keys(KeyUse::INSERT)
        .syntax("source destination"),
    Command::new("lmpop", -4, TAKE, lmpop)
        .doc(GROUP, "7.0.0", "Removes elements from one of several lists.")
        .keys(COUNTED, KeyUse::POP)
        .syntax("numkeys key... where:(LEFT|RIGHT) [COUNT count]"),
    Command::new("blpop", -3, WAIT, blpop)
        .doc(GROUP, "2.0.0", "Waits for a first element.")
        .keys(ALL_BUT_LAST, KeyUse::POP)
        .syntax("key... timeout"),
    Command::new("brpop", -3, WAIT, brpop)
        .doc(GROUP, "2.0.0", "Waits for a last element.")
        .keys(ALL_BUT_LAST, KeyUse::POP)
        .syntax("key... timeout"),
    Command::new("blmove", 6, WAIT_MOVE, blmove)
        .doc(GROUP, "6.2.0", "Waits for an element to move.")
        .keys(TWO, KeyUse::POP)
        .other_keys(KeyUse::INSERT)
        .syntax("source destination wherefrom:(LEFT|RIGHT) whereto:(LEFT|RIGHT) timeout"),
    Command::new("brpoplpush", 4, WAIT_MOVE, brpoplpush)
        .doc(GROUP, "2.2.0", "Waits for a last element to move.")
        .deprecated("6.2.0", "`BLMOVE` from `RIGHT` to `LEFT`")
        .keys(TWO, KeyUse::POP)
        .other_keys(KeyUse::INSERT)
        .syntax("source destination timeout"),
    Command::new("blmpop", -5, WAIT, blmpop)
        .doc(GROUP, "7.0.0", "Waits to do what LMPOP does.")
        .keys(COUNTED_SECOND, KeyUse::POP)
        .syntax("timeout numkeys key... where:(LEFT|RIGHT) [COUNT count]"),
];

/// The limits of the compact encoding.
#[inline]
pub(super) fn limits(call: &Call<'_>) -> ListLimits {
    limits_of(call.config)
}

/// The limits of compact lists, and of the nodes of others.
pub(super) fn limits_of(config: &Config) -> ListLimits {
    ListLimits::new(config.list_max_listpack_size)
}

/// The list of a key, for a command that changes it.
#[inline]
fn list(call: &mut Call<'_>, key: &Key<'_>) -> Result<Option<Entry>, ErrorReply> {
    Ok(call.shards.lookup_kind(call.session.db, key, ValueType::List)?)
}

/// The list of argument 1; counts a hit or a miss.
#[inline]
fn read(call: &mut Call<'_>) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(1);
    Ok(call.shards.lookup_kind_read(call.session.db, &key, ValueType::List)?)
}

/// The end that argument `i` names, LEFT or RIGHT.
fn end(call: &Call<'_>, i: usize) -> Result<ListEnd, ErrorReply> {
    match () {
        () if call.is(i, "left") => Ok(ListEnd::Front),
        () if call.is(i, "right") => Ok(ListEnd::Back),
        () => Err(ErrorReply::SYNTAX),
    }
}

const fn push_event(end: ListEnd) -> &'static str {
    match end {
        ListEnd::Front => "lpush",
        ListEnd::Back => "rpush",
    }
}

const fn pop_event(end: ListEnd) -> &'static str {
    match end {
        ListEnd::Front => "lpop",
        ListEnd::Back => "rpop",
    }
}

fn lpush(call: &mut Call<'_>) -> CommandResult {
    push(call, ListEnd::Front, true)
}

fn rpush(call: &mut Call<'_>) -> CommandResult {
    push(call, ListEnd::Back, true)
}

fn lpushx(call: &mut Call<'_>) -> CommandResult {
    push(call, ListEnd::Front, false)
}

fn rpushx(call: &mut Call<'_>) -> CommandResult {
    push(call, ListEnd::Back, false)
}

/// Pushes the arguments from 2 on. `creates`: a missing list is created.
#[inline]
fn push(call: &mut Call<'_>, end: ListEnd, creates: bool) -> CommandResult {
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let entry = list(call, &key)?;
    if entry.is_none() && !creates {
        call.reply.integer(0);
        return Ok(());
    }
    let elements = call.args.from(2).iter();
    let len = call.shards.list_push(db, &key, entry.as_ref(), end, elements, &limits)?;
    call.notify(EventClass::LIST, push_event(end), key.bytes);
    call.reply.integer(len.cast_signed());
    Ok(())
}

fn lpop(call: &mut Call<'_>) -> CommandResult {
    pop(call, ListEnd::Front)
}

fn rpop(call: &mut Call<'_>) -> CommandResult {
    pop(call, ListEnd::Back)
}

fn pop(call: &mut Call<'_>, end: ListEnd) -> CommandResult {
    let count = match call.args.len() {
        2 => None,
        3 => {
            let count = parse_i64(call.args.at(2)).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or(ErrorReply::NOT_POSITIVE)?)
        }
        _ => return Err(call.row.wrong_arity()),
    };
    let key = call.key(1);
    match (list(call, &key)?, count) {
        (None, None) => call.reply.null(),
        (None, Some(_)) => call.reply.null_array(),
        (Some(_), Some(0)) => call.reply.array(0),
        (Some(entry), Some(count)) => pop_some(call, &key, &entry, end, count)?,
        (Some(entry), None) => pop_one(call, &key, &entry, end)?,
    }
    Ok(())
}

/// Pops one element and replies it.
fn pop_one(call: &mut Call<'_>, key: &Key<'_>, entry: &Entry, end: ListEnd) -> CommandResult {
    match call.shards.list_end(entry, end) {
        Some(element) => bulk_value(call.reply, element),
        None => call.reply.null(),
    }
    drop_end(call, key, entry, end, 1)
}

/// Pops up to `count` elements and replies them.
fn pop_some(
    call: &mut Call<'_>,
    key: &Key<'_>,
    entry: &Entry,
    end: ListEnd,
    count: u64,
) -> CommandResult {
    let count = count.min(call.shards.list_len(entry));
    call.reply.array(super::index_range::index(count));
    call.shards.list_from(entry, end, 0, count, |element| bulk_value(call.reply, element));
    drop_end(call, key, entry, end, count)
}

/// Removes elements from an end; emits the events.
#[inline]
fn drop_end(
    call: &mut Call<'_>,
    key: &Key<'_>,
    entry: &Entry,
    end: ListEnd,
    count: u64,
) -> CommandResult {
    let (db, limits) = (call.session.db, limits(call));
    let is_last = call.shards.list_pop(db, key, entry, end, count, &limits)?;
    call.notify(EventClass::LIST, pop_event(end), key.bytes);
    if is_last {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
    Ok(())
}
