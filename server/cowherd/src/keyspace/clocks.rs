//! Access clocks: when, or how often, a key was used. They stand beside the arena, one word for
//! each 64 bytes of it, so that reading a key dirties no page that a checkpoint shares.
//!
//! An entry's clock is the word of its first byte. Entries below 64 bytes may share one: the
//! clocks steer eviction, which is approximate anyhow.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cowherd_arena::SideTable;

const GRAIN: u64 = 64;
/// A new key starts with this count, so that it is not evicted before it could be used again.
const LFU_START: u32 = 5;

/// How a key was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyUsage {
    /// Seconds since the last use.
    Idle(u64),
    /// Logarithmic count of uses, 0 to 255.
    Frequency(u64),
}

/// The clocks of all entries.
pub struct AccessClocks {
    words: SideTable,
    counting: AtomicBool,
    /// How much harder each count is to reach than the one before: `lfu-log-factor`.
    log_factor: AtomicU32,
    /// Minutes without a use that cost a count; 0 if none do: `lfu-decay-time`.
    decay_minutes: AtomicU32,
    /// Entries that were restored have no clock: they count as used when the server started.
    opened: u32,
}

impl AccessClocks {
    /// AccessClocks for an arena of `capacity` bytes that is opened at `now`.
    pub(super) fn new(capacity: u64, now: i64) -> io::Result<Self> {
        let words = usize::try_from(capacity / GRAIN).map_err(io::Error::other)?;
        Ok(Self {
            words: SideTable::new(words)?,
            counting: AtomicBool::new(false),
            log_factor: AtomicU32::new(10),
            decay_minutes: AtomicU32::new(1),
            opened: seconds(now),
        })
    }

    /// Counts uses (LFU) instead of remembering the last one (LRU).
    pub fn set_lfu(&self, counting: bool) {
        self.counting.store(counting, Ordering::Relaxed);
    }

    /// Whether uses are counted.
    pub fn is_lfu(&self) -> bool {
        self.counting.load(Ordering::Relaxed)
    }

    /// Sets how counts rise and fall, as `lfu-log-factor` and `lfu-decay-time` say.
    pub fn set_lfu_parameters(&self, log_factor: u32, decay_minutes: u32) {
        self.log_factor.store(log_factor, Ordering::Relaxed);
        self.decay_minutes.store(decay_minutes, Ordering::Relaxed);
    }

    fn word(&self, entry: u64) -> &std::sync::atomic::AtomicU32 {
        self.words.word(usize::try_from(entry / GRAIN).unwrap_or(usize::MAX))
    }

    /// Asks the processor to fetch an entry's clock.
    #[inline]
    pub(super) fn prefetch(&self, entry: u64) {
        self.words.prefetch(usize::try_from(entry / GRAIN).unwrap_or(usize::MAX));
    }

    /// Starts the clock of a new entry.
    #[inline]
    pub(super) fn start(&self, entry: u64, now: i64) {
        let word = match self.is_lfu() {
            false => seconds(now),
            true => (minutes(now) << 8) | LFU_START,
        };
        self.word(entry).store(word, Ordering::Relaxed);
    }

    /// Notes a use of an entry.
    #[inline]
    pub(super) fn touch(&self, entry: u64, now: i64) {
        let word = self.word(entry);
        let old = word.load(Ordering::Relaxed);
        let new = match self.is_lfu() {
            false => seconds(now),
            true => self.counted(old, now),
        };
        // Most uses change nothing: leave the cache line clean.
        if new != old {
            word.store(new, Ordering::Relaxed);
        }
    }

    /// How an entry was used.
    pub(super) fn usage(&self, entry: u64, now: i64) -> KeyUsage {
        let word = self.word(entry).load(Ordering::Relaxed);
        match self.is_lfu() {
            false => {
                let last = if word == 0 { self.opened } else { word };
                KeyUsage::Idle(u64::from(seconds(now).saturating_sub(last)))
            }
            true => KeyUsage::Frequency(u64::from(self.decayed(word, now))),
        }
    }

    /// The count of `word`, less one for each span of time without a use.
    fn decayed(&self, word: u32, now: i64) -> u32 {
        let elapsed = minutes(now).wrapping_sub(word >> 8) & 0xffff;
        // A clock that is ahead was set by a thread whose minute began sooner.
        let elapsed = if elapsed > 0x7fff { 0 } else { elapsed };
        let lost = elapsed.checked_div(self.decay_minutes.load(Ordering::Relaxed));
        (word & 0xff).saturating_sub(lost.unwrap_or(0))
    }

    /// One use more: the higher the count, the less likely it rises.
    fn counted(&self, word: u32, now: i64) -> u32 {
        let count = self.decayed(word, now);
        let above = u64::from(count.saturating_sub(LFU_START));
        let one_in = above * u64::from(self.log_factor.load(Ordering::Relaxed)) + 1;
        let rises = count < 255 && fastrand::u64(..).is_multiple_of(one_in);
        (minutes(now) << 8) | (count + u32::from(rises))
    }

    /// Takes an entry's clock along when the entry moves.
    pub(super) fn follow(&self, from: u64, to: u64) {
        let word = self.word(from).load(Ordering::Relaxed);
        self.word(to).store(word, Ordering::Relaxed);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seconds fit 32 bits until 2106")]
#[expect(clippy::cast_sign_loss, reason = "the wall clock is after 1970")]
fn seconds(now: i64) -> u32 {
    (now / 1000) as u32
}

fn minutes(now: i64) -> u32 {
    (seconds(now) / 60) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_since_the_last_use() {
        let clocks = AccessClocks::new(1 << 20, 0).unwrap();
        clocks.start(128, 5_000);
        assert_eq!(clocks.usage(128, 65_000), KeyUsage::Idle(60));
        clocks.touch(128, 60_000);
        assert_eq!(clocks.usage(128, 65_000), KeyUsage::Idle(5));
        assert_eq!(clocks.usage(192, 65_000), KeyUsage::Idle(65), "a neighbour is another");
        let restored = AccessClocks::new(1 << 20, 60_000).unwrap();
        assert_eq!(restored.usage(128, 65_000), KeyUsage::Idle(5), "no clock yet: since the start");
    }

    #[test]
    fn counts_rise_with_use_and_fall_with_time() {
        let clocks = AccessClocks::new(1 << 20, 0).unwrap();
        clocks.set_lfu(true);
        clocks.start(0, 60_000);
        for i in 0..2000 {
            clocks.touch(0, 60_000 + i);
        }
        let KeyUsage::Frequency(count) = clocks.usage(0, 62_000) else { panic!("counting") };
        // A tenth more or less: about 22 after 2,000 uses.
        assert!((12..=35).contains(&count), "{count}");
        let KeyUsage::Frequency(later) = clocks.usage(0, 62_000 + 3 * 60_000) else { panic!() };
        assert_eq!(later, count - 3);
    }
}
