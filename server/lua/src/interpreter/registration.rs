//! Libraries of functions: their code runs once, with a table `redis` that can register functions
//! and little else; the functions run later, with the globals of functions.

use std::ffi::c_int;

use crate::stack::protected::{Reference, State};
use crate::stack::{Stack, ValueType};

use super::{Function, ScriptError, read_error};

/// What a function declares about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FunctionFlags {
    /// `no-writes`.
    pub no_writes: bool,
    /// `allow-oom`.
    pub allow_oom: bool,
    /// `allow-stale`.
    pub allow_stale: bool,
    /// `no-cluster`.
    pub no_cluster: bool,
    /// `allow-cross-slot-keys`.
    pub allow_cross_slot_keys: bool,
}

impl FunctionFlags {
    /// The names, in Redis's order.
    pub const NAMES: [&'static str; 5] =
        ["no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"];

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let set = [
            self.no_writes,
            self.allow_oom,
            self.allow_stale,
            self.no_cluster,
            self.allow_cross_slot_keys,
        ];
        Self::NAMES.into_iter().zip(set).filter(|(_, is_set)| *is_set).map(|(name, _)| name)
    }

    /// Sets the flag of a name; false if there is none.
    pub fn set(&mut self, name: &[u8]) -> bool {
        let flag = match name {
            b"no-writes" => &mut self.no_writes,
            b"allow-oom" => &mut self.allow_oom,
            b"allow-stale" => &mut self.allow_stale,
            b"no-cluster" => &mut self.no_cluster,
            b"allow-cross-slot-keys" => &mut self.allow_cross_slot_keys,
            _ => return false,
        };
        *flag = true;
        true
    }
}

/// A function that a library has registered.
#[derive(Debug)]
pub struct RegisteredFunction {
    /// The name by which FCALL finds it.
    pub name: String,
    /// The description, if it has one.
    pub description: Option<Vec<u8>>,
    /// Its flags.
    pub flags: FunctionFlags,
    /// Its code.
    pub function: Function,
}

/// Runs the code of a library in its own environment; false if it failed.
pub(super) fn run_library(
    stack: Stack<'_>,
    state: &State,
    code: &Reference,
    error: &mut ScriptError,
) -> bool {
    stack.reset_collector(state.slot());
    stack.reset_hook();
    stack.push_reference(state.error_handler());
    let handler = stack.top();
    stack.push_reference(code);
    // An empty read-only table, whose metatable finds first what loading code may use and later
    // what functions may use.
    stack.push_table();
    stack.push_table();
    let meta = stack.top();
    stack.push_reference(state.load_globals());
    stack.set_field(c"__index");
    stack.push_reference(state.refusal());
    stack.set_field(c"__newindex");
    stack.push_copy(meta);
    stack.insert(handler + 1);
    stack.set_metatable();
    stack.set_environment(-2);
    let has_run = stack.call_protected(0, 0, handler);
    if !has_run {
        read_error(stack, error);
        return false;
    }
    stack.push_reference(state.function_globals());
    stack.set_field(c"__index");
    true
}

const NAME_RULE: &[u8] = b"ERR Library names can only contain letters, numbers, or underscores(_) \
and must be at least one character long";

/// Whether a name may be that of a library or a function.
#[must_use]
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// `redis.register_function`: a name and a function, or a table with named arguments.
pub(super) fn register_function(stack: Stack<'_>) -> c_int {
    let count = stack.top();
    if !(1..=2).contains(&count) {
        stack.raise_table(b"ERR wrong number of arguments to redis.register_function");
    }
    if count == 1 {
        return register_named(stack);
    }
    let is_name = matches!(stack.value_type(1), ValueType::String | ValueType::Number);
    if !is_name {
        stack.raise_table(b"ERR first argument to redis.register_function must be a string");
    }
    if !stack.is_function(2) {
        stack.raise_table(b"ERR second argument to redis.register_function must be a function");
    }
    register(stack, 1, None, FunctionFlags::default())
}

/// Registers the function at the top under the name at `name`.
fn register(
    stack: Stack<'_>,
    name: c_int,
    description: Option<c_int>,
    flags: FunctionFlags,
) -> c_int {
    if !is_valid_name(stack.bytes(name)) {
        stack.raise_table(NAME_RULE);
    }
    if is_registered(stack, name) {
        stack.raise_table(b"ERR Function already exists in the library");
    }
    let function = Function(stack.keep());
    store(stack, name, description, flags, function);
    0
}

