//! Multicast listener discovery (RFC 9777, 2710), the host's part: questions, others' reports of the older version, and what we
//! say. All of it stays on the link: hop limit 1, link-local sources, and a router alert (RFC 2711).

use core::net::Ipv6Addr;

use super::ipv6::{self, Ipv6Header, NextHeader, Packet, address_at};
use super::ipv6_extensions::{ROUTER_ALERT_HEADER, has_router_alert};
use super::membership::{Invalid, Message, Query, Record, Version, decoded, querier};
use super::u16_at;

/// Those who hear reports with records (RFC 9777 5.2.14).
pub const REPORT_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Length of IPv6's header with the router alert.
pub const IP_HEADER_BYTES: usize = ipv6::HEADER_BYTES + ROUTER_ALERT_HEADER.len();
/// Length of a report before its records.
pub const REPORT_BYTES: usize = 8;
/// Length of a message of the older version.
pub const OLD_BYTES: usize = 24;
/// Length of a record without sources.
pub const RECORD_BYTES: usize = 20;

const QUERY: u8 = 130;
const REPORT_V1: u8 = 131;
const DONE: u8 = 132;
const REPORT_V2: u8 = 143;
/// Length of a question of the current version before its sources.
const QUERY_V2_BYTES: usize = 28;
const HOP_LIMIT: u8 = 1;

/// Whether an ICMPv6 message is one of these.
pub fn is_message(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(QUERY | REPORT_V1 | DONE | REPORT_V2)))
}

/// Reads an ICMPv6 message of `packet`, to which its headers have led (RFC 9777 6.2).
pub fn parse(packet: &Packet<'_>, message: &[u8]) -> Result<Message, Invalid> {
    let kind = match message.first() {
        Some(&kind @ (QUERY | REPORT_V1)) => kind,
        _ => return Err(Invalid::Unsupported),
    };
    if packet.hop_limit != HOP_LIMIT || !packet.source.is_unicast_link_local() {
        return Err(Invalid::OffLink);
    }
    let ip = packet.header(NextHeader::Icmpv6);
    if !ip.pseudo_sum(message.len()).bytes(message).is_valid() {
        return Err(Invalid::Checksum);
    }
    if message.len() < OLD_BYTES || !has_router_alert(packet) {
        return Err(Invalid::Malformed);
    }
    let group = address_at(message, 8);
    if kind != QUERY {
        let is_its_own = group.is_multicast() && packet.destination == group;
        return if is_its_own { Ok(Message::Report(group.into())) } else { Err(Invalid::Malformed) };
    }
    if !(group.is_unspecified() || group.is_multicast()) {
        return Err(Invalid::Malformed);
    }
    let group = group.is_multicast().then_some(group.into());
    let code = u32::from(u16_at(message, 4));
    let query = match message.len() {
        OLD_BYTES => Query {
            version: Version::Older,
            group,
            max_response_ms: code,
            robustness: None,
            interval_s: None,
        },
        QUERY_V2_BYTES.. => {
            let sources = u16_at(message, 26);
            let end = QUERY_V2_BYTES + 16 * usize::from(sources);
            if end > message.len() || (sources > 0 && group.is_none()) {
                return Err(Invalid::Malformed);
            }
            let (robustness, interval_s) = querier(message[24], message[25]);
            let max_response_ms = decoded(code, 12);
            Query { version: Version::Current, group, max_response_ms, robustness, interval_s }
        }
        _ => return Err(Invalid::Malformed),
    };
    Ok(Message::Query(query))
}

/// The header of a message of ours; [`emit_ip`] writes it.
pub const fn header(source: Ipv6Addr, destination: Ipv6Addr) -> Ipv6Header {
    Ipv6Header { source, destination, next_header: NextHeader::Icmpv6, hop_limit: HOP_LIMIT }
}

/// Writes the headers of a message of so many bytes.
pub fn emit_ip(ip: &Ipv6Header, len: usize, out: &mut [u8; IP_HEADER_BYTES]) {
    let (header, options) = out.split_at_mut(ipv6::HEADER_BYTES);
    if let Some(header) = header.first_chunk_mut() {
        ip.emit(ROUTER_ALERT_HEADER.len() + len, header);
    }
    // Options for every hop.
    header[6] = 0;
    options.copy_from_slice(&ROUTER_ALERT_HEADER);
}

/// Writes a record of a report.
pub fn emit_record(record: Record, group: Ipv6Addr) -> [u8; RECORD_BYTES] {
    let mut out = [0; RECORD_BYTES];
    out[0] = record as u8;
    out[4..].copy_from_slice(&group.octets());
    out
}

/// Writes the header of a report with these records.
pub fn emit_report(ip: &Ipv6Header, records: &[u8], out: &mut [u8; REPORT_BYTES]) {
    out.fill(0);
    out[0] = REPORT_V2;
    out[6..].copy_from_slice(&((records.len() / RECORD_BYTES) as u16).to_be_bytes());
    let checksum = ip.pseudo_sum(REPORT_BYTES + records.len()).bytes(&out[..]).bytes(records).checksum();
    out[2..4].copy_from_slice(&checksum.to_be_bytes());
}

/// To whom what the older version has for it goes.
pub const fn old_destination(record: Record, group: Ipv6Addr) -> Ipv6Addr {
    match record {
        Record::Leaves => ipv6::ALL_ROUTERS,
        _ => group,
    }
}

