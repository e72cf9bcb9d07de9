//! The state of all accounts at one moment, and the difference of two such moments.

use super::guest::{self, BetweenSum, EnvironmentSum};
use super::ledger::{Bucket, Ledger, at_once, now_tsc};
use crate::machine::boot::pages::SharedPages;
use crate::placement::Placement;
use crate::stat::metrics::Metric;
use crate::trace::Looking;
use exovm_image::program::Site;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Version of the JSON form.
pub const SCHEMA: &str = "exovm-account/1";

/// One bucket of a VMM thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSum {
    /// Name.
    pub name: String,
    /// For which device, where there can be several like it: its number in the device table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u8>,
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
    /// Whether its context switches are known: then what it had no CPU for is in "off CPU" and "halted", and else in whatever ran.
    #[serde(default)]
    pub switches: bool,
    /// Switches that nobody read in time.
    #[serde(default)]
    pub lost_switches: u64,
    /// For how many cycles it could have run and had no CPU, by the host's own count (schedstat).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for_cpu_cycles: Option<u64>,
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
    /// Which environment had which vCPU for how long. Untrusted.
    #[serde(default)]
    pub environments: Vec<EnvironmentSum>,
    /// What the kernel did on each vCPU while no environment had it.
    #[serde(default)]
    pub between: Vec<BetweenSum>,
    /// Of a difference: cycles in the guest of which nothing is known, and those of ring 3 that no span covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattributed: Option<Unattributed>,
    /// The NIC's counters, and those of the placement of device work.
    pub nic: Vec<Counter>,
    /// The counters of each disk.
    #[serde(default)]
    pub disks: Vec<Vec<Counter>>,
    /// The host channel's counters.
    #[serde(default)]
    pub channel: Vec<Counter>,
}

/// Cycles that the account does not explain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unattributed {
    /// In KVM_RUN and on a CPU, and in nobody's account. Less than nothing if two claim the same.
    pub in_guest_cycles: i64,
    /// In ring 3, in no span.
    pub in_no_span_cycles: u64,
    /// In the VMM, in no named bucket.
    pub in_vmm_cycles: u64,
}

impl AccountSnapshot {
    /// Reads everything, in one go.
    pub(crate) fn take(
        ledgers: &[(String, Arc<Ledger>)],
        sites: &[Site],
        pages: &[SharedPages],
        (started_tsc, tsc_khz): (u64, u64),
        placement: &Placement,
        looking: &Looking,
    ) -> Self {
        let (threads, tsc, accounted_tsc, (sites, environments), between) = at_once(tsc_khz, || {
            let threads = read_ledgers(ledgers);
            let taken = looking.taken();
            let times = pages.first().map_or(&[][..], |pages| &pages.vcpus);
            let between = guest::read_between(times, &taken, tsc_khz);
            let (tsc, accounted_tsc) = (now_tsc(), looking.accounted_tsc());
            (threads, tsc, accounted_tsc, guest::read(sites, pages, &taken, tsc_khz), between)
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
            environments,
            between,
            unattributed: None,
            nic,
            disks: placement.disks().map(|disk| counters(named(disk.metrics().entries()))).collect(),
            channel: counters(named(placement.channel().metrics().entries())),
        }
    }

    /// What happened since the machine was made.
    pub fn since_start(&self) -> Self {
        let mut account = Self { tsc: self.tsc.saturating_sub(self.started_tsc), ..self.clone() };
        account.unattributed = account.find_unattributed();
        account
    }

    /// What happened since an earlier snapshot of the same machine.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        difference.tsc = self.tsc.saturating_sub(earlier.tsc);
        difference.accounted_tsc = self.accounted_tsc.saturating_sub(earlier.accounted_tsc);
        for (thread, before) in difference.threads.iter_mut().zip(&earlier.threads) {
            thread.lost_switches -= before.lost_switches.min(thread.lost_switches);
            if let (Some(cycles), Some(before)) =
                (&mut thread.waited_for_cpu_cycles, before.waited_for_cpu_cycles)
            {
                *cycles = cycles.saturating_sub(before);
            }
            for bucket in &mut thread.buckets {
                let same =
                    |before: &&BucketSum| (&before.name, before.device) == (&bucket.name, bucket.device);
                let Some(before) = before.buckets.iter().find(same) else { continue };
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
                // Of what is in the middle of something the end is an estimate, which the next one may correct.
                site.total = site.total.saturating_sub(before.total);
            }
        }
        for environment in &mut difference.environments {
            let before = earlier.environments.iter().find(|before| before.number == environment.number);
            let before = before.map_or(&[][..], |before| &before.ran_cycles);
            for (cycles, before) in environment.ran_cycles.iter_mut().zip(before) {
                *cycles = cycles.saturating_sub(*before);
            }
        }
        for (between, before) in difference.between.iter_mut().zip(&earlier.between) {
            between.cycles = between.cycles.saturating_sub(before.cycles);
        }
        let of_disks = difference.disks.iter_mut().zip(&earlier.disks);
        let of_others = [(&mut difference.nic, &earlier.nic), (&mut difference.channel, &earlier.channel)];
        let of_all = of_disks.chain(of_others);
        for (counter, before) in of_all.flat_map(|(counters, before)| counters.iter_mut().zip(before)) {
            counter.value = counter.value.saturating_sub(before.value);
        }
        difference.unattributed = difference.find_unattributed();
        difference
    }

