//! Where and when the device work runs: in the guest's turns, on an I/O thread, or wherever the load says.
//!
//! The work itself is one function over NIC, disks and host channel ([`work`]); this module only decides who calls it.
//!
//! - **turn**: the guest, out of work, writes its turn register; the vCPU's thread does the work in that exit and waits
//!   there, polling briefly, until something comes or the guest's deadline passes.
//! - **thread**: the I/O thread does the work, on another core than the vCPU; the guest polls briefly, then halts, and
//!   is woken by an interrupt.
//! - **poll**: as thread, but the thread never sleeps.
//! - **auto**: turns or thread, by [`policy`]; only turns where no second core is to be had, or no NIC whose load would
//!   decide.
//!
//! A turn takes the vCPU. Where there are several, work for one would wait for another's turn; so there the work is a
//! thread's, and auto means thread.

mod cpus;
mod drains;
pub mod policy;
pub mod wait;
mod work;

use crate::account::ledger::{Bucket, Ledger, now_tsc};
use crate::device::pci::Interrupt;
use crate::machine::MachineError;
use crate::tables::shared::Shared;
use crate::trace::Tracing;
use abi::boot::HostPage;
use cpus::current_cpu;
use drains::Drains;
use policy::{Place, Policy};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use wait::Interest;
use work::lock;

pub use cpus::{Vcpus, allowed_cpus, pin_this_thread};
pub use work::{Channel, DeviceWork, Disk, Nic, Worked};

/// How the user wants device work placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum IoMode {
    /// In the guest's turns: one core, cheapest under load.
    Turn,
    /// On an I/O thread: two cores, soonest at low load.
    Thread,
    /// On an I/O thread that never sleeps: two cores, always busy.
    Poll,
    /// Turns or thread, by load and by free cores.
    #[default]
    Auto,
}

/// How long a turn polls before it blocks.
const TURN_POLL_US: u64 = 50;
/// How long the I/O thread polls after it had something to do.
const THREAD_POLL_US: u64 = 3;
/// Longest block, so that stopping and idling are noticed in any case.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// How long the thread blocks before it asks whether it is idle for good.
const THREAD_WAIT: Duration = Duration::from_millis(2);

/// What decides about and does the device work of one machine.
pub struct Placement {
    mode: IoMode,
    vcpus: Vcpus,
    work: DeviceWork,
    drains: Mutex<Drains>,
    /// The queues' doorbells, as one event.
    doorbell: EventFd,
    /// Ends any wait: the machine stops, or the place changes.
    kick: EventFd,
    host: Shared<HostPage>,
    /// Wake the guest when it may have halted for the thread's sake.
    wake: Vec<Arc<dyn Interrupt>>,
    policy: Mutex<Policy>,
    stopping: AtomicBool,
    /// The next turn ends at once.
    attention: AtomicBool,
    /// CPU on which the vCPU ran last.
    vcpu_cpu: AtomicU32,
    ticks_per_us: u64,
    /// Turns taken, and changes of place.
    turns: AtomicU64,
    changes: AtomicU64,
    /// The machine's records, which whoever does the work collects while it comes by.
    tracing: OnceLock<Arc<Tracing>>,
}

