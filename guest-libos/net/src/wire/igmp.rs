//! IGMP (RFC 9776, 2236, 1112), the host's part: questions, others' reports of older versions, and what we say. All of it stays on
//! the link: time to live 1, and a router alert (RFC 2113).

use core::net::Ipv4Addr;

use super::checksum::{Sum, sum_bytes};
use super::ethernet::MacAddress;
use super::ipv4::{self, Ipv4Fragment};
use super::membership::{Invalid, Message, Query, Record, Version, decoded, querier};
use super::{u16_at, u32_at};

/// The protocol's number in the IPv4 header.
pub const PROTOCOL: u8 = 2;
/// All hosts on the link; nobody reports it.
pub const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// All routers on the link, who hear that somebody leaves (RFC 2236).
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// Those who hear reports with records.
pub const REPORT_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
/// Length of the IPv4 header with the router alert.
pub const IP_HEADER_BYTES: usize = ipv4::HEADER_BYTES + ROUTER_ALERT.len();
/// Length of a message of the older versions, and of a report before its records.
pub const HEADER_BYTES: usize = 8;
/// Length of a record without sources.
pub const RECORD_BYTES: usize = 8;

const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];
/// Internetwork control (RFC 9776 4).
const TYPE_OF_SERVICE: u8 = 0xc0;
const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;
/// Length of a question of the current version before its sources.
const QUERY_V3_BYTES: usize = 12;
/// RFC 9776 4.1.1: the unit of response times.
const TENTH_MS: u32 = 100;
/// RFC 9776 7.2.1: within what time the oldest version is answered.
const V1_RESPONSE_MS: u32 = 10_000;

/// The Ethernet address of a group (RFC 1112 6.4).
pub const fn multicast_mac(group: Ipv4Addr) -> MacAddress {
    let [_, a, b, c] = group.octets();
    MacAddress([1, 0, 0x5e, a & 0x7f, b, c])
}

/// Reads a packet whose IPv4 header has been verified.
pub fn parse(packet: &Ipv4Fragment<'_>) -> Result<Message, Invalid> {
    let (header, bytes) = (packet.packet, packet.payload);
    if packet.protocol != PROTOCOL || packet.more || packet.offset > 0 {
        return Err(Invalid::Unsupported);
    }
    let (kind, code) = match *bytes {
        [kind @ (QUERY | REPORT_V1 | REPORT_V2), code, ..] => (kind, code),
        _ => return Err(Invalid::Unsupported),
    };
    if header.get(8) != Some(&1) {
        return Err(Invalid::OffLink);
    }
    let options = header.get(ipv4::HEADER_BYTES..header.len() - bytes.len()).unwrap_or_default();
    if ipv4::is_source_routed(options) {
        return Err(Invalid::Unsupported);
    }
    if sum_bytes(bytes) != 0xffff {
        return Err(Invalid::Checksum);
    }
    if bytes.len() < HEADER_BYTES {
        return Err(Invalid::Malformed);
    }
    let group = Ipv4Addr::from_bits(u32_at(bytes, 4));
    if kind != QUERY {
        let is_its_own = group.is_multicast() && packet.destination == group;
        return if is_its_own { Ok(Message::Report(group.into())) } else { Err(Invalid::Malformed) };
    }
    if !(group.is_unspecified() || group.is_multicast()) {
        return Err(Invalid::Malformed);
    }
    let group = group.is_multicast().then_some(group.into());
    let old = |version, max_response_ms| Query {
        version,
        group,
        max_response_ms,
        robustness: None,
        interval_s: None,
    };
    let query = match (bytes.len(), code) {
        (HEADER_BYTES, 0) => Query { group: None, ..old(Version::Oldest, V1_RESPONSE_MS) },
        (HEADER_BYTES, tenths) => old(Version::Older, u32::from(tenths) * TENTH_MS),
        (QUERY_V3_BYTES.., code) => {
            let sources = u16_at(bytes, 10);
            let end = QUERY_V3_BYTES + 4 * usize::from(sources);
            if end > bytes.len() || (sources > 0 && group.is_none()) {
                return Err(Invalid::Malformed);
            }
            let (robustness, interval_s) = querier(bytes[8], bytes[9]);
            let max_response_ms = decoded(u32::from(code), 4) * TENTH_MS;
            Query { version: Version::Current, group, max_response_ms, robustness, interval_s }
        }
        _ => return Err(Invalid::Malformed),
    };
    // RFC 9776 9.1: forgers from beyond a router leave the alert out, and reach groups of theirs at most.
    let is_elsewhere = packet.destination.is_multicast() && packet.destination != ALL_SYSTEMS;
    if (query.version > Version::Oldest && !has_router_alert(options))
        || (query.group.is_none() && is_elsewhere)
    {
        return Err(Invalid::Malformed);
    }
    Ok(Message::Query(query))
}

