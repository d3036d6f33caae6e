//! Pending entries, which were delivered and are not acknowledged: XPENDING, XCLAIM, XAUTOCLAIM.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{Consumer, Entry, GroupInfo, PendingClaim, PendingEntry, StreamId};
use cowherd_resp::parse_i64;

use super::range::show_entry;
use super::{consumer_of, ids, no_group, read_stream};

pub(super) fn xpending(call: &mut Call<'_>) -> CommandResult {
    let len = call.args.len();
    let has_idle = len > 3 && call.is(3, "idle");
    let first = if has_idle { 5 } else { 3 };
    let is_summary = len == 3;
    // Arguments after the consumer's name are ignored, as in Redis.
    if !is_summary && !(6..=9).contains(&len) {
        return Err(ErrorReply::SYNTAX);
    }
    let mut range = (StreamId::MIN, StreamId::MAX);
    let (mut idle, mut count) = (0, 0);
    if !is_summary {
        if has_idle {
            idle = parse_i64(call.args.at(4)).ok_or(ErrorReply::NOT_INTEGER)?;
        }
        if len < first + 3 {
            return Err(ErrorReply::SYNTAX);
        }
        count = parse_i64(call.args.at(first + 2)).ok_or(ErrorReply::NOT_INTEGER)?.max(0);
        range = (ids::start(call.args.at(first))?, ids::end(call.args.at(first + 1))?);
    }
    let entry = read_stream(call, 1)?;
    let group = entry.and_then(|entry| call.shards.stream_group(&entry, call.args.at(2)));
    let (Some(entry), Some(group)) = (entry, group) else { return Err(no_group(call, 1, 2)) };
    if is_summary {
        summarise(call, &entry, &group);
        return Ok(());
    }
    let consumer = match call.args.get(first + 3) {
        None => None,
        Some(name) => match call.shards.consumer(&entry, group.group, name) {
            Some(consumer) => Some(consumer),
            None => {
                call.reply.array(0);
                return Ok(());
            }
        },
    };
    list(call, &entry, &group, consumer, range, idle, count.unsigned_abs());
    Ok(())
}

fn summarise(call: &mut Call<'_>, entry: &Entry, group: &GroupInfo) {
    let ends = call.shards.pending_ends(entry, group.group);
    call.reply.array(4);
    call.reply.integer(group.pending.cast_signed());
    let Some((first, last)) = ends else {
        call.reply.null();
        call.reply.null();
        call.reply.null_array();
        return;
    };
    ids::show(call.reply, first);
    ids::show(call.reply, last);
    let mut consumers = call.shards.group_consumers(entry, group.group);
    consumers.retain(|consumer| consumer.pending > 0);
    call.reply.array(consumers.len());
    for consumer in consumers {
        call.reply.array(2);
        let reply = &mut *call.reply;
        call.shards.consumer_name(entry, consumer.consumer, |name| reply.bulk(name));
        call.reply.bulk_integer(consumer.pending.cast_signed());
    }
}

fn list(
    call: &mut Call<'_>,
    entry: &Entry,
    group: &GroupInfo,
    consumer: Option<Consumer>,
    (start, end): (StreamId, StreamId),
    least_idle: i64,
    most: u64,
) {
    let (list, mut count, now) = (call.reply.deferred_array(), 0, call.now);
    let (shards, reply) = (&call.shards, &mut *call.reply);
    if most > 0 {
        shards.pending_each(entry, group.group, consumer, start, |pending| {
            if pending.id > end {
                return false;
            }
            let idle = now.saturating_sub(pending.delivered_at);
            if idle >= least_idle {
                reply.array(4);
                ids::show(reply, pending.id);
                shards.consumer_name(entry, pending.consumer, |name| reply.bulk(name));
                reply.integer(idle.max(0));
                reply.integer(pending.deliveries.cast_signed());
                count += 1;
            }
            (count as u64) < most
        });
    }
    call.reply.set_array_len(list, count);
}

/// The stream of argument 1 and its group of argument 2.
fn group(call: &mut Call<'_>) -> Result<(Entry, GroupInfo), ErrorReply> {
    let key = call.key(1);
    let entry = call.shards.stream(call.session.db, &key)?;
    let group = entry.and_then(|entry| call.shards.stream_group(&entry, call.args.at(2)));
    match (entry, group) {
        (Some(entry), Some(group)) => Ok((entry, group)),
        _ => Err(no_group(call, 1, 2)),
    }
}

