//! UDP beside Linux's, over both families: small and large datagrams both ways, ports at which nobody is, and what is too much.

use crate::ends::*;
use exos_net::Local;
use exos_sockets::{Error, Sockets};
use exovm_netns::in_namespace;
use exovm_tap_stack::Faults;
use futures_util::future::{Either, select};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// The largest over both families.
const LARGEST: usize = exos_sockets::MAX_DATAGRAM_BYTES;
/// Whole on the link, the first that is not, several fragments.
const SIZES: [usize; 6] = [0, 1, 1_452, 1_473, 9_000, LARGEST];
/// A datagram that a bad wire ate is sent again after this.
const AGAIN: exos_net::Duration = exos_net::Duration::from_millis(200);

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[1]).collect()
}

/// A socket of the kernel's.
fn kernel(ip: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((ip, port)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

/// Sends back what comes, as often as it comes.
async fn echo(sockets: Sockets, count: usize) {
    let mut socket = sockets.bind_udp_at(Local::Any, PORT).expect("free");
    let mut buffer = vec![0; 65_536];
    for _ in 0..count {
        let (len, from) = socket.recv_from(&mut buffer).await.expect("nothing is wrong");
        socket.send_to(&buffer[..len], from).await.expect("room");
    }
}

/// Sends until the kernel answers: its first answers are lost while it does not know where we are.
fn awake(socket: &UdpSocket, to: SocketAddr) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
    for _ in 0..600 {
        let _ = socket.send_to(b"awake?", to);
        if socket.recv_from(&mut [0; 16]).is_ok() {
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
            return;
        }
    }
    panic!("{to} does not answer");
}

#[test]
fn our_socket_sends_back_what_the_kernel_sends_over_both_families() {
    in_namespace!(|| {
        let interface = interface();
        let scope = index_of(&interface);
        let (done, is_done) = mpsc::channel::<()>();
        let running = start(&interface, given(), Faults::NONE, move |sockets| async move {
            // Until the kernel has had all of it.
            let waits = sockets.clone();
            let ends = std::pin::pin!(async move {
                while is_done.try_recv().is_err() {
                    waits.sleep(exos_net::Duration::from_millis(10)).await;
                }
            });
            let echoes = std::pin::pin!(echo(sockets, usize::MAX));
            select(echoes, ends).await;
        });
        let link_local = SocketAddrV6::new(OUR_LINK_LOCAL, PORT, 0, scope);
        let ends: [(IpAddr, SocketAddr); 3] = [
            (Ipv4Addr::UNSPECIFIED.into(), (OURS_V4, PORT).into()),
            (Ipv6Addr::UNSPECIFIED.into(), (OURS, PORT).into()),
            (Ipv6Addr::UNSPECIFIED.into(), link_local.into()),
        ];
        for (ip, to) in ends {
            let socket = kernel(ip, 0);
            awake(&socket, to);
            let mut buffer = vec![0; 65_536];
            for len in SIZES {
                socket.send_to(&bytes(len), to).expect("it fits");
                let (echoed, from) = loop {
                    let received = socket.recv_from(&mut buffer).expect("it comes back");
                    // Late answers to the first questions.
                    if received.0 != 6 {
                        break received;
                    }
                };
                assert_eq!((echoed, from), (len, to));
                assert!(buffer[..len] == bytes(len), "{len} bytes from {from}");
            }
        }
        done.send(()).expect("it waits");
        let left = running.join().expect("our part");
        assert_nothing_is_left(&left);
        assert!(left.counters.reassembly_ok >= 9, "the kernel's came in fragments");
    });
}

fn is_link_local(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(address) if address.is_unicast_link_local())
}

