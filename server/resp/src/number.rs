//! Conversion between numbers and text by Redis's rules.
//!
//! Parsing is strict: the whole text is the number, without surrounding space. An integer has one
//! canonical spelling (no `+`, no leading zero, no `-0`), so that a value stored as an integer
//! prints the same bytes again. Formatting does not allocate.

use std::fmt::{self, Write as _};
use std::ops::Deref;

pub use general::{NumberText, format_general};

mod general;

/// Upper bound for the text of a double: a sign, a point, seven zeros and 17 digits.
const DOUBLE_TEXT_MAX: usize = 32;

/// Largest magnitude (2^62) at which a double without fraction is written as a plain integer.
const PLAIN_INTEGER_BOUND: f64 = 4_611_686_018_427_387_904.0;

/// Parses a signed integer in its canonical spelling; `None` for anything else.
#[inline]
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    match text {
        [b'-', digits @ ..] => match parse_u64(digits)? {
            0 => None,
            magnitude => 0_i64.checked_sub_unsigned(magnitude),
        },
        digits => i64::try_from(parse_u64(digits)?).ok(),
    }
}

/// Parses an unsigned integer in its canonical spelling; `None` for anything else.
#[inline]
#[must_use]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    /// Any number of this many digits fits into 64 bits.
    const ALWAYS_FITS: usize = 19;
    match text {
        [] => return None,
        [b'0'] => return Some(0),
        [b'0', ..] => return None,
        _ if text.len() > ALWAYS_FITS + 1 => return None,
        _ => {}
    }
    let (head, last) = text.split_at(text.len().min(ALWAYS_FITS));
    let mut value = 0_u64;
    for byte in head {
        value = value * 10 + digit(*byte)?;
    }
    for byte in last {
        value = value.checked_mul(10)?.checked_add(digit(*byte)?)?;
    }
    Some(value)
}

/// The bytes before the first zero byte, where a text ends for functions of the C library.
#[must_use]
pub fn before_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Parses an unsigned integer as Redis reads cursors and the parts of stream ids: in its canonical
/// spelling, or as C's `strtoull` does, with blanks, a sign and leading zeros before the digits.
/// The text ends at its first zero byte. A negative number wraps unless its spelling is canonical.
#[must_use]
pub fn parse_u64_loose(text: &[u8]) -> Option<u64> {
    if let Some(number) = parse_i64(text) {
        return u64::try_from(number).ok();
    }
    let text = before_zero(text);
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let (negative, digits) = match &text[blanks..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits
        .iter()
        .try_fold(0_u64, |number, byte| number.checked_mul(10)?.checked_add(digit(*byte)?))?;
    Some(if negative { number.wrapping_neg() } else { number })
}

#[inline]
fn digit(byte: u8) -> Option<u64> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(u64::from(digit))
}

/// Parses a double as the C library's `strtod` does; the whole text must be the number.
///
/// Accepts decimal and hexadecimal (`0x1p-3`) notation, `inf` and `infinity` in any case. Returns
/// `None` for NaN, on overflow, and on underflow to zero.
#[must_use]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let value = parse_hex_f64(hex.as_bytes())?;
        return Some(if text.starts_with('-') { -value } else { value });
    }
    let value: f64 = text.parse().ok()?;
    let overflowed = value.is_infinite() && !unsigned.starts_with(['i', 'I']);
    let underflowed = value == 0.0 && {
        let mantissa = unsigned.split(['e', 'E']).next().unwrap_or_default();
        mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
    };
    (!value.is_nan() && !overflowed && !underflowed).then_some(value)
}

/// Parses the text after `0x`: hexadecimal digits with at most one point, then optionally `p` and a
/// decimal exponent of two.
fn parse_hex_f64(text: &[u8]) -> Option<f64> {
    /// Below this value the mantissa has four spare bits for one more hexadecimal digit.
    const MANTISSA_LIMIT: u64 = 1 << 60;
    let mantissa_len = text.iter().position(|b| matches!(b, b'p' | b'P')).unwrap_or(text.len());
    let (mut mantissa, mut exponent) = (0_u64, 0_i64);
    let (mut digits, mut fraction) = (0_usize, false);
    for &byte in &text[..mantissa_len] {
        if byte == b'.' && !fraction {
            fraction = true;
            continue;
        }
        let digit = u64::from(char::from(byte).to_digit(16)?);
        digits += 1;
        if mantissa < MANTISSA_LIMIT {
            mantissa = mantissa << 4 | digit;
            exponent -= if fraction { 4 } else { 0 };
        } else {
            // Sticky bit: rounding depends only on whether any dropped digit is not zero.
            mantissa |= u64::from(digit != 0);
            exponent += if fraction { 0 } else { 4 };
        }
    }
    if digits == 0 {
        return None;
    }
    if let Some(power) = text.get(mantissa_len + 1..) {
        exponent = exponent.saturating_add(parse_exponent(power)?);
    } else if mantissa_len < text.len() {
        return None;
    }
    // The cast rounds to the nearest double.
    let value = scale(mantissa as f64, exponent);
    (value.is_finite() && (value != 0.0 || mantissa == 0)).then_some(value)
}

