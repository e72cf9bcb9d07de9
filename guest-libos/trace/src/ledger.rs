//! The accounting: which bucket the cycles go to, what a record says. Works on any account area, trace ring and clock and
//! knows no address; the only writer of both areas.
//!
//! An environment runs on one vCPU at a time and has one thread, so each update is a plain load and store. A reader in
//! the VMM may be one update behind. Of the areas' contents the ledger believes nothing that could lead it outside them.

use abi::environment::KernelPage;
use abi::trace::{
    AccountArea, RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, RECORDS, SITES, Site, TraceRing,
    Wanted, mode, pack_what, subject,
};
use abi::vcpu::VcpuTime;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};

/// Modes in which a transition is more than a change of [`AccountArea::current`].
const WANTED: u32 = mode::ACCOUNT | mode::RECORD;

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
    /// The vCPU that it is on, and its times.
    fn vcpu_number(&self) -> u32;
    /// See [`Self::vcpu_number`].
    fn vcpu(&self) -> &VcpuTime;
    /// What the kernel tells the environment.
    fn kernel(&self) -> &KernelPage;
    /// Nanoseconds in ticks of the TSC.
    fn ticks(&self, ns: u64) -> u64;
}

/// The account area and the trace ring of one environment with their clock.
#[derive(Debug)]
pub struct Ledger<'a, M> {
    pub(crate) account: &'a AccountArea,
    ring: &'a TraceRing,
    pub(crate) wanted: &'a Wanted,
    pub(crate) machine: M,
}

impl<'a, M: Machine> Ledger<'a, M> {
    /// A ledger over these areas. It keeps no state of its own.
    #[inline(always)]
    pub const fn new(account: &'a AccountArea, ring: &'a TraceRing, wanted: &'a Wanted, machine: M) -> Self {
        Self { account, ring, wanted, machine }
    }

    /// The account begins now, under id 0.
    pub fn start(&self) {
        let now = self.machine.tsc();
        self.account.last_tsc.store(now, Relaxed);
        self.begin_now(now);
        self.account.epoch.store(mode::epoch(self.wanted.mode.load(Relaxed)), Relaxed);
        self.account.current.store(SiteId::NONE.0, Relaxed);
        self.account.followed.store(0, Relaxed);
    }

    /// Begins the span `site`. Gives back the one around it, for [`Self::leave`].
    #[inline(always)]
    pub fn enter(&self, site: SiteId, subject: u64) -> SiteId {
        let outer = self.switch_to(site);
        add(&self.account.sites[site.0 as usize].count, 1);
        let mode = self.wanted.mode.load(Relaxed);
        if mode & WANTED != 0 {
            self.entered(mode, outer, site, subject);
        }
        outer
    }

    /// Ends the running span and continues `outer`.
    #[inline(always)]
    pub fn leave(&self, outer: SiteId) {
        let inner = self.switch_to(outer);
        let mode = self.wanted.mode.load(Relaxed);
        if mode & WANTED != 0 {
            self.left(mode, inner, outer);
        }
    }

