//! The client against a server made by hand: what is asked when, what is believed, when an address is given up.

use std::net::Ipv4Addr;

use exos_dhcp::{Client, Config, Event, Lease, MAX_ROUTES, Outgoing, Route};
use exos_net::{Duration, Instant, MacAddress};
use proptest::prelude::*;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

fn config() -> Config {
    Config { mac: MAC, host_name: "guest".into(), remembered: None }
}

/// The options of a message of ours.
fn options(message: &Outgoing) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &message.bytes()[240..];
    let mut options = Vec::new();
    while rest[0] != 0xff {
        let (kind, len) = (rest[0], usize::from(rest[1]));
        options.push((kind, rest[2..2 + len].to_vec()));
        rest = &rest[2 + len..];
    }
    options
}

fn option(message: &Outgoing, kind: u8) -> Option<Vec<u8>> {
    options(message).into_iter().find(|option| option.0 == kind).map(|option| option.1)
}

fn kind(message: &Outgoing) -> u8 {
    option(message, 53).unwrap()[0]
}

/// What a server answers.
#[derive(Clone)]
struct Answer {
    kind: u8,
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    options: Vec<(u8, Vec<u8>)>,
}

impl Answer {
    fn new(kind: u8) -> Self {
        let mask = vec![255, 255, 255, 0];
        let options = vec![(1, mask), (3, SERVER.octets().to_vec()), (51, 1_000u32.to_be_bytes().to_vec())];
        Self { kind, address: ADDRESS, server: Some(SERVER), options }
    }

    fn with(mut self, kind: u8, data: &[u8]) -> Self {
        self.options.retain(|option| option.0 != kind);
        self.options.push((kind, data.to_vec()));
        self
    }

    fn to(&self, request: &Outgoing) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&request.bytes()[4..8]);
        bytes[16..20].copy_from_slice(&self.address.octets());
        bytes[28..34].copy_from_slice(&MAC.0);
        bytes[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        bytes.extend([53, 1, self.kind]);
        if let Some(server) = self.server {
            bytes.extend([54, 4]);
            bytes.extend(server.octets());
        }
        for (kind, data) in &self.options {
            bytes.extend([*kind, data.len() as u8]);
            bytes.extend(data);
        }
        bytes.push(0xff);
        bytes
    }
}

struct Test {
    client: Client,
    now: Instant,
    random: u32,
}

impl Test {
    fn new(config: Config) -> Self {
        Self { client: Client::new(config), now: Instant::from_millis(1_000), random: 1 }
    }

    fn poll(&mut self) -> Option<Event> {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.client.poll(self.now, self.random)
    }

