//! What servers say to those who ask for an address or for a name: exos-dhcp and exos-dns, whose answers anybody can send.

use crate::input::Input;
use exos_dhcp::{Client, Event as ClientEvent};
use exos_dns::{
    Config, Event, Family, Lookup, MAX_ADDRESSES, Outgoing, QueryId, Resolver, StreamAnswer, StreamQuery,
};
use exos_net::{Duration, Instant, MacAddress};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const MAX_QUERIES: u16 = 4;
const MAX_CACHED: u16 = 4;

/// An answer that fits a query as far as the bytes do not say otherwise.
fn answer(query: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = query[..2].to_vec();
    let records = input.below(4);
    bytes.extend([
        0x81,
        0x80 | [0, 0, 0, 2, 3, 5][usize::from(input.below(6))],
        0,
        1,
        0,
        records,
        0,
        input.below(2),
        0,
        0,
    ]);
    bytes.extend(&query[12..]);
    for _ in 0..=records {
        // The question's name, by a pointer that leads there or somewhere else.
        let pointer = if input.below(4) == 0 { input.u8() } else { 12 };
        bytes.extend([0xc0, pointer, 0, [1, 5, 28, 6][usize::from(input.below(4))], 0, 1]);
        bytes.extend((input.u16() as u32).to_be_bytes());
        let data = match input.below(4) {
            0 => vec![10, 0, 0, input.u8()],
            1 => [&[0xfd; 15][..], &[input.u8()]].concat(),
            2 => vec![1, b'a' + input.below(4), 0xc0, input.below(64)],
            _ => {
                let len = usize::from(input.below(40));
                input.bytes(len).to_vec()
            }
        };
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    damage(&mut bytes, input);
    bytes
}

/// A few bytes otherwise, or fewer of them.
fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..input.below(4) {
        let at = usize::from(input.u16()) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = input.u8();
        }
    }
    if input.below(8) == 7 {
        bytes.truncate(usize::from(input.u8()));
    }
}

/// A message as a connection brings it: in pieces, and with a length that may say something else.
fn over_stream(message: &[u8], input: &mut Input<'_>) -> StreamAnswer {
    let length = if input.below(8) == 7 { input.u16() } else { message.len() as u16 };
    let bytes = [&length.to_be_bytes(), message].concat();
    let (mut answer, mut rest) = (StreamAnswer::default(), &bytes[..]);
    while !rest.is_empty() {
        let (now, then) = rest.split_at((1 + usize::from(input.below(100))).min(rest.len()));
        answer.push(now);
        rest = then;
    }
    let whole = answer.message().map(<[u8]>::len);
    assert_eq!(
        whole,
        (usize::from(length) <= message.len()).then_some(length.into()),
        "the length says how much"
    );
    answer
}

/// The resolver: each question ends once, what is kept is bounded, and only whom we asked is believed.
pub fn dns(bytes: &[u8]) {
    let mut input = Input(bytes);
    let server = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    let config = Config {
        max_queries: MAX_QUERIES,
        max_cached: MAX_CACHED,
        streams: true,
        ..Config::new([server(53), server(54)])
    };
    let mut resolver = Resolver::new(config);
    let mut now = Instant::from_millis(1);
    let mut asked: Vec<QueryId> = Vec::new();
    let mut queries: Vec<Outgoing> = Vec::new();
    let mut streams: Vec<StreamQuery> = Vec::new();
    let mut random = 1u64;
    while !input.is_empty() {
        match input.below(9) {
            0 => {
                let name =
                    ["a.test", "b.a.test", "10.0.0.9", "a..b", "c", "d.test."][usize::from(input.below(6))];
                let family = if input.below(2) == 0 { Family::V4 } else { Family::V6 };
                if let Ok(Lookup::Asked(id)) = resolver.lookup(now, name, family) {
                    assert!(!asked.contains(&id), "identifiers are not used twice");
                    asked.push(id);
                }
            }
            1 => now += Duration::from_millis(u64::from(input.u16())),
            2 => queries.last().into_iter().for_each(|query| resolver.unreachable(query.from_port, query.to)),
            6 => streams.pop().into_iter().for_each(|query| resolver.stream_failed(query.id)),
            7 => {
                if let Some(query) = streams.pop() {
                    let reply = answer(query.bytes(), &mut input);
                    match over_stream(&reply, &mut input).message() {
                        Some(message) => resolver.receive_stream(now, query.id, message),
                        None => resolver.stream_failed(query.id),
                    }
                }
            }
            8 => {
                if let Some(id) = asked.pop() {
                    resolver.cancel(id);
                }
            }
            kind => {
                let Some(query) = queries.get(usize::from(input.u8()) % queries.len().max(1)) else {
                    continue;
                };
                let (mut from, mut port) = (query.to, query.from_port);
                if kind == 5 {
                    from = SocketAddr::new(from.ip(), if input.below(2) == 0 { 53 } else { 54 });
                    port ^= u16::from(input.below(2));
                }
                let reply = answer(query.bytes(), &mut input);
                resolver.receive(now, from, port, &reply);
            }
        }
        loop {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match resolver.poll(now, random >> 16) {
                None => break,
                Some(Event::Send(query)) => {
                    assert!(query.from_port > 0 && query.bytes().len() > 12);
                    queries.push(*query);
                    let old = queries.len().saturating_sub(8);
                    queries.drain(..old);
                }
                Some(Event::Stream(query)) => {
                    streams.push(*query);
                    let old = streams.len().saturating_sub(8);
                    streams.drain(..old);
                }
                Some(Event::Hangup(id)) => streams.retain(|query| query.id != id),
                Some(Event::Unbind(port)) => queries.retain(|query| query.from_port != port),
                Some(Event::Done { id, result }) => {
                    let place =
                        asked.iter().position(|&other| other == id).expect("it was asked, and has not ended");
                    asked.swap_remove(place);
                    assert!(
                        result.is_ok_and(|found| (1..=MAX_ADDRESSES).contains(&found.len()))
                            || asked.len() < 64
                    );
                }
            }
        }
        assert!(
            resolver.queries() <= usize::from(MAX_QUERIES) && resolver.cached() <= usize::from(MAX_CACHED)
        );
        assert_eq!(resolver.queries(), asked.len(), "each question is on its way or has ended");
        assert!(resolver.next_deadline().is_none_or(|at| at > now), "a deadline lies in the past");
    }
}

