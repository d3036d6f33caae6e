//! Reading what is new, or waiting for it: XREAD, XREADGROUP.

use crate::commands::blocking::Timeout;
use crate::commands::call::Call;
use crate::commands::failure::{Answer, Failure};
use crate::commands::notifications::Class;
use crate::commands::waiting::{Nothing, Wish};
use crate::keyspace::{Claim, Consumer, Entry, GroupInfo, Kind, StreamId, StreamInfo};
use crate::protocol::{Version, parse_i64};

use super::range::{show_entry, show_range};
use super::{ids, read_stream};

const GROUP_MISSING: Failure = Failure::new("ERR Missing GROUP option for XREADGROUP");
const GROUP_IN_XREAD: Failure =
    Failure::new("ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.");
const NOACK_IN_XREAD: Failure =
    Failure::new("ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.");
const NEW_IN_XREAD: Failure = Failure::new(
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
     <consumer> option.",
);
const END_IN_GROUP: Failure = Failure::new(
    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of \
     this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would \
     just return an empty result set.",
);

/// What XREAD and XREADGROUP were told.
#[derive(Default)]
struct Options {
    /// Whether to wait, and how long.
    block: Option<Timeout>,
    /// 0 is no limit.
    count: u64,
    /// The argument that names the group; behind it is the consumer.
    group: Option<usize>,
    no_ack: bool,
    /// The first key.
    first: usize,
    /// How many keys, and as many ids, there are.
    streams: usize,
}

fn parse(call: &Call<'_>, in_group: bool) -> Result<Options, Failure> {
    let (mut options, mut i) = (Options::default(), 1);
    while i < call.args.len() && options.first == 0 {
        let more = call.args.len() - i - 1;
        if more > 0 && call.is(i, "block") {
            options.block = Some(call.timeout_milliseconds(i + 1)?);
            i += 2;
        } else if more > 0 && call.is(i, "count") {
            let count = parse_i64(call.args.at(i + 1)).ok_or(Failure::NOT_INTEGER)?;
            options.count = u64::try_from(count).unwrap_or(0);
            i += 2;
        } else if more > 0 && call.is(i, "streams") {
            if more % 2 != 0 {
                return Err(unbalanced(in_group));
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
            return Err(Failure::SYNTAX);
        }
    }
    match options.first {
        0 => Err(Failure::SYNTAX),
        _ if in_group && options.group.is_none() => Err(GROUP_MISSING),
        _ => Ok(options),
    }
}

fn unbalanced(in_group: bool) -> Failure {
    let (name, sign) = if in_group { ("xreadgroup", '>') } else { ("xread", '$') };
    Failure::text(format!(
        "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{sign}' must be \
         specified."
    ))
}

/// The reply of some streams, which begins with the first that has something.
struct Streams {
    list: Option<crate::protocol::Deferred>,
    count: usize,
}

impl Streams {
    const fn new() -> Self {
        Self { list: None, count: 0 }
    }

    /// Begins the reply of one stream.
    fn begin(&mut self, call: &mut Call<'_>, key: usize) {
        if self.list.is_none() {
            self.list = Some(call.reply.deferred_array());
        }
        self.count += 1;
        if call.reply.version == Version::Resp2 {
            call.reply.array(2);
        }
        call.reply.bulk(call.args.at(key));
    }

    /// Ends the reply; tells whether there is one.
    fn end(self, call: &mut Call<'_>) -> bool {
        let Some(list) = self.list else { return false };
        match call.reply.version {
            Version::Resp2 => call.reply.set_array_len(list, self.count),
            Version::Resp3 => call.reply.set_map_len(list, self.count),
        }
        true
    }
}

const fn most(count: u64) -> u64 {
    if count == 0 { u64::MAX } else { count }
}

/// Ends a command that found nothing.
fn nothing(
    call: &mut Call<'_>,
    options: &Options,
    or_gone: bool,
    ends: &[(usize, Vec<u8>)],
) -> Answer {
    let Some(timeout) = options.block else {
        call.reply.null_array();
        return Ok(());
    };
    let keys = (options.first..options.first + options.streams).collect();
    let wish = Wish { kind: Kind::Stream, or_gone };
    call.wait_replacing(keys, wish, timeout, Nothing::NullArray, ends)
}

pub(super) fn xread(call: &mut Call<'_>) -> Answer {
    let options = parse(call, false)?;
    // Where each is read from, and for waiting what the words are replaced by.
    let (mut from, mut replaced) = (Vec::new(), Vec::new());
    for key in options.first..options.first + options.streams {
        let at = key + options.streams;
        let entry = read_stream(call, key)?;
        let last = entry.map_or(StreamId::MIN, |entry| call.shards.stream_len(&entry).1);
        let id = match call.args.at(at) {
            b"$" => last,
            b"+" => entry.map_or(StreamId::MIN, |entry| before_last(call, &entry)),
            b">" => return Err(NEW_IN_XREAD),
            id => ids::strict(id, 0)?,
        };
        if matches!(call.args.at(at), b"$" | b"+") {
            replaced.push((at, last.to_string().into_bytes()));
        }
        from.push((entry, id));
    }
    let mut streams = Streams::new();
    for (i, (entry, id)) in from.into_iter().enumerate() {
        let (Some(entry), Some(start)) = (entry, id.next()) else { continue };
        let mut is_there = false;
        call.shards.stream_range(&entry, start, StreamId::MAX, false, 1, |_, _| is_there = true);
        if is_there {
            streams.begin(call, options.first + i);
            let range = (start, StreamId::MAX);
            show_range(call.reply, &call.shards, &entry, range, false, most(options.count));
        }
    }
    if streams.end(call) {
        return Ok(());
    }
    nothing(call, &options, false, &replaced)
}

/// The id before that of the last entry.
fn before_last(call: &Call<'_>, entry: &Entry) -> StreamId {
    let (_, mut last) = call.shards.stream_len(entry);
    call.shards.stream_range(entry, StreamId::MIN, StreamId::MAX, true, 1, |id, _| {
        last = id.previous().unwrap_or(StreamId::MIN);
    });
    last
}

/// A stream that a group reads.
struct Source {
    key: usize,
    entry: Entry,
    group: GroupInfo,
    /// Where its history is read from; none for what is new.
    history: Option<StreamId>,
}

fn sources(call: &mut Call<'_>, options: &Options, name: &[u8]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for key in options.first..options.first + options.streams {
        let entry = read_stream(call, key)?;
        let group = entry.and_then(|entry| call.shards.stream_group(&entry, name));
        let (Some(entry), Some(group)) = (entry, group) else {
            let (key, name) = (call.text(key), String::from_utf8_lossy(name));
            return Err(Failure::text(format!(
                "NOGROUP No such key '{key}' or consumer group '{name}' in XREADGROUP with GROUP \
                 option"
            )));
        };
        let history = match call.args.at(key + options.streams) {
            b">" => None,
            b"$" => return Err(END_IN_GROUP),
            id => Some(ids::strict(id, 0)?),
        };
        sources.push(Source { key, entry, group, history });
    }
    Ok(sources)
}

