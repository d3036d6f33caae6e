//! XREAD and XREADGROUP, which may block.

use crate::clients::{BlockingMode, EventClass, TimeoutReply, WakeCondition};
use crate::commands::blocking::Timeout;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{
    Consumer, Entry, Group, GroupInfo, PendingClaim, PendingReservation, StreamId, ValueType,
};
use cowherd_resp::{ProtocolVersion, parse_i64};

use super::range::{show_entry, show_range};
use super::{consumer_of, ids, read_stream};

const GROUP_MISSING: ErrorReply = ErrorReply::new("ERR Missing GROUP option for XREADGROUP");
const GROUP_IN_XREAD: ErrorReply = ErrorReply::new(
    "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
);
const NOACK_IN_XREAD: ErrorReply = ErrorReply::new(
    "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
);
const UNBALANCED: ErrorReply = ErrorReply::new(
    "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
);
const NEW_IN_XREAD: ErrorReply = ErrorReply::new(
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
     <consumer> option.",
);
/// The errors for a client that is blocked on a group when the stream or the group is deleted.
const STREAM_IS_GONE: ErrorReply = ErrorReply::new("UNBLOCKED the stream key no longer exists");
const GROUP_IS_GONE: ErrorReply =
    ErrorReply::new("NOGROUP the consumer group this client was blocked on no longer exists");
const END_IN_GROUP: ErrorReply = ErrorReply::new(
    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of \
     this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would \
     just return an empty result set.",
);

/// The options of XREAD and XREADGROUP.
#[derive(Default)]
struct XreadOptions {
    /// BLOCK: whether to block, and the timeout.
    block: Option<Timeout>,
    /// The largest number of entries per stream; 0: no limit.
    count: u64,
    /// The argument with the group; the consumer follows it.
    group: Option<usize>,
    no_ack: bool,
    /// The argument of the first key.
    first: usize,
    /// The number of keys, which equals the number of ids.
    streams: usize,
}

fn parse(call: &Call<'_>, in_group: bool) -> Result<XreadOptions, ErrorReply> {
    let (mut options, mut i) = (XreadOptions::default(), 1);
    while i < call.args.len() && options.first == 0 {
        let more = call.args.len() - i - 1;
        if more > 0 && call.is(i, "block") {
            options.block = Some(call.timeout_milliseconds(i + 1)?);
            i += 2;
        } else if more > 0 && call.is(i, "count") {
            let count = parse_i64(call.args.at(i + 1)).ok_or(ErrorReply::NOT_INTEGER)?;
            options.count = u64::try_from(count).unwrap_or(0);
            i += 2;
        } else if more > 0 && call.is(i, "streams") {
            if !more.is_multiple_of(2) {
                return Err(UNBALANCED);
            }
            (options.first, options.streams) = (i + 1, more / 2);
        } else if more > 1 && call.is(i, "group") {
            if !in_group {
                return Err(GROUP_IN_XREAD);
            }
            options.group = Some(i + 1);
            i += 3;
        } else if call.is(i, "noack") {
            if !in_group {
                return Err(NOACK_IN_XREAD);
            }
            options.no_ack = true;
            i += 1;
        } else {
            return Err(ErrorReply::SYNTAX);
        }
    }
    match options.first {
        0 => Err(ErrorReply::SYNTAX),
        _ if in_group && options.group.is_none() => Err(GROUP_MISSING),
        _ => Ok(options),
    }
}

/// Writes a reply of streams with entries. Nothing is written before the first stream.
struct StreamsReply {
    list: Option<cowherd_resp::DeferredAggregate>,
    count: usize,
}

impl StreamsReply {
    const fn new() -> Self {
        Self { list: None, count: 0 }
    }

    /// Begins the reply of one stream.
    fn begin(&mut self, call: &mut Call<'_>, key: usize) {
        if self.list.is_none() {
            self.list = Some(call.reply.deferred_array());
        }
        self.count += 1;
        if call.reply.version == ProtocolVersion::Resp2 {
            call.reply.array(2);
        }
        call.reply.bulk(call.args.at(key));
    }

    /// Ends the reply; returns whether there is one.
    fn end(self, call: &mut Call<'_>) -> bool {
        let Some(list) = self.list else { return false };
        match call.reply.version {
            ProtocolVersion::Resp2 => call.reply.set_array_len(list, self.count),
            ProtocolVersion::Resp3 => call.reply.set_map_len(list, self.count),
        }
        true
    }
}

const fn most(count: u64) -> u64 {
    if count == 0 { u64::MAX } else { count }
}

/// Blocks the client, or replies null without BLOCK. `ends` replaces `$` in the request.
fn block_or_null(
    call: &mut Call<'_>,
    options: &XreadOptions,
    wake_on_delete: bool,
    ends: &[(usize, Vec<u8>)],
) -> CommandResult {
    let Some(timeout) = options.block else {
        call.reply.null_array();
        return Ok(());
    };
    let keys = (options.first..options.first + options.streams).collect();
    let condition = WakeCondition { kind: ValueType::Stream, wake_on_delete };
    call.wait_replacing(keys, condition, timeout, TimeoutReply::NullArray, ends)
}

