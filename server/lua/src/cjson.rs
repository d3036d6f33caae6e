//! The library `cjson`: JSON, as lua-cjson 2.1.0 in Redis.
//!
//! - A table whose keys are all integers from 1 on is an array, with `null` in its gaps; any other
//!   table, also an empty one, is an object. Metatables do not matter.
//! - An array is refused as excessively sparse if its largest index is above 10 and above twice the
//!   number of elements. `encode_sparse_array` changes this.
//! - Nesting is limited to 1,000 levels. The settings can raise this, up to the 8,000 slots of
//!   Lua's stack for one call: 7,997 levels of arrays, 3,999 of objects. Neither direction
//!   recurses.
//! - The decoder accepts what `strtod` accepts as a number, and input ends at a null byte.
//! - `decode_array_with_array_mt` is of Redis 8.4: with it, an empty array is decoded to a table
//!   with a metatable that lets the encoder write an empty array again.
//!
//! `new` returns a library with settings of its own. The settings of the global `cjson` are shared
//! by all scripts.

mod decode;
mod encode;

use crate::number::low_i32;
use crate::stack::{ErrorText, SETTINGS, Stack, ValueType};
use std::ffi::{CStr, c_int};

/// Field of a metatable that marks a table as an array.
const ARRAY_MARK: &CStr = c"__is_cjson_array";

/// Largest setting of `encode_number_precision`.
const MAX_PRECISION: i32 = 14;

/// Setting `encode_invalid_numbers`: `null` instead of NaN and infinity.
const AS_NULL: i32 = 2;

/// Names of the settings of switches.
const OFF_ON: &[&CStr] = &[c"off", c"on"];

/// Settings of one instance of the library. Switches are 0 or 1.
#[derive(Debug, Clone, Copy)]
struct Settings {
    sparse_convert: i32,
    sparse_ratio: i32,
    sparse_safe: i32,
    encode_max_depth: i32,
    decode_max_depth: i32,
    encode_invalid_numbers: i32,
    decode_invalid_numbers: i32,
    keep_buffer: i32,
    number_precision: i32,
    mark_empty_arrays: i32,
}

impl Settings {
    const DEFAULT: Self = Self {
        sparse_convert: 0,
        sparse_ratio: 2,
        sparse_safe: 10,
        encode_max_depth: 1000,
        decode_max_depth: 1000,
        encode_invalid_numbers: 0,
        decode_invalid_numbers: 1,
        keep_buffer: 1,
        number_precision: MAX_PRECISION,
        mark_empty_arrays: 0,
    };

    fn of(stack: Stack<'_>) -> Self {
        let [
            sparse_convert,
            sparse_ratio,
            sparse_safe,
            encode_max_depth,
            decode_max_depth,
            encode_invalid_numbers,
            decode_invalid_numbers,
            keep_buffer,
            number_precision,
            mark_empty_arrays,
        ] = stack.settings();
        Self {
            sparse_convert,
            sparse_ratio,
            sparse_safe,
            encode_max_depth,
            decode_max_depth,
            encode_invalid_numbers,
            decode_invalid_numbers,
            keep_buffer,
            number_precision,
            mark_empty_arrays,
        }
    }

    fn values(self) -> [i32; SETTINGS] {
        [
            self.sparse_convert,
            self.sparse_ratio,
            self.sparse_safe,
            self.encode_max_depth,
            self.decode_max_depth,
            self.encode_invalid_numbers,
            self.decode_invalid_numbers,
            self.keep_buffer,
            self.number_precision,
            self.mark_empty_arrays,
        ]
    }
}

/// Pushes the library with default settings.
pub(crate) fn push_library(stack: Stack<'_>) {
    stack.push_table();
    stack.push_settings(Settings::DEFAULT.values());
    let settings = stack.top();

    stack.push_copy(settings);
    // The buffer that the encoder keeps.
    stack.push_nil();
    stack.push_function(encode::encode, 2);
    set_function(stack, c"encode");
    stack.push_copy(settings);
    stack.push_function(decode::decode, 1);
    set_function(stack, c"decode");
    stack.push_copy(settings);
    stack.push_function(encode_sparse_array, 1);
    set_function(stack, c"encode_sparse_array");
    stack.push_copy(settings);
    stack.push_function(encode_max_depth, 1);
    set_function(stack, c"encode_max_depth");
    stack.push_copy(settings);
    stack.push_function(decode_max_depth, 1);
    set_function(stack, c"decode_max_depth");
    stack.push_copy(settings);
    stack.push_function(encode_number_precision, 1);
    set_function(stack, c"encode_number_precision");
    stack.push_copy(settings);
    stack.push_function(encode_keep_buffer, 1);
    set_function(stack, c"encode_keep_buffer");
    stack.push_copy(settings);
    stack.push_function(encode_invalid_numbers, 1);
    set_function(stack, c"encode_invalid_numbers");
    stack.push_copy(settings);
    stack.push_function(decode_invalid_numbers, 1);
    set_function(stack, c"decode_invalid_numbers");
    stack.push_copy(settings);
    stack.push_function(decode_array_with_array_mt, 1);
    set_function(stack, c"decode_array_with_array_mt");
    stack.push_function(new, 0);
    set_function(stack, c"new");
    stack.pop(1);

    stack.push_null();
    stack.set_field(c"null");
    stack.push_bytes(b"cjson");
    stack.set_field(c"_NAME");
    stack.push_bytes(b"2.1.0");
    stack.set_field(c"_VERSION");
}