    /// Sum of a bucket over the vCPUs' threads.
    pub(super) fn of_vcpus(&self, bucket: &str) -> BucketSum {
        let vcpus = self.threads.iter().filter(|thread| thread.is_vcpu());
        let buckets = vcpus.flat_map(|thread| &thread.buckets).filter(|sum| sum.name == bucket);
        buckets.fold(BucketSum::default(), |sum, bucket| BucketSum {
            cycles: sum.cycles.saturating_add(bucket.cycles),
            entries: sum.entries.saturating_add(bucket.entries),
            ..sum
        })
    }

    /// Cycles of the kernel and of KVM that are spent in halting and in choosing who runs, on a CPU.
    pub(super) fn kernel_cycles(&self) -> i128 {
        let halts = self.sites.iter().filter(|site| site.kind == "span" && site.name == guest::HALT);
        let halts: i128 = halts.map(|site| i128::from(site.total)).sum();
        let between: i128 = self.between.iter().map(|between| i128::from(between.cycles)).sum();
        // Of both, what was not on a CPU is what the host saw blocked.
        halts + between - i128::from(self.of_vcpus(Bucket::Halted.name()).cycles)
    }

    /// Spans whose cycles are spent in the guest and on a CPU.
    pub(super) fn spans_in_guest(&self) -> impl Iterator<Item = &SiteSum> {
        let is_away = |name: &str| name == guest::HALT || guest::AWAY.contains(&name);
        self.sites.iter().filter(move |site| site.kind == "span" && !is_away(&site.name))
    }

    /// `None`: the guest's spans were not accounted all the time.
    fn find_unattributed(&self) -> Option<Unattributed> {
        if self.accounted_tsc < self.tsc / 1000 * 999 || self.tsc == 0 {
            return None;
        }
        // The guest may write what it likes: a sum of its numbers may be larger than any of ours.
        let spans: i128 = self.spans_in_guest().map(|site| i128::from(site.total)).sum();
        let in_guest = i128::from(self.of_vcpus(Bucket::Guest.name()).cycles) - spans - self.kernel_cycles();
        let no_span = self.spans_in_guest().filter(|site| site.name == guest::NO_SPAN);
        let other = |thread: &ThreadSum| -> u64 {
            let others = thread.buckets.iter().filter(|sum| sum.name == Bucket::Other.name());
            others.map(|sum| sum.cycles).sum()
        };
        Some(Unattributed {
            in_guest_cycles: in_guest.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            in_no_span_cycles: no_span.fold(0, |sum: u64, site| sum.saturating_add(site.total)),
            in_vmm_cycles: self.threads.iter().filter(|thread| thread.is_vcpu()).map(other).sum(),
        })
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

    /// The same for one of several devices, by its number in the device table.
    pub fn bucket_of(&self, thread: &str, bucket: &str, device: u8) -> Option<&BucketSum> {
        let thread = self.threads.iter().find(|sum| sum.name == thread)?;
        thread.buckets.iter().find(|sum| sum.name == bucket && sum.device == Some(device))
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

/// The VMM's threads.
fn read_ledgers(ledgers: &[(String, Arc<Ledger>)]) -> Vec<ThreadSum> {
    ledgers.iter().map(|(name, ledger)| read_ledger(name, ledger)).collect()
}

fn read_ledger(name: &str, ledger: &Ledger) -> ThreadSum {
    let buckets = Bucket::all().zip(ledger.read());
    // Of devices that there are not, nothing.
    let buckets = buckets.filter(|(bucket, sum)| bucket.device().is_none() || sum.entries > 0);
    let buckets = buckets.map(|(bucket, sum)| BucketSum {
        name: bucket.name().to_owned(),
        device: bucket.device(),
        cycles: sum.cycles,
        entries: sum.entries,
    });
    let buckets = buckets.collect();
    let insight = ledger.insight();
    ThreadSum {
        name: name.to_owned(),
        buckets,
        switches: insight.switches,
        lost_switches: insight.lost,
        waited_for_cpu_cycles: insight.delay_cycles,
    }
}
