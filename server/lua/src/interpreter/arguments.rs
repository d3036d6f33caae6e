//! `KEYS` and `ARGV` of scripts: two tables that are filled before a script runs and emptied
//! afterwards, which is cheaper than new ones.
//!
//! No script can keep one of the tables, since it can change no global. A table to which a script
//! has given a metatable or many elements is replaced.

use std::ffi::CStr;

use cowherd_resp::Args;

use crate::stack::Stack;
use crate::stack::protected::State;

/// Most elements of a table that is used again.
const MOST_KEPT: usize = 64;
/// Most bytes of the elements of both.
const MOST_KEPT_BYTES: usize = 64 << 10;
const NAMES: [&CStr; 2] = [c"KEYS", c"ARGV"];

/// Pushes a new table of strings.
pub(super) fn push_strings(stack: Stack<'_>, strings: Args<'_>) {
    stack.push_table_for(strings.len());
    set_strings(stack, strings);
}

/// Stores strings in the table at the top.
fn set_strings(stack: Stack<'_>, strings: Args<'_>) {
    for (i, bytes) in (1..).zip(strings.iter()) {
        stack.push_bytes(bytes);
        stack.set_element(i);
    }
}

/// Sets `KEYS` and `ARGV`.
pub(super) fn fill(stack: Stack<'_>, state: &State, arguments: [Args<'_>; 2]) {
    stack.push_reference(state.script_globals());
    let globals = stack.top();
    let is_empty = state.slot().arguments_are_empty.replace(false);
    for (name, strings) in NAMES.into_iter().zip(arguments) {
        if is_empty && strings.len() <= MOST_KEPT {
            stack.push_raw_field(globals, name);
            set_strings(stack, strings);
            stack.pop(1);
        } else {
            push_strings(stack, strings);
            stack.set_field(name);
        }
    }
    stack.pop(1);
}

/// Empties the tables, or replaces them. A failure for want of memory leaves them to [`fill`].
pub(super) fn empty(stack: Stack<'_>, state: &State, arguments: [Args<'_>; 2]) {
    stack.push_reference(state.script_globals());
    let globals = stack.top();
    let bytes: usize = arguments.iter().flat_map(Args::iter).map(<[u8]>::len).sum();
    for name in NAMES {
        stack.push_raw_field(globals, name);
        let is_empty = bytes <= MOST_KEPT_BYTES && empty_table(stack);
        stack.set_top(globals);
        if !is_empty {
            stack.push_table();
            stack.set_field(name);
        }
    }
    stack.pop(1);
    state.slot().arguments_are_empty.set(true);
}

/// Removes all elements of the table at the top; false: it is to be replaced.
fn empty_table(stack: Stack<'_>) -> bool {
    let table = stack.top();
    if stack.push_metatable(table) {
        return false;
    }
    stack.push_nil();
    let mut count = 0;
    while stack.next(table) {
        count += 1;
        if count > MOST_KEPT {
            return false;
        }
        // A field that exists may be removed while the table is traversed.
        stack.pop(1);
        stack.push_copy(-1);
        stack.push_nil();
        stack.raw_set(table);
    }
    true
}
