//! The functions of the table `redis`.
//!
//! Errors of these functions are tables with `err`; `redis.pcall`, `error_reply` and `status_reply`
//! return them, the others raise them.

use std::ffi::c_int;

use cowherd_resp::{ProtocolVersion, format_double};
use sha1::{Digest as _, Sha1};

use crate::stack::{Stack, ValueType};

use super::Slot;
use super::reply_values::push_reply;

/// Severities of `redis.log`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// `LOG_DEBUG`.
    Debug,
    /// `LOG_VERBOSE`.
    Verbose,
    /// `LOG_NOTICE`.
    Notice,
    /// `LOG_WARNING`.
    Warning,
}

/// The numeric fields: log levels, and what `set_repl` takes.
pub(super) const NUMBERS: [(&str, f64); 9] = [
    ("LOG_DEBUG", 0.0),
    ("LOG_VERBOSE", 1.0),
    ("LOG_NOTICE", 2.0),
    ("LOG_WARNING", 3.0),
    ("REPL_NONE", 0.0),
    ("REPL_AOF", 1.0),
    ("REPL_SLAVE", 2.0),
    ("REPL_REPLICA", 2.0),
    ("REPL_ALL", 3.0),
];

const NO_COMMAND: &[u8] = b"ERR Please specify at least one argument for this redis lib call";
const WRONG_ARGUMENTS: &[u8] = b"ERR Lua redis lib command arguments must be strings or integers";
const WRONG_NUMBER_OR_TYPE: &[u8] = b"ERR wrong number or type of arguments";

/// Pushes the functions that scripts and functions have, into the table at the top.
pub(super) fn set_functions(stack: Stack<'_>, slot: &Slot) {
    let set = |name: &std::ffi::CStr, push: &dyn Fn(Stack<'_>)| {
        push(stack);
        stack.set_field(name);
    };
    set(c"call", &|stack| stack.push_slot_function(slot, |stack| call(stack, true)));
    set(c"pcall", &|stack| stack.push_slot_function(slot, |stack| call(stack, false)));
    set(c"acl_check_cmd", &|stack| stack.push_slot_function(slot, acl_check_cmd));
    set(c"setresp", &|stack| stack.push_slot_function(slot, setresp));
    set(c"log", &|stack| stack.push_slot_function(slot, log));
    set(c"error_reply", &|stack| stack.push_function(error_reply, 0));
    set(c"status_reply", &|stack| stack.push_function(status_reply, 0));
    set(c"sha1hex", &|stack| stack.push_function(sha1hex, 0));
    set(c"set_repl", &|stack| stack.push_function(set_repl, 0));
}

/// Pushes the functions that only scripts have, into the table at the top.
pub(super) fn set_script_functions(stack: Stack<'_>) {
    stack.push_function(|stack| push_one(stack, false), 0);
    stack.set_field(c"breakpoint");
    stack.push_function(|_| 0, 0);
    stack.set_field(c"debug");
    stack.push_function(|stack| push_one(stack, true), 0);
    stack.set_field(c"replicate_commands");
}

fn push_one(stack: Stack<'_>, value: bool) -> c_int {
    stack.push_boolean(value);
    1
}

/// `redis.log`.
pub(super) fn push_log(stack: Stack<'_>, slot: &Slot) {
    stack.push_slot_function(slot, log);
}