    /// Counts an event.
    #[inline(always)]
    pub fn event(&self, site: SiteId, subject: u64, argument: u64) {
        add(&self.account.sites[site.0 as usize].count, 1);
        if self.recording(self.wanted.mode.load(Relaxed)) {
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
        if self.recording(self.wanted.mode.load(Relaxed)) {
            self.record(self.machine.tsc(), site, RECORD_COUNTER, 0, n);
        }
    }

    /// From now on the environment works on `subject`: what is recorded is recorded as its. Gives back what it worked on before, for
    /// [`Self::follow_again`].
    #[inline(always)]
    pub fn follow(&self, subject: u64) -> u64 {
        let before = self.account.followed.load(Relaxed);
        let mode = self.wanted.mode.load(Relaxed);
        let followed = if mode & mode::RECORD == 0 { 0 } else { self.chosen(mode, subject) };
        self.account.followed.store(followed, Relaxed);
        before
    }

    /// Back to what [`Self::follow`] or [`Self::followed`] gave: that was chosen already.
    #[inline(always)]
    pub fn follow_again(&self, subject: u64) -> u64 {
        let before = self.account.followed.load(Relaxed);
        self.account.followed.store(subject, Relaxed);
        before
    }

    /// What the environment works on, if it is recorded; otherwise 0.
    #[inline(always)]
    pub fn followed(&self) -> u64 {
        self.account.followed.load(Relaxed)
    }

    /// The subject, if records of it are wanted.
    fn chosen(&self, mode: u32, subject: u64) -> u64 {
        let all = mode & mode::SAMPLE == 0;
        if all || subject::is_sampled(subject, self.wanted.sample.load(Relaxed)) { subject } else { 0 }
    }

    /// Makes `site` the running span. Gives the one that was.
    #[inline(always)]
    fn switch_to(&self, site: SiteId) -> SiteId {
        let before = SiteId::from_area(self.account.current.load(Relaxed));
        self.account.current.store(site.0, Relaxed);
        before
    }

    /// Out of line: what a span pays while nobody looks is the load of the mode.
    #[inline(never)]
    fn entered(&self, mode: u32, outer: SiteId, site: SiteId, subject: u64) {
        let now = self.machine.tsc();
        if mode & mode::ACCOUNT != 0 {
            self.account_to(mode, now, outer);
        }
        if self.recording(mode) {
            self.record(now, site, RECORD_ENTER, subject, u64::from(outer.0));
        }
    }

    #[inline(never)]
    fn left(&self, mode: u32, inner: SiteId, outer: SiteId) {
        let now = self.machine.tsc();
        if mode & mode::ACCOUNT != 0 {
            self.account_to(mode, now, inner);
        }
        if self.recording(mode) {
            self.record(now, inner, RECORD_LEAVE, 0, u64::from(outer.0));
        }
    }

    /// One time stamp ends a bucket and begins the next.
    #[inline(always)]
    pub(crate) fn account_to(&self, mode: u32, now: u64, ended: SiteId) {
        let account = self.account;
        let begins = account.epoch.load(Relaxed) != mode::epoch(mode);
        let since = self.since(mode, now);
        let mut cycles = now.saturating_sub(since);
        if self.taken() != account.taken.seen.load(Relaxed) {
            cycles = self.without_taken(cycles, begins);
        }
        add(&account.sites[ended.0 as usize].total, cycles);
        // Not back in time, should the end of a slice have come in between.
        account.last_tsc.store(now.max(since), Relaxed);
    }

    /// Since when the running span is to be accounted.
    #[inline(always)]
    pub(crate) fn since(&self, mode: u32, now: u64) -> u64 {
        let account = self.account;
        let epoch = mode::epoch(mode);
        if account.epoch.load(Relaxed) == epoch {
            return account.last_tsc.load(Relaxed);
        }
        // The first transition since somebody began to look, which was in this span.
        account.epoch.store(epoch, Relaxed);
        let since = self.wanted.since_tsc.load(Relaxed).min(now);
        account.last_tsc.store(since, Relaxed);
        self.begin_taken(since);
        since
    }

    /// Whether what happens now is to be recorded.
    #[inline(always)]
    fn recording(&self, mode: u32) -> bool {
        mode & mode::RECORD != 0 && (mode & mode::SAMPLE == 0 || self.account.followed.load(Relaxed) != 0)
    }

    /// Without a subject of its own, a record is of what the environment works on.
    #[cold]
    #[inline(never)]
    fn record(&self, tsc: u64, site: SiteId, kind: u16, subject: u64, argument: u64) {
        let written = self.ring.written.load(Relaxed);
        let record = &self.ring.records[(written % RECORDS as u64) as usize];
        record.tsc.store(tsc, Relaxed);
        record.what.store(pack_what(site.0, kind, self.machine.environment()), Relaxed);
        let subject = if subject == 0 { self.account.followed.load(Relaxed) } else { subject };
        record.subject.store(subject, Relaxed);
        record.argument.store(argument, Relaxed);
        // Who sees the new number sees the record.
        self.ring.written.store(written.wrapping_add(1), Release);
    }
}

#[inline(always)]
pub(crate) fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
pub(crate) mod tests;
