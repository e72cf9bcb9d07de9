//! The accounting: which bucket the cycles go to, what a record says. Works on any account area, trace ring and clock and
//! knows no address; the only writer of both areas.
//!
//! An environment runs on one vCPU at a time and has one thread, so each update is a plain load and store. A reader in
//! the VMM may be one update behind. Of the areas' contents the ledger believes nothing that could lead it outside them.

use abi::trace::{
    AccountArea, RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, RECORDS, SITES, Site, TraceRing,
    pack_what,
};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};

/// A site's id: 0 is what no span covers, site `k` of the section has `k + 1`. Always below [`SITES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteId(u32);

impl SiteId {
    /// What no span covers, and sites for which there is no room.
    pub const NONE: Self = Self(0);

    /// The id of the site that lies `offset_bytes` behind the start of the section.
    #[inline(always)]
    pub const fn at(offset_bytes: usize) -> Self {
        let id = offset_bytes / size_of::<Site>() + 1;
        if id < SITES { Self(id as u32) } else { Self::NONE }
    }

    /// As it stands in the areas.
    pub const fn number(self) -> u32 {
        self.0
    }

    #[inline(always)]
    const fn from_area(number: u32) -> Self {
        Self(number % SITES as u32)
    }
}

/// What a ledger asks of the machine.
pub trait Machine {
    /// Time-stamp counter.
    fn tsc(&self) -> u64;
    /// Number of this environment, for records.
    fn environment(&self) -> u16;
}

/// The account area and the trace ring of one environment with their clock.
#[derive(Debug)]
pub struct Ledger<'a, M> {
    account: &'a AccountArea,
    ring: &'a TraceRing,
    machine: M,
}

impl<'a, M: Machine> Ledger<'a, M> {
    /// A ledger over these areas. It keeps no state of its own.
    #[inline(always)]
    pub const fn new(account: &'a AccountArea, ring: &'a TraceRing, machine: M) -> Self {
        Self { account, ring, machine }
    }

    /// The account begins now, under id 0.
    pub fn start(&self) {
        self.account.last_tsc.store(self.machine.tsc(), Relaxed);
        self.account.current.store(SiteId::NONE.0, Relaxed);
    }

    /// Ends the running bucket and begins that of `site`. Gives back the one that ended, for [`Self::leave`].
    #[inline(always)]
    pub fn enter(&self, site: SiteId, subject: u64) -> SiteId {
        let (outer, now) = self.switch_to(site);
        add(&self.account.sites[site.0 as usize].count, 1);
        if self.recording() {
            self.record(now, site, RECORD_ENTER, subject, u64::from(outer.0));
        }
        outer
    }

    /// Ends the running bucket and continues that of `outer`.
    #[inline(always)]
    pub fn leave(&self, outer: SiteId) {
        let (inner, now) = self.switch_to(outer);
        if self.recording() {
            self.record(now, inner, RECORD_LEAVE, 0, u64::from(outer.0));
        }
    }

    /// Counts an event.
    #[inline(always)]
    pub fn event(&self, site: SiteId, subject: u64, argument: u64) {
        add(&self.account.sites[site.0 as usize].count, 1);
        if self.recording() {
            self.record(self.machine.tsc(), site, RECORD_EVENT, subject, argument);
        }
    }

    /// Adds `n` to a counter.
    #[inline(always)]
    pub fn counter(&self, site: SiteId, n: u64) {
        let accumulator = &self.account.sites[site.0 as usize];
        add(&accumulator.count, 1);
        // The total of id 0 is cycles; a counter for which there is no room must not be mixed into it.
        if site != SiteId::NONE {
            add(&accumulator.total, n);
        }
        if self.recording() {
            self.record(self.machine.tsc(), site, RECORD_COUNTER, 0, n);
        }
    }

    /// One time stamp ends a bucket and begins the next. Gives the ended one and the stamp.
    #[inline(always)]
    fn switch_to(&self, site: SiteId) -> (SiteId, u64) {
        let account = self.account;
        let now = self.machine.tsc();
        let ended = SiteId::from_area(account.current.load(Relaxed));
        add(&account.sites[ended.0 as usize].total, now.wrapping_sub(account.last_tsc.load(Relaxed)));
        account.last_tsc.store(now, Relaxed);
        account.current.store(site.0, Relaxed);
        (ended, now)
    }

    #[inline(always)]
    fn recording(&self) -> bool {
        self.ring.enabled.load(Relaxed) == 1
    }

    /// Out of line: what every span pays while nobody records is the load in [`Self::recording`].
    #[cold]
    #[inline(never)]
    fn record(&self, tsc: u64, site: SiteId, kind: u16, subject: u64, argument: u64) {
        let written = self.ring.written.load(Relaxed);
        let record = &self.ring.records[(written % RECORDS as u64) as usize];
        record.tsc.store(tsc, Relaxed);
        record.what.store(pack_what(site.0, kind, self.machine.environment()), Relaxed);
        record.subject.store(subject, Relaxed);
        record.argument.store(argument, Relaxed);
        // Who sees the new number sees the record.
        self.ring.written.store(written.wrapping_add(1), Release);
    }
}

#[inline(always)]
fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
