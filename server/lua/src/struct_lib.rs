//! The library `struct`: structs of C in strings, as lstruct 0.2 in Redis.
//!
//! A format is a list of options; it ends at a null byte.
//!
//! | option | meaning |
//! |---|---|
//! | `<` `>` | little-endian (the default), big-endian |
//! | `!n` | alignment to at most n bytes, a power of two; 8 without n; 1 is the default |
//! | `b` `B` `h` `H` `l` `L` `T` | integers of 1, 2 and 8 bytes; capitals are unsigned |
//! | `in` `In` | integers of n bytes, up to 32; 4 without n |
//! | `f` `d` | floating-point numbers of 4 and 8 bytes |
//! | `x` | a zero byte |
//! | `cn` | n characters; 1 without n; `c0`: the whole string, or as many as the number before |
//! | `s` | a string and a null byte |
//! | space | nothing |
//!
//! Integers above 8 bytes have the rest filled with zeros, also negative ones. Such a size moves
//! the sign bit that `unpack` looks at modulo 64, as the original does on x86-64.

use crate::buffer::Buffer;
use crate::number::{truncate_to_i64, truncate_to_u64};
use crate::stack::{ErrorText, Stack};
use std::ffi::c_int;

/// Upvalue of `pack` with the buffer between two calls.
const BUFFER: c_int = 1;

/// Largest integer in bytes.
const MAX_INTEGER_SIZE: u32 = 32;

/// Alignment of `!` without a number.
const NATIVE_ALIGNMENT: u32 = 8;

/// Pushes the library.
pub(crate) fn push_library(stack: Stack<'_>) {
    stack.push_table();
    // The buffer that `pack` keeps.
    stack.push_nil();
    stack.push_function(pack, 1);
    stack.set_field(c"pack");
    stack.push_function(unpack, 0);
    stack.set_field(c"unpack");
    stack.push_function(size, 0);
    stack.set_field(c"size");
}

/// Reads a format, option by option.
struct Format<'call> {
    stack: Stack<'call>,
    rest: &'call [u8],
    big_endian: bool,
    alignment: u32,
}

impl<'call> Format<'call> {
    /// The format in the first argument.
    fn new(stack: Stack<'call>) -> Self {
        let text = stack.bytes_argument(1);
        let length = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        Self { stack, rest: &text[..length], big_endian: false, alignment: 1 }
    }

    /// The next option and its size.
    fn next(&mut self) -> Option<(u8, u32)> {
        let (&option, rest) = self.rest.split_first()?;
        self.rest = rest;
        let size = match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.number(1),
            b'i' | b'I' => {
                let size = self.number(4);
                if size > MAX_INTEGER_SIZE {
                    let limit = MAX_INTEGER_SIZE;
                    self.stack.raise(format_args!(
                        "integral size {size} is larger than limit of {limit}"
                    ));
                }
                size
            }
            _ => 0,
        };
        Some((option, size))
    }

    /// The number at the beginning of the rest; `default` without one. It fits an `int` of C.
    fn number(&mut self, default: u32) -> u32 {
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            return default;
        }
        let mut number = 0_i32;
        while let Some((digit @ b'0'..=b'9', rest)) = self.rest.split_first() {
            let next = number.checked_mul(10).and_then(|n| n.checked_add(i32::from(digit - b'0')));
            let Some(next) = next else {
                self.stack.raise(format_args!("integral size overflow"));
            };
            number = next;
            self.rest = rest;
        }
        number.unsigned_abs()
    }

    /// Number of bytes to skip at `position` before an option.
    fn padding(&self, position: u64, option: u8, size: u32) -> u64 {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = u64::from(size.min(self.alignment));
        (size - (position & (size - 1))) & (size - 1)
    }

    /// Applies an option that has no value.
    fn control(&mut self, option: u8) {
        match option {
            b' ' => {}
            b'>' => self.big_endian = true,
            b'<' => self.big_endian = false,
            b'!' => {
                let alignment = self.number(NATIVE_ALIGNMENT);
                if !alignment.is_power_of_two() {
                    let text = format_args!("alignment {alignment} is not a power of 2");
                    self.stack.raise(text);
                }
                self.alignment = alignment;
            }
            _ => {
                let text = ErrorText::new(format_args!("invalid format option '"));
                self.stack.raise_argument(1, &text.append(&[option]).append(b"'"));
            }
        }
    }
}

/// `pack(format, ...)`: the values as a string.
fn pack(stack: Stack<'_>) -> c_int {
    let mut format = Format::new(stack);
    // An absent argument is `nil` in error texts.
    stack.push_nil();
    let mut buffer = Buffer::take(stack, BUFFER);
    let mut position = 0;
    let mut argument = 2;
    while let Some((option, size)) = format.next() {
        let padding = format.padding(position, option, size);
        for _ in 0..padding {
            buffer.push(0);
        }
        position += padding + u64::from(size);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = stack.number_argument(argument);
                push_integer(&mut buffer, number, format.big_endian, size);
            }
            b'x' => {
                buffer.push(0);
                continue;
            }
            b'f' => {
                #[expect(clippy::cast_possible_truncation, reason = "rounded, as C does")]
                let bytes = (stack.number_argument(argument) as f32).to_le_bytes();
                push_ordered(&mut buffer, bytes, format.big_endian);
            }
            b'd' => {
                let bytes = stack.number_argument(argument).to_le_bytes();
                push_ordered(&mut buffer, bytes, format.big_endian);
            }
            b'c' | b's' => {
                let bytes = stack.bytes_argument(argument);
                let length = if size == 0 { bytes.len() } else { size as usize };
                let Some(bytes) = bytes.get(..length) else {
                    // The original counts the argument before this check.
                    let text = format_args!("string too short");
                    stack.raise_argument(argument + 1, &ErrorText::new(text));
                };
                buffer.extend(bytes);
                position += length as u64 - u64::from(size);
                if option == b's' {
                    buffer.push(0);
                    position += 1;
                }
            }
            _ => {
                format.control(option);
                continue;
            }
        }
        argument += 1;
    }
    buffer.finish(true);
    1
}

