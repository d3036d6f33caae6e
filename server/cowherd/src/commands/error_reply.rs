//! Error replies: the texts that clients match on, and what turns other errors into them.

use std::borrow::Cow;

use crate::keyspace::{OutOfMemory, StringError, WrongType};
use cowherd_resp::Args;

/// What a handler returns: `Ok` once the reply is written, or the error reply to send instead.
pub type CommandResult = Result<(), ErrorReply>;

/// The error reply of a command, without the leading `-`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorReply(Cow<'static, str>);

impl ErrorReply {
    /// The arguments do not fit the command's syntax.
    pub const SYNTAX: Self = Self::new("ERR syntax error");
    /// An argument or a value is no 64-bit integer.
    pub const NOT_INTEGER: Self = Self::new("ERR value is not an integer or out of range");
    /// An argument or a value is no floating-point number.
    pub const NOT_FLOAT: Self = Self::new("ERR value is not a valid float");
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
        Self(Cow::Borrowed(text))
    }

    /// A reply with a formatted text, error code first.
    pub const fn text(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    /// The reply to a request that names no command.
    pub fn unknown_command(args: &Args<'_>) -> Self {
        /// Bytes of the name, and of all arguments together, that the text shows.
        const SHOWN: usize = 128;
        let name = args.get(0).unwrap_or_default();
        let name = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]);
        let mut text = format!("ERR unknown command '{name}', with args beginning with: ");
        let mut left = SHOWN;
        for arg in args.from(1).iter() {
            let arg = String::from_utf8_lossy(&arg[..arg.len().min(left)]);
            text.push_str(&format!("'{arg}' "));
            left = usize::saturating_sub(left, arg.len() + 3);
            if left == 0 {
                break;
            }
        }
        Self::text(text)
    }

    /// The reply to a request that names no subcommand of its command.
    pub fn unknown_subcommand(args: &Args<'_>) -> Self {
        let shown = |i| String::from_utf8_lossy(args.get(i).unwrap_or_default()).into_owned();
        let (name, sub) = (shown(0).to_uppercase(), shown(1));
        Self::text(format!("ERR unknown subcommand '{sub}'. Try {name} HELP."))
    }

    /// The text of the reply.
    pub fn as_str(&self) -> &str {
        &self.0
    }
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
