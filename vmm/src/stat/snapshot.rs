//! All statistics of a machine at one moment, and the difference of two such moments.

use super::collect;
use super::family::{Family, Sample};
use crate::account::ledger::now_tsc;
use crate::machine::Shared;
use serde::{Deserialize, Serialize};

/// Version of the JSON form.
pub const SCHEMA: &str = "exovm-stat/1";

/// What every layer has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatSnapshot {
    /// [`SCHEMA`].
    pub schema: String,
    /// When, on the TSC; of a difference, how long.
    pub tsc: u64,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// All statistics, by layer.
    pub families: Vec<Family>,
    /// Layers that were asked for and that this host does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
}

/// A layer that the host does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Which.
    pub layer: String,
    /// Why, in a line.
    pub why: String,
    /// What to do about it; empty: nothing.
    pub todo: String,
}

impl StatSnapshot {
    /// Reads every layer, or those that are named.
    pub(crate) fn take(machine: &Shared, layers: &[String]) -> Self {
        let wanted = |layer: &str| layers.is_empty() || layers.iter().any(|name| name == layer);
        let families = collect::all(machine, &wanted);
        Self {
            schema: SCHEMA.to_owned(),
            tsc: now_tsc(),
            tsc_khz: machine.tsc_khz,
            families,
            absent: Vec::new(),
        }
    }

    /// A statistic by layer and name.
    pub fn family(&self, layer: &str, name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.layer == layer && family.name == name)
    }

    /// The sum of a statistic's samples; `None`: there is no such statistic.
    pub fn value(&self, layer: &str, name: &str) -> Option<u64> {
        self.family(layer, name).map(|family| family.sum(&[]))
    }

    /// The sum of those of its samples that carry these labels.
    pub fn labelled(&self, layer: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        self.family(layer, name).map(|family| family.sum(labels))
    }

    /// A histogram by layer, name and labels.
    pub fn histogram(&self, layer: &str, name: &str, labels: &[(&str, &str)]) -> Option<&Sample> {
        let has = |sample: &&Sample| {
            labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|own| own == value))
        };
        self.family(layer, name)?.samples.iter().find(has)
    }

    /// How long it is, if it is a difference.
    pub fn seconds(&self) -> f64 {
        self.tsc as f64 / (self.tsc_khz.max(1) as f64 * 1000.0)
    }

    /// What happened since an earlier snapshot of the same machine. Gauges stay as they are.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        difference.tsc = self.tsc.saturating_sub(earlier.tsc);
        for family in &mut difference.families {
            if let Some(before) = earlier.family(&family.layer, &family.name) {
                family.since(before);
            }
        }
        difference
    }
}
