//! Guests that find others by name: dnsmasq on the other end of the TAP, or somebody who does not answer.

mod advertised;
mod streams;

use exovm::machine::End;
use exovm_ci::dnsmasq::Dnsmasq;
use exovm_ci::swamp::{Manners, Server, swamp_of};
use exovm_ci::{Guest, GuestBuilder, Site};
use exovm_netns::{Interface, in_namespace};
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The host's addresses on TAP 0.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 1);
/// The guest's.
const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 2);

fn webswamp() -> GuestBuilder {
    Guest::image("webswamp").name_server(HOST)
}

/// Has the host have its IPv6 address before the guest begins.
fn with_host_v6(guest: GuestBuilder) -> GuestBuilder {
    guest.wrap_backend(|backend| {
        Interface::named("tap0").unwrap().add_address(HOST_V6.into(), 64).unwrap();
        backend
    })
}

/// Runs webswamp, which is to fail before it asks anybody; gives back what it said.
fn failure(guest: GuestBuilder, target: &str) -> String {
    let (end, log) = guest.arguments(&["--target", target, "-n", "1", "--json"]).launch().wait();
    assert_eq!(end, End::PowerOff { status: 1 }, "{log:#?}");
    assert!(!log.iter().any(|line| line.starts_with('{')), "there is nothing to report: {log:#?}");
    let complaints: Vec<_> = log.into_iter().filter(|line| line.contains("webswamp: ")).collect();
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    assert!(complaints[0].contains(target), "{complaints:#?}");
    complaints[0].clone()
}

/// Answers each request on a port of the host, and tells its head, line by line.
fn heads() -> (u16, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, heads) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            tell.send(head).unwrap();
        }
    });
    (port, heads)
}

#[test]
fn webswamp_loads_a_cheetah_by_its_name_and_both_count_the_same() {
    in_namespace!(|| {
        let site = Site::new().pattern_file("large", 7, 100_000);
        let cheetah = Guest::image("cheetah").site(&site).tap(1).gateway([10, 80, 1, 1].into()).start();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the namespace is ours");
        let dnsmasq =
            Dnsmasq::start(&["--host-record=cheetah.test,10.80.1.2", "--cname=www.test,cheetah.test"]);
        for name in ["cheetah.test", "WWW.test."] {
            let mut outcome = None;
            let served = cheetah.requests_during(|| {
                let words = format!("--target http://{name}/large -c 8 -n 200");
                outcome = Some(swamp_of(webswamp().gateway(HOST), &words));
            });
            let outcome = outcome.expect("it ran");
            assert_eq!((outcome.status, outcome.errors()), (0, 0), "{:#}", outcome.report);
            assert_eq!((served, outcome.number("answered")), (200, 200));
            assert_eq!(outcome.number("body_bytes"), 200 * 100_000);
            assert_eq!(outcome.report["target"], format!("http://{name}/large"));
        }
        // Once for all requests, and not for addresses of a family that the guest has none of.
        assert_eq!(
            (dnsmasq.questions("A", "cheetah.test"), dnsmasq.questions("AAAA", "cheetah.test")),
            (1, 0),
            "{}",
            dnsmasq.log()
        );
        cheetah.stop();
    });
}

/// Each name has one address where somebody is, and one of the other family where nobody is.
#[test]
fn address_is_of_ipv6_where_the_guest_has_one_and_the_request_names_the_host() {
    in_namespace!(|| {
        let (port, heads) = heads();
        let _dnsmasq = Dnsmasq::start(&[
            &format!("--host-record=six.test,10.80.0.77,{HOST_V6}"),
            &format!("--host-record=four.test,{HOST},2001:db8:0:80::77"),
        ]);
        let with_both = with_host_v6(webswamp()).ipv6(GUEST_V6);
        let only_ipv6 = with_host_v6(Guest::image("webswamp").name_server(HOST_V6)).ipv6(GUEST_V6);
        for (guest, name) in
            [(with_both, "six.test"), (webswamp(), "four.test"), (only_ipv6.without_ipv4(), "six.test")]
        {
            let outcome = swamp_of(guest, &format!("--target http://{name}:{port}/page -c 1 -n 1"));
            assert_eq!((outcome.status, outcome.number("answered")), (0, 1), "{name}: {:#}", outcome.report);
            let head = heads.recv().unwrap();
            assert_eq!(head[0], "GET /page HTTP/1.1");
            assert!(head.contains(&format!("Host: {name}:{port}")), "{head:#?}");
        }
    });
}

