//! The ledger against burnt cycles, and against the host's own counts of what a thread had of the CPU.

use super::*;
use crate::perf_events::clock::ticks;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Ticks of a millisecond, near enough for times that are compared with themselves.
fn tsc_khz() -> u64 {
    let (start, tsc) = (std::time::Instant::now(), now_tsc());
    std::thread::sleep(Duration::from_millis(50));
    (u128::from(now_tsc() - tsc) * 1_000_000 / start.elapsed().as_nanos()) as u64
}

fn burn(cycles: u64) {
    let start = now_tsc();
    while now_tsc() - start < cycles {}
}

fn of(sums: &Sums, bucket: Bucket) -> Sum {
    sums[bucket.index()]
}

/// CPU time of the calling thread.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[test]
fn cycles_land_in_the_bucket_that_ran() {
    let ledger = Ledger::default();
    ledger.enter(Bucket::NetReceive);
    burn(2_000_000);
    let before = ledger.enter(Bucket::Wait);
    let sums = ledger.read();
    assert_eq!(before, Bucket::NetReceive);
    let cycles = of(&sums, Bucket::NetReceive).cycles;
    assert!((2_000_000..40_000_000).contains(&cycles), "{cycles}");
    assert_eq!(of(&sums, Bucket::NetTransmit), Sum::default());
    assert_eq!(of(&sums, Bucket::Wait).entries, 1);
}

/// A host that is itself a guest loses its CPUs when nobody is told: what is wrong with a ledger is wrong each time.
#[test]
fn what_a_competitor_has_of_the_cpu_is_off_cpu_and_nothing_else() {
    const ATTEMPTS: usize = 5;
    let wrong: Vec<_> = (0..ATTEMPTS).map_while(|_| beside_a_competitor().err()).collect();
    assert!(wrong.len() < ATTEMPTS, "{wrong:#?}");
}

/// Polls and waits on a CPU that a competitor wants as well; what is wrong with the account of that.
fn beside_a_competitor() -> Result<(), String> {
    let khz = tsc_khz();
    let ledger = Ledger::default();
    let over = AtomicBool::new(false);
    let cpu = crate::placement::allowed_cpus()[0];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::placement::pin_this_thread(&[cpu]);
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        crate::placement::pin_this_thread(&[cpu]);
        ledger.set_clock(khz);
        ledger.begin_thread();
        let (start, cpu_start) = (now_tsc(), cpu_ns());
        ledger.enter(Bucket::Poll);
        // The host's clock interrupts, so that the competitor gets its share.
        burn(400 * khz);
        ledger.enter(Bucket::Wait);
        std::thread::sleep(Duration::from_millis(50));
        ledger.enter(Bucket::Other);
        let (sums, wall) = (ledger.read(), now_tsc() - start);
        over.store(true, Ordering::Relaxed);
        let on_cpu = ticks(cpu_ns() - cpu_start, khz);

        let (poll, off) = (of(&sums, Bucket::Poll), of(&sums, Bucket::OffCpu));
        let waited = of(&sums, Bucket::Wait).cycles;
        let sum: u64 = sums.iter().map(|sum| sum.cycles).sum();
        let check = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        let share = off.entries > 5 && off.cycles > 50 * khz;
        check(share, format!("a competitor had the CPU: {off:?}"))?;
        let close = poll.cycles.abs_diff(on_cpu) < on_cpu / 50;
        check(close, format!("polled {} cycles, had {on_cpu}", poll.cycles))?;
        let in_time = (49 * khz..53 * khz).contains(&waited);
        check(in_time, format!("what came late after a wait is off CPU: {waited}"))?;
        check(sum.abs_diff(wall) < wall / 100, format!("{sum} of {wall}"))
    })
}

#[test]
fn what_is_read_in_the_middle_of_a_transition_belongs_together() {
    let (ledger, is_over) = (Ledger::default(), AtomicBool::new(false));
    let begun = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ledger.enter(Bucket::Poll);
            begun.store(ledger.since_tsc(), Ordering::Release);
            while !is_over.load(Ordering::Relaxed) {
                ledger.enter(Bucket::Wait);
                ledger.enter(Bucket::Poll);
            }
        });
        while begun.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
        let begun = begun.load(Ordering::Acquire);
        let wrong = (0..200_000).find_map(|_| {
            let least = now_tsc() - begun;
            let sum: u64 = ledger.read().iter().map(|sum| sum.cycles).sum();
            let known = least..=now_tsc() - begun;
            (!known.contains(&sum)).then_some((sum, known))
        });
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
}

#[test]
fn thread_that_waits_is_read_as_waiting_by_another() {
    let khz = tsc_khz();
    let ledger = Ledger::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ledger.set_clock(khz);
            ledger.begin_thread();
            // As a vCPU that halts: one system call, many switches, nobody who looks.
            ledger.enter(Bucket::Guest);
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        std::thread::sleep(Duration::from_millis(100));
        // On a busy host it may have to wait for its CPU for most of a while, but not of each.
        let mut seen = Vec::new();
        let is_halted = |[halted, guest, _, entries]: &[u64; 4]| {
            *halted > 150 * khz && *halted > 2 * guest && *entries > 100
        };
        while seen.len() < 10 && !seen.last().is_some_and(is_halted) {
            let before = ledger.read();
            std::thread::sleep(Duration::from_millis(300));
            let after = ledger.read();
            let of = |bucket: Bucket| after[bucket.index()].cycles - before[bucket.index()].cycles;
            let entries = after[Bucket::Halted.index()].entries - before[Bucket::Halted.index()].entries;
            seen.push([of(Bucket::Halted), of(Bucket::Guest), of(Bucket::OffCpu), entries]);
        }
        done.store(true, Ordering::Relaxed);
        assert!(seen.last().is_some_and(is_halted), "halted, guest, off CPU, halts: {seen:?}");
    });
}

#[test]
fn records_that_nobody_reads_in_time_are_counted_as_lost() {
    let khz = tsc_khz();
    let ledger = Ledger::default();
    ledger.set_clock(khz);
    ledger.begin_thread();
    ledger.enter(Bucket::Wait);
    for _ in 0..3000 {
        std::thread::sleep(Duration::from_micros(1));
    }
    ledger.enter(Bucket::Other);
    let before = of(&ledger.read(), Bucket::Blocked).cycles;
    std::thread::sleep(Duration::from_millis(20));
    ledger.enter(Bucket::Exit);
    let blocked = of(&ledger.read(), Bucket::Blocked).cycles - before;
    assert!(blocked > 15 * khz, "it goes on after that: {blocked}");
    let insight = ledger.insight();
    assert!(insight.switches && insight.lost > 0, "{insight:?}");
}
