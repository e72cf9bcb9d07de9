//! Sockets of both families: who is heard at which addresses, and link-local ones with their scope.

use crate::wire::{
    ADDRESSES, CLIENT, OUR_V6, SERVER, Wire, address, pattern, read_exact, with_ipv6, write_all,
};
use exos_net::{Duration, Local};
use exos_sockets::{Error, INTERFACE, MAX_DATAGRAM_BYTES, UdpOption};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::rc::Rc;

fn wire() -> Wire {
    Wire::with([with_ipv6(CLIENT), with_ipv6(SERVER)])
}

/// What the interface makes of its Ethernet address.
const fn link_local(end: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, end as u16 + 1)
}

fn scoped(ip: Ipv6Addr, port: u16, scope: u32) -> SocketAddr {
    SocketAddrV6::new(ip, port, 0, scope).into()
}

/// Where the server's listener sees clients come from, who connect to each of these.
fn connect_to(local: Local, to: &[SocketAddr]) -> (Vec<Result<SocketAddr, Error>>, Vec<SocketAddr>) {
    let mut wire = wire();
    let (sockets, seen) = (wire.sockets(SERVER), Rc::new(RefCell::new(Vec::new())));
    let notes = seen.clone();
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen_at(local, 80, 8).expect("free");
        loop {
            let (mut stream, from) = listener.accept().await.expect("listening");
            notes.borrow_mut().push(from);
            write_all(&mut stream, b"hello").await.expect("room");
        }
    });
    let (sockets, to) = (wire.sockets(CLIENT), to.to_vec());
    let ends = wire.run(CLIENT, async move {
        sockets.sleep(Duration::from_millis(1)).await;
        let mut ends = Vec::new();
        for to in to {
            ends.push(match sockets.connect(to).await {
                Ok(mut stream) => {
                    read_exact(&mut stream, &mut [0; 5]).await.expect("a greeting");
                    Ok(stream.local_addr())
                }
                Err(error) => Err(error),
            });
        }
        ends
    });
    (ends, Rc::try_unwrap(seen).map_or_else(|seen| seen.borrow().clone(), RefCell::into_inner))
}

#[test]
fn dual_stack_listener_hears_both_families_and_the_others_one() {
    let to = [address(SERVER, 80), scoped(OUR_V6[SERVER], 80, 0)];
    let clients = [IpAddr::from(ADDRESSES[CLIENT]), OUR_V6[CLIENT].into()];
    for (local, expected) in [
        (Local::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), &clients[..]),
        (Local::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), &clients[..1]),
        (Local::Ipv6, &clients[1..]),
    ] {
        let (ends, seen) = connect_to(local, &to);
        let ours: Vec<_> = ends.iter().flatten().copied().collect();
        assert_eq!(ours, seen, "{local:?}");
        assert_eq!(seen.iter().map(SocketAddr::ip).collect::<Vec<_>>(), expected, "{local:?}");
        let refused = ends.iter().filter(|end| **end == Err(Error::Refused)).count();
        assert_eq!(refused, 2 - expected.len(), "{local:?}");
    }
}

#[test]
fn each_of_two_listeners_at_a_port_has_the_clients_of_its_addresses() {
    let mut wire = wire();
    let sockets = wire.sockets(SERVER);
    let [v4, v6] = [Local::Ipv4, Local::Ipv6].map(|local| sockets.listen_at(local, 80, 1).expect("free"));
    let client = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        client.connect(scoped(OUR_V6[SERVER], 80, 0)).await.expect("listening");
        client.connect(address(SERVER, 80)).await.expect("listening");
    });
    let from = wire.run(SERVER, async move {
        let (v4, v6) = (v4.accept().await.expect("a client").1, v6.accept().await.expect("a client").1);
        [v4.ip(), v6.ip()]
    });
    assert_eq!(from, [IpAddr::from(ADDRESSES[CLIENT]), OUR_V6[CLIENT].into()]);
}

