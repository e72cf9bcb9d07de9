//! Loss recovery and what is put together of fragments: each counter moved by the fault that it is for, on the way between the guest and
//! a Linux client, or by a frame made by hand.

use super::errors::{frame, neighbour};
use super::seen::{none, watched};
use super::{assert_become, once, tcp};
use exovm::backend::iovec::gather;
use exovm::backend::{Backend, BackendError, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};
use exovm::stat::StatSnapshot;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use exovm_netns::link_layer::{Wire, internet_checksum, set_tcp_checksum};
use std::net::UdpSocket;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

const LARGE: u64 = 2_000_000;

/// Which packets meet a fault is chance, and what it does is time: so often a file is fetched until the fault has shown.
const MOST_FETCHES: usize = 20;

/// A server behind these faults, and what it has counted when the file has been fetched and `is` holds.
fn fetched(faults: &str, what: &str, is: impl Fn(&StatSnapshot) -> bool) -> StatSnapshot {
    let site = Site::new().pattern_file("large", 1, LARGE);
    let guest = Guest::image("cheetah").site(&site).impair(faults).start();
    for _ in 0..MOST_FETCHES {
        assert_eq!(guest.get("/large").body.len() as u64, LARGE);
        if is(&guest.machine().statistics()) {
            break;
        }
    }
    let statistics = once(&guest, what, is);
    guest.stop();
    statistics
}

#[test]
fn losses_that_sack_and_rack_find_are_counted() {
    in_namespace!(|| {
        let statistics = fetched("delay=5ms,tx:loss=2%", "losses found", |statistics| {
            tcp(statistics, "losses_found") > 0 && tcp(statistics, "fast_retran") > 0
        });
        // The injector lost pure acknowledgments, too, and none of them is sent again.
        let lost = statistics.value("backend", "impair_tx_lost").unwrap();
        let (found, again) = (tcp(&statistics, "losses_found"), tcp(&statistics, "segs_retrans"));
        assert!(lost > 10 && found >= lost / 2, "{found} of {lost} found");
        assert!(again >= found, "{found} found, {again} sent again");
        assert!(tcp(&statistics, "sacks_rcvd") >= tcp(&statistics, "fast_retran"));
        assert_eq!(tcp(&statistics, "sack_blocks_ignored"), 0, "Linux reports what is true");
    });
}

#[test]
fn lost_tail_is_probed_and_the_probe_counts_as_the_repair() {
    in_namespace!(|| {
        let site = Site::new().pattern_file("four", 1, 5_000).file("a", "a");
        // Behind the injector, which cuts the response into segments: the last of four.
        let (_, wrap) = watched(|number| number == 4, none);
        let guest = Guest::image("cheetah").site(&site).wrap_backend(wrap).impair("delay=20ms").start();
        let mut client = guest.connect();
        assert_eq!(client.get("/four").unwrap().body.len(), 5_000);
        // The acknowledgment of something later shows that the probe was what arrived.
        assert_eq!(client.get("/a").unwrap().text(), "a");
        let statistics =
            once(&guest, "a probe's repair", |statistics| tcp(statistics, "tail_probe_recoveries") == 1);
        assert!(tcp(&statistics, "tail_probes") >= 1);
        guest.stop();
    });
}

#[test]
fn packets_that_arrive_twice_are_reported_by_the_client_and_counted() {
    in_namespace!(|| {
        let statistics =
            fetched("delay=5ms,tx:duplicate=5%", "D-SACK", |statistics| tcp(statistics, "dsack_dups") > 0);
        let doubled = statistics.value("backend", "impair_tx_duplicated").unwrap();
        assert!(doubled > 10 && tcp(&statistics, "dsack_dups") <= doubled + tcp(&statistics, "segs_retrans"));
    });
}

#[test]
fn packets_that_are_late_make_recoveries_that_are_taken_back() {
    in_namespace!(|| {
        let faults = "delay=10ms,tx:reorder=1%,tx:late=60ms";
        let statistics = fetched(faults, "a mistaken recovery", |statistics| {
            tcp(statistics, "spurious_fr_detected") > 0 && tcp(statistics, "reordering_timeouts") > 0
        });
        assert_eq!(statistics.value("backend", "impair_tx_lost"), Some(0), "nothing was lost");
    });
}

/// A backend that keeps back what comes for the guest, once, from when the guest has sent so much.
struct Frozen {
    inner: Box<dyn Backend>,
    bytes_to_go: usize,
    frame: Vec<u8>,
    until: Option<Instant>,
}

impl Backend for Frozen {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let written = self.inner.write_frame(frame);
        if written == Written::Sent && self.bytes_to_go > 0 {
            let len = gather(frame, 0, &mut self.frame);
            self.bytes_to_go = self.bytes_to_go.saturating_sub(len);
            self.until = (self.bytes_to_go == 0).then(|| Instant::now() + Duration::from_millis(700));
        }
        written
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        if self.until.is_some_and(|until| Instant::now() < until) {
            return Ok(None);
        }
        self.until = None;
        self.inner.read_frame(buffers)
    }

    fn due(&self) -> Option<Instant> {
        self.until
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.inner.set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.inner.event_fd()
    }
}

#[test]
fn timeout_of_a_way_that_froze_is_taken_back() {
    in_namespace!(|| {
        let site = Site::new().pattern_file("large", 1, LARGE);
        let freeze = |inner| {
            let frame = vec![0; FRAME_BYTES_MAX];
            Box::new(Frozen { inner, bytes_to_go: 500_000, frame, until: None }) as Box<dyn Backend>
        };
        let guest = Guest::image("cheetah").site(&site).wrap_backend(freeze).start();
        assert_eq!(guest.get("/large").body.len() as u64, LARGE);
        let statistics =
            once(&guest, "a mistaken timeout", |statistics| tcp(statistics, "spurious_rto_detected") > 0);
        assert!(tcp(&statistics, "timeouts") >= tcp(&statistics, "spurious_rto_detected"));
        guest.stop();
    });
}

