//! Splitting a line of redis.conf into words, and quoting a word so that splitting restores it.
//!
//! Blanks separate words. A quote may open anywhere in a word; a blank or the end of the line must
//! follow the closing quote.
//!
//! ```text
//!   "..."   \n \r \t \b \a \xHH, and \c is c for any other c
//!   '...'   only \' is special
//! ```

use super::errors::ConfigProblem;

/// Splits a line into words.
pub(super) fn split(line: &[u8]) -> Result<Vec<String>, ConfigProblem> {
    let words = split_bytes(line)?.into_iter();
    words.map(|word| String::from_utf8(word).map_err(|_| ConfigProblem::Encoding)).collect()
}

/// As [`split`], into words that need not be UTF-8.
pub(crate) fn split_bytes(line: &[u8]) -> Result<Vec<Vec<u8>>, ConfigProblem> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, after) = take_word(rest)?;
        words.push(word);
        rest = after;
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    &text[blanks..]
}

fn take_word(text: &[u8]) -> Result<(Vec<u8>, &[u8]), ConfigProblem> {
    let mut word = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match first {
            b'"' => rest = take_double_quoted(tail, &mut word)?,
            b'\'' => rest = take_single_quoted(tail, &mut word)?,
            blank if is_blank(*blank) => break,
            plain => {
                word.push(*plain);
                rest = tail;
                continue;
            }
        }
        return match rest.first() {
            Some(next) if !is_blank(*next) => Err(ConfigProblem::Quotes),
            _ => Ok((word, rest)),
        };
    }
    Ok((word, rest))
}

fn take_double_quoted<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], ConfigProblem> {
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Err(ConfigProblem::Quotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_value(*high) << 4 | hex_value(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [plain, tail @ ..] => {
                word.push(*plain);
                tail
            }
        };
    }
}

fn take_single_quoted<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], ConfigProblem> {
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Err(ConfigProblem::Quotes),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                tail
            }
            [plain, tail @ ..] => {
                word.push(*plain);
                tail
            }
        };
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// A word in a form that [`split`] restores: plain where that is safe, else in double quotes.
pub(super) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '#');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        split(line.as_bytes()).unwrap()
    }

    #[test]
    fn blanks_separate_words() {
        assert_eq!(words(" \t save  900 1\r\n"), ["save", "900", "1"]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn quotes_keep_blanks_and_escapes() {
        assert_eq!(
            words(r#"a "b c" '' "\x41\n\"\q\\" 'd\'e\n'"#),
            ["a", "b c", "", "A\n\"q\\", "d'e\\n"]
        );
        assert_eq!(words(r#"ab"cd" "\x4""#), ["abcd", "x4"]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [r#"a "b"#, r#"ab"cd"#, r#""ab"cd"#, "'a", r#"a\"b"#, r#""a\"#, r#"'a'"b""#] {
            assert!(matches!(split(line.as_bytes()), Err(ConfigProblem::Quotes)), "{line}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(matches!(split(b"a \xff"), Err(ConfigProblem::Encoding)));
        assert!(matches!(split(br#"a "\xff""#), Err(ConfigProblem::Encoding)));
        assert_eq!(split(br#""\xc3\xa4""#).unwrap(), ["\u{e4}"]);
    }

    proptest! {
        #[test]
        fn any_word_survives_quoting(list in proptest::collection::vec(any::<String>(), 0..6)) {
            let line = list.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(line.as_bytes()).unwrap(), list);
        }

        #[test]
        fn any_bytes_are_split_or_refused(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = split(&line);
        }
    }
}
