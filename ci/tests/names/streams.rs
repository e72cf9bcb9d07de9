//! Answers that do not fit a datagram, asked for again over TCP (RFC 7766): of dnsmasq, and of servers with manners of every kind.

use super::*;
use exovm_ci::name_server::{NameServer, OverTcp};
use std::fmt::Write as _;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer over TCP is waited for.
const SILENCE: Duration = Duration::from_secs(6);

/// Has servers listen at addresses that come with the guest.
fn listen_before_there_is_an_address() {
    std::fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").expect("the namespace is ours");
}

/// Has the host have this address as well before the guest begins.
fn with_host(guest: GuestBuilder, addresses: Vec<Ipv4Addr>) -> GuestBuilder {
    guest.wrap_backend(move |backend| {
        let tap = Interface::named("tap0").unwrap();
        addresses.into_iter().for_each(|address| tap.add_address(address.into(), 24).unwrap());
        backend
    })
}

/// Runs webswamp with these name servers, which lead it to the server.
fn assert_finds(guest: GuestBuilder, server: &Server) {
    let outcome = swamp_of(guest, &format!("--target http://www.test:{}/ -c 1 -n 5", server.port));
    assert_eq!((outcome.status, outcome.number("answered")), (0, 5), "{:#}", outcome.report);
}

/// Connections to it that the guest closed, and that it reset, once it has ended so many.
fn ends(server: &NameServer, expected: (usize, usize)) -> bool {
    let begun = Instant::now();
    while server.ends() != expected && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    server.ends() == expected
}

#[test]
fn answer_that_does_not_fit_a_datagram_is_had_over_tcp() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        let addresses: Vec<_> = (100..220).map(|last| Ipv4Addr::new(10, 80, 0, last)).collect();
        let scratch = tempfile::tempdir().unwrap();
        let hosts = scratch.path().join("hosts");
        let mut lines = String::new();
        addresses.iter().for_each(|address| writeln!(lines, "{address} www.test").unwrap());
        std::fs::write(&hosts, lines).unwrap();
        let dnsmasq = Dnsmasq::start(&[&format!("--addn-hosts={}", hosts.display())]);
        assert_finds(with_host(webswamp(), addresses), &server);
        assert!(dnsmasq.questions("A", "www.test") >= 2, "over UDP, and over TCP: {}", dnsmasq.log());
    });
}

#[test]
fn answer_over_tcp_may_come_in_pieces_and_with_more_behind_it() {
    in_namespace!(|| {
        listen_before_there_is_an_address();
        let server = Server::start(Manners::Good(64));
        let mut unused = (10..).map(|last| Ipv4Addr::new(10, 80, 0, last));
        for over_tcp in [OverTcp::Answered, OverTcp::InPieces, OverTcp::AndMore] {
            // A busy host may hold up an answer for longer than it is waited for.
            let is_asked_once = (0..3).any(|_| {
                let at = unused.next().expect("addresses enough");
                let names = NameServer::start(at.into(), HOST, over_tcp);
                // What overtakes waits in the connection's buffer.
                let guest = Guest::image("webswamp").name_server(at).impair("reorder=30%,seed=7");
                assert_finds(with_host(guest, vec![at]), &server);
                names.questions().1 == 1 && ends(&names, (1, 0))
            });
            assert!(is_asked_once, "{over_tcp:?}");
        }
    });
}

/// Whatever the first server does over TCP, the second is asked; and where the first keeps a connection, it is told when nobody
/// waits for it any more.
#[test]
fn next_name_server_is_asked_where_the_first_has_no_answer_over_tcp() {
    let ways = [
        (OverTcp::Refused, 0, (0, 0)),
        (OverTcp::Closed, 1, (0, 0)),
        (OverTcp::ClosedEarly, 1, (0, 0)),
        (OverTcp::Silent, 1, (0, 1)),
        (OverTcp::NoLength, 1, (1, 0)),
        (OverTcp::TooLong, 1, (0, 1)),
        (OverTcp::Cut, 1, (1, 0)),
        (OverTcp::Another, 1, (1, 0)),
    ];
    in_namespace!(|| {
        listen_before_there_is_an_address();
        let server = Server::start(Manners::Good(64));
        let second = NameServer::start(HOST.into(), HOST, OverTcp::Answered);
        let scratch = tempfile::tempdir().unwrap();
        let capture = scratch.path().join("frames.pcapng");
        let mut unused = (10..).map(|last| Ipv4Addr::new(10, 80, 0, last));
        for (over_tcp, asked, ended) in ways {
            let is_silent = matches!(over_tcp, OverTcp::Silent | OverTcp::TooLong);
            // A busy host may hold up an answer for longer than it is waited for.
            let is_as_expected = (0..5).any(|_| {
                let at = unused.next().expect("addresses enough");
                let first = NameServer::start(at.into(), HOST, over_tcp);
                let before = second.questions();
                let guest = Guest::image("webswamp").name_server(at).name_server(HOST);
                assert_finds(with_host(guest.pcap(&capture), vec![at]), &server);
                first.questions() == (1, asked)
                    && second.questions() == (before.0 + 1, before.1 + 1)
                    && ends(&first, ended)
                    && (pause(&capture) >= SILENCE) == is_silent
            });
            assert!(is_as_expected, "{over_tcp:?}");
        }
    });
}

#[test]
fn answer_that_is_not_to_be_had_over_tcp_either_is_said_in_a_sentence() {
    in_namespace!(|| {
        listen_before_there_is_an_address();
        let names = NameServer::start(HOST.into(), HOST, OverTcp::Refused);
        let said = failure(webswamp(), "http://www.test/");
        assert!(said.contains("stops TCP to its port 53"), "{said}");
        assert_eq!(names.questions(), (3, 0));
    });
}
