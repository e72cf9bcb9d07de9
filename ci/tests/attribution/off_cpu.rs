//! A competitor on the core of the vCPU: what it has of the CPU is off CPU, in the VMM's account and in the guest's, and in
//! nothing else.

use crate::fixture::{Run, assert_near, config, run_beside};
use exovm::placement::{IoMode, allowed_cpus, pin_this_thread};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far two counts of the host's, taken a moment apart, may be from each other.
const COUNTS: f64 = 0.05;

fn assert_counts_agree(what: &str, found: u64, counted: u64) {
    let error = found as f64 / counted.max(1) as f64 - 1.0;
    assert!(error.abs() <= COUNTS, "{what}: {found} off CPU, {counted} by the host's count");
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
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin_this_thread(&[cpu]);
            let before = cpu_ns();
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            had_ns.store(cpu_ns() - before, Ordering::Relaxed);
        });
        let _over = Over(&over);
        run_beside(config, |_| ())
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
        let (run, had) = run_with_competitor(&[STEPS], io);
        let burnt = run.burnt(STEPS);
        assert!(had > burnt.own / 4, "{io:?}: the competitor had {had} cycles beside {}", burnt.own);
        run.assert_burnt(&format!("{io:?}, span"), run.span("burn a"), STEPS);
        // The gaps that the guest saw, the host's own count, and the account agree.
        let off_cpu = run.bucket("vcpu", "off CPU");
        let counted = run.account.threads[0].waited_for_cpu_cycles.expect("schedstat");
        assert_counts_agree(&format!("{io:?}"), off_cpu, counted);
        assert_counts_agree(&format!("{io:?}, told by KVM"), run.span("off CPU"), counted);
        run.assert_explained();
    }
}

#[test]
fn competitor_takes_nothing_from_a_turn_that_waits() {
    let steps = "turn:120:5000";
    let (run, _) = run_with_competitor(&[steps], IoMode::Turn);
    let off_cpu = run.bucket("vcpu", "off CPU");
    let counted = run.account.threads[0].waited_for_cpu_cycles.expect("schedstat");
    assert_counts_agree("in turns", off_cpu, counted);
    let sum: u64 = run.account.threads[0].buckets.iter().map(|bucket| bucket.cycles).sum();
    assert_near("all buckets", sum, run.account.tsc);
}
