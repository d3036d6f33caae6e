//! XREAD and XREADGROUP, which may block.

use crate::clients::{EventClass, TimeoutReply, WakeCondition};
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
    "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified.",
);
const UNBALANCED_IN_GROUP: ErrorReply = ErrorReply::new(
    "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be \
     specified.",
);
const NEW_IN_XREAD: ErrorReply = ErrorReply::new(
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
     <consumer> option.",
);
const LAST_IN_GROUP: ErrorReply = ErrorReply::new(
    "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the history of \
     this consumer by specifying a proper ID, or use the > ID to get new messages. The + ID would \
     just return an empty result set.",
);
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
                return Err(if in_group { UNBALANCED_IN_GROUP } else { UNBALANCED });
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

/// Where XREAD begins to read a stream.
#[derive(Clone, Copy)]
enum ReadFrom {
    /// Behind an id.
    Behind(StreamId),
    /// At the last entry, which is the only one to be read.
    Last,
}

pub(super) fn xread(call: &mut Call<'_>) -> CommandResult {
    let options = parse(call, false)?;
    // The entry and where to begin, per key; and the ids that replace `$` when the request is
    // retried.
    let (mut from, mut replaced) = (Vec::new(), Vec::new());
    for key in options.first..options.first + options.streams {
        let at = key + options.streams;
        let entry = read_stream(call, key)?;
        let place = match call.args.at(at) {
            b"$" => {
                let last = entry.map_or(StreamId::MIN, |entry| call.shards.stream_len(&entry).1);
                replaced.push((at, last.to_string().into_bytes()));
                ReadFrom::Behind(last)
            }
            b"+" => ReadFrom::Last,
            b">" => return Err(NEW_IN_XREAD),
            id => ReadFrom::Behind(ids::strict(id, 0)?),
        };
        from.push((entry, place));
    }
    let mut streams = StreamsReply::new();
    for (i, (entry, place)) in from.into_iter().enumerate() {
        let Some(entry) = entry else { continue };
        let (start, is_last, most) = match place {
            ReadFrom::Last => (StreamId::MIN, true, 1),
            ReadFrom::Behind(id) => match id.next() {
                Some(start) => (start, false, most(options.count)),
                None => continue,
            },
        };
        if has_any_from(call, &entry, start) {
            streams.begin(call, options.first + i);
            let range = (start, StreamId::MAX);
            show_range(call.reply, &call.shards, &entry, range, is_last, most, |_| {});
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
    let mut group_reads = Vec::with_capacity(options.streams);
    for key in options.first..options.first + options.streams {
        let entry = read_stream(call, key)?;
        let group = entry.and_then(|entry| call.shards.stream_group(&entry, name));
        let (Some(entry), Some(group)) = (entry, group) else {
            let (before, between) = (b"NOGROUP No such key '", b"' or consumer group '");
            let after = b"' in XREADGROUP with GROUP option";
            return Err(ErrorReply::quoting(&[before, call.args.at(key), between, name, after]));
        };
        let history = match call.args.at(key + options.streams) {
            b">" => None,
            b"$" => return Err(END_IN_GROUP),
            b"+" => return Err(LAST_IN_GROUP),
            // The highest id means the same as `>`.
            id => Some(ids::strict(id, 0)?).filter(|id| *id != StreamId::MAX),
        };
        group_reads.push(GroupRead { key, entry, group: group.group, history });
    }
    Ok(group_reads)
}

/// What XREADGROUP has done for one key so far.
struct Delivery {
    group_read: GroupRead,
    consumer: Consumer,
    /// Whether the consumer was created by this command.
    is_new: bool,
    /// The entries that were written to the reply.
    ids: Vec<StreamId>,
    /// For new entries, the state of the group before and the reservation to undo.
    before: Option<(GroupInfo, PendingReservation)>,
}

pub(super) fn xreadgroup(call: &mut Call<'_>) -> CommandResult {
    let options = parse(call, true)?;
    let Some(at) = options.group else { return Err(GROUP_MISSING) };
    let (name, consumer) = (call.args.at(at), call.args.at(at + 1));
    let group_reads = group_reads(call, &options, name)?;
    let (mut streams, mut all) = (StreamsReply::new(), Vec::new());
    for group_read in group_reads {
        let (entry, group) = (group_read.entry, group_read.group);
        let done = consumer_of(call, &entry, group, consumer).and_then(|(consumer, is_new)| {
            let (ids, before) = (Vec::new(), None);
            let mut delivery = Delivery { group_read, consumer, is_new, ids, before };
            let done = read(call, &mut delivery, name, &options, &mut streams);
            all.push(delivery);
            done
        });
        if let Err(error) = done {
            all.iter().rev().for_each(|delivery| undo(call, delivery));
            return Err(error);
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
    delivery: &mut Delivery,
    name: &[u8],
    options: &XreadOptions,
    streams: &mut StreamsReply,
) -> CommandResult {
    let Delivery { group_read: GroupRead { key, entry, group, history }, consumer, .. } = *delivery;
    // The same stream may be among the keys before.
    let Some(info) = call.shards.stream_group(&entry, name) else { return Ok(()) };
    let Some(start) = history.unwrap_or(info.last).next() else { return Ok(()) };
    if history.is_some() {
        streams.begin(call, key);
        delivery.ids = show_history(call, &entry, group, consumer, start, most(options.count));
        return Ok(());
    }
    if !has_any_from(call, &entry, start) {
        return Ok(());
    }
    streams.begin(call, key);
    let range = (start, StreamId::MAX);
    let ids = &mut delivery.ids;
    let most = most(options.count);
    show_range(call.reply, &call.shards, &entry, range, false, most, |id| ids.push(id));
    let pending = if options.no_ack { &[][..] } else { &ids[..] };
    let prepared = call.shards.pending_prepare(&entry, group, consumer, pending)?;
    advance_group(call, &entry, &info, ids);
    delivery.before = Some((info, prepared));
    Ok(())
}

/// Sets the last delivered id and the number of read entries of a group after `ids`.
fn advance_group(call: &mut Call<'_>, entry: &Entry, group: &GroupInfo, ids: &[StreamId]) {
    let info = call.shards.stream_info(entry);
    let (mut last, mut read) = (group.last, group.read);
    for id in ids {
        read = match read {
            Some(read) if last >= info.first && !info.has_holes_from(last) => Some(read + 1),
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

/// Records that the consumer was seen, and its entries as pending.
fn commit(call: &mut Call<'_>, delivery: &Delivery, no_ack: bool) {
    let (entry, group, consumer) =
        (&delivery.group_read.entry, delivery.group_read.group, delivery.consumer);
    if delivery.is_new {
        let key = call.key(delivery.group_read.key);
        call.notify(EventClass::STREAM, "xgroup-createconsumer", key.bytes);
    }
    call.shards.consumer_seen(entry, consumer);
    let is_history = delivery.group_read.history.is_some();
    if delivery.ids.is_empty() || no_ack && !is_history {
        return;
    }
    if !is_history {
        call.shards.consumer_active(entry, consumer);
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
