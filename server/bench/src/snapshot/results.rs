//! Results of a round: percentiles by phase, latency over time; medians over rounds.
//!
//! A request belongs to phase *before* if its reply arrived before BGSAVE was sent, to *after* if
//! it was due after the end of the checkpoint, else to *during*. So a request in flight at the fork
//! belongs to the checkpoint that delayed it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::load::{LatencySample, LoadRecord, PhaseTimes};
use super::memory::MemorySample;
use crate::stats::{Summary, quantile};

/// Width of a slice of the timeline in nanoseconds.
const SLICE_NS: u64 = 50_000_000;
/// Points of a percentile curve per decade.
const CURVE_STEPS: i32 = 10;
/// Decades of a percentile curve: the last point is one request in 10^6.
const CURVE_DECADES: i32 = 6;

/// Names of the phases, in order.
pub const PHASES: [&str; 3] = ["before", "during", "after"];

/// Latency and throughput in one phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PhaseStats {
    /// Number of answered requests.
    pub requests: u64,
    /// Answered requests per second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency.
    pub p99_us: f64,
    /// 99.9th percentile of latency.
    pub p999_us: f64,
    /// 99.99th percentile of latency.
    pub p9999_us: f64,
    /// Maximum latency.
    pub max_us: f64,
    /// 99.9th percentile of the delay between due time and sending, which the load generator
    /// causes.
    pub own_lag_p999_us: f64,
    /// Maximum of that delay.
    pub own_lag_max_us: f64,
    /// Percentile curve: share of slower requests, in falling order, and latency in microseconds.
    pub curve: Vec<(f64, f64)>,
}

/// Latency of the requests that were due in a slice of 50 ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TimelineSlice {
    /// Middle of the slice, in seconds since BGSAVE was sent.
    pub at: f64,
    /// Number of requests.
    pub requests: u64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency.
    pub p99_us: f64,
    /// 99.9th percentile of latency.
    pub p999_us: f64,
    /// Maximum latency.
    pub max_us: f64,
}

/// Results of one round with one server.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Round {
    /// Phases before, during and after the checkpoint.
    pub phases: [PhaseStats; 3],
    /// Latency of BGSAVE.
    pub bgsave_reply_us: f64,
    /// Duration of the fork as reported by the server.
    pub fork_us: Option<f64>,
    /// Time from sending BGSAVE until INFO reported the end of the checkpoint; accurate to 20 ms.
    pub save_seconds: f64,
    /// Whether the server reported success.
    pub saved: bool,
    /// Size of the image, from the file or as reported by the server.
    pub image_bytes: Option<u64>,
    /// Peak memory use of the machine during the checkpoint minus the use just before; sampled ten
    /// times per second.
    pub extra_host_bytes: u64,
    /// Peak of the server's processes, likewise.
    pub extra_processes_bytes: u64,
    /// Copied bytes as reported by the server (`rdb_last_cow_size`).
    pub reported_cow_bytes: Option<u64>,
    /// Number of due requests.
    pub requests: u64,
    /// Number of failed requests by error text.
    pub errors: BTreeMap<String, u64>,
    /// Number of replies after the timeout.
    pub late: u64,
    /// Number of requests without reply.
    pub unanswered: u64,
    /// Latency over time.
    pub timeline: Vec<TimelineSlice>,
    /// Memory over time.
    pub memory: Vec<MemorySample>,
}

impl Round {
    /// Evaluates a record. The fields that the server reports are left empty.
    pub fn of(record: LoadRecord) -> Self {
        let marks = record.marks;
        let mut phases: [Vec<LatencySample>; 3] = Default::default();
        for sample in &record.samples {
            if sample.due >= marks.measured_from {
                phases[phase_of(sample, &marks)].push(*sample);
            }
        }
        let lengths = [
            marks.save_sent - marks.measured_from,
            marks.save_ended - marks.save_sent,
            marks.ended - marks.save_ended,
        ];
        let mut lengths = lengths.into_iter();
        let phases = phases.map(|samples| PhaseStats::of(&samples, lengths.next().unwrap_or(1)));
        let memory = relative(record.memory, marks.save_sent);
        let extra = |bytes: fn(&MemorySample) -> u64| extra(&memory, &marks, bytes);
        Self {
            phases,
            bgsave_reply_us: microseconds(marks.save_replied - marks.save_sent),
            save_seconds: (marks.save_ended - marks.save_sent) as f64 / 1e9,
            extra_host_bytes: extra(|memory| memory.host_bytes),
            extra_processes_bytes: extra(|memory| memory.processes_bytes),
            requests: record.requests,
            errors: record.errors,
            late: record.late,
            unanswered: record.unanswered,
            timeline: timeline(&record.samples, &marks),
            memory,
            ..Self::default()
        }
    }

