//! Popping from the first of several lists that has something, at once or as soon as one has.

use std::ops::Range;

use crate::commands::call::Call;
use crate::commands::failure::{Answer, Failure};
use crate::commands::waiting::{Nothing, Wish};
use crate::keyspace::{Kind, ListEnd};
use crate::protocol::parse_i64;

use super::{end, list, pop_one, pop_some};

const NO_KEYS: Failure = Failure::new("ERR numkeys should be greater than 0");
const NO_COUNT: Failure = Failure::new("ERR count should be greater than 0");

const WISH: Wish = Wish { kind: Kind::List, or_gone: false };

pub(super) fn blpop(call: &mut Call<'_>) -> Answer {
    pop_or_wait(call, ListEnd::Front)
}

pub(super) fn brpop(call: &mut Call<'_>) -> Answer {
    pop_or_wait(call, ListEnd::Back)
}

fn pop_or_wait(call: &mut Call<'_>, end: ListEnd) -> Answer {
    let last = call.args.len() - 1;
    let timeout = call.timeout_seconds(last)?;
    for i in 1..last {
        let key = call.key(i);
        if let Some(entry) = list(call, &key)? {
            call.reply.array(2);
            call.reply.bulk(key.bytes);
            return pop_one(call, &key, &entry, end);
        }
    }
    call.wait((1..last).collect(), WISH, timeout, Nothing::NullArray)
}

/// What LMPOP and BLMPOP are asked for.
struct Several {
    /// Positions of the keys.
    keys: Range<usize>,
    end: ListEnd,
    count: u64,
}

/// Argument `i` as a number above zero.
fn positive(call: &Call<'_>, i: usize, failure: Failure) -> Result<u64, Failure> {
    let number = parse_i64(call.args.at(i)).and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or(failure)
}

impl Several {
    /// Reads `numkeys key [key ...] LEFT|RIGHT [COUNT count]`, the first of which is argument `at`.
    fn parse(call: &Call<'_>, at: usize) -> Result<Self, Failure> {
        let number = positive(call, at, NO_KEYS)?;
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let behind = number.checked_add(at + 1).filter(|behind| *behind < call.args.len());
        let behind = behind.ok_or(Failure::SYNTAX)?;
        let end = end(call, behind)?;
        let count = match call.args.len() - behind {
            1 => 1,
            3 if call.is(behind + 1, "count") => positive(call, behind + 2, NO_COUNT)?,
            // The number is looked at before what is behind it.
            4.. if call.is(behind + 1, "count") => {
                positive(call, behind + 2, NO_COUNT)?;
                return Err(Failure::SYNTAX);
            }
            _ => return Err(Failure::SYNTAX),
        };
        Ok(Self { keys: at + 1..behind, end, count })
    }

    /// Replies a key and its elements; tells whether there is a list.
    fn pop(&self, call: &mut Call<'_>) -> Result<bool, Failure> {
        for i in self.keys.clone() {
            let key = call.key(i);
            if let Some(entry) = list(call, &key)? {
                call.reply.array(2);
                call.reply.bulk(key.bytes);
                pop_some(call, &key, &entry, self.end, self.count)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) fn lmpop(call: &mut Call<'_>) -> Answer {
    if !Several::parse(call, 1)?.pop(call)? {
        call.reply.null_array();
    }
    Ok(())
}

pub(super) fn blmpop(call: &mut Call<'_>) -> Answer {
    let several = Several::parse(call, 2)?;
    let timeout = call.timeout_seconds(1)?;
    if several.pop(call)? {
        return Ok(());
    }
    call.wait(several.keys.collect(), WISH, timeout, Nothing::NullArray)
}
