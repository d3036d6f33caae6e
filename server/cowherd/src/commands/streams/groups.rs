//! XGROUP and XACK: groups and consumers.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{Entry, GroupInfo, StreamId};
use cowherd_resp::parse_i64;

use super::{ids, ids_from, no_group_for_key};

const BUSY: ErrorReply = ErrorReply::new("BUSYGROUP Consumer Group name already exists");
const NO_STREAM: ErrorReply = ErrorReply::new(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to \
     use the MKSTREAM option to create an empty stream automatically.",
);
const NOT_POSITIVE: ErrorReply =
    ErrorReply::new("ERR value for ENTRIESREAD must be positive or -1");

/// The stream of argument 2.
fn stream(call: &mut Call<'_>) -> Result<Entry, ErrorReply> {
    let key = call.key(2);
    call.shards.stream(call.session.db, &key)?.ok_or(NO_STREAM)
}

/// The stream of argument 2 and its group of argument 3.
fn group(call: &mut Call<'_>) -> Result<(Entry, GroupInfo), ErrorReply> {
    let entry = stream(call)?;
    let group = call.shards.stream_group(&entry, call.args.at(3));
    Ok((entry, group.ok_or_else(|| no_group_for_key(call))?))
}

/// The options after argument 4: MKSTREAM and ENTRIESREAD.
fn options(call: &Call<'_>, is_create: bool) -> Result<(bool, Option<u64>), ErrorReply> {
    let (mut make, mut read, mut i) = (false, None, 5);
    while i < call.args.len() {
        if is_create && call.is(i, "mkstream") {
            make = true;
            i += 1;
        } else if call.is(i, "entriesread") && i + 1 < call.args.len() {
            let number = parse_i64(call.args.at(i + 1)).ok_or(ErrorReply::NOT_INTEGER)?;
            read = match number {
                -1 => None,
                number => Some(u64::try_from(number).map_err(|_| NOT_POSITIVE)?),
            };
            i += 2;
        } else {
            return Err(ErrorReply::wrong_subcommand(&call.args));
        }
    }
    Ok((make, read))
}

/// Checks that there are at most `most` arguments. Among so many an option may be repeated, as in
/// Redis.
fn check_length(call: &Call<'_>, most: usize) -> CommandResult {
    if call.args.len() > most {
        return Err(ErrorReply::wrong_subcommand(&call.args));
    }
    Ok(())
}

/// The last id of a stream, the lowest if there is no stream.
fn last_of(call: &Call<'_>, entry: Option<&Entry>) -> StreamId {
    entry.map_or(StreamId::MIN, |entry| call.shards.stream_len(entry).1)
}

/// The number of entries that a group has read: no more than were ever added.
fn clamped(call: &Call<'_>, entry: Option<&Entry>, read: Option<u64>) -> Option<u64> {
    let added = entry.map_or(0, |entry| call.shards.stream_info(entry).added);
    read.map(|read| read.min(added))
}

pub(super) fn xgroup_create(call: &mut Call<'_>) -> CommandResult {
    let (db, key, name) = (call.session.db, call.key(2), call.args.at(3));
    let (make, read) = options(call, true)?;
    let entry = call.shards.stream(db, &key)?;
    if entry.is_none() && !make {
        return Err(NO_STREAM);
    }
    check_length(call, 8)?;
    let last = match call.args.at(4) {
        b"$" => last_of(call, entry.as_ref()),
        id => ids::strict(id, 0)?,
    };
    let read = clamped(call, entry.as_ref(), read);
    if entry.is_some_and(|entry| call.shards.stream_group(&entry, name).is_some()) {
        return Err(BUSY);
    }
    match entry {
        Some(entry) => call.shards.group_create(&entry, name, last, read)?,
        None => call.shards.stream_create(db, &key, name, last, read)?,
    }
    call.notify(EventClass::STREAM, "xgroup-create", key.bytes);
    call.reply.ok();
    Ok(())
}

pub(super) fn xgroup_setid(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(2);
    let (_, read) = options(call, false)?;
    let (entry, group) = group(call)?;
    check_length(call, 7)?;
    let last = match call.args.at(4) {
        b"$" => last_of(call, Some(&entry)),
        id => ids::loose(id, 0)?,
    };
    let read = clamped(call, Some(&entry), read);
    call.shards.group_set(&entry, group.group, last, read);
    call.notify(EventClass::STREAM, "xgroup-setid", key.bytes);
    call.reply.ok();
    Ok(())
}

pub(super) fn xgroup_destroy(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(2));
    let entry = stream(call)?;
    let is_gone = call.shards.group_destroy(db, &key, &entry, call.args.at(3));
    if is_gone {
        call.notify(EventClass::STREAM, "xgroup-destroy", key.bytes);
    }
    call.reply.integer(i64::from(is_gone));
    Ok(())
}

pub(super) fn xgroup_createconsumer(call: &mut Call<'_>) -> CommandResult {
    let (key, name) = (call.key(2), call.args.at(4));
    let (entry, group) = group(call)?;
    let is_new = call.shards.consumer(&entry, group.group, name).is_none();
    if is_new {
        call.shards.consumer_create(&entry, group.group, name)?;
        call.notify(EventClass::STREAM, "xgroup-createconsumer", key.bytes);
    }
    call.reply.integer(i64::from(is_new));
    Ok(())
}

pub(super) fn xgroup_delconsumer(call: &mut Call<'_>) -> CommandResult {
    let (key, name) = (call.key(2), call.args.at(4));
    let (entry, group) = group(call)?;
    let mut pending = 0;
    if let Some(consumer) = call.shards.consumer(&entry, group.group, name) {
        pending = call.shards.consumer_delete(&entry, group.group, consumer);
        call.notify(EventClass::STREAM, "xgroup-delconsumer", key.bytes);
    }
    call.reply.integer(pending.cast_signed());
    Ok(())
}

pub(super) fn xgroup_help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "CREATE <key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <n>]",
        "    Makes a group that will be handed what is behind an id.",
        "CREATECONSUMER <key> <group> <consumer>",
        "    Makes a consumer.",
        "DELCONSUMER <key> <group> <consumer>",
        "    Deletes a consumer, with what is pending for it.",
        "DESTROY <key> <group>",
        "    Destroys a group.",
        "SETID <key> <group> <id|$> [ENTRIESREAD <n>]",
        "    Sets the last entry that a group was handed.",
    ]);
    Ok(())
}

pub(super) fn xack(call: &mut Call<'_>) -> CommandResult {
    let (db, key, name) = (call.session.db, call.key(1), call.args.at(2));
    let entry = call.shards.stream(db, &key)?;
    let group = entry.and_then(|entry| call.shards.stream_group(&entry, name));
    let (Some(entry), Some(group)) = (entry, group) else {
        call.reply.integer(0);
        return Ok(());
    };
    let ids = ids_from(call, 3)?;
    let removed = call.shards.pending_remove(&entry, group.group, ids.into_iter());
    call.reply.integer(removed.cast_signed());
    Ok(())
}
