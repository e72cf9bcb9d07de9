//! What is said of groups, beside smoltcp's readers: etherparse has none for it.

use std::net::{Ipv4Addr, Ipv6Addr};

use exos_net::wire::igmp;
use exos_net::wire::ipv4::Ipv4Fragment;
use exos_net::wire::ipv6::{ALL_NODES, Packet};
use exos_net::wire::membership::Message;
use exos_net::wire::mld;
use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::wire::{Icmpv6Packet, IgmpPacket, IgmpRepr, MldRepr};

use crate::Reading;
use crate::layers::{Layer, error, refused, sum, text, u16_at};
use crate::packets::{damaged, payload, seal};

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
const REPORT_V1: u8 = 131;

/// In the same words as theirs.
fn words(message: &Message) -> Vec<(&'static str, String)> {
    match message {
        Message::Query(query) => {
            vec![("kind", text("query")), ("group", text(query.group)), ("time", text(query.max_response_ms))]
        }
        Message::Report(group) => vec![("kind", text("report")), ("group", text(Some(group)))],
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// The group that a message of IGMP is about.
fn igmp_group(bytes: &[u8]) -> Ipv4Addr {
    bytes_at::<4>(bytes, 4).into()
}

/// To whom it goes: the first version asks everybody, whatever group it names.
fn igmp_destination(bytes: &[u8]) -> Ipv4Addr {
    match bytes {
        [0x11, 0, ..] if bytes.len() == igmp::HEADER_BYTES => igmp::ALL_SYSTEMS,
        _ => igmp_group(bytes),
    }
}

/// Whether a question of the current version names sources that are not there, or sources of no group.
fn has_no_sources(bytes: &[u8], at: usize, each: usize, has_group: bool) -> bool {
    let count = usize::from(u16_at(bytes, at));
    at + 2 + each * count > bytes.len() || (count > 0 && !has_group)
}

pub(crate) const IGMP: Layer = Layer {
    name: "igmp",
    packets: igmp_messages,
    ours: |bytes| {
        let mut header = [0; igmp::IP_HEADER_BYTES];
        igmp::emit_ip([10, 0, 0, 9].into(), igmp_destination(bytes), bytes.len(), &mut header);
        let packet = [&header[..], bytes].concat();
        Ok(words(&igmp::parse(&Ipv4Fragment::parse(&packet).map_err(error)?).map_err(error)?))
    },
    theirs: |bytes| {
        let packet = IgmpPacket::new_checked(bytes).map_err(error)?;
        Ok(match IgmpRepr::parse(&packet).map_err(error)? {
            IgmpRepr::MembershipQuery { max_resp_time, group_addr, .. } => vec![
                ("kind", text("query")),
                ("group", text((!group_addr.is_unspecified()).then_some(group_addr))),
                ("time", text(max_resp_time.total_millis())),
            ],
            IgmpRepr::MembershipReport { group_addr, .. } => {
                vec![("kind", text("report")), ("group", text(Some(group_addr)))]
            }
            IgmpRepr::LeaveGroup { group_addr } => {
                vec![("kind", text("leave")), ("group", text(Some(group_addr)))]
            }
        })
    },
    differences: &[
        ("wrong checksum", |bytes, ours, theirs| refused(ours, theirs, "Checksum") && sum(bytes) != 0xffff),
        ("leave", |bytes, ours, theirs| refused(ours, theirs, "Unsupported") && bytes[0] == 0x17),
        ("length of no version", |bytes, ours, theirs| {
            refused(ours, theirs, "Malformed") && bytes[0] == 0x11 && (9..12).contains(&bytes.len())
        }),
        ("sources that are not there", |bytes, ours, theirs| {
            let has_group = !igmp_group(bytes).is_unspecified();
            refused(ours, theirs, "Malformed") && bytes.len() >= 12 && has_no_sources(bytes, 10, 4, has_group)
        }),
        ("report of no group", |bytes, ours, theirs| {
            refused(ours, theirs, "Malformed") && bytes[0] != 0x11 && igmp_group(bytes).is_unspecified()
        }),
        ("first version", |bytes, ours, theirs| is_read(ours, theirs) && bytes.len() == 8 && bytes[1] == 0),
        ("time of the second version", |bytes, ours, theirs| {
            is_read(ours, theirs) && bytes.len() == 8 && bytes[1] >= 128
        }),
    ],
};

/// Both read it, as a question.
fn is_read(ours: &Reading, theirs: &Reading) -> bool {
    [ours, theirs].iter().all(|reading| reading.as_ref().is_ok_and(|words| words[0].1 == text("query")))
}

/// To whom a message of MLD goes.
fn mld_destination(bytes: &[u8]) -> Ipv6Addr {
    if bytes.first() == Some(&REPORT_V1) { mld_group(bytes) } else { ALL_NODES }
}

fn mld_group(bytes: &[u8]) -> Ipv6Addr {
    bytes_at::<16>(bytes, 8).into()
}

/// The sum of the pseudo-header (RFC 8200 8.1).
fn mld_pseudo(bytes: &[u8]) -> u32 {
    let len = (bytes.len() as u32).to_be_bytes();
    sum(&[&ROUTER.octets()[..], &mld_destination(bytes).octets(), &len, &[0, 0, 0, 58]].concat())
}

pub(crate) const MLD: Layer = Layer {
    name: "mld",
    packets: mld_messages,
    ours: |bytes| {
        let mut header = [0; mld::IP_HEADER_BYTES];
        mld::emit_ip(&mld::header(ROUTER, mld_destination(bytes)), bytes.len(), &mut header);
        let packet = [&header[..], bytes].concat();
        Ok(words(&mld::parse(&Packet::parse(&packet).map_err(error)?, bytes).map_err(error)?))
    },
    theirs: |bytes| {
        let packet = Icmpv6Packet::new_checked(bytes).map_err(error)?;
        Ok(match MldRepr::parse(&packet).map_err(error)? {
            MldRepr::Query { max_resp_code, mcast_addr, .. } => {
                let code = u64::from(max_resp_code);
                // 12 bits of a number, and how far they are shifted.
                let time = if code < 32_768 { code } else { (code % 4_096 + 4_096) << (code / 4_096 - 5) };
                vec![
                    ("kind", text("query")),
                    ("group", text((!mcast_addr.is_unspecified()).then_some(mcast_addr))),
                    ("time", text(time)),
                ]
            }
            _ => vec![("kind", text("records"))],
        })
    },
    differences: &[
        ("wrong checksum", |bytes, ours, theirs| {
            refused(ours, theirs, "Checksum") && !(mld_pseudo(bytes) + sum(bytes)).is_multiple_of(0xffff)
        }),
        ("first version", |bytes, ours, theirs| {
            ours.is_ok() && theirs.is_err() && (bytes.len() == 24 || bytes[0] == REPORT_V1)
        }),
        ("records", |bytes, ours, theirs| refused(ours, theirs, "Unsupported") && bytes[0] == 143),
        ("no group", |bytes, ours, theirs| {
            let group = mld_group(bytes);
            refused(ours, theirs, "Malformed") && !group.is_unspecified() && !group.is_multicast()
        }),
        ("sources that are not there", |bytes, ours, theirs| {
            let has_group = !mld_group(bytes).is_unspecified();
            refused(ours, theirs, "Malformed")
                && bytes.len() >= 28
                && has_no_sources(bytes, 26, 16, has_group)
        }),
    ],
};

/// What follows the group: nothing, what a querier says of itself and sources, or anything.
fn rest(each: usize) -> impl Strategy<Value = Vec<u8>> {
    let sources = (any::<[u8; 2]>(), 0usize..4, 0usize..4, payload()).prop_map(
        move |(querier, said, there, padding)| {
            let there = if there == 3 { said } else { there };
            let sources = vec![7; there * each];
            [&querier[..], &[0, said as u8], &sources, &padding[..padding.len() / 8]].concat()
        },
    );
    prop_oneof![3 => Just(Vec::new()), 4 => sources, 1 => payload()]
}

fn igmp_messages() -> BoxedStrategy<Vec<u8>> {
    let kind = prop_oneof![6 => Just(0x11u8), 1 => Just(0x12), 1 => Just(0x16), 1 => Just(0x17), 1 => Just(0x22), 1 => any::<u8>()];
    let code = prop_oneof![1 => Just(0u8), 3 => any::<u8>()];
    let group = prop_oneof![3 => Just([0; 4]), 4 => any::<[u8; 3]>().prop_map(|[a, b, c]| [239, a, b, c]), 1 => any::<[u8; 4]>()];
    let messages = (kind, code, group, rest(4))
        .prop_map(|(kind, code, group, rest)| [&[kind, code, 0, 0][..], &group, &rest].concat());
    damaged(messages, |bytes| {
        let len = bytes.len();
        seal(bytes, len, 2, 0);
    })
}

fn mld_messages() -> BoxedStrategy<Vec<u8>> {
    let kind =
        prop_oneof![6 => Just(130u8), 1 => Just(REPORT_V1), 1 => Just(132), 1 => Just(143), 1 => any::<u8>()];
    let group = prop_oneof![3 => Just([0; 16]), 4 => any::<[u8; 16]>().prop_map(|mut group| { group[0] = 0xff; group }), 1 => any::<[u8; 16]>()];
    let messages = (kind, any::<[u8; 2]>(), group, rest(16))
        .prop_map(|(kind, code, group, rest)| [&[kind, 0, 0, 0][..], &code, &[0, 0], &group, &rest].concat());
    damaged(messages, |bytes| {
        let (len, pseudo) = (bytes.len(), mld_pseudo(bytes));
        seal(bytes, len, 2, pseudo);
    })
}

proptest! {
    #[test]
    fn what_smoltcp_says_of_groups_we_understand(tenths in 1u64..128, group in any::<[u8; 3]>()) {
        let group_addr = Ipv4Addr::new(239, group[0], group[1], group[2]);
        let repr = IgmpRepr::MembershipQuery {
            max_resp_time: smoltcp::time::Duration::from_millis(tenths * 100),
            group_addr,
            version: smoltcp::wire::IgmpVersion::Version2,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut IgmpPacket::new_unchecked(&mut bytes[..]));
        prop_assert_eq!((IGMP.ours)(&bytes), (IGMP.theirs)(&bytes));
    }

    #[test]
    fn records_that_we_write_are_what_smoltcp_reads(groups in vec(any::<[u8; 15]>(), 1..5)) {
        use exos_net::wire::membership::Record;
        let groups: Vec<Ipv6Addr> = groups.iter().map(|rest| {
            let mut group = [0xff; 16];
            group[1..].copy_from_slice(rest);
            group.into()
        }).collect();
        let records = groups.iter().flat_map(|&group| mld::emit_record(Record::Joins, group)).collect::<Vec<_>>();
        let ip = mld::header(ROUTER, mld::REPORT_ROUTERS);
        let mut head = [0; mld::REPORT_BYTES];
        mld::emit_report(&ip, &records, &mut head);
        let bytes = [&head[..], &records].concat();
        let packet = Icmpv6Packet::new_checked(&bytes[..]).unwrap();
        prop_assert!(packet.verify_checksum(&ROUTER, &mld::REPORT_ROUTERS));
        let Ok(MldRepr::Report { nr_mcast_addr_rcrds, mut data }) = MldRepr::parse(&packet) else { panic!("no report") };
        prop_assert_eq!(usize::from(nr_mcast_addr_rcrds), groups.len());
        for group in groups {
            let record = smoltcp::wire::MldAddressRecord::new_checked(data).unwrap();
            prop_assert_eq!((record.record_type(), record.mcast_addr(), record.num_srcs()), (smoltcp::wire::MldRecordType::ChangeToExclude, group, 0));
            data = &data[mld::RECORD_BYTES..];
        }
    }
}
