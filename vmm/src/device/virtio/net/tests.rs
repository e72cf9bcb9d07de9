//! The NIC with a guest around it: what goes out, what comes in, and that nobody's mistake is somebody else's.

use std::sync::Arc;

use abi::domain::Rights;
use abi::flow::{ROOT, Target, ipv4};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::account::ledger::Bucket;
use crate::backend::{BackendError, IoVec, IoVecMut, Offloads, Written};
use crate::device::virtio::pci::{offset, status};
use crate::device::virtio::test_utils::nic::{Nic, SIZE, buffer_gpa, give_buffers, with_header};
use crate::device::virtio::test_utils::{ENVIRONMENTS, Piece, environment_gpa};
use crate::tables::frame::tests::tcp_frame;
use crate::tables::{FlowField, Memory};

mod hostile;
mod receive;
mod transmit;

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];

/// A frame from the client to a port of the server.
fn request(port: u16, payload: &[u8]) -> Vec<u8> {
    with_header(&tcp_frame((CLIENT, 4000), (SERVER, port), payload))
}

/// A frame from a port of the server to the client.
fn response(port: u16, payload: &[u8]) -> Vec<u8> {
    with_header(&tcp_frame((SERVER, port), (CLIENT, 4000), payload))
}

/// Divides the NIC: TCP to `port` of the server goes to `environment` with these pairs.
fn give_port(nic: &mut Nic, port: u16, environment: u16, queue_pair: u16, queue_pairs: u16) {
    give_port_with(nic, port, Target { environment, queue_pair, queue_pairs, rights: 0 });
}

/// The same by a target.
fn give_port_with(nic: &mut Nic, port: u16, target: Target) {
    let host = FlowField::Destination { address: ipv4(SERVER), prefix_len: 128 };
    let flows = &mut nic.guest.flows;
    let find_or = |result: Result<u32, crate::tables::FlowTableError>| match result {
        Ok(index) | Err(crate::tables::FlowTableError::Exists { index }) => index,
        Err(error) => panic!("{error}"),
    };
    let address = find_or(flows.insert(ROOT, host, None));
    let tcp = find_or(flows.insert(address, FlowField::Protocol(6), None));
    flows.insert(tcp, FlowField::DestinationPort(port), Some(target)).expect("room");
}

#[test]
fn new_with_impossible_config_returns_error() {
    let guest = crate::device::virtio::test_utils::Guest::new();
    let make = |queue_pairs, queue_size_max, mtu_bytes| {
        let config = NetConfig { device_index: 0, queue_pairs, queue_size_max, mac: [0; 6], mtu_bytes };
        let backend = crate::backend::fake::Fake::default();
        Net::new(config, guest.tables.clone(), guest.tables.flows(), backend).err()
    };
    assert_eq!(make(15, 1024, 1500), None);
    assert_eq!(make(16, 256, 1500), Some(NetError::QueuePairs { queue_pairs: 16 }));
    assert_eq!(make(0, 256, 1500), Some(NetError::QueuePairs { queue_pairs: 0 }));
    assert_eq!(make(1, 2048, 1500), Some(NetError::QueueSize { size: 2048 }));
    assert_eq!(make(1, 100, 1500), Some(NetError::QueueSize { size: 100 }));
    assert_eq!(make(1, 256, 67), Some(NetError::Mtu { mtu_bytes: 67 }));
}

#[test]
fn offloads_of_the_backend_are_those_negotiated() {
    let (_nic, fake) = Nic::new();
    assert_eq!(fake.wire().offloads, Some(Offloads { checksum: true, tso4: true, tso6: true }));
    let (_nic, fake) = Nic::with_features(super::bits::NET_GUEST_CSUM | super::bits::NET_GUEST_TSO4);
    assert_eq!(fake.wire().offloads, Some(Offloads { checksum: true, tso4: true, tso6: false }));
    let (_nic, fake) = Nic::with_features(super::bits::NET_GUEST_TSO4);
    assert_eq!(fake.wire().offloads, Some(Offloads::default()), "segmentation needs checksums");
}

#[test]
fn idle_work_does_nothing_and_leaves_the_ledger_where_it_was() {
    let (mut nic, _fake) = Nic::new();
    nic.bind(0, 1);
    nic.bind(1, 1);
    nic.ledger.enter(Bucket::Poll);
    let worked = nic.work();
    assert_eq!(worked, Worked { receive_starved: true, ..Worked::default() }, "no buffers were given");
    assert_eq!(nic.ledger.enter(Bucket::Other), Bucket::Poll);
    assert_eq!(nic.ledger.read()[Bucket::NetTransmit.index()].entries, 0);
}

#[test]
fn work_is_accounted_to_its_buckets() {
    let (mut nic, fake) = Nic::new();
    let (mut receive, mut transmit) = (nic.bind(0, 1), nic.bind(1, 1));
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 20);
    let frame = response(80, b"hello");
    nic.guest.write(buffer_gpa(1, 0x4_0000), &frame);
    transmit.add(&[Piece::out(buffer_gpa(1, 0x4_0000), frame.len() as u32)]);
    fake.wire().to_guest.push_back(request(80, b"GET"));
    nic.ledger.enter(Bucket::Exit);
    nic.work();
    let sums = nic.ledger.read();
    let entries = |bucket: Bucket| sums[bucket.index()].entries;
    assert_eq!(entries(Bucket::BackendWrite), 1);
    assert_eq!(entries(Bucket::NetTransmit), 2);
    assert_eq!(entries(Bucket::BackendRead), 2, "one frame, and that there is no second");
    assert_eq!(entries(Bucket::NetReceive), 3);
    assert_eq!(nic.ledger.enter(Bucket::Other), Bucket::Exit);
}

#[test]
fn control_queue_takes_the_number_of_pairs_and_nothing_else() {
    let (mut nic, _fake) = Nic::new();
    let mut control = nic.bind(8, 1);
    for (command, ack) in [([4, 0, 4, 0], 0), ([4, 0, 5, 0], 1), ([4, 0, 0, 0], 1), ([1, 0, 1, 0], 1)] {
        nic.guest.write(buffer_gpa(1, 0), &command);
        nic.guest.write(buffer_gpa(1, 64), &[9]);
        let head = control.add(&[Piece::out(buffer_gpa(1, 0), 4), Piece::into(buffer_gpa(1, 64), 1)]);
        nic.work();
        assert_eq!(control.next_used(), Some((head, 1)));
        assert_eq!(nic.guest.read(buffer_gpa(1, 64), 1), [ack]);
    }
    control.add(&[Piece::out(buffer_gpa(1, 0), 4)]);
    assert!(nic.work().stopped, "no place for the answer");
}
