//! From single requests to figures: percentiles by phase, latency over time, medians of rounds.
//!
//! Which phase a request belongs to: *before* when its reply was there before BGSAVE was sent;
//! *after* when it fell due after the save had ended; else *during*. So a request that was under
//! way when the server forked belongs to the save that held it up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::load::{Marks, Record, Sample};
use super::memory::Memory;
use crate::stats::{Summary, quantile};

/// Width of a slice of the timeline, in nanoseconds.
const SLICE: u64 = 50_000_000;
/// Points of a percentile curve for each tenfold of rarity.
const CURVE_STEPS: i32 = 10;
/// The rarest point of a curve: one in 10^6.
const CURVE_TENFOLDS: i32 = 6;

/// Names of the phases, in their order.
pub const PHASES: [&str; 3] = ["before", "during", "after"];

/// What clients felt in one phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Phase {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered in a second.
    pub rate: f64,
    /// Latency in microseconds: half of the requests took no longer.
    pub p50_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// 99.9 % took no longer.
    pub p999_us: f64,
    /// 99.99 % took no longer.
    pub p9999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Of the load generator's own lateness: 99.9 % were sent no later after they were due.
    pub own_lag_p999_us: f64,
    /// The most of it.
    pub own_lag_max_us: f64,
    /// The share of requests that took longer, and the latency in microseconds: falling shares.
    pub curve: Vec<(f64, f64)>,
}

/// Latency in a slice of 50 ms, by when the requests were due.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slice {
    /// The middle of the slice, in seconds since BGSAVE was sent.
    pub at: f64,
    /// Requests due in it.
    pub requests: u64,
    /// Percentiles in microseconds.
    pub p50_us: f64,
    /// See [`Phase`].
    pub p99_us: f64,
    /// See [`Phase`].
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// One round with one server.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Round {
    /// Before, during, after.
    pub phases: [Phase; 3],
    /// From sending BGSAVE to its reply.
    pub bgsave_reply_us: f64,
    /// What the server says its fork took; `None` when it says nothing.
    pub fork_us: Option<f64>,
    /// From sending BGSAVE to the server saying that it is done; known to 20 ms.
    pub save_seconds: f64,
    /// Whether the server says that the save worked.
    pub saved: bool,
    /// Size of the file, or what the server says about it.
    pub image_bytes: Option<u64>,
    /// The most memory of the machine during the save, beyond what was in use right before; looked
    /// at ten times a second.
    pub extra_host_bytes: u64,
    /// The same of the server's processes.
    pub extra_processes_bytes: u64,
    /// What the server says it copied (`rdb_last_cow_size`).
    pub reported_cow_bytes: Option<u64>,
    /// Requests that fell due.
    pub requests: u64,
    /// Requests that failed, by what was said.
    pub errors: BTreeMap<String, u64>,
    /// Replies after the timeout.
    pub late: u64,
    /// Requests never answered.
    pub unanswered: u64,
    /// Latency over time.
    pub timeline: Vec<Slice>,
    /// Memory over time.
    pub memory: Vec<Memory>,
}

impl Round {
    /// Sums up what was recorded; what only the server knows is still missing.
    pub fn of(record: Record) -> Self {
        let marks = record.marks;
        let mut phases: [Vec<Sample>; 3] = Default::default();
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
        let phases = phases.map(|samples| Phase::of(&samples, lengths.next().unwrap_or(1)));
        let memory = relative(record.memory, marks.save_sent);
        let extra = |bytes: fn(&Memory) -> u64| extra(&memory, &marks, bytes);
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

    /// The phases in which the load generator's own lateness may be a good part of what it
    /// measured: at the 99.9th percentile more than a quarter of the latency.
    pub fn off_schedule(&self) -> impl Iterator<Item = &'static str> {
        let late = |phase: &Phase| phase.own_lag_p999_us > phase.p999_us / 4.0;
        let phases = PHASES.iter().zip(&self.phases);
        phases.filter(move |(_, phase)| late(phase)).map(|(name, _)| *name)
    }

    /// Requests without a proper answer.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.unanswered
    }
}

fn phase_of(sample: &Sample, marks: &Marks) -> usize {
    if sample.due >= marks.save_ended {
        2
    } else {
        usize::from(sample.due + sample.latency > marks.save_sent)
    }
}

