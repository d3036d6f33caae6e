//! Error replies: the texts that clients match on, and what turns other errors into them.

use std::borrow::Cow;

use crate::keyspace::{OutOfMemory, StringError, WrongType};
use cowherd_resp::{Args, before_zero};

/// What a handler returns: `Ok` once the reply is written, or the error reply to send instead.
pub type CommandResult = Result<(), ErrorReply>;

/// The error reply of a command, without the leading `-`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorReply(Cow<'static, [u8]>);

impl ErrorReply {
    /// The arguments do not fit the command's syntax.
    pub const SYNTAX: Self = Self::new("ERR syntax error");
    /// An argument or a value is no 64-bit integer.
    pub const NOT_INTEGER: Self = Self::new("ERR value is not an integer or out of range");
    /// An argument or a value is no floating-point number.
    pub const NOT_FLOAT: Self = Self::new("ERR value is not a valid float");
    /// An argument is no integer of 0 or more.
    pub const NOT_POSITIVE: Self = Self::new("ERR value is out of range, must be positive");
    /// The key holds a value of another type.
    pub const WRONG_TYPE: Self =
        Self::new("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// The arena is full, or `maxmemory` is reached.
    pub const OUT_OF_MEMORY: Self =
        Self::new("OOM command not allowed when used memory > 'maxmemory'.");
    /// A string would exceed `proto-max-bulk-len`.
    pub const TOO_LONG: Self =
        Self::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// An offset is negative or too large.
    pub const OFFSET: Self = Self::new("ERR offset is out of range");
    /// The key does not exist.
    pub const NO_KEY: Self = Self::new("ERR no such key");

    /// A reply with a constant text, error code first.
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    /// A reply with a formatted text, error code first.
    pub fn text(text: String) -> Self {
        Self(Cow::Owned(text.into_bytes()))
    }

    /// A reply that joins `parts`, error code first, some of which are arguments of the request:
    /// their bytes are sent unchanged. As in Redis, a part ends before its first zero byte.
    pub fn quoting(parts: &[&[u8]]) -> Self {
        let mut text = Vec::new();
        parts.iter().for_each(|part| text.extend_from_slice(before_zero(part)));
        Self(Cow::Owned(text))
    }

    /// The reply to a request that names no command.
    pub fn unknown_command(args: &Args<'_>) -> Self {
        let name = shown(args, 0, MAX_SHOWN);
        let mut parts: Vec<&[u8]> =
            vec![b"ERR unknown command '", name, b"', with args beginning with: "];
        let mut left = MAX_SHOWN;
        for i in 1..args.len() {
            let arg = shown(args, i, left);
            parts.extend([b"'", arg, b"' "]);
            left = left.saturating_sub(arg.len() + 3);
            if left == 0 {
                break;
            }
        }
        Self::quoting(&parts)
    }

    /// The reply to a request that names no subcommand of its command.
    pub fn unknown_subcommand(args: &Args<'_>) -> Self {
        Self::about_subcommand(b"ERR unknown subcommand '", args)
    }

    /// The reply of a subcommand to arguments that are too many, or that it does not know.
    pub fn wrong_subcommand(args: &Args<'_>) -> Self {
        let problem = b"ERR unknown subcommand or wrong number of arguments for '";
        Self::about_subcommand(problem, args)
    }

    fn about_subcommand(problem: &[u8], args: &Args<'_>) -> Self {
        let name = shown(args, 0, usize::MAX).to_ascii_uppercase();
        Self::quoting(&[problem, shown(args, 1, MAX_SHOWN), b"'. Try ", &name, b" HELP."])
    }

    /// The text of the reply, which need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes of a command's name, and of all arguments together, that a text shows.
const MAX_SHOWN: usize = 128;

/// Argument `i` up to its first zero byte, at most `most` bytes of it.
fn shown<'a>(args: &Args<'a>, i: usize, most: usize) -> &'a [u8] {
    let arg = before_zero(args.get(i).unwrap_or_default());
    &arg[..arg.len().min(most)]
}

impl From<OutOfMemory> for ErrorReply {
    fn from(_: OutOfMemory) -> Self {
        Self::OUT_OF_MEMORY
    }
}

impl From<WrongType> for ErrorReply {
    fn from(_: WrongType) -> Self {
        Self::WRONG_TYPE
    }
}

impl From<StringError> for ErrorReply {
    fn from(error: StringError) -> Self {
        match error {
            StringError::Full(full) => full.into(),
            StringError::WrongType => Self::WRONG_TYPE,
            StringError::TooLong => Self::TOO_LONG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowherd_resp::ArgSpan;

    /// The error for the arguments, which `|` separates in `line`.
    fn error(line: &[u8], of: impl Fn(&Args<'_>) -> ErrorReply) -> Vec<u8> {
        let mut start = 0;
        let span = |word: &[u8]| {
            start += word.len() + 1;
            ArgSpan { start: start - word.len() - 1, len: word.len() }
        };
        let spans: Vec<_> = line.split(|byte| *byte == b'|').map(span).collect();
        of(&Args::new(line, &spans)).as_bytes().to_vec()
    }

    #[test]
    fn arguments_are_quoted_byte_by_byte_up_to_a_zero_byte() {
        let unknown = |line| error(line, ErrorReply::unknown_command);
        let expected = b"ERR unknown command 'a\xff', with args beginning with: '\xfe' '' ";
        assert_eq!(unknown(b"a\xff\0b|\xfe|\0"), expected);
        let expected = b"ERR unknown subcommand '\xff'. Try CLIENT HELP.";
        assert_eq!(error(b"client|\xff\0\xff", ErrorReply::unknown_subcommand), expected);
    }

    #[test]
    fn long_arguments_are_cut() {
        let long = "x".repeat(200);
        let line = format!("debug|{long}");
        let expected = format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
            "x".repeat(128)
        );
        assert_eq!(error(line.as_bytes(), ErrorReply::wrong_subcommand), expected.as_bytes());
        let line = format!("{long}|{}|b|c", "y".repeat(120));
        let expected = format!(
            "ERR unknown command '{}', with args beginning with: '{}' 'b' 'c' ",
            "x".repeat(128),
            "y".repeat(120)
        );
        assert_eq!(error(line.as_bytes(), ErrorReply::unknown_command), expected.as_bytes());
    }
}
