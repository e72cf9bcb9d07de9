//! Groups beside Linux's: both kernels' sockets hear each other, and a bridge that snoops forwards to us what we have said to be in,
//! and nothing else.

use crate::ends::*;
use exos_net::Ipv6Config;
use exos_sockets::{Sockets, UdpSocket as OurSocket};
use exovm_netns::{Interface, TapQueues, create_tap, in_namespace};
use exovm_tap_stack::Faults;
use rustix::net::sockopt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 80, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x80, 3);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between one datagram of a speaker and the next.
const PACE: Duration = Duration::from_millis(20);

fn member(sockets: &Sockets) -> OurSocket {
    let mut socket = sockets.bind_udp_at(exos_net::Local::Any, PORT).expect("free");
    socket.join_multicast_v4(GROUP, Ipv4Addr::UNSPECIFIED).expect("room");
    socket.join_multicast_v6(GROUP_V6, 0).expect("room");
    socket
}

/// Sockets of the kernel's that speak to groups over an interface.
struct Speaker {
    v4: UdpSocket,
    v6: UdpSocket,
}

impl Speaker {
    fn on(interface: &Interface) -> Self {
        let v4 = UdpSocket::bind((LINUX_V4, 0)).expect("a port");
        sockopt::set_ip_multicast_if(&v4, &LINUX_V4).expect("an interface");
        let v6 = UdpSocket::bind((LINUX, 0)).expect("a port");
        // The scope in an address is heeded for groups of the link only.
        sockopt::set_ipv6_multicast_if(&v6, index_of(interface)).expect("an interface");
        Self { v4, v6 }
    }

    /// Says a number to both groups. Without a way there, nobody hears it.
    fn say(&self, number: u64) {
        let _ = self.v4.send_to(&number.to_be_bytes(), (GROUP, PORT));
        let _ = self.v6.send_to(&number.to_be_bytes(), (GROUP_V6, PORT));
    }
}

/// The last numbers that we have heard over IPv4 and IPv6.
#[derive(Default)]
struct Heard([AtomicU64; 2]);

impl Heard {
    fn both(&self) -> [u64; 2] {
        [0, 1].map(|family| self.0[family].load(Ordering::Relaxed))
    }
}

/// Speaks until what has been heard is as it should be.
fn speak_until(
    speaker: &Speaker,
    number: &mut u64,
    heard: &Heard,
    what: &str,
    is_so: impl Fn(u64, [u64; 2]) -> bool,
) {
    let until = Instant::now() + PATIENCE;
    while !is_so(*number, heard.both()) {
        assert!(Instant::now() < until, "{what}: {:?} of {number} heard", heard.both());
        *number += 1;
        speaker.say(*number);
        thread::sleep(PACE);
    }
}

/// What the main thread tells the program on our stack.
enum Wish {
    Leave,
    End,
}

/// Notes what it hears in its groups, until it is told to leave and to end.
async fn listen(sockets: Sockets, heard: Arc<Heard>, wishes: mpsc::Receiver<Wish>) {
    let mut socket = member(&sockets);
    let mut buffer = [0; 16];
    loop {
        while let Some(received) = socket.try_receive(&mut buffer).expect("nothing is wrong") {
            let number = buffer.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            heard.0[usize::from(received.to.is_ipv6())].store(number, Ordering::Relaxed);
        }
        match wishes.try_recv() {
            Ok(Wish::Leave) => {
                socket.leave_multicast_v4(GROUP, Ipv4Addr::UNSPECIFIED).expect("joined");
                socket.leave_multicast_v6(GROUP_V6, 0).expect("joined");
            }
            Ok(Wish::End) => return,
            Err(_) => sockets.sleep(exos_net::Duration::from_millis(5)).await,
        }
    }
}

#[test]
fn kernels_socket_and_ours_hear_each_other_in_groups_of_both_families() {
    in_namespace!(|| {
        let interface = interface();
        let scope = index_of(&interface);
        let kernel_v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("free");
        kernel_v4.join_multicast_v4(&GROUP, &LINUX_V4).expect("room");
        let kernel_v6 = {
            let only_v6 = of_ipv6_alone(PORT);
            only_v6.join_multicast_v6(&GROUP_V6, scope).expect("room");
            only_v6
        };
        let heard = Arc::new(Heard::default());
        let (wish, wishes) = mpsc::channel();
        let notes = heard.clone();
        let running = start(&interface, given(), Faults::NONE, move |sockets| async move {
            let speaker = sockets.clone();
            let says = async move {
                let mut socket = speaker.bind_udp_at(exos_net::Local::Any, 0).expect("free");
                loop {
                    for group in [SocketAddr::from((GROUP, PORT)), (GROUP_V6, PORT).into()] {
                        socket.send_to(b"from us", group).await.expect("room");
                    }
                    speaker.sleep(exos_net::Duration::from_millis(20)).await;
                }
            };
            let (says, listens) = (std::pin::pin!(says), std::pin::pin!(listen(sockets, notes, wishes)));
            let _: futures_util::future::Either<((), _), _> =
                futures_util::future::select(says, listens).await;
        });
        for (socket, ours) in [(&kernel_v4, IpAddr::V4(OURS_V4)), (&kernel_v6, OURS.into())] {
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let mut buffer = [0; 16];
            let (len, from) = socket.recv_from(&mut buffer).expect("we speak");
            assert_eq!((&buffer[..len], from.ip()), (&b"from us"[..], ours));
        }
        let (speaker, mut number) = (Speaker::on(&interface), 0);
        speak_until(&speaker, &mut number, &heard, "both", |_, heard| heard.iter().all(|&last| last > 0));
        wish.send(Wish::End).expect("it waits");
        let left = running.join().expect("our part");
        assert_nothing_is_left(&left);
    });
}

