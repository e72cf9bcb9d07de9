//! Sockets that speak to sockets of the same machine, by its own addresses and by those that nobody else sees.

use crate::wire::{ADDRESSES, CLIENT, OUR_V6, Wire, pattern, read_exact, read_to_end, with_ipv6, write_all};
use exos_net::{Duration, Local};
use exos_sockets::{Error, SocketOption, Sockets};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const PORT: u16 = 5_000;
const SHORT: Duration = Duration::from_millis(20);
const HERE: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(ADDRESSES[CLIENT]),
    IpAddr::V6(OUR_V6[CLIENT]),
];

fn wire() -> Wire {
    let mut wire = Wire::with([with_ipv6(CLIENT), with_ipv6(1)]);
    wire.run_for(Duration::from_secs(5));
    wire
}

/// Runs a program with sockets of one machine, and looks that not one segment or datagram of it is on the wire.
fn run<T: 'static, F: Future<Output = T> + 'static>(program: impl FnOnce(Sockets) -> F) -> T {
    let mut wire = wire();
    let out = |wire: &Wire| {
        (wire.stack(CLIENT).counters().segments_out, wire.stack(CLIENT).counters().datagrams_out)
    };
    let before = out(&wire);
    let result = wire.run(CLIENT, program(wire.sockets(CLIENT)));
    wire.run_for(SHORT);
    assert_eq!(out(&wire), before);
    assert_eq!(wire.sockets(CLIENT).len(), 0, "streams are left");
    result
}

async fn echo(sockets: Sockets, local: Local) {
    let listener = sockets.listen_at(local, PORT, 8).expect("free");
    loop {
        let (mut stream, peer) = listener.accept().await.expect("listening");
        assert_eq!((stream.peer_addr(), stream.local_addr().port()), (peer, PORT));
        let mut buffer = vec![0; 3_000];
        while let len @ 1.. = stream.read(&mut buffer).await.expect("open") {
            write_all(&mut stream, &buffer[..len]).await.expect("open");
        }
    }
}

#[test]
fn streams_carry_every_byte_both_ways_at_once_and_end_in_order() {
    let mut wire = wire();
    wire.spawner(CLIENT).spawn(echo(wire.sockets(CLIENT), Local::Any));
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        sockets.sleep(SHORT).await;
        for ip in HERE {
            let mut stream = sockets.connect((ip, PORT).into()).await.expect("somebody listens");
            assert_eq!((stream.peer_addr(), stream.local_addr().ip()), ((ip, PORT).into(), ip));
            assert_ne!(stream.local_addr().port(), PORT);
            let bytes = pattern(1_000_000);
            let (mut read, mut write) = stream.split();
            let mut back = vec![0; bytes.len()];
            let writing = async {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    rest = &rest[write.write(rest).await.expect("open")..];
                }
            };
            let reading = async {
                let mut at = 0;
                while at < back.len() {
                    at += read.read(&mut back[at..]).await.expect("open");
                }
            };
            futures_util::future::join(writing, reading).await;
            assert!(back == bytes);
            stream.close_write();
            assert_eq!(read_to_end(&mut stream).await.expect("in order"), []);
        }
    });
    wire.run_for(SHORT);
    assert_eq!(wire.sockets(CLIENT).len(), 0);
    assert_eq!((wire.stack(CLIENT).counters().segments_out, wire.stack(CLIENT).connections()), (0, 0));
}

#[test]
fn nobody_at_a_port_or_at_an_address_refuses() {
    run(|sockets| async move {
        for ip in HERE {
            assert_eq!(sockets.connect((ip, PORT).into()).await.err(), Some(Error::Refused));
        }
        let _listener = sockets.listen_at(Local::Address(HERE[0]), PORT, 1).expect("free");
        assert!(sockets.connect((HERE[0], PORT).into()).await.is_ok());
        assert_eq!(sockets.connect((HERE[2], PORT).into()).await.err(), Some(Error::Refused));
        // The backlog is full with one that nobody has accepted.
        assert_eq!(sockets.connect((HERE[0], PORT).into()).await.err(), Some(Error::Reset));
    });
}