pub(super) fn xread(call: &mut Call<'_>) -> CommandResult {
    let options = parse(call, false)?;
    // The entry and the id to read after, per key; and the ids that replace `$` when the request
    // is retried.
    let (mut from, mut replaced) = (Vec::new(), Vec::new());
    for key in options.first..options.first + options.streams {
        let at = key + options.streams;
        let entry = match read_stream(call, key) {
            // A blocked client is served from the keys that hold streams.
            Err(_) if call.blocking_mode == BlockingMode::Retrying => None,
            found => found?,
        };
        let last = entry.map_or(StreamId::MIN, |entry| call.shards.stream_len(&entry).1);
        let id = match call.args.at(at) {
            b"$" => last,
            b">" => return Err(NEW_IN_XREAD),
            id => ids::strict(id, 0)?,
        };
        if call.args.at(at) == b"$" {
            replaced.push((at, last.to_string().into_bytes()));
        }
        from.push((entry, id));
    }
    let mut streams = StreamsReply::new();
    for (i, (entry, id)) in from.into_iter().enumerate() {
        let (Some(entry), Some(start)) = (entry, id.next()) else { continue };
        if has_any_from(call, &entry, start) {
            streams.begin(call, options.first + i);
            let range = (start, StreamId::MAX);
            let most = most(options.count);
            show_range(call.reply, &call.shards, &entry, range, false, most, |_| {});
        }
    }
    if streams.end(call) {
        return Ok(());
    }
    block_or_null(call, &options, false, &replaced)
}

/// Whether a stream has an entry from `start` on.
fn has_any_from(call: &Call<'_>, entry: &Entry, start: StreamId) -> bool {
    let (length, last) = call.shards.stream_len(entry);
    let mut is_there = false;
    if length > 0 && last >= start {
        call.shards.stream_range(entry, start, StreamId::MAX, false, 1, |_, _| is_there = true);
    }
    is_there
}

/// A key of XREADGROUP.
struct GroupRead {
    key: usize,
    entry: Entry,
    group: Group,
    /// The id to read pending entries after; `None`: new entries are read.
    history: Option<StreamId>,
}

fn group_reads(
    call: &mut Call<'_>,
    options: &XreadOptions,
    name: &[u8],
) -> Result<Vec<GroupRead>, ErrorReply> {
    let is_waiting = call.blocking_mode == BlockingMode::Retrying;
    let mut group_reads = Vec::with_capacity(options.streams);
    for key in options.first..options.first + options.streams {
        let entry = match read_stream(call, key) {
            Err(_) | Ok(None) if is_waiting => return Err(STREAM_IS_GONE),
            found => found?,
        };
        let group = entry.and_then(|entry| call.shards.stream_group(&entry, name));
        let (Some(entry), Some(group)) = (entry, group) else {
            if is_waiting {
                return Err(GROUP_IS_GONE);
            }
            let (key, name) = (call.text(key), String::from_utf8_lossy(name));
            return Err(ErrorReply::text(format!(
                "NOGROUP No such key '{key}' or consumer group '{name}' in XREADGROUP with GROUP \
                 option"
            )));
        };
        let history = match call.args.at(key + options.streams) {
            b">" => None,
            b"$" => return Err(END_IN_GROUP),
            // The highest id means the same as `>`.
            id => Some(ids::strict(id, 0)?).filter(|id| *id != StreamId::MAX),
        };
        group_reads.push(GroupRead { key, entry, group: group.group, history });
    }
    Ok(group_reads)
}

/// The entries of a stream that were written to the reply for a consumer.
struct Delivery {
    group_read: GroupRead,
    consumer: Consumer,
    /// Whether the consumer was created by this command.
    is_new: bool,
    ids: Vec<StreamId>,
    /// The state of the group before, and the reservation to undo; `None` for pending entries.
    before: Option<(GroupInfo, PendingReservation)>,
}

pub(super) fn xreadgroup(call: &mut Call<'_>) -> CommandResult {
    let options = parse(call, true)?;
    let Some(at) = options.group else { return Err(GROUP_MISSING) };
    let (name, consumer) = (call.args.at(at), call.args.at(at + 1));
    let group_reads = group_reads(call, &options, name)?;
    let (mut streams, mut all) = (StreamsReply::new(), Vec::new());
    for group_read in group_reads {
        match read(call, group_read, (name, consumer), &options, &mut streams) {
            Ok(delivery) => all.extend(delivery),
            Err(error) => {
                all.into_iter().rev().for_each(|delivery| undo(call, &delivery));
                return Err(error);
            }
        }
    }
    all.iter().for_each(|delivery| commit(call, delivery, options.no_ack));
    if streams.end(call) {
        return Ok(());
    }
    block_or_null(call, &options, true, &[])
}

