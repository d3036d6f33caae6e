//! The arguments and the reply header of HSCAN, SSCAN and ZSCAN.

use crate::keyspace::DictCursor;
use crate::keyspace::Value;
use cowherd_resp::{ReplyWriter, glob_match, parse_i64};

use super::call::Call;
use super::error_reply::ErrorReply;
use super::scan::{self, COUNT, ONLY_HSCAN};

/// The options of a scan of the elements of one key.
pub(super) struct ElementScanOptions<'c> {
    /// COUNT: the number of elements to visit.
    pub count: usize,
    pattern: Option<&'c [u8]>,
    /// NOVALUES: only names are replied.
    pub names_only: bool,
}

impl<'c> ElementScanOptions<'c> {
    /// The options from argument 3 on. `has_values`: NOVALUES is allowed.
    pub fn parse(call: &Call<'c>, has_values: bool) -> Result<Self, ErrorReply> {
        let mut options = Self { count: COUNT, pattern: None, names_only: false };
        let mut i = 3;
        while i < call.args.len() {
            if call.is(i, "novalues") {
                if !has_values {
                    return Err(ONLY_HSCAN);
                }
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

    /// Whether a name matches the pattern.
    pub fn matches(&self, name: Value<'_>) -> bool {
        self.pattern
            .is_none_or(|pattern| glob_match(pattern, name.bytes(&mut itoa::Buffer::new()), false))
    }
}

/// The cursor in argument 2.
pub(super) fn scan_cursor(call: &Call<'_>) -> Result<DictCursor, ErrorReply> {
    Ok(DictCursor::unpack(scan::cursor(call, 2)?))
}

/// Appends the header of a scan reply with the cursor of the next call, 0 at the end.
pub(super) fn scan_head(reply: &mut ReplyWriter, next: Option<DictCursor>) {
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next.map_or(0, DictCursor::pack)).as_bytes());
}
