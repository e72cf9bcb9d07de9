//! Extension headers of IPv6 (RFC 8200 4): a walk over so many at most, to what the packet carries or to a fragment of it.
//! Options are passed over or refused as their type says; source routes are refused (RFC 5095).

use core::net::Ipv6Addr;

use super::ipv6::{FRAGMENT, HEADER_BYTES, Packet};
use super::{u16_at, u32_at};

/// The most extension headers of one packet: RFC 8200 4.1 names six places, one of which may be taken twice.
pub const MAX_HEADERS: usize = 8;
/// The most options in one header, padding included (RFC 8504 5.3 allows a bound).
const MAX_OPTIONS: usize = 16;
/// Length of the fragment header.
pub const FRAGMENT_BYTES: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const PAD_1: u8 = 0;
const PAD_N: u8 = 1;
/// RFC 2711: whoever passes the packet on looks at it.
const ROUTER_ALERT: u8 = 5;
/// Options for every hop in front of an ICMPv6 message: the alert, whose value 0 is multicast listener discovery's, and
/// padding.
pub(super) const ROUTER_ALERT_HEADER: [u8; 8] = [58, 0, ROUTER_ALERT, 2, 0, 0, PAD_N, 0];

/// ICMPv6 parameter problem, code: a field is wrong.
pub const ERRONEOUS_FIELD: u8 = 0;
/// Code: a next header is not known.
pub const UNKNOWN_NEXT_HEADER: u8 = 1;
/// Code: an option is not known, and must be.
pub const UNKNOWN_OPTION: u8 = 2;
/// Code: the first fragment does not have all headers (RFC 7112).
pub const INCOMPLETE_HEADER_CHAIN: u8 = 3;

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk<'f> {
    /// At what the packet carries: a protocol's number and its bytes. The number may be nobody's.
    Upper(u8, &'f [u8]),
    /// At a part of something larger.
    Fragment(Part<'f>),
}

/// A fragment (RFC 8200 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'f> {
    /// What the whole begins with, if this is its first fragment.
    pub next_header: u8,
    /// What fragments of one packet have in common, beside their addresses.
    pub identification: u32,
    /// Where the payload belongs, in bytes.
    pub offset: usize,
    /// More follow behind it.
    pub more: bool,
    /// The fragment's part of the whole.
    pub payload: &'f [u8],
}

/// Why a walk did not get to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Headers end beyond the packet, or there are too many: dropped.
    Malformed,
    /// An option wants the packet to be dropped if it is not known.
    Dropped,
    /// To be answered with a parameter problem: its code, and where it is from the beginning of the packet.
    Problem {
        /// One of those above.
        code: u8,
        /// Offset of the field.
        pointer: u32,
        /// Packets to groups are answered, too.
        to_groups: bool,
    },
}

const fn problem(code: u8, pointer: usize) -> Refused {
    Refused::Problem { code, pointer: pointer as u32, to_groups: false }
}

/// Walks the headers of a packet.
pub fn walk<'f>(packet: &Packet<'f>) -> Result<Walk<'f>, Refused> {
    // Where the number stands that says what comes next: 6 in IPv6's header, 0 in all others.
    walk_from(packet.payload, packet.next_header, 6, HEADER_BYTES, packet.destination)
}

/// Walks the headers of a packet that was put together from fragments, from the first that was in them on. `Fragment` is
/// one within another.
pub fn walk_whole<'f>(
    payload: &'f [u8],
    next_header: u8,
    destination: Ipv6Addr,
) -> Result<Walk<'f>, Refused> {
    walk_from(payload, next_header, HEADER_BYTES, HEADER_BYTES + FRAGMENT_BYTES, destination)
}

/// Whether the first fragment of a packet has all headers up to the beginning of what it carries (RFC 7112): eight bytes
/// of it at least, where the ports are.
pub fn has_all_headers(part: &Part<'_>, destination: Ipv6Addr) -> bool {
    matches!(walk_whole(part.payload, part.next_header, destination), Ok(Walk::Upper(_, upper)) if upper.len() >= 8)
}

fn walk_from(
    bytes: &[u8],
    next_header: u8,
    named_at: usize,
    base: usize,
    destination: Ipv6Addr,
) -> Result<Walk<'_>, Refused> {
    let (mut next_header, mut named_at, mut rest, mut at) = (next_header, named_at, bytes, base);
    for index in 0..=MAX_HEADERS {
        let len = match next_header {
            // Right behind IPv6's header, or nowhere.
            HOP_BY_HOP if index > 0 || base != HEADER_BYTES => {
                return Err(problem(UNKNOWN_NEXT_HEADER, named_at));
            }
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                8 + 8 * usize::from(*rest.get(1).ok_or(Refused::Malformed)?)
            }
            FRAGMENT => FRAGMENT_BYTES,
            upper => return Ok(Walk::Upper(upper, rest)),
        };
        if index == MAX_HEADERS {
            break;
        }
        let (header, behind) = rest.split_at_checked(len).ok_or(Refused::Malformed)?;
        match next_header {
            // Whatever its type, we are not to pass the packet on; of type 0 RFC 5095 3 says the same.
            ROUTING if header[3] > 0 => return Err(problem(ERRONEOUS_FIELD, at + 2)),
            ROUTING => {}
            FRAGMENT => {
                let place = u16_at(header, 2);
                let (offset, more) = (usize::from(place & 0xfff8), place & 1 != 0);
                // RFC 6946: one that is all of it has nothing to do with others.
                if offset > 0 || more {
                    let (next_header, identification) = (header[0], u32_at(header, 4));
                    let part = Part { next_header, identification, offset, more, payload: behind };
                    return Ok(Walk::Fragment(part));
                }
            }
            _ => check_options(header, at, destination)?,
        }
        (next_header, named_at, rest, at) = (header[0], at, behind, at + len);
    }
    Err(Refused::Malformed)
}

