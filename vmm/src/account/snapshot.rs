//! The state of all accounts at one moment, and the difference of two such moments.

use super::ledger::{Bucket, Ledger, now_tsc};
use crate::machine::boot::pages::SharedPages;
use crate::placement::Placement;
use crate::stat::metrics::Metric;
use abi::trace::{KIND_COUNTER, KIND_SPAN, SITES, mode};
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
    /// "vcpu", "vcpu1" and so on, "io", or "disk D.N": thread N that waits for the disk with number D in the device table.
    pub name: String,
    /// All buckets; they add up to the thread's life.
    pub buckets: Vec<BucketSum>,
}

impl ThreadSum {
    /// Whether it is a vCPU's. These come first.
    pub fn is_vcpu(&self) -> bool {
        self.name.starts_with("vcpu")
    }
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
    /// Of which environment, in a machine that has places for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<u32>,
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
    /// For how long the guest's spans were accounted, of [`Self::tsc`].
    #[serde(default)]
    pub accounted_tsc: u64,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// Where device work is done: "turn", "thread", "poll", "auto".
    pub io: String,
    /// The VMM's threads.
    pub threads: Vec<ThreadSum>,
    /// The guest's spans, events and counters. Untrusted.
    pub sites: Vec<SiteSum>,
    /// The NIC's counters, and those of the placement of device work.
    pub nic: Vec<Counter>,
    /// The counters of each disk.
    #[serde(default)]
    pub disks: Vec<Vec<Counter>>,
    /// The host channel's counters.
    #[serde(default)]
    pub channel: Vec<Counter>,
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
        ledgers: &[(String, Arc<Ledger>)],
        sites: &[Site],
        pages: &[SharedPages],
        (started_tsc, tsc_khz): (u64, u64),
        placement: &Placement,
        accounted_tsc: u64,
    ) -> Self {
        let (threads, tsc, sites) = at_once(tsc_khz, || {
            let threads = read_ledgers(ledgers);
            (threads, now_tsc(), read_all_sites(sites, pages))
        });
        let mut nic = Vec::new();
        if let Some(device) = placement.nic() {
            nic = counters(named(device.metrics().entries()));
            nic.extend(counters(named(device.backend_counters())));
        }
        nic.extend(counters([("turns", placement.turns()), ("changes of place", placement.changes())]));
        Self {
            schema: SCHEMA.to_owned(),
            tsc,
            started_tsc,
            accounted_tsc,
            tsc_khz,
            io: format!("{:?}", placement.mode()).to_lowercase(),
            threads,
            sites,
            nic,
            disks: placement.disks().map(|disk| counters(named(disk.metrics().entries()))).collect(),
            channel: counters(named(placement.channel().metrics().entries())),
        }
    }

    /// What happened since the machine was made.
    pub fn since_start(&self) -> Self {
        Self { tsc: self.tsc.saturating_sub(self.started_tsc), ..self.clone() }
    }

    /// What happened since an earlier snapshot of the same machine.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        difference.tsc = self.tsc.saturating_sub(earlier.tsc);
        difference.accounted_tsc = self.accounted_tsc.saturating_sub(earlier.accounted_tsc);
        for (thread, before) in difference.threads.iter_mut().zip(&earlier.threads) {
            for (bucket, before) in thread.buckets.iter_mut().zip(&before.buckets) {
                bucket.cycles = bucket.cycles.saturating_sub(before.cycles);
                bucket.entries = bucket.entries.saturating_sub(before.entries);
            }
        }
        for site in &mut difference.sites {
            let same = |before: &&SiteSum| {
                (&before.name, &before.kind, before.environment) == (&site.name, &site.kind, site.environment)
            };
            // Less than before: another environment has begun in this place.
            if let Some(before) = earlier.sites.iter().find(same).filter(|before| before.count <= site.count)
            {
                site.count -= before.count;
                site.total = site.total.wrapping_sub(before.total);
            }
        }
        let of_disks = difference.disks.iter_mut().zip(&earlier.disks);
        let of_others = [(&mut difference.nic, &earlier.nic), (&mut difference.channel, &earlier.channel)];
        let of_all = of_disks.chain(of_others);
        for (counter, before) in of_all.flat_map(|(counters, before)| counters.iter_mut().zip(before)) {
            counter.value = counter.value.saturating_sub(before.value);
        }
        difference
    }

    /// A counter or event of the guest, by name; that of the first environment which has it.
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

    /// A counter of a disk, by the disk's place among the disks and the counter's name.
    pub fn disk_counter(&self, disk: usize, name: &str) -> Option<u64> {
        self.disks.get(disk)?.iter().find(|counter| counter.name == name).map(|counter| counter.value)
    }
}

