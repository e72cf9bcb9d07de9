//! Each layer as either side reads it, in the same words, and the differences that there may be.

use std::net::Ipv4Addr;

use etherparse::{
    ArpPacketSlice, EtherType, Ethernet2Slice, Icmpv4Slice, Icmpv4Type, Ipv4HeaderSlice, Ipv4Slice,
    TcpOptionElement, TcpOptionsIterator, TcpSlice, UdpSlice, icmpv4::DestUnreachableHeader,
};
use exos_net::wire::arp::{ArpPacket, Operation};
use exos_net::wire::ethernet::EthernetHeader;
use exos_net::wire::icmp::IcmpMessage;
use exos_net::wire::ipv4::{Ipv4Fragment, Ipv4Header, Protocol, Verify};
use exos_net::wire::tcp::{Control, Segment};
use exos_net::wire::tcp_options::{SackBlocks, SynOptions};
use exos_net::wire::udp::UdpDatagram;
use proptest::strategy::BoxedStrategy;

use crate::{Reading, packets};

type Applies = fn(&[u8], &Reading, &Reading) -> bool;

pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) packets: fn() -> BoxedStrategy<Vec<u8>>,
    pub(crate) ours: fn(&[u8]) -> Reading,
    pub(crate) theirs: fn(&[u8]) -> Reading,
    /// Names, and when each applies.
    pub(crate) differences: &'static [(&'static str, Applies)],
}

/// The ends of the datagrams whose payload is read alone.
pub(crate) const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));

pub(crate) fn ip(protocol: Protocol) -> Ipv4Header {
    Ipv4Header { source: ENDS.0, destination: ENDS.1, protocol }
}

