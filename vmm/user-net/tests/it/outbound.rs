//! Connections of the guest: to the outside, to the host where it is allowed, and to nowhere else.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use exovm_netns::{Interface, Namespace, in_namespace};
use exovm_user_net::{Config, GATEWAY_ADDRESS, GUEST_ADDRESS, Outbound};
use smoltcp::socket::tcp::State;
use smoltcp::wire::TcpControl;

use crate::guest::{Offloads, World, pattern, publishing};
use crate::hostile::segment;

/// Addresses of the host and of another machine (RFC 5737).
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

fn allowing(ports: &[u16]) -> World {
    World::with(Config { host_ports: ports.to_vec(), ..publishing(&[]) }, Offloads::All)
}

/// A world with an outside: a namespace beside this one.
fn with_outside(outbound: Outbound, body: impl FnOnce(World, &Namespace)) {
    let outside = Namespace::create().unwrap();
    let (near, far) = (Interface::named("near").unwrap(), Interface::named("far").unwrap());
    Interface::create_veth_pair(&near, &far).unwrap();
    far.move_to(&outside).unwrap();
    near.add_address(IpAddr::V4(HOST), 24).unwrap();
    near.up().unwrap();
    outside
        .run(|| {
            far.add_address(IpAddr::V4(OTHER), 24).unwrap();
            far.up().unwrap();
        })
        .unwrap();
    body(World::with(Config { outbound, ..publishing(&[]) }, Offloads::All), &outside);
}

fn serve(stream: TcpStream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut stream, mut bytes) = (stream, Vec::new());
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    })
}

#[test]
fn guest_reaches_another_machine_and_gets_its_bytes_back() {
    in_namespace!(|| {
        with_outside(Outbound::Allowed, |mut world, outside| {
            let listener = outside.run(|| TcpListener::bind((OTHER, 7)).unwrap()).unwrap();
            let socket = world.connect((OTHER, 7), 5000);
            world.until_state(socket, State::Established);
            let (stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), IpAddr::V4(HOST), "network address translation");
            let server = serve(stream);
            let sent = pattern(300_000);
            let mut taken = 0;
            world.until("everything sent", |world| {
                taken += world.tcp(socket).send_slice(&sent[taken..]).unwrap();
                (taken == sent.len()).then_some(())
            });
            world.tcp(socket).close();
            assert!(world.receive(socket, sent.len()) == sent);
            server.join().unwrap();
            world.until("the end", |world| (world.net.connections() == 0).then_some(()));
            assert_eq!(world.counters().tcp_outbound, 1);
        });
    });
}

#[test]
fn port_of_another_machine_that_refuses_is_refused() {
    in_namespace!(|| {
        with_outside(Outbound::Allowed, |mut world, _| {
            let socket = world.connect((OTHER, 9), 5000);
            world.until_state(socket, State::Closed);
            let counters = world.counters();
            assert_eq!((counters.tcp_outbound_failed, counters.refused), (1, 0));
            assert_eq!(world.net.connections(), 0);
        });
    });
}

#[test]
fn host_is_not_reached_by_any_of_its_addresses_even_with_outbound() {
    in_namespace!(|| {
        with_outside(Outbound::Allowed, |mut world, _| {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            listener.set_nonblocking(true).unwrap();
            for address in [
                HOST,
                Ipv4Addr::new(203, 0, 113, 255),
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::new(127, 9, 9, 9),
                GATEWAY_ADDRESS,
                Ipv4Addr::BROADCAST,
            ] {
                world.raw(&segment((address, 80), 5000, |tcp| tcp.control = TcpControl::Syn));
            }
            std::thread::sleep(Duration::from_millis(20));
            assert!(listener.accept().is_err(), "nobody came");
            assert_eq!(world.counters().refused, 6);
            assert_eq!(world.net.connections(), 0);
        });
    });
}