/// The DHCP client: it has an address exactly between its news of one and of its loss, and one that a host can have.
pub fn dhcp(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mac = [2, 0, 0, 0, 0, 7];
    let remembered = (input.below(2) == 1).then_some(Ipv4Addr::new(10, 0, 0, 50));
    let mut client =
        Client::new(exos_dhcp::Config { mac: MacAddress(mac), host_name: "guest".into(), remembered });
    let mut now = Instant::from_millis(1_000);
    let (mut random, mut transaction, mut has_address) = (1u32, [0; 4], false);
    while !input.is_empty() {
        match input.below(8) {
            0 => now += Duration::from_millis(u64::from(input.u16())),
            1 => now += Duration::from_secs(u64::from(input.u16())),
            2 if input.below(4) == 0 => client.decline(now),
            3 if input.below(4) == 0 => client.release(now),
            _ => {
                let mut reply = vec![0; 240];
                reply[..4].copy_from_slice(&[2, 1, 6, 0]);
                reply[4..8].copy_from_slice(&transaction);
                reply[16..20].copy_from_slice(&[10, 0, 0, 50 + input.below(3)]);
                reply[28..34].copy_from_slice(&mac);
                reply[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
                reply.extend([
                    53,
                    1,
                    [2, 5, 5, 6][usize::from(input.below(4))],
                    54,
                    4,
                    10,
                    0,
                    0,
                    1 + input.below(2),
                ]);
                for _ in 0..input.below(6) {
                    let kind = [1, 3, 6, 15, 26, 51, 58, 59, 121, 52][usize::from(input.below(10))];
                    let len = [4, 4, 2, 8, 9, 0, 5, 12][usize::from(input.below(8))];
                    reply.extend([kind, len]);
                    let data = input.bytes(usize::from(len));
                    reply.extend(data);
                    reply.resize(reply.len() + usize::from(len) - data.len(), 0);
                }
                reply.push(0xff);
                damage(&mut reply, &mut input);
                client.receive(now, &reply);
            }
        }
        let mut events = 0;
        loop {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match client.poll(now, random) {
                None => break,
                Some(ClientEvent::Send(message)) => {
                    assert!(message.bytes().len() >= 240, "a message is whole");
                    transaction.copy_from_slice(&message.bytes()[4..8]);
                }
                Some(ClientEvent::Leased(lease)) => {
                    assert!(
                        !lease.address.is_unspecified()
                            && !lease.address.is_broadcast()
                            && lease.prefix_len <= 32
                    );
                    assert!(
                        lease.routes.len() <= exos_dhcp::MAX_ROUTES && lease.mtu.is_none_or(|mtu| mtu >= 576)
                    );
                    has_address = true;
                }
                Some(ClientEvent::Lost) => {
                    assert!(has_address, "lost what it had not");
                    has_address = false;
                }
            }
            events += 1;
            assert!(events < 16, "it has something to do without end");
        }
        assert_eq!(client.lease().is_some(), has_address, "the lease is what was told");
        assert!(client.next_deadline().is_none_or(|at| at > now), "a deadline lies in the past");
    }
}
