//! The THP collapser: collapses chunks in use that lie on small pages into huge pages.
//!
//! With `kernel-cow` these are chunks that copy-on-write has split during a checkpoint. Under the
//! undo log nothing is split, and chunks get their huge pages before they are used: there are such
//! chunks only if the stock was empty when they were taken. They are found by the scan that comes
//! once a minute; the end of a checkpoint triggers none.
//!
//! A thread that touches a chunk waits for its collapse, so the collapser collapses one chunk at a
//! time with `MADV_COLLAPSE` and pauses nine times as long as that took: at most a tenth of the
//! time. A collapse that took longer than a client should wait doubles the pause, up to seconds.
//! The checkpoint scheduler's thread runs it while no checkpoint runs, since page-table walks
//! delay a fork.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::commands::Shared;
use crate::keyspace::CHUNK_SIZE;
use cowherd_arena::ChunkIndex;

/// Period of page-table scans.
const SCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Shortest pause after a chunk.
const MIN_PAUSE: Duration = Duration::from_millis(5);
/// Collapsing takes at most one part in this many of the time.
const DUTY_DIVISOR: u32 = 10;
/// The longest that a collapse may make others wait without more backing off.
const STALL_BUDGET: Duration = Duration::from_millis(2);
/// Most doublings of the pause.
const MAX_DOUBLINGS: u32 = 8;
/// This many refusals in a row end the work until the next scan: the kernel has no free huge page.
const MAX_REFUSALS: u32 = 8;

/// The chunks to be collapsed, and the time of the next step.
pub(super) struct ThpCollapser {
    /// Split chunks, the next one last.
    pending: Vec<ChunkIndex>,
    refusals: u32,
    /// How often the pause is doubled: the last collapses made others wait too long.
    doublings: u32,
    /// A collapse has succeeded, so the kernel supports `MADV_COLLAPSE`.
    supported: bool,
    /// The kernel does not support `MADV_COLLAPSE`.
    unsupported: bool,
    next_step: Instant,
    next_scan: Instant,
}

