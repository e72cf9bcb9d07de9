//! A console with a guest around it, and a driver that speaks its control messages.

use std::collections::VecDeque;
use std::sync::Arc;

use super::bench::BUFFERS;
use super::{Bench, Driver, Guest, Piece, environment_gpa};
use crate::device::virtio::console::{Console, HostPort, PortConfig, PortKind, Worked};
use crate::device::virtio::firmware;
use crate::tables::DmaDomain;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Ports of the device: a console and two streams.
pub(crate) const PORTS: [PortConfig; 3] = [
    PortConfig { name: "console", kind: PortKind::Console },
    PortConfig { name: "control", kind: PortKind::Stream },
    PortConfig { name: "results", kind: PortKind::Stream },
];
/// Bytes of a buffer that the driver gives.
pub(crate) const BUFFER: u64 = 1024;

/// The console, its guest, its interrupts.
pub(crate) type Channel = Bench<Console<DmaDomain>>;

impl Channel {
    /// A started console with all features.
    pub(crate) fn new() -> Self {
        Self::with_features(!0)
    }

    /// The same with these features only.
    pub(crate) fn with_features(wanted: u64) -> Self {
        let guest = Guest::new();
        let event = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
        let console = Console::new(0, &PORTS, guest.tables.clone(), event).expect("possible");
        let mut channel = Self::around(guest, console);
        channel.features = firmware::start(&mut channel.function, wanted).expect("starts");
        channel
    }

    /// The device work.
    pub(crate) fn work(&mut self) -> Worked {
        self.function.work(&self.ledger)
    }

    /// The host's end of a port.
    pub(crate) fn host(&self, port: usize) -> Arc<HostPort> {
        Arc::clone(&self.function.device().host_ports()[port])
    }
}

/// One queue of environment 1 with buffers of its own: what a plain driver does with it.
pub(crate) struct Queue {
    pub(crate) driver: Driver,
    environment: u32,
    buffers_gpa: u64,
    next: u64,
    /// Where the buffers lie that the device has, in the order of giving.
    given: VecDeque<u64>,
}

impl Queue {
    /// Binds it.
    pub(crate) fn bind(channel: &mut Channel, queue: u16, environment: u32) -> Self {
        let driver = channel.bind(queue, environment);
        let buffers_gpa = environment_gpa(environment) + BUFFERS + u64::from(queue) * 64 * BUFFER;
        Self { driver, environment, buffers_gpa, next: 0, given: VecDeque::new() }
    }

    /// Whose it is.
    pub(crate) fn environment(&self) -> u32 {
        self.environment
    }

    /// Where the next buffer lies.
    pub(crate) fn next_gpa(&mut self) -> u64 {
        let gpa = self.buffers_gpa + self.next % 64 * BUFFER;
        self.next += 1;
        gpa
    }

    /// Writes bytes for the device, [`BUFFER`] at most.
    pub(crate) fn send(&mut self, channel: &Channel, bytes: &[u8]) {
        let gpa = self.next_gpa();
        channel.guest.write(gpa, bytes);
        self.driver.add(&[Piece::out(gpa, bytes.len() as u32)]);
    }

    /// Gives the device buffers.
    pub(crate) fn give(&mut self, count: usize) {
        for _ in 0..count {
            let gpa = self.next_gpa();
            self.driver.add(&[Piece::into(gpa, BUFFER as u32)]);
            self.given.push_back(gpa);
        }
    }

    /// What the device wrote, a buffer each.
    pub(crate) fn received(&mut self, channel: &Channel) -> Vec<Vec<u8>> {
        let used = self.driver.all_used();
        used.into_iter()
            .map(|(_, bytes)| {
                let gpa = self.given.pop_front().expect("the device had a buffer");
                channel.guest.read(gpa, bytes as usize)
            })
            .collect()
    }
}

/// A control message.
pub(crate) fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// The control queues of a driver, which is environment 1.
pub(crate) struct Control {
    pub(crate) receive: Queue,
    pub(crate) transmit: Queue,
}

impl Control {
    /// Binds them, with buffers.
    pub(crate) fn bind(channel: &mut Channel) -> Self {
        let mut receive = Queue::bind(channel, 2, 1);
        receive.give(32);
        Self { receive, transmit: Queue::bind(channel, 3, 1) }
    }

    /// Binds them and makes all ports known and ready; takes what the device says of it.
    pub(crate) fn ready(channel: &mut Channel) -> Self {
        let mut control = Self::bind(channel);
        control.say(channel, 0, 0, 1);
        for port in 0..PORTS.len() as u32 {
            control.say(channel, port, 3, 1);
        }
        control.heard(channel);
        control
    }

    /// Sends a message and has the device work.
    pub(crate) fn say(&mut self, channel: &mut Channel, port: u32, event: u16, value: u16) {
        self.transmit.send(channel, &message(port, event, value));
        channel.work();
    }

    /// What the device has said since the last time. The buffers go back.
    pub(crate) fn heard(&mut self, channel: &mut Channel) -> Vec<Vec<u8>> {
        let messages = self.receive.received(channel);
        self.receive.give(messages.len());
        messages
    }
}
