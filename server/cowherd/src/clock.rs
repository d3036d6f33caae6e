//! Clocks: the wall clock for expiry times, logs and images, the monotonic clock for durations.
//!
//! Invariants:
//! 1. A duration is never the difference of two wall-clock times, since the wall clock may jump.
//! 2. No function panics: a time before 1970 is negative, and overflow saturates.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use cowherd_arena::clock::monotonic_ns;

/// Milliseconds since 1970 by the wall clock (CLOCK_REALTIME).
pub(crate) fn wall_ms() -> i64 {
    since_1970(|duration| duration.as_millis())
}

/// Microseconds since 1970 by the wall clock (CLOCK_REALTIME).
pub(crate) fn wall_us() -> i64 {
    since_1970(|duration| duration.as_micros())
}

fn since_1970(count: impl Fn(Duration) -> u128) -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(count(after)).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(count(before.duration())).map_or(i64::MIN, |count| -count),
    }
}

/// Microseconds by the monotonic clock, counted from the first call in this process.
pub(crate) fn monotonic_us() -> u64 {
    micros(origin().elapsed())
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// A duration in whole nanoseconds; saturates after 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in whole microseconds; saturates.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One point in time on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Timestamp {
    /// Milliseconds since 1970.
    pub wall_ms: i64,
    /// Microseconds on the clock of [`monotonic_us`].
    pub monotonic_us: u64,
}

impl Timestamp {
    /// The current time.
    pub(crate) fn now() -> Self {
        Self { wall_ms: wall_ms(), monotonic_us: monotonic_us() }
    }

    /// The duration from `earlier` to `self` by the monotonic clock; zero if `earlier` is later.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        Duration::from_micros(self.monotonic_us.saturating_sub(earlier.monotonic_us))
    }

    /// Whole seconds since 1970, rounded down.
    pub(crate) fn wall_seconds(&self) -> i64 {
        self.wall_ms.div_euclid(1000)
    }
}

/// Measures a duration by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    pub(crate) fn nanos(&self) -> u64 {
        nanos(self.0.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_run_backwards() {
        let (first, second) = (monotonic_ns(), monotonic_ns());
        assert!(first <= second);
        let (early, late) = (monotonic_us(), monotonic_us());
        assert!(early <= late);
    }

    #[test]
    fn wall_clocks_agree_in_their_units() {
        let (before, between, after) = (wall_us(), wall_ms(), wall_us());
        assert!(before / 1000 <= between && between <= after / 1000 + 1);
        assert!(before > 1_600_000_000_000_000, "microseconds since 1970");
    }

    #[test]
    fn durations_saturate() {
        assert_eq!(nanos(Duration::MAX), u64::MAX);
        assert_eq!(micros(Duration::MAX), u64::MAX);
        assert_eq!(nanos(Duration::from_micros(3)), 3000);
        let (early, late) = (Timestamp::default(), Timestamp { wall_ms: -1, monotonic_us: 7 });
        assert_eq!(late.since(&early), Duration::from_micros(7));
        assert_eq!(early.since(&late), Duration::ZERO);
        assert_eq!(late.wall_seconds(), -1);
    }
}
