//! Neighbor Discovery (RFC 4861) over Ethernet: solicitations and advertisements, with all that 7.1.1 and 7.1.2 want checked before
//! anybody looks at them. What routers send is `Unsupported`.

use core::fmt;
use core::net::Ipv6Addr;

use super::ethernet::MacAddress;
use super::ipv6::{Ipv6Header, NextHeader, address_at, solicited_node};

/// The only hop limit that a message has which no router passed on (RFC 4861 3.1).
pub const HOP_LIMIT: u8 = 255;
/// The longest message that [`Message::emit`] writes: two options.
pub const MESSAGE_BYTES_MAX: usize = FIXED_BYTES + 2 * OPTION_BYTES;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// What both begin with: type, code, checksum, flags, target.
const FIXED_BYTES: usize = 24;
/// The options that we know have one unit of 8 bytes.
const OPTION_BYTES: usize = 8;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
/// RFC 3971 5.3.2.
const NONCE: u8 = 14;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Six random bytes by which one recognises one's own solicitation (RFC 7527).
pub type Nonce = [u8; 6];

/// A message about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has the target, and where?
    Solicitation {
        /// The address asked for; never a group.
        target: Ipv6Addr,
        /// Where the sender is. None if it has no address yet.
        source_mac: Option<MacAddress>,
        /// Which solicitation this is.
        nonce: Option<Nonce>,
    },
    /// The sender has the target.
    Advertisement {
        /// The address it is about; never a group.
        target: Ipv6Addr,
        /// The sender is a router.
        router: bool,
        /// This answers a solicitation.
        solicited: bool,
        /// What was known before is to be replaced.
        overrides: bool,
        /// Where the target is.
        target_mac: Option<MacAddress>,
    },
}

/// Why a packet is not a message that may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Neither a solicitation nor an advertisement.
    Unsupported,
    /// The hop limit is not 255: somebody beyond a router sent it.
    HopLimit,
    /// The checksum is wrong.
    Checksum,
    /// Too short, or fields contradict each other, or an option has no length.
    Malformed,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "the message is of a kind that is not handled here; it is dropped",
            Self::HopLimit => {
                "the hop limit is not 255, so the message is not from this link; look for a forger"
            }
            Self::Checksum => "the checksum is wrong; look for damage on the way",
            Self::Malformed => "the message contradicts itself; look at its options in a capture",
        })
    }
}

impl core::error::Error for Invalid {}

impl Message {
    /// Reads an ICMPv6 message.
    pub fn parse(ip: &Ipv6Header, bytes: &[u8]) -> Result<Self, Invalid> {
        if ip.next_header != NextHeader::Icmpv6 {
            return Err(Invalid::Unsupported);
        }
        let kind = match bytes.first() {
            Some(&kind @ (SOLICITATION | ADVERTISEMENT)) => kind,
            _ => return Err(Invalid::Unsupported),
        };
        if ip.hop_limit != HOP_LIMIT {
            return Err(Invalid::HopLimit);
        }
        if !ip.pseudo_sum(bytes.len()).bytes(bytes).is_valid() {
            return Err(Invalid::Checksum);
        }
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>().ok_or(Invalid::Malformed)?;
        let options = Options::parse(rest)?;
        let (flags, target) = (fixed[4], address_at(fixed, 8));
        if fixed[1] != 0 || target.is_multicast() {
            return Err(Invalid::Malformed);
        }
        if kind == SOLICITATION {
            // Who has no address yet asks in the group, and cannot be answered anywhere else.
            let nobody = ip.source.is_unspecified();
            if nobody && (ip.destination != solicited_node(target) || options.source_mac.is_some()) {
                return Err(Invalid::Malformed);
            }
            return Ok(Self::Solicitation { target, source_mac: options.source_mac, nonce: options.nonce });
        }
        let solicited = flags & SOLICITED != 0;
        if solicited && ip.destination.is_multicast() {
            return Err(Invalid::Malformed);
        }
        Ok(Self::Advertisement {
            target,
            router: flags & ROUTER != 0,
            solicited,
            overrides: flags & OVERRIDE != 0,
            target_mac: options.target_mac,
        })
    }

