//! Numbers as text by the rules of C's `printf`.

use std::fmt::{self, Write as _};

/// Longest text of [`format_general`]: sign, 17 digits, a point, an exponent, and leading zeros.
const MAX_TEXT: usize = 48;

/// Text of a number in an inline buffer; from [`format_general`].
#[derive(Debug, Clone, Copy)]
pub struct NumberText {
    bytes: [u8; MAX_TEXT],
    length: usize,
}

impl NumberText {
    const fn new() -> Self {
        Self { bytes: [0; MAX_TEXT], length: 0 }
    }

    /// The text as ASCII bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, byte: u8) {
        if self.length < MAX_TEXT {
            self.bytes[self.length] = byte;
            self.length += 1;
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.push(byte);
        }
    }
}

impl fmt::Write for NumberText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text.as_bytes());
        Ok(())
    }
}

/// Formats as `%.{precision}g` of C with a precision of 1 to 17. Does not allocate.
#[must_use]
pub fn format_general(value: f64, precision: usize) -> NumberText {
    let mut text = NumberText::new();
    if value.is_nan() {
        text.extend(if value.is_sign_negative() { b"-nan" } else { b"nan" });
        return text;
    }
    if value.is_infinite() {
        text.extend(if value < 0.0 { b"-inf" } else { b"inf" });
        return text;
    }
    if let Some(integer) = short_integer(value, precision) {
        text.extend(itoa::Buffer::new().format(integer).as_bytes());
        return text;
    }

    let mut scientific = NumberText::new();
    let digits_after_point = precision - 1;
    let _ = write!(scientific, "{:.digits_after_point$e}", value.abs());
    let scientific = scientific.as_bytes();
    let e = scientific.iter().position(|&byte| byte == b'e').unwrap_or(scientific.len());
    let exponent = parse_exponent(scientific.get(e + 1..).unwrap_or_default());

    // The digits without their point and without zeros at the end; at least one.
    let mut digits = [0; 20];
    let mut count = 0;
    for &digit in scientific[..e].iter().filter(|&&byte| byte != b'.').take(digits.len()) {
        digits[count] = digit;
        count += 1;
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    if value.is_sign_negative() {
        text.push(b'-');
    }
    arrange_digits(&mut text, &digits[..count], exponent, precision);
    text
}

/// Writes digits, the first of which has the value 10^`exponent`, in the shorter notation.
fn arrange_digits(text: &mut NumberText, digits: &[u8], exponent: i32, precision: usize) {
    let whole = usize::try_from(exponent).ok();
    match whole {
        Some(exponent) if exponent < precision => {
            for position in 0..digits.len().max(exponent + 1) {
                if position == exponent + 1 {
                    text.push(b'.');
                }
                text.push(digits.get(position).copied().unwrap_or(b'0'));
            }
        }
        None if exponent >= -4 => {
            text.extend(b"0.");
            for _ in exponent..-1 {
                text.push(b'0');
            }
            text.extend(digits);
        }
        _ => {
            text.push(digits[0]);
            if digits.len() > 1 {
                text.push(b'.');
                text.extend(&digits[1..]);
            }
            text.extend(if exponent < 0 { b"e-" } else { b"e+" });
            let _ = write!(text, "{:02}", exponent.unsigned_abs());
        }
    }
}

fn parse_exponent(text: &[u8]) -> i32 {
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, text),
    };
    let value = digits.iter().fold(0, |value, digit| value * 10 + i32::from(digit - b'0'));
    if negative { -value } else { value }
}

/// The integer equal to `value` if it has at most `precision` digits. Negative zero has a sign in
/// text and is none.
fn short_integer(value: f64, precision: usize) -> Option<i64> {
    const LIMITS: [f64; 16] = {
        let mut limits = [1.0; 16];
        let mut i = 1;
        while i < limits.len() {
            limits[i] = limits[i - 1] * 10.0;
            i += 1;
        }
        limits
    };
    let limit = LIMITS[precision.min(15)];
    if value.abs() >= limit || (value == 0.0 && value.is_sign_negative()) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 10^15")]
    (value.fract() == 0.0).then_some(value as i64)
}
