//! Making a machine: everything up to the guest's first instruction, and its threads.

use super::boot::descriptors::Start;
use super::boot::{self, BootConfig};
use super::control::Control;
use super::log::Logs;
use super::report::Reporter;
use super::shared::Shared;
use super::slots::Slots;
use super::statistics::KvmStatistics;
use super::team::{Team, TeamEnd, register_kick_signal};
use super::tools::Tools;
use super::vcpu::{self, Vcpu, VcpuEnd};
use super::vcpu_time::{OwnTime, ask_for_steal_time};
use super::{Machine, MachineConfig, MachineError, PhaseStamp, channel, disk, kvm, nic, service};
use crate::account::{
    self,
    ledger::{Bucket, Ledger},
};
use crate::channel::Clients;
use crate::debug::Debugger;
use crate::placement::{DeviceWork, Placement, Vcpus};
use crate::probe::Probes;
use crate::profile::Profilers;
use crate::stat::pmu::Pmu;
use crate::trace::{self, Looking, Tracing};
use abi::boot::{Ipv4Config, Ipv6Config, VCPUS_MAX};
use kvm_ioctls::VmFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

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
            ipv6: config.net.as_ref().map_or(Ipv6Config::default(), |net| net.ipv6),
            name_servers: config.net.as_ref().map(|net| net.name_servers).unwrap_or_default(),
            mac: config.net.as_ref().map_or([0; 6], |net| net.mac),
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
            if !ask_for_steal_time(fd, vcpu, prepared.vcpu_times_gpa)? {
                tracing::debug!("KVM does not tell the guest when it has no CPU");
            }
        }
        let first = prepared.pages.first().ok_or(MachineError::Internal("no place"))?;
        service::refresh_time(&first.time, tsc_khz);
        let host = first.host.clone();
        let vcpu_times = first.vcpus.clone();

        let disk_ledgers = work.disk_ledgers();
        let clients = Clients::new(channel::host_ports(&work.channel));
        let (doorbell, wake) = (connections.doorbell, connections.wake);
        let placement = Placement::new(config.io, &vcpus, work, doorbell, host, wake, tsc_khz)?;
        let mut ledgers: Vec<_> =
            (0..vcpus.count).map(|number| (vcpu_name(number), Arc::<Ledger>::default())).collect();
        let vcpu_ledgers: Vec<_> = ledgers.iter().map(|(_, ledger)| Arc::clone(ledger)).collect();
        let looking = Looking::new(first.host.clone(), first.vcpus.clone(), vcpu_ledgers.clone());
        let io_ledger = placement.needs_thread().then(|| Arc::new(Ledger::default()));
        ledgers.extend(io_ledger.iter().map(|ledger| ("io".to_owned(), Arc::clone(ledger))));
        ledgers.extend(disk_ledgers);
        ledgers.iter().for_each(|(_, ledger)| ledger.set_clock(tsc_khz));
        let tracing = Arc::new(Tracing::new(Arc::clone(&looking), &ledgers, &prepared.pages, tsc_khz));
        placement.let_collect(&tracing);
        let team = Arc::new(Team::new(vcpus.count));
        let sites = config.image.program.sites.clone();
        let logs = Arc::new(Logs::new(&prepared.pages, config.log));
        let debugger = Debugger::new(
            Arc::clone(&prepared.memory),
            (prepared.roots_gpa.clone(), prepared.fault_gpa),
            &config.image,
            Arc::clone(&team),
        )?;
        let reporter = Arc::new(Reporter::new(config.image, prepared.roots_gpa, vcpus.count));
        let hub = Arc::clone(&debugger.hub);
        let shared = Arc::new(Shared {
            memory: Arc::clone(&prepared.memory),
            pages: prepared.pages,
            environments: boot_config.environments as usize,
            logs: Arc::clone(&logs),
            tables_at: prepared.tables_at,
            placement: Arc::clone(&placement),
            clients,
            reporter: Arc::clone(&reporter),
            profilers: Profilers::default(),
            probes: Probes::new(prepared.probes),
            looking,
            tracing,
            debugger,
            tools: Tools::default(),
            ledgers,
            tsc_khz,
            started_tsc,
            sites,
            vcpus: vcpus.count,
            exits: fds.iter().map(|_| Arc::default()).collect(),
            kvm: KvmStatistics::open(&vm, &fds),
            pmu: Pmu::new(vcpu_ledgers.clone()),
            team: Arc::clone(&team),
            end: Mutex::new(None),
            ended: Condvar::new(),
            end_event: EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("event descriptor"))?,
        });
        register_kick_signal()?;
        let control = Control::new(
            prepared.memory,
            Arc::clone(&placement),
            Arc::clone(&reporter),
            logs,
            prepared.fault_gpa,
        );
        let mut machine =
            Self { shared, host_phases: Vec::new(), vcpus: Vec::new(), others: Vec::new(), memory_bytes };
        let mut members = Vec::new();
        for ((number, fd), ledger) in (0u32..).zip(fds).zip(vcpu_ledgers) {
            let (bus, placement) = (Arc::clone(&connections.bus), Arc::clone(&placement));
            let desk = team.desk(number).map_err(|_| MachineError::Internal("a vCPU without a desk"))?;
            let team = (Arc::clone(&team), Arc::clone(desk));
            let control = control.of_vcpu(number);
            let time = OwnTime::new(vcpu_times.clone(), number);
            let own = (number, Arc::clone(&hub), time);
            let exits = machine.shared.exits.get(number as usize).map(Arc::clone).unwrap_or_default();
            let vcpu = Vcpu::new(fd, bus, placement, (ledger, exits), team, control, own);
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
        // Before the guest runs: after it, this thread may get its CPU back only when the kernel has stamped its own phases.
        reached("devices");
        team.begin(machine.vcpus.len());
        if let Err(error) = started {
            machine.abandon(&reporter);
            return Err(error);
        }
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
                ledger.begin_thread();
                trace::own::begin_thread(&ledger);
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
            vcpu.begin_thread();
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

pub(super) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, MachineError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(MachineError::host("thread"))
}