/// We ask, the kernel answers; what a bad wire ate is asked again. Every answer is compared.
fn kernel_echoes(faults: Faults, sizes: &'static [usize]) {
    let interface = interface();
    let socket = kernel(Ipv6Addr::UNSPECIFIED.into(), PORT);
    let running = start(&interface, given(), faults, move |sockets| async move {
        let mut buffer = vec![0; 65_536];
        for to in [SocketAddr::from((LINUX_V4, PORT)), (LINUX, PORT).into(), (LINUX_LINK_LOCAL, PORT).into()]
        {
            for &len in sizes {
                let mut socket = sockets.bind_udp_at(Local::Any, 0).expect("a port is free");
                let received = loop {
                    // While an address of ours is being asked for, nothing leaves over its family.
                    socket.send_to(&bytes(len), to).await.expect("room");
                    let answer = std::pin::pin!(socket.recv_from(&mut buffer));
                    let time = std::pin::pin!(sockets.sleep(AGAIN));
                    if let Either::Left((answer, _)) = select(answer, time).await {
                        break answer;
                    }
                };
                let (echoed, from) = received.expect("nothing is wrong");
                // Of its link-local addresses the kernel has one of its own making as well, which it prefers.
                let is_to = from.ip() == to.ip() || (to.ip() == LINUX_LINK_LOCAL && is_link_local(from));
                assert!(echoed == len && is_to, "{echoed} bytes from {from}, {len} were sent to {to}");
                assert!(buffer[..len] == bytes(len), "{len} bytes from {to}");
            }
        }
    });
    let mut buffer = vec![0; 65_536];
    while !running.is_finished() {
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            assert!(buffer[..len] == bytes(len), "{len} bytes from {from}");
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
    let left = running.join().expect("our part");
    assert_eq!((left.counters.dropped_malformed, left.counters.dropped_checksum), (0, 0));
}

#[test]
fn kernels_socket_sends_back_what_we_send_over_both_families() {
    in_namespace!(|| kernel_echoes(Faults::NONE, &SIZES));
}

#[test]
fn kernels_socket_sends_back_what_we_send_on_a_bad_wire() {
    let bad = Faults { lost: 50, repeated: 50, held: 100, delay_ms: 1, hold_ms: 2, seed: 11, ..Faults::NONE };
    in_namespace!(|| kernel_echoes(bad, &[1, 1_400, 4_000, 1, 1_400, 4_000]));
}

#[test]
fn nobody_at_a_port_is_heard_by_the_kernel_and_by_us() {
    in_namespace!(|| {
        let interface = interface();
        let (ended, is_ended) = mpsc::channel::<()>();
        let running = start(&interface, given(), Faults::NONE, move |sockets| async move {
            for to in [SocketAddr::from((LINUX_V4, 9)), (LINUX, 9).into()] {
                let mut socket = sockets.connect_udp(to).expect("a port is free");
                loop {
                    // Over IPv6 there is no way while our address is being asked for.
                    let sent = socket.send(b"anybody?").await;
                    let time = std::pin::pin!(sockets.sleep(AGAIN));
                    let mut answer = [0; 8];
                    let answer = std::pin::pin!(socket.recv(&mut answer));
                    match select(answer, time).await {
                        Either::Left((Err(Error::Refused), _)) => break,
                        Either::Left((Err(Error::Unreachable), _)) => {
                            sockets.sleep(AGAIN).await;
                        }
                        Either::Left((other, _)) => panic!("{other:?} after {sent:?}"),
                        Either::Right(_) => {}
                    }
                }
            }
            while is_ended.try_recv().is_err() {
                sockets.sleep(exos_net::Duration::from_millis(10)).await;
            }
        });
        for to in [SocketAddr::from((OURS_V4, 9)), (OURS, 9).into()] {
            let unspecified =
                if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
            let socket = kernel(unspecified, 0);
            socket.connect(to).expect("a way");
            socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
            let refused = (0..300).any(|_| {
                let sent = socket.send(b"anybody?").err();
                let received = socket.recv(&mut [0; 8]).err();
                [sent, received]
                    .into_iter()
                    .flatten()
                    .any(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
            assert!(refused, "{to}");
        }
        ended.send(()).expect("it waits");
        assert!(running.join().expect("our part").counters.dropped_no_port >= 2);
    });
}
