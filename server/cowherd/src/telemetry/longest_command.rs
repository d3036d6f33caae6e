//! The command that took longest during a checkpoint, for each thread.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize, fence};

/// The command that kept a client waiting longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LongestCommand {
    pub(crate) nanos: u64,
    /// When the command began, on the clock of [`crate::clock::monotonic_ns`].
    pub(crate) begun_ns: u64,
    /// The part of `nanos` that went into copy-on-write faults or undo log captures.
    pub(crate) stall_nanos: u64,
    /// Index into the list of command names.
    pub(crate) command: usize,
}

/// The longest command of one thread in one checkpoint. One thread writes, any thread reads.
///
/// A sequence lock: the writer makes `sequence` odd, writes the fields and makes `sequence` even
/// again. A reader that sees `sequence` odd or changed reads again.
#[derive(Debug, Default)]
pub(super) struct LongestCommandCell {
    sequence: AtomicU64,
    epoch: AtomicU64,
    nanos: AtomicU64,
    begun_ns: AtomicU64,
    stall_nanos: AtomicU64,
    command: AtomicUsize,
}

impl LongestCommandCell {
    /// Keeps `command` if it is the longest so far of the checkpoint with this epoch.
    #[inline]
    pub(super) fn record(&self, epoch: u64, command: LongestCommand) {
        if command.nanos > self.nanos.load(Relaxed) || self.epoch.load(Relaxed) != epoch {
            self.write(epoch, command);
        }
    }

    #[cold]
    fn write(&self, epoch: u64, command: LongestCommand) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence + 1, Relaxed);
        fence(Release);
        self.epoch.store(epoch, Relaxed);
        self.nanos.store(command.nanos, Relaxed);
        self.begun_ns.store(command.begun_ns, Relaxed);
        self.stall_nanos.store(command.stall_nanos, Relaxed);
        self.command.store(command.command, Relaxed);
        self.sequence.store(sequence + 2, Release);
    }

    /// The longest command of the checkpoint with this epoch. None: no command ran.
    pub(super) fn read(&self, epoch: u64) -> Option<LongestCommand> {
        loop {
            let before = self.sequence.load(Acquire);
            let own_epoch = self.epoch.load(Relaxed);
            let longest = LongestCommand {
                nanos: self.nanos.load(Relaxed),
                begun_ns: self.begun_ns.load(Relaxed),
                stall_nanos: self.stall_nanos.load(Relaxed),
                command: self.command.load(Relaxed),
            };
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                return (own_epoch == epoch).then_some(longest);
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(nanos: u64) -> LongestCommand {
        LongestCommand { nanos, begun_ns: nanos, stall_nanos: nanos, command: nanos as usize }
    }

    #[test]
    fn each_checkpoint_has_its_own_longest_command() {
        let cell = LongestCommandCell::default();
        assert_eq!(cell.read(1), None);
        [5, 9, 7].into_iter().for_each(|nanos| cell.record(1, command(nanos)));
        assert_eq!(cell.read(1), Some(command(9)));
        cell.record(3, command(2));
        assert_eq!((cell.read(1), cell.read(3)), (None, Some(command(2))));
    }

    #[test]
    fn readers_never_see_a_mixture() {
        let cell = LongestCommandCell::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..200_000).for_each(|nanos| cell.record(1, command(nanos))));
            let mut last = 0;
            while last < 199_999 {
                if let Some(seen) = cell.read(1) {
                    assert_eq!(seen, command(seen.nanos));
                    assert!(seen.nanos >= last);
                    last = seen.nanos;
                }
            }
        });
    }
}
