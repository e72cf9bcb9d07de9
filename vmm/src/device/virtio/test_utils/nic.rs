//! A NIC with a guest around it.

use super::{Bench, Driver, Guest, Piece, environment_gpa};
use crate::backend::fake::Fake;
use crate::backend::{Backend, HEADER_BYTES};
use crate::device::virtio::firmware;
use crate::device::virtio::net::{Budget, Net, NetConfig, Worked};
use crate::tables::DmaDomain;

pub(crate) use super::bench::{BAR_GPA, BUFFERS, SIZE};

/// The NIC, its guest, its interrupts.
pub(crate) type Nic<B = Fake> = Bench<Net<DmaDomain, B>>;

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
        Self::around(guest, net)
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
