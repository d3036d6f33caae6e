//! What commands on fields, members and elements have in common: replies of values, limits, and the
//! options of HSCAN, SSCAN and ZSCAN.

use crate::keyspace::Cursor;
use crate::keyspace::Value;
use cowherd_resp::{ReplyWriter, glob_match, parse_i64};

use super::call::Call;
use super::error_reply::ErrorReply;
use super::scan::{self, COUNT};

/// Replies a value as a bulk string.
#[inline]
pub(super) fn bulk(reply: &mut ReplyWriter, value: Value<'_>) {
    match value {
        Value::Bytes(bytes) => reply.bulk(bytes),
        Value::Int(number) => reply.bulk_integer(number),
    }
}

/// What a scan of one key's elements was told.
pub(super) struct ScanOptions<'c> {
    /// Elements to look at.
    pub count: usize,
    pattern: Option<&'c [u8]>,
    /// Whether only the names are wanted.
    pub names_only: bool,
}

impl<'c> ScanOptions<'c> {
    /// The options from argument 3 on. `has_values`: names can be asked for alone.
    pub fn parse(call: &Call<'c>, has_values: bool) -> Result<Self, ErrorReply> {
        let mut options = Self { count: COUNT, pattern: None, names_only: false };
        let mut i = 3;
        while i < call.args.len() {
            if has_values && call.is(i, "novalues") {
                options.names_only = true;
                i += 1;
                continue;
            }
            let Some(value) = call.args.get(i + 1) else { return Err(ErrorReply::SYNTAX) };
            if call.is(i, "count") {
                let count = parse_i64(value).ok_or(ErrorReply::NOT_INTEGER)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                options.count = count.ok_or(ErrorReply::SYNTAX)?;
            } else if call.is(i, "match") {
                options.pattern = Some(value);
            } else {
                return Err(ErrorReply::SYNTAX);
            }
            i += 2;
        }
        Ok(options)
    }

    /// Whether a name matches.
    pub fn wants(&self, name: Value<'_>) -> bool {
        self.pattern
            .is_none_or(|pattern| glob_match(pattern, name.bytes(&mut itoa::Buffer::new()), false))
    }
}

/// The cursor that argument 2 is.
pub(super) fn scan_cursor(call: &Call<'_>) -> Result<Cursor, ErrorReply> {
    Ok(Cursor::unpack(scan::parse_cursor(call.args.at(2)).ok_or(scan::NO_CURSOR)?))
}

/// Begins the reply of a scan: the cursor with which it goes on, 0 at the end.
pub(super) fn scan_head(reply: &mut ReplyWriter, next: Option<Cursor>) {
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next.map_or(0, Cursor::pack)).as_bytes());
}
