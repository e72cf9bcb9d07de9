//! UDP sockets: what each call does, when it waits, and what becomes of datagrams that nobody can have.

use crate::wire::{ADDRESSES, CLIENT, SERVER, Wire, address, config, pattern};
use exos_net::{Config, Duration, Local, Problem};
use exos_sockets::{Error, MAX_DATAGRAM_BYTES, Sockets, UdpOption, UdpSocket};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;

const PORT: u16 = 5_000;
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A server that sends back what it gets.
fn echo(wire: &Wire) {
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let mut socket = sockets.bind_udp(address(SERVER, PORT)).expect("free");
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.expect("nothing is wrong");
            socket.send_to(&buffer[..len], from).await.expect("there is room");
        }
    });
}

fn bound(sockets: &Sockets) -> UdpSocket {
    sockets.bind_udp(ANY).expect("a port is free")
}

#[test]
fn datagrams_of_any_size_come_back_as_they_were() {
    let mut wire = Wire::new();
    echo(&wire);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = bound(&sockets);
        let mut buffer = vec![0; 65_536];
        for len in [1, 0, 1_472, 1_473, 9_000, MAX_DATAGRAM_BYTES] {
            let sent = pattern(len);
            assert_eq!(socket.send_to(&sent, address(SERVER, PORT)).await, Ok(len));
            let received = socket.receive(&mut buffer).await.expect("it comes back");
            assert_eq!((received.len, received.datagram_bytes), (len, len));
            assert_eq!((received.from, received.to.ip()), (address(SERVER, PORT), ADDRESSES[CLIENT].into()));
            assert!(buffer[..len] == sent);
        }
        let large = socket.send_to(&pattern(MAX_DATAGRAM_BYTES + 1), address(SERVER, PORT)).await;
        assert_eq!(large, Err(Error::TooLarge));
        socket.set(UdpOption::Fragment(false));
        assert_eq!(socket.send_to(&pattern(1_472), address(SERVER, PORT)).await, Ok(1_472));
        assert_eq!(socket.send_to(&pattern(1_473), address(SERVER, PORT)).await, Err(Error::TooLarge));
    });
}

#[test]
fn datagram_larger_than_the_buffer_loses_its_end_and_the_next_is_whole() {
    let mut wire = Wire::new();
    echo(&wire);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = sockets.connect_udp(address(SERVER, PORT)).expect("a port is free");
        socket.send(b"first").await.expect("room");
        socket.send(b"second").await.expect("room");
        let mut buffer = [0; 16];
        let peeked = socket.peek(&mut buffer[..3]).await.expect("it comes back");
        assert_eq!((peeked.len, peeked.datagram_bytes, &buffer[..3]), (3, 5, &b"fir"[..]));
        let received = socket.receive(&mut buffer[..3]).await.expect("it stayed");
        assert_eq!(peeked, received);
        assert_eq!(socket.recv(&mut buffer).await, Ok(6));
        assert_eq!(&buffer[..6], b"second");
        assert_eq!(socket.try_receive(&mut buffer), Ok(None));
        assert_eq!(socket.try_peek(&mut buffer), Ok(None));
    });
}

#[test]
fn port_in_use_is_refused_where_addresses_overlap_and_free_again_after_the_drop() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    wire.run(SERVER, async move {
        let first = sockets.bind_udp(address(SERVER, PORT)).expect("free");
        let errors = [ANY.ip(), ADDRESSES[SERVER].into(), Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into()]
            .map(|ip| sockets.bind_udp((ip, PORT).into()).map(|_| ()));
        assert_eq!(errors, [Err(Error::AddressInUse); 3]);
        assert_eq!(sockets.bind_udp_at(Local::Any, PORT).map(|_| ()), Err(Error::AddressInUse));
        let beside = sockets.bind_udp_at(Local::Ipv6, PORT).expect("another family's");
        drop((first, beside));
        drop(sockets.bind_udp((ANY.ip(), PORT).into()).expect("free again"));
        let foreign = sockets.bind_udp(address(CLIENT, PORT)).map(|_| ());
        assert_eq!(foreign, Err(Error::AddressNotAvailable));
        assert_eq!(sockets.udp_sockets(), 0);
    });
    wire.run_for(Duration::from_millis(1));
}

