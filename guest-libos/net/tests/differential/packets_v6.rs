//! Packets of IPv6, as [`crate::packets`] has those of IPv4.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::layers_v6::ENDS;
use crate::packets::{damaged, payload, seal};

fn packet(next_header: u8, hop_limit: u8, ends: [u8; 32], payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    let head = [0x60, hop_limit << 4, 0, 0, len[0], len[1], next_header, hop_limit];
    [&head[..], &ends, payload].concat()
}

fn ends() -> impl Strategy<Value = [u8; 32]> {
    let first = prop_oneof![8 => Just(0x20u8), 1 => Just(0xff)];
    (first, any::<[u8; 32]>()).prop_map(|(first, mut ends)| {
        ends[0] = first;
        ends
    })
}

pub(crate) fn ipv6() -> BoxedStrategy<Vec<u8>> {
    let packets = (any::<u8>(), any::<u8>(), ends(), payload(), payload()).prop_map(
        |(next_header, hop_limit, ends, payload, padding)| {
            let padding = if hop_limit % 4 == 0 { padding } else { Vec::new() };
            [packet(next_header, hop_limit, ends, &payload), padding].concat()
        },
    );
    damaged(packets, |_| {})
}

/// The options of a header, padded to its end: padding, or any.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        4 => Just(vec![0u8]),
        4 => (0usize..6).prop_map(|len| [vec![1, len as u8], vec![0; len]].concat()),
        1 => (any::<u8>(), vec(any::<u8>(), 0..6)).prop_map(|(kind, content)| [&[kind, content.len() as u8][..], &content].concat()),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(option, 0..4).prop_map(|options| {
        let mut bytes = options.concat();
        match (bytes.len() + 2).next_multiple_of(8) - 2 - bytes.len() {
            0 => {}
            1 => bytes.push(0),
            rest => bytes.extend([&[1, rest as u8 - 2][..], &vec![0; rest - 2]].concat()),
        }
        bytes
    })
}

/// A header's kind and what follows its next header's number.
fn header() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let optional =
        options().prop_map(|options| [vec![((options.len() + 2) / 8 - 1) as u8], options].concat());
    let routing = prop_oneof![4 => Just(0u8), 1 => any::<u8>()].prop_map(|left| vec![0, 2, left, 0, 0, 0, 0]);
    let place = prop_oneof![3 => Just(0u16), 1 => any::<u16>()];
    let fragment =
        (place, any::<[u8; 4]>()).prop_map(|(place, id)| [&[0][..], &place.to_be_bytes(), &id].concat());
    prop_oneof![
        4 => optional.prop_map(|rest| (60u8, rest)),
        2 => routing.prop_map(|rest| (43, rest)),
        1 => fragment.prop_map(|rest| (44, rest)),
    ]
}

pub(crate) fn extensions() -> BoxedStrategy<Vec<u8>> {
    let upper = prop_oneof![Just(6u8), Just(17), Just(58), Just(59), any::<u8>()];
    let every_hop = proptest::option::weighted(0.3, options());
    let count = prop_oneof![8 => 0usize..5, 1 => 7usize..11];
    let headers = count.prop_flat_map(|count| vec(header(), count..=count));
    let packets = (upper, every_hop, headers, ends(), any::<u8>(), payload()).prop_map(
        |(upper, every_hop, headers, ends, hop_limit, payload)| {
            let first =
                every_hop.map(|options| (0u8, [vec![((options.len() + 2) / 8 - 1) as u8], options].concat()));
            let headers: Vec<_> = first.into_iter().chain(headers).collect();
            let kinds = headers.iter().map(|(kind, _)| *kind).chain([upper]);
            let named: Vec<u8> = kinds.collect();
            let chain =
                headers.iter().zip(&named[1..]).flat_map(|((_, rest), next)| [&[*next][..], rest].concat());
            let chain: Vec<u8> = chain.chain(payload).collect();
            packet(named[0], hop_limit, ends, &chain)
        },
    );
    damaged(packets, |_| {})
}

pub(crate) fn icmpv6() -> BoxedStrategy<Vec<u8>> {
    let kind = prop_oneof![3 => Just((128u8, 0u8)), 3 => Just((2, 0)), 3 => (0u8..8).prop_map(|code| (1, code)), 1 => (0u8..3).prop_map(|code| (3, code)), 1 => (0u8..4).prop_map(|code| (4, code)), 1 => (125u8..140, 0u8..2), 1 => any::<(u8, u8)>()];
    let quoted = prop_oneof![Just(6u8), Just(17), Just(58), any::<u8>()];
    let packets = (kind, any::<[u8; 4]>(), any::<bool>(), (quoted, ends(), payload()), payload()).prop_map(
        |((kind, code), rest, quotes, (next_header, ends, quote), data)| {
            let quote = packet(next_header, 64, ends, &quote);
            [&[kind, code, 0, 0][..], &rest, if quotes || kind != 128 { &quote } else { &data }].concat()
        },
    );
    damaged(packets, |bytes| {
        let len = bytes.len();
        let words = [ENDS.0.octets(), ENDS.1.octets()].concat();
        let sum: u32 = words.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        seal(bytes, len, 2, sum + 58 + len as u32);
    })
}
