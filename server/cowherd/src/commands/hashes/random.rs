//! HRANDFIELD: random fields.

use std::collections::HashSet;

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::random::{below, random};
use crate::commands::value_reply::bulk_value;
use crate::keyspace::{Entry, Value};
use cowherd_resp::{ProtocolVersion, ReplyWriter};

use super::read;

const OUT_OF_RANGE: ErrorReply = ErrorReply::new("ERR value is out of range");
const BELOW_RANGE: ErrorReply = ErrorReply::new(
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
);
/// The largest count with repetitions, which bounds the memory of the reply.
const MAX_REPEATED: u64 = 1 << 24;

type Pair<'s> = (Value<'s>, Value<'s>);

pub(super) fn hrandfield(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() == 2 {
        return one(call);
    }
    let count = call.integer(2)?;
    if count == i64::MIN {
        return Err(BELOW_RANGE);
    }
    let with_values = call.args.len() == 4 && call.is(3, "withvalues");
    if call.args.len() > 3 && !with_values {
        return Err(ErrorReply::SYNTAX);
    }
    if with_values && count.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
        return Err(OUT_OF_RANGE);
    }
    let entry = read(call)?;
    let (Some(entry), 1..) = (entry, count.unsigned_abs()) else {
        call.reply.array(0);
        return Ok(());
    };
    if count > 0 {
        different(call, &entry, count.unsigned_abs(), with_values);
        return Ok(());
    }
    if count.unsigned_abs() > MAX_REPEATED {
        return Err(OUT_OF_RANGE);
    }
    repeated(call, &entry, usize::try_from(count.unsigned_abs()).unwrap_or(0), with_values);
    Ok(())
}

fn one(call: &mut Call<'_>) -> CommandResult {
    let entry = read(call)?;
    let Some(entry) = entry else {
        call.reply.null();
        return Ok(());
    };
    let shards = &call.shards;
    let pair = shards.hash_random(&entry, random).or_else(|| {
        let mut all = Vec::new();
        shards.hash_each(&entry, |field, value| all.push((field, value)));
        all.get(below(all.len().max(1))).copied()
    });
    match pair {
        Some((field, _)) => bulk_value(call.reply, field),
        None => call.reply.null(),
    }
    Ok(())
}

/// Replies the fields, and their values if requested.
fn show<'s>(
    reply: &mut ReplyWriter,
    pairs: impl ExactSizeIterator<Item = Pair<'s>>,
    with_values: bool,
) {
    let is_nested = reply.version == ProtocolVersion::Resp3;
    let flat = if with_values && !is_nested { 2 } else { 1 };
    reply.array(pairs.len() * flat);
    for (field, value) in pairs {
        if with_values && is_nested {
            reply.array(2);
        }
        bulk_value(reply, field);
        if with_values {
            bulk_value(reply, value);
        }
    }
}

/// Replies `count` random fields, with repetitions.
fn repeated(call: &mut Call<'_>, entry: &Entry, count: usize, with_values: bool) {
    let mut pairs = Vec::with_capacity(count);
    while pairs.len() < count
        && let Some(pair) = call.shards.hash_random(entry, random)
    {
        pairs.push(pair);
    }
    if pairs.len() < count {
        let mut all = Vec::new();
        call.shards.hash_each(entry, |field, value| all.push((field, value)));
        while pairs.len() < count && !all.is_empty() {
            pairs.push(all[below(all.len())]);
        }
    }
    show(call.reply, pairs.into_iter(), with_values);
}

/// Replies `count` distinct random fields, or all if there are fewer.
fn different(call: &mut Call<'_>, entry: &Entry, count: u64, with_values: bool) {
    /// Up to this fraction of the fields, rejection sampling is faster than listing all.
    const SAMPLED_FRACTION: u64 = 4;
    let len = call.shards.hash_len(entry);
    if count < len / SAMPLED_FRACTION {
        let mut seen = HashSet::new();
        let mut pairs = Vec::new();
        // Each draw is new with a probability of at least three quarters.
        while (pairs.len() as u64) < count
            && let Some((field, value)) = call.shards.hash_random(entry, random)
        {
            if seen.insert(field_address(field)) {
                pairs.push((field, value));
            }
        }
        if pairs.len() as u64 == count {
            return show(call.reply, pairs.into_iter(), with_values);
        }
    }
    let mut all = Vec::new();
    call.shards.hash_each(entry, |field, value| all.push((field, value)));
    if count < all.len() as u64 {
        let count = usize::try_from(count).unwrap_or(all.len());
        for i in 0..count {
            let other = i + below(all.len() - i);
            all.swap(i, other);
        }
        all.truncate(count);
    }
    show(call.reply, all.into_iter(), with_values);
}

/// The address of a field of a large hash, which identifies the field.
fn field_address(field: Value<'_>) -> usize {
    match field {
        Value::Bytes(bytes) => bytes.as_ptr().addr(),
        Value::Int(_) => 0,
    }
}
