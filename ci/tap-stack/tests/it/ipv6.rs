//! IPv6 beside Linux's. Neighbours find each other, a router is the kernel with an advertisement made by hand, and every byte is compared.

use crate::ends::*;
use exos_net::{Ecn, Ipv6Config};
use exos_sockets::{Error, Sockets, TcpStream};
use exovm_netns::{Interface, in_namespace};
use exovm_tap_stack::{Bottleneck, Faults, Left};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with, sockopt,
};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const GOOD_BYTES: usize = 6_000_000;
const BAD_BYTES: usize = 700_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const BAD: Faults =
    Faults { lost: 10, repeated: 10, held: 20, delay_ms: 2, hold_ms: 3, seed: 7, ..Faults::NONE };

/// A byte that says where it belongs.
fn pattern(stream: u64, at: usize) -> u8 {
    let word = (at as u64 / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ stream << 32);
    (word >> (at % 8 * 8)) as u8
}

fn patterned(stream: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| pattern(stream, at)).collect()
}

fn assert_patterned(stream: u64, from: usize, bytes: &[u8]) {
    let difference = bytes.iter().enumerate().find(|(at, byte)| pattern(stream, from + at) != **byte);
    assert_eq!(difference, None, "{} bytes from {from} on", bytes.len());
}

/// Opens a connection as soon as there is an address to open it from.
pub(crate) async fn connect(sockets: &Sockets, to: impl Into<IpAddr>) -> TcpStream {
    let to = SocketAddr::new(to.into(), PORT);
    loop {
        match sockets.connect(to).await {
            Ok(stream) => return stream,
            Err(Error::Unreachable) => sockets.sleep(exos_net::Duration::from_millis(50)).await,
            Err(error) => panic!("{to}: {error}"),
        }
    }
}

/// The kernel's connection to us, as soon as we answer.
pub(crate) fn kernel_connects(to: SocketAddr) -> std::net::TcpStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match std::net::TcpStream::connect_timeout(&to, Duration::from_secs(10)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "{to}: {error}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// We send one stream and read another, at the same time as the kernel does.
pub(crate) async fn our_part(mut stream: TcpStream, bytes: usize) {
    let (out, mut sent, mut received) = (patterned(1, bytes), 0, 0);
    let mut buffer = vec![0; 1 << 16];
    while sent < out.len() {
        let end = out.len().min(sent + 50_000);
        while sent < end {
            sent += stream.write(&out[sent..end]).await.expect("open");
        }
        while received + 100_000 < sent {
            let len = stream.read(&mut buffer).await.expect("in order");
            assert!(len > 0, "the end after {received} bytes");
            assert_patterned(2, received, &buffer[..len]);
            received += len;
        }
    }
    stream.close_write();
    while let len @ 1.. = stream.read(&mut buffer).await.expect("in order") {
        assert_patterned(2, received, &buffer[..len]);
        received += len;
    }
    assert_eq!(received, bytes);
}

pub(crate) fn kernels_part(mut socket: std::net::TcpStream, bytes: usize) {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let mut writer = socket.try_clone().expect("a socket");
    let writing = thread::spawn(move || {
        writer.write_all(&patterned(2, bytes)).expect("no stall");
        writer.shutdown(std::net::Shutdown::Write).expect("open");
    });
    let (mut received, mut buffer) = (0, vec![0; 1 << 16]);
    while let len @ 1.. = socket.read(&mut buffer).expect("no stall") {
        assert_patterned(1, received, &buffer[..len]);
        received += len;
    }
    assert_eq!(received, bytes);
    writing.join().expect("wrote it all");
}

/// A megabyte or several both ways at once, opened by either side.
fn bulk(faults: Faults) {
    let interface = interface();
    let bytes = if faults.are_none() { GOOD_BYTES } else { BAD_BYTES };
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("free");
    let running = start(&interface, given(), faults, move |sockets| async move {
        our_part(connect(&sockets, LINUX).await, bytes).await;
    });
    kernels_part(listener.accept().expect("we come").0, bytes);
    let left = running.join().expect("our part");
    assert_nothing_is_left(&left);
    assert!(left.counters.neighbour_solicitations > 0, "we asked where the kernel is");

    drop(listener);
    let running = start(&interface, given(), faults, move |sockets| async move {
        let listener = sockets.listen(PORT, 1).expect("free");
        our_part(listener.accept().await.expect("the kernel comes").0, bytes).await;
    });
    kernels_part(kernel_connects((OURS, PORT).into()), bytes);
    let left = running.join().expect("our part");
    assert_nothing_is_left(&left);
    assert!(left.counters.neighbour_advertisements > 0, "the kernel asked where we are");
}

#[test]
fn kernel_and_we_exchange_every_byte_over_ipv6() {
    in_namespace!(|| bulk(Faults::default()));
}

#[test]
fn kernel_and_we_exchange_every_byte_over_ipv6_on_a_bad_wire() {
    in_namespace!(|| bulk(BAD));
}

#[test]
fn marks_are_echoed_and_answered_both_ways_over_ipv6_whoever_opens() {
    let narrow = Bottleneck { rate_bytes: 2_000_000, queue_bytes: 200_000, mark_above_bytes: 10_000 };
    let faults = Faults { delay_ms: 2, bottleneck: Some(narrow), ..Faults::NONE };
    in_namespace!(|| {
        let interface = interface();
        // The kernel asks and agrees.
        std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "1").expect("a namespace of our own");
        // BBR, where that is the host's choice, would keep its rate.
        exovm_netns::congestion_control::set_default("reno").expect("always there and allowed");
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("free");
        let running = start_with(
            &interface,
            given(),
            faults,
            |config| config.ecn = Ecn::Ask,
            |sockets| async move {
                our_part(connect(&sockets, LINUX).await, BAD_BYTES).await;
            },
        );
        kernels_part(listener.accept().expect("we come").0, BAD_BYTES);
        assert_marks_are_answered(&running.join().expect("our part"));
        drop(listener);
        let running = start(&interface, given(), faults, |sockets| async move {
            let listener = sockets.listen(PORT, 1).expect("free");
            our_part(listener.accept().await.expect("the kernel comes").0, BAD_BYTES).await;
        });
        kernels_part(kernel_connects((OURS, PORT).into()), BAD_BYTES);
        assert_marks_are_answered(&running.join().expect("our part"));
    });
}

