//! `coroutine.resume` and `coroutine.wrap`: Lua's own ends the process if there is no memory for
//! the arguments on the stack of the coroutine, since an error there has no handler.

use std::ffi::c_int;

use crate::stack::{Stack, ValueType};

/// `coroutine.resume`; the upvalue is Lua's own.
pub(super) fn resume(stack: Stack<'_>) -> c_int {
    stack.grow_coroutine(1, stack.top());
    stack.continue_with(1)
}

/// `coroutine.wrap`; the upvalues are Lua's own `create` and `resume`.
pub(super) fn wrap(stack: Stack<'_>) -> c_int {
    stack.check_function(1);
    stack.set_top(1);
    stack.push_upvalue(1);
    stack.insert(1);
    stack.call_function(1, 1);
    stack.push_upvalue(2);
    stack.push_function(resume_wrapped, 2);
    1
}

/// A function of `wrap`; the upvalues are the coroutine and Lua's own `resume`.
fn resume_wrapped(stack: Stack<'_>) -> c_int {
    let count = stack.top();
    stack.require_stack(2, "too many arguments");
    stack.push_upvalue(1);
    stack.insert(1);
    stack.grow_coroutine(1, count + 1);
    stack.push_upvalue(2);
    stack.insert(1);
    stack.call_function(count + 1, -1);
    if stack.boolean(1) {
        return stack.top() - 1;
    }
    match stack.value_type(-1) {
        ValueType::String | ValueType::Number => stack.raise_bytes(stack.text(-1)),
        _ => stack.raise_top(),
    }
}
