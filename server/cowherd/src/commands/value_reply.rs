//! Replies of values.

use crate::keyspace::Value;
use cowherd_resp::ReplyWriter;

/// Appends a value as a bulk string.
#[inline]
pub(super) fn bulk_value(reply: &mut ReplyWriter, value: Value<'_>) {
    match value {
        Value::Bytes(bytes) => reply.bulk(bytes),
        Value::Int(number) => reply.bulk_integer(number),
    }
}
