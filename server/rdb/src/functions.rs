//! Libraries of functions in a body: an opcode and the code, for each library.

use std::borrow::Cow;

use crate::error::RdbError;
use crate::reader::Reader;
use crate::writer::write_string;

/// The opcode of a library.
pub const FUNCTION2: u8 = 245;
/// The opcode of a library in the format of the release candidates of Redis 7.0.
pub const FUNCTION_PRE_GA: u8 = 246;

/// Appends a library.
pub fn write_library(out: &mut Vec<u8>, code: &[u8]) {
    out.push(FUNCTION2);
    write_string(out, code);
}

/// The code of each library in the body of a payload. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Libraries<'a> {
    reader: Reader<'a>,
    has_failed: bool,
}

impl<'a> Libraries<'a> {
    /// The libraries of a body.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self::from_reader(Reader::new(body))
    }

    /// The libraries that a reader finds, with its limit on strings.
    #[must_use]
    pub const fn from_reader(reader: Reader<'a>) -> Self {
        Self { reader, has_failed: false }
    }

    fn read(&mut self) -> Result<Cow<'a, [u8]>, RdbError> {
        let offset = self.reader.offset();
        match self.reader.byte()? {
            FUNCTION2 => self.reader.string(),
            FUNCTION_PRE_GA => Err(RdbError::PreReleaseFunctions { offset }),
            opcode => Err(RdbError::UnexpectedOpcode { offset, opcode }),
        }
    }
}

impl<'a> Iterator for Libraries<'a> {
    type Item = Result<Cow<'a, [u8]>, RdbError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed || self.reader.is_at_end() {
            return None;
        }
        let library = self.read();
        self.has_failed = library.is_err();
        Some(library)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{FormatVersion, unseal};

    #[test]
    fn libraries_come_back_in_their_order() {
        let codes = [&b"first"[..], b"", &[b'x'; 5000], b"12"];
        let mut body = Vec::new();
        codes.iter().for_each(|code| write_library(&mut body, code));
        let read: Result<Vec<_>, _> = Libraries::new(&body).collect();
        assert_eq!(read.unwrap(), codes);
    }

    /// FUNCTION DUMP of redis-server 7.0.15, whose library has 3000 letters.
    #[test]
    fn a_payload_of_redis_is_read() {
        let payload = b"\xf5\xc3@sL\x08\x1f#!lua name=big\nredis.register_fu\x07nction(' \
            \x1c\x02', \xe0\x00\x0f\x13keys,args) return 'a\xe0\xff\x00\xe0\xff\x00\xe0\xff\x00\
            \xe0\xff\x00\xe0\xff\x00\xe0\xff\x00\xe0\xff\x00\xe0\xff\x00\xe0\xff\x00\xe0\xff\x00\
            \xe0\xff\x00\xe0V\x00\x05' end)\n\x00\xa6jP\x18\xe2\xd3\xce\xa7";
        let code = format!(
            "#!lua name=big\nredis.register_function('big', function(keys,args) return '{}' end)",
            "a".repeat(3000)
        );
        let payload = unseal(payload).unwrap();
        assert_eq!(payload.version, FormatVersion::REDIS_7_0);
        let read: Result<Vec<_>, _> = Libraries::new(payload.body).collect();
        assert_eq!(read.unwrap(), [code.as_bytes()]);
    }

    #[test]
    fn other_opcodes_are_refused_by_name() {
        let mut body = Vec::new();
        write_library(&mut body, b"code");
        let offset = body.len();
        for opcode in 0..=u8::MAX {
            body.truncate(offset);
            body.push(opcode);
            let expected = match opcode {
                FUNCTION2 => RdbError::Truncated { offset: offset + 1, missing: 1 },
                FUNCTION_PRE_GA => RdbError::PreReleaseFunctions { offset },
                _ => RdbError::UnexpectedOpcode { offset, opcode },
            };
            let mut libraries = Libraries::new(&body);
            assert_eq!(libraries.next(), Some(Ok(Cow::Borrowed(&b"code"[..]))));
            assert_eq!(libraries.next(), Some(Err(expected)));
            assert_eq!(libraries.next(), None);
        }
    }
}