fn push_ordered<const N: usize>(buffer: &mut Buffer<'_>, mut bytes: [u8; N], big_endian: bool) {
    if big_endian {
        bytes.reverse();
    }
    buffer.extend(&bytes);
}

fn push_integer(buffer: &mut Buffer<'_>, number: f64, big_endian: bool, size: u32) {
    let value = if number < 0.0 {
        truncate_to_i64(number).cast_unsigned()
    } else {
        truncate_to_u64(number)
    };
    let mut bytes = [0; MAX_INTEGER_SIZE as usize];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    let bytes = &mut bytes[..size as usize];
    if big_endian {
        bytes.reverse();
    }
    buffer.extend(bytes);
}

/// `unpack(format, data, position)`: the values, and the position after them.
fn unpack(stack: Stack<'_>) -> c_int {
    let mut format = Format::new(stack);
    let data = stack.bytes_argument(2);
    let position = stack.optional_integer(3, 1);
    stack.check_argument(position != 0, 3, "offset must be 1 or greater");
    // A negative position is beyond all data, but padding can carry it over the end of the range.
    let mut position = position.cast_unsigned().wrapping_sub(1);
    let mut count = 0;
    while let Some((option, size)) = format.next() {
        let padding = format.padding(position, option, size);
        position = position.wrapping_add(padding);
        let mut bytes = slice(stack, data, position, u64::from(size));
        stack.require_stack(2, "too many results");
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                stack.push_number(read_integer(bytes, format.big_endian, option));
            }
            b'f' => {
                let bits = read_unsigned(bytes, format.big_endian);
                stack.push_number(f64::from(f32::from_bits(u32::try_from(bits).unwrap_or(0))));
            }
            b'd' => {
                let bits = read_unsigned(bytes, format.big_endian);
                stack.push_number(f64::from_bits(bits));
            }
            b'c' => {
                if size == 0 {
                    if count == 0 || !stack.is_number(-1) {
                        stack.raise(format_args!("format 'c0' needs a previous size"));
                    }
                    let size = truncate_to_u64(stack.number(-1));
                    bytes = slice(stack, data, position, size);
                    stack.pop(1);
                    count -= 1;
                }
                stack.push_bytes(bytes);
            }
            b's' => {
                let rest = usize::try_from(position).ok().and_then(|at| data.get(at..));
                let rest = rest.unwrap_or_default();
                let Some(length) = rest.iter().position(|&byte| byte == 0) else {
                    stack.raise(format_args!("unfinished string in data"));
                };
                stack.push_bytes(&rest[..length]);
                bytes = &rest[..=length];
            }
            b'x' => {
                position += 1;
                continue;
            }
            _ => {
                format.control(option);
                continue;
            }
        }
        count += 1;
        position += bytes.len() as u64;
    }
    let position = position.wrapping_add(1).cast_signed();
    #[expect(clippy::cast_precision_loss, reason = "numbers of Lua")]
    stack.push_number(position as f64);
    count + 1
}

/// Part of `data`; raises an error if the data is too short.
fn slice<'call>(stack: Stack<'_>, data: &'call [u8], position: u64, size: u64) -> &'call [u8] {
    let part = || {
        let start = usize::try_from(position).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        data.get(start..end)
    };
    match part() {
        Some(part) => part,
        None => {
            let text = format_args!("data string too short");
            stack.raise_argument(2, &ErrorText::new(text))
        }
    }
}

/// The low 64 bits of an integer.
fn read_unsigned(bytes: &[u8], big_endian: bool) -> u64 {
    let append = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of Lua")]
fn read_integer(bytes: &[u8], big_endian: bool, option: u8) -> f64 {
    let value = read_unsigned(bytes, big_endian);
    if option.is_ascii_uppercase() {
        return value as f64;
    }
    let sign_position = (bytes.len() * 8).wrapping_sub(1) % 64;
    let mask = u64::MAX << sign_position;
    let extended = if value & mask == 0 { value } else { value | mask };
    extended.cast_signed() as f64
}

/// `size(format)`: the length of the string that `pack` returns.
fn size(stack: Stack<'_>) -> c_int {
    let mut format = Format::new(stack);
    let mut position = 0_u64;
    while let Some((option, size)) = format.next() {
        position = position.wrapping_add(format.padding(position, option, size));
        let variable = match option {
            b's' => Some("option 's' has no fixed size"),
            b'c' if size == 0 => Some("option 'c0' has no fixed size"),
            _ => None,
        };
        if let Some(text) = variable {
            stack.raise_argument(1, &ErrorText::new(format_args!("{text}")));
        }
        if !option.is_ascii_alphanumeric() {
            format.control(option);
        }
        position = position.wrapping_add(u64::from(size));
    }
    #[expect(clippy::cast_precision_loss, reason = "the format is in memory")]
    stack.push_number(position as f64);
    1
}
