//! Signal bits: what a connection has to do between two commands, set by any thread.

use std::sync::atomic::{AtomicU8, Ordering};

/// The connection is to be closed.
pub(crate) const KILLED: u8 = 1;
/// The output buffer is not empty.
pub(crate) const OUTPUT_PENDING: u8 = 1 << 1;

/// The signals of one client.
#[derive(Default)]
pub(super) struct Signals(AtomicU8);

impl Signals {
    #[inline]
    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, signal: u8) {
        self.0.fetch_or(signal, Ordering::AcqRel);
    }

    pub(super) fn clear(&self, signal: u8) {
        self.0.fetch_and(!signal, Ordering::AcqRel);
    }
}
