//! The globals of scripts and functions.
//!
//! | table | contents |
//! |---|---|
//! | globals of scripts | harmless functions of Lua, libraries, `redis`, `server`, `KEYS`, `ARGV` |
//! | globals of functions | the same without `KEYS`, `ARGV`, and what in `redis` is for scripts |
//! | globals of code that loads | a `redis` that registers functions and writes to the log |

use mlua::{Function, Lua, Table, Value};

use crate::stack::protected::State;
use crate::stack::{Stack, build};

use super::read_only;
use super::{Versions, coroutines, long_calls, lua_values, patterns, redis_table, registration};

/// Lua's functions that stay as they are.
const KEPT: [&str; 10] = [
    "_VERSION", "assert", "error", "gcinfo", "ipairs", "rawequal", "select", "tonumber",
    "tostring", "type",
];

/// Builds the globals and makes them those of the state.
pub(super) fn build_globals(state: &mut State, versions: Versions) -> mlua::Result<()> {
    let lua = state.lua().clone();
    let refuse = function(&lua, |stack| stack.push_function(read_only::refuse, 0))?;
    let tables = Tables { lua: &lua, refuse: &refuse };
    let common = tables.common(state)?;
    let redis = |push: &dyn Fn(Stack<'_>)| -> mlua::Result<Table> {
        let table = build(&lua, |stack| {
            stack.push_table();
            push(stack);
        })?;
        for (name, number) in redis_table::NUMBERS {
            table.raw_set(name, number)?;
        }
        table.raw_set("REDIS_VERSION", versions.text)?;
        table.raw_set("REDIS_VERSION_NUM", versions.number)?;
        Ok(table)
    };
    let slot = state.slot();
    let for_functions = redis(&|stack| redis_table::set_functions(stack, slot))?;
    let for_scripts = redis(&|stack| {
        redis_table::set_functions(stack, slot);
        redis_table::set_script_functions(stack);
    })?;
    let for_loading = build(&lua, |stack| {
        stack.push_table();
        redis_table::push_log(stack, slot);
        stack.set_field(c"log");
        stack.push_slot_function(slot, registration::register_function);
        stack.set_field(c"register_function");
    })?;
    for (name, number) in redis_table::NUMBERS.iter().filter(|(name, _)| name.starts_with("LOG")) {
        for_loading.raw_set(*name, *number)?;
    }
    for_loading.raw_set("REDIS_VERSION", versions.text)?;
    for_loading.raw_set("REDIS_VERSION_NUM", versions.number)?;
    tables.refuse_missing(&for_loading)?;

    let (scripts, scripts_view) = tables.globals(&common, &for_scripts)?;
    scripts.raw_set("KEYS", lua.create_table()?)?;
    scripts.raw_set("ARGV", lua.create_table()?)?;
    let (functions, _) = tables.globals(&common, &for_functions)?;
    let (loading, _) = tables.globals(&lua.create_table()?, &for_loading)?;
    loading.raw_set("_G", Value::Nil)?;
    lua.set_globals(scripts_view)?;
    let names = lua.create_sequence_from(lua_values::FIELDS)?;
    state.keep(&scripts, &functions, &loading, &names, &refuse)
}

/// Makes tables of a state.
struct Tables<'l> {
    lua: &'l Lua,
    refuse: &'l Function,
}

