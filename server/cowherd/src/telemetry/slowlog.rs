//! The slow log (SLOWLOG): commands that took longer than `slowlog-log-slower-than`, with truncated
//! arguments and with the time that went into copy-on-write faults or undo log captures.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use zerocopy::FromZeros;

use super::ring_buffer::RingBuffer;

/// Arguments that an entry keeps, and bytes of each, as in Redis.
const ARGUMENTS: usize = 32;
const ARGUMENT_BYTES: usize = 128;
/// Bytes of a client's address: the path of a Unix socket fits.
const PEER_BYTES: usize = 112;
const NAME_BYTES: usize = 64;
/// Commands in each half of a thread's ring buffer. The background thread drains it 10 times a
/// second.
const RING_CAPACITY: usize = 128;

/// The ring buffer in which one thread records its slow commands.
pub(super) type SlowCommandRing = RingBuffer<RawSlowCommand>;

/// An empty ring buffer for one thread.
pub(super) fn slow_command_ring() -> SlowCommandRing {
    RingBuffer::new(RING_CAPACITY)
}

/// A slow command as its thread records it: plain bytes, so that zeroed memory is valid.
#[derive(Debug, FromZeros)]
pub(super) struct RawSlowCommand {
    at_ms: i64,
    nanos: u64,
    stall_nanos: u64,
    /// Number of arguments, those left out included.
    arguments: u64,
    /// Untruncated lengths of the kept arguments.
    lengths: [u64; ARGUMENTS],
    bytes: [[u8; ARGUMENT_BYTES]; ARGUMENTS],
    peer: FixedText<PEER_BYTES>,
    name: FixedText<NAME_BYTES>,
}

/// Text truncated to `N` bytes.
#[derive(Debug, FromZeros)]
struct FixedText<const N: usize> {
    length: usize,
    bytes: [u8; N],
}

impl<const N: usize> FixedText<N> {
    fn set(&mut self, text: &[u8]) {
        self.length = fill(&mut self.bytes, text);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.length.min(N)]).into_owned()
    }
}

/// Copies as much as fits; returns the number of bytes.
fn fill(to: &mut [u8], from: &[u8]) -> usize {
    let length = from.len().min(to.len());
    to[..length].copy_from_slice(&from[..length]);
    length
}

/// A slow command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlowCommand<'a> {
    /// When the command ended, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Its duration in nanoseconds.
    pub(crate) nanos: u64,
    /// The part of `nanos` that went into copy-on-write faults or undo log captures.
    pub(crate) stall_nanos: u64,
    /// The client's address.
    pub(crate) peer: &'a str,
    /// The client's name.
    pub(crate) name: &'a str,
}

impl RawSlowCommand {
    /// Overwrites the record with a command and its arguments. Allocates nothing.
    pub(super) fn set<'a>(
        &mut self,
        slow: &SlowCommand<'_>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        (self.at_ms, self.nanos, self.stall_nanos) = (slow.at_ms, slow.nanos, slow.stall_nanos);
        self.arguments = arguments.len() as u64;
        let slots = self.lengths.iter_mut().zip(&mut self.bytes);
        for ((length, bytes), argument) in slots.zip(arguments) {
            *length = argument.len() as u64;
            fill(bytes, argument);
        }
        self.peer.set(slow.peer.as_bytes());
        self.name.set(slow.name.as_bytes());
    }

    /// The arguments as SLOWLOG shows them: of more than 32 the first 31, of each 128 bytes.
    fn arguments(&self) -> Vec<Vec<u8>> {
        let left_out = match self.arguments {
            all if all > ARGUMENTS as u64 => all - (ARGUMENTS as u64 - 1),
            _ => 0,
        };
        let kept = usize::try_from(self.arguments - left_out).unwrap_or(0);
        let slots = self.lengths.iter().zip(&self.bytes).take(kept);
        let mut shown: Vec<Vec<u8>> = slots
            .map(|(length, bytes)| {
                let here = usize::try_from(*length).unwrap_or(usize::MAX).min(ARGUMENT_BYTES);
                let mut shown = bytes[..here].to_vec();
                match length - here as u64 {
                    0 => {}
                    more => shown.extend_from_slice(format!("... ({more} more bytes)").as_bytes()),
                }
                shown
            })
            .collect();
        if left_out > 0 {
            shown.push(format!("... ({left_out} more arguments)").into_bytes());
        }
        shown
    }
}

/// An entry of the slow log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlowlogEntry {
    /// Unique number, counted up from 0.
    pub(crate) id: u64,
    /// When the command ended, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Its duration in nanoseconds.
    pub(crate) nanos: u64,
    /// The part of `nanos` that went into copy-on-write faults or undo log captures.
    pub(crate) stall_nanos: u64,
    /// The truncated arguments.
    pub(crate) arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub(crate) peer: String,
    /// The client's name.
    pub(crate) name: String,
}

