//! What one segment costs with all connections in one socket set of smoltcp, and with a set for each behind a hash: the
//! measurement behind the design of `src/tcp`. `cargo run --release -p exovm-user-net --example demux_cost`

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant as Clock;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

const HOST: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
const SEGMENTS: u32 = 20_000;
const FIRST_PORT: u16 = 10_000;

/// One packet in, and what goes out is forgotten.
struct Wire {
    packet: Option<Vec<u8>>,
}

struct In(Vec<u8>);
struct Out;

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Out {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        f(&mut vec![0; len])
    }
}

impl Device for Wire {
    type RxToken<'a> = In;
    type TxToken<'a> = Out;

    fn receive(&mut self, _: Instant) -> Option<(In, Out)> {
        self.packet.take().map(|packet| (In(packet), Out))
    }

    fn transmit(&mut self, _: Instant) -> Option<Out> {
        Some(Out)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

fn interface() -> Interface {
    let mut interface =
        Interface::new(Config::new(HardwareAddress::Ip), &mut Wire { packet: None }, Instant::ZERO);
    interface
        .update_ip_addrs(|addresses| addresses.push(IpCidr::new(HOST.into(), 24)).expect("room for one"));
    interface
}

fn socket(interface: &mut Interface, index: u16) -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; 4096]);
    let mut socket = Socket::new(buffer(), buffer());
    let local = IpListenEndpoint { addr: Some(HOST.into()), port: FIRST_PORT + index };
    socket.connect(interface.context(), IpEndpoint::new(GUEST.into(), 80), local).expect("closed");
    socket
}

/// An acknowledgment that is old news to its connection: the least that a segment can cost.
fn segment(index: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: 80,
        dst_port: FIRST_PORT + index,
        control: TcpControl::Rst,
        seq_number: TcpSeqNumber(0),
        ack_number: Some(TcpSeqNumber(0)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: HOST,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; ip.buffer_len() + tcp.buffer_len()];
    let checksums = ChecksumCapabilities::ignored();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &checksums);
    let (from, to) = (IpAddress::from(GUEST), IpAddress::from(HOST));
    tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[20..]), &from, &to, &checksums);
    packet
}

fn one_set(connections: u16) -> f64 {
    let mut interface = interface();
    let mut sockets = SocketSet::new(Vec::new());
    for index in 0..connections {
        let socket = socket(&mut interface, index);
        sockets.add(socket);
    }
    time(connections, |packet, _| {
        let mut wire = Wire { packet: Some(packet) };
        let _ = interface.poll_ingress_single(Instant::ZERO, &mut wire, &mut sockets);
        black_box(interface.poll_egress(Instant::ZERO, &mut wire, &mut sockets));
    })
}

fn a_set_each(connections: u16) -> f64 {
    let mut interface = interface();
    let mut sets: HashMap<u16, (SocketSet<'_>, SocketHandle)> = HashMap::new();
    for index in 0..connections {
        let mut set = SocketSet::new(Vec::new());
        let handle = set.add(socket(&mut interface, index));
        sets.insert(FIRST_PORT + index, (set, handle));
    }
    time(connections, |packet, index| {
        let Some((set, _)) = sets.get_mut(&(FIRST_PORT + index)) else { return };
        let mut wire = Wire { packet: Some(packet) };
        let _ = interface.poll_ingress_single(Instant::ZERO, &mut wire, set);
        black_box(interface.poll_egress(Instant::ZERO, &mut wire, set));
    })
}

/// Nanoseconds a segment.
fn time(connections: u16, mut take: impl FnMut(Vec<u8>, u16)) -> f64 {
    let packets: Vec<_> = (0..connections).map(segment).collect();
    // The first round sends the SYNs.
    packets.iter().enumerate().for_each(|(index, packet)| take(packet.clone(), index as u16));
    let started = Clock::now();
    for number in 0..SEGMENTS {
        let index = (number.wrapping_mul(7919) % u32::from(connections)) as u16;
        take(packets[usize::from(index)].clone(), index);
    }
    started.elapsed().as_nanos() as f64 / f64::from(SEGMENTS)
}

fn main() {
    println!("{:>12} {:>16} {:>16}", "connections", "one set, ns", "a set each, ns");
    for connections in [1, 10, 100, 1000] {
        println!("{connections:>12} {:>16.0} {:>16.0}", one_set(connections), a_set_each(connections));
    }
}
