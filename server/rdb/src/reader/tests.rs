//! Lengths and strings that are right, cut off and changed.

use proptest::prelude::*;

use super::*;
use crate::error::LzfFault;
use crate::writer::{write_length, write_raw_string, write_string};

fn string(input: &[u8]) -> Result<Vec<u8>, RdbError> {
    Reader::new(input).string().map(Cow::into_owned)
}

#[test]
fn each_encoding_of_strings_is_read() {
    assert_eq!(string(b"\x03abc").unwrap(), b"abc");
    assert_eq!(string(b"\x40\x03abc").unwrap(), b"abc");
    assert_eq!(string(b"\x80\0\0\0\x03abc").unwrap(), b"abc");
    assert_eq!(string(b"\x81\0\0\0\0\0\0\0\x03abc").unwrap(), b"abc");
    assert_eq!(string(b"\xc0\x80").unwrap(), b"-128");
    assert_eq!(string(b"\xc1\x00\x80").unwrap(), b"-32768");
    assert_eq!(string(b"\xc2\x00\x00\x00\x80").unwrap(), b"-2147483648");
    assert_eq!(
        string(b"\xc3\x05\x09\x00a\xe0\xff\x00").unwrap_err(),
        RdbError::Lzf { offset: 5, fault: LzfFault::TooLong }
    );
    assert_eq!(string(b"\xc3\x05\x41\x09\x00a\xe0\xff\x00").unwrap(), [b'a'; 265]);
}

#[test]
fn unknown_encodings_are_refused() {
    for byte in 0x82..=0xbf {
        let expected = RdbError::UnknownLength { offset: 0, byte };
        assert_eq!(string(&[byte; 20]).unwrap_err(), expected);
    }
    for byte in 0xc4..=0xff {
        let expected = RdbError::UnknownEncoding { offset: 0, encoding: byte & 0x3f };
        assert_eq!(string(&[byte; 20]).unwrap_err(), expected);
    }
    let expected = RdbError::NotALength { offset: 1 };
    assert_eq!(string(b"\xc3\xc0\x05").unwrap_err(), expected);
}

#[test]
fn lengths_are_compared_with_the_limit_and_with_the_input() {
    let huge = u64::MAX;
    let mut input = Vec::new();
    write_length(&mut input, huge);
    let too_long = RdbError::TooLong { offset: 0, length: huge, limit: DEFAULT_MAX_STRING };
    assert_eq!(string(&input).unwrap_err(), too_long);
    let mut reader = Reader::new(b"\x03abc").with_max_string(2);
    let too_long = RdbError::TooLong { offset: 0, length: 3, limit: 2 };
    assert_eq!(reader.string().unwrap_err(), too_long);
    assert_eq!(string(b"\x03ab").unwrap_err(), RdbError::Truncated { offset: 1, missing: 1 });
}

/// The text is short, but says that it becomes half a gibibyte.
#[test]
fn compressed_text_cannot_claim_what_it_cannot_become() {
    let mut input = vec![0xc3];
    write_length(&mut input, 3);
    write_length(&mut input, DEFAULT_MAX_STRING as u64);
    let offset = input.len();
    input.extend_from_slice(b"\xe0\xff\x00");
    let expected = RdbError::Lzf { offset, fault: LzfFault::TooShort };
    assert_eq!(string(&input).unwrap_err(), expected);
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        prop::collection::vec(0..4_u8, 0..2000),
        any::<i32>().prop_map(|value| value.to_string().into_bytes()),
        any::<i8>().prop_map(|value| value.to_string().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn lengths_come_back(length in any::<u64>(), shift in 0..64_u32) {
        let length = length >> shift;
        let mut out = Vec::new();
        write_length(&mut out, length);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(reader.length(), Ok(length));
        prop_assert!(reader.is_at_end());
        for end in 0..out.len() {
            let mut reader = Reader::new(&out[..end]);
            let is_truncated = matches!(reader.length(), Err(RdbError::Truncated { .. }));
            prop_assert!(is_truncated);
            prop_assert_eq!(reader.offset(), 0);
        }
    }

    #[test]
    fn strings_come_back(texts in prop::collection::vec(texts(), 0..6)) {
        let mut out = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let write = if i % 3 == 2 { write_raw_string } else { write_string };
            write(&mut out, text);
        }
        let mut reader = Reader::new(&out);
        for text in &texts {
            prop_assert_eq!(&*reader.string().unwrap(), &text[..]);
        }
        prop_assert!(reader.is_at_end());
    }

    /// The missing bytes are what the reader of a file has to read before it tries again.
    #[test]
    fn strings_that_are_cut_off_are_truncated(text in texts()) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        for end in 0..out.len() {
            let mut reader = Reader::new(&out[..end]);
            match reader.string() {
                Err(RdbError::Truncated { missing, .. }) => {
                    prop_assert!(missing > 0 && end as u64 + missing <= out.len() as u64);
                }
                other => prop_assert!(false, "{:?}", other),
            }
            prop_assert_eq!(reader.offset(), 0);
        }
    }

    #[test]
    fn changed_strings_never_panic(
        text in texts(),
        at in any::<prop::sample::Index>(),
        flip in 1..=u8::MAX,
    ) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        let at = at.index(out.len());
        out[at] ^= flip;
        let mut reader = Reader::new(&out);
        if reader.string().is_err() {
            prop_assert_eq!(reader.offset(), 0);
        }
    }
}
