//! The ledger against a clock that the test turns.

use super::*;
use abi::trace::{Accumulator, Record, unpack_what};
use core::cell::Cell;
use core::sync::atomic::AtomicU32;

extern crate std;
use std::boxed::Box;

pub(crate) struct FakeMachine<'a> {
    now: &'a Cell<u64>,
    vcpu: &'a VcpuTime,
    kernel: &'a KernelPage,
}

impl Machine for FakeMachine<'_> {
    fn tsc(&self) -> u64 {
        self.now.get()
    }
    fn environment(&self) -> u16 {
        3
    }
    fn vcpu_number(&self) -> u32 {
        1
    }
    fn vcpu(&self) -> &VcpuTime {
        self.vcpu
    }
    fn kernel(&self) -> &KernelPage {
        self.kernel
    }
    /// Two ticks a nanosecond.
    fn ticks(&self, ns: u64) -> u64 {
        2 * ns
    }
}

pub(crate) struct Areas {
    pub(crate) account: Box<AccountArea>,
    ring: Box<TraceRing>,
    pub(crate) wanted: Wanted,
    pub(crate) now: Cell<u64>,
    pub(crate) vcpu: VcpuTime,
    pub(crate) kernel: KernelPage,
}

impl Areas {
    pub(crate) fn new() -> Self {
        Self {
            account: Box::new(AccountArea {
                last_tsc: AtomicU64::new(0),
                current: AtomicU32::new(0),
                epoch: AtomicU32::new(0),
                followed: AtomicU64::new(0),
                taken: abi::trace::Taken::default(),
                sites: [const { Accumulator { count: AtomicU64::new(0), total: AtomicU64::new(0) } }; SITES],
            }),
            ring: Box::new(TraceRing {
                written: AtomicU64::new(0),
                padding: Default::default(),
                records: core::array::from_fn(|_| Record::default()),
            }),
            wanted: Wanted { mode: AtomicU32::new(mode::ACCOUNT), ..Wanted::default() },
            now: Cell::new(1_000_000),
            vcpu: VcpuTime::default(),
            kernel: KernelPage::default(),
        }
    }

    pub(crate) fn ledger(&self) -> Ledger<'_, FakeMachine<'_>> {
        let machine = FakeMachine { now: &self.now, vcpu: &self.vcpu, kernel: &self.kernel };
        let ledger = Ledger::new(&self.account, &self.ring, &self.wanted, machine);
        ledger.start();
        ledger
    }

    pub(crate) fn pass(&self, cycles: u64) {
        self.now.set(self.now.get() + cycles);
    }

    pub(crate) fn count(&self, site: SiteId) -> u64 {
        self.account.sites[site.0 as usize].count.load(Relaxed)
    }

    pub(crate) fn total(&self, site: SiteId) -> u64 {
        self.account.sites[site.0 as usize].total.load(Relaxed)
    }

    pub(crate) fn sum(&self) -> u64 {
        self.account.sites.iter().map(|a| a.total.load(Relaxed)).sum()
    }
}

/// The id of the `k`th site of the section.
pub(crate) fn site(k: usize) -> SiteId {
    SiteId::at(k * size_of::<Site>())
}

#[test]
fn nested_spans_are_exclusive_and_sum_to_the_time_since_the_start() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let (outer, inner) = (site(0), site(1));

    areas.pass(5);
    let none = ledger.enter(outer, 0);
    areas.pass(10);
    for _ in 0..3 {
        let previous = ledger.enter(inner, 0);
        assert_eq!(previous, outer);
        areas.pass(100);
        ledger.leave(previous);
        areas.pass(1);
    }
    ledger.leave(none);
    areas.pass(7);
    let none = ledger.enter(inner, 0);
    ledger.leave(none);

    assert_eq!(none, SiteId::NONE);
    assert_eq!((areas.count(outer), areas.total(outer)), (1, 13));
    assert_eq!((areas.count(inner), areas.total(inner)), (4, 300));
    assert_eq!(areas.total(SiteId::NONE), 12);
    assert_eq!(areas.sum(), areas.now.get() - 1_000_000);
}