#[test]
fn family_without_an_answer_does_not_keep_the_other_from_being_used() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        let _dnsmasq = Dnsmasq::start(&[&format!("--host-record=four.test,{HOST}")]);
        let target = format!("--target http://four.test:{}/ -c 1 -n 5", server.port);
        let outcome = swamp_of(with_host_v6(webswamp()).ipv6(GUEST_V6), &target);
        assert_eq!((outcome.status, outcome.number("answered")), (0, 5), "{:#}", outcome.report);
    });
}

#[test]
fn name_that_nobody_has_is_said_in_a_sentence() {
    in_namespace!(|| {
        let dnsmasq = Dnsmasq::start(&[]);
        let said = failure(webswamp(), "http://nobody.test/");
        assert!(said.contains("there is no such name"), "{said}");
        assert_eq!(dnsmasq.questions("A", "nobody.test"), 1, "{}", dnsmasq.log());
    });
}

#[test]
fn name_whose_address_no_host_can_have_is_said_in_a_sentence() {
    in_namespace!(|| {
        let _dnsmasq = Dnsmasq::start(&["--host-record=blocked.test,127.0.0.1"]);
        let said = failure(webswamp(), "http://blocked.test/");
        assert!(said.contains("no other host can have"), "{said}");
    });
}

#[test]
fn without_a_name_server_the_user_is_told_how_to_name_one() {
    in_namespace!(|| {
        let said = failure(Guest::image("webswamp"), "http://www.test/");
        assert!(said.contains("dns=ADDRESS"), "{said}");
    });
}

#[test]
fn name_server_that_does_not_answer_is_asked_three_times_and_given_up() {
    in_namespace!(|| {
        let silent = UdpSocket::bind("0.0.0.0:53").unwrap();
        let said = failure(webswamp(), "http://www.test/");
        assert!(said.contains("no name server answered"), "{said}");
        silent.set_nonblocking(true).unwrap();
        let mut asked = Vec::new();
        let mut question = [0; 512];
        while let Ok((len, from)) = silent.recv_from(&mut question) {
            assert_eq!(question[12..len], *b"\x03www\x04test\0\0\x01\0\x01");
            asked.push((question[..2].to_vec(), from.port()));
        }
        assert_eq!(asked.len(), 3);
        asked.sort();
        asked.dedup_by_key(|(_, port)| *port);
        assert_eq!(asked.len(), 3, "each from a port of its own");
    });
}

/// Between the guest's first question and its second.
fn pause(capture: &Path) -> Duration {
    const UDP: u8 = 17;
    let is_question = |frame: &[u8]| {
        let (v4, v6) = (frame[12..14] == [8, 0], frame[12..14] == [0x86, 0xdd]);
        v4 && frame[23] == UDP && frame[36..38] == [0, 53]
            || v6 && frame[20] == UDP && frame[56..58] == [0, 53]
    };
    let frames = frames(capture);
    let asked: Vec<_> = frames.iter().filter(|(_, frame)| is_question(frame)).map(|&(at, _)| at).collect();
    asked[1] - asked[0]
}

#[test]
fn next_name_server_is_asked_at_once_where_nobody_is_at_the_port_of_the_first() {
    /// How long silence would be waited for.
    const SILENCE: Duration = Duration::from_secs(2);
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 3);
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        // At this address only, whenever it comes; at the other one the kernel says that nobody is at the port.
        let record = format!("--host-record=www.test,{HOST}");
        let _dnsmasq = Dnsmasq::start(&[&record, "--bind-dynamic", &format!("--listen-address={HOST}")]);
        let scratch = tempfile::tempdir().unwrap();
        let capture = scratch.path().join("frames.pcapng");
        // A busy host may hold one up.
        let mut pauses = (0..5).map(|_| {
            let guest = Guest::image("webswamp").name_server(ELSEWHERE).name_server(HOST).pcap(&capture);
            let guest = guest.wrap_backend(|backend| {
                Interface::named("tap0").unwrap().add_address(ELSEWHERE.into(), 24).unwrap();
                backend
            });
            let outcome = swamp_of(guest, &format!("--target http://www.test:{}/ -c 1 -n 5", server.port));
            assert_eq!((outcome.status, outcome.number("answered")), (0, 5), "{:#}", outcome.report);
            pause(&capture)
        });
        assert!(pauses.any(|pause| pause < SILENCE));
    });
}

