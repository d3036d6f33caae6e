//! Pops from the first nonempty key of several: what LMPOP, ZMPOP, BLMPOP and BZMPOP have in
//! common.

use std::ops::Range;

use crate::clients::{TimeoutReply, WakeCondition};
use cowherd_resp::parse_i64;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};

const NO_KEYS: ErrorReply = ErrorReply::new("ERR numkeys should be greater than 0");
const NO_COUNT: ErrorReply = ErrorReply::new("ERR count should be greater than 0");

/// The arguments of such a command; `E` is the type of an end.
pub(super) struct MultiPop<E> {
    /// The positions of the keys.
    keys: Range<usize>,
    /// The end to pop from.
    pub end: E,
    /// The largest number of elements to pop.
    pub count: u64,
}

/// Parses an end.
type ParseEnd<E> = fn(&Call<'_>, usize) -> Result<E, ErrorReply>;
/// Pops from the key of an argument and replies key and elements; returns whether the key exists.
type PopFrom<E> = fn(&mut Call<'_>, usize, &MultiPop<E>) -> Result<bool, ErrorReply>;

/// The positive number in argument `i`.
fn positive(call: &Call<'_>, i: usize, error: ErrorReply) -> Result<u64, ErrorReply> {
    let number = parse_i64(call.args.at(i)).and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or(error)
}

impl<E> MultiPop<E> {
    /// Parses `numkeys key [key ...] END [COUNT count]` from argument `at` on.
    fn parse(call: &Call<'_>, at: usize, end: ParseEnd<E>) -> Result<Self, ErrorReply> {
        let number = positive(call, at, NO_KEYS)?;
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let after_keys =
            number.checked_add(at + 1).filter(|after_keys| *after_keys < call.args.len());
        let after_keys = after_keys.ok_or(ErrorReply::SYNTAX)?;
        let end = end(call, after_keys)?;
        let count = match call.args.len() - after_keys {
            1 => 1,
            3 if call.is(after_keys + 1, "count") => positive(call, after_keys + 2, NO_COUNT)?,
            // As in Redis, a wrong count is reported before a surplus argument.
            4.. if call.is(after_keys + 1, "count") => {
                positive(call, after_keys + 2, NO_COUNT)?;
                return Err(ErrorReply::SYNTAX);
            }
            _ => return Err(ErrorReply::SYNTAX),
        };
        Ok(Self { keys: at + 1..after_keys, end, count })
    }

    fn pop(&self, call: &mut Call<'_>, pop_from: PopFrom<E>) -> Result<bool, ErrorReply> {
        for i in self.keys.clone() {
            if pop_from(call, i, self)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Pops, or replies null.
pub(super) fn pop_or_null<E>(
    call: &mut Call<'_>,
    end: ParseEnd<E>,
    pop_from: PopFrom<E>,
) -> CommandResult {
    if !MultiPop::parse(call, 1, end)?.pop(call, pop_from)? {
        call.reply.null_array();
    }
    Ok(())
}

/// Pops, or blocks until a key has elements; the timeout is argument 1.
pub(super) fn pop_or_block<E>(
    call: &mut Call<'_>,
    end: ParseEnd<E>,
    pop_from: PopFrom<E>,
    condition: WakeCondition,
) -> CommandResult {
    let args = MultiPop::parse(call, 2, end)?;
    let timeout = call.timeout_seconds(1)?;
    if args.pop(call, pop_from)? {
        return Ok(());
    }
    call.wait(args.keys.collect(), condition, timeout, TimeoutReply::NullArray)
}
