//! Whether a save runs, and the worst that a client met while it did.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize, fence};

/// What goes on: an odd number while a save runs, each save its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointEpoch(pub(super) u64);

impl CheckpointEpoch {
    /// Whether a save runs.
    #[inline]
    pub const fn is_checkpoint(self) -> bool {
        self.0 % 2 == 1
    }

    #[inline]
    pub(super) const fn index(self) -> usize {
        if self.is_checkpoint() { 1 } else { 0 }
    }
}

/// Changes of phase, counted.
#[derive(Debug, Default)]
pub(super) struct PhaseCounter(AtomicU64);

impl PhaseCounter {
    /// What goes on at this moment.
    #[inline]
    pub(super) fn now(&self) -> CheckpointEpoch {
        CheckpointEpoch(self.0.load(Relaxed))
    }

    /// Goes on to the next phase.
    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The save that runs, or else the last one.
    pub(super) fn save(&self) -> u64 {
        self.0.load(Relaxed).saturating_sub(1) | 1
    }
}

/// The command that kept a client waiting longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LongestCommand {
    /// How long, in nanoseconds.
    pub nanos: u64,
    /// When it began, as [`crate::clock::monotonic_ns`] counts.
    pub begun_ns: u64,
    /// How much of it copy-on-write took, or capturing for the undo log.
    pub stall_nanos: u64,
    /// Its place in the list of names.
    pub command: usize,
}

/// The worst command of one thread in one save. One thread writes, any reads.
///
/// A sequence lock: the writer makes `sequence` odd, writes, and makes it even; a reader that saw
/// it odd, or saw it change, reads again.
#[derive(Debug, Default)]
pub(super) struct LongestCommandCell {
    sequence: AtomicU64,
    save: AtomicU64,
    nanos: AtomicU64,
    begun_ns: AtomicU64,
    stall_nanos: AtomicU64,
    command: AtomicUsize,
}

impl LongestCommandCell {
    /// A command of a save has ended.
    #[inline]
    pub(super) fn note(&self, save: u64, worst: LongestCommand) {
        if worst.nanos > self.nanos.load(Relaxed) || self.save.load(Relaxed) != save {
            self.write(save, worst);
        }
    }

    #[cold]
    fn write(&self, save: u64, worst: LongestCommand) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence + 1, Relaxed);
        fence(Release);
        self.save.store(save, Relaxed);
        self.nanos.store(worst.nanos, Relaxed);
        self.begun_ns.store(worst.begun_ns, Relaxed);
        self.stall_nanos.store(worst.stall_nanos, Relaxed);
        self.command.store(worst.command, Relaxed);
        self.sequence.store(sequence + 2, Release);
    }

    /// The worst of a save, if there was a command.
    pub(super) fn read(&self, save: u64) -> Option<LongestCommand> {
        loop {
            let before = self.sequence.load(Acquire);
            let of = self.save.load(Relaxed);
            let worst = LongestCommand {
                nanos: self.nanos.load(Relaxed),
                begun_ns: self.begun_ns.load(Relaxed),
                stall_nanos: self.stall_nanos.load(Relaxed),
                command: self.command.load(Relaxed),
            };
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                return (of == save).then_some(worst);
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(nanos: u64) -> LongestCommand {
        LongestCommand { nanos, begun_ns: nanos, stall_nanos: nanos, command: nanos as usize }
    }

    #[test]
    fn each_save_has_its_own_worst() {
        let cell = LongestCommandCell::default();
        assert_eq!(cell.read(1), None);
        [5, 9, 7].into_iter().for_each(|nanos| cell.note(1, worst(nanos)));
        assert_eq!(cell.read(1), Some(worst(9)));
        cell.note(3, worst(2));
        assert_eq!((cell.read(1), cell.read(3)), (None, Some(worst(2))));
    }

    #[test]
    fn readers_never_see_a_mixture() {
        let cell = LongestCommandCell::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..200_000).for_each(|nanos| cell.note(1, worst(nanos))));
            let mut last = 0;
            while last < 199_999 {
                if let Some(seen) = cell.read(1) {
                    assert_eq!(seen, worst(seen.nanos));
                    assert!(seen.nanos >= last);
                    last = seen.nanos;
                }
            }
        });
    }

    #[test]
    fn phases_alternate() {
        let counter = PhaseCounter::default();
        assert!(!counter.now().is_checkpoint());
        counter.advance();
        assert!(counter.now().is_checkpoint());
        assert_eq!(counter.save(), 1);
        counter.advance();
        assert!(!counter.now().is_checkpoint());
        assert_eq!(counter.save(), 1);
        counter.advance();
        assert_eq!((counter.now().0, counter.save()), (3, 3));
    }
}
