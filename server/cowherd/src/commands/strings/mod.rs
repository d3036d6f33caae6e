//! String commands.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows, GET, and SET without options |
//! | `set_options` | the options of SET and GETEX, and expiry times |
//! | `replace` | commands that set, replace or remove the value of one key |
//! | `multi_key` | MGET, MSET, MSETNX |
//! | `range` | commands on the length or a part of a value |
//! | `counters` | values as numbers: INCR and others |
//! | `extended` | the 80-bit floating-point numbers of INCRBYFLOAT |
//! | `biguint` | unsigned integers of any size, for `extended` |
//! | `lcs` | LCS |

mod biguint;
mod counters;
pub(super) mod extended;
mod lcs;
mod multi_key;
mod range;
mod replace;
pub(super) mod set_options;
#[cfg(test)]
mod tests;

use crate::clients::EventClass;
use crate::keyspace::{Entry, Expiry, Value};

use super::call::Call;
use super::error_reply::CommandResult;
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

use counters::{decr, decrby, incr, incrby, incrbyfloat};
use lcs::lcs;
use multi_key::{mget, mset, msetnx};
use range::{append, getrange, setrange, strlen};
use replace::{getdel, getex, getset, psetex, set_with_options, setex, setnx};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);
const FAST_WRITE: CommandFlags = WRITE.with(CommandFlags::FAST);
const ONE: KeyPositions = KeyPositions::ONE;
const ALL: KeyPositions = KeyPositions::ALL;
const PAIRS: KeyPositions = KeyPositions::PAIRS;
const TWO: KeyPositions = KeyPositions::TWO;
/// For commands that free more than they allocate, and may run when memory is full.
const TAKE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);

const GROUP: CommandGroup = CommandGroup::String;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("get", 2, FAST_READ, get)
        .doc(GROUP, "1.0.0", "Returns the value of a key.")
        .keys(ONE, KeyUse::READ)
        .syntax("key"),
    Command::new("set", -3, WRITE, set)
        .doc(GROUP, "1.0.0", "Sets a key, with expiry and conditions.")
        .keys(ONE, KeyUse::READ_UPDATE_VARIES)
        .key_use_of(set_options::key_use)
        .syntax(
            "key value condition:[NX|XX]@2.6.12 [GET@6.2.0] expiration:[EX@2.6.12 seconds|\
             PX@2.6.12 milliseconds|EXAT@6.2.0 unix-time-seconds|PXAT@6.2.0 unix-time-milliseconds|\
             KEEPTTL@6.0.0]",
        ),
    Command::new("setnx", 3, FAST_WRITE, setnx)
        .doc(GROUP, "1.0.0", "Sets a key that is new.")
        .deprecated("2.6.12", "`SET` with the option `NX`")
        .keys(ONE, KeyUse::CREATE)
        .syntax("key value"),
    Command::new("setex", 4, WRITE, setex)
        .doc(GROUP, "2.0.0", "Sets a value that expires, in seconds.")
        .deprecated("2.6.12", "`SET` with the option `EX`")
        .keys(ONE, KeyUse::OVERWRITE)
        .syntax("key seconds value"),
    Command::new("psetex", 4, WRITE, psetex)
        .doc(GROUP, "2.6.0", "Sets a value that expires, in ms.")
        .deprecated("2.6.12", "`SET` with the option `PX`")
        .keys(ONE, KeyUse::OVERWRITE)
        .syntax("key milliseconds value"),
    Command::new("getset", 3, FAST_WRITE, getset)
        .doc(GROUP, "1.0.0", "Sets a key, returns the old value.")
        .deprecated("6.2.0", "`SET` with the option `GET`")
        .keys(ONE, KeyUse::READ_UPDATE)
        .syntax("key value"),
    Command::new("getex", -2, TAKE, getex)
        .doc(GROUP, "6.2.0", "Returns a value and changes its expiry.")
        .keys(ONE, KeyUse::READ_UPDATE)
        .syntax(
            "key expiration:[EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT \
             unix-time-milliseconds|PERSIST]",
        ),
    Command::new("getdel", 2, TAKE, getdel)
        .doc(GROUP, "6.2.0", "Returns a value and deletes its key.")
        .keys(ONE, KeyUse::POP)
        .syntax("key"),
    Command::new("mget", -2, FAST_READ, mget)
        .doc(GROUP, "1.0.0", "Returns the values of several keys.")
        .keys(ALL, KeyUse::READ)
        .syntax("key...")
        .hints(&["request_policy:multi_shard"]),
    Command::new("mset", -3, WRITE, mset)
        .doc(GROUP, "1.0.1", "Sets several keys, all or none.")
        .keys(PAIRS, KeyUse::OVERWRITE)
        .syntax("data:(key value)...")
        .hints(&["request_policy:multi_shard", "response_policy:all_succeeded"]),
    Command::new("msetnx", -3, WRITE, msetnx)
        .doc(GROUP, "1.0.1", "Sets several keys, all or none, if new.")
        .keys(PAIRS, KeyUse::CREATE)
        .syntax("data:(key value)..."),
    Command::new("append", 3, FAST_WRITE, append)
        .doc(GROUP, "2.0.0", "Adds to the end of a value.")
        .keys(ONE, KeyUse::INSERT)
        .syntax("key value"),
    Command::new("strlen", 2, FAST_READ, strlen)
        .doc(GROUP, "2.2.0", "Returns the length of a value.")
        .keys(ONE, KeyUse::INSPECT)
        .syntax("key"),
    Command::new("setrange", 4, WRITE, setrange)
        .doc(GROUP, "2.2.0", "Overwrites a part of a value.")
        .keys(ONE, KeyUse::UPDATE)
        .syntax("key offset value"),
    Command::new("getrange", 4, READ, getrange)
        .doc(GROUP, "2.4.0", "Returns a part of a value.")
        .keys(ONE, KeyUse::READ)
        .syntax("key start end"),
    Command::new("substr", 4, READ, getrange)
        .doc(GROUP, "1.0.0", "Does what GETRANGE does.")
        .deprecated("2.0.0", "`GETRANGE`")
        .keys(ONE, KeyUse::READ)
        .syntax("key start end"),
    Command::new("incr", 2, FAST_WRITE, incr)
        .doc(GROUP, "1.0.0", "Adds one to a whole number.")
        .keys(ONE, KeyUse::READ_UPDATE)
        .syntax("key"),
    Command::new("decr", 2, FAST_WRITE, decr)
        .doc(GROUP, "1.0.0", "Takes one from a whole number.")
        .keys(ONE, KeyUse::READ_UPDATE)
        .syntax("key"),
    Command::new("incrby", 3, FAST_WRITE, incrby)
        .doc(GROUP, "1.0.0", "Adds to a whole number.")
        .keys(ONE, KeyUse::READ_UPDATE)
        .syntax("key increment"),
    Command::new("decrby", 3, FAST_WRITE, decrby)
        .doc(GROUP, "1.0.0", "Takes from a whole number.")
        .keys(ONE, KeyUse::READ_UPDATE)
        .syntax("key decrement"),
    Command::new("incrbyfloat", 3, FAST_WRITE, incrbyfloat)
        .doc(GROUP, "2.6.0", "Adds to a number.")
        .keys(ONE, KeyUse::READ_UPDATE)
        .syntax("key increment:double"),
    Command::new("lcs", -3, READ, lcs)
        .doc(GROUP, "7.0.0", "Finds what two values have in common.")
        .keys(TWO, KeyUse::READ)
        .syntax("key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]"),
];

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

/// Replies the value of an entry, or null.
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
