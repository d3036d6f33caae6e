//! The numbers of INCRBYFLOAT: the 80-bit floating-point format of x86, computed with integers.
//!
//! Redis replies sums in this format, rounded to 17 decimals: 0.1 + 0.2 = 0.3. A double, or a
//! decimal of any other width, gives other last digits. This module computes the format bit by bit
//! on every machine: parsing, addition and printing round half to even, as the processor and the C
//! library do.
//!
//! A number is `mantissa * 2^exponent` with the top bit of the mantissa set. Denormal numbers keep
//! all 64 bits of the mantissa, since the difference is far below 17 decimals.

use std::fmt::Write as _;

use super::biguint::BigUint;

/// A longer text is no number in Redis either.
const MAX_TEXT: usize = 5119;
/// The decimals of a printed number.
const DECIMALS: usize = 17;
const ONE: u128 = 100_000_000_000_000_000;
/// Finite numbers are below two to this power.
const TOP: i64 = 16_384;
/// Numbers below two to this power round to zero.
const BOTTOM: i64 = -16_446;
/// Bound of the decimal exponent, beyond which a number is too large or too small in any case.
const MAX_DECIMAL_EXPONENT: i64 = 5_000;

/// A number of 80 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::commands) enum Extended {
    /// Infinity of either sign: a sum with infinity is an error.
    Infinite,
    /// `mantissa * 2^exponent`, or its negative.
    Finite {
        /// The sign.
        negative: bool,
        /// The top bit is set, unless the number is zero.
        mantissa: u64,
        /// The power of two.
        exponent: i64,
    },
}

impl Extended {
    /// Positive zero.
    pub const ZERO: Self = Self::Finite { negative: false, mantissa: 0, exponent: 0 };

    /// Parses the notations of `strtold`, decimal, hexadecimal and infinity, up to the end of the
    /// text. Returns `None` also for numbers that overflow the format or underflow to zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite);
        }
        match text {
            [b'0', b'x' | b'X', hex @ ..] => parse_hex(negative, hex),
            decimal => parse_decimal(negative, decimal),
        }
    }

    /// A number that is not zero and beyond the range of doubles, as the largest or the smallest
    /// double.
    pub const fn clamp_to_f64(self) -> f64 {
        let (negative, magnitude) = match self {
            Self::Infinite => (false, f64::INFINITY),
            Self::Finite { negative, exponent: 1.., .. } => (negative, f64::MAX),
            Self::Finite { negative, .. } => (negative, f64::MIN_POSITIVE),
        };
        if negative { -magnitude } else { magnitude }
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        use Extended::Finite;
        let (Finite { exponent: mine, .. }, Finite { exponent: theirs, .. }) = (self, other) else {
            return Self::Infinite;
        };
        let (high, low) = if mine >= theirs { (self, other) } else { (other, self) };
        match (high, low) {
            (Finite { mantissa: 0, .. }, sum) | (sum, Finite { mantissa: 0, .. }) => sum,
            (
                Finite { negative, mantissa: high, exponent },
                Finite { negative: other, mantissa: low, exponent: low_exponent },
            ) => {
                // The sum has 62 more bits below the mantissa; the last one is the sticky bit.
                let high = u128::from(high) << 62;
                let low = shifted(u128::from(low) << 62, exponent.abs_diff(low_exponent));
                let (negative, bits) = match negative == other {
                    true => (negative, high + low),
                    false => (negative ^ (low > high), high.abs_diff(low)),
                };
                Self::rounded(negative, bits, exponent - 62)
            }
            _ => Self::Infinite,
        }
    }

    /// `bits * 2^exponent`, rounded.
    fn rounded(negative: bool, bits: u128, exponent: i64) -> Self {
        let width = i64::from(128 - bits.leading_zeros());
        if width == 0 {
            return Self::ZERO;
        }
        // The top 64 bits, and all others below them.
        let aligned = bits << bits.leading_zeros();
        let mut exponent = exponent + width - 64;
        let [mut mantissa, rest] = halves(aligned);
        let half = 1 << 63;
        if rest > half || rest == half && mantissa & 1 == 1 {
            mantissa = mantissa.wrapping_add(1);
            if mantissa == 0 {
                (mantissa, exponent) = (1 << 63, exponent + 1);
            }
        }
        match exponent + 64 > TOP {
            true => Self::Infinite,
            false => Self::Finite { negative, mantissa, exponent },
        }
    }

    /// The number with at most 17 decimals and no exponent; `None` for infinity.
    pub fn text(self) -> Option<String> {
        let Self::Finite { negative, mantissa, exponent } = self else { return None };
        let magnitude = if exponent <= 0 {
            fraction_text(mantissa, exponent.unsigned_abs())
        } else {
            let mut whole = BigUint::from(mantissa);
            whole.shift(exponent.unsigned_abs());
            whole.text()
        };
        let minus = if negative && magnitude != "0" { "-" } else { "" };
        Some(format!("{minus}{magnitude}"))
    }
}