#[test]
fn port_that_somebody_beside_the_sockets_has_is_refused_and_stays_his() {
    for at_once in [true, false] {
        let mut wire = Wire::new();
        wire.ends[SERVER].stack_mut().bind_udp_at(Local::Any, PORT).expect("free");
        let mut socket = wire.sockets(SERVER).bind_udp_at(Local::Any, PORT).expect("the sockets have none");
        if !at_once {
            wire.run_for(Duration::from_millis(1));
            assert_eq!(socket.try_receive(&mut [0; 9]), Err(Error::AddressInUse));
        }
        drop(socket);
        // Another has its place among the sockets.
        let other = wire.sockets(SERVER).bind_udp_at(Local::Any, 700).expect("free");
        wire.run_for(Duration::from_millis(1));
        let stack = wire.ends[SERVER].stack_mut();
        assert_eq!(
            [PORT, 700].map(|port| stack.bind_udp_at(Local::Any, port).is_err()),
            [true; 2],
            "{at_once}"
        );
        drop(other);
        wire.run_for(Duration::from_millis(1));
        assert!(wire.ends[SERVER].stack_mut().bind_udp_at(Local::Any, 700).is_ok());
    }
}

#[test]
fn ephemeral_ports_are_of_the_range_and_there_is_an_end_to_them() {
    let narrow = Config { ephemeral_ports: 40_000..=40_002, ..config(CLIENT) };
    let mut wire = Wire::with([narrow, config(SERVER)]);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let held: Vec<_> = (0..3).map(|_| bound(&sockets)).collect();
        let mut ports: Vec<_> = held.iter().map(|socket| socket.local_addr().port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, [40_000, 40_001, 40_002]);
        assert_eq!(sockets.bind_udp(ANY).map(|_| ()), Err(Error::TooMany));
        drop(held);
        bound(&sockets);
    });
    let few = Config { max_udp_ports: 2, ..config(CLIENT) };
    let wire = Wire::with([few, config(SERVER)]);
    let sockets = wire.sockets(CLIENT);
    let _held = [bound(&sockets), bound(&sockets)];
    assert_eq!(sockets.bind_udp(ANY).map(|_| ()), Err(Error::TooMany));
}

#[test]
fn nobody_at_the_port_is_an_error_of_a_connected_socket_once_and_a_problem_of_any() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut connected = sockets.connect_udp(address(SERVER, 9)).expect("a port is free");
        let about = Some((address(SERVER, 9), Problem::PortUnreachable));
        connected.send(b"anybody?").await.expect("room");
        assert_eq!(connected.recv(&mut [0; 8]).await, Err(Error::Refused));
        assert_eq!((connected.take_problem(), connected.take_problem()), (about, None));
        connected.send(b"now?").await.expect("the error was told");
        connected.readable().await.expect("the next error");
        assert_eq!(connected.take_error(), Some(Error::Refused));
        assert_eq!(connected.try_receive(&mut [0; 8]), Ok(None));

        let mut open = bound(&sockets);
        open.send_to(b"anybody?", address(SERVER, 9)).await.expect("room");
        sockets.sleep(Duration::from_millis(10)).await;
        assert_eq!((open.try_receive(&mut [0; 8]), open.take_problem()), (Ok(None), about));
    });
    assert_eq!(wire.stack(SERVER).counters().dropped_no_port, 3);
}

