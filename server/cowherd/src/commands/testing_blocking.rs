//! Blocking commands on strings for tests of the engine, which need no blocking command of a real
//! type.

use crate::clients::{TimeoutReply, WakeCondition};
use crate::keyspace::{Expiry, ValueType};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

const KEYS: KeyPositions = KeyPositions::spread(1, -2, 1);

const GROUP: CommandGroup = CommandGroup::Testing;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("test.put", 3, CommandFlags::WRITE, put)
        .doc(GROUP, "1.0.0", "For tests.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE),
    Command::new("test.drop", 2, CommandFlags::WRITE, drop_key)
        .doc(GROUP, "1.0.0", "For tests.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE),
    Command::new("test.take", -3, WAITS, take)
        .doc(GROUP, "1.0.0", "For tests.")
        .keys(KEYS, KeyUse::UPDATE),
    Command::new("test.move", 4, WAITS, move_value)
        .doc(GROUP, "1.0.0", "For tests.")
        .keys(KEYS, KeyUse::UPDATE),
    Command::new("test.guard", 3, WAITS, guard)
        .doc(GROUP, "1.0.0", "For tests.")
        .keys(KEYS, KeyUse::UPDATE),
];

const WAITS: CommandFlags = CommandFlags::WRITE.with(CommandFlags::BLOCKING);

/// `TEST.PUT key value`
fn put(call: &mut Call<'_>) -> CommandResult {
    store(call, 1, call.args.at(2))?;
    call.reply.ok();
    Ok(())
}

fn store(call: &mut Call<'_>, i: usize, value: &[u8]) -> CommandResult {
    let (db, key) = (call.session.db, call.key(i));
    call.shards.set(db, &key, value, Expiry::None)?;
    Ok(())
}

fn take_value(call: &mut Call<'_>, i: usize) -> Result<Option<Vec<u8>>, ErrorReply> {
    let (db, key) = (call.session.db, call.key(i));
    let Some(entry) = call.shards.lookup(db, &key) else { return Ok(None) };
    let value = call.shards.string(&entry)?.bytes(&mut itoa::Buffer::new()).to_vec();
    if value == b"wrong" {
        return Err(ErrorReply::WRONG_TYPE);
    }
    call.shards.remove(db, &key);
    Ok(Some(value))
}

/// `TEST.DROP key`
fn drop_key(call: &mut Call<'_>) -> CommandResult {
    let dropped = take_value(call, 1)?.is_some();
    call.reply.integer(i64::from(dropped));
    Ok(())
}

/// `TEST.TAKE key [key ...] timeout`: pops the first existing key, or blocks.
fn take(call: &mut Call<'_>) -> CommandResult {
    let last = call.args.len() - 1;
    let timeout = call.timeout_seconds(last)?;
    for i in 1..last {
        if let Some(value) = take_value(call, i)? {
            call.reply.array(2);
            call.reply.bulk(call.args.at(i));
            call.reply.bulk(&value);
            return Ok(());
        }
    }
    let condition = WakeCondition { kind: ValueType::String, wake_on_delete: false };
    call.wait((1..last).collect(), condition, timeout, TimeoutReply::NullArray)
}

/// `TEST.MOVE source destination timeout`
fn move_value(call: &mut Call<'_>) -> CommandResult {
    let timeout = call.timeout_seconds(3)?;
    if let Some(value) = take_value(call, 1)? {
        store(call, 2, &value)?;
        call.reply.bulk(&value);
        return Ok(());
    }
    let condition = WakeCondition { kind: ValueType::String, wake_on_delete: false };
    call.wait(vec![1], condition, timeout, TimeoutReply::Null)
}

/// `TEST.GUARD key timeout`: blocks until the key is deleted, and fails then.
fn guard(call: &mut Call<'_>) -> CommandResult {
    let timeout = call.timeout_milliseconds(2)?;
    if call.shards.peek(call.session.db, &call.key(1)).is_none() {
        return Err(ErrorReply::new("UNBLOCKED it is gone"));
    }
    let condition = WakeCondition { kind: ValueType::String, wake_on_delete: true };
    call.wait(vec![1], condition, timeout, TimeoutReply::Null)
}
