//! A probe that burns, a NIC's other end and a disk that burn, and the account of all of it.

use abi::boot::phase;
use exovm::account::AccountSnapshot;
use exovm::account::ledger::now_tsc;
use exovm::backend::disk::{Access, Store, Zeroing};
use exovm::backend::iovec::{gather, scatter};
use exovm::backend::{Backend, BackendError, IoVec, IoVecMut, Offloads, Written};
use exovm::machine::{DiskSetup, End, Machine, MachineConfig, NetSetup};
use exovm::placement::IoMode;
pub(crate) use exovm_ci::host::undisturbed;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the steps may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How far the account may be from what was burnt.
pub(crate) const TOLERANCE: f64 = 0.02;
/// One machine at a time: two would have the CPUs from each other all the time, and a test looks closely at one.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

/// Burns about so many cycles, without those in which others had the CPU; how many the calling thread had it for, by the host's own
/// count.
pub(crate) fn burn(cycles: u64) -> u64 {
    // What asking the host takes is burnt, too.
    let before = Waited::now();
    let (mut own, mut last) = (0, now_tsc());
    while own < cycles {
        let passed = now_tsc() - last;
        last += passed;
        own += if passed < tsc_khz() / 20 { passed } else { 0 };
    }
    let after = Waited::now();
    (after.until - before.since).saturating_sub(after.cycles - before.cycles)
}

/// How long the calling thread has waited for a CPU in its life, and when that was asked.
struct Waited {
    since: u64,
    cycles: u64,
    until: u64,
}

impl Waited {
    /// Asked in one go: a wait in the midst of it would be on either side.
    fn now() -> Self {
        let ask = || {
            let since = now_tsc();
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the host counts that");
            let until = now_tsc();
            // The second number is nanoseconds.
            let ns: u64 = text.split(' ').nth(1).and_then(|ns| ns.parse().ok()).expect("a number");
            Self { since, cycles: (u128::from(ns) * u128::from(tsc_khz()) / 1_000_000) as u64, until }
        };
        let asked = (0..4).map(|_| ask()).find(|asked| asked.until - asked.since < tsc_khz() / 20);
        asked.unwrap_or_else(ask)
    }
}

/// TSC ticks per millisecond, as KVM says.
fn tsc_khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(|| {
        let vm = kvm_ioctls::Kvm::new().and_then(|kvm| kvm.create_vm()).expect("KVM");
        vm.create_vcpu(0).and_then(|vcpu| vcpu.get_tsc_khz()).expect("a clock").into()
    })
}

/// What the probe said of a step, in cycles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burnt {
    /// Its own cycles.
    pub(crate) own: u64,
    /// Longer gaps between two looks at the clock, which are ticks of the host and the like; of a gap in which the slice ended, what was
    /// before that.
    pub(crate) gaps: u64,
    /// From the end of a slice on.
    pub(crate) away: u64,
    /// What KVM and the VMM said that they took of all.
    pub(crate) taken: u64,
}

impl Burnt {
    /// All that passed in it without what was taken, if no other environment had the vCPU.
    pub(crate) fn alone(&self) -> u64 {
        (self.own + self.gaps + self.away).saturating_sub(self.taken)
    }
}

/// What came of a run.
pub(crate) struct Run {
    pub(crate) account: AccountSnapshot,
    log: Vec<String>,
}

impl Run {
    /// The step of that word of environment `number`.
    pub(crate) fn burnt_by(&self, step: &str, number: usize) -> Burnt {
        let several = self.account.environments.len() > 1;
        let whose = if several { format!("[{number}] ") } else { String::new() };
        let mark = format!("{whose}probe: {step} own ");
        let text = self.log.iter().find_map(|line| line.split_once(&mark));
        let text = text.unwrap_or_else(|| panic!("{step} was not done: {:#?}", self.log)).1;
        let mut numbers = text.split_whitespace().step_by(2).map(|word| word.parse().expect("a number"));
        let mut next = || numbers.next().expect("four numbers");
        Burnt { own: next(), gaps: next(), away: next(), taken: next() }
    }

    pub(crate) fn burnt(&self, step: &str) -> Burnt {
        self.burnt_by(step, 0)
    }

    /// Fails unless `found` is what that step burnt: all that passed in it, without what was taken; the step's own cycles at least, of
    /// which gaps too short to be seen as such may have been taken.
    pub(crate) fn assert_burnt(&self, what: &str, found: u64, step: &str) {
        let burnt = self.burnt(step);
        let known = burnt.alone();
        assert_near(what, found, known);
        assert!(known > burnt.own / 100 * 95, "{what}: {burnt:?}");
    }