#[test]
fn link_local_addresses_are_reached_in_their_scope_and_shown_with_it() {
    let to = [0, INTERFACE, 2].map(|scope| scoped(link_local(SERVER), 80, scope));
    let (ends, seen) = connect_to(Local::Any, &to);
    assert_eq!(ends[2], Err(Error::NoSuchInterface));
    assert_eq!(seen.len(), 2);
    for (end, seen) in ends.iter().zip(seen) {
        assert_eq!(*end, Ok(seen));
        assert_eq!(seen, scoped(link_local(CLIENT), seen.port(), INTERFACE));
    }
}

#[test]
fn ipv4_address_in_ipv6s_clothes_is_connected_to_over_ipv4() {
    let (ends, seen) = connect_to(Local::Any, &[(ADDRESSES[SERVER].to_ipv6_mapped(), 80).into()]);
    assert_eq!((ends, seen[0].ip()), (vec![Ok(seen[0])], ADDRESSES[CLIENT].into()));
}

#[test]
fn datagrams_of_both_families_come_to_one_socket_and_go_back_whole() {
    let mut wire = wire();
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let mut socket = sockets.bind_udp(scoped(Ipv6Addr::UNSPECIFIED, 7, 0)).expect("free");
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.expect("nothing is wrong");
            socket.send_to(&buffer[..len], from).await.expect("room");
        }
    });
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut buffer = vec![0; 65_536];
        let mut socket = sockets.bind_udp_at(Local::Any, 0).expect("a port is free");
        for to in [address(SERVER, 7), scoped(OUR_V6[SERVER], 7, 0), scoped(link_local(SERVER), 7, INTERFACE)]
        {
            for len in [0, 1_452, 1_453, 9_000, MAX_DATAGRAM_BYTES] {
                socket.send_to(&pattern(len), to).await.expect("room");
                assert_eq!(socket.recv_from(&mut buffer).await, Ok((len, to)));
                assert!(buffer[..len] == pattern(len));
            }
        }
        socket.set(UdpOption::Fragment(false));
        let too_large = socket.send_to(&pattern(1_453), scoped(OUR_V6[SERVER], 7, 0)).await;
        assert_eq!(too_large, Err(Error::TooLarge));
        let other_scope = socket.send_to(b"x", scoped(link_local(SERVER), 7, 9)).await;
        assert_eq!(other_scope, Err(Error::NoSuchInterface));

        let mut connected = sockets.connect_udp(scoped(link_local(SERVER), 7, 0)).expect("a port is free");
        connected.send(b"hello").await.expect("room");
        assert_eq!(connected.recv(&mut buffer).await, Ok(5));
        let local = scoped(link_local(CLIENT), connected.local_addr().port(), INTERFACE);
        assert_eq!(
            (connected.local_addr(), connected.send_to(b"x", address(SERVER, 7)).await),
            (local, Err(Error::AddressNotAvailable))
        );
    });
}

#[test]
fn nobody_at_a_port_over_ipv6_is_an_error_as_over_ipv4() {
    let mut wire = wire();
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = sockets.connect_udp(scoped(OUR_V6[SERVER], 9, 0)).expect("a port is free");
        socket.send(b"anybody?").await.expect("room");
        assert_eq!(socket.recv(&mut [0; 8]).await, Err(Error::Refused));
    });
}

#[test]
fn datagram_that_was_sent_to_one_of_several_addresses_says_to_which() {
    let mut wire = wire();
    let sockets = wire.sockets(SERVER);
    let only = sockets.bind_udp(scoped(OUR_V6[SERVER], 7, 0)).expect("ours");
    let mut rest = sockets.bind_udp(scoped(link_local(SERVER), 7, INTERFACE)).expect("ours as well");
    let client = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = client.bind_udp_at(Local::Any, 0).expect("a port is free");
        for to in [OUR_V6[SERVER], link_local(SERVER)] {
            socket.send_to(b"x", scoped(to, 7, 0)).await.expect("room");
        }
    });
    wire.run_for(Duration::from_millis(50));
    let received = rest.try_receive(&mut [0; 8]).expect("no error").expect("one came");
    assert_eq!(received.to, scoped(link_local(SERVER), 7, INTERFACE));
    assert_eq!(rest.try_receive(&mut [0; 8]), Ok(None));
    assert!(only.is_readable());
}
