//! SPOP and SRANDMEMBER: random members.

use std::collections::HashSet;

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::random::{below, random};
use crate::commands::value_reply::bulk_value;
use crate::keyspace::{Entry, Shards, Value};
use cowherd_resp::parse_i64;

use super::read;

const OUT_OF_RANGE: ErrorReply = ErrorReply::new("ERR value is out of range");
const BELOW_RANGE: ErrorReply = ErrorReply::new(
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
);
/// The largest count with repetitions, which bounds the memory of the reply.
const MAX_REPEATED: u64 = 1 << 24;

pub(super) fn spop(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let count = match call.args.len() {
        2 => None,
        3 => {
            let count = parse_i64(call.args.at(2)).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or(ErrorReply::NOT_POSITIVE)?)
        }
        _ => return Err(ErrorReply::SYNTAX),
    };
    let entry = call.shards.set_of(db, &key)?;
    let (Some(entry), false) = (entry, count == Some(0)) else {
        match count {
            None => call.reply.null(),
            Some(_) => call.reply.set(0),
        }
        return Ok(());
    };
    if let Some(count) = count {
        let most = count.min(call.shards.set_len(&entry));
        call.reply.set(usize::try_from(most).unwrap_or(usize::MAX));
    }
    let reply = &mut *call.reply;
    let count = count.unwrap_or(1);
    let gone =
        call.shards.set_pop(db, &key, &entry, count, random, |member| bulk_value(reply, member))?;
    call.notify(EventClass::SET, "spop", key.bytes);
    if gone {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
    Ok(())
}

pub(super) fn srandmember(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() == 2 {
        match read(call, 1)? {
            Some(entry) => bulk_value(call.reply, call.shards.set_random(&entry, random)),
            None => call.reply.null(),
        }
        return Ok(());
    }
    if call.args.len() > 3 {
        return Err(ErrorReply::SYNTAX);
    }
    let count = call.integer(2)?;
    if count == i64::MIN {
        return Err(BELOW_RANGE);
    }
    let entry = read(call, 1)?;
    let (Some(entry), 1..) = (entry, count.unsigned_abs()) else {
        call.reply.array(0);
        return Ok(());
    };
    let members = match count {
        ..0 if count.unsigned_abs() > MAX_REPEATED => return Err(OUT_OF_RANGE),
        ..0 => repeated(&call.shards, &entry, usize::try_from(count.unsigned_abs()).unwrap_or(0)),
        _ => different(&call.shards, &entry, count.unsigned_abs()),
    };
    call.reply.array(members.len());
    members.into_iter().for_each(|member| bulk_value(call.reply, member));
    Ok(())
}

fn all<'s>(shards: &'s Shards<'_>, entry: &Entry) -> Vec<Value<'s>> {
    let mut all = Vec::new();
    shards.set_each(entry, |member| all.push(member));
    all
}

/// `count` random members, with repetitions.
fn repeated<'s>(shards: &'s Shards<'_>, entry: &Entry, count: usize) -> Vec<Value<'s>> {
    if shards.set_is_large(entry) {
        return (0..count).map(|_| shards.set_random(entry, random)).collect();
    }
    let all = all(shards, entry);
    (0..count).map(|_| all[below(all.len())]).collect()
}

/// `count` distinct random members, or all if there are fewer.
fn different<'s>(shards: &'s Shards<'_>, entry: &Entry, count: u64) -> Vec<Value<'s>> {
    /// Up to this fraction of the members, rejection sampling is faster than listing all.
    const SAMPLED_FRACTION: u64 = 4;
    if shards.set_is_large(entry) && count < shards.set_len(entry) / SAMPLED_FRACTION {
        // Each draw is new with a probability of at least three quarters.
        let (mut seen, mut members) = (HashSet::new(), Vec::new());
        while (members.len() as u64) < count {
            let member = shards.set_random(entry, random);
            if seen.insert(member) {
                members.push(member);
            }
        }
        return members;
    }
    let mut all = all(shards, entry);
    if count < all.len() as u64 {
        let count = usize::try_from(count).unwrap_or(all.len());
        for i in 0..count {
            let other = i + below(all.len() - i);
            all.swap(i, other);
        }
        all.truncate(count);
    }
    all
}
