//! A NIC with a guest around it, driven through its registers as a kernel would.

use std::sync::Arc;

use super::{Counter, Driver, Guest, Piece, Routes, environment_gpa};
use crate::account::ledger::Ledger;
use crate::backend::fake::Fake;
use crate::backend::{Backend, HEADER_BYTES};
use crate::device::pci::{BarWrite, Interrupt, PciFunction};
use crate::device::virtio::net::{Budget, Net, NetConfig, Worked};
use crate::device::virtio::pci::{COMMON, MSIX_TABLE, offset};
use crate::device::virtio::{PciPlace, VirtioPci, firmware};
use crate::tables::DmaDomain;

/// Where the window lies.
pub(crate) const BAR_GPA: u32 = 0xC010_0000;
/// Offset of an environment's buffers in its memory; rings lie before it.
pub(crate) const BUFFERS: u64 = 0x8_0000;
/// Entries of each queue.
pub(crate) const SIZE: u16 = 64;

/// The NIC, its guest, its interrupts.
pub(crate) struct Nic<B: Backend = Fake> {
    pub(crate) guest: Guest,
    pub(crate) function: VirtioPci<Net<DmaDomain, B>>,
    pub(crate) interrupts: Vec<Arc<Counter>>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) ledger: Ledger,
    pub(crate) features: u64,
}

impl Nic<Fake> {
    /// A started NIC of four pairs with all features, and its wire. Environment 1 is the guardian, with pair 0.
    pub(crate) fn new() -> (Self, Fake) {
        Self::with_features(!0)
    }

    /// The same with these features only.
    pub(crate) fn with_features(wanted: u64) -> (Self, Fake) {
        let fake = Fake::default();
        (Self::with_backend(fake.clone(), wanted), fake)
    }
}

impl<B: Backend> Nic<B> {
    /// A started NIC on this backend.
    pub(crate) fn with_backend(backend: B, wanted: u64) -> Self {
        let mut nic = Self::stopped(backend);
        nic.features = firmware::start(&mut nic.function, wanted).expect("starts");
        nic
    }

    /// A NIC as after power-on.
    pub(crate) fn stopped(backend: B) -> Self {
        let mut guest = Guest::new();
        guest.guardian(1, 0, 1);
        let config = NetConfig {
            device_index: 0,
            queue_pairs: 4,
            queue_size_max: 256,
            mac: [2, 0, 0, 0, 0, 1],
            mtu_bytes: 1500,
        };
        let net = Net::new(config, guest.tables.clone(), guest.tables.flows(), backend).expect("possible");
        let interrupts: Vec<_> = (0..10).map(|_| Arc::new(Counter::default())).collect();
        let raised = interrupts.iter().map(|counter| Arc::clone(counter) as Arc<dyn Interrupt>).collect();
        let routes = Arc::new(Routes::default());
        let place = PciPlace { device_number: 3, bar_gpa: BAR_GPA };
        let function = VirtioPci::new(net, place, raised, routes.clone()).expect("possible");
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

    /// The device work, with budget enough.
    pub(crate) fn work(&mut self) -> Worked {
        self.function.work(&self.ledger, Budget::default())
    }
}

/// An address in an environment's buffers.
pub(crate) fn buffer_gpa(environment: u32, offset: u64) -> u64 {
    environment_gpa(environment) + BUFFERS + offset
}

/// A frame behind an empty header.
pub(crate) fn with_header(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADER_BYTES], frame].concat()
}

/// Gives a receive queue `count` buffers of `len` bytes, side by side from `gpa` on.
pub(crate) fn give_buffers(driver: &mut Driver, gpa: u64, len: u32, count: u64) {
    for at in 0..count {
        driver.add(&[Piece::into(gpa + at * u64::from(len), len)]);
    }
}
