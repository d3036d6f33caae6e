//! Lua's patterns: `string.find`, `match`, `gmatch`, `gfind` and `gsub` as Lua 5.1 defines them.
//!
//! Lua's own matcher may take exponential time in one call, during which no hook runs. This one
//! asks the host again and again whether it may go on.

use std::ffi::c_int;

use crate::buffer::Buffer;
use crate::stack::{ErrorText, Stack, ValueType};

/// The functions that this file replaces.
pub(super) const NAMES: [&str; 5] = ["find", "match", "gmatch", "gfind", "gsub"];

/// Captures of one pattern.
const MAX_CAPTURES: usize = 32;
/// Nested repetitions and captures of one pattern.
const MAX_DEPTH: u32 = 400;
/// Steps between two questions to the host.
const POLL_STEPS: u32 = 50_000;
/// A byte that begins an escape.
const ESCAPE: u8 = b'%';
/// Bytes that mean more than themselves.
const SPECIAL: &[u8] = b"^$*+?.([%-";

/// Sets the functions in the table at the top.
pub(super) fn set_functions(stack: Stack<'_>) {
    stack.push_function(|stack| find(stack, true), 0);
    stack.set_field(c"find");
    stack.push_function(|stack| find(stack, false), 0);
    stack.set_field(c"match");
    stack.push_function(gmatch, 0);
    stack.push_copy(-1);
    stack.set_field_below(c"gmatch");
    stack.set_field(c"gfind");
    stack.push_nil();
    stack.push_function(gsub, 1);
    stack.set_field(c"gsub");
}

/// What a capture holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// It is not closed yet.
    Open,
    /// It holds a position.
    Position,
    /// Bytes.
    Bytes(usize),
}

#[derive(Clone, Copy)]
struct Capture {
    start: usize,
    length: Length,
}

/// The state of one match.
struct Matcher<'call> {
    stack: Stack<'call>,
    subject: &'call [u8],
    pattern: &'call [u8],
    level: usize,
    captures: [Capture; MAX_CAPTURES],
    steps: u32,
    depth: u32,
}

impl<'call> Matcher<'call> {
    fn new(stack: Stack<'call>, subject: &'call [u8], pattern: &'call [u8]) -> Self {
        // A pattern ends at its first null byte.
        let end = memchr::memchr(0, pattern).unwrap_or(pattern.len());
        let capture = Capture { start: 0, length: Length::Open };
        Self {
            stack,
            subject,
            pattern: &pattern[..end],
            level: 0,
            captures: [capture; MAX_CAPTURES],
            steps: 0,
            depth: 0,
        }
    }

    fn fail(&self, text: &str) -> ! {
        self.stack.raise(format_args!("{text}"))
    }

    fn at(&self, p: usize) -> u8 {
        self.pattern.get(p).copied().unwrap_or(0)
    }

    /// Counts the bytes of a set or a back reference.
    fn count_bytes(&mut self, bytes: usize) {
        const BYTES_OF_STEP: usize = 16;
        let steps = u32::try_from(bytes / BYTES_OF_STEP).unwrap_or(POLL_STEPS);
        self.steps = self.steps.saturating_add(steps);
    }

    fn count_step(&mut self) {
        self.steps += 1;
        if self.steps >= POLL_STEPS {
            self.steps = 0;
            self.stack.poll();
        }
    }

