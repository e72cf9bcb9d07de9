//! Cycles that are not a span's, against a clock, a vCPU and a kernel that the test plays.

use super::*;
use crate::ledger::tests::{Areas, site};
use core::sync::atomic::AtomicU64;

const SPAN: usize = 0;
const OTHER: usize = 1;

fn parts() -> Parts {
    Parts { going: site(5), away: site(6), back: site(7) }
}

impl Areas {
    /// Another thread of the host has the CPU; KVM says so when it is over.
    fn lose_cpu(&self, ns: u64) {
        self.pass(2 * ns);
        add(&self.vcpu.steal_ns, ns);
    }

    /// The VMM has the vCPU, in an exit.
    fn exit(&self, cycles: u64) {
        self.vcpu.exit_tsc.store(self.now.get(), Relaxed);
        self.pass(cycles);
        add(&self.vcpu.outside_cycles, cycles);
        self.vcpu.entry_tsc.store(self.now.get(), Relaxed);
    }

    /// The kernel has it, and gives it to others, for so long before and after the sleeper is roused.
    fn switch(&self, asleep: u64, waiting: u64, stolen_from_others_ns: u64) {
        let taken =
            || (self.vcpu.steal_ns.load(Relaxed), self.vcpu.outside_cycles.load(Relaxed), self.now.get());
        let (steal_ns, outside, now) = taken();
        self.kernel.left_tsc.store(now, Relaxed);
        self.kernel.left_steal_ns.store(steal_ns, Relaxed);
        self.kernel.left_outside_cycles.store(outside, Relaxed);
        self.pass(asleep);
        self.kernel.roused_tsc.store(self.now.get(), Relaxed);
        self.pass(waiting);
        add(&self.vcpu.steal_ns, stolen_from_others_ns);
        let (steal_ns, outside, now) = taken();
        self.vcpu.entered_low.store(now as u32, Relaxed);
        self.vcpu.entered_tsc.store(now, Relaxed);
        self.vcpu.entered_steal_ns.store(steal_ns, Relaxed);
        self.vcpu.entered_outside_cycles.store(outside, Relaxed);
    }

    /// Somebody begins to look: the VMM says since when, and what had been taken then.
    fn begin_account(&self) {
        let of = |word: &AtomicU64| word.load(Relaxed);
        self.vcpu.since_steal_ns.store(of(&self.vcpu.steal_ns), Relaxed);
        self.vcpu.since_outside_cycles.store(of(&self.vcpu.outside_cycles), Relaxed);
        self.wanted.since_tsc.store(self.now.get(), Relaxed);
        self.wanted.mode.store(mode::with_epoch(mode::ACCOUNT, 1), Relaxed);
    }

    /// Everything that was counted.
    fn all(&self) -> u64 {
        let taken = &self.account.taken;
        self.sum() + taken.off_cpu.total.load(Relaxed) + taken.outside.total.load(Relaxed)
    }

    fn passed(&self) -> u64 {
        self.now.get() - 1_000_000
    }
}

#[test]
fn host_and_vmm_take_nothing_from_a_span() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(site(SPAN), 0);
    areas.pass(100);
    areas.lose_cpu(5000);
    areas.pass(20);
    areas.exit(700);
    areas.pass(3);
    ledger.leave(none);
    assert_eq!(areas.total(site(SPAN)), 123);
    let taken = &areas.account.taken;
    assert_eq!((taken.off_cpu.count.load(Relaxed), taken.off_cpu.total.load(Relaxed)), (1, 10_000));
    assert_eq!((taken.outside.count.load(Relaxed), taken.outside.total.load(Relaxed)), (1, 700));
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn what_a_span_cannot_pay_the_next_pays() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(site(SPAN), 0);
    areas.pass(100);
    // The host's count has more of it than has passed by the guest's clock.
    add(&areas.vcpu.steal_ns, 80);
    let outer = ledger.enter(site(OTHER), 0);
    assert_eq!(areas.total(site(SPAN)), 0);
    areas.pass(200);
    ledger.leave(outer);
    assert_eq!(areas.total(site(OTHER)), 140);
    areas.pass(50);
    ledger.leave(none);
    assert_eq!(areas.total(site(SPAN)), 50);
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn wait_for_a_cpu_that_an_account_begins_in_is_no_debt_of_later_spans() {
    for sliced in [false, true] {
        let areas = Areas::new();
        areas.wanted.mode.store(0, Relaxed);
        let ledger = areas.ledger();
        let none = ledger.enter(site(SPAN), 0);
        areas.lose_cpu(3000);
        // The host says all of a wait when it is over, with what was before the account.
        areas.pass(900);
        areas.begin_account();
        areas.pass(100);
        add(&areas.vcpu.steal_ns, 500);
        if sliced {
            ledger.slice_is_over();
        }
        let outer = ledger.enter(site(OTHER), 0);
        areas.pass(40);
        ledger.leave(outer);
        areas.pass(7);
        ledger.leave(none);
        assert_eq!((areas.total(site(SPAN)), areas.total(site(OTHER))), (7, 40));
        assert_eq!(areas.account.taken.off_cpu.total.load(Relaxed), 100);
    }
}