    /// Cycles of a span, of all environments together.
    pub(crate) fn span(&self, name: &str) -> u64 {
        let spans = self.account.sites.iter().filter(|site| site.kind == "span" && site.name == name);
        spans.map(|site| site.total).sum()
    }

    /// The same of one environment.
    pub(crate) fn span_of(&self, environment: u32, name: &str) -> u64 {
        let mut sites = self.account.sites.iter();
        let is_it = |site: &&exovm::account::snapshot::SiteSum| {
            site.kind == "span" && site.name == name && site.environment == Some(environment)
        };
        sites.find(is_it).map_or(0, |site| site.total)
    }

    /// Cycles of a bucket, of all threads whose names begin so.
    pub(crate) fn bucket(&self, threads: &str, name: &str) -> u64 {
        let threads = self.account.threads.iter().filter(|thread| thread.name.starts_with(threads));
        let buckets = threads.flat_map(|thread| &thread.buckets).filter(|bucket| bucket.name == name);
        buckets.map(|bucket| bucket.cycles).sum()
    }

    /// Cycles of which the test itself is not sure, when the host had others run in the place of the threads whose names begin so: test
    /// and account know what that took by different counts of the host's, which may differ by a tenth.
    pub(crate) fn unsure(&self, threads: &str) -> u64 {
        let threads = self.account.threads.iter().filter(|thread| thread.name.starts_with(threads));
        threads.filter_map(|thread| thread.waited_for_cpu_cycles).sum::<u64>() / 10
    }

    /// Fails unless a bucket of the threads whose names begin so has what the test burnt in it.
    pub(crate) fn assert_burnt_in(&self, what: &str, threads: &str, found: u64, burnt: u64) {
        let unsure = self.unsure(threads);
        let allowed = (burnt as f64 * TOLERANCE) as u64 + unsure;
        assert!(
            found.abs_diff(burnt) <= allowed,
            "{what}: {found} cycles found, {burnt} burnt, unsure of {unsure}"
        );
    }

    /// Fails if more than a little of the vCPUs' time in the guest is in nobody's account, or in two. How little it is under load `load`
    /// says; here a machine is looked at for half a second, and one slice that the host gives to others in the wrong moment is a percent.
    pub(crate) fn assert_explained(&self) {
        let unattributed = self.account.unattributed.expect("accounted all the time");
        let share = unattributed.in_guest_cycles as f64 / self.account.tsc as f64;
        assert!(share.abs() < 0.02, "unattributed: {share}");
    }
}

/// Fails unless `found` is `expected` within the tolerance.
pub(crate) fn assert_near(what: &str, found: u64, expected: u64) {
    let error = found as f64 / expected.max(1) as f64 - 1.0;
    assert!(
        error.abs() <= TOLERANCE,
        "{what}: {found} cycles found, {expected} burnt: {:.2} %",
        100.0 * error
    );
}

/// Fails unless something between `least` and `most` was found where something between `low` and `high` is known, within the
/// tolerance.
pub(crate) fn assert_between(what: &str, least: u64, most: u64, low: u64, high: u64) {
    let (bottom, top) = (low as f64 * (1.0 - TOLERANCE), high as f64 * (1.0 + TOLERANCE));
    let meet = most as f64 >= bottom && least as f64 <= top;
    assert!(meet, "{what}: {least} to {most} cycles found, {low} to {high} known");
}

/// A machine's configuration for these steps.
pub(crate) fn config(steps: &[&str]) -> MachineConfig {
    MachineConfig {
        io: IoMode::Turn,
        arguments: std::iter::once("attribution").chain(steps.iter().copied()).map(str::to_owned).collect(),
        ..MachineConfig::new(exovm::images::load("probe").expect("built in"))
    }
}

