//! The encoder of `cjson`.
//!
//! It walks nested tables with the Lua stack and an array of levels, and so needs no recursion. The
//! Lua stack holds the value, and for each level a key and the value at it, or the element:
//!
//! ```text
//! buffer value | key value | key value | element | ...
//! ```

use super::{ARRAY_MARK, AS_NULL, Settings};
use crate::buffer::Buffer;
use crate::number::truncate_to_i32;
use crate::stack::{Stack, ValueType};
use cowherd_resp::format_general;
use std::ffi::c_int;

/// Upvalue with the buffer between two calls.
const BUFFER: c_int = 2;

/// Levels that need no second array.
const SHALLOW: usize = 32;

/// More levels than the Lua stack has room for.
const DEEPEST: usize = 8000;

/// Bytes that strings have as an escape sequence.
const IS_ESCAPED: [bool; 256] = {
    let mut escaped = [false; 256];
    let mut byte = 0;
    while byte < 32 {
        escaped[byte] = true;
        byte += 1;
    }
    escaped[b'"' as usize] = true;
    escaped[b'\\' as usize] = true;
    escaped[b'/' as usize] = true;
    escaped[127] = true;
    escaped
};

/// A table that is being encoded.
#[derive(Clone, Copy)]
enum Level {
    /// An array of `length` elements, of which `done` are encoded.
    Array { length: c_int, done: c_int },
    /// An object, and whether a member is encoded.
    Object { has_member: bool },
}

const EMPTY_LEVEL: Level = Level::Object { has_member: false };

struct Encoder<'call> {
    stack: Stack<'call>,
    settings: Settings,
    buffer: Buffer<'call>,
    /// Number of levels.
    depth: usize,
}

/// `encode(value)`: the value as JSON.
pub(super) fn encode(stack: Stack<'_>) -> c_int {
    stack.check_argument(stack.top() == 1, 1, "expected 1 argument");
    let settings = Settings::of(stack);
    let buffer = Buffer::take_below(stack, BUFFER);
    let mut encoder = Encoder { stack, settings, buffer, depth: 0 };
    let mut levels = [EMPTY_LEVEL; SHALLOW];
    if !encoder.run(&mut levels) {
        encoder.run_deep(&levels);
    }
    encoder.buffer.finish(settings.keep_buffer != 0);
    1
}

