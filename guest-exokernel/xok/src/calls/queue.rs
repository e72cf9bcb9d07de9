//! Binding a virtqueue: checked once here, then nobody is between the environment and its queue.

use crate::kernel::{BoundQueue, Kernel};
use crate::machine::{Machine, Register, read, write};
use crate::tables::Owner;
use abi::boot::{Device, wake};
use abi::call::Error;
use abi::capability::{CAPABILITIES, Handle, Kind, rights};
use abi::layout::{DOORBELL_VA, PAGE_BYTES, REMOTE_READ_MSI_DATA, WAKE_VECTOR};
use abi::paging::PRESENT;
use abi::queue::{QUEUE_OWNERS, QUEUES_PER_DEVICE, RingLayout};
use xok_core::refuse;

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

/// Address of an MSI; the destination's x2APIC id is in bits 19:12 (SDM 11.11.1).
const MSI_ADDRESS: u32 = 0xFEE0_0000;

/// How often a reset is polled in one call. Mostly it is over at once; if not, it may take as long as the host's disk does.
const RESET_POLLS: u32 = 8;

struct Queue {
    device: &'static Device,
    number: u16,
    owner: Owner,
}

fn find(index: u64) -> Result<Queue, Error> {
    let (device, number) = (index / QUEUES_PER_DEVICE as u64, index % QUEUES_PER_DEVICE as u64);
    let entry = Machine::get().device(device).ok_or(Error::NotFound)?;
    if number >= u64::from(entry.queues) {
        return refuse(Error::NotFound);
    }
    let owner = Owner::of(Machine::get(), device as u32, number as u32).ok_or(Error::NotFound)?;
    Ok(Queue { device: entry, number: number as u16, owner })
}

impl Kernel {
    /// [`abi::call::Call::QueueBind`].
    #[inline(always)]
    pub(super) fn queue_bind(
        &mut self,
        environment: u64,
        queues: u64,
        index: u64,
        base_gpa: u64,
        size: u64,
    ) -> Result<(), Error> {
        let environment = self.subject(environment)?;
        let capability = self.queues_with(environment, queues, index)?;
        let queue = find(index)?;
        let layout = u16::try_from(size).ok().and_then(RingLayout::new).ok_or(Error::BadArgument)?;
        if size > u64::from(queue.device.queue_size_max) || !base_gpa.is_multiple_of(PAGE_BYTES) {
            return refuse(Error::BadArgument);
        }
        let end_gpa = base_gpa.checked_add(layout.len_bytes()).ok_or(Error::BadArgument)?;
        if queue.owner.environment().is_some() {
            return refuse(Error::Busy);
        }
        let domain = self.environment(environment).domain;
        let mut page = base_gpa / PAGE_BYTES;
        while page < end_gpa / PAGE_BYTES {
            if !domain.device_may_use(page) {
                return refuse(Error::NotPermitted);
            }
            page += 1;
        }
        queue.owner.set(environment);
        queue.set_interrupt(Machine::get().wake());
        queue.aim(self.environment(environment).vcpus);
        queue.set_address(common::QUEUE_DESC, base_gpa + layout.descriptors_offset());
        queue.set_address(common::QUEUE_DRIVER, base_gpa + layout.available_offset());
        queue.set_address(common::QUEUE_DEVICE, base_gpa + layout.used_offset());
        queue.write(common::QUEUE_SIZE, size as u16);
        queue.write(common::QUEUE_ENABLE, 1);
        if queue.read(common::QUEUE_ENABLE) != 1 {
            queue.owner.clear();
            return refuse(Error::DeviceFailed);
        }
        self.tree().entry_mut(capability).bound += 1;
        self.queues[index as usize] =
            BoundQueue { used_gpa: base_gpa + layout.used_offset(), with: capability + 1 };
        self.map_doorbell(environment, index, true);
        Ok(())
    }

    /// [`abi::call::Call::QueueUnbind`].
    #[inline(always)]
    pub(super) fn queue_unbind(&mut self, environment: u64, queues: u64, index: u64) -> Result<(), Error> {
        let environment = self.subject(environment)?;
        self.queues_with(environment, queues, index)?;
        if self.queues[index as usize].with == 0 {
            return refuse(Error::NotFound);
        }
        if !self.is_bound_by(index as usize, environment) {
            return refuse(Error::NotPermitted);
        }
        self.unbind(index)
    }

