//! Percentiles against a sorted list, and sums of histograms.

use exos_load::Histogram;
use proptest::prelude::*;

fn of(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

/// Values of every size.
fn value() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
}

proptest! {
    #[test]
    fn percentile_is_the_sorted_lists_up_to_its_error(
        mut values in prop::collection::vec(value(), 1..300), per_mille in 0u64..=1000
    ) {
        let histogram = of(&values);
        values.sort_unstable();
        let rank = (values.len() * per_mille as usize).div_ceil(1000).max(1);
        let (exact, reported) = (values[rank - 1], histogram.per_mille(per_mille));
        prop_assert!(reported >= exact && reported - exact <= exact / 128, "{} for {}", reported, exact);
        prop_assert_eq!(histogram.min(), values[0]);
        prop_assert_eq!(histogram.max(), values[values.len() - 1]);
        let sum: u128 = values.iter().map(|&value| u128::from(value)).sum();
        prop_assert_eq!(u128::from(histogram.mean()), sum / values.len() as u128);
    }

    #[test]
    fn merged_histogram_is_that_of_all_values(
        first in prop::collection::vec(value(), 0..50), second in prop::collection::vec(value(), 0..50)
    ) {
        let mut merged = of(&first);
        merged.merge(&of(&second));
        prop_assert_eq!(merged, of(&[first, second].concat()));
    }
}
