//! Fuzz target of `struct.unpack`, and of `struct.pack` and `struct.size` with the same format.
//!
//! The first byte of an input is the length of the format, the second the position; the format and
//! the data follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlua::{Function, Lua};

const CALLS: &str = "
    local format, data, position = ...
    -- Lua's own pcall asserts that a function returns few results.
    local function call(f, ...)
      local arguments, count = {...}, select('#', ...)
      local ok, error = pcall(function() return {f(unpack(arguments, 1, count))} end)
      assert(type(error) == (ok and 'table' or 'string'))
      return ok and error
    end
    call(struct.size, format)
    call(struct.unpack, format, data, position)
    local values = call(struct.unpack, format, data)
    if values then call(struct.pack, format, unpack(values)) end";

thread_local! {
    static CALLS_STATE: (Lua, Function) = {
        let lua = Lua::new();
        lua.globals().set("struct", cowherd_lua::struct_(&lua).unwrap()).unwrap();
        let function = lua.load(CALLS).into_function().unwrap();
        (lua, function)
    };
}

fuzz_target!(|input: &[u8]| {
    let [length, position, rest @ ..] = input else { return };
    let (format, data) = rest.split_at(usize::from(*length).min(rest.len()));
    CALLS_STATE.with(|(_lua, function)| {
        let [format, data] = [format, data].map(mlua::BString::from);
        function.call::<()>((format, data, position.cast_signed())).unwrap();
    });
});