    /// Writes the message, to be sent from and to these; returns its length.
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr, out: &mut [u8; MESSAGE_BYTES_MAX]) -> usize {
        let (kind, flags, target, options) = match *self {
            Self::Solicitation { target, source_mac, nonce } => {
                let mac = source_mac.map(|mac| (SOURCE_LINK_ADDRESS, mac.0));
                (SOLICITATION, 0, target, [mac, nonce.map(|nonce| (NONCE, nonce))])
            }
            Self::Advertisement { target, router, solicited, overrides, target_mac } => {
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                let flags = flag(router, ROUTER) | flag(solicited, SOLICITED) | flag(overrides, OVERRIDE);
                let mac = target_mac.map(|mac| (TARGET_LINK_ADDRESS, mac.0));
                (ADVERTISEMENT, flags, target, [mac, None])
            }
        };
        out.fill(0);
        (out[0], out[4]) = (kind, flags);
        out[8..FIXED_BYTES].copy_from_slice(&target.octets());
        let mut len = FIXED_BYTES;
        for (option, value) in options.into_iter().flatten() {
            out[len..len + 2].copy_from_slice(&[option, 1]);
            out[len + 2..len + OPTION_BYTES].copy_from_slice(&value);
            len += OPTION_BYTES;
        }
        let ip = Ipv6Header { source, destination, next_header: NextHeader::Icmpv6, hop_limit: HOP_LIMIT };
        let checksum = ip.pseudo_sum(len).bytes(&out[..len]).checksum();
        out[2..4].copy_from_slice(&checksum.to_be_bytes());
        len
    }
}

/// The options that we know; of several of one kind the first, all others are passed over (RFC 4861 4.6).
#[derive(Default)]
struct Options {
    source_mac: Option<MacAddress>,
    target_mac: Option<MacAddress>,
    nonce: Option<Nonce>,
}

