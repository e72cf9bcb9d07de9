//! Binding a virtqueue: checked once here, then nobody is between the environment and its queue.

use crate::machine::{Machine, Register};
use crate::tables::{Owner, device_may_use};
use abi::boot::{Device, wake};
use abi::call::Error;
use abi::layout::{PAGE_BYTES, REMOTE_READ_MSI_DATA, WAKE_VECTOR};
use abi::queue::RingLayout;

/// Offsets in `struct virtio_pci_common_cfg` (VIRTIO 1.3 4.1.4.3).
mod common {
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_MSIX_VECTOR: u64 = 0x1A;
    pub(super) const QUEUE_ENABLE: u64 = 0x1C;
    pub(super) const QUEUE_DESC: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
    pub(super) const QUEUE_RESET: u64 = 0x3A;
}

/// How often a reset is polled in one call. Mostly it is over at once; if not, it may take as long as the host's disk does.
const RESET_POLLS: u32 = 8;

struct Queue {
    device: &'static Device,
    number: u16,
    owner: Owner,
}

fn find(machine: Machine, device: u64, queue: u64) -> Result<Queue, Error> {
    let entry = machine.device(device).ok_or(Error::NotFound)?;
    if queue >= u64::from(entry.queues) {
        return Err(Error::NotFound);
    }
    let owner = Owner::of(machine, device as u32, queue as u32).ok_or(Error::NotFound)?;
    Ok(Queue { device: entry, number: queue as u16, owner })
}

/// [`abi::call::Call::QueueBind`].
pub(super) fn bind(
    machine: Machine,
    environment: u32,
    device: u64,
    queue: u64,
    base_gpa: u64,
    size: u64,
) -> Result<(), Error> {
    let queue = find(machine, device, queue)?;
    let layout = u16::try_from(size).ok().and_then(RingLayout::new).ok_or(Error::BadArgument)?;
    if size > u64::from(queue.device.queue_size_max) || !base_gpa.is_multiple_of(PAGE_BYTES) {
        return Err(Error::BadArgument);
    }
    let end_gpa = base_gpa.checked_add(layout.len_bytes()).ok_or(Error::BadArgument)?;
    if queue.owner.environment().is_some() {
        return Err(Error::Busy);
    }
    let mut page = base_gpa / PAGE_BYTES;
    while page < end_gpa / PAGE_BYTES {
        if !device_may_use(machine, environment, page) {
            return Err(Error::NotPermitted);
        }
        page += 1;
    }
    queue.owner.set(environment);
    queue.set_interrupt(machine.wake());
    queue.set_address(common::QUEUE_DESC, base_gpa + layout.descriptors_offset());
    queue.set_address(common::QUEUE_DRIVER, base_gpa + layout.available_offset());
    queue.set_address(common::QUEUE_DEVICE, base_gpa + layout.used_offset());
    queue.write(common::QUEUE_SIZE, size as u16);
    queue.write(common::QUEUE_ENABLE, 1);
    if queue.read(common::QUEUE_ENABLE) != 1 {
        queue.owner.clear();
        return Err(Error::DeviceFailed);
    }
    Ok(())
}

/// [`abi::call::Call::QueueUnbind`].
pub(super) fn unbind(machine: Machine, environment: u32, device: u64, queue: u64) -> Result<(), Error> {
    let queue = find(machine, device, queue)?;
    match queue.owner.environment() {
        None => return Err(Error::NotFound),
        Some(owner) if owner != environment => return Err(Error::NotPermitted),
        Some(_) => {}
    }
    queue.select();
    queue.write(common::QUEUE_RESET, 1);
    for _ in 0..RESET_POLLS {
        if queue.read(common::QUEUE_RESET) == 0 {
            queue.owner.clear();
            return Ok(());
        }
    }
    Err(Error::Unfinished)
}

impl Queue {
    fn select(&self) {
        self.write(common::QUEUE_SELECT, self.number);
    }

    fn write(&self, offset: u64, value: u16) {
        Register::<u16>::at(self.device.common_gpa + offset).write(value);
    }

    fn read(&self, offset: u64) -> u16 {
        Register::<u16>::at(self.device.common_gpa + offset).read()
    }

    /// 64-bit fields are written as two halves (VIRTIO 1.3 4.1.3.1).
    fn set_address(&self, offset: u64, gpa: u64) {
        Register::<u32>::at(self.device.common_gpa + offset).write(gpa as u32);
        Register::<u32>::at(self.device.common_gpa + offset + 4).write((gpa >> 32) as u32);
    }

    /// Selects the queue and gives it the MSI-X vector of its own number, aimed at this vCPU.
    fn set_interrupt(&self, how: u32) {
        let data = if how == wake::SILENT { REMOTE_READ_MSI_DATA } else { u32::from(WAKE_VECTOR) };
        let entry = self.device.msix_table_gpa + 16 * u64::from(self.number);
        for (offset, value) in [(0, 0xFEE0_0000), (4, 0), (8, data), (12, 0)] {
            Register::<u32>::at(entry + offset).write(value);
        }
        self.select();
        self.write(common::QUEUE_MSIX_VECTOR, self.number);
    }
}
