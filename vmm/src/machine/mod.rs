//! A virtual machine: memory, vCPUs, a NIC, disks, and the threads that run them. Nothing here is global to the process, so
//! several machines live side by side.
//!
//! [`Machine::start`] does everything up to the guest's first instruction; [`Machine::wait`] waits for the end;
//! dropping a machine stops it.

pub mod boot;
mod channel;
mod control;
mod disk;
mod error;
pub mod kvm;
mod log;
pub mod memory;
mod nic;
mod report;
mod service;
mod slots;
mod statistics;
mod team;
mod vcpu;

pub use disk::DiskSetup;
pub use error::MachineError;
pub use log::LogSink;
pub use nic::{NetSetup, QUEUE_PAIRS};

pub(crate) use vcpu::share_time_line;

use crate::account::{
    self, AccountSnapshot,
    ledger::{Bucket, Ledger},
};
use crate::channel::Clients;
use crate::placement::{DeviceWork, IoMode, Placement, Vcpus};
use crate::tables::{Memory, TableAddresses};
use abi::boot::{Ipv4Config, VCPUS_MAX, phase};

use boot::BootConfig;
use boot::descriptors::Start;
use boot::pages::SharedPages;
use control::Control;
use exovm_image::container::Image;
use kvm_ioctls::VmFd;
use log::Logs;
use report::Reporter;
use slots::Slots;
use statistics::Statistics;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use team::{Team, TeamEnd};
use vcpu::{Vcpu, VcpuEnd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The signal that ends KVM_RUN: its handler does nothing, the interruption is all.
const KICK_SIGNAL: i32 = 1;

/// What a machine is made of.
pub struct MachineConfig {
    /// What it boots.
    pub image: Image,
    /// Its memory; `None`: what the image asks for.
    pub memory_bytes: Option<u64>,
    /// Its network interface.
    pub net: Option<NetSetup>,
    /// Its disks, in the order in which they follow the network interface in the device table.
    pub disks: Vec<DiskSetup>,
    /// Where device work is done.
    pub io: IoMode,
    /// vCPUs, 1 to [`abi::boot::VCPUS_MAX`]; `None`: as many as the image asks for.
    pub vcpus: Option<u32>,
    /// CPUs that the vCPUs' threads are bound to, one for each; empty: to none.
    pub vcpu_cpus: Vec<u32>,
    /// The image's arguments, for each environment.
    pub arguments: Vec<String>,
    /// Environments that run the image's program from the start; `None`: as many as the image asks for.
    pub environments: Option<u32>,
    /// Places for further environments; `None`: as many as the image asks for.
    pub spare_environments: Option<u32>,
    /// Where the guest's log goes, line by line.
    pub log: LogSink,
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched it off with this status.
    PowerOff {
        /// Exit status.
        status: u32,
    },
    /// It was asked to stop and did.
    Stopped,
    /// A fault; the report is for people, several lines.
    Fault {
        /// The report.
        report: String,
    },
}

/// A moment of the start, in the order of happening.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseStamp {
    /// What was reached.
    pub name: &'static str,
    /// When, on the TSC.
    pub tsc: u64,
}

/// State shared by a machine's threads and its owner.
pub(crate) struct Shared {
    pub(crate) memory: Arc<Memory>,
    /// By place.
    pub(crate) pages: Vec<SharedPages>,
    /// Environments that run from the start.
    environments: usize,
    pub(crate) logs: Arc<Logs>,
    tables_at: TableAddresses,
    pub(crate) placement: Arc<Placement>,
    pub(crate) clients: Clients,
    pub(crate) ledgers: Vec<(String, Arc<Ledger>)>,
    pub(crate) tsc_khz: u64,
    started_tsc: u64,
    sites: Vec<exovm_image::program::Site>,
    vcpus: u32,
    team: Arc<Team>,
    end: Mutex<Option<End>>,
    ended: Condvar,
    /// Readable once the machine has ended.
    end_event: EventFd,
}

/// A running machine.
pub struct Machine {
    shared: Arc<Shared>,
    host_phases: Vec<PhaseStamp>,
    /// Of each vCPU.
    statistics: Vec<std::io::Result<Statistics>>,
    vcpus: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    memory_bytes: u64,
}

