use proptest::prelude::*;

use super::*;

fn filled(values: &[u64]) -> Distribution {
    let histogram = Histogram::default();
    values.iter().for_each(|value| histogram.record(*value));
    histogram.distribution()
}

/// Durations as they are: as likely short as long.
fn durations() -> impl Strategy<Value = Vec<u64>> {
    let duration = (0_u32..36, any::<u64>()).prop_map(|(bits, value)| value & ((2 << bits) - 1));
    prop::collection::vec(duration, 1..400)
}

/// The number of the bucket that Prometheus would choose.
fn number_of(nanos: u64) -> i32 {
    (8.0 * (nanos as f64 / 1e9).log2()).ceil() as i32
}

#[test]
fn buckets_are_contiguous_and_narrow() {
    assert_eq!(slot_of(0), 0);
    let mut lower = 0;
    for (slot, upper) in BORDERS.into_iter().enumerate().take(BUCKETS - 1) {
        assert_eq!((slot_of(lower + 1), slot_of(upper)), (slot, slot));
        assert!(slot == 0 || upper as f64 <= lower as f64 * 1.0906 + 1.0, "slot {slot}");
        lower = upper;
    }
    assert_eq!(lower, 69_792_494_890, "2^(49/8) s");
    assert_eq!([lower + 1, 1 << 37, u64::MAX].map(slot_of), [BUCKETS - 1; 3]);
}

#[test]
fn borders_are_those_of_native_histograms() {
    for (number, border) in (LOWEST..).zip(BORDERS).take(BUCKETS - 1).skip(1) {
        assert_eq!(number_of(border), number, "up to {border}");
        assert_eq!(number_of(border + 1), number + 1, "after {border}");
    }
    let native = filled(&[5, 59, 60, 1_000_000_000, 1_000_000_001, 90_000_000_000]).native();
    let at = |number: i32| native.counts[(number - native.offset) as usize];
    assert_eq!((native.zero_count, native.count, native.schema), (2, 6, 3));
    assert_eq!([-191, 0, 1, 50].map(at), [1; 4]);
    assert_eq!(native.counts.iter().sum::<u64>() + native.zero_count, native.count);
}

#[test]
fn an_empty_histogram_has_no_quantiles() {
    let empty = Distribution::default();
    assert_eq!(empty.quantile(0.5), None);
    assert_eq!(empty.exported().len(), 24);
    assert!(empty.exported().iter().all(|(_, count)| *count == 0));
}

#[test]
fn a_single_value_is_exact_even_beyond_the_last_bucket() {
    for value in [0, 1, 11_007, 585_727, 1 << 36, 1 << 50] {
        assert_eq!(filled(&[value]).quantile(0.999), Some(value));
    }
}

#[test]
fn exported_buckets_have_exact_borders() {
    let distribution = filled(&[953, 954, 1_907, 1_908, 4_000_000_000, 4_000_000_001]);
    let exported = distribution.exported();
    assert_eq!(exported[0], (9.5367431640625e-7, 1));
    assert_eq!(exported[1], (1.9073486328125e-6, 2));
    assert_eq!(exported[2], (3.814697265625e-6, 1));
    assert_eq!(exported[22], (4.0, 1));
    assert_eq!(exported[23], (f64::INFINITY, 1));
}

#[test]
fn a_difference_forgets_the_old_maximum() {
    let histogram = Histogram::default();
    histogram.record(5_000_000);
    let earlier = histogram.distribution();
    (0..3).for_each(|_| histogram.record(700));
    let since = histogram.distribution().since(&earlier);
    assert_eq!((since.count(), since.sum_nanos()), (3, 2100));
    let highest = since.quantile(1.0).unwrap();
    assert!((700..=787).contains(&highest), "{highest}");
}

proptest! {
    #[test]
    fn quantiles_are_within_a_tenth_of_a_sorted_list(
        mut values in durations(), quantile in 0.0..=1.0_f64
    ) {
        let distribution = filled(&values);
        values.sort_unstable();
        for quantile in [quantile, 0.5, 0.99, 0.999, 1.0] {
            let rank = (quantile * values.len() as f64).ceil() as usize;
            let exact = values[rank.clamp(1, values.len()) - 1];
            let found = distribution.quantile(quantile).unwrap();
            prop_assert!(found >= exact, "{found} below {exact} at {quantile}");
            let most = (exact as f64 * 1.0906 + 1.0).max(59.0);
            prop_assert!(found as f64 <= most, "{found} above {exact} at {quantile}");
        }
    }

    #[test]
    fn exported_buckets_count_as_a_list_does(values in durations()) {
        let distribution = filled(&values);
        let mut cumulative = 0;
        for (bound, count) in distribution.exported() {
            cumulative += count;
            let expected = values.iter().filter(|value| **value as f64 <= bound * 1e9).count();
            prop_assert_eq!(cumulative, expected as u64, "le {}", bound);
        }
        prop_assert_eq!(distribution.count(), values.len() as u64);
        prop_assert_eq!(distribution.sum_nanos(), values.iter().sum::<u64>());
    }

    #[test]
    fn merging_equals_recording_together(left in durations(), right in durations()) {
        let mut merged = filled(&left);
        merged.merge(&filled(&right));
        let together: Vec<u64> = left.iter().chain(&right).copied().collect();
        prop_assert_eq!(&merged, &filled(&together));
        let rest = merged.since(&filled(&left));
        prop_assert_eq!(rest.buckets, filled(&right).buckets);
    }
}