    /// Matches the pattern from `p` at `s`; returns the end of the match.
    fn matches(&mut self, mut s: usize, mut p: usize) -> Option<usize> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.fail("pattern too complex");
        }
        let end = loop {
            self.count_step();
            match self.at(p) {
                0 if p >= self.pattern.len() => break Some(s),
                b'(' if self.at(p + 1) == b')' => {
                    break self.open_capture(s, p + 2, Length::Position);
                }
                b'(' => break self.open_capture(s, p + 1, Length::Open),
                b')' => break self.close_capture(s, p + 1),
                b'$' if p + 1 == self.pattern.len() => {
                    break (s == self.subject.len()).then_some(s);
                }
                ESCAPE if self.at(p + 1) == b'b' => match self.balanced(s, p + 2) {
                    Some(after) => (s, p) = (after, p + 4),
                    None => break None,
                },
                ESCAPE if self.at(p + 1) == b'f' => {
                    if self.at(p + 2) != b'[' {
                        self.fail("missing '[' after '%f' in pattern");
                    }
                    let set_end = self.class_end(p + 2);
                    let previous = if s == 0 { 0 } else { self.subject[s - 1] };
                    let next = self.subject.get(s).copied().unwrap_or(0);
                    if self.set_has(previous, p + 2, set_end - 1)
                        || !self.set_has(next, p + 2, set_end - 1)
                    {
                        break None;
                    }
                    p = set_end;
                }
                ESCAPE if self.at(p + 1).is_ascii_digit() => {
                    match self.back_reference(s, self.at(p + 1)) {
                        Some(after) => (s, p) = (after, p + 2),
                        None => break None,
                    }
                }
                _ => {
                    let item_end = self.class_end(p);
                    let is_single = self.single(s, p, item_end);
                    match self.at(item_end) {
                        b'?' => {
                            if is_single && let Some(end) = self.matches(s + 1, item_end + 1) {
                                break Some(end);
                            }
                            p = item_end + 1;
                        }
                        b'*' => break self.longest(s, p, item_end, 0),
                        b'+' if is_single => break self.longest(s, p, item_end, 1),
                        b'+' => break None,
                        b'-' => break self.shortest(s, p, item_end),
                        _ if is_single => (s, p) = (s + 1, item_end),
                        _ => break None,
                    }
                }
            }
        };
        self.depth -= 1;
        end
    }

    /// The index behind the single-character item at `p`.
    fn class_end(&mut self, p: usize) -> usize {
        match self.at(p) {
            ESCAPE => {
                if p + 1 >= self.pattern.len() {
                    self.fail("malformed pattern (ends with '%')");
                }
                p + 2
            }
            b'[' => {
                let set = p;
                let mut p = p + 1;
                if self.at(p) == b'^' {
                    p += 1;
                }
                // A `]` that comes first is a member.
                loop {
                    if p >= self.pattern.len() {
                        self.fail("malformed pattern (missing ']')");
                    }
                    let byte = self.at(p);
                    p += 1;
                    if byte == ESCAPE && p < self.pattern.len() {
                        p += 1;
                    }
                    if self.at(p) == b']' {
                        self.count_bytes(p - set);
                        return p + 1;
                    }
                }
            }
            _ => p + 1,
        }
    }

    /// Whether the byte at `s` matches the item from `p` to `end`.
    fn single(&mut self, s: usize, p: usize, end: usize) -> bool {
        let Some(&byte) = self.subject.get(s) else { return false };
        match self.at(p) {
            b'.' => true,
            ESCAPE => class_has(byte, self.at(p + 1)),
            b'[' => self.set_has(byte, p, end - 1),
            literal => literal == byte,
        }
    }

    /// Whether a byte is in the set whose brackets are at `p` and `end`.
    fn set_has(&mut self, byte: u8, p: usize, end: usize) -> bool {
        self.count_bytes(end - p);
        let (mut p, mut found) = (p + 1, true);
        if self.at(p) == b'^' {
            (p, found) = (p + 1, false);
        }
        while p < end {
            match self.at(p) {
                ESCAPE => {
                    p += 1;
                    if class_has(byte, self.at(p)) {
                        return found;
                    }
                }
                first if self.at(p + 1) == b'-' && p + 2 < end => {
                    p += 2;
                    if (first..=self.at(p)).contains(&byte) {
                        return found;
                    }
                }
                member if member == byte => return found,
                _ => {}
            }
            p += 1;
        }
        !found
    }

    fn balanced(&mut self, s: usize, p: usize) -> Option<usize> {
        if p + 1 >= self.pattern.len() {
            self.fail("unbalanced pattern");
        }
        let (open, close) = (self.at(p), self.at(p + 1));
        if self.subject.get(s) != Some(&open) {
            return None;
        }
        let mut nested = 1;
        for i in s + 1..self.subject.len() {
            self.count_step();
            let byte = self.subject[i];
            if byte == close {
                nested -= 1;
                if nested == 0 {
                    return Some(i + 1);
                }
            } else if byte == open {
                nested += 1;
            }
        }
        None
    }

    fn longest(&mut self, s: usize, p: usize, end: usize, least: usize) -> Option<usize> {
        let mut count = least;
        while self.single(s + count, p, end) {
            self.count_step();
            count += 1;
        }
        loop {
            if let Some(end) = self.matches(s + count, end + 1) {
                return Some(end);
            }
            if count == least {
                return None;
            }
            count -= 1;
        }
    }

    fn shortest(&mut self, mut s: usize, p: usize, end: usize) -> Option<usize> {
        loop {
            if let Some(end) = self.matches(s, end + 1) {
                return Some(end);
            }
            if !self.single(s, p, end) {
                return None;
            }
            s += 1;
        }
    }

    fn open_capture(&mut self, s: usize, p: usize, length: Length) -> Option<usize> {
        if self.level >= MAX_CAPTURES {
            self.fail("too many captures");
        }
        self.captures[self.level] = Capture { start: s, length };
        self.level += 1;
        let end = self.matches(s, p);
        if end.is_none() {
            self.level -= 1;
        }
        end
    }

    fn close_capture(&mut self, s: usize, p: usize) -> Option<usize> {
        let open = (0..self.level).rev().find(|i| self.captures[*i].length == Length::Open);
        let Some(open) = open else { self.fail("invalid pattern capture") };
        self.captures[open].length = Length::Bytes(s - self.captures[open].start);
        let end = self.matches(s, p);
        if end.is_none() {
            self.captures[open].length = Length::Open;
        }
        end
    }

    fn back_reference(&mut self, s: usize, digit: u8) -> Option<usize> {
        let number = usize::from(digit.wrapping_sub(b'1'));
        let capture = self.captures.get(number).filter(|_| number < self.level);
        let Some(&Capture { start, length: Length::Bytes(length) }) = capture else {
            self.fail("invalid capture index")
        };
        self.count_bytes(length);
        let text = &self.subject[start..start + length];
        self.subject[s..].starts_with(text).then_some(s + length)
    }

    /// Pushes capture `i` of a match; capture 0 of a pattern without any is the whole match.
    fn push_capture(&self, i: usize, start: usize, end: usize) {
        if i >= self.level {
            if i > 0 {
                self.fail("invalid capture index");
            }
            return self.stack.push_bytes(&self.subject[start..end]);
        }
        let capture = self.captures[i];
        match capture.length {
            Length::Open => self.fail("unfinished capture"),
            #[expect(clippy::cast_precision_loss, reason = "numbers of Lua are doubles")]
            Length::Position => self.stack.push_number((capture.start + 1) as f64),
            Length::Bytes(length) => {
                self.stack.push_bytes(&self.subject[capture.start..capture.start + length]);
            }
        }
    }

    /// Pushes all captures, or the whole match if there are none and it is wanted.
    fn push_captures(&self, whole: bool, start: usize, end: usize) -> c_int {
        let count = if self.level == 0 && whole { 1 } else { self.level };
        let count = c_int::try_from(count).expect("invariant: there are few captures");
        self.stack.require_stack(count, "too many captures");
        for i in 0..usize::try_from(count).unwrap_or_default() {
            self.push_capture(i, start, end);
        }
        count
    }

    /// The first match from `from` on.
    fn search(&mut self, from: usize) -> Option<(usize, usize)> {
        let is_anchored = self.at(0) == b'^';
        let p = usize::from(is_anchored);
        for start in from..=self.subject.len() {
            self.level = 0;
            self.depth = 0;
            if let Some(end) = self.matches(start, p) {
                return Some((start, end));
            }
            if is_anchored {
                break;
            }
        }
        None
    }
}