#[test]
fn error_about_somebody_else_is_none_of_a_connected_socket() {
    let mut wire = Wire::new();
    echo(&wire);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = bound(&sockets);
        socket.send_to(b"anybody?", address(SERVER, 9)).await.expect("room");
        socket.connect(address(SERVER, PORT)).expect("one of ours");
        sockets.sleep(Duration::from_millis(10)).await;
        assert_eq!(socket.take_error(), None);
        assert!(socket.take_problem().is_some());
    });
}

#[test]
fn connected_socket_hears_its_peer_only_until_it_is_disconnected() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    let (peer, other) = (address(CLIENT, 6_001), address(CLIENT, 6_002));
    let client = wire.sockets(CLIENT);
    wire.spawner(CLIENT).spawn(async move {
        let mut one = client.bind_udp(peer).expect("free");
        let mut two = client.bind_udp(other).expect("free");
        for at in [b"1", b"2"] {
            client.sleep(Duration::from_millis(10)).await;
            two.send_to(b"two", address(SERVER, PORT)).await.expect("room");
            one.send_to(at, address(SERVER, PORT)).await.expect("room");
        }
        std::future::pending::<()>().await;
    });
    let heard = wire.run(SERVER, async move {
        let mut socket = sockets.bind_udp(address(SERVER, PORT)).expect("free");
        socket.connect(peer).expect("an address of the family");
        assert_eq!((socket.peer_addr(), socket.local_addr()), (Some(peer), address(SERVER, PORT)));
        let mut buffer = [0; 8];
        let mut heard = vec![socket.recv_from(&mut buffer).await];
        assert_eq!(socket.send_to(b"x", other).await, Err(Error::AddressNotAvailable));
        socket.disconnect();
        assert_eq!(socket.send(b"x").await, Err(Error::NotConnected));
        for _ in 0..2 {
            heard.push(socket.recv_from(&mut buffer).await);
        }
        assert_eq!(sockets.udp_counters().dropped_not_peer, 1);
        heard
    });
    assert_eq!(heard, [Ok((1, peer)), Ok((3, other)), Ok((1, peer))]);
}

#[test]
fn what_finds_no_room_is_dropped_and_counted_by_bytes_and_by_datagrams() {
    for (option, len, fits) in
        [(UdpOption::ReceiveDatagrams(3), 10, 3), (UdpOption::ReceiveBuffer(5_000), 1_000, 4)]
    {
        let mut wire = Wire::new();
        let sockets = wire.sockets(SERVER);
        let mut socket = sockets.bind_udp(address(SERVER, PORT)).expect("free");
        socket.set(option);
        let client = wire.sockets(CLIENT);
        wire.run(CLIENT, async move {
            let mut sender = bound(&client);
            for _ in 0..10 {
                sender.send_to(&pattern(len), address(SERVER, PORT)).await.expect("room");
            }
        });
        wire.run_for(Duration::from_millis(100));
        assert_eq!((socket.dropped(), sockets.udp_counters().dropped_full), (10 - fits, 10 - fits));
        let mut buffer = [0; 2_000];
        let waiting = std::iter::from_fn(|| socket.try_receive(&mut buffer).expect("no error")).count();
        assert_eq!(waiting as u64, fits);
    }
}

#[test]
fn writer_waits_while_too_much_waits_to_leave() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(CLIENT);
    let mut socket = bound(&sockets);
    socket.set(UdpOption::SendBuffer(5_000));
    let taken =
        (0..10).take_while(|_| socket.try_send_to(&pattern(1_000), address(SERVER, PORT)) == Ok(Some(1_000)));
    assert_eq!(taken.count(), 4);
    assert!(!socket.is_writable(1_000));
    let sent = wire.run(CLIENT, async move { socket.send_to(&pattern(20_000), address(SERVER, PORT)).await });
    assert_eq!(sent, Ok(20_000), "one may always");
}

