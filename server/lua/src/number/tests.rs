use super::*;
use cowherd_resp::format_general;
use proptest::prelude::*;

fn general(value: f64, precision: usize) -> String {
    String::from_utf8(format_general(value, precision).as_bytes().to_vec()).unwrap()
}

#[test]
fn numbers_are_parsed_as_strtod_does() {
    let table = [
        ("12", Some((12.0, 2))),
        ("-0", Some((-0.0, 2))),
        ("+7x", Some((7.0, 2))),
        ("1.", Some((1.0, 2))),
        (".5", Some((0.5, 2))),
        ("1e", Some((1.0, 1))),
        ("1e+", Some((1.0, 1))),
        ("1e5", Some((1e5, 3))),
        ("1e400", Some((f64::INFINITY, 5))),
        ("1e-400", Some((0.0, 6))),
        ("123456789012345678901234567890", Some((123_456_789_012_345_678_901_234_567_890.0, 30))),
        ("0x10", Some((16.0, 4))),
        ("0x", Some((0.0, 1))),
        ("0xg", Some((0.0, 1))),
        ("0x.p1", Some((0.0, 1))),
        ("0x.8", Some((0.5, 4))),
        ("0x1.8p1", Some((3.0, 7))),
        ("0x1p", Some((1.0, 3))),
        ("-0x1p4", Some((-16.0, 6))),
        // Halfway cases go to the even neighbour, unless a digit far below decides.
        ("0x20000000000001", Some((9_007_199_254_740_992.0, 16))),
        ("0x20000000000003", Some((9_007_199_254_740_996.0, 16))),
        ("0x20000000000001.00000001", Some((9_007_199_254_740_994.0, 25))),
        ("0x1p-1074", Some((5e-324, 9))),
        ("0x1p-1075", Some((0.0, 9))),
        ("0x1.8p-1075", Some((5e-324, 11))),
        ("0x1p1023", Some((8.988_465_674_311_58e307, 8))),
        ("0x1p1024", Some((f64::INFINITY, 8))),
        ("0x1p99999999999999999999", Some((f64::INFINITY, 24))),
        ("0x1p-99999999999999999999", Some((0.0, 25))),
        ("inf", Some((f64::INFINITY, 3))),
        ("-INFINITY", Some((f64::NEG_INFINITY, 9))),
        ("infinit", Some((f64::INFINITY, 3))),
        ("", None),
        ("-", None),
        (".", None),
        (" 1", None),
        ("--1", None),
    ];
    for (text, expected) in table {
        let found = parse_prefix(text.as_bytes());
        let bits = |(value, length): (f64, usize)| (value.to_bits(), length);
        assert_eq!(found.map(bits), expected.map(bits), "{text}: {found:?}");
    }
    for (text, length) in [("nan", 3), ("-NaN()", 6), ("nan(0x1f_)", 10), ("nan(-)", 3)] {
        let (value, found) = parse_prefix(text.as_bytes()).unwrap();
        assert!(value.is_nan() && value.is_sign_negative() == text.starts_with('-'), "{text}");
        assert_eq!(found, length, "{text}");
    }
}

#[test]
fn conversions_are_those_of_compiled_c() {
    assert_eq!(truncate_to_i64(-1.9), -1);
    assert_eq!(truncate_to_i64(TWO_POW_63), i64::MIN);
    assert_eq!(truncate_to_i64(f64::NAN), i64::MIN);
    assert_eq!(truncate_to_u64(-1.0), u64::MAX);
    assert_eq!(truncate_to_u64(TWO_POW_63), 1 << 63);
    assert_eq!(truncate_to_u64(2.0 * TWO_POW_63), 0);
    assert_eq!(truncate_to_u64(f64::NAN), 1 << 63);
    assert_eq!(truncate_to_i32(3e9), i32::MIN);
}

proptest! {
    #[test]
    fn seventeen_digits_identify_a_number(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let text = general(value, 17);
        prop_assert_eq!(parse_prefix(text.as_bytes()), Some((value, text.len())));
    }

    #[test]
    fn hexadecimal_digits_are_exact(mantissa in 0_u64..1 << 53, exponent in -1000_i32..900) {
        let text = format!("0x{mantissa:x}p{exponent}");
        let expected = mantissa as f64 * 2_f64.powi(exponent);
        prop_assert_eq!(parse_prefix(text.as_bytes()), Some((expected, text.len())));
    }

    #[test]
    fn any_text_can_be_parsed(text: Vec<u8>) {
        if let Some((_, length)) = parse_prefix(&text) {
            prop_assert!((1..=text.len()).contains(&length));
        }
    }
}
