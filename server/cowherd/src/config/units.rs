//! Sizes with units: `64mb`, `1gb`; `1k` is 1000 bytes and `1kb` is 1024. Case does not matter.

/// Units by descending size: the first that divides a size gives the shortest form.
const UNITS: &[(&str, u64)] = &[
    ("gb", 1 << 30),
    ("mb", 1 << 20),
    ("kb", 1 << 10),
    ("g", 1_000_000_000),
    ("m", 1_000_000),
    ("k", 1000),
    ("b", 1),
    ("", 1),
];

/// Reads a size in bytes. None: no size, or more than fits into a `u64`.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Formats a size in the largest binary unit that divides it, else in bytes.
pub(super) fn show(bytes: u64) -> String {
    UNITS[..3]
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_those_of_redis() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("5b", 5),
            ("1k", 1000),
            ("1kb", 1024),
            ("2M", 2_000_000),
            ("2Mb", 2 << 20),
            ("3g", 3_000_000_000),
            ("3GB", 3 << 30),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let none = ["", "mb", "-1", "+1", " 5", "5 mb", "1.5gb", "1tb", "99999999999999999999"];
        for text in none.into_iter().chain(["18446744073709551615kb", "10%", "0x10", "\u{663}"]) {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn shown_sizes_are_read_back(bytes: u64, shift in 0u32..64) {
            let bytes = (bytes >> shift) << (shift / 2);
            prop_assert_eq!(parse(&show(bytes)), Some(bytes));
        }
    }
}