/// The consumer of argument 3, created if missing, with memory reserved for `ids` as pending
/// entries, so that the steps that follow cannot fail. The consumer counts as seen.
fn claimer(
    call: &mut Call<'_>,
    entry: &Entry,
    group: &GroupInfo,
    ids: &[StreamId],
) -> Result<Consumer, ErrorReply> {
    let (key, name, group) = (call.key(1), call.args.at(3), group.group);
    let (consumer, is_new) = consumer_of(call, entry, group, name)?;
    if let Err(full) = call.shards.pending_prepare(entry, group, consumer, ids) {
        if is_new {
            call.shards.consumer_delete(entry, group, consumer);
        }
        return Err(full.into());
    }
    if is_new {
        call.notify(EventClass::STREAM, "xgroup-createconsumer", key.bytes);
    }
    call.shards.consumer_seen(entry, consumer);
    Ok(consumer)
}

/// The options of XCLAIM.
struct ClaimOptions {
    time: i64,
    retries: Option<u64>,
    force: bool,
    just_id: bool,
    last: Option<StreamId>,
}

fn claim_options(call: &Call<'_>, first: usize) -> Result<ClaimOptions, ErrorReply> {
    const INVALID_IDLE: ErrorReply = ErrorReply::new("ERR Invalid IDLE option argument for XCLAIM");
    const INVALID_TIME: ErrorReply = ErrorReply::new("ERR Invalid TIME option argument for XCLAIM");
    const INVALID_REEXAMINED_PER_ENTRY: ErrorReply =
        ErrorReply::new("ERR Invalid RETRYCOUNT option argument for XCLAIM");
    let now = call.now;
    let mut options =
        ClaimOptions { time: now, retries: None, force: false, just_id: false, last: None };
    let mut i = first;
    while i < call.args.len() {
        let value = call.args.get(i + 1);
        if call.is(i, "force") {
            options.force = true;
            i += 1;
            continue;
        }
        if call.is(i, "justid") {
            options.just_id = true;
            i += 1;
            continue;
        }
        let unknown =
            || ErrorReply::quoting(&[b"ERR Unrecognized XCLAIM option '", call.args.at(i), b"'"]);
        let value = value.ok_or_else(unknown)?;
        if call.is(i, "idle") {
            options.time = now.saturating_sub(parse_i64(value).ok_or(INVALID_IDLE)?);
        } else if call.is(i, "time") {
            options.time = parse_i64(value).ok_or(INVALID_TIME)?;
        } else if call.is(i, "retrycount") {
            let count = parse_i64(value).ok_or(INVALID_REEXAMINED_PER_ENTRY)?;
            options.retries = u64::try_from(count).ok();
        } else if call.is(i, "lastid") {
            options.last = Some(ids::strict(value, 0)?);
        } else {
            return Err(unknown());
        }
        i += 2;
    }
    // A time in the future or before 1970 counts as now.
    if options.time < 0 || options.time > now {
        options.time = now;
    }
    Ok(options)
}

pub(super) fn xclaim(call: &mut Call<'_>) -> CommandResult {
    const INVALID: ErrorReply = ErrorReply::new("ERR Invalid min-idle-time argument for XCLAIM");
    let (entry, group) = group(call)?;
    let least_idle = parse_i64(call.args.at(4)).ok_or(INVALID)?.max(0);
    // The ids end at the first argument that is no id.
    let mut wanted = Vec::new();
    while let Some(Ok(id)) = call.args.get(5 + wanted.len()).map(|id| ids::strict(id, 0)) {
        wanted.push(id);
    }
    let options = claim_options(call, 5 + wanted.len())?;
    let now = call.now;
    let (mut claimed, mut gone) = (Vec::new(), Vec::new());
    for id in wanted {
        let pending = call.shards.pending(&entry, group.group, id);
        let is_idle =
            |pending: PendingEntry| now.saturating_sub(pending.delivered_at) >= least_idle;
        if !call.shards.stream_has(&entry, id) {
            gone.push(id);
        } else if pending.map_or(options.force, is_idle) {
            claimed.push(id);
        }
    }
    let consumer = claimer(call, &entry, &group, &claimed)?;
    // A repeated id is claimed once, unless no idle time is required.
    claimed.retain(|id| claim(call, &entry, &group, consumer, *id, least_idle, &options));
    if !claimed.is_empty() {
        call.shards.consumer_active(&entry, consumer);
    }
    let removed = call.shards.pending_remove(&entry, group.group, gone.into_iter());
    if let Some(last) = options.last.filter(|last| *last > group.last) {
        call.shards.group_set(&entry, group.group, last, group.read);
        // LASTID counts as a change if nothing else does.
        call.shards.uncount(&entry, u64::from(removed > 0 || !claimed.is_empty()));
    }
    call.reply.array(claimed.len());
    show_claimed(call, &entry, claimed.into_iter(), options.just_id);
    Ok(())
}

