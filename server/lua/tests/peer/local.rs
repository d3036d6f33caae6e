//! Runs snippets with this crate.

use mlua::{Lua, LuaOptions, StdLib};

/// A Lua state as scripts of Redis have it, as far as the snippets see.
pub struct Runner {
    lua: Lua,
}

impl Runner {
    pub fn new() -> Self {
        // With `false`, mlua replaces pcall, which needs more of the stack.
        let options = LuaOptions::new().catch_rust_panics(true);
        let libraries = StdLib::STRING | StdLib::TABLE | StdLib::MATH;
        let lua = Lua::new_with(libraries, options).unwrap();
        let opened = cowherd_lua::open(&lua).unwrap();
        for (name, table) in opened.named() {
            lua.globals().set(name, table).unwrap();
        }
        Self { lua }
    }

    /// The text that the script returns, or its error.
    pub fn eval(&self, script: &[u8]) -> Vec<u8> {
        let chunk = self.lua.load(script).set_name("@user_script");
        match chunk.eval::<mlua::LuaString>() {
            Ok(text) => text.as_bytes().to_vec(),
            Err(error) => format!("failed: {error}").into_bytes(),
        }
    }
}