impl Machine {
    /// Makes a machine and lets it run.
    pub fn start(mut config: MachineConfig) -> Result<Self, MachineError> {
        let started_tsc = account::ledger::now_tsc();
        let mut host_phases = Vec::new();
        let mut reached = |name| host_phases.push(PhaseStamp { name, tsc: account::ledger::now_tsc() });
        let kvm = kvm::open()?;
        let memory_bytes = config.memory_bytes.unwrap_or(config.image.manifest.memory_mib << 20);
        let manifest = &config.image.manifest;
        let vcpus = Vcpus {
            count: config.vcpus.unwrap_or(manifest.vcpus),
            cpus: std::mem::take(&mut config.vcpu_cpus),
        };
        if !(1..=VCPUS_MAX as u32).contains(&vcpus.count) {
            return Err(MachineError::Vcpus { vcpus: vcpus.count });
        }
        if !vcpus.cpus.is_empty() && vcpus.cpus.len() != vcpus.count as usize {
            return Err(MachineError::VcpuCpus { cpus: vcpus.cpus.len(), vcpus: vcpus.count });
        }
        let vm = Arc::new(kvm::create(&kvm)?);
        let fds: Vec<_> =
            (0..vcpus.count).map(|number| vcpu::create(&kvm, &vm, number)).collect::<Result<_, _>>()?;
        let first_fd = fds.first().ok_or(MachineError::Internal("no vCPU"))?;
        let tsc_khz = u64::from(first_fd.get_tsc_khz().map_err(MachineError::kvm("KVM_GET_TSC_KHZ"))?);
        reached("virtual machine");
        let extended: Vec<_> =
            fds.iter().map(|fd| vcpu::enable_extended_state(&kvm, fd)).collect::<Result<_, _>>()?;
        let boot_config = BootConfig {
            ipv4: config.net.as_ref().map_or(Ipv4Config::default(), |net| net.ipv4),
            arguments: config.arguments,
            tsc_khz,
            vcpus: vcpus.count,
            environments: config.environments.unwrap_or(manifest.environments),
            spare_environments: config.spare_environments.unwrap_or(manifest.spare_environments),
            parent: manifest.parent,
            flows: manifest.flows,
            guardian: manifest.guardian,
            // The same for all.
            resume_mask: extended.first().map_or(0, |extended| extended.mask),
        };
        let mut parts = None;
        let prepared = boot::prepare(&config.image, memory_bytes, &boot_config, |tables, memory| {
            kvm::add_memory(&vm, memory)?;
            let mut slots = Slots::new(&vm)?;
            let nic = config.net.map(|net| nic::attach(net, &mut slots, tables)).transpose()?;
            let mut disks = Vec::new();
            let finished = EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("event descriptor"))?;
            for disk in config.disks {
                let finished = finished.try_clone().map_err(MachineError::host("event descriptor"))?;
                disks.push(disk::attach(disk, &mut slots, tables, finished)?);
            }
            let channel = channel::attach(&mut slots, tables)?;
            let (attached, connections) = slots.finish(vcpus.count)?;
            parts = Some((connections, DeviceWork { nic, disks, finished, channel }));
            Ok(attached)
        })?;
        let (connections, work) = parts.ok_or(MachineError::Internal("no devices"))?;
        reached("memory");
        let root_gpa = *prepared.roots_gpa.first().ok_or(MachineError::Internal("no place"))?;
        for ((vcpu, fd), extended) in (0u32..).zip(&fds).zip(extended) {
            let start = Start { vcpu, root_gpa, boot_page_gpa: prepared.boot_page_gpa, extended };
            prepared.descriptors.load(fd, &prepared.kernel, start)?;
        }
        let first = prepared.pages.first().ok_or(MachineError::Internal("no place"))?;
        service::refresh_time(&first.time, tsc_khz);
        let host = first.host.clone();

