//! Glob patterns as `KEYS`, `SCAN MATCH`, `PSUBSCRIBE` and `CONFIG GET` understand them.
//!
//! | pattern | matches |
//! |---|---|
//! | `*` | any bytes, none included |
//! | `?` | any one byte |
//! | `[abc]`, `[a-z]`, `[^a]` | one byte in, or not in, the class |
//! | `\x` | the byte `x` itself |
//!
//! Bytes are compared, not characters. Only the last `*` passed is ever tried again, which is
//! enough, because an earlier `*` could only move to where a later one reaches anyway. So the work
//! is bounded by `pattern.len() * text.len()`, whatever the pattern.

/// Whether the whole of `text` matches `pattern`; `nocase` folds ASCII letters.
///
/// A class that is not closed ends with the pattern, a trailing backslash stands for itself, and an
/// escaped byte inside a class is compared exactly even with `nocase`: as Redis does.
#[must_use]
pub fn glob_match(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // The pattern just behind the last `*`, and where in the text that was last tried.
    let mut retry = None;
    while let Some(&byte) = text.get(t) {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
        } else if let Some(next) = match_one(pattern, p, byte, nocase) {
            p = next;
            t += 1;
        } else if let Some((after_star, tried)) = retry {
            p = after_star;
            t = tried + 1;
            retry = Some((p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Matches `byte` against the element at `pattern[p]`; where the next element starts if it fits.
fn match_one(pattern: &[u8], p: usize, byte: u8, nocase: bool) -> Option<usize> {
    let (fits, next) = match pattern.get(p..)? {
        [] => return None,
        [b'?', ..] => (true, p + 1),
        [b'[', ..] => match_class(pattern, p + 1, byte, nocase),
        [b'\\', escaped, ..] => (same(*escaped, byte, nocase), p + 2),
        [literal, ..] => (same(*literal, byte, nocase), p + 1),
    };
    fits.then_some(next)
}

/// Matches `byte` against the class whose first byte behind `[` is at `p`.
fn match_class(pattern: &[u8], p: usize, byte: u8, nocase: bool) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    let mut p = p + usize::from(negated);
    let mut found = false;
    loop {
        match &pattern[p..] {
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                p += 2;
            }
            [b']', ..] => {
                p += 1;
                break;
            }
            [] => break,
            [from, b'-', to, ..] => {
                found |= in_range(*from, *to, byte, nocase);
                p += 3;
            }
            [literal, ..] => {
                found |= same(*literal, byte, nocase);
                p += 1;
            }
        }
    }
    (found != negated, p)
}

/// A range may be written backwards. It is turned round before letters are folded, as Redis does.
fn in_range(from: u8, to: u8, byte: u8, nocase: bool) -> bool {
    let (low, high) = (from.min(to), from.max(to));
    if nocase {
        let byte = byte.to_ascii_lowercase();
        low.to_ascii_lowercase() <= byte && byte <= high.to_ascii_lowercase()
    } else {
        low <= byte && byte <= high
    }
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    a == b || (nocase && a.eq_ignore_ascii_case(&b))
}

#[cfg(test)]
mod tests;
