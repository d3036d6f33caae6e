//! Text as numbers by the rules of C's `strtod`, and C's conversions of numbers on x86-64, which
//! the libraries of Redis have. No function allocates.

/// 2^63.
const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;

/// Parses the longest prefix that `strtod` accepts, without spaces before it. Returns the number
/// and the length of the prefix.
pub(crate) fn parse_prefix(text: &[u8]) -> Option<(f64, usize)> {
    let sign_length = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let negative = text.first() == Some(&b'-');
    let body = &text[sign_length..];
    let (magnitude, length) = parse_magnitude(body)?;
    Some((if negative { -magnitude } else { magnitude }, sign_length + length))
}

fn parse_magnitude(text: &[u8]) -> Option<(f64, usize)> {
    let first = *text.first()?;
    if first == b'0' && matches!(text.get(1), Some(b'x' | b'X')) {
        // Without a digit after it, the `x` does not belong to the number.
        return Some(parse_hexadecimal(&text[2..]).map_or((0.0, 1), |(n, length)| (n, length + 2)));
    }
    if first.is_ascii_digit() || first == b'.' {
        return parse_decimal(text);
    }
    if starts_with_ignore_case(text, b"infinity") {
        return Some((f64::INFINITY, 8));
    }
    if starts_with_ignore_case(text, b"inf") {
        return Some((f64::INFINITY, 3));
    }
    if starts_with_ignore_case(text, b"nan") {
        return Some((f64::NAN.copysign(1.0), 3 + nan_payload_length(&text[3..])));
    }
    None
}

pub(crate) fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Length of `(letters_and_digits)` after `nan`; its value is ignored.
fn nan_payload_length(text: &[u8]) -> usize {
    if text.first() != Some(&b'(') {
        return 0;
    }
    let inner = text[1..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    if text.get(1 + inner) == Some(&b')') { inner + 2 } else { 0 }
}

fn count_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn parse_decimal(text: &[u8]) -> Option<(f64, usize)> {
    let whole = count_digits(text);
    let mut length = whole;
    let mut fraction = 0;
    if text.get(whole) == Some(&b'.') {
        fraction = count_digits(&text[whole + 1..]);
        length += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    let is_exponent = matches!(text.get(length), Some(b'e' | b'E'));
    if is_exponent {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'-' | b'+')));
        let digits = count_digits(&text[length + 1 + sign..]);
        if digits > 0 {
            length += 1 + sign + digits;
        }
    }
    if length <= 15 && length == whole {
        let integer = text[..length].iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
        #[expect(clippy::cast_precision_loss, reason = "below 10^15")]
        return Some((integer as f64, length));
    }
    let value = std::str::from_utf8(&text[..length]).ok()?.parse().ok()?;
    Some((value, length))
}

/// Parses digits after `0x`, with a point and a binary exponent. Returns `None` without a digit.
fn parse_hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let mut mantissa = 0_u64;
    let mut lost_bits = false;
    let mut exponent = 0_i64;
    let mut digits = 0;
    let mut has_point = false;
    let mut length = 0;
    for &byte in text {
        if byte == b'.' && !has_point {
            has_point = true;
        } else if let Some(digit) = hexadecimal_digit(byte) {
            digits += 1;
            if mantissa >> 60 == 0 {
                mantissa = mantissa << 4 | u64::from(digit);
                exponent -= if has_point { 4 } else { 0 };
            } else {
                lost_bits |= digit != 0;
                exponent += if has_point { 0 } else { 4 };
            }
        } else {
            break;
        }
        length += 1;
    }
    if digits == 0 {
        return None;
    }
    if matches!(text.get(length), Some(b'p' | b'P')) {
        let negative = text.get(length + 1) == Some(&b'-');
        let sign = usize::from(matches!(text.get(length + 1), Some(b'-' | b'+')));
        let digits = &text[length + 1 + sign..];
        let count = count_digits(digits);
        if count > 0 {
            let value = digits[..count].iter().fold(0_i64, |value, digit| {
                value.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
            });
            exponent = exponent.saturating_add(if negative { -value } else { value });
            length += 1 + sign + count;
        }
    }
    Some((scale(mantissa, lost_bits, exponent), length))
}

/// Value of a hexadecimal digit.
pub(crate) fn hexadecimal_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `mantissa` times 2^`exponent`, rounded to the nearest number, ties to even. `lost_bits` tells
/// that the exact value is a little larger.
fn scale(mantissa: u64, lost_bits: bool, exponent: i64) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    // Far beyond all numbers, and far from an overflow below.
    let exponent = exponent.clamp(-(1 << 40), 1 << 40);
    let leading = mantissa.leading_zeros();
    let mantissa = mantissa << leading;
    // Exponent of the highest bit, which is bit 63.
    let highest = exponent + 63 - i64::from(leading);
    if highest > 1023 {
        return f64::INFINITY;
    }
    // The last bit that a number of this size has; subnormal numbers have no smaller one.
    let last = (highest - 52).max(-1074);
    let dropped = last - (highest - 63);
    let Ok(dropped @ 0..=65) = u32::try_from(dropped) else {
        return 0.0;
    };
    let wide = u128::from(mantissa);
    let kept = wide >> dropped;
    let rest = wide & ((1 << dropped) - 1);
    let half = 1_u128 << (dropped - 1);
    let up = rest > half || (rest == half && (lost_bits || kept & 1 == 1));
    #[expect(clippy::cast_precision_loss, reason = "at most 2^53")]
    let kept = (kept + u128::from(up)) as f64;
    kept * power_of_two(last)
}

/// 2^`exponent`, for -1074 to 1023.
fn power_of_two(exponent: i64) -> f64 {
    let biased = u64::try_from(exponent + 1023).unwrap_or(0);
    if biased > 0 {
        f64::from_bits(biased << 52)
    } else {
        f64::from_bits(1 << (exponent + 1074).clamp(0, 51))
    }
}

/// C's conversion to a signed integer: towards zero, and the least integer for all that do not fit.
pub(crate) fn truncate_to_i64(value: f64) -> i64 {
    if (-TWO_POW_63..TWO_POW_63).contains(&value) {
        #[expect(clippy::cast_possible_truncation, reason = "fits, towards zero")]
        return value as i64;
    }
    i64::MIN
}

/// C's conversion to an unsigned integer, as compiled code does it: negative numbers wrap, those
/// from 2^64 on become 0, and what is no number becomes 2^63.
pub(crate) fn truncate_to_u64(value: f64) -> u64 {
    if value >= TWO_POW_63 {
        (truncate_to_i64(value - TWO_POW_63).cast_unsigned()) ^ (1 << 63)
    } else {
        truncate_to_i64(value).cast_unsigned()
    }
}

/// C's conversion to `int`: towards zero, and the least integer for all that do not fit.
pub(crate) fn truncate_to_i32(value: f64) -> i32 {
    i32::try_from(truncate_to_i64(value)).unwrap_or(i32::MIN)
}

/// The low 32 bits.
pub(crate) fn low_i32(value: i64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "C's conversion to int")]
    return value as i32;
}

#[cfg(test)]
mod tests;
