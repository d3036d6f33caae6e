//! LZF, the compression of strings in RDB data.
//!
//! ```text
//! 000nnnnn                        n + 1 literal bytes follow
//! nnndddddd dddddddd              n = 1..6: copy n + 2 bytes from d + 1 bytes back
//! 111ddddd nnnnnnnn dddddddd      copy n + 9 bytes from d + 1 bytes back
//! ```
//!
//! A copy may overlap its own output: from 1 byte back it repeats that byte.

use crate::error::{LzfFault, RdbError};

/// Output bytes for each byte of input at most: a copy of 264 bytes takes 3.
const MAX_EXPANSION: usize = 88;
const MAX_LITERALS: usize = 32;
const MIN_COPY: usize = 3;
const MAX_COPY: usize = 264;
const MAX_DISTANCE: usize = 1 << 13;
const HASH_BITS: u32 = 13;

/// Decompresses data whose output has `length` bytes.
///
/// # Errors
/// The data is invalid, or its output has another length. Offsets count from the beginning of
/// `input`. No more than 88 times the input is reserved.
pub fn decompress(input: &[u8], length: usize) -> Result<Vec<u8>, RdbError> {
    if length.div_ceil(MAX_EXPANSION) > input.len() {
        return Err(RdbError::Lzf { offset: 0, fault: LzfFault::TooShort });
    }
    let mut output = Vec::with_capacity(length);
    let mut rest = input;
    while !rest.is_empty() {
        let offset = input.len() - rest.len();
        rest = step(rest, &mut output, length).map_err(|fault| RdbError::Lzf { offset, fault })?;
    }
    if output.len() < length {
        return Err(RdbError::Lzf { offset: input.len(), fault: LzfFault::TooShort });
    }
    Ok(output)
}

/// Executes one instruction; returns the input behind it.
fn step<'a>(input: &'a [u8], output: &mut Vec<u8>, length: usize) -> Result<&'a [u8], LzfFault> {
    let (&control, rest) = input.split_first().ok_or(LzfFault::Truncated)?;
    let capacity = length - output.len();
    let (high, low) = (usize::from(control >> 5), usize::from(control & 0x1f));
    if high == 0 {
        let (literals, rest) = rest.split_at_checked(low + 1).ok_or(LzfFault::Truncated)?;
        if literals.len() > capacity {
            return Err(LzfFault::TooLong);
        }
        output.extend_from_slice(literals);
        return Ok(rest);
    }
    let (count, rest) = match (high, rest) {
        (7, [more, rest @ ..]) => (usize::from(*more) + 9, rest),
        (7, []) => return Err(LzfFault::Truncated),
        _ => (high + 2, rest),
    };
    let (&back, rest) = rest.split_first().ok_or(LzfFault::Truncated)?;
    let distance = (low << 8 | usize::from(back)) + 1;
    if count > capacity {
        return Err(LzfFault::TooLong);
    }
    let start = output.len().checked_sub(distance).ok_or(LzfFault::Reference)?;
    if count <= distance {
        output.extend_from_within(start..start + count);
    } else {
        for i in start..start + count {
            output.push(output[i]);
        }
    }
    Ok(rest)
}

/// Compresses data; `None` if that does not make it shorter.
#[must_use]
pub fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(input.len());
    // Where each hash of three bytes was last seen, plus 1.
    let mut seen = vec![0_usize; 1 << HASH_BITS];
    let (mut position, mut literals) = (0, 0);
    while let Some(three) = input.get(position..position + MIN_COPY) {
        let earlier = std::mem::replace(&mut seen[hash(three)], position + 1).checked_sub(1);
        let copied = earlier.map_or(0, |earlier| common_length(input, earlier, position));
        if copied < MIN_COPY {
            position += 1;
            continue;
        }
        write_literals(&mut output, &input[literals..position]);
        write_copy(&mut output, copied, position - earlier.unwrap_or_default());
        position += copied;
        literals = position;
        if output.len() >= input.len() {
            return None;
        }
    }
    write_literals(&mut output, &input[literals..]);
    (output.len() < input.len()).then_some(output)
}

fn hash(three: &[u8]) -> usize {
    let word = three.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte));
    // Fibonacci hashing: the upper bits of the product depend on all bits of the word.
    (word.wrapping_mul(0x9e37_79b1) >> (u32::BITS - HASH_BITS)) as usize
}

/// How many bytes at `position` equal those at `earlier`, if a copy can reach so far back.
fn common_length(input: &[u8], earlier: usize, position: usize) -> usize {
    if position - earlier > MAX_DISTANCE {
        return 0;
    }
    let pairs = input[earlier..].iter().zip(&input[position..]);
    pairs.take(MAX_COPY).take_while(|(a, b)| a == b).count()
}