    fn message(&mut self) -> Outgoing {
        match self.poll() {
            Some(Event::Send(message)) => *message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    fn leased(&mut self) -> Lease {
        match self.poll() {
            Some(Event::Leased(lease)) => lease,
            other => panic!("expected a lease, got {other:?}"),
        }
    }

    fn lost(&mut self) {
        assert!(matches!(self.poll(), Some(Event::Lost)));
        assert!(self.client.lease().is_none());
    }

    fn answer(&mut self, to: &Outgoing, answer: &Answer) {
        self.client.receive(self.now, &answer.to(to));
    }

    fn wait(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    /// To the next deadline; returns how many seconds that took.
    fn sleep(&mut self) -> u64 {
        let deadline = self.client.next_deadline().unwrap();
        let waited = deadline.since(self.now).as_micros() / 1_000_000;
        self.now = self.now.max(deadline);
        waited
    }

    /// Takes the lease that `ack` grants.
    fn bind(&mut self, ack: &Answer) -> Lease {
        let discover = self.message();
        self.answer(&discover, &Answer { kind: OFFER, ..ack.clone() });
        let request = self.message();
        self.answer(&request, ack);
        self.leased()
    }
}

#[test]
fn discover_and_request_are_what_rfc_2131_says() {
    let mut test = Test::new(config());
    let discover = test.message();
    assert_eq!((discover.from, discover.to), (Ipv4Addr::UNSPECIFIED, "255.255.255.255:67".parse().unwrap()));
    assert!(discover.bytes().len() >= 300);
    assert_eq!(discover.bytes()[..4], [1, 1, 6, 0]);
    assert_eq!(discover.bytes()[8..28], [0; 20]);
    assert_eq!(discover.bytes()[28..34], MAC.0);
    assert_eq!(kind(&discover), DISCOVER);
    let mut wanted = option(&discover, 55).unwrap();
    wanted.sort_unstable();
    assert_eq!(wanted, [1, 3, 6, 15, 26, 51, 58, 59, 121]);
    assert_eq!(option(&discover, 12).unwrap(), b"guest");
    assert_eq!((option(&discover, 50), option(&discover, 54)), (None, None));
    test.answer(&discover, &Answer::new(OFFER));
    let request = test.message();
    assert_eq!((request.from, *request.to.ip()), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    assert_eq!(kind(&request), REQUEST);
    assert_eq!(request.bytes()[4..8], discover.bytes()[4..8]);
    assert_eq!(option(&request, 50).unwrap(), ADDRESS.octets());
    assert_eq!(option(&request, 54).unwrap(), SERVER.octets());
    test.answer(&request, &Answer::new(ACK));
    assert_eq!(test.leased().address, ADDRESS);
    assert!(test.poll().is_none());
}

#[test]
fn all_options_are_read() {
    let mut test = Test::new(config());
    let ack = Answer::new(ACK)
        .with(6, &[10, 0, 0, 2, 10, 0, 0, 3, 10, 0, 0, 4, 10, 0, 0, 5])
        .with(15, b"example.test")
        .with(26, &1_400u16.to_be_bytes())
        .with(58, &300u32.to_be_bytes())
        .with(59, &600u32.to_be_bytes())
        .with(121, &[0, 10, 0, 0, 9, 24, 192, 0, 2, 10, 0, 0, 8, 32, 192, 0, 2, 7, 0, 0, 0, 0]);
    let lease = test.bind(&ack);
    let route = |network: [u8; 4], prefix_len, router: [u8; 4]| Route {
        network: network.into(),
        prefix_len,
        router: router.into(),
    };
    let expected = Lease {
        address: ADDRESS,
        prefix_len: 24,
        // The router option does not count beside classless routes.
        gateway: Some(Ipv4Addr::new(10, 0, 0, 9)),
        dns_servers: [2, 3, 4].map(|last| Some(Ipv4Addr::new(10, 0, 0, last))),
        domain: Some("example.test".into()),
        mtu: Some(1_400),
        routes: vec![
            route([0, 0, 0, 0], 0, [10, 0, 0, 9]),
            route([192, 0, 2, 0], 24, [10, 0, 0, 8]),
            route([192, 0, 2, 7], 32, [0, 0, 0, 0]),
        ],
        server: SERVER,
        lifetime: Some(Duration::from_secs(1_000)),
        renew_after: Duration::from_secs(300),
        rebind_after: Duration::from_secs(600),
    };
    assert_eq!(lease, expected);
}

#[test]
fn offers_that_make_no_sense_are_not_taken() {
    let good = || Answer::new(OFFER);
    let bad = [
        Answer { server: None, ..good() },
        Answer { address: Ipv4Addr::UNSPECIFIED, ..good() },
        Answer { address: Ipv4Addr::new(127, 0, 0, 1), ..good() },
        Answer { address: Ipv4Addr::new(224, 0, 0, 1), ..good() },
        Answer { address: Ipv4Addr::new(10, 0, 0, 255), ..good() },
        Answer { address: Ipv4Addr::new(10, 0, 0, 0), ..good() },
        good().with(1, &[255, 0, 255, 0]),
        good().with(51, &[0, 0, 0, 0]),
        good().with(51, &[1]),
        good().with(53, &[9]),
        Answer { kind: ACK, ..good() },
        Answer { kind: NAK, ..good() },
    ];
    let mut test = Test::new(config());
    let discover = test.message();
    for (number, bad) in bad[..9].iter().chain(&bad[10..]).enumerate() {
        test.answer(&discover, bad);
        assert!(test.poll().is_none(), "{number}");
    }
    // For somebody else, or not an answer.
    let bytes = good().to(&discover);
    for at in [0, 1, 2, 4, 7, 28, 33, 236] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        test.client.receive(test.now, &bytes);
        assert!(test.poll().is_none(), "byte {at}");
    }
    test.answer(&discover, &good());
    assert_eq!(kind(&test.message()), REQUEST);
}

#[test]
fn optional_values_that_make_no_sense_are_left_out() {
    let mut test = Test::new(config());
    let ack = Answer::new(ACK)
        .with(3, &[192, 0, 2, 1])
        .with(15, b"bad domain\n")
        .with(26, &100u16.to_be_bytes())
        .with(58, &5_000u32.to_be_bytes())
        .with(59, &4_000u32.to_be_bytes())
        .with(121, &[33, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let lease = test.bind(&ack);
    assert_eq!((lease.gateway, lease.domain, lease.mtu), (None, None, None));
    assert!(lease.routes.is_empty());
    assert_eq!(lease.renew_after, Duration::from_secs(500));
    assert_eq!(lease.rebind_after, Duration::from_secs(875));
    // More routes than are kept, spread over two options (RFC 3396): bounded.
    let mut test = Test::new(config());
    let mut ack = Answer::new(ACK);
    for _ in 0..20 {
        ack.options.push((121, [8, 11, 10, 0, 0, 9].repeat(11)));
    }
    assert_eq!(test.bind(&ack).routes.len(), MAX_ROUTES);
}

#[test]
fn silence_is_answered_by_asking_less_and_less_often() {
    let mut test = Test::new(config());
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(kind(&test.message()), DISCOVER);
        waits.push(test.sleep());
    }
    let expected = [4, 8, 16, 32, 64, 64, 64, 64];
    for (wait, expected) in waits.iter().zip(expected) {
        assert!((expected - 1..=expected + 1).contains(wait), "{waits:?}");
    }
    waits.dedup();
    assert!(waits.len() > 5, "not always to the second: {waits:?}");
}

#[test]
fn offer_that_is_not_confirmed_is_given_up_for_another() {
    let mut test = Test::new(config());
    let discover = test.message();
    test.answer(&discover, &Answer::new(OFFER));
    for _ in 0..4 {
        assert_eq!(kind(&test.message()), REQUEST);
        test.sleep();
    }
    let again = test.message();
    assert_eq!(kind(&again), DISCOVER);
    assert_ne!(again.bytes()[4..8], discover.bytes()[4..8]);
}

#[test]
fn confirmation_by_another_server_or_of_another_address_does_not_count() {
    let mut test = Test::new(config());
    let discover = test.message();
    test.answer(&discover, &Answer::new(OFFER));
    let request = test.message();
    test.answer(&request, &Answer { server: Some(Ipv4Addr::new(10, 0, 0, 66)), ..Answer::new(ACK) });
    test.answer(&request, &Answer { server: None, ..Answer::new(ACK) });
    test.answer(&request, &Answer { address: Ipv4Addr::new(10, 0, 0, 51), ..Answer::new(ACK) });
    test.answer(&request, &Answer { server: Some(Ipv4Addr::new(10, 0, 0, 66)), ..Answer::new(NAK) });
    assert!(test.poll().is_none());
    test.answer(&request, &Answer::new(ACK));
    test.leased();
}

#[test]
fn refusal_begins_anew_after_a_pause() {
    let mut test = Test::new(config());
    let discover = test.message();
    test.answer(&discover, &Answer::new(OFFER));
    let request = test.message();
    test.answer(&request, &Answer::new(NAK));
    assert!(test.poll().is_none());
    assert_eq!(test.sleep(), 10);
    assert_eq!(kind(&test.message()), DISCOVER);
}

#[test]
fn lease_is_renewed_at_t1_with_its_server_alone() {
    let mut test = Test::new(config());
    let start = test.now;
    test.bind(&Answer::new(ACK));
    test.sleep();
    assert_eq!(test.now.since(start), Duration::from_secs(500));
    let renewal = test.message();
    assert_eq!((kind(&renewal), renewal.from, *renewal.to.ip()), (REQUEST, ADDRESS, SERVER));
    assert_eq!(renewal.bytes()[12..16], ADDRESS.octets());
    assert_eq!((option(&renewal, 50), option(&renewal, 54)), (None, None));
    // What is granted counts from when it was asked for.
    test.wait(30);
    test.answer(&renewal, &Answer { server: None, ..Answer::new(ACK) });
    assert_eq!(test.leased().server, SERVER);
    test.sleep();
    assert_eq!(test.now.since(start), Duration::from_secs(1_000));
}

#[test]
fn lease_that_nobody_renews_is_asked_of_everybody_and_then_lost() {
    let mut test = Test::new(config());
    let start = test.now;
    test.bind(&Answer::new(ACK));
    let mut sent = Vec::new();
    loop {
        test.sleep();
        let at = test.now.since(start).as_micros() / 1_000_000;
        match test.poll() {
            Some(Event::Send(message)) => {
                assert_eq!(kind(&message), REQUEST);
                assert_eq!((message.from, &message.bytes()[12..16]), (ADDRESS, &ADDRESS.octets()[..]));
                sent.push((at, *message.to.ip() == SERVER));
            }
            Some(Event::Lost) => break assert_eq!(at, 1_000),
            other => assert!(other.is_none()),
        }
    }
    // Half of what is left each time, but not more than once a minute.
    let expected =
        [(500, true), (687, true), (781, true), (841, true), (875, false), (937, false), (997, false)];
    assert_eq!(sent, expected);
    assert_eq!(kind(&test.message()), DISCOVER);
}

#[test]
fn refusal_of_a_renewal_loses_the_address_at_once() {
    let mut test = Test::new(config());
    test.bind(&Answer::new(ACK));
    test.wait(500);
    let renewal = test.message();
    test.answer(&renewal, &Answer::new(NAK));
    test.lost();
    assert_eq!(kind(&test.message()), DISCOVER);
}

#[test]
fn lease_for_ever_is_never_renewed() {
    let mut test = Test::new(config());
    let lease = test.bind(&Answer::new(ACK).with(51, &[0xff; 4]));
    assert_eq!((lease.lifetime, test.client.next_deadline()), (None, None));
    test.wait(1 << 32);
    assert!(test.poll().is_none());
}

#[test]
fn remembered_address_is_asked_for_first() {
    let remembered = || Config { remembered: Some(ADDRESS), ..config() };
    let mut test = Test::new(remembered());
    let request = test.message();
    assert_eq!((kind(&request), option(&request, 50).unwrap()), (REQUEST, ADDRESS.octets().to_vec()));
    assert_eq!((option(&request, 54), &request.bytes()[12..16]), (None, &[0; 4][..]));
    test.answer(&request, &Answer::new(ACK));
    test.leased();
    // Refused: any other.
    let mut test = Test::new(remembered());
    let request = test.message();
    test.answer(&request, &Answer::new(NAK));
    assert_eq!(kind(&test.message()), DISCOVER);
    // Unheard twice: any other.
    let mut test = Test::new(remembered());
    for _ in 0..2 {
        assert_eq!(kind(&test.message()), REQUEST);
        test.sleep();
    }
    assert_eq!(kind(&test.message()), DISCOVER);
}

#[test]
fn address_that_somebody_has_is_declined_and_another_asked_for_later() {
    let mut test = Test::new(config());
    test.client.decline(test.now);
    test.bind(&Answer::new(ACK));
    test.client.decline(test.now);
    let decline = test.message();
    assert_eq!(
        (kind(&decline), *decline.to.ip(), decline.from),
        (DECLINE, Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(option(&decline, 50).unwrap(), ADDRESS.octets());
    assert_eq!(option(&decline, 54).unwrap(), SERVER.octets());
    test.lost();
    assert!(test.poll().is_none());
    assert_eq!(test.sleep(), 10);
    assert_eq!(kind(&test.message()), DISCOVER);
}

#[test]
fn release_tells_the_server_and_ends() {
    let mut test = Test::new(config());
    test.bind(&Answer::new(ACK));
    test.client.release(test.now);
    let release = test.message();
    assert_eq!((kind(&release), *release.to.ip(), release.from), (RELEASE, SERVER, ADDRESS));
    assert_eq!(release.bytes()[12..16], ADDRESS.octets());
    test.lost();
    assert_eq!(test.client.next_deadline(), None);
}

proptest! {
    /// Whatever arrives, changed anywhere, in any state: no panic, and the client goes on.
    #[test]
    fn hostile_answers_do_not_panic(
        steps in proptest::collection::vec(
            (0u8..8, proptest::collection::vec((236usize..400, any::<u8>()), 0..6), 0usize..400, 0u64..700), 1..30),
        options in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
    ) {
        let mut test = Test::new(config());
        let mut last = test.message();
        for (kind, flips, cut, wait) in steps {
            let mut answer = Answer::new(kind);
            answer.options.extend(options.iter().cloned());
            let mut bytes = answer.to(&last);
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if cut < 240 {
                bytes.truncate(bytes.len() - cut.min(bytes.len()));
            }
            test.client.receive(test.now, &bytes);
            test.wait(wait);
            for _ in 0..10 {
                match test.poll() {
                    Some(Event::Send(message)) => last = *message,
                    Some(_) => {}
                    None => break,
                }
            }
            if let Some(lease) = test.client.lease() {
                prop_assert!(lease.prefix_len > 0 && lease.prefix_len <= 32 && lease.routes.len() <= MAX_ROUTES);
                prop_assert!(lease.renew_after <= lease.rebind_after);
            }
        }
        prop_assert!(test.client.next_deadline().is_some() || test.client.lease().is_some());
    }
}
