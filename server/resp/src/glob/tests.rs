use proptest::prelude::*;

use super::glob_match;

fn matches(pattern: &str, text: &str) -> bool {
    glob_match(pattern.as_bytes(), text.as_bytes(), false)
}

#[test]
fn matching_pairs() {
    for (pattern, text) in [
        ("", ""),
        ("*", ""),
        ("*", "anything"),
        ("**", "x"),
        ("user:*", "user:"),
        ("user:*", "user:1000"),
        ("h?llo", "hello"),
        ("h*llo", "hllo"),
        ("h*llo", "heeeello"),
        ("*a*b*c*", "xxaxxbxxcxx"),
        ("*ab", "aab"),
        ("h[ae]llo", "hallo"),
        ("h[^e]llo", "hbllo"),
        ("h[a-c]llo", "hbllo"),
        ("h[c-a]llo", "hbllo"),
        ("[abc", "c"),
        ("[^]x", "ax"),
        ("[\\]]", "]"),
        ("[a-]", "^"),
        ("[a-]", "a"),
        ("\\*", "*"),
        ("a\\", "a\\"),
        ("[\\", "\\"),
        ("a**?b", "axb"),
        ("[^", "x"),
    ] {
        assert!(matches(pattern, text), "{pattern:?} should match {text:?}");
    }
}

#[test]
fn non_matching_pairs() {
    for (pattern, text) in [
        ("", "a"),
        ("a", ""),
        ("?", ""),
        ("[a]", ""),
        ("a*", "ba"),
        ("h?llo", "hllo"),
        ("h[^e]llo", "hello"),
        ("h[a-b]llo", "hcllo"),
        ("[]a", "a"),
        ("\\*", "x"),
        ("*ab", "aba"),
        ("a*b*c", "acb"),
        ("[", "["),
        ("[a-]", "-"),
        ("ABC", "abc"),
    ] {
        assert!(!matches(pattern, text), "{pattern:?} should not match {text:?}");
    }
}

#[test]
fn folds_ascii_only_where_redis_does() {
    assert!(glob_match(b"MAX*", b"maxmemory", true));
    assert!(glob_match(b"[A-C]", b"b", true));
    assert!(glob_match(b"[a]", b"A", true));
    assert!(!glob_match(b"[\\a]", b"A", true), "an escaped byte in a class is compared exactly");
    assert!(!glob_match(b"[Z-a]", b"z", true), "the folded range z-a is empty");
    assert!(glob_match(b"\\a", b"A", true));
    assert!(!glob_match("é".as_bytes(), "É".as_bytes(), true));
}

/// Nested stars made Redis's recursive matcher take exponential time (CVE-2022-36021).
#[test]
fn time_is_polynomial_in_the_number_of_stars() {
    let pattern = [b"a*".repeat(200), b"b".to_vec()].concat();
    assert!(!glob_match(&pattern, &b"a".repeat(10_000), false));
}

/// Reference matcher: a `*` tries every length.
fn model(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| model(rest, &text[n..])),
        ([], _) => text.is_empty(),
        (_, []) => false,
        ([b'?', rest @ ..], [_, tail @ ..]) => model(rest, tail),
        ([b'\\', escaped, rest @ ..], [byte, tail @ ..]) => escaped == byte && model(rest, tail),
        ([b'[', b'a', b'-', b'b', b']', rest @ ..], [byte, tail @ ..]) => {
            (b'a'..=b'b').contains(byte) && model(rest, tail)
        }
        ([literal, rest @ ..], [byte, tail @ ..]) => literal == byte && model(rest, tail),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_reference_matcher(
        parts in prop::collection::vec(
            prop::sample::select(vec!["*", "?", "a", "b", "c", "\\*", "[a-b]", "**"]), 0..10),
        text in "[abc*]{0,10}",
    ) {
        let pattern = parts.concat();
        prop_assert_eq!(
            glob_match(pattern.as_bytes(), text.as_bytes(), false),
            model(pattern.as_bytes(), text.as_bytes())
        );
    }

    #[test]
    fn never_panics(
        pattern in prop::collection::vec(any::<u8>(), 0..40),
        odd in "[\\[\\]^*?a-c\\\\-]{0,20}",
        text in prop::collection::vec(any::<u8>(), 0..40),
        nocase: bool,
    ) {
        let _ = glob_match(&pattern, &text, nocase);
        let _ = glob_match(odd.as_bytes(), &text, nocase);
    }
}