#[expect(clippy::cast_possible_truncation, reason = "chunks have at most 32 bytes")]
fn write_literals(output: &mut Vec<u8>, literals: &[u8]) {
    for chunk in literals.chunks(MAX_LITERALS) {
        output.push((chunk.len() - 1) as u8);
        output.extend_from_slice(chunk);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "fields of 3, 5 and 8 bits, see the head")]
fn write_copy(output: &mut Vec<u8>, count: usize, distance: usize) {
    let back = distance - 1;
    if count < 9 {
        output.push(((count - 2) << 5 | back >> 8) as u8);
    } else {
        output.push((7 << 5 | back >> 8) as u8);
        output.push((count - 9) as u8);
    }
    output.push((back & 0xff) as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(input: &[u8], length: usize) -> (usize, LzfFault) {
        match decompress(input, length) {
            Err(RdbError::Lzf { offset, fault }) => (offset, fault),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_instruction_is_decoded() {
        assert_eq!(decompress(b"\x02abc", 3).unwrap(), b"abc");
        assert_eq!(decompress(b"\x02abc\x20\x02", 6).unwrap(), b"abcabc");
        assert_eq!(decompress(b"\x00a\xe0\xff\x00", 265).unwrap(), [b'a'; 265]);
        assert_eq!(decompress(b"", 0).unwrap(), b"");
    }

    #[test]
    fn invalid_data_is_refused_where_it_is() {
        assert_eq!(fault(b"\x02ab", 3), (0, LzfFault::Truncated));
        assert_eq!(fault(b"\x00a\x20", 4), (2, LzfFault::Truncated));
        assert_eq!(fault(b"\x00a\xe0", 20), (2, LzfFault::Truncated));
        assert_eq!(fault(b"\x00a\xe0\x00", 20), (2, LzfFault::Truncated));
        assert_eq!(fault(b"\x00a\x20\x01", 4), (2, LzfFault::Reference));
        assert_eq!(fault(b"\x02abc", 2), (0, LzfFault::TooLong));
        assert_eq!(fault(b"\x00a\x20\x00", 3), (2, LzfFault::TooLong));
        assert_eq!(fault(b"\x02abc", 4), (4, LzfFault::TooShort));
    }

    #[test]
    fn a_length_that_is_impossible_reserves_nothing() {
        assert_eq!(fault(b"\x00a", usize::MAX), (0, LzfFault::TooShort));
        assert_eq!(fault(b"", 1), (0, LzfFault::TooShort));
    }

    #[test]
    fn repeated_text_becomes_shorter_and_short_text_does_not() {
        let text = b"redis.register_function('a', f) ".repeat(300);
        let compressed = compress(&text).unwrap();
        assert!(compressed.len() < text.len() / 20);
        assert_eq!(decompress(&compressed, text.len()).unwrap(), text);
        assert_eq!(compress(b"abcdefgh"), None);
        assert_eq!(compress(b""), None);
    }

    /// A copy reaches back 8192 bytes, and no byte further.
    #[test]
    fn copies_reach_as_far_back_as_the_format_can() {
        for (gap, is_found) in [(MAX_DISTANCE, true), (MAX_DISTANCE + 1, false)] {
            assert_eq!(common_length(&vec![7; 2 * gap], 0, gap) > 0, is_found);
        }
        let mut output = b"\x1f".to_vec();
        let literals: Vec<u8> = (0..MAX_DISTANCE).map(|i| (i / 64) as u8).collect();
        output.clear();
        write_literals(&mut output, &literals);
        write_copy(&mut output, 264, MAX_DISTANCE);
        let decoded = decompress(&output, MAX_DISTANCE + 264).unwrap();
        assert_eq!(decoded[MAX_DISTANCE..], literals[..264]);
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            prop::collection::vec(0..3_u8, 0..30_000),
            (prop::collection::vec(any::<u8>(), 1..40), 1..400_usize)
                .prop_map(|(part, times)| part.repeat(times)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(text in texts()) {
            if let Some(compressed) = compress(&text) {
                prop_assert!(compressed.len() < text.len());
                prop_assert_eq!(&decompress(&compressed, text.len()).unwrap(), &text);
                prop_assert!(decompress(&compressed, text.len() + 1).is_err());
                prop_assert!(decompress(&compressed, text.len() - 1).is_err());
            }
        }

        #[test]
        fn any_data_is_decoded_or_refused(
            input in prop::collection::vec(any::<u8>(), 0..300),
            length in 0..3000_usize,
        ) {
            if let Ok(output) = decompress(&input, length) {
                prop_assert_eq!(output.len(), length);
            }
        }
    }
}