#[test]
fn host_is_not_reached_by_an_address_that_only_a_route_makes_its_own() {
    in_namespace!(|| {
        with_outside(Outbound::Allowed, |mut world, _| {
            let route = ["route", "add", "local", "198.51.100.0/24", "dev", "lo"];
            assert!(std::process::Command::new("ip").args(route).status().unwrap().success());
            let address = Ipv4Addr::new(198, 51, 100, 7);
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            assert!(TcpStream::connect((address, 80)).is_ok(), "the host itself comes there");
            drop(listener.accept().unwrap());
            world.raw(&segment((address, 80), 5000, |tcp| tcp.control = TcpControl::Syn));
            assert_eq!((world.counters().refused, world.net.connections()), (1, 0));
        });
    });
}

#[test]
fn nothing_outside_is_reached_by_default() {
    in_namespace!(|| {
        with_outside(Outbound::Refused, |mut world, outside| {
            let listener = outside.run(|| TcpListener::bind((OTHER, 7)).unwrap()).unwrap();
            listener.set_nonblocking(true).unwrap();
            let socket = world.connect((OTHER, 7), 5000);
            world.until_state(socket, State::Closed);
            std::thread::sleep(Duration::from_millis(20));
            assert!(listener.accept().is_err(), "nobody came");
            assert_eq!(world.counters().refused, 1);
        });
    });
}

#[test]
fn allowed_port_of_the_host_is_reached_at_the_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut world = allowing(&[port]);
    let socket = world.connect((GATEWAY_ADDRESS, port), 5000);
    world.until_state(socket, State::Established);
    let server = serve(listener.accept().unwrap().0);
    world.tcp(socket).send_slice(b"echo").unwrap();
    world.exchange();
    world.tcp(socket).close();
    assert_eq!(world.receive(socket, 4), b"echo");
    server.join().unwrap();
}

#[test]
fn flood_of_connections_from_the_guest_is_bounded() {
    // Its queue of clients is full soon; what comes then is not answered.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut world = World::with(Config { host_ports: vec![port], ..publishing(&["0:80"]) }, Offloads::None);
    for from in 1000..4000 {
        world.raw(&segment((GATEWAY_ADDRESS, port), from, |tcp| tcp.control = TcpControl::Syn));
    }
    assert!(world.net.connections() <= 512, "{}", world.net.connections());
    assert!(world.counters().tcp_outbound_failed >= 3000 - 512);
    // Its own clients still come in.
    let client = TcpStream::connect(world.address()).unwrap();
    let server = world.listen(80);
    world.until_state(server, State::Established);
    drop(client);
    // And what came to nothing goes in the end.
    world.skip(Duration::from_secs(11));
    world.exchange();
    world.skip(Duration::from_secs(120));
    world.until("few connections", |world| (world.net.connections() < 300).then_some(()));
}

#[test]
fn connection_that_begins_with_more_than_a_packet_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut world = allowing(&[port]);
    let payload = [0x5A; 60_000];
    let mut long = segment((GATEWAY_ADDRESS, port), 5000, |tcp| {
        tcp.control = TcpControl::Syn;
        tcp.payload = &payload;
    });
    // As one that is to be segmented.
    long[..2].copy_from_slice(&[1, 1]);
    assert_eq!(world.raw(&long).len(), 1, "a reset");
    assert_eq!((world.net.connections(), world.counters().tcp_outbound_failed), (0, 1));
}

#[test]
fn echo_is_answered_by_the_gateway_and_nobody_else() {
    let mut world = World::new();
    assert_eq!(world.raw(&echo(GATEWAY_ADDRESS, b"ping")).len(), 1);
    assert_eq!(world.raw(&echo(OTHER, b"ping")).len(), 0);
    assert_eq!(world.counters().refused, 1);
}

/// An echo request of the guest's.
pub(crate) fn echo(to: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr};
    let icmp = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 2, data };
    let mut frame = segment((to, 1), 1, |_| {});
    frame.truncate(exovm_user_net::HEADER_BYTES + 14);
    let at = frame.len();
    frame.resize(at + 20 + icmp.buffer_len(), 0);
    let ip = Ipv4Repr {
        src_addr: GUEST_ADDRESS,
        dst_addr: to,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[at..]), &checksums);
    icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut frame[at + 20..]), &checksums);
    frame
}
