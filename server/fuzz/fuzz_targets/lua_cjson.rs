//! Fuzz target of `cjson.decode`. What it accepts is encoded, and the result decoded and encoded
//! again, to the same text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlua::{Function, Lua};

/// The second text equals the first, except that `encode` may refuse what `decode` accepts.
const ROUND_TRIP: &str = "
    local text = ...
    local ok, value = pcall(cjson.decode, text)
    if not ok then return type(value) == 'string' end
    local ok, first = pcall(cjson.encode, value)
    if not ok then return type(first) == 'string' end
    return #first == #cjson.encode(cjson.decode(first))";

thread_local! {
    static ROUND_TRIP_STATE: (Lua, Function) = {
        let lua = Lua::new();
        lua.globals().set("cjson", cowherd_lua::cjson(&lua).unwrap()).unwrap();
        let function = lua.load(ROUND_TRIP).into_function().unwrap();
        (lua, function)
    };
}

fuzz_target!(|text: &[u8]| {
    ROUND_TRIP_STATE.with(|(_lua, function)| {
        assert!(function.call::<bool>(mlua::BString::from(text)).unwrap());
    });
});
