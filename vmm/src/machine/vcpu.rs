//! A vCPU's thread: runs the guest, serves its exits, and knows why it ended.

use super::MachineError;
use super::boot::{CONTROL_GPA, TURN_GPA};
use crate::account::ledger::{Bucket, Ledger};
use crate::device::pci::{Bus, MmioWrite};
use crate::placement::Placement;
use abi::boot::control;
use abi::fault::FaultRecord;
use kvm_bindings::{kvm_device_attr, kvm_regs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
        /// Registers at that point, if they could be read.
        registers: Option<Box<kvm_regs>>,
    },
}

/// A vCPU before its thread runs.
pub(crate) struct Vcpu {
    fd: VcpuFd,
    bus: Bus,
    placement: Arc<Placement>,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    read_fault: Box<dyn Fn() -> FaultRecord + Send>,
}

/// Makes the vCPU, with the host's CPUID and time line.
pub(crate) fn create(kvm: &Kvm, vm: &VmFd) -> Result<VcpuFd, MachineError> {
    let fd = vm.create_vcpu(0).map_err(MachineError::kvm("KVM_CREATE_VCPU"))?;
    let mut cpuid =
        kvm.get_supported_cpuid(CPUID_ENTRIES).map_err(MachineError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
    for entry in cpuid.as_mut_slice().iter_mut().filter(|entry| entry.function == 1) {
        entry.ecx |= CPUID_1_ECX_TSC_DEADLINE;
    }
    fd.set_cpuid2(&cpuid).map_err(MachineError::kvm("KVM_SET_CPUID2"))?;
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
        bus: Bus,
        placement: Arc<Placement>,
        ledger: Arc<Ledger>,
        stop: Arc<AtomicBool>,
        read_fault: Box<dyn Fn() -> FaultRecord + Send>,
    ) -> Self {
        Self { fd, bus, placement, ledger, stop, read_fault }
    }

    /// Runs until the machine ends, on the thread that is the vCPU.
    pub(crate) fn run(&mut self) -> VcpuEnd {
        loop {
            if self.stop.load(Ordering::Acquire) {
                return VcpuEnd::Stopped;
            }
            self.ledger.enter(Bucket::Guest);
            let exit = self.fd.run();
            self.ledger.enter(Bucket::Exit);
            match exit {
                Ok(VcpuExit::MmioWrite(TURN_GPA, data)) => {
                    let deadline = data.try_into().map_or(0, u64::from_le_bytes);
                    self.placement.turn(&self.ledger, deadline);
                }
                Ok(VcpuExit::MmioWrite(gpa, data)) if gpa & !0xFFF == CONTROL_GPA => {
                    let value = data.try_into().map_or(0, u32::from_le_bytes);
                    match gpa - CONTROL_GPA {
                        control::POWER_OFF => return VcpuEnd::PowerOff { status: value },
                        control::FAULT => return VcpuEnd::Fault(Box::new((self.read_fault)())),
                        _ => {}
                    }
                }
                Ok(VcpuExit::MmioWrite(gpa, data)) => {
                    // A doorbell whose value is not the queue's number, or queues that came or went: whoever sleeps over
                    // the device's work must look.
                    let write = self.bus.mmio_write(gpa, data);
                    if let MmioWrite::Doorbell { .. } | MmioWrite::Queues { .. } = write {
                        self.placement.ring();
                    }
                }
                Ok(VcpuExit::MmioRead(gpa, data)) => self.bus.mmio_read(gpa, data),
                // Ring 3 has no ports and the kernel uses none: reads float, writes go nowhere.
                Ok(VcpuExit::IoIn(_, data)) => data.fill(0xFF),
                Ok(VcpuExit::IoOut(..) | VcpuExit::Intr) => {}
                Ok(VcpuExit::Shutdown) => return self.broken("triple fault"),
                Ok(VcpuExit::FailEntry(reason, _)) => {
                    return self
                        .broken(&format!("the guest's state was refused (hardware reason {reason:#x})"));
                }
                Ok(VcpuExit::InternalError) => return self.internal_error(),
                Ok(other) => {
                    let reason = format!("unexpected exit {other:?}");
                    return self.broken(&reason);
                }
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(error) => return self.broken(&format!("KVM_RUN: {error}")),
            }
        }
    }

    fn broken(&self, reason: &str) -> VcpuEnd {
        let registers = self.fd.get_regs().ok().map(Box::new);
        VcpuEnd::Broken { reason: reason.to_owned(), registers }
    }

    /// KVM_EXIT_INTERNAL_ERROR: most often an instruction that KVM's emulator does not know, with its bytes.
    fn internal_error(&mut self) -> VcpuEnd {
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
                let hex: Vec<String> = bytes[1..=len].iter().map(|byte| format!("{byte:02x}")).collect();
                reason = format!("{reason} {}", hex.join(" "));
            }
        }
        self.broken(&reason)
    }
}