    /// Phases in which the load generator's own delay distorts the result: its 99.9th percentile
    /// exceeds a quarter of that of the latency.
    pub fn off_schedule(&self) -> impl Iterator<Item = &'static str> {
        let late = |phase: &PhaseStats| phase.own_lag_p999_us > phase.p999_us / 4.0;
        let phases = PHASES.iter().zip(&self.phases);
        phases.filter(move |(_, phase)| late(phase)).map(|(name, _)| *name)
    }

    /// Quantile after the checkpoint relative to the same before it.
    fn after_to_before(&self, quantile: fn(&PhaseStats) -> f64) -> Option<f64> {
        let [before, _, after] = &self.phases;
        (quantile(before) > 0.0).then(|| quantile(after) / quantile(before))
    }

    /// Number of requests that failed or were not answered.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.unanswered
    }
}

fn phase_of(sample: &LatencySample, marks: &PhaseTimes) -> usize {
    if sample.due >= marks.save_ended {
        2
    } else {
        usize::from(sample.due + sample.latency > marks.save_sent)
    }
}

impl PhaseStats {
    fn of(samples: &[LatencySample], nanoseconds: u64) -> Self {
        let mut latencies = samples.iter().map(|sample| sample.latency).collect::<Vec<_>>();
        latencies.sort_unstable();
        let mut lags = samples.iter().map(|sample| sample.lag).collect::<Vec<_>>();
        lags.sort_unstable();
        let at = |q| quantile(&latencies, q).map_or(0.0, microseconds);
        Self {
            requests: latencies.len() as u64,
            rate: latencies.len() as f64 * 1e9 / nanoseconds.max(1) as f64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: at(1.0),
            own_lag_p999_us: quantile(&lags, 0.999).map_or(0.0, microseconds),
            own_lag_max_us: quantile(&lags, 1.0).map_or(0.0, microseconds),
            curve: curve(&latencies),
        }
    }
}

/// Percentile curve with points at equal distances on a logarithmic scale, as far as the number of
/// requests supports them.
fn curve(sorted: &[u64]) -> Vec<(f64, f64)> {
    let shares = (0..=CURVE_DECADES * CURVE_STEPS)
        .map(|step| 10_f64.powf(-f64::from(step) / f64::from(CURVE_STEPS)))
        .filter(|share| share * sorted.len() as f64 >= 1.0);
    let point = |share: f64| Some((share, microseconds(quantile(sorted, 1.0 - share)?)));
    shares.filter_map(point).collect()
}

fn timeline(samples: &[LatencySample], marks: &PhaseTimes) -> Vec<TimelineSlice> {
    let mut slices: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.due >= marks.measured_from) {
        // Times count from the start of this process, so they fit.
        let since = sample.due.cast_signed() - marks.save_sent.cast_signed();
        slices.entry(since.div_euclid(SLICE_NS.cast_signed())).or_default().push(sample.latency);
    }
    let slice = |(index, mut latencies): (i64, Vec<u64>)| {
        latencies.sort_unstable();
        let at = |q| quantile(&latencies, q).map_or(0.0, microseconds);
        TimelineSlice {
            at: (index as f64 + 0.5) * SLICE_NS as f64 / 1e9,
            requests: latencies.len() as u64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
        }
    };
    slices.into_iter().map(slice).collect()
}

/// Makes times relative to the sending of BGSAVE.
fn relative(mut memory: Vec<MemorySample>, save_sent: u64) -> Vec<MemorySample> {
    for sample in &mut memory {
        sample.at_us -= (save_sent / 1000).cast_signed();
    }
    memory
}