/// Writes the entries of one stream that a consumer reads, if there are any, and advances the
/// group. All steps that can fail are done here; [`commit`] does the others.
fn read(
    call: &mut Call<'_>,
    group_read: GroupRead,
    (name, consumer): (&[u8], &[u8]),
    options: &XreadOptions,
    streams: &mut StreamsReply,
) -> Result<Option<Delivery>, ErrorReply> {
    let (entry, group) = (group_read.entry, group_read.group);
    // The same stream may be among the keys before.
    let info = call.shards.stream_group(&entry, name).ok_or(GROUP_IS_GONE)?;
    let Some(start) = group_read.history.unwrap_or(info.last).next() else { return Ok(None) };
    if group_read.history.is_none() && !has_any_from(call, &entry, start) {
        return Ok(None);
    }
    streams.begin(call, group_read.key);
    let (consumer, is_new) = consumer_of(call, &entry, group, consumer)?;
    if group_read.history.is_some() {
        let ids = show_history(call, &entry, group, consumer, start, most(options.count));
        return Ok(Some(Delivery { group_read, consumer, is_new, ids, before: None }));
    }
    let (mut ids, most) = (Vec::new(), most(options.count));
    let range = (start, StreamId::MAX);
    show_range(call.reply, &call.shards, &entry, range, false, most, |id| ids.push(id));
    let pending = if options.no_ack { &[][..] } else { &ids };
    let prepared = match call.shards.pending_prepare(&entry, group, consumer, pending) {
        Ok(prepared) => prepared,
        Err(full) => {
            if is_new {
                call.shards.consumer_delete(&entry, group, consumer);
            }
            return Err(full.into());
        }
    };
    advance_group(call, &entry, &info, &ids);
    Ok(Some(Delivery { group_read, consumer, is_new, ids, before: Some((info, prepared)) }))
}

/// Sets the last delivered id and the number of read entries of a group after `ids`.
fn advance_group(call: &mut Call<'_>, entry: &Entry, group: &GroupInfo, ids: &[StreamId]) {
    let info = call.shards.stream_info(entry);
    let (mut last, mut read) = (group.last, group.read);
    for id in ids {
        read = match read {
            Some(read) if !info.has_holes_from(*id) => Some(read + 1),
            _ => info.added_up_to(*id),
        };
        last = *id;
    }
    call.shards.group_set(entry, group.group, last, read);
}

/// Undoes [`read`].
fn undo(call: &mut Call<'_>, delivery: &Delivery) {
    let (entry, group) = (&delivery.group_read.entry, delivery.group_read.group);
    if let Some((before, prepared)) = &delivery.before {
        call.shards.pending_undo(entry, group, delivery.consumer, prepared);
        call.shards.group_set(entry, group, before.last, before.read);
    }
    if delivery.is_new {
        call.shards.consumer_delete(entry, group, delivery.consumer);
    }
}

/// Records the entries as pending for the consumer.
fn commit(call: &mut Call<'_>, delivery: &Delivery, no_ack: bool) {
    let (entry, group, consumer) =
        (&delivery.group_read.entry, delivery.group_read.group, delivery.consumer);
    if delivery.is_new {
        let key = call.key(delivery.group_read.key);
        call.notify(EventClass::STREAM, "xgroup-createconsumer", key.bytes);
    }
    call.shards.consumer_seen(entry, consumer);
    let is_history = delivery.before.is_none();
    if no_ack && !is_history {
        return;
    }
    for id in &delivery.ids {
        let known = call.shards.pending(entry, group, *id).filter(|_| is_history);
        let deliveries = known.map_or(0, |pending| pending.deliveries).saturating_add(1);
        let claim = PendingClaim { consumer, delivered_at: call.now, deliveries };
        call.shards.pending_set(entry, group, *id, &claim);
    }
    // What is read from a stream counts as one change, that of the group.
    call.shards.uncount(entry, delivery.ids.len() as u64);
}

/// Appends the pending entries of a consumer from an id on; returns those that still exist.
fn show_history(
    call: &mut Call<'_>,
    entry: &Entry,
    group: Group,
    consumer: Consumer,
    start: StreamId,
    most: u64,
) -> Vec<StreamId> {
    let (list, mut count, mut ids) = (call.reply.deferred_array(), 0, Vec::new());
    let (shards, reply) = (&call.shards, &mut *call.reply);
    shards.pending_each(entry, group, Some(consumer), start, |pending| {
        let (id, mut is_there) = (pending.id, false);
        shards.stream_range(entry, id, id, false, 1, |id, fields| {
            is_there = true;
            show_entry(reply, id, fields);
        });
        if is_there {
            ids.push(id);
        } else {
            reply.array(2);
            ids::show(reply, id);
            reply.null_array();
        }
        count += 1;
        (count as u64) < most
    });
    call.reply.set_array_len(list, count);
    ids
}
