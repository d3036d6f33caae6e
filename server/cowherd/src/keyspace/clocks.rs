//! Access clocks: when, or how often, a key was used.
//!
//! The clocks stand beside the arena, one word for each 64 bytes of it, so that reading a key
//! dirties no page that a checkpoint shares. The clock of an entry is the word of its first byte.
//! Entries below 64 bytes may share a clock: eviction, which reads the clocks, is approximate.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cowherd_arena::SideTable;

/// Bytes of the arena for each clock: most entries are longer.
const GRAIN: u64 = 64;
/// The count of a new key, as in Redis: above 0, so that the key is not evicted at once.
const LFU_START: u32 = 5;

/// When, or how often, a key was used.
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
    /// Whether uses are counted (LFU) or the time of the last one is stored (LRU).
    is_lfu: AtomicBool,
    /// `lfu-log-factor`: how much less likely each further use is counted.
    log_factor: AtomicU32,
    /// `lfu-decay-time`: minutes without a use after which the count falls by one; 0 for never.
    decay_minutes: AtomicU32,
    /// When the server started, in seconds: the last use of restored entries, which have no clock.
    opened: u32,
}

impl AccessClocks {
    /// AccessClocks for an arena of `capacity` bytes that is opened at `now`.
    pub(super) fn new(capacity: u64, now: i64) -> io::Result<Self> {
        let words = usize::try_from(capacity / GRAIN).map_err(io::Error::other)?;
        Ok(Self {
            words: SideTable::new(words)?,
            is_lfu: AtomicBool::new(false),
            log_factor: AtomicU32::new(10),
            decay_minutes: AtomicU32::new(1),
            opened: seconds(now),
        })
    }

    /// Bytes of the clocks of `arena_bytes` of the arena: resident once all entries were used.
    pub fn bytes_for(arena_bytes: u64) -> u64 {
        arena_bytes / GRAIN * size_of::<AtomicU32>() as u64
    }

    /// Sets whether uses are counted (LFU) or the time of the last one is stored (LRU).
    pub fn set_lfu(&self, is_lfu: bool) {
        self.is_lfu.store(is_lfu, Ordering::Relaxed);
    }

    /// Whether uses are counted.
    pub fn is_lfu(&self) -> bool {
        self.is_lfu.load(Ordering::Relaxed)
    }

    /// Sets `lfu-log-factor` and `lfu-decay-time`.
    pub fn set_lfu_parameters(&self, log_factor: u32, decay_minutes: u32) {
        self.log_factor.store(log_factor, Ordering::Relaxed);
        self.decay_minutes.store(decay_minutes, Ordering::Relaxed);
    }

    fn word(&self, entry: u64) -> &std::sync::atomic::AtomicU32 {
        self.words.word(index(entry))
    }

    /// Prefetches the clock of an entry.
    #[inline]
    pub(super) fn prefetch(&self, entry: u64) {
        self.words.prefetch(index(entry));
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

    /// Updates the clock of an entry that is used.
    #[inline]
    pub(super) fn touch(&self, entry: u64, now: i64) {
        let word = self.word(entry);
        let old = word.load(Ordering::Relaxed);
        let new = match self.is_lfu() {
            false => seconds(now),
            true => self.counted(old, now),
        };
        // Most uses change nothing: then the cache line stays clean.
        if new != old {
            word.store(new, Ordering::Relaxed);
        }
    }

    /// When, or how often, an entry was used.
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

    /// The count in `word` at `now`: one less for each `lfu-decay-time` without a use.
    fn decayed(&self, word: u32, now: i64) -> u32 {
        let elapsed = minutes(now).wrapping_sub(word >> 8) & 0xffff;
        // Another thread, whose batch began later, may have set the clock to a later minute.
        let elapsed = if elapsed > 0x7fff { 0 } else { elapsed };
        let lost = elapsed.checked_div(self.decay_minutes.load(Ordering::Relaxed));
        (word & 0xff).saturating_sub(lost.unwrap_or(0))
    }

    /// The word after one more use: the higher the count, the less likely it rises.
    fn counted(&self, word: u32, now: i64) -> u32 {
        let count = self.decayed(word, now);
        let above = u64::from(count.saturating_sub(LFU_START));
        let one_in = above * u64::from(self.log_factor.load(Ordering::Relaxed)) + 1;
        let rises = count < 255 && fastrand::u64(..).is_multiple_of(one_in);
        (minutes(now) << 8) | (count + u32::from(rises))
    }

    /// Copies the clock of an entry that moves.
    pub(super) fn copy(&self, from: u64, to: u64) {
        let word = self.word(from).load(Ordering::Relaxed);
        self.word(to).store(word, Ordering::Relaxed);
    }
}

/// The index of an entry's word.
#[inline]
const fn index(entry: u64) -> usize {
    (entry / GRAIN) as usize
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
