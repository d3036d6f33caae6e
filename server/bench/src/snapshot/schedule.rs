//! What is sent and when: a constant rate, keys by lot, values that cannot be compressed.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use serde::Serialize;

/// Random bytes that values are cut from.
const POOL: usize = 1 << 20;
/// The exponent of YCSB's zipfian keys (Cooper et al., "Benchmarking Cloud Serving Systems with
/// YCSB", 2010).
const ZIPF_EXPONENT: f64 = 0.99;

/// How many SETs come to how many GETs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// Parts that write.
    pub set: u32,
    /// Parts that read.
    pub get: u32,
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(set, get)| {
            let mix = Self { set: set.parse().ok()?, get: get.parse().ok()? };
            (mix.set.checked_add(mix.get)? > 0).then_some(mix)
        });
        parts.ok_or_else(|| format!("'{text}' is no mix; write SETs:GETs, such as 1:0 or 1:9"))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.set, self.get)
    }
}

/// Which keys are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// All alike
    Uniform,
    /// A few of them most of the time (exponent 0.99, as in YCSB)
    Zipf,
}

/// Draws one request after another; the same numbers give the same requests.
#[derive(Debug)]
pub struct Requests {
    random: SmallRng,
    keys: u64,
    zipf: Option<Zipf<f64>>,
    mix: Mix,
    value_size: usize,
    pool: Vec<u8>,
    key: Vec<u8>,
}

impl Requests {
    /// Requests for `keys` keys and values of `value_size` bytes.
    pub fn new(keys: u64, value_size: usize, mix: Mix, distribution: Keys) -> Self {
        let mut random = SmallRng::seed_from_u64(42);
        let mut pool = vec![0; POOL + value_size];
        random.fill_bytes(&mut pool);
        let zipf = match distribution {
            Keys::Uniform => None,
            Keys::Zipf => Zipf::new(keys as f64, ZIPF_EXPONENT).ok(),
        };
        Self { random, keys, zipf, mix, value_size, pool, key: Vec::with_capacity(32) }
    }

    /// Makes the next request of the mix, and hands its words on.
    pub fn next(&mut self, send: impl FnOnce(&[&[u8]])) {
        let index = match &self.zipf {
            None => self.random.random_range(0..self.keys),
            // Ranks are spread over the keyspace, or the hot keys would be neighbours in memory.
            Some(zipf) => scatter(rank(zipf.sample(&mut self.random)), self.keys),
        };
        if self.random.random_range(0..self.mix.set + self.mix.get) < self.mix.set {
            return self.set(index, send);
        }
        self.name(index);
        send(&[b"GET", &self.key]);
    }

    /// The SET that first creates a key.
    pub fn set(&mut self, index: u64, send: impl FnOnce(&[&[u8]])) {
        self.name(index);
        let at = self.random.random_range(0..POOL);
        send(&[b"SET", &self.key, &self.pool[at..at + self.value_size]]);
    }

    fn name(&mut self, index: u64) {
        self.key.clear();
        // Writing to a vector cannot fail.
        let _ = write!(self.key, "key:{index:012}");
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to the keys")]
fn rank(drawn: f64) -> u64 {
    drawn as u64 - 1
}

/// A number below `below` for each rank, neighbours far apart (Knuth's multiplicative hashing).
fn scatter(rank: u64, below: u64) -> u64 {
    rank.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_right(17) % below
}

/// When requests are due: one every `1 / rate` seconds, without drift.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    begin: u64,
    rate: u64,
    count: u64,
}

impl Pace {
    /// `rate` requests a second from `begin` on, in nanoseconds.
    pub fn new(begin: u64, rate: u64) -> Self {
        Self { begin, rate, count: 0 }
    }

    /// When the next request is due, in nanoseconds.
    pub fn next_due(&self) -> u64 {
        let since = u128::from(self.count) * 1_000_000_000 / u128::from(self.rate);
        self.begin + u64::try_from(since).unwrap_or(u64::MAX - self.begin)
    }

    /// It has been sent.
    pub fn advance(&mut self) {
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_neither_drifts_nor_bunches() {
        let mut pace = Pace::new(500, 60_000);
        let dues: Vec<u64> = (0..60_001)
            .map(|_| {
                let due = pace.next_due();
                pace.advance();
                due
            })
            .collect();
        assert_eq!((dues[0], dues[60_000]), (500, 1_000_000_500));
        assert!(dues.windows(2).all(|pair| (16_666..=16_667).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn mixes_are_parsed_and_kept() {
        assert_eq!("1:9".parse(), Ok(Mix { set: 1, get: 9 }));
        for wrong in ["", "1", "0:0", "a:1", "-1:2", "1:2:3", "4294967295:1"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
        let mut requests = Requests::new(1000, 8, Mix { set: 1, get: 3 }, Keys::Uniform);
        let mut sets = 0;
        for _ in 0..10_000 {
            requests.next(|words| sets += usize::from(words[0] == b"SET" && words.len() == 3));
        }
        assert!((2_200..2_800).contains(&sets), "{sets}");
    }

    #[test]
    fn zipf_prefers_a_few_keys_and_stays_in_range() {
        let mut requests = Requests::new(1000, 8, Mix { set: 1, get: 0 }, Keys::Zipf);
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