fn counters<N: Into<String>>(entries: impl IntoIterator<Item = (N, u64)>) -> Vec<Counter> {
    entries.into_iter().map(|(name, value)| Counter { name: name.into(), value }).collect()
}

fn named(metrics: Vec<Metric>) -> impl Iterator<Item = (String, u64)> {
    metrics.into_iter().map(|metric| (metric.words(), metric.value))
}

/// What `read` reads, in one go if the host lets it: numbers that belong together are not read with a pause between them.
fn at_once<T>(tsc_khz: u64, mut read: impl FnMut() -> T) -> T {
    const ATTEMPTS: usize = 8;
    const LONGEST_US: u64 = 100;
    for _ in 1..ATTEMPTS {
        let start = now_tsc();
        let numbers = read();
        if now_tsc() - start < LONGEST_US * tsc_khz / 1000 {
            return numbers;
        }
    }
    read()
}

/// The VMM's threads.
fn read_ledgers(ledgers: &[(String, Arc<Ledger>)]) -> Vec<ThreadSum> {
    let sums = |ledger: &Ledger| {
        let buckets = Bucket::ALL.iter().zip(ledger.read());
        buckets
            .map(|(bucket, sum)| BucketSum {
                name: bucket.name().to_owned(),
                cycles: sum.cycles,
                entries: sum.entries,
            })
            .collect()
    };
    ledgers.iter().map(|(name, ledger)| ThreadSum { name: name.clone(), buckets: sums(ledger) }).collect()
}

/// The accumulators of every environment that was ever there.
fn read_all_sites(sites: &[Site], pages: &[SharedPages]) -> Vec<SiteSum> {
    if let [only] = pages {
        return read_sites(sites, only);
    }
    let mut all = Vec::new();
    for (environment, pages) in (0u32..).zip(pages) {
        let sums = read_sites(sites, pages);
        if sums.iter().any(|sum| sum.count > 0 || sum.total > 0) {
            all.extend(sums.into_iter().map(|sum| SiteSum { environment: Some(environment), ..sum }));
        }
    }
    all
}

/// The guest's accumulators by name; sites of one name (in several places of the code) are added up. What the running
/// span has taken since its last transition is added to it.
fn read_sites(sites: &[Site], pages: &SharedPages) -> Vec<SiteSum> {
    let mut sums: Vec<SiteSum> = Vec::new();
    let area = &pages.account;
    let running = area.current.load(Ordering::Relaxed) as usize;
    let since = unfinished(pages);
    for id in 0..=sites.len().min(SITES - 1) {
        let (name, kind) = match id.checked_sub(1).map(|index| &sites[index]) {
            None => ("no span", KIND_SPAN),
            Some(site) => (site.name.as_str(), site.kind),
        };
        let accumulator = &area.sites[id];
        let count = accumulator.count.load(Ordering::Relaxed);
        let mut total = accumulator.total.load(Ordering::Relaxed);
        if id == running {
            total = total.wrapping_add(since);
        }
        match sums.iter_mut().find(|sum| sum.name == name && sum.kind == kind_name(kind)) {
            Some(sum) => {
                sum.count = sum.count.wrapping_add(count);
                sum.total = sum.total.wrapping_add(total);
            }
            None => {
                let (name, kind) = (name.to_owned(), kind_name(kind).to_owned());
                sums.push(SiteSum { name, kind, count, total, environment: None });
            }
        }
    }
    sums
}

/// How long the running span has run since what was added up last. 0: no account goes, or the environment has not begun.
fn unfinished(pages: &SharedPages) -> u64 {
    let (area, wanted) = (&pages.account, &pages.host.trace);
    let mode = wanted.mode.load(Ordering::Acquire);
    let last_tsc = area.last_tsc.load(Ordering::Relaxed);
    if mode & mode::ACCOUNT == 0 || last_tsc == 0 {
        return 0;
    }
    let is_of_this = area.epoch.load(Ordering::Relaxed) == mode::epoch(mode);
    now_tsc().saturating_sub(if is_of_this { last_tsc } else { wanted.since_tsc.load(Ordering::Relaxed) })
}
