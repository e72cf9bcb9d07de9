//! KVM: the machine's descriptor, memory slots, interrupt routes, doorbells.

use super::MachineError;
use crate::device::pci::{Interrupt, MsiMessage, MsixRoutes};
use crate::tables::Memory;
use abi::layout::WAKE_VECTOR;
use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Three pages below 4 GiB that VMX hosts without unrestricted guest want to have.
const TSS_GPA: usize = 0xFFFB_D000;

/// Opens `/dev/kvm`.
pub fn open() -> Result<Kvm, MachineError> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => MachineError::NoKvm,
        libc::EACCES | libc::EPERM => MachineError::KvmPermission,
        _ => MachineError::Kvm { call: "opening /dev/kvm", error },
    })
}

/// Makes a VM with an in-kernel interrupt controller and no memory.
pub fn create(kvm: &Kvm) -> Result<VmFd, MachineError> {
    let vm = kvm.create_vm().map_err(MachineError::kvm("KVM_CREATE_VM"))?;
    vm.set_tss_address(TSS_GPA).map_err(MachineError::kvm("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip().map_err(MachineError::kvm("KVM_CREATE_IRQCHIP"))?;
    Ok(vm)
}

/// Gives the VM its memory, which must stay mapped as long as the VM exists.
pub fn add_memory(vm: &VmFd, memory: &Memory) -> Result<(), MachineError> {
    for (slot, region) in memory.iter().enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is mapped, belongs to guest memory, and the caller keeps it mapped while the VM exists.
        unsafe { vm.set_user_memory_region(slot) }
            .map_err(MachineError::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// One interrupt line of a device: an event descriptor that KVM turns into an MSI without waking a thread.
pub struct IrqLine(EventFd);

impl Interrupt for IrqLine {
    fn signal(&self) {
        // A full counter means that a signal is pending already.
        let _ = self.0.write(1);
    }
}

/// A device's interrupt lines, by vector.
pub type Lines = Vec<Arc<dyn Interrupt>>;

/// The interrupt routes of a machine. KVM takes them only all together, so the devices share them.
pub struct RouteTable {
    vm: Arc<VmFd>,
    /// By interrupt line (GSI).
    messages: Mutex<Vec<Option<MsiMessage>>>,
}

impl RouteTable {
    /// No lines, and no routes: those that KVM begins with lead to the legacy interrupt controllers, where a line without
    /// a destination would raise an exception's vector.
    pub fn new(vm: Arc<VmFd>) -> Result<Arc<Self>, MachineError> {
        let none = KvmIrqRouting::new(0).map_err(|_| MachineError::Internal("no empty list of routes"))?;
        vm.set_gsi_routing(&none).map_err(MachineError::kvm("KVM_SET_GSI_ROUTING"))?;
        Ok(Arc::new(Self { vm, messages: Mutex::default() }))
    }

    /// `count` more lines, for a device, without a destination.
    pub fn add_device(self: &Arc<Self>, count: usize) -> Result<(Arc<Routes>, Lines), MachineError> {
        let first_line = self.lock().len();
        let lines = (0..count).map(|_| self.add_line(None)).collect::<Result<_, _>>()?;
        Ok((Arc::new(Routes { table: Arc::clone(self), first_line, count }), lines))
    }

    /// A line to each vCPU of the machine, in order: it raises the kernel's wake-up vector there, whatever any device is told.
    pub fn add_wake_lines(&self, vcpus: u32) -> Result<Lines, MachineError> {
        let lines =
            (0..vcpus).map(|vcpu| self.add_line(Some(wake_message(vcpu)))).collect::<Result<_, _>>()?;
        self.apply(&self.lock()).map_err(MachineError::kvm("KVM_SET_GSI_ROUTING"))?;
        Ok(lines)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<MsiMessage>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_line(&self, message: Option<MsiMessage>) -> Result<Arc<dyn Interrupt>, MachineError> {
        let mut messages = self.lock();
        let event = EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("event descriptor"))?;
        self.vm.register_irqfd(&event, messages.len() as u32).map_err(MachineError::kvm("KVM_IRQFD"))?;
        messages.push(message);
        Ok(Arc::new(IrqLine(event)))
    }

    /// Tells KVM all routes.
    fn apply(&self, messages: &[Option<MsiMessage>]) -> Result<(), kvm_ioctls::Error> {
        let entries: Vec<_> = messages
            .iter()
            .enumerate()
            .filter_map(|(line, message)| message.map(|message| entry(line as u32, message)))
            .collect();
        let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
        self.vm.set_gsi_routing(&KvmIrqRouting::from_entries(&entries).map_err(too_many)?)
    }
}

/// What an interrupt message to a vCPU's APIC is written to (SDM 11.11.1): its id is its number.
fn apic_address(vcpu: u32) -> u64 {
    0xFEE0_0000 | u64::from(vcpu) << 12
}

fn wake_message(vcpu: u32) -> MsiMessage {
    MsiMessage { address: apic_address(vcpu), data: WAKE_VECTOR.into() }
}

/// The MSI-X routes of one device: its line `n` goes where entry `n` of its MSI-X table says.
pub struct Routes {
    table: Arc<RouteTable>,
    first_line: usize,
    count: usize,
}

impl MsixRoutes for Routes {
    fn set(&self, vector: u16, message: Option<MsiMessage>) {
        if usize::from(vector) >= self.count {
            return;
        }
        let mut messages = self.table.lock();
        messages[self.first_line + usize::from(vector)] = message;
        if let Err(error) = self.table.apply(&messages) {
            tracing::error!(vector, "interrupt route refused: {error}");
        }
    }
}

fn entry(line: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi: line, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

/// Connects doorbells (queue number and address) to an event descriptor, so that ringing them does not leave the guest for
/// the VMM.
pub fn connect_doorbells(vm: &VmFd, event: &EventFd, doorbells: &[(u64, u16)]) -> Result<(), MachineError> {
    for &(gpa, queue) in doorbells {
        vm.register_ioevent(event, &IoEventAddress::Mmio(gpa), queue)
            .map_err(MachineError::kvm("KVM_IOEVENTFD"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_holds_address_and_data_unchanged() {
        for (address, data) in [(0xFEE0_7000, 0x300), (0xFEE0_0000, 0x60), (0x1234_5678_FEEF_F00C, u32::MAX)]
        {
            let entry = entry(7, MsiMessage { address, data });
            // SAFETY: an entry of this type has an MSI in its union, and all of it is plain data.
            let msi = unsafe { entry.u.msi };
            assert_eq!(u64::from(msi.address_hi) << 32 | u64::from(msi.address_lo), address);
            assert_eq!((msi.data, entry.gsi, entry.type_), (data, 7, KVM_IRQ_ROUTING_MSI));
        }
    }

    #[test]
    fn wake_message_names_the_vcpu_by_its_number() {
        assert_eq!(wake_message(0), MsiMessage { address: 0xFEE0_0000, data: 0x60 });
        assert_eq!(wake_message(7), MsiMessage { address: 0xFEE0_7000, data: 0x60 });
    }
}