#[test]
fn a_span_within_itself_counts_its_cycles_once() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    let none = ledger.enter(site(4), 0);
    areas.pass(3);
    let same = ledger.enter(site(4), 0);
    areas.pass(4);
    ledger.leave(same);
    ledger.leave(none);
    assert_eq!((areas.count(site(4)), areas.total(site(4))), (2, 7));
}

#[test]
fn site_beyond_the_area_is_counted_under_none() {
    assert_eq!(site(0).number(), 1);
    assert_eq!(site(SITES - 2).number(), SITES as u32 - 1);
    assert_eq!(site(SITES - 1), SiteId::NONE);
    assert_eq!(SiteId::at(usize::MAX / 2), SiteId::NONE);

    let areas = Areas::new();
    let ledger = areas.ledger();
    let outer = ledger.enter(site(0), 0);
    let inner = ledger.enter(site(SITES + 7), 0);
    areas.pass(9);
    ledger.leave(inner);
    ledger.leave(outer);
    ledger.counter(site(SITES + 8), 1 << 40);
    assert_eq!((areas.count(SiteId::NONE), areas.total(SiteId::NONE)), (2, 9));
    assert_eq!(areas.sum(), 9);
}

#[test]
fn current_of_a_damaged_area_stays_inside() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.account.current.store(u32::MAX, Relaxed);
    let outer = ledger.enter(site(0), 0);
    ledger.leave(outer);
    assert!((outer.number() as usize) < SITES);
}

#[test]
fn counter_adds_and_event_counts() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    ledger.counter(site(2), 1460);
    ledger.counter(site(2), 40);
    ledger.event(site(3), 1, 2);
    assert_eq!((areas.count(site(2)), areas.total(site(2))), (2, 1500));
    assert_eq!((areas.count(site(3)), areas.total(site(3))), (1, 0));
}

#[test]
fn records_are_written_only_while_enabled() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    ledger.event(site(0), 1, 2);
    assert_eq!(areas.ring.written.load(Relaxed), 0);

    areas.wanted.mode.store(mode::ACCOUNT | mode::RECORD, Relaxed);
    areas.pass(50);
    let outer = ledger.enter(site(1), 77);
    areas.pass(50);
    ledger.event(site(0), 1, 2);
    ledger.counter(site(2), 9);
    ledger.leave(outer);

    let seen: std::vec::Vec<_> = areas.ring.records[..4]
        .iter()
        .map(|r| {
            let (site, kind, environment) = unpack_what(r.what.load(Relaxed));
            let tsc = r.tsc.load(Relaxed) - 1_000_000;
            (tsc, site, kind, environment, r.subject.load(Relaxed), r.argument.load(Relaxed))
        })
        .collect();
    assert_eq!(areas.ring.written.load(Relaxed), 4);
    assert_eq!(
        seen,
        [
            (50, 2, RECORD_ENTER, 3, 77, 0),
            (100, 1, RECORD_EVENT, 3, 1, 2),
            (100, 3, RECORD_COUNTER, 3, 0, 9),
            (100, 2, RECORD_LEAVE, 3, 0, 0),
        ]
    );
}

#[test]
fn ring_wraps_and_keeps_the_latest_records() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.wanted.mode.store(mode::ACCOUNT | mode::RECORD, Relaxed);
    let all = 3 * RECORDS as u64 + 5;
    for n in 0..all {
        ledger.event(site(0), n, 0);
    }
    assert_eq!(areas.ring.written.load(Relaxed), all);
    for n in all - RECORDS as u64..all {
        assert_eq!(areas.ring.records[(n % RECORDS as u64) as usize].subject.load(Relaxed), n);
    }
}

#[test]
fn start_drops_what_was_before() {
    let areas = Areas::new();
    areas.pass(1 << 50);
    let ledger = areas.ledger();
    areas.pass(4);
    let outer = ledger.enter(site(0), 0);
    ledger.leave(outer);
    assert_eq!(areas.sum(), 4);
}

