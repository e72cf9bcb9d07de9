//! A vCPU's thread: runs the guest, serves its exits, and knows why it ended.

use super::MachineError;
use super::boot::{CONTROL_GPA, TURN_GPA};
use super::control::Control;
use super::desk::Desk;
use super::exits::{Exit, Exits};
use super::team::Team;
use super::vcpu_time::OwnTime;
use crate::account::ledger::{Bucket, Ledger};
use crate::debug::Hub;
use crate::device::pci::{Bus, MmioWrite};
use crate::placement::Placement;
use crate::trace;
use abi::boot::control;
use abi::fault::FaultRecord;
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_device_attr, kvm_mp_state, kvm_regs, kvm_xcrs};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use std::sync::Arc;

/// KVM_SET_DEVICE_ATTR, `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`; kvm-ioctls has it for vCPUs of Arm only.
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_AEE1;
const KVM_VCPU_TSC_CTRL: u32 = 0;
const KVM_VCPU_TSC_OFFSET: u64 = 0;

const CPUID_ENTRIES: usize = 256;
/// CPUID.1:ECX, TSC-deadline timer: the in-kernel APIC has it, but KVM leaves it to the VMM to say so.
const CPUID_1_ECX_TSC_DEADLINE: u32 = 1 << 24;

/// Why a vCPU does not run any more.
#[derive(Debug)]
pub(crate) enum VcpuEnd {
    /// The guest switched the machine off.
    PowerOff {
        /// Its exit status.
        status: u32,
    },
    /// The kernel reported a fault.
    Fault(Box<FaultRecord>),
    /// It was asked to stop.
    Stopped,
    /// KVM could not go on.
    Broken {
        /// What KVM said.
        reason: String,
        /// Registers at that point and the root of the page tables, if they could be read.
        registers: Option<Box<(kvm_regs, u64)>>,
    },
}

/// A vCPU before its thread runs.
pub(crate) struct Vcpu {
    fd: VcpuFd,
    bus: Arc<Bus>,
    placement: Arc<Placement>,
    ledger: Arc<Ledger>,
    team: Arc<Team>,
    desk: Arc<Desk<VcpuFd>>,
    control: Control,
    number: u32,
    hub: Arc<Hub>,
    time: OwnTime,
    exits: Arc<Exits>,
}

/// What ring 3 has of the registers that XSAVE knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtendedState {
    /// Whether there is XSAVE, so that CR4.OSXSAVE may be set.
    pub(crate) xsave: bool,
    /// The components that ring 3 may have used, for XRSTOR to make initial; 0: those of FXRSTOR.
    pub(crate) mask: u64,
}

/// CPUID.1:ECX, XSAVE.
const CPUID_1_ECX_XSAVE: u32 = 1 << 26;
/// CPUID leaf of the extended state; EDX:EAX of its first part: the components that XCR0 may have.
const CPUID_EXTENDED_STATE: u32 = 0xD;

/// Lets the guest have all the state components that KVM offers, and finds out which it may have in fact: where ring 3 runs
/// with the host's XCR0 whatever the guest's says, those of the host.
pub(crate) fn enable_extended_state(kvm: &Kvm, fd: &VcpuFd) -> Result<ExtendedState, MachineError> {
    let cpuid = fd.get_cpuid2(CPUID_ENTRIES).map_err(MachineError::kvm("KVM_GET_CPUID2"))?;
    let find =
        |function| cpuid.as_slice().iter().find(move |entry| entry.function == function && entry.index == 0);
    let offered =
        find(CPUID_EXTENDED_STATE).map_or(0, |entry| u64::from(entry.edx) << 32 | u64::from(entry.eax));
    let xsave = find(1).is_some_and(|entry| entry.ecx & CPUID_1_ECX_XSAVE != 0);
    if !xsave || !kvm.check_extension(Cap::Xcrs) {
        tracing::warn!("KVM offers no XSAVE; ring 3 has x87 and SSE registers only");
        return Ok(ExtendedState { xsave: false, mask: 0 });
    }
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = offered;
    if let Err(error) = fd.set_xcrs(&xcrs) {
        // Those that are not enabled need not be made initial, and XRSTOR does not mind.
        tracing::warn!("KVM refused XCR0 {offered:#x} ({error}); ring 3 may lack vector registers");
    }
    Ok(ExtendedState { xsave, mask: offered | host_xcr0() })
}

