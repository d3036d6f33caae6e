//! The decoder of `cjson`.
//!
//! Nested containers are on the Lua stack, each with the key of the member that is being decoded;
//! an array of levels says what each is. The decoder does not recurse.

use super::{ARRAY_MARK, Settings};
use crate::number::{hexadecimal_digit, parse_prefix, starts_with_ignore_case};
use crate::stack::Stack;
use std::ffi::c_int;

/// Levels that need no second array.
const SHALLOW: usize = 32;

/// More levels than the Lua stack has room for.
const DEEPEST: usize = 8000;

/// Longest string with escape sequences that is unescaped without memory of Lua.
const SHORT_STRING: usize = 256;

/// Level of an object; other levels are the index of the next element of an array.
const OBJECT: c_int = 0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    /// Content between the quotes, and whether it has escape sequences.
    String {
        start: usize,
        end: usize,
        escaped: bool,
    },
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    /// Name in error texts.
    fn name(self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::String { .. } => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Error(text) => text,
        }
    }
}

struct Decoder<'call> {
    stack: Stack<'call>,
    settings: Settings,
    data: &'call [u8],
    /// Position after the last token.
    position: usize,
    /// Position of the last token, or of the fault in it.
    token_position: usize,
    /// Number of levels.
    depth: usize,
}

/// `decode(text)`: the value.
pub(super) fn decode(stack: Stack<'_>) -> c_int {
    stack.check_argument(stack.top() == 1, 1, "expected 1 argument");
    let data = stack.bytes_argument(1);
    if data.len() >= 2 && data[..2].contains(&0) {
        stack.raise(format_args!("JSON parser does not support UTF-16 or UTF-32"));
    }
    let settings = Settings::of(stack);
    let mut decoder = Decoder { stack, settings, data, position: 0, token_position: 0, depth: 0 };
    let first = decoder.next_token();
    let mut levels = [OBJECT; SHALLOW];
    if let Err(token) = decoder.run(first, &mut levels) {
        decoder.run_deep(token, &levels);
    }
    let token = decoder.next_token();
    if token != Token::End {
        decoder.refuse("the end", token);
    }
    1
}

impl<'call> Decoder<'call> {
    /// Continues where [`Self::run`] found no more levels.
    #[cold]
    #[inline(never)]
    fn run_deep(&mut self, token: Token, shallow: &[c_int]) {
        let mut levels = [OBJECT; DEEPEST];
        levels[..shallow.len()].copy_from_slice(shallow);
        let done = self.run(token, &mut levels);
        debug_assert!(done.is_ok(), "the Lua stack has fewer levels");
    }

    /// Decodes the value that begins with `token` and pushes it. Returns the token of a container
    /// that needs another level.
    fn run(&mut self, mut token: Token, levels: &mut [c_int]) -> Result<(), Token> {
        loop {
            match token {
                Token::String { start, end, escaped } => self.push_string(start, end, escaped),
                Token::Number(number) => self.stack.push_number(number),
                Token::Boolean(value) => self.stack.push_boolean(value),
                Token::Null => self.stack.push_null(),
                Token::ObjectBegin | Token::ArrayBegin => {
                    let Some(level) = levels.get_mut(self.depth) else {
                        return Err(token);
                    };
                    *level = c_int::from(token == Token::ArrayBegin);
                    if let Some(first) = self.open(token) {
                        token = first;
                        continue;
                    }
                }
                _ => self.refuse("value", token),
            }
            // The value at the top is complete.
            loop {
                let Some(level) = self.depth.checked_sub(1).and_then(|at| levels.get_mut(at))
                else {
                    return Ok(());
                };
                if let Some(next) = self.store(level) {
                    token = next;
                    break;
                }
                self.depth -= 1;
            }
        }
    }

