//! Workload: requests with random keys and incompressible values, due at a constant rate.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use serde::Serialize;

/// Size of the buffer of random bytes from which values are taken.
const VALUE_POOL: usize = 1 << 20;
/// Exponent of YCSB's zipfian distribution (Cooper et al., "Benchmarking Cloud Serving Systems with
/// YCSB", 2010).
const ZIPF_EXPONENT: f64 = 0.99;

/// Ratio of SETs to GETs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RequestMix {
    /// Weight of SET.
    pub set: u32,
    /// Weight of GET.
    pub get: u32,
}

impl FromStr for RequestMix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(set, get)| {
            let mix = Self { set: set.parse().ok()?, get: get.parse().ok()? };
            (mix.set.checked_add(mix.get)? > 0).then_some(mix)
        });
        parts.ok_or_else(|| format!("'{text}' is no mix; write SETs:GETs, such as 1:0 or 1:9"))
    }
}

impl fmt::Display for RequestMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.set, self.get)
    }
}

/// Distribution of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyDistribution {
    /// All keys alike
    Uniform,
    /// A few keys most of the time (exponent 0.99, as in YCSB)
    Zipf,
}

/// Generator of requests, deterministic for the same parameters.
#[derive(Debug)]
pub struct RequestGenerator {
    random: SmallRng,
    keys: u64,
    zipf: Option<Zipf<f64>>,
    mix: RequestMix,
    value_size: usize,
    value_pool: Vec<u8>,
    key: Vec<u8>,
}

impl RequestGenerator {
    /// Creates a generator for `keys` keys and values of `value_size` bytes.
    pub fn new(
        keys: u64,
        value_size: usize,
        mix: RequestMix,
        distribution: KeyDistribution,
    ) -> Self {
        let mut random = SmallRng::seed_from_u64(42);
        let mut value_pool = vec![0; VALUE_POOL + value_size];
        random.fill_bytes(&mut value_pool);
        let zipf = match distribution {
            KeyDistribution::Uniform => None,
            KeyDistribution::Zipf => Zipf::new(keys as f64, ZIPF_EXPONENT).ok(),
        };
        Self { random, keys, zipf, mix, value_size, value_pool, key: Vec::with_capacity(32) }
    }

    /// Passes the arguments of the next request to `send`.
    pub fn next(&mut self, send: impl FnOnce(&[&[u8]])) {
        let index = match &self.zipf {
            None => self.random.random_range(0..self.keys),
            // Ranks are scattered, or the hot keys would be neighbors in memory.
            Some(zipf) => scatter(rank(zipf.sample(&mut self.random)), self.keys),
        };
        if self.random.random_range(0..self.mix.set + self.mix.get) < self.mix.set {
            return self.set(index, send);
        }
        self.set_key(index);
        send(&[b"GET", &self.key]);
    }

    /// Passes the arguments of a SET of key `index` to `send`.
    pub fn set(&mut self, index: u64, send: impl FnOnce(&[&[u8]])) {
        self.set_key(index);
        let at = self.random.random_range(0..VALUE_POOL);
        send(&[b"SET", &self.key, &self.value_pool[at..at + self.value_size]]);
    }

    fn set_key(&mut self, index: u64) {
        self.key.clear();
        // Writing to a vector cannot fail.
        let _ = write!(self.key, "key:{index:012}");
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 1 to the number of keys"
)]
fn rank(drawn: f64) -> u64 {
    drawn as u64 - 1
}

/// Maps ranks to numbers below `below`, neighbors far apart (Knuth's multiplicative hashing).
fn scatter(rank: u64, below: u64) -> u64 {
    rank.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_right(17) % below
}

/// Schedule of a constant rate: request `n` is due `n / rate` seconds after the begin, so that
/// rounding errors do not accumulate.
#[derive(Debug, Clone, Copy)]
pub struct RateSchedule {
    begin: u64,
    rate: u64,
    count: u64,
}

impl RateSchedule {
    /// Creates a schedule of `rate` requests per second from `begin`, in nanoseconds, on.
    pub fn new(begin: u64, rate: u64) -> Self {
        Self { begin, rate, count: 0 }
    }

    /// Due time of the next request in nanoseconds.
    pub fn next_due(&self) -> u64 {
        let since = u128::from(self.count) * 1_000_000_000 / u128::from(self.rate);
        self.begin + u64::try_from(since).unwrap_or(u64::MAX - self.begin)
    }

    /// Advances past the next request.
    pub fn advance(&mut self) {
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_neither_drift_nor_bunch() {
        let mut schedule = RateSchedule::new(500, 60_000);
        let dues: Vec<u64> = (0..60_001)
            .map(|_| {
                let due = schedule.next_due();
                schedule.advance();
                due
            })
            .collect();
        assert_eq!((dues[0], dues[60_000]), (500, 1_000_000_500));
        assert!(dues.windows(2).all(|pair| (16_666..=16_667).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn mixes_are_parsed_and_followed() {
        assert_eq!("1:9".parse(), Ok(RequestMix { set: 1, get: 9 }));
        for wrong in ["", "1", "0:0", "a:1", "-1:2", "1:2:3", "4294967295:1"] {
            assert!(wrong.parse::<RequestMix>().is_err(), "{wrong}");
        }
        let mut requests =
            RequestGenerator::new(1000, 8, RequestMix { set: 1, get: 3 }, KeyDistribution::Uniform);
        let mut sets = 0;
        for _ in 0..10_000 {
            requests.next(|words| sets += usize::from(words[0] == b"SET" && words.len() == 3));
        }
        assert!((2_200..2_800).contains(&sets), "{sets}");
    }

    #[test]
    fn zipf_prefers_few_keys_and_stays_in_range() {
        let mut requests =
            RequestGenerator::new(1000, 8, RequestMix { set: 1, get: 0 }, KeyDistribution::Zipf);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..10_000 {
            requests.next(|words| *counts.entry(words[1].to_vec()).or_insert(0) += 1);
        }
        let most = *counts.values().max().unwrap();
        assert!(most > 500, "{most}: a tenth of all goes to the first key");
        assert!(counts.keys().all(|key| key.as_slice() < b"key:000000001000".as_slice()));
        assert!(counts.len() > 200, "{}", counts.len());
    }
}