/// Does the steps, and gives the account of the time between. `during` runs meanwhile, with what was logged so far.
pub(crate) fn run_beside(mut config: MachineConfig, during: impl FnOnce(&Machine)) -> Run {
    let _alone = lock(&ALONE);
    tsc_khz();
    let log = Arc::new(Mutex::new(Vec::<String>::new()));
    let sink = Arc::clone(&log);
    config.log = Box::new(move |line| lock(&sink).push(line.to_owned()));
    let environments = config.environments.unwrap_or(1) as usize;
    let mut machine = Machine::start(config).expect("the machine starts");
    let until = |what: &dyn Fn() -> bool| {
        let end = Instant::now() + PATIENCE;
        while !what() {
            assert!(
                Instant::now() < end && machine.wait(Some(Duration::ZERO)).is_none(),
                "{:#?}",
                lock(&log)
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    // What an environment does before its first step is none of them.
    let wait = |line: &&String| line.ends_with("probe: waits to be looked at");
    until(&|| lock(&log).iter().filter(wait).count() == environments);
    let looking = machine.accounts();
    let before = machine.account();
    during(&machine);
    let is_done = |number| {
        let pages = machine.environment_pages(number).expect("an environment");
        pages.status.phases[phase::READY].load(Ordering::Acquire) != 0
    };
    until(&|| (0..environments).all(is_done));
    let account = machine.account().since(&before);
    drop(looking);
    let ended = machine.stop(Duration::from_secs(5));
    assert_eq!(ended, End::PowerOff { status: 0 }, "{:#?}", lock(&log));
    drop(machine);
    let log = lock(&log).clone();
    eprintln!("{log:#?}\n{}", exovm::account::table::print(&account));
    for site in account.sites.iter().filter(|site| exovm::account::guest::AWAY.contains(&site.name.as_str()))
    {
        eprintln!("{}: {:?} {}", site.name, site.environment, site.total);
    }
    for thread in &account.threads {
        let off_cpu =
            thread.buckets.iter().find(|bucket| bucket.name == "off CPU").map(|bucket| bucket.cycles);
        eprintln!("{}: {off_cpu:?} off CPU, {:?} by schedstat", thread.name, thread.waited_for_cpu_cycles);
    }
    Run { account, log }
}

/// The same, with nothing beside.
pub(crate) fn run(config: MachineConfig) -> Run {
    run_beside(config, |_| ())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a device's other end has burnt, by the call that did it.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) writes: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) flushes: AtomicU64,
}

impl Sink {
    fn burn(of: &AtomicU64, cycles: u64) {
        of.fetch_add(burn(cycles), Ordering::Relaxed);
    }

    pub(crate) fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// A NIC's other end that takes its time.
pub(crate) struct BurningWire {
    pub(crate) sink: Arc<Sink>,
    pub(crate) cycles: u64,
    /// Frames that it has for the guest: one for each that came.
    pub(crate) frames: u32,
}

impl Backend for BurningWire {
    fn write_frame(&mut self, _: &[IoVec<'_>]) -> Written {
        Sink::burn(&self.sink.writes, self.cycles);
        self.frames += 1;
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let Some(left) = self.frames.checked_sub(1) else { return Ok(None) };
        self.frames = left;
        // More than the reads that find nothing take.
        Sink::burn(&self.sink.reads, self.cycles * 2);
        let mut frame = [0u8; 12 + 64];
        frame[12..18].fill(0xFF);
        frame[24..26].copy_from_slice(&[0x88, 0xB5]);
        Ok(Some(scatter(buffers, 0, &frame)))
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }
}

/// A NIC on such a wire.
pub(crate) fn net(sink: &Arc<Sink>, cycles: u64) -> NetSetup {
    NetSetup {
        backend: Box::new(BurningWire { sink: Arc::clone(sink), cycles, frames: 0 }),
        ipv4: abi::boot::Ipv4Config::default(),
        ipv6: abi::boot::Ipv6Config::default(),
        name_servers: abi::boot::NameServers::default(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu_bytes: 1500,
        queue_pairs: 1,
    }
}

/// A disk that takes its time.
pub(crate) struct BurningStore {
    pub(crate) sink: Arc<Sink>,
    pub(crate) cycles: u64,
    /// Reads are at hand: the device work does them itself.
    pub(crate) at_hand: bool,
}

impl Store for BurningStore {
    fn len_bytes(&self) -> u64 {
        64 * 4096
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }

    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>> {
        if self.at_hand { self.read(offset, pieces).map(Some) } else { Ok(None) }
    }

    fn read(&self, _: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize> {
        Sink::burn(&self.sink.reads, self.cycles);
        Ok(scatter(pieces, 0, &[7; 4096]))
    }

    fn write(&self, _: u64, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        Sink::burn(&self.sink.writes, self.cycles);
        let mut bytes = [0; 4096];
        Ok(gather(pieces, 0, &mut bytes))
    }

    fn flush(&self) -> io::Result<()> {
        Sink::burn(&self.sink.flushes, self.cycles);
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: Zeroing) -> io::Result<()> {
        Ok(())
    }
}

/// Such a disk.
pub(crate) fn disk(sink: &Arc<Sink>, cycles: u64, at_hand: bool) -> DiskSetup {
    DiskSetup { store: Arc::new(BurningStore { sink: Arc::clone(sink), cycles, at_hand }) }
}