fn assert_marks_are_answered(left: &Left) {
    assert_nothing_is_left(left);
    let [to_us, from_us] = left.wire;
    assert_eq!((to_us.setups + from_us.setups, to_us.agreements + from_us.agreements), (1, 1));
    for (data, back) in [(to_us, from_us), (from_us, to_us)] {
        assert!(data.marked > 0 && data.overflowed == 0, "{data:?}");
        assert!(back.echoes > 0 && data.reductions > 0, "{data:?}, and back {back:?}");
    }
    let counters = &left.counters;
    // What was sent again needlessly is no news.
    assert!((1..=to_us.marked).contains(&counters.congestion_marks_in), "{counters:?}");
    assert!((1..=to_us.echoes).contains(&counters.congestion_echoes_in), "{counters:?}");
    assert!(counters.congestion_echoes_answered > 0, "{counters:?}");
}

#[test]
fn kernel_reaches_the_link_local_address_that_we_make() {
    in_namespace!(|| {
        let interface = interface();
        let quiet = Ipv6Config { router_advertisements: false, ..Ipv6Config::default() };
        let running = start(&interface, quiet, Faults::default(), |sockets| async move {
            let listener = sockets.listen(PORT, 1).expect("free");
            let (stream, from) = listener.accept().await.expect("the kernel comes");
            assert_eq!(from.ip(), IpAddr::V6(LINUX_LINK_LOCAL));
            our_part(stream, 100_000).await;
        });
        let to = SocketAddrV6::new(OUR_LINK_LOCAL, PORT, 0, index_of(&interface));
        kernels_part(kernel_connects(to.into()), 100_000);
        assert_nothing_is_left(&running.join().expect("our part"));
    });
}

/// An advertisement of the kernel as a router: a prefix for addresses, and an MTU of 1,400 bytes.
fn advertisement() -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0];
    bytes.extend(1_800u16.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([5, 1, 0, 0]);
    bytes.extend(1_400u32.to_be_bytes());
    bytes.extend([3, 4, 64, 0xc0]);
    bytes.extend(86_400u32.to_be_bytes());
    bytes.extend(14_400u32.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 0).octets());
    bytes
}

/// Advertises until it is told to stop. The kernel writes checksums itself.
fn advertise(interface: &Interface, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    let scope = index_of(interface);
    thread::spawn(move || {
        let kind = (AddressFamily::INET6, SocketType::RAW);
        let raw =
            socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, Some(ipproto::ICMPV6)).expect("a raw socket");
        sockopt::set_ipv6_multicast_hops(&raw, 255).expect("a socket");
        bind(&raw, &SocketAddrV6::new(LINUX_LINK_LOCAL, 0, 0, scope)).expect("an address of the kernel's");
        let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, scope);
        while !stop.load(Ordering::Relaxed) {
            // While nobody has the TAP open it has no carrier.
            let _ = sendto(&raw, &advertisement(), SendFlags::empty(), &all_nodes);
            thread::sleep(Duration::from_millis(100));
        }
    })
}

#[test]
fn advertised_prefix_and_router_bring_us_to_the_kernel_and_beyond() {
    in_namespace!(|| {
        let interface = interface();
        let stop = Arc::new(AtomicBool::new(false));
        let router = advertise(&interface, stop.clone());
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("free");
        let running = start(&interface, Ipv6Config::default(), Faults::default(), |sockets| async move {
            our_part(connect(&sockets, FAR).await, 500_000).await;
            let listener = sockets.listen(PORT, 1).expect("free");
            our_part(listener.accept().await.expect("the kernel comes").0, 500_000).await;
        });
        let (socket, from) = listener.accept().expect("we come");
        assert_eq!(from.ip(), IpAddr::V6(OUR_MADE));
        assert_eq!(socket.local_addr().expect("a socket").ip(), IpAddr::V6(FAR));
        kernels_part(socket, 500_000);
        kernels_part(kernel_connects((OUR_MADE, PORT).into()), 500_000);
        stop.store(true, Ordering::Relaxed);
        router.join().expect("advertised");
        let left = running.join().expect("our part");
        assert_nothing_is_left(&left);
        assert!(left.counters.router_advertisements > 0);
    });
}