/// Frames of a capture, with their times.
fn frames(capture: &Path) -> Vec<(Duration, Vec<u8>)> {
    let mut reader = PcapNgReader::new(File::open(capture).unwrap()).unwrap();
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            frames.push((packet.timestamp, packet.data.to_vec()));
        }
    }
    frames
}

/// The segment sizes that the guest's SYNs over IPv4 announce.
fn announced(capture: &Path) -> Vec<u16> {
    const SYN: u8 = 2;
    let mut sizes = Vec::new();
    for (_, frame) in frames(capture) {
        if frame.len() >= 58 && frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] == SYN {
            assert_eq!(frame[54..56], [2, 4], "the segment size is the first option");
            sizes.push(u16::from_be_bytes([frame[56], frame[57]]));
        }
    }
    sizes
}

/// Leases 10.80.0.20, knows `www.test`, and says these options besides.
fn dhcp(options: &[&str]) -> Dnsmasq {
    slow_dhcp(&[&["--no-ping"], options].concat())
}

/// The same, which asks for three seconds whether somebody has an address before it offers it.
fn slow_dhcp(options: &[&str]) -> Dnsmasq {
    let record = format!("--host-record=www.test,{HOST}");
    let range = ["--dhcp-range=10.80.0.20,10.80.0.20,1h", "--dhcp-authoritative", &record];
    Dnsmasq::start(&[&range[..], options].concat())
}

/// Runs webswamp with a lease; gives back the segment size that it announces.
fn leased(guest: GuestBuilder, server: &Server) -> u16 {
    let scratch = tempfile::tempdir().unwrap();
    let capture = scratch.path().join("frames.pcapng");
    let words = format!("--target http://www.test:{}/ -c 1 -n 5", server.port);
    let outcome = swamp_of(guest.dhcp().pcap(&capture), &words);
    assert_eq!((outcome.status, outcome.number("answered")), (0, 5), "{:#}", outcome.report);
    let announced = announced(&capture);
    assert_eq!(announced.len(), 1);
    announced[0]
}

#[test]
fn lease_says_whom_to_ask_and_how_large_packets_may_be() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        let dnsmasq = dhcp(&["--dhcp-option=option:mtu,1400", "--dhcp-option=option:dns-server,10.80.0.1"]);
        assert_eq!(leased(Guest::image("webswamp"), &server), 1_360);
        assert!(dnsmasq.log().contains("10.80.0.20"), "{}", dnsmasq.log());
        assert_eq!(dnsmasq.questions("A", "www.test"), 1);
    });
}

#[test]
fn lease_with_an_mtu_that_cannot_be_is_used_without_it() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        // Below what every host must take; more than the device does.
        for mtu in [575, 9_000] {
            let _dnsmasq = dhcp(&[&format!("--dhcp-option=option:mtu,{mtu}")]);
            assert_eq!(leased(Guest::image("webswamp"), &server), 1_460, "{mtu}");
        }
    });
}

#[test]
fn name_server_that_the_user_says_is_asked_instead_of_the_leases() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        let dnsmasq = dhcp(&["--dhcp-option=option:dns-server,10.80.0.77"]);
        assert_eq!(leased(webswamp(), &server), 1_460);
        assert_eq!(dnsmasq.questions("A", "www.test"), 1);
    });
}

#[test]
fn lease_is_waited_for_where_ipv6_is_there_before_it() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        let target = format!("http://www.test:{}/", server.port);
        // On a busy host a lease may take longer than it is waited for.
        let is_answered = |_| {
            let _dnsmasq = slow_dhcp(&["--dhcp-option=option:dns-server,10.80.0.1"]);
            let guest = Guest::image("webswamp").dhcp().ipv6(GUEST_V6);
            let (end, _) = guest.arguments(&["--target", &target, "-c", "1", "-n", "5"]).launch().wait();
            end == End::PowerOff { status: 0 }
        };
        assert!((0..3).any(is_answered));
    });
}