/// The state components that are enabled on this host.
fn host_xcr0() -> u64 {
    if !std::arch::is_x86_feature_detected!("xsave") {
        return 0;
    }
    // SAFETY: the processor has XGETBV and the host has enabled it, as just asked; register 0 exists then.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

/// CPUID leaves that tell a processor's own x2APIC id in EDX.
const CPUID_TOPOLOGY: [u32; 2] = [0xB, 0x1F];

/// Makes vCPU `number`, whose APIC id that is, with the host's CPUID and time line, ready to run.
pub(crate) fn create(kvm: &Kvm, vm: &VmFd, number: u32) -> Result<VcpuFd, MachineError> {
    let fd = vm.create_vcpu(u64::from(number)).map_err(MachineError::kvm("KVM_CREATE_VCPU"))?;
    let mut cpuid =
        kvm.get_supported_cpuid(CPUID_ENTRIES).map_err(MachineError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
    for entry in cpuid.as_mut_slice() {
        if entry.function == 1 {
            entry.ecx |= CPUID_1_ECX_TSC_DEADLINE;
            entry.ebx = entry.ebx & 0x00FF_FFFF | number << 24;
        } else if CPUID_TOPOLOGY.contains(&entry.function) {
            entry.edx = number;
        }
    }
    fd.set_cpuid2(&cpuid).map_err(MachineError::kvm("KVM_SET_CPUID2"))?;
    if number > 0 {
        // Else it waits for another vCPU to start it.
        let runnable = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
        fd.set_mp_state(runnable).map_err(MachineError::kvm("KVM_SET_MP_STATE"))?;
    }
    if let Err(error) = share_time_line(&fd) {
        tracing::warn!(
            "the guest's clock has an offset to the host's ({error}); times of guest and VMM do not compare"
        );
    }
    Ok(fd)
}

/// TSC offset 0: guest and host read the same clock.
pub(crate) fn share_time_line(fd: &VcpuFd) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let offset = 0u64;
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET,
        addr: &raw const offset as u64,
        flags: 0,
    };
    // SAFETY: the attribute points at a u64 that lives until the call returns, as KVM_VCPU_TSC_OFFSET wants it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

impl Vcpu {
    /// Puts the parts together.
    pub(crate) fn new(
        fd: VcpuFd,
        bus: Arc<Bus>,
        placement: Arc<Placement>,
        (ledger, exits): (Arc<Ledger>, Arc<Exits>),
        (team, desk): (Arc<Team>, Arc<Desk<VcpuFd>>),
        control: Control,
        (number, hub, time): (u32, Arc<Hub>, OwnTime),
    ) -> Self {
        Self { fd, bus, placement, ledger, team, desk, control, number, hub, time, exits }
    }

    /// Called first on the thread that is the vCPU.
    pub(crate) fn begin_thread(&mut self) {
        self.ledger.begin_thread();
        self.ledger.enter(Bucket::Other);
        self.time.begin();
    }

    /// Runs until the machine ends, on the thread that is the vCPU.
    pub(crate) fn run(&mut self) -> VcpuEnd {
        trace::own::begin_thread(&self.ledger);
        loop {
            if self.team.is_stopping() {
                return VcpuEnd::Stopped;
            }
            // Then KVM completes what the last exit began, and does not enter the guest.
            self.fd.set_kvm_immediate_exit(self.desk.is_asked().into());
            self.time.enter(&self.ledger);
            let exit = self.fd.run();
            self.time.leave(&self.ledger);
            match exit {
                Ok(VcpuExit::MmioWrite(TURN_GPA, data)) => {
                    self.exits.count(Exit::Turn);
                    let deadline = data.try_into().map_or(0, u64::from_le_bytes);
                    self.placement.turn(&self.ledger, deadline, || self.desk.is_asked());
                }
                Ok(VcpuExit::MmioWrite(gpa, data)) if gpa & !0xFFF == CONTROL_GPA => {
                    let _span = tracing::debug_span!("control register").entered();
                    self.exits.count(Exit::Control);
                    let value = data.try_into().map_or(0, u32::from_le_bytes);
                    match gpa - CONTROL_GPA {
                        control::BREAKPOINT => self.hub.exception(self.number, &self.fd, value),
                        control::FAULT | control::ENVIRONMENT_FAULT if self.hub.fault(self.number) => {
                            // Until the debugger has seen enough of it.
                            self.desk.serve(&self.fd);
                        }
                        _ => {}
                    }
                    if let Some(end) = self.control.write(gpa - CONTROL_GPA, value) {
                        return end;
                    }
                }
                Ok(VcpuExit::MmioWrite(gpa, data)) => {
                    let _span = tracing::debug_span!("device register").entered();
                    // A doorbell whose value is not the queue's number, or queues that came or went: whoever sleeps over
                    // the device's work must look.
                    let write = self.bus.mmio_write(gpa, data);
                    self.exits.count(match write {
                        MmioWrite::Doorbell { .. } => Exit::Doorbell,
                        MmioWrite::Queues { .. } => Exit::Queues,
                        _ => Exit::Register,
                    });
                    if let MmioWrite::Doorbell { .. } | MmioWrite::Queues { .. } = write {
                        self.placement.ring();
                    }
                }
                Ok(VcpuExit::MmioRead(gpa, data)) if gpa & !0xFFF == CONTROL_GPA => {
                    self.exits.count(Exit::ControlRead);
                    let value = self.control.read(gpa - CONTROL_GPA).to_le_bytes();
                    data.iter_mut().zip(value).for_each(|(byte, value)| *byte = value);
                }
                Ok(VcpuExit::MmioRead(gpa, data)) => {
                    self.exits.count(Exit::RegisterRead);
                    self.bus.mmio_read(gpa, data);
                }
                // Ring 3 has no ports and the kernel uses none: reads float, writes go nowhere.
                Ok(VcpuExit::IoIn(_, data)) => {
                    self.exits.count(Exit::Port);
                    data.fill(0xFF);
                }
                Ok(VcpuExit::IoOut(..)) => self.exits.count(Exit::Port),
                Ok(VcpuExit::Intr) => self.exits.count(Exit::Interrupted),
                Ok(VcpuExit::Shutdown) => return self.broken("triple fault"),
                Ok(VcpuExit::FailEntry(reason, _)) => {
                    return self
                        .broken(&format!("the guest's state was refused (hardware reason {reason:#x})"));
                }
                Ok(VcpuExit::Debug(_)) => self.hub.debug_exit(self.number),
                Ok(VcpuExit::InternalError) => {
                    if let Some(end) = self.internal_error() {
                        return end;
                    }
                }
                Ok(other) => {
                    let reason = format!("unexpected exit {other:?}");
                    return self.broken(&reason);
                }
                Err(error) if error.errno() == libc::EINTR => {
                    self.exits.count(Exit::Interrupted);
                    if self.desk.is_asked() {
                        self.ledger.enter(Bucket::Tools);
                        self.desk.serve(&self.fd);
                    }
                }
                Err(error) if error.errno() == libc::EAGAIN => {}
                Err(error) => return self.broken(&format!("KVM_RUN: {error}")),
            }
        }
    }

    fn broken(&self, reason: &str) -> VcpuEnd {
        let registers = self.fd.get_regs().ok().zip(self.fd.get_sregs().ok());
        let registers = registers.map(|(registers, system)| Box::new((registers, system.cr3)));
        VcpuEnd::Broken { reason: reason.to_owned(), registers }
    }

    /// KVM_EXIT_INTERNAL_ERROR: most often an instruction that KVM's emulator does not know, with its bytes. `None`: it was a
    /// debugger's breakpoint.
    fn internal_error(&mut self) -> Option<VcpuEnd> {
        let run = self.fd.get_kvm_run();
        // SAFETY: after KVM_EXIT_INTERNAL_ERROR this member of the union is the valid one, and all of it is plain data.
        let (suberror, count, data) = unsafe {
            let internal = &run.__bindgen_anon_1.internal;
            (internal.suberror, internal.ndata, internal.data)
        };
        let mut reason = format!("KVM internal error, suberror {suberror}");
        const EMULATION: u32 = 1;
        if suberror == EMULATION {
            // data[0] flags, data[1] low byte: how many instruction bytes follow in the next 15.
            let bytes: Vec<u8> = data[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
            let len = usize::from(bytes[0]).min(15);
            reason = "KVM cannot emulate the instruction".to_owned();
            if count > 1 && len > 0 {
                const INT3: u8 = 0xCC;
                if bytes[1] == INT3 && self.hub.is_breakpoint(self.number, &self.fd) {
                    return None;
                }
                let hex: Vec<String> = bytes[1..=len].iter().map(|byte| format!("{byte:02x}")).collect();
                reason = format!("{reason} {}", hex.join(" "));
            }
        }
        Some(self.broken(&reason))
    }
}
