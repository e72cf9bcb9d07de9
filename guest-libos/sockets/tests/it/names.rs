//! Names by sockets, with a server made by hand at the other end.

use crate::wire::{ADDRESSES, CLIENT, OUR_V6, SERVER, Wire, read_exact, with_ipv6, write_all};
use edge_nal::{AddrType, Dns};
use exos_net::Duration;
use exos_sockets::blocking::Network;
use exos_sockets::{Error, Failure, Family, Sockets};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

const DNS: u16 = 53;
const A: u16 = 1;
const AAAA: u16 = 28;
const FOUND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const FOUND_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

/// First label and type of a question.
fn question(query: &[u8]) -> (String, u16) {
    let label = &query[13..13 + usize::from(query[12])];
    let kind = u16::from_be_bytes(query[query.len() - 4..query.len() - 2].try_into().expect("two bytes"));
    (String::from_utf8(label.to_vec()).expect("letters"), kind)
}

/// An answer with `count` times the address of the kind that was asked for.
fn answer(query: &[u8], flags: u16, count: u16) -> Vec<u8> {
    let mut bytes = query[..2].to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(count.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&query[12..]);
    for number in 0..count as u8 {
        let kind = question(query).1;
        let mut address = match (kind, FOUND_V6, FOUND) {
            (AAAA, IpAddr::V6(address), _) => address.octets().to_vec(),
            (_, _, IpAddr::V4(address)) => address.octets().to_vec(),
            _ => unreachable!("one of each family"),
        };
        *address.last_mut().expect("an address") += number;
        bytes.extend([0xc0, 12, (kind >> 8) as u8, kind as u8, 0, 1, 0, 0, 0, 60, 0, address.len() as u8]);
        bytes.extend(address);
    }
    bytes
}

/// What was asked: over which protocol, and which type.
type Log = Rc<RefCell<Vec<(char, u16)>>>;

/// A server that knows every name: `large` only over TCP, `nobody` not, `four` only over IPv4, `deaf` and `hangs` (over TCP) not
/// to answer.
fn serve(wire: &Wire, with_tcp: bool) -> Log {
    let log = Log::default();
    let (sockets, notes) = (wire.sockets(SERVER), log.clone());
    wire.spawner(SERVER).spawn(async move {
        let any = (Ipv6Addr::UNSPECIFIED, DNS).into();
        let mut socket = sockets.bind_udp(any).expect("free");
        let mut query = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut query).await.expect("nothing is wrong");
            let (name, kind) = question(&query[..len]);
            notes.borrow_mut().push(('u', kind));
            let (flags, count) = match &name[..] {
                "deaf" => continue,
                "large" | "hangs" => (0x8380, 0),
                "nobody" => (0x8183, 0),
                "four" if kind == AAAA => (0x8180, 0),
                _ => (0x8180, 1),
            };
            let _ = socket.send_to(&answer(&query[..len], flags, count), from).await;
        }
    });
    if !with_tcp {
        return log;
    }
    let (sockets, notes) = (wire.sockets(SERVER), log.clone());
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(DNS, 8).expect("free");
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("listening");
            let mut len = [0; 2];
            read_exact(&mut stream, &mut len).await.expect("open");
            let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
            read_exact(&mut stream, &mut query).await.expect("open");
            let (name, kind) = question(&query);
            notes.borrow_mut().push(('t', kind));
            if name == "hangs" {
                held.push(stream);
                continue;
            }
            let answer = answer(&query, 0x8180, 16);
            // In pieces, as streams may bring it.
            for part in [&(answer.len() as u16).to_be_bytes()[..], &answer[..100], &answer[100..]] {
                write_all(&mut stream, part).await.expect("open");
                sockets.sleep(Duration::from_millis(5)).await;
            }
        }
    });
    log
}

fn client(wire: &Wire) -> Sockets {
    let sockets = wire.sockets(CLIENT);
    sockets.set_name_servers([ADDRESSES[SERVER].into()]);
    sockets
}

/// The resolver forgot it, its sockets are closed, and nobody has a connection.
fn assert_nothing_is_left(wire: &mut Wire) {
    wire.run_for(Duration::from_secs(1));
    assert_eq!((wire.sockets(CLIENT).udp_sockets(), wire.sockets(CLIENT).len()), (0, 0));
}

#[test]
fn name_becomes_addresses_of_the_families_that_we_have() {
    let mut wire = Wire::new();
    let log = serve(&wire, true);
    let sockets = client(&wire);
    let found = wire.run(CLIENT, async move {
        let first = sockets.resolve("www.example.org").await;
        assert_eq!(sockets.resolve("WWW.example.org.").await, first, "remembered");
        assert_eq!(sockets.resolve("192.0.2.9").await, Ok(vec![Ipv4Addr::new(192, 0, 2, 9).into()]));
        first
    });
    assert_eq!((found, log.borrow().as_slice()), (Ok(vec![FOUND]), &[('u', A)][..]));
    assert_nothing_is_left(&mut wire);

    let mut wire = Wire::with([with_ipv6(CLIENT), with_ipv6(SERVER)]);
    let log = serve(&wire, true);
    let sockets = client(&wire);
    wire.run(CLIENT, async move {
        assert_eq!(sockets.resolve("www.example.org").await, Ok(vec![FOUND_V6, FOUND]));
        assert_eq!(sockets.resolve("four.example.org").await, Ok(vec![FOUND]));
        assert_eq!(
            sockets.lookup("four.example.org", Family::V6).await,
            Err(Error::Name(Failure::NoAddress))
        );
    });
    assert_eq!(log.borrow().iter().filter(|(_, kind)| *kind == AAAA).count(), 3);
    assert_nothing_is_left(&mut wire);
}

