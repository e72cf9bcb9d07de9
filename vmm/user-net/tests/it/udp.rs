//! Published UDP ports and datagrams to the outside.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use exovm_user_net::{
    Config, GATEWAY_ADDRESS, GATEWAY_MAC, GUEST_ADDRESS, GUEST_MAC, HEADER_BYTES, Outbound, Resolver,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use crate::guest::{Offloads, World, publishing};

/// A datagram of the guest's.
pub(crate) fn datagram(to: SocketAddrV4, from_port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: from_port, dst_port: to.port() };
    let ip = Ipv4Repr {
        src_addr: GUEST_ADDRESS,
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: 8 + payload.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; HEADER_BYTES + 14 + 20 + 8 + payload.len()];
    let (ethernet, packet) = frame[HEADER_BYTES..].split_at_mut(14);
    ethernet[..6].copy_from_slice(&GATEWAY_MAC);
    ethernet[6..12].copy_from_slice(&GUEST_MAC);
    ethernet[12..].copy_from_slice(&[8, 0]);
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), &checksums);
    let (from, to) = (IpAddress::from(GUEST_ADDRESS), IpAddress::from(*to.ip()));
    let place = &mut UdpPacket::new_unchecked(&mut packet[20..]);
    udp.emit(place, &from, &to, payload.len(), |room| room.copy_from_slice(payload), &checksums);
    frame
}

/// A datagram to the guest: from where, to which port, what. Its checksums are right.
fn parsed(frame: &[u8]) -> (SocketAddrV4, u16, Vec<u8>) {
    assert_eq!(frame[..HEADER_BYTES], [0; HEADER_BYTES]);
    let ip = Ipv4Packet::new_checked(&frame[HEADER_BYTES + 14..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!((ip.next_header(), ip.dst_addr()), (IpProtocol::Udp, GUEST_ADDRESS));
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    (SocketAddrV4::new(ip.src_addr(), udp.src_port()), udp.dst_port(), udp.payload().to_vec())
}

fn world() -> World {
    World::with(publishing(&["0:53/udp"]), Offloads::All)
}

fn client(world: &World) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(world.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn hear(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2000];
    let len = socket.recv(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

#[test]
fn datagrams_of_two_clients_reach_the_guest_and_answers_find_back() {
    let mut world = world();
    let clients = [client(&world), client(&world)];
    for (client, question) in clients.iter().zip([&b"first"[..], b""]) {
        client.send(question).unwrap();
        let (from, port, payload) = parsed(&world.until_raw());
        assert_eq!((*from.ip(), port, payload.as_slice()), (GATEWAY_ADDRESS, 53, question));
        let answer = [question, b" answered"].concat();
        assert!(world.raw(&datagram(from, 53, &answer)).is_empty());
        assert_eq!(hear(client), answer);
    }
    assert_eq!(world.net.sessions(), 2);
}

#[test]
fn datagram_too_long_for_a_frame_is_dropped_and_counted() {
    let mut world = world();
    let client = client(&world);
    client.send(&[1; 1473]).unwrap();
    client.send(&[2; 1472]).unwrap();
    assert_eq!(parsed(&world.until_raw()).2, [2; 1472]);
    assert_eq!(world.counters().udp_dropped, 1);
}

#[test]
fn flood_of_datagrams_that_are_dropped_holds_up_nobody() {
    let mut world = world();
    let client = client(&world);
    // As many as the host keeps for a socket, and a good one behind them.
    (0..80).for_each(|_| assert_eq!(client.send(&[1; 1473]).unwrap(), 1473));
    client.send(b"good").unwrap();
    assert_eq!(world.net.output(world.now()), None);
    assert_eq!(world.counters().udp_dropped, 64, "then others have their turn");
    assert!(world.wait(Duration::from_secs(5)), "the rest is not forgotten");
    assert_eq!(parsed(&world.until_raw()).2, b"good");
    assert_eq!(world.counters().udp_dropped, 80);
}

#[test]
fn session_ends_after_a_minute_and_its_answers_are_refused() {
    let mut world = world();
    let client = client(&world);
    client.send(b"?").unwrap();
    let (from, ..) = parsed(&world.until_raw());
    world.skip(Duration::from_secs(55));
    assert!(world.raw(&datagram(from, 53, b"late")).is_empty());
    assert_eq!(hear(&client), b"late");
    world.skip(Duration::from_secs(59));
    world.exchange();
    assert_eq!(world.net.sessions(), 1, "it was used");
    world.skip(Duration::from_secs(12));
    world.exchange();
    assert_eq!(world.net.sessions(), 0);
    assert_eq!(world.raw(&datagram(from, 53, b"too late")).len(), 1, "an ICMP error");
    assert_eq!(world.counters().refused, 1);
}

#[test]
fn clients_beyond_all_places_take_those_of_the_idlest() {
    let mut world = world();
    let clients: Vec<_> = (0..300).map(|_| client(&world)).collect();
    for client in &clients {
        client.send(b"?").unwrap();
        parsed(&world.until_raw());
    }
    assert_eq!(world.net.sessions(), 256);
    assert_eq!(world.counters().udp_evicted, 300 - 256);
}

#[test]
fn datagram_to_where_the_guest_may_not_go_is_refused_by_icmp() {
    let mut world = World::new();
    let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 53);
    let answers = world.raw(&datagram(to, 5000, b"12345678 and more"));
    let ip = Ipv4Packet::new_checked(&answers[0][HEADER_BYTES + 14..]).unwrap();
    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
    match Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap() {
        Icmpv4Repr::DstUnreachable { reason, header, data } => {
            assert_eq!(reason, Icmpv4DstUnreachable::HostProhibited);
            assert_eq!((header.dst_addr, &data[2..4]), (*to.ip(), &53u16.to_be_bytes()[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn question_to_the_gateway_goes_to_the_resolver_and_back() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    resolver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let config = Config {
        outbound: Outbound::Allowed,
        resolver: Resolver::Fixed(resolver.local_addr().unwrap()),
        ..publishing(&[])
    };
    let mut world = World::with(config, Offloads::None);
    let dns = SocketAddrV4::new(GATEWAY_ADDRESS, 53);
    assert!(world.raw(&datagram(dns, 5000, b"who?")).is_empty());
    let mut bytes = [0; 100];
    let (len, from): (usize, SocketAddr) = resolver.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..len], b"who?");
    // Somebody else's answer is not heard.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"forged", from).unwrap();
    resolver.send_to(b"me", from).unwrap();
    assert_eq!(parsed(&world.until_raw()), (dns, 5000, b"me".to_vec()));
    assert_eq!(world.counters().udp_to_guest, 1);
}

#[test]
fn guest_that_sends_to_ever_new_places_gets_so_many_sessions_and_no_more() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port();
    let config = Config { host_ports: vec![port], ..publishing(&[]) };
    let mut world = World::with(config, Offloads::None);
    for from in 1..2000 {
        world.raw(&datagram(SocketAddrV4::new(GATEWAY_ADDRESS, port), from, b"x"));
    }
    assert_eq!(world.net.sessions(), 256);
}
