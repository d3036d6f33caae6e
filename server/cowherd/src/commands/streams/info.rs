//! XINFO: streams, groups and consumers.

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{ConsumerInfo, Entry, GroupInfo, StreamId, StreamInfo};
use cowherd_resp::{ReplyWriter, parse_i64};

use super::range::{show_entry, show_range};
use super::{ids, no_group_for_key, read_stream};

/// The stream of argument 2.
fn stream(call: &mut Call<'_>) -> Result<Entry, ErrorReply> {
    read_stream(call, 2)?.ok_or(ErrorReply::NO_KEY)
}

fn number(reply: &mut ReplyWriter, name: &str, number: u64) {
    reply.bulk_str(name);
    reply.integer(number.cast_signed());
}

fn id(reply: &mut ReplyWriter, name: &str, id: StreamId) {
    reply.bulk_str(name);
    ids::show(reply, id);
}

fn optional(reply: &mut ReplyWriter, name: &str, number: Option<u64>) {
    reply.bulk_str(name);
    match number {
        Some(number) => reply.integer(number.cast_signed()),
        None => reply.null(),
    }
}

/// The number of entries that were not delivered to the group, if it can be determined.
fn lag(info: &StreamInfo, group: &GroupInfo) -> Option<u64> {
    if info.length == 0 {
        return Some(0);
    }
    if group.last < info.first && info.deleted < info.first {
        return Some(info.length);
    }
    let read = match group.read {
        Some(read) if !info.has_holes_from(group.last) => Some(read),
        _ => info.added_up_to(group.last),
    };
    read.map(|read| info.added.saturating_sub(read))
}

/// Appends the fields that both forms of XINFO STREAM share.
fn show_head(reply: &mut ReplyWriter, info: &StreamInfo) {
    number(reply, "length", info.length);
    number(reply, "radix-tree-keys", info.nodes);
    // The most nodes that a radix tree with this number of keys has.
    number(reply, "radix-tree-nodes", info.nodes + 1);
    id(reply, "last-generated-id", info.last);
    id(reply, "max-deleted-entry-id", info.deleted);
    number(reply, "entries-added", info.added);
    id(reply, "recorded-first-entry-id", info.first);
}

pub(super) fn xinfo_stream(call: &mut Call<'_>) -> CommandResult {
    let (mut is_full, mut count) = (false, 10);
    let entry = stream(call)?;
    if call.args.len() > 3 {
        let is_known = call.is(3, "full")
            && (call.args.len() == 4 || call.args.len() == 6 && call.is(4, "count"));
        if !is_known {
            return Err(ErrorReply::wrong_subcommand(&call.args));
        }
        is_full = true;
        if call.args.len() == 6 {
            let given = parse_i64(call.args.at(5)).ok_or(ErrorReply::NOT_INTEGER)?;
            count = u64::try_from(given).unwrap_or(10);
        }
    }
    let info = call.shards.stream_info(&entry);
    if is_full {
        let most = if count == 0 { u64::MAX } else { count };
        show_full(call, &entry, &info, most);
        return Ok(());
    }
    call.reply.map(10);
    show_head(call.reply, &info);
    number(call.reply, "groups", info.groups);
    for (name, is_last) in [("first-entry", false), ("last-entry", true)] {
        call.reply.bulk_str(name);
        let mut is_there = false;
        let reply = &mut *call.reply;
        let (low, high) = (StreamId::MIN, StreamId::MAX);
        call.shards.stream_range(&entry, low, high, is_last, 1, |id, fields| {
            is_there = true;
            show_entry(reply, id, fields);
        });
        if !is_there {
            call.reply.null();
        }
    }
    Ok(())
}

fn group_name(call: &mut Call<'_>, entry: &Entry, group: &GroupInfo) {
    call.reply.bulk_str("name");
    call.shards.group_name(entry, group.group, |name| call.reply.bulk(name));
}

fn consumer_name(call: &mut Call<'_>, entry: &Entry, consumer: &ConsumerInfo) {
    call.reply.bulk_str("name");
    call.shards.consumer_name(entry, consumer.consumer, |name| call.reply.bulk(name));
}

