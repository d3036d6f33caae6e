//! `cmsgpack.unpack`, `unpack_one` and `unpack_limit`.
//!
//! Nested containers are on the Lua stack, each with the index or key of the value that is being
//! unpacked; an array of levels says what each is.

use crate::number::low_i32;
use crate::stack::Stack;
use std::ffi::c_int;

/// Levels that need no second array.
const SHALLOW: usize = 32;

/// More levels than the Lua stack has room for.
const DEEPEST: usize = 8000;

const TOO_MANY: &str = "too many return values at once; use unpack_one or unpack_limit instead.";

/// A container that is being unpacked, with the number of values or pairs that it still lacks.
#[derive(Clone, Copy)]
enum Level {
    Array {
        left: u32,
        index: u32,
    },
    /// The next value is a key.
    Key {
        left: u32,
    },
    /// The next value belongs to the key at the top.
    Value {
        left: u32,
    },
}

const EMPTY_LEVEL: Level = Level::Key { left: 0 };

/// Why input cannot be unpacked.
enum Fault {
    MissingBytes,
    BadFormat,
}

/// An unpacked value, or the beginning of a container.
#[derive(Clone, Copy)]
enum Item<'call> {
    Nil,
    Boolean(bool),
    Number(f64),
    String(&'call [u8]),
    Array(u32),
    Map(u32),
}

struct Unpacker<'call> {
    stack: Stack<'call>,
    rest: &'call [u8],
    /// Number of levels.
    depth: usize,
}

/// `unpack(text)`: all values.
pub(super) fn unpack(stack: Stack<'_>) -> c_int {
    unpack_values(stack, 0, 0)
}

/// `unpack_one(text, offset)`: the offset after the value, or -1 at the end; the value.
pub(super) fn unpack_one(stack: Stack<'_>) -> c_int {
    let offset = stack.optional_integer(2, 0);
    keep_first_argument(stack);
    unpack_values(stack, 1, offset)
}

/// `unpack_limit(text, limit, offset)`: as `unpack_one`, with up to `limit` values.
pub(super) fn unpack_limit(stack: Stack<'_>) -> c_int {
    let limit = stack.integer_argument(2);
    let offset = stack.optional_integer(3, 0);
    keep_first_argument(stack);
    unpack_values(stack, limit, offset)
}

fn keep_first_argument(stack: Stack<'_>) {
    if stack.top() > 1 {
        stack.set_top(1);
    }
}

/// Pushes the values from `offset` on, at most `limit`; all if both are 0. Returns their number,
/// with the new offset unless it is all.
fn unpack_values(stack: Stack<'_>, limit: i64, offset: i64) -> c_int {
    let text = stack.bytes_argument(1);
    let shown_offset = low_i32(offset);
    let shown_length = low_i32(i64::try_from(text.len()).unwrap_or(i64::MAX));
    let start = match (usize::try_from(offset), usize::try_from(limit)) {
        (Ok(start), Ok(_)) => start,
        _ => stack.raise(format_args!(
            "Invalid request to unpack with offset of {shown_offset} and limit of {shown_length}."
        )),
    };
    let Some(rest) = text.get(start..) else {
        stack.raise(format_args!(
            "Start offset {shown_offset} greater than input length {shown_length}."
        ));
    };
    let is_all = limit == 0 && offset == 0;
    let limit = if is_all { i64::from(i32::MAX) } else { limit };

    let mut unpacker = Unpacker { stack, rest, depth: 0 };
    let mut count = 0;
    while !unpacker.rest.is_empty() && i64::from(count) < limit {
        match unpacker.push_value() {
            Ok(()) => count += 1,
            Err(Fault::MissingBytes) => stack.raise(format_args!("Missing bytes in input.")),
            Err(Fault::BadFormat) => stack.raise(format_args!("Bad data format in input.")),
        }
    }
    if !is_all {
        stack.require_stack(1, TOO_MANY);
        let end = i64::try_from(text.len() - unpacker.rest.len()).unwrap_or(i64::MAX);
        let offset = if unpacker.rest.is_empty() { -1 } else { end };
        #[expect(clippy::cast_precision_loss, reason = "the length of a string")]
        stack.push_number(offset as f64);
        stack.insert(2);
        count += 1;
    }
    count
}

impl<'call> Unpacker<'call> {
    fn push_value(&mut self) -> Result<(), Fault> {
        let mut levels = [EMPTY_LEVEL; SHALLOW];
        match self.run(None, &mut levels)? {
            None => Ok(()),
            Some(container) => self.run_deep(container, &levels),
        }
    }

    /// Continues where [`Self::run`] found no more levels.
    #[cold]
    #[inline(never)]
    fn run_deep(&mut self, container: Item<'call>, shallow: &[Level]) -> Result<(), Fault> {
        let mut levels = [EMPTY_LEVEL; DEEPEST];
        levels[..shallow.len()].copy_from_slice(shallow);
        let left = self.run(Some(container), &mut levels)?;
        debug_assert!(left.is_none(), "the Lua stack has fewer levels");
        Ok(())
    }

