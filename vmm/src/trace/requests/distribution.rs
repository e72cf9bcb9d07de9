//! Many values and their percentiles: exact while they are few, with three significant digits beyond (HdrHistogram).

use hdrhistogram::Histogram;
use serde::Serialize;

/// So many values are kept as they are: 0.5 MB.
const EXACT: usize = 1 << 16;
/// Beyond them, percentiles have so many significant digits.
const DIGITS: u8 = 3;

/// Values of which most may be 0.
#[derive(Clone, Debug)]
pub struct Distribution {
    zeros: u64,
    sum: u128,
    max: u64,
    others: Others,
}

#[derive(Clone, Debug)]
enum Others {
    Exact(Vec<u64>),
    Many(Box<Histogram<u64>>),
}

/// Of a [`Distribution`]: so many of a hundred values are at most that large (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half of them.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
    /// All.
    pub max: u64,
    /// Their mean.
    pub mean: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { zeros: 0, sum: 0, max: 0, others: Others::Exact(Vec::new()) }
    }
}

impl Distribution {
    /// One more value.
    pub fn add(&mut self, value: u64) {
        self.sum += u128::from(value);
        self.max = self.max.max(value);
        if value == 0 {
            self.zeros += 1;
            return;
        }
        match &mut self.others {
            Others::Exact(values) if values.len() < EXACT => values.push(value),
            Others::Exact(values) => {
                // Only wrong digits are an error.
                let Ok(mut histogram) = Histogram::new(DIGITS) else { return };
                values.iter().chain([&value]).for_each(|value| record(&mut histogram, *value));
                self.others = Others::Many(Box::new(histogram));
            }
            Others::Many(histogram) => record(histogram, value),
        }
    }

    /// How many values.
    pub fn len(&self) -> u64 {
        self.zeros + self.nonzero()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values are not 0.
    pub fn nonzero(&self) -> u64 {
        match &self.others {
            Others::Exact(values) => values.len() as u64,
            Others::Many(histogram) => histogram.len(),
        }
    }

    /// Their sum.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Percentiles of these values and so many zeros more.
    pub fn percentiles(&self, more_zeros: u64) -> Percentiles {
        let zeros = self.zeros + more_zeros;
        let len = zeros + self.nonzero();
        if len == 0 {
            return Percentiles::default();
        }
        let sorted = match &self.others {
            Others::Exact(values) => {
                let mut values = values.clone();
                values.sort_unstable();
                values
            }
            Others::Many(_) => Vec::new(),
        };
        let at = |per_mille: u64| {
            let rank = (len * per_mille).div_ceil(1000).clamp(1, len);
            let Some(place) = (rank - zeros.min(rank)).checked_sub(1) else { return 0 };
            match &self.others {
                Others::Exact(_) => sorted[place as usize],
                Others::Many(histogram) => {
                    histogram.value_at_quantile((place + 1) as f64 / histogram.len() as f64).min(self.max)
                }
            }
        };
        Percentiles {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
            max: self.max,
            mean: (self.sum / u128::from(len)) as u64,
        }
    }
}

/// The histogram grows with its values, as far as it can.
fn record(histogram: &mut Histogram<u64>, value: u64) {
    if histogram.record(value).is_err() {
        histogram.saturating_record(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let mut distribution = Distribution::default();
        values.into_iter().for_each(|value| distribution.add(value));
        distribution
    }

    #[test]
    fn few_values_have_exact_percentiles_by_nearest_rank() {
        let percentiles = of(1..=1000).percentiles(0);
        let expected = Percentiles { p50: 500, p90: 900, p99: 990, p99_9: 999, max: 1000, mean: 500 };
        assert_eq!(percentiles, expected);
        assert_eq!(of([7]).percentiles(0).p50, 7);
        assert_eq!(of([]).percentiles(0), Percentiles::default());
    }

    #[test]
    fn zeros_count_as_values() {
        let percentiles = of(1..=10).percentiles(90);
        assert_eq!((percentiles.p50, percentiles.p90, percentiles.p99, percentiles.max), (0, 0, 9, 10));
        let mut with = of(1..=10);
        (0..90).for_each(|_| with.add(0));
        assert_eq!(with.percentiles(0), percentiles);
        assert_eq!((with.len(), with.nonzero()), (100, 10));
    }

    #[test]
    fn many_values_have_three_digits() {
        let many = EXACT as u64 * 4;
        let distribution = of((1..=many).rev());
        assert!(matches!(distribution.others, Others::Many(_)));
        let percentiles = distribution.percentiles(many);
        for (got, exact) in [(percentiles.p90, many * 4 / 5), (percentiles.p99_9, many / 1000 * 998)] {
            assert!(got.abs_diff(exact) as f64 <= exact as f64 * 0.002, "{got} {exact}");
        }
        assert_eq!((percentiles.p50, percentiles.max), (0, many));
        let of_large = of(std::iter::repeat_n(u64::MAX - 1, EXACT + 2)).percentiles(0);
        assert_eq!(of_large.max, u64::MAX - 1);
    }
}