/// `bits >> by`, with the last bit set if any bit that was shifted out is set (a sticky bit).
fn shifted(bits: u128, by: u64) -> u128 {
    match u32::try_from(by).ok().and_then(|by| bits.checked_shr(by)) {
        Some(left) => left | u128::from(left << by != bits),
        None => u128::from(bits != 0),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "splits the number")]
const fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}

/// `mantissa / 2^shift` with 17 decimals, without trailing zeros.
fn fraction_text(mantissa: u64, shift: u64) -> String {
    // Below 2^121.
    let scaled = u128::from(mantissa) * ONE;
    let units = match u32::try_from(shift).ok().filter(|shift| *shift < 128) {
        None => 0,
        Some(0) => scaled,
        Some(shift) => {
            let (units, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
            let half = 1 << (shift - 1);
            units + u128::from(rest > half || rest == half && units & 1 == 1)
        }
    };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "{}.{:0DECIMALS$}", units / ONE, units % ONE);
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text
}

/// Digits with at most one decimal point, and the rest of the text.
struct Digits<'t> {
    /// All digits as one number.
    number: BigUint,
    /// The number of digits from the first nonzero one on.
    significant: i64,
    /// The number of digits after the decimal point.
    decimals: i64,
    rest: &'t [u8],
}

impl<'t> Digits<'t> {
    fn parse(text: &'t [u8], base: u8) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(base.into());
        let (mut number, mut significant, mut decimals) = (BigUint::from(0), 0, 0);
        let (mut has_point, mut len, mut end) = (false, 0, text.len());
        for (i, byte) in text.iter().enumerate() {
            if *byte == b'.' && !has_point {
                has_point = true;
            } else if let Some(digit) = digit(*byte) {
                number.multiply_add(base.into(), digit.into());
                significant += i64::from(significant > 0 || digit > 0);
                decimals += i64::from(has_point);
                len += 1;
            } else {
                end = i;
                break;
            }
        }
        (len > 0).then_some(Self { number, significant, decimals, rest: &text[end..] })
    }

    /// The exponent after the digits, which starts with `mark`; 0 if the text ends there. Any other
    /// text makes the number invalid. Huge exponents are capped.
    fn exponent(&self, mark: u8) -> Option<i64> {
        let [first, rest @ ..] = self.rest else { return Some(0) };
        let (sign, digits) = match rest {
            [b'-', digits @ ..] => (-1, digits),
            [b'+', digits @ ..] => (1, digits),
            digits => (1, digits),
        };
        if first.to_ascii_lowercase() != mark || digits.is_empty() {
            return None;
        }
        let mut size = 0i64;
        for byte in digits {
            let digit = char::from(*byte).to_digit(10)?;
            size = (size * 10 + i64::from(digit)).min(1 << 40);
        }
        Some(sign * size)
    }
}

fn parse_decimal(negative: bool, text: &[u8]) -> Option<Extended> {
    let mut digits = Digits::parse(text, 10)?;
    let scale = digits.exponent(b'e')? - digits.decimals;
    if digits.significant == 0 {
        return Some(Extended::ZERO);
    }
    if (digits.significant + scale).abs() > MAX_DECIMAL_EXPONENT {
        return None;
    }
    let mut divisor = BigUint::from(1);
    if scale >= 0 {
        digits.number.times_power_of_ten(scale.unsigned_abs());
    } else {
        divisor.times_power_of_ten(scale.unsigned_abs());
    }
    quotient(negative, digits.number, divisor, 0)
}