        let disk_ledgers = work.disk_ledgers();
        let clients = Clients::new(channel::host_ports(&work.channel));
        let (doorbell, wake) = (connections.doorbell, connections.wake);
        let placement = Placement::new(config.io, &vcpus, work, doorbell, host, wake, tsc_khz)?;
        let mut ledgers: Vec<_> =
            (0..vcpus.count).map(|number| (vcpu_name(number), Arc::<Ledger>::default())).collect();
        let vcpu_ledgers: Vec<_> = ledgers.iter().map(|(_, ledger)| Arc::clone(ledger)).collect();
        let io_ledger = placement.needs_thread().then(|| Arc::new(Ledger::default()));
        ledgers.extend(io_ledger.iter().map(|ledger| ("io".to_owned(), Arc::clone(ledger))));
        ledgers.extend(disk_ledgers);
        let team = Arc::new(Team::default());
        let logs = Arc::new(Logs::new(&prepared.pages, config.log));
        let shared = Arc::new(Shared {
            memory: Arc::clone(&prepared.memory),
            pages: prepared.pages,
            environments: boot_config.environments as usize,
            logs: Arc::clone(&logs),
            tables_at: prepared.tables_at,
            placement: Arc::clone(&placement),
            clients,
            ledgers,
            tsc_khz,
            started_tsc,
            sites: config.image.program.sites.clone(),
            vcpus: vcpus.count,
            team: Arc::clone(&team),
            end: Mutex::new(None),
            ended: Condvar::new(),
            end_event: EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("event descriptor"))?,
        });
        register_kick_signal()?;
        let reporter = Arc::new(Reporter::new(config.image, prepared.roots_gpa, vcpus.count));
        let control = Control::new(
            prepared.memory,
            Arc::clone(&placement),
            Arc::clone(&reporter),
            logs,
            prepared.fault_gpa,
        );
        let statistics = fds.iter().map(Statistics::open).collect();
        let mut machine = Self {
            shared,
            host_phases: Vec::new(),
            statistics,
            vcpus: Vec::new(),
            others: Vec::new(),
            memory_bytes,
        };
        let mut members = Vec::new();
        for ((number, fd), ledger) in (0u32..).zip(fds).zip(vcpu_ledgers) {
            let (bus, placement) = (Arc::clone(&connections.bus), Arc::clone(&placement));
            let vcpu = Vcpu::new(fd, bus, placement, ledger, Arc::clone(&team), control.of_vcpu(number));
            members.push(Member {
                number,
                vcpu,
                vm: Arc::clone(&vm),
                cpu: vcpus.cpus.get(number as usize).copied(),
            });
        }
        drop(vm);
        let started = machine.start_threads(io_ledger, members, &reporter);
        // Those that were made begin, also if it is only to end.
        if started.is_err() {
            team.stop();
        }
        team.begin(machine.vcpus.len());
        if let Err(error) = started {
            machine.abandon(&reporter);
            return Err(error);
        }
        reached("devices");
        machine.host_phases = host_phases;
        Ok(machine)
    }

    /// Makes all threads. The vCPUs' wait for each other.
    fn start_threads(
        &mut self,
        io_ledger: Option<Arc<Ledger>>,
        members: Vec<Member>,
        reporter: &Arc<Reporter>,
    ) -> Result<(), MachineError> {
        if let Some(ledger) = io_ledger {
            let placement = Arc::clone(&self.shared.placement);
            self.others.push(spawn("exovm-io", move || {
                ledger.enter(Bucket::Other);
                placement.run_thread(&ledger);
            })?);
        }
        self.others.push(service::start(Arc::clone(&self.shared))?);
        for member in members {
            let (shared, reporter) = (Arc::clone(&self.shared), Arc::clone(reporter));
            let name = format!("exovm-{}", vcpu_name(member.number));
            self.vcpus.push(spawn(&name, move || member.live(&shared, &reporter))?);
        }
        Ok(())
    }

    /// Ends a machine whose threads could not all be made.
    fn abandon(&mut self, reporter: &Reporter) {
        if self.vcpus.is_empty() {
            self.shared.finish(reporter, &TeamEnd { vcpu: 0, end: VcpuEnd::Stopped });
        }
        self.join();
    }

    /// Waits until the machine has ended, at most for `timeout`.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<End> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut end = self.shared.end();
        while end.is_none() {
            end = match deadline {
                None => self.shared.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.shared.ended.wait_timeout(end, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        end.clone()
    }

    /// Waits until all environments that run from the start have said that they are ready, or the guest has ended. Returns whether there is nothing to wait for any
    /// more.
    pub fn is_ready(&self, timeout: Duration) -> bool {
        self.wait_ready(timeout);
        self.shared.is_ready() || self.shared.has_ended()
    }

    /// Waits until all environments that run from the start serve, or the guest has ended. Returns the TCP port that the first
    /// of them serves, if any.
    pub fn wait_ready(&self, timeout: Duration) -> Option<u16> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.shared.is_ready() {
                return self.shared.port(0);
            }
            if Instant::now() >= deadline || self.shared.end().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Asks the guest to finish, and does not wait for it.
    pub fn ask_to_stop(&self) {
        // One page, seen by all.
        self.pages().host.stop.store(1, Ordering::Release);
        self.shared.wake_guest();
    }

    /// Asks the guest to finish, and ends the machine when it did or after `grace`.
    pub fn stop(&mut self, grace: Duration) -> End {
        let end = self.end(grace);
        self.join();
        end
    }

    /// As [`Self::stop`], for who shares the machine: its threads may still be finishing.
    pub fn end(&self, grace: Duration) -> End {
        self.ask_to_stop();
        if self.wait(Some(grace)).is_none() {
            self.shared.team.stop();
            self.shared.placement.stop();
            while self.wait(Some(Duration::from_millis(1))).is_none() {
                self.shared.team.kick();
            }
        }
        self.wait(None).unwrap_or(End::Stopped)
    }

    fn join(&mut self) {
        for thread in self.vcpus.drain(..).chain(self.others.drain(..)) {
            if thread.join().is_err() {
                tracing::error!("a thread of the machine panicked");
            }
        }
        self.shared.clients.end();
    }

    /// When each phase of the start was reached: the VMM's, then the guest's so far, by the last environment that has reached
    /// it of those that run from the start.
    pub fn phases(&self) -> Vec<PhaseStamp> {
        let mut phases = self.host_phases.clone();
        for (number, name) in phase::NAMES.into_iter().enumerate() {
            let tsc = |pages: &SharedPages| pages.status.phases[number].load(Ordering::Relaxed);
            let tsc = self.shared.running_pages().map(tsc).max().unwrap_or(0);
            if tsc != 0 {
                phases.push(PhaseStamp { name, tsc });
            }
        }
        phases
    }

    /// What KVM itself has counted of a vCPU so far, by KVM's names.
    pub fn kvm_statistics(&self, vcpu: usize) -> std::io::Result<Vec<(String, u64)>> {
        match self.statistics.get(vcpu) {
            Some(Ok(statistics)) => statistics.read(),
            Some(Err(error)) => Err(std::io::Error::new(error.kind(), error.to_string())),
            None => Err(std::io::Error::other(format!("the machine has no vCPU {vcpu}"))),
        }
    }

    /// How many vCPUs it has.
    pub fn vcpus(&self) -> u32 {
        self.shared.vcpus
    }

    /// TSC ticks per millisecond.
    pub fn tsc_khz(&self) -> u64 {
        self.shared.tsc_khz
    }

    /// Bytes of guest memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Guest memory, for tests and tools.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Where the kernel's tables lie in guest memory, for tests and tools.
    pub fn tables_at(&self) -> TableAddresses {
        self.shared.tables_at
    }

    /// The pages shared with the first environment, for tests and tools.
    pub fn pages(&self) -> &SharedPages {
        // A machine without a place does not start.
        &self.shared.pages[0]
    }

    /// The pages shared with the environment in this place, running or not.
    pub fn environment_pages(&self, place: usize) -> Option<&SharedPages> {
        self.shared.pages.get(place)
    }

    /// How many environments run from the start.
    pub fn environments(&self) -> usize {
        self.shared.environments
    }

    /// The TCP port that an environment has said that it serves.
    pub fn port(&self, environment: usize) -> Option<u16> {
        self.shared.port(environment)
    }

    /// The placement of device work.
    pub fn placement(&self) -> &Placement {
        &self.shared.placement
    }

    /// Who is attached to the ports of the host channel, and how to be.
    pub fn clients(&self) -> &Clients {
        &self.shared.clients
    }

    /// The account up to now.
    pub fn account(&self) -> AccountSnapshot {
        self.shared.account()
    }

    /// A handle for the control socket.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Readable once the machine has ended.
    pub fn end_event(&self) -> &EventFd {
        &self.shared.end_event
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.vcpus.is_empty() {
            self.stop(Duration::ZERO);
        }
    }
}

impl Shared {
    fn end(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All vCPUs have ended: say so, and end everything else.
    fn finish(&self, reporter: &Reporter, end: &TeamEnd) {
        let report = reporter.report(&self.memory, end);
        let end = match (&end.end, report) {
            (VcpuEnd::PowerOff { status }, _) => End::PowerOff { status: *status },
            (_, Some(report)) => End::Fault { report },
            (_, None) => End::Stopped,
        };
        self.placement.stop();
        // What the guest wrote last; clients read it before they hear of the end.
        self.placement.take_last_words();
        self.clients.say_end();
        *self.end() = Some(end);
        self.ended.notify_all();
        let _ = self.end_event.write(1);
    }

    /// How long the machine exists.
    pub(crate) fn uptime_ms(&self) -> u64 {
        account::ledger::now_tsc().saturating_sub(self.started_tsc) / self.tsc_khz.max(1)
    }

    /// Whether the machine has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    /// The pages of the environments that run from the start.
    fn running_pages(&self) -> impl Iterator<Item = &SharedPages> {
        self.pages.iter().take(self.environments)
    }

    /// Whether all of them have said that they are ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.running_pages().all(|pages| pages.status.phases[phase::READY].load(Ordering::Acquire) != 0)
    }

    /// The TCP port that an environment serves.
    pub(crate) fn port(&self, environment: usize) -> Option<u16> {
        let port = self.pages.get(environment)?.status.port.load(Ordering::Relaxed);
        u16::try_from(port).ok().filter(|&port| port != 0)
    }

    /// Whether the guest was asked to finish.
    pub(crate) fn is_stopping(&self) -> bool {
        self.pages.iter().any(|pages| pages.host.stop.load(Ordering::Relaxed) != 0)
    }

    /// Makes a guest that waits look around.
    fn wake_guest(&self) {
        self.placement.wake_guest();
    }

    /// What every thread and every span has taken so far.
    pub(crate) fn account(&self) -> AccountSnapshot {
        AccountSnapshot::take(
            &self.ledgers,
            &self.sites,
            &self.pages,
            (self.started_tsc, self.tsc_khz),
            &self.placement,
        )
    }
}

/// A vCPU before its thread runs.
struct Member {
    number: u32,
    vcpu: Vcpu,
    vm: Arc<VmFd>,
    /// CPU that it is bound to.
    cpu: Option<u32>,
}

impl Member {
    /// The life of its thread.
    fn live(self, shared: &Shared, reporter: &Reporter) {
        let Self { number, mut vcpu, vm, cpu } = self;
        if let Some(cpu) = cpu {
            crate::placement::pin_this_thread(&[cpu]);
        }
        let end = shared.team.live(number, move || {
            let end = vcpu.run();
            // The VM goes before the memory that it maps.
            drop(vcpu);
            drop(vm);
            end
        });
        if let Some(end) = end {
            shared.finish(reporter, &end);
        }
    }
}

/// What the accounts call a vCPU, and its thread.
fn vcpu_name(number: u32) -> String {
    if number == 0 { "vcpu".to_owned() } else { format!("vcpu{number}") }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, MachineError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(MachineError::host("thread"))
}

fn kick_signal() -> i32 {
    vmm_sys_util::signal::SIGRTMIN() + KICK_SIGNAL
}

/// The handler that does nothing; setting it again changes nothing.
fn register_kick_signal() -> Result<(), MachineError> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    vmm_sys_util::signal::register_signal_handler(kick_signal(), ignore)
        .map_err(|error| MachineError::host("signal handler")(error.into()))
}
