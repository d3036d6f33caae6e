//! OBJECT: the encoding and the usage of keys.

use crate::keyspace::{Entry, KeyUsage};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

const HELP: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

const NOT_COUNTED: ErrorReply = ErrorReply::new(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
     when switching between policies at runtime LRU and LFU data will take some time to adjust.",
);
const ONLY_COUNTED: ErrorReply = ErrorReply::new(
    "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
     switching between policies at runtime LRU and LFU data will take some time to adjust.",
);

const GROUP: CommandGroup = CommandGroup::Generic;

pub(super) const COMMANDS: &[Command] = &[Command::container("object")
    .doc(GROUP, "2.2.3", "Tells how a key's value is kept.")
    .subcommands(OBJECT)];

const OBJECT: &[Command] = &[
    Command::new("encoding", 3, CommandFlags::READONLY, encoding)
        .doc(GROUP, "2.2.3", "Names the encoding of a key's value.")
        .keys(KeyPositions::SECOND, KeyUse::INSPECT)
        .syntax("key")
        .hints(&["nondeterministic_output"]),
    Command::new("freq", 3, CommandFlags::READONLY, freq)
        .doc(GROUP, "4.0.0", "Returns a logarithmic count of a key's uses.")
        .keys(KeyPositions::SECOND, KeyUse::INSPECT)
        .syntax("key")
        .hints(&["nondeterministic_output"]),
    Command::new("idletime", 3, CommandFlags::READONLY, idletime)
        .doc(GROUP, "2.2.3", "Returns the seconds since a key was last used.")
        .keys(KeyPositions::SECOND, KeyUse::INSPECT)
        .syntax("key")
        .hints(&["nondeterministic_output"]),
    Command::new("refcount", 3, CommandFlags::READONLY, refcount)
        .doc(GROUP, "2.2.3", "Returns the number of references to a key's value.")
        .keys(KeyPositions::SECOND, KeyUse::INSPECT)
        .syntax("key")
        .hints(&["nondeterministic_output"]),
    Command::new("help", 2, HELP, object_help).doc(GROUP, "6.2.0", "Lists the subcommands."),
];

/// The entry of the key in argument 2; replies null if it is missing. The lookup is not counted as
/// an access.
fn entry(call: &mut Call<'_>) -> Option<Entry> {
    let entry = call.shards.peek_no_event(call.session.db, &call.key(2));
    if entry.is_none() {
        call.reply.null();
    }
    entry
}

fn encoding(call: &mut Call<'_>) -> CommandResult {
    if let Some(entry) = entry(call) {
        call.reply.bulk_str(call.shards.encoding_name(&entry));
    }
    Ok(())
}

fn freq(call: &mut Call<'_>) -> CommandResult {
    let Some(entry) = entry(call) else { return Ok(()) };
    let KeyUsage::Frequency(count) = call.shards.usage(&entry) else { return Err(NOT_COUNTED) };
    count_reply(call, count)
}

fn idletime(call: &mut Call<'_>) -> CommandResult {
    let Some(entry) = entry(call) else { return Ok(()) };
    let KeyUsage::Idle(seconds) = call.shards.usage(&entry) else { return Err(ONLY_COUNTED) };
    count_reply(call, seconds)
}

fn refcount(call: &mut Call<'_>) -> CommandResult {
    if entry(call).is_some() {
        // Values are never shared between keys.
        call.reply.integer(1);
    }
    Ok(())
}

fn count_reply(call: &mut Call<'_>, count: u64) -> CommandResult {
    call.reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn object_help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "ENCODING <key>",
        "    Names the encoding of the key's value.",
        "FREQ <key>",
        "    Returns a logarithmic count of the key's uses, with an LFU maxmemory-policy.",
        "IDLETIME <key>",
        "    Returns the seconds since the key was last used, without such a policy.",
        "REFCOUNT <key>",
        "    Returns the number of references to the key's value: always 1.",
    ]);
    Ok(())
}

#[cfg(test)]
mod tests;
