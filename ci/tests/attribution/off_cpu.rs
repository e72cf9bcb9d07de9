//! A competitor on the core of the vCPU: what it has of the CPU is off CPU, in the VMM's account and in the guest's, and in
//! nothing else.

use crate::fixture::{Run, assert_near, config, run_beside, undisturbed};
use exovm::placement::{IoMode, allowed_cpus, pin_this_thread};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

/// How far two counts of the host's may be from each other: a part ...
const COUNTS: f64 = 0.05;
/// ... and what goes on when they are read, which only one of them has in it.
const GOES_ON_MS: u64 = 15;

fn assert_counts_agree(what: &str, run: &Run, found: u64) {
    let counted = run.account.threads[0].waited_for_cpu_cycles.expect("schedstat");
    let allowed = (counted as f64 * COUNTS) as u64 + GOES_ON_MS * run.account.tsc_khz;
    assert!(found.abs_diff(counted) <= allowed, "{what}: {found} off CPU, {counted} by the host's count");
    assert!(allowed < counted / 4, "{what}: too little was taken to say so: {counted}");
}

/// Says that it is over, also if it ends by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Nanoseconds of CPU that the calling thread has had.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs the steps on a core where somebody else computes all the time; with how many cycles that one had.
fn run_with_competitor(steps: &[&str], io: IoMode) -> (Run, u64) {
    let cpu = *allowed_cpus().last().expect("a CPU");
    let mut config = config(steps);
    (config.vcpu_cpus, config.io) = (vec![cpu], io);
    let (over, had_ns) = (AtomicBool::new(false), AtomicU64::new(0));
    let (begin, begun) = mpsc::channel();
    std::thread::scope(|scope| {
        let (over, had_ns) = (&over, &had_ns);
        scope.spawn(move || {
            pin_this_thread(&[cpu]);
            // Not while this test waits for its turn: it would compete with another's machine.
            let _ = begun.recv();
            let before = cpu_ns();
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            had_ns.store(cpu_ns() - before, Ordering::Relaxed);
        });
        let _over = Over(over);
        run_beside(config, move |_| begin.send(()).expect("the competitor waits"))
    })
    .with(&had_ns)
}

impl Run {
    fn with(self, had_ns: &AtomicU64) -> (Self, u64) {
        let ticks = u128::from(had_ns.load(Ordering::Relaxed)) * u128::from(self.account.tsc_khz) / 1_000_000;
        (self, ticks as u64)
    }
}

const STEPS: &str = "span:300:2000000";

#[test]
fn competitor_takes_nothing_from_a_span() {
    for io in [IoMode::Turn, IoMode::Thread] {
        undisturbed(|| {
            let (run, had) = run_with_competitor(&[STEPS], io);
            let burnt = run.burnt(STEPS);
            assert!(had > burnt.own / 4, "{io:?}: the competitor had {had} cycles beside {}", burnt.own);
            run.assert_burnt(&format!("{io:?}, span"), run.span("burn a"), STEPS);
            // The gaps that the guest saw, the host's own count, and the account agree.
            let off_cpu = run.bucket("vcpu", "off CPU");
            assert_counts_agree(&format!("{io:?}"), &run, off_cpu);
            assert_counts_agree(&format!("{io:?}, told by KVM"), &run, run.span("off CPU"));
            run.assert_explained();
        });
    }
}

#[test]
fn competitor_takes_nothing_from_a_turn_that_waits() {
    undisturbed(|| {
        // A vCPU that waits is hardly ever kept from its CPU: something to compare comes from a span before.
        let steps = ["span:100:2000000", "turn:120:5000"];
        let (run, _) = run_with_competitor(&steps, IoMode::Turn);
        assert_counts_agree("in turns", &run, run.bucket("vcpu", "off CPU"));
        let sum: u64 = run.account.threads[0].buckets.iter().map(|bucket| bucket.cycles).sum();
        assert_near("all buckets", sum, run.account.tsc);
    });
}