fn is_registered(stack: Stack<'_>, name: c_int) -> bool {
    let registered = stack.slot().registered.borrow();
    let mut all = registered.iter().flatten();
    all.any(|function| function.name.as_bytes().eq_ignore_ascii_case(stack.bytes(name)))
}

fn store(
    stack: Stack<'_>,
    name: c_int,
    description: Option<c_int>,
    flags: FunctionFlags,
    function: Function,
) {
    let name = String::from_utf8_lossy(stack.bytes(name)).into_owned();
    let description = description.map(|index| stack.bytes(index).to_vec());
    let function = RegisteredFunction { name, description, flags, function };
    stack.slot().registered.borrow_mut().get_or_insert_default().push(function);
}

/// Registers from a table with `function_name`, `callback`, `description` and `flags`.
fn register_named(stack: Stack<'_>) -> c_int {
    const TABLE: c_int = 1;
    const NAME: c_int = 2;
    const DESCRIPTION: c_int = 3;
    const FLAGS: c_int = 4;
    const CALLBACK: c_int = 5;
    if stack.value_type(TABLE) != ValueType::Table {
        stack.raise_table(
            b"ERR calling redis.register_function with a single argument is only applicable to \
              Lua table (representing named arguments).",
        );
    }
    for _ in NAME..=CALLBACK {
        stack.push_nil();
    }
    let is_text =
        |stack: Stack<'_>| matches!(stack.value_type(-1), ValueType::String | ValueType::Number);
    stack.push_nil();
    while stack.next(TABLE) {
        let field: &[u8] = match stack.value_type(-2) {
            ValueType::String => stack.bytes(-2),
            // Its text is none of the names; converting it would confuse the loop.
            ValueType::Number => b"",
            _ => stack.raise_table(
                b"ERR named argument key given to redis.register_function is not a string",
            ),
        };
        let slot = match field {
            b"function_name" if is_text(stack) => NAME,
            b"function_name" => stack.raise_table(
                b"ERR function_name argument given to redis.register_function must be a string",
            ),
            b"description" if is_text(stack) => DESCRIPTION,
            b"description" => stack.raise_table(
                b"ERR description argument given to redis.register_function must be a string",
            ),
            b"callback" if stack.is_function(-1) => CALLBACK,
            b"callback" => stack.raise_table(
                b"ERR callback argument given to redis.register_function must be a function",
            ),
            b"flags" if stack.value_type(-1) == ValueType::Table => FLAGS,
            b"flags" => stack.raise_table(
                b"ERR flags argument to redis.register_function must be a table representing \
                  function flags",
            ),
            _ => stack.raise_table(b"ERR unknown argument given to redis.register_function"),
        };
        stack.replace(slot);
    }
    if stack.value_type(NAME) == ValueType::Nil {
        stack.raise_table(b"ERR redis.register_function must get a function name argument");
    }
    if stack.value_type(CALLBACK) == ValueType::Nil {
        stack.raise_table(b"ERR redis.register_function must get a callback argument");
    }
    let flags = match stack.value_type(FLAGS) {
        ValueType::Table => flags_of(stack, FLAGS),
        _ => FunctionFlags::default(),
    };
    for text in [NAME, DESCRIPTION] {
        if stack.value_type(text) == ValueType::Number {
            stack.bytes(text);
        }
    }
    let description = (stack.value_type(DESCRIPTION) == ValueType::String).then_some(DESCRIPTION);
    stack.push_copy(CALLBACK);
    register(stack, NAME, description, flags)
}

/// The flags in a table of names.
fn flags_of(stack: Stack<'_>, table: c_int) -> FunctionFlags {
    let mut flags = FunctionFlags::default();
    for i in 1.. {
        stack.push_element(table, i);
        match stack.value_type(-1) {
            ValueType::Nil => break,
            ValueType::String if flags.set(&stack.bytes(-1).to_ascii_lowercase()) => {}
            _ => stack.raise_table(b"ERR unknown flag given"),
        }
        stack.pop(1);
    }
    stack.pop(1);
    flags
}
