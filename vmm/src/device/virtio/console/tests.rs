//! The console with a guest around it: what is said of ports, what goes through them, and that nobody's mistake is somebody
//! else's.

use std::sync::Arc;

use abi::domain::Rights;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::account::ledger::Bucket;
use crate::device::virtio::pci::{offset, status};
use crate::device::virtio::test_utils::bench::SIZE;
use crate::device::virtio::test_utils::console::{BUFFER, Channel, Control, PORTS, Queue, message};
use crate::device::virtio::test_utils::{Counter, ENVIRONMENTS, Guest, Piece, environment_gpa};

mod bytes;
mod hostile;
mod ports;

/// A console whose port 0 was opened by environment 1, with its control queues and the port's.
fn opened() -> (Channel, Control, Queue, Queue) {
    let mut channel = Channel::new();
    let mut control = Control::ready(&mut channel);
    let receive = Queue::bind(&mut channel, 0, 1);
    let transmit = Queue::bind(&mut channel, 1, 1);
    control.say(&mut channel, 0, 6, 1);
    (channel, control, receive, transmit)
}

/// All that the session has to say now.
fn read(session: &Session) -> Vec<u8> {
    let mut bytes = vec![0; BUFFER_BYTES];
    let count = session.peek(&mut bytes);
    session.advance(count);
    bytes.truncate(count);
    bytes
}

/// Bytes that say where in their stream they belong.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at * 7 + (at >> 8) * 13) as u8).collect()
}

fn attach(port: &Arc<HostPort>) -> Session {
    port.attach(Begin::Unseen, TerminalSize::default()).expect("free and open")
}

#[test]
fn new_with_impossible_ports_returns_error() {
    let guest = Guest::new();
    let make = |ports: &[PortConfig]| {
        let event = EventFd::new(0).expect("an event descriptor");
        Console::new(0, ports, guest.tables.clone(), event).err().map(|error| error.to_string())
    };
    let port = |name| PortConfig { name, kind: PortKind::Stream };
    assert_eq!(make(&[port("a"), port("b")]), None);
    assert!(make(&[]).is_some_and(|error| error.contains("0 ports")));
    assert!(make(&vec![port("a"); 16]).is_some_and(|error| error.contains("16 ports")));
    assert!(make(&[port("a"), port("a")]).is_some_and(|error| error.contains("\"a\"")));
    assert!(make(&[port("")]).is_some_and(|error| error.contains("\"\"")));
    assert!(make(&[port("a name that is longer than one may be")]).is_some());
}

#[test]
fn queue_numbers_are_those_of_the_specification() {
    let roles: Vec<_> = (0..10).map_while(|queue| Role::of(queue, 3)).collect();
    let (receive, transmit) = (|port| Role::Receive { port }, |port| Role::Transmit { port });
    let expected = [
        receive(0),
        transmit(0),
        Role::ControlReceive,
        Role::ControlTransmit,
        receive(1),
        transmit(1),
        receive(2),
        transmit(2),
    ];
    assert_eq!(roles, expected);
    let numbers: Vec<_> = roles.into_iter().map(Role::queue).collect();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

#[test]
fn configuration_says_how_many_ports_and_multiport_is_required() {
    let mut channel = Channel::new();
    let mut config = [0xAA; 12];
    crate::device::pci::PciFunction::bar_read(
        &mut channel.function,
        crate::device::virtio::pci::DEVICE_CONFIG,
        &mut config,
    );
    assert_eq!(config, [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let guest = Guest::new();
    let event = EventFd::new(0).expect("an event descriptor");
    let mut console = Console::new(0, &PORTS, guest.tables.clone(), event).expect("possible");
    use crate::device::virtio::VirtioDevice;
    use crate::device::virtio::features::{CONSOLE_MULTIPORT, VERSION_1};
    assert!(!console.accept_features(VERSION_1));
    assert!(!console.accept_features(CONSOLE_MULTIPORT));
    assert!(console.accept_features(VERSION_1 | CONSOLE_MULTIPORT));
}

#[test]
fn idle_work_does_nothing_and_leaves_the_ledger_where_it_was() {
    let (mut channel, _control, mut receive, _transmit) = opened();
    receive.give(8);
    channel.ledger.enter(Bucket::Poll);
    let before = channel.ledger.read()[Bucket::Channel.index()].entries;
    assert_eq!(channel.work(), Worked::default());
    assert_eq!(channel.ledger.enter(Bucket::Other), Bucket::Poll);
    assert_eq!(channel.ledger.read()[Bucket::Channel.index()].entries, before);
}

#[test]
fn work_is_accounted_to_its_bucket() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    channel.ledger.enter(Bucket::Exit);
    let before = channel.ledger.read()[Bucket::Channel.index()].entries;
    transmit.send(&channel, b"hello");
    channel.work();
    assert!(channel.ledger.read()[Bucket::Channel.index()].entries > before);
    assert_eq!(channel.ledger.enter(Bucket::Other), Bucket::Exit);
}
