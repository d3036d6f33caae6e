//! The interpreter of one thread: a Lua state with the environment of Redis's scripts, compiled
//! scripts, and libraries of functions.
//!
//! ```text
//!                      globals (empty, read-only)         KEYS, ARGV
//! script --reads-->    |  __index                            |
//!                      '-------> the real globals <----------'  written before each run
//!                                   string, table, math, ... (empty, read-only, __index)
//!                                   redis: call --> Host --> commands
//! ```
//!
//! | file | content |
//! |---|---|
//! | this one | compiling, running, loading libraries |
//! | `arguments` | `KEYS` and `ARGV` |
//! | `coroutines` | `coroutine.resume` and `coroutine.wrap` |
//! | `slot` | the host and the buffers of a call |
//! | `sandbox` | the globals |
//! | `read_only` | tables that scripts cannot change, and functions that respect them |
//! | `redis_table` | the functions of the table `redis` |
//! | `registration` | `redis.register_function` |
//! | `reply_values`, `lua_values` | replies as Lua values, Lua values as replies |
//! | `patterns` | the functions of `string` that match patterns, with a limit on their time |
//! | `long_calls` | other functions with a limit on their time |
//! | `random` | `math.random` |

mod arguments;
mod coroutines;
mod long_calls;
mod lua_values;
mod patterns;
mod random;
mod read_only;
mod redis_table;
mod registration;
mod reply_values;
mod sandbox;
mod slot;

use std::fmt;

use cowherd_resp::{Args, ProtocolVersion, ReplyWriter};

use crate::stack::Stack;
use crate::stack::protected::{Reference, State};

pub use redis_table::{LogLevel, sha1_hex};
pub use registration::{FunctionFlags, RegisteredFunction, is_valid_name};

pub(crate) use slot::Slot;

/// What a running script asks of the server.
pub trait Host {
    /// Runs a command and writes its reply, or an error reply.
    fn call(&mut self, args: &Args<'_>, reply: &mut ReplyWriter);

    /// Whether the caller may run a command; `None` if there is no such command.
    fn may_call(&mut self, args: &Args<'_>) -> Option<bool>;

    /// The reply of the script contains an error. `is_counted`: it was counted when a command
    /// replied it, or is not to be counted.
    fn replied_error(&mut self, text: &[u8], is_counted: bool);

    /// Writes to the server's log.
    fn log(&mut self, level: LogLevel, text: &[u8]);

    /// Called again and again while the script computes, some thousand times a second at least.
    /// An error ends the script.
    ///
    /// # Errors
    /// The text with which the script fails.
    fn poll(&mut self) -> Result<(), &'static str>;
}

/// Whether code is a script of EVAL or a library of functions: they have different globals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeKind {
    /// A script, whose keys and arguments are globals.
    Script,
    /// A library, whose functions get keys and arguments as parameters.
    Library,
}

/// Code that was compiled by one interpreter, for that interpreter.
#[derive(Debug)]
pub struct Function(Reference);

/// How a script failed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScriptError {
    /// The text, which begins with an error code.
    pub text: Vec<u8>,
    /// The chunk in which it failed and the line, if these are known.
    pub position: Option<(String, u32)>,
    /// Whether the error is a reply of a command, which was counted already.
    pub is_counted: bool,
    /// Whether the text is the whole reply: the script did not run.
    pub is_reply: bool,
}

/// The keys, the arguments and the way of handing them over.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Script or library.
    pub kind: CodeKind,
    /// The keys.
    pub keys: Args<'a>,
    /// The other arguments.
    pub argv: Args<'a>,
}

/// The interpreter of one thread.
pub struct Interpreter {
    state: State,
}

impl fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interpreter").field("used_memory", &self.used_memory()).finish()
    }
}

/// The versions that scripts see.
#[derive(Clone, Copy, Debug)]
pub struct Versions {
    /// `redis.REDIS_VERSION`.
    pub text: &'static str,
    /// `redis.REDIS_VERSION_NUM`: a byte each for major, minor and patch.
    pub number: u32,
}

/// The text with which a script fails that needs more memory than the limit.
const OUT_OF_MEMORY: &[u8] = b"ERR not enough memory: the script exceeds lua-memory-limit";

impl Interpreter {
    /// A new interpreter whose memory has a limit in bytes; 0: none.
    ///
    /// # Errors
    /// The limit is too low for the libraries.
    pub fn new(memory_limit: usize, versions: Versions) -> Result<Self, String> {
        let mut state = State::new().map_err(|error| error.to_string())?;
        sandbox::build_globals(&mut state, versions).map_err(|error| error.to_string())?;
        state.set_memory_limit(memory_limit);
        Ok(Self { state })
    }

    /// Sets the limit of the memory in bytes; 0: none.
    pub fn set_memory_limit(&self, limit: usize) {
        self.state.set_memory_limit(limit);
    }

    /// Bytes that the state takes.
    pub fn used_memory(&self) -> usize {
        self.state.used_memory()
    }

    /// Compiles a script, whose chunk is named `user_script`.
    ///
    /// # Errors
    /// The text of the syntax error.
    pub fn compile(&self, source: &[u8]) -> Result<Function, Vec<u8>> {
        self.limit_garbage();
        self.state.load(source, c"@user_script").map(Function)
    }