impl Placement {
    /// Places `work` as `mode` says.
    pub fn new(
        mode: IoMode,
        vcpus: &Vcpus,
        work: DeviceWork,
        doorbell: EventFd,
        host: Shared<HostPage>,
        wake: Vec<Arc<dyn Interrupt>>,
        tsc_khz: u64,
    ) -> Result<Arc<Self>, MachineError> {
        // Frames decide about the place: without a NIC it would never change.
        let only_turns = work.nic.is_none() || allowed_cpus().len() < 2;
        let mode = match mode {
            IoMode::Turn if vcpus.count > 1 => {
                return Err(MachineError::TurnsOfSeveral { vcpus: vcpus.count });
            }
            IoMode::Auto if vcpus.count > 1 => IoMode::Thread,
            IoMode::Auto if only_turns => IoMode::Turn,
            mode => mode,
        };
        let turns = matches!(mode, IoMode::Turn | IoMode::Auto);
        host.take_turns.store(u32::from(turns), Ordering::Release);
        // Whoever works polls the rings; doorbells are asked for before it sleeps.
        work.disarm();
        Ok(Arc::new(Self {
            mode,
            vcpus: vcpus.clone(),
            work,
            drains: Mutex::new(Drains::new()),
            doorbell,
            kick: EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("event descriptor"))?,
            host,
            wake,
            policy: Mutex::new(Policy::new()),
            stopping: AtomicBool::new(false),
            attention: AtomicBool::new(false),
            vcpu_cpu: AtomicU32::new(u32::MAX),
            ticks_per_us: (tsc_khz / 1000).max(1),
            turns: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            tracing: OnceLock::new(),
        }))
    }

    /// Whether an I/O thread is needed.
    pub fn needs_thread(&self) -> bool {
        self.mode != IoMode::Turn
    }

    /// The mode in force; `auto` has become `turn` or `thread` where there is nothing to choose.
    pub fn mode(&self) -> IoMode {
        self.mode
    }

    /// Turns taken so far.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Changes of place so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The NIC, for registers and counters, if there is one.
    pub fn nic(&self) -> Option<MutexGuard<'_, Nic>> {
        self.work.nic()
    }

    /// The disks, for registers and counters.
    pub fn disks(&self) -> impl Iterator<Item = MutexGuard<'_, Disk>> {
        self.work.disks.iter().map(|disk| lock(disk))
    }

    /// The host channel, for registers and counters.
    pub fn channel(&self) -> MutexGuard<'_, Channel> {
        lock(&self.work.channel)
    }

    /// The guest has ended: takes from the channel what it wrote last.
    pub(crate) fn take_last_words(&self) {
        while self.channel().work(&Ledger::default()).more {}
    }

    /// A doorbell that arrived as a register write, because its value was not the queue's number.
    pub fn ring(&self) {
        // A full counter means that it has been rung already.
        let _ = self.doorbell.write(1);
    }

    /// Makes a guest that waits, in a turn or halted, look around once.
    pub fn wake_guest(&self) {
        self.attention.store(true, Ordering::Release);
        // Not the kick: a turn that is about to wait would not see one that the I/O thread took.
        self.ring();
        self.interrupt_guest();
    }

    /// Something was taken from an environment: whatever devices begin from now on finds the rights that it has now. What is under
    /// way counts as the environment's next drain.
    pub fn begin_drain(&self, environment: u32) {
        let in_flight = self.work.in_flight(environment);
        lock(&self.drains).begin(environment, in_flight);
    }

    /// Up to which of an environment's drains no device accesses memory or blocks any more on the strength of what it had before.
    pub fn drained(&self, environment: u32) -> u32 {
        lock(&self.drains).over(environment)
    }

    /// Interrupts every vCPU.
    fn interrupt_guest(&self) {
        self.wake.iter().for_each(|line| line.signal());
    }

    /// From now on, records are collected by who does the device work.
    pub(crate) fn let_collect(&self, tracing: &Arc<Tracing>) {
        // A machine has one.
        let _ = self.tracing.set(Arc::clone(tracing));
    }

    /// The guest's rings fill up in a few milliseconds while somebody listens to all of it.
    #[inline]
    fn collect(&self, ledger: &Ledger) {
        if let Some(tracing) = self.tracing.get().filter(|tracing| tracing.is_on()) {
            let before = ledger.enter(Bucket::Tools);
            tracing.collect();
            ledger.enter(before);
        }
    }

    /// Ends all waits, for good.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.kick.write(1);
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The guest's turn, in the exit of its write to the turn register: returns when frames were received, a disk completed
    /// something, the deadline (0: none) passed, or the vCPU is wanted for something else, which a signal ends the wait for. At
    /// once where there are several vCPUs: nobody is told to take turns there, and whoever does is not to be waited for.
    pub fn turn(&self, ledger: &Ledger, deadline_tsc: u64, is_asked: impl Fn() -> bool) {
        if self.vcpus.count > 1 {
            return;
        }
        let before = ledger.enter(Bucket::Poll);
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.vcpu_cpu.store(current_cpu(), Ordering::Relaxed);
        self.collect(ledger);
        let poll_until = now_tsc() + TURN_POLL_US * self.ticks_per_us;
        loop {
            let worked = self.work.work(ledger);
            if worked.is_news() {
                if worked.net.received > 0 {
                    self.received_in_turn(worked.net.received);
                }
                break;
            }
            let now = now_tsc();
            let over = self.stopping() || (deadline_tsc != 0 && now >= deadline_tsc);
            if over || self.attention.load(Ordering::Acquire) {
                self.attention.store(false, Ordering::Relaxed);
                break;
            }
            if is_asked() {
                break;
            }
            if worked.is_more() {
                continue;
            }
            if now < poll_until {
                ledger.enter(Bucket::Poll);
                std::hint::spin_loop();
                continue;
            }
            if self.work.arm_backend() {
                self.work.disarm_backend();
                continue;
            }
            ledger.enter(Bucket::Wait);
            self.wait(&worked, self.until(deadline_tsc, now));
            self.work.disarm_backend();
            ledger.enter(Bucket::Poll);
        }
        ledger.enter(before);
    }

    fn received_in_turn(&self, frames: u32) {
        if self.mode != IoMode::Auto {
            return;
        }
        let change = lock(&self.policy).received(frames);
        if change == Some(Place::Thread) {
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.host.take_turns.store(0, Ordering::Release);
            let _ = self.kick.write(1);
        }
    }

    /// How long to block until a deadline.
    fn until(&self, deadline_tsc: u64, now: u64) -> Duration {
        if deadline_tsc == 0 {
            return WAIT_MAX;
        }
        Duration::from_micros(deadline_tsc.saturating_sub(now) / self.ticks_per_us + 1).min(WAIT_MAX)
    }

    /// Blocks on backend, disks, doorbell and kick. Returns whether it was kicked.
    fn wait(&self, worked: &Worked, timeout: Duration) -> bool {
        let mut list = [(self.kick.as_raw_fd(), Interest::Readable); 4];
        list[1] = (self.doorbell.as_raw_fd(), Interest::Readable);
        list[2] = (self.work.finished_fd(), Interest::Readable);
        let mut count = 3;
        // A starved queue leaves frames in the backend: watching it would not block.
        let net = &worked.net;
        let mut timeout = timeout;
        if let Some((fd, room_is_writable, due)) = self.work.backend_events() {
            if !net.receive_starved || net.backend_full {
                let both = net.backend_full && room_is_writable;
                list[3] = (fd, if both { Interest::ReadableOrWritable } else { Interest::Readable });
                count = 4;
            }
            if let Some(due) = due {
                timeout = timeout.min(due.saturating_duration_since(Instant::now()));
            }
        }
        let ready = wait::wait(&list[..count], Some(timeout));
        if ready & 2 != 0 {
            let _ = self.doorbell.read();
        }
        if ready & 4 != 0 {
            // Before the work that looks what was finished, so nothing is missed.
            let _ = self.work.finished.read();
        }
        ready & 1 != 0
    }

    /// The I/O thread's life.
    pub fn run_thread(&self, ledger: &Ledger) {
        while !self.stopping() {
            if self.host.take_turns.load(Ordering::Acquire) != 0 {
                ledger.enter(Bucket::Wait);
                wait::wait(&[(self.kick.as_raw_fd(), Interest::Readable)], None);
                self.take_kick();
                continue;
            }
            self.avoid_vcpus();
            self.serve(ledger);
        }
    }

    /// Does device work until the place changes or the machine stops.
    fn serve(&self, ledger: &Ledger) {
        let mut last_work = now_tsc();
        let mut worked;
        loop {
            ledger.enter(Bucket::Poll);
            worked = self.work.work(ledger);
            if self.stopping() {
                return;
            }
            let busy = worked.is_anything();
            if busy {
                self.collect(ledger);
            }
            let now = now_tsc();
            if busy {
                last_work = now;
            }
            let received = worked.net.received;
            if received > 0 && self.change(|policy| policy.received(received)) {
                return;
            }
            let spin = self.mode == IoMode::Poll || now - last_work < THREAD_POLL_US * self.ticks_per_us;
            if busy || worked.is_more() || spin {
                if !busy {
                    std::hint::spin_loop();
                }
                continue;
            }
            if self.change(|policy| policy.idle((now - last_work) / self.ticks_per_us)) {
                return;
            }
            if self.work.arm() | self.work.arm_backend() {
                self.work.disarm();
                self.work.disarm_backend();
                continue;
            }
            ledger.enter(Bucket::Wait);
            let timeout = if self.mode == IoMode::Auto { THREAD_WAIT } else { WAIT_MAX };
            if self.wait(&worked, timeout) {
                self.take_kick();
            }
            self.work.disarm();
            self.work.disarm_backend();
        }
    }

    /// Consumes a kick. Only the I/O thread does: a turn that sees one just goes round once more.
    fn take_kick(&self) {
        if !self.stopping() {
            let _ = self.kick.read();
        }
    }

    /// Asks the policy; if it says "turns", hands over and says so.
    fn change(&self, ask: impl FnOnce(&mut Policy) -> Option<Place>) -> bool {
        if self.mode != IoMode::Auto || ask(&mut lock(&self.policy)) != Some(Place::Turn) {
            return false;
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        // A guest that looked at its rings before the thread's last work, and at this flag after it, must not wait in a
        // turn for what is there already: its first turn ends at once.
        self.attention.store(true, Ordering::Release);
        self.host.take_turns.store(1, Ordering::SeqCst);
        // The guest may be halted, waiting for the thread that now rests.
        self.interrupt_guest();
        true
    }

    /// Moves this thread off the CPUs of the vCPUs, if there are others.
    fn avoid_vcpus(&self) {
        pin_this_thread(&self.vcpus.io_cpus(&allowed_cpus(), self.vcpu_cpu.load(Ordering::Relaxed)));
    }
}