#[test]
fn without_anybody_looking_spans_count_and_take_no_time_stamp() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.wanted.mode.store(0, Relaxed);
    let outer = ledger.enter(site(0), 0);
    areas.pass(100);
    assert_eq!(areas.account.current.load(Relaxed), 1);
    ledger.leave(outer);
    assert_eq!((areas.count(site(0)), areas.sum()), (1, 0));
    assert_eq!((areas.account.current.load(Relaxed), areas.ring.written.load(Relaxed)), (0, 0));
}

#[test]
fn account_that_begins_within_a_span_goes_to_that_span_from_its_beginning_on() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.wanted.mode.store(0, Relaxed);
    let none = ledger.enter(site(0), 0);
    let outer = ledger.enter(site(1), 0);
    areas.pass(1000);
    areas.wanted.since_tsc.store(areas.now.get(), Relaxed);
    areas.wanted.mode.store(mode::with_epoch(mode::ACCOUNT, 1), Relaxed);
    areas.pass(30);
    ledger.leave(outer);
    areas.pass(4);
    ledger.leave(none);
    assert_eq!((areas.total(site(1)), areas.total(site(0)), areas.sum()), (30, 4, 34));

    // Off again, and another account: what passed between is nobody's.
    areas.wanted.mode.store(mode::with_epoch(0, 1), Relaxed);
    areas.pass(500);
    areas.wanted.since_tsc.store(areas.now.get(), Relaxed);
    areas.wanted.mode.store(mode::with_epoch(mode::ACCOUNT, 2), Relaxed);
    areas.pass(7);
    let none = ledger.enter(site(2), 0);
    areas.pass(1);
    ledger.leave(none);
    assert_eq!((areas.total(SiteId::NONE), areas.sum()), (7, 34 + 8));
}

#[test]
fn account_whose_beginning_lies_ahead_adds_nothing() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.wanted.since_tsc.store(u64::MAX, Relaxed);
    areas.wanted.mode.store(mode::with_epoch(mode::ACCOUNT, 1), Relaxed);
    areas.pass(7);
    let none = ledger.enter(site(2), 0);
    ledger.leave(none);
    assert_eq!(areas.sum(), 0);
}

#[test]
fn samples_hold_everything_of_what_is_followed_and_nothing_else() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.wanted.sample.store(64, Relaxed);
    areas.wanted.mode.store(mode::RECORD | mode::SAMPLE, Relaxed);
    let frame = |n| subject::of(subject::RECEIVED, 0, 0, n);
    let mut expected = std::vec::Vec::new();
    for n in 0..10_000 {
        let before = ledger.follow(frame(n));
        assert_eq!(before, 0);
        let none = ledger.enter(site(0), 0);
        ledger.counter(site(1), 3);
        ledger.leave(none);
        ledger.follow_again(before);
        ledger.event(site(2), 5, 5);
        if subject::is_sampled(frame(n), 64) {
            expected.extend([frame(n); 3]);
        }
    }
    assert!(expected.len() > 300, "{}", expected.len());
    assert_eq!(areas.ring.written.load(Relaxed), expected.len() as u64);
    let seen: std::vec::Vec<_> =
        areas.ring.records[..expected.len()].iter().map(|record| record.subject.load(Relaxed)).collect();
    assert_eq!(seen, expected);
    assert_eq!(areas.total(site(0)), 0, "nobody asked for an account");
}

#[test]
fn work_that_was_put_aside_is_followed_again() {
    let areas = Areas::new();
    let ledger = areas.ledger();
    areas.wanted.mode.store(mode::RECORD, Relaxed);
    let frame = subject::of(subject::RECEIVED, 0, 0, 9);
    let before = ledger.follow(frame);
    let aside = ledger.followed();
    ledger.follow_again(before);
    assert_eq!((aside, ledger.followed()), (frame, 0));
    let before = ledger.follow_again(aside);
    ledger.event(site(0), 0, 0);
    ledger.follow_again(before);
    assert_eq!(areas.ring.records[0].subject.load(Relaxed), frame);
}