fn show_full(call: &mut Call<'_>, entry: &Entry, info: &StreamInfo, most: u64) {
    call.reply.map(9);
    show_head(call.reply, info);
    call.reply.bulk_str("entries");
    let all = (StreamId::MIN, StreamId::MAX);
    show_range(call.reply, &call.shards, entry, all, false, most, |_| {});
    call.reply.bulk_str("groups");
    let groups = call.shards.stream_groups(entry);
    call.reply.array(groups.len());
    for group in &groups {
        call.reply.map(7);
        group_name(call, entry, group);
        id(call.reply, "last-delivered-id", group.last);
        optional(call.reply, "entries-read", group.read);
        optional(call.reply, "lag", lag(info, group));
        number(call.reply, "pel-count", group.pending);
        call.reply.bulk_str("pending");
        show_pending(call, entry, group, None, most);
        call.reply.bulk_str("consumers");
        let consumers = call.shards.group_consumers(entry, group.group);
        call.reply.array(consumers.len());
        for consumer in &consumers {
            call.reply.map(5);
            consumer_name(call, entry, consumer);
            call.reply.bulk_str("seen-time");
            call.reply.integer(consumer.seen);
            call.reply.bulk_str("active-time");
            call.reply.integer(consumer.active.unwrap_or(-1));
            number(call.reply, "pel-count", consumer.pending);
            call.reply.bulk_str("pending");
            show_pending(call, entry, group, Some(consumer), most);
        }
    }
}

/// Appends up to `most` pending entries of a consumer, or of the whole group with the consumers.
fn show_pending(
    call: &mut Call<'_>,
    entry: &Entry,
    group: &GroupInfo,
    consumer: Option<&ConsumerInfo>,
    most: u64,
) {
    let (list, mut count) = (call.reply.deferred_array(), 0);
    let (shards, reply) = (&call.shards, &mut *call.reply);
    let of = consumer.map(|consumer| consumer.consumer);
    shards.pending_each(entry, group.group, of, StreamId::MIN, |pending| {
        reply.array(if of.is_none() { 4 } else { 3 });
        ids::show(reply, pending.id);
        if of.is_none() {
            shards.consumer_name(entry, pending.consumer, |name| reply.bulk(name));
        }
        reply.integer(pending.delivered_at);
        reply.integer(pending.deliveries.cast_signed());
        count += 1;
        (count as u64) < most
    });
    call.reply.set_array_len(list, count);
}

pub(super) fn xinfo_groups(call: &mut Call<'_>) -> CommandResult {
    let entry = stream(call)?;
    let info = call.shards.stream_info(&entry);
    let groups = call.shards.stream_groups(&entry);
    call.reply.array(groups.len());
    for group in &groups {
        call.reply.map(6);
        group_name(call, &entry, group);
        number(call.reply, "consumers", group.consumers);
        number(call.reply, "pending", group.pending);
        id(call.reply, "last-delivered-id", group.last);
        optional(call.reply, "entries-read", group.read);
        optional(call.reply, "lag", lag(&info, group));
    }
    Ok(())
}

pub(super) fn xinfo_consumers(call: &mut Call<'_>) -> CommandResult {
    let entry = stream(call)?;
    let Some(group) = call.shards.stream_group(&entry, call.args.at(3)) else {
        return Err(no_group_for_key(call));
    };
    let consumers = call.shards.group_consumers(&entry, group.group);
    call.reply.array(consumers.len());
    for consumer in &consumers {
        call.reply.map(4);
        consumer_name(call, &entry, consumer);
        number(call.reply, "pending", consumer.pending);
        call.reply.bulk_str("idle");
        let now = call.now;
        let since = |time: i64| now.saturating_sub(time).max(0);
        call.reply.integer(since(consumer.seen));
        call.reply.bulk_str("inactive");
        call.reply.integer(consumer.active.map_or(-1, since));
    }
    Ok(())
}

pub(super) fn xinfo_help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "CONSUMERS <key> <group>",
        "    Tells about the consumers of a group.",
        "GROUPS <key>",
        "    Tells about the groups of a stream.",
        "STREAM <key> [FULL [COUNT <count>]]",
        "    Tells about a stream.",
    ]);
    Ok(())
}
