//! Rates of the last second and a half: the mean of 16 samples, taken 10 times a second as in
//! Redis.

/// Samples of one mean.
const SAMPLES: usize = 16;

/// The sampled counters, or their rates of change per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rates {
    /// Commands executed.
    pub(crate) commands: u64,
    /// Bytes read from clients.
    pub(crate) input_bytes: u64,
    /// Bytes written to clients.
    pub(crate) output_bytes: u64,
    /// Turns of the workers: each reads requests of a client and runs them.
    pub(crate) cycles: u64,
    /// Microseconds of processor time of the workers.
    pub(crate) worker_us: u64,
}

impl Rates {
    fn map(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            commands: of(self.commands, other.commands),
            input_bytes: of(self.input_bytes, other.input_bytes),
            output_bytes: of(self.output_bytes, other.output_bytes),
            cycles: of(self.cycles, other.cycles),
            worker_us: of(self.worker_us, other.worker_us),
        }
    }
}

/// A ring of samples.
#[derive(Debug, Default)]
pub(super) struct RateSampler {
    last: Option<(u64, Rates)>,
    samples: [Rates; SAMPLES],
    next: usize,
}

impl RateSampler {
    /// Takes a sample of the counters.
    pub(super) fn sample(&mut self, now_us: u64, counters: Rates) {
        if let Some((last_us, last)) = self.last {
            let passed = now_us.saturating_sub(last_us);
            if passed == 0 {
                return;
            }
            let per_second = |now: u64, last: u64| {
                let rate = u128::from(now.saturating_sub(last)) * 1_000_000 / u128::from(passed);
                u64::try_from(rate).unwrap_or(u64::MAX)
            };
            self.samples[self.next] = counters.map(last, per_second);
            self.next = (self.next + 1) % SAMPLES;
        }
        self.last = Some((now_us, counters));
    }

    /// The mean of the samples.
    pub(super) fn rates(&self) -> Rates {
        let sum = self.samples.iter().fold(Rates::default(), |sum, sample| {
            sum.map(*sample, |sum, sample| sum.saturating_add(sample))
        });
        sum.map(sum, |sum, _| sum / SAMPLES as u64)
    }

    /// Forgets the samples.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(n: u64) -> Rates {
        Rates { commands: n, input_bytes: 10 * n, ..Rates::default() }
    }

    #[test]
    fn a_steady_rate_is_reached_after_all_samples() {
        let mut sampler = RateSampler::default();
        for tick in 0..=8 {
            sampler.sample(tick * 100_000, counters(tick * 50));
        }
        assert_eq!(sampler.rates(), counters(250), "half of the samples are there");
        for tick in 9..=40 {
            sampler.sample(tick * 100_000, counters(tick * 50));
        }
        assert_eq!(sampler.rates(), counters(500));
        sampler.clear();
        assert_eq!(sampler.rates(), Rates::default());
    }

    #[test]
    fn clocks_and_counters_that_stand_still_or_go_back_are_harmless() {
        let mut sampler = RateSampler::default();
        sampler.sample(100, counters(7));
        sampler.sample(100, counters(9));
        sampler.sample(50, counters(9));
        sampler.sample(200, counters(3));
        assert_eq!(sampler.rates(), Rates::default());
    }
}