#[test]
fn server_is_asked_over_ipv6_as_well() {
    let mut wire = Wire::with([with_ipv6(CLIENT), with_ipv6(SERVER)]);
    serve(&wire, true);
    let sockets = wire.sockets(CLIENT);
    sockets.set_name_servers([OUR_V6[SERVER].into()]);
    let found = wire.run(CLIENT, async move { sockets.lookup("large.example.org", Family::V4).await });
    assert_eq!(found.map(|found| found.len()), Ok(16));
    assert_nothing_is_left(&mut wire);
}

#[test]
fn answer_that_does_not_fit_comes_over_tcp() {
    let mut wire = Wire::new();
    let log = serve(&wire, true);
    let sockets = client(&wire);
    let found = wire.run(CLIENT, async move { sockets.resolve("large.example.org").await });
    assert_eq!(found.map(|found| (found.len(), found[15])), Ok((16, Ipv4Addr::new(192, 0, 2, 22).into())));
    assert_eq!(*log.borrow(), [('u', A), ('t', A)]);
    assert_nothing_is_left(&mut wire);
}

#[test]
fn tcp_that_is_refused_or_hangs_is_a_failure_in_the_end() {
    for (with_tcp, name) in [(false, "large.example.org"), (true, "hangs.example.org")] {
        let mut wire = Wire::new();
        serve(&wire, with_tcp);
        let sockets = client(&wire);
        let found = wire.run(CLIENT, async move { sockets.resolve(name).await });
        assert_eq!(found, Err(Error::Name(Failure::Truncated)));
        assert_nothing_is_left(&mut wire);
    }
}

#[test]
fn server_that_does_not_answer_hands_over_to_the_next_at_once_if_its_host_says_so() {
    let mut wire = Wire::new();
    serve(&wire, true);
    let silent = Ipv4Addr::new(10, 0, 0, 99);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let start = sockets.now();
        sockets.set_name_servers([silent.into(), ADDRESSES[SERVER].into()]);
        assert_eq!(sockets.resolve("a.example.org").await, Ok(vec![FOUND]));
        let silence = sockets.now().since(start).as_nanos() / 1_000_000;
        assert!((2_000..2_100).contains(&silence), "{silence} ms");
    });

    // Nobody is at the port: its host says so.
    let mut wire = Wire::new();
    let sockets = client(&wire);
    wire.run(CLIENT, async move {
        let start = sockets.now();
        assert_eq!(sockets.resolve("a.example.org").await, Err(Error::Name(Failure::TimedOut)));
        assert!(sockets.now().since(start) < Duration::from_secs(1));
    });
    assert_nothing_is_left(&mut wire);
}

#[test]
fn failures_say_what_is_wrong() {
    let mut wire = Wire::new();
    serve(&wire, true);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        assert_eq!(sockets.resolve("www.example.org").await, Err(Error::Name(Failure::NoServer)));
        sockets.set_name_servers([ADDRESSES[SERVER].into()]);
        assert_eq!(sockets.resolve("a..b").await, Err(Error::Name(Failure::BadName)));
        assert_eq!(sockets.resolve("nobody.example.org").await, Err(Error::Name(Failure::NoSuchName)));
        assert_eq!(sockets.resolve("deaf.example.org").await, Err(Error::Name(Failure::TimedOut)));
        assert_eq!(sockets.get_host_by_address(FOUND, &mut [0; 255]).await, Err(Error::Unsupported));
    });
    assert_nothing_is_left(&mut wire);
}

#[test]
fn name_that_nobody_waits_for_any_more_leaves_nothing_behind() {
    for name in ["deaf.example.org", "hangs.example.org"] {
        let mut wire = Wire::new();
        serve(&wire, true);
        let sockets = client(&wire);
        wire.run(CLIENT, async move {
            let waiting = std::pin::pin!(sockets.resolve(name));
            let time = std::pin::pin!(sockets.sleep(Duration::from_millis(100)));
            futures_util::future::select(waiting, time).await;
            assert_eq!(sockets.udp_sockets(), usize::from(name.starts_with("deaf")));
        });
        assert_nothing_is_left(&mut wire);
    }
}

#[test]
fn blocking_programs_and_those_that_know_only_the_trait_ask_for_names() {
    let mut wire = Wire::new();
    serve(&wire, true);
    let sockets = client(&wire);
    let found =
        wire.run(CLIENT, async move { sockets.get_host_by_name("b.example.org", AddrType::Either).await });
    assert_eq!(found, Ok(FOUND));
    let sockets = client(&wire);
    let end = wire.now + Duration::from_secs(60);
    let network = Network::new(sockets, move || assert!(wire.step(end), "nothing goes on"));
    assert_eq!(network.resolve("c.example.org"), Ok(vec![FOUND]));
    assert_eq!(network.resolve("nobody.example.org"), Err(Error::Name(Failure::NoSuchName)));
}