/// Whether routers are asked to look at a packet with these options (RFC 2113 2.1).
fn has_router_alert(mut options: &[u8]) -> bool {
    loop {
        match *options {
            [148, 4, 0, 0, ..] => return true,
            [1, ref rest @ ..] => options = rest,
            [kind, len, ..] if kind != 0 && len >= 2 && usize::from(len) <= options.len() => {
                options = &options[usize::from(len)..];
            }
            _ => return false,
        }
    }
}

/// Writes the IPv4 header of a message of so many bytes.
pub fn emit_ip(source: Ipv4Addr, destination: Ipv4Addr, len: usize, out: &mut [u8; IP_HEADER_BYTES]) {
    let total = ((IP_HEADER_BYTES + len) as u16).to_be_bytes();
    out[..12].copy_from_slice(&[0x46, TYPE_OF_SERVICE, total[0], total[1], 0, 0, 0x40, 0, 1, PROTOCOL, 0, 0]);
    out[12..16].copy_from_slice(&source.octets());
    out[16..20].copy_from_slice(&destination.octets());
    out[20..].copy_from_slice(&ROUTER_ALERT);
    let checksum = Sum::ZERO.bytes(&out[..]).checksum();
    out[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes a record of a report.
pub fn emit_record(record: Record, group: Ipv4Addr) -> [u8; RECORD_BYTES] {
    let [a, b, c, d] = group.octets();
    [record as u8, 0, 0, 0, a, b, c, d]
}

/// Writes the header of a report with these records.
pub fn emit_report(records: &[u8], out: &mut [u8; HEADER_BYTES]) {
    let count = (records.len() / RECORD_BYTES) as u16;
    emit([REPORT_V3, 0], u32::from(count), records, out);
}

/// Writes what the older versions have for it, and answers to whom it goes; the oldest has nothing to say of leaving.
pub fn emit_old(
    version: Version,
    record: Record,
    group: Ipv4Addr,
    out: &mut [u8; HEADER_BYTES],
) -> Option<Ipv4Addr> {
    let (kind, destination) = match (record, version) {
        (Record::Leaves, Version::Oldest) => return None,
        (Record::Leaves, _) => (LEAVE, ALL_ROUTERS),
        (_, Version::Oldest) => (REPORT_V1, group),
        _ => (REPORT_V2, group),
    };
    emit([kind, 0], group.to_bits(), &[], out);
    Some(destination)
}

fn emit(kind_and_code: [u8; 2], word: u32, rest: &[u8], out: &mut [u8; HEADER_BYTES]) {
    out[..2].copy_from_slice(&kind_and_code);
    out[2..4].fill(0);
    out[4..].copy_from_slice(&word.to_be_bytes());
    let checksum = Sum::ZERO.bytes(&out[..]).bytes(rest).checksum();
    out[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    fn sealed(mut message: Vec<u8>) -> Vec<u8> {
        message[2..4].fill(0);
        let checksum = Sum::ZERO.bytes(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        message
    }

    fn packet(destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let mut out = [0; IP_HEADER_BYTES];
        emit_ip(Ipv4Addr::new(10, 0, 0, 9), destination, message.len(), &mut out);
        [&out[..], message].concat()
    }

    fn read(packet: &[u8]) -> Result<Message, Invalid> {
        parse(&Ipv4Fragment::parse(packet).unwrap())
    }

    fn read_message(message: &[u8]) -> Result<Message, Invalid> {
        read(&packet(ALL_SYSTEMS, &sealed(message.to_vec())))
    }

    const OLD: Query = Query {
        version: Version::Older,
        group: None,
        max_response_ms: 2_500,
        robustness: None,
        interval_s: None,
    };

    #[test]
    fn version_of_a_query_is_told_by_its_length_and_code() {
        assert_eq!(read_message(&[0x11, 25, 0, 0, 0, 0, 0, 0]), Ok(Message::Query(OLD)));
        let oldest = Query { version: Version::Oldest, max_response_ms: 10_000, ..OLD };
        assert_eq!(read_message(&[0x11, 0, 0, 0, 239, 1, 2, 3]), Ok(Message::Query(oldest)));
        let current = Query {
            version: Version::Current,
            group: Some(GROUP.into()),
            max_response_ms: 12_800,
            robustness: Some(3),
            interval_s: Some(256),
        };
        let bytes = [0x11, 0x80, 0, 0, 239, 1, 2, 3, 3, 0x90, 0, 1, 10, 0, 0, 8, 0xde, 0xad];
        assert_eq!(read_message(&bytes), Ok(Message::Query(current)));
    }

    #[test]
    fn queries_that_contradict_themselves_are_malformed() {
        for bad in [
            &[0x11, 25, 0, 0, 0, 0, 0][..],
            // Between two versions' lengths.
            &[0x11, 25, 0, 0, 0, 0, 0, 0, 2],
            &[0x11, 25, 0, 0, 0, 0, 0, 0, 2, 125, 0],
            // No group.
            &[0x11, 25, 0, 0, 10, 0, 0, 9],
            // Sources that are not there, and sources of nobody.
            &[0x11, 25, 0, 0, 239, 1, 2, 3, 2, 125, 0, 1, 1, 2, 3],
            &[0x11, 25, 0, 0, 239, 1, 2, 3, 2, 125, 0xff, 0xff, 1, 2, 3, 4],
            &[0x11, 25, 0, 0, 0, 0, 0, 0, 2, 125, 0, 1, 1, 2, 3, 4],
            // A report that is not sent to whom it is about.
            &[0x16, 0, 0, 0, 239, 1, 2, 3],
        ] {
            assert_eq!(read_message(bad), Err(Invalid::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn queries_without_alert_or_for_all_groups_to_one_are_malformed() {
        let general = [&sealed([0x11, 25, 0, 0, 0, 0, 0, 0].to_vec())[..]].concat();
        let current = sealed([0x11, 25, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0].to_vec());
        let oldest = sealed([0x11, 0, 0, 0, 0, 0, 0, 0].to_vec());
        // Behind other options it is found; another value asks for nothing that is known.
        let options: [(&[u8], bool); 6] = [
            (&[], false),
            (&[1, 1, 1, 0], false),
            (&[148, 4, 0, 1], false),
            (&[1, 131 - 63, 3, 4, 148, 4, 0, 0], true),
            (&[0, 0, 0, 0, 148, 4, 0, 0], false),
            (&[0, 4, 0, 0, 148, 4, 0, 0], false),
        ];
        for (options, is_read) in options {
            let with = |message: &[u8]| {
                let header = &packet(ALL_SYSTEMS, message)[..ipv4::HEADER_BYTES];
                let mut packet = [header, options, message].concat();
                packet[0] = 0x45 + (options.len() / 4) as u8;
                packet[3] = packet.len() as u8;
                read(&packet)
            };
            for message in [&general, &current] {
                assert_eq!(with(message).is_ok(), is_read, "{options:?}");
                assert!(is_read || with(message) == Err(Invalid::Malformed));
            }
            assert!(with(&oldest).is_ok(), "there was no alert then");
        }
        for message in [&general, &current, &oldest] {
            assert_eq!(read(&packet(GROUP, message)), Err(Invalid::Malformed));
            assert!(read(&packet(Ipv4Addr::new(10, 0, 0, 7), message)).is_ok());
        }
    }

    #[test]
    fn others_messages_are_told_apart_and_what_is_damaged_or_from_afar_refused() {
        let report = sealed([0x16, 0, 0, 0, 239, 1, 2, 3].to_vec());
        assert_eq!(read(&packet(GROUP, &report)), Ok(Message::Report(GROUP.into())));
        for other in [0x17, 0x22, 0x13, 0] {
            assert_eq!(read_message(&[other, 0, 0, 0, 0, 0, 0, 0]), Err(Invalid::Unsupported));
        }
        let host = Ipv4Addr::new(10, 0, 0, 7);
        let of_a_host = sealed([0x16, 0, 0, 0, 10, 0, 0, 7].to_vec());
        assert_eq!(read(&packet(host, &of_a_host)), Err(Invalid::Malformed));
        let mut far = packet(GROUP, &report);
        far[8] = 2;
        assert_eq!(read(&far), Err(Invalid::OffLink));
        let mut damaged = packet(GROUP, &report);
        damaged[IP_HEADER_BYTES + 7] ^= 1;
        assert_eq!(read(&damaged), Err(Invalid::Checksum));
    }

    #[test]
    fn other_protocols_and_fragments_are_unsupported() {
        // The flags and the place of a fragment (RFC 791 3.1), and the protocol.
        for (at, value) in [(6, 0x20), (7, 1), (9, 17)] {
            let mut other = packet(GROUP, &sealed([0x16, 0, 0, 0, 239, 1, 2, 3].to_vec()));
            assert!(read(&other).is_ok());
            other[at] = value;
            assert_eq!(read(&other), Err(Invalid::Unsupported), "{value} at {at}");
        }
    }

    #[test]
    fn groups_have_ethernet_addresses_of_23_bits() {
        assert_eq!(multicast_mac(Ipv4Addr::new(224, 0x81, 2, 3)), multicast_mac(Ipv4Addr::new(239, 1, 2, 3)));
        assert_eq!(multicast_mac(GROUP), MacAddress([1, 0, 0x5e, 1, 2, 3]));
    }

    proptest! {
        #[test]
        fn igmp_garbage_does_not_panic(message in proptest::collection::vec(any::<u8>(), 0..40), kind in 0usize..4) {
            let kinds = [QUERY, REPORT_V1, REPORT_V2, 0];
            let mut message = [&[kinds[kind], 0, 0, 0][..], &message].concat();
            let _ = read_message(&message);
            message.truncate(3);
            let _ = read(&packet(ALL_SYSTEMS, &message));
        }
    }
}
