//! HINCRBY and HINCRBYFLOAT: fields as numbers.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::strings::extended::Extended;
use crate::keyspace::{Expiry, Value};
use cowherd_resp::parse_i64;

use super::limits;

const NO_INTEGER: ErrorReply = ErrorReply::new("ERR hash value is not an integer");
const NO_FLOAT: ErrorReply = ErrorReply::new("ERR hash value is not a float");
const OVERFLOW: ErrorReply = ErrorReply::new("ERR increment or decrement would overflow");
const NOT_FINITE: ErrorReply = ErrorReply::new("ERR increment would produce NaN or Infinity");
const INFINITE: ErrorReply = ErrorReply::new("ERR value is NaN or Infinity");

pub(super) fn hincrby(call: &mut Call<'_>) -> CommandResult {
    let by = call.integer(3)?;
    let (db, key, field) = (call.session.db, call.key(1), call.args.at(2));
    let old = call.shards.hash(db, &key)?;
    let number = match old.as_ref().and_then(|old| call.shards.hash_get(old, field)) {
        None => 0,
        Some((Value::Int(number), _)) => number,
        Some((Value::Bytes(text), _)) => parse_i64(text).ok_or(NO_INTEGER)?,
    };
    let sum = number.checked_add(by).ok_or(OVERFLOW)?;
    let (mut digits, limits) = (itoa::Buffer::new(), limits(call));
    let pair = std::iter::once((field, digits.format(sum).as_bytes()));
    call.shards.hash_set(db, &key, old.as_ref(), pair, Expiry::Keep, &limits)?;
    call.notify(EventClass::HASH, "hincrby", key.bytes);
    call.reply.integer(sum);
    Ok(())
}

pub(super) fn hincrbyfloat(call: &mut Call<'_>) -> CommandResult {
    let by = match Extended::parse(call.args.at(3)) {
        None => return Err(ErrorReply::NOT_FLOAT),
        Some(Extended::Infinite) => return Err(INFINITE),
        Some(by) => by,
    };
    let (db, key, field) = (call.session.db, call.key(1), call.args.at(2));
    let old = call.shards.hash(db, &key)?;
    let number = match old.as_ref().and_then(|old| call.shards.hash_get(old, field)) {
        None => Extended::ZERO,
        Some((value, _)) => {
            Extended::parse(value.bytes(&mut itoa::Buffer::new())).ok_or(NO_FLOAT)?
        }
    };
    let sum = number.plus(by).text().ok_or(NOT_FINITE)?;
    let (pair, limits) = (std::iter::once((field, sum.as_bytes())), limits(call));
    call.shards.hash_set(db, &key, old.as_ref(), pair, Expiry::Keep, &limits)?;
    call.notify(EventClass::HASH, "hincrbyfloat", key.bytes);
    call.reply.bulk_str(&sum);
    Ok(())
}