#[test]
fn broadcasts_are_sent_when_they_were_allowed() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    let mut server = sockets.bind_udp((ANY.ip(), PORT).into()).expect("free");
    let client = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = bound(&client);
        for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)] {
            let to = (to, PORT).into();
            socket.set(UdpOption::Broadcast(false));
            assert_eq!(socket.send_to(b"all", to).await, Err(Error::BroadcastNotAllowed));
            assert_eq!(socket.connect(to), Err(Error::BroadcastNotAllowed));
            socket.set(UdpOption::Broadcast(true));
            assert_eq!(socket.send_to(b"all", to).await, Ok(3));
        }
    });
    wire.run_for(Duration::from_millis(10));
    let mut buffer = [0; 8];
    let to = std::iter::from_fn(|| server.try_receive(&mut buffer).expect("no error")).map(|got| got.to.ip());
    let all = [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)].map(IpAddr::V4);
    assert_eq!(to.collect::<Vec<IpAddr>>(), all);
}

#[test]
fn datagrams_to_who_does_not_answer_are_given_up_after_three_questions() {
    let mut wire = Wire::new();
    let nobody: SocketAddr = (Ipv4Addr::new(10, 0, 0, 77), PORT).into();
    let sockets = wire.sockets(CLIENT);
    let start = wire.now;
    wire.run(CLIENT, async move {
        let mut connected = sockets.connect_udp(nobody).expect("a port is free");
        let mut open = bound(&sockets);
        connected.send(b"x").await.expect("room");
        open.send_to(b"y", nobody).await.expect("room");
        assert_eq!(connected.recv(&mut [0; 8]).await, Err(Error::Unreachable));
        assert_eq!(open.take_problem(), Some((nobody, Problem::HostUnreachable)));
        assert_eq!((open.take_error(), sockets.udp_counters().dropped_unsent), (None, 2));
        // Nobody is told of one that is not there any more, and its port is free.
        connected.send(b"z").await.expect("room");
        let local = connected.local_addr();
        drop(connected);
        assert_eq!(sockets.udp_sockets(), 2, "it has something to send still");
        sockets.bind_udp(local).expect("nobody holds it");
        assert_eq!(sockets.udp_sockets(), 1);
    });
    assert_eq!(wire.now.since(start).as_nanos() / 1_000_000_000, 3);
    assert_eq!(wire.stack(CLIENT).counters().arp_requests, 4);
}

#[test]
fn datagrams_that_wait_for_their_next_hop_leave_in_order_and_after_the_drop() {
    let mut wire = Wire::new();
    let mut server = wire.sockets(SERVER).bind_udp((ANY.ip(), PORT).into()).expect("free");
    let client = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = bound(&client);
        for at in 0..20u8 {
            socket.send_to(&[at], address(SERVER, PORT)).await.expect("room");
        }
    });
    wire.run_for(Duration::from_millis(100));
    let mut buffer = [0; 8];
    let order: Vec<u8> =
        std::iter::from_fn(|| server.try_receive(&mut buffer).expect("no error").map(|_| buffer[0]))
            .collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    assert_eq!(wire.sockets(CLIENT).udp_sockets(), 0);
}

#[test]
fn time_to_live_shows_on_the_wire_and_fragments_have_it_as_well() {
    let mut wire = Wire::new();
    wire.keeps = true;
    let client = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut socket = bound(&client);
        socket.set(UdpOption::TimeToLive(NonZeroU8::new(3).expect("not 0")));
        socket.set(UdpOption::Dscp(exos_net::Dscp::EXPEDITED_FORWARDING));
        socket.send_to(&pattern(3_000), address(SERVER, PORT)).await.expect("room");
        client.sleep(Duration::from_millis(10)).await;
    });
    let udp = wire.kept.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 17);
    let marks: Vec<_> = udp.map(|frame| (frame[15], frame[22])).collect();
    assert_eq!(marks, [(46 << 2, 3); 3]);
    // The other end took them, and said that nobody is there.
    assert_eq!(wire.stack(SERVER).counters().dropped_no_port, 1);
}
