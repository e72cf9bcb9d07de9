//! A device with a guest around it, driven through its registers as a kernel would.

use std::sync::Arc;

use super::{Counter, Driver, Guest, Routes};
use crate::account::ledger::Ledger;
use crate::device::pci::{BarWrite, Interrupt, PciFunction};
use crate::device::virtio::pci::{COMMON, MSIX_TABLE, offset};
use crate::device::virtio::{PciPlace, VirtioDevice, VirtioPci};

/// Where the window lies.
pub(crate) const BAR_GPA: u32 = 0xC010_0000;
/// Offset of an environment's buffers in its memory; rings lie before it.
pub(crate) const BUFFERS: u64 = 0x8_0000;
/// Entries of each queue.
pub(crate) const SIZE: u16 = 64;

/// The device, its guest, its interrupts.
pub(crate) struct Bench<D> {
    pub(crate) guest: Guest,
    pub(crate) function: VirtioPci<D>,
    pub(crate) interrupts: Vec<Arc<Counter>>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) ledger: Ledger,
    pub(crate) features: u64,
}

impl<D: VirtioDevice> Bench<D> {
    /// A device as after power-on.
    pub(crate) fn around(guest: Guest, device: D) -> Self {
        let interrupts: Vec<_> = (0..=device.queues()).map(|_| Arc::new(Counter::default())).collect();
        let raised = interrupts.iter().map(|counter| Arc::clone(counter) as Arc<dyn Interrupt>).collect();
        let routes = Arc::new(Routes::default());
        let place = PciPlace { device_number: 3, bar_gpa: BAR_GPA };
        let function = VirtioPci::new(device, place, raised, routes.clone()).expect("possible");
        Self { guest, function, interrupts, routes, ledger: Ledger::default(), features: 0 }
    }

    /// Writes a common register.
    pub(crate) fn set<const LEN: usize>(&mut self, at: usize, value: u64) -> BarWrite {
        self.function.bar_write(COMMON + at as u64, &value.to_le_bytes()[..LEN])
    }

    /// Reads a common register.
    pub(crate) fn get<const LEN: usize>(&mut self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.function.bar_read(COMMON + at as u64, &mut bytes[..LEN]);
        u64::from_le_bytes(bytes)
    }

    /// Binds a queue to an environment as a kernel does: owner, rings, vector, enable. Its driver; the queue is enabled if
    /// the device agreed.
    pub(crate) fn bind(&mut self, queue: u16, environment: u32) -> Driver {
        self.guest.own(queue, Some(environment));
        let driver = self.guest.driver(environment, u64::from(queue) * 0x4000, SIZE);
        self.enable(queue, &driver);
        driver
    }

    /// Writes the registers of a queue and enables it.
    pub(crate) fn enable(&mut self, queue: u16, driver: &Driver) {
        self.set::<2>(offset::QUEUE_SELECT, queue.into());
        self.set::<2>(offset::QUEUE_SIZE, driver.config.size.into());
        self.set::<8>(offset::QUEUE_DESC, driver.config.descriptors_gpa);
        self.set::<8>(offset::QUEUE_DRIVER, driver.config.available_gpa);
        self.set::<8>(offset::QUEUE_DEVICE, driver.config.used_gpa);
        self.set::<2>(offset::QUEUE_MSIX_VECTOR, queue.into());
        let entry = MSIX_TABLE + 16 * u64::from(queue);
        self.function.bar_write(entry, &0xFEE0_0000u64.to_le_bytes());
        self.function.bar_write(entry + 8, &(0x40 + u64::from(queue)).to_le_bytes());
        self.set::<2>(offset::QUEUE_ENABLE, 1);
    }

    /// Resets a queue.
    pub(crate) fn reset_queue(&mut self, queue: u16) {
        self.set::<2>(offset::QUEUE_SELECT, queue.into());
        self.set::<2>(offset::QUEUE_RESET, 1);
    }

    /// Whether a queue is enabled.
    pub(crate) fn is_enabled(&mut self, queue: u16) -> bool {
        self.set::<2>(offset::QUEUE_SELECT, queue.into());
        self.get::<2>(offset::QUEUE_ENABLE) == 1
    }
}
