//! Bytes that were received and not run yet: an incomplete request, or requests that wait.
//!
//! ```text
//! bytes   | ran already | waits to be completed or run | room for the next read |
//!         0           start                           len                   capacity
//! ```
//!
//! Invariant: once bytes are taken from the front and little is left, the memory that a large
//! request needed is given back.

use bytes::BufMut;
use bytes::buf::Limit;

/// A buffer larger than this is not kept for the little that a large request left in it.
pub(super) const KEEP: usize = 256 << 10;
/// What counts as little.
const LITTLE: usize = 64 << 10;

/// The received bytes of one connection that still matter; without memory when there are none.
#[derive(Debug, Default)]
pub(super) struct QueryBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl QueryBuffer {
    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The bytes that wait.
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Adds what was received behind them.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Room behind them for `wanted` bytes and no more.
    pub(super) fn room(&mut self, wanted: usize) -> Limit<&mut Vec<u8>> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(wanted);
        (&mut self.bytes).limit(wanted)
    }

    /// Forgets the first `count` bytes: they have run.
    pub(super) fn advance(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.start += count;
        if self.is_empty() {
            *self = Self::default();
        } else if self.bytes.capacity() > KEEP && self.len() <= LITTLE {
            *self = Self { bytes: self.as_slice().to_vec(), start: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize) -> QueryBuffer {
        let mut pending = QueryBuffer::default();
        pending.append(&vec![b'x'; len]);
        pending
    }

    #[test]
    fn what_ran_is_forgotten_and_the_rest_stays_in_order() {
        let mut pending = QueryBuffer::default();
        pending.append(b"one");
        pending.append(b"two");
        pending.advance(2);
        assert_eq!((pending.as_slice(), pending.len()), (&b"etwo"[..], 4));
        pending.room(10).put_slice(b"three");
        assert_eq!(pending.as_slice(), b"etwothree");
        assert_eq!(pending.room(10).remaining_mut(), 10);
        pending.advance(9);
        assert!(pending.is_empty());
        assert_eq!(pending.bytes.capacity(), 0);
    }

    /// The buffer of a large request was kept as long as a byte of the next one was in it: a
    /// connection could hold half a gigabyte for ever.
    #[test]
    fn a_large_buffer_is_not_kept_for_a_small_rest() {
        let mut pending = filled(8 << 20);
        pending.append(b"*1\r\n");
        pending.advance(4 << 20);
        assert!(pending.bytes.capacity() >= 8 << 20, "copied while much was left");
        pending.advance(4 << 20);
        assert_eq!(pending.as_slice(), b"*1\r\n");
        assert!(pending.bytes.capacity() <= KEEP, "{}", pending.bytes.capacity());
    }

    #[test]
    fn a_growing_request_is_not_copied_for_nothing() {
        let mut pending = filled(100);
        pending.bytes.reserve(1 << 20);
        let before = pending.bytes.as_ptr();
        pending.advance(0);
        assert_eq!(pending.bytes.as_ptr(), before);
    }
}