/// Writes what the older version has for it.
pub fn emit_old(ip: &Ipv6Header, record: Record, group: Ipv6Addr, out: &mut [u8; OLD_BYTES]) {
    out.fill(0);
    out[0] = if record == Record::Leaves { DONE } else { REPORT_V1 };
    out[8..].copy_from_slice(&group.octets());
    let checksum = ip.pseudo_sum(OLD_BYTES).bytes(&out[..]).checksum();
    out[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);

    fn packet(ip: &Ipv6Header, mut message: Vec<u8>) -> Vec<u8> {
        if message.len() >= 4 {
            message[2..4].fill(0);
            let checksum = ip.pseudo_sum(message.len()).bytes(&message).checksum();
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let mut out = [0; IP_HEADER_BYTES];
        emit_ip(ip, message.len(), &mut out);
        [&out[..], &message].concat()
    }

    fn read(packet: &[u8]) -> Result<Message, Invalid> {
        let packet = Packet::parse(packet).unwrap();
        parse(&packet, &packet.payload[ROUTER_ALERT_HEADER.len().min(packet.payload.len())..])
    }

    fn general() -> Ipv6Header {
        header(ROUTER, ipv6::ALL_NODES)
    }

    fn query(code: u16, group: Ipv6Addr, rest: &[u8]) -> Vec<u8> {
        let code = code.to_be_bytes();
        [&[QUERY, 0, 0, 0, code[0], code[1], 0, 0][..], &group.octets(), rest].concat()
    }

    const OLD: Query = Query {
        version: Version::Older,
        group: None,
        max_response_ms: 10_000,
        robustness: None,
        interval_s: None,
    };

    #[test]
    fn version_of_a_query_is_told_by_its_length() {
        let nobody = Ipv6Addr::UNSPECIFIED;
        assert_eq!(read(&packet(&general(), query(10_000, nobody, &[]))), Ok(Message::Query(OLD)));
        let current = Query {
            version: Version::Current,
            group: Some(GROUP.into()),
            max_response_ms: 32_768,
            robustness: Some(2),
            interval_s: Some(125),
        };
        let rest = [&[2, 125, 0, 1][..], &ROUTER.octets(), &[9; 5]].concat();
        let ip = header(ROUTER, GROUP);
        assert_eq!(read(&packet(&ip, query(0x8000, GROUP, &rest))), Ok(Message::Query(current)));
    }

    #[test]
    fn queries_that_contradict_themselves_are_malformed() {
        for bad in [
            query(0, Ipv6Addr::UNSPECIFIED, &[])[..23].to_vec(),
            query(0, Ipv6Addr::UNSPECIFIED, &[2, 125, 0]),
            query(0, ROUTER, &[]),
            query(0, GROUP, &[2, 125, 0, 1]),
            query(0, GROUP, &[&[2, 125, 0, 1][..], &[1; 15]].concat()),
            query(0, GROUP, &[&[2, 125, 0xff, 0xff][..], &[1; 40]].concat()),
            query(0, Ipv6Addr::UNSPECIFIED, &[&[2, 125, 0, 1][..], &[1; 16]].concat()),
        ] {
            assert_eq!(read(&packet(&general(), bad.clone())), Err(Invalid::Malformed), "{bad:?}");
        }
        let mut report = query(0, GROUP, &[]);
        report[0] = REPORT_V1;
        assert_eq!(read(&packet(&general(), report.clone())), Err(Invalid::Malformed));
        assert_eq!(read(&packet(&header(ROUTER, GROUP), report)), Ok(Message::Report(GROUP.into())));
        let mut of_a_host = query(0, ROUTER, &[]);
        of_a_host[0] = REPORT_V1;
        assert_eq!(read(&packet(&header(ROUTER, ROUTER), of_a_host)), Err(Invalid::Malformed));
    }

    #[test]
    fn messages_from_afar_or_without_alert_or_damaged_are_refused() {
        let message = || query(0, Ipv6Addr::UNSPECIFIED, &[]);
        let far = Ipv6Header { hop_limit: 2, ..general() };
        assert_eq!(read(&packet(&far, message())), Err(Invalid::OffLink));
        for source in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)] {
            assert_eq!(read(&packet(&header(source, ipv6::ALL_NODES), message())), Err(Invalid::OffLink));
        }
        let mut silent = packet(&general(), message());
        silent[ipv6::HEADER_BYTES + 2] = 1;
        assert_eq!(read(&silent), Err(Invalid::Malformed));
        let mut damaged = packet(&general(), message());
        damaged[IP_HEADER_BYTES + 20] ^= 1;
        assert_eq!(read(&damaged), Err(Invalid::Checksum));
        for kind in [DONE, REPORT_V2] {
            let mut other = message();
            other[0] = kind;
            assert!(is_message(&other));
            assert_eq!(read(&packet(&general(), other)), Err(Invalid::Unsupported));
        }
        assert!(!is_message(&[135]) && !is_message(&[]));
    }

    proptest! {
        #[test]
        fn mld_garbage_does_not_panic(rest in proptest::collection::vec(any::<u8>(), 0..80), kind in 0usize..3) {
            let message = [&[[QUERY, REPORT_V1, 0][kind]][..], &rest].concat();
            let _ = read(&packet(&general(), message.clone()));
            let _ = read(&packet(&general(), vec![message[0]]));
        }
    }
}
