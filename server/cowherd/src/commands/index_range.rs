//! First and last place as clients give them: both included, below zero counted from the end.

use std::ops::RangeInclusive;

/// The part that a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IndexRange {
    /// The first place.
    pub start: i64,
    /// The last place.
    pub end: i64,
}

impl IndexRange {
    /// Whether both count from the end and the first is behind the last: empty at any length.
    pub const fn is_backward(self) -> bool {
        self.start < 0 && self.end < 0 && self.start > self.end
    }

    /// What of it there is among `len` places; `None` if nothing.
    pub fn within(self, len: u64) -> Option<RangeInclusive<u64>> {
        let from_start = |at: i64| match u64::try_from(at) {
            Ok(at) => at,
            Err(_) => len.saturating_sub(at.unsigned_abs()),
        };
        let (start, end) = (from_start(self.start), from_start(self.end));
        let end = end.min(len.checked_sub(1)?);
        (start <= end).then_some(start..=end)
    }
}

/// The bytes at such places, which are among them.
pub(super) fn bytes<'b>(bytes: &'b [u8], places: &RangeInclusive<u64>) -> &'b [u8] {
    &bytes[index(*places.start())..=index(*places.end())]
}

/// A place in a value as an index; values are at most 512 MB.
#[expect(clippy::cast_possible_truncation, reason = "64-bit machines only")]
pub(super) const fn index(place: u64) -> usize {
    place as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_either_end() {
        let of = |start, end| IndexRange { start, end }.within(5);
        assert_eq!(of(0, -1), Some(0..=4));
        assert_eq!(of(-2, -1), Some(3..=4));
        assert_eq!(of(-100, 0), Some(0..=0));
        assert_eq!(of(1, 100), Some(1..=4));
        assert_eq!(of(3, 2), None);
        assert_eq!(of(5, 9), None);
        assert_eq!(of(i64::MIN, i64::MAX), Some(0..=4));
        assert_eq!(of(-50, -100), Some(0..=0));
        assert!(IndexRange { start: -50, end: -100 }.is_backward());
        assert_eq!(IndexRange { start: 0, end: -1 }.within(0), None);
    }
}