    /// Pushes a container, and returns the first token of its first value, whose key is pushed.
    /// Returns `None` for an empty container.
    fn open(&mut self, token: Token) -> Option<Token> {
        let is_array = token == Token::ArrayBegin;
        self.depth += 1;
        let most = usize::try_from(self.settings.decode_max_depth).unwrap_or(0);
        // Room for the container and a value, and for a key.
        if self.depth > most || !self.stack.check_stack(if is_array { 2 } else { 3 }) {
            let (depth, position) = (self.depth, self.position);
            let text = "Found too many nested data structures";
            self.stack.raise(format_args!("{text} ({depth}) at character {position}"));
        }
        self.stack.push_table();
        let first = self.next_token();
        match (is_array, first) {
            (true, Token::ArrayEnd) => {
                self.mark_empty_array();
                self.depth -= 1;
                None
            }
            (false, Token::ObjectEnd) => {
                self.depth -= 1;
                None
            }
            (true, _) => Some(first),
            (false, _) => Some(self.push_key(first)),
        }
    }

    /// Stores the value at the top in its container. Returns the first token of the next value, or
    /// `None` at the end of the container, which is at the top then.
    fn store(&mut self, level: &mut c_int) -> Option<Token> {
        if *level == OBJECT {
            self.stack.set_entry();
            return match self.next_token() {
                Token::Comma => {
                    let key = self.next_token();
                    Some(self.push_key(key))
                }
                Token::ObjectEnd => None,
                token => self.refuse("comma or object end", token),
            };
        }
        self.stack.set_element(*level);
        *level = level.wrapping_add(1);
        match self.next_token() {
            Token::Comma => Some(self.next_token()),
            Token::ArrayEnd => None,
            token => self.refuse("comma or array end", token),
        }
    }

    /// Pushes the key `token` and returns the token after its colon.
    fn push_key(&mut self, token: Token) -> Token {
        let Token::String { start, end, escaped } = token else {
            self.refuse("object key string", token);
        };
        self.push_string(start, end, escaped);
        let colon = self.next_token();
        if colon != Token::Colon {
            self.refuse("colon", colon);
        }
        self.next_token()
    }

    /// Gives the empty array at the top a metatable, if that is set. Each array has its own, so
    /// that a script that changes one does not affect other scripts.
    fn mark_empty_array(&self) {
        if self.settings.mark_empty_arrays == 0 {
            return;
        }
        self.stack.require_stack(3, "no room for a metatable");
        self.stack.push_table();
        self.stack.push_boolean(true);
        self.stack.set_field(ARRAY_MARK);
        self.stack.set_metatable();
    }

    /// Raises an error about the last token.
    fn refuse(&self, expected: &str, found: Token) -> ! {
        let (found, at) = (found.name(), self.token_position + 1);
        self.stack.raise(format_args!("Expected {expected} but found {found} at character {at}"))
    }

    /// The byte at a position; 0 after the end, as a C string has it.
    fn byte(&self, position: usize) -> u8 {
        self.data.get(position).copied().unwrap_or(0)
    }

    fn next_token(&mut self) -> Token {
        while matches!(self.byte(self.position), b' ' | b'\t' | b'\n' | b'\r') {
            self.position += 1;
        }
        self.token_position = self.position;
        let token = match self.byte(self.position) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.string_token(),
            // The position stays: a later token is this one again.
            0 => return Token::End,
            _ => return self.word_token(),
        };
        self.position += 1;
        token
    }

    fn word_token(&mut self) -> Token {
        let rest = &self.data[self.position..];
        if matches!(rest[0], b'-' | b'0'..=b'9') {
            if self.settings.decode_invalid_numbers == 0 && is_invalid_number(rest) {
                return Token::Error("invalid number");
            }
            return self.number_token();
        }
        let words = [
            (&b"true"[..], Token::Boolean(true)),
            (b"false", Token::Boolean(false)),
            (b"null", Token::Null),
        ];
        for (word, token) in words {
            if rest.starts_with(word) {
                self.position += word.len();
                return token;
            }
        }
        if self.settings.decode_invalid_numbers != 0 && is_invalid_number(rest) {
            return self.number_token();
        }
        Token::Error("invalid token")
    }

    fn number_token(&mut self) -> Token {
        match parse_prefix(&self.data[self.position..]) {
            Some((number, length)) => {
                self.position += length;
                Token::Number(number)
            }
            None => Token::Error("invalid number"),
        }
    }

    /// Finds the end of a string and checks its escape sequences.
    fn string_token(&mut self) -> Token {
        let start = self.position + 1;
        let mut position = start;
        let mut escaped = false;
        loop {
            let rest = self.data.get(position..).unwrap_or_default();
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0));
            position += plain.unwrap_or(rest.len());
            match self.byte(position) {
                b'"' => {
                    self.position = position + 1;
                    return Token::String { start, end: position, escaped };
                }
                b'\\' => match parse_escape(&self.data[position..]) {
                    Ok((_, length)) => {
                        escaped = true;
                        position += length;
                    }
                    Err(fault) => {
                        self.token_position = position;
                        return Token::Error(fault);
                    }
                },
                _ => {
                    self.token_position = position;
                    return Token::Error("unexpected end of string");
                }
            }
        }
    }

    /// Pushes the content of a string token.
    fn push_string(&self, start: usize, end: usize, escaped: bool) {
        let content = &self.data[start..end];
        if !escaped {
            self.stack.push_bytes(content);
        } else if content.len() <= SHORT_STRING {
            let mut unescaped = [0; SHORT_STRING];
            let length = unescape(content, &mut unescaped);
            self.stack.push_bytes(&unescaped[..length]);
        } else {
            self.push_long_string(content);
        }
    }

    #[inline(never)]
    fn push_long_string(&self, content: &[u8]) {
        self.stack.require_stack(2, "no room for a string");
        let unescaped = self.stack.push_block(content.len());
        let length = unescape(content, unescaped);
        self.stack.push_bytes(&unescaped[..length]);
        self.stack.replace(-2);
    }
}

