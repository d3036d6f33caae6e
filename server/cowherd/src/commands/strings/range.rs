//! Commands on the length or a part of a value.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::index_range::{self, IndexRange};
use crate::keyspace::Expiry;

/// Checks the length of a value of `len` bytes and `more`.
fn check_len(call: &Call<'_>, len: u64, more: u64) -> Result<(), ErrorReply> {
    match len.checked_add(more) {
        Some(len) if len <= call.config.proto_max_bulk_len => Ok(()),
        _ => Err(ErrorReply::TOO_LONG),
    }
}

pub(super) fn strlen(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(1);
    let len = match call.shards.lookup_read(call.session.db, &key) {
        None => 0,
        Some(entry) => call.shards.string(&entry)?.size(),
    };
    call.reply.integer(len.cast_signed());
    Ok(())
}

pub(super) fn append(call: &mut Call<'_>) -> CommandResult {
    let (db, key, tail) = (call.session.db, call.key(1), call.args.at(2));
    let len = match call.shards.lookup(db, &key) {
        None => {
            call.shards.replace(db, &key, None, tail, Expiry::None)?;
            tail.len() as u64
        }
        Some(old) => {
            let len = call.shards.string(&old)?.size();
            check_len(call, len, tail.len() as u64)?;
            call.shards.write_at(db, &key, Some(&old), len, tail)?
        }
    };
    call.notify(EventClass::STRING, "append", key.bytes);
    call.reply.integer(len.cast_signed());
    Ok(())
}

pub(super) fn setrange(call: &mut Call<'_>) -> CommandResult {
    let offset = u64::try_from(call.integer(2)?).map_err(|_| ErrorReply::OFFSET)?;
    let (db, key, part) = (call.session.db, call.key(1), call.args.at(3));
    let old = call.shards.lookup(db, &key);
    let len = match &old {
        None => 0,
        Some(old) => call.shards.string(old)?.size(),
    };
    let len = if part.is_empty() {
        len
    } else {
        check_len(call, offset, part.len() as u64)?;
        let len = call.shards.write_at(db, &key, old.as_ref(), offset, part)?;
        call.notify(EventClass::STRING, "setrange", key.bytes);
        len
    };
    call.reply.integer(len.cast_signed());
    Ok(())
}

/// GETRANGE and SUBSTR.
pub(super) fn getrange(call: &mut Call<'_>) -> CommandResult {
    let asked = IndexRange { start: call.integer(2)?, end: call.integer(3)? };
    let key = call.key(1);
    let Some(entry) = call.shards.lookup_read(call.session.db, &key) else {
        call.reply.bulk(b"");
        return Ok(());
    };
    let mut number = itoa::Buffer::new();
    let bytes = call.shards.string(&entry)?.bytes(&mut number);
    let within = asked.within(bytes.len() as u64).filter(|_| !asked.is_backward());
    call.reply.bulk(within.map_or(&[], |within| index_range::bytes(bytes, &within)));
    Ok(())
}