#[test]
fn turn_is_what_the_vmm_had_and_the_ways_there_and_back_are_apart() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(parts().away, 0);
    areas.pass(30_000);
    areas.exit(500_000);
    areas.pass(35_000);
    ledger.turn_over(parts());
    ledger.leave(none);
    assert_eq!(areas.total(parts().going), 30_000);
    assert_eq!((areas.count(parts().away), areas.total(parts().away)), (1, 500_000));
    assert_eq!(areas.total(parts().back), 35_000);
    assert_eq!(areas.account.taken.outside.total.load(Relaxed), 0, "the turn is what it was in");
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn cpu_lost_in_a_turn_is_told_by_the_vmm_and_cpu_lost_on_the_way_back_here() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(parts().away, 0);
    areas.pass(30_000);
    areas.exit(500_000);
    // In the turn: the VMM does not count it as outside, its own ledger has it as off CPU.
    areas.lose_cpu(1000);
    areas.vcpu.entry_tsc.store(areas.now.get(), Relaxed);
    areas.lose_cpu(9000);
    areas.pass(35_000);
    ledger.turn_over(parts());
    ledger.leave(none);
    assert_eq!(areas.total(parts().away), 502_000);
    assert_eq!(areas.total(parts().back), 35_000);
    assert_eq!(areas.account.taken.off_cpu.total.load(Relaxed), 18_000);
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn cpu_lost_on_the_way_to_a_turn_is_not_the_ways() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(parts().away, 0);
    areas.pass(30_000);
    areas.lose_cpu(400_000);
    areas.exit(500_000);
    areas.pass(35_000);
    ledger.turn_over(parts());
    ledger.leave(none);
    assert_eq!((areas.total(parts().going), areas.total(parts().back)), (30_000, 35_000));
    assert_eq!(areas.account.taken.off_cpu.total.load(Relaxed), 800_000);
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn sleep_is_divided_by_the_kernels_stamps() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.pass(1000);
    let none = ledger.enter(parts().away, 0);
    areas.pass(40);
    // What happened to others meanwhile is not ours.
    areas.switch(5000, 600, 77_000);
    areas.pass(60);
    ledger.back(parts());
    ledger.leave(none);
    areas.pass(11);
    let none = ledger.enter(site(SPAN), 0);
    ledger.leave(none);
    assert_eq!(areas.total(parts().going), 100);
    assert_eq!(areas.total(parts().away), 5000);
    assert_eq!(areas.total(parts().back), 600);
    assert_eq!(areas.account.taken.off_cpu.total.load(Relaxed), 0);
    assert_eq!(areas.account.taken.ran[1].load(Relaxed), 1040, "until it left");
    assert_eq!(areas.account.taken.got_tsc.load(Relaxed), areas.now.get() - 71);
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn vcpu_that_was_given_to_the_next_by_a_message_is_away_from_the_call_on() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.switch(10, 0, 0);
    areas.pass(1000);
    let none = ledger.enter(parts().going, 0);
    areas.pass(5000);
    areas.vcpu.entered_low.store(areas.now.get() as u32, Relaxed);
    areas.pass(60);
    ledger.back(parts());
    ledger.leave(none);
    assert_eq!((areas.total(parts().going), areas.total(parts().away)), (60, 5000));
    assert_eq!(areas.account.taken.ran[1].load(Relaxed), 1010);
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn call_that_is_refused_is_a_call() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.switch(10, 0, 0);
    areas.pass(500);
    let none = ledger.enter(parts().away, 0);
    areas.pass(40);
    ledger.back(parts());
    ledger.leave(none);
    assert_eq!((areas.total(parts().going), areas.total(parts().away)), (40, 0));
}