/// Whether a number is none of JSON: hexadecimal, with a zero before it, infinite, not a number.
fn is_invalid_number(text: &[u8]) -> bool {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    if byte(0) == b'+' {
        return true;
    }
    let body = &text[usize::from(byte(0) == b'-')..];
    let byte = |at: usize| body.get(at).copied().unwrap_or(0);
    match byte(0) {
        b'0' => matches!(byte(1), b'x' | b'X' | b'0'..=b'9'),
        b'1'..=b'9' => false,
        0..b'0' => false,
        _ => starts_with_ignore_case(body, b"inf") || starts_with_ignore_case(body, b"nan"),
    }
}

/// The character and the length of the escape sequence at the beginning of `text`.
fn parse_escape(text: &[u8]) -> Result<(u32, usize), &'static str> {
    let character = match text.get(1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'b') => 8,
        Some(b't') => b'\t',
        Some(b'n') => b'\n',
        Some(b'f') => 12,
        Some(b'r') => b'\r',
        Some(b'u') => return parse_code_point(text).ok_or("invalid unicode escape code"),
        _ => return Err("invalid escape code"),
    };
    Ok((u32::from(character), 2))
}

/// As [`parse_escape`], for `\uXXXX` and pairs of surrogates.
fn parse_code_point(text: &[u8]) -> Option<(u32, usize)> {
    let high = parse_4_digits(text.get(2..6)?)?;
    match high {
        0xD800..0xDC00 => {
            if text.get(6..8)? != b"\\u" {
                return None;
            }
            let low = parse_4_digits(text.get(8..12)?)?;
            if !(0xDC00..0xE000).contains(&low) {
                return None;
            }
            Some((0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), 12))
        }
        0xDC00..0xE000 => None,
        _ => Some((high, 6)),
    }
}

fn parse_4_digits(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0, |value, &digit| Some(value << 4 | u32::from(hexadecimal_digit(digit)?)))
}

/// Replaces the escape sequences of a checked string. The result is never longer than `content`,
/// the length of which `out` has at least. Returns its length.
fn unescape(content: &[u8], out: &mut [u8]) -> usize {
    let mut length = 0;
    let mut rest = content;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        out[length..length + at].copy_from_slice(&rest[..at]);
        length += at;
        rest = &rest[at..];
        let Ok((code_point, escape)) = parse_escape(rest) else {
            // `string_token` has checked the sequences.
            break;
        };
        let character = char::from_u32(code_point).unwrap_or(char::REPLACEMENT_CHARACTER);
        let mut utf8 = [0; 4];
        let utf8 = character.encode_utf8(&mut utf8).as_bytes();
        out[length..length + utf8.len()].copy_from_slice(utf8);
        length += utf8.len();
        rest = &rest[escape..];
    }
    out[length..length + rest.len()].copy_from_slice(rest);
    length + rest.len()
}
