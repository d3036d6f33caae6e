//! Moves of an element from one list to another, or between the ends of a list.

use crate::clients::{BlockingMode, EventClass, TimeoutReply, WakeCondition};
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{ListEnd, ValueType};

use super::{drop_end, end, limits, list, push_event};

/// The ends to pop from and to push to.
type Ends = (ListEnd, ListEnd);

const RIGHT_TO_LEFT: Ends = (ListEnd::Back, ListEnd::Front);

pub(super) fn lmove(call: &mut Call<'_>) -> CommandResult {
    let ends = (end(call, 3)?, end(call, 4)?);
    move_or_null(call, ends)
}

pub(super) fn rpoplpush(call: &mut Call<'_>) -> CommandResult {
    move_or_null(call, RIGHT_TO_LEFT)
}

pub(super) fn blmove(call: &mut Call<'_>) -> CommandResult {
    let ends = (end(call, 3)?, end(call, 4)?);
    move_or_block(call, ends, 5)
}

pub(super) fn brpoplpush(call: &mut Call<'_>) -> CommandResult {
    move_or_block(call, RIGHT_TO_LEFT, 3)
}

fn move_or_null(call: &mut Call<'_>, ends: Ends) -> CommandResult {
    if !move_element(call, ends)? {
        call.reply.null();
    }
    Ok(())
}

fn move_or_block(call: &mut Call<'_>, ends: Ends, timeout: usize) -> CommandResult {
    let timeout = call.timeout_seconds(timeout)?;
    if move_element(call, ends)? {
        return Ok(());
    }
    if call.blocking_mode == BlockingMode::Denied {
        // The reply of a timeout would be a null array.
        call.reply.null();
        return Ok(());
    }
    let condition = WakeCondition { kind: ValueType::List, wake_on_delete: false };
    call.wait(vec![1], condition, timeout, TimeoutReply::NullArray)
}

/// Moves an element from the list of argument 1 to that of argument 2, and replies the element;
/// returns whether there was one.
fn move_element(call: &mut Call<'_>, (from, to): Ends) -> Result<bool, ErrorReply> {
    let (db, limits) = (call.session.db, limits(call));
    let (source, target) = (call.key(1), call.key(2));
    let Some(entry) = list(call, &source)? else { return Ok(false) };
    let old = list(call, &target)?;
    let mut digits = itoa::Buffer::new();
    let element = call.shards.list_end(&entry, from).map(|e| e.bytes(&mut digits).to_vec());
    let Some(element) = element else { return Ok(false) };
    let one = [&element[..]];
    call.shards.list_push(db, &target, old.as_ref(), to, one.into_iter(), &limits)?;
    call.notify(EventClass::LIST, push_event(to), target.bytes);
    // The push may have moved the entry. If source and target are the same end of one list, the
    // pushed element equals the one to pop, so that popping either gives the same list.
    let taken = match list(call, &source)? {
        Some(entry) => {
            // Push and pop count as one change.
            drop_end(call, &source, &entry, from, 1).map(|()| call.shards.uncount(&entry, 1))
        }
        None => Ok(()),
    };
    if let Err(error) = taken {
        if let Some(entry) = list(call, &target)? {
            call.shards.list_pop(db, &target, &entry, to, 1, &limits)?;
        }
        return Err(error);
    }
    call.reply.bulk(&element);
    Ok(true)
}