/// The entries of all threads.
#[derive(Debug, Default)]
pub(super) struct SlowLog {
    limit: AtomicUsize,
    total: AtomicU64,
    /// The newest first.
    entries: Mutex<VecDeque<SlowlogEntry>>,
}

impl SlowLog {
    /// Keeps at most `limit` entries from now on.
    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(usize::try_from(limit).unwrap_or(usize::MAX), Relaxed);
        self.entries.lock().truncate(self.limit.load(Relaxed));
    }

    /// Drains the ring buffers of the threads into the log. Lost records count as entries.
    pub(super) fn collect<'a>(&self, rings: impl Iterator<Item = &'a SlowCommandRing>) {
        let mut entries = self.entries.lock();
        let mut new = Vec::new();
        let mut id = self.total.load(Relaxed);
        for ring in rings {
            id += ring.drain(|record| {
                new.push(SlowlogEntry {
                    id: 0,
                    at_ms: record.at_ms,
                    nanos: record.nanos,
                    stall_nanos: record.stall_nanos,
                    arguments: record.arguments(),
                    peer: record.peer.text(),
                    name: record.name.text(),
                });
            });
        }
        new.sort_by_key(|entry| entry.at_ms);
        for entry in new {
            entries.push_front(SlowlogEntry { id, ..entry });
            id += 1;
        }
        self.total.store(id, Relaxed);
        entries.truncate(self.limit.load(Relaxed));
    }

    /// The newest `count` entries.
    pub(super) fn newest(&self, count: usize) -> Vec<SlowlogEntry> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.lock().len() as u64
    }

    /// Number of entries ever made.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: SlowCommand<'_> =
        SlowCommand { at_ms: 5, nanos: 7, stall_nanos: 3, peer: "127.0.0.1:9", name: "me" };

    fn push(ring: &SlowCommandRing, slow: &SlowCommand<'_>, arguments: &[&[u8]]) {
        ring.push(|record| record.set(slow, arguments.iter().copied()));
    }

    #[test]
    fn arguments_are_cut_as_in_redis() {
        let (log, ring) = (SlowLog::default(), slow_command_ring());
        log.set_limit(10);
        let long = [b'x'; 131];
        push(&ring, &SLOW, &[b"SET", &long, b""]);
        push(&ring, &SlowCommand { at_ms: 6, ..SLOW }, &[b"a".as_slice(); 32]);
        push(&ring, &SlowCommand { at_ms: 7, ..SLOW }, &[b"a".as_slice(); 40]);
        log.collect([&ring].into_iter());
        let entries = log.newest(10);
        assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [2, 1, 0]);
        assert_eq!(entries[0].arguments.len(), 32);
        assert_eq!(entries[0].arguments[31], b"... (9 more arguments)");
        assert_eq!(entries[1].arguments, vec![b"a".to_vec(); 32]);
        let cut = [&long[..128], b"... (3 more bytes)"].concat();
        assert_eq!(entries[2].arguments, [b"SET".to_vec(), cut, Vec::new()]);
        let entry = &entries[2];
        assert_eq!((entry.at_ms, entry.nanos, entry.stall_nanos), (5, 7, 3));
        assert_eq!((entry.peer.as_str(), entry.name.as_str()), ("127.0.0.1:9", "me"));
    }

    #[test]
    fn entries_of_several_threads_are_sorted_and_the_oldest_are_dropped() {
        let log = SlowLog::default();
        log.set_limit(3);
        let rings = [slow_command_ring(), slow_command_ring()];
        for (thread, at_ms) in [(0, 1), (0, 4), (1, 2), (1, 3)] {
            push(&rings[thread], &SlowCommand { at_ms, ..SLOW }, &[b"GET"]);
        }
        log.collect(rings.iter());
        let times =
            |log: &SlowLog| log.newest(9).iter().map(|e| (e.id, e.at_ms)).collect::<Vec<_>>();
        assert_eq!(times(&log), [(3, 4), (2, 3), (1, 2)]);
        assert_eq!((log.len(), log.total()), (3, 4));
        log.set_limit(1);
        assert_eq!(times(&log), [(3, 4)]);
        log.clear();
        assert_eq!((log.len(), log.total()), (0, 4), "numbers are not used twice");
        for _ in 0..RING_CAPACITY + 2 {
            push(&rings[0], &SLOW, &[b"GET"]);
        }
        log.collect(rings.iter());
        assert_eq!(log.total(), 4 + RING_CAPACITY as u64 + 2, "what was forgotten counts");
    }
}
