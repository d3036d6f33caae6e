//! Taking elements from the first of several keys that has some, at once or as soon as one has:
//! LMPOP, ZMPOP and their blocking kin.

use std::ops::Range;

use cowherd_resp::parse_i64;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use crate::clients::{TimeoutReply, WakeCondition};

const NO_KEYS: ErrorReply = ErrorReply::new("ERR numkeys should be greater than 0");
const NO_COUNT: ErrorReply = ErrorReply::new("ERR count should be greater than 0");

/// What such a command is asked for.
pub(super) struct MultiPop<E> {
    /// Positions of the keys.
    keys: Range<usize>,
    /// From which end elements are taken.
    pub end: E,
    /// How many, at most.
    pub count: u64,
}

/// Reads an end from an argument.
type ParseEnd<E> = fn(&Call<'_>, usize) -> Result<E, ErrorReply>;
/// Answers with the key of an argument and what it takes from there; tells whether there is any.
type Take<E> = fn(&mut Call<'_>, usize, &MultiPop<E>) -> Result<bool, ErrorReply>;

/// Argument `i` as a number above zero.
fn positive(call: &Call<'_>, i: usize, failure: ErrorReply) -> Result<u64, ErrorReply> {
    let number = parse_i64(call.args.at(i)).and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or(failure)
}

impl<E> MultiPop<E> {
    /// Reads `numkeys key [key ...] END [COUNT count]`, the first of which is argument `at`.
    fn parse(call: &Call<'_>, at: usize, end: ParseEnd<E>) -> Result<Self, ErrorReply> {
        let number = positive(call, at, NO_KEYS)?;
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let behind = number.checked_add(at + 1).filter(|behind| *behind < call.args.len());
        let behind = behind.ok_or(ErrorReply::SYNTAX)?;
        let end = end(call, behind)?;
        let count = match call.args.len() - behind {
            1 => 1,
            3 if call.is(behind + 1, "count") => positive(call, behind + 2, NO_COUNT)?,
            // The number is looked at before what is behind it.
            4.. if call.is(behind + 1, "count") => {
                positive(call, behind + 2, NO_COUNT)?;
                return Err(ErrorReply::SYNTAX);
            }
            _ => return Err(ErrorReply::SYNTAX),
        };
        Ok(Self { keys: at + 1..behind, end, count })
    }

    fn take(&self, call: &mut Call<'_>, take: Take<E>) -> Result<bool, ErrorReply> {
        for i in self.keys.clone() {
            if take(call, i, self)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Takes at once, or answers that there is nothing.
pub(super) fn take<E>(call: &mut Call<'_>, end: ParseEnd<E>, take: Take<E>) -> CommandResult {
    if !MultiPop::parse(call, 1, end)?.take(call, take)? {
        call.reply.null_array();
    }
    Ok(())
}

/// Takes at once, or waits until there is something; the timeout is argument 1.
pub(super) fn take_or_wait<E>(
    call: &mut Call<'_>,
    end: ParseEnd<E>,
    take: Take<E>,
    condition: WakeCondition,
) -> CommandResult {
    let asked = MultiPop::parse(call, 2, end)?;
    let timeout = call.timeout_seconds(1)?;
    if asked.take(call, take)? {
        return Ok(());
    }
    call.wait(asked.keys.collect(), condition, timeout, TimeoutReply::NullArray)
}