pub(crate) fn text(value: impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

pub(crate) fn error(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// We refuse for this reason, and they do not.
pub(crate) fn refused(ours: &Reading, theirs: &Reading, reason: &str) -> bool {
    ours.as_ref().is_err_and(|error| error == reason) && theirs.is_ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The sum of some 16-bit words in ones' complement (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    words.fold(0, |sum, word| ((sum + word) & 0xffff) + ((sum + word) >> 16))
}

pub(crate) const ETHERNET: Layer = Layer {
    name: "ethernet",
    packets: packets::ethernet,
    ours: |bytes| {
        let (header, payload) = EthernetHeader::parse(bytes).map_err(error)?;
        let kind = match header.ether_type {
            exos_net::wire::ethernet::EtherType::Ipv4 => EtherType::IPV4,
            exos_net::wire::ethernet::EtherType::Arp => EtherType::ARP,
            exos_net::wire::ethernet::EtherType::Ipv6 => EtherType::IPV6,
        };
        let (to, from) = (text(header.destination.0), text(header.source.0));
        Ok(vec![("to", to), ("from", from), ("type", text(kind)), ("payload", text(payload))])
    },
    theirs: |bytes| {
        let slice = Ethernet2Slice::from_slice_without_fcs(bytes).map_err(error)?;
        let (to, from) = (text(slice.destination()), text(slice.source()));
        let payload = text(slice.payload_slice());
        Ok(vec![("to", to), ("from", from), ("type", text(slice.ether_type())), ("payload", payload)])
    },
    differences: &[("other protocol", |bytes, ours, theirs| {
        refused(ours, theirs, "Unsupported") && !matches!(u16_at(bytes, 12), 0x0800 | 0x0806 | 0x86dd)
    })],
};

pub(crate) const ARP: Layer = Layer {
    name: "arp",
    packets: packets::arp,
    ours: |bytes| {
        let packet = ArpPacket::parse(bytes).map_err(error)?;
        Ok(vec![
            ("operation", text(if packet.operation == Operation::Request { 1 } else { 2 })),
            ("sender", text((packet.sender_mac.0, packet.sender_ip))),
            ("target", text((packet.target_mac.0, packet.target_ip))),
        ])
    },
    theirs: |bytes| {
        let slice = ArpPacketSlice::from_slice(bytes).map_err(error)?;
        let packet = slice.to_packet();
        let ends = packet.try_eth_ipv4().map(|packet| {
            let sender = (packet.sender_mac, packet.sender_ipv4_addr());
            (text(sender), text((packet.target_mac, packet.target_ipv4_addr())))
        });
        let (sender, target) = ends.unwrap_or_default();
        Ok(vec![("operation", text(packet.operation.0)), ("sender", sender), ("target", target)])
    },
    differences: &[
        ("other hardware or protocol", |bytes, ours, _| {
            ours.is_err() && bytes.get(..6).is_some_and(|kinds| kinds != [0, 1, 8, 0, 6, 4])
        }),
        ("other operation", |bytes, ours, theirs| {
            refused(ours, theirs, "Unsupported") && !matches!(u16_at(bytes, 6), 1 | 2)
        }),
        ("sender is nobody", |bytes, ours, theirs| {
            refused(ours, theirs, "Malformed") && (bytes[8] & 1 == 1 || bytes[8..14] == [0; 6])
        }),
    ],
};

/// A whole datagram as either side reads it, or a piece of one.
pub(crate) const IPV4: Layer = Layer {
    name: "ipv4",
    packets: packets::ipv4,
    ours: |bytes| {
        let (header, payload) = Ipv4Header::parse(bytes, Verify::Here).map_err(error)?;
        let ends = text((header.source, header.destination));
        Ok(vec![("ends", ends), ("protocol", text(header.protocol.to_wire())), ("payload", text(payload))])
    },
    theirs: |bytes| {
        let slice = Ipv4Slice::from_slice(bytes).map_err(error)?;
        let header = slice.header();
        let ends = text((header.source_addr(), header.destination_addr()));
        let payload = text(slice.payload().payload);
        Ok(vec![("ends", ends), ("protocol", text(slice.payload_ip_number().0)), ("payload", payload)])
    },
    differences: &[
        ("wrong header checksum", |bytes, ours, theirs| {
            let header = Ipv4HeaderSlice::from_slice(bytes);
            refused(ours, theirs, "Checksum") && header.is_ok_and(|header| sum(header.slice()) != 0xffff)
        }),
        ("source route", |bytes, ours, theirs| {
            let header = Ipv4HeaderSlice::from_slice(bytes);
            let routed =
                header.is_ok_and(|header| header.options().iter().any(|byte| matches!(byte, 131 | 137)));
            refused(ours, theirs, "Unsupported") && routed
        }),
        ("fragment", |bytes, ours, theirs| refused(ours, theirs, "Fragment") && same_fragment(bytes)),
        ("other protocol", |bytes, ours, theirs| {
            // A header of theirs lies between (51), or nobody's: both go no further.
            refused(ours, theirs, "Unsupported") && !matches!(bytes[9], 1 | 6 | 17)
        }),
    ],
};

/// Whether both sides read the same of a fragment.
fn same_fragment(bytes: &[u8]) -> bool {
    let (Ok(ours), Ok(theirs)) = (Ipv4Fragment::parse(bytes), Ipv4HeaderSlice::from_slice(bytes)) else {
        return false;
    };
    let len = usize::from(theirs.total_len());
    ours.source == theirs.source_addr()
        && ours.destination == theirs.destination_addr()
        && ours.protocol == theirs.protocol().0
        && ours.identification == theirs.identification()
        && ours.offset == usize::from(theirs.fragments_offset().value()) * 8
        && ours.more == theirs.more_fragments()
        && theirs.is_fragmenting_payload()
        && ours.packet == &bytes[..len]
        && ours.payload == &bytes[theirs.slice().len()..len]
}

pub(crate) const TCP: Layer = Layer {
    name: "tcp",
    packets: packets::tcp,
    ours: |bytes| {
        let segment = Segment::parse(bytes, Some(&ip(Protocol::Tcp))).map_err(error)?;
        Ok(vec![
            ("ports", text((segment.source_port, segment.destination_port))),
            ("sequence", text(segment.sequence.value())),
            ("acknowledgment", text(segment.acknowledgment.map(|ack| ack.value()))),
            ("control", text(segment.control)),
            ("urgent", text(segment.urgent)),
            ("window", text(segment.window)),
            ("options", text(segment.options)),
            ("payload", text(segment.payload)),
        ])
    },
    theirs: |bytes| {
        let slice = TcpSlice::from_slice(bytes).map_err(error)?;
        let control = match (slice.syn(), slice.rst(), slice.fin()) {
            (true, ..) => Control::Syn,
            (_, true, _) => Control::Rst,
            (.., true) => Control::Fin,
            _ => Control::None,
        };
        Ok(vec![
            ("ports", text((slice.source_port(), slice.destination_port()))),
            ("sequence", text(slice.sequence_number())),
            ("acknowledgment", text(slice.ack().then(|| slice.acknowledgment_number()))),
            ("control", text(control)),
            ("urgent", text(slice.urg().then(|| slice.urgent_pointer()))),
            ("window", text(slice.window_size())),
            ("options", text(slice.options())),
            ("payload", text(slice.payload())),
        ])
    },
    differences: &[
        ("wrong checksum", |bytes, ours, theirs| {
            let right = TcpSlice::from_slice(bytes).is_ok_and(|slice| {
                slice.calc_checksum_ipv4(ENDS.0.octets(), ENDS.1.octets()) == Ok(slice.checksum())
            });
            refused(ours, theirs, "Checksum") && !right
        }),
        ("SYN with FIN or RST", |bytes, ours, theirs| {
            refused(ours, theirs, "Malformed") && bytes[13] & 2 != 0 && bytes[13] & 5 != 0
        }),
    ],
};

/// What is read of options, whatever segment they are in.
fn options(options: &SynOptions, blocks: Vec<(u32, u32)>) -> Reading {
    Ok(vec![
        ("mss", text(options.mss)),
        ("shift", text(options.window_scale)),
        ("SACK permitted", text(options.sack_permitted)),
        ("timestamps", text(options.timestamps.map(|timestamps| (timestamps.value, timestamps.echo)))),
        ("blocks", text(blocks)),
    ])
}

/// An option as they see it, and the rest; `None` at the end.
fn their_options(
    bytes: &[u8],
) -> impl Iterator<Item = Result<TcpOptionElement, etherparse::TcpOptionReadError>> {
    let mut ended = false;
    TcpOptionsIterator::from_slice(bytes)
        .take_while(move |option| !std::mem::replace(&mut ended, option.is_err()))
}

pub(crate) const TCP_OPTIONS: Layer = Layer {
    name: "tcp options",
    packets: packets::tcp_options,
    ours: |bytes| {
        // Without a first byte of 255, which makes the packet one that nobody reads, so that there is something to refuse.
        let [0, bytes @ ..] = bytes else { return Err("Malformed".into()) };
        let blocks = SackBlocks::parse(bytes);
        let blocks = blocks.as_slice().iter().map(|block| (block.start.value(), block.end.value()));
        options(&SynOptions::parse(bytes), blocks.collect())
    },
    theirs: |bytes| {
        let [0, bytes @ ..] = bytes else { return Err("Malformed".into()) };
        let (mut read, mut blocks) = (SynOptions::default(), Vec::new());
        for option in their_options(bytes).flatten() {
            match option {
                TcpOptionElement::Noop => {}
                TcpOptionElement::MaximumSegmentSize(mss) => read.mss = Some(mss),
                TcpOptionElement::WindowScale(shift) => read.window_scale = Some(shift),
                TcpOptionElement::SelectiveAcknowledgementPermitted => read.sack_permitted = true,
                TcpOptionElement::SelectiveAcknowledgement(first, others) => {
                    blocks = [Some(first)].into_iter().chain(others).flatten().collect();
                }
                TcpOptionElement::Timestamp(value, echo) => {
                    read.timestamps = Some(exos_net::wire::tcp_options::Timestamps { value, echo });
                }
            }
        }
        options(&read, blocks)
    },
    differences: &[
        ("empty blocks", |bytes, _, _| their_end(bytes) == Some([5, 2])),
        ("option of wrong length", |bytes, _, _| {
            their_end(bytes).is_some_and(|[kind, _]| matches!(kind, 2..=5 | 8))
        }),
        ("unknown option", |bytes, _, _| {
            their_end(bytes).is_some_and(|[kind, _]| !matches!(kind, 0..=5 | 8))
        }),
        ("shift beyond 14", |bytes, ours, theirs| {
            let differ = |field| fields(ours, field) != fields(theirs, field);
            let beyond = |option| matches!(option, Ok(TcpOptionElement::WindowScale(15..)));
            differ("shift") && their_options(&bytes[1..]).any(beyond)
        }),
        ("blocks again", |bytes, _, _| {
            let is_sack = |option: &_| matches!(option, Ok(TcpOptionElement::SelectiveAcknowledgement(..)));
            their_options(&bytes[1..]).filter(is_sack).count() > 1
        }),
    ],
};

fn fields<'a>(reading: &'a Reading, name: &str) -> Option<&'a String> {
    reading.as_ref().ok()?.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Kind and length of the option at which they give up, while it is whole.
fn their_end(bytes: &[u8]) -> Option<[u8; 2]> {
    let mut iterator = TcpOptionsIterator::from_slice(bytes.get(1..)?);
    loop {
        let rest = iterator.rest();
        match iterator.next()? {
            Ok(_) => {}
            Err(_) => return Some([*rest.first()?, *rest.get(1)?]),
        }
    }
}

pub(crate) const UDP: Layer = Layer {
    name: "udp",
    packets: packets::udp,
    ours: |bytes| {
        let datagram = UdpDatagram::parse(bytes, Some(&ip(Protocol::Udp))).map_err(error)?;
        let ports = text((datagram.source_port, datagram.destination_port));
        Ok(vec![("ports", ports), ("payload", text(datagram.payload))])
    },
    theirs: |bytes| {
        let slice = UdpSlice::from_slice(bytes).map_err(error)?;
        let ports = text((slice.source_port(), slice.destination_port()));
        Ok(vec![("ports", ports), ("payload", text(slice.payload()))])
    },
    differences: &[
        ("wrong checksum", |bytes, ours, theirs| {
            let right = UdpSlice::from_slice(bytes).is_ok_and(|slice| {
                let header = slice.to_header();
                let sum = header.calc_checksum_ipv4_raw(ENDS.0.octets(), ENDS.1.octets(), slice.payload());
                header.checksum == 0 || sum == Ok(header.checksum)
            });
            refused(ours, theirs, "Checksum") && !right
        }),
        ("length of zero", |bytes, ours, theirs| refused(ours, theirs, "Malformed") && u16_at(bytes, 4) == 0),
        ("port zero", |bytes, ours, theirs| refused(ours, theirs, "Malformed") && u16_at(bytes, 2) == 0),
    ],
};

/// A quoted packet's addresses, protocol, ports and the four bytes behind them, as etherparse reads its header.
fn their_quote(bytes: &[u8]) -> Result<String, String> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(error)?;
    let rest = bytes.get(header.slice().len()..).filter(|rest| rest.len() >= 8).ok_or("no ports")?;
    let sequence = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
    let ends = (header.source_addr(), header.destination_addr(), header.protocol().0);
    Ok(text((ends, u16_at(rest, 0), u16_at(rest, 2), sequence)))
}

