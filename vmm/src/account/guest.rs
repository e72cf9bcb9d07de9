//! What the guest's environments tell of their cycles, and the kernel of its own. All of it lies in memory that they write: numbers
//! to be shown, and relied on by nobody.

use super::ledger::now_tsc;
use super::snapshot::SiteSum;
use super::taken::Taken;
use crate::machine::boot::pages::SharedPages;
use crate::perf_events::clock::ticks;
use abi::trace::{Accumulator, KIND_COUNTER, KIND_SPAN, SITES, mode};
use abi::vcpu::VcpuTime;
use exovm_image::program::Site;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// A span that is none: what another thread of the host had the CPU for.
pub const OFF_CPU: &str = "off CPU";
/// A span that is none: what the VMM had the vCPU for, besides turns.
pub const IN_VMM: &str = "in the VMM";
/// The span of what no other covers.
pub const NO_SPAN: &str = "no span";
/// Spans in which the environment has no vCPU, or the vCPU is not in the guest: others tell of that time.
pub const AWAY: [&str; 5] = ["turn", ASLEEP, WAITING, OFF_CPU, IN_VMM];
/// It gave its vCPU away.
pub const ASLEEP: &str = "asleep";
/// It could go on, and others had the vCPU.
pub const WAITING: &str = "waiting for a vCPU";
/// It halts, alone on its vCPU.
pub const HALT: &str = "halt";
/// Guards of [`ASLEEP`] while it lasts.
const GUARDS: [&str; 3] = [ASLEEP, "message", "turn"];

/// Who had a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentSum {
    /// Its number.
    pub number: u32,
    /// Cycles for which it had each vCPU, from getting it to leaving it.
    pub ran_cycles: Vec<u64>,
}

/// What the kernel did on a vCPU while no environment had it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BetweenSum {
    /// From one leaving it to the next getting it, without what the VMM had of it and without what its thread had no CPU for. Halts
    /// are in it.
    pub cycles: u64,
}

/// The kind's name in JSON.
fn kind_name(kind: u32) -> &'static str {
    match kind {
        KIND_SPAN => "span",
        KIND_COUNTER => "counter",
        _ => "event",
    }
}

/// The accumulators and the vCPUs of every environment that was ever there.
pub(super) fn read(
    sites: &[Site],
    pages: &[SharedPages],
    vcpus: &[Taken],
    tsc_khz: u64,
) -> (Vec<SiteSum>, Vec<EnvironmentSum>) {
    let (mut all, mut environments) = (Vec::new(), Vec::new());
    for (number, own) in (0u32..).zip(pages) {
        let open = Open::of(sites, own, vcpus, tsc_khz);
        let sums = read_sites(sites, own, &open);
        if pages.len() > 1 && sums.iter().all(|sum| sum.count == 0 && sum.total == 0) {
            continue;
        }
        let environment = (pages.len() > 1).then_some(number);
        all.extend(sums.into_iter().map(|sum| SiteSum { environment, ..sum }));
        environments.push(EnvironmentSum { number, ran_cycles: open.ran(own) });
    }
    (all, environments)
}

/// What the kernel did between environments, by vCPU.
pub(super) fn read_between(times: &[VcpuTime], vcpus: &[Taken], tsc_khz: u64) -> Vec<BetweenSum> {
    let between = |(time, now_taken): (&VcpuTime, &Taken)| {
        let mut cycles = time.between_cycles.load(Relaxed);
        let outside = time.between_outside_cycles.load(Relaxed);
        let mut taken = ticks(time.between_steal_ns.load(Relaxed), tsc_khz).saturating_add(outside);
        let (left, entered) = (time.left_tsc.load(Relaxed), time.entered_tsc.load(Relaxed));
        if left > entered {
            // It goes on.
            cycles = cycles.wrapping_add(now_tsc().saturating_sub(left));
            let (then_ns, then_outside) =
                (time.left_steal_ns.load(Relaxed), time.left_outside_cycles.load(Relaxed));
            let (off_cpu, outside) = now_taken.since(then_ns, then_outside, tsc_khz);
            taken = taken.saturating_add(off_cpu).saturating_add(outside);
        }
        BetweenSum { cycles: cycles.saturating_sub(taken) }
    };
    times.iter().zip(vcpus).map(between).collect()
}

/// What an environment has not accounted yet, because it is in the middle of it.
struct Open {
    /// To be added to the running span ...
    running: u64,
    /// ... to what it waited for ...
    waiting: u64,
    /// ... and to what others took.
    off_cpu: u64,
    outside: u64,
    /// Of its vCPU.
    ran: u64,
    vcpu: usize,
}