    /// Pushes one value, which begins with `item` if that is read already. Returns a container,
    /// which is pushed, if its content needs another level.
    fn run(
        &mut self,
        mut item: Option<Item<'call>>,
        levels: &mut [Level],
    ) -> Result<Option<Item<'call>>, Fault> {
        loop {
            let current = match item.take() {
                Some(container) => container,
                None => self.push_item()?,
            };
            if let Item::Array(left @ 1..) | Item::Map(left @ 1..) = current {
                let Some(level) = levels.get_mut(self.depth) else {
                    return Ok(Some(current));
                };
                self.depth += 1;
                *level = if matches!(current, Item::Array(_)) {
                    self.stack.push_number(1.0);
                    Level::Array { left, index: 1 }
                } else {
                    Level::Key { left }
                };
                continue;
            }
            // The value at the top is complete.
            loop {
                let Some(level) = self.depth.checked_sub(1).and_then(|at| levels.get_mut(at))
                else {
                    return Ok(None);
                };
                if self.store(level) {
                    break;
                }
                self.depth -= 1;
            }
        }
    }

    /// Stores the value at the top in its container. Returns false if the container is complete,
    /// and then at the top.
    fn store(&self, level: &mut Level) -> bool {
        match level {
            Level::Array { left, index } => {
                self.stack.set_entry();
                *left -= 1;
                *index = index.wrapping_add(1);
                if *left > 0 {
                    self.stack.push_number(f64::from(*index));
                }
                *left > 0
            }
            Level::Key { left } => {
                *level = Level::Value { left: *left };
                true
            }
            Level::Value { left } => {
                self.stack.set_entry();
                let left = *left - 1;
                *level = Level::Key { left };
                left > 0
            }
        }
    }

    /// Reads an item and pushes it; a container is pushed empty.
    fn push_item(&mut self) -> Result<Item<'call>, Fault> {
        let stack = self.stack;
        stack.require_stack(1, TOO_MANY);
        let item = self.read_item()?;
        match item {
            Item::Nil => stack.push_nil(),
            Item::Boolean(value) => stack.push_boolean(value),
            Item::Number(number) => stack.push_number(number),
            Item::String(bytes) => stack.push_bytes(bytes),
            Item::Map(_) => stack.push_table(),
            Item::Array(_) => {
                stack.push_table();
                stack.require_stack(1, "in function mp_decode_to_lua_array");
            }
        }
        Ok(item)
    }

    fn read_item(&mut self) -> Result<Item<'call>, Fault> {
        let [code] = self.read()?;
        let item = match code {
            0..=0x7F => Item::Number(f64::from(code)),
            0x80..=0x8F => Item::Map(u32::from(code & 15)),
            0x90..=0x9F => Item::Array(u32::from(code & 15)),
            0xA0..=0xBF => self.read_string(u32::from(code & 31))?,
            0xC0 => Item::Nil,
            0xC2 => Item::Boolean(false),
            0xC3 => Item::Boolean(true),
            0xCA => Item::Number(f64::from(f32::from_be_bytes(self.read()?))),
            0xCB => Item::Number(f64::from_be_bytes(self.read()?)),
            0xCC | 0xD9 | 0xCD | 0xDA | 0xDC | 0xDE | 0xCE | 0xDB | 0xDD | 0xDF => {
                let value = self.read_unsigned(code)?;
                match code {
                    0xD9..=0xDB => self.read_string(value)?,
                    0xDC | 0xDD => Item::Array(value),
                    0xDE | 0xDF => Item::Map(value),
                    _ => Item::Number(f64::from(value)),
                }
            }
            0xD0 => Item::Number(f64::from(i8::from_be_bytes(self.read()?))),
            0xD1 => Item::Number(f64::from(i16::from_be_bytes(self.read()?))),
            0xD2 => Item::Number(f64::from(i32::from_be_bytes(self.read()?))),
            0xCF | 0xD3 => {
                // Both as signed integers.
                let value = i64::from_be_bytes(self.read()?);
                #[expect(clippy::cast_precision_loss, reason = "numbers of Lua")]
                Item::Number(value as f64)
            }
            0xE0.. => Item::Number(f64::from(code.cast_signed())),
            0xC1 | 0xC4..=0xC9 | 0xD4..=0xD8 => return Err(Fault::BadFormat),
        };
        Ok(item)
    }

    /// The unsigned integer after `code`.
    fn read_unsigned(&mut self, code: u8) -> Result<u32, Fault> {
        match code {
            0xCC | 0xD9 => Ok(u32::from(u8::from_be_bytes(self.read()?))),
            0xCD | 0xDA | 0xDC | 0xDE => Ok(u32::from(u16::from_be_bytes(self.read()?))),
            _ => Ok(u32::from_be_bytes(self.read()?)),
        }
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Fault::MissingBytes)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn read_string(&mut self, length: u32) -> Result<Item<'call>, Fault> {
        let at = self.rest.split_at_checked(length as usize);
        let (bytes, rest) = at.ok_or(Fault::MissingBytes)?;
        self.rest = rest;
        Ok(Item::String(bytes))
    }
}