/// Writes the header of a fragment (RFC 8200 4.5) of what begins with `next_header`; `offset` is a multiple of eight.
pub fn emit_fragment(
    next_header: u8,
    identification: u32,
    offset: usize,
    more: bool,
    out: &mut [u8; FRAGMENT_BYTES],
) {
    let place = offset as u16 | u16::from(more);
    out[..2].copy_from_slice(&[next_header, 0]);
    out[2..4].copy_from_slice(&place.to_be_bytes());
    out[4..].copy_from_slice(&identification.to_be_bytes());
}

/// RFC 8200 4.2: the two highest bits of an unknown option's type say what becomes of the packet.
fn check_options(header: &[u8], at: usize, destination: Ipv6Addr) -> Result<(), Refused> {
    let mut offset = 2;
    for _ in 0..MAX_OPTIONS {
        let Some(&kind) = header.get(offset) else { return Ok(()) };
        if kind == PAD_1 {
            offset += 1;
            continue;
        }
        let end = offset + 2 + usize::from(*header.get(offset + 1).ok_or(Refused::Malformed)?);
        if end > header.len() {
            return Err(Refused::Malformed);
        }
        if kind != PAD_N {
            let pointer = (at + offset) as u32;
            match kind >> 6 {
                0 => {}
                1 => return Err(Refused::Dropped),
                3 if destination.is_multicast() => return Err(Refused::Dropped),
                _ => return Err(Refused::Problem { code: UNKNOWN_OPTION, pointer, to_groups: true }),
            }
        }
        offset = end;
    }
    if offset == header.len() { Ok(()) } else { Err(Refused::Malformed) }
}