/// Parses a decimal exponent with an optional sign; a huge one is clamped to a value that over- or
/// underflows anyway.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    const EXPONENT_LIMIT: i64 = 1 << 40;
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_i64;
    for byte in digits {
        value = (value * 10 + i64::try_from(digit(*byte)?).ok()?).min(EXPONENT_LIMIT);
    }
    Some(if negative { -value } else { value })
}

/// Computes `value * 2^exponent` in steps, because 2^exponent alone may exceed a double.
fn scale(mut value: f64, exponent: i64) -> f64 {
    const STEP: i32 = 512;
    // 2^4096 takes every non-zero double out of range.
    let mut left = i32::try_from(exponent.clamp(-4096, 4096)).unwrap_or_default();
    while left != 0 {
        let step = left.clamp(-STEP, STEP);
        value *= 2.0_f64.powi(step);
        left -= step;
    }
    value
}

/// Text of a double in an inline buffer; from [`format_double`].
#[derive(Clone, Copy)]
pub struct DoubleText {
    bytes: [u8; DOUBLE_TEXT_MAX],
    len: usize,
}

impl DoubleText {
    const fn new() -> Self {
        Self { bytes: [0; DOUBLE_TEXT_MAX], len: 0 }
    }

    /// The text as ASCII bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text as a string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn push(&mut self, text: &[u8]) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }

    fn zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }
}

impl fmt::Write for DoubleText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > DOUBLE_TEXT_MAX - self.len {
            return Err(fmt::Error);
        }
        self.push(text.as_bytes());
        Ok(())
    }
}

impl Deref for DoubleText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for DoubleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Formats a double in the shortest form that parses back to the same double, laid out as in Redis
/// 7.2 and later: `3`, `3.5`, `0.00001`, `1e-7`, `1e+20`, `-0`, `inf`, `-inf`, `nan`.
#[must_use]
pub fn format_double(value: f64) -> DoubleText {
    let mut text = DoubleText::new();
    if value.is_nan() {
        text.push(b"nan");
    } else if value.is_infinite() {
        text.push(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        text.push(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.abs() <= PLAIN_INTEGER_BOUND && value.fract() == 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and 2^62 at most")]
        let whole = value as i64;
        text.push(itoa::Buffer::new().format(whole).as_bytes());
    } else {
        format_fraction(value, &mut text);
    }
    text
}

/// Formats a finite double that is not a plain integer: the standard library gives the shortest
/// digits, and this function places the point.
fn format_fraction(value: f64, text: &mut DoubleText) {
    if value < 0.0 {
        text.push(b"-");
    }
    let mut scientific = DoubleText::new();
    // At most 17 digits, a point and `e-324`: they fit.
    let _ = write!(scientific, "{:e}", value.abs());
    let mut parts = scientific.as_str().split('e');
    let mut digits = DoubleText::new();
    for part in parts.next().unwrap_or_default().split('.') {
        digits.push(part.as_bytes());
    }
    let exponent: i32 = parts.next().and_then(|part| part.parse().ok()).unwrap_or_default();
    let count = digits.len();
    let size = usize::try_from(exponent.unsigned_abs()).unwrap_or_default();

    // `trailing` is the power of ten of the last digit.
    let trailing = exponent - i32::try_from(count - 1).unwrap_or_default();
    if trailing >= 0 && size < count + 7 {
        text.push(&digits);
        text.zeros(usize::try_from(trailing).unwrap_or_default());
    } else if trailing < 0 && (trailing > -7 || size < 4) {
        if exponent < 0 {
            text.push(b"0.");
            text.zeros(size - 1);
            text.push(&digits);
        } else {
            text.push(&digits[..=size]);
            text.push(b".");
            text.push(&digits[size + 1..]);
        }
    } else {
        text.push(&digits[..1]);
        if count > 1 {
            text.push(b".");
            text.push(&digits[1..]);
        }
        text.push(if exponent < 0 { b"e-" } else { b"e+" });
        text.push(itoa::Buffer::new().format(size).as_bytes());
    }
}

#[cfg(test)]
mod tests;
