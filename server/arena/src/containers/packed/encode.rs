//! Elements as they are to stand in a run.

use super::{LONG_BACK, MOST_TINY, NUMBER, SHORT, STRING16, STRING32, TINY};

/// An element as bytes, in three pieces, so that long ones need not be copied together.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'d> {
    /// Head, of a number with its data, then `back`.
    small: [u8; 16],
    head_len: u8,
    back_len: u8,
    data: &'d [u8],
}

impl<'d> Encoded<'d> {
    /// A string, which is kept as a number if it is the one way to write one.
    ///
    /// # Panics
    /// It is longer than [`super::MAX_STRING`].
    #[inline]
    pub fn of(bytes: &'d [u8]) -> Self {
        match as_number(bytes) {
            Some(number) => Self::int(number),
            None => Self::text(bytes),
        }
    }

    fn text(bytes: &'d [u8]) -> Self {
        let mut small = [0; 16];
        let head_len = match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
            (Ok(len @ ..=SHORT), _) => {
                small[0] = len;
                1
            }
            (_, Ok(len)) => {
                small[0] = STRING16;
                small[1..3].copy_from_slice(&len.to_le_bytes());
                3
            }
            _ => {
                assert!(bytes.len() <= super::MAX_STRING, "packed: {} bytes", bytes.len());
                small[0] = STRING32;
                small[1..5].copy_from_slice(&length(bytes.len()).to_le_bytes());
                5
            }
        };
        Self { small, head_len, back_len: 0, data: bytes }.with_back()
    }

    /// A number.
    #[inline]
    pub fn int(number: i64) -> Self {
        let mut small = [0; 16];
        let head_len = match u8::try_from(number) {
            Ok(tiny @ ..=MOST_TINY) => {
                small[0] = TINY + tiny;
                1
            }
            _ => {
                // Significant bits, the sign among them.
                let bits = 65 - (number ^ number >> 63).leading_zeros();
                let bytes = [1, 1, 2, 3, 4, 5, 6, 7, 8][bits.div_ceil(8) as usize];
                small[0] = NUMBER + bytes - 1;
                small[1..9].copy_from_slice(&number.to_le_bytes());
                1 + bytes
            }
        };
        Self { small, head_len, back_len: 0, data: &[] }.with_back()
    }

    #[inline]
    fn with_back(mut self) -> Self {
        let at = usize::from(self.head_len);
        let len = at + self.data.len();
        match u8::try_from(len) {
            Ok(short) if short != LONG_BACK => {
                self.small[at] = short;
                self.back_len = 1;
            }
            _ => {
                self.small[at..at + 4].copy_from_slice(&length(len).to_le_bytes());
                self.small[at + 4] = LONG_BACK;
                self.back_len = 5;
            }
        }
        self
    }

    /// Bytes of the element.
    #[inline]
    pub const fn len(&self) -> usize {
        self.head_len as usize + self.data.len() + self.back_len as usize
    }

    /// Never: an element has a head and a back.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The head; of a number with its data.
    #[inline]
    pub fn head(&self) -> &[u8] {
        &self.small[..usize::from(self.head_len)]
    }

    /// The data of a string.
    #[inline]
    pub const fn data(&self) -> &'d [u8] {
        self.data
    }

    /// What stands behind the data.
    #[inline]
    pub fn back(&self) -> &[u8] {
        let from = usize::from(self.head_len);
        &self.small[from..from + usize::from(self.back_len)]
    }

    /// The element's pieces, in their order.
    #[inline]
    pub fn pieces(&self) -> [&[u8]; 3] {
        [self.head(), self.data, self.back()]
    }

    /// Appends the element to `run`.
    pub fn push_to(&self, run: &mut Vec<u8>) {
        for piece in self.pieces() {
            run.extend_from_slice(piece);
        }
    }

    /// Writes the element to the beginning of `place`.
    ///
    /// # Panics
    /// It does not fit.
    pub fn write_to(&self, place: &mut [u8]) {
        let mut at = 0;
        for piece in self.pieces() {
            place[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "strings are at most MAX_STRING bytes long")]
const fn length(len: usize) -> u32 {
    len as u32
}

/// The number that `bytes` are the one way to write, if they are.
#[inline]
pub fn as_number(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut number = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Nineteen digits fit.
        number = number * 10 + u64::from(digit);
    }
    match negative {
        true => 0i64.checked_sub_unsigned(number),
        false => i64::try_from(number).ok(),
    }
}