impl Options {
    fn parse(mut bytes: &[u8]) -> Result<Self, Invalid> {
        let mut options = Self::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            let len = rest.first().map_or(0, |units| usize::from(*units) * 8);
            let (option, rest) = bytes.split_at_checked(len).ok_or(Invalid::Malformed)?;
            bytes = rest;
            // A link's addresses that are longer than Ethernet's, or a longer nonce, are none that we could use.
            let [_, _, value @ ..] = option else { return Err(Invalid::Malformed) };
            let Ok(value) = <[u8; 6]>::try_from(value) else { continue };
            let place = match kind {
                SOURCE_LINK_ADDRESS => &mut options.source_mac,
                TARGET_LINK_ADDRESS => &mut options.target_mac,
                NONCE => {
                    options.nonce.get_or_insert(value);
                    continue;
                }
                _ => continue,
            };
            if !MacAddress(value).is_unicast() {
                return Err(Invalid::Malformed);
            }
            place.get_or_insert(MacAddress(value));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv6::{ALL_NODES, link_local};
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn ip(source: Ipv6Addr, destination: Ipv6Addr) -> Ipv6Header {
        Ipv6Header { source, destination, next_header: NextHeader::Icmpv6, hop_limit: HOP_LIMIT }
    }

    fn solicitation() -> (Ipv6Header, Message) {
        let target = link_local(OTHER);
        let message = Message::Solicitation { target, source_mac: Some(MAC), nonce: None };
        (ip(link_local(MAC), solicited_node(target)), message)
    }

    fn advertisement() -> (Ipv6Header, Message) {
        let (router, solicited, overrides) = (true, true, false);
        let (target, target_mac) = (link_local(OTHER), Some(OTHER));
        let message = Message::Advertisement { target, router, solicited, overrides, target_mac };
        (ip(target, link_local(MAC)), message)
    }

    /// From nobody.
    fn probe() -> (Ipv6Header, Message) {
        let target = link_local(OTHER);
        let message = Message::Solicitation { target, source_mac: None, nonce: Some([1, 2, 3, 4, 5, 6]) };
        (ip(Ipv6Addr::UNSPECIFIED, solicited_node(target)), message)
    }

    fn emitted((ip, message): (Ipv6Header, Message)) -> Vec<u8> {
        let mut out = [0; MESSAGE_BYTES_MAX];
        let len = message.emit(ip.source, ip.destination, &mut out);
        out[..len].to_vec()
    }

    /// Makes the checksum right, so that nothing else than what a test broke is wrong.
    fn reseal(ip: &Ipv6Header, bytes: &mut [u8]) {
        bytes[2..4].fill(0);
        let checksum = ip.pseudo_sum(bytes.len()).bytes(bytes).checksum();
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    }

    #[test]
    fn ndisc_emit_then_parse_returns_same() {
        for (ip, message) in [solicitation(), advertisement(), probe()] {
            assert_eq!(Message::parse(&ip, &emitted((ip, message))), Ok(message));
        }
    }

    #[test]
    fn ndisc_hop_limit_below_255_returns_hop_limit() {
        for (ip, message) in [solicitation(), advertisement()] {
            for hop_limit in [0, 1, 64, 254] {
                let forged = Ipv6Header { hop_limit, ..ip };
                assert_eq!(Message::parse(&forged, &emitted((ip, message))), Err(Invalid::HopLimit));
            }
        }
    }

    #[test]
    fn ndisc_any_flipped_bit_returns_checksum() {
        let (ip, message) = advertisement();
        let good = emitted((ip, message));
        // The first byte says what it is.
        for bit in 8..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Message::parse(&ip, &bytes), Err(Invalid::Checksum), "bit {bit}");
        }
        let elsewhere = Ipv6Header { source: link_local(MAC), ..ip };
        assert_eq!(Message::parse(&elsewhere, &good), Err(Invalid::Checksum), "the pseudo-header counts");
    }

    #[test]
    fn ndisc_option_without_length_or_beyond_the_end_returns_malformed() {
        let (ip, message) = solicitation();
        for len in [0, 2, 255] {
            let mut bytes = emitted((ip, message));
            bytes[25] = len;
            reseal(&ip, &mut bytes);
            assert_eq!(Message::parse(&ip, &bytes), Err(Invalid::Malformed), "length {len}");
        }
        let mut one_byte = emitted((ip, message));
        one_byte.truncate(25);
        reseal(&ip, &mut one_byte);
        assert_eq!(Message::parse(&ip, &one_byte), Err(Invalid::Malformed));
    }

    #[test]
    fn ndisc_unknown_options_are_passed_over_and_of_two_the_first_counts() {
        let (ip, message) = solicitation();
        let mut bytes = emitted((ip, message));
        let own = bytes.split_off(24);
        bytes.extend([200, 2].into_iter().chain([0xAA; 14]));
        bytes.extend(own);
        bytes.extend([1, 1, 2, 9, 9, 9, 9, 9]);
        reseal(&ip, &mut bytes);
        assert_eq!(Message::parse(&ip, &bytes), Ok(message));
    }

    #[test]
    fn ndisc_contradictions_return_malformed() {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5);
        let target = link_local(OTHER);
        let of = |target, solicited, target_mac| Message::Advertisement {
            target,
            router: false,
            solicited,
            overrides: true,
            target_mac,
        };
        let (nobody, asked) = (Ipv6Addr::UNSPECIFIED, solicited_node(target));
        let ask = |target, source_mac| Message::Solicitation { target, source_mac, nonce: None };
        let broken = [
            ("a group as target", ip(target, link_local(MAC)), of(group, true, None)),
            ("a group as a question's target", ip(target, solicited_node(group)), ask(group, Some(MAC))),
            ("solicited by all", ip(target, ALL_NODES), of(target, true, Some(OTHER))),
            (
                "a group's link address",
                ip(target, link_local(MAC)),
                of(target, true, Some(MacAddress::BROADCAST)),
            ),
            ("nobody with a link address", ip(nobody, asked), ask(target, Some(MAC))),
            ("nobody to the target itself", ip(nobody, target), ask(target, None)),
        ];
        for (what, ip, message) in broken {
            assert_eq!(Message::parse(&ip, &emitted((ip, message))), Err(Invalid::Malformed), "{what}");
        }
        let (ip, message) = solicitation();
        let mut code = emitted((ip, message));
        code[1] = 1;
        reseal(&ip, &mut code);
        assert_eq!(Message::parse(&ip, &code), Err(Invalid::Malformed), "a code");
        let mut short = emitted((ip, message));
        short.truncate(20);
        reseal(&ip, &mut short);
        assert_eq!(Message::parse(&ip, &short), Err(Invalid::Malformed), "too short");
    }

    #[test]
    fn ndisc_other_messages_return_unsupported() {
        let (ip, message) = solicitation();
        for kind in [1, 128, 133, 134, 137] {
            let mut bytes = emitted((ip, message));
            bytes[0] = kind;
            reseal(&ip, &mut bytes);
            assert_eq!(Message::parse(&ip, &bytes), Err(Invalid::Unsupported), "type {kind}");
        }
        assert_eq!(Message::parse(&ip, &[]), Err(Invalid::Unsupported));
    }

    proptest! {
        #[test]
        fn ndisc_garbage_does_not_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 1..120), kind in 134u8..138, nobody: bool
        ) {
            let source = if nobody { Ipv6Addr::UNSPECIFIED } else { link_local(MAC) };
            bytes[0] = kind;
            bytes[1..].iter_mut().take(1).for_each(|code| *code = 0);
            let ip = ip(source, solicited_node(link_local(OTHER)));
            let _ = Message::parse(&ip, &bytes);
            if bytes.len() >= 4 {
                reseal(&ip, &mut bytes);
                prop_assert_ne!(Message::parse(&ip, &bytes), Err(Invalid::Checksum));
            }
        }
    }
}
