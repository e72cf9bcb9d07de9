//! Packets of each layer: made field by field, then a few bytes otherwise, or cut or longer, and the checksum repaired or not.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::layers::ENDS;

/// The Internet checksum (RFC 1071), begun with `sum`.
fn checksum(bytes: &[u8], mut sum: u32) -> [u8; 2] {
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Puts the checksum over `bytes` at `at`, where there is room.
pub(crate) fn seal(bytes: &mut [u8], covered: usize, at: usize, sum: u32) {
    if at + 2 <= bytes.len() {
        bytes[at..at + 2].fill(0);
        let sum = checksum(&bytes[..covered.min(bytes.len())], sum);
        bytes[at..at + 2].copy_from_slice(&sum);
    }
}

fn pseudo(protocol: u8, len: usize) -> u32 {
    let words = [ENDS.0.octets(), ENDS.1.octets()].concat();
    let sum: u32 = words.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    sum + u32::from(protocol) + len as u32
}

/// What is changed afterwards.
pub(crate) fn damaged(
    packets: impl Strategy<Value = Vec<u8>> + 'static,
    seal: fn(&mut Vec<u8>),
) -> BoxedStrategy<Vec<u8>> {
    // The beginning is where the fields are.
    let place = prop_oneof![3 => 0usize..40, 1 => 0usize..2_000];
    let changes = prop_oneof![2 => Just(Vec::new()), 3 => vec((place, any::<u8>()), 1..4)];
    let len = prop_oneof![6 => Just(None), 1 => (0usize..100).prop_map(Some), 1 => (0usize..100).prop_map(|more| Some(1_000 + more))];
    (packets, changes, len, 0u8..8)
        .prop_map(move |(mut bytes, changes, len, sealed)| {
            seal(&mut bytes);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            match len {
                Some(len @ 1_000..) => bytes.resize(bytes.len() + len - 1_000, 0x5a),
                Some(len) => bytes.truncate(len),
                None => {}
            }
            if sealed > 0 {
                seal(&mut bytes);
            }
            bytes
        })
        .boxed()
}

pub(crate) fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..60)
}

pub(crate) fn ethernet() -> BoxedStrategy<Vec<u8>> {
    let kind = prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x86dd), Just(0x8100), any::<u16>()];
    let frames = (any::<[u8; 12]>(), kind, payload())
        .prop_map(|(addresses, kind, payload)| [&addresses[..], &kind.to_be_bytes(), &payload].concat());
    damaged(frames, |_| {})
}

pub(crate) fn arp() -> BoxedStrategy<Vec<u8>> {
    let operation = prop_oneof![8 => 1u8..3, 1 => any::<u8>()];
    let sender = prop_oneof![6 => any::<[u8; 6]>().prop_map(|mac| [mac[0] & !1, mac[1], mac[2], mac[3], mac[4], 1]), 1 => Just([0; 6]), 1 => any::<[u8; 6]>()];
    let packets =
        (operation, sender, any::<[u8; 14]>(), payload()).prop_map(|(operation, sender, rest, padding)| {
            [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sender, &rest, &padding].concat()
        });
    damaged(packets, |_| {})
}

/// IPv4 options: any bytes, well-formed ones, source routes among them.
fn ip_options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(vec![1]),
        Just(vec![0]),
        (
            prop_oneof![Just(7u8), Just(68), Just(131), Just(137), Just(148), any::<u8>()],
            vec(any::<u8>(), 0..8)
        )
            .prop_map(|(kind, content)| [&[kind, 2 + content.len() as u8][..], &content].concat()),
        vec(any::<u8>(), 0..4),
    ];
    vec(option, 0..4).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    })
}

pub(crate) fn ipv4() -> BoxedStrategy<Vec<u8>> {
    let options = prop_oneof![2 => Just(Vec::new()), 1 => ip_options()];
    let protocol = prop_oneof![3 => Just(6u8), 2 => Just(17), 2 => Just(1), 1 => Just(51), 1 => any::<u8>()];
    let place = prop_oneof![5 => Just(0x4000u16), 1 => Just(0), 1 => any::<u16>()];
    let fields = (any::<u8>(), any::<u16>(), place, any::<u8>(), protocol, any::<[u8; 8]>());
    let packets = (fields, options, payload(), payload()).prop_map(
        |((tos, identification, place, ttl, protocol, ends), options, payload, padding)| {
            let len = (20 + options.len() + payload.len()) as u16;
            let mut bytes = vec![0x45 + (options.len() / 4) as u8, tos];
            bytes.extend(len.to_be_bytes());
            bytes.extend(identification.to_be_bytes());
            bytes.extend(place.to_be_bytes());
            bytes.extend([ttl, protocol, 0, 0]);
            bytes.extend(ends);
            [bytes, options, payload, if ttl % 4 == 0 { padding } else { Vec::new() }].concat()
        },
    );
    damaged(packets, |bytes| {
        let header_len = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
        seal(bytes, header_len, 10, 0);
    })
}

