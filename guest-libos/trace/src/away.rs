//! Cycles that passed while a span ran and are not the span's: another thread of the host had the CPU, the VMM had the vCPU,
//! another environment had it, or the environment itself gave it away. Whoever had it left its stamps ([`abi::vcpu`],
//! [`abi::environment::KernelPage`]); here they are taken out of the span.
//!
//! There are two ways. What the environment gives away by itself (a turn, a sleep) it divides when it is back, by the stamps of
//! those who had the vCPU. What is taken from it anywhere is a *debt*: the next transition pays it from the span that ended.

use crate::ledger::{Ledger, Machine, SiteId, add};
use abi::trace::mode;
use abi::vcpu::{VcpuTime, full_tsc};
use core::sync::atomic::Ordering::Relaxed;

/// Sites for the parts of the time in which somebody else had the vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// On the way there.
    pub going: SiteId,
    /// There.
    pub away: SiteId,
    /// It could have gone on and had no vCPU; or, after a turn, on the way back.
    pub back: SiteId,
}

/// What host and VMM had of a stretch of time.
#[derive(Clone, Copy, Default)]
struct Had {
    off_cpu: u64,
    outside: u64,
}

impl Had {
    fn at_most(self, cycles: u64) -> Self {
        let off_cpu = self.off_cpu.min(cycles);
        Self { off_cpu, outside: self.outside.min(cycles - off_cpu) }
    }
}