#[test]
fn end_of_a_slice_takes_nothing_from_the_span_that_it_came_in() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(site(SPAN), 0);
    areas.pass(300);
    areas.lose_cpu(50);
    let stopped = areas.now.get();
    areas.pass(10);
    ledger.slice_is_over();
    areas.pass(20);
    areas.switch(0, 9000, 1234);
    areas.pass(30);
    ledger.slice_begins(stopped, parts());
    areas.pass(7);
    ledger.leave(none);
    assert_eq!(areas.total(site(SPAN)), 307);
    assert_eq!(areas.total(parts().back), 9000);
    assert_eq!(areas.total(parts().going), 60);
    assert_eq!(areas.account.taken.off_cpu.total.load(Relaxed), 100);
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn account_that_begins_in_a_span_leaves_out_what_was_taken_before() {
    let areas = Areas::new();
    areas.wanted.mode.store(0, Relaxed);
    let ledger = areas.ledger();
    let none = ledger.enter(site(SPAN), 0);
    areas.lose_cpu(900);
    areas.exit(80);
    areas.begin_account();
    areas.pass(50);
    areas.lose_cpu(7);
    ledger.leave(none);
    assert_eq!(areas.total(site(SPAN)), 50);
    assert_eq!(areas.account.taken.off_cpu.total.load(Relaxed), 14);
    assert_eq!(areas.account.taken.outside.total.load(Relaxed), 0);
}

#[test]
fn account_that_begins_in_a_sleep_has_the_rest_of_it() {
    let areas = Areas::new();
    areas.wanted.mode.store(0, Relaxed);
    let ledger = areas.ledger();
    let none = ledger.enter(parts().away, 0);
    areas.pass(10);
    areas.kernel.left_tsc.store(areas.now.get(), Relaxed);
    areas.pass(500);
    areas.begin_account();
    areas.pass(40);
    areas.kernel.roused_tsc.store(areas.now.get(), Relaxed);
    areas.pass(3);
    areas.vcpu.entered_low.store(areas.now.get() as u32, Relaxed);
    areas.pass(2);
    ledger.back(parts());
    ledger.leave(none);
    let of = |site| areas.total(site);
    assert_eq!((of(parts().going), of(parts().away), of(parts().back)), (2, 40, 3));
    assert_eq!(areas.account.taken.ran[1].load(Relaxed), 0);
}

#[test]
fn environment_that_begins_owes_nothing_of_what_was_taken_before() {
    let areas = Areas::new();
    areas.lose_cpu(5000);
    areas.exit(700);
    let ledger = areas.ledger();
    let none = ledger.enter(site(SPAN), 0);
    areas.pass(100_000);
    ledger.leave(none);
    assert_eq!(areas.total(site(SPAN)), 100_000);
}

/// Areas in which the kernel's way there and back was interrupted, and the ways' own cycles.
fn interrupted_switch(areas: &Areas) -> u64 {
    areas.pass(40);
    areas.lose_cpu(5000);
    areas.exit(300);
    areas.switch(100_000, 20_000, 9000);
    areas.pass(60);
    areas.lose_cpu(7000);
    areas.exit(200);
    40 + 60
}

#[test]
fn what_is_taken_on_the_ways_of_a_sleep_is_not_the_ways() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(parts().away, 0);
    let ways = interrupted_switch(&areas);
    ledger.back(parts());
    ledger.leave(none);
    assert_eq!(areas.total(parts().going), ways);
    assert_eq!((areas.total(parts().away), areas.total(parts().back)), (100_000, 20_000));
    let taken = &areas.account.taken;
    assert_eq!((taken.off_cpu.total.load(Relaxed), taken.outside.total.load(Relaxed)), (24_000, 500));
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn what_is_taken_on_the_ways_between_two_slices_is_not_the_ways() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(site(SPAN), 0);
    areas.pass(500);
    let stopped = areas.now.get();
    ledger.slice_is_over();
    let ways = interrupted_switch(&areas);
    ledger.slice_begins(stopped, parts());
    areas.pass(70);
    ledger.leave(none);
    assert_eq!(areas.total(site(SPAN)), 570);
    assert_eq!((areas.total(parts().going), areas.total(parts().back)), (ways, 120_000));
    assert_eq!(areas.all(), areas.passed());
}

#[test]
fn account_that_begins_while_others_have_the_vcpu_has_none_of_that_in_a_span() {
    let areas = Areas::new();
    areas.wanted.mode.store(0, Relaxed);
    let ledger = areas.ledger();
    let none = ledger.enter(site(SPAN), 0);
    areas.pass(500);
    let stopped = areas.now.get();
    ledger.slice_is_over();
    areas.kernel.left_tsc.store(areas.now.get(), Relaxed);
    areas.pass(40_000);
    areas.begin_account();
    areas.pass(60_000);
    areas.vcpu.entered_low.store(areas.now.get() as u32, Relaxed);
    areas.pass(80);
    ledger.slice_begins(stopped, parts());
    areas.pass(70);
    ledger.leave(none);
    assert_eq!(areas.total(site(SPAN)), 70);
    assert_eq!((areas.total(parts().going), areas.total(parts().back)), (80, 60_000));
}
