//! Lengths and strings in their shortest encoding.

use crate::lzf;
use crate::reader::StringEncoding;

/// Shorter strings are not compressed: the two lengths and the encoding take up what is saved.
const MIN_COMPRESSED: usize = 21;
/// Digits and sign of the longest i32.
const MAX_INTEGER_TEXT: usize = 11;

/// Writes a length.
#[expect(clippy::cast_possible_truncation, reason = "each range fits its field")]
pub fn write_length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..0x40 => out.push(length as u8),
        0x40..0x4000 => out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Writes a string as it is.
pub fn write_raw_string(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a string: as an integer if it is the decimal text of one, compressed if that is shorter,
/// else as it is.
pub fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    if let Some(value) = canonical_integer(bytes) {
        return write_integer(out, value);
    }
    let compressed = if bytes.len() < MIN_COMPRESSED { None } else { lzf::compress(bytes) };
    let Some(compressed) = compressed else { return write_raw_string(out, bytes) };
    let start = out.len();
    out.push(StringEncoding::Lzf.byte());
    write_length(out, compressed.len() as u64);
    write_length(out, bytes.len() as u64);
    out.extend_from_slice(&compressed);
    if out.len() - start > bytes.len() {
        out.truncate(start);
        write_raw_string(out, bytes);
    }
}

/// The integer whose decimal text this is, byte by byte.
fn canonical_integer(bytes: &[u8]) -> Option<i32> {
    if bytes.len() > MAX_INTEGER_TEXT {
        return None;
    }
    let value: i32 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(value).as_bytes() == bytes).then_some(value)
}

fn write_integer(out: &mut Vec<u8>, value: i32) {
    if let Ok(value) = i8::try_from(value) {
        out.push(StringEncoding::Int8.byte());
        out.extend_from_slice(&value.to_le_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        out.push(StringEncoding::Int16.byte());
        out.extend_from_slice(&value.to_le_bytes());
    } else {
        out.push(StringEncoding::Int32.byte());
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(length: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_length(&mut out, length);
        out
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_string(&mut out, bytes);
        out
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        assert_eq!(length(0), [0]);
        assert_eq!(length(63), [63]);
        assert_eq!(length(64), [0x40, 64]);
        assert_eq!(length(0x3fff), [0x7f, 0xff]);
        assert_eq!(length(0x4000), [0x80, 0, 0, 0x40, 0]);
        assert_eq!(length(0xffff_ffff), [0x80, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(length(1 << 32), [0x81, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn integers_are_encoded_only_if_their_text_comes_back() {
        assert_eq!(string(b"-1"), [0xc0, 0xff]);
        assert_eq!(string(b"127"), [0xc0, 127]);
        assert_eq!(string(b"128"), [0xc1, 128, 0]);
        assert_eq!(string(b"-32769"), [0xc2, 0xff, 0x7f, 0xff, 0xff]);
        for text in ["", "-0", "+1", "01", "2147483648", " 1", "1.0"] {
            assert_eq!(string(text.as_bytes())[1..], *text.as_bytes());
        }
    }

    #[test]
    fn strings_are_compressed_if_that_is_shorter() {
        assert_eq!(string(&[b'a'; 20])[0], 20);
        assert_eq!(string(&[b'a'; 21])[..3], [0xc3, 5, 21]);
        assert_eq!(string(b"abcdefghijklmnopqrstuvwxyz")[0], 26);
    }
}
