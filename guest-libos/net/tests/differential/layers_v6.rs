//! IPv6 and what belongs to it, as [`crate::layers`] has IPv4.

use std::net::Ipv6Addr;

use etherparse::{Icmpv6Slice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice};
use exos_net::wire::icmp::Quoted;
use exos_net::wire::icmpv6::Icmpv6Message;
use exos_net::wire::ipv6::{Ipv6Header, NextHeader, Packet};
use exos_net::wire::ipv6_extensions::{MAX_HEADERS, Walk, walk};

use crate::layers::{Layer, error, refused, sum, text, u16_at};
use crate::{Reading, packets_v6};

/// The ends of the datagrams whose payload is read alone.
pub(crate) const ENDS: (Ipv6Addr, Ipv6Addr) =
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

pub(crate) const IPV6: Layer = Layer {
    name: "ipv6",
    packets: packets_v6::ipv6,
    ours: |bytes| {
        let packet = Packet::parse(bytes).map_err(error)?;
        Ok(vec![
            ("ends", text((packet.source, packet.destination))),
            ("next header", text(packet.next_header)),
            ("hop limit", text(packet.hop_limit)),
            ("congestion", text(packet.ecn() as u8)),
            ("payload", text(packet.payload)),
        ])
    },
    theirs: |bytes| {
        let header = Ipv6HeaderSlice::from_slice(bytes).map_err(error)?;
        let payload = &bytes[header.slice().len()..];
        let payload = payload.get(..usize::from(header.payload_length())).ok_or("cut short")?;
        Ok(vec![
            ("ends", text((header.source_addr(), header.destination_addr()))),
            ("next header", text(header.next_header().0)),
            ("hop limit", text(header.hop_limit())),
            ("congestion", text(header.traffic_class() & 3)),
            ("payload", text(payload)),
        ])
    },
    differences: &[("group as source", |bytes, ours, theirs| {
        refused(ours, theirs, "Malformed") && bytes[8] == 0xff
    })],
};

/// The extension headers of a packet as etherparse cuts them: each with its kind, up to a fragment's or the last.
struct Chain<'a> {
    headers: Vec<(u8, &'a [u8])>,
    upper: u8,
    rest: &'a [u8],
}

fn chain(bytes: &[u8]) -> Result<Chain<'_>, String> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(error)?;
    let rest = &bytes[header.slice().len()..];
    let mut rest = rest.get(..usize::from(header.payload_length())).ok_or("cut short")?;
    let (mut headers, mut upper) = (Vec::new(), header.next_header().0);
    loop {
        let (slice, next) = match upper {
            HOP_BY_HOP if !headers.is_empty() => return Err("options for every hop, not at the start".into()),
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(error)?;
                (header.slice(), header.next_header().0)
            }
            FRAGMENT => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(error)?;
                (header.slice(), header.next_header().0)
            }
            _ => return Ok(Chain { headers, upper, rest }),
        };
        headers.push((upper, slice));
        let fragments = upper == FRAGMENT
            && Ipv6FragmentHeaderSlice::from_slice(slice).is_ok_and(|header| header.is_fragmenting_payload());
        rest = &rest[slice.len()..];
        if fragments {
            return Ok(Chain { headers, upper, rest });
        }
        upper = next;
    }
}

/// Whether options are but padding, few, and end where their header does.
fn is_padding(header: &[u8]) -> bool {
    let (mut options, mut count) = (&header[2..], 0);
    while let [kind, rest @ ..] = options {
        count += 1;
        options = match (kind, rest) {
            (0, rest) => rest,
            (1, [len, rest @ ..]) if rest.len() >= usize::from(*len) => &rest[usize::from(*len)..],
            _ => return false,
        };
    }
    count <= 16
}

pub(crate) const EXTENSIONS: Layer = Layer {
    name: "ipv6 extensions",
    packets: packets_v6::extensions,
    ours: |bytes| {
        let packet = Packet::parse(bytes).map_err(error)?;
        Ok(match walk(&packet).map_err(error)? {
            Walk::Upper(number, upper) => {
                vec![("carries", text(number)), ("fragment", text(())), ("bytes", text(upper))]
            }
            Walk::Fragment(part) => {
                let place = (part.next_header, part.identification, part.offset, part.more);
                vec![("carries", text(FRAGMENT)), ("fragment", text(place)), ("bytes", text(part.payload))]
            }
        })
    },
    theirs: |bytes| {
        let Chain { headers, upper, rest } = chain(bytes)?;
        let last = headers.last().filter(|_| upper == FRAGMENT);
        let fragment = last.and_then(|(_, slice)| Ipv6FragmentHeaderSlice::from_slice(slice).ok());
        let place = fragment.map(|header| {
            let offset = usize::from(header.fragment_offset().value()) * 8;
            text((header.next_header().0, header.identification(), offset, header.more_fragments()))
        });
        let place = place.unwrap_or_else(|| text(()));
        Ok(vec![("carries", text(upper)), ("fragment", place), ("bytes", text(rest))])
    },
    differences: &[
        ("group as source", |bytes, ours, theirs| refused(ours, theirs, "Malformed") && bytes[8] == 0xff),
        ("source route", |bytes, ours, theirs| {
            let routed = |(kind, slice): &(u8, &[u8])| *kind == ROUTING && slice[3] > 0;
            has(bytes, ours, theirs, |chain| chain.headers.iter().any(routed))
        }),
        ("options", |bytes, ours, theirs| {
            let optional = |(kind, slice): &(u8, &[u8])| {
                matches!(*kind, HOP_BY_HOP | DESTINATION_OPTIONS) && !is_padding(slice)
            };
            has(bytes, ours, theirs, |chain| chain.headers.iter().any(optional))
        }),
        ("too many headers", |bytes, ours, theirs| {
            refused(ours, theirs, "Malformed")
                && has(bytes, ours, theirs, |chain| chain.headers.len() > MAX_HEADERS)
        }),
    ],
};

