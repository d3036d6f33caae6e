//! The checkpoint epoch: whether a checkpoint runs, and which one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count of the starts and ends of checkpoints: odd while a checkpoint runs, with an own number
/// for each checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CheckpointEpoch(pub(super) u64);

impl CheckpointEpoch {
    /// Whether a checkpoint runs.
    #[inline]
    pub(crate) const fn is_checkpoint(self) -> bool {
        self.0 % 2 == 1
    }

    /// Index into pairs of counters: 0 while no checkpoint runs, 1 while one does.
    #[inline]
    pub(super) const fn index(self) -> usize {
        if self.is_checkpoint() { 1 } else { 0 }
    }
}

/// One epoch of each index, to read both counters of a pair.
pub(super) const EACH_PHASE: [CheckpointEpoch; 2] = [CheckpointEpoch(0), CheckpointEpoch(1)];

/// The current epoch, shared by all threads.
#[derive(Debug, Default)]
pub(super) struct EpochCounter(AtomicU64);

impl EpochCounter {
    #[inline]
    pub(super) fn now(&self) -> CheckpointEpoch {
        CheckpointEpoch(self.0.load(Relaxed))
    }

    /// Enters the next epoch: a checkpoint begins or ends.
    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The epoch of the running checkpoint, or else of the last one.
    pub(super) fn of_checkpoint(&self) -> u64 {
        self.0.load(Relaxed).saturating_sub(1) | 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_alternate() {
        let counter = EpochCounter::default();
        assert!(!counter.now().is_checkpoint());
        counter.advance();
        assert!(counter.now().is_checkpoint());
        assert_eq!(counter.of_checkpoint(), 1);
        counter.advance();
        assert!(!counter.now().is_checkpoint());
        assert_eq!(counter.of_checkpoint(), 1);
        counter.advance();
        assert_eq!((counter.now().0, counter.of_checkpoint()), (3, 3));
    }
}