impl Encoder<'_> {
    /// Continues where [`Self::run`] found no more levels.
    #[cold]
    #[inline(never)]
    fn run_deep(&mut self, shallow: &[Level]) {
        let mut levels = [EMPTY_LEVEL; DEEPEST];
        levels[..shallow.len()].copy_from_slice(shallow);
        let done = self.run(&mut levels);
        debug_assert!(done, "the Lua stack has fewer levels");
    }

    /// Encodes the value at the top. Returns false, before a table, if it needs another level.
    fn run(&mut self, levels: &mut [Level]) -> bool {
        loop {
            if self.stack.value_type(-1) == ValueType::Table {
                let Some(level) = levels.get_mut(self.depth) else {
                    return false;
                };
                if let Some(opened) = self.open_table() {
                    *level = opened;
                    self.depth += 1;
                }
            } else {
                self.append_scalar(-1);
            }
            // The value at the top is encoded. Next is the one after it, or the end of its table.
            while let Some(level) = self.depth.checked_sub(1).and_then(|at| levels.get_mut(at)) {
                if self.push_next(level) {
                    break;
                }
                self.depth -= 1;
            }
            if self.depth == 0 {
                return true;
            }
        }
    }

    /// Writes the beginning of the table at the top, or all of a table without elements.
    fn open_table(&mut self) -> Option<Level> {
        let depth = self.depth + 1;
        // Two slots for a key and a value; the buffer has one more than the original.
        let most = usize::try_from(self.settings.encode_max_depth).unwrap_or(0);
        if depth > most || !self.stack.check_stack(2) {
            self.stack.raise(format_args!("Cannot serialise, excessive nesting ({depth})"));
        }
        let length = self.array_length();
        if length > 0 {
            self.buffer.push(b'[');
            return Some(Level::Array { length, done: 0 });
        }
        if length == 0 && self.stack.has_metatable_flag(ARRAY_MARK) {
            self.buffer.extend(b"[]");
            return None;
        }
        self.buffer.push(b'{');
        Some(Level::Object { has_member: false })
    }

    /// Pops the last value of a table and pushes the next one, after writing what stands between.
    /// Returns false at the end of the table, which is the value at the top then.
    fn push_next(&mut self, level: &mut Level) -> bool {
        match level {
            Level::Array { length, done } => {
                if *done > 0 {
                    self.stack.pop(1);
                }
                if done == length {
                    self.buffer.push(b']');
                    return false;
                }
                if *done > 0 {
                    self.buffer.push(b',');
                }
                *done += 1;
                self.stack.push_element(-1, *done);
            }
            Level::Object { has_member } => {
                if *has_member {
                    self.stack.pop(1);
                } else {
                    self.stack.push_nil();
                }
                if !self.stack.next(-2) {
                    self.buffer.push(b'}');
                    return false;
                }
                if *has_member {
                    self.buffer.push(b',');
                }
                *has_member = true;
                self.append_key();
            }
        }
        true
    }

    /// The largest index of the table at the top, 0 if it is empty, or a negative number if it is
    /// an object.
    fn array_length(&mut self) -> c_int {
        let stack = self.stack;
        let (mut largest, mut count) = (0_i32, 0_i32);
        stack.push_nil();
        while stack.next(-2) {
            let index =
                if stack.value_type(-2) == ValueType::Number { stack.number(-2) } else { 0.0 };
            if index < 1.0 || index.floor() != index {
                stack.pop(2);
                return -1;
            }
            if index > f64::from(largest) {
                // An index that does not fit makes the table an object.
                largest = truncate_to_i32(index);
            }
            count = count.wrapping_add(1);
            stack.pop(1);
        }
        let Settings { sparse_ratio, sparse_safe, sparse_convert, .. } = self.settings;
        let is_sparse =
            sparse_ratio > 0 && largest > count.wrapping_mul(sparse_ratio) && largest > sparse_safe;
        if is_sparse {
            if sparse_convert == 0 {
                self.refuse(-1, "excessively sparse array");
            }
            return -1;
        }
        largest
    }

    /// Writes the key below the top.
    fn append_key(&mut self) {
        match self.stack.value_type(-2) {
            ValueType::Number => {
                self.buffer.push(b'"');
                self.append_number(-2);
                self.buffer.extend(b"\":");
            }
            ValueType::String => {
                self.append_string(-2);
                self.buffer.push(b':');
            }
            _ => self.refuse(-2, "table key must be a number or string"),
        }
    }

    fn append_scalar(&mut self, index: c_int) {
        match self.stack.value_type(index) {
            ValueType::String => self.append_string(index),
            ValueType::Number => self.append_number(index),
            ValueType::Boolean if self.stack.boolean(index) => self.buffer.extend(b"true"),
            ValueType::Boolean => self.buffer.extend(b"false"),
            ValueType::Nil => self.buffer.extend(b"null"),
            ValueType::LightUserdata if self.stack.is_null(index) => self.buffer.extend(b"null"),
            _ => self.refuse(index, "type not supported"),
        }
    }

    fn append_number(&mut self, index: c_int) {
        let number = self.stack.number(index);
        if !number.is_finite() {
            match self.settings.encode_invalid_numbers {
                0 => self.refuse(index, "must not be NaN or Inf"),
                AS_NULL => return self.buffer.extend(b"null"),
                _ if number.is_nan() => return self.buffer.extend(b"nan"),
                _ => {}
            }
        }
        let precision = usize::try_from(self.settings.number_precision).unwrap_or(1);
        self.buffer.extend(format_general(number, precision).as_bytes());
    }

    fn append_string(&mut self, index: c_int) {
        let mut rest = self.stack.bytes(index);
        self.buffer.push(b'"');
        while let Some(at) = rest.iter().position(|&byte| IS_ESCAPED[usize::from(byte)]) {
            self.buffer.extend(&rest[..at]);
            self.append_escape(rest[at]);
            rest = &rest[at + 1..];
        }
        self.buffer.extend(rest);
        self.buffer.push(b'"');
    }

    fn append_escape(&mut self, byte: u8) {
        let letter = match byte {
            b'"' | b'\\' | b'/' => byte,
            8 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            12 => b'f',
            b'\r' => b'r',
            _ => {
                let digit = |value| b"0123456789abcdef"[usize::from(value)];
                let text = [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)];
                return self.buffer.extend(&text);
            }
        };
        self.buffer.extend(&[b'\\', letter]);
    }

    /// Raises an error about the value at `index`.
    fn refuse(&self, index: c_int, reason: &str) -> ! {
        let name = self.stack.type_name(index);
        self.stack.raise(format_args!("Cannot serialise {name}: {reason}"))
    }
}