impl Tables<'_> {
    fn protect(&self, table: &Table) -> mlua::Result<Table> {
        read_only::protect(self.lua, table, self.refuse)
    }

    /// Makes reading a missing field an error; returns the metatable that does so.
    fn refuse_missing(&self, table: &Table) -> mlua::Result<Table> {
        let meta = self.lua.create_table()?;
        let missing = function(self.lua, |stack| stack.push_function(missing_global, 0))?;
        meta.raw_set("__index", missing)?;
        table.set_metatable(Some(meta.clone()))?;
        Ok(meta)
    }

    /// Globals, and the view of them that code has.
    fn globals(&self, common: &Table, redis: &Table) -> mlua::Result<(Table, Table)> {
        let globals = self.lua.create_table()?;
        for pair in common.pairs::<Value, Value>() {
            let (name, value) = pair?;
            globals.raw_set(name, value)?;
        }
        let redis = self.protect(redis)?;
        globals.raw_set("redis", &redis)?;
        globals.raw_set("server", redis)?;
        let meta = self.refuse_missing(&globals)?;
        let view = self.protect(&globals)?;
        read_only::show_metatable(&view, &self.protect(&meta)?)?;
        globals.raw_set("_G", &view)?;
        Ok((globals, view))
    }

    /// What scripts and functions have in common, from the globals that Lua's libraries have made.
    fn common(&self, state: &State) -> mlua::Result<Table> {
        let lua = self.lua;
        let (plain, common) = (lua.globals(), lua.create_table()?);
        for name in KEPT {
            common.raw_set(name, plain.raw_get::<Value>(name)?)?;
        }
        let original = |name: &str| plain.raw_get::<Function>(name);
        let next = self.guarded(&original("next")?, |stack| {
            stack.push_function(|stack| read_only::reading(stack, 1), 1);
        })?;
        let rawget = self.guarded(&original("rawget")?, |stack| {
            stack.push_function(|stack| read_only::reading(stack, 1), 1);
        })?;
        let writing = |name: &str| {
            self.guarded(&original(name)?, |stack| {
                stack.push_function(|stack| read_only::writing(stack, 1), 1);
            })
        };
        let unpack = self.guarded(&original("unpack")?, |stack| {
            stack.push_function(long_calls::unpack, 1);
        })?;
        common.raw_set("unpack", unpack)?;
        let collect = self.guarded(&original("collectgarbage")?, |stack| {
            stack.push_function(
                |stack| {
                    stack.note_collector_change();
                    stack.continue_with(1)
                },
                1,
            );
        })?;
        common.raw_set("collectgarbage", collect)?;
        common.raw_set("rawset", writing("rawset")?)?;
        common.raw_set("setmetatable", writing("setmetatable")?)?;
        let pairs = (original("next")?, original("pairs")?, next.clone());
        common.raw_set(
            "pairs",
            closure(lua, pairs, |stack| {
                stack.push_function(read_only::pairs, 3);
            })?,
        )?;
        common.raw_set("next", next)?;
        common.raw_set("rawget", rawget)?;

        let string = self.string_library(&plain)?;
        let string_view = self.protect(&string)?;
        // The metatable of strings finds the real library; scripts see a view of it.
        lua.set_type_metatable::<mlua::LuaString>(Some(
            lua.create_table_from([("__index", &string)])?,
        ));
        let seen = self.protect(&lua.create_table_from([("__index", &string_view)])?)?;
        let getmetatable = (original("getmetatable")?, seen);
        common.raw_set(
            "getmetatable",
            closure(lua, getmetatable, |stack| {
                stack.push_function(read_only::getmetatable, 2);
            })?,
        )?;
        common.raw_set("string", string_view)?;
        common.raw_set("table", self.protect(&self.table_library(&plain)?)?)?;
        common.raw_set("math", self.protect(&self.math_library(state, &plain)?)?)?;
        let coroutine: Table = plain.raw_get("coroutine")?;
        let resume: Function = coroutine.raw_get("resume")?;
        let wrap = (coroutine.raw_get::<Function>("create")?, resume.clone());
        let wrap = closure(lua, wrap, |stack| stack.push_function(coroutines::wrap, 2))?;
        coroutine.raw_set("wrap", wrap)?;
        let resume = self.guarded(&resume, |stack| stack.push_function(coroutines::resume, 1))?;
        coroutine.raw_set("resume", resume)?;
        common.raw_set("coroutine", self.protect(&coroutine)?)?;
        let os = build(lua, |stack| {
            stack.push_table();
            stack.push_function(clock, 0);
            stack.set_field(c"clock");
        })?;
        common.raw_set("os", self.protect(&os)?)?;
        for (name, library) in crate::open(lua)?.named() {
            common.raw_set(name, self.protect(library)?)?;
        }
        let own = build(lua, |stack| {
            stack.push_table();
            stack.push_function(pcall, 0);
            stack.set_field(c"pcall");
            stack.push_function(xpcall, 0);
            stack.set_field(c"xpcall");
            stack.push_function(loadstring, 0);
            stack.set_field(c"loadstring");
            stack.push_function(load, 0);
            stack.set_field(c"load");
        })?;
        for name in ["pcall", "xpcall", "loadstring", "load"] {
            common.raw_set(name, own.raw_get::<Value>(name)?)?;
        }
        Ok(common)
    }

    /// A function whose only upvalue is `original`.
    fn guarded(&self, original: &Function, push: fn(Stack<'_>)) -> mlua::Result<Function> {
        closure(self.lua, original.clone(), push)
    }

    fn string_library(&self, plain: &Table) -> mlua::Result<Table> {
        let library: Table = plain.raw_get("string")?;
        let own = build(self.lua, |stack| {
            stack.push_table();
            patterns::set_functions(stack);
            stack.push_function(long_calls::rep, 0);
            stack.set_field(c"rep");
        })?;
        for name in patterns::NAMES.into_iter().chain(["rep"]) {
            library.raw_set(name, own.raw_get::<Value>(name)?)?;
        }
        Ok(library)
    }

    fn table_library(&self, plain: &Table) -> mlua::Result<Table> {
        let library: Table = plain.raw_get("table")?;
        let insert: Function = library.raw_get("insert")?;
        let guarded = self.guarded(&insert, |stack| stack.push_function(long_calls::insert, 1))?;
        library.raw_set("insert", guarded)?;
        // `remove` and `sort` change nothing, since no read-only table has elements.
        let compile = |code: &'static str| self.lua.load(code).into_function();
        let sort = (
            library.raw_get::<Function>("sort")?,
            compile(long_calls::LESS)?,
            compile(long_calls::WRAP)?,
        );
        let sort = closure(self.lua, sort, |stack| stack.push_function(long_calls::sort, 3))?;
        library.raw_set("sort", sort)?;
        for name in ["foreach", "foreachi", "getn", "maxn", "concat", "remove"] {
            let original: Function = library.raw_get(name)?;
            let guarded = self.guarded(&original, |stack| {
                stack.push_function(|stack| read_only::reading(stack, 1), 1);
            })?;
            library.raw_set(name, guarded)?;
        }
        Ok(library)
    }

    fn math_library(&self, state: &State, plain: &Table) -> mlua::Result<Table> {
        let library: Table = plain.raw_get("math")?;
        let own = build(self.lua, |stack| {
            stack.push_table();
            stack.push_slot_function(state.slot(), random);
            stack.set_field(c"random");
            stack.push_slot_function(state.slot(), randomseed);
            stack.set_field(c"randomseed");
        })?;
        for name in ["random", "randomseed"] {
            library.raw_set(name, own.raw_get::<Value>(name)?)?;
        }
        Ok(library)
    }
}

