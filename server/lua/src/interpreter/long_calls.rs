//! Functions that run for long in one call of Lua's own, during which no hook runs: `string.rep`,
//! `table.sort` and `table.insert`; and `unpack`, whose range overflows in C.

use std::ffi::c_int;

use crate::stack::{ErrorText, Stack, ValueType};

use super::read_only;

/// Bytes that `rep` writes between two questions to the host.
const POLL_BYTES: usize = 16 << 20;
/// Longest table that Lua sorts by itself: some milliseconds.
const LONG_SORT: usize = 1 << 14;
/// The comparison that is used for longer ones: a function of Lua, so that the hook runs.
pub(super) const LESS: &str = "local a, b = ... return a < b";
/// Makes such a function of a comparison in C.
pub(super) const WRAP: &str = "local compare = ... return function(a, b) return compare(a, b) end";

/// `string.rep`: the count is what C makes of it as an `int`, as in Lua 5.1.
pub(super) fn rep(stack: Stack<'_>) -> c_int {
    let bytes = stack.bytes_argument(1);
    #[expect(clippy::cast_possible_truncation, reason = "as in C")]
    let count = usize::try_from(stack.integer_argument(2) as i32).unwrap_or(0);
    // Below 2^31 times what memory holds.
    let block = stack.push_block(bytes.len().saturating_mul(count));
    let mut filled = bytes.len().min(block.len());
    block[..filled].copy_from_slice(&bytes[..filled]);
    while filled < block.len() {
        let step = filled.min(block.len() - filled).min(POLL_BYTES.max(bytes.len()));
        block.copy_within(..step, filled);
        filled += step;
        stack.poll();
    }
    stack.push_bytes(block);
    1
}

/// `table.sort`; the upvalues are Lua's own and the functions of [`LESS`] and [`WRAP`].
pub(super) fn sort(stack: Stack<'_>) -> c_int {
    let is_long = stack.value_type(1) == ValueType::Table && stack.length(1) > LONG_SORT;
    if is_long && stack.top() == 1 {
        stack.push_upvalue(2);
    } else if is_long && stack.is_c_function(2) {
        stack.set_top(2);
        stack.push_upvalue(3);
        stack.insert(2);
        stack.call_function(1, 1);
    }
    read_only::reading(stack, 1)
}

/// `table.insert`; the upvalue is Lua's own, which makes a step for each position from the end.
pub(super) fn insert(stack: Stack<'_>) -> c_int {
    /// Most positions before the first.
    const MOST_BEFORE: i64 = 1 << 20;
    let has_position = stack.top() == 3 && stack.value_type(1) == ValueType::Table;
    if has_position && stack.integer_argument(2) < -MOST_BEFORE {
        stack.raise_argument(2, &ErrorText::new(format_args!("position out of bounds")));
    }
    read_only::writing(stack, 1)
}

/// `unpack`; the upvalue is Lua's own.
pub(super) fn unpack(stack: Stack<'_>) -> c_int {
    /// Most values on Lua's stack.
    const MOST_RESULTS: i64 = 8000;
    #[expect(clippy::cast_possible_truncation, reason = "as in C")]
    let [first, last] =
        [stack.optional_integer(2, 1), stack.optional_integer(3, 0)].map(|at| i64::from(at as i32));
    if last - first >= MOST_RESULTS {
        stack.raise(format_args!("too many results to unpack"));
    }
    stack.continue_with(1)
}