/// Whether a byte is in a class, such as `a` for letters; an upper-case name is the complement, and
/// a byte that names no class stands for itself.
fn class_has(byte: u8, class: u8) -> bool {
    let is_in = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | 9..=13),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_in != class.is_ascii_uppercase()
}

/// `find` and `match`.
fn find(stack: Stack<'_>, is_find: bool) -> c_int {
    let (subject, pattern) = (stack.bytes_argument(1), stack.bytes_argument(2));
    let length = i64::try_from(subject.len()).unwrap_or(i64::MAX);
    let init = match stack.optional_integer(3, 1) {
        init if init < 0 => init + length,
        init => init - 1,
    };
    let init = usize::try_from(init.clamp(0, length)).unwrap_or_default();
    let searched = memchr::memchr(0, pattern).map_or(pattern, |end| &pattern[..end]);
    let is_plain =
        stack.top() >= 4 && stack.boolean(4) || !searched.iter().any(|byte| SPECIAL.contains(byte));
    if is_find && is_plain {
        let Some(at) = memchr::memmem::find(&subject[init..], pattern) else {
            stack.push_nil();
            return 1;
        };
        push_index(stack, init + at + 1);
        push_index(stack, init + at + pattern.len());
        return 2;
    }
    let mut matcher = Matcher::new(stack, subject, pattern);
    let Some((start, end)) = matcher.search(init) else {
        stack.push_nil();
        return 1;
    };
    if !is_find {
        return matcher.push_captures(true, start, end);
    }
    push_index(stack, start + 1);
    push_index(stack, end);
    matcher.push_captures(false, start, end) + 2
}

#[expect(clippy::cast_precision_loss, reason = "numbers of Lua are doubles")]
fn push_index(stack: Stack<'_>, index: usize) {
    stack.push_number(index as f64);
}