    /// Drops a compiled function.
    pub fn release(&self, function: Function) {
        self.state.release(function.0);
    }

    /// Runs a function and writes the reply. `host` serves the commands that it calls.
    ///
    /// # Errors
    /// How the script failed; then nothing is written.
    pub fn run(
        &self,
        function: &Function,
        input: Input<'_>,
        host: &mut dyn Host,
        reply: &mut ReplyWriter,
    ) -> Result<(), ScriptError> {
        let start = reply.out.len();
        let mut error = ScriptError::default();
        let mut has_failed = false;
        let ran = self.state.with_host(host, || {
            self.state.protect(|stack| {
                has_failed = !run_function(stack, &self.state, function, input, reply, &mut error);
            })
        });
        if ran.is_err() {
            // Outside of the script's own call: while its reply was written.
            let refusal = self.state.slot().refusal.get();
            error.text = refusal.map_or(OUT_OF_MEMORY, str::as_bytes).to_vec();
            has_failed = true;
        }
        self.limit_garbage();
        if !has_failed {
            return Ok(());
        }
        reply.out.truncate(start);
        Err(error)
    }

    /// Collects garbage if the memory is near its limit, so that the next script does not fail for
    /// what this one has left.
    fn limit_garbage(&self) {
        let limit = self.state.slot().memory_limit.get();
        if limit > 0 && self.used_memory() > limit / 2 {
            self.collect_garbage();
        }
    }

    /// Runs the code of a library; returns its functions.
    ///
    /// # Errors
    /// The text of the error, without a code for one of the syntax.
    pub fn load_library(
        &self,
        source: &[u8],
        host: &mut dyn Host,
    ) -> Result<Vec<RegisteredFunction>, LibraryError> {
        let code = self.state.load(source, c"@user_function").map_err(LibraryError::Syntax)?;
        let mut error = ScriptError::default();
        let mut has_failed = false;
        self.state.slot().registered.replace(Some(Vec::new()));
        let ran = self.state.with_host(host, || {
            self.state.protect(|stack| {
                has_failed = !registration::run_library(stack, &self.state, &code, &mut error);
            })
        });
        self.state.release(code);
        let registered = self.state.slot().registered.take().unwrap_or_default();
        self.limit_garbage();
        if ran.is_err() {
            error.text = OUT_OF_MEMORY.to_vec();
            has_failed = true;
        }
        if has_failed {
            for function in registered {
                self.release(function.function);
            }
            return Err(LibraryError::Failed(error.text));
        }
        Ok(registered)
    }

    /// Collects garbage.
    pub fn collect_garbage(&self) {
        self.state.slot().without_limit(|| {
            let _ = self.state.protect(|stack| stack.collect_garbage());
        });
    }
}

/// Why a library cannot be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LibraryError {
    /// It cannot be compiled.
    Syntax(Vec<u8>),
    /// Its code failed.
    Failed(Vec<u8>),
}

/// Pushes keys and arguments, calls the function and writes its reply; false if it failed.
fn run_function(
    stack: Stack<'_>,
    state: &State,
    function: &Function,
    input: Input<'_>,
    reply: &mut ReplyWriter,
    error: &mut ScriptError,
) -> bool {
    stack.reset_collector(state.slot());
    state.slot().refusal.set(None);
    state.slot().written_tables.set(0);
    stack.reset_hook();
    state.slot().version.set(ProtocolVersion::Resp2);
    stack.push_reference(state.error_handler());
    let handler = stack.top();
    stack.push_reference(&function.0);
    let count = match input.kind {
        CodeKind::Script => {
            arguments::fill(stack, state, [input.keys, input.argv]);
            0
        }
        CodeKind::Library => {
            arguments::push_strings(stack, input.keys);
            arguments::push_strings(stack, input.argv);
            2
        }
    };
    let has_ended = stack.call_protected(count, 1, handler);
    match has_ended {
        true => lua_values::write_reply(stack, state, reply),
        false => read_error(stack, error),
    }
    if input.kind == CodeKind::Script {
        arguments::empty(stack, state, [input.keys, input.argv]);
    }
    has_ended
}

/// Reads the error at the top, which the error handler has made a table. A memory error comes as a
/// text, without the handler.
fn read_error(stack: Stack<'_>, error: &mut ScriptError) {
    use crate::stack::ValueType;
    if stack.value_type(-1) != ValueType::Table {
        error.text.extend_from_slice(OUT_OF_MEMORY);
        return;
    }
    let table = stack.top();
    stack.push_raw_field(table, c"err");
    match stack.value_type(-1) {
        ValueType::String | ValueType::Number => error.text.extend_from_slice(stack.text(-1)),
        _ => error.text.extend_from_slice(b"ERR unknown error"),
    }
    stack.push_raw_field(table, c"ignore_error_stats_update");
    error.is_counted = stack.boolean(-1);
    stack.push_raw_field(table, c"source");
    stack.push_raw_field(table, c"line");
    let is_known = stack.value_type(-2) == ValueType::String;
    if is_known && stack.value_type(-1) == ValueType::Number {
        let source = String::from_utf8_lossy(stack.bytes(-2)).into_owned();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a line")]
        let line = stack.number(-1) as u32;
        error.position = Some((source, line));
    }
    stack.pop(4);
}