fn parse_hex(negative: bool, text: &[u8]) -> Option<Extended> {
    let digits = Digits::parse(text, 16)?;
    let exponent = digits.exponent(b'p')? - 4 * digits.decimals;
    if digits.significant == 0 {
        return Some(Extended::ZERO);
    }
    quotient(negative, digits.number, BigUint::from(1), exponent)
}

/// `number / divisor * 2^exponent`, rounded; neither is zero.
fn quotient(negative: bool, number: BigUint, divisor: BigUint, exponent: i64) -> Option<Extended> {
    /// Bits of the quotient, or one less. Rounding needs two more than the mantissa has.
    const BITS: i64 = 68;
    let (mut rest, mut divisor) = (number, divisor);
    // Scales one of both until the quotient has so many bits, then the divisor by that number, so
    // that each step of the long division yields the next bit.
    let scale = BITS - 1 - (rest.width() - divisor.width());
    if scale >= 0 {
        rest.shift(scale.unsigned_abs());
    } else {
        divisor.shift(scale.unsigned_abs());
    }
    divisor.shift(BITS.unsigned_abs() - 1);
    let mut bits = 0u128;
    for _ in 0..BITS {
        let fits = rest.subtract_if_fits(&divisor);
        bits = bits << 1 | u128::from(fits);
        rest.shift(1);
    }
    // The sticky bit: whether there is a remainder.
    let bits = bits << 1 | u128::from(!rest.is_zero());
    let exponent = exponent - scale - 1;
    let top = exponent + i64::from(128 - bits.leading_zeros());
    if top <= BOTTOM {
        return None;
    }
    match Extended::rounded(negative, bits, exponent) {
        Extended::Infinite => None,
        finite => Some(finite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let parse = |text: &str| Extended::parse(text.as_bytes());
        let Some((a, b)) = parse(a).zip(parse(b)) else { return "no float".into() };
        a.plus(b).text().unwrap_or_else(|| "not finite".into())
    }

    /// As redis-server 7.0.15 on x86-64 answers.
    #[test]
    fn sums_equal_those_of_redis() {
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-0", "-0", "0"),
            ("-1e-30", "0", "0"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e17", "0.3", "100000000000000000.29687500000000000"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "0.5", "18446744073709551616"),
            ("0x1p-3", "0x.8", "0.625"),
            (".5", "5.", "5.5"),
            ("inf", "1", "not finite"),
            ("1e4932", "1e4932", "not finite"),
            ("1e4933", "0", "no float"),
            ("1e-5000", "0", "no float"),
            ("1e-4940", "1", "1"),
            ("nan", "1", "no float"),
            ("", "1", "no float"),
            (" 1", "1", "no float"),
            ("1e", "1", "no float"),
            ("0x", "1", "no float"),
            (".", "1", "no float"),
        ] {
            let expected = match expected.contains('.') {
                true => expected.trim_end_matches('0'),
                false => expected,
            };
            assert_eq!(sum(a, b), expected, "{a} + {b}");
        }
        assert_eq!(sum("0x1p16383", "0").len(), 4932);
    }

    proptest::proptest! {
        /// Whole numbers of 64 bits are exact, and so are small sums to 17 decimals.
        #[test]
        fn decimals_add_up(
            a in -20_000i64..20_000,
            b in -20_000i64..20_000,
            large in -1i64 << 62..1 << 62,
        ) {
            let text = |n: i64| {
                let minus = if n < 0 { "-" } else { "" };
                format!("{minus}{}.{:04}", n.abs() / 10_000, n.abs() % 10_000)
            };
            let expected = text(a + b);
            let expected = expected.trim_end_matches('0').trim_end_matches('.');
            proptest::prop_assert_eq!(sum(&text(a), &text(b)), expected);
            let whole = sum(&a.to_string(), &large.to_string());
            proptest::prop_assert_eq!(whole, (a + large).to_string());
        }
    }
}
