//! Access clocks: when, and how often, a key was used.
//!
//! The clock of an entry is the word of its object beside the arena (see `ObjectWords`), so that
//! reading a key dirties no page that a checkpoint shares.
//!
//! ```text
//! clock:  | time of the last use, in seconds, 24 | count of uses 8 |        0: no clock yet
//! ```
//!
//! The count is logarithmic and falls with the time without a use. It rises only while the policy
//! is an LFU one; the time is kept under every policy, so that a change of policy finds both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cowherd_arena::{Arena, ObjectWords};

/// The count of a new key, as in Redis: above 0, so that the key is not evicted at once.
const LFU_START: u32 = 5;
const COUNT_BITS: u32 = 8;
const MAX_COUNT: u32 = (1 << COUNT_BITS) - 1;
/// Times are seconds modulo 2^24, which are 194 days.
const TIME_MASK: u32 = u32::MAX >> COUNT_BITS;

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
    words: Arc<ObjectWords>,
    /// Whether uses are counted, and reported (LFU), or the time of the last one (LRU).
    is_lfu: AtomicBool,
    /// `lfu-log-factor`: how much less likely each further use is counted.
    log_factor: AtomicU32,
    /// `lfu-decay-time`: minutes without a use after which the count falls by one; 0 for never.
    decay_minutes: AtomicU32,
    /// The clock of restored entries: last used when the server started.
    opened: u32,
}

impl AccessClocks {
    /// The clocks of an arena that is opened at `now`.
    pub(super) fn new(arena: &Arena, now: i64) -> Self {
        Self {
            words: Arc::clone(arena.object_words()),
            is_lfu: AtomicBool::new(false),
            log_factor: AtomicU32::new(10),
            decay_minutes: AtomicU32::new(1),
            opened: clock(now, LFU_START),
        }
    }

    /// Bytes of the clocks of all entries, and of the words of all other objects.
    pub fn bytes(&self) -> u64 {
        self.words.bytes()
    }

    /// Sets whether uses are counted (LFU) or only the time of the last one is stored (LRU).
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

    #[inline]
    fn word(&self, entry: u64) -> &AtomicU32 {
        self.words.get(entry).expect("invariant: an entry that is linked is an object in use")
    }

    #[inline]
    fn load(&self, entry: u64) -> u32 {
        match self.word(entry).load(Ordering::Relaxed) {
            0 => self.opened,
            clock => clock,
        }
    }

    /// Prefetches the clock of an entry.
    #[inline]
    pub(super) fn prefetch(&self, entry: u64) {
        self.words.prefetch(entry);
    }

    /// Starts the clock of a new entry.
    #[inline]
    pub(super) fn start(&self, entry: u64, now: i64) {
        self.word(entry).store(clock(now, LFU_START), Ordering::Relaxed);
    }

    /// Updates the clock of an entry that is used.
    #[inline]
    pub(super) fn touch(&self, entry: u64, now: i64) {
        let word = self.word(entry);
        let old = match word.load(Ordering::Relaxed) {
            0 => self.opened,
            clock => clock,
        };
        let new = match self.is_lfu() {
            false => clock(now, old & MAX_COUNT),
            true => clock(now, self.counted(old, now)),
        };
        // Most uses change nothing: then the cache line stays clean.
        if new != old {
            word.store(new, Ordering::Relaxed);
        }
    }

    /// When, or how often, an entry was used.
    pub(super) fn usage(&self, entry: u64, now: i64) -> KeyUsage {
        let clock = self.load(entry);
        match self.is_lfu() {
            false => KeyUsage::Idle(u64::from(elapsed(clock, now))),
            true => KeyUsage::Frequency(u64::from(self.decayed(clock, now))),
        }
    }

    /// The count of a clock at `now`: one less for each `lfu-decay-time` without a use.
    fn decayed(&self, clock: u32, now: i64) -> u32 {
        let minutes = elapsed(clock, now) / 60;
        let lost = minutes.checked_div(self.decay_minutes.load(Ordering::Relaxed));
        (clock & MAX_COUNT).saturating_sub(lost.unwrap_or(0))
    }

    /// The count after one more use: the higher it is, the less likely it rises.
    fn counted(&self, clock: u32, now: i64) -> u32 {
        let count = self.decayed(clock, now);
        let above = u64::from(count.saturating_sub(LFU_START));
        let one_in = above * u64::from(self.log_factor.load(Ordering::Relaxed)) + 1;
        let rises = count < MAX_COUNT && fastrand::u64(..).is_multiple_of(one_in);
        count + u32::from(rises)
    }