/// Maximum during the checkpoint minus the last value before it.
fn extra(memory: &[MemorySample], marks: &PhaseTimes, bytes: fn(&MemorySample) -> u64) -> u64 {
    let end = ((marks.save_ended - marks.save_sent) / 1000).cast_signed();
    let before = memory.iter().rfind(|sample| sample.at_us < 0).map_or(0, bytes);
    let during = memory.iter().filter(|sample| (0..=end).contains(&sample.at_us)).map(bytes);
    during.max().unwrap_or(0).saturating_sub(before)
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// Metric of a round: name, unit, and getter.
pub type RoundMetric = (&'static str, &'static str, fn(&Round) -> Option<f64>);

/// All metrics in the order of the CSV columns.
pub const ROUND_METRICS: &[RoundMetric] = &[
    ("before_p50", "us", |round| Some(round.phases[0].p50_us)),
    ("before_p99", "us", |round| Some(round.phases[0].p99_us)),
    ("before_p99.9", "us", |round| Some(round.phases[0].p999_us)),
    ("before_p99.99", "us", |round| Some(round.phases[0].p9999_us)),
    ("before_max", "us", |round| Some(round.phases[0].max_us)),
    ("before_rate", "/s", |round| Some(round.phases[0].rate)),
    ("during_p50", "us", |round| Some(round.phases[1].p50_us)),
    ("during_p99", "us", |round| Some(round.phases[1].p99_us)),
    ("during_p99.9", "us", |round| Some(round.phases[1].p999_us)),
    ("during_p99.99", "us", |round| Some(round.phases[1].p9999_us)),
    ("during_max", "us", |round| Some(round.phases[1].max_us)),
    ("during_rate", "/s", |round| Some(round.phases[1].rate)),
    ("after_p50", "us", |round| Some(round.phases[2].p50_us)),
    ("after_p99", "us", |round| Some(round.phases[2].p99_us)),
    ("after_p99.9", "us", |round| Some(round.phases[2].p999_us)),
    ("after_p99.99", "us", |round| Some(round.phases[2].p9999_us)),
    ("after_max", "us", |round| Some(round.phases[2].max_us)),
    ("after_rate", "/s", |round| Some(round.phases[2].rate)),
    ("after_to_before_p99", "x", |round| round.after_to_before(|phase| phase.p99_us)),
    ("after_to_before_p99.9", "x", |round| round.after_to_before(|phase| phase.p999_us)),
    ("own_lag_p99.9", "us", |round| {
        round.phases.iter().map(|phase| phase.own_lag_p999_us).max_by(f64::total_cmp)
    }),
    ("own_lag_max", "us", |round| {
        round.phases.iter().map(|phase| phase.own_lag_max_us).max_by(f64::total_cmp)
    }),
    ("bgsave_reply", "us", |round| Some(round.bgsave_reply_us)),
    ("fork", "us", |round| round.fork_us),
    ("save", "s", |round| Some(round.save_seconds)),
    ("extra_host", "bytes", |round| Some(round.extra_host_bytes as f64)),
    ("extra_processes", "bytes", |round| Some(round.extra_processes_bytes as f64)),
    ("reported_cow", "bytes", |round| round.reported_cow_bytes.map(|bytes| bytes as f64)),
    ("image", "bytes", |round| round.image_bytes.map(|bytes| bytes as f64)),
    ("requests", "", |round| Some(round.requests as f64)),
    ("errors", "", |round| Some(round.errors.values().sum::<u64>() as f64)),
    ("late", "", |round| Some(round.late as f64)),
    ("unanswered", "", |round| Some(round.unanswered as f64)),
];

/// Summary of a metric over rounds; `None` if no round has a value.
pub fn summarize(rounds: &[Round], name: &str) -> Option<Summary> {
    let (_, _, read) = ROUND_METRICS.iter().find(|(known, _, _)| *known == name)?;
    Summary::of(&rounds.iter().filter_map(read).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn marks() -> PhaseTimes {
        PhaseTimes {
            measured_from: 100 * MS,
            save_sent: 1100 * MS,
            save_replied: 1150 * MS,
            save_ended: 2100 * MS,
            ended: 3100 * MS,
        }
    }

    fn sample(due_ms: u64, latency_us: u64) -> LatencySample {
        LatencySample { due: due_ms * MS, latency: latency_us * 1000, lag: 0 }
    }

    #[test]
    fn a_request_belongs_to_the_checkpoint_that_delayed_it() {
        let cases = [
            (sample(1099, 500), 0),
            (sample(1099, 1001), 1),
            (sample(1100, 1), 1),
            (sample(2099, 9000), 1),
            (sample(2100, 1), 2),
        ];
        for (sample, phase) in cases {
            assert_eq!(phase_of(&sample, &marks()), phase, "{sample:?}");
        }
    }

    #[test]
    fn rates_percentiles_and_times_of_a_round() {
        // One request a millisecond: 100 us, and 40 ms each in the 50 ms after the fork.
        let latency = |ms: u64| if (1100..1150).contains(&ms) { 40_000 } else { 100 };
        let samples = (0..3100).map(|ms| sample(ms, latency(ms))).collect();
        let round = Round::of(LoadRecord { samples, marks: marks(), ..LoadRecord::default() });
        let [before, during, after] = &round.phases;
        assert_eq!((before.requests, during.requests, after.requests), (1000, 1000, 1000));
        assert!((before.rate - 1000.0).abs() < 1e-6, "{}", before.rate);
        assert_eq!((before.p50_us, before.max_us), (100.0, 100.0));
        assert_eq!((during.p50_us, during.p99_us, during.max_us), (100.0, 40_000.0, 40_000.0));
        assert_eq!((round.bgsave_reply_us, round.save_seconds), (50_000.0, 1.0));
        let slow = round.timeline.iter().filter(|slice| slice.max_us > 1000.0);
        assert_eq!(slow.map(|slice| slice.at).collect::<Vec<_>>(), [0.025]);
        assert_eq!(before.curve.first(), Some(&(1.0, 100.0)));
        assert!(during.curve.iter().any(|(share, us)| *share < 0.05 && *us == 40_000.0));
        assert!(during.curve.iter().all(|(share, _)| *share >= 0.000_999));
    }

    #[test]
    fn what_a_checkpoint_left_behind_shows_in_the_phase_after_it() {
        // Three times as slow for the last half of the phase after the checkpoint.
        let latency = |ms: u64| if ms >= 2600 { 300 } else { 100 };
        let samples = (100..3100).map(|ms| sample(ms, latency(ms))).collect();
        let round = Round::of(LoadRecord { samples, marks: marks(), ..LoadRecord::default() });
        let median = |name| summarize(std::slice::from_ref(&round), name).map(|s| s.median);
        assert_eq!(median("after_to_before_p99"), Some(3.0));
        assert_eq!(median("after_to_before_p99.9"), Some(3.0));
        assert_eq!((median("during_p99"), median("after_p99")), (Some(100.0), Some(300.0)));
        let empty = Round::of(LoadRecord { marks: marks(), ..LoadRecord::default() });
        assert!(summarize(&[empty], "after_to_before_p99").is_none(), "nothing to compare with");
    }

    #[test]
    fn delays_of_the_load_generator_are_reported() {
        let late = |ms: u64| LatencySample { lag: 60_000, ..sample(ms, 100) };
        let on_time = |ms: u64| LatencySample { lag: 10_000, ..sample(ms, 100) };
        let samples = (100..1000).map(late).chain((1100..2000).map(on_time)).collect();
        let round = Round::of(LoadRecord { samples, marks: marks(), ..LoadRecord::default() });
        assert_eq!(round.off_schedule().collect::<Vec<_>>(), ["before"]);
        assert_eq!((round.phases[0].own_lag_max_us, round.phases[1].own_lag_p999_us), (60.0, 10.0));
    }

    #[test]
    fn extra_memory_is_the_increase_during_the_checkpoint() {
        let at = |ms: u64, host_bytes| MemorySample {
            at_us: i64::try_from(ms * 1000).unwrap(),
            host_bytes,
            hugetlb_bytes: 0,
            processes_bytes: 0,
        };
        let memory = vec![at(900, 90), at(1000, 100), at(1200, 150), at(1900, 170), at(2200, 400)];
        let round = Round::of(LoadRecord { memory, marks: marks(), ..LoadRecord::default() });
        assert_eq!(round.extra_host_bytes, 70);
        assert_eq!(round.memory[0].at_us, -200_000);
        let summed = summarize(&[round.clone(), round], "extra_host").unwrap();
        assert_eq!((summed.count, summed.median), (2, 70.0));
        assert!(summarize(&[], "extra_host").is_none());
    }
}
