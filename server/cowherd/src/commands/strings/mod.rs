//! Strings: GET, SET and their kin.
//!
//! | file | what |
//! |---|---|
//! | this one | the rows, and the two commands that matter most |
//! | `options` | the options that SET and GETEX share, and expiry times |
//! | `replace` | commands that set or take one value as a whole |
//! | `multi_key` | commands that read or set several keys |
//! | `range` | commands that read or change a part of a value |
//! | `counters` | values as numbers |
//! | `extended` | the floating point numbers of INCRBYFLOAT |
//! | `bignum` | whole numbers of any size, for these |
//! | `lcs` | what two values have in common |

mod bignum;
mod counters;
pub(super) mod extended;
mod lcs;
mod multi_key;
pub(super) mod options;
mod range;
mod replace;
#[cfg(test)]
mod tests;

use crate::keyspace::{Entry, Expiry, Value};

use super::call::Call;
use super::error_reply::CommandResult;
use super::table::{Command, CommandFlags, Handler, KeyPositions};
use crate::clients::EventClass;

use counters::{decr, decrby, incr, incrby, incrbyfloat};
use lcs::lcs;
use multi_key::{mget, mset, msetnx};
use range::{append, getrange, setrange, strlen};
use replace::{getdel, getex, getset, psetex, set_with_options, setex, setnx};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.and(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::DENYOOM);
const FAST_WRITE: CommandFlags = WRITE.and(CommandFlags::FAST);
const ONE: KeyPositions = KeyPositions::ONE;
const ALL: KeyPositions = KeyPositions::ALL;
const PAIRS: KeyPositions = KeyPositions::PAIRS;
const TWO: KeyPositions = KeyPositions::TWO;
/// Commands that take rather than give may run without memory.
const TAKE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);

/// The family's rows.
pub(super) const COMMANDS: &[Command] = &[
    row("get", 2, FAST_READ, ONE, get, "1.0.0", "Returns the value of a key."),
    row("set", -3, WRITE, ONE, set, "1.0.0", "Sets a key, with expiry and conditions."),
    row("setnx", 3, FAST_WRITE, ONE, setnx, "1.0.0", "Sets a key that is new."),
    row("setex", 4, WRITE, ONE, setex, "2.0.0", "Sets a value that expires, in seconds."),
    row("psetex", 4, WRITE, ONE, psetex, "2.6.0", "Sets a value that expires, in ms."),
    row("getset", 3, FAST_WRITE, ONE, getset, "1.0.0", "Sets a key, returns the old value."),
    row("getex", -2, TAKE, ONE, getex, "6.2.0", "Returns a value and changes its expiry."),
    row("getdel", 2, TAKE, ONE, getdel, "6.2.0", "Returns a value and deletes its key."),
    row("mget", -2, FAST_READ, ALL, mget, "1.0.0", "Returns the values of several keys."),
    row("mset", -3, WRITE, PAIRS, mset, "1.0.1", "Sets several keys, all or none."),
    row("msetnx", -3, WRITE, PAIRS, msetnx, "1.0.1", "Sets several keys, all or none, if new."),
    row("append", 3, FAST_WRITE, ONE, append, "2.0.0", "Adds to the end of a value."),
    row("strlen", 2, FAST_READ, ONE, strlen, "2.2.0", "Returns the length of a value."),
    row("setrange", 4, WRITE, ONE, setrange, "2.2.0", "Overwrites a part of a value."),
    row("getrange", 4, READ, ONE, getrange, "2.4.0", "Returns a part of a value."),
    row("substr", 4, READ, ONE, getrange, "1.0.0", "Does what GETRANGE does."),
    row("incr", 2, FAST_WRITE, ONE, incr, "1.0.0", "Adds one to a whole number."),
    row("decr", 2, FAST_WRITE, ONE, decr, "1.0.0", "Takes one from a whole number."),
    row("incrby", 3, FAST_WRITE, ONE, incrby, "1.0.0", "Adds to a whole number."),
    row("decrby", 3, FAST_WRITE, ONE, decrby, "1.0.0", "Takes from a whole number."),
    row("incrbyfloat", 3, FAST_WRITE, ONE, incrbyfloat, "2.6.0", "Adds to a number."),
    row("lcs", -3, READ, TWO, lcs, "7.0.0", "Finds what two values have in common."),
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
    Command::new(name, arity, flags, keys, handler).doc("string", since, summary)
}

fn get(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(1);
    let entry = call.shards.lookup_read(call.session.db, &key);
    show(call, entry.as_ref())
}

fn set(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() > 3 {
        return set_with_options(call);
    }
    let key = call.key(1);
    call.shards.set(call.session.db, &key, call.args.at(2), Expiry::None)?;
    call.notify(EventClass::STRING, "set", key.bytes);
    call.reply.ok();
    Ok(())
}

/// Answers the value of an entry, or null.
#[inline]
fn show(call: &mut Call<'_>, entry: Option<&Entry>) -> CommandResult {
    match entry {
        None => call.reply.null(),
        Some(entry) => match call.shards.string(entry)? {
            Value::Bytes(bytes) => call.reply.bulk(bytes),
            Value::Int(number) => call.reply.bulk_integer(number),
        },
    }
    Ok(())
}
