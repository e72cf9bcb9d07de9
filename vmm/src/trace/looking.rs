//! What the guest's environments keep of what they do, decided by who looks: a page that all of them read says whether cycles
//! are added up and records written. Nobody looks: spans cost a load and a branch.

use crate::account::ledger::{Ledger, at_once, now_tsc};
use crate::account::taken::Taken;
use crate::tables::shared::Shared;
use abi::boot::HostPage;
use abi::trace::mode;
use abi::vcpu::VcpuTime;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which records are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// Everything.
    All,
    /// One received frame in so many, and what follows from it.
    OneIn(u32),
}

impl Records {
    /// In how many: everything is one in one.
    pub fn one_in(self) -> u32 {
        match self {
            Self::All => 1,
            Self::OneIn(many) => many.max(1),
        }
    }
}

/// The switch of one machine.
#[derive(Debug)]
pub struct Looking {
    host: Shared<HostPage>,
    vcpus: Shared<[VcpuTime]>,
    ledgers: Vec<Arc<Ledger>>,
    holders: Mutex<Holders>,
}

/// Who looks.
#[derive(Debug, Default)]
struct Holders {
    /// At the accounts.
    accounts: usize,
    /// At records: one in how many each of them wants.
    records: Vec<u32>,
    /// Number of the account that goes, or went last.
    epoch: u32,
    /// Since when it goes, on the TSC; `None`: none does.
    since_tsc: Option<u64>,
    /// How long accounts went, without the one that goes.
    accounted_tsc: u64,
}

/// While it is there, the guest's accounts go.
#[derive(Debug)]
pub struct Accounts(Arc<Looking>);

/// While it is there, records are written.
#[derive(Debug)]
pub(super) struct Recording {
    looking: Arc<Looking>,
    ledgers: Vec<Arc<Ledger>>,
    one_in: u32,
}

impl Looking {
    /// Nobody looks. The ledgers are those of the vCPUs' threads.
    pub(crate) fn new(
        host: Shared<HostPage>,
        vcpus: Shared<[VcpuTime]>,
        ledgers: Vec<Arc<Ledger>>,
    ) -> Arc<Self> {
        Arc::new(Self { host, vcpus, ledgers, holders: Mutex::default() })
    }

    fn tsc_khz(&self) -> u64 {
        self.ledgers.first().map_or(0, |ledger| ledger.tsc_khz())
    }

    /// What was taken of each vCPU's time up to now.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.vcpus.iter().zip(&self.ledgers).map(|(time, ledger)| Taken::now(time, ledger)).collect()
    }

    /// Has the accounts go for as long as the guard lives.
    pub fn accounts(self: &Arc<Self>) -> Accounts {
        let mut holders = self.holders();
        holders.accounts += 1;
        self.set(&mut holders);
        Accounts(Arc::clone(self))
    }

    /// Has records written, also by the threads of these ledgers, for as long as the guard lives. Who wants least gets more than that
    /// while others want more.
    pub(super) fn records(self: &Arc<Self>, records: Records, ledgers: &[Arc<Ledger>]) -> Recording {
        let mut holders = self.holders();
        let one_in = records.one_in();
        holders.records.push(one_in);
        self.set(&mut holders);
        set_recorders(&holders, ledgers);
        Recording { looking: Arc::clone(self), ledgers: ledgers.to_vec(), one_in }
    }

    /// One in how many is recorded now; `None`: nothing.
    pub(super) fn one_in(&self) -> Option<u32> {
        self.holders().one_in()
    }

    /// For how many cycles accounts have gone since the machine was made.
    pub(crate) fn accounted_tsc(&self) -> u64 {
        let holders = self.holders();
        holders.accounted_tsc + holders.since_tsc.map_or(0, |since| now_tsc().saturating_sub(since))
    }

    /// Writes what the holders want.
    fn set(&self, holders: &mut Holders) {
        // Only written: what a kernel makes of the page is not believed.
        let wanted = &self.host.trace;
        let mut flags = 0;
        if holders.accounts > 0 {
            flags |= mode::ACCOUNT;
        }
        if let Some(one_in) = holders.one_in() {
            wanted.sample.store(one_in, Ordering::Relaxed);
            flags |= if one_in > 1 { mode::RECORD | mode::SAMPLE } else { mode::RECORD };
        }
        match (holders.since_tsc, holders.accounts > 0) {
            (None, true) => {
                // The moment, and what was taken of the vCPUs' time then.
                let (now, all_taken) = at_once(self.tsc_khz(), || (now_tsc(), self.taken()));
                holders.epoch = holders.epoch.wrapping_add(1) & 0xFF_FFFF;
                holders.since_tsc = Some(now);
                wanted.since_tsc.store(now, Ordering::Relaxed);
                for (time, taken) in self.vcpus.iter().zip(all_taken) {
                    // What was taken before is not taken out of what is counted from now on.
                    time.since_outside_cycles.store(taken.outside_cycles, Ordering::Relaxed);
                    time.since_steal_ns.store(taken.steal_ns, Ordering::Relaxed);
                }
            }
            (Some(since), false) => {
                holders.since_tsc = None;
                holders.accounted_tsc += now_tsc().saturating_sub(since);
            }
            _ => {}
        }
        // Who sees the mode sees since when.
        wanted.mode.store(mode::with_epoch(flags, holders.epoch), Ordering::Release);
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holders {
    fn one_in(&self) -> Option<u32> {
        self.records.iter().min().copied()
    }
}

fn set_recorders(holders: &Holders, ledgers: &[Arc<Ledger>]) {
    for ledger in ledgers {
        ledger.recorder().set(holders.one_in().unwrap_or(0));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let mut holders = self.looking.holders();
        if let Some(own) = holders.records.iter().position(|&one_in| one_in == self.one_in) {
            holders.records.swap_remove(own);
        }
        self.looking.set(&mut holders);
        set_recorders(&holders, &self.ledgers);
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        let mut holders = self.0.holders();
        holders.accounts -= 1;
        self.0.set(&mut holders);
    }
}