#[test]
fn who_is_not_read_waits_and_goes_on_when_he_is() {
    run(|sockets| async move {
        let listener = sockets.listen(PORT, 8).expect("free");
        let mut stream = sockets.connect((HERE[0], PORT).into()).await.expect("somebody listens");
        stream.set(SocketOption::SendBuffer(10_000));
        let (mut accepted, _) = listener.accept().await.expect("it came");
        accepted.set(SocketOption::ReceiveBuffer(20_000));
        let (bytes, mut sent) = (pattern(100_000), 0);
        for _ in 0..50 {
            if let Some(len) = stream.try_write(&bytes[sent..]).expect("open") {
                sent += len;
            }
            sockets.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(sent, 30_000);
        let mut back = vec![0; sent];
        read_exact(&mut accepted, &mut back).await.expect("it is there");
        sockets.sleep(Duration::from_millis(1)).await;
        assert_eq!((back == bytes[..sent], stream.is_writable()), (true, true));
    });
}

#[test]
fn half_that_is_closed_is_the_end_for_the_other_and_what_was_written_before_arrives() {
    run(|sockets| async move {
        let listener = sockets.listen(PORT, 8).expect("free");
        let mut stream = sockets.connect((HERE[1], PORT).into()).await.expect("somebody listens");
        let (mut accepted, _) = listener.accept().await.expect("it came");
        let bytes = pattern(200_000);
        write_all(&mut stream, &bytes).await.expect("room");
        stream.close_write();
        assert_eq!(stream.write(b"more").await, Err(Error::BrokenPipe));
        assert!(read_to_end(&mut accepted).await.expect("in order") == bytes);
        write_all(&mut accepted, b"answer").await.expect("open");
        drop(accepted);
        assert_eq!(read_to_end(&mut stream).await.expect("in order"), b"answer");
    });
}

#[test]
fn last_words_of_who_is_gone_are_heard_before_it_is_said_that_nobody_reads() {
    run(|sockets| async move {
        let listener = sockets.listen(PORT, 8).expect("free");
        for is_first in [true, false] {
            let mut stream = sockets.connect((HERE[0], PORT).into()).await.expect("somebody listens");
            let (mut accepted, _) = listener.accept().await.expect("it came");
            sockets.sleep(SHORT).await;
            // All of it in one round.
            if !is_first {
                assert_eq!(stream.try_write(b"who hears?"), Ok(Some(10)));
            }
            assert_eq!(accepted.try_write(b"bye"), Ok(Some(3)));
            drop(accepted);
            if is_first {
                assert_eq!(stream.try_write(b"who hears?"), Ok(Some(10)));
            }
            sockets.sleep(SHORT).await;
            let mut words = [0; 9];
            assert_eq!((stream.read(&mut words).await, &words[..3]), (Ok(3), &b"bye"[..]), "{is_first}");
            assert_eq!(stream.read(&mut words).await, Err(Error::Reset));
        }
    });
}

#[test]
fn listener_that_the_stack_refused_has_nobodys_streams_and_its_drop_nobodys_port() {
    for at_once in [true, false] {
        let mut wire = wire();
        wire.ends[CLIENT].stack_mut().listen_at(Local::Any, PORT).expect("free");
        let sockets = wire.sockets(CLIENT);
        let listener = sockets.listen(PORT, 8).expect("the sockets have none");
        if !at_once {
            wire.run(CLIENT, async move {
                let refused = sockets.connect((HERE[2], PORT).into()).await.err();
                assert_eq!(refused, Some(Error::Refused));
                assert_eq!(listener.accept().await.err(), Some(Error::AddressInUse));
            });
        } else {
            drop(listener);
        }
        wire.run_for(SHORT);
        assert!(wire.ends[CLIENT].stack_mut().listen_at(Local::Any, PORT).is_err(), "{at_once}");
    }
}

#[test]
fn aborting_and_leaving_something_unread_resets_the_other_end() {
    run(|sockets| async move {
        let listener = sockets.listen(PORT, 8).expect("free");
        for leaves in ["abort", "unread", "deaf"] {
            let mut stream = sockets.connect((HERE[2], PORT).into()).await.expect("somebody listens");
            let (mut accepted, _) = listener.accept().await.expect("it came");
            write_all(&mut stream, b"hello").await.expect("room");
            sockets.sleep(SHORT).await;
            match leaves {
                "abort" => accepted.abort(),
                "unread" => {}
                _ => read_exact(&mut accepted, &mut [0; 5]).await.expect("it is there"),
            }
            drop(accepted);
            sockets.sleep(SHORT).await;
            if leaves == "deaf" {
                write_all(&mut stream, b"who hears?").await.expect("not known yet");
                sockets.sleep(SHORT).await;
            }
            assert_eq!(stream.read(&mut [0; 9]).await, Err(Error::Reset), "{leaves}");
        }
    });
}

#[test]
fn datagrams_reach_sockets_of_the_same_machine() {
    run(|sockets| async move {
        let mut server = sockets.bind_udp_at(Local::Any, PORT).expect("free");
        let mut client = sockets.bind_udp_at(Local::Any, 700).expect("free");
        let mut buffer = vec![0; 70_000];
        for ip in HERE {
            for len in [0, 1, 9_000, exos_sockets::MAX_DATAGRAM_BYTES] {
                let bytes = pattern(len);
                client.send_to(&bytes, (ip, PORT).into()).await.expect("room");
                let received = server.receive(&mut buffer).await.expect("nothing is wrong");
                assert_eq!((received.from, received.to.ip()), ((ip, 700).into(), ip));
                assert!(buffer[..received.len] == bytes);
                server.send_to(b"back", received.from).await.expect("room");
                assert_eq!(client.recv_from(&mut buffer).await, Ok((4, (ip, PORT).into())));
            }
        }
        // Nobody is there: an error of connected sockets.
        let mut lonely = sockets.connect_udp((HERE[0], 9).into()).expect("free");
        lonely.send(b"anybody?").await.expect("room");
        assert_eq!(lonely.recv(&mut buffer).await, Err(Error::Refused));
        assert_eq!(lonely.local_addr().ip(), HERE[0]);
    });
}

#[test]
fn addresses_of_this_machine_alone_are_bound_as_any_other() {
    run(|sockets| async move {
        let to: SocketAddr = (HERE[0], PORT).into();
        let mut only_here = sockets.bind_udp(to).expect("free");
        let mut elsewhere = sockets.bind_udp((HERE[2], PORT).into()).expect("free");
        let mut client = sockets.connect_udp(to).expect("free");
        client.send(b"here").await.expect("room");
        assert_eq!(only_here.recv(&mut [0; 9]).await, Ok(4));
        sockets.sleep(SHORT).await;
        assert_eq!(elsewhere.try_receive(&mut [0; 9]), Ok(None));
    });
}
