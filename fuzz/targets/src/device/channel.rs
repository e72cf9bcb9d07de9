//! The host channel: a driver that does anything, and clients at the ports.

use super::guest::{self, Guest};
use super::ops::{self, Bench, Worker};
use super::{channel_model, keeps_to_the_rules};
use crate::input::Input;
use exovm::device::virtio::console::{Begin, Console, HostPort, PortConfig, PortKind};
use exovm::tables::DmaDomain;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Ports of the console.
pub(super) const PORTS: [PortConfig; 2] = [
    PortConfig { name: "console", kind: PortKind::Console },
    PortConfig { name: "results", kind: PortKind::Stream },
];

impl Worker for Console<DmaDomain> {
    fn work(bench: &mut Bench<Self>) {
        bench.function.work(&bench.ledger);
    }

    fn world(bench: &mut Bench<Self>, input: &mut Input<'_>) {
        let ports: Vec<Arc<HostPort>> = bench.function.device().host_ports().to_vec();
        let port = &ports[usize::from(input.u8()) % ports.len()];
        let begin = if input.u8() & 1 == 0 { Begin::Unseen } else { Begin::Recent };
        let Ok(session) = port.attach(begin, Default::default()) else { return };
        let len = usize::from(input.u8());
        session.write(input.bytes(len));
        <Self as Worker>::work(bench);
        let mut seen = [0; 256];
        let count = session.peek(&mut seen);
        assert!(!guest::holds_foreign(&seen[..count]), "foreign memory was sent");
        session.advance(count);
    }
}

/// The host channel.
pub fn console(bytes: &[u8]) {
    let guest = Guest::new();
    let event = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
    let device = Console::new(0, &PORTS, guest.tables.clone(), event).expect("possible");
    let mut input = Input(bytes);
    let first = input.u8();
    if keeps_to_the_rules(first) {
        channel_model::run(guest, device, input);
    } else {
        ops::run(guest, device, first, input);
    }
}
