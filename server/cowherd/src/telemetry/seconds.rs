//! Command statistics of each of the last 600 seconds, for the live page.
//!
//! Percentiles come from the histograms and are at most 9.1 % too high; the longest duration is
//! exact.

use std::collections::VecDeque;
use std::time::Duration;

use cowherd_arena::stats::Distribution;
use serde::{Serialize, Serializer};

use crate::clock;

/// Seconds in the history: ten minutes.
const KEPT_SECONDS: usize = 600;
/// A second ends at the first tick after this time. Ticks come ten times a second and may be a
/// little early.
const SECOND_US: u64 = 1_000_000 - 50_000;

/// The commands of one second. Durations are None when no command was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct SecondStats {
    /// The end of the second, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Commands executed, per second.
    pub(crate) commands_per_second: f64,
    /// The median duration.
    #[serde(rename = "p50_seconds", serialize_with = "seconds")]
    pub(crate) p50: Option<Duration>,
    /// The 99th percentile.
    #[serde(rename = "p99_seconds", serialize_with = "seconds")]
    pub(crate) p99: Option<Duration>,
    /// The 99.9th percentile.
    #[serde(rename = "p999_seconds", serialize_with = "seconds")]
    pub(crate) p999: Option<Duration>,
    /// The longest duration.
    #[serde(rename = "max_seconds", serialize_with = "seconds")]
    pub(crate) max: Option<Duration>,
}

impl SecondStats {
    /// Statistics of a second that lasted `passed`. `max_nanos` is the longest duration, 0 if not
    /// known.
    fn new(
        at_ms: i64,
        passed: Duration,
        commands: u64,
        latency: &Distribution,
        max_nanos: u64,
    ) -> Self {
        let max = match max_nanos {
            0 => latency.quantile(1.0),
            nanos => latency.quantile(1.0).and(Some(nanos)),
        };
        // A bucket's upper border may exceed the longest duration in the bucket.
        let share = |quantile| {
            let bound = latency.quantile(quantile)?;
            Some(Duration::from_nanos(bound.min(max.unwrap_or(bound))))
        };
        Self {
            at_ms,
            commands_per_second: commands as f64 / passed.as_secs_f64(),
            p50: share(0.5),
            p99: share(0.99),
            p999: share(0.999),
            max: max.map(Duration::from_nanos),
        }
    }
}

/// The last seconds, and the counters at the start of the current one.
#[derive(Debug, Default)]
pub(super) struct SecondHistory {
    ring: VecDeque<SecondStats>,
    /// Seconds since the start, those no longer in the ring included.
    count: u64,
    current: Option<SecondStart>,
}

/// The counters at the start of the current second.
#[derive(Debug)]
struct SecondStart {
    at_us: u64,
    commands: u64,
    latency: Distribution,
}

impl SecondHistory {
    /// Ends the current second if it has lasted long enough. `read` returns the durations of all
    /// commands since the start, and the longest since its last call in nanoseconds.
    pub(super) fn tick(
        &mut self,
        now_us: u64,
        commands: u64,
        read: impl FnOnce() -> (Distribution, u64),
    ) {
        let due = self.current.as_ref().is_none_or(|current| now_us >= current.at_us + SECOND_US);
        if !due {
            return;
        }
        let (latency, max_nanos) = read();
        if let Some(current) = &self.current {
            let passed = Duration::from_micros(now_us - current.at_us);
            let ran = commands.saturating_sub(current.commands);
            let took = latency.since(&current.latency);
            self.push(SecondStats::new(clock::wall_ms(), passed, ran, &took, max_nanos));
        }
        self.current = Some(SecondStart { at_us: now_us, commands, latency });
    }

    fn push(&mut self, second: SecondStats) {
        if self.ring.len() == KEPT_SECONDS {
            self.ring.pop_front();
        }
        self.ring.push_back(second);
        self.count += 1;
    }

    /// The number of seconds since the start, and the kept seconds after the first `known`, the
    /// oldest first.
    pub(super) fn after(&self, known: u64) -> (u64, Vec<SecondStats>) {
        let new = usize::try_from(self.count.saturating_sub(known)).unwrap_or(usize::MAX);
        let skipped = self.ring.len().saturating_sub(new);
        (self.count, self.ring.iter().skip(skipped).copied().collect())
    }
}

fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowherd_arena::stats::Histogram;

    /// Ticks ten times a second for `count` seconds; `each` returns the durations so far.
    fn run(
        seconds: &mut SecondHistory,
        count: u64,
        from_us: u64,
        each: impl Fn(u64) -> (Distribution, u64),
    ) {
        for tick in 0..count * 10 {
            let now = from_us + tick * 100_000;
            seconds.tick(now, (now / 100_000) * 7, || each(now / 1_000_000));
        }
    }

    #[test]
    fn a_second_counts_only_its_own_commands() {
        let histogram = Histogram::default();
        let mut seconds = SecondHistory::default();
        histogram.record(1_000_000);
        seconds.tick(0, 100, || (histogram.distribution(), 1_000_000));
        (0..990).for_each(|_| histogram.record(1024));
        (0..9).for_each(|_| histogram.record(65_536));
        histogram.record(3_000_000);
        seconds.tick(500_000, 600, || unreachable!("the second is not over"));
        seconds.tick(1_000_000, 1100, || (histogram.distribution(), 3_000_000));
        seconds.tick(2_000_000, 1100, || (histogram.distribution(), 0));
        let (count, list) = seconds.after(0);
        assert_eq!((count, list.len()), (2, 2));
        let micros = |duration: Option<Duration>| duration.map(|it| it.as_nanos() / 1000);
        assert_eq!(list[0].commands_per_second, 1000.0);
        assert_eq!(micros(list[0].p50), Some(1));
        assert_eq!(micros(list[0].p99), Some(1));
        assert_eq!(micros(list[0].p999), Some(66));
        assert_eq!(list[0].max, Some(Duration::from_millis(3)));
        assert_eq!((list[1].commands_per_second, list[1].p50, list[1].max), (0.0, None, None));
    }

    #[test]
    fn no_percentile_is_above_the_longest() {
        let histogram = Histogram::default();
        let mut seconds = SecondHistory::default();
        seconds.tick(0, 0, || (histogram.distribution(), 0));
        histogram.record(1_100_000);
        seconds.tick(1_000_000, 1, || (histogram.distribution(), 1_100_000));
        let (_, list) = seconds.after(0);
        let exact = Some(Duration::from_micros(1100));
        assert_eq!((list[0].p50, list[0].p999, list[0].max), (exact, exact, exact));
    }

    #[test]
    fn ten_minutes_are_kept_and_returned_from_any_point_on() {
        let mut seconds = SecondHistory::default();
        run(&mut seconds, 701, 0, |_| (Distribution::default(), 0));
        let (count, all) = seconds.after(0);
        assert_eq!((count, all.len()), (700, KEPT_SECONDS));
        assert!(all.iter().all(|second| second.commands_per_second == 70.0));
        assert_eq!(seconds.after(697).1.len(), 3);
        assert_eq!(seconds.after(700).1.len(), 0);
        assert_eq!(seconds.after(9999).1.len(), 0);
    }
}
