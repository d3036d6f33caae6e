use proptest::prelude::*;

use super::*;

#[test]
fn integers_have_one_spelling() {
    for (text, value) in [
        ("0", 0),
        ("7", 7),
        ("-1", -1),
        ("1234567890", 1_234_567_890),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        assert_eq!(parse_i64(text.as_bytes()), Some(value), "{text}");
    }
    for text in [
        "",
        "-",
        "+1",
        " 1",
        "1 ",
        "01",
        "00",
        "-0",
        "-01",
        "1a",
        "a",
        "1.0",
        "--1",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999",
        "18446744073709551616",
        "111111111111111111111111111111",
    ] {
        assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn unsigned_integers_reach_u64_max() {
    assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
    assert_eq!(parse_u64(b"18446744073709551616"), None);
    assert_eq!(parse_u64(b"99999999999999999999"), None);
    assert_eq!(parse_u64(b"9999999999999999999"), Some(9_999_999_999_999_999_999));
    assert_eq!(parse_u64(b"-1"), None);
}

#[test]
fn doubles_read_as_strtod_reads_them() {
    for (text, value) in [
        ("3", 3.0),
        ("+5", 5.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1e3", -1000.0),
        ("1E+2", 100.0),
        ("0e999", 0.0),
        ("inf", f64::INFINITY),
        ("+Inf", f64::INFINITY),
        ("-infinity", f64::NEG_INFINITY),
        ("5e-324", 5e-324),
        ("1.7976931348623157e308", f64::MAX),
        ("0x10", 16.0),
        ("0x1p3", 8.0),
        ("-0X.8P+1", -1.0),
        ("0x1.fffffffffffffp1023", f64::MAX),
        ("0x1p-1074", 5e-324),
        ("0x10000000000000000", 18_446_744_073_709_551_616.0),
        ("0x0p99999", 0.0),
    ] {
        assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text}");
    }
    for text in [
        "",
        " 1",
        "1 ",
        "nan",
        "-NaN",
        "1e400",
        "-1e400",
        "1e-400",
        "1,5",
        "1_000",
        ".",
        "+",
        "e5",
        "1e",
        "--1",
        "+-1",
        "0x",
        "0x.",
        "0xg",
        "0x1p",
        "0x1p+",
        "0x1.2.3",
        "0x1p1024",
        "0x1p-1080",
        "infx",
        "0x1p99999999999999999999",
        "\u{663}",
    ] {
        assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(parse_f64(b"\xff"), None);
}

/// What redis-server 8.2 answers to ZADD and ZSCORE.
#[test]
fn doubles_print_as_redis_prints_them() {
    for (value, text) in [
        (3.0, "3"),
        (3.5, "3.5"),
        (-2.5, "-2.5"),
        (0.1, "0.1"),
        (0.0, "0"),
        (-0.0, "-0"),
        (1e8, "100000000"),
        (1.5e8, "150000000"),
        (9_007_199_254_740_992.0, "9007199254740992"),
        (1e18, "1000000000000000000"),
        (4.7e18, "4.7e+18"),
        (1e19, "1e+19"),
        (1e20, "1e+20"),
        (1.5e20, "1.5e+20"),
        (1e100, "1e+100"),
        (12_345_678_901_234_567_890.0, "12345678901234567000"),
        (1.25e-3, "0.00125"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-7, "1.5e-7"),
        (1.2345e-10, "1.2345e-10"),
        (1.234_567_890_123_456_7e-3, "0.0012345678901234567"),
        (1.234_567_890_123_456_7e-4, "1.2345678901234567e-4"),
        (123_456_789.123, "123456789.123"),
        (1e-300, "1e-300"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (-f64::MAX, "-1.7976931348623157e+308"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
    ] {
        assert_eq!(format_double(value).as_str(), text);
    }
}

proptest! {
    #[test]
    fn integers_read_back(value: i64, unsigned: u64) {
        prop_assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        prop_assert_eq!(parse_u64(unsigned.to_string().as_bytes()), Some(unsigned));
    }

    /// Only the canonical spelling may be accepted: a parsed text must print as the same text.
    #[test]
    fn integers_print_back(text in "[-+ 0-9]{0,22}") {
        if let Some(value) = parse_i64(text.as_bytes()) {
            prop_assert_eq!(value.to_string(), text.clone());
        }
        if let Some(value) = parse_u64(text.as_bytes()) {
            prop_assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn doubles_read_back(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(!value.is_nan());
        let text = format_double(value);
        prop_assert_eq!(parse_f64(&text).map(f64::to_bits), Some(bits), "{:?}", text);
    }

    #[test]
    fn short_decimals_read_back(value in -1e12..1e12_f64, digits in 0..12_i32) {
        let scale = 10_f64.powi(digits);
        let value = (value * scale).round() / scale;
        let text = format_double(value);
        prop_assert_eq!(parse_f64(&text), Some(value), "{:?}", text);
    }

    #[test]
    fn reading_never_panics(
        text in prop::collection::vec(any::<u8>(), 0..40),
        odd in "[-+0-9a-fxpe.]{0,30}",
    ) {
        let _ = (parse_i64(&text), parse_u64(&text), parse_f64(&text));
        let _ = parse_f64(odd.as_bytes());
    }
}

fn general(value: f64, precision: usize) -> String {
    String::from_utf8(format_general(value, precision).as_bytes().to_vec()).unwrap()
}

#[test]
fn numbers_are_formatted_as_printf_does() {
    let table = [
        (0.0, 14, "0"),
        (-0.0, 14, "-0"),
        (1.5, 14, "1.5"),
        (0.1 + 0.2, 14, "0.3"),
        (0.1 + 0.2, 17, "0.30000000000000004"),
        (1e14, 14, "1e+14"),
        (99_999_999_999_999.0, 14, "99999999999999"),
        (123_456_789_012_345.0, 14, "1.2345678901234e+14"),
        (1e15, 15, "1e+15"),
        (999_999_999_999_999.0, 15, "999999999999999"),
        (1e-4, 14, "0.0001"),
        (1e-5, 14, "1e-05"),
        (-1.25e-7, 14, "-1.25e-07"),
        (1e100, 14, "1e+100"),
        (f64::MAX, 14, "1.7976931348623e+308"),
        (5e-324, 14, "4.9406564584125e-324"),
        (1234.0, 3, "1.23e+03"),
        (999.5, 3, "1e+03"),
        (100.0, 3, "100"),
        (2.5, 1, "2"),
        (3.5, 1, "4"),
        (9.5, 1, "1e+01"),
        (95.0, 1, "1e+02"),
        (0.012_345, 2, "0.012"),
        (f64::INFINITY, 14, "inf"),
        (f64::NEG_INFINITY, 14, "-inf"),
    ];
    for (value, precision, expected) in table {
        assert_eq!(general(value, precision), expected, "{value:e}");
    }
}

#[test]
fn loose_integers_are_read_as_strtoull_does() {
    for (text, expected) in [
        (&b"0"[..], Some(0)),
        (b"18446744073709551615", Some(u64::MAX)),
        (b"18446744073709551616", None),
        (b" \t\x0b007", Some(7)),
        (b"+7", Some(7)),
        (b"7\x00x", Some(7)),
        (b"-0", Some(0)),
        (b" -1", Some(u64::MAX)),
        (b"-01", Some(u64::MAX)),
        (b"-9223372036854775809", Some(9_223_372_036_854_775_807)),
        (b"-1", None),
        (b"-9223372036854775808", None),
        (b"", None),
        (b" ", None),
        (b"+", None),
        (b"+-1", None),
        (b"7 ", None),
        (b"\x007", None),
        (b"0x7", None),
    ] {
        assert_eq!(parse_u64_loose(text), expected, "{}", text.escape_ascii());
    }
}
