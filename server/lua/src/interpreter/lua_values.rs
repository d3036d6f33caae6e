//! Lua values as replies.
//!
//! | Lua | RESP2 | RESP3 |
//! |---|---|---|
//! | string | bulk string | the same |
//! | number | integer, cut | the same |
//! | `false`, `true` | null, 1 | boolean, if the script has called `redis.setresp(3)` |
//! | `nil` and other types | null | the same |
//! | table with `err`, `ok` | error, status | the same |
//! | table with `double`, `map`, `set`, `big_number` | as RESP2 shows them | as such |
//! | table with `verbatim_string` | bulk string | as such |
//! | other table | array, up to the first `nil` | the same |

use std::ffi::c_int;

use cowherd_resp::{ProtocolVersion, ReplyWriter};

use crate::stack::protected::State;
use crate::stack::{Stack, ValueType};

use super::Slot;

/// Tables of a reply between two questions to the host.
const POLL_TABLES: u32 = 4096;
/// Largest reply in bytes that consists of many tables.
const MAX_REPLY: usize = 512 << 20;

/// The fields that make a table more than an array, in the order in which they are looked for.
pub(super) const FIELDS: [&str; 10] = [
    "err",
    "ok",
    "double",
    "map",
    "set",
    "big_number",
    "verbatim_string",
    "format",
    "string",
    "ignore_error_stats_update",
];
const ERR: c_int = 1;
const OK: c_int = 2;
const DOUBLE: c_int = 3;
const MAP: c_int = 4;
const SET: c_int = 5;
const BIG_NUMBER: c_int = 6;
const VERBATIM_STRING: c_int = 7;
const FORMAT: c_int = 8;
const STRING: c_int = 9;
const IS_COUNTED: c_int = 10;

/// Writes the value at the top as a reply, and pops it.
pub(super) fn write_reply(stack: Stack<'_>, state: &State, reply: &mut ReplyWriter) {
    stack.push_reference(state.field_names());
    stack.insert(-2);
    let names = stack.top() - 1;
    let is_new = state.slot().version.get() == ProtocolVersion::Resp3;
    Writer { stack, names, is_new, slot: state.slot() }.write(reply);
    stack.pop(1);
}

#[derive(Clone, Copy)]
struct Writer<'call, 's> {
    stack: Stack<'call>,
    slot: &'s Slot,
    /// Index of the table with the names of fields.
    names: c_int,
    /// Whether the script speaks RESP3.
    is_new: bool,
}

impl Writer<'_, '_> {
    /// Writes the value at the top, and pops it.
    fn write(self, reply: &mut ReplyWriter) {
        let stack = self.stack;
        if !stack.check_stack(6) {
            reply.error("ERR reached lua stack limit");
            return stack.pop(1);
        }
        match stack.value_type(-1) {
            ValueType::String => reply.bulk(stack.bytes(-1)),
            ValueType::Number => reply.integer(to_integer(stack.number(-1))),
            ValueType::Boolean if self.is_new => reply.boolean(stack.boolean(-1)),
            ValueType::Boolean if stack.boolean(-1) => reply.integer(1),
            ValueType::Table => self.write_table(reply),
            _ => reply.null(),
        }
        stack.pop(1);
    }

    /// Ends a reply that takes too long or too much: tables that contain others twice need little
    /// memory themselves.
    fn limit(self, reply: &ReplyWriter) {
        let written = self.slot.written_tables.get() + 1;
        self.slot.written_tables.set(written);
        if !written.is_multiple_of(POLL_TABLES) {
            return;
        }
        self.stack.poll();
        if reply.out.len() > MAX_REPLY {
            self.slot.refusal.set(Some("ERR the reply of the script is too large"));
            self.stack.raise(format_args!("the reply of the script is too large"));
        }
    }

    /// Pushes a named field of the table at `table`.
    fn push_field(self, table: c_int, name: c_int) -> ValueType {
        self.stack.push_element(self.names, name);
        self.stack.raw_get(table);
        self.stack.value_type(-1)
    }

    /// Writes the table at the top, which stays there.
    fn write_table(self, reply: &mut ReplyWriter) {
        let stack = self.stack;
        let table = stack.top();
        self.limit(reply);
        if self.push_field(table, ERR) == ValueType::String {
            let text = stack.text(-1);
            reply.error_bytes(text);
            self.push_field(table, IS_COUNTED);
            let is_counted = stack.boolean(-1);
            self.slot.host.with(|host| host.replied_error(text, is_counted));
            return stack.pop(2);
        }
        stack.pop(1);
        if self.push_field(table, OK) == ValueType::String {
            reply.simple_bytes(stack.text(-1));
            return stack.pop(1);
        }
        stack.pop(1);
        if self.push_field(table, DOUBLE) == ValueType::Number {
            reply.double(stack.number(-1));
            return stack.pop(1);
        }
        stack.pop(1);
        if self.push_field(table, MAP) == ValueType::Table {
            self.write_entries(reply, true);
            return stack.pop(1);
        }
        stack.pop(1);
        if self.push_field(table, SET) == ValueType::Table {
            self.write_entries(reply, false);
            return stack.pop(1);
        }
        stack.pop(1);
        if self.push_field(table, BIG_NUMBER) == ValueType::String {
            reply.big_number(stack.bytes(-1));
            return stack.pop(1);
        }
        stack.pop(1);
        if self.push_field(table, VERBATIM_STRING) == ValueType::Table && self.write_text(reply) {
            return stack.pop(1);
        }
        stack.pop(1);
        let array = reply.deferred_array();
        let mut count = 0;
        loop {
            stack.push_element(table, count + 1);
            if stack.value_type(-1) == ValueType::Nil {
                break;
            }
            count += 1;
            self.write(reply);
        }
        stack.pop(1);
        reply.set_array_len(array, usize::try_from(count).unwrap_or_default());
    }

    /// Writes the table at the top as a map or a set.
    fn write_entries(self, reply: &mut ReplyWriter, is_map: bool) {
        let stack = self.stack;
        let table = stack.top();
        let entries = reply.deferred_array();
        let mut count = 0;
        stack.push_nil();
        while stack.next(table) {
            count += 1;
            // The key stays for the next step.
            stack.push_copy(-2);
            self.write(reply);
            if is_map { self.write(reply) } else { stack.pop(1) }
        }
        match is_map {
            true => reply.set_map_len(entries, count),
            false => reply.set_set_len(entries, count),
        }
    }

    /// Writes the table at the top as a verbatim string, if it is one.
    fn write_text(self, reply: &mut ReplyWriter) -> bool {
        let stack = self.stack;
        let table = stack.top();
        let has_format = self.push_field(table, FORMAT) == ValueType::String;
        let has_text = self.push_field(table, STRING) == ValueType::String;
        if has_format && has_text {
            // A format of another length is cut or filled up, as Redis does.
            let mut format = *b"   ";
            for (byte, given) in format.iter_mut().zip(stack.text(-2)) {
                *byte = *given;
            }
            reply.verbatim(&format, stack.bytes(-1));
        }
        stack.pop(2);
        has_format && has_text
    }
}

/// An integer from a number as the processor converts it: what does not fit becomes the least.
fn to_integer(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "it fits")]
    match number {
        number if (-LIMIT..LIMIT).contains(&number) => number as i64,
        _ => i64::MIN,
    }
}
