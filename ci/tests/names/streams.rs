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
fn ends(server: &NameServer, connections: usize) -> (usize, usize) {
    let begun = Instant::now();
    loop {
        let (closed, reset) = server.ends();
        if closed + reset >= connections || begun.elapsed() >= PATIENCE {
            return (closed, reset);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs it until the host has answered each question over UDP within a second, as a capture shows: one that does not is too busy for
/// what follows to be right.
fn on_a_host_with_time<T>(mut run: impl FnMut(&Path) -> T) -> T {
    const ENOUGH: Duration = Duration::from_secs(1);
    let scratch = tempfile::tempdir().unwrap();
    let capture = scratch.path().join("frames.pcapng");
    let is_udp = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 17;
    for _ in 0..5 {
        let outcome = run(&capture);
        let frames: Vec<_> = frames(&capture).into_iter().filter(|(_, frame)| is_udp(frame)).collect();
        let is_answered = |(asked, question): &(Duration, Vec<u8>)| {
            frames.iter().any(|(at, answer)| {
                answer[34..38] == [&question[36..38], &question[34..36]].concat()
                    && (*asked..*asked + ENOUGH).contains(at)
            })
        };
        let mut questions = frames.iter().filter(|(_, frame)| frame[36..38] == [0, 53]);
        if questions.all(is_answered) {
            return outcome;
        }
    }
    panic!("this host takes seconds for an answer, again and again");
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
            let (questions, ends) = on_a_host_with_time(|capture| {
                let at = unused.next().expect("addresses enough");
                let names = NameServer::start(at.into(), HOST, over_tcp);
                // What overtakes waits in the connection's buffer.
                let guest = Guest::image("webswamp").name_server(at).impair("reorder=30%,seed=7");
                assert_finds(with_host(guest.pcap(capture), vec![at]), &server);
                (names.questions(), ends(&names, 1))
            });
            assert_eq!(questions, (1, 1), "{over_tcp:?}");
            // What comes after the close is answered with a reset, which the server may see before the close.
            let may_be_reset = over_tcp == OverTcp::AndMore && ends == (0, 1);
            assert!(ends == (1, 0) || may_be_reset, "{over_tcp:?}: {ends:?}");
        }
    });
}

/// The guest has both versions, and asks for both kinds of addresses at the same time.
#[test]
fn answers_of_both_families_are_had_over_a_connection_each() {
    in_namespace!(|| {
        listen_before_there_is_an_address();
        let server = Server::start(Manners::Good(64));
        let mut unused = (10..).map(|last| Ipv4Addr::new(10, 80, 0, last));
        let (questions, ends) = on_a_host_with_time(|capture| {
            let at = unused.next().expect("addresses enough");
            let names = NameServer::start(at.into(), HOST, OverTcp::Answered);
            let guest = with_host_v6(Guest::image("webswamp").name_server(at)).ipv6(GUEST_V6);
            assert_finds(with_host(guest.pcap(capture), vec![at]), &server);
            (names.questions(), ends(&names, 2))
        });
        assert_eq!((questions, ends), ((2, 2), (2, 0)));
    });
}

/// An HTTP server that answers once somebody has ended the connection to the name server: until then the guest has nothing to do.
#[test]
fn connection_that_a_name_server_does_not_end_is_reset() {
    in_namespace!(|| {
        listen_before_there_is_an_address();
        for over_tcp in [OverTcp::Endless, OverTcp::Kept] {
            let at = Ipv4Addr::new(10, 80, 0, 10 + over_tcp as u8);
            let names = NameServer::start(at.into(), HOST, over_tcp);
            let listener = TcpListener::bind("0.0.0.0:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let (tell, told) = channel();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                tell.send(ends(&names, 1)).unwrap();
                stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
                // The request is not looked at; what was not read would reset the connection.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
            let guest = with_host(Guest::image("webswamp").name_server(at), vec![at]);
            let words = format!("--target http://www.test:{port}/ -c 1 -n 1 --timeout 90s");
            let outcome = swamp_of(guest, &words);
            assert_eq!((outcome.status, outcome.number("answered")), (0, 1), "{:#}", outcome.report);
            assert_eq!(told.recv(), Ok((0, 1)), "{over_tcp:?}");
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
        let mut unused = (10..).map(|last| Ipv4Addr::new(10, 80, 0, last));
        for (over_tcp, asked, ended) in ways {
            let is_silent = matches!(over_tcp, OverTcp::Silent | OverTcp::TooLong);
            let (of_first, of_second, ends, pause) = on_a_host_with_time(|capture| {
                let at = unused.next().expect("addresses enough");
                let first = NameServer::start(at.into(), HOST, over_tcp);
                let before = second.questions();
                let guest = Guest::image("webswamp").name_server(at).name_server(HOST);
                assert_finds(with_host(guest.pcap(capture), vec![at]), &server);
                let after = second.questions();
                let of_second = (after.0 - before.0, after.1 - before.1);
                (first.questions(), of_second, ends(&first, ended.0 + ended.1), pause(capture))
            });
            assert_eq!((of_first, of_second, ends), ((1, asked), (1, 1), ended), "{over_tcp:?}");
            assert_eq!(pause > SILENCE - Duration::from_secs(1), is_silent, "{over_tcp:?}: {pause:?}");
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
