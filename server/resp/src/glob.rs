//! Glob patterns of `KEYS`, `SCAN MATCH`, `PSUBSCRIBE` and `CONFIG GET`.
//!
//! | pattern | matches |
//! |---|---|
//! | `*` | any number of bytes, also none |
//! | `?` | any one byte |
//! | `[abc]`, `[a-z]`, `[^a]` | one byte in, or not in, the class |
//! | `\x` | the byte `x` itself |
//!
//! The matcher compares bytes, not characters. It backtracks to the last `*` only: an earlier `*`
//! cannot reach a position that the last one does not reach too. Time is therefore bounded by
//! `pattern.len() * text.len()` for every pattern.

/// Whether the whole of `text` matches `pattern`; `nocase` folds ASCII letters.
///
/// As in Redis, an unclosed class ends with the pattern, a trailing backslash stands for itself,
/// and an escaped byte inside a class is compared exactly even with `nocase`.
#[must_use]
pub fn glob_match(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Pattern position after the last `*`, and the text position last tried for it.
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

/// Matches `byte` against the element at `pattern[p]`; returns the start of the next element on a
/// match.
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

/// Matches `byte` against the class whose first byte after `[` is at `p`.
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

/// Matches a range, which may be written backwards. As in Redis, the ends are swapped before
/// letters are folded.
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
