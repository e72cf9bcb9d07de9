//! Where devices go: each gets a number, a window for its registers, interrupt lines and doorbells, and is brought to
//! DRIVER_OK as firmware would. The order of attaching is the order of the device table.

use super::boot::{Attached, Grant};
use super::{MachineError, kvm};
use crate::device::pci::{Bus, Interrupt};
use crate::device::virtio::pci::BAR_BYTES;
use crate::device::virtio::{PciPlace, VirtioDevice, VirtioPci, firmware};
use abi::boot::{DEVICES, Device};
use kvm_ioctls::VmFd;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Configuration space of the bus.
const ECAM_GPA: u64 = 0xE000_0000;
/// Registers of the first device; those of the next follow.
const FIRST_BAR_GPA: u32 = 0xD000_0000;
/// PCI number of the first device.
const FIRST_DEVICE_NUMBER: u8 = 1;

/// The devices attached so far.
pub(super) struct Slots<'a> {
    vm: &'a VmFd,
    routes: Arc<kvm::RouteTable>,
    bus: Bus,
    attached: Vec<Attached>,
    doorbell: EventFd,
}

/// What the machine keeps of them.
pub(super) struct Connections {
    /// Where their registers are reached.
    pub(super) bus: Arc<Bus>,
    /// The doorbells of all queues, as one event.
    pub(super) doorbell: EventFd,
    /// Lines by which the guest can be woken, one to each vCPU. Not those of devices: they lead nowhere before somebody has
    /// bound their queue.
    pub(super) wake: Vec<Arc<dyn Interrupt>>,
}

impl<'a> Slots<'a> {
    /// No devices.
    pub(super) fn new(vm: &'a Arc<VmFd>) -> Result<Self, MachineError> {
        Ok(Self {
            vm,
            routes: kvm::RouteTable::new(Arc::clone(vm))?,
            bus: Bus::new(ECAM_GPA),
            attached: Vec::new(),
            doorbell: EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("event descriptor"))?,
        })
    }

    /// The number that the next device has in the device table.
    pub(super) fn next_index(&self) -> u32 {
        self.attached.len() as u32
    }

    /// What becomes readable when a doorbell rings: whoever else has something for the device work writes to it, too.
    pub(super) fn doorbell(&self) -> Result<EventFd, MachineError> {
        self.doorbell.try_clone().map_err(MachineError::host("event descriptor"))
    }

    /// Puts a device into the next slot, with all its features; `entry` writes its line of the device table, `grant` is
    /// what the first environment may do with it.
    pub(super) fn attach<D: VirtioDevice + 'static>(
        &mut self,
        device: D,
        entry: impl FnOnce(&VirtioPci<D>) -> Device,
        grant: Grant,
    ) -> Result<Arc<Mutex<VirtioPci<D>>>, MachineError> {
        let index = self.next_index();
        if index as usize >= DEVICES {
            return Err(MachineError::TooManyDevices);
        }
        // One a queue, and one for changes of the configuration.
        let (routes, lines) = self.routes.add_device(usize::from(device.queues()) + 1)?;
        let place = PciPlace {
            device_number: FIRST_DEVICE_NUMBER + index as u8,
            bar_gpa: FIRST_BAR_GPA + index * BAR_BYTES,
        };
        let mut function = VirtioPci::new(device, place, lines, routes)?;
        firmware::start(&mut function, !0)?;
        kvm::connect_doorbells(self.vm, &self.doorbell, &function.doorbells())?;
        self.attached.push(Attached { entry: entry(&function), grant });
        let function = Arc::new(Mutex::new(function));
        self.bus.attach(place.device_number, Arc::clone(&function) as _)?;
        Ok(function)
    }

    /// All are attached: what boot writes down of them, and what the machine keeps.
    pub(super) fn finish(self, vcpus: u32) -> Result<(Vec<Attached>, Connections), MachineError> {
        let Self { routes, bus, attached, doorbell, .. } = self;
        let wake = routes.add_wake_lines(vcpus)?;
        Ok((attached, Connections { bus: Arc::new(bus), doorbell, wake }))
    }
}
