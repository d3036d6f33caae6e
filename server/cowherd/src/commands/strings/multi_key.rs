//! MGET, MSET and MSETNX.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::CommandResult;
use crate::keyspace::{Key, PREFETCH_GROUP, Value};
use smallvec::SmallVec;

pub(super) fn mget(call: &mut Call<'_>) -> CommandResult {
    call.reply.array(call.args.len() - 1);
    for first in (1..call.args.len()).step_by(PREFETCH_GROUP) {
        let end = call.args.len().min(first + PREFETCH_GROUP);
        let keys: SmallVec<[_; PREFETCH_GROUP]> = (first..end).map(|i| call.key(i)).collect();
        reply_group(call, &keys);
    }
    Ok(())
}

/// Replies the values of keys that are prefetched together.
fn reply_group(call: &mut Call<'_>, keys: &[Key<'_>]) {
    call.shared.keyspace.prefetch(call.session.db, keys.iter().map(|key| key.hash));
    for key in keys {
        let entry = call.shards.lookup_read(call.session.db, key);
        // A key of another type counts as missing.
        match entry.and_then(|entry| call.shards.string(&entry).ok()) {
            None => call.reply.null(),
            Some(Value::Bytes(bytes)) => call.reply.bulk(bytes),
            Some(Value::Int(number)) => call.reply.bulk_integer(number),
        }
    }
}

pub(super) fn mset(call: &mut Call<'_>) -> CommandResult {
    if call.args.len().is_multiple_of(2) {
        return Err(call.row.wrong_arity());
    }
    set_pairs(call)?;
    call.reply.ok();
    Ok(())
}

pub(super) fn msetnx(call: &mut Call<'_>) -> CommandResult {
    if call.args.len().is_multiple_of(2) {
        return Err(call.row.wrong_arity());
    }
    let keys = (1..call.args.len()).step_by(2);
    for i in keys {
        let key = call.key(i);
        if call.shards.lookup(call.session.db, &key).is_some() {
            call.reply.integer(0);
            return Ok(());
        }
    }
    set_pairs(call)?;
    call.reply.integer(1);
    Ok(())
}

fn set_pairs(call: &mut Call<'_>) -> CommandResult {
    let (args, keyspace) = (call.args, &call.shared.keyspace);
    let (db, event_sink) = (call.session.db, call.event_sink());
    let pairs = (1..args.len()).step_by(2).map(|i| (keyspace.key(db, args.at(i)), args.at(i + 1)));
    call.shards
        .set_all(db, pairs, |key| event_sink.notify(db, EventClass::STRING, "set", key.bytes))?;
    Ok(())
}