impl Phase {
    fn of(samples: &[Sample], nanoseconds: u64) -> Self {
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

/// Points that are spread evenly over a scale on which each tenfold of rarity is as wide, as far as
/// there are requests enough to tell.
fn curve(sorted: &[u64]) -> Vec<(f64, f64)> {
    let shares = (0..=CURVE_TENFOLDS * CURVE_STEPS)
        .map(|step| 10_f64.powf(-f64::from(step) / f64::from(CURVE_STEPS)))
        .filter(|share| share * sorted.len() as f64 >= 1.0);
    let point = |share: f64| Some((share, microseconds(quantile(sorted, 1.0 - share)?)));
    shares.filter_map(point).collect()
}

fn timeline(samples: &[Sample], marks: &Marks) -> Vec<Slice> {
    let mut slices: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.due >= marks.measured_from) {
        // The clock counts from the start of this process: its times fit.
        let since = sample.due.cast_signed() - marks.save_sent.cast_signed();
        slices.entry(since.div_euclid(SLICE.cast_signed())).or_default().push(sample.latency);
    }
    let slice = |(index, mut latencies): (i64, Vec<u64>)| {
        latencies.sort_unstable();
        let at = |q| quantile(&latencies, q).map_or(0.0, microseconds);
        Slice {
            at: (index as f64 + 0.5) * SLICE as f64 / 1e9,
            requests: latencies.len() as u64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
        }
    };
    slices.into_iter().map(slice).collect()
}

/// The same with times relative to the save.
fn relative(mut memory: Vec<Memory>, save_sent: u64) -> Vec<Memory> {
    for moment in &mut memory {
        moment.at_us -= (save_sent / 1000).cast_signed();
    }
    memory
}

/// The most during the save, beyond the last before it.
fn extra(memory: &[Memory], marks: &Marks, bytes: fn(&Memory) -> u64) -> u64 {
    let end = ((marks.save_ended - marks.save_sent) / 1000).cast_signed();
    let before = memory.iter().rfind(|moment| moment.at_us < 0).map_or(0, bytes);
    let during = memory.iter().filter(|moment| (0..=end).contains(&moment.at_us)).map(bytes);
    during.max().unwrap_or(0).saturating_sub(before)
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// What is told of each round and summed up over rounds: its name, its unit, and where it stands.
pub type Figure = (&'static str, &'static str, fn(&Round) -> Option<f64>);

/// All of them, in the order of the tables.
pub const FIGURES: &[Figure] = &[
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

/// A figure by its name, summed up over rounds; `None` when no round has it.
pub fn over_rounds(rounds: &[Round], name: &str) -> Option<Summary> {
    let (_, _, read) = FIGURES.iter().find(|(known, _, _)| *known == name)?;
    Summary::of(&rounds.iter().filter_map(read).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn marks() -> Marks {
        Marks {
            measured_from: 100 * MS,
            save_sent: 1100 * MS,
            save_replied: 1150 * MS,
            save_ended: 2100 * MS,
            ended: 3100 * MS,
        }
    }

    fn sample(due_ms: u64, latency_us: u64) -> Sample {
        Sample { due: due_ms * MS, latency: latency_us * 1000, lag: 0 }
    }

    #[test]
    fn a_request_belongs_to_the_save_that_held_it_up() {
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
    fn a_round_tells_rates_percentiles_and_times() {
        // One request a millisecond: 100 us, and 40 ms each in the 50 ms after the fork.
        let latency = |ms: u64| if (1100..1150).contains(&ms) { 40_000 } else { 100 };
        let samples = (0..3100).map(|ms| sample(ms, latency(ms))).collect();
        let round = Round::of(Record { samples, marks: marks(), ..Record::default() });
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
    fn a_load_that_is_late_itself_says_so() {
        let late = |ms: u64| Sample { lag: 60_000, ..sample(ms, 100) };
        let on_time = |ms: u64| Sample { lag: 10_000, ..sample(ms, 100) };
        let samples = (100..1000).map(late).chain((1100..2000).map(on_time)).collect();
        let round = Round::of(Record { samples, marks: marks(), ..Record::default() });
        assert_eq!(round.off_schedule().collect::<Vec<_>>(), ["before"]);
        assert_eq!((round.phases[0].own_lag_max_us, round.phases[1].own_lag_p999_us), (60.0, 10.0));
    }

    #[test]
    fn extra_memory_is_what_the_save_added() {
        let at = |ms: u64, host_bytes| Memory {
            at_us: i64::try_from(ms * 1000).unwrap(),
            host_bytes,
            hugetlb_bytes: 0,
            processes_bytes: 0,
        };
        let memory = vec![at(900, 90), at(1000, 100), at(1200, 150), at(1900, 170), at(2200, 400)];
        let round = Round::of(Record { memory, marks: marks(), ..Record::default() });
        assert_eq!(round.extra_host_bytes, 70);
        assert_eq!(round.memory[0].at_us, -200_000);
        let summed = over_rounds(&[round.clone(), round], "extra_host").unwrap();
        assert_eq!((summed.count, summed.median), (2, 70.0));
        assert!(over_rounds(&[], "extra_host").is_none());
    }
}
