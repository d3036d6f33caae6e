//! The query buffer of a connection: received bytes that have not run yet, which are an incomplete
//! request or requests behind a blocked one.
//!
//! ```text
//! bytes   | ran already | waits to be completed or run | space for the next read |
//!         0           start                           len                    capacity
//! ```
//!
//! Invariant: when bytes are consumed and at most [`SMALL_REST`] remain, the memory that a large
//! request needed is freed.

use bytes::BufMut;
use bytes::buf::Limit;

/// Largest capacity that an almost empty buffer may keep.
pub(super) const MAX_IDLE_CAPACITY: usize = 256 << 10;
/// A rest of up to this many bytes is moved out of a large buffer; more is not worth the copy.
const SMALL_REST: usize = 64 << 10;

/// Received bytes of one connection that have not run; owns no memory while empty.
#[derive(Debug, Default)]
pub(super) struct QueryBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl QueryBuffer {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Space at the end for a read of at most `wanted` bytes.
    pub(super) fn space(&mut self, wanted: usize) -> Limit<&mut Vec<u8>> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(wanted);
        (&mut self.bytes).limit(wanted)
    }

    /// Consumes the first `count` bytes.
    pub(super) fn advance(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.start += count;
        if self.is_empty() {
            *self = Self::default();
        } else if self.bytes.capacity() > MAX_IDLE_CAPACITY && self.len() <= SMALL_REST {
            *self = Self { bytes: self.as_slice().to_vec(), start: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize) -> QueryBuffer {
        let mut buffer = QueryBuffer::default();
        buffer.append(&vec![b'x'; len]);
        buffer
    }

    #[test]
    fn advance_drops_what_ran_and_keeps_the_rest_in_order() {
        let mut buffer = QueryBuffer::default();
        buffer.append(b"one");
        buffer.append(b"two");
        buffer.advance(2);
        assert_eq!((buffer.as_slice(), buffer.len()), (&b"etwo"[..], 4));
        buffer.space(10).put_slice(b"three");
        assert_eq!(buffer.as_slice(), b"etwothree");
        assert_eq!(buffer.space(10).remaining_mut(), 10);
        buffer.advance(9);
        assert!(buffer.is_empty());
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    /// The buffer of a large request was kept as long as a byte of the next one was in it: a
    /// connection could hold half a gigabyte for ever.
    #[test]
    fn a_large_buffer_is_not_kept_for_a_small_rest() {
        let mut buffer = filled(8 << 20);
        buffer.append(b"*1\r\n");
        buffer.advance(4 << 20);
        assert!(buffer.bytes.capacity() >= 8 << 20, "copied while much was left");
        buffer.advance(4 << 20);
        assert_eq!(buffer.as_slice(), b"*1\r\n");
        assert!(buffer.bytes.capacity() <= MAX_IDLE_CAPACITY, "{}", buffer.bytes.capacity());
    }

    #[test]
    fn advance_by_zero_does_not_copy_a_growing_request() {
        let mut buffer = filled(100);
        buffer.bytes.reserve(1 << 20);
        let before = buffer.bytes.as_ptr();
        buffer.advance(0);
        assert_eq!(buffer.bytes.as_ptr(), before);
    }
}
