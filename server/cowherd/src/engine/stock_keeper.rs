//! The stock keeper: a thread that keeps free chunks on huge pages in stock, so that data lies on
//! huge pages from its first byte.
//!
//! Preparing a chunk takes 0.3 ms of processor time, a third of what its small faults would take
//! from the workers. So the thread has their priority, but keeps a processor for short turns only.
//! It pauses after each chunk for as long as that took, unless half of the stock is gone; then it
//! prepares several at once. The stock holds what was taken in 0.2 s, at the highest rate of the
//! last seconds: four chunks when nothing happens.
//!
//! The thread exists only with transparent huge pages under the undo log. Private memory gets huge
//! pages from the kernel at the first touch.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Engine;
use crate::commands::Shared;
use crate::keyspace::CHUNK_SIZE;
use cowherd_arena::StockStats;
use cowherd_arena::checkpoint::take_short_background_turns;

/// Chunks in stock when none are taken.
const MIN_MARK: u32 = 4;
/// Most chunks in stock.
const MAX_MARK: u32 = 64;
/// The stock takes at most one part in this many of the arena.
const ARENA_PARTS: u64 = 16;
/// The stock lasts for this long at the rate at which chunks are taken.
const LASTS_SECONDS: f64 = 0.2;
/// In this time without further chunks taken, the rate counts half.
const HALF_LIFE_SECONDS: f64 = 2.0;
/// Shortest time over which a rate is measured.
const WINDOW: Duration = Duration::from_millis(20);
/// Most chunks prepared at once while half of the stock is gone.
const MAX_BATCH: u32 = 16;
/// Longest pause after a chunk.
const MAX_PAUSE: Duration = Duration::from_millis(5);
/// Period at which a large stock is sized anew.
const BUSY_WAIT: Duration = Duration::from_millis(250);
/// The same of the smallest.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// Shortest pause after a refusal of the kernel; it doubles with each further one.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// This many refusals with `EINVAL`, and no chunk prepared ever: the kernel cannot do it.
const MAX_REFUSALS: u32 = 4;

/// The running stock keeper.
pub(crate) struct StockKeeper {
    shared: Arc<Shared>,
    stopped: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl StockKeeper {
    /// Starts the thread; `None` if the arena keeps no stock.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub(crate) fn start(engine: &Engine) -> io::Result<Option<Self>> {
        let shared = Arc::clone(engine.shared());
        if !shared.keyspace.arena().keeps_stock() {
            return Ok(None);
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let (its_shared, its_stopped) = (Arc::clone(&shared), Arc::clone(&stopped));
        let thread = std::thread::Builder::new()
            .name("huge-pages".into())
            .spawn(move || keep_stock(&its_shared, &its_stopped))?;
        Ok(Some(Self { shared, stopped, thread }))
    }

    /// Stops the thread and waits for its end.
    pub(crate) fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.shared.keyspace.arena().end_stock_wait();
        let _ = self.thread.join();
    }
}

fn keep_stock(shared: &Shared, stopped: &AtomicBool) {
    take_short_background_turns();
    let arena = shared.keyspace.arena();
    let is_stopped = || stopped.load(Ordering::Relaxed);
    let mut size = StockSize::new(arena.capacity(), Instant::now(), &arena.stock());
    let mut refusals = Refusals::default();
    while !is_stopped() {
        let (begun, stock) = (Instant::now(), arena.stock());
        let mark = size.at(begun, &stock);
        arena.set_stock_mark(mark);
        let urgent = stock.chunks * 2 < u64::from(mark);
        match arena.prepare_chunks(if urgent { batch(&stock, mark) } else { 1 }) {
            Ok(1..) => {
                refusals.reset();
                if !urgent {
                    std::thread::sleep(begun.elapsed().min(MAX_PAUSE));
                }
            }
            Ok(0) => {
                let wait = if mark > MIN_MARK { BUSY_WAIT } else { IDLE_WAIT };
                arena.wait_for_low_stock(wait, is_stopped);
            }
            Err(error) => match refusals.count(&error) {
                Some(backoff) => arena.wait_for_low_stock(backoff, is_stopped),
                None => {
                    tracing::warn!(
                        "The kernel cannot put free memory on huge pages (MADV_COLLAPSE, Linux \
                         6.1): chunks begin on small pages. {error}"
                    );
                    arena.set_stock_mark(0);
                    return;
                }
            },
        }
    }
}

/// How many chunks to prepare at once, half of those that are missing: each call makes all
/// processors drain their lists of fresh pages, which takes long while they are busy.
fn batch(stock: &StockStats, mark: u32) -> u32 {
    let missing = u64::from(mark).saturating_sub(stock.chunks).div_ceil(2);
    u32::try_from(missing).unwrap_or(MAX_BATCH).clamp(1, MAX_BATCH)
}

/// Refusals of the kernel in a row.
#[derive(Default)]
struct Refusals {
    in_a_row: u32,
    /// A chunk was prepared once, so the kernel can.
    works: bool,
}

impl Refusals {
    fn reset(&mut self) {
        *self = Self { in_a_row: 0, works: true };
    }

