//! What a statistic is: a family of samples that differ in their labels, as Prometheus has it. Tables, JSON and the text for Prometheus
//! are made of the same families, so they say the same.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the samples of a family change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// They only grow; the difference of two is what happened between.
    Counter,
    /// They go up and down.
    Gauge,
    /// Counts of values by size.
    Histogram,
}

/// One statistic with all its samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// Who counts it: see [`super::LAYERS`].
    pub layer: String,
    /// Its name in the layer, words joined by `_`.
    pub name: String,
    /// How it changes.
    pub kind: Kind,
    /// What it counts: "bytes", "nanoseconds", "cycles", "frames" and so on; empty if the name says it.
    pub unit: String,
    /// A sentence for people.
    pub help: String,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// What tells the samples of a family apart.
pub type Labels = BTreeMap<String, String>;

/// One number, or one histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The number; of a histogram the sum of its values.
    pub value: u64,
    /// Of a histogram: how many values are at most so large, for each bound, from small to large. The last bound is [`u64::MAX`]: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(u64, u64)>,
}

impl Sample {
    /// How many values a histogram holds.
    pub fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |&(_, count)| count)
    }

    /// The bound below which a share of a histogram's values lies, or of the last bucket that has one; 0 if it holds none.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let last = self.buckets.iter().rev().nth(1).map_or(0, |&(bound, _)| bound);
        self.buckets.iter().find(|&&(_, count)| count >= wanted).map_or(0, |&(bound, _)| bound.min(last))
    }

    /// Whether it says anything: a number other than 0, or a histogram with values.
    pub fn is_nothing(&self) -> bool {
        self.value == 0 && self.count() == 0
    }

    /// What happened since an earlier sample of the same labels. Less than before means that the counting began anew.
    fn since(&mut self, earlier: &Self) {
        let began_anew = self.value < earlier.value || self.count() < earlier.count();
        if began_anew {
            return;
        }
        self.value -= earlier.value;
        for (bucket, before) in self.buckets.iter_mut().zip(&earlier.buckets) {
            bucket.1 = bucket.1.saturating_sub(before.1);
        }
    }
}

impl Family {
    /// A family without samples.
    pub fn new(layer: &str, name: &str, kind: Kind, unit: &str, help: &str) -> Self {
        let owned = str::to_owned;
        let help = help.trim();
        Self {
            layer: owned(layer),
            name: owned(name),
            kind,
            unit: owned(unit),
            help: owned(help),
            samples: Vec::new(),
        }
    }

    /// Adds a number.
    #[must_use]
    pub fn with(mut self, labels: &[(&str, &str)], value: u64) -> Self {
        self.push(labels, value);
        self
    }

    /// Adds a number.
    pub fn push(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.samples.push(Sample { labels, value, buckets: Vec::new() });
    }

    /// Adds a histogram of counts that are not summed up yet, with the bound of each.
    pub fn push_histogram(
        &mut self,
        labels: &[(&str, &str)],
        sum: u64,
        counts: impl Iterator<Item = (u64, u64)>,
    ) {
        self.push(labels, sum);
        let mut all = 0u64;
        let mut buckets: Vec<(u64, u64)> = Vec::new();
        for (bound, count) in counts {
            all = all.saturating_add(count);
            match buckets.last_mut() {
                // Two bounds in cycles can be one in nanoseconds.
                Some(last) if last.0 == bound => last.1 = all,
                _ => buckets.push((bound, all)),
            }
        }
        if let Some(last) = buckets.last_mut() {
            // What no bucket holds is in the last.
            last.0 = u64::MAX;
        }
        if let Some(sample) = self.samples.last_mut() {
            sample.buckets = buckets;
        }
    }

    /// The sum over the samples whose labels include these.
    pub fn sum(&self, labels: &[(&str, &str)]) -> u64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|own| own == value))
        };
        self.samples.iter().filter(has).fold(0, |sum, sample| sum.wrapping_add(sample.value))
    }

    /// What happened since an earlier state. Gauges stay as they are.
    pub(super) fn since(&mut self, earlier: &Self) {
        if self.kind == Kind::Gauge {
            return;
        }
        for sample in &mut self.samples {
            if let Some(before) = earlier.samples.iter().find(|before| before.labels == sample.labels) {
                sample.since(before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(u64, u64)], sum: u64) -> Family {
        let mut family = Family::new("disk", "request_time", Kind::Histogram, "nanoseconds", "Times.");
        family.push_histogram(&[], sum, counts.iter().copied());
        family
    }

    #[test]
    fn histogram_is_cumulative_and_its_last_bucket_holds_the_rest() {
        let family = histogram(&[(1, 2), (2, 0), (4, 3)], 11);
        let sample = &family.samples[0];
        assert_eq!(sample.buckets, [(1, 2), (2, 2), (u64::MAX, 5)]);
        assert_eq!((sample.count(), sample.value), (5, 11));
        assert_eq!((sample.quantile(0.4), sample.quantile(0.5)), (1, 2));
    }

    #[test]
    fn buckets_of_one_bound_are_one() {
        let family = histogram(&[(0, 1), (0, 2), (1, 3), (2, 0)], 9);
        assert_eq!(family.samples[0].buckets, [(0, 3), (1, 6), (u64::MAX, 6)]);
    }

    #[test]
    fn difference_of_counters_and_histograms_is_what_came_in_between() {
        let (before, mut after) = (histogram(&[(1, 2), (2, 1)], 4), histogram(&[(1, 2), (2, 4)], 10));
        after.since(&before);
        assert_eq!(after.samples[0].buckets, [(1, 0), (u64::MAX, 3)]);
        assert_eq!(after.samples[0].value, 6);
    }

    #[test]
    fn counter_that_began_anew_counts_from_there() {
        let family = |value| Family::new("tcp", "opened", Kind::Counter, "", "").with(&[("e", "1")], value);
        let mut after = family(3);
        after.since(&family(100));
        assert_eq!(after.sum(&[("e", "1")]), 3);
    }

    #[test]
    fn gauge_has_no_difference() {
        let mut after = Family::new("tcp", "curr_estab", Kind::Gauge, "", "").with(&[], 7);
        after.since(&Family::new("tcp", "curr_estab", Kind::Gauge, "", "").with(&[], 5));
        assert_eq!(after.sum(&[]), 7);
    }
}
