//! The machine's NIC: made, brought to DRIVER_OK as firmware would, and connected to KVM's interrupts and doorbells.

use super::boot::Attached;
use super::{MachineError, kvm};
use crate::backend::Backend;
use crate::device::pci::{Bus, Interrupt};
use crate::device::virtio::net::{Net, NetConfig};
use crate::device::virtio::{Binder, PciPlace, VirtioDevice, VirtioPci, firmware};
use crate::placement::Nic;
use crate::tables::{DmaDomain, Tables};
use abi::boot::Ipv4Config;
use kvm_ioctls::VmFd;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

/// Where the NIC's registers lie.
const NIC_BAR_GPA: u32 = 0xD000_0000;
const NIC_DEVICE_NUMBER: u8 = 1;
/// Largest virtqueue offered.
const QUEUE_SIZE_MAX: u16 = 1024;

/// A machine's network interface.
pub struct NetSetup {
    /// Where frames go.
    pub backend: Box<dyn Backend>,
    /// The guest's address.
    pub ipv4: Ipv4Config,
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// Largest IP packet.
    pub mtu_bytes: u16,
    /// Queue pairs offered.
    pub queue_pairs: u16,
}

/// The NIC, its doorbells as one event, and the line that wakes the guest.
pub(super) type NicParts = (Arc<Mutex<Nic>>, EventFd, Arc<dyn Interrupt>);

/// Makes the NIC and brings it to DRIVER_OK, as firmware would.
pub(super) fn attach(
    net: NetSetup,
    vm: &Arc<VmFd>,
    bus: &mut Bus,
    tables: &Arc<Tables>,
) -> Result<(NicParts, Attached), MachineError> {
    let config = NetConfig {
        device_index: 0,
        queue_pairs: net.queue_pairs,
        queue_size_max: QUEUE_SIZE_MAX,
        mac: net.mac,
        mtu_bytes: net.mtu_bytes,
    };
    let binder: Arc<dyn Binder<DmaDomain>> = Arc::clone(tables) as _;
    let device = Net::new(config, binder, tables.flows(), net.backend)?;
    // One a queue, and one for changes of the configuration.
    let lines = device.queues() + 1;
    let (routes, interrupts) = kvm::Routes::new(Arc::clone(vm), usize::from(lines))?;
    let wake = Arc::clone(&interrupts[0]);
    let place = PciPlace { device_number: NIC_DEVICE_NUMBER, bar_gpa: NIC_BAR_GPA };
    let mut function = VirtioPci::new(device, place, interrupts, routes)?;
    firmware::start(&mut function, !0)?;
    let doorbell = kvm::connect_doorbells(vm, &function.doorbells())?;
    // One queue pair is used until the environment binds more.
    let attached = Attached { entry: function.device_entry(), queue_pairs: 1 };
    let nic = Arc::new(Mutex::new(function));
    bus.attach(NIC_DEVICE_NUMBER, Arc::clone(&nic) as _)?;
    Ok(((nic, doorbell, wake), attached))
}
