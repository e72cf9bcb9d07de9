//! A channel on a fake machine, and its queues from the device's side.

use exos_channel::fake::{ALL_FEATURES, ConsoleQueue as _, FakeHal, FakeQueue, device, message};
use exos_channel::{Channel, Config};

pub(crate) const DEVICE_ADD: u16 = 1;
pub(crate) const DEVICE_REMOVE: u16 = 2;
pub(crate) const PORT_READY: u16 = 3;
pub(crate) const RESIZE: u16 = 5;
pub(crate) const PORT_OPEN: u16 = 6;
pub(crate) const PORT_NAME: u16 = 7;

/// Small queues, so that they wrap soon.
pub(crate) const SMALL: Config = Config { buffers: 4, buffer_bytes: 100 };

pub(crate) struct Bench {
    pub(crate) channel: Channel<FakeHal>,
    pub(crate) hal: FakeHal,
    /// To the driver, and from it.
    pub(crate) control: (FakeQueue, FakeQueue),
    features: u64,
}

impl Bench {
    /// A channel that asks for these ports. The device has said nothing yet.
    pub(crate) fn new(features: u64, names: &'static [&'static str]) -> Self {
        let hal = FakeHal::new();
        let channel = Channel::open(hal.clone(), 0, &device(features), SMALL, names).expect("a channel");
        let control = (hal.queue(2, features), hal.queue(3, features));
        Self { channel, hal, control, features }
    }

    /// Says something and lets the driver hear it.
    pub(crate) fn say(&mut self, port: u32, event: u16, value: u16, more: &[u8]) {
        assert!(self.control.0.deliver(&message(port, event, value, more)), "a buffer for messages");
        self.channel.poll();
    }

    /// What the driver said.
    pub(crate) fn heard(&mut self) -> Vec<Vec<u8>> {
        self.control.1.drain()
    }

    /// A port's queues.
    pub(crate) fn queues(&self, port: u32) -> (FakeQueue, FakeQueue) {
        let first = if port == 0 { 0 } else { 2 * port + 2 };
        (self.hal.queue(first, self.features), self.hal.queue(first + 1, self.features))
    }
}

/// A channel whose port `console`, number 1, is open, and the port's queues.
pub(crate) fn opened(features: u64) -> (Bench, FakeQueue, FakeQueue) {
    let mut bench = Bench::new(features, &["console"]);
    bench.say(1, DEVICE_ADD, 0, &[]);
    bench.say(1, PORT_NAME, 1, b"console");
    bench.heard();
    let (receive, transmit) = bench.queues(1);
    (bench, receive, transmit)
}

pub(crate) fn opened_with_all() -> (Bench, FakeQueue, FakeQueue) {
    opened(ALL_FEATURES)
}

/// Bytes that say where in their stream they belong.
pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at * 7 + (at >> 8) * 13) as u8).collect()
}