/// Pops a function and stores it in the table below the settings.
fn set_function(stack: Stack<'_>, name: &CStr) {
    stack.push_copy(-3);
    stack.insert(-2);
    stack.set_field(name);
    stack.pop(1);
}

/// `new()`: an instance with default settings.
fn new(stack: Stack<'_>) -> c_int {
    push_library(stack);
    1
}

/// Requires at most `count` arguments, and appends `nil` up to that number.
fn fill_arguments(stack: Stack<'_>, count: c_int) {
    stack.check_argument(stack.top() <= count, count + 1, "found too many arguments");
    stack.set_top(count);
}

/// Sets `setting` to an integer argument unless that is `nil`; pushes the setting.
fn integer_setting(
    stack: Stack<'_>,
    argument: c_int,
    setting: &mut i32,
    (least, most): (i32, i32),
) {
    if stack.value_type(argument) != ValueType::Nil {
        let value = low_i32(stack.integer_argument(argument));
        if !(least..=most).contains(&value) {
            let text = format_args!("expected integer between {least} and {most}");
            stack.raise_argument(1, &ErrorText::new(text));
        }
        *setting = value;
    }
    stack.push_number(f64::from(*setting));
}

/// Sets `setting` to a boolean argument, or to the position of its name in `names`; pushes the
/// setting. The first two names are those of false and true.
fn switch_setting(stack: Stack<'_>, argument: c_int, setting: &mut i32, names: &[&CStr]) {
    match stack.value_type(argument) {
        ValueType::Nil => {}
        ValueType::Boolean => *setting = i32::from(stack.boolean(argument)),
        _ => *setting = stack.option_argument(argument, names),
    }
    match *setting {
        value @ (0 | 1) => stack.push_boolean(value == 1),
        _ => stack.push_bytes(b"null"),
    }
}

/// Runs the function of one setting that is a switch.
fn change_switch(stack: Stack<'_>, names: &[&CStr], field: fn(&mut Settings) -> &mut i32) -> c_int {
    fill_arguments(stack, 1);
    let mut settings = Settings::of(stack);
    switch_setting(stack, 1, field(&mut settings), names);
    stack.store_settings(settings.values());
    1
}

/// Runs the function of one setting that is an integer from 1 on.
fn change_integer(stack: Stack<'_>, most: i32, field: fn(&mut Settings) -> &mut i32) -> c_int {
    fill_arguments(stack, 1);
    let mut settings = Settings::of(stack);
    integer_setting(stack, 1, field(&mut settings), (1, most));
    stack.store_settings(settings.values());
    1
}

fn encode_sparse_array(stack: Stack<'_>) -> c_int {
    fill_arguments(stack, 3);
    let mut settings = Settings::of(stack);
    // An error leaves the settings before it changed, as in the original.
    switch_setting(stack, 1, &mut settings.sparse_convert, OFF_ON);
    stack.store_settings(settings.values());
    integer_setting(stack, 2, &mut settings.sparse_ratio, (0, i32::MAX));
    stack.store_settings(settings.values());
    integer_setting(stack, 3, &mut settings.sparse_safe, (0, i32::MAX));
    stack.store_settings(settings.values());
    3
}

fn encode_max_depth(stack: Stack<'_>) -> c_int {
    change_integer(stack, i32::MAX, |settings| &mut settings.encode_max_depth)
}

fn decode_max_depth(stack: Stack<'_>) -> c_int {
    change_integer(stack, i32::MAX, |settings| &mut settings.decode_max_depth)
}

fn encode_number_precision(stack: Stack<'_>) -> c_int {
    change_integer(stack, MAX_PRECISION, |settings| &mut settings.number_precision)
}

fn encode_keep_buffer(stack: Stack<'_>) -> c_int {
    change_switch(stack, OFF_ON, |settings| &mut settings.keep_buffer)
}

fn encode_invalid_numbers(stack: Stack<'_>) -> c_int {
    let names = &[c"off", c"on", c"null"];
    change_switch(stack, names, |settings| &mut settings.encode_invalid_numbers)
}

fn decode_invalid_numbers(stack: Stack<'_>) -> c_int {
    change_switch(stack, OFF_ON, |settings| &mut settings.decode_invalid_numbers)
}

fn decode_array_with_array_mt(stack: Stack<'_>) -> c_int {
    change_switch(stack, OFF_ON, |settings| &mut settings.mark_empty_arrays)
}