    /// How long to wait before the next try; `None` if there is no point in one.
    fn count(&mut self, error: &io::Error) -> Option<Duration> {
        let unknown = error.raw_os_error() == Some(Errno::EINVAL as i32);
        self.in_a_row += 1;
        if unknown && !self.works && self.in_a_row >= MAX_REFUSALS {
            return None;
        }
        let doublings = (self.in_a_row - 1).min(10);
        Some((MIN_BACKOFF * (1 << doublings)).min(MAX_BACKOFF))
    }
}

/// How large the stock is to be: by the rate at which chunks are taken, and twice as large after
/// it was found empty.
struct StockSize {
    most: u32,
    measured: Instant,
    taken: u64,
    taken_small: u64,
    /// Chunks a second: the highest rate, with a half-life.
    rate: f64,
}

impl StockSize {
    fn new(capacity: u64, now: Instant, stock: &StockStats) -> Self {
        let part = u32::try_from(capacity / CHUNK_SIZE / ARENA_PARTS).unwrap_or(MAX_MARK);
        let (taken, taken_small) = (stock.taken, stock.taken_small);
        Self { most: part.clamp(1, MAX_MARK), measured: now, taken, taken_small, rate: 0.0 }
    }

    fn at(&mut self, now: Instant, stock: &StockStats) -> u32 {
        let passed = now.saturating_duration_since(self.measured);
        let missed = stock.taken_small > self.taken_small;
        if passed >= WINDOW || missed {
            let taken = stock.taken.saturating_sub(self.taken) as f64;
            let rate = taken / passed.max(WINDOW).as_secs_f64();
            let decayed = self.rate * 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE_SECONDS);
            let doubled = if missed { 2.0 * f64::from(self.mark()) / LASTS_SECONDS } else { 0.0 };
            let most = f64::from(self.most) / LASTS_SECONDS;
            self.rate = rate.max(decayed).max(doubled).min(most);
            self.measured = now;
            (self.taken, self.taken_small) = (stock.taken, stock.taken_small);
        }
        self.mark()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is between 0 and MAX_MARK / LASTS_SECONDS"
    )]
    fn mark(&self) -> u32 {
        ((self.rate * LASTS_SECONDS).ceil() as u32).clamp(MIN_MARK.min(self.most), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn taken(taken: u64, taken_small: u64) -> StockStats {
        StockStats { taken, taken_small, ..StockStats::default() }
    }

    #[test]
    fn the_stock_grows_with_the_rate_and_shrinks_when_nothing_is_taken() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut size = StockSize::new(4 * GIB, begun, &taken(0, 0));
        assert_eq!(size.at(at(0), &taken(0, 0)), MIN_MARK);
        assert_eq!(size.at(at(10), &taken(2, 0)), MIN_MARK, "too short to tell");
        assert_eq!(size.at(at(100), &taken(10, 0)), 20, "100 a second");
        assert_eq!(size.at(at(200), &taken(30, 0)), 40, "200 a second");
        assert_eq!(size.at(at(2200), &taken(30, 0)), 20, "half of it two seconds later");
        assert_eq!(size.at(at(60_000), &taken(30, 0)), MIN_MARK);
    }

    #[test]
    fn a_stock_that_was_found_empty_doubles_up_to_a_limit() {
        let begun = Instant::now();
        let mut size = StockSize::new(4 * GIB, begun, &taken(7, 7));
        let marks: Vec<u32> = (8..14).map(|small| size.at(begun, &taken(small, small))).collect();
        assert_eq!(marks, [10, 20, 40, 64, 64, 64]);
    }

    #[test]
    fn batches_are_half_of_what_is_missing() {
        let batch = |chunks, mark| batch(&StockStats { chunks, ..StockStats::default() }, mark);
        assert_eq!((batch(2, 4), batch(0, 4), batch(9, 4)), (1, 2, 1));
        assert_eq!((batch(20, 40), batch(0, 64)), (10, MAX_BATCH));
    }

    #[test]
    fn a_small_arena_keeps_a_small_stock() {
        let begun = Instant::now();
        for (mib, mark) in [(2, 1), (64, 2), (256, 4)] {
            let mut size = StockSize::new(mib << 20, begun, &taken(0, 0));
            assert_eq!(size.at(begun, &taken(0, 0)), mark, "{mib} MiB");
        }
    }

    #[test]
    fn refusals_back_off_and_end_only_what_has_never_worked() {
        let (short, unknown) = (io::Error::from(Errno::ENOMEM), io::Error::from(Errno::EINVAL));
        let mut refusals = Refusals::default();
        assert_eq!(refusals.count(&short), Some(MIN_BACKOFF));
        assert_eq!(refusals.count(&short), Some(2 * MIN_BACKOFF));
        assert_eq!((0..30).map(|_| refusals.count(&short)).last(), Some(Some(MAX_BACKOFF)));
        assert_eq!(refusals.count(&unknown), None);
        refusals.reset();
        assert!((0..30).all(|_| refusals.count(&unknown).is_some()));
    }
}