pub(crate) const ICMP: Layer = Layer {
    name: "icmp",
    packets: packets::icmp,
    ours: |bytes| {
        let quote = |quoted: exos_net::wire::icmp::Quoted| {
            let ends = (quoted.source, quoted.destination, quoted.protocol.to_wire());
            text((ends, quoted.source_port, quoted.destination_port, quoted.sequence.value()))
        };
        Ok(match IcmpMessage::parse(bytes).map_err(error)? {
            IcmpMessage::EchoRequest { id_and_sequence, data } => {
                vec![("kind", text("echo")), ("numbers", text(id_and_sequence)), ("data", text(data))]
            }
            IcmpMessage::FragmentationNeeded { next_mtu, quoted } => {
                vec![("kind", text("too large")), ("numbers", text(next_mtu)), ("data", quote(quoted))]
            }
            IcmpMessage::Problem { quoted, .. } => vec![("kind", text("error")), ("data", quote(quoted))],
        })
    },
    theirs: |bytes| {
        let slice = Icmpv4Slice::from_slice(bytes).map_err(error)?;
        let quote = || their_quote(slice.payload()).unwrap_or_default();
        Ok(match slice.icmp_type() {
            Icmpv4Type::EchoRequest(echo) => {
                let numbers = u32::from(echo.id) << 16 | u32::from(echo.seq);
                vec![("kind", text("echo")), ("numbers", text(numbers)), ("data", text(slice.payload()))]
            }
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu,
            }) => {
                vec![("kind", text("too large")), ("numbers", text(next_hop_mtu)), ("data", quote())]
            }
            _ => vec![("kind", text("error")), ("data", quote())],
        })
    },
    differences: &[
        ("wrong checksum", |bytes, ours, theirs| refused(ours, theirs, "Checksum") && sum(bytes) != 0xffff),
        ("other message", |bytes, ours, theirs| {
            let handled = matches!((bytes[0], bytes[1]), (8, 0) | (3, 0..=13) | (11, 0..=1) | (12, _));
            refused(ours, theirs, "Unsupported") && !handled
        }),
        ("quote too short", |bytes, ours, theirs| {
            refused(ours, theirs, "Malformed") && bytes[0] != 8 && their_quote(&bytes[8..]).is_err()
        }),
        ("quote of something else", |bytes, ours, theirs| {
            let is_other = |header: Ipv4HeaderSlice<'_>| {
                header.fragments_offset().value() > 0 || !matches!(header.protocol().0, 1 | 6 | 17)
            };
            refused(ours, theirs, "Unsupported")
                && Ipv4HeaderSlice::from_slice(&bytes[8..]).is_ok_and(is_other)
        }),
    ],
};