    /// Copies the clock of an entry that moves.
    pub(super) fn copy(&self, from: u64, to: u64) {
        let word = self.word(from).load(Ordering::Relaxed);
        self.word(to).store(word, Ordering::Relaxed);
    }
}

/// A clock that was last used at `now`.
#[inline]
fn clock(now: i64, count: u32) -> u32 {
    // A clock of 0 would mean that there is none.
    (seconds(now) << COUNT_BITS | count).max(1)
}

/// Seconds since the last use of a clock.
fn elapsed(clock: u32, now: i64) -> u32 {
    let elapsed = seconds(now).wrapping_sub(clock >> COUNT_BITS) & TIME_MASK;
    // Another thread, whose batch began later, may have set the clock to a later second.
    if elapsed > TIME_MASK - 3600 { 0 } else { elapsed }
}

/// Seconds modulo 2^24.
#[expect(clippy::cast_possible_truncation, reason = "masked to 24 bits")]
#[expect(clippy::cast_sign_loss, reason = "the wall clock is after 1970")]
const fn seconds(now: i64) -> u32 {
    (now / 1000) as u32 & TIME_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowherd_arena::{PageKind, ReservedArena, ShardIndex, ShardSet};

    /// Clocks, and the offsets of two objects.
    fn clocks(opened: i64) -> (AccessClocks, u64, u64) {
        let arena = ReservedArena::reserve(PageKind::Small, 16 << 20).unwrap();
        let arena = arena.format(0, 0).unwrap();
        let shard = ShardIndex::of_hash(0);
        let mut held = arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let (one, other) = (mem.allocate(40).unwrap(), mem.allocate(40).unwrap());
        drop(held);
        (AccessClocks::new(&arena, opened), one, other)
    }

    #[test]
    fn idle_time_is_since_the_last_use() {
        let (clocks, one, other) = clocks(0);
        clocks.start(one, 5_000);
        assert_eq!(clocks.usage(one, 65_000), KeyUsage::Idle(60));
        clocks.touch(one, 60_000);
        assert_eq!(clocks.usage(one, 65_000), KeyUsage::Idle(5));
        assert_eq!(clocks.usage(one, 59_000), KeyUsage::Idle(0), "another thread's later second");
        assert_eq!(clocks.usage(other, 65_000), KeyUsage::Idle(65), "a neighbour is another");
        let (restored, one, _) = self::clocks(60_000);
        assert_eq!(restored.usage(one, 65_000), KeyUsage::Idle(5), "no clock: since the start");
        let wrapped = i64::from(TIME_MASK) * 1000;
        restored.start(one, wrapped);
        assert_eq!(restored.usage(one, wrapped + 10_000), KeyUsage::Idle(10));
    }

    #[test]
    fn counts_rise_with_use_and_fall_with_time() {
        let (clocks, one, _) = clocks(0);
        clocks.set_lfu(true);
        clocks.start(one, 60_000);
        for i in 0..2000 {
            clocks.touch(one, 60_000 + i);
        }
        let KeyUsage::Frequency(count) = clocks.usage(one, 62_000) else { panic!("counting") };
        // A tenth more or less: about 22 after 2,000 uses.
        assert!((12..=35).contains(&count), "{count}");
        let KeyUsage::Frequency(later) = clocks.usage(one, 62_000 + 3 * 60_000) else { panic!() };
        assert_eq!(later, count - 3);
    }

    #[test]
    fn a_change_of_policy_keeps_time_and_count() {
        let (clocks, one, _) = clocks(0);
        clocks.start(one, 100_000);
        clocks.touch(one, 200_000);
        clocks.set_lfu(true);
        assert_eq!(clocks.usage(one, 200_000), KeyUsage::Frequency(u64::from(LFU_START)));
        assert_eq!(clocks.usage(one, 320_000), KeyUsage::Frequency(u64::from(LFU_START) - 2));
        clocks.touch(one, 200_000);
        let KeyUsage::Frequency(count) = clocks.usage(one, 200_000) else { panic!("counting") };
        clocks.set_lfu(false);
        assert_eq!(clocks.usage(one, 207_000), KeyUsage::Idle(7));
        clocks.touch(one, 207_000);
        clocks.set_lfu(true);
        assert_eq!(clocks.usage(one, 207_000), KeyUsage::Frequency(count), "uses are not counted");
    }
}