impl Open {
    fn of(sites: &[Site], pages: &SharedPages, vcpus: &[Taken], tsc_khz: u64) -> Self {
        let none = Self { running: 0, waiting: 0, off_cpu: 0, outside: 0, ran: 0, vcpu: 0 };
        let (area, wanted) = (&pages.account, &pages.host.trace);
        let mode = wanted.mode.load(Acquire);
        if mode & mode::ACCOUNT == 0 || area.last_tsc.load(Relaxed) == 0 {
            return none;
        }
        let taken = &area.taken;
        let is_of_this = area.epoch.load(Relaxed) == mode::epoch(mode);
        let since = wanted.since_tsc.load(Relaxed);
        let (last, got) = match is_of_this {
            true => (area.last_tsc.load(Relaxed), taken.got_tsc.load(Relaxed)),
            false => (since, since),
        };
        let left = pages.kernel.left_tsc.load(Relaxed);
        let now = now_tsc();
        let elapsed = now.saturating_sub(last);
        let running = (area.current.load(Relaxed) as usize).checked_sub(1).and_then(|index| sites.get(index));
        let gives_away = running.is_some_and(|site| GUARDS.contains(&site.name.as_str()));
        let vcpu = pages.kernel.vcpu.load(Relaxed) as usize % pages.vcpus.len().max(1);
        let (Some(time), Some(&now_taken)) = (pages.vcpus.get(vcpu), vcpus.get(vcpu)) else { return none };
        let (seen_steal_ns, seen_outside) = match is_of_this {
            true => (&taken.seen_steal_ns, &taken.seen_outside_cycles),
            false => (&time.since_steal_ns, &time.since_outside_cycles),
        };
        // What the running span will pay at the next transition.
        let owed = match is_of_this {
            true => {
                let others = taken.waited_cycles.load(Relaxed);
                let others = others.saturating_sub(taken.seen_waited_cycles.load(Relaxed));
                taken.debt_cycles.load(Relaxed).saturating_add(others)
            }
            false => 0,
        };
        // It has no vCPU if it left it, or does not say so and is about to.
        let (until, waiting, taken_until) = if left > got {
            let away = now.saturating_sub(left.max(last)).min(elapsed);
            let steal_ns = pages.kernel.left_steal_ns.load(Relaxed);
            let outside_cycles = pages.kernel.left_outside_cycles.load(Relaxed);
            (left, if gives_away { 0 } else { away }, Taken { steal_ns, outside_cycles })
        } else if gives_away {
            (last, 0, Taken::default())
        } else {
            (now, 0, now_taken)
        };
        let (off_cpu, outside) =
            taken_until.since(seen_steal_ns.load(Relaxed), seen_outside.load(Relaxed), tsc_khz);
        // A wait that the account began in is told with what was before.
        let off_cpu = off_cpu.min(elapsed);
        let outside = outside.min(elapsed - off_cpu);
        let running =
            [waiting, off_cpu, outside, owed].iter().fold(elapsed, |left, &part| left.saturating_sub(part));
        Self { running, waiting, off_cpu, outside, ran: until.saturating_sub(got), vcpu }
    }

    fn ran(&self, pages: &SharedPages) -> Vec<u64> {
        let ran = pages.account.taken.ran.iter().enumerate();
        ran.map(|(vcpu, cycles)| {
            cycles.load(Relaxed).wrapping_add(if vcpu == self.vcpu { self.ran } else { 0 })
        })
        .collect()
    }
}

/// The guest's accumulators by name; sites of one name (in several places of the code) are added up.
fn read_sites(sites: &[Site], pages: &SharedPages, open: &Open) -> Vec<SiteSum> {
    let mut sums: Vec<SiteSum> = Vec::new();
    let mut add = |name: &str, kind: u32, count: u64, total: u64| match sums
        .iter_mut()
        .find(|sum| sum.name == name && sum.kind == kind_name(kind))
    {
        Some(sum) => {
            sum.count = sum.count.wrapping_add(count);
            sum.total = sum.total.wrapping_add(total);
        }
        None => {
            let (name, kind) = (name.to_owned(), kind_name(kind).to_owned());
            sums.push(SiteSum { name, kind, count, total, environment: None });
        }
    };
    let area = &pages.account;
    let running = area.current.load(Relaxed) as usize;
    for id in 0..=sites.len().min(SITES - 1) {
        let (name, kind) = match id.checked_sub(1).map(|index| &sites[index]) {
            None => (NO_SPAN, KIND_SPAN),
            Some(site) => (site.name.as_str(), site.kind),
        };
        let accumulator = &area.sites[id];
        let open = if id == running { open.running } else { 0 };
        let (count, total) = read_accumulator(accumulator);
        add(name, kind, count, total.wrapping_add(open));
    }
    if open.waiting > 0 {
        add(WAITING, KIND_SPAN, 0, open.waiting);
    }
    for (name, accumulator, open) in
        [(OFF_CPU, &area.taken.off_cpu, open.off_cpu), (IN_VMM, &area.taken.outside, open.outside)]
    {
        let (count, total) = read_accumulator(accumulator);
        if count > 0 || open > 0 {
            add(name, KIND_SPAN, count, total.wrapping_add(open));
        }
    }
    sums
}

fn read_accumulator(accumulator: &Accumulator) -> (u64, u64) {
    (accumulator.count.load(Relaxed), accumulator.total.load(Relaxed))
}
