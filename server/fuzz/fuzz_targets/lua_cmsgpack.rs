//! Fuzz target of `cmsgpack.unpack`, `unpack_one` and `unpack_limit`. What the first accepts is
//! packed and unpacked again.
//!
//! The first two bytes of an input are the limit and the offset, the rest is unpacked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlua::{Function, Lua};

const CALLS: &str = "
    local text, limit, offset = ...
    -- Lua's own pcall asserts that a function returns few results.
    local function call(f, ...)
      local arguments, count = {...}, select('#', ...)
      local ok, error = pcall(function()
        local function pack(...) return {count = select('#', ...), ...} end
        return pack(f(unpack(arguments, 1, count)))
      end)
      assert(type(error) == (ok and 'table' or 'string'))
      return ok and error
    end
    call(cmsgpack.unpack_one, text, offset)
    call(cmsgpack.unpack_limit, text, limit, offset)
    local values = call(cmsgpack.unpack, text)
    if values and values.count > 0 then
      local packed = call(cmsgpack.pack, unpack(values, 1, values.count))
      if packed then call(cmsgpack.unpack, packed[1]) end
    end";

thread_local! {
    static CALLS_STATE: (Lua, Function) = {
        let lua = Lua::new();
        lua.globals().set("cmsgpack", cowherd_lua::cmsgpack(&lua).unwrap()).unwrap();
        let function = lua.load(CALLS).into_function().unwrap();
        (lua, function)
    };
}

fuzz_target!(|input: &[u8]| {
    let [limit, offset, text @ ..] = input else { return };
    let (limit, offset) = (limit.cast_signed(), offset.cast_signed());
    CALLS_STATE.with(|(_lua, function)| {
        let arguments = (mlua::BString::from(text), limit, offset);
        function.call::<()>(arguments).unwrap();
    });
});
