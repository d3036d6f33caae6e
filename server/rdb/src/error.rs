//! The ways in which input can be wrong.

use crate::payload::FormatVersion;

/// Why data cannot be read. Offsets count from the beginning of the data that the reader was given.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum RdbError {
    /// The data ends inside a field.
    #[error("the data ends inside the field at byte {offset}: {missing} more bytes are needed")]
    Truncated {
        /// Where the field begins.
        offset: usize,
        /// How many bytes are missing at least.
        missing: u64,
    },
    /// The first byte of a length has no meaning.
    #[error("byte {offset} is {byte:#04x}, which begins no length")]
    UnknownLength {
        /// Where the length begins.
        offset: usize,
        /// Its first byte.
        byte: u8,
    },
    /// An encoding of strings that is not known.
    #[error("the string at byte {offset} has the unknown encoding {encoding}")]
    UnknownEncoding {
        /// Where the string begins.
        offset: usize,
        /// The encoding.
        encoding: u8,
    },
    /// An encoding of strings where only a length is possible.
    #[error("byte {offset} is an encoding of a string where a length must be")]
    NotALength {
        /// Where the length should be.
        offset: usize,
    },
    /// A string is longer than the limit.
    #[error("the string at byte {offset} has {length} bytes, more than the limit of {limit}")]
    TooLong {
        /// Where the string begins.
        offset: usize,
        /// Its length.
        length: u64,
        /// The longest that is accepted.
        limit: usize,
    },
    /// Compressed data is invalid.
    #[error("invalid LZF data at byte {offset}: {fault}")]
    Lzf {
        /// Where the instruction begins that fails.
        offset: usize,
        /// What is wrong with it.
        fault: LzfFault,
    },
    /// An opcode that the reader does not expect.
    #[error("the opcode {opcode} at byte {offset} is not a library of functions")]
    UnexpectedOpcode {
        /// Where the opcode is.
        offset: usize,
        /// The opcode.
        opcode: u8,
    },
    /// Functions in the format of the release candidates of Redis 7.0.
    #[error("the functions at byte {offset} are in a format from before the release of Redis 7.0")]
    PreReleaseFunctions {
        /// Where the opcode is.
        offset: usize,
    },
    /// A payload is shorter than its footer.
    #[error("a payload of {length} bytes has no room for its footer")]
    NoFooter {
        /// Its length.
        length: usize,
    },
    /// A payload's format version that this crate does not read.
    #[error("the payload has the format version {version}, which cannot be read")]
    UnsupportedVersion {
        /// The version.
        version: FormatVersion,
    },
    /// A payload does not match its checksum.
    #[error("the payload has the checksum {computed:#018x}, but its footer says {stored:#018x}")]
    WrongChecksum {
        /// What the footer says.
        stored: u64,
        /// What the bytes give.
        computed: u64,
    },
}

/// What is wrong with compressed data.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LzfFault {
    /// The data ends inside an instruction.
    #[error("the data ends inside an instruction")]
    Truncated,
    /// A reference points before the beginning of the output.
    #[error("a reference points before the beginning of the output")]
    Reference,
    /// The output is longer than declared.
    #[error("the output is longer than declared")]
    TooLong,
    /// The output is shorter than declared, or the declared length is not possible.
    #[error("the output is shorter than declared")]
    TooShort,
}

impl RdbError {
    /// The same error in data that begins `base` bytes later.
    pub(crate) fn shifted(self, base: usize) -> Self {
        match self {
            Self::Lzf { offset, fault } => Self::Lzf { offset: base + offset, fault },
            other => other,
        }
    }
}
