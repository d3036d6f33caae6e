//! Values as numbers: INCR, DECR, INCRBY, DECRBY and INCRBYFLOAT.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{Expiry, Value};
use cowherd_resp::parse_i64;

use super::extended::Extended;

const OVERFLOW: ErrorReply = ErrorReply::new("ERR increment or decrement would overflow");
const DECREMENT: ErrorReply = ErrorReply::new("ERR decrement would overflow");
const NOT_FINITE: ErrorReply = ErrorReply::new("ERR increment would produce NaN or Infinity");

pub(super) fn incr(call: &mut Call<'_>) -> CommandResult {
    add(call, 1)
}

pub(super) fn decr(call: &mut Call<'_>) -> CommandResult {
    add(call, -1)
}

pub(super) fn incrby(call: &mut Call<'_>) -> CommandResult {
    let by = call.integer(2)?;
    add(call, by)
}

pub(super) fn decrby(call: &mut Call<'_>) -> CommandResult {
    let by = call.integer(2)?.checked_neg().ok_or(DECREMENT)?;
    add(call, by)
}

fn add(call: &mut Call<'_>, by: i64) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let old = call.shards.lookup(db, &key);
    let number = match &old {
        None => 0,
        Some(old) => match call.shards.string(old)? {
            Value::Int(number) => number,
            Value::Bytes(text) => parse_i64(text).ok_or(ErrorReply::NOT_INTEGER)?,
        },
    };
    let sum = number.checked_add(by).ok_or(OVERFLOW)?;
    call.shards.replace_number(db, &key, old.as_ref(), sum, Expiry::Keep)?;
    call.notify(EventClass::STRING, "incrby", key.bytes);
    call.reply.integer(sum);
    Ok(())
}

pub(super) fn incrbyfloat(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let old = call.shards.lookup(db, &key);
    let number = match &old {
        None => Extended::ZERO,
        Some(old) => {
            let mut digits = itoa::Buffer::new();
            let text = call.shards.string(old)?.bytes(&mut digits);
            Extended::parse(text).ok_or(ErrorReply::NOT_FLOAT)?
        }
    };
    let by = Extended::parse(call.args.at(2)).ok_or(ErrorReply::NOT_FLOAT)?;
    let sum = number.plus(by).text().ok_or(NOT_FINITE)?;
    call.shards.replace_text(db, &key, old.as_ref(), sum.as_bytes(), Expiry::Keep)?;
    call.notify(EventClass::STRING, "incrbyfloat", key.bytes);
    call.reply.bulk_str(&sum);
    Ok(())
}