impl<M: Machine> Ledger<'_, M> {
    /// What was taken since the account last looked, as one number that only grows; it is compared and not understood.
    #[inline(always)]
    pub(crate) fn taken(&self) -> u64 {
        let time = self.machine.vcpu();
        let own = self.account.taken.waited_cycles.load(Relaxed);
        time.outside_cycles.load(Relaxed).wrapping_add(time.steal_ns.load(Relaxed)).wrapping_add(own)
    }

    /// Of `cycles` of the span that ends, those that are its own. If the account `begins` in them, no more was taken from it than they
    /// are: the host counts how long a thread waited for a CPU when it has one, with what passed before the account began.
    #[cold]
    #[inline(never)]
    pub(crate) fn without_taken(&self, cycles: u64, begins: bool) -> u64 {
        self.look(if begins { cycles } else { u64::MAX });
        let taken = &self.account.taken;
        let debt = taken.debt_cycles.load(Relaxed);
        let paid = debt.min(cycles);
        taken.debt_cycles.store(debt - paid, Relaxed);
        // The rest is paid by the next.
        self.mark();
        cycles - paid
    }

    /// What was taken, of which that many cycles are counted, becomes a debt.
    fn look(&self, at_most: u64) {
        let (taken, time) = (&self.account.taken, self.machine.vcpu());
        let (steal_ns, outside) = (time.steal_ns.load(Relaxed), time.outside_cycles.load(Relaxed));
        let waited = taken.waited_cycles.load(Relaxed);
        let off_cpu = self.machine.ticks(steal_ns.saturating_sub(taken.seen_steal_ns.load(Relaxed)));
        let in_vmm = outside.saturating_sub(taken.seen_outside_cycles.load(Relaxed));
        let others = waited.saturating_sub(taken.seen_waited_cycles.load(Relaxed));
        let told = self.tell(Had { off_cpu, outside: in_vmm }.at_most(at_most));
        add(&taken.debt_cycles, told + others);
        self.seen_until(steal_ns, outside, waited);
    }

    /// Whatever was taken up to now is told by somebody else.
    fn forget(&self) {
        let time = self.machine.vcpu();
        let waited = self.account.taken.waited_cycles.load(Relaxed);
        self.seen_until(time.steal_ns.load(Relaxed), time.outside_cycles.load(Relaxed), waited);
    }

    fn seen_until(&self, steal_ns: u64, outside: u64, waited: u64) {
        let taken = &self.account.taken;
        taken.seen_steal_ns.store(steal_ns, Relaxed);
        taken.seen_outside_cycles.store(outside, Relaxed);
        taken.seen_waited_cycles.store(waited, Relaxed);
        self.mark();
    }

    /// What a transition compares: not equal if there is a debt.
    fn mark(&self) {
        let taken = &self.account.taken;
        let seen = [&taken.seen_steal_ns, &taken.seen_outside_cycles, &taken.seen_waited_cycles];
        let seen = seen.into_iter().fold(0u64, |sum, word| sum.wrapping_add(word.load(Relaxed)));
        let debt = taken.debt_cycles.load(Relaxed) != 0;
        taken.seen.store(if debt { !seen } else { seen }, Relaxed);
    }

    /// The account that goes began at some moment since the last transition: as if it had looked then.
    #[cold]
    pub(crate) fn begin_taken(&self, since_tsc: u64) {
        let (taken, time) = (&self.account.taken, self.machine.vcpu());
        taken.debt_cycles.store(0, Relaxed);
        self.seen_until(
            time.since_steal_ns.load(Relaxed),
            time.since_outside_cycles.load(Relaxed),
            taken.waited_cycles.load(Relaxed),
        );
        self.got_vcpu(since_tsc);
    }

    /// The account begins now: what was taken before is nothing to it.
    pub(crate) fn begin_now(&self, now: u64) {
        self.account.taken.debt_cycles.store(0, Relaxed);
        self.forget();
        self.got_vcpu(now);
    }

    fn got_vcpu(&self, tsc: u64) {
        let taken = &self.account.taken;
        taken.got_vcpu.store(self.machine.vcpu_number(), Relaxed);
        taken.got_tsc.store(tsc, Relaxed);
    }

    /// When it got its vCPU last, which was a moment ago.
    fn vcpu_since(&self, now: u64) -> u64 {
        full_tsc(self.machine.vcpu().entered_low.load(Relaxed), now)
    }

    /// It had the vCPU until `left_tsc`, and has one again since `entered_tsc`.
    fn was_away(&self, left_tsc: u64, entered_tsc: u64) {
        let taken = &self.account.taken;
        let (got_tsc, vcpu) = (taken.got_tsc.load(Relaxed), taken.got_vcpu.load(Relaxed));
        if let Some(ran) = taken.ran.get(vcpu as usize) {
            add(ran, left_tsc.saturating_sub(got_tsc));
        }
        self.got_vcpu(entered_tsc);
    }

    /// What host and VMM had of a stretch of time, by what they had had in all when it began and when it ended: `(steal_ns, outside)`.
    fn had(&self, start: (u64, u64), end: (u64, u64)) -> Had {
        Had {
            off_cpu: self.machine.ticks(end.0.saturating_sub(start.0)),
            outside: end.1.saturating_sub(start.1),
        }
    }

    /// What they had between the last look and its leaving the vCPU, if it left since then and the kernel saw that.
    fn had_before_leaving(&self) -> Had {
        let (taken, kernel) = (&self.account.taken, self.machine.kernel());
        let seen = (taken.seen_steal_ns.load(Relaxed), taken.seen_outside_cycles.load(Relaxed));
        self.had(seen, (kernel.left_steal_ns.load(Relaxed), kernel.left_outside_cycles.load(Relaxed)))
    }

    /// What they had since it got its vCPU, if the kernel found it in a search.
    fn had_since_entering(&self) -> Had {
        let time = self.machine.vcpu();
        if time.entered_tsc.load(Relaxed) as u32 != time.entered_low.load(Relaxed) {
            return Had::default();
        }
        let entered = (time.entered_steal_ns.load(Relaxed), time.entered_outside_cycles.load(Relaxed));
        self.had(entered, (time.steal_ns.load(Relaxed), time.outside_cycles.load(Relaxed)))
    }

    /// Adds it to what is told of host and VMM. How much it is.
    fn tell(&self, had: Had) -> u64 {
        let taken = &self.account.taken;
        for (accumulator, cycles) in [(&taken.off_cpu, had.off_cpu), (&taken.outside, had.outside)] {
            if cycles > 0 {
                add(&accumulator.count, 1);
                add(&accumulator.total, cycles);
            }
        }
        had.off_cpu + had.outside
    }

    /// What passed from the last transition to `tsc` is `site`'s, but for what host and VMM had of it.
    fn up_to_without(&self, tsc: u64, now: u64, site: SiteId, had: Had) {
        let last = self.account.last_tsc.load(Relaxed);
        let cycles = self.tell(had.at_most(tsc.saturating_sub(last)));
        self.account.last_tsc.store(last + cycles, Relaxed);
        self.up_to(tsc, now, site);
    }

    /// What passed from the last transition to `tsc` is `site`'s.
    fn up_to(&self, tsc: u64, now: u64, site: SiteId) {
        let last = self.account.last_tsc.load(Relaxed);
        if tsc > last && tsc <= now {
            let accumulator = &self.account.sites[site.number() as usize];
            if site.number() != self.account.current.load(Relaxed) {
                add(&accumulator.count, 1);
            }
            add(&accumulator.total, tsc - last);
            self.account.last_tsc.store(tsc, Relaxed);
        }
    }

    /// The VMM had the vCPU in a turn, and the span that runs began with it.
    pub fn turn_over(&self, parts: Parts) {
        let mode = self.wanted.mode.load(Relaxed);
        if cfg!(exovm_without_spans) || mode & mode::ACCOUNT == 0 {
            return;
        }
        let now = self.machine.tsc();
        self.since(mode, now);
        let (taken, time): (_, &VcpuTime) = (&self.account.taken, self.machine.vcpu());
        let (exit, entry) = (time.exit_tsc.load(Relaxed), time.entry_tsc.load(Relaxed));
        let outside = time.outside_cycles.load(Relaxed).wrapping_sub(taken.seen_outside_cycles.load(Relaxed));
        let steal_ns = time.steal_ns.load(Relaxed).wrapping_sub(taken.seen_steal_ns.load(Relaxed));
        // What the VMM had no CPU for it tells itself; the rest was on the ways, most likely on the longer one.
        let in_turn = entry.saturating_sub(exit).saturating_sub(outside);
        let on_the_ways = self.machine.ticks(steal_ns).saturating_sub(in_turn);
        let last = self.account.last_tsc.load(Relaxed);
        let (going, back) = (exit.min(now).saturating_sub(last), now.saturating_sub(entry.max(last)));
        let on_going = if going > back { on_the_ways } else { on_the_ways.saturating_sub(back) }.min(going);
        let had = |off_cpu| Had { off_cpu, outside: 0 };
        self.up_to_without(exit, now, parts.going, had(on_going));
        self.up_to(entry, now, parts.away);
        self.up_to_without(now, now, parts.back, had(on_the_ways - on_going));
        self.forget();
    }

    /// The environment gave its vCPU away in the span that runs, and is back; or was refused.
    pub fn back(&self, parts: Parts) {
        let mode = self.wanted.mode.load(Relaxed);
        if cfg!(exovm_without_spans) || mode & mode::ACCOUNT == 0 {
            return;
        }
        let now = self.machine.tsc();
        let since = self.since(mode, now);
        let kernel = self.machine.kernel();
        let entered = self.vcpu_since(now);
        if entered <= since {
            // Nobody else had it.
            return self.account_to(mode, now, parts.going);
        }
        // Who gave its vCPU to the next by a message has no stamp of that: then it is when it called.
        let left = kernel.left_tsc.load(Relaxed);
        let (left, had) =
            if left > since { (left, self.had_before_leaving()) } else { (since, Had::default()) };
        let roused = kernel.roused_tsc.load(Relaxed);
        self.up_to_without(left, now, parts.going, had);
        if roused > left && roused < entered {
            self.up_to(roused, now, parts.away);
            self.up_to(entered, now, parts.back);
        } else {
            self.up_to(entered, now, parts.away);
        }
        self.up_to_without(now, now, parts.going, self.had_since_entering());
        self.was_away(left, entered);
        self.forget();
    }

    /// The environment's slice was over, and it is about to give its vCPU away: what was taken until then is taken from the span.
    pub fn slice_is_over(&self) {
        let mode = self.wanted.mode.load(Relaxed);
        if cfg!(exovm_without_spans) || mode & mode::ACCOUNT == 0 {
            return;
        }
        let begins = self.account.epoch.load(Relaxed) != mode::epoch(mode);
        let now = self.machine.tsc();
        let since = self.since(mode, now);
        self.look(if begins { now.saturating_sub(since) } else { u64::MAX });
    }

    /// It has it again. `stopped_tsc`: when the kernel stopped it. The span that ran may be in the middle of a transition, so nothing is
    /// touched but the debt.
    pub fn slice_begins(&self, stopped_tsc: u64, parts: Parts) {
        let mode = self.wanted.mode.load(Relaxed);
        if cfg!(exovm_without_spans) || mode & mode::ACCOUNT == 0 {
            return;
        }
        let (account, now) = (self.account, self.machine.tsc());
        // The account may have begun meanwhile: what passed before is not in it.
        let began = if account.epoch.load(Relaxed) == mode::epoch(mode) { 0 } else { self.since(mode, now) };
        let entered = self.vcpu_since(now);
        let left = self.machine.kernel().left_tsc.load(Relaxed).max(began);
        let away = entered.saturating_sub(left);
        let all = now.saturating_sub(stopped_tsc.max(began)).max(away);
        let had = self.tell(self.had_before_leaving()) + self.tell(self.had_since_entering());
        for (site, cycles) in [(parts.back, away), (parts.going, (all - away).saturating_sub(had))] {
            let accumulator = &account.sites[site.number() as usize];
            add(&accumulator.count, 1);
            add(&accumulator.total, cycles);
        }
        self.was_away(left, entered);
        self.forget();
        add(&account.taken.waited_cycles, all);
    }
}

#[cfg(test)]
#[path = "away_tests.rs"]
mod tests;
