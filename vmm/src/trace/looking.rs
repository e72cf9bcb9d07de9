//! What the guest's environments keep of what they do, decided by who looks: a page that all of them read says whether cycles
//! are added up and records written. Nobody looks: spans cost a load and a branch.

use crate::account::ledger::now_tsc;
use crate::tables::shared::Shared;
use abi::boot::HostPage;
use abi::trace::mode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The switch of one machine.
#[derive(Debug)]
pub struct Looking {
    host: Shared<HostPage>,
    holders: Mutex<Holders>,
}

/// Who looks.
#[derive(Debug, Default)]
struct Holders {
    /// At the accounts.
    accounts: usize,
    /// Number of the account that goes, or went last.
    epoch: u32,
    /// How long accounts went, without the one that goes.
    accounted_tsc: u64,
}

/// While it is there, the guest's accounts go.
#[derive(Debug)]
pub struct Accounts(Arc<Looking>);

impl Looking {
    /// Nobody looks.
    pub(crate) fn new(host: Shared<HostPage>) -> Arc<Self> {
        Arc::new(Self { host, holders: Mutex::default() })
    }

    /// Has the accounts go for as long as the guard lives.
    pub fn accounts(self: &Arc<Self>) -> Accounts {
        let mut holders = self.holders();
        holders.accounts += 1;
        self.set(&mut holders);
        Accounts(Arc::clone(self))
    }

    /// For how many cycles accounts have gone since the machine was made.
    pub(crate) fn accounted_tsc(&self) -> u64 {
        let holders = self.holders();
        let wanted = &self.host.trace;
        let running = wanted.mode.load(Ordering::Relaxed) & mode::ACCOUNT != 0;
        let since = now_tsc().saturating_sub(wanted.since_tsc.load(Ordering::Relaxed));
        holders.accounted_tsc + if running { since } else { 0 }
    }

    /// Writes what the holders want.
    fn set(&self, holders: &mut Holders) {
        let wanted = &self.host.trace;
        let before = wanted.mode.load(Ordering::Relaxed);
        let mut flags = 0;
        if holders.accounts > 0 {
            flags |= mode::ACCOUNT;
        }
        let (was, is) = (before & mode::ACCOUNT != 0, flags & mode::ACCOUNT != 0);
        let since = wanted.since_tsc.load(Ordering::Relaxed);
        if is && !was {
            holders.epoch = holders.epoch.wrapping_add(1) & 0xFF_FFFF;
            wanted.since_tsc.store(now_tsc(), Ordering::Relaxed);
        } else if was && !is {
            holders.accounted_tsc += now_tsc().saturating_sub(since);
        }
        // Who sees the mode sees since when.
        wanted.mode.store(mode::with_epoch(flags, holders.epoch), Ordering::Release);
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        let mut holders = self.0.holders();
        holders.accounts -= 1;
        self.0.set(&mut holders);
    }
}