#[test]
fn client_whose_reports_lead_nowhere_is_believed_no_more() {
    in_namespace!(|| {
        let site = Site::new().pattern_file("ten", 1, 14_000);
        // The first segment is lost, and most of what follows the tenth: all of it sent again.
        let lost = |number: u64| number == 1 || (11..15).contains(&number);
        let (_, wrap) = watched(lost, none);
        let guest = Guest::image("cheetah").site(&site).wrap_backend(wrap).impair("delay=5ms").start();
        let mut client = guest.connect();
        assert_eq!(client.get("/ten").unwrap().body.len(), 14_000);
        let statistics =
            once(&guest, "reports forgotten", |statistics| tcp(statistics, "sacks_forgotten") == 1);
        assert!(tcp(&statistics, "timeouts") >= 2);
        guest.stop();
    });
}

/// A TCP segment of a host that does not exist, with these options, in a frame to the guest.
fn segment(guest: &Guest, numbers: (u32, u32), flags: u8, options: &[u8]) -> Vec<u8> {
    let len = 40 + options.len();
    let mut packet = vec![0x45, 0, 0, len as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(neighbour());
    packet.extend(guest.network().guest_address().octets());
    packet.extend([PORT.to_be_bytes(), 80u16.to_be_bytes()].concat());
    packet.extend([numbers.0.to_be_bytes(), numbers.1.to_be_bytes()].concat());
    packet.extend([(5 + options.len() as u8 / 4) << 4, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    packet.extend(options);
    let checksum = internet_checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    set_tcp_checksum(&mut packet);
    frame(guest, 0x0800, &packet)
}

const PORT: u16 = 4_100;
const SYN: u8 = 2;
const ACK: u8 = 0x10;

#[test]
fn reports_of_what_was_never_sent_are_counted_and_ignored() {
    in_namespace!(|| {
        let (eyes, wrap) = watched(none, none);
        let guest = Guest::image("cheetah").site(&Site::new().file("a", "a")).wrap_backend(wrap).start();
        let wire = Wire::open(guest.network().interface()).unwrap();
        // SACK permitted, and two NOPs.
        wire.send(&segment(&guest, (0, 0), SYN, &[4, 2, 1, 1])).unwrap();
        once(&guest, "a half-open connection", |statistics| tcp(statistics, "half_open") == 1);
        let next = eyes.sequence_of_the_guest(PORT).expect("a SYN-ACK");
        wire.send(&segment(&guest, (1, next), ACK, &[])).unwrap();
        once(&guest, "a connection", |statistics| tcp(statistics, "curr_estab") == 1);
        let mut sack = vec![1, 1, 5, 10];
        sack.extend((next + 1_000).to_be_bytes());
        sack.extend((next + 2_000).to_be_bytes());
        (0..3).for_each(|_| wire.send(&segment(&guest, (1, next), ACK, &sack)).unwrap());
        assert_become(&guest, "tcp", &[("sack_blocks_ignored", 3), ("sacks_rcvd", 3), ("segs_retrans", 0)]);
        guest.stop();
    });
}

/// An echo request's fragment: its offset in bytes, whether more follow, and its bytes.
fn fragment(guest: &Guest, identification: u8, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let place = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    let mut packet = vec![0x45, 0, 0, 20 + bytes.len() as u8, 0, identification];
    packet.extend(place.to_be_bytes());
    packet.extend([64, 1, 0, 0]);
    packet.extend(neighbour());
    packet.extend(guest.network().guest_address().octets());
    let checksum = internet_checksum(&packet, 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(bytes);
    frame(guest, 0x0800, &packet)
}

#[test]
fn fragments_put_together_and_given_up_are_counted() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().file("a", "a"));
        let wire = Wire::open(guest.network().interface()).unwrap();
        let mut echo = vec![8, 0, 0, 0, 1, 2, 3, 4];
        echo.extend([7; 40]);
        let checksum = internet_checksum(&echo, 0);
        echo[2..4].copy_from_slice(&checksum.to_be_bytes());
        for identification in 1..=3 {
            wire.send(&fragment(&guest, identification, 24, false, &echo[24..])).unwrap();
            wire.send(&fragment(&guest, identification, 0, true, &echo[..24])).unwrap();
        }
        // Two that overlap: the datagram is given up (RFC 5722).
        wire.send(&fragment(&guest, 9, 0, true, &echo[..24])).unwrap();
        wire.send(&fragment(&guest, 9, 16, false, &echo[16..])).unwrap();
        let expected = [("reasm_reqds", 8), ("reasm_oks", 3), ("reasm_fails", 1), ("echo_replies", 3)];
        assert_become(&guest, "ip", &expected);
        guest.stop();
    });
}

#[test]
fn datagrams_to_nobody_and_the_errors_that_answer_them_are_counted() {
    const DATAGRAMS: u64 = 200;
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().file("a", "a"));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut nobody = guest.address();
        nobody.set_port(9);
        for number in 0..DATAGRAMS {
            socket.send_to(b"anybody?", nobody).unwrap();
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let statistics = assert_become(&guest, "udp", &[("no_ports", DATAGRAMS), ("in_datagrams", 0)]);
        let ip = |name| statistics.value("ip", name).unwrap();
        assert_eq!(ip("icmp_errors_out") + ip("icmp_errors_limited"), DATAGRAMS);
        assert!(ip("icmp_errors_out") >= 20 && ip("icmp_errors_limited") >= 1, "{}", ip("icmp_errors_out"));
        guest.stop();
    });
}