/// The arguments of a function as those of a command; the error if one is of another type.
fn collect(stack: Stack<'_>) -> Result<(), &'static [u8]> {
    // Nothing below raises an error while the buffer is borrowed.
    let mut args = stack.slot().args.borrow_mut();
    args.clear();
    let count = stack.top();
    if count == 0 {
        return Err(NO_COMMAND);
    }
    for i in 1..=count {
        match stack.value_type(i) {
            ValueType::String => args.push(stack.bytes(i)),
            ValueType::Number => push_number(stack.number(i), |text| args.push(text)),
            _ => return Err(WRONG_ARGUMENTS),
        }
    }
    Ok(())
}

/// A number as an argument: an integer of at most 63 bits without a fraction, else the shortest
/// text that gives the same number again.
fn push_number(number: f64, push: impl FnOnce(&[u8])) {
    const LIMIT: f64 = 4_611_686_018_427_387_904.0;
    if number.fract() == 0.0 && (-LIMIT..=LIMIT).contains(&number) {
        #[expect(clippy::cast_possible_truncation, reason = "it is an integer in the range")]
        push(itoa::Buffer::new().format(number as i64).as_bytes());
    } else if number.is_nan() {
        push(if number.is_sign_negative() { b"-nan" } else { b"nan" });
    } else {
        push(format_double(number).as_bytes());
    }
}

/// `redis.call` and `redis.pcall`.
fn call(stack: Stack<'_>, raises: bool) -> c_int {
    if let Err(text) = collect(stack) {
        stack.push_error_table(text);
    } else {
        run_command(stack.slot());
        stack.set_top(0);
        let reply = reply_of(stack.slot());
        push_reply(stack, reply);
        if reply.first() != Some(&b'-') {
            return 1;
        }
    }
    if raises {
        stack.raise_top();
    }
    1
}

/// Lets the host run the command in the buffer of arguments.
fn run_command(slot: &Slot) {
    let args = slot.args.borrow();
    let mut reply = slot.reply.borrow_mut();
    /// The buffer keeps so many bytes.
    const KEPT: usize = 64 << 10;
    if reply.out.capacity() > KEPT {
        reply.out = Vec::new();
    }
    reply.out.clear();
    reply.version = slot.version.get();
    let ran = slot.host.with(|host| host.call(&args.args(), &mut reply));
    if ran.is_none() {
        reply.error("ERR no command can be called here");
    }
}

/// The reply of the command that ran last. Not guarded: pushing it may raise an error, which jumps
/// over guards. Nothing else borrows the buffer before the next command.
fn reply_of(slot: &Slot) -> &[u8] {
    slot.last_reply()
}

fn acl_check_cmd(stack: Stack<'_>) -> c_int {
    if let Err(text) = collect(stack) {
        stack.raise_table(text);
    }
    match may_call(stack.slot()) {
        Some(may) => stack.push_boolean(may),
        None => stack.raise_table(b"ERR Invalid command passed to redis.acl_check_cmd()"),
    }
    1
}

fn may_call(slot: &Slot) -> Option<bool> {
    let args = slot.args.borrow();
    slot.host.with(|host| host.may_call(&args.args())).flatten()
}

fn setresp(stack: Stack<'_>) -> c_int {
    if stack.top() != 1 {
        stack.raise_table(b"ERR redis.setresp() requires one argument.");
    }
    let version = match stack.number(-1).trunc() {
        2.0 => ProtocolVersion::Resp2,
        3.0 => ProtocolVersion::Resp3,
        _ => stack.raise_table(b"ERR RESP version must be 2 or 3."),
    };
    stack.slot().version.set(version);
    0
}

fn log(stack: Stack<'_>) -> c_int {
    if stack.top() < 2 {
        stack.raise_table(b"ERR redis.log() requires two arguments or more.");
    }
    if !stack.is_number(1) {
        stack.raise_table(b"ERR First argument must be a number (log level).");
    }
    let level = match stack.number(1).trunc() {
        0.0 => LogLevel::Debug,
        1.0 => LogLevel::Verbose,
        2.0 => LogLevel::Notice,
        3.0 => LogLevel::Warning,
        _ => stack.raise_table(b"ERR Invalid log level."),
    };
    for i in 2..=stack.top() {
        // Numbers are converted in place, before anything is borrowed.
        if stack.value_type(i) == ValueType::Number {
            stack.bytes(i);
        }
    }
    write_log(stack, level);
    0
}

fn write_log(stack: Stack<'_>, level: LogLevel) {
    let texts = (2..=stack.top()).filter(|i| stack.value_type(*i) == ValueType::String);
    let text = texts.map(|i| stack.bytes(i)).collect::<Vec<_>>().join(&b' ');
    stack.slot().host.with(|host| host.log(level, &text));
}

/// A table with the given text as `err`, after an error code.
fn error_reply(stack: Stack<'_>) -> c_int {
    if stack.top() != 1 || stack.value_type(1) != ValueType::String {
        stack.push_error_table(WRONG_NUMBER_OR_TYPE);
        return 1;
    }
    let text = stack.text(1);
    let text = text.strip_prefix(b"-").unwrap_or(text);
    stack.push_table();
    if memchr::memchr(b' ', text).is_some() {
        stack.push_bytes(text);
    } else {
        // A text of one word has no code.
        stack.push_bytes(b"ERR ");
        stack.push_bytes(text);
        stack.concatenate(2);
    }
    stack.set_field(c"err");
    1
}

fn status_reply(stack: Stack<'_>) -> c_int {
    if stack.top() != 1 || stack.value_type(1) != ValueType::String {
        stack.push_error_table(WRONG_NUMBER_OR_TYPE);
        return 1;
    }
    stack.push_table();
    stack.push_copy(1);
    stack.set_field(c"ok");
    1
}

fn sha1hex(stack: Stack<'_>) -> c_int {
    if stack.top() != 1 {
        stack.raise_table(b"ERR wrong number of arguments");
    }
    let text = match stack.value_type(1) {
        ValueType::String | ValueType::Number => stack.bytes(1),
        _ => &[],
    };
    stack.push_bytes(&sha1_hex(text));
    1
}

/// The SHA-1 of some bytes in hexadecimal digits.
#[must_use]
pub fn sha1_hex(bytes: &[u8]) -> [u8; 40] {
    let mut text = [0; 40];
    for (digits, byte) in text.chunks_exact_mut(2).zip(Sha1::digest(bytes)) {
        for (digit, value) in digits.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = b"0123456789abcdef"[usize::from(value)];
        }
    }
    text
}

/// Accepted for compatibility: nothing is replicated.
fn set_repl(stack: Stack<'_>) -> c_int {
    if stack.top() != 1 {
        stack.raise_table(b"ERR redis.set_repl() requires one argument.");
    }
    #[expect(clippy::cast_possible_truncation, reason = "flags")]
    if stack.number(-1) as i64 & !3 != 0 {
        stack.raise_table(
            b"ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        );
    }
    0
}
