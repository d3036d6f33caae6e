//! Tests of the libraries through Lua: tables of expressions and their results, limits, properties.
#![allow(clippy::unwrap_used, missing_docs)]

mod limits;
mod properties;
mod tables;

use mlua::Lua;

/// A Lua state with the libraries as globals.
fn lua() -> Lua {
    let lua = Lua::new();
    for (name, table) in cowherd_lua::open(&lua).unwrap().named() {
        lua.globals().set(name, table).unwrap();
    }
    lua
}

/// Results of a function body as text, by `tests/common/show.lua`.
fn run(lua: &Lua, body: &str) -> String {
    let prelude = include_str!("../common/show.lua");
    let script = format!("local function body() {body}\nend\n{prelude} return run(body)");
    lua.load(script).set_name("@user_script").eval().unwrap()
}