/// TCP options: those that there are, unknown ones, wrong lengths, any bytes.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let known = (
        prop_oneof![
            Just((2u8, 2usize)),
            Just((3, 1)),
            Just((4, 0)),
            Just((8, 8)),
            Just((5, 8)),
            Just((5, 16)),
            Just((5, 24))
        ],
        any::<[u8; 24]>(),
    )
        .prop_map(|((kind, len), content)| [&[kind, 2 + len as u8][..], &content[..len]].concat());
    let shift = (0u8..20).prop_map(|shift| vec![3, 3, shift]);
    let any_length = (0u8..32, vec(any::<u8>(), 0..10))
        .prop_map(|(kind, content)| [&[kind, 2 + content.len() as u8][..], &content].concat());
    let option = prop_oneof![3 => Just(vec![1]), 6 => known, 1 => shift, 1 => any_length, 1 => Just(vec![5, 2]), 1 => vec(any::<u8>(), 0..4), 1 => Just(vec![0])];
    vec(option, 0..6).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        bytes
    })
}

pub(crate) fn tcp_options() -> BoxedStrategy<Vec<u8>> {
    let first = prop_oneof![9 => Just(0u8), 1 => Just(255)];
    (first, options()).prop_map(|(first, options)| [vec![first], options].concat()).boxed()
}

pub(crate) fn tcp() -> BoxedStrategy<Vec<u8>> {
    let flags = prop_oneof![
        Just(0x02u8),
        Just(0x12),
        Just(0x10),
        Just(0x18),
        Just(0x11),
        Just(0x04),
        Just(0x30),
        any::<u8>()
    ];
    let packets = (any::<[u8; 12]>(), flags, any::<[u8; 6]>(), options(), payload()).prop_map(
        |(numbers, flags, rest, mut options, payload)| {
            options.resize(options.len().next_multiple_of(4), 0);
            let offset = ((5 + options.len() / 4) as u8) << 4;
            [&numbers[..], &[offset, flags], &rest, &options, &payload].concat()
        },
    );
    damaged(packets, |bytes| {
        let len = bytes.len();
        seal(bytes, len, 16, pseudo(6, len));
    })
}

pub(crate) fn udp() -> BoxedStrategy<Vec<u8>> {
    let port = || prop_oneof![8 => any::<u16>(), 1 => Just(0)];
    let packets =
        (port(), port(), payload(), payload(), any::<u8>()).prop_map(|(from, to, payload, padding, bits)| {
            let len = if bits & 15 == 0 { 0 } else { 8 + payload.len() as u16 };
            let mut bytes = [from, to, len, u16::from(bits & 0x30 != 0)].map(u16::to_be_bytes).concat();
            bytes.extend(payload);
            bytes.extend(if bits & 0xc0 == 0 { padding } else { Vec::new() });
            bytes
        });
    damaged(packets, |bytes| {
        // Without a checksum it stays without one.
        if bytes.len() >= 8 && bytes[6..8] != [0, 0] {
            let len = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            seal(bytes, len, 6, pseudo(17, len));
        }
    })
}

pub(crate) fn icmp() -> BoxedStrategy<Vec<u8>> {
    let kind = prop_oneof![3 => Just((8u8, 0u8)), 3 => Just((3, 4)), 3 => (0u8..14).prop_map(|code| (3, code)), 1 => Just((11, 0)), 1 => Just((12, 0)), 2 => (0u8..20, 0u8..4), 1 => any::<(u8, u8)>()];
    let packets = (kind, any::<[u8; 4]>(), any::<bool>(), ipv4(), payload()).prop_map(
        |((kind, code), rest, quotes, quote, data)| {
            [&[kind, code, 0, 0][..], &rest, if quotes || kind != 8 { &quote } else { &data }].concat()
        },
    );
    damaged(packets, |bytes| {
        let len = bytes.len();
        seal(bytes, len, 2, 0);
    })
}