impl ThpCollapser {
    /// Creates a collapser that scans in its first step.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            pending: Vec::new(),
            refusals: 0,
            doublings: 0,
            supported: false,
            unsupported: false,
            next_step: now,
            next_scan: now,
        }
    }

    /// Time until the next step is due.
    pub(super) fn idle_time(&self) -> Duration {
        let next = if self.pending.is_empty() { self.next_scan } else { self.next_step };
        next.saturating_duration_since(Instant::now())
    }

    /// Makes the next step scan: a checkpoint has ended and may have split pages.
    pub(super) fn rescan(&mut self) {
        self.next_scan = Instant::now();
        self.pending.clear();
    }

    /// Scans or collapses one chunk, whichever is due. `is_cancelled` ends a scan early, for a
    /// checkpoint that was requested meanwhile.
    pub(super) fn step(&mut self, shared: &Shared, is_cancelled: impl Fn() -> bool) {
        if Instant::now() >= self.next_scan {
            self.scan(shared, is_cancelled);
        } else if let Some(chunk) = self.pending.pop() {
            self.collapse(shared, chunk);
        }
    }

    fn scan(&mut self, shared: &Shared, is_cancelled: impl Fn() -> bool) {
        let arena = shared.keyspace.arena();
        let now = Instant::now();
        (self.next_scan, self.next_step) = (now + SCAN_INTERVAL, now + MIN_PAUSE);
        self.refusals = 0;
        self.pending.clear();
        if let Some(report) = arena.scan_pages(|| !is_cancelled()) {
            shared.sampled.set_huge_bytes(report.huge.len() * CHUNK_SIZE);
            if shared.config.current().arena_thp_collapse && !self.unsupported {
                self.pending = report.split;
                self.pending.reverse();
            }
        } else if !is_cancelled() {
            shared.sampled.set_huge_bytes(arena.huge_bytes_of_old_kernels().unwrap_or(0));
        }
    }

    fn collapse(&mut self, shared: &Shared, chunk: ChunkIndex) {
        if !shared.config.current().arena_thp_collapse {
            self.pending.clear();
            return;
        }
        let begun = Instant::now();
        let result = shared.keyspace.arena().collapse(chunk);
        let took = begun.elapsed();
        if let Ok(true) = result {
            shared.sampled.count_collapse();
        }
        self.record(&result);
        self.next_step = Instant::now() + self.pause_after(took);
    }

    /// The pause after a collapse that made others wait for `took`.
    fn pause_after(&mut self, took: Duration) -> Duration {
        self.doublings = if took > STALL_BUDGET {
            (self.doublings + 1).min(MAX_DOUBLINGS)
        } else {
            self.doublings.saturating_sub(1)
        };
        MIN_PAUSE.max(took * (DUTY_DIVISOR - 1)) * (1 << self.doublings)
    }

    /// Counts refusals; too many in a row drop the pending chunks, and for ever if the kernel has
    /// never collapsed any.
    fn record(&mut self, result: &io::Result<bool>) {
        let Err(error) = result else {
            self.refusals = 0;
            self.supported |= matches!(result, Ok(true));
            return;
        };
        self.refusals += 1;
        if self.refusals < MAX_REFUSALS {
            return;
        }
        self.pending.clear();
        // EINVAL also stands for a single chunk that cannot be collapsed, for example because none
        // of its pages is present.
        if error.raw_os_error() == Some(Errno::EINVAL as i32) && !self.supported {
            tracing::warn!(
                "The kernel does not collapse split huge pages (MADV_COLLAPSE, Linux 6.1)"
            );
            self.unsupported = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_pending_chunks() -> ThpCollapser {
        let mut collapser = ThpCollapser::new();
        collapser.next_scan += SCAN_INTERVAL;
        collapser.pending = (0..20).map(ChunkIndex).collect();
        collapser
    }

    fn refused(errno: Errno) -> io::Result<bool> {
        Err(errno.into())
    }

    #[test]
    fn refusals_in_a_row_end_the_work_until_the_next_scan() {
        let mut collapser = with_pending_chunks();
        for _ in 1..MAX_REFUSALS {
            collapser.record(&refused(Errno::EAGAIN));
        }
        collapser.record(&Ok(true));
        for _ in 1..MAX_REFUSALS {
            collapser.record(&refused(Errno::ENOMEM));
        }
        assert_eq!(collapser.pending.len(), 20, "a success resets the count");
        collapser.record(&refused(Errno::ENOMEM));
        assert!(collapser.pending.is_empty() && !collapser.unsupported);
        assert!(collapser.idle_time() > MIN_PAUSE, "nothing to do until the next scan");
    }

    #[test]
    fn a_kernel_that_never_collapsed_is_not_tried_again() {
        let refuse = |collapser: &mut ThpCollapser, times| {
            (0..times).for_each(|_| collapser.record(&refused(Errno::EINVAL)));
        };
        let mut collapser = with_pending_chunks();
        refuse(&mut collapser, MAX_REFUSALS - 1);
        assert!(!collapser.unsupported && collapser.pending.len() == 20, "it may be the chunks");
        refuse(&mut collapser, 1);
        assert!(collapser.unsupported && collapser.pending.is_empty());
        let mut collapser = with_pending_chunks();
        collapser.record(&Ok(true));
        refuse(&mut collapser, MAX_REFUSALS);
        assert!(!collapser.unsupported && collapser.pending.is_empty(), "it has worked before");
    }

    #[test]
    fn stalls_lengthen_the_pause() {
        let mut collapser = with_pending_chunks();
        let (quick, slow) = (Duration::from_micros(100), Duration::from_millis(3));
        assert_eq!(collapser.pause_after(quick), MIN_PAUSE);
        assert_eq!(collapser.pause_after(slow), 2 * 9 * slow);
        assert_eq!(collapser.pause_after(slow), 4 * 9 * slow);
        assert_eq!(collapser.pause_after(quick), 2 * MIN_PAUSE);
        assert_eq!(collapser.pause_after(quick), MIN_PAUSE);
        assert_eq!((0..99).map(|_| collapser.pause_after(slow)).max(), Some(256 * 9 * slow));
    }

    #[test]
    fn the_end_of_a_checkpoint_makes_a_scan_due() {
        let mut collapser = with_pending_chunks();
        collapser.rescan();
        assert!(collapser.pending.is_empty());
        assert_eq!(collapser.idle_time(), Duration::ZERO);
    }
}