pub(super) fn xreadgroup(call: &mut Call<'_>) -> Answer {
    let options = parse(call, true)?;
    let Some(at) = options.group else { return Err(GROUP_MISSING) };
    let (name, consumer) = (call.args.at(at), call.args.at(at + 1));
    let sources = sources(call, &options, name)?;
    let mut streams = Streams::new();
    for source in sources {
        let group = source.group.group;
        let key = call.key(source.key);
        let consumer = match call.shards.consumer(&source.entry, group, consumer) {
            Some(consumer) => consumer,
            None => {
                let made = call.shards.consumer_create(&key, group, consumer)?;
                call.notify(Class::STREAM, "xgroup-createconsumer", key.bytes);
                made
            }
        };
        call.shards.consumer_seen(&key, consumer, false);
        match source.history {
            Some(id) => {
                streams.begin(call, source.key);
                show_history(call, &source, consumer, id, most(options.count))?;
            }
            None => {
                let info = call.shards.stream_info(&source.entry);
                if info.length > 0 && info.last > source.group.last {
                    deliver(call, &source, consumer, &info, &options, &mut streams)?;
                }
            }
        }
    }
    if streams.end(call) {
        return Ok(());
    }
    nothing(call, &options, true, &[])
}

/// Hands out what is new.
fn deliver(
    call: &mut Call<'_>,
    source: &Source,
    consumer: Consumer,
    info: &StreamInfo,
    options: &Options,
    streams: &mut Streams,
) -> Answer {
    let (db, key) = (call.session.db, call.key(source.key));
    let Some(start) = source.group.last.next() else { return Ok(()) };
    streams.begin(call, source.key);
    let (entry, range) = (&source.entry, (start, StreamId::MAX));
    let shown = show_range(call.reply, &call.shards, entry, range, false, most(options.count));
    if !options.no_ack {
        let claim = Claim { consumer, delivered_at: call.now, deliveries: 1 };
        let claims: Vec<(StreamId, Claim)> = shown.iter().map(|id| (*id, claim)).collect();
        call.shards.pending_put(db, &key, entry, source.group.group, &claims)?;
    }
    let (mut last, mut read) = (source.group.last, source.group.read);
    for id in shown.iter().copied() {
        read = match read {
            Some(read) if !info.has_holes_from(id) => Some(read + 1),
            _ => info.added_up_to(id),
        };
        last = id;
    }
    if !shown.is_empty() {
        call.shards.consumer_seen(&key, consumer, true);
        call.shards.group_set(db, &key, source.group.group, last, read);
    }
    Ok(())
}

/// Shows again what is pending for a consumer behind an id.
fn show_history(
    call: &mut Call<'_>,
    source: &Source,
    consumer: Consumer,
    after: StreamId,
    most: u64,
) -> Answer {
    let (entry, group, now) = (&source.entry, source.group.group, call.now);
    let Some(start) = after.next() else {
        call.reply.array(0);
        return Ok(());
    };
    let (list, mut count, mut claims) = (call.reply.deferred_array(), 0, Vec::new());
    let (shards, reply) = (&call.shards, &mut *call.reply);
    shards.pending_each(entry, group, Some(consumer), start, |pending| {
        let (id, mut is_there) = (pending.id, false);
        shards.stream_range(entry, id, id, false, 1, |id, fields| {
            is_there = true;
            show_entry(reply, id, fields);
        });
        if is_there {
            let deliveries = pending.deliveries + 1;
            claims.push((id, Claim { consumer, delivered_at: now, deliveries }));
        } else {
            reply.array(2);
            ids::show(reply, id);
            reply.null_array();
        }
        count += 1;
        (count as u64) < most
    });
    call.reply.set_array_len(list, count);
    let (db, key) = (call.session.db, call.key(source.key));
    call.shards.pending_put(db, &key, entry, group, &claims)?;
    Ok(())
}
