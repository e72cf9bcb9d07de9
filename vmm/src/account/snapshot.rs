//! The state of all accounts at one moment, and the difference of two such moments.

use super::ledger::{Bucket, Ledger, now_tsc};
use crate::machine::NicAccount;
use abi::trace::{AccountArea, KIND_COUNTER, KIND_SPAN, SITES};
use exovm_image::program::Site;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Version of the JSON form.
pub const SCHEMA: &str = "exovm-account/1";

/// One bucket of a VMM thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSum {
    /// Name.
    pub name: String,
    /// Cycles spent in it.
    pub cycles: u64,
    /// How often it was entered.
    pub entries: u64,
}

/// One VMM thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSum {
    /// "vcpu" or "io".
    pub name: String,
    /// All buckets; they add up to the thread's life.
    pub buckets: Vec<BucketSum>,
}

/// One site of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSum {
    /// Name; "no span" for what none covers.
    pub name: String,
    /// "span", "event" or "counter".
    pub kind: String,
    /// Entries, occurrences, additions.
    pub count: u64,
    /// Exclusive cycles of a span, sum of a counter.
    pub total: u64,
}

/// A number with its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Name.
    pub name: String,
    /// Value.
    pub value: u64,
}

/// All accounts of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSnapshot {
    /// [`SCHEMA`].
    pub schema: String,
    /// When, or for a difference how long, on the TSC.
    pub tsc: u64,
    /// When the machine was made, on the TSC.
    pub started_tsc: u64,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// Where device work is done: "turn", "thread", "poll", "auto"; empty without a NIC.
    pub io: String,
    /// The VMM's threads.
    pub threads: Vec<ThreadSum>,
    /// The guest's spans, events and counters. Untrusted.
    pub sites: Vec<SiteSum>,
    /// The NIC's counters.
    pub nic: Vec<Counter>,
}

/// The kind's name in JSON.
fn kind_name(kind: u32) -> &'static str {
    match kind {
        KIND_SPAN => "span",
        KIND_COUNTER => "counter",
        _ => "event",
    }
}

impl AccountSnapshot {
    /// Reads everything, in one go.
    pub(crate) fn take(
        ledgers: &[(&'static str, Arc<Ledger>)],
        sites: &[Site],
        area: &AccountArea,
        (started_tsc, tsc_khz): (u64, u64),
        nic: Option<NicAccount>,
    ) -> Self {
        let threads = ledgers
            .iter()
            .map(|(name, ledger)| {
                let buckets = Bucket::ALL.iter().zip(ledger.read());
                let buckets = buckets
                    .map(|(bucket, sum)| BucketSum {
                        name: bucket.name().to_owned(),
                        cycles: sum.cycles,
                        entries: sum.entries,
                    })
                    .collect();
                ThreadSum { name: (*name).to_owned(), buckets }
            })
            .collect();
        let (io, counters) = match nic {
            None => (String::new(), Vec::new()),
            Some((metrics, turns, changes, mode)) => {
                let mut counters: Vec<Counter> = metrics
                    .entries()
                    .into_iter()
                    .map(|(name, value)| Counter { name: name.to_owned(), value })
                    .collect();
                counters.push(Counter { name: "turns".to_owned(), value: turns });
                counters.push(Counter { name: "changes of place".to_owned(), value: changes });
                (format!("{mode:?}").to_lowercase(), counters)
            }
        };
        Self {
            schema: SCHEMA.to_owned(),
            tsc: now_tsc(),
            started_tsc,
            tsc_khz,
            io,
            threads,
            sites: read_sites(sites, area),
            nic: counters,
        }
    }

    /// Adds counters of the NIC's backend.
    pub(crate) fn add_nic_counters(&mut self, counters: impl IntoIterator<Item = (&'static str, u64)>) {
        let counters = counters.into_iter().map(|(name, value)| Counter { name: name.to_owned(), value });
        self.nic.extend(counters);
    }

    /// What happened since the machine was made.
    pub fn since_start(&self) -> Self {
        Self { tsc: self.tsc.saturating_sub(self.started_tsc), ..self.clone() }
    }

    /// What happened since an earlier snapshot of the same machine.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        difference.tsc = self.tsc.saturating_sub(earlier.tsc);
        for (thread, before) in difference.threads.iter_mut().zip(&earlier.threads) {
            for (bucket, before) in thread.buckets.iter_mut().zip(&before.buckets) {
                bucket.cycles = bucket.cycles.saturating_sub(before.cycles);
                bucket.entries = bucket.entries.saturating_sub(before.entries);
            }
        }
        for (site, before) in difference.sites.iter_mut().zip(&earlier.sites) {
            site.count = site.count.wrapping_sub(before.count);
            site.total = site.total.wrapping_sub(before.total);
        }
        for (counter, before) in difference.nic.iter_mut().zip(&earlier.nic) {
            counter.value = counter.value.saturating_sub(before.value);
        }
        difference
    }

    /// A counter or event of the guest, by name.
    pub fn site(&self, name: &str) -> Option<&SiteSum> {
        self.sites.iter().find(|site| site.name == name)
    }

    /// A bucket of a thread, by name.
    pub fn bucket(&self, thread: &str, bucket: &str) -> Option<&BucketSum> {
        let thread = self.threads.iter().find(|sum| sum.name == thread)?;
        thread.buckets.iter().find(|sum| sum.name == bucket)
    }

    /// A counter of the NIC, by name.
    pub fn nic_counter(&self, name: &str) -> Option<u64> {
        self.nic.iter().find(|counter| counter.name == name).map(|counter| counter.value)
    }
}

/// The guest's accumulators by name; sites of one name (in several places of the code) are added up. What the running
/// span has taken since its last transition is added to it.
fn read_sites(sites: &[Site], area: &AccountArea) -> Vec<SiteSum> {
    let mut sums: Vec<SiteSum> = Vec::new();
    let running = area.current.load(Ordering::Relaxed) as usize;
    let since = now_tsc().saturating_sub(area.last_tsc.load(Ordering::Relaxed));
    for id in 0..=sites.len().min(SITES - 1) {
        let (name, kind) = match id.checked_sub(1).map(|index| &sites[index]) {
            None => ("no span", KIND_SPAN),
            Some(site) => (site.name.as_str(), site.kind),
        };
        let accumulator = &area.sites[id];
        let count = accumulator.count.load(Ordering::Relaxed);
        let mut total = accumulator.total.load(Ordering::Relaxed);
        if id == running && area.last_tsc.load(Ordering::Relaxed) != 0 {
            total = total.wrapping_add(since);
        }
        match sums.iter_mut().find(|sum| sum.name == name && sum.kind == kind_name(kind)) {
            Some(sum) => {
                sum.count = sum.count.wrapping_add(count);
                sum.total = sum.total.wrapping_add(total);
            }
            None => {
                sums.push(SiteSum { name: name.to_owned(), kind: kind_name(kind).to_owned(), count, total });
            }
        }
    }
    sums
}
