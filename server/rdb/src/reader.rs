//! Lengths and strings in a slice of bytes.

use std::borrow::Cow;

use crate::error::RdbError;
use crate::lzf;

/// The longest string that a [`Reader`] accepts if it is not told otherwise: the longest value of
/// Redis.
pub const DEFAULT_MAX_STRING: usize = 512 << 20;

/// What is in place of a length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LengthOrEncoding {
    /// A length.
    Length(u64),
    /// The encoding of a string.
    Encoding(StringEncoding),
}

/// How a string is encoded that is not raw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StringEncoding {
    /// Decimal digits, as an integer of 8 bits.
    Int8,
    /// Decimal digits, as an integer of 16 bits.
    Int16,
    /// Decimal digits, as an integer of 32 bits.
    Int32,
    /// Compressed.
    Lzf,
}

impl StringEncoding {
    /// The first byte of a string in this encoding.
    pub(crate) const fn byte(self) -> u8 {
        0xc0 | match self {
            Self::Int8 => 0,
            Self::Int16 => 1,
            Self::Int32 => 2,
            Self::Lzf => 3,
        }
    }
}

/// Reads from a slice. A method that fails has not moved the reader.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    offset: usize,
    max_string: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `input`, with [`DEFAULT_MAX_STRING`].
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, offset: 0, max_string: DEFAULT_MAX_STRING }
    }

    /// The same reader with another limit on the length of strings, in bytes.
    #[must_use]
    pub const fn with_max_string(self, max_string: usize) -> Self {
        Self { max_string, ..self }
    }

    /// The bytes that were read.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.offset == self.input.len()
    }

    /// Reads a byte.
    ///
    /// # Errors
    /// The data is truncated.
    pub fn byte(&mut self) -> Result<u8, RdbError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads a length.
    ///
    /// # Errors
    /// The data is truncated, or something else is there.
    pub fn length(&mut self) -> Result<u64, RdbError> {
        self.atomically(|reader| match reader.length_or_encoding()? {
            LengthOrEncoding::Length(length) => Ok(length),
            LengthOrEncoding::Encoding(_) => {
                Err(RdbError::NotALength { offset: reader.offset - 1 })
            }
        })
    }

    /// Reads a length, or what is in its place.
    ///
    /// # Errors
    /// The data is truncated or invalid.
    pub fn length_or_encoding(&mut self) -> Result<LengthOrEncoding, RdbError> {
        self.atomically(|reader| {
            let offset = reader.offset;
            let byte = reader.byte()?;
            Ok(LengthOrEncoding::Length(match (byte >> 6, byte) {
                (0, _) => u64::from(byte),
                (1, _) => u64::from(byte & 0x3f) << 8 | u64::from(reader.byte()?),
                (_, 0x80) => u64::from(u32::from_be_bytes(reader.array()?)),
                (_, 0x81) => u64::from_be_bytes(reader.array()?),
                (2, _) => return Err(RdbError::UnknownLength { offset, byte }),
                _ => return encoding(byte, offset).map(LengthOrEncoding::Encoding),
            }))
        })
    }

    /// Reads a string. What is neither compressed nor an integer is borrowed.
    ///
    /// # Errors
    /// The data is truncated or invalid, or the string is longer than the limit.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, RdbError> {
        self.atomically(|reader| {
            let start = reader.offset;
            let value = match reader.length_or_encoding()? {
                LengthOrEncoding::Length(length) => {
                    return reader.string_bytes(start, length).map(Cow::Borrowed);
                }
                LengthOrEncoding::Encoding(StringEncoding::Lzf) => {
                    return reader.compressed(start).map(Cow::Owned);
                }
                LengthOrEncoding::Encoding(StringEncoding::Int8) => {
                    i32::from(i8::from_le_bytes(reader.array()?))
                }
                LengthOrEncoding::Encoding(StringEncoding::Int16) => {
                    i32::from(i16::from_le_bytes(reader.array()?))
                }
                LengthOrEncoding::Encoding(StringEncoding::Int32) => {
                    i32::from_le_bytes(reader.array()?)
                }
            };
            Ok(Cow::Owned(itoa::Buffer::new().format(value).as_bytes().to_vec()))
        })
    }

    /// The rest of a compressed string that begins at `start`.
    fn compressed(&mut self, start: usize) -> Result<Vec<u8>, RdbError> {
        let (compressed, length) = (self.length()?, self.length()?);
        let length = self.check_length(start, length)?;
        let base = self.offset;
        let bytes = self.string_bytes(start, compressed)?;
        lzf::decompress(bytes, length).map_err(|error| error.shifted(base))
    }

    /// Bytes of the string that begins at `start`.
    fn string_bytes(&mut self, start: usize, length: u64) -> Result<&'a [u8], RdbError> {
        let length = self.check_length(start, length)?;
        self.take(length)
    }

    fn check_length(&self, offset: usize, length: u64) -> Result<usize, RdbError> {
        let limit = self.max_string;
        let fits = usize::try_from(length).ok().filter(|length| *length <= limit);
        fits.ok_or(RdbError::TooLong { offset, length, limit })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        self.take(N).map(|bytes| bytes.try_into().expect("invariant: take returns N bytes"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RdbError> {
        let rest = &self.input[self.offset..];
        let missing = count.saturating_sub(rest.len()) as u64;
        let truncated = RdbError::Truncated { offset: self.offset, missing };
        let taken = rest.get(..count).ok_or(truncated)?;
        self.offset += count;
        Ok(taken)
    }

    /// Reads; moves only if that succeeds.
    fn atomically<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, RdbError>,
    ) -> Result<T, RdbError> {
        let start = self.offset;
        let result = read(self);
        if result.is_err() {
            self.offset = start;
        }
        result
    }
}

fn encoding(byte: u8, offset: usize) -> Result<StringEncoding, RdbError> {
    use StringEncoding::{Int8, Int16, Int32, Lzf};
    let known = [Int8, Int16, Int32, Lzf].into_iter().find(|encoding| encoding.byte() == byte);
    known.ok_or(RdbError::UnknownEncoding { offset, encoding: byte & 0x3f })
}

#[cfg(test)]
mod tests;
