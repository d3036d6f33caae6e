//! Why a command failed, in the words that clients match on.

use std::borrow::Cow;

use crate::keyspace::{OutOfMemory, StringError, WrongType};

/// What a handler returns: its reply is written already, or it failed.
pub type CommandResult = Result<(), ErrorReply>;

/// The error reply of a command, without the leading `-`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorReply(Cow<'static, str>);

impl ErrorReply {
    /// Arguments make no sense together.
    pub const SYNTAX: Self = Self::new("ERR syntax error");
    /// An argument or a value is no whole number of 64 bits.
    pub const NOT_INTEGER: Self = Self::new("ERR value is not an integer or out of range");
    /// An argument or a value is no number.
    pub const NOT_FLOAT: Self = Self::new("ERR value is not a valid float");
    /// The key has a value of another type.
    pub const WRONG_TYPE: Self =
        Self::new("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// The arena, or what maxmemory allows of it, is full.
    pub const OUT_OF_MEMORY: Self =
        Self::new("OOM command not allowed when used memory > 'maxmemory'.");
    /// A string would grow beyond the limit.
    pub const TOO_LONG: Self =
        Self::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// An offset is negative or too large.
    pub const OFFSET: Self = Self::new("ERR offset is out of range");
    /// The key is not there.
    pub const NO_KEY: Self = Self::new("ERR no such key");

    /// A fixed text, error code first.
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A text made for the occasion, error code first.
    pub const fn text(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    /// The text of the reply.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The error code: the first word.
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
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