fn function(lua: &Lua, push: fn(Stack<'_>)) -> mlua::Result<Function> {
    closure(lua, (), push)
}

/// A function that `push` makes of the upvalues that it finds on the stack.
fn closure(
    lua: &Lua,
    upvalues: impl mlua::IntoLuaMulti,
    push: fn(Stack<'_>),
) -> mlua::Result<Function> {
    crate::stack::protected::make_function(lua, upvalues, push)
}

/// `__index` of the globals.
fn missing_global(stack: Stack<'_>) -> std::ffi::c_int {
    let name = match stack.value_type(2) {
        crate::stack::ValueType::String => stack.bytes(2),
        _ => b"?",
    };
    let text = crate::stack::ErrorText::new(format_args!(
        "Script attempted to access nonexistent global variable '"
    ));
    stack.raise_text(&text.append(name).append(b"'"))
}

/// `pcall`: an error that is a table with `err` is returned as that text.
fn pcall(stack: Stack<'_>) -> std::ffi::c_int {
    stack.check_any(1);
    if !stack.call_protected(stack.top() - 1, -1, 0) {
        flatten_error(stack);
        stack.push_boolean(false);
        stack.insert(-2);
        return 2;
    }
    if !stack.check_stack(1) {
        stack.set_top(0);
        stack.push_boolean(false);
        stack.push_bytes(b"stack overflow");
        return 2;
    }
    stack.push_boolean(true);
    stack.insert(1);
    stack.top()
}

/// Replaces a table with `err` at the top by that text.
fn flatten_error(stack: Stack<'_>) {
    use crate::stack::ValueType;
    if stack.value_type(-1) == ValueType::Table {
        let table = stack.top();
        stack.push_raw_field(table, c"err");
        match stack.value_type(-1) {
            ValueType::String | ValueType::Number => stack.replace(table),
            _ => stack.pop(1),
        }
    }
}

fn xpcall(stack: Stack<'_>) -> std::ffi::c_int {
    stack.check_any(2);
    stack.set_top(2);
    stack.insert(1);
    let has_run = stack.call_protected(0, -1, 1);
    stack.push_boolean(has_run);
    stack.replace(1);
    stack.top()
}

/// `loadstring`: the code has the globals of the script.
fn loadstring(stack: Stack<'_>) -> std::ffi::c_int {
    let source = stack.bytes_argument(1);
    let name = match stack.value_type(2) {
        crate::stack::ValueType::None | crate::stack::ValueType::Nil => stack.bytes(1),
        _ => stack.bytes_argument(2),
    };
    finish_load(stack, source, name)
}

/// Compiles code under a name, whose bytes end at the first null byte.
fn finish_load(stack: Stack<'_>, source: &[u8], name: &[u8]) -> std::ffi::c_int {
    stack.push_bytes(name);
    if stack.load_named(source) {
        return 1;
    }
    stack.push_nil();
    stack.insert(-2);
    2
}

/// `load`: the pieces that a function returns, up to an empty one or `nil`.
fn load(stack: Stack<'_>) -> std::ffi::c_int {
    use crate::stack::ValueType;
    stack.check_function(1);
    let name = match stack.value_type(2) {
        ValueType::None | ValueType::Nil => {
            stack.set_top(1);
            stack.push_bytes(b"=(load)");
            2
        }
        _ => {
            stack.bytes_argument(2);
            stack.set_top(2);
            2
        }
    };
    // The text so far.
    stack.push_bytes(b"");
    let text = stack.top();
    loop {
        stack.push_copy(1);
        stack.call_function(0, 1);
        match stack.value_type(-1) {
            ValueType::Nil => break,
            ValueType::String | ValueType::Number => {
                if stack.bytes(-1).is_empty() {
                    break;
                }
                stack.concatenate(2);
                debug_assert_eq!(stack.top(), text);
            }
            _ => stack.raise(format_args!("reader function must return a string")),
        }
    }
    stack.set_top(text);
    finish_load(stack, stack.bytes(text), stack.bytes(name))
}

/// Processor time of this thread in seconds.
fn clock(stack: Stack<'_>) -> std::ffi::c_int {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = time.map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9);
    stack.push_number(seconds);
    1
}

/// `math.random`: as Lua's, with the generator of this interpreter.
fn random(stack: Stack<'_>) -> std::ffi::c_int {
    let unit = stack.slot().random.borrow_mut().unit();
    #[expect(clippy::cast_precision_loss, reason = "numbers of Lua are doubles")]
    let between = |low: i64, high: i64, stack: Stack<'_>| {
        stack.push_number((unit * (high - low + 1) as f64).floor() + low as f64);
        1
    };
    match stack.top() {
        0 => {
            stack.push_number(unit);
            1
        }
        1 => {
            let high = stack.integer_argument(1);
            stack.check_argument(high >= 1, 1, "interval is empty");
            between(1, high, stack)
        }
        2 => {
            let (low, high) = (stack.integer_argument(1), stack.integer_argument(2));
            stack.check_argument(low <= high, 2, "interval is empty");
            between(low, high, stack)
        }
        _ => stack.raise(format_args!("wrong number of arguments")),
    }
}

fn randomseed(stack: Stack<'_>) -> std::ffi::c_int {
    let seed = stack.integer_argument(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits of it")]
    stack.slot().random.borrow_mut().seed(seed as u32);
    0
}
