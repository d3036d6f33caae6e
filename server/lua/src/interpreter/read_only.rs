//! Tables that scripts can read and not change, and Lua's functions that respect them.
//!
//! Lua 5.1 has no such tables. A read-only table is an empty one whose metatable finds everything
//! in the real table and refuses new fields. Functions that look at a table without metamethods
//! would see the empty one, or fill it: they are replaced by functions that test for it.

use std::ffi::{c_int, c_void};

use mlua::{Function, LightUserData, Lua, Table, Value};

use crate::stack::{Stack, ValueType};

/// The error of every change.
const REFUSAL: &[u8] = b"Attempt to modify a readonly table";

/// The key in the metatable under which the real table stands.
fn marker() -> *mut c_void {
    static KEY: u8 = 0;
    (&raw const KEY).cast_mut().cast()
}

/// A read-only view of a table.
pub(super) fn protect(lua: &Lua, real: &Table, refuse: &Function) -> mlua::Result<Table> {
    let view = lua.create_table()?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", real)?;
    meta.raw_set("__newindex", refuse)?;
    meta.raw_set(Value::LightUserData(LightUserData(marker())), real)?;
    view.set_metatable(Some(meta))?;
    Ok(view)
}

/// The key in the metatable of a view under which the metatable stands that scripts see.
fn shown_metatable() -> *mut c_void {
    static KEY: u8 = 1;
    (&raw const KEY).cast_mut().cast()
}

/// Sets what `getmetatable` returns for a read-only view.
pub(super) fn show_metatable(view: &Table, shown: &Table) -> mlua::Result<()> {
    let key = Value::LightUserData(LightUserData(shown_metatable()));
    view.metatable().map_or(Ok(()), |meta| meta.raw_set(key, shown))
}

/// `__newindex` of read-only tables.
pub(super) fn refuse(stack: Stack<'_>) -> c_int {
    stack.raise_bytes(REFUSAL)
}

/// Pushes the real table of a read-only one at `index`; false and nothing pushed for other values.
fn push_real(stack: Stack<'_>, index: c_int) -> bool {
    if stack.value_type(index) != ValueType::Table || !stack.push_metatable(index) {
        return false;
    }
    let meta = stack.top();
    stack.push_light(marker());
    stack.raw_get(meta);
    if stack.value_type(-1) == ValueType::Table {
        stack.replace(meta);
        return true;
    }
    stack.pop(2);
    false
}

/// Replaces a read-only table among the arguments by the real one: for functions that only read.
pub(super) fn reading(stack: Stack<'_>, original: c_int) -> c_int {
    if push_real(stack, 1) {
        stack.replace(1);
    }
    stack.continue_with(original)
}

/// Refuses a read-only table as the first argument: for functions that write.
pub(super) fn writing(stack: Stack<'_>, original: c_int) -> c_int {
    if push_real(stack, 1) {
        stack.push_bytes(REFUSAL);
        stack.raise_top();
    }
    stack.continue_with(original)
}

/// `pairs`, whose loop over a read-only table must not get hold of the real one. Upvalues: Lua's
/// `next`, as Lua's own `pairs` has it, Lua's `pairs`, and the `next` of scripts.
pub(super) fn pairs(stack: Stack<'_>) -> c_int {
    const ORIGINAL: c_int = 2;
    const NEXT: c_int = 3;
    if !push_real(stack, 1) {
        return stack.continue_with(ORIGINAL);
    }
    stack.pop(1);
    stack.push_upvalue(NEXT);
    stack.push_copy(1);
    stack.push_nil();
    3
}

/// `getmetatable`: read-only tables have none but the one that `show_metatable` has set, and that
/// of strings is read-only. Upvalues: Lua's function, and the view of the metatable of strings.
pub(super) fn getmetatable(stack: Stack<'_>) -> c_int {
    const ORIGINAL: c_int = 1;
    const OF_STRINGS: c_int = 2;
    if stack.value_type(1) == ValueType::String {
        stack.push_upvalue(OF_STRINGS);
        return 1;
    }
    if push_real(stack, 1) {
        stack.push_metatable(1);
        let meta = stack.top();
        stack.push_light(shown_metatable());
        stack.raw_get(meta);
        return 1;
    }
    stack.continue_with(ORIGINAL)
}
