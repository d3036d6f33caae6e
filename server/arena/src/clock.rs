//! The monotonic clock of the hot path.

use std::sync::OnceLock;

use quanta::Clock;

/// Nanoseconds counted from some moment early in this process, on all threads alike: the
/// processor's time stamp counter where it runs evenly, which takes 10 ns to read, else the
/// monotonic clock, which takes 25.
#[inline]
pub fn monotonic_ns() -> u64 {
    static COUNTER: OnceLock<(Clock, u64)> = OnceLock::new();
    let (clock, origin) = COUNTER.get_or_init(|| {
        let clock = Clock::new();
        let now = clock.raw();
        (clock, now)
    });
    clock.delta_as_nanos(*origin, clock.raw())
}
