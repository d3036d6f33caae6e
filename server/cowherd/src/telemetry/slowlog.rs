//! The slow log: commands that took longer than `slowlog-log-slower-than`, with their arguments cut
//! short, and with the part of the time that was copy-on-write.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use zerocopy::FromZeros;

use super::mailbox::RingBuffer;

/// Arguments that an entry keeps, and bytes of each: as Redis does.
const ARGUMENTS: usize = 32;
const ARGUMENT_BYTES: usize = 128;
/// Bytes of a client's address: the path of a Unix socket fits.
const PEER_BYTES: usize = 112;
const NAME_BYTES: usize = 64;
/// Notes that wait to be collected, of each thread and half.
const NOTES: usize = 128;

/// Notes of slow commands by one thread.
pub(super) type SlowNotes = RingBuffer<SlowCommandSlot>;

/// Room for the notes of one thread.
pub(super) fn slow_notes() -> SlowNotes {
    RingBuffer::new(NOTES)
}

/// A slow command as its thread notes it.
#[derive(Debug, FromZeros)]
pub(super) struct SlowCommandSlot {
    at_ms: i64,
    nanos: u64,
    stall_nanos: u64,
    /// Arguments, those that are left out included.
    arguments: u64,
    /// Whole lengths of those that are kept.
    lengths: [u64; ARGUMENTS],
    bytes: [[u8; ARGUMENT_BYTES]; ARGUMENTS],
    peer: Short<PEER_BYTES>,
    name: Short<NAME_BYTES>,
}

/// Text that is cut off.
#[derive(Debug, FromZeros)]
struct Short<const N: usize> {
    length: usize,
    bytes: [u8; N],
}

impl<const N: usize> Short<N> {
    fn set(&mut self, text: &[u8]) {
        self.length = fill(&mut self.bytes, text);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.length.min(N)]).into_owned()
    }
}

/// Copies what there is room for.
fn fill(to: &mut [u8], from: &[u8]) -> usize {
    let length = from.len().min(to.len());
    to[..length].copy_from_slice(&from[..length]);
    length
}

/// A command that was slow.
#[derive(Debug, Clone, Copy)]
pub struct SlowCommand<'a> {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: i64,
    /// How long it took, in nanoseconds.
    pub nanos: u64,
    /// How much of it copy-on-write took, or capturing for the undo log.
    pub stall_nanos: u64,
    /// The client's address.
    pub peer: &'a str,
    /// The client's name.
    pub name: &'a str,
}

impl SlowCommandSlot {
    /// Takes down a command with its arguments. Allocates nothing.
    pub(super) fn take_down<'a>(
        &mut self,
        slow: &SlowCommand<'_>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        (self.at_ms, self.nanos, self.stall_nanos) = (slow.at_ms, slow.nanos, slow.stall_nanos);
        self.arguments = arguments.len() as u64;
        let places = self.lengths.iter_mut().zip(&mut self.bytes);
        for ((length, bytes), argument) in places.zip(arguments) {
            *length = argument.len() as u64;
            fill(bytes, argument);
        }
        self.peer.set(slow.peer.as_bytes());
        self.name.set(slow.name.as_bytes());
    }

    /// The arguments as the log shows them: of more than 32 the first 31, of each 128 bytes.
    fn arguments(&self) -> Vec<Vec<u8>> {
        let left_out = match self.arguments {
            all if all > ARGUMENTS as u64 => all - (ARGUMENTS as u64 - 1),
            _ => 0,
        };
        let kept = usize::try_from(self.arguments - left_out).unwrap_or(0);
        let places = self.lengths.iter().zip(&self.bytes).take(kept);
        let mut shown: Vec<Vec<u8>> = places
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

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowlogEntry {
    /// Its number, never used twice.
    pub id: u64,
    /// When the command ended, in milliseconds since 1970.
    pub at_ms: i64,
    /// How long it took, in nanoseconds.
    pub nanos: u64,
    /// How much of it copy-on-write took, or capturing for the undo log.
    pub stall_nanos: u64,
    /// The arguments, cut short.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub peer: String,
    /// The client's name.
    pub name: String,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct SlowLog {
    limit: AtomicUsize,
    total: AtomicU64,
    /// The newest first.
    entries: Mutex<VecDeque<SlowlogEntry>>,
}

impl SlowLog {
    /// The most entries from now on.
    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(usize::try_from(limit).unwrap_or(usize::MAX), Relaxed);
        self.entries.lock().truncate(self.limit.load(Relaxed));
    }

    /// Collects what threads have noted.
    pub(super) fn collect<'a>(&self, threads: impl Iterator<Item = &'a SlowNotes>) {
        let mut entries = self.entries.lock();
        let mut new = Vec::new();
        let mut id = self.total.load(Relaxed);
        for notes in threads {
            id += notes.drain(|note| {
                new.push(SlowlogEntry {
                    id: 0,
                    at_ms: note.at_ms,
                    nanos: note.nanos,
                    stall_nanos: note.stall_nanos,
                    arguments: note.arguments(),
                    peer: note.peer.text(),
                    name: note.name.text(),
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

    /// The newest entries, so many at most.
    pub(super) fn newest(&self, count: usize) -> Vec<SlowlogEntry> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> u64 {
        self.entries.lock().len() as u64
    }

    /// How many there ever were.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Forgets all entries.
    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: SlowCommand<'_> =
        SlowCommand { at_ms: 5, nanos: 7, stall_nanos: 3, peer: "127.0.0.1:9", name: "me" };

    fn note(notes: &SlowNotes, slow: &SlowCommand<'_>, arguments: &[&[u8]]) {
        notes.push(|note| note.take_down(slow, arguments.iter().copied()));
    }

    #[test]
    fn arguments_are_cut_as_in_redis() {
        let (log, notes) = (SlowLog::default(), slow_notes());
        log.set_limit(10);
        let long = [b'x'; 131];
        note(&notes, &SLOW, &[b"SET", &long, b""]);
        note(&notes, &SlowCommand { at_ms: 6, ..SLOW }, &[b"a".as_slice(); 32]);
        note(&notes, &SlowCommand { at_ms: 7, ..SLOW }, &[b"a".as_slice(); 40]);
        log.collect([&notes].into_iter());
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
    fn notes_of_threads_are_sorted_and_the_oldest_go() {
        let log = SlowLog::default();
        log.set_limit(3);
        let threads = [slow_notes(), slow_notes()];
        for (thread, at_ms) in [(0, 1), (0, 4), (1, 2), (1, 3)] {
            note(&threads[thread], &SlowCommand { at_ms, ..SLOW }, &[b"GET"]);
        }
        log.collect(threads.iter());
        let times =
            |log: &SlowLog| log.newest(9).iter().map(|e| (e.id, e.at_ms)).collect::<Vec<_>>();
        assert_eq!(times(&log), [(3, 4), (2, 3), (1, 2)]);
        assert_eq!((log.len(), log.total()), (3, 4));
        log.set_limit(1);
        assert_eq!(times(&log), [(3, 4)]);
        log.clear();
        assert_eq!((log.len(), log.total()), (0, 4), "numbers are not used twice");
        for _ in 0..NOTES + 2 {
            note(&threads[0], &SLOW, &[b"GET"]);
        }
        log.collect(threads.iter());
        assert_eq!(log.total(), 4 + NOTES as u64 + 2, "what was forgotten counts");
    }
}