/// A socket of IPv6's alone, so that the other family's can have the port.
fn of_ipv6_alone(port: u16) -> UdpSocket {
    use rustix::net::{AddressFamily, SocketType, bind, socket};
    let fd = socket(AddressFamily::INET6, SocketType::DGRAM, None).expect("a socket");
    sockopt::set_ipv6_v6only(&fd, true).expect("a socket");
    bind(&fd, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).expect("free");
    fd.into()
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status().expect("ip runs");
    assert!(status.success(), "ip {words}");
}

/// The kernel behind a bridge that asks who is in which groups, in the words of these versions, and our TAP at a port of it.
fn bridge(igmp_version: u8, mld_version: u8) -> (Interface, Interface) {
    let (bridge, tap) =
        (Interface::named("br0").expect("a good name"), Interface::named("tap0").expect("a good name"));
    ip("link add br0 type bridge mcast_snooping 1");
    ip(&format!(
        "link set br0 type bridge mcast_igmp_version {igmp_version} mcast_mld_version {mld_version}"
    ));
    // It asks every second: over IPv6 it does not before it has an address, and only who asks filters.
    ip("link set br0 type bridge mcast_query_response_interval 100 mcast_startup_query_interval 100");
    ip("link set br0 type bridge mcast_query_interval 100 mcast_querier 1");
    create_tap(&tap, TapQueues::Single).expect("a TAP");
    ip("link set tap0 master br0");
    for (address, prefix_bits) in [(LINUX_V4.into(), 24), (LINUX.into(), 64), (LINUX_LINK_LOCAL.into(), 64)] {
        bridge.add_address(address, prefix_bits).expect("an address");
    }
    tap.up().expect("up");
    bridge.up().expect("up");
    (bridge, tap)
}

/// Whether the bridge has us in either group.
fn is_in_database() -> bool {
    let output = Command::new("bridge").args(["mdb", "show"]).output().expect("bridge runs");
    let entries = String::from_utf8_lossy(&output.stdout).into_owned();
    [GROUP.to_string(), GROUP_V6.to_string()].iter().any(|group| entries.contains(&format!("grp {group} ")))
}

/// Datagrams in a row that were not heard, after which nothing is forwarded.
const SILENCE: u64 = 60;

fn behind_a_bridge_that_snoops(igmp_version: u8, mld_version: u8) {
    let (bridge, tap) = bridge(igmp_version, mld_version);
    let (speaker, mut number) = (Speaker::on(&bridge), 0);
    let is_silent = |number: u64, heard: [u64; 2]| heard.iter().all(|&last| number >= last + SILENCE);
    for reports in [false, true] {
        let heard = Arc::new(Heard::default());
        heard.0.iter().for_each(|last| last.store(number, Ordering::Relaxed));
        let (wish, wishes) = mpsc::channel();
        let notes = heard.clone();
        let ipv6 = Ipv6Config { probes: 0, ..given() };
        let running = start_with(
            &tap,
            ipv6,
            Faults::NONE,
            move |config| config.group_reports = reports,
            move |sockets| listen(sockets, notes, wishes),
        );
        if reports {
            let begin = number;
            let is_heard = |_, heard: [u64; 2]| heard.iter().all(|&last| last > begin);
            speak_until(&speaker, &mut number, &heard, "after our reports", is_heard);
            assert!(is_in_database(), "the bridge knows who is in which group");
            wish.send(Wish::Leave).expect("it waits");
            // After our leaving it asks for others and forgets us, long before a membership ends by itself (260 s).
            let until = Instant::now() + PATIENCE;
            while is_in_database() {
                assert!(Instant::now() < until, "the bridge does not hear that we leave");
                thread::sleep(PACE);
            }
        }
        // Whoever does not say that he is in the group is not forwarded its datagrams, as soon as the bridge asks; nor is who has left.
        speak_until(&speaker, &mut number, &heard, "silence", is_silent);
        wish.send(Wish::End).expect("it waits");
        let left = running.join().expect("our part");
        assert!(reports || left.counters.group_reports_out == 0);
        assert_eq!((left.counters.dropped_malformed, left.counters.dropped_checksum), (0, 0));
    }
}

#[test]
fn bridge_that_snoops_forwards_to_us_from_our_report_to_our_leaving() {
    in_namespace!(|| behind_a_bridge_that_snoops(3, 2));
}

#[test]
fn bridge_that_asks_in_the_older_versions_is_answered_in_those() {
    in_namespace!(|| behind_a_bridge_that_snoops(2, 1));
}