/// Assigns an entry to the consumer unless its idle time is too short; returns whether it did.
fn claim(
    call: &mut Call<'_>,
    entry: &Entry,
    group: &GroupInfo,
    consumer: Consumer,
    id: StreamId,
    least_idle: i64,
    options: &ClaimOptions,
) -> bool {
    let Some(pending) = call.shards.pending(entry, group.group, id) else { return false };
    let is_new = pending.is_new();
    if !is_new && call.now.saturating_sub(pending.delivered_at) < least_idle {
        return false;
    }
    let before = if is_new { 1 } else { pending.deliveries };
    let counted = before.saturating_add(u64::from(!options.just_id));
    let deliveries = options.retries.unwrap_or(counted);
    let claim = PendingClaim { consumer, delivered_at: options.time, deliveries };
    call.shards.pending_set(entry, group.group, id, &claim);
    true
}

fn show_claimed(
    call: &mut Call<'_>,
    entry: &Entry,
    ids: impl Iterator<Item = StreamId>,
    just_id: bool,
) {
    for id in ids {
        if just_id {
            ids::show(call.reply, id);
            continue;
        }
        let reply = &mut *call.reply;
        call.shards.stream_range(entry, id, id, false, 1, |id, fields| {
            show_entry(reply, id, fields);
        });
    }
}

pub(super) fn xautoclaim(call: &mut Call<'_>) -> CommandResult {
    const INVALID: ErrorReply =
        ErrorReply::new("ERR Invalid min-idle-time argument for XAUTOCLAIM");
    const COUNT: ErrorReply = ErrorReply::new("ERR COUNT must be > 0");
    /// Pending entries to examine for each requested one, as in Redis.
    const EXAMINED_PER_ENTRY: u64 = 10;
    let least_idle = parse_i64(call.args.at(4)).ok_or(INVALID)?.max(0);
    let start = ids::start(call.args.at(5))?;
    let (mut most, mut just_id, mut i) = (100, false, 6);
    while i < call.args.len() {
        if call.is(i, "count") && i + 1 < call.args.len() {
            let count = parse_i64(call.args.at(i + 1)).and_then(|count| u64::try_from(count).ok());
            let fits = |count: &u64| *count > 0 && *count <= i64::MAX.unsigned_abs() / 16;
            most = count.filter(fits).ok_or(COUNT)?;
            i += 2;
        } else if call.is(i, "justid") {
            just_id = true;
            i += 1;
        } else {
            return Err(ErrorReply::SYNTAX);
        }
    }
    let (entry, group) = group(call)?;
    let (mut claimed, mut gone) = (Vec::new(), Vec::new());
    let (mut tries, mut next, now) =
        (most.saturating_mul(EXAMINED_PER_ENTRY), StreamId::MIN, call.now);
    call.shards.pending_each(&entry, group.group, None, start, |pending| {
        let id = pending.id;
        if tries == 0 || (claimed.len() + gone.len()) as u64 == most {
            next = id;
            return false;
        }
        tries -= 1;
        if !call.shards.stream_has(&entry, id) {
            gone.push(id);
        } else if now.saturating_sub(pending.delivered_at) >= least_idle {
            claimed.push((id, pending.deliveries.saturating_add(u64::from(!just_id))));
        }
        true
    });
    let ids: Vec<StreamId> = claimed.iter().map(|(id, _)| *id).collect();
    let consumer = claimer(call, &entry, &group, &ids)?;
    for (id, deliveries) in &claimed {
        let claim = PendingClaim { consumer, delivered_at: now, deliveries: *deliveries };
        call.shards.pending_set(&entry, group.group, *id, &claim);
    }
    if !claimed.is_empty() {
        call.shards.consumer_active(&entry, consumer);
    }
    call.shards.pending_remove(&entry, group.group, gone.iter().copied());
    call.reply.array(3);
    ids::show(call.reply, next);
    call.reply.array(claimed.len());
    show_claimed(call, &entry, claimed.into_iter().map(|(id, _)| id), just_id);
    call.reply.array(gone.len());
    gone.iter().for_each(|id| ids::show(call.reply, *id));
    Ok(())
}
