//! `cmsgpack.pack`.

use crate::buffer::Buffer;
use crate::number::truncate_to_i64;
use crate::stack::{ErrorText, Stack, ValueType};
use std::ffi::c_int;

/// Upvalue with the buffer between two calls.
const BUFFER: c_int = 1;

/// Tables below this number of levels are packed as nil. It bounds the recursion.
const MAX_NESTING: usize = 16;

/// Bytes before a string, array or map, by its length.
struct HeaderFormat {
    /// Code of a length below `short_limit`, to which the length is added.
    short: u8,
    short_limit: usize,
    /// Codes of lengths of 8, 16 and 32 bits.
    long: [Option<u8>; 3],
}

const STRING: HeaderFormat =
    HeaderFormat { short: 0xA0, short_limit: 32, long: [Some(0xD9), Some(0xDA), Some(0xDB)] };
const ARRAY: HeaderFormat =
    HeaderFormat { short: 0x90, short_limit: 16, long: [None, Some(0xDC), Some(0xDD)] };
const MAP: HeaderFormat =
    HeaderFormat { short: 0x80, short_limit: 16, long: [None, Some(0xDE), Some(0xDF)] };

struct Packer<'call> {
    stack: Stack<'call>,
    buffer: Buffer<'call>,
}

/// `pack(...)`: all arguments, one after the other.
pub(super) fn pack(stack: Stack<'_>) -> c_int {
    let count = stack.top();
    stack.check_argument(count > 0, 0, "MessagePack pack needs input.");
    if !stack.check_stack(count) || !stack.check_stack(2) {
        let text = format_args!("Too many arguments for MessagePack pack.");
        stack.raise_argument(0, &ErrorText::new(text));
    }
    let buffer = Buffer::take(stack, BUFFER);
    let mut packer = Packer { stack, buffer };
    for argument in 1..=count {
        // Each packed argument takes a slot, as its text does in the original, so that the limit of
        // the stack is reached with the same arguments. The buffer is the first of them.
        if argument > 2 {
            stack.push_nil();
        }
        stack.require_stack(1, "in function mp_check");
        stack.push_copy(argument);
        packer.pack_top(0);
    }
    packer.buffer.finish(true);
    1
}

impl Packer<'_> {
    /// Packs the value at the top and pops it.
    fn pack_top(&mut self, level: usize) {
        let stack = self.stack;
        match stack.value_type(-1) {
            ValueType::String => {
                let bytes = stack.bytes(-1);
                self.push_header(&STRING, bytes.len());
                self.buffer.extend(bytes);
            }
            ValueType::Boolean => self.buffer.push(if stack.boolean(-1) { 0xC3 } else { 0xC2 }),
            ValueType::Number => self.push_number(stack.number(-1)),
            ValueType::Table if level < MAX_NESTING => match self.array_length() {
                Some(length) => self.push_array(length, level),
                None => self.push_map(level),
            },
            _ => self.buffer.push(0xC0),
        }
        stack.pop(1);
    }

    /// Number of elements if the table at the top is an array.
    fn array_length(&self) -> Option<c_int> {
        let stack = self.stack;
        stack.require_stack(2, "in function table_is_an_array");
        let (mut count, mut largest) = (0_i32, 0.0_f64);
        stack.push_nil();
        while stack.next(-2) {
            let index =
                if stack.value_type(-2) == ValueType::Number { stack.number(-2) } else { 0.0 };
            if index < 1.0 || index.floor() != index {
                stack.pop(2);
                return None;
            }
            largest = largest.max(index);
            count = count.saturating_add(1);
            stack.pop(1);
        }
        (largest == f64::from(count)).then_some(count)
    }

    fn push_array(&mut self, length: c_int, level: usize) {
        self.push_header(&ARRAY, usize::try_from(length).unwrap_or(0));
        self.stack.require_stack(1, "in function mp_encode_lua_table_as_array");
        for index in 1..=length {
            self.stack.push_element(-1, index);
            self.pack_top(level + 1);
        }
    }

    fn push_map(&mut self, level: usize) {
        let stack = self.stack;
        stack.require_stack(3, "in function mp_encode_lua_table_as_map");
        let mut count = 0;
        stack.push_nil();
        while stack.next(-2) {
            count += 1;
            stack.pop(1);
        }
        self.push_header(&MAP, count);
        stack.push_nil();
        while stack.next(-2) {
            stack.push_copy(-2);
            self.pack_top(level + 1);
            self.pack_top(level + 1);
        }
    }

    fn push_header(&mut self, format: &HeaderFormat, length: usize) {
        let [byte_code, short_code, long_code] = format.long;
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length), _) if usize::from(length) < format.short_limit => {
                self.buffer.push(format.short | length);
            }
            (Ok(length), _) if byte_code.is_some() => self.push_coded(byte_code, &[length]),
            (_, Ok(length)) => self.push_coded(short_code, &length.to_be_bytes()),
            _ => {
                // `Buffer` accepts no strings of 4 GB, and no table of Lua has as many entries.
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                self.push_coded(long_code, &length.to_be_bytes());
            }
        }
    }

    fn push_coded(&mut self, code: Option<u8>, bytes: &[u8]) {
        self.buffer.push(code.unwrap_or_default());
        self.buffer.extend(bytes);
    }

    #[expect(clippy::cast_possible_truncation, reason = "ranges are checked, or bits compared")]
    fn push_number(&mut self, number: f64) {
        let integer = truncate_to_i64(number);
        #[expect(clippy::cast_precision_loss, reason = "compared with the number")]
        let is_integer = integer as f64 == number;
        if !is_integer {
            let short = number as f32;
            return if f64::from(short) == number {
                self.push_coded(Some(0xCA), &short.to_be_bytes());
            } else {
                self.push_coded(Some(0xCB), &number.to_be_bytes());
            };
        }
        match integer {
            -32..=127 => self.buffer.push(integer as u8),
            128..=0xFF => self.push_coded(Some(0xCC), &[integer as u8]),
            0x100..=0xFFFF => self.push_coded(Some(0xCD), &(integer as u16).to_be_bytes()),
            0x1_0000..=0xFFFF_FFFF => self.push_coded(Some(0xCE), &(integer as u32).to_be_bytes()),
            0x1_0000_0000.. => self.push_coded(Some(0xCF), &integer.to_be_bytes()),
            -128..-32 => self.push_coded(Some(0xD0), &[integer as u8]),
            -0x8000..-128 => self.push_coded(Some(0xD1), &(integer as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.push_coded(Some(0xD2), &(integer as i32).to_be_bytes()),
            ..-0x8000_0000 => self.push_coded(Some(0xD3), &integer.to_be_bytes()),
        }
    }
}
