//! Index ranges in arguments: both bounds are included, and negative ones count from the end.

use std::ops::RangeInclusive;

/// A range of indexes as given in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IndexRange {
    /// The first index.
    pub start: i64,
    /// The last index.
    pub end: i64,
}

impl IndexRange {
    /// Whether both bounds count from the end and the first is behind the last, so that the range
    /// is empty at any length.
    pub const fn is_backward(self) -> bool {
        self.start < 0 && self.end < 0 && self.start > self.end
    }

    /// The part of the range that exists within `len` elements; `None` if it is empty.
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

/// The bytes of a range, which must exist.
pub(super) fn bytes<'b>(bytes: &'b [u8], range: &RangeInclusive<u64>) -> &'b [u8] {
    &bytes[index(*range.start())..=index(*range.end())]
}

/// An offset in a value as an index; values have at most a gigabyte.
#[expect(clippy::cast_possible_truncation, reason = "64-bit machines only")]
pub(super) const fn index(offset: u64) -> usize {
    offset as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_bounds_count_from_the_end() {
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
