//! Pops from the first nonempty list of several, some of which block: BLPOP, BRPOP, LMPOP, BLMPOP.

use crate::clients::{TimeoutReply, WakeCondition};
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::multi_pop::{self, MultiPop};
use crate::keyspace::{ListEnd, ValueType};

use super::{end, list, pop_one, pop_some};

const CONDITION: WakeCondition = WakeCondition { kind: ValueType::List, wake_on_delete: false };

pub(super) fn blpop(call: &mut Call<'_>) -> CommandResult {
    pop_or_block(call, ListEnd::Front)
}

pub(super) fn brpop(call: &mut Call<'_>) -> CommandResult {
    pop_or_block(call, ListEnd::Back)
}

fn pop_or_block(call: &mut Call<'_>, end: ListEnd) -> CommandResult {
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
    call.wait((1..last).collect(), CONDITION, timeout, TimeoutReply::NullArray)
}

/// Pops from the list of argument `i` and replies key and elements; returns whether the list
/// exists.
fn pop_from(call: &mut Call<'_>, i: usize, asked: &MultiPop<ListEnd>) -> Result<bool, ErrorReply> {
    let key = call.key(i);
    let Some(entry) = list(call, &key)? else { return Ok(false) };
    call.reply.array(2);
    call.reply.bulk(key.bytes);
    pop_some(call, &key, &entry, asked.end, asked.count)?;
    Ok(true)
}

pub(super) fn lmpop(call: &mut Call<'_>) -> CommandResult {
    multi_pop::pop_or_null(call, end, pop_from)
}

pub(super) fn blmpop(call: &mut Call<'_>) -> CommandResult {
    multi_pop::pop_or_block(call, end, pop_from, CONDITION)
}