    /// The capability, if it is for this queue.
    fn queues_with(&mut self, environment: u32, queues: u64, index: u64) -> Result<u16, Error> {
        let tree = self.tree();
        let capability = tree.find(environment, Handle(queues), Kind::Queues)?;
        tree.allow(capability, rights::BIND)?;
        let entry = tree.entry(capability);
        let inside = index >= entry.start && index - entry.start < entry.count && index < QUEUE_OWNERS as u64;
        if inside { Ok(capability) } else { refuse(Error::NotPermitted) }
    }

    /// Whether the queue is bound, by this environment.
    pub(crate) fn is_bound_by(&self, index: usize, environment: u32) -> bool {
        let with = self.queues[index % QUEUE_OWNERS].with;
        with.checked_sub(1).is_some_and(|with| u32::from(with) / CAPABILITIES as u32 == environment)
    }

    /// Resets a bound queue and gives it back.
    fn unbind(&mut self, index: u64) -> Result<(), Error> {
        let queue = find(index)?;
        queue.select();
        queue.write(common::QUEUE_RESET, 1);
        let mut polls = 0;
        while queue.read(common::QUEUE_RESET) != 0 {
            polls += 1;
            if polls == RESET_POLLS {
                return refuse(Error::Unfinished);
            }
        }
        queue.owner.clear();
        let bound = core::mem::replace(&mut self.queues[index as usize], BoundQueue { used_gpa: 0, with: 0 });
        if let Some(with) = bound.with.checked_sub(1) {
            let mut tree = self.tree();
            let entry = tree.entry_mut(with);
            entry.bound = entry.bound.saturating_sub(1);
            self.map_doorbell(u32::from(with) / CAPABILITIES as u32, index, false);
        }
        Ok(())
    }

    /// Has the queues of an environment interrupt a vCPU on which it may run: who runs on another one has no reason to look.
    #[cold]
    pub(crate) fn aim_interrupts(&mut self, environment: u32) {
        let vcpus = self.environment(environment).vcpus;
        for index in 0..QUEUE_OWNERS {
            if self.is_bound_by(index, environment)
                && let Ok(queue) = find(index as u64)
            {
                queue.aim(vcpus);
            }
        }
    }

    /// The queue's own doorbell page, for its owner.
    fn map_doorbell(&mut self, environment: u32, index: u64, present: bool) {
        let at = self.place(environment).doorbells_gpa + 8 * index;
        let entry = read(at);
        write(at, if present { entry | PRESENT } else { entry & !PRESENT });
        self.flush_page(environment, DOORBELL_VA + index * PAGE_BYTES);
    }

    /// Gives one queue back that was bound with this capability; whether there is none left.
    pub(super) fn unbind_step(&mut self, capability: u16) -> bool {
        if self.tree().entry(capability).bound == 0 {
            return true;
        }
        let Some(index) = self.queues.iter().position(|queue| queue.with == capability + 1) else {
            return true;
        };
        // A device that has not let go of it yet is asked again in the next step.
        self.unbind(index as u64).is_ok() && self.tree().entry(capability).bound == 0
    }
}

impl Kernel {
    /// Gives one queue from number `limit` on back that was bound with this capability; whether there is none left.
    pub(super) fn unbind_tail(&mut self, capability: u16, limit: u64) -> bool {
        let mut tail = self.queues.iter().enumerate().skip(limit as usize);
        let Some((index, _)) = tail.find(|(_, queue)| queue.with == capability + 1) else { return true };
        // As in `unbind_step`; if it was the last, the next step finds none.
        let _ = self.unbind(index as u64);
        false
    }
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

    /// Selects the queue and gives it the MSI-X vector of its own number.
    fn set_interrupt(&self, how: u32) {
        let data = if how == wake::SILENT { REMOTE_READ_MSI_DATA } else { u32::from(WAKE_VECTOR) };
        let entry = self.device.msix_table_gpa + 16 * u64::from(self.number);
        for (offset, value) in [(4, 0), (8, data), (12, 0)] {
            Register::<u32>::at(entry + offset).write(value);
        }
        self.select();
        self.write(common::QUEUE_MSIX_VECTOR, self.number);
    }

    /// Its interrupts go to the first of these vCPUs, or to the first of all.
    fn aim(&self, vcpus: u8) {
        let vcpu = vcpus.trailing_zeros() % u8::BITS;
        let entry = self.device.msix_table_gpa + 16 * u64::from(self.number);
        Register::<u32>::at(entry).write(MSI_ADDRESS | vcpu << 12);
    }
}
