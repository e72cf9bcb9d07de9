//! What was taken of a vCPU's time up to now: the words that the guest reads say it up to its last entry; what has gone on since
//! then only the host and the VMM know.

use super::ledger::{Ledger, now_tsc};
use crate::perf_events::clock::{nanoseconds, ticks};
use abi::vcpu::VcpuTime;
use std::sync::atomic::Ordering::Acquire;

/// Of one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its thread could have run and had no CPU.
    pub(crate) steal_ns: u64,
    /// The VMM had it.
    pub(crate) outside_cycles: u64,
}

impl Taken {
    /// Up to now.
    pub(crate) fn now(time: &VcpuTime, ledger: &Ledger) -> Self {
        const ATTEMPTS: usize = 8;
        let mut read = Self::read(time, ledger);
        for _ in 1..ATTEMPTS {
            let (taken, words) = Self::read(time, ledger);
            let unchanged = words == read.1;
            read = (taken, words);
            if unchanged {
                break;
            }
        }
        read.0
    }

    /// The same, and what must not have changed meanwhile: the thread may come or go between two words.
    fn read(time: &VcpuTime, ledger: &Ledger) -> (Self, [u64; 5]) {
        let (out, tsc_khz) = (ledger.preempted_since(), ledger.tsc_khz());
        let (exit, entry) = (time.exit_tsc.load(Acquire), time.entry_tsc.load(Acquire));
        let (steal_ns, outside) = (time.steal_ns.load(Acquire), time.outside_cycles.load(Acquire));
        let now = now_tsc();
        let preempted = out.map_or(0, |since| now.saturating_sub(since));
        let in_vmm = if exit > entry { now.saturating_sub(exit).saturating_sub(preempted) } else { 0 };
        let taken = Self {
            steal_ns: steal_ns.saturating_add(nanoseconds(preempted, tsc_khz)),
            outside_cycles: outside.saturating_add(in_vmm),
        };
        (taken, [out.unwrap_or(0), exit, entry, steal_ns, outside])
    }

    /// In cycles since an earlier moment: without a CPU, and in the VMM.
    pub(crate) fn since(self, steal_ns: u64, outside_cycles: u64, tsc_khz: u64) -> (u64, u64) {
        (
            ticks(self.steal_ns.saturating_sub(steal_ns), tsc_khz),
            self.outside_cycles.saturating_sub(outside_cycles),
        )
    }
}
