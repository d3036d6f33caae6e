//! Statistics of samples: mean, spread, quantiles and confidence intervals.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

/// Number of bootstrap resamples.
const RESAMPLES: usize = 4000;

/// Summary of a sample, in the unit of its values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Number of values.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (n - 1); 0 for a single value.
    pub sd: f64,
    /// Minimum.
    pub min: f64,
    /// Median; the mean of the middle two values of an even number.
    pub median: f64,
    /// Maximum.
    pub max: f64,
}

impl Summary {
    /// Summarizes values; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let mean = mean(&sorted);
        let squares = sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let sd = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        let median = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        Some(Self { count, mean, sd, min, median, max })
    }
}

/// Estimate with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Point estimate.
    pub estimate: f64,
    /// Lower bound: the 2.5 % quantile of the resampled estimates.
    pub low: f64,
    /// Upper bound: the 97.5 % quantile of the resampled estimates.
    pub high: f64,
}

/// Ratio of the mean of `above` to the mean of `below`, with the interval of the percentile
/// bootstrap (Efron, "Bootstrap methods: another look at the jackknife", 1979). Deterministic.
/// `None` if either sample is empty.
pub fn ratio_of_means(above: &[f64], below: &[f64]) -> Option<Interval> {
    if above.is_empty() || below.is_empty() {
        return None;
    }
    let mut random = SmallRng::seed_from_u64(1);
    let mut resampled_mean = |values: &[f64]| {
        let drawn = (0..values.len()).map(|_| values[random.random_range(0..values.len())]);
        drawn.sum::<f64>() / values.len() as f64
    };
    let mut ratios: Vec<f64> =
        (0..RESAMPLES).map(|_| resampled_mean(above) / resampled_mean(below)).collect();
    ratios.sort_by(f64::total_cmp);
    Some(Interval {
        estimate: mean(above) / mean(below),
        low: ratios[RESAMPLES / 40],
        high: ratios[RESAMPLES - 1 - RESAMPLES / 40],
    })
}

/// Quantile `q` of sorted values by the nearest-rank method; `None` if there are none.
pub fn quantile<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=len")]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_known_values() {
        let summary = Summary::of(&[4.0, 2.0, 9.0, 5.0]).unwrap();
        assert_eq!((summary.mean, summary.min, summary.median, summary.max), (5.0, 2.0, 4.5, 9.0));
        assert!((summary.sd - (26.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[7.0]).unwrap().sd, 0.0);
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        let values: Vec<u64> = (1..=1000).collect();
        assert_eq!(quantile(&values, 0.5), Some(500));
        assert_eq!(quantile(&values, 0.999), Some(999));
        assert_eq!(quantile(&values, 0.9999), Some(1000));
        assert_eq!(quantile(&values, 0.0), Some(1));
        assert_eq!(quantile::<u64>(&[], 0.5), None);
    }

    #[test]
    fn an_interval_contains_the_true_ratio_and_shrinks_with_the_noise() {
        let near = |centre: f64, noise: f64| {
            let steps = (0..20).map(f64::from);
            steps.map(|i| centre + noise * (i - 9.5) / 9.5).collect::<Vec<_>>()
        };
        let loose = ratio_of_means(&near(30.0, 6.0), &near(20.0, 4.0)).unwrap();
        let tight = ratio_of_means(&near(30.0, 0.6), &near(20.0, 0.4)).unwrap();
        for interval in [loose, tight] {
            assert!((interval.estimate - 1.5).abs() < 1e-9, "{interval:?}");
            assert!(interval.low < 1.5 && 1.5 < interval.high, "{interval:?}");
        }
        assert!(tight.high - tight.low < 0.2 * (loose.high - loose.low), "{tight:?} {loose:?}");
        assert_eq!(ratio_of_means(&[], &[1.0]), None);
    }
}
