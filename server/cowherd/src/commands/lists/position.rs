//! LPOS: the indexes of elements that equal a value.

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::ListEnd;
use cowherd_resp::parse_i64;

use super::read;

const NO_RANK: ErrorReply = ErrorReply::new(
    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
     negative to start from the end of the list",
);
const BAD_RANK: ErrorReply = ErrorReply::new(
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
);
const NEGATIVE_COUNT: ErrorReply = ErrorReply::new("ERR COUNT can't be negative");
const NEGATIVE_MAXLEN: ErrorReply = ErrorReply::new("ERR MAXLEN can't be negative");

struct LposOptions {
    /// The number of the first reported match, from 1.
    rank: u64,
    end: ListEnd,
    /// The number of matches to reply as an array; `None`: one match, not in an array.
    count: Option<u64>,
    /// The number of elements to compare.
    max_len: u64,
}

impl LposOptions {
    fn parse(call: &Call<'_>) -> Result<Self, ErrorReply> {
        let mut options = Self { rank: 1, end: ListEnd::Front, count: None, max_len: u64::MAX };
        let number = |i: usize, error: ErrorReply| -> Result<u64, ErrorReply> {
            let number = parse_i64(call.args.at(i)).and_then(|number| u64::try_from(number).ok());
            let number = number.ok_or(error)?;
            Ok(if number == 0 { u64::MAX } else { number })
        };
        for i in (3..call.args.len()).step_by(2) {
            if i + 1 == call.args.len() {
                return Err(ErrorReply::SYNTAX);
            } else if call.is(i, "rank") {
                let rank = call.integer(i + 1)?;
                match rank {
                    0 => return Err(NO_RANK),
                    i64::MIN => return Err(BAD_RANK),
                    _ => {}
                }
                options.rank = rank.unsigned_abs();
                options.end = if rank < 0 { ListEnd::Back } else { ListEnd::Front };
            } else if call.is(i, "count") {
                options.count = Some(number(i + 1, NEGATIVE_COUNT)?);
            } else if call.is(i, "maxlen") {
                options.max_len = number(i + 1, NEGATIVE_MAXLEN)?;
            } else {
                return Err(ErrorReply::SYNTAX);
            }
        }
        Ok(options)
    }
}

pub(super) fn lpos(call: &mut Call<'_>) -> CommandResult {
    let LposOptions { rank, end, count, max_len } = LposOptions::parse(call)?;
    let wanted = count.unwrap_or(1);
    let (mut before, mut found) = (rank - 1, Vec::new());
    if let Some(entry) = read(call)? {
        call.shards.list_find(&entry, call.args.at(2), end, max_len, |index| {
            if before > 0 {
                before -= 1;
                return true;
            }
            found.push(index);
            (found.len() as u64) < wanted
        });
    }
    if count.is_some() {
        call.reply.array(found.len());
    } else if found.is_empty() {
        call.reply.null();
    }
    for index in found {
        call.reply.integer(index.cast_signed());
    }
    Ok(())
}