/// `gmatch`: an iterator, whose upvalues are subject, pattern and position.
fn gmatch(stack: Stack<'_>) -> c_int {
    stack.bytes_argument(1);
    stack.bytes_argument(2);
    stack.set_top(2);
    stack.push_number(0.0);
    stack.push_function(next_match, 3);
    1
}

fn next_match(stack: Stack<'_>) -> c_int {
    const POSITION: c_int = 3;
    stack.set_top(0);
    (1..=POSITION).for_each(|upvalue| stack.push_upvalue(upvalue));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let from = stack.number(3) as usize;
    let (subject, pattern) = (stack.bytes(1), stack.bytes(2));
    let mut matcher = Matcher::new(stack, subject, pattern);
    for start in from..=subject.len() {
        matcher.level = 0;
        matcher.depth = 0;
        if let Some(end) = matcher.matches(start, 0) {
            push_index(stack, if end == start { end + 1 } else { end });
            stack.set_upvalue(POSITION);
            return matcher.push_captures(true, start, end);
        }
    }
    0
}

/// `gsub`. Upvalue: the block of the result.
fn gsub(stack: Stack<'_>) -> c_int {
    const BLOCK: c_int = 1;
    let (subject, pattern) = (stack.bytes_argument(1), stack.bytes_argument(2));
    let kind = match stack.value_type(3) {
        ValueType::Number | ValueType::String => {
            stack.bytes(3);
            ValueType::String
        }
        ValueType::Table => ValueType::Table,
        _ if stack.is_function(3) => ValueType::Other,
        _ => {
            stack.raise_argument(3, &ErrorText::new(format_args!("string/function/table expected")))
        }
    };
    let default = i64::try_from(subject.len()).unwrap_or(i64::MAX).saturating_add(1);
    let limit = stack.optional_integer(4, default);
    stack.set_top(3);
    let mut result = Buffer::take(stack, BLOCK);
    let mut matcher = Matcher::new(stack, subject, pattern);
    let is_anchored = matcher.at(0) == b'^';
    let (mut at, mut count) = (0, 0);
    while count < limit {
        matcher.level = 0;
        matcher.depth = 0;
        let end = matcher.matches(at, usize::from(is_anchored));
        if let Some(end) = end {
            count += 1;
            replace(&matcher, &mut result, kind, at, end);
        }
        match end {
            Some(end) if end > at => at = end,
            _ if at < subject.len() => {
                result.push(subject[at]);
                at += 1;
            }
            _ => break,
        }
        if is_anchored {
            break;
        }
    }
    result.extend(&subject[at.min(subject.len())..]);
    result.finish(true);
    #[expect(clippy::cast_precision_loss, reason = "numbers of Lua are doubles")]
    stack.push_number(count as f64);
    2
}

/// Appends what replaces a match, as the string, table or function at index 3 says.
fn replace(
    matcher: &Matcher<'_>,
    result: &mut Buffer<'_>,
    kind: ValueType,
    start: usize,
    end: usize,
) {
    const REPLACEMENT: c_int = 3;
    let stack = matcher.stack;
    stack.require_stack(4, "too many captures");
    match kind {
        ValueType::String => return append_template(matcher, result, start, end),
        ValueType::Table => {
            stack.push_copy(REPLACEMENT);
            matcher.push_capture(0, start, end);
            stack.get_field_of_top();
        }
        _ => {
            stack.push_copy(REPLACEMENT);
            let count = matcher.push_captures(true, start, end);
            stack.call_function(count, 1);
        }
    }
    match stack.value_type(-1) {
        ValueType::String | ValueType::Number => result.extend(stack.bytes(-1)),
        _ if !stack.boolean(-1) => result.extend(&matcher.subject[start..end]),
        _ => stack.raise(format_args!("invalid replacement value (a {})", stack.type_name(-1))),
    }
    stack.pop(1);
}

/// Appends a replacement in which `%1` to `%9` stand for captures and `%0` for the match.
fn append_template(matcher: &Matcher<'_>, result: &mut Buffer<'_>, start: usize, end: usize) {
    let stack = matcher.stack;
    let template = stack.bytes(3);
    let mut bytes = template.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != ESCAPE {
            result.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'0') => result.extend(&matcher.subject[start..end]),
            Some(digit @ b'1'..=b'9') => {
                matcher.push_capture(usize::from(digit - b'1'), start, end);
                result.extend(stack.bytes(-1));
                stack.pop(1);
            }
            Some(literal) => result.push(literal),
            None => result.push(0),
        }
    }
}