/// Whether a packet that [`walk`] has found well-formed has the alert of multicast listener discovery.
pub fn has_router_alert(packet: &Packet<'_>) -> bool {
    let len = packet.payload.get(1).map_or(0, |&units| 8 + 8 * usize::from(units));
    let mut options = match packet.payload.get(2..len) {
        Some(options) if packet.next_header == HOP_BY_HOP => options,
        _ => return false,
    };
    loop {
        options = match *options {
            [PAD_1, ref rest @ ..] => rest,
            [ROUTER_ALERT, 2, 0, 0, ..] => return true,
            [_, len, ref rest @ ..] => match rest.get(usize::from(len)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        };
    }
}

/// Whether a packet says itself that nothing follows its headers (RFC 8200 4.7).
pub const fn is_empty(next_header: u8) -> bool {
    next_header == NO_NEXT_HEADER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv6::{ALL_NODES, Ipv6Header, NextHeader};
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A packet whose payload begins with the header `first`.
    fn packet(first: u8, payload: &[u8], destination: Ipv6Addr) -> Vec<u8> {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
        let ip = Ipv6Header { source, destination, next_header: NextHeader::Tcp, hop_limit: 64 };
        let mut out = [0; HEADER_BYTES];
        ip.emit(payload.len(), &mut out);
        out[6] = first;
        [&out[..], payload].concat()
    }

    fn walked(first: u8, payload: &[u8]) -> Result<Walk<'static>, Refused> {
        let bytes = Vec::leak(packet(first, payload, Ipv6Addr::LOCALHOST));
        walk(&Packet::parse(bytes).unwrap())
    }

    /// A header with padding only.
    const fn padded(next: u8) -> [u8; 8] {
        [next, 0, PAD_N, 4, 0, 0, 0, 0]
    }

    #[test]
    fn headers_of_every_kind_are_walked_to_the_upper_layer() {
        let routing = [44, 0, 4, 0, 0, 0, 0, 0];
        let atomic = [60, 0, 0, 0, 1, 2, 3, 4];
        // Router alert, then padding; an option that may be passed over.
        let options = [6, 1, 5, 2, 0, 0, PAD_1, PAD_1, 0x1e, 6, 1, 2, 3, 4, 5, 6];
        let payload = [&padded(43)[..], &routing, &atomic, &options, b"segment"].concat();
        assert_eq!(walked(HOP_BY_HOP, &payload), Ok(Walk::Upper(6, b"segment")));
        assert_eq!(walked(59, b"rest"), Ok(Walk::Upper(59, b"rest")));
        assert!(is_empty(59) && !is_empty(58));
    }

    #[test]
    fn fragment_is_read_where_it_begins() {
        let header = [17, 0, 0x05, 0xa9, 0xde, 0xad, 0xbe, 0xef];
        let payload = [&padded(FRAGMENT)[..], &header, b"12345678"].concat();
        let part = Part {
            next_header: 17,
            identification: 0xdead_beef,
            offset: 0x5a8,
            more: true,
            payload: b"12345678",
        };
        assert_eq!(walked(DESTINATION_OPTIONS, &payload), Ok(Walk::Fragment(part)));
        let first = Part { offset: 0, ..part };
        assert!(has_all_headers(&first, Ipv6Addr::LOCALHOST));
        assert!(!has_all_headers(&Part { payload: b"1234567", ..first }, Ipv6Addr::LOCALHOST));
        assert!(!has_all_headers(&Part { next_header: 60, ..first }, Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn source_route_that_goes_on_is_refused_whatever_its_type() {
        for kind in [0, 2, 3, 4, 99] {
            let routing = [6, 0, kind, 1, 0, 0, 0, 0];
            assert_eq!(walked(ROUTING, &routing), Err(problem(ERRONEOUS_FIELD, 42)), "type {kind}");
        }
    }

    #[test]
    fn hop_by_hop_elsewhere_than_first_is_an_unknown_header() {
        let payload = [&padded(HOP_BY_HOP)[..], &padded(6)].concat();
        assert_eq!(walked(DESTINATION_OPTIONS, &payload), Err(problem(UNKNOWN_NEXT_HEADER, 40)));
        let whole = walk_whole(&payload, HOP_BY_HOP, Ipv6Addr::LOCALHOST);
        assert!(matches!(whole, Err(Refused::Problem { code: UNKNOWN_NEXT_HEADER, .. })));
    }

    #[test]
    fn unknown_options_do_what_their_type_says() {
        let with = |kind: u8| [6, 0, kind, 0, PAD_N, 2, 0, 0];
        let refused = Refused::Problem { code: UNKNOWN_OPTION, pointer: 42, to_groups: true };
        assert_eq!(walked(DESTINATION_OPTIONS, &with(0x3e)), Ok(Walk::Upper(6, b"")));
        assert_eq!(walked(DESTINATION_OPTIONS, &with(0x7e)), Err(Refused::Dropped));
        assert_eq!(walked(DESTINATION_OPTIONS, &with(0xbe)), Err(refused));
        assert_eq!(walked(DESTINATION_OPTIONS, &with(0xfe)), Err(refused));
        // A jumbo payload is such an option.
        assert_eq!(walked(HOP_BY_HOP, &with(0xc2)), Err(refused));
        let to_group = |kind| {
            let bytes = packet(DESTINATION_OPTIONS, &with(kind), ALL_NODES);
            walk(&Packet::parse(&bytes).unwrap()).map(|_| ())
        };
        assert_eq!((to_group(0xbe), to_group(0xfe)), (Err(refused), Err(Refused::Dropped)));
    }

    #[test]
    fn more_headers_or_options_than_any_need_are_malformed() {
        let chain = |count: usize| {
            let mut payload = padded(DESTINATION_OPTIONS).repeat(count - 1);
            payload.extend(padded(6));
            walked(DESTINATION_OPTIONS, &payload)
        };
        assert_eq!(chain(MAX_HEADERS), Ok(Walk::Upper(6, b"")));
        assert_eq!(chain(MAX_HEADERS + 1), Err(Refused::Malformed));
        // Twenty-two bytes of padding, one by one.
        let mut options = [0; 24];
        options[..2].copy_from_slice(&[6, 2]);
        assert_eq!(walked(DESTINATION_OPTIONS, &options), Err(Refused::Malformed));
    }

    #[test]
    fn headers_and_options_beyond_the_end_are_malformed() {
        for (first, payload) in [
            (HOP_BY_HOP, &[6u8][..]),
            (HOP_BY_HOP, &[6, 1, 1, 4, 0, 0, 0, 0]),
            (HOP_BY_HOP, &[6, 0, 1, 5, 0, 0, 0, 0]),
            (HOP_BY_HOP, &[6, 0, 1, 3, 0, 0, 0, 1]),
            (FRAGMENT, &[6, 0, 0, 0, 0, 0, 0]),
            (ROUTING, &[6, 0, 0, 0]),
        ] {
            assert_eq!(walked(first, payload), Err(Refused::Malformed), "{first} {payload:?}");
        }
    }

    proptest! {
        #[test]
        fn walk_of_garbage_ends(
            first in prop::sample::select(&[0u8, 43, 44, 60][..]),
            payload in proptest::collection::vec(prop_oneof![Just(0u8), Just(60), Just(44), Just(43), any::<u8>()], 0..200),
        ) {
            match walked(first, &payload) {
                Ok(Walk::Upper(_, upper)) => prop_assert!(upper.len() <= payload.len()),
                Ok(Walk::Fragment(part)) => prop_assert!(part.payload.len() + 8 <= payload.len()),
                Err(Refused::Problem { pointer, .. }) => prop_assert!((pointer as usize) < 40 + payload.len()),
                Err(_) => {}
            }
        }
    }
}
