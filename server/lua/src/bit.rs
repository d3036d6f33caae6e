//! The library `bit`: operations on 32-bit integers, as LuaBitOp 1.0.2 defines them.
//!
//! An argument is rounded to the nearest integer, ties to even, and reduced modulo 2^32; results
//! are signed. From 2^51 on, the rounding takes the bits that the addition below leaves, as the
//! original does. Shift counts are taken modulo 32.

use crate::stack::{Stack, ValueType};
use std::ffi::c_int;

/// 2^52 + 2^51. A number plus this one has its integer part in the low bits of its mantissa.
const INTEGER_IN_LOW_BITS: f64 = 6_755_399_441_055_744.0;

/// Digits of a 32-bit integer in hexadecimal.
const MAX_DIGITS: u32 = 8;

/// Pushes the library.
pub(crate) fn push_library(stack: Stack<'_>) {
    stack.push_table();
    stack.push_function(|stack| unary(stack, |n| n), 0);
    stack.set_field(c"tobit");
    stack.push_function(|stack| unary(stack, |n| !n), 0);
    stack.set_field(c"bnot");
    stack.push_function(|stack| unary(stack, u32::swap_bytes), 0);
    stack.set_field(c"bswap");
    stack.push_function(|stack| fold(stack, |a, b| a & b), 0);
    stack.set_field(c"band");
    stack.push_function(|stack| fold(stack, |a, b| a | b), 0);
    stack.set_field(c"bor");
    stack.push_function(|stack| fold(stack, |a, b| a ^ b), 0);
    stack.set_field(c"bxor");
    stack.push_function(|stack| shift(stack, u32::wrapping_shl), 0);
    stack.set_field(c"lshift");
    stack.push_function(|stack| shift(stack, u32::wrapping_shr), 0);
    stack.set_field(c"rshift");
    stack.push_function(|stack| shift(stack, arithmetic_shift), 0);
    stack.set_field(c"arshift");
    stack.push_function(|stack| shift(stack, u32::rotate_left), 0);
    stack.set_field(c"rol");
    stack.push_function(|stack| shift(stack, u32::rotate_right), 0);
    stack.set_field(c"ror");
    stack.push_function(to_hexadecimal, 0);
    stack.set_field(c"tohex");
}

/// An argument as an integer.
fn bits(stack: Stack<'_>, argument: c_int) -> u32 {
    let bits = (stack.number_argument(argument) + INTEGER_IN_LOW_BITS).to_bits();
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
    return bits as u32;
}

fn push_bits(stack: Stack<'_>, value: u32) -> c_int {
    stack.push_number(f64::from(value.cast_signed()));
    1
}

fn unary(stack: Stack<'_>, operation: impl Fn(u32) -> u32) -> c_int {
    let value = bits(stack, 1);
    push_bits(stack, operation(value))
}

fn fold(stack: Stack<'_>, operation: impl Fn(u32, u32) -> u32) -> c_int {
    let mut value = bits(stack, 1);
    // From the last one on, which decides which of two wrong arguments an error names.
    for argument in (2..=stack.top()).rev() {
        value = operation(value, bits(stack, argument));
    }
    push_bits(stack, value)
}

fn shift(stack: Stack<'_>, operation: impl Fn(u32, u32) -> u32) -> c_int {
    let value = bits(stack, 1);
    let count = bits(stack, 2) & 31;
    push_bits(stack, operation(value, count))
}

fn arithmetic_shift(value: u32, count: u32) -> u32 {
    value.cast_signed().wrapping_shr(count).cast_unsigned()
}

/// `tohex(value, digits)`: the low digits; upper case if `digits` is negative.
fn to_hexadecimal(stack: Stack<'_>) -> c_int {
    let mut value = bits(stack, 1);
    let digits = match stack.value_type(2) {
        ValueType::None => MAX_DIGITS.cast_signed(),
        _ => bits(stack, 2).cast_signed(),
    };
    let alphabet = if digits < 0 { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    let count = digits.unsigned_abs().min(MAX_DIGITS) as usize;
    let mut text = [0; MAX_DIGITS as usize];
    for digit in text[..count].iter_mut().rev() {
        *digit = alphabet[(value & 15) as usize];
        value >>= 4;
    }
    stack.push_bytes(&text[..count]);
    1
}