/// We refuse and they do not, and `reason` is in the chain.
fn has(bytes: &[u8], ours: &Reading, theirs: &Reading, reason: impl Fn(&Chain<'_>) -> bool) -> bool {
    ours.is_err() && theirs.is_ok() && chain(bytes).is_ok_and(|chain| reason(&chain))
}

fn ip() -> Ipv6Header {
    Ipv6Header { source: ENDS.0, destination: ENDS.1, next_header: NextHeader::Icmpv6, hop_limit: 64 }
}

/// A quoted packet's addresses, protocol, ports and the four bytes behind them, as etherparse reads its header.
fn their_quote(bytes: &[u8]) -> Result<String, String> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(error)?;
    let rest = bytes.get(header.slice().len()..).filter(|rest| rest.len() >= 8).ok_or("no ports")?;
    let sequence = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
    let ends = (header.source_addr(), header.destination_addr(), header.next_header().0);
    Ok(text((ends, u16_at(rest, 0), u16_at(rest, 2), sequence)))
}

pub(crate) const ICMPV6: Layer = Layer {
    name: "icmpv6",
    packets: packets_v6::icmpv6,
    ours: |bytes| {
        let quote = |quoted: Quoted| {
            let protocol = match quoted.protocol.to_wire() {
                1 => 58,
                other => other,
            };
            let ends = (quoted.source, quoted.destination, protocol);
            text((ends, quoted.source_port, quoted.destination_port, quoted.sequence.value()))
        };
        Ok(match Icmpv6Message::parse(&ip(), bytes).map_err(error)? {
            Icmpv6Message::EchoRequest { id_and_sequence, data } => {
                vec![("kind", text("echo")), ("numbers", text(id_and_sequence)), ("data", text(data))]
            }
            Icmpv6Message::PacketTooBig { mtu, quoted } => {
                vec![("kind", text("too large")), ("numbers", text(mtu)), ("data", quote(quoted))]
            }
            Icmpv6Message::Problem { quoted, .. } => vec![("kind", text("error")), ("data", quote(quoted))],
        })
    },
    theirs: |bytes| {
        let slice = Icmpv6Slice::from_slice(bytes).map_err(error)?;
        let (numbers, payload) = (u32::from_be_bytes(slice.bytes5to8()), slice.payload());
        let quote = || their_quote(payload).unwrap_or_default();
        Ok(match (slice.type_u8(), slice.code_u8()) {
            (128, 0) => vec![("kind", text("echo")), ("numbers", text(numbers)), ("data", text(payload))],
            (2, _) => vec![("kind", text("too large")), ("numbers", text(numbers)), ("data", quote())],
            _ => vec![("kind", text("error")), ("data", quote())],
        })
    },
    differences: &[
        ("wrong checksum", |bytes, ours, theirs| {
            let right = Icmpv6Slice::from_slice(bytes)
                .is_ok_and(|slice| slice.is_checksum_valid(ENDS.0.octets(), ENDS.1.octets()));
            refused(ours, theirs, "Checksum") && !right && pseudo(bytes) != 0xffff
        }),
        ("other message", |bytes, ours, theirs| {
            let handled =
                matches!((bytes[0], bytes[1]), (128, 0) | (1, 0..=6) | (2, _) | (3, 0 | 1) | (4, _));
            refused(ours, theirs, "Unsupported") && !handled
        }),
        ("quote too short", |bytes, ours, theirs| {
            refused(ours, theirs, "Malformed") && bytes[0] != 128 && their_quote(&bytes[8..]).is_err()
        }),
        ("quote of something else", |bytes, ours, theirs| {
            refused(ours, theirs, "Unsupported")
                && Ipv6HeaderSlice::from_slice(&bytes[8..])
                    .is_ok_and(|header| !matches!(header.next_header().0, 6 | 17 | 58))
        }),
    ],
};

/// The sum of a message and its pseudo-header (RFC 8200 8.1).
fn pseudo(bytes: &[u8]) -> u32 {
    let len = (bytes.len() as u32).to_be_bytes();
    sum(&[&ENDS.0.octets()[..], &ENDS.1.octets(), &len, &[0, 0, 0, 58], bytes].concat())
}
